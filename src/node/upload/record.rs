//! What is kept of an upload: a state file that says how far it is, and a file with its bytes.
//!
//! `uploads/ID.json` is the record, `uploads/ID.data` the bytes. The data file is made first and removed last,
//! so that bytes without a record are garbage and a record without bytes is damage.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{NewUpload, expiry_s};
use crate::durable;
use crate::id::{BlobAddress, BlobId, StoreName, UploadId};
use crate::node::error::Error;

/// The format of a record that this version writes.
const FORMAT: u32 = 1;

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    pub(super) id: UploadId,
    pub(super) store: StoreName,
    pub(super) offset: u64,
    pub(super) length: Option<u64>,
    pub(super) metadata: String,
    /// As text, since it may be an alias.
    expect: Option<String>,
    pub(super) partial: bool,
    #[serde(default)]
    pub(super) parts: Vec<UploadId>,
    pub(super) expires_s: i64,
    pub(super) blob: Option<BlobId>,
}

impl Record {
    pub(super) fn new(id: UploadId, new: NewUpload, now_s: i64) -> Record {
        Record {
            format: FORMAT,
            id,
            store: new.store,
            offset: 0,
            length: new.length,
            metadata: new.metadata,
            expect: new.expect.map(|expect| expect.to_string()),
            partial: new.partial,
            parts: Vec::new(),
            expires_s: expiry_s(now_s),
            blob: None,
        }
    }

    pub(super) fn renew(&mut self, now_s: i64) {
        self.expires_s = expiry_s(now_s);
    }

    /// The id its bytes must have.
    pub(super) fn expect(&self) -> Option<BlobAddress> {
        self.expect.as_ref().and_then(|expect| expect.parse().ok())
    }

    /// Bytes it holds or was promised.
    pub(super) fn claimed_bytes(&self) -> u64 {
        match self.blob {
            Some(_) => 0,
            None => self.length.unwrap_or(self.offset),
        }
    }

    /// What it was asked to be, for the stream into its store.
    pub(super) fn wanted(&self) -> NewUpload {
        NewUpload {
            store: self.store.clone(),
            length: self.length,
            metadata: String::new(),
            expect: self.expect(),
            partial: self.partial,
        }
    }
}

/// Where the bytes of an upload are.
pub(super) fn data_path(folder: &Path, id: UploadId) -> PathBuf {
    folder.join(format!("{id}.data"))
}

fn record_path(folder: &Path, id: UploadId) -> PathBuf {
    folder.join(format!("{id}.json"))
}

/// Makes the files of a new upload. Durable on return.
pub(super) fn create(folder: &Path, record: &Record) -> Result<(), Error> {
    if record.blob.is_none() {
        let path = data_path(folder, record.id);
        // The record's flush of the folder makes this name durable, too.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Error::io(&path, source))?;
    }
    save(folder, record)
}

/// Replaces the record; of an upload that became a blob the bytes go. Durable on return.
pub(super) fn save(folder: &Path, record: &Record) -> Result<(), Error> {
    let payload = serde_json::to_vec(record).expect("a record is plain fields");
    durable::replace(&record_path(folder, record.id), &payload)?;
    if record.blob.is_some() {
        remove_data(folder, record.id)?;
    }
    Ok(())
}

/// Removes the upload. Durable on return.
pub(super) fn remove(folder: &Path, id: UploadId) -> Result<(), Error> {
    durable::remove(&record_path(folder, id))?;
    remove_data(folder, id)
}

fn remove_data(folder: &Path, id: UploadId) -> Result<(), Error> {
    let path = data_path(folder, id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&path, error)),
        _ => Ok(()),
    }
}

/// Every upload in the folder. Bytes without a record are removed; an upload whose record is damaged, or that
/// lost acknowledged bytes, is reported and left where it is.
pub(super) fn load_all(folder: &Path) -> Result<Vec<Record>, Error> {
    let located = |source| Error::io(folder, source);
    let mut records = Vec::new();
    for entry in fs::read_dir(folder).map_err(located)? {
        let name = entry.map_err(located)?.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.split_once('.'))
            .and_then(|(stem, rest)| Some((stem.parse::<UploadId>().ok()?, rest)));
        match id {
            Some((id, "json")) => records.extend(load(folder, id)?),
            // Its previous generation speaks for a record that was lost.
            Some((id, "json.old")) if !record_path(folder, id).exists() => records.extend(load(folder, id)?),
            Some((id, "data")) => remove_without_record(folder, id)?,
            _ => {}
        }
    }
    Ok(records)
}

fn load(folder: &Path, id: UploadId) -> Result<Option<Record>, Error> {
    let path = record_path(folder, id);
    let state = match durable::read(&path) {
        Ok(state) => state,
        Err(durable::Error::Damaged { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let record: Option<Record> = state.and_then(|state| serde_json::from_slice(&state.payload).ok());
    let Some(record) = record.filter(|record| record.format <= FORMAT && record.id == id) else {
        tracing::warn!(upload = %id, "the record of an upload is damaged: it cannot go on");
        return Ok(None);
    };
    let len = fs::metadata(data_path(folder, id)).map_or(0, |data| data.len());
    if record.blob.is_none() && len < record.offset {
        tracing::error!(upload = %id, len, offset = record.offset, "an upload lost bytes: it cannot go on");
        return Ok(None);
    }
    Ok(Some(record))
}

fn remove_without_record(folder: &Path, id: UploadId) -> Result<(), Error> {
    match durable::read(&record_path(folder, id)) {
        Ok(None) => remove_data(folder, id),
        Ok(Some(_)) | Err(durable::Error::Damaged { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
