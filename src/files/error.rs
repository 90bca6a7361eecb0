//! What can go wrong with folders and their history, by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::id::{BlobId, RefName};

/// The most missing blobs an [`Error::Incomplete`] names: enough to see what is going on.
pub const MISSING_NAMED_MAX: usize = 100;

/// A failure of a backup, a restore or a ref.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::coffer::Error),
    /// A state file failed.
    #[error(transparent)]
    State(#[from] crate::durable::Error),
    /// Something names this blob, and it is not stored.
    #[error("blob {id} is not stored, though a tree names it: fetch it from a peer, or back up again")]
    Missing {
        /// The blob.
        id: BlobId,
    },
    /// A blob that must be a tree or a commit is none.
    #[error("blob {id} is no {expected}: {what}")]
    Malformed {
        /// The blob.
        id: BlobId,
        /// `tree` or `commit`.
        expected: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A tree, commit or ref was written by a newer Refuge.
    #[error("{what} has version {found}, this refuge reads up to {known}: install a newer refuge")]
    Newer {
        /// What was read.
        what: String,
        /// Its version.
        found: u32,
        /// The newest version this binary reads.
        known: u32,
    },
    /// The ref moved since it was read: read it again, then decide again.
    #[error("ref {name} was moved by someone else meanwhile")]
    Conflict {
        /// The ref.
        name: RefName,
    },
    /// The ref would name what is not stored: put it, then move the ref again.
    #[error("ref {name} would name {} blobs that are not stored, for example {}", missing.len(), first(missing))]
    Incomplete {
        /// The ref.
        name: RefName,
        /// What is missing; at most [`MISSING_NAMED_MAX`].
        missing: Vec<BlobId>,
    },
    /// The ref keeps as many snapshots as one can.
    #[error("ref {name} has {limit} snapshots: drop some with `refuge prune`")]
    Full {
        /// The ref.
        name: RefName,
        /// The limit.
        limit: usize,
    },
    /// There is no such ref.
    #[error("there is no ref {name}")]
    NoRef {
        /// The ref.
        name: RefName,
    },
    /// The ref has no such snapshot.
    #[error("ref {name} has no snapshot {selector}: see `refuge snapshots {name}`")]
    NoSnapshot {
        /// The ref.
        name: RefName,
        /// What was asked for.
        selector: String,
    },
    /// The text names no snapshot.
    #[error(
        "{text:?} names no snapshot: write latest, -1 for the one before it, the first digits of a tree's hash, or a time like 2026-01-31 or 2026-01-31T12:00:00Z"
    )]
    Selector {
        /// The text.
        text: String,
    },
    /// Several snapshots have a tree whose hash begins so.
    #[error("ref {name} has several snapshots that begin with {selector}: give more digits")]
    Ambiguous {
        /// The ref.
        name: RefName,
        /// What was asked for.
        selector: String,
    },
    /// The snapshot has nothing at this path.
    #[error("the snapshot holds nothing at {}", path.display())]
    NoPath {
        /// The path within the snapshot.
        path: PathBuf,
    },
    /// Something is in the way, and nobody said that it may be overwritten.
    #[error("{} is there already: restore into an empty folder, or say whether to resume or to replace", path.display())]
    Exists {
        /// The path in the target.
        path: PathBuf,
    },
    /// The folder is the one that is backed up into.
    #[error("{} is the data folder itself: back it up into another one", path.display())]
    IntoItself {
        /// The folder.
        path: PathBuf,
    },
    /// A rule of what to leave out is none.
    #[error("{rule:?} is no include or exclude rule: {source}")]
    Rule {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        #[source]
        source: ignore::Error,
    },
    /// Keep rules that keep nothing: refused, as they would drop everything.
    #[error("these rules keep no snapshot at all: name at least one to keep")]
    KeepsNothing,
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The caller asked to stop. What was stored so far is used by the next backup.
    #[error("stopped as asked")]
    Cancelled,
    /// Another node could not be asked, or refused.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// Another node answered something that cannot be.
    #[error("{url}: {reason}")]
    Remote {
        /// What was asked.
        url: String,
        /// What it said.
        reason: String,
    },
}

impl Error {
    /// The failure of an operation on `path`.
    pub(super) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Error::Io {
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// A tree that is none.
    pub(super) fn tree(id: &BlobId, what: impl Into<String>) -> Self {
        Error::Malformed {
            id: *id,
            expected: "tree",
            what: what.into(),
        }
    }

    /// A commit that is none.
    pub(super) fn commit(id: &BlobId, what: impl Into<String>) -> Self {
        Error::Malformed {
            id: *id,
            expected: "commit",
            what: what.into(),
        }
    }

    /// Whether the disk that is written to is full: going on with other files is pointless.
    pub(super) fn is_no_space(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(
                source.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS)
            ),
            _ => false,
        }
    }
}

fn first(missing: &[BlobId]) -> String {
    missing.first().map(BlobId::to_string).unwrap_or_default()
}
