//! The default backend: many blobs in few files, for cards and disks that hate small random writes.
//!
//! Blobs are appended to *volumes* as *needles*; a delete appends a tombstone; *compaction* copies what still
//! lives out of volumes that are mostly dead, then removes those. A blob of more than a mebibyte that is
//! streamed gets a volume of its own. The index is a cache: the newest needles in memory, sorted *runs* on
//! disk written at *checkpoints*, all of it rebuilt from the volumes when it is missing or damaged.
//!
//! ```text
//! FOLDER/volumes/00000001.vol   shared volumes              volume.rs, needle.rs, writer.rs
//!        solo/000/00000001.vol  volumes of one large blob   incoming.rs
//!        manifest, *.run        the last checkpoint         manifest.rs, run.rs, index.rs
//!        staging/               streams under way, cleared at start
//!        quarantine/            raw needles of damaged blobs, torn tails: kept, never read
//! ```
//!
//! What makes it safe:
//!
//! - A needle counts once its volume was flushed; the index shows it only then (writer.rs, [`Core::flush`]).
//! - Needles carry sequence numbers: of two needles of one id the higher one stands, wherever they are, so a
//!   rebuild resurrects nothing. A tombstone is kept as long as any volume of its time is.
//! - Needles also carry how far their volume was flushed when they were written. After a crash anything
//!   broken below that mark is rot, and reported; above it a torn tail, set aside and cut (recover.rs).
//! - A volume is removed only after a checkpoint that no longer needs it (compact.rs).
//! - A write that fails for want of space is undone and tried again by whoever wants; any other failed
//!   write, and every failed flush, makes the store read only until it is opened again.

mod check;
mod compact;
mod incoming;
mod index;
mod manifest;
mod needle;
mod reader;
mod rebuild;
mod recover;
mod run;
mod scan;
mod tail;
#[cfg(test)]
mod tests;
mod volume;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::backend::{
    Aside, Backend, CheckOptions, CheckReport, Class, Compaction, Incoming, Listing, Put, Reader, Stat,
    Status,
};
use super::error::Error;
use super::frame::{Compression, Packed};
use super::space;
use crate::id::{BlobId, Sha256Id};
use index::Index;
use needle::{HEADER_BYTES, Header, Killed, Kind, alias_key};
use reader::{NeedleReader, as_damage};
use run::{Entry, Run};
use volume::{SOLO, Volumes};
use writer::{Change, Effect, Writer};

/// Entries in memory before a checkpoint: about 5 MiB.
const TABLE_ENTRIES_MAX: usize = 48 * 1024;

/// Settings of a haystack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaystackOptions {
    /// Where a shared volume ends, in bytes; below 32 GiB. Compaction works on one at a time.
    pub volume_bytes: u64,
    /// Bytes appended before an index checkpoint: what a start after a crash has to read again at most.
    pub checkpoint_bytes: u64,
    /// How hard streamed blobs are compressed.
    pub compression: Compression,
}

impl Default for HaystackOptions {
    fn default() -> Self {
        HaystackOptions {
            volume_bytes: 256 * 1024 * 1024,
            checkpoint_bytes: 64 * 1024 * 1024,
            compression: Compression::default(),
        }
    }
}

/// A haystack; see the module's head.
pub struct Haystack {
    core: Arc<Core>,
}

/// What the parts of a haystack share.
struct Core {
    folder: PathBuf,
    options: HaystackOptions,
    key: [u8; 32],
    volumes: Volumes,
    index: Index,
    writer: Mutex<Writer>,
    /// Held by whoever makes something durable and shows it: one at a time. Taken before `writer`.
    publishing: Mutex<Runs>,
    /// Held by a compaction or a repair: one at a time. Taken before `publishing`.
    sweeping: Mutex<()>,
    /// Why writes are refused.
    fault: Mutex<Option<String>>,
    quarantined: AtomicU64,
    staged: AtomicU64,
}

/// Numbers of the index's files.
struct Runs {
    next: u32,
}

impl Haystack {
    /// Opens the haystack in `folder`, creating it where there is none. The caller holds the folder's lock.
    /// Reads the last checkpoint and what came after it; reads all volumes where that can't be trusted.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Damaged`], [`Error::Io`]. A disk that can't be written opens read only, and so does one
    /// of whose volumes can't be read where all must be.
    pub fn open(folder: &Path, options: HaystackOptions) -> Result<Haystack, Error> {
        recover::open(folder, options).map(|core| Haystack { core: Arc::new(core) })
    }

    /// Removes the haystack that was in `folder`; none has it open, or the one that does is abandoned. What was set aside stays.
    /// Cut at any moment, another call goes on, and none may be opened there before one is done. Durable on return.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(folder: &Path) -> Result<(), Error> {
        volume::remove_all(folder)
    }
}

impl Core {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no panic while the writer is held")
    }

    /// The writer, to change something about these ids. Waits for the end of a stream of one of them, as only
    /// then it is known whether that blob is there.
    fn writer_for(&self, is_meant: impl Fn(BlobId) -> bool) -> MutexGuard<'_, Writer> {
        loop {
            let writer = self.writer();
            if !writer.placing().is_some_and(&is_meant) {
                return writer;
            }
            drop(writer);
            drop(self.publishing());
        }
    }

    /// The writer, with everything appended so far flushed and shown.
    fn settled(&self, runs: &mut Runs) -> Result<MutexGuard<'_, Writer>, Error> {
        loop {
            self.flush_held(runs)?;
            let writer = self.writer();
            if writer.is_flushed() {
                return Ok(writer);
            }
        }
    }

    fn publishing(&self) -> MutexGuard<'_, Runs> {
        self.publishing
            .lock()
            .expect("no panic while something is published")
    }

    fn writable(&self) -> Result<(), Error> {
        match &*self.fault.lock().expect("no panic while the fault is held") {
            Some(reason) => Err(Error::ReadOnly {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Takes no writes from here on, unless the failure is one that passes by itself.
    fn fail(&self, error: Error) -> Error {
        if matches!(
            error,
            Error::NoSpace { .. } | Error::Busy | Error::Mismatch { .. } | Error::Damaged { .. }
        ) {
            return error;
        }
        let reason = match error {
            Error::ReadOnly { reason } => reason,
            other => other.to_string(),
        };
        let mut fault = self.fault.lock().expect("no panic while the fault is held");
        if fault.is_none() {
            tracing::error!(
                reason,
                "a write failed: the store is read only until it is reopened"
            );
            *fault = Some(reason.clone());
        }
        Error::ReadOnly { reason }
    }

    fn abandon(&self) {
        let mut fault = self.fault.lock().expect("no panic while the fault is held");
        fault.get_or_insert_with(|| "its blobs are elsewhere by now".to_owned());
    }

    /// Does the work; once more with a rebuilt index where a run of the index turned out damaged.
    fn mended<T>(&self, work: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match work() {
            Err(Error::Damaged { path, what })
                if path.extension().is_some_and(|extension| extension == "run") =>
            {
                tracing::error!(path = %path.display(), what, "the index is damaged and is rebuilt from the volumes");
                rebuild::rebuild(self)?;
                work()
            }
            done => done,
        }
    }

    /// Refuses what would use up the space kept for deletes.
    fn has_room(&self) -> Result<(), Error> {
        space::room_for(&self.folder, 0)
    }

    /// The newest entry of an id, flushed or not; deleted ones are none.
    fn newest(&self, writer: &Writer, id: &BlobId) -> Result<Option<Entry>, Error> {
        match writer.hidden(id) {
            Some(entry) => Ok(Some(entry).filter(|entry| !entry.dead)),
            None => Ok(self.index.get(id)?.filter(|entry| !entry.dead)),
        }
    }

    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error> {
        self.writable()?;
        self.has_room()?;
        let mut writer = self.writer_for(|id| batch.iter().any(|packed| packed.id == id));
        let mut puts = Vec::with_capacity(batch.len());
        let mut run = || -> Result<(), Error> {
            for packed in batch {
                let fresh = self.append_one(&mut writer, packed)?;
                puts.push(Put {
                    id: packed.id,
                    len: packed.len(),
                    fresh,
                });
                writer.write_if_full()?;
            }
            writer.write_out()
        };
        let done = run();
        if done.is_err() {
            writer.abandon();
        }
        done.map_err(|error| self.fail(error))?;
        Ok(puts)
    }

    /// Appends one blob; says whether it was not there.
    fn append_one(&self, writer: &mut Writer, packed: &Packed) -> Result<bool, Error> {
        let pinned = packed.class == Class::Pinned;
        if let Some(entry) = self.newest(writer, &packed.id)? {
            if pinned && !entry.pinned {
                self.append_pin(writer, packed.id, entry)?;
            }
            return Ok(false);
        }
        let header = Header {
            pinned,
            zstd: packed.body.zstd,
            plain_len: packed.len(),
            stored_len: packed.stored_len(),
            ..Header::bare(Kind::Blob, packed.id)
        };
        let (volume, offset) = writer.push(
            &self.volumes,
            self.options.volume_bytes,
            header,
            &packed.body.bytes,
        )?;
        let entry = Entry {
            volume,
            offset,
            len: packed.len(),
            pinned,
            dead: false,
            alias: false,
        };
        let effect = Effect::Added {
            volume,
            span: header.span(),
            len: entry.len,
        };
        writer.stage(Change {
            shown: Some((packed.id, entry)),
            effect,
        });
        Ok(true)
    }

    fn append_pin(&self, writer: &mut Writer, id: BlobId, entry: Entry) -> Result<(), Error> {
        let header = Header::bare(Kind::Pin, id);
        let (volume, _) = writer.push(&self.volumes, self.options.volume_bytes, header, &[])?;
        let effect = Effect::Kept {
            volume,
            span: header.span(),
        };
        let pinned = Entry {
            pinned: true,
            ..entry
        };
        writer.stage(Change {
            shown: Some((id, pinned)),
            effect,
        });
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let mut runs = self.publishing();
        self.flush_held(&mut runs)
    }

    /// Flushes what is written and shows it.
    fn flush_held(&self, runs: &mut Runs) -> Result<(), Error> {
        self.writable()?;
        let Some(flush) = self.writer().begin_flush() else {
            return Ok(());
        };
        if let Some(volume) = &flush.volume {
            // A flush that failed is never tried again on the same file: its pages count as clean.
            volume.file.sync_data().map_err(|source| {
                self.fail(Error::ReadOnly {
                    reason: Error::io(&volume.path, source).to_string(),
                })
            })?;
        }
        self.index
            .insert(flush.changes.iter().filter_map(|change| change.shown));
        let mut writer = self.writer();
        writer.flushed(&flush, &self.volumes)?;
        let due =
            writer.appended() >= self.options.checkpoint_bytes || self.index.table_len() >= TABLE_ENTRIES_MAX;
        drop(writer);
        if due {
            self.checkpoint(runs)?;
        }
        Ok(())
    }

    /// Writes the table in memory as a run and makes it the index on disk. Only speeds up the next start:
    /// without space it is left for later.
    fn checkpoint(&self, runs: &mut Runs) -> Result<(), Error> {
        let plan = self.index.plan();
        if plan.is_empty() {
            return Ok(());
        }
        // Pages of the volumes are flushed before; the run and the manifest follow.
        match self.write_checkpoint(runs, &plan) {
            Err(Error::NoSpace { .. } | Error::Busy) if plan.entries_max() < 4 * TABLE_ENTRIES_MAX as u64 => {
                tracing::warn!("no room for an index checkpoint; it is written later");
                self.writer().checkpointed();
                Ok(())
            }
            done => done.map_err(|error| self.fail(error)),
        }
    }

    /// A checkpoint that must be on disk on return: something is removed after it.
    fn checkpoint_now(&self, runs: &mut Runs) -> Result<(), Error> {
        let plan = self.index.plan();
        self.write_checkpoint(runs, &plan)
            .map_err(|error| self.fail(error))
    }

    fn write_checkpoint(&self, runs: &mut Runs, plan: &index::Plan) -> Result<(), Error> {
        let number = runs.next;
        runs.next += 1;
        let path = manifest::run_path(&self.folder, number);
        let run = Run::write(&path, number, plan.entries_max(), plan.entries())
            .and_then(|run| {
                let synced = crate::durable::sync_folder_of(&path);
                synced.map(|()| run).map_err(|source| Error::io(&path, source))
            })
            .inspect_err(|_| discard(&path))?;
        let mut numbers: Vec<u32> = plan.keeps.iter().map(|run| run.number).collect();
        numbers.push(number);
        let tally = self.writer().tally().clone();
        manifest::write(&self.folder, &self.key, &numbers, runs.next, &tally)
            .inspect_err(|_| discard(&path))?;
        self.index.install(plan, Arc::new(run));
        self.writer().checkpointed();
        for merged in &plan.merges {
            discard(&manifest::run_path(&self.folder, merged.number));
        }
        Ok(())
    }

    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        self.remove(ids, false, |_| true)
    }

    /// Deletes a blob that was set aside, if it is still where it was then.
    fn delete_set_aside(&self, id: &BlobId, aside: &Entry) -> Result<bool, Error> {
        let is_there = |entry: &Entry| (entry.volume, entry.offset) == (aside.volume, aside.offset);
        self.remove(&[*id], true, is_there).map(|gone| gone == [true])
    }

    /// Writes tombstones for the blobs that are `meant`; says which those were. Durable on return.
    fn remove(
        &self,
        ids: &[BlobId],
        quarantined: bool,
        meant: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<bool>, Error> {
        self.writable()?;
        let mut solos = Vec::new();
        let mut gone = Vec::with_capacity(ids.len());
        {
            let mut writer = self.writer_for(|id| ids.contains(&id));
            let mut run = || -> Result<(), Error> {
                for id in ids {
                    let entry = self.newest(&writer, id)?;
                    let entry = entry.filter(|entry| !entry.alias && meant(entry));
                    gone.push(entry.is_some());
                    if let Some(entry) = entry {
                        self.append_tombstone(&mut writer, *id, entry, quarantined)?;
                        solos.extend((entry.volume & SOLO != 0).then_some(entry.volume));
                    }
                    writer.write_if_full()?;
                }
                writer.write_out()
            };
            let done = run();
            if done.is_err() {
                writer.abandon();
            }
            done.map_err(|error| self.fail(error))?;
        }
        self.flush()?;
        for number in solos {
            // The tombstone is durable, so a crash here leaves a file that the next start removes.
            self.volumes.remove(number).map_err(|error| self.fail(error))?;
        }
        Ok(gone)
    }

    fn append_tombstone(
        &self,
        writer: &mut Writer,
        id: BlobId,
        entry: Entry,
        quarantined: bool,
    ) -> Result<(), Error> {
        let killed = Killed {
            next_shared: writer.next_shared(),
            volume: entry.volume,
        };
        let header = Header {
            quarantined,
            plain_len: killed.to_plain_len(),
            ..Header::bare(Kind::Tombstone, id)
        };
        let (volume, _) = writer.push(&self.volumes, self.options.volume_bytes, header, &[])?;
        // A needle whose header can't be read counts as its plain length: the counters are estimates.
        let span = self.span_of(&entry).unwrap_or(entry.len + HEADER_BYTES as u64);
        let effect = Effect::Removed {
            volume: entry.volume,
            span,
            len: entry.len,
            tombstone: (volume, header.span()),
        };
        let dead = Entry {
            dead: true,
            len: 0,
            ..entry
        };
        writer.stage(Change {
            shown: Some((id, dead)),
            effect,
        });
        Ok(())
    }

    /// The span of a needle, from its header; `None` where that can't be read.
    fn span_of(&self, entry: &Entry) -> Option<u64> {
        let volume = self.volumes.get(entry.volume).ok()??;
        let mut bytes = [0; HEADER_BYTES];
        volume.read_exact(&mut bytes, entry.offset).ok()?;
        Header::decode(&bytes, &volume.key).map(|header| header.span())
    }

    /// Opens a blob by its entry; again as often as a compaction moved it meanwhile.
    fn open_reader(&self, id: &BlobId) -> Result<Option<NeedleReader>, Error> {
        let mut gone = None;
        while let Some(entry) = self.index.live(id)? {
            if let Some(volume) = self.volumes.get(entry.volume)? {
                let opened = NeedleReader::open(volume, entry.offset, *id, entry.len, class_of(&entry));
                return opened.map(Some).map_err(as_damage(*id));
            }
            // The index names the new place before the old one goes.
            if gone.replace(entry) == Some(entry) {
                return Err(Error::Corrupt { id: *id });
            }
        }
        Ok(None)
    }

    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
        let Some(entry) = self
            .index
            .get(&alias_key(alias))?
            .filter(|entry| entry.alias && !entry.dead)
        else {
            return Ok(None);
        };
        let Some(volume) = self.volumes.get(entry.volume)? else {
            return Ok(None);
        };
        let mut needle = [0; HEADER_BYTES + 64];
        volume.read_exact(&mut needle, entry.offset)?;
        let whole = Header::decode(&needle, &volume.key)
            .is_some_and(|header| header.kind == Kind::Alias && header.id == alias_body_id(&needle));
        if !whole || needle[HEADER_BYTES..HEADER_BYTES + 32] != *alias.as_bytes() {
            return Ok(None);
        }
        Ok(Some(BlobId::from_bytes(
            needle[HEADER_BYTES + 32..].try_into().expect("32 bytes"),
        )))
    }

    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
        if self.resolve(alias)? == Some(*id) {
            return Ok(());
        }
        self.writable()?;
        let key = alias_key(alias);
        let mut body = [0; 64];
        body[..32].copy_from_slice(alias.as_bytes());
        body[32..].copy_from_slice(id.as_bytes());
        let header = Header {
            stored_len: 64,
            ..Header::bare(Kind::Alias, key)
        };
        {
            let mut writer = self.writer();
            let mut run = || -> Result<(), Error> {
                let (volume, offset) =
                    writer.push(&self.volumes, self.options.volume_bytes, header, &body)?;
                let entry = Entry {
                    volume,
                    offset,
                    len: 64,
                    pinned: false,
                    dead: false,
                    alias: true,
                };
                writer.stage(Change {
                    shown: Some((key, entry)),
                    effect: Effect::Kept {
                        volume,
                        span: header.span(),
                    },
                });
                writer.write_out()
            };
            run().map_err(|error| self.fail(error))?;
        }
        self.flush()
    }

    fn status(&self) -> Status {
        let writer = self.writer();
        let tally = writer.tally();
        let (shared, live) = (
            writer.shared_bytes(),
            tally.volumes.values().map(|volume| volume.live).sum(),
        );
        Status {
            blobs: tally.blobs,
            plain_bytes: tally.plain_bytes,
            stored_bytes: shared + tally.solo_bytes,
            dead_bytes: shared.saturating_sub(live),
            free_bytes: space::free_bytes(&self.folder),
            read_only: self
                .fault
                .lock()
                .expect("no panic while the fault is held")
                .clone(),
            quarantined: self.quarantined.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.writable().is_err() {
            return;
        }
        let mut runs = self.publishing();
        // Only makes the next start quick; what was acknowledged is durable already.
        if let Err(error) = self
            .flush_held(&mut runs)
            .and_then(|()| self.checkpoint(&mut runs))
        {
            tracing::warn!(%error, "the index could not be saved on closing; the next start reads the volumes' tail");
        }
        self.writer().close();
    }
}

impl Backend for Haystack {
    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error> {
        self.core.mended(|| self.core.append(batch))
    }

    fn flush(&self) -> Result<(), Error> {
        self.core.flush()
    }

    fn begin(&self, class: Class) -> Result<Box<dyn Incoming>, Error> {
        self.core.writable()?;
        self.core.has_room()?;
        Ok(Box::new(incoming::Stream::new(Arc::clone(&self.core), class)))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn Reader>>, Error> {
        Ok(self
            .core
            .mended(|| self.core.open_reader(id))?
            .map(|reader| Box::new(reader) as Box<dyn Reader>))
    }

    fn stat(&self, ids: &[BlobId]) -> Result<Vec<Option<Stat>>, Error> {
        let one = |id: &BlobId| Ok(self.core.index.live(id)?.map(|entry| stat_of(*id, &entry)));
        self.core.mended(|| ids.iter().map(one).collect())
    }

    fn list(&self, after: Option<BlobId>) -> Result<Listing<'_>, Error> {
        let entries = self
            .core
            .index
            .iter(after)
            .filter(|item| !matches!(item, Ok((_, entry)) if entry.alias));
        Ok(Box::new(
            entries.map(|item| item.map(|(id, entry)| stat_of(id, &entry))),
        ))
    }

    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        self.core.mended(|| self.core.delete(ids))
    }

    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
        self.core.resolve(alias)
    }

    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
        self.core.add_alias(alias, id)
    }

    fn quarantine(&self, id: &BlobId, which: Aside) -> Result<bool, Error> {
        check::quarantine(&self.core, id, which)
    }

    fn compact(&self, stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
        compact::compact(&self.core, stop)
    }

    fn check(&self, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error> {
        check::check(&self.core, options, progress)
    }

    fn abandon(&self) {
        self.core.abandon();
    }

    fn status(&self) -> Status {
        self.core.status()
    }
}

fn class_of(entry: &Entry) -> Class {
    if entry.pinned { Class::Pinned } else { Class::Part }
}

fn stat_of(id: BlobId, entry: &Entry) -> Stat {
    Stat {
        id,
        len: entry.len,
        class: class_of(entry),
    }
}

fn alias_body_id(needle: &[u8; HEADER_BYTES + 64]) -> BlobId {
    let alias: [u8; 32] = needle[HEADER_BYTES..HEADER_BYTES + 32]
        .try_into()
        .expect("32 bytes");
    alias_key(&Sha256Id::from_bytes(alias))
}

/// Removes an index file nothing refers to; one that stays is removed at the next start.
fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "an old index file stays for now");
    }
}
