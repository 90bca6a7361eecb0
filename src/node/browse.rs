//! Looking into snapshots: folders a page at a time, files as a stream of bytes.

use std::path::PathBuf;
use std::vec;

use bytes::Bytes;

use super::blobs::{Blobs, Reading};
use super::error::{Error, Kind};
use crate::coffer::Store;
use crate::db;
use crate::files::{self, Body, Commit, Entry, EntryName, Segment};
use crate::id::BlobId;

/// The most entries of one page of a folder, some 200 bytes each.
pub const FOLDER_PAGE_MAX: usize = 4096;

/// Zeros handed out at once where a file has a hole.
const HOLE_BYTES: usize = 64 * 1024;

/// The bytes of a file in a snapshot, in order. Dropping it is fine at any time.
pub struct FileReading {
    blobs: Blobs,
    /// What is left, next first.
    segments: vec::IntoIter<Segment>,
    /// Segments of a run that goes before them.
    run: vec::IntoIter<Segment>,
    now: Piece,
}

enum Piece {
    Nothing,
    Part { reading: Reading, offset: u64 },
    Hole { left: u64 },
}

impl Blobs {
    /// Entries of the folder with this tree above `after`, in ascending order of name; at most `limit` and
    /// [`FOLDER_PAGE_MAX`]. Fewer than both means the end.
    ///
    /// # Errors
    /// [`Error::Missing`] where the tree is not stored, [`Error::Invalid`] where the blob is no tree.
    pub async fn folder(
        &self,
        tree: BlobId,
        after: Option<EntryName>,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let store = self.store().clone();
        db::crossing(move || {
            let mut page = Vec::new();
            for entry in files::entries(&store, &tree)? {
                let entry = entry?;
                if after.as_ref().is_some_and(|after| entry.name <= *after) {
                    continue;
                }
                if page.len() == limit.min(FOLDER_PAGE_MAX) {
                    break;
                }
                page.push(entry);
            }
            Ok(page)
        })
        .await
    }

    /// What lies at `path` below the folder with this tree. Links are not followed.
    ///
    /// # Errors
    /// [`Error::Missing`] where nothing does, or a path with `..`; else as [`Blobs::folder`].
    pub async fn entry(&self, tree: BlobId, path: PathBuf) -> Result<Entry, Error> {
        let store = self.store().clone();
        db::crossing(move || {
            let found = files::find(&store, &tree, &path)?;
            found.ok_or_else(|| Error::missing(Kind::Path, path.display()))
        })
        .await
    }

    /// Opens a file of a snapshot.
    ///
    /// # Errors
    /// [`Error::Missing`] where its commit is not stored, [`Error::Invalid`] where the blob is none.
    pub async fn file(&self, body: Body) -> Result<FileReading, Error> {
        let segments = match body {
            Body::Empty => Vec::new(),
            // Only its blob knows the size: it is read to its end.
            Body::Part(id) => vec![Segment::Part { id, size: u64::MAX }],
            Body::Commit(id) => load(self.store().clone(), id).await?,
        };
        Ok(FileReading {
            blobs: self.clone(),
            segments: segments.into_iter(),
            run: Vec::new().into_iter(),
            now: Piece::Nothing,
        })
    }
}

impl FileReading {
    /// Passes over the next bytes: parts that lie before are not read. For before the first [`FileReading::next`].
    ///
    /// # Errors
    /// As [`FileReading::next`].
    pub async fn skip(&mut self, mut bytes: u64) -> Result<(), Error> {
        while let Some(segment) = self.run.next().or_else(|| self.segments.next()) {
            let size = segment.size();
            if bytes >= size {
                bytes -= size;
                continue;
            }
            match segment {
                Segment::Part { id, .. } => {
                    let reading = self.blobs.get(id).await?;
                    self.now = Piece::Part {
                        reading,
                        offset: bytes,
                    };
                    return Ok(());
                }
                Segment::Hole { size } => {
                    self.now = Piece::Hole { left: size - bytes };
                    return Ok(());
                }
                Segment::Run { commit, .. } => {
                    self.run = load(self.blobs.store().clone(), commit).await?.into_iter();
                }
            }
        }
        Ok(())
    }

    /// The next bytes, at most 256 KiB; `None` at the end. Verified part by part. After a cancelled call the
    /// next one may answer [`Error::Busy`].
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Missing`]: what was handed out so far was right, the rest cannot be had.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match &mut self.now {
                Piece::Part { reading, offset } => {
                    let bytes = reading.read_at(*offset).await?;
                    if !bytes.is_empty() {
                        *offset += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                }
                Piece::Hole { left } if *left > 0 => {
                    let len = usize::try_from(*left).map_or(HOLE_BYTES, |left| left.min(HOLE_BYTES));
                    *left -= len as u64;
                    return Ok(Some(Bytes::from(vec![0; len])));
                }
                Piece::Hole { .. } | Piece::Nothing => {}
            }
            let Some(segment) = self.run.next().or_else(|| self.segments.next()) else {
                return Ok(None);
            };
            self.now = match segment {
                Segment::Part { id, .. } => Piece::Part {
                    reading: self.blobs.get(id).await?,
                    offset: 0,
                },
                Segment::Hole { size } => Piece::Hole { left: size },
                Segment::Run { commit, .. } => {
                    self.run = load(self.blobs.store().clone(), commit).await?.into_iter();
                    Piece::Nothing
                }
            };
        }
    }
}

async fn load(store: Store, commit: BlobId) -> Result<Vec<Segment>, Error> {
    db::crossing(move || Ok(Commit::load(&store, &commit)?.segments)).await
}
