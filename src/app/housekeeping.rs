//! What a running node does without being asked: small chores each minute, a collection now and then.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::node::{COLLECT_EVERY, Node, PULSE_EVERY};

/// As often as the node wants it.
const TEND_EVERY: Duration = Duration::from_secs(60);

/// Tends a node until `shutdown`. What fails is tried again the next time.
pub(super) async fn tend(node: Node, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = ticks_of(TEND_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        if let Err(error) = node.tend().await {
            tracing::warn!(%error, "what has to be done now and then failed: it is tried again in a minute");
        }
    }
}

/// Writes a sign of life now and then until `shutdown`; the first at once, as the disk may be read-only already.
pub(super) async fn beat(node: Node, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(PULSE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        if let Err(error) = node.beat().await {
            tracing::error!(%error, "the disk of the data folder takes no writes");
        }
    }
}

/// Collects until `shutdown`, which also ends a collection under way.
pub(super) async fn collect(node: Node, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = ticks_of(COLLECT_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let stop = shutdown.clone();
        match node.gc().run(move || stop.is_cancelled()).await {
            Ok(stores) => {
                for collected in stores {
                    tracing::info!(
                        store = %collected.store,
                        freed = collected.freed,
                        freed_bytes = collected.freed_bytes,
                        waiting = collected.waiting,
                        "collected",
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "a collection failed: it is tried again in some hours"),
        }
    }
}

/// The first comes after one period: a start has better things to do.
fn ticks_of(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
