//! Where each blob is: a table in memory for the newest, sorted runs on disk for the rest.
//!
//! Looked up newest first: the memory table, then the runs from the newest to the oldest, each behind its
//! bloom filter. Runs are written at checkpoints, merged when several of like size have come together, and
//! never changed. Everything here can be rebuilt from the volumes.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::{Arc, RwLock};

use super::run::{Entry, Run, RunIter};
use crate::coffer::error::Error;
use crate::id::BlobId;

/// Runs of like size that come together before they are merged: each entry is rewritten once per eightfold
/// growth of the store.
const MERGE_RUNS: usize = 8;

/// How much larger an older run may be than all newer ones together and still be merged with them.
const LIKE_SIZE: u64 = 2;

type Table = BTreeMap<BlobId, Entry>;

/// The index of a store.
#[derive(Debug, Default)]
pub(super) struct Index {
    state: RwLock<State>,
}

/// A consistent view: cheap to take, unaffected by what changes afterwards.
#[derive(Debug, Default, Clone)]
struct State {
    /// Shared with views; changed in place while there is none.
    table: Arc<Table>,
    /// Oldest first.
    runs: Arc<Vec<Arc<Run>>>,
}

impl Index {
    /// An index of these runs, oldest first, and an empty table.
    pub(super) fn new(runs: Vec<Arc<Run>>) -> Index {
        Index {
            state: RwLock::new(State {
                table: Arc::default(),
                runs: Arc::new(runs),
            }),
        }
    }

    fn view(&self) -> State {
        self.state
            .read()
            .expect("no panic while the index is held")
            .clone()
    }

    /// The entry of a live id; aliases and deleted ids are none.
    pub(super) fn live(&self, id: &BlobId) -> Result<Option<Entry>, Error> {
        Ok(self.get(id)?.filter(|entry| !entry.dead && !entry.alias))
    }

    /// The newest entry of an id, whatever it is.
    pub(super) fn get(&self, id: &BlobId) -> Result<Option<Entry>, Error> {
        let runs = {
            let state = self.state.read().expect("no panic while the index is held");
            if let Some(entry) = state.table.get(id) {
                return Ok(Some(*entry));
            }
            Arc::clone(&state.runs)
        };
        for run in runs.iter().rev() {
            if let Some(entry) = run.get(id)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Puts entries into the table.
    pub(super) fn insert(&self, entries: impl IntoIterator<Item = (BlobId, Entry)>) {
        let mut state = self.state.write().expect("no panic while the index is held");
        Arc::make_mut(&mut state.table).extend(entries);
    }

    /// Entries in the table.
    pub(super) fn table_len(&self) -> usize {
        self.state
            .read()
            .expect("no panic while the index is held")
            .table
            .len()
    }

    /// Live entries above `after`, ascending; aliases too, for whoever wants them.
    pub(super) fn iter(
        &self,
        after: Option<BlobId>,
    ) -> impl Iterator<Item = Result<(BlobId, Entry), Error>> + use<> {
        let view = self.view();
        let mut sources: Vec<Peekable<Source>> = view
            .runs
            .iter()
            .map(|run| Source::Run(run.iter(after)).peekable())
            .collect();
        sources.push(Source::Table(view.table, after).peekable());
        Merge { sources }.filter(|item| !matches!(item, Ok((_, entry)) if entry.dead))
    }

    /// What a checkpoint must write: the table, and the runs to merge it with, newest last. The index
    /// itself does not change before [`Index::install`].
    pub(super) fn plan(&self) -> Plan {
        let view = self.view();
        let mut newer = view.table.len() as u64;
        let like = |run: &&Arc<Run>| {
            let fits = run.entries() <= newer * LIKE_SIZE;
            newer += run.entries();
            fits
        };
        let alike = view.runs.iter().rev().take_while(like).count();
        let merged = if alike + 1 >= MERGE_RUNS { alike } else { 0 };
        let from = view.runs.len() - merged;
        Plan {
            keeps: view.runs[..from].to_vec(),
            merges: view.runs[from..].to_vec(),
            table: view.table,
        }
    }

    /// Replaces what the plan took by the run it became; entries that came since stay in the table.
    pub(super) fn install(&self, plan: &Plan, run: Arc<Run>) {
        let mut state = self.state.write().expect("no panic while the index is held");
        let mut runs = plan.keeps.clone();
        runs.push(run);
        state.runs = Arc::new(runs);
        if Arc::ptr_eq(&state.table, &plan.table) {
            state.table = Arc::default();
        } else {
            Arc::make_mut(&mut state.table).retain(|id, entry| plan.table.get(id) != Some(entry));
        }
    }

    /// Starts over with this one run.
    pub(super) fn reset(&self, run: Arc<Run>) {
        *self.state.write().expect("no panic while the index is held") = State {
            table: Arc::default(),
            runs: Arc::new(vec![run]),
        };
    }
}

/// A checkpoint to be: see [`Index::plan`].
pub(super) struct Plan {
    pub(super) keeps: Vec<Arc<Run>>,
    pub(super) merges: Vec<Arc<Run>>,
    table: Arc<Table>,
}

impl Plan {
    /// Entries the new run has at most.
    pub(super) fn entries_max(&self) -> u64 {
        self.merges.iter().map(|run| run.entries()).sum::<u64>() + self.table.len() as u64
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The entries of the new run, ascending. Deleted ids go when no older run can hold them.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<(BlobId, Entry), Error>> + use<> {
        let mut sources: Vec<Peekable<Source>> = self
            .merges
            .iter()
            .map(|run| Source::Run(run.iter(None)).peekable())
            .collect();
        sources.push(Source::Table(Arc::clone(&self.table), None).peekable());
        let oldest = self.keeps.is_empty();
        Merge { sources }.filter(move |item| !(oldest && matches!(item, Ok((_, entry)) if entry.dead)))
    }
}

enum Source {
    Run(RunIter),
    /// The table, and the last id given: asking again for what comes next keeps no borrow.
    Table(Arc<Table>, Option<BlobId>),
}

impl Iterator for Source {
    type Item = Result<(BlobId, Entry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::ops::Bound::{Excluded, Unbounded};
        match self {
            Source::Run(iter) => iter.next(),
            Source::Table(table, after) => {
                let from = after.map_or(Unbounded, Excluded);
                let (id, entry) = table.range((from, Unbounded)).next()?;
                *after = Some(*id);
                Some(Ok((*id, *entry)))
            }
        }
    }
}

/// Merges sorted sources, oldest first: of equal ids the newest source's entry stands.
struct Merge {
    sources: Vec<Peekable<Source>>,
}

impl Iterator for Merge {
    type Item = Result<(BlobId, Entry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<BlobId> = None;
        for source in &mut self.sources {
            match source.peek() {
                Some(Ok((id, _))) => least = Some(least.map_or(*id, |least| least.min(*id))),
                Some(Err(_)) => return source.next(),
                None => {}
            }
        }
        let least = least?;
        let mut newest = None;
        for source in &mut self.sources {
            if source
                .next_if(|item| matches!(item, Ok((id, _)) if *id == least))
                .map(|item| newest = Some(item))
                .is_some()
            {
                continue;
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn entry(offset: u64, dead: bool) -> Entry {
        Entry {
            volume: 1,
            offset,
            len: 1,
            pinned: false,
            dead,
            alias: false,
        }
    }

    fn checkpoint(index: &Index, folder: &Path, number: u32) {
        let plan = index.plan();
        let path = folder.join(format!("{number}"));
        let run = Run::write(&path, number, plan.entries_max(), plan.entries()).unwrap();
        index.install(&plan, Arc::new(run));
    }

    #[test]
    fn newer_entries_hide_older_ones_through_checkpoints_and_merges() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::default();
        let ids: Vec<BlobId> = (0..200_u32).map(|n| BlobId::of(&n.to_le_bytes())).collect();
        for round in 0..20_u32 {
            let part = ids.iter().skip(round as usize * 10).take(20);
            index.insert(part.map(|id| (*id, entry(u64::from(round) * 8, false))));
            index.insert([(ids[round as usize], entry(0, true))]);
            checkpoint(&index, dir.path(), round);
        }
        assert!(index.view().runs.len() < 20, "like-sized runs are merged");
        let listed: Vec<BlobId> = index.iter(None).map(|item| item.unwrap().0).collect();
        let mut expected: Vec<BlobId> = ids
            .iter()
            .copied()
            .filter(|id| index.live(id).unwrap().is_some())
            .collect();
        expected.sort();
        assert_eq!(listed, expected);
        assert_eq!(index.live(&ids[199]).unwrap().unwrap().offset, 19 * 8);
        assert_eq!(index.live(&ids[19]).unwrap(), None);
    }
}
