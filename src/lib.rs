//! Refuge stores, syncs and shares people's own data, without a company in between.
//!
//! The map, from the bottom up (ARCHITECTURE.md draws it, `tests/it/tidy.rs` enforces who may import whom):
//!
//! - [`id`]       newtypes for everything that is named; no I/O.
//! - [`durable`]  small state files, replaced whole.
//! - [`db`]       one SQLite file: one writer, a few readers.
//! - [`http`]     the HTTP client that talks to another node.
//! - [`coffer`]   blobs by content: the only way bytes enter or leave the store.
//! - [`files`]    folders over blobs: backup, restore and the history behind a ref.
//! - [`blanket`]  documents with revision trees, that replicate as CouchDB's do.
//! - [`node`]     the use cases: the only place that joins blobs, files, accounts and events.
//! - [`api`]      the HTTP edge: what a node can do, over HTTP.
//! - [`replicate`] the replication edge: databases kept alike with those of other servers.
//! - [`discovery`] the LAN edge: who is on the local network.
//! - [`board`]    the board edge: light and button.
//! - [`config`]   what a node is told before it starts.
//! - [`app`]      opens, wires and ends everything; [`cli`] is one file per subcommand.
//!
//! Invariants: bytes are durable before the name that points at them, and the name is gone before the
//! bytes are; leftover bytes are garbage, missing bytes are corruption. An index can be dropped at any
//! time. A digest is checked on entry and again on read-out.

pub mod api;
pub mod app;
pub mod blanket;
pub mod board;
pub mod cli;
pub mod coffer;
pub mod config;
pub mod db;
pub mod discovery;
pub mod durable;
pub mod files;
pub mod http;
pub mod id;
pub mod node;
pub mod replicate;
