//! What a use case can answer besides success, by what the caller does about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::channel::ChannelTrouble;
use super::disk::DiskTrouble;
use super::update::UpdateTrouble;
use crate::id::{BlobId, StoreName};
use crate::{blanket, coffer, db, durable, files};

/// An outcome of a use case that is not success. Its text is for the person who asked: it names the thing and
/// what to do. What only an engineer should read is in the source of [`Error::Internal`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing.
    #[error("there is no {kind} {name}")]
    Missing {
        /// What was asked for.
        kind: Kind,
        /// Its name or id.
        name: String,
    },
    /// It is there already, or is not in the state the caller expected it in.
    #[error("{kind} {name}: {reason}")]
    Conflict {
        /// What was to be changed.
        kind: Kind,
        /// Its name or id.
        name: String,
        /// What is in the way.
        reason: &'static str,
    },
    /// A stored blob is damaged. It was not served as whole.
    #[error(
        "blob {id} is damaged on disk: run `refuge check --repair`, then put it again or fetch it from a peer"
    )]
    Corrupt {
        /// The blob.
        id: BlobId,
    },
    /// The bytes are not what the sender said. Nothing was kept.
    #[error("the bytes have the digest {actual}, not {expected}")]
    Mismatch {
        /// What the sender said.
        expected: String,
        /// What they are.
        actual: String,
    },
    /// A ref or a document was to name blobs that are not stored.
    #[error("{} that this would name {} not stored: put {} first", plural(missing.len(), *more), if missing.len() == 1 && !more { "is" } else { "are" }, if missing.len() == 1 && !more { "it" } else { "them" })]
    Incomplete {
        /// The first of them, at most 1,000.
        missing: Vec<BlobId>,
        /// Whether there are more.
        more: bool,
    },
    /// Bytes came for another offset than the one acknowledged last.
    #[error("the upload goes on at byte {expected}, not at {found}")]
    Offset {
        /// Where it goes on.
        expected: u64,
        /// Where the caller wanted to.
        found: u64,
    },
    /// Too much is going on at once: try again.
    #[error("too much is going on at once: try again")]
    Busy,
    /// Too many attempts.
    #[error("too many attempts: try again in {} seconds", retry_after.as_secs().max(1))]
    RateLimited {
        /// When another attempt may be worth it.
        retry_after: Duration,
    },
    /// The node will not do it, and trying again changes nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was asked makes no sense.
    #[error("{what}: {reason}")]
    Invalid {
        /// The field or thing.
        what: &'static str,
        /// What it must be.
        reason: String,
    },
    /// More than is taken.
    #[error("this is too large: at most {limit} bytes")]
    TooLarge {
        /// The most that is taken, in bytes.
        limit: u64,
    },
    /// The disk is full. Deletes still work, writes resume after space is freed.
    #[error("the disk under {} is full: free space, then try again", path.display())]
    NoSpace {
        /// The folder or file that could not grow.
        path: PathBuf,
    },
    /// The store takes no writes until the node is restarted. Reads go on.
    #[error("the store is read only since a write failed ({reason}): check the disk, then restart the node")]
    ReadOnly {
        /// The failure that caused it.
        reason: String,
    },
    /// The store is not open, such as one on a disk that is not plugged in.
    #[error(
        "store {store} is offline ({reason}): bring its disk back; where the box does not look after that disk, restart the node"
    )]
    Offline {
        /// The store.
        store: StoreName,
        /// What failed.
        reason: String,
    },
    /// The server that a database is on does not do what it must: nothing was written.
    #[error("the server of this database is away ({reason})")]
    Away {
        /// What failed.
        reason: String,
    },
    /// A disk is not what was asked of it.
    #[error(transparent)]
    Disk(#[from] DiskTrouble),
    /// The box's system is not updated.
    #[error(transparent)]
    Update(#[from] UpdateTrouble),
    /// The channel of updates is not believed, or gives nothing.
    #[error(transparent)]
    Channel(#[from] ChannelTrouble),
    /// The data folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A failure that only an engineer can act on; its source says what happened.
    #[error("the node failed: {0}")]
    Internal(#[source] Cause),
}

/// Kinds of things a use case names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A blob.
    Blob,
    /// A named store.
    Store,
    /// A ref.
    Ref,
    /// A snapshot of a ref.
    Snapshot,
    /// A path inside a tree.
    Path,
    /// A partial upload.
    Upload,
    /// An account.
    Account,
    /// An app token.
    Token,
    /// The claim of the node.
    Claim,
    /// A database of documents.
    Database,
    /// A replication of databases.
    Replication,
    /// A secret that opens another server.
    Secret,
    /// A bundle, or a part of it.
    Bundle,
}

/// Why the node will not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong name or password; which of them is not said.
    #[error("the account name or the password is wrong")]
    Credentials,
    /// The claim code, or the proof of it, is wrong.
    #[error("the claim code is wrong: it is shown where the node was started")]
    ClaimCode,
    /// Without a code a node is claimed only while its button says so.
    #[error("press the button of the box, then claim it within two minutes; or give the claim code")]
    ClaimWindow,
    /// Nothing looks after the hardware of this machine.
    #[error("this node knows of no board: it is started with --board on the box")]
    NoBoard,
    /// The store that every node has cannot be removed.
    #[error("the store main cannot be removed")]
    MainStore,
    /// A store with blobs is only removed when told so.
    #[error("the store still holds blobs: say that you want it removed all the same")]
    StoreNotEmpty,
    /// A node has at least one owner.
    #[error("the last owner cannot be removed: make another account an owner first")]
    LastOwner,
}

/// Why a data folder cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder is not there and was not to be created.
    #[error("there is no data folder {}: `refuge serve --data` creates one", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds other things.
    #[error("{} is not empty and is no Refuge data folder: give an empty or new folder", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a newer Refuge.
    #[error("{} has format {found}, this refuge reads up to {known}: install a newer refuge", path.display())]
    Newer {
        /// The folder or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this binary reads.
        known: u32,
    },
    /// Another process has it open.
    #[error("{} is in use by process {pid}: stop it, or reach it with --node URL", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// That process, as it wrote itself down.
        pid: String,
    },
    /// The folder lies on a disk that takes no writes.
    #[error("{} cannot be written: mount the disk read-write, or give another folder", path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
    },
    /// The process may not use the folder.
    #[error("{} cannot be used: it needs to belong to the user that runs refuge", path.display())]
    Forbidden {
        /// The folder.
        path: PathBuf,
    },
    /// The node's key is gone or damaged. It is never made anew where one was.
    #[error(
        "the node's key {} is missing or damaged: restore the identity folder from a backup; a new key would be another node",
        path.display()
    )]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// A state file and its previous generation are damaged.
    #[error("{} is damaged: restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// What is behind an internal failure.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A store.
    #[error(transparent)]
    Coffer(coffer::Error),
    /// Folders and refs.
    #[error(transparent)]
    Files(files::Error),
    /// A database of documents.
    #[error(transparent)]
    Documents(blanket::Error),
    /// The database.
    #[error(transparent)]
    Database(db::Error),
    /// A state file.
    #[error(transparent)]
    State(durable::Error),
    /// The operating system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Certificate(rcgen::Error),
    /// A state file of ours is whole, but not what this version writes.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The failure of an operation on `path`, by what its error code means to a caller.
    pub(crate) fn io(path: &Path, source: io::Error) -> Error {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Error::NoSpace {
                path: path.to_owned(),
            },
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN) => Error::Busy,
            Some(Errno::EROFS) => Error::ReadOnly {
                reason: source.to_string(),
            },
            _ => Error::Internal(Cause::Io {
                path: path.to_owned(),
                source,
            }),
        }
    }

    pub(crate) fn missing(kind: Kind, name: impl fmt::Display) -> Error {
        Error::Missing {
            kind,
            name: name.to_string(),
        }
    }

    pub(crate) fn conflict(kind: Kind, name: impl fmt::Display, reason: &'static str) -> Error {
        Error::Conflict {
            kind,
            name: name.to_string(),
            reason,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Blob => "blob",
            Kind::Store => "store",
            Kind::Ref => "ref",
            Kind::Snapshot => "snapshot",
            Kind::Path => "path",
            Kind::Upload => "upload",
            Kind::Account => "account",
            Kind::Token => "token",
            Kind::Claim => "claim",
            Kind::Database => "database",
            Kind::Replication => "replication",
            Kind::Bundle => "bundle",
            Kind::Secret => "secret",
        })
    }
}

impl From<coffer::Error> for Error {
    fn from(error: coffer::Error) -> Error {
        match error {
            coffer::Error::Mismatch { expected, actual } => Error::Mismatch { expected, actual },
            coffer::Error::Corrupt { id } => Error::Corrupt { id },
            coffer::Error::NoSpace { path } => Error::NoSpace { path },
            coffer::Error::ReadOnly { reason } => Error::ReadOnly { reason },
            coffer::Error::Busy => Error::Busy,
            coffer::Error::Foreign { .. } => Error::Invalid {
                what: "path",
                reason: error.to_string(),
            },
            coffer::Error::Newer { path, found, known } => {
                Error::Folder(FolderError::Newer { path, found, known })
            }
            other => Error::Internal(Cause::Coffer(other)),
        }
    }
}

impl From<files::Error> for Error {
    fn from(error: files::Error) -> Error {
        let invalid = |what, reason: &files::Error| Error::Invalid {
            what,
            reason: reason.to_string(),
        };
        match error {
            files::Error::Store(error) => error.into(),
            files::Error::State(error) => error.into(),
            files::Error::Io { path, source } => Error::io(&path, source),
            files::Error::Missing { id } => Error::missing(Kind::Blob, id),
            files::Error::NoRef { name } => Error::missing(Kind::Ref, name),
            files::Error::NoSnapshot { name, selector } => {
                Error::missing(Kind::Snapshot, format_args!("{name}@{selector}"))
            }
            files::Error::NoPath { path } => Error::missing(Kind::Path, path.display()),
            files::Error::Conflict { name } => {
                Error::conflict(Kind::Ref, name, "it was moved by someone else meanwhile")
            }
            files::Error::Incomplete { missing, .. } => Error::Incomplete { missing, more: false },
            files::Error::Malformed { expected, .. } => invalid(expected, &error),
            files::Error::Selector { .. } | files::Error::Ambiguous { .. } => invalid("snapshot", &error),
            files::Error::Full { .. } => invalid("ref", &error),
            other => Error::Internal(Cause::Files(other)),
        }
    }
}

impl From<blanket::Error> for Error {
    fn from(error: blanket::Error) -> Error {
        match error {
            blanket::Error::Missing { name } => Error::missing(Kind::Database, name),
            blanket::Error::Exists { name } => {
                Error::conflict(Kind::Database, name, "there is one of this name")
            }
            blanket::Error::NoEngine { .. } | blanket::Error::NotBuiltIn { .. } => Error::Invalid {
                what: "engine",
                reason: error.to_string(),
            },
            blanket::Error::BadServer { reason } => Error::Invalid {
                what: "server",
                reason,
            },
            blanket::Error::TooLong { .. } => Error::Invalid {
                what: "document",
                reason: error.to_string(),
            },
            blanket::Error::Server { .. } => Error::Away {
                reason: error.to_string(),
            },
            blanket::Error::Taken { .. } => Error::ReadOnly {
                reason: error.to_string(),
            },
            blanket::Error::TooMany { .. } => Error::Invalid {
                what: "documents",
                reason: error.to_string(),
            },
            blanket::Error::Full { path } => Error::NoSpace { path },
            blanket::Error::ReadOnly { reason, .. } => Error::ReadOnly { reason },
            blanket::Error::Busy => Error::Busy,
            blanket::Error::Io { path, source } => Error::io(&path, source),
            blanket::Error::Database(error) => error.into(),
            other @ (blanket::Error::Newer { .. }
            | blanket::Error::Corrupt { .. }
            | blanket::Error::DamagedDoc { .. }
            | blanket::Error::Random(_)) => Error::Internal(Cause::Documents(other)),
        }
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Error {
        match error {
            db::Error::Full { path } => Error::NoSpace { path },
            db::Error::Newer { path, found, known } => {
                Error::Folder(FolderError::Newer { path, found, known })
            }
            db::Error::Closing => Error::Busy,
            db::Error::Io { path, source } => Error::io(&path, source),
            db::Error::ReadOnly { reason, .. } => Error::ReadOnly { reason },
            other => Error::Internal(Cause::Database(other)),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        db::Error::from(error).into()
    }
}

impl From<durable::Error> for Error {
    fn from(error: durable::Error) -> Error {
        match error {
            durable::Error::Damaged { path } => Error::Folder(FolderError::Damaged { path }),
            durable::Error::Io { path, source } => Error::io(&path, source),
        }
    }
}

impl From<getrandom::Error> for Error {
    fn from(error: getrandom::Error) -> Error {
        Error::Internal(Cause::Random(error))
    }
}

fn plural(count: usize, more: bool) -> String {
    match (count, more) {
        (1, false) => "1 blob".to_owned(),
        (count, false) => format!("{count} blobs"),
        (count, true) => format!("more than {count} blobs"),
    }
}
