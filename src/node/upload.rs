//! Partial uploads, as the tus protocol knows them: begun, continued where they stopped, turned into a blob.
//!
//! What is acknowledged survives a restart: a piece is flushed to the upload's data file before its record
//! says so, and what lies beyond the record is cut off when the upload goes on. A complete upload is streamed
//! into its store and becomes a pinned blob; of the upload only its record with the blob's id stays, until it
//! expires, so that a client that missed the answer learns it.

mod append;
mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::activity::Activity;
use super::clock::{Clock, from_unix_s};
use super::error::{Error, Kind};
use super::events::{Event, Events};
use super::stores::Stores;
use crate::db;
use crate::id::{BlobAddress, BlobId, StoreName, UploadId};

pub use append::Appending;
use record::Record;

/// Uploads of a node, complete ones that did not expire yet included; a record is about 1 KiB in memory.
pub const UPLOADS_MAX: usize = 512;

/// Bytes that unfinished uploads may hold together.
pub const UPLOADS_BYTES_MAX: u64 = 512 * 1024 * 1024 * 1024;

/// An upload that nobody continued for so long is removed.
pub const UPLOAD_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// The longest metadata of an upload, in bytes.
pub const UPLOAD_METADATA_BYTES_MAX: usize = 4096;

/// The most uploads one is put together from.
pub const UPLOAD_PARTS_MAX: usize = 256;

/// What an upload is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// Where the blob goes.
    pub store: StoreName,
    /// Its length in bytes; `None` until [`Uploads::declare_length`].
    pub length: Option<u64>,
    /// What the client says about it, kept as it is.
    pub metadata: String,
    /// The id its bytes must have.
    pub expect: Option<BlobAddress>,
    /// Whether it is a part for [`Uploads::concatenate`]: no blob by itself.
    pub partial: bool,
}

/// An upload and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    /// Its id.
    pub id: UploadId,
    /// Where the blob goes.
    pub store: StoreName,
    /// Bytes acknowledged.
    pub offset: u64,
    /// Its length in bytes, once it is known.
    pub length: Option<u64>,
    /// What the client said about it.
    pub metadata: String,
    /// Whether it is a part for [`Uploads::concatenate`].
    pub partial: bool,
    /// What it was put together from; empty where it was uploaded itself.
    pub parts: Vec<UploadId>,
    /// When it is removed if nobody goes on.
    pub expires: SystemTime,
    /// What it became.
    pub blob: Option<BlobId>,
}

/// The partial uploads of a node; cloning is cheap.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    stores: Stores,
    events: Events,
    clock: Clock,
    activity: Activity,
    table: Mutex<HashMap<UploadId, Slot>>,
}

struct Slot {
    record: Record,
    /// Whether a request works on it: one at a time.
    busy: bool,
}

/// Keeps others away from an upload until it is dropped. What works on its files has a share, so that nobody goes on while a request
/// that was dropped still writes.
struct Hold {
    inner: Arc<Inner>,
    id: UploadId,
}

impl Uploads {
    /// The uploads in `folder`; what was begun and never recorded is removed. Blocking.
    pub(super) fn open(
        folder: &Path,
        stores: Stores,
        events: Events,
        clock: Clock,
        activity: Activity,
    ) -> Result<Uploads, Error> {
        let records = record::load_all(folder)?;
        let table = records.into_iter().map(|record| {
            let slot = Slot { record, busy: false };
            (slot.record.id, slot)
        });
        Ok(Uploads {
            inner: Arc::new(Inner {
                folder: folder.to_owned(),
                stores,
                events,
                clock,
                activity,
                table: Mutex::new(table.collect()),
            }),
        })
    }

    /// Begins an upload. Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`] store; [`Error::Invalid`] metadata; [`Error::TooLarge`] beyond what all uploads may
    /// hold; [`Error::Busy`] where there are too many; [`Error::NoSpace`].
    pub async fn create(&self, new: NewUpload) -> Result<UploadInfo, Error> {
        self.inner.stores.get(&new.store)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let record = Record::new(UploadId::from_bytes(id), new, self.inner.clock.unix_s());
        let info = self.insert(record).await?;
        if info.length != Some(0) || info.partial {
            return Ok(info);
        }
        let hold = self.hold(info.id)?;
        append::complete(&hold).await
    }

    /// An upload and how far it is. One that was complete when the node stopped becomes a blob now.
    ///
    /// # Errors
    /// [`Error::Missing`] also where it expired; and as [`Appending::finish`].
    pub async fn info(&self, id: UploadId) -> Result<UploadInfo, Error> {
        let info = self.peek(id)?;
        if info.blob.is_some() || info.partial || info.length != Some(info.offset) {
            return Ok(info);
        }
        match self.hold(id) {
            Ok(hold) => append::complete(&hold).await,
            // Whoever holds it is about to complete it.
            Err(Error::Conflict { .. }) => Ok(info),
            Err(error) => Err(error),
        }
    }

    /// Says how long an upload becomes that was begun without a length. Durable on return.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another length was said before; [`Error::Invalid`] below what is there.
    pub async fn declare_length(&self, id: UploadId, length: u64) -> Result<UploadInfo, Error> {
        let hold = self.hold(id)?;
        let mut record = hold.record()?;
        match record.length {
            Some(known) if known == length => return Ok(record.info()),
            Some(_) => return Err(Error::conflict(Kind::Upload, id, "it has another length")),
            None if length < record.offset => {
                return Err(Error::Invalid {
                    what: "length",
                    reason: format!("{} bytes are there already", record.offset),
                });
            }
            None => record.length = Some(length),
        }
        self.room_for(length - record.offset)?;
        hold.save(record).await
    }

    /// Goes on with an upload at `offset`. What is written counts once [`Appending::finish`] returned; if the
    /// future or the result is dropped before, it is as if nothing had come.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Offset`]; [`Error::Conflict`] where another request works on it.
    pub async fn append(&self, id: UploadId, offset: u64) -> Result<Appending, Error> {
        let hold = self.hold(id)?;
        Appending::begin(hold, offset).await
    }

    /// Puts complete parts together, in order, to one blob. The parts stay until they expire. Durable on
    /// return.
    ///
    /// # Errors
    /// [`Error::Missing`] part; [`Error::Conflict`] where one is not complete or no part; [`Error::Invalid`]
    /// for none or too many; and as [`Appending::finish`].
    pub async fn concatenate(&self, parts: Vec<UploadId>, new: NewUpload) -> Result<UploadInfo, Error> {
        if parts.is_empty() || parts.len() > UPLOAD_PARTS_MAX {
            return Err(Error::Invalid {
                what: "parts",
                reason: format!("1 to {UPLOAD_PARTS_MAX}"),
            });
        }
        self.inner.stores.get(&new.store)?;
        // The same part may stand in several places; it is held once.
        let mut holds = HashMap::new();
        let mut total: u64 = 0;
        for part in &parts {
            if !holds.contains_key(part) {
                holds.insert(*part, self.hold(*part)?);
            }
            let record = holds[part].record()?;
            if !record.partial || record.length != Some(record.offset) {
                return Err(Error::conflict(Kind::Upload, part, "it is no complete part"));
            }
            total = total.saturating_add(record.offset);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let id = UploadId::from_bytes(id);
        let files: Vec<PathBuf> = parts
            .iter()
            .map(|part| record::data_path(&self.inner.folder, *part))
            .collect();
        let put = append::stream(&self.inner, &new, files).await?;
        let mut record = Record::new(id, new, self.inner.clock.unix_s());
        record.partial = false;
        record.parts = parts;
        record.offset = total;
        record.length = Some(total);
        record.blob = Some(put.id);
        self.insert(record).await
    }

    /// Ends an upload and forgets it; a blob it became stays. Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Conflict`] where a request works on it.
    pub async fn remove(&self, id: UploadId) -> Result<(), Error> {
        self.hold(id)?.discard().await
    }

    /// Removes what expired.
    pub(super) async fn tend(&self) -> Result<(), Error> {
        for id in self.expired() {
            self.expire(id).await?;
        }
        Ok(())
    }

    /// Those whose time is over.
    pub(super) fn expired(&self) -> Vec<UploadId> {
        let table = self.inner.table();
        let over = table
            .values()
            .filter(|slot| self.inner.still_there(&slot.record).is_err());
        over.map(|slot| slot.record.id).collect()
    }

    /// Removes an upload whose time is over.
    pub(super) async fn expire(&self, id: UploadId) -> Result<(), Error> {
        match self.hold(id) {
            // A piece that began in time was acknowledged since it was listed, and renewed it.
            Ok(hold) if hold.record().is_ok() => Ok(()),
            Ok(hold) => hold.discard().await,
            // Someone goes on with it at this moment.
            Err(Error::Conflict { .. } | Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn insert(&self, record: Record) -> Result<UploadInfo, Error> {
        if record.metadata.len() > UPLOAD_METADATA_BYTES_MAX {
            return Err(Error::Invalid {
                what: "metadata",
                reason: format!("at most {UPLOAD_METADATA_BYTES_MAX} bytes"),
            });
        }
        let left = record.length.map_or(0, |length| length - record.offset);
        self.room_for(left)?;
        let inner = Arc::clone(&self.inner);
        db::crossing(move || {
            record::create(&inner.folder, &record)?;
            let info = record.info();
            let slot = Slot { record, busy: false };
            inner.table().insert(info.id, slot);
            inner.events.tell(Event::UploadMoved {
                id: info.id,
                offset: info.offset,
            });
            Ok(info)
        })
        .await
    }

    /// Refuses what would be more than all uploads may hold.
    fn room_for(&self, bytes: u64) -> Result<(), Error> {
        let table = self.inner.table();
        if table.len() >= UPLOADS_MAX {
            return Err(Error::Busy);
        }
        let held = table.values().map(|slot| slot.record.claimed_bytes());
        let held = held.fold(0, u64::saturating_add);
        if held.saturating_add(bytes) > UPLOADS_BYTES_MAX {
            return Err(Error::TooLarge {
                limit: UPLOADS_BYTES_MAX.saturating_sub(held),
            });
        }
        Ok(())
    }

    fn peek(&self, id: UploadId) -> Result<UploadInfo, Error> {
        let table = self.inner.table();
        let slot = table.get(&id).ok_or_else(|| Error::missing(Kind::Upload, id))?;
        self.inner.still_there(&slot.record)?;
        Ok(slot.record.info())
    }

    fn hold(&self, id: UploadId) -> Result<Arc<Hold>, Error> {
        let mut table = self.inner.table();
        let slot = table
            .get_mut(&id)
            .ok_or_else(|| Error::missing(Kind::Upload, id))?;
        if slot.busy {
            return Err(Error::conflict(
                Kind::Upload,
                id,
                "another request works on it: try again",
            ));
        }
        slot.busy = true;
        Ok(Arc::new(Hold {
            inner: Arc::clone(&self.inner),
            id,
        }))
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.table
            .lock()
            .expect("no thread panics while it holds the uploads")
    }

    fn still_there(&self, record: &Record) -> Result<(), Error> {
        if record.expires_s <= self.clock.unix_s() {
            return Err(Error::missing(Kind::Upload, record.id));
        }
        Ok(())
    }
}

impl Hold {
    /// The record as it is.
    fn record(&self) -> Result<Record, Error> {
        let table = self.inner.table();
        let slot = table
            .get(&self.id)
            .ok_or_else(|| Error::missing(Kind::Upload, self.id))?;
        self.inner.still_there(&slot.record)?;
        Ok(slot.record.clone())
    }

    /// Replaces the record, with a new time to live. Durable on return.
    async fn save(self: &Arc<Hold>, mut record: Record) -> Result<UploadInfo, Error> {
        record.renew(self.inner.clock.unix_s());
        let hold = Arc::clone(self);
        db::crossing(move || {
            let inner = &hold.inner;
            record::save(&inner.folder, &record)?;
            let info = record.info();
            if let Some(slot) = inner.table().get_mut(&info.id) {
                slot.record = record;
            }
            inner.events.tell(Event::UploadMoved {
                id: info.id,
                offset: info.offset,
            });
            Ok(info)
        })
        .await
    }

    /// Ends the upload: removes record and data. Durable on return.
    async fn discard(self: &Arc<Hold>) -> Result<(), Error> {
        let hold = Arc::clone(self);
        db::crossing(move || {
            let (inner, id) = (&hold.inner, hold.id);
            record::remove(&inner.folder, id)?;
            inner.table().remove(&id);
            inner.events.tell(Event::UploadEnded { id });
            Ok(())
        })
        .await
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(slot) = self.inner.table().get_mut(&self.id) {
            slot.busy = false;
        }
    }
}

/// When a record expires that is used now.
fn expiry_s(now_s: i64) -> i64 {
    now_s.saturating_add(i64::try_from(UPLOAD_EXPIRY.as_secs()).unwrap_or(i64::MAX))
}

impl Record {
    fn info(&self) -> UploadInfo {
        UploadInfo {
            id: self.id,
            store: self.store.clone(),
            offset: self.offset,
            length: self.length,
            metadata: self.metadata.clone(),
            partial: self.partial,
            parts: self.parts.clone(),
            expires: from_unix_s(self.expires_s),
            blob: self.blob,
        }
    }
}
