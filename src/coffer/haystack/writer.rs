//! The end of the newest shared volume: where needles are appended, and what was appended but not flushed.
//!
//! Needles are gathered in a buffer and written in groups. The first group after a flush begins on a page of
//! its own, so that no later write touches a page whose needles were acknowledged.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::manifest::{Tally, VolumeTally};
use super::needle::{HEADER_BYTES, Header};
use super::run::Entry;
use super::volume::{PAGE_BYTES, Volume, Volumes};
use crate::coffer::error::Error;
use crate::coffer::space;
use crate::durable;
use crate::id::BlobId;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Bytes set aside on the disk at once for what is appended: some 60 groups of a busy node.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// What a needle changes in the counters once it is published.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// A blob that was not there; its plain bytes, its needle's volume and span.
    Added { volume: u32, span: u64, len: u64 },
    /// The blob is gone; where its needle was and the spans of it and of the tombstone.
    Removed {
        volume: u32,
        span: u64,
        len: u64,
        tombstone: (u32, u64),
    },
    /// Its needle has moved; the spans are equal.
    Moved { from: u32, to: u32, span: u64 },
    /// A needle that is kept but counts for no blob (pin, alias): its volume and span.
    Kept { volume: u32, span: u64 },
}

/// A needle on its way to be published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// What the index shows of an id from then on. `None` where it goes on showing what it shows, which may well be
    /// another thing by then: a blob gets a volume of its own without passing through here.
    pub(super) shown: Option<(BlobId, Entry)>,
    pub(super) effect: Effect,
}

/// The appending end of a store.
#[derive(Debug)]
pub(super) struct Writer {
    /// Needles go here; `None` before the first one, and after a volume was filled.
    active: Option<Arc<Volume>>,
    /// Where the active volume ends, what is in the buffer included.
    end: u64,
    /// Up to where it was flushed.
    durable: u64,
    /// Up to where the disk has set blocks aside for it.
    reserved: u64,
    buffer: Vec<u8>,
    /// Changes whose needles are in the buffer.
    staged: Vec<Change>,
    /// Changes whose needles are written, not flushed.
    written: Vec<Change>,
    /// The newest entry of each id that the index does not show yet.
    hidden: HashMap<BlobId, Entry>,
    /// As `hidden`, of what is being flushed right now.
    flushing: HashMap<BlobId, Entry>,
    placing: Option<BlobId>,
    /// The counters with everything published. Numbers and ends run ahead of it in `next`.
    tally: Tally,
    next: Numbers,
    /// Bytes appended since the last checkpoint.
    appended: u64,
}

/// Numbers to give out next.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    shared: u32,
    solo: u32,
    seq: u64,
}

/// What a flush has to make durable.
pub(super) struct Flush {
    pub(super) volume: Option<Arc<Volume>>,
    pub(super) changes: Vec<Change>,
    ends: Vec<(u32, u64)>,
}

impl Writer {
    /// A writer that goes on in `active`, which ends at `end` and is flushed up to there.
    pub(super) fn new(tally: Tally, active: Option<(Arc<Volume>, u64)>) -> Writer {
        // Sequence number 0 means "the next one", so the first is 1.
        let next = Numbers {
            shared: tally.next_shared,
            solo: tally.next_solo,
            seq: tally.next_seq.max(1),
        };
        let end = active.as_ref().map_or(0, |(_, end)| *end);
        if let Some((volume, _)) = &active {
            // Set aside by a process that was killed.
            volume.release();
        }
        Writer {
            active: active.map(|(volume, _)| volume),
            end,
            durable: end,
            reserved: 0,
            buffer: Vec::new(),
            staged: Vec::new(),
            written: Vec::new(),
            hidden: HashMap::new(),
            flushing: HashMap::new(),
            placing: None,
            tally,
            next,
            appended: 0,
        }
    }

    /// The newest entry of an id that the index does not show yet.
    pub(super) fn hidden(&self, id: &BlobId) -> Option<Entry> {
        self.hidden.get(id).or_else(|| self.flushing.get(id)).copied()
    }

    /// Says which blob is being given a volume of its own, between the two.
    pub(super) fn set_placing(&mut self, id: Option<BlobId>) {
        self.placing = id;
    }

    /// The blob that is being given a volume of its own right now: whether it is stored is not known yet.
    pub(super) fn placing(&self) -> Option<BlobId> {
        self.placing
    }

    /// Whether nothing is appended that is not published.
    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty() && self.written.is_empty()
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn active_number(&self) -> Option<u32> {
        self.active.as_ref().map(|volume| volume.number)
    }

    /// Bytes appended since the last checkpoint.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.next.seq += 1;
        self.next.seq - 1
    }

    /// The number the next shared volume will have.
    pub(super) fn next_shared(&self) -> u32 {
        self.next.shared
    }

    pub(super) fn next_solo(&mut self) -> u32 {
        self.next.solo += 1;
        self.next.solo - 1
    }

    /// Appends a needle: `seq` 0 gives it the next one. Returns the volume and offset it will have; the
    /// caller then tells what it changes by [`Writer::stage`].
    pub(super) fn push(
        &mut self,
        volumes: &Volumes,
        volume_bytes: u64,
        mut header: Header,
        body: &[u8],
    ) -> Result<(u32, u64), Error> {
        if header.seq == 0 {
            header.seq = self.next_seq();
        }
        if self.active.is_some() && self.end > PAGE_BYTES && self.end + header.span() > volume_bytes {
            self.finish_volume()?;
        }
        let volume = match &self.active {
            Some(volume) => Arc::clone(volume),
            None => self.begin_volume(volumes)?,
        };
        let nothing_unflushed = self.buffer.is_empty() && self.end == self.durable;
        if nothing_unflushed {
            self.end = self.end.next_multiple_of(PAGE_BYTES);
            self.durable = self.end;
        }
        header.durable = self.durable;
        let offset = self.end;
        self.buffer.extend_from_slice(&header.encode(&volume.key));
        self.buffer.extend_from_slice(body);
        self.buffer.resize(self.buffer.len().next_multiple_of(8), 0);
        self.end += header.span();
        self.appended += header.span();
        debug_assert_eq!(HEADER_BYTES % 8, 0);
        Ok((volume.number, offset))
    }

    /// Says what a pushed needle changes.
    pub(super) fn stage(&mut self, change: Change) {
        self.hidden.extend(change.shown);
        self.staged.push(change);
    }

    /// Writes the buffer out once it is worth it.
    pub(super) fn write_if_full(&mut self) -> Result<(), Error> {
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()
        } else {
            Ok(())
        }
    }

    /// Writes the buffer out. On an error none of it counts, and the file is cut back.
    ///
    /// # Errors
    /// [`Error::NoSpace`] leaves the store as it was; every other error must end in read only.
    pub(super) fn write_out(&mut self) -> Result<(), Error> {
        let Some(volume) = self.active.as_ref().filter(|_| !self.buffer.is_empty()) else {
            return Ok(());
        };
        let start = self.end - self.buffer.len() as u64;
        if self.end > self.reserved && space::room_for(&volume.path, 2 * RESERVE_BYTES).is_ok() {
            let len = (self.buffer.len() as u64).max(RESERVE_BYTES);
            // A file system that can't is not asked again for a while either.
            volume.reserve(start, len);
            self.reserved = start + len;
        }
        if let Err(source) = volume.file.write_all_at(&self.buffer, start) {
            // Part of the group may be there. It was never acknowledged, but a later crash would read it.
            let cut = volume
                .file
                .set_len(start)
                .map_err(|source| Error::io(&volume.path, source));
            let error = Error::io(&volume.path, source);
            self.drop_staged(start);
            return Err(match cut {
                Ok(()) => error,
                Err(cut) => Error::ReadOnly {
                    reason: cut.to_string(),
                },
            });
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        self.written.append(&mut self.staged);
        Ok(())
    }

    /// Forgets what is in the buffer: its group failed before it was written.
    pub(super) fn abandon(&mut self) {
        self.drop_staged(self.end - self.buffer.len() as u64);
    }

    fn drop_staged(&mut self, end: u64) {
        self.buffer.clear();
        self.end = end;
        for (id, _) in self.staged.drain(..).filter_map(|change| change.shown) {
            self.hidden.remove(&id);
        }
        // An id staged twice, once written: what is written still counts.
        self.hidden
            .extend(self.written.iter().filter_map(|change| change.shown));
    }

    /// Flushes the active volume and takes leave of it: no flush looks at it again.
    fn finish_volume(&mut self) -> Result<(), Error> {
        self.write_out()?;
        if let Some(volume) = self.active.take() {
            self.release(&volume);
            volume.file.sync_data().map_err(|source| Error::ReadOnly {
                reason: Error::io(&volume.path, source).to_string(),
            })?;
            self.tally.volumes.entry(volume.number).or_default();
        }
        Ok(())
    }

    /// Gives back what was set aside for appending and is not used; for when nothing more is appended.
    pub(super) fn close(&mut self) {
        if let Some(volume) = self.active.take() {
            self.release(&volume);
        }
    }

    fn release(&mut self, volume: &Volume) {
        if std::mem::take(&mut self.reserved) > self.end {
            volume.release();
        }
    }

    fn begin_volume(&mut self, volumes: &Volumes) -> Result<Arc<Volume>, Error> {
        let number = self.next.shared;
        let path = volumes.path(number);
        // The number is used up even if this fails: a file may be there.
        self.next.shared += 1;
        let volume = Arc::new(Volume::create(&path, number, volumes.settle_key(None)?)?);
        let flushed = volume
            .file
            .sync_all()
            .and_then(|()| durable::sync_folder_of(&path));
        flushed.map_err(|source| Error::io(&path, source))?;
        volumes.insert(Arc::clone(&volume));
        // A checkpoint taken before anything here is flushed must know the volume: at the next start one that
        // is older than the checkpoint and unknown to it counts as compacted.
        self.tally.volumes.entry(number).or_default().end = PAGE_BYTES;
        self.end = PAGE_BYTES;
        self.durable = PAGE_BYTES;
        self.active = Some(Arc::clone(&volume));
        Ok(volume)
    }

    /// Takes what is to be flushed; `None` where nothing is. Ends with [`Writer::flushed`].
    pub(super) fn begin_flush(&mut self) -> Option<Flush> {
        if self.written.is_empty() {
            return None;
        }
        self.flushing = std::mem::take(&mut self.hidden);
        let mut ends: Vec<(u32, u64)> = self
            .written
            .iter()
            .map(|change| (change.effect.needle_volume(), 0))
            .collect();
        ends.dedup();
        for (number, end) in &mut ends {
            // A finished volume is known up to its end as soon as its last group is.
            *end = if self.active_number() == Some(*number) {
                self.end
            } else {
                u64::MAX
            };
        }
        Some(Flush {
            volume: self.active.clone(),
            changes: std::mem::take(&mut self.written),
            ends,
        })
    }

    /// Counts what was flushed and is in the index now.
    pub(super) fn flushed(&mut self, flush: &Flush, volumes: &Volumes) -> Result<(), Error> {
        self.flushing.clear();
        for change in &flush.changes {
            self.count(change.effect);
        }
        for (number, end) in &flush.ends {
            let end = if *end == u64::MAX {
                volumes.get(*number)?.map_or(Ok(0), |volume| volume.len())?
            } else {
                *end
            };
            self.tally.volumes.entry(*number).or_default().end = end;
            if self.active_number() == Some(*number) {
                self.durable = self.durable.max(end);
            }
        }
        self.tally.next_shared = self.next.shared;
        self.tally.next_seq = self.next.seq;
        Ok(())
    }

    /// Counts a change that was published, by a flush here or otherwise.
    pub(super) fn count(&mut self, effect: Effect) {
        let tally = &mut self.tally;
        match effect {
            Effect::Added { volume, span, len } => {
                tally.blobs += 1;
                tally.plain_bytes += len;
                Self::volume_live(tally, volume, span, 0);
            }
            Effect::Removed {
                volume,
                span,
                len,
                tombstone,
            } => {
                tally.blobs = tally.blobs.saturating_sub(1);
                tally.plain_bytes = tally.plain_bytes.saturating_sub(len);
                Self::volume_live(tally, volume, 0, span);
                Self::volume_live(tally, tombstone.0, tombstone.1, 0);
            }
            Effect::Moved { from, to, span } => {
                Self::volume_live(tally, from, 0, span);
                Self::volume_live(tally, to, span, 0);
            }
            Effect::Kept { volume, span } => Self::volume_live(tally, volume, span, 0),
        }
        tally.next_solo = self.next.solo;
        tally.next_seq = self.next.seq;
    }

    fn volume_live(tally: &mut Tally, volume: u32, plus: u64, minus: u64) {
        if volume & super::volume::SOLO != 0 {
            tally.solo_bytes = (tally.solo_bytes + plus).saturating_sub(minus);
            return;
        }
        let live = &mut tally.volumes.entry(volume).or_default().live;
        *live = (*live + plus).saturating_sub(minus);
    }

    /// Forgets a volume that was compacted away.
    pub(super) fn forget(&mut self, number: u32) {
        self.tally.volumes.remove(&number);
    }

    /// Replaces the counters after a rebuild.
    pub(super) fn recount(&mut self, tally: Tally) {
        self.tally = tally;
        self.tally.next_shared = self.next.shared.max(self.tally.next_shared);
        self.tally.next_solo = self.next.solo.max(self.tally.next_solo);
        self.tally.next_seq = self.next.seq.max(self.tally.next_seq);
        self.next = Numbers {
            shared: self.tally.next_shared,
            solo: self.tally.next_solo,
            seq: self.tally.next_seq,
        };
    }

    /// A needle with this number is there: the next one gets a higher one.
    pub(super) fn see(&mut self, seq: u64) {
        self.next.seq = self.next.seq.max(seq + 1);
        self.tally.next_seq = self.next.seq;
    }

    /// Starts counting towards the next checkpoint.
    pub(super) fn checkpointed(&mut self) {
        self.appended = 0;
    }

    /// Ends of shared volumes as they are now, for a status.
    pub(super) fn shared_bytes(&self) -> u64 {
        self.tally
            .volumes
            .values()
            .map(|volume: &VolumeTally| volume.end)
            .sum()
    }
}

impl Effect {
    /// The volume the needle itself was appended to.
    fn needle_volume(self) -> u32 {
        match self {
            Effect::Added { volume, .. } | Effect::Moved { to: volume, .. } | Effect::Kept { volume, .. } => {
                volume
            }
            Effect::Removed { tombstone, .. } => tombstone.0,
        }
    }
}
