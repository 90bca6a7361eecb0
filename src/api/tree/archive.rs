//! A folder as a ZIP archive that is made while it is sent: memory stays flat, whatever the folder's size.
//!
//! Trees never change, so the folder is walked twice: once for the files, once for the directory at the end of
//! the archive. What is kept in between is a checksum of four bytes for each file.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;

use super::{PATH_BYTES_MAX, Spot};
use crate::api::answer::{self, Source};
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::zip::{self, EntryKind};
use crate::id::BlobId;
use crate::node::{self, Blobs, Body, Entry, EntryName, FOLDER_PAGE_MAX, FileReading};

/// Directory entries sent at once, in bytes.
const DIRECTORY_PIECE_BYTES: usize = 64 * 1024;

/// How deep folders may nest: deeper paths fit no file system that could take them out again.
const DEPTH_MAX: usize = PATH_BYTES_MAX / 2;

/// The archive of a folder.
pub(in crate::api) async fn archive(call: Call) -> Result<Response, Error> {
    let spot = Spot::of(&call, call.ref_name()?).await?;
    let tree = spot.folder().await?;
    let name = format!("{}.zip", spot.file_name());
    let source = Archive {
        walk: Walk::new(spot.blobs, tree),
        tree,
        checksums: Vec::new(),
        offset: 0,
        phase: Phase::Entries,
    };
    let mut response = Response::new(answer::stream(source, None));
    answer::mark_as_content(response.headers_mut(), answer::attachment(&name));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    Ok(response)
}

struct Archive {
    walk: Walk,
    tree: BlobId,
    /// Of each entry in the order of the walk.
    checksums: Vec<u32>,
    /// Bytes sent.
    offset: u64,
    phase: Phase,
}

enum Phase {
    /// Between two entries.
    Entries,
    /// Inside a file.
    Content(Box<Content>),
    /// The directory: how many entries of it are sent, and where the next one's local header begins.
    Directory {
        begins: u64,
        sent: usize,
        local: u64,
    },
    Ended,
}

struct Content {
    entry: zip::Entry,
    reading: FileReading,
    hasher: crc32fast::Hasher,
    left: u64,
}

impl Source for Archive {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let piece = match &mut self.phase {
            Phase::Entries => Some(self.next_entry().await?),
            Phase::Content(_) => Some(self.next_content().await?),
            Phase::Directory { .. } => Some(self.next_directory().await?),
            Phase::Ended => None,
        };
        if let Some(piece) = &piece {
            self.offset += piece.len() as u64;
        }
        Ok(piece)
    }
}

impl Archive {
    async fn next_entry(&mut self) -> Result<Bytes, Error> {
        let Some(found) = self.walk.next().await? else {
            self.walk.restart(self.tree);
            self.phase = Phase::Directory {
                begins: self.offset,
                sent: 0,
                local: 0,
            };
            return self.next_directory().await;
        };
        let mut piece = found.entry.local_header();
        match found.content {
            Held::Bytes(bytes) => {
                let checksum = crc32fast::hash(&bytes);
                piece.extend_from_slice(&bytes);
                piece.extend_from_slice(&found.entry.descriptor(checksum));
                self.checksums.push(checksum);
            }
            Held::Body(body) => {
                self.phase = Phase::Content(Box::new(Content {
                    reading: self.walk.blobs.file(body).await?,
                    hasher: crc32fast::Hasher::new(),
                    left: found.entry.len,
                    entry: found.entry,
                }));
            }
        }
        Ok(piece.into())
    }

    async fn next_content(&mut self) -> Result<Bytes, Error> {
        let Phase::Content(content) = &mut self.phase else {
            return Ok(Bytes::new());
        };
        match content.reading.next().await? {
            Some(bytes) => {
                content.left = content
                    .left
                    .checked_sub(bytes.len() as u64)
                    .ok_or_else(|| other_length(&content.entry))?;
                content.hasher.update(&bytes);
                Ok(bytes)
            }
            None if content.left > 0 => Err(other_length(&content.entry)),
            None => {
                let checksum = content.hasher.clone().finalize();
                let piece = content.entry.descriptor(checksum);
                self.checksums.push(checksum);
                self.phase = Phase::Entries;
                Ok(piece.into())
            }
        }
    }

    async fn next_directory(&mut self) -> Result<Bytes, Error> {
        let Phase::Directory { begins, sent, local } = &mut self.phase else {
            return Ok(Bytes::new());
        };
        let mut piece = Vec::new();
        while piece.len() < DIRECTORY_PIECE_BYTES {
            let Some(found) = self.walk.next().await? else {
                let len = self.offset + piece.len() as u64 - *begins;
                piece.extend_from_slice(&zip::end(*sent as u64, *begins, len));
                self.phase = Phase::Ended;
                break;
            };
            let checksum = self.checksums.get(*sent).copied().unwrap_or_default();
            piece.extend_from_slice(&found.entry.central_header(checksum, *local));
            *local += found.entry.span();
            *sent += 1;
        }
        Ok(piece.into())
    }
}

/// A tree and what it names can only disagree where something else than Refuge wrote the tree.
fn other_length(entry: &zip::Entry) -> Error {
    Error::malformed(
        "tree",
        format!(
            "says {} bytes of {}, which has another length",
            entry.len,
            String::from_utf8_lossy(&entry.name)
        ),
    )
}

/// Everything below a folder, folders before what is in them.
struct Walk {
    blobs: Blobs,
    levels: Vec<Level>,
}

struct Level {
    tree: BlobId,
    /// The path to it, with a slash at its end; empty for the first.
    prefix: Vec<u8>,
    page: std::vec::IntoIter<Entry>,
    after: Option<EntryName>,
    is_last_page: bool,
}

struct Found {
    entry: zip::Entry,
    content: Held,
}

enum Held {
    /// At hand: nothing, or where a link points.
    Bytes(Vec<u8>),
    /// In the store.
    Body(Body),
}

impl Walk {
    fn new(blobs: Blobs, tree: BlobId) -> Walk {
        let mut walk = Walk {
            blobs,
            levels: Vec::new(),
        };
        walk.restart(tree);
        walk
    }

    fn restart(&mut self, tree: BlobId) {
        self.levels = vec![Level::new(tree, Vec::new())];
    }

    async fn next(&mut self) -> Result<Option<Found>, Error> {
        loop {
            let depth = self.levels.len();
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            let Some(entry) = level.page.next() else {
                if level.is_last_page {
                    self.levels.pop();
                } else {
                    level.turn(&self.blobs).await?;
                }
                continue;
            };
            let mut name = level.prefix.clone();
            name.extend_from_slice(entry.name.as_bytes());
            if name.len() > PATH_BYTES_MAX || depth > DEPTH_MAX {
                return Err(Error::malformed(
                    "tree",
                    "has a path longer than any file system takes",
                ));
            }
            if let Some(found) = self.found(name, entry) {
                return Ok(Some(found));
            }
        }
    }

    /// The entry as an archive has it; `None` for pipes and devices, which no archive for people holds.
    fn found(&mut self, mut name: Vec<u8>, entry: Entry) -> Option<Found> {
        let (kind, len, content) = match entry.kind {
            node::EntryKind::File { size, body, .. } => (EntryKind::File, size, Held::Body(body)),
            node::EntryKind::Folder { tree, .. } => {
                name.push(b'/');
                self.levels.push(Level::new(tree, name.clone()));
                (EntryKind::Folder, 0, Held::Bytes(Vec::new()))
            }
            node::EntryKind::Link { target } => (EntryKind::Link, target.len() as u64, Held::Bytes(target)),
            node::EntryKind::Fifo | node::EntryKind::Char(_) | node::EntryKind::Block(_) => return None,
        };
        Some(Found {
            entry: zip::Entry {
                name,
                kind,
                len,
                mode: entry.meta.mode,
                modified: entry.meta.mtime.0,
            },
            content,
        })
    }
}

impl Level {
    fn new(tree: BlobId, prefix: Vec<u8>) -> Level {
        Level {
            tree,
            prefix,
            page: Vec::new().into_iter(),
            after: None,
            is_last_page: false,
        }
    }

    async fn turn(&mut self, blobs: &Blobs) -> Result<(), Error> {
        let entries = blobs
            .folder(self.tree, self.after.take(), FOLDER_PAGE_MAX)
            .await?;
        self.is_last_page = entries.len() < FOLDER_PAGE_MAX;
        self.after = entries.last().map(|entry| entry.name.clone());
        self.page = entries.into_iter();
        Ok(())
    }
}
