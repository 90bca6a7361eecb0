//! Folders over blobs: backup, restore and the history behind a ref.
//!
//! ```text
//!  ref ──> snapshots ──> tree (a folder) ──> tree ──> ...
//!                          ├──> part                    a file of one part
//!                          └──> commit ──> part, part   a file that needs more said
//! ```
//!
//! A [`Repository`] is a store and the refs into it; the refs may be local or those of another node. All of
//! this blocks and runs on threads of its own. Parts, commits and trees are stored as
//! [`Class::Part`](crate::coffer::Class): they live as long as a ref names them. Nothing here deletes a
//! blob: dropping a snapshot takes it out of its ref, and the collector frees what [`reachable()`] no longer
//! visits.

mod backup;
mod beneath;
mod chunk;
mod commit;
mod diff;
mod error;
#[cfg(test)]
mod fixture;
mod pool;
mod progress;
mod prune;
mod reachable;
mod refs;
mod restore;
mod schema;
mod snapshots;
mod tree;
mod verify;

use std::sync::Arc;

pub use backup::{BackupOptions, BackupReport, Checkpoints, backup};
pub use chunk::{Cutter, PartSizes};
pub use commit::{Commit, Pieces, Segment};
pub use diff::{Change, Difference, diff};
pub use error::{Error, MISSING_NAMED_MAX};
pub use progress::{Counts, PROBLEMS_MAX, Problem, Progress, Trouble};
pub use prune::{Keep, PruneReport, prune};
pub use reachable::{Named, Root, added, reachable};
pub use refs::{
    LocalRefs, RefRecord, RefVersion, Refs, RemoteRefs, RootMeta, SNAPSHOTS_MAX, Selector, Snapshot,
};
pub use restore::{Overwrite, RestoreOptions, RestoreReport, restore};
pub use snapshots::{snapshot, snapshots};
pub use tree::{Body, Device, Entries, Entry, EntryName, Kind, Meta, Seen, Time, entries, find};
pub use verify::{VerifyReport, verify};

use crate::coffer::Store;

/// Where folders go: a store, and the refs that name what is in it.
#[derive(Clone)]
pub struct Repository {
    /// Parts, commits and trees.
    pub store: Store,
    /// The names of snapshots.
    pub refs: Arc<dyn Refs>,
}
