//! Blobs by content: the only way bytes enter or leave the store.
//!
//! [`Store`] is the handle to one named store. Threads that do storage work (backup, check, collection) use
//! its [`Backend`] directly; everything async goes through the methods here, which are one of the two places
//! where blocking work meets async (the other is `db.rs`). The machine behind it:
//!
//! ```text
//!  put ──> pack (hash, compress) ──┐                    ┌─> append ─> flush ─> answers
//!  put ──> pack ───────────────────┼─> queue ─> commit ─┤   (one group, one flush)
//!  put ──> pack ───────────────────┘   thread           └─> what came meanwhile is the next group
//!
//!  receive ──> small enough: put
//!          └─> else Backend::begin ─> write, 512 KiB at a time ─> finish
//! ```
//!
//! There is no timer in the group commit: an idle store flushes at once, and what arrives while a flush is
//! under way shares the next one.

mod backend;
mod carry;
mod class;
mod commit;
#[cfg(test)]
pub(crate) mod contract;
mod error;
mod frame;
mod fs;
mod haystack;
mod memory;
mod mirror;
mod receive;
mod remote;
mod space;
mod switch;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, spawn_blocking};

pub use backend::{
    Aside, Backend, CheckOptions, CheckReport, Class, Compaction, Incoming, Listing, Put, Reader, Stat,
    Status, clamp, read_whole,
};
pub use carry::{Carrier, CarryError};
pub use error::Error;
pub use frame::{Compression, FRAME_BYTES, PACKED_BYTES_MAX, Packed};
pub use fs::Fs;
pub use haystack::{Haystack, HaystackOptions};
pub use memory::Memory;
pub use mirror::{end_mirror, is_mirror, make_mirror};
pub use receive::Receiver;
pub use remote::Remote;
pub use switch::{Ids, Switch, Touched};

use crate::id::{BlobAddress, BlobId};

/// The most ids of one page of [`Store::list`]: a page is an allocation of about 200 KiB.
pub const LIST_PAGE_MAX: usize = 4096;

/// The most ids of one [`Store::stat`] or [`Store::delete`].
pub const BATCH_IDS_MAX: usize = 10_000;

/// Changes that a slow subscriber may lag behind before it has to enumerate.
const CHANGES_KEPT: usize = 1024;

/// Up to here hashing and compressing costs less than handing the work to another thread.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What happened to a blob; sent after it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A blob that was not there before.
    Added(Stat),
    /// A blob that is gone.
    Deleted(BlobId),
    /// A blob was found damaged and set aside.
    Quarantined(BlobId),
}

/// The handle to one store; cloning it is cheap, the last clone ends its commit thread.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<Switch>,
    /// Of [`Compression`]; another one where the backend was exchanged.
    compression: AtomicI32,
    commits: commit::Queue,
    changes: broadcast::Sender<Change>,
}

impl Store {
    /// A store over `backend`. Starts its commit thread.
    ///
    /// # Errors
    /// [`Error::Busy`] where no thread could be started.
    pub fn new(backend: Arc<dyn Backend>, compression: Compression) -> Result<Store, Error> {
        let backend = Arc::new(Switch::new(backend));
        let commits = commit::Queue::start(Arc::clone(&backend) as Arc<dyn Backend>)?;
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        Ok(Store {
            inner: Arc::new(Inner {
                backend,
                compression: AtomicI32::new(compression.0),
                commits,
                changes,
            }),
        })
    }

    /// The blocking interface, for threads that do storage work. What is changed through it is not told to
    /// [`Store::changes`]; use [`Store::announce`].
    pub fn backend(&self) -> &dyn Backend {
        &*self.inner.backend
    }

    /// What the backend is exchanged by, while the store is in use.
    pub fn switch(&self) -> &Switch {
        &self.inner.backend
    }

    /// What is packed from now on is packed like that: for a backend that was exchanged.
    pub fn set_compression(&self, compression: Compression) {
        self.inner.compression.store(compression.0, Ordering::Relaxed);
    }

    fn compression(&self) -> Compression {
        Compression(self.inner.compression.load(Ordering::Relaxed))
    }

    /// Packs bytes as this store wants them. Pure processor work.
    pub fn pack(&self, bytes: Bytes, class: Class) -> Packed {
        Packed::new(bytes, class, self.compression())
    }

    /// As [`Store::pack`], for bytes whose id was computed already: by [`BlobId::of`], from these very bytes.
    pub fn pack_identified(&self, id: BlobId, bytes: Bytes, class: Class) -> Packed {
        Packed::identified(id, bytes, class, self.compression())
    }

    /// What changes from now on. A subscriber that lags is told so and has to enumerate.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Tells subscribers of a change made through [`Store::backend`].
    pub fn announce(&self, change: Change) {
        // Nobody listening is no error.
        let _ = self.inner.changes.send(change);
    }

    /// Stores a blob of at most [`PACKED_BYTES_MAX`] bytes; durable on return. May be cancelled: the blob is
    /// then stored or not.
    ///
    /// # Errors
    /// [`Error::Mismatch`] against `expect`, and as [`Backend::append`] and [`Backend::flush`].
    pub async fn put(&self, bytes: Bytes, class: Class, expect: Option<BlobAddress>) -> Result<Put, Error> {
        let mut receiver = self.receive(class, expect);
        receiver.write(bytes).await?;
        receiver.finish().await
    }

    /// Begins a blob of any length. Dropping the receiver leaves nothing.
    pub fn receive(&self, class: Class, expect: Option<BlobAddress>) -> Receiver {
        Receiver::new(self.clone(), class, expect)
    }

    /// Stores what is packed; durable on return. Shares its flush with whatever else is on its way.
    ///
    /// # Errors
    /// As [`Backend::append`] and [`Backend::flush`].
    pub async fn commit(&self, packed: Packed) -> Result<Put, Error> {
        let class = packed.class;
        let put = self.inner.commits.commit(packed).await?;
        if put.fresh {
            self.announce(Change::Added(Stat {
                id: put.id,
                len: put.len,
                class,
            }));
        }
        Ok(put)
    }

    /// Opens a blob for reading; `None` where it is not stored. May be cancelled.
    ///
    /// # Errors
    /// As [`Backend::open`].
    pub async fn get(&self, id: BlobId) -> Result<Option<Reading>, Error> {
        let opened = self.run(move |backend| backend.open(&id)).await?;
        Ok(opened.map(|reader| Reading {
            store: self.clone(),
            stat: reader.stat(),
            reader: Some(reader),
        }))
    }

    /// Reads a blob of at most `limit` bytes whole; `None` where it is not stored.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and as [`Reader::read_at`].
    pub async fn read(&self, id: BlobId, limit: usize) -> Result<Option<Bytes>, Error> {
        let read = move |backend: &dyn Backend| match backend.open(&id)? {
            Some(mut reader) => read_whole(&mut *reader, limit).map(Some),
            None => Ok(None),
        };
        let read = self.run(read).await;
        if let Err(Error::Corrupt { id }) = read {
            self.set_aside(id).await;
        }
        read
    }

    /// What is known of each id, in the order asked; at most [`BATCH_IDS_MAX`].
    ///
    /// # Errors
    /// As [`Backend::stat`].
    pub async fn stat(&self, ids: Vec<BlobId>) -> Result<Vec<Option<Stat>>, Error> {
        self.run(move |backend| backend.stat(&ids)).await
    }

    /// The next blobs above `after`, ascending; at most `limit` and [`LIST_PAGE_MAX`]. Fewer means the end.
    ///
    /// # Errors
    /// As [`Backend::list`].
    pub async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Stat>, Error> {
        self.run(move |backend| backend.list(after)?.take(limit.min(LIST_PAGE_MAX)).collect())
            .await
    }

    /// Deletes blobs; says of each whether it was there. Durable on return.
    ///
    /// # Errors
    /// As [`Backend::delete`].
    pub async fn delete(&self, ids: Vec<BlobId>) -> Result<Vec<bool>, Error> {
        let asked = ids.clone();
        let gone = self.run(move |backend| backend.delete(&asked)).await?;
        for (id, _) in ids.iter().zip(&gone).filter(|(_, gone)| **gone) {
            self.announce(Change::Deleted(*id));
        }
        Ok(gone)
    }

    /// The canonical id an address stands for; `None` for an alias no client used before.
    ///
    /// # Errors
    /// As [`Backend::resolve`].
    pub async fn resolve(&self, address: BlobAddress) -> Result<Option<BlobId>, Error> {
        match address {
            BlobAddress::Blake3(id) => Ok(Some(id)),
            BlobAddress::Sha256(alias) => self.run(move |backend| backend.resolve(&alias)).await,
        }
    }

    /// The state of the store; cheap, does not block.
    pub fn status(&self) -> Status {
        self.inner.backend.status()
    }

    /// Runs blocking work on this store. It goes on when the future is dropped.
    ///
    /// # Errors
    /// What `work` answers.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Backend) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let backend = Arc::clone(&self.inner.backend);
        crossing(move || work(&*backend)).await
    }

    /// Sets a blob aside that a read found damaged. Best effort: the read already answers with the damage,
    /// and a check finds the blob again.
    async fn set_aside(&self, id: BlobId) {
        match self
            .run(move |backend| backend.quarantine(&id, Aside::Damaged))
            .await
        {
            // Another reader was first, and the blob may have been put again since.
            Ok(false) => {}
            Ok(true) => {
                tracing::error!(%id, "a damaged blob was set aside: put it again or fetch it from a peer");
                self.announce(Change::Quarantined(id));
            }
            Err(error) => tracing::error!(%id, %error, "a damaged blob could not be set aside"),
        }
    }
}

/// A blob being read.
pub struct Reading {
    store: Store,
    stat: Stat,
    /// `None` only while a read is under way, or after one was cancelled.
    reader: Option<Box<dyn Reader>>,
}

impl Reading {
    /// What is being read.
    pub fn stat(&self) -> Stat {
        self.stat
    }

    /// Verified bytes from `offset` on: at most a frame, empty at the end. A damaged blob is set aside and
    /// reported. After a cancelled call every further one answers [`Error::Busy`].
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    pub async fn read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        let mut reader = self.reader.take().ok_or(Error::Busy)?;
        let (reader, read) = crossing(move || {
            let read = reader.read_at(offset);
            Ok((reader, read))
        })
        .await?;
        self.reader = Some(reader);
        if let Err(Error::Corrupt { id }) = read {
            self.store.set_aside(id).await;
        }
        read
    }
}

/// Starts storage work on a thread that may block; the one crossing from async.
fn cross<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> JoinHandle<Result<T, Error>> {
    spawn_blocking(work)
}

/// Storage work from async, awaited.
async fn crossing<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match cross(work).await {
        Ok(done) => done,
        // Only a runtime that shuts down cancels blocking work; a panic aborts the shipped binary.
        Err(_) => Err(Error::Busy),
    }
}
