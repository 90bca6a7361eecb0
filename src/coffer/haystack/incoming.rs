//! Large blobs on their way in: a volume of their own, written in staging/ and renamed when it is whole.
//!
//! The bytes are flushed before anything else happens. Then, while nothing else is published, the volume gets
//! its number and the needle its sequence number, both are written and flushed, the file is renamed into
//! place, the folders are flushed, and the index shows the blob. A blob that turns out small is appended
//! like any other.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use super::needle::{HEADER_BYTES, Header, Kind};
use super::run::Entry;
use super::volume::{PAGE_BYTES, SOLO, Volume};
use super::writer::Effect;
use crate::coffer::backend::{Class, Incoming, Put};
use crate::coffer::error::Error;
use crate::coffer::frame::{FRAME_BYTES, Packed, Tree, compress};
use crate::durable;
use crate::id::BlobId;

/// Up to here a streamed blob is appended to a shared volume.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// Bytes after which the system is asked to begin writing them to the medium, so that the last flush is short.
const BEGIN_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes after which they are flushed: what a slow card may be behind at most, and what the page cache holds.
const SYNC_BYTES: u64 = 256 * 1024 * 1024;

/// A blob being streamed in.
pub(super) struct Stream {
    core: Arc<Core>,
    class: Class,
    /// Plain bytes not yet written: at most [`HELD_BYTES_MAX`] before a file is begun, at most a frame after.
    held: Vec<u8>,
    file: Option<Staged>,
}

struct Staged {
    volume: Volume,
    tree: Tree,
    end: u64,
    /// Up to where the system was asked to begin writing.
    begun: u64,
    synced: u64,
}

impl Stream {
    pub(super) fn new(core: Arc<Core>, class: Class) -> Stream {
        Stream {
            core,
            class,
            held: Vec::new(),
            file: None,
        }
    }

    fn staged(&mut self) -> Result<&mut Staged, Error> {
        if self.file.is_none() {
            let name = self.core.staged.fetch_add(1, Ordering::Relaxed);
            let path = self.core.volumes.folder("staging").join(name.to_string());
            // The number is given when the volume is published.
            let volume = Volume::create(&path, 0, self.core.key)?;
            let end = PAGE_BYTES + HEADER_BYTES as u64;
            self.file = Some(Staged {
                volume,
                tree: Tree::default(),
                end,
                begun: 0,
                synced: 0,
            });
        }
        Ok(self.file.as_mut().expect("just made"))
    }

    /// Writes what is held, as frames; only the last one of a blob may be short.
    fn write_held(&mut self) -> Result<(), Error> {
        let mut held = std::mem::take(&mut self.held);
        self.write_frames(&held)?;
        // The same memory again for what comes.
        held.clear();
        held.shrink_to(FRAME_BYTES);
        self.held = held;
        Ok(())
    }

    fn write_frames(&mut self, plain: &[u8]) -> Result<(), Error> {
        let compression = self.core.options.compression;
        let core = Arc::clone(&self.core);
        let staged = self.staged()?;
        for frame in plain.chunks(FRAME_BYTES) {
            staged
                .write(frame, compression)
                .map_err(|error| core.fail(error))?;
        }
        Ok(())
    }
}

impl Staged {
    fn write(&mut self, frame: &[u8], compression: crate::coffer::frame::Compression) -> Result<(), Error> {
        let packed = compress(frame, compression);
        let stored = packed.as_deref().unwrap_or(frame);
        self.put(stored)?;
        self.tree.push(frame, stored.len(), packed.is_some());
        if self.end - self.begun >= BEGIN_BYTES {
            self.begin_writing();
        }
        if self.end - self.synced >= SYNC_BYTES {
            self.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let fail = |source| Error::io(&self.volume.path, source);
        self.volume.file.write_all_at(bytes, self.end).map_err(fail)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Asks the system to begin writing what is in its page cache, and to let go of what is written already.
    /// Nothing depends on it: that it did not is seen by the flush.
    fn begin_writing(&mut self) {
        // Bytes of the time before are written by now, those since are only begun.
        let from = self.begun.saturating_sub(BEGIN_BYTES);
        self.volume.uncache(from, self.end - from);
        self.begun = self.end;
    }

    /// A flush that fails here is not tried again: the whole file is given up.
    fn sync(&self) -> Result<(), Error> {
        self.volume.file.sync_data().map_err(|source| Error::ReadOnly {
            reason: Error::io(&self.volume.path, source).to_string(),
        })
    }
}

impl Incoming for Stream {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        if self.file.is_none() && self.held.len() + bytes.len() <= HELD_BYTES_MAX {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        self.core.writable()?;
        self.core.has_room()?;
        if !self.held.is_empty() {
            let missing = self.held.len().next_multiple_of(FRAME_BYTES) - self.held.len();
            let (first, rest) = bytes.split_at(missing.min(bytes.len()));
            self.held.extend_from_slice(first);
            bytes = rest;
            if !self.held.len().is_multiple_of(FRAME_BYTES) {
                return Ok(());
            }
            self.write_held()?;
        }
        // What comes as whole frames is written from where it is.
        let (frames, rest) = bytes.split_at(bytes.len() / FRAME_BYTES * FRAME_BYTES);
        self.write_frames(frames)?;
        self.held.extend_from_slice(rest);
        Ok(())
    }

    fn finish(mut self: Box<Self>, expect: Option<BlobId>) -> Result<Put, Error> {
        if self.file.is_none() {
            let packed = Packed::new(
                std::mem::take(&mut self.held).into(),
                self.class,
                self.core.options.compression,
            );
            compare(expect, packed.id())?;
            let puts = self.core.append(&[packed])?;
            self.core.flush()?;
            return Ok(puts[0]);
        }
        self.write_held()?;
        let staged = self.staged()?;
        let id = staged.tree.root();
        compare(expect, id)?;
        let mut table = Vec::new();
        staged.tree.write_table(&mut table);
        let (core, class) = (Arc::clone(&self.core), self.class);
        let staged = self.staged()?;
        staged
            .put(&table)
            .and_then(|()| staged.sync())
            .map_err(|error| core.fail(error))?;
        publish(&core, staged, id, class)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(staged) = &self.file {
            // Gone already where it was published; a file that stays is cleared at the next start.
            let _ = fs::remove_file(&staged.volume.path);
        }
    }
}

/// Gives a flushed stream its place among the volumes. Durable and visible on return.
fn publish(core: &Core, staged: &Staged, id: BlobId, class: Class) -> Result<Put, Error> {
    let len = staged.tree.plain_len();
    let mut runs = core.publishing();
    let (number, header, entry) = {
        // With nothing on its way to the index that would be shown after this blob and be older than it.
        let mut writer = core.settled(&mut runs)?;
        if let Some(entry) = core.newest(&writer, &id)? {
            if class == Class::Pinned && !entry.pinned {
                let pinned = core
                    .append_pin(&mut writer, id, entry)
                    .and_then(|()| writer.write_out());
                pinned.map_err(|error| core.fail(error))?;
            }
            drop(writer);
            // What was appended since, this blob perhaps among it, is durable before it is called stored.
            core.flush_held(&mut runs)?;
            return Ok(Put {
                id,
                len,
                fresh: false,
            });
        }
        let number = writer.next_solo() | SOLO;
        let pinned = class == Class::Pinned;
        let header = Header {
            pinned,
            zstd: staged.tree.frames() == 1 && staged.tree.only_frame_zstd(),
            seq: writer.next_seq(),
            durable: PAGE_BYTES,
            plain_len: len,
            stored_len: staged.end - PAGE_BYTES - HEADER_BYTES as u64,
            ..Header::bare(Kind::Blob, id)
        };
        let entry = Entry {
            volume: number,
            offset: PAGE_BYTES,
            len,
            pinned,
            dead: false,
            alias: false,
        };
        writer.set_placing(Some(id));
        (number, header, entry)
    };
    let placed = place(core, staged, number, &header);
    let mut writer = core.writer();
    writer.set_placing(None);
    placed.map_err(|error| core.fail(error))?;
    core.index.insert([(id, entry)]);
    writer.count(Effect::Added {
        volume: number,
        span: staged.end,
        len,
    });
    Ok(Put { id, len, fresh: true })
}

fn place(core: &Core, staged: &Staged, number: u32, header: &Header) -> Result<(), Error> {
    let volume = &staged.volume;
    let fail = |source| Error::io(&volume.path, source);
    volume.write_first_page(number)?;
    volume
        .file
        .write_all_at(&header.encode(&volume.key), PAGE_BYTES)
        .map_err(fail)?;
    volume.file.sync_all().map_err(|source| Error::ReadOnly {
        reason: fail(source).to_string(),
    })?;
    let path = core.volumes.path(number);
    let folder = path.parent().expect("a solo volume is in a folder");
    durable::create_folder(folder).map_err(fail)?;
    fs::rename(&volume.path, &path).map_err(fail)?;
    durable::sync_folder_of(&path).map_err(|source| Error::ReadOnly {
        reason: fail(source).to_string(),
    })
}

fn compare(expect: Option<BlobId>, actual: BlobId) -> Result<(), Error> {
    match expect.filter(|expected| *expected != actual) {
        Some(expected) => Err(Error::Mismatch {
            expected: expected.to_string(),
            actual: actual.to_string(),
        }),
        None => Ok(()),
    }
}
