//! Which engine keeps a database, as people and files write it.

use std::fmt;
use std::str::FromStr;

use super::error::Error;

/// What keeps a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// One SQLite file: the default.
    Sqlite,
    /// A log-structured merge tree: many writes. Only where it is built in.
    Lsm,
    /// A LevelDB, which other programs can read. Only where it is built in.
    Leveldb,
    /// On a server that speaks CouchDB's API. Only where it is built in.
    Couchdb,
    /// In memory: gone when it is closed. For tests and for trying things out.
    Memory,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::Sqlite => "sqlite",
            EngineKind::Lsm => "lsm",
            EngineKind::Leveldb => "leveldb",
            EngineKind::Couchdb => "couchdb",
            EngineKind::Memory => "memory",
        })
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "sqlite" => Ok(EngineKind::Sqlite),
            "lsm" => Ok(EngineKind::Lsm),
            "leveldb" => Ok(EngineKind::Leveldb),
            "couchdb" => Ok(EngineKind::Couchdb),
            "memory" => Ok(EngineKind::Memory),
            other => Err(Error::NoEngine {
                engine: other.to_owned(),
            }),
        }
    }
}
