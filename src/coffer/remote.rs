//! Blobs of another node, over its HTTP API.
//!
//! What goes out is collected, asked for with one `_stat`, and sent as `_batch` requests, so that only missing
//! blobs travel; a node answers a batch when all of it is durable. What comes in is compared with its id before
//! a byte of it is handed out: small blobs in memory, large ones through a spool file that has no name.
//!
//! A `_batch` body is a run of records, without compression (the node packs as its store wants):
//!
//! ```text
//! class u8 (0 part, 1 pinned) | length u32 LE | BLAKE3 digest, 32 bytes | plain bytes
//! ```

mod download;
mod wire;

use std::sync::{Mutex, MutexGuard, RwLock};

use bytes::{Bytes, BytesMut};

use self::download::open_download;
use self::wire::{BatchAnswer, Deleted, Lines, Stats, StoreAnswer, class_text, record_head};
use super::backend::{
    Aside, Backend, CheckOptions, CheckReport, Class, Compaction, Incoming, Listing, Put, Reader, Stat,
    Status,
};
use super::error::Error;
use super::frame::{FRAME_BYTES, Packed};
use crate::http::{Client, Method, Request, Upload};
use crate::id::{BlobAddress, BlobId, Sha256Id, StoreName};

/// Plain bytes that are collected before a request goes out by itself.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;

/// Ids of one `_stat` or `_delete` request: what a node takes at once.
const IDS_PER_REQUEST: usize = super::BATCH_IDS_MAX;

/// One named store of another node.
pub struct Remote {
    client: Client,
    /// The path of the store's blobs: `/blobs` or `/stores/NAME/blobs`.
    blobs: String,
    /// The path of the store itself.
    store: String,
    pending: Mutex<Pending>,
    /// Held while a batch is on its way, so that what another thread waits for is not sent twice.
    sending: Mutex<()>,
    /// Read by who asks the node what it has and acts on the answer, written by who forgets what the node took:
    /// in between, a blob is either among the pending ones or among those the node knows.
    asking: RwLock<()>,
}

/// What was appended and is not acknowledged by the node yet.
#[derive(Default)]
struct Pending {
    packs: Vec<Packed>,
    plain_bytes: u64,
}

impl Remote {
    /// The store `name` of the node that `client` talks to. Nothing is asked yet.
    pub fn new(client: Client, name: &StoreName) -> Remote {
        let blobs = match *name == StoreName::main() {
            true => "/blobs".to_owned(),
            false => format!("/stores/{name}/blobs"),
        };
        Remote {
            client,
            blobs,
            store: format!("/stores/{name}"),
            pending: Mutex::default(),
            sending: Mutex::default(),
            asking: RwLock::default(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending
            .lock()
            .expect("no thread panics while it holds the pending blobs")
    }

    fn path(&self, rest: &str) -> String {
        format!("{}{rest}", self.blobs)
    }

    fn error(&self, error: crate::http::Error) -> Error {
        wire::error(&self.client, error)
    }

    fn garbled(&self, reason: &str) -> Error {
        Error::Remote {
            reason: format!("{}: {reason}", self.client.url()),
        }
    }

    /// Sends what is pending, oldest first, until everything that was there at the call is acknowledged.
    fn send_pending(&self) -> Result<(), Error> {
        let _sending = self
            .sending
            .lock()
            .expect("no thread panics while it sends a batch");
        let mut left = self.pending().packs.len();
        while left > 0 {
            let batch = self.next_batch(left);
            self.send(&batch)?;
            // Only what the node acknowledged is forgotten: after a failure it is still there to be sent.
            let _asking_is_over = self.asking.write().expect("no thread panics while it asks");
            let mut pending = self.pending();
            pending.packs.drain(..batch.len());
            pending.plain_bytes -= batch.iter().map(Packed::len).sum::<u64>();
            left -= batch.len();
        }
        Ok(())
    }

    fn next_batch(&self, most: usize) -> Vec<Packed> {
        let pending = self.pending();
        let mut plain_bytes = 0;
        let fits = |packed: &&Packed| {
            plain_bytes += packed.len();
            plain_bytes <= 2 * BATCH_BYTES
        };
        pending.packs[..most].iter().take_while(fits).cloned().collect()
    }

    fn send(&self, batch: &[Packed]) -> Result<(), Error> {
        let len = batch
            .iter()
            .map(|packed| wire::RECORD_HEAD_BYTES as u64 + packed.len())
            .sum();
        let request = Request::new(Method::POST, self.path("/_batch"))
            .header("content-type", "application/octet-stream");
        let mut upload = self.client.upload(request, Some(len));
        for packed in batch {
            let mut record = BytesMut::with_capacity(wire::RECORD_HEAD_BYTES + packed.plain_len as usize);
            record.extend_from_slice(&record_head(packed));
            record.extend_from_slice(&packed.plain());
            upload.write(record.freeze()).map_err(|error| self.error(error))?;
        }
        let answer: BatchAnswer = upload
            .finish()
            .and_then(|answer| answer.json(wire::ANSWER_BYTES_MAX))
            .map_err(|error| self.error(error))?;
        let is_whole = answer.puts.len() == batch.len()
            && answer
                .puts
                .iter()
                .zip(batch)
                .all(|(put, packed)| put.id == packed.id());
        match is_whole {
            true => Ok(()),
            false => Err(self.garbled("it acknowledged other blobs than were sent")),
        }
    }

    /// Streams a blob's bytes into a request, from a reader of this store.
    fn copy(&self, reader: &mut dyn Reader, upload: &mut Upload) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let bytes = reader.read_at(offset)?;
            if bytes.is_empty() {
                return Ok(());
            }
            offset += bytes.len() as u64;
            upload.write(bytes).map_err(|error| self.error(error))?;
        }
    }
}

impl Backend for Remote {
    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error> {
        if self.pending().plain_bytes >= BATCH_BYTES {
            self.send_pending()?;
        }
        let ids: Vec<BlobId> = batch.iter().map(Packed::id).collect();
        let _asking = self.asking.read().expect("no thread panics while it asks");
        let known = match self.stat(&ids) {
            // Whoever may only put learns nothing and sends everything.
            Err(Error::Http(error)) if wire::is_forbidden(&error) => vec![None; ids.len()],
            known => known?,
        };
        let mut pending = self.pending();
        let mut puts = Vec::with_capacity(batch.len());
        for (packed, known) in batch.iter().zip(known) {
            let collected = pending
                .packs
                .iter()
                .any(|other| other.id == packed.id && other.class >= packed.class);
            let is_kept = known.is_some_and(|stat| stat.class >= packed.class);
            puts.push(Put {
                id: packed.id,
                len: packed.len(),
                fresh: known.is_none() && !collected,
            });
            if !is_kept && !collected {
                pending.packs.push(packed.clone());
                pending.plain_bytes += packed.len();
            }
        }
        Ok(puts)
    }

    fn flush(&self) -> Result<(), Error> {
        self.send_pending()
    }

    fn begin(&self, class: Class) -> Result<Box<dyn Incoming>, Error> {
        let request = Request::new(Method::POST, self.blobs.clone())
            .header("refuge-class", class_text(class))
            .header("content-type", "application/octet-stream");
        Ok(Box::new(RemoteIncoming {
            upload: self.client.upload(request, None),
            client: self.client.clone(),
            hasher: blake3::Hasher::new(),
            len: 0,
        }))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn Reader>>, Error> {
        open_download(&self.client, self.path(&format!("/{id}")), *id)
    }

    fn stat(&self, ids: &[BlobId]) -> Result<Vec<Option<Stat>>, Error> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_REQUEST) {
            let request = Request::new(Method::POST, self.path("/_stat")).json(&wire::Ids { ids });
            let stats: Stats = self.client.json(request).map_err(|error| self.error(error))?;
            if stats.blobs.len() != ids.len() {
                return Err(self.garbled("it told of another number of blobs than was asked"));
            }
            for (id, stat) in ids.iter().zip(stats.blobs) {
                let stat = stat.map(Stat::from);
                if stat.is_some_and(|stat| stat.id != *id) {
                    return Err(self.garbled("it told of other blobs than were asked"));
                }
                found.push(stat);
            }
        }
        Ok(found)
    }

    fn list(&self, after: Option<BlobId>) -> Result<Listing<'_>, Error> {
        let query = after.map_or_else(String::new, |id| format!("?after={id}"));
        let request = Request::new(Method::GET, self.path(&query)).header("accept", "application/x-ndjson");
        let answer = self.client.send(request).map_err(|error| self.error(error))?;
        Ok(Box::new(Lines::new(self.client.clone(), answer, after)))
    }

    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        self.flush()?;
        let mut gone = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_REQUEST) {
            let request = Request::new(Method::POST, self.path("/_delete")).json(&wire::Ids { ids });
            let answer: Deleted = self.client.json(request).map_err(|error| self.error(error))?;
            if answer.deleted.len() != ids.len() {
                return Err(self.garbled("it told of another number of blobs than was asked"));
            }
            gone.extend(answer.deleted);
        }
        Ok(gone)
    }

    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
        let path = self.path(&format!("/{}", BlobAddress::Sha256(*alias)));
        let answer = match self.client.send(Request::new(Method::HEAD, path)) {
            Ok(answer) => answer,
            Err(error) if wire::is_missing(&error) => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        let id = answer
            .header("etag")
            .and_then(|etag| etag.trim_matches('"').parse().ok());
        id.map(Some)
            .ok_or_else(|| self.garbled("it did not say which blob an alias stands for"))
    }

    /// A node makes an alias of what it is sent under one, so the blob goes there once more.
    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
        let Some(mut reader) = self.open(id)? else {
            return Err(self.garbled("the blob an alias was to stand for is gone"));
        };
        let stat = reader.stat();
        let path = self.path(&format!("/{}", BlobAddress::Sha256(*alias)));
        let request = Request::new(Method::PUT, path).header("refuge-class", class_text(stat.class));
        let mut upload = self.client.upload(request, Some(stat.len));
        self.copy(&mut *reader, &mut upload)?;
        upload.finish().map(|_| ()).map_err(|error| self.error(error))
    }

    /// A node sets aside what it finds damaged when it is asked for it; from here that can't be done.
    fn quarantine(&self, id: &BlobId, _which: Aside) -> Result<bool, Error> {
        Err(self.garbled(&format!(
            "blob {id} came damaged: run `refuge check --read-data` there"
        )))
    }

    /// The node compacts its own stores by itself.
    fn compact(&self, _stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
        Ok(Compaction::default())
    }

    /// Reads what the node has and compares it from here; mending is for the node's own check.
    fn check(&self, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error> {
        let mut report = CheckReport::default();
        for stat in self.list(None)? {
            let stat = stat?;
            report.blobs += 1;
            progress(report.blobs);
            if !options.read_data {
                continue;
            }
            match self.read_through(&stat) {
                Ok(true) => report.bytes_read += stat.len,
                Ok(false) => report.missing.push(stat.id),
                Err(Error::Corrupt { id }) => report.damaged.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Nothing of it is here.
    fn abandon(&self) {}

    /// As the node tells. It can't be asked from async code, and may not answer: everything is zero then.
    fn status(&self) -> Status {
        let may_block = tokio::runtime::Handle::try_current().is_err();
        let request = Request::new(Method::GET, self.store.clone());
        let answer: Option<StoreAnswer> = may_block.then(|| self.client.json(request).ok()).flatten();
        answer.map_or_else(Status::default, |answer| answer.status.into())
    }
}

impl Remote {
    /// Whether a blob is there; an error where it is damaged.
    fn read_through(&self, stat: &Stat) -> Result<bool, Error> {
        let Some(mut reader) = self.open(&stat.id)? else {
            return Ok(false);
        };
        let mut offset = 0;
        while offset < stat.len {
            offset += reader.read_at(offset)?.len() as u64;
        }
        Ok(true)
    }
}

/// A blob on its way to the node. The end of the body is held back until the digest is known to be right.
struct RemoteIncoming {
    upload: Upload,
    client: Client,
    hasher: blake3::Hasher,
    len: u64,
}

impl Incoming for RemoteIncoming {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        for piece in bytes.chunks(FRAME_BYTES) {
            self.upload
                .write(Bytes::copy_from_slice(piece))
                .map_err(|error| wire::error(&self.client, error))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, expect: Option<BlobId>) -> Result<Put, Error> {
        let id = BlobId::from_bytes(*self.hasher.finalize().as_bytes());
        if let Some(expected) = expect.filter(|expected| *expected != id) {
            // Dropping the upload without its end leaves nothing on the node.
            return Err(Error::Mismatch {
                expected: expected.to_string(),
                actual: id.to_string(),
            });
        }
        let put: wire::PutAnswer = self
            .upload
            .finish()
            .and_then(|answer| answer.json(wire::ANSWER_BYTES_MAX))
            .map_err(|error| wire::error(&self.client, error))?;
        if put.id != id || put.len != self.len {
            return Err(Error::Remote {
                reason: format!("{}: it stored other bytes than were sent", self.client.url()),
            });
        }
        Ok(put.into())
    }
}
