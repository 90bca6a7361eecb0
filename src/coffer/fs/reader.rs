//! Reading a blob's file: no byte leaves before the frame it is in was verified.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

use super::layout;
use super::outboard;
use super::place::Place;
use crate::coffer::backend::{Reader, Stat};
use crate::coffer::error::Error;
use crate::coffer::frame::{FRAME_BYTES, Table};
use crate::id::BlobId;

pub(super) struct FsReader {
    stat: Stat,
    file: File,
    path: PathBuf,
    table_path: PathBuf,
    /// `None` before the first read, and always for a blob of one frame.
    table: Option<Table>,
}

impl FsReader {
    /// Opens a blob; `None` where it is not stored.
    pub(super) fn open(place: &Place, id: &BlobId) -> Result<Option<FsReader>, Error> {
        let opened = place.open_blob(id)?;
        Ok(opened.map(|(file, stat)| FsReader {
            stat,
            file,
            path: layout::blob_path(place.root(), id, stat.class),
            table_path: layout::table_path(place.root(), id),
            table: None,
        }))
    }

    fn read(&self, start: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, start) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.corrupt()),
            Err(source) => Err(Error::io(&self.path, source)),
        }
    }

    fn corrupt(&self) -> Error {
        Error::Corrupt { id: self.stat.id }
    }

    /// The proof of each frame: from the table, or else from reading the blob whole.
    fn prove(&self) -> Result<Table, Error> {
        if let Some(table) = outboard::load(&self.table_path, self.stat) {
            return Ok(table);
        }
        tracing::debug!(id = %self.stat.id, "the table of a blob is missing or damaged: verified by reading it whole");
        let tree =
            outboard::read_tree(&self.file, self.stat.len).map_err(|source| Error::io(&self.path, source))?;
        outboard::parse(&outboard::encode(&tree), self.stat).ok_or_else(|| self.corrupt())
    }
}

impl Reader for FsReader {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        const FRAME: u64 = FRAME_BYTES as u64;
        let len = self.stat.len;
        if offset >= len {
            return Ok(Bytes::new());
        }
        let start = offset - offset % FRAME;
        let frame_len = usize::try_from((len - start).min(FRAME)).unwrap_or(FRAME_BYTES);
        let is_whole = if len <= FRAME {
            let bytes = self.read(0, frame_len)?;
            (BlobId::of(&bytes) == self.stat.id).then_some(bytes)
        } else {
            let table = match self.table.take() {
                Some(table) => table,
                None => self.prove()?,
            };
            let bytes = self.read(start, frame_len)?;
            let index = usize::try_from(start / FRAME).unwrap_or(usize::MAX);
            let matches = table.matches(index, &bytes);
            self.table = Some(table);
            matches.then_some(bytes)
        };
        let bytes = Bytes::from(is_whole.ok_or_else(|| self.corrupt())?);
        let skip = usize::try_from(offset - start).unwrap_or(FRAME_BYTES);
        Ok(bytes.slice(skip..))
    }
}
