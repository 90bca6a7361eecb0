//! A replication from the command line, without a running node: the edge in this process, until it is done or told to stop.

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::node::{Node, ReplicationDone, ReplicationRequest};
use crate::replicate::{self, KnownNode, Options};

/// Replicates between databases of `node` and of servers, of which `known` nodes are. An interrupt ends it; the next one goes on.
///
/// # Errors
/// [`crate::node::ReplicationFailure`].
pub fn replicate(
    node: Node,
    known: Vec<KnownNode>,
    request: ReplicationRequest,
    runtime: &Runtime,
) -> anyhow::Result<ReplicationDone> {
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let replicating = replicate::once(node, Options::of_user(known), request, stop.clone());
        tokio::pin!(replicating);
        loop {
            tokio::select! {
                done = &mut replicating => return Ok(done?),
                _ = interrupt.recv() => stop.cancel(),
                _ = terminate.recv() => stop.cancel(),
            }
        }
    })
}
