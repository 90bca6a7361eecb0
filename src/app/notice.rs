//! The service manager, where one watches: it hears that the node is ready, how it is, that it makes progress and that
//! it stops (sd_notify(3)). Everywhere else nothing is said.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri, header};
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::{Connection, Scheme};
use crate::node::{HealthReport, HealthState, Node};

/// Signs of life within the time after which the service manager gives up: one of them may be lost.
const FEEDS: u32 = 3;

/// How the node is, is said that often where no watchdog asks for more.
const TELL_EVERY: Duration = Duration::from_secs(20);

/// Says that the node answers.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that it is about to end.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: requests under way may end"),
    ]);
}

/// Says how the node is until `shutdown`, and feeds the watchdog, where the service manager set one, for as long as the
/// node makes progress: its main store has to answer, and its API. A timer that ticks regardless would be worse than none.
pub(super) async fn feed(
    node: Node,
    router: Router,
    port: u16,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(TELL_EVERY, |within| within / FEEDS);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let progress = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            progress = timeout(every, progress(&node, router.clone(), port)) => progress,
        };
        match (progress, watchdog) {
            (Ok(()), Some(_)) => tell(&[NotifyState::Watchdog]),
            (Ok(()), None) => {}
            (Err(_), _) => {
                tracing::error!("the node makes no progress: the store or the API does not answer")
            }
        }
        let status = status(&node.health().report(), node.claim().is_claimed());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
}

/// Returns once store and API have answered.
async fn progress(node: &Node, router: Router, port: u16) {
    node.progress().await;
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("/api/status");
    let host = format!("localhost:{port}")
        .parse()
        .expect("digits are a header value");
    request.headers_mut().insert(header::HOST, host);
    let connection = Connection::new(local, local, Scheme::Plain, CancellationToken::new());
    request.extensions_mut().insert(connection);
    let Ok(answer) = router.oneshot(request).await;
    if !answer.status().is_success() {
        tracing::warn!(status = %answer.status(), "the API answers, with an error");
    }
}

/// One line for people who ask the service manager.
fn status(report: &HealthReport, is_claimed: bool) -> String {
    let owner = if is_claimed { "" } else { ", waits for its owner" };
    match (report.state, report.reasons.first()) {
        (HealthState::Ready, _) => format!("ready{owner}"),
        (state, None) => format!("{}{owner}", state.name()),
        (state, Some(reason)) => format!("{}: {reason}{owner}", state.name()),
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
