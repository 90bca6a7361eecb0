//! The replication edge: databases of this node kept alike with databases of other servers, in either direction, as CouchDB's
//! replicator does it.
//!
//! ```text
//!  node::Replications ── orders ──> jobs ──> job: sessions and waits ──> work (tasks, clock) ──> session, checkpoint (pure)
//!  database _replicator ── docs ──┘                                        └──> transfer ──> peer: local │ http
//! ```
//!
//! - `session` and `checkpoint` are the protocol; they know no sockets and no clock.
//! - `peer` is what a side can do; `local` a database of this node, `http` one of a server that speaks CouchDB's API.
//! - `place` finds the peer that a request names.
//!
//! What is bounded: replications that go on, batches of each and of all, bytes of documents on their way, attempts, waits, answers. What a peer sends is checked before
//! it is stored. Security objects, people and replications themselves are never replicated.

mod backoff;
mod checkpoint;
mod docs;
mod http;
mod job;
mod jobs;
mod local;
mod peer;
mod place;
mod session;
#[cfg(test)]
mod simulation;
mod transfer;
mod work;

use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use crate::http::{ALLOWED_MAX, Range, RangeError};

use crate::http::{NodeUrl, Token, public_or_listed};
use crate::id::NodeId;
use crate::node::{Node, ReplicationDone, ReplicationFailure, ReplicationRequest};
use job::Around;
use transfer::Transfers;

/// How this node replicates.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Addresses besides those of the public internet that may be reached, and all that are reached over plain HTTP.
    pub allowed: Vec<Range>,
    /// Nodes whose identity is known.
    pub known: Vec<KnownNode>,
}

/// A node whose identity is known.
#[derive(Debug, Clone)]
pub struct KnownNode {
    /// Where it is.
    pub url: NodeUrl,
    /// Who it proves to be.
    pub node_id: NodeId,
    /// What opens it, where a request says nothing.
    pub token: Option<Token>,
}

impl Options {
    /// For whoever replicates from their own command line: every address may be reached, as with any program of theirs.
    pub fn of_user(known: Vec<KnownNode>) -> Options {
        let everything = ["0.0.0.0/0", "::/0"];
        Options {
            allowed: everything
                .into_iter()
                .filter_map(|range| range.parse().ok())
                .collect(),
            known,
        }
    }

    /// Whether a server at this address may be reached: what is sent in the clear goes to addresses alone that the owner lists.
    pub fn allows(&self, is_https: bool, address: IpAddr) -> bool {
        public_or_listed(self.allowed.clone(), is_https)(address)
    }

    fn known(&self, url: &NodeUrl) -> Option<&KnownNode> {
        self.known.iter().find(|known| known.url == *url)
    }
}

/// Replicates what the node is asked for until `shutdown`; what goes on then writes down how far it is.
pub async fn run(node: Node, options: Options, shutdown: CancellationToken) {
    jobs::run(around(node, options), shutdown).await;
}

/// Replicates once, or with `continuous` until `stop`.
///
/// # Errors
/// [`ReplicationFailure`], with what was tried last.
pub async fn once(
    node: Node,
    options: Options,
    request: ReplicationRequest,
    stop: CancellationToken,
) -> Result<ReplicationDone, ReplicationFailure> {
    let around = around(node, options);
    let tries_again = request.continuous;
    let prepared = job::prepare(&around, request).await.map_err(jobs::outcome)?;
    let job = job::job_of(&prepared);
    let ended = job::work(around, prepared, job, tries_again, stop).await;
    ended.done.map_err(jobs::outcome)
}

fn around(node: Node, options: Options) -> Around {
    Around {
        node,
        options: Arc::new(options),
        transfers: Arc::new(Transfers::default()),
    }
}
