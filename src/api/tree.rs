//! `/api/refs/{name}/…`: looking into snapshots. A folder as a list, a file as its bytes, a folder as an archive.
//!
//! What is meant stands in the query: `snapshot` (as after the `@` on the command line; the latest by
//! default), `store`, and `path`, or `path_hex` where a name is not UTF-8.

mod archive;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Serialize;
use utoipa::ToSchema;

pub(super) use archive::archive;

use super::answer;
use super::blobs::{self, Readable};
use super::error::Error;
use super::route::Call;
use crate::id::{BlobId, RefName, StoreName};
use crate::node::{
    self, Blobs, Body, Entry, EntryKind, EntryName, FOLDER_PAGE_MAX, FileReading, Selector, Snapshot,
};

/// The longest path, in bytes: what Linux takes.
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// A place in a snapshot.
pub(super) struct Spot {
    pub(super) store: StoreName,
    pub(super) name: RefName,
    /// As it was asked for.
    pub(super) selector: String,
    pub(super) snapshot: Snapshot,
    /// Below the folder of the snapshot; empty for that folder itself.
    pub(super) path: Vec<u8>,
    pub(super) blobs: Blobs,
}

impl Spot {
    /// What the call asks for: the ref `name`, the rest from its query.
    pub(super) async fn of(call: &Call, name: RefName) -> Result<Spot, Error> {
        let query = call.query()?;
        let store = query.parsed("store")?.unwrap_or_else(StoreName::main);
        let selector = query.field("snapshot").unwrap_or("latest").to_owned();
        let parsed: Selector = selector
            .parse()
            .map_err(|error| Error::malformed("snapshot", error))?;
        let path = match (query.field("path"), query.field("path_hex")) {
            (Some(_), Some(_)) => return Err(Error::malformed("path", "stands there twice")),
            (Some(path), None) => path.as_bytes().to_vec(),
            (None, Some(hex)) => HEXLOWER_PERMISSIVE
                .decode(hex.as_bytes())
                .map_err(|error| Error::malformed("path_hex", error))?,
            (None, None) => Vec::new(),
        };
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::malformed(
                "path",
                format!("has at most {PATH_BYTES_MAX} bytes"),
            ));
        }
        let blobs = call.node().stores().get(&store)?;
        let refs = call.node().stores().refs(&store)?;
        let snapshot = refs.snapshot(name.clone(), &parsed).await?;
        Ok(Spot {
            store,
            name,
            selector,
            snapshot,
            path: trimmed(&path),
            blobs,
        })
    }

    /// The entry there; `None` for the folder of the snapshot itself, which has none.
    pub(super) async fn entry(&self) -> Result<Option<Entry>, Error> {
        if self.path.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(OsStr::from_bytes(&self.path));
        Ok(Some(self.blobs.entry(self.snapshot.tree, path).await?))
    }

    /// The tree of the folder there.
    pub(super) async fn folder(&self) -> Result<BlobId, Error> {
        match self.entry().await? {
            None => Ok(self.snapshot.tree),
            Some(Entry {
                kind: EntryKind::Folder { tree, .. },
                ..
            }) => Ok(tree),
            Some(_) => Err(Error::malformed("path", "is no folder")),
        }
    }

    /// What a download of this place is called.
    pub(super) fn file_name(&self) -> String {
        let last = self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if last.is_empty() {
            return self.name.as_str().replace('/', "-");
        }
        String::from_utf8_lossy(last).into_owned()
    }
}

/// Without slashes around it and doubled ones within.
fn trimmed(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(&b'/')
}

/// A folder of a snapshot.
#[derive(Serialize, ToSchema)]
pub(super) struct FolderBody {
    /// The tree of the snapshot.
    #[schema(value_type = String)]
    snapshot: BlobId,
    /// When its backup began, in milliseconds since 1970-01-01 UTC.
    time_ms: i64,
    /// What is in the folder, in ascending order of the names' bytes.
    entries: Vec<EntryBody>,
    /// Where the next page begins: give it as `after_hex`. Not there on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_hex: Option<String>,
}

/// A thing in a folder.
#[derive(Serialize, ToSchema)]
pub(super) struct EntryBody {
    /// Its name; what is not UTF-8 in it is replaced.
    name: String,
    /// Its name exactly, where `name` is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    /// `file`, `folder`, `link`, `fifo`, `char`, `block`.
    r#type: &'static str,
    /// Length of a file in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Where a link points; what is not UTF-8 is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Permission bits.
    mode: u32,
    /// When it was last written, in seconds since 1970-01-01 UTC.
    mtime_s: i64,
}

impl From<&Entry> for EntryBody {
    fn from(entry: &Entry) -> EntryBody {
        let bytes = entry.name.as_bytes();
        let is_exact = std::str::from_utf8(bytes).is_ok();
        let (size, target) = match &entry.kind {
            EntryKind::File { size, .. } => (Some(*size), None),
            EntryKind::Link { target } => (None, Some(String::from_utf8_lossy(target).into_owned())),
            EntryKind::Folder { .. } | EntryKind::Fifo | EntryKind::Char(_) | EntryKind::Block(_) => {
                (None, None)
            }
        };
        EntryBody {
            name: String::from_utf8_lossy(bytes).into_owned(),
            name_hex: (!is_exact).then(|| data_encoding::HEXLOWER.encode(bytes)),
            r#type: kind_name(&entry.kind),
            size,
            target,
            mode: entry.meta.mode,
            mtime_s: entry.meta.mtime.0,
        }
    }
}

pub(super) fn kind_name(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } => "file",
        EntryKind::Folder { .. } => "folder",
        EntryKind::Link { .. } => "link",
        EntryKind::Fifo => "fifo",
        EntryKind::Char(_) => "char",
        EntryKind::Block(_) => "block",
    }
}

/// The entries of a folder.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let spot = Spot::of(&call, call.ref_name()?).await?;
    let query = call.query()?;
    let limit: usize = query.parsed("limit")?.unwrap_or(FOLDER_PAGE_MAX);
    if limit == 0 || limit > FOLDER_PAGE_MAX {
        return Err(Error::malformed("limit", format!("is 1 to {FOLDER_PAGE_MAX}")));
    }
    let after = query.field("after_hex").map(entry_name).transpose()?;
    let folder = spot.folder().await?;
    let entries = spot.blobs.folder(folder, after, limit).await?;
    let next = entries.last().filter(|_| entries.len() == limit);
    let body = FolderBody {
        snapshot: spot.snapshot.tree,
        time_ms: spot.snapshot.time_ms,
        next_hex: next.map(|entry| data_encoding::HEXLOWER.encode(entry.name.as_bytes())),
        entries: entries.iter().map(EntryBody::from).collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

fn entry_name(hex: &str) -> Result<EntryName, Error> {
    HEXLOWER_PERMISSIVE
        .decode(hex.as_bytes())
        .ok()
        .and_then(EntryName::new)
        .ok_or_else(|| Error::malformed("after_hex", "is the hex digits of a name"))
}

/// The bytes of a file, with ranges and conditions.
pub(super) async fn file(call: Call) -> Result<Response, Error> {
    let spot = Spot::of(&call, call.ref_name()?).await?;
    let entry = spot.entry().await?;
    let Some(EntryKind::File { size, body, .. }) = entry.map(|entry| entry.kind) else {
        return Err(Error::malformed("path", "is no file"));
    };
    let etag = match body {
        Body::Empty => "\"empty\"".to_owned(),
        Body::Part(id) | Body::Commit(id) => format!("\"{id}\""),
    };
    let mut response = if call.parts.method == Method::HEAD {
        let mut response = answer::empty(StatusCode::OK);
        blobs::set_length(response.headers_mut(), size);
        response
    } else {
        let reading = Forward {
            reading: spot.blobs.file(body).await?,
            held: Bytes::new(),
            held_at: 0,
        };
        blobs::send(call.headers(), &etag, size, reading).await?
    };
    let headers = response.headers_mut();
    answer::mark_as_content(headers, answer::attachment(&spot.file_name()));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The path may mean another file tomorrow: caches ask again, and learn by the tag whether it does.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// A file read at ascending offsets.
struct Forward {
    reading: FileReading,
    /// Bytes that were read and not asked for yet.
    held: Bytes,
    /// Where they begin.
    held_at: u64,
}

impl Readable for Forward {
    async fn read_at(&mut self, offset: u64) -> Result<Bytes, node::Error> {
        if self.held_at == 0 && self.held.is_empty() && offset > 0 {
            self.reading.skip(offset).await?;
            self.held_at = offset;
        }
        while offset >= self.held_at + self.held.len() as u64 {
            self.held_at += self.held.len() as u64;
            match self.reading.next().await? {
                Some(bytes) => self.held = bytes,
                None => {
                    self.held = Bytes::new();
                    return Ok(Bytes::new());
                }
            }
        }
        let skipped = offset.saturating_sub(self.held_at);
        let skipped = usize::try_from(skipped).map_err(|_| node::Error::Busy)?;
        Ok(self.held.slice(skipped..))
    }
}
