//! What can go wrong with blobs, by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::id::BlobId;

/// A failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes do not have the id they were sent under. Nothing was kept.
    #[error("the bytes have the id {actual}, not {expected}")]
    Mismatch {
        /// What the sender said, as text, since it may be an alias.
        expected: String,
        /// What the bytes are.
        actual: String,
    },
    /// A stored blob is not what its id says. It was not served as whole; `refuge check --repair` sets it aside.
    #[error(
        "blob {id} is damaged on disk: run `refuge check --repair`, then put it again or fetch it from a peer"
    )]
    Corrupt {
        /// The blob.
        id: BlobId,
    },
    /// The disk is full, or down to what is kept for deletes. Writes resume by themselves after space is freed.
    #[error("the disk under {} is full: free space, then try again", path.display())]
    NoSpace {
        /// The folder or file that could not grow.
        path: PathBuf,
    },
    /// An earlier write or flush failed; the store takes no writes until it is reopened. Reads go on.
    #[error("the store is read only since a write failed ({reason}): check the disk, then restart the node")]
    ReadOnly {
        /// The failure that caused it.
        reason: String,
    },
    /// Out of file descriptors, connections or memory windows: try again.
    #[error("too much is going on at once: try again")]
    Busy,
    /// A file of the store is not what it must be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The folder of a store holds none: other files are in it, or its disk is not mounted.
    #[error("{} holds no blobs of refuge: mount its disk, or choose an empty folder", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the store was written by a newer Refuge.
    #[error("{} has format {found}, this refuge reads up to {known}: install a newer refuge", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this binary reads.
        known: u32,
    },
    /// One blob of more than the backend takes in one piece was handed to `append`.
    #[error("a blob of {len} bytes does not go in one piece: stream it")]
    TooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A state file of the store.
    #[error(transparent)]
    State(#[from] crate::durable::Error),
    /// Another node could not be asked, or refused.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
    /// Another node answered something that cannot be.
    #[error("{reason}")]
    Remote {
        /// What is wrong with it; names the node.
        reason: String,
    },
}

impl Error {
    /// The failure of an operation on `path`, by what its error code means to a caller.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Error::NoSpace {
                path: path.to_owned(),
            },
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN) => Error::Busy,
            _ => Error::Io {
                path: path.to_owned(),
                source,
            },
        }
    }
}
