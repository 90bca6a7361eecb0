//! Reading a needle's body: every byte that leaves was checked against the blob's id.

use std::sync::Arc;

use bytes::Bytes;

use super::needle::{HEADER_BYTES, Header, Kind};
use super::volume::Volume;
use crate::coffer::backend::{Class, Reader, Stat};
use crate::coffer::error::Error;
use crate::coffer::frame::{FRAME_BYTES, TABLE_ENTRY_BYTES, Table, decode_frame};
use crate::id::BlobId;

/// A blob in a volume, open for reading. Holds one frame, and 44 bytes for each 256 KiB of a larger blob.
pub(super) struct NeedleReader {
    volume: Arc<Volume>,
    stat: Stat,
    frames: Frames,
}

enum Frames {
    /// The whole blob, verified.
    One(Bytes),
    /// The table, verified against the id, and where in the volume each frame begins.
    Many {
        table: Table,
        starts: Vec<u64>,
        last: Option<(usize, Bytes)>,
    },
}

impl NeedleReader {
    /// Opens the needle at `offset`, which must be that of `id` with `len` plain bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it is not; [`Error::Io`] and [`Error::Busy`], which say nothing of the blob.
    pub(super) fn open(
        volume: Arc<Volume>,
        offset: u64,
        id: BlobId,
        len: u64,
        class: Class,
    ) -> Result<Self, Error> {
        let corrupt = || Error::Corrupt { id };
        let stat = Stat { id, len, class };
        // A frame is stored in no more bytes than it has, so one read gets header and body of a small blob.
        let guess = HEADER_BYTES + usize::try_from(len.min(FRAME_BYTES as u64)).expect("at most a frame");
        let wanted = if len <= FRAME_BYTES as u64 {
            guess
        } else {
            HEADER_BYTES
        };
        let mut start = vec![0; wanted];
        let read = volume.read(&mut start, offset)?;
        let header = Header::decode(&start[..read], &volume.key).ok_or_else(corrupt)?;
        if header.kind != Kind::Blob || header.id != id || header.plain_len != len {
            return Err(corrupt());
        }
        let frames = if len <= FRAME_BYTES as u64 {
            let stored_len = usize::try_from(header.stored_len).map_err(|_| corrupt())?;
            let stored = start[HEADER_BYTES..read].get(..stored_len).ok_or_else(corrupt)?;
            let mut plain = Vec::new();
            decode_frame(stored, header.zstd, start_len(len), &mut plain).ok_or_else(corrupt)?;
            if BlobId::of(&plain) != id {
                return Err(corrupt());
            }
            Frames::One(plain.into())
        } else {
            Self::open_table(&volume, offset, &header)?.ok_or_else(corrupt)?
        };
        Ok(NeedleReader { volume, stat, frames })
    }

    /// `None` where it proves nothing.
    fn open_table(volume: &Volume, offset: u64, header: &Header) -> Result<Option<Frames>, Error> {
        let count = header.plain_len.div_ceil(FRAME_BYTES as u64);
        let body = offset + HEADER_BYTES as u64;
        let place = count.checked_mul(TABLE_ENTRY_BYTES as u64).and_then(|len| {
            let at = body + header.stored_len.checked_sub(len)?;
            Some((at, usize::try_from(len).ok()?))
        });
        let Some((table_at, table_len)) = place else {
            return Ok(None);
        };
        let mut bytes = vec![0; table_len];
        if !read_all(volume, &mut bytes, table_at)? {
            return Ok(None);
        }
        let table = Table::parse(&bytes, header.plain_len).filter(|table| table.proves(&header.id));
        let Some(table) = table else {
            return Ok(None);
        };
        let mut starts = Vec::with_capacity(table.frames());
        let mut at = body;
        for frame in 0..table.frames() {
            starts.push(at);
            at += table.stored_len(frame) as u64;
        }
        Ok((at == table_at).then_some(Frames::Many {
            table,
            starts,
            last: None,
        }))
    }

    /// As [`Reader::read_at`], where a disk that can't read says nothing of the blob.
    pub(super) fn try_read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        if offset >= self.stat.len {
            return Ok(Bytes::new());
        }
        let within = usize::try_from(offset % FRAME_BYTES as u64).expect("below a frame");
        match &mut self.frames {
            Frames::One(plain) => Ok(plain.slice(within..)),
            Frames::Many { table, starts, last } => {
                let index = usize::try_from(offset / FRAME_BYTES as u64).expect("the table fits memory");
                if let Some((_, plain)) = last.as_ref().filter(|(held, _)| *held == index) {
                    return Ok(plain.slice(within..));
                }
                let plain = read_frame(&self.volume, table, starts[index], index)?
                    .ok_or(Error::Corrupt { id: self.stat.id })?;
                *last = Some((index, plain.clone()));
                Ok(plain.slice(within..))
            }
        }
    }
}

/// What a failed read means to who wants the blob: a disk that can't read it has not got it.
pub(super) fn as_damage(id: BlobId) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Io { .. } => Error::Corrupt { id },
        error => error,
    }
}

impl Reader for NeedleReader {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        self.try_read_at(offset).map_err(as_damage(self.stat.id))
    }
}

/// Whether all of these bytes are there.
fn read_all(volume: &Volume, buffer: &mut [u8], offset: u64) -> Result<bool, Error> {
    Ok(volume.read(buffer, offset)? == buffer.len())
}

/// `None` where it is not what the table says.
fn read_frame(volume: &Volume, table: &Table, start: u64, index: usize) -> Result<Option<Bytes>, Error> {
    let stored_len = table.stored_len(index);
    if stored_len > FRAME_BYTES {
        return Ok(None);
    }
    let mut stored = vec![0; stored_len];
    if !read_all(volume, &mut stored, start)? {
        return Ok(None);
    }
    let plain_len = table.plain_len(index);
    if table.zstd(index) {
        let mut plain = Vec::new();
        if decode_frame(&stored, true, plain_len, &mut plain).is_none() {
            return Ok(None);
        }
        stored = plain;
    }
    Ok((stored.len() == plain_len && table.matches(index, &stored)).then(|| stored.into()))
}

fn start_len(len: u64) -> usize {
    usize::try_from(len).expect("at most a frame")
}
