//! The bundle that is on its way here, and goes on where it was cut off.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::manifest::BUNDLE_BYTES_MAX;
use crate::db;
use crate::durable;
use crate::id::{BlobId, Version};
use crate::node::error::{Error, Kind};
use crate::node::update::UpdateTrouble;

/// What stays free beside a bundle and the copy of it that root checks, in bytes: the node's own writes go on meanwhile.
const FREE_BYTES_LEFT: u64 = 16 * 1024 * 1024;

/// Bytes that are written, read and hashed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// A bundle that is about to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coming {
    /// Where from, as [`Source`](crate::node::Source) writes it.
    pub from: String,
    /// How long it is.
    pub size_bytes: u64,
    /// What the source says that changes whenever the bytes do; without it a transfer begins anew each time.
    pub mark: Option<String>,
}

/// `next.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    coming: Coming,
    /// Once it was verified.
    version: Option<Version>,
}

const FORMAT: u32 = 1;

/// A bundle that is being taken in. What is dropped before [`Arriving::finish`] goes on the next time, but for some last bytes.
pub struct Arriving {
    path: PathBuf,
    file: Arc<File>,
    size_bytes: u64,
    written: u64,
    waiting: BytesMut,
}

impl Arriving {
    /// As [`super::Bundles::begin`]; blocking.
    pub(super) fn begin(folder: &Path, coming: Coming) -> Result<Arriving, Error> {
        durable::create_folder(folder).map_err(|error| Error::io(folder, error))?;
        let goes_on = record(folder)?.is_some_and(|record| {
            record.coming == coming && coming.mark.is_some() && record.version.is_none()
        });
        if !goes_on {
            forget(folder)?;
        }
        let path = folder.join("next.raucb");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(|error| Error::io(&path, error))?;
        let len = file.metadata().map_err(|error| Error::io(&path, error))?.len();
        let written = match len <= coming.size_bytes {
            true => len,
            false => 0,
        };
        let size_bytes = coming.size_bytes;
        if let Err(error) = has_room(folder, size_bytes, written) {
            // Of what does not fit nothing stays.
            forget(folder)?;
            return Err(error);
        }
        file.set_len(written).map_err(|error| Error::io(&path, error))?;
        if !goes_on {
            save(
                folder,
                &Record {
                    format: FORMAT,
                    coming,
                    version: None,
                },
            )?;
        }
        Ok(Arriving {
            path,
            file: Arc::new(file),
            size_bytes,
            written,
            waiting: BytesMut::new(),
        })
    }

    /// How much is there.
    pub fn received(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// How much it will be.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where they are more than were to come; [`Error::NoSpace`], [`Error::Internal`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.received().saturating_add(bytes.len() as u64) > self.size_bytes {
            return Err(Error::TooLarge {
                limit: self.size_bytes,
            });
        }
        self.waiting.extend_from_slice(bytes);
        match self.waiting.len() < PIECE_BYTES {
            true => Ok(()),
            false => self.flush().await,
        }
    }

    /// Keeps all that came for the next time.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`].
    pub async fn keep(&mut self) -> Result<(), Error> {
        self.flush().await
    }

    /// Bytes that came, from `offset` on; at most as many.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn read(&mut self, offset: u64, most: u64) -> Result<Bytes, Error> {
        self.flush().await?;
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        let len = most.min(self.written.saturating_sub(offset));
        db::crossing(move || read_at(&file, offset, len).map_err(|error| Error::io(&path, error))).await
    }

    /// Goes back to where `len` bytes were there.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn cut(&mut self, len: u64) -> Result<(), Error> {
        self.flush().await?;
        let (file, path, len) = (Arc::clone(&self.file), self.path.clone(), len.min(self.written));
        db::crossing(move || file.set_len(len).map_err(|error| Error::io(&path, error))).await?;
        self.written = len;
        Ok(())
    }

    /// All came: the digest of it. Durable on return.
    ///
    /// # Errors
    /// [`Error::Invalid`] where bytes are missing; [`Error::NoSpace`], [`Error::Internal`].
    pub async fn finish(mut self) -> Result<BlobId, Error> {
        self.flush().await?;
        if self.written != self.size_bytes {
            return Err(Error::Invalid {
                what: "bundle",
                reason: format!("{} of {} bytes came", self.written, self.size_bytes),
            });
        }
        let path = self.path.clone();
        let digest = move || -> io::Result<BlobId> {
            self.file.sync_all()?;
            let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
            while at < self.written {
                let piece = read_at(&self.file, at, PIECE_BYTES as u64)?;
                at += piece.len() as u64;
                hasher.update(&piece);
            }
            Ok(BlobId::from_bytes(hasher.finalize().into()))
        };
        db::crossing(move || digest().map_err(|error| Error::io(&path, error))).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let bytes = self.waiting.split().freeze();
        if bytes.is_empty() {
            return Ok(());
        }
        let (file, path, at) = (Arc::clone(&self.file), self.path.clone(), self.written);
        let len = bytes.len() as u64;
        db::crossing(move || {
            file.write_all_at(&bytes, at)
                .map_err(|error| Error::io(&path, error))
        })
        .await?;
        self.written += len;
        Ok(())
    }
}

/// As [`super::Bundles::came`].
pub(super) fn read(folder: &Path, offset: u64) -> Result<Bytes, Error> {
    let path = folder.join("next.raucb");
    let read = File::open(&path).and_then(|file| {
        let len = file.metadata()?.len().saturating_sub(offset);
        read_at(&file, offset, len.min(PIECE_BYTES as u64))
    });
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::missing(Kind::Bundle, "that came"),
        _ => Error::io(&path, error),
    })
}

/// As [`super::Bundles::found`].
pub(super) fn found(folder: &Path, version: Version) -> Result<(), Error> {
    let record = record(folder)?.ok_or_else(|| Error::missing(Kind::Bundle, "that came"))?;
    save(
        folder,
        &Record {
            version: Some(version),
            ..record
        },
    )
}

/// The version of the bundle that came, where it was verified and is still there.
pub(super) fn found_version(folder: &Path) -> Result<Option<Version>, Error> {
    let version = record(folder)?.and_then(|record| record.version);
    if version.is_some() && !folder.join("next.raucb").exists() {
        // It was kept, and the power went before its record did.
        durable::remove(&record_path(folder))?;
        return Ok(None);
    }
    Ok(version)
}

/// As [`super::Bundles::forget`].
pub(super) fn forget(folder: &Path) -> Result<(), Error> {
    let path = folder.join("next.raucb");
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(|error| Error::io(&path, error))?,
    }
    match record_path(folder).exists() {
        true => Ok(durable::remove(&record_path(folder))?),
        false => Ok(()),
    }
}

fn record_path(folder: &Path) -> PathBuf {
    folder.join("next.json")
}

/// What cannot be read is no record: its transfer begins anew.
fn record(folder: &Path) -> Result<Option<Record>, Error> {
    let state = match durable::read(&record_path(folder)) {
        Ok(state) => state,
        Err(durable::Error::Damaged { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let record = state.and_then(|state| serde_json::from_slice::<Record>(&state.payload).ok());
    Ok(record.filter(|record| record.format == FORMAT))
}

fn save(folder: &Path, record: &Record) -> Result<(), Error> {
    let json = serde_json::to_vec(record).expect("a record is plain fields");
    Ok(durable::replace(&record_path(folder), &json)?)
}

/// Room for what is still to come, and for the copy that root checks.
fn has_room(folder: &Path, size_bytes: u64, received: u64) -> Result<(), Error> {
    if size_bytes > BUNDLE_BYTES_MAX {
        let reason = format!("it has {size_bytes} bytes, more than a slot");
        return Err(UpdateTrouble::Bundle { reason }.into());
    }
    let found = statvfs(folder).map_err(|error| Error::io(folder, error.into()))?;
    let free_bytes = wide(found.blocks_available()).saturating_mul(wide(found.fragment_size()));
    let needed_bytes = 2 * size_bytes - received + FREE_BYTES_LEFT;
    match needed_bytes <= free_bytes {
        true => Ok(()),
        false => Err(UpdateTrouble::NoSpace {
            needed_bytes,
            free_bytes,
        }
        .into()),
    }
}

/// 32 bits on 32-bit machines.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}

fn read_at(file: &File, at: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(len.min(PIECE_BYTES as u64)).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
