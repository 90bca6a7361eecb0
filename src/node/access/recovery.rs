//! Opening `node.db`: as it is, else its earlier generation, else without accounts.
//!
//! A node whose accounts are lost goes on without them, so that it can be claimed again by whoever reads its
//! console, and its blobs stay within reach. A damaged file is set aside and kept; nothing is deleted.

use std::path::Path;

use super::super::clock::Clock;
use super::super::error::Error;
use super::super::events::Events;
use super::super::security_log::{About, LogKind};
use super::{Access, MIGRATIONS};
use crate::db::{self, Database, Purpose, Rise};

/// In which state the accounts were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Found {
    /// As they were left, or for the first time.
    Whole,
    /// As they were at the last change of an account or token; everybody signs in again.
    Earlier,
    /// Not at all: the node is to be claimed again.
    Lost,
}

impl Found {
    /// What whoever looks at the node should know.
    pub(in super::super) fn note(self) -> Option<&'static str> {
        match self {
            Found::Whole => None,
            Found::Earlier => Some(
                "the database of accounts (node.db) was damaged or missing and its earlier copy is in use: sign in \
                 again, and look whether accounts and tokens are as they should be",
            ),
            Found::Lost => {
                Some("the database of accounts (node.db) was lost, and its copy too: claim the node again")
            }
        }
    }
}

/// Opens the accounts at `path`. `had_accounts` says that the data folder was in use before, so that a missing
/// file is a loss, and `rise` when its schema follows this binary. Blocking.
pub(in super::super) fn open(
    path: &Path,
    had_accounts: bool,
    clock: &Clock,
    events: &Events,
    rise: Rise,
) -> Result<(Access, Found), Error> {
    let access = |database| Access::open(database, clock.clone(), events.clone());
    // SQLite takes an empty file for a new database.
    let is_gone = path.metadata().map_or(true, |file| file.len() == 0);
    let damaged = if is_gone && had_accounts {
        "it is missing or empty".to_owned()
    } else {
        match Database::open_when(path, MIGRATIONS, Purpose::State, rise) {
            Ok(database) => {
                let access = access(database)?;
                access.keep();
                return Ok((access, Found::Whole));
            }
            Err(db::Error::Corrupt { what, .. }) => what,
            Err(error) => return Err(error.into()),
        }
    };
    let aside = db::set_aside(path)?;
    tracing::error!(path = %path.display(), aside = %aside.display(), what = damaged, "the accounts are damaged");
    let (database, found) = match bring_back(path, rise)? {
        Some(database) => (database, Found::Earlier),
        None => (Database::open(path, MIGRATIONS)?, Found::Lost),
    };
    let access = access(database)?;
    // One of them may have been ended since.
    access.end_all_sessions()?;
    access.log.write(LogKind::DatabaseSetAside, &About::default());
    access.keep();
    Ok((access, found))
}

/// The earlier generation, opened; `None` where there is none that is whole.
fn bring_back(path: &Path, rise: Rise) -> Result<Option<Database>, Error> {
    if !db::bring_back(path)? {
        return Ok(None);
    }
    match Database::open_when(path, MIGRATIONS, Purpose::State, rise) {
        Ok(database) => Ok(Some(database)),
        Err(db::Error::Corrupt { .. }) => {
            db::set_aside(path)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
