//! What can go wrong with a database file, by what the caller does about it.

use std::path::PathBuf;

/// A failure of a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a whole database. It can be set aside with [`super::set_aside`]; it is never deleted.
    #[error("the database {} is damaged: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        what: String,
    },
    /// The file was written by a newer Refuge.
    #[error("{} has schema {found}, this refuge reads up to {known}: install a newer refuge", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest this binary knows.
        known: u32,
    },
    /// The SQLite this binary was linked with lacks fixes that acknowledged data depends on.
    #[error("this binary has SQLite {found}, it needs {needed} or newer")]
    OldSqlite {
        /// As `sqlite3_libversion_number` says.
        found: i32,
        /// The oldest that will do.
        needed: i32,
    },
    /// The disk is full.
    #[error("the disk under {} is full", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// An earlier write failed; the database takes no writes until it is opened again. Reads go on.
    #[error("{} takes no writes since one failed: {reason}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// The failure that caused it.
        reason: String,
    },
    /// The process is shutting down.
    #[error("the database is closing")]
    Closing,
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// Everything else SQLite says.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}
