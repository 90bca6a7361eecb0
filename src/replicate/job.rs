//! One replication from its beginning to its end: sessions, and the waits between those that failed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::backoff::Backoff;
use super::checkpoint::{Identity, PeerSeq, document_id};
use super::local::Filter;
use super::peer::Failure;
use super::place;
use super::session::{Plan, Report, Session};
use super::transfer::Transfers;
use super::work::{self, Pair};
use crate::node::{Job, JobState, MangoSelector, Node, ReplicationDone, ReplicationRequest};

/// The first wait after a session that failed, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What all jobs share.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) node: Node,
    pub(super) options: Arc<Options>,
    /// What documents that are brought over take of memory, of all jobs.
    pub(super) transfers: Arc<Transfers>,
}

/// A replication that can be begun.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) id: String,
    pub(super) request: ReplicationRequest,
    pair: Pair,
}

/// How a replication ended.
pub(super) struct Ended {
    pub(super) done: Result<ReplicationDone, Failure>,
    pub(super) job: Job,
}

/// Finds both databases and the id.
///
/// # Errors
/// As [`place::find`].
pub(super) async fn prepare(around: &Around, request: ReplicationRequest) -> Result<Prepared, Failure> {
    let filter = filter_of(&request)?;
    let (node, options) = (&around.node, &*around.options);
    let source = place::find(node, options, &request.source, filter).await?;
    let target = place::find(node, options, &request.target, Filter::All).await?;
    let identity = Identity {
        node: &node.identity().node_id().to_string(),
        source: &source.identity,
        target: &target.identity,
        doc_ids: request.doc_ids.as_deref(),
        selector: request.selector.as_ref(),
    };
    let base = identity.id();
    Ok(Prepared {
        id: match request.continuous {
            true => format!("{base}+continuous"),
            false => base.clone(),
        },
        request,
        pair: Pair {
            source: source.peer,
            target: target.peer,
            checkpoint: document_id(&base),
            transfers: Arc::clone(&around.transfers),
        },
    })
}

fn filter_of(request: &ReplicationRequest) -> Result<Filter, Failure> {
    if let Some(ids) = &request.doc_ids {
        return Ok(Filter::Ids(Arc::new(
            ids.iter().cloned().collect::<BTreeSet<_>>(),
        )));
    }
    let Some(json) = &request.selector else {
        return Ok(Filter::All);
    };
    let selector = MangoSelector::parse(json).map_err(|error| Failure::fatal(error.to_string()))?;
    Ok(Filter::Selector(Arc::new(selector), json.clone()))
}

/// A job that has not begun.
pub(super) fn job_of(prepared: &Prepared) -> Job {
    let now = SystemTime::now();
    let request = &prepared.request;
    let mut job = Job {
        id: prepared.id.clone(),
        doc_id: request.doc_id.clone(),
        source: request.source.shown().to_owned(),
        target: request.target.shown().to_owned(),
        continuous: request.continuous,
        started: now,
        updated: now,
        state: JobState::Pending,
        last_error: None,
        errors: 0,
        stats: Default::default(),
        through: Value::from(0),
        pending: None,
        events: Vec::new(),
    };
    job.happened(now, "added", None);
    job
}

/// Replicates until it is done or stopped. A session that failed is followed by another, after a while, where `tries_again` says so.
pub(super) async fn work(
    around: Around,
    mut prepared: Prepared,
    mut job: Job,
    tries_again: bool,
    stop: CancellationToken,
) -> Ended {
    let seed = HEXLOWER.decode(&prepared.id.as_bytes()[..16]).unwrap_or_default();
    let seed = u64::from_be_bytes(seed.try_into().unwrap_or_default());
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, seed);
    let replications = around.node.replications().clone();
    loop {
        let before = job.stats.clone();
        job.state = JobState::Running;
        job.happened(SystemTime::now(), "started", None);
        replications.tell(job.clone());
        let mut has_progress = false;
        let session = session_of(&prepared, seed, backoff.failures());
        let ended = match session {
            Ok((session_id, plan)) => {
                let mut told = |session: &Session| {
                    has_progress |= session.has_progress();
                    if note(&mut job, &before, session) {
                        replications.tell(job.clone());
                    }
                };
                let ended = work::run(&prepared.pair, plan, &stop, &mut told).await;
                ended.map(|report| done(session_id, report))
            }
            Err(failure) => Err(failure),
        };
        let now = SystemTime::now();
        match ended {
            Ok(done) => {
                job.last_error = None;
                job.happened(now, "stopped", None);
                return Ended { done: Ok(done), job };
            }
            Err(failure) => {
                job.last_error = Some(failure.reason.clone());
                job.errors += 1;
                job.happened(now, "crashed", Some(failure.reason.clone()));
                if !tries_again || stop.is_cancelled() {
                    return Ended {
                        done: Err(failure),
                        job,
                    };
                }
                if has_progress {
                    backoff.reset();
                    job.errors = 1;
                }
                let wait = backoff.next();
                tracing::warn!(replication = %job.id, source = %job.source, target = %job.target, error = %failure,
                    wait_s = wait.as_secs_f32(), "a replication failed: it is tried again");
                job.state = JobState::Crashing;
                replications.tell(job.clone());
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return Ended { done: Err(failure), job },
                }
                prepared = renewed(&around, prepared).await;
            }
        }
    }
}

/// The same with what opens its databases now: a secret may have been replaced since.
async fn renewed(around: &Around, before: Prepared) -> Prepared {
    match prepare(around, before.request.clone()).await {
        Ok(prepared) if prepared.id == before.id => prepared,
        Ok(_) | Err(_) => before,
    }
}

fn session_of(prepared: &Prepared, seed: u64, failures: u32) -> Result<(String, Plan), Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Failure::fatal(error.to_string()))?;
    let session_id = HEXLOWER.encode(&random);
    let since = match prepared.request.since_seq.clone() {
        None => None,
        Some(since) => {
            Some(PeerSeq::of_json(since).ok_or_else(|| Failure::fatal("since_seq is no sequence"))?)
        }
    };
    let plan = Plan {
        session_id: session_id.clone(),
        start_time: httpdate::fmt_http_date(SystemTime::now()),
        continuous: prepared.request.continuous,
        create_target: prepared.request.create_target,
        names: [&prepared.request.source, &prepared.request.target].map(|side| side.shown().to_owned()),
        // What was asked for is where the first session begins; those after it go on.
        since: since.filter(|_| failures == 0),
        seed: seed ^ u64::from_be_bytes(random[..8].try_into().unwrap_or_default()),
    };
    Ok((session_id, plan))
}

/// Takes note of how far a session is; whether there is anything new.
fn note(job: &mut Job, before: &crate::node::ReplicationStats, session: &Session) -> bool {
    let stats = session.stats();
    let mut fresh = before.clone();
    fresh.missing_checked += stats.missing_checked;
    fresh.missing_found += stats.missing_found;
    fresh.docs_read += stats.docs_read;
    fresh.docs_written += stats.docs_written;
    fresh.doc_write_failures += stats.doc_write_failures;
    let (through, pending) = session.progress();
    let error = session.last_error().map(|failure| failure.reason.clone());
    let error = error.or_else(|| job.last_error.clone().filter(|_| !session.has_progress()));
    let is_new = fresh != job.stats
        || pending != job.pending
        || *through.as_json() != job.through
        || error != job.last_error;
    if is_new {
        job.stats = fresh;
        job.pending = pending;
        job.through = through.as_json().clone();
        job.last_error = error;
        job.updated = SystemTime::now();
    }
    is_new
}

fn done(session_id: String, report: Report) -> ReplicationDone {
    let mut history = report.history;
    if let Some(entry) = history.first_mut().filter(|entry| entry.end_time.is_empty()) {
        entry.end_time = httpdate::fmt_http_date(SystemTime::now());
    }
    ReplicationDone {
        session_id,
        source_last_seq: report.source_last_seq.as_json().clone(),
        history: history
            .iter()
            .map(|entry| serde_json::to_value(entry).expect("an entry of a history is JSON"))
            .collect(),
        no_changes: report.no_changes,
    }
}
