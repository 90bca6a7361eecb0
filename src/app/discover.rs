//! Asking the local network which nodes there are, without being one.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::discovery;
use crate::node::Peer;

/// How long answers are waited for: two questions of multicast DNS, a second apart, and three of the beacon. With the
/// start of the program it stays below two seconds.
const PATIENCE: Duration = Duration::from_millis(1600);

/// The nodes that answer, by name: hints, not proof of who is there. Blocks for 1.6 seconds.
///
/// # Errors
/// Where no socket can be opened.
pub fn discover(runtime: &Runtime) -> anyhow::Result<Vec<Peer>> {
    Ok(runtime.block_on(discovery::look(PATIENCE))?)
}
