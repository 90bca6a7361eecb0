//! A blob streamed into a file of its own: hashed while it is written.

use std::fs::File;
use std::io::Write;
use std::iter;
use std::sync::Arc;

use super::layout::Leaf;
use super::outboard;
use super::place::{Folder, NewBlob, Place, Temp};
use crate::coffer::backend::{Class, Incoming, Put, Stat};
use crate::coffer::error::Error;
use crate::coffer::frame::{FRAME_BYTES, Tree};
use crate::coffer::space;
use crate::id::BlobId;

pub(super) struct FsIncoming {
    place: Arc<Place>,
    class: Class,
    /// `None` after a failed write: what is in the file is not what was hashed.
    file: Option<(Temp, File)>,
    tree: Tree,
    /// The beginning of the next frame.
    frame: Vec<u8>,
}

impl FsIncoming {
    pub(super) fn begin(place: Arc<Place>, class: Class) -> Result<FsIncoming, Error> {
        space::room_for(place.root(), 0)?;
        let file = place.temp()?;
        Ok(FsIncoming {
            place,
            class,
            file: Some(file),
            tree: Tree::default(),
            frame: Vec::new(),
        })
    }

    fn push(&mut self, frame: &[u8]) -> Result<(), Error> {
        let (temp, mut file) = self.file.take().ok_or(Error::Busy)?;
        self.place.writable()?;
        space::room_for(self.place.root(), frame.len() as u64)?;
        file.write_all(frame)
            .map_err(|source| self.place.failed(&temp.path, source))?;
        self.tree.push(frame, frame.len(), false);
        self.file = Some((temp, file));
        Ok(())
    }

    fn push_held(&mut self) -> Result<(), Error> {
        let mut frame = std::mem::take(&mut self.frame);
        self.push(&frame)?;
        frame.clear();
        self.frame = frame;
        Ok(())
    }
}

impl Incoming for FsIncoming {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.frame.is_empty() && bytes.len() >= FRAME_BYTES {
                let (frame, rest) = bytes.split_at(FRAME_BYTES);
                self.push(frame)?;
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(FRAME_BYTES - self.frame.len()));
            self.frame.extend_from_slice(head);
            bytes = rest;
            if self.frame.len() == FRAME_BYTES {
                self.push_held()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, expect: Option<BlobId>) -> Result<Put, Error> {
        if !self.frame.is_empty() {
            self.push_held()?;
        }
        let id = self.tree.root();
        if let Some(expected) = expect.filter(|expected| *expected != id) {
            return Err(Error::Mismatch {
                expected: expected.to_string(),
                actual: id.to_string(),
            });
        }
        let (temp, file) = self.file.take().ok_or(Error::Busy)?;
        self.place.writable()?;
        file.sync_all()
            .map_err(|source| self.place.failed(&temp.path, source))?;
        drop(file);
        let table = match self.tree.frames() {
            0 | 1 => None,
            _ => Some(self.place.write_temp(&outboard::encode(&self.tree))?),
        };
        let new = NewBlob { bytes: temp, table };
        let folder = self.place.folder(Folder::Leaf(Leaf::of(&id)))?;
        let stat = Stat {
            id,
            len: self.tree.plain_len(),
            class: self.class,
        };
        self.place.publish_tables(&folder, iter::once((&new, id)))?;
        let fresh = self.place.publish(&new, stat)?;
        // Where it was there as well: whoever named it may not have flushed that yet.
        self.place.flush_folder(&folder)?;
        Ok(Put {
            id,
            len: stat.len,
            fresh,
        })
    }
}
