//! The engine for many writes: documents in a log-structured merge tree, by the crate `fjall`.
//!
//! What its sources (3.1) promise and what is done here beside it:
//!
//! - A batch is one record of a journal, flushed before it is applied ([`PersistMode::SyncData`]); tables and versions are
//!   flushed, with their folders, before the journal that they replace goes. A write that failed stops all others.
//! - The folders of a new database's trees are not flushed into theirs: that is done here.
//! - Blocks and versions are compared with checksums, and a damaged one is an error, also in a walk.
//! - A journal is read up to the first record that is not whole, and cut there, whatever is behind it; a record that is torn in
//!   its middle can't be opened at all. So [`journal`] looks at it first, and writes it anew where its last flush failed.
//! - Where a version is not there, what it named is removed as unfinished: so that is an error before it is opened.
//!
//! A journal takes up to 64 MiB of the disk before it is replaced, and is read when the database is opened. A compaction gives it
//! back.

mod journal;

use std::fs::{self, File};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable, Snapshot};

use super::engine::{Engine, Sizes};
use super::error::Error;
use super::ordered::{self, Batch, Moment, Opening, Ordered, Range, Store, Walker};

/// Blocks in memory: one database of several on a board of 512 MiB.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Where what is written goes from memory into a table; twice this while it does.
const MEMTABLE_BYTES: u64 = 1024 * 1024;

/// Tables that are open at a time.
const FILES_OPEN_MAX: usize = 32;

/// The least that fjall takes: where journals together are longer, what they hold goes into tables.
const JOURNALS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The only keyspace, and the number that fjall gives the first.
const KEYSPACE: &str = "documents";
const KEYSPACE_FOLDERS: [&str; 2] = ["keyspaces/0", "keyspaces/1"];

/// Opens the database in a folder, or makes one in it.
pub(super) fn open(place: &Path) -> Result<Arc<dyn Engine>, Error> {
    Ok(Arc::new(Ordered::<Lsm>::open(place, ())?))
}

/// Whether a folder holds one.
pub(super) fn is_there(place: &Path) -> bool {
    ordered::is_there::<Lsm>(place)
}

/// Keys in a tree of fjall.
struct Lsm {
    folder: PathBuf,
    database: Database,
    keys: Keyspace,
}

impl Store for Lsm {
    const FOLDER: &'static str = "lsm";

    type Around = ();

    fn open(folder: &Path, opening: Opening, (): &()) -> Result<Lsm, Error> {
        let is_new = opening == Opening::New;
        if !is_new {
            check_files(folder)?;
            journal::check(folder)?;
        }
        if opening == Opening::InDoubt {
            journal::renew(folder)?;
        }
        let builder = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(FILES_OPEN_MAX))
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .worker_threads(1);
        let database = builder.open().map_err(|error| failed(folder, error))?;
        if !is_new && !database.keyspace_exists(KEYSPACE) {
            return Err(corrupt(folder, "the tree of its documents is not there"));
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keys = database.keyspace(KEYSPACE, options);
        let keys = keys.map_err(|error| failed(folder, error))?;
        if is_new {
            sync_folders(folder).map_err(|error| Error::io(folder, error))?;
        }
        Ok(Lsm {
            folder: folder.to_owned(),
            database,
            keys,
        })
    }

    fn read<T>(&self, work: impl FnOnce(&mut dyn Moment) -> Result<T, Error>) -> Result<T, Error> {
        work(&mut At {
            store: self,
            snapshot: self.database.snapshot(),
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        let mut written = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in batch {
            match value {
                Some(value) => written.insert(&self.keys, key.as_slice(), value.as_slice()),
                None => written.remove(&self.keys, key.as_slice()),
            }
        }
        written.commit().map_err(|error| failed(&self.folder, error))
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        ordered::sizes::sizes_of(&self.folder)
    }

    fn compact(&self) -> Option<Result<(), Error>> {
        None
    }
}

struct At<'a> {
    store: &'a Lsm,
    snapshot: Snapshot,
}

impl Moment for At<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.snapshot.get(&self.store.keys, key);
        let value = value.map_err(|error| failed(&self.store.folder, error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn look_ahead(&mut self, _: &[Vec<u8>]) -> Result<(), Error> {
        Ok(())
    }

    fn walk(&mut self, range: Range<'_>, descending: bool, walker: &mut Walker<'_>) -> Result<(), Error> {
        let high = range.1.map_or(Bound::Unbounded, Bound::Excluded);
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(range.0), high);
        let mut keys = self.snapshot.range::<&[u8], _>(&self.store.keys, bounds);
        while let Some(found) = if descending { keys.next_back() } else { keys.next() } {
            let (key, value) = found
                .into_inner()
                .map_err(|error| failed(&self.store.folder, error))?;
            if walker(&key, &value)? == ControlFlow::Break(()) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Puts the names of a new store on the medium: those of its trees are not flushed by fjall.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    File::open(folder)?.sync_all()
}

/// What fjall would take for an unfinished tree, and remove.
fn check_files(folder: &Path) -> Result<(), Error> {
    if !folder.join("version").exists() {
        return Err(corrupt(folder, "there is no file version in it"));
    }
    for tree in KEYSPACE_FOLDERS {
        if !folder.join(tree).join("current").exists() {
            return Err(corrupt(folder, &format!("there is no file {tree}/current in it")));
        }
    }
    Ok(())
}

fn failed(folder: &Path, error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => Error::io(folder, error),
        // A write beside the one that hears of it failed: most likely for want of room.
        fjall::Error::Poisoned => match ordered::has_room(folder) {
            Ok(false) => Error::Full {
                path: folder.to_owned(),
            },
            Ok(true) => Error::io(folder, io::Error::other("a table could not be written")),
            Err(error) => error,
        },
        fjall::Error::InvalidVersion(_) | fjall::Error::Storage(LsmError::InvalidVersion(_)) => {
            Error::Newer {
                path: folder.to_owned(),
            }
        }
        fjall::Error::Locked => Error::io(
            folder,
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has it open"),
        ),
        damaged => corrupt(folder, &damaged.to_string()),
    }
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ordered::tests;
    use super::*;

    #[test]
    fn keys_are_those_of_a_map() {
        tests::agrees_with_a_map::<Lsm>();
    }

    #[test]
    fn a_newer_layout_is_refused() {
        tests::a_newer_layout_is_refused::<Lsm>();
    }

    #[test]
    fn a_compaction_that_was_cut_loses_nothing() {
        tests::a_compaction_that_was_cut_loses_nothing::<Lsm>();
    }
}
