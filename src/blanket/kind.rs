//! Which engine keeps a database, as people and files write it.

use std::fmt;
use std::str::FromStr;

use super::error::Error;

/// What keeps a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// One SQLite file: the default.
    Sqlite,
    /// In memory: gone when it is closed. For tests and for trying things out.
    Memory,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::Sqlite => "sqlite",
            EngineKind::Memory => "memory",
        })
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "sqlite" => Ok(EngineKind::Sqlite),
            "memory" => Ok(EngineKind::Memory),
            other => Err(Error::NoEngine {
                engine: other.to_owned(),
            }),
        }
    }
}
