//! The blobs of one named store, as edges see them: outcomes instead of a store's errors, and events.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::activity::{Activity, UnderWay};
use super::clock::Clock;
use super::doubt::Doubt;
use super::error::{Error, Kind};
use super::events::{Event, Events};
use super::lease::Leases;
use crate::coffer::{self, CheckOptions, CheckReport, Class, Packed, Put, Stat, Status};
use crate::db;
use crate::id::{BlobAddress, BlobId, StoreName};

/// The blobs of one store; cloning is cheap.
#[derive(Clone)]
pub struct Blobs {
    name: StoreName,
    store: coffer::Store,
    doubt: Arc<Doubt>,
    leases: Arc<Leases>,
    events: Events,
    clock: Clock,
    activity: Activity,
    /// Set when the store was removed or closed: handles that are still around answer that.
    gone: Arc<OnceLock<Gone>>,
}

/// Why a store can't be used through a handle any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was removed.
    Removed,
    /// It was closed for this reason, and may be opened again.
    Closed(String),
}

/// A blob being received. Dropping it leaves nothing.
pub struct Receiver {
    blobs: Blobs,
    receiver: coffer::Receiver,
    class: Class,
    _under_way: UnderWay,
}

/// A blob being read.
pub struct Reading {
    blobs: Blobs,
    reading: coffer::Reading,
}

impl Blobs {
    pub(super) fn new(
        name: StoreName,
        store: coffer::Store,
        doubt: Arc<Doubt>,
        events: Events,
        clock: Clock,
        activity: Activity,
    ) -> Blobs {
        Blobs {
            name,
            store,
            doubt,
            leases: Arc::new(Leases::new()),
            events,
            clock,
            activity,
            gone: Arc::default(),
        }
    }

    /// The name of the store.
    pub fn name(&self) -> &StoreName {
        &self.name
    }

    /// The state of the store; cheap, does not block.
    pub fn status(&self) -> Status {
        self.store.status()
    }

    /// Stores a blob that is at hand; durable on return. May be cancelled: it is then stored or not.
    ///
    /// # Errors
    /// [`Error::Mismatch`] against `expect`; [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Busy`].
    pub async fn put(&self, bytes: Bytes, class: Class, expect: Option<BlobAddress>) -> Result<Put, Error> {
        let mut receiver = self.receive(class, expect)?;
        receiver.write(bytes).await?;
        receiver.finish().await
    }

    /// Begins a blob of any length.
    ///
    /// # Errors
    /// [`Error::Missing`] where the store was removed.
    pub fn receive(&self, class: Class, expect: Option<BlobAddress>) -> Result<Receiver, Error> {
        self.present()?;
        Ok(Receiver {
            blobs: self.clone(),
            receiver: self.store.receive(class, expect),
            class,
            _under_way: self.activity.begin(),
        })
    }

    /// Packs bytes of at most [`coffer::PACKED_BYTES_MAX`] as this store wants them. Pure processor work,
    /// about 1 ms for 256 KiB on a small box.
    pub fn pack(&self, bytes: Bytes, class: Class) -> Packed {
        self.store.pack(bytes, class)
    }

    /// Stores what is packed; durable on return. Shares its flush with whatever else is on its way, so many
    /// at once cost little more than one.
    ///
    /// # Errors
    /// As [`Blobs::put`], without the mismatch.
    pub async fn commit(&self, packed: Packed) -> Result<Put, Error> {
        self.present()?;
        let class = packed.class;
        let _asking = self.leases.asking().await;
        let put = self.store.commit(packed).await?;
        self.told(put, class);
        Ok(put)
    }

    /// Opens a blob for reading. May be cancelled.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Corrupt`], [`Error::Busy`].
    pub async fn get(&self, id: BlobId) -> Result<Reading, Error> {
        self.present()?;
        let reading = self.store.get(id).await?;
        Ok(Reading {
            blobs: self.clone(),
            reading: reading.ok_or_else(|| Error::missing(Kind::Blob, id))?,
        })
    }

    /// Reads a blob of at most `limit` bytes whole.
    ///
    /// # Errors
    /// [`Error::TooLarge`], and as [`Blobs::get`].
    pub async fn read(&self, id: BlobId, limit: usize) -> Result<Bytes, Error> {
        self.present()?;
        match self.store.read(id, limit).await {
            Ok(read) => read.ok_or_else(|| Error::missing(Kind::Blob, id)),
            Err(coffer::Error::TooLarge { .. }) => Err(Error::TooLarge { limit: limit as u64 }),
            Err(error) => Err(self.told_damage(error)),
        }
    }

    /// What is known of each id, in the order asked. What is there is not collected within the next day. At most [`coffer::BATCH_IDS_MAX`] at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more.
    pub async fn stat(&self, ids: Vec<BlobId>) -> Result<Vec<Option<Stat>>, Error> {
        within_a_batch(&ids)?;
        self.find(ids).await
    }

    /// As [`Blobs::stat`], for any number.
    pub(super) async fn find(&self, ids: Vec<BlobId>) -> Result<Vec<Option<Stat>>, Error> {
        self.present()?;
        let _asking = self.leases.asking().await;
        self.activity.touch();
        let stats = self.store.stat(ids).await?;
        let found = stats.iter().flatten().map(|stat| stat.id);
        self.leases.lease(found, self.clock.now());
        Ok(stats)
    }

    /// The next blobs above `after`, ascending; at most `limit` and [`coffer::LIST_PAGE_MAX`]. Fewer than
    /// both means the end.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Stat>, Error> {
        self.present()?;
        Ok(self.store.list(after, limit).await?)
    }

    /// Deletes blobs, pinned or not; says of each whether it was there. Durable on return, also on a full
    /// disk. At most [`coffer::BATCH_IDS_MAX`] at once. What a ref names goes as well, as the owner says so: the
    /// next snapshot looks for all it names, and has put again what its folder still holds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more; [`Error::ReadOnly`].
    pub async fn delete(&self, ids: Vec<BlobId>) -> Result<Vec<bool>, Error> {
        self.present()?;
        within_a_batch(&ids)?;
        let doubt = Arc::clone(&self.doubt);
        db::crossing(move || {
            doubt.raise();
            Ok::<_, Error>(())
        })
        .await?;
        let gone = self.store.delete(ids.clone()).await?;
        for (id, _) in ids.into_iter().zip(&gone).filter(|(_, gone)| **gone) {
            self.events.tell(Event::BlobDeleted {
                store: self.name.clone(),
                id,
            });
        }
        Ok(gone)
    }

    /// The blob an address stands for.
    ///
    /// # Errors
    /// [`Error::Missing`] for an alias no client used before.
    pub async fn resolve(&self, address: BlobAddress) -> Result<BlobId, Error> {
        self.present()?;
        let id = self.store.resolve(address).await?;
        id.ok_or_else(|| Error::missing(Kind::Blob, address))
    }

    /// Checks the store while serving goes on; minutes for a large one. `progress` hears the number of
    /// blobs looked at.
    ///
    /// # Errors
    /// Only where the check cannot go on; what it finds is in the report.
    pub async fn check(
        &self,
        options: CheckOptions,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<CheckReport, Error> {
        self.present()?;
        let check = move |backend: &dyn coffer::Backend| backend.check(options, &progress);
        let report = self.store.run(check).await?;
        for id in &report.quarantined {
            self.events.tell(Event::BlobDamaged {
                store: self.name.clone(),
                id: *id,
            });
        }
        Ok(report)
    }

    /// The store below, for the use cases of this module.
    pub(super) fn store(&self) -> &coffer::Store {
        &self.store
    }

    /// What the collector must not take.
    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// From now on every call answers that the store is gone. The first reason counts.
    pub(super) fn retire(&self, gone: Gone) {
        let _ = self.gone.set(gone);
    }

    fn present(&self) -> Result<(), Error> {
        match self.gone.get() {
            None => Ok(()),
            Some(Gone::Removed) => Err(Error::missing(Kind::Store, &self.name)),
            Some(Gone::Closed(reason)) => Err(Error::Offline {
                store: self.name.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Leases and tells what was put.
    fn told(&self, put: Put, class: Class) {
        self.activity.touch();
        if class == Class::Part || !put.fresh {
            self.leases.lease([put.id], self.clock.now());
        }
        if put.fresh {
            self.events.tell(Event::BlobAdded {
                store: self.name.clone(),
                id: put.id,
                len: put.len,
            });
        }
    }

    /// The store has set the blob aside already.
    fn told_damage(&self, error: coffer::Error) -> Error {
        if let coffer::Error::Corrupt { id } = error {
            self.events.tell(Event::BlobDamaged {
                store: self.name.clone(),
                id,
            });
        }
        error.into()
    }
}

impl Receiver {
    /// Takes the next bytes, in pieces as they come; holds at most 1 MiB of them. If cancelled, the blob
    /// can't be finished.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Busy`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        Ok(self.receiver.write(bytes).await?)
    }

    /// Ends the blob: its digest is compared with what was expected. Durable on return.
    ///
    /// # Errors
    /// [`Error::Mismatch`], nothing is kept then; else as [`Receiver::write`].
    pub async fn finish(self) -> Result<Put, Error> {
        let _asking = self.blobs.leases.asking().await;
        let put = self.receiver.finish().await?;
        self.blobs.told(put, self.class);
        Ok(put)
    }
}

impl Reading {
    /// What is being read.
    pub fn stat(&self) -> Stat {
        self.reading.stat()
    }

    /// Verified bytes from `offset` on, at most 256 KiB, empty at the end. Damage is reported and the blob
    /// set aside. After a cancelled call every further one answers [`Error::Busy`].
    ///
    /// # Errors
    /// [`Error::Corrupt`]: what was handed out so far was right, the rest cannot be had.
    pub async fn read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        let read = self.reading.read_at(offset).await;
        read.map_err(|error| self.blobs.told_damage(error))
    }
}

fn within_a_batch(ids: &[BlobId]) -> Result<(), Error> {
    if ids.len() > coffer::BATCH_IDS_MAX {
        return Err(Error::Invalid {
            what: "ids",
            reason: format!("at most {} at once", coffer::BATCH_IDS_MAX),
        });
    }
    Ok(())
}
