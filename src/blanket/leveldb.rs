//! The engine whose files other programs read: documents in LevelDB's format, by the crate `rusty-leveldb`.
//!
//! What its sources (4.0) leave open, and what is done about it here:
//!
//! - It flushes nothing by itself: `flush` of a writer is what the disk makes of it. [`disk`] flushes files and folders there, and
//!   whatever was not flushed when a writer is dropped, so that a table is on the medium before the manifest that names it.
//! - A compaction that failed is installed all the same, without what it could not write, and a walk passes over blocks it can't
//!   read. So each block is compared with its checksum by [`disk`], too, and after the first failure no file is written,
//!   renamed or deleted: what would be installed never reaches the medium.
//! - A log or a manifest is read up to the first record that is not whole, whatever is behind it. So [`logs`] looks at them first.
//! - Where there is no manifest, it would make an empty database in place of the other: it is only let to for a new one.
//! - A `get` takes the deletion of the next key for one of its own, and a step backwards shows what was deleted. So keys are
//!   looked for by walks forwards, and walked backwards in windows.
//! - It is one thread's at a time: reads wait for one another, and for writes.

mod disk;
mod health;
mod logs;
mod table;

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

use rusty_leveldb::{DB, LdbIterator, Options, WriteBatch};

use self::disk::Disk;
use self::health::Health;
use super::engine::{Engine, Sizes};
use super::error::Error;
use super::ordered::{self, Batch, Moment, Opening, Ordered, Range, Store, Walker};

/// Where what is written goes from memory into a table.
const MEMTABLE_BYTES: usize = 1024 * 1024;

/// The longest table, as LevelDB has it.
const TABLE_BYTES: usize = 2 * 1024 * 1024;

/// Blocks in memory, in LevelDB's unit; each may be as long as a piece of a document.
const CACHE_BYTES: usize = 256 * 1024;

/// Tables that are open at a time, with their indexes in memory. The crate takes ten of them for itself.
const FILES_OPEN_MAX: usize = 42;

/// Bytes of a key that are taken for a number where it is walked backwards: its kind and a sequence.
const NUMBER_BYTES: usize = 9;

/// How far back from the end of a range is looked first: about as many documents as are asked for at once.
const FIRST_WIDTH: u128 = 512;

/// How much further where little was there.
const WIDENING: u128 = 32;

/// Keys of a window that are held at once.
const KEYS_HELD: usize = 256;

/// Opens the database in a folder, or makes one in it.
pub(super) fn open(place: &Path) -> Result<Arc<dyn Engine>, Error> {
    Ok(Arc::new(Ordered::<Leveldb>::open(place, ())?))
}

/// Whether a folder holds one.
pub(super) fn is_there(place: &Path) -> bool {
    ordered::is_there::<Leveldb>(place)
}

/// Keys in a LevelDB.
struct Leveldb {
    folder: PathBuf,
    keys: Mutex<DB>,
    health: Arc<Health>,
}

impl Store for Leveldb {
    const FOLDER: &'static str = "leveldb";

    type Around = ();

    fn open(folder: &Path, opening: Opening, (): &()) -> Result<Leveldb, Error> {
        // What it can read of its logs is written into tables before anything else: also where that is in doubt.
        if opening != Opening::New {
            logs::check(folder)?;
        }
        let health = Arc::new(Health::default());
        let options = Options {
            env: Rc::new(Box::new(Disk::new(Arc::clone(&health)))),
            log: Some(Rc::new(std::cell::RefCell::new(rusty_leveldb::infolog::Logger(
                Box::new(io::sink()),
            )))),
            create_if_missing: opening == Opening::New,
            error_if_exists: false,
            paranoid_checks: true,
            write_buffer_size: MEMTABLE_BYTES,
            max_file_size: TABLE_BYTES,
            max_open_files: FILES_OPEN_MAX,
            block_cache_capacity_bytes: CACHE_BYTES,
            // Their last record may be torn, and what is behind that would never be read again.
            reuse_logs: false,
            reuse_manifest: false,
            ..Options::default()
        };
        let opened = DB::open(folder, options);
        let keys =
            opened.map_err(|status| health.error(folder).unwrap_or_else(|| refused(folder, &status)))?;
        match health.error(folder) {
            Some(error) => Err(error),
            None => Ok(Leveldb {
                folder: folder.to_owned(),
                keys: Mutex::new(keys),
                health,
            }),
        }
    }

    fn read<T>(&self, work: impl FnOnce(&mut dyn Moment) -> Result<T, Error>) -> Result<T, Error> {
        work(&mut At {
            keys: self.keys(),
            store: self,
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        let mut written = WriteBatch::default();
        for (key, value) in batch {
            match value {
                Some(value) => written.put(key, value),
                None => written.delete(key),
            }
        }
        let wrote = self.keys().write(written, true);
        match (wrote, self.health.error(&self.folder)) {
            (_, Some(error)) => Err(error),
            (Err(status), None) => Err(refused(&self.folder, &status)),
            (Ok(()), None) => Ok(()),
        }
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        ordered::sizes::sizes_of(&self.folder)
    }

    fn compact(&self) -> Option<Result<(), Error>> {
        None
    }
}

impl Leveldb {
    fn keys(&self) -> MutexGuard<'_, DB> {
        // Where it panicked, its disk took no more writes.
        self.keys.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

struct At<'a> {
    keys: MutexGuard<'a, DB>,
    store: &'a Leveldb,
}

impl Moment for At<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut value = None;
        self.walk((key, None), false, &mut |found, its| {
            value = (found == key).then(|| its.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(value)
    }

    fn look_ahead(&mut self, _: &[Vec<u8>]) -> Result<(), Error> {
        Ok(())
    }

    fn walk(&mut self, range: Range<'_>, descending: bool, walker: &mut Walker<'_>) -> Result<(), Error> {
        match descending {
            false => self.forwards(range, walker),
            true => self.backwards(range, walker),
        }
    }
}

impl At<'_> {
    fn forwards(&mut self, range: Range<'_>, walker: &mut Walker<'_>) -> Result<(), Error> {
        let (store, faults) = (self.store, self.store.health.faults());
        let keys = self.keys.new_iter();
        let mut keys = keys.map_err(|status| refused(&store.folder, &status))?;
        keys.seek(range.0);
        loop {
            // A block that can't be read is passed over.
            if store.health.faults() != faults {
                return Err(store.health.error(&store.folder).unwrap_or(Error::Busy));
            }
            let Some((key, value)) = keys.current().filter(|_| keys.valid()) else {
                return Ok(());
            };
            if range.1.is_some_and(|high| &key[..] >= high) || walker(&key, &value)?.is_break() {
                return Ok(());
            }
            keys.advance();
        }
    }

    fn backwards(&mut self, (low, high): Range<'_>, walker: &mut Walker<'_>) -> Result<(), Error> {
        let mut high = high.map(<[u8]>::to_vec);
        let mut width = FIRST_WIDTH;
        loop {
            let begin = place_before(high.as_deref(), width).filter(|begin| &begin[..] > low);
            let from = begin.as_deref().unwrap_or(low);
            // The last keys of the window: where it has more, it is looked at again up to the first of them.
            let mut last: VecDeque<Vec<u8>> = VecDeque::new();
            self.forwards((from, high.as_deref()), &mut |key, _| {
                if last.len() == KEYS_HELD {
                    last.pop_front();
                }
                last.push_back(key.to_vec());
                Ok(ControlFlow::Continue(()))
            })?;
            let is_whole = last.len() < KEYS_HELD;
            let first = last.front().cloned();
            for key in last.into_iter().rev() {
                let value = self.get(&key)?.ok_or(Error::Busy)?;
                if walker(&key, &value)?.is_break() {
                    return Ok(());
                }
            }
            high = match (is_whole, begin) {
                (true, None) => return Ok(()),
                (true, Some(begin)) => {
                    width = width.saturating_mul(WIDENING);
                    Some(begin)
                }
                (false, _) => first,
            };
        }
    }
}

/// A key so much before another, where the first bytes of keys are taken for a number; `None` before all.
fn place_before(key: Option<&[u8]>, width: u128) -> Option<Vec<u8>> {
    let mut number = [u8::MAX; 16];
    if let Some(key) = key {
        let begin = key.len().min(NUMBER_BYTES);
        number = [0; 16];
        number[16 - NUMBER_BYTES..][..begin].copy_from_slice(&key[..begin]);
    }
    let before = u128::from_be_bytes(number).checked_sub(width)?;
    Some(before.to_be_bytes()[16 - NUMBER_BYTES..].to_vec())
}

/// What the crate found wrong by itself, not the disk.
fn refused(folder: &Path, status: &rusty_leveldb::Status) -> Error {
    match status.code {
        rusty_leveldb::StatusCode::LockError => Error::io(
            folder,
            io::Error::new(io::ErrorKind::ResourceBusy, "another program has it open"),
        ),
        _ => Error::Corrupt {
            path: folder.to_owned(),
            what: status.err.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::ordered::tests;
    use super::*;

    #[test]
    fn keys_are_those_of_a_map() {
        tests::agrees_with_a_map::<Leveldb>();
    }

    #[test]
    fn a_newer_layout_is_refused() {
        tests::a_newer_layout_is_refused::<Leveldb>();
    }

    #[test]
    fn a_compaction_that_was_cut_loses_nothing() {
        tests::a_compaction_that_was_cut_loses_nothing::<Leveldb>();
    }
}
