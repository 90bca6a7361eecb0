//! What refs named until less than a day ago, kept on disk.
//!
//! The collector only sees what is named when it runs. A part that was named and dropped between two runs
//! would look as if nothing had named it all along; with this list its wait begins when it was dropped. One
//! durable file for a store, written before the ref moves: cut in between, a root is both named and listed.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use crate::durable;
use crate::files::{self, Root};
use crate::id::BlobId;

/// How long a part must have been unnamed before it is freed: longer than any backup takes to name what it put.
pub const COLLECT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Roots the list keeps: above it the oldest are forgotten, as a prune of 10,000 snapshots is the most at once.
const ROOTS_MAX: usize = 20_000;

/// The list of one store.
pub(super) struct Dropped {
    path: PathBuf,
    clock: Clock,
}

/// What was dropped within the last day.
#[derive(Default)]
pub(super) struct Recent {
    /// Where to walk.
    pub(super) roots: Vec<Root>,
    /// When the last of them was dropped, in seconds since 1970.
    pub(super) latest_s: i64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: BlobId,
    commit: bool,
    at_s: i64,
}

impl Dropped {
    /// The list in the file at `path`, which need not be there.
    pub(super) fn at(path: PathBuf, clock: Clock) -> Dropped {
        Dropped { path, clock }
    }

    /// Writes roots down that are about to be dropped. Durable on return. The caller holds the refs.
    pub(super) fn add(&self, roots: impl Iterator<Item = Root>) -> Result<(), files::Error> {
        let now_s = self.clock.unix_s();
        let fresh = roots.map(|root| Entry {
            id: *root.id(),
            commit: matches!(root, Root::Commit(_)),
            at_s: now_s,
        });
        let fresh: Vec<Entry> = fresh.collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut entries = self.entries()?;
        entries.extend(fresh);
        let excess = entries.len().saturating_sub(ROOTS_MAX);
        entries.drain(..excess);
        let payload = serde_json::to_vec(&entries).expect("ids and numbers are JSON");
        if let Some(folder) = self.path.parent() {
            durable::create_folder(folder).map_err(|source| durable::Error::Io {
                path: folder.to_owned(),
                source,
            })?;
        }
        Ok(durable::replace(&self.path, &payload)?)
    }

    /// What was dropped within the last day.
    pub(super) fn recent(&self) -> Result<Recent, files::Error> {
        let mut recent = Recent::default();
        for entry in self.entries()? {
            recent.latest_s = recent.latest_s.max(entry.at_s);
            recent.roots.push(if entry.commit {
                Root::Commit(entry.id)
            } else {
                Root::Tree(entry.id)
            });
        }
        Ok(recent)
    }

    /// A list that can't be read is begun anew: it only makes the collector wait longer.
    fn entries(&self) -> Result<Vec<Entry>, files::Error> {
        let payload = match durable::read(&self.path) {
            Ok(Some(state)) => state.payload,
            Ok(None) | Err(durable::Error::Damaged { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let Ok(mut entries) = serde_json::from_slice::<Vec<Entry>>(&payload) else {
            tracing::warn!(path = %self.path.display(), "the list of dropped snapshots is begun anew");
            return Ok(Vec::new());
        };
        let now_s = self.clock.unix_s();
        let wait_s = i64::try_from(COLLECT_AFTER.as_secs()).unwrap_or(i64::MAX);
        // A clock that was set back must not keep an entry for good.
        entries.retain(|entry| now_s - entry.at_s < wait_s && entry.at_s <= now_s);
        Ok(entries)
    }
}
