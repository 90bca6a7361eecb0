//! Blobs of another node being read: nothing is handed out before all of it was compared with its id.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use bytes::Bytes;

use super::wire;
use crate::coffer::backend::{Reader, Stat};
use crate::coffer::error::Error;
use crate::coffer::frame::{FRAME_BYTES, PACKED_BYTES_MAX};
use crate::http::{Client, Method, Request, Response};
use crate::id::BlobId;

/// Opens the blob `id` at `path`; `None` where the node does not have it.
pub(super) fn open_download(
    client: &Client,
    path: String,
    id: BlobId,
) -> Result<Option<Box<dyn Reader>>, Error> {
    let answer = match client.send(Request::new(Method::GET, path.clone())) {
        Ok(answer) => answer,
        Err(error) if wire::is_missing(&error) => return Ok(None),
        Err(error) if wire::is_damaged(&error) => return Err(Error::Corrupt { id }),
        Err(error) => return Err(wire::error(client, error)),
    };
    let stat = wire::described(&answer, id).ok_or_else(|| Error::Remote {
        reason: format!("{}: it did not say what blob {id} is", client.url()),
    })?;
    if stat.len > PACKED_BYTES_MAX as u64 {
        return Ok(Some(Box::new(Spooled {
            client: client.clone(),
            stat,
            answer: Some(answer),
            file: None,
        })));
    }
    let bytes = answer
        .bytes(PACKED_BYTES_MAX)
        .map_err(|error| wire::error(client, error))?;
    if bytes.len() as u64 != stat.len || BlobId::of(&bytes) != id {
        return Err(Error::Corrupt { id });
    }
    Ok(Some(Box::new(Held {
        stat,
        bytes: bytes.into(),
    })))
}

/// A blob held whole, verified.
struct Held {
    stat: Stat,
    bytes: Bytes,
}

impl Reader for Held {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let end = start.saturating_add(FRAME_BYTES).min(self.bytes.len());
        Ok(self.bytes.slice(start..end))
    }
}

/// A large blob: spooled and verified at its first read, then served from a file without a name.
struct Spooled {
    client: Client,
    stat: Stat,
    /// `None` once it was read, whatever came of it.
    answer: Option<Response>,
    file: Option<File>,
}

impl Spooled {
    fn spool(&mut self) -> Result<File, Error> {
        // An earlier attempt failed, and said why.
        let mut answer = self.answer.take().ok_or(Error::Busy)?;
        let mut file = nameless_file()?;
        let mut hasher = blake3::Hasher::new();
        let mut len = 0;
        while let Some(bytes) = answer.chunk().map_err(|error| wire::error(&self.client, error))? {
            hasher.update(&bytes);
            len += bytes.len() as u64;
            if len > self.stat.len {
                break;
            }
            file.write_all(&bytes)
                .map_err(|error| Error::io(&std::env::temp_dir(), error))?;
        }
        if len != self.stat.len || hasher.finalize() != *self.stat.id.as_bytes() {
            return Err(Error::Corrupt { id: self.stat.id });
        }
        Ok(file)
    }
}

impl Reader for Spooled {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn read_at(&mut self, offset: u64) -> Result<Bytes, Error> {
        let left = self.stat.len.saturating_sub(offset);
        if left == 0 {
            return Ok(Bytes::new());
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => self.spool()?,
        };
        let len = usize::try_from(left).unwrap_or(FRAME_BYTES).min(FRAME_BYTES);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|error| Error::io(&std::env::temp_dir(), error))?;
        self.file = Some(file);
        Ok(bytes.into())
    }
}

/// A file in the folder for temporary files that vanishes with its handle.
fn nameless_file() -> Result<File, Error> {
    let folder = std::env::temp_dir();
    let mut noise = [0; 8];
    getrandom::fill(&mut noise).map_err(|error| Error::io(&folder, std::io::Error::other(error)))?;
    let path = folder.join(format!("refuge-{:016x}", u64::from_le_bytes(noise)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| Error::io(&path, error))?;
    std::fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
    Ok(file)
}
