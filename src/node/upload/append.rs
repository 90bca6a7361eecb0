//! A piece of an upload on its way in, and the upload on its way into the store.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::record::{Record, data_path};
use super::{Hold, Inner, NewUpload, UploadInfo};
use crate::coffer::{Class, Put};
use crate::db;
use crate::node::activity::UnderWay;
use crate::node::error::Error;

/// Bytes written or read at once.
const WINDOW_BYTES: usize = 512 * 1024;

/// A piece being appended. Dropping it drops the piece.
pub struct Appending {
    hold: Arc<Hold>,
    record: Record,
    /// `None` after a write was cancelled or failed.
    file: Option<File>,
    path: PathBuf,
    held: BytesMut,
    /// Where the upload is with what was written so far.
    offset: u64,
    _under_way: UnderWay,
}

impl Appending {
    pub(super) async fn begin(hold: Arc<Hold>, offset: u64) -> Result<Appending, Error> {
        let record = hold.record()?;
        if record.offset != offset {
            return Err(Error::Offset {
                expected: record.offset,
                found: offset,
            });
        }
        let path = data_path(&hold.inner.folder, record.id);
        let file = match record.blob {
            // A complete upload takes an empty piece, so that a client may ask again for its answer.
            Some(_) => None,
            None => {
                let (path, held) = (path.clone(), Arc::clone(&hold));
                let open = move || {
                    let _held = held;
                    let mut file = OpenOptions::new().write(true).open(&path)?;
                    // What an earlier piece left without being acknowledged.
                    file.set_len(offset)?;
                    file.seek(SeekFrom::Start(offset))?;
                    Ok(file)
                };
                let at = data_path(&hold.inner.folder, record.id);
                Some(db::crossing(move || open().map_err(|source| Error::io(&at, source))).await?)
            }
        };
        Ok(Appending {
            offset,
            _under_way: hold.inner.activity.begin(),
            hold,
            record,
            file,
            path,
            held: BytesMut::new(),
        })
    }

    /// Bytes the upload still takes; `None` while its length is not known.
    pub fn room(&self) -> Option<u64> {
        self.record.length.map(|length| length - self.offset)
    }

    /// Takes the next bytes, holding at most 512 KiB of them. If cancelled, the piece can't be finished.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the upload's length; [`Error::NoSpace`]; [`Error::Busy`] after a cancelled
    /// call.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if let Some(room) = self.room().filter(|room| (bytes.len() as u64) > *room) {
            return Err(Error::TooLarge { limit: room });
        }
        self.offset += bytes.len() as u64;
        self.held.extend_from_slice(&bytes);
        if self.held.len() >= WINDOW_BYTES {
            self.hand_over(false).await?;
        }
        Ok(())
    }

    /// Ends the piece: it is acknowledged. Where the upload is complete now, it becomes a blob. Durable on
    /// return.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: the upload stays where it was. [`Error::Mismatch`] where the complete upload is not
    /// what it had to be: it is gone then. An upload that is complete and could not be stored for another
    /// reason waits; [`super::Uploads::info`] tries again.
    pub async fn finish(mut self) -> Result<UploadInfo, Error> {
        if self.record.blob.is_some() {
            return Ok(self.record.info());
        }
        if self.offset > self.record.offset {
            self.hand_over(true).await?;
        }
        let mut record = self.record.clone();
        record.offset = self.offset;
        let is_complete = record.length == Some(record.offset) && !record.partial;
        let info = self.hold.save(record).await?;
        if is_complete {
            return complete(&self.hold).await;
        }
        Ok(info)
    }

    async fn hand_over(&mut self, flush: bool) -> Result<(), Error> {
        let mut file = self.file.take().ok_or(Error::Busy)?;
        let window = std::mem::take(&mut self.held).freeze();
        let (path, held) = (self.path.clone(), Arc::clone(&self.hold));
        let file = db::crossing(move || {
            let _held = held;
            let mut write = || -> std::io::Result<()> {
                file.write_all(&window)?;
                if flush { file.sync_data() } else { Ok(()) }
            };
            write().map_err(|source| Error::io(&path, source))?;
            Ok::<_, Error>(file)
        })
        .await?;
        self.file = Some(file);
        Ok(())
    }
}

/// Turns a complete upload into a blob; one that is a blob already stays as it is.
pub(super) async fn complete(hold: &Arc<Hold>) -> Result<UploadInfo, Error> {
    let mut record = hold.record()?;
    if record.blob.is_some() {
        return Ok(record.info());
    }
    let data = data_path(&hold.inner.folder, record.id);
    match stream(&hold.inner, &record.wanted(), vec![data]).await {
        Ok(put) => {
            record.blob = Some(put.id);
            hold.save(record).await
        }
        Err(error @ Error::Mismatch { .. }) => {
            hold.discard().await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Streams files, one after the other, into the store as one pinned blob. Durable on return.
pub(super) async fn stream(
    inner: &Arc<Inner>,
    wanted: &NewUpload,
    files: Vec<PathBuf>,
) -> Result<Put, Error> {
    let blobs = inner.stores.get(&wanted.store)?;
    let mut receiver = blobs.receive(Class::Pinned, wanted.expect)?;
    for path in files {
        let at = path.clone();
        let mut file = db::crossing(move || File::open(&at).map_err(|source| Error::io(&at, source))).await?;
        loop {
            let at = path.clone();
            let (back, window) = db::crossing(move || {
                let mut window = Vec::with_capacity(WINDOW_BYTES);
                let read = (&mut file).take(WINDOW_BYTES as u64).read_to_end(&mut window);
                read.map_err(|source| Error::io(&at, source))?;
                Ok::<_, Error>((file, window))
            })
            .await?;
            if window.is_empty() {
                break;
            }
            file = back;
            receiver.write(window.into()).await?;
        }
    }
    receiver.finish().await
}
