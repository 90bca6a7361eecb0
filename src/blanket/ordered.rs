//! Documents in any store of ordered keys: one layout, one codec, one way to fail, for the engines `lsm`, `leveldb` and `couchdb`.
//!
//! ```text
//!  Engine ──> Ordered ──┬─ layout   keys and sealed values; each is compared with a checksum when it is read
//!                       ├─ rows     documents out of keys, in order
//!                       ├─ group    a group as one batch, with the counters it changes
//!                       ├─ doubt    that a write failed, remembered for whoever opens the store next
//!                       └─ rewrite  compaction: what is in use into a fresh folder, which takes the place of the other
//!                            └─> Store: lsm (fjall), leveldb (rusty-leveldb), couchdb (a server)
//! ```
//!
//! A store gives three things: a batch that is durable as a whole or not there, one moment to read at, keys in the order of
//! their bytes. It need not find damage by itself, and may take no more writes after one failed: then the state of its log is
//! unknown. Where the disk was full, it is closed and opened again as soon as there is room, which drops what was half written.
//! Where anything else failed, the database takes no more writes until it is opened again, as everywhere in Refuge; but where a server
//! did not answer, its store knows by itself what became of the batch.

mod doubt;
mod group;
mod layout;
mod rewrite;
mod rows;
#[cfg(any(feature = "leveldb", feature = "lsm"))]
pub(super) mod sizes;
#[cfg(any(feature = "leveldb", feature = "lsm"))]
pub(super) mod tail;
#[cfg(any(feature = "leveldb", feature = "lsm"))]
#[cfg(test)]
pub(super) mod tests;

use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, RwLock};

use super::doc::Content;
use super::engine::{Engine, Loaded, LocalDoc, Merge, Record, Row, Sizes, Summary, Visit, Visitor, Which};
use super::error::Error;
use crate::id::{DocId, LocalId, Seq};

/// Room on the disk from which on a store that found none is opened again: recovery may write its log as a table.
const ROOM_BYTES: u64 = 16 * 1024 * 1024;

/// What a batch does: each key once, with its new value or none.
pub(super) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Keys from the first to before the second; to the end where there is none.
pub(super) type Range<'a> = (&'a [u8], Option<&'a [u8]>);

/// Hears of keys and their values; breaks where it has enough.
pub(super) type Walker<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error> + 'a;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A new one, in a folder that is empty.
    New,
    /// One that was closed, or whose process or machine stopped.
    Again,
    /// One of which a write or a flush failed: what is read of its log need not be on the medium.
    InDoubt,
}

/// A store of ordered keys. Blocking.
pub(super) trait Store: Send + Sync + Sized + 'static {
    /// The name of its folder in a database's folder: it tells which engine a database has.
    const FOLDER: &'static str;

    /// What it takes to open one besides its folder.
    type Around: Send + Sync + 'static;

    /// Opens the store in `folder`.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: nothing was changed.
    fn open(folder: &Path, opening: Opening, around: &Self::Around) -> Result<Self, Error>;

    /// Reads at one moment.
    ///
    /// # Errors
    /// What `work` answers.
    fn read<T>(&self, work: impl FnOnce(&mut dyn Moment) -> Result<T, Error>) -> Result<T, Error>;

    /// Writes a batch. Durable on return.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`], [`Error::Corrupt`]: all of it or nothing is there once the store is opened again.
    /// [`Error::Server`], [`Error::TooLong`]: nothing of it is there, and the store goes on.
    fn write(&self, batch: &Batch) -> Result<(), Error>;

    /// Bytes on the medium.
    ///
    /// # Errors
    /// Where they can't be told.
    fn sizes(&self) -> Result<Sizes, Error>;

    /// Gives back what is not in use; `None` where for that the store is made anew.
    fn compact(&self) -> Option<Result<(), Error>>;
}

/// What a store holds at one moment.
pub(super) trait Moment {
    /// The value of a key.
    ///
    /// # Errors
    /// Where it can't be read.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Tells which keys are asked for next: a store that is far away reads them at once.
    ///
    /// # Errors
    /// Where they can't be read.
    fn look_ahead(&mut self, keys: &[Vec<u8>]) -> Result<(), Error>;

    /// Keys in order, or in the other one.
    ///
    /// # Errors
    /// Where they can't be read: a key that is damaged is never passed over.
    fn walk(&mut self, range: Range<'_>, descending: bool, walker: &mut Walker<'_>) -> Result<(), Error>;
}

/// Documents in a store of ordered keys.
pub(super) struct Ordered<S: Store> {
    /// The folder of the store.
    folder: PathBuf,
    around: S::Around,
    /// `None` where it was closed and could not be opened again.
    store: RwLock<Option<S>>,
    /// Held by whoever writes: a compaction beside reads, but no writes.
    changing: Mutex<()>,
    stopped: Mutex<Stopped>,
}

/// Why no writes are taken.
enum Stopped {
    /// They are.
    No,
    /// There was no room: until there is. The last group may be there all the same, and is then undone: whoever asked for it
    /// was told that it is not.
    Full { groups: u64, undo: Batch },
    /// Something else, in words: until it is opened again.
    Failed(String),
}

impl<S: Store> Ordered<S> {
    /// Opens the database in a folder, or makes one in it.
    pub(super) fn open(place: &Path, around: S::Around) -> Result<Ordered<S>, Error> {
        let folder = place.join(S::FOLDER);
        rewrite::finish(&folder)?;
        let opening = match folder.is_dir() {
            false => Opening::New,
            true if doubt::is_marked(&folder) => Opening::InDoubt,
            true => Opening::Again,
        };
        if opening == Opening::New {
            private_folder(&folder)?;
        }
        let store = S::open(&folder, opening, &around)?;
        match opening {
            Opening::New => store.write(&layout::first())?,
            Opening::Again | Opening::InDoubt => {
                store.read(|moment| layout::check_format(moment, &folder))?;
                doubt::clear(&folder)?;
            }
        }
        Ok(Ordered {
            folder,
            around,
            store: RwLock::new(Some(store)),
            changing: Mutex::new(()),
            stopped: Mutex::new(Stopped::No),
        })
    }

    fn read<T>(&self, work: impl FnOnce(&mut dyn Moment) -> Result<T, Error>) -> Result<T, Error> {
        let store = self.store.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        store.as_ref().ok_or_else(|| self.closed())?.read(work)
    }

    fn write(&self, make: impl FnOnce(&mut dyn Moment) -> Result<Batch, Error>) -> Result<(), Error> {
        let _changing = lock(&self.changing);
        self.writable()?;
        let store = self.store.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let store = store.as_ref().ok_or_else(|| self.closed())?;
        let batch = store.read(make)?;
        if batch.is_empty() {
            return Ok(());
        }
        store
            .write(&batch)
            .inspect_err(|error| *lock(&self.stopped) = self.why(error, store, &batch))
    }

    /// Whether writes are taken; where there was no room, the store is opened again once there is.
    fn writable(&self) -> Result<(), Error> {
        let mut stopped = lock(&self.stopped);
        let (groups, undo) = match &*stopped {
            Stopped::No => return Ok(()),
            Stopped::Failed(reason) => {
                return Err(Error::ReadOnly {
                    path: self.folder.clone(),
                    reason: reason.clone(),
                });
            }
            Stopped::Full { groups, undo } => (*groups, undo),
        };
        if !has_room(&self.folder)? {
            return Err(Error::Full {
                path: self.folder.clone(),
            });
        }
        let mut store = self
            .store
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // One at a time may have a folder open.
        *store = None;
        let opened = store.insert(S::open(&self.folder, Opening::InDoubt, &self.around)?);
        if opened
            .read(|moment| group::counters(moment, &self.folder))?
            .groups
            > groups
        {
            opened.write(undo)?;
        }
        doubt::clear(&self.folder)?;
        *stopped = Stopped::No;
        Ok(())
    }

    /// Why no more writes are taken after this failure.
    fn why(&self, error: &Error, store: &S, batch: &Batch) -> Stopped {
        if matches!(error, Error::Server { .. } | Error::TooLong { .. }) {
            return Stopped::No;
        }
        doubt::mark(&self.folder);
        let Error::Full { .. } = error else {
            return Stopped::Failed(error.to_string());
        };
        // What is read is as it was before the group.
        let read = store.read(|moment| {
            let groups = group::counters(moment, &self.folder)?.groups;
            let before = batch.iter().map(|(key, _)| Ok((key.clone(), moment.get(key)?)));
            Ok((groups, before.collect::<Result<Batch, Error>>()?))
        });
        match read {
            Ok((groups, undo)) => Stopped::Full { groups, undo },
            Err(error) => Stopped::Failed(error.to_string()),
        }
    }

    fn closed(&self) -> Error {
        Error::ReadOnly {
            path: self.folder.clone(),
            reason: "it could not be opened again after a write or a compaction that failed".to_owned(),
        }
    }
}

impl<S: Store> Engine for Ordered<S> {
    fn update(&self, ids: &[DocId], merge: &mut Merge<'_>) -> Result<(), Error> {
        self.write(|moment| {
            let before = rows::stored_all(moment, ids, &self.folder)?;
            let record = |stored: &Option<layout::Stored>| {
                stored.as_ref().map(|stored| Record {
                    seq: stored.seq,
                    tree: stored.tree.clone(),
                })
            };
            let records = before.iter().map(record).collect();
            let before = ids.iter().cloned().zip(before).collect();
            group::batch(moment, merge(records), &before, &self.folder)
        })
    }

    fn summary(&self) -> Result<Summary, Error> {
        self.read(|moment| Ok(group::counters(moment, &self.folder)?.summary))
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        let store = self.store.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        store.as_ref().ok_or_else(|| self.closed())?.sizes()
    }

    fn load(&self, id: &DocId, which: &Which) -> Result<Option<Loaded>, Error> {
        self.read(|moment| rows::load(moment, id, which, &self.folder))
    }

    fn by_seq(
        &self,
        range: (Bound<Seq>, Bound<Seq>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error> {
        self.read(|moment| rows::by_seq(moment, range, visit, &self.folder, visitor))
    }

    fn count(&self, range: (Bound<Seq>, Bound<Seq>)) -> Result<u64, Error> {
        self.read(|moment| rows::count(moment, range))
    }

    fn by_id(
        &self,
        range: (Bound<&DocId>, Bound<&DocId>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error> {
        self.read(|moment| rows::by_id(moment, range, visit, &self.folder, visitor))
    }

    fn attached(&self, visitor: &mut Visitor<'_, (DocId, Content)>) -> Result<(), Error> {
        self.read(|moment| rows::attached(moment, &self.folder, visitor))
    }

    fn local(&self, id: &LocalId) -> Result<Option<LocalDoc>, Error> {
        self.read(|moment| rows::local(moment, id, &self.folder))
    }

    fn locals(
        &self,
        range: (Bound<&LocalId>, Bound<&LocalId>),
        visit: Visit,
        visitor: &mut Visitor<'_, (LocalId, LocalDoc)>,
    ) -> Result<(), Error> {
        self.read(|moment| rows::locals(moment, range, visit, &self.folder, visitor))
    }

    fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|moment| rows::setting(moment, key, &self.folder))
    }

    fn compact(&self) -> Result<(), Error> {
        let _changing = lock(&self.changing);
        self.writable()?;
        let by_itself = {
            let store = self.store.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            store.as_ref().ok_or_else(|| self.closed())?.compact()
        };
        by_itself.unwrap_or_else(|| rewrite::rewrite(&self.folder, &self.store, &self.around))
    }

    fn check(&self) -> Result<Option<String>, Error> {
        self.read(|moment| rows::check(moment, &self.folder))
    }
}

/// Whether a database in this place is in a store of this kind.
pub(super) fn is_there<S: Store>(place: &Path) -> bool {
    rewrite::is_there(&place.join(S::FOLDER))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole at any moment.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Makes a folder that only its owner reads.
fn private_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| Error::io(path, error))
}

/// Whether a store that found no room may be opened again.
pub(super) fn has_room(folder: &Path) -> Result<bool, Error> {
    let room = nix::sys::statvfs::statvfs(folder).map_err(|errno| Error::io(folder, errno.into()))?;
    #[expect(clippy::useless_conversion, reason = "narrower on 32-bit systems")]
    let bytes = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
    Ok(bytes >= ROOM_BYTES)
}
