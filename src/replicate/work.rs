//! A session at work: the requests that it begins, each in a task of its own, and the clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoint;
use super::peer::{ChangesAsk, Failure, Peer, Side};
use super::session::{Answer, BATCH_ROWS, Plan, Report, Request, Session, Ticket};
use super::transfer::{Transfers, transfer};
use crate::id::LocalId;

/// How long a session that was stopped may take to write down how far it is.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What a session needs.
#[derive(Clone)]
pub(super) struct Pair {
    /// Where documents come from.
    pub(super) source: Arc<dyn Peer>,
    /// Where they go.
    pub(super) target: Arc<dyn Peer>,
    /// The name of the checkpoint on both.
    pub(super) checkpoint: LocalId,
    /// What documents that are brought over take of memory.
    pub(super) transfers: Arc<Transfers>,
}

/// Runs a session until it ends; `stop` ends it early, with what is stored written down. `told` hears of it after each step. May be
/// cancelled: the next one goes on from the last checkpoint.
///
/// # Errors
/// What the session failed with, after as many attempts as it makes.
pub(super) async fn run(
    pair: &Pair,
    plan: Plan,
    stop: &CancellationToken,
    told: &mut (dyn FnMut(&Session) + Send),
) -> Result<Report, Failure> {
    let began = Instant::now();
    let mut session = Session::new(plan);
    let mut tasks: JoinSet<(Ticket, Result<Answer, Failure>)> = JoinSet::new();
    let mut deadline = None;
    loop {
        for (ticket, request) in session.poll(began.elapsed()) {
            let pair = pair.clone();
            tasks.spawn(async move { (ticket, ask(&pair, request).await) });
        }
        told(&session);
        if let Some(ended) = session.ended() {
            return ended;
        }
        let next = session.deadline().map(|at| began + at);
        let next = next.into_iter().chain(deadline).min();
        tokio::select! {
            answered = tasks.join_next(), if !tasks.is_empty() => {
                match answered {
                    Some(Ok((ticket, answer))) => session.answered(ticket, answer, began.elapsed()),
                    // Nobody would ever answer for it.
                    Some(Err(_)) => return Err(Failure::fatal("a request to a peer ended without an answer")),
                    None => {}
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or(began)), if next.is_some() => {
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Err(Failure::fatal("it was stopped"));
                }
            }
            () = stop.cancelled(), if deadline.is_none() => {
                deadline = Some(Instant::now() + CLOSE_WITHIN);
                session.stop();
            }
        }
    }
}

async fn ask(pair: &Pair, request: Request) -> Result<Answer, Failure> {
    let side = |side: Side| match side {
        Side::Source => &pair.source,
        Side::Target => &pair.target,
    };
    Ok(match request {
        Request::Open(of) => Answer::Opened(side(of).open().await?),
        Request::Create => {
            pair.target.create().await?;
            Answer::Created
        }
        Request::ReadCheckpoint(of) => {
            Answer::Checkpoint(side(of).checkpoint(pair.checkpoint.clone()).await?)
        }
        Request::Changes { since, wait } => {
            let limit = BATCH_ROWS;
            Answer::Page(pair.source.changes(ChangesAsk { since, limit, wait }).await?)
        }
        Request::Differ { rows, .. } => Answer::Wanted(pair.target.differ(&rows).await?),
        Request::Move { wanted, .. } => {
            let room = Transfers::room(&pair.transfers).await?;
            Answer::Moved(transfer(&*pair.source, &*pair.target, &wanted, room).await?)
        }
        Request::Commit { .. } => {
            pair.target.commit().await?;
            Answer::Committed
        }
        Request::Keep {
            side: of,
            rev,
            checkpoint,
        } => {
            let checkpoint = dated((*checkpoint).clone());
            Answer::Kept(side(of).keep(pair.checkpoint.clone(), rev, checkpoint).await?)
        }
    })
}

/// The newest entry says when it was written.
fn dated(mut checkpoint: Checkpoint) -> Checkpoint {
    if let Some(entry) = checkpoint.history.first_mut() {
        entry.end_time = httpdate::fmt_http_date(SystemTime::now());
    }
    checkpoint
}
