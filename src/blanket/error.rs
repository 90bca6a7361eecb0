//! What can go wrong with a document database, by what the caller does about it.

use std::path::{Path, PathBuf};

use super::tree::CodecError;
use crate::db;
use crate::id::{DbName, DocId};

/// A failure of a database; what is wrong with one edit alone is a [`super::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such database.
    #[error("there is no database {name}")]
    Missing {
        /// Its name.
        name: DbName,
    },
    /// There is one already.
    #[error("the database {name} exists")]
    Exists {
        /// Its name.
        name: DbName,
    },
    /// No engine of that name.
    #[error("there is no engine {engine:?}")]
    NoEngine {
        /// As it was asked for.
        engine: String,
    },
    /// An engine this binary was built without.
    #[error("the engine {engine} is not built in: it takes a refuge built with the cargo feature {engine}")]
    NotBuiltIn {
        /// Its name, and that of its feature.
        engine: &'static str,
    },
    /// A server can't keep a database: what is said of it is wrong.
    #[error("{reason}")]
    BadServer {
        /// A sentence.
        reason: String,
    },
    /// The server that a database is on does not answer, or not as it should: nothing was written.
    #[error("{url}: {reason}")]
    Server {
        /// The database on the server.
        url: String,
        /// A sentence.
        reason: String,
    },
    /// Another node has what is on the server, or opened it since this one did.
    #[error("{url} is another node's, or was opened by another since: one node at a time has it")]
    Taken {
        /// The database on the server.
        url: String,
    },
    /// One value is longer than its engine takes.
    #[error("this engine takes at most {most} bytes in one piece")]
    TooLong {
        /// As many as it takes.
        most: usize,
    },
    /// It was written by a newer Refuge.
    #[error("{} was written by a newer refuge: install that", path.display())]
    Newer {
        /// Its file.
        path: PathBuf,
    },
    /// Its file is damaged. It can be set aside with [`super::set_aside`]; it is never deleted.
    #[error("the database {} is damaged: {what}", path.display())]
    Corrupt {
        /// Its file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// One document is not what was written; the others are not concerned.
    #[error("the document {id} is damaged on the medium")]
    DamagedDoc {
        /// The document.
        id: DocId,
    },
    /// The disk is full.
    #[error("the disk under {} is full", path.display())]
    Full {
        /// Its file.
        path: PathBuf,
    },
    /// A write failed: no more are taken until the database is opened again. Reads go on.
    #[error("{} takes no writes since one failed: {reason}", path.display())]
    ReadOnly {
        /// Its file.
        path: PathBuf,
        /// The failure that caused it.
        reason: String,
    },
    /// Too many wait to write.
    #[error("too many writes wait")]
    Busy,
    /// More than one call may hold.
    #[error("one call writes at most {most} documents")]
    TooMany {
        /// As many as it may.
        most: usize,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// The operating system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// Everything else the file's own engine says.
    #[error(transparent)]
    Database(db::Error),
}

impl Error {
    /// An error of the operating system about a file.
    pub(super) fn io(path: &Path, source: std::io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full { path },
            _ => Error::Io { path, source },
        }
    }

    /// A tree that can't be read, of this document.
    pub(super) fn of_tree(id: &DocId, error: CodecError, path: &Path) -> Error {
        match error {
            CodecError::Newer(_) => Error::Newer {
                path: path.to_owned(),
            },
            CodecError::Damaged => Error::DamagedDoc { id: id.clone() },
        }
    }

    /// The same failure for each of a group that failed together; not every source can be had twice.
    pub(super) fn again(&self) -> Error {
        match self {
            Error::Full { path } => Error::Full { path: path.clone() },
            Error::ReadOnly { path, reason } => Error::ReadOnly {
                path: path.clone(),
                reason: reason.clone(),
            },
            Error::Corrupt { path, what } => Error::Corrupt {
                path: path.clone(),
                what: what.clone(),
            },
            Error::DamagedDoc { id } => Error::DamagedDoc { id: id.clone() },
            Error::Server { url, reason } => Error::Server {
                url: url.clone(),
                reason: reason.clone(),
            },
            Error::TooLong { most } => Error::TooLong { most: *most },
            other => Error::ReadOnly {
                path: PathBuf::new(),
                reason: other.to_string(),
            },
        }
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Error {
        match error {
            db::Error::Corrupt { path, what } => Error::Corrupt { path, what },
            db::Error::Newer { path, .. } => Error::Newer { path },
            db::Error::Full { path } => Error::Full { path },
            db::Error::ReadOnly { path, reason } => Error::ReadOnly { path, reason },
            db::Error::Io { path, source } => Error::Io { path, source },
            other @ (db::Error::OldSqlite { .. } | db::Error::Closing | db::Error::Sqlite(_)) => {
                Error::Database(other)
            }
        }
    }
}
