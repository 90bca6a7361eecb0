//! The contract every place that keeps blobs fulfils: one small blocking trait.
//!
//! What must hold, and `contract.rs` checks for each backend:
//!
//! - **Durable on return.** [`Backend::flush`], [`Incoming::finish`] and [`Backend::delete`] return when the
//!   bytes, their names and the folder entries are on the medium. [`Backend::append`] alone promises nothing
//!   until the next flush, and nothing it took is visible to `stat`, `open` or `list` before that.
//! - **Whole or absent.** A blob is visible with all of its bytes or not at all, whatever is cut when.
//! - **Idempotent.** Putting what is there keeps one copy and says so. Two putting at once both succeed.
//! - **Verified.** A reader hands out only bytes whose digest was checked; damage is an error, never bytes.
//! - **Classes only rise.** A `Part` put again as `Pinned` is pinned; never the other way.
//! - **A window of memory.** No call holds more than a few frames of one blob, nor all ids.
//! - **Sorted.** `list` gives ids in ascending order, each once, without what was deleted before the call.

use std::ops::RangeBounds;

use bytes::Bytes;

pub use super::class::Class;
use super::error::Error;
use super::frame::Packed;
use crate::id::{BlobId, Sha256Id};

/// What is known of a stored blob without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub id: BlobId,
    /// Its length in bytes, plain.
    pub len: u64,
    /// Who keeps it alive.
    pub class: Class,
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// The id of the bytes.
    pub id: BlobId,
    /// Their length in bytes.
    pub len: u64,
    /// Whether the store did not have them before.
    pub fresh: bool,
}

/// The state of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Blobs stored.
    pub blobs: u64,
    /// Their plain bytes, together.
    pub plain_bytes: u64,
    /// Bytes they take on the medium, deleted ones not yet compacted included.
    pub stored_bytes: u64,
    /// Of those, what compaction can free.
    pub dead_bytes: u64,
    /// Bytes free on the medium, where it can tell.
    pub free_bytes: Option<u64>,
    /// Why writes are refused, where they are.
    pub read_only: Option<String>,
    /// Copies of blobs set aside as damaged: one more each time, so that whoever trusts a blob notices.
    pub quarantined: u64,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Bytes given back to the medium.
    pub freed_bytes: u64,
    /// Bytes of live blobs that were moved to free them.
    pub moved_bytes: u64,
}

/// What to check, and whether to mend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Read every blob and compare it with its id; else only structure and presence.
    pub read_data: bool,
    /// Set damaged blobs aside and rebuild what can be rebuilt.
    pub repair: bool,
}

/// What a check found. Healthy where `damaged`, `missing` and `notes` are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Plain bytes read.
    pub bytes_read: u64,
    /// Blobs whose bytes are not what their id says, or cannot be read.
    pub damaged: Vec<BlobId>,
    /// Blobs the index names whose bytes are not there at all.
    pub missing: Vec<BlobId>,
    /// Of those, what `repair` set aside.
    pub quarantined: Vec<BlobId>,
    /// Other findings, a sentence each.
    pub notes: Vec<String>,
}

/// Which copy of a blob may be set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// The one that is there now, if it is damaged: since somebody met damage the blob may have been put again.
    Damaged,
    /// The one that is there now, whatever it is.
    Any,
}

/// An iterator over stored blobs in ascending order of id.
pub type Listing<'a> = Box<dyn Iterator<Item = Result<Stat, Error>> + Send + 'a>;

/// A place that keeps blobs. Blocking; every method may be called from several threads at once.
pub trait Backend: Send + Sync + 'static {
    /// Takes several small blobs at once, in order; not durable and not visible before [`Backend::flush`].
    /// `fresh` says whether the store had the blob, durably or appended. On an error none of the batch is
    /// promised, though some may turn up after the next flush.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Busy`], [`Error::Io`].
    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error>;

    /// Makes all that was appended before the call durable and visible; shares a flush under way with others.
    ///
    /// # Errors
    /// After any failure here the store is read only and nothing of the batch may be acknowledged.
    fn flush(&self) -> Result<(), Error>;

    /// Begins a blob of any length, streamed. Dropping the [`Incoming`] leaves nothing.
    ///
    /// # Errors
    /// As [`Backend::append`].
    fn begin(&self, class: Class) -> Result<Box<dyn Incoming>, Error>;

    /// Opens a blob for reading; `None` where it is not stored.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Busy`], [`Error::Io`].
    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn Reader>>, Error>;

    /// What is known of each id, in the order asked; `None` where it is not stored.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    fn stat(&self, ids: &[BlobId]) -> Result<Vec<Option<Stat>>, Error>;

    /// All blobs with an id above `after`, ascending, read lazily: cheap to begin, cheap to drop.
    ///
    /// # Errors
    /// As [`Backend::stat`]; each item may fail as well.
    fn list(&self, after: Option<BlobId>) -> Result<Listing<'_>, Error>;

    /// Deletes blobs; says of each whether it was there. Durable on return. Works on a full disk.
    ///
    /// # Errors
    /// As [`Backend::flush`].
    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error>;

    /// The blob an alias stands for, where a client used that alias before. The blob may be gone.
    ///
    /// # Errors
    /// As [`Backend::stat`].
    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error>;

    /// Remembers an alias. Durable on return.
    ///
    /// # Errors
    /// As [`Backend::flush`].
    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error>;

    /// Sets a blob aside: it is no longer stored (so that it can be put again), its bytes are kept for whoever
    /// wants to look at them, as far as they can be read. Says whether that was done: what is there now is read
    /// before, and an unknown id is no error. Durable on return.
    ///
    /// # Errors
    /// As [`Backend::flush`]. Where its bytes can't be kept ([`Error::NoSpace`], [`Error::Io`]) the blob stays.
    fn quarantine(&self, id: &BlobId, which: Aside) -> Result<bool, Error>;

    /// Gives the space of deleted blobs back while serving goes on, until `stop` says so.
    ///
    /// # Errors
    /// As [`Backend::flush`].
    fn compact(&self, stop: &dyn Fn() -> bool) -> Result<Compaction, Error>;

    /// Checks the store while serving goes on. `progress` hears the number of blobs looked at.
    ///
    /// # Errors
    /// Only where the check itself cannot go on; what it finds is in the report.
    fn check(&self, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error>;

    /// Takes no writes from here on, and writes nothing on closing: its files are about to be removed. Readers that are open go on.
    fn abandon(&self);

    /// The state of the store; cheap.
    fn status(&self) -> Status;
}

/// A blob on its way in.
pub trait Incoming: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// As [`Backend::append`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Ends the blob. With `expect`, its id must be that. Durable and visible on return.
    ///
    /// # Errors
    /// [`Error::Mismatch`], and as [`Backend::flush`]. Nothing is kept.
    fn finish(self: Box<Self>, expect: Option<BlobId>) -> Result<Put, Error>;
}

/// A stored blob, open for reading.
pub trait Reader: Send {
    /// What it is.
    fn stat(&self) -> Stat;

    /// Verified bytes from `offset` on: at least one and at most a frame, empty at the end. Cheapest in
    /// ascending order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where what is stored is not the blob; [`Error::Io`].
    fn read_at(&mut self, offset: u64) -> Result<Bytes, Error>;
}

/// Reads a whole blob of at most `limit` bytes.
///
/// # Errors
/// [`Error::TooLarge`] above the limit, and as [`Reader::read_at`].
pub fn read_whole(reader: &mut dyn Reader, limit: usize) -> Result<Bytes, Error> {
    let len = reader.stat().len;
    if len > limit as u64 {
        return Err(Error::TooLarge { len });
    }
    let first = reader.read_at(0)?;
    if first.len() as u64 == len {
        return Ok(first);
    }
    let mut whole = Vec::with_capacity(usize::try_from(len).unwrap_or(limit));
    whole.extend_from_slice(&first);
    while (whole.len() as u64) < len {
        whole.extend_from_slice(&reader.read_at(whole.len() as u64)?);
    }
    Ok(whole.into())
}

/// The part of `0..len` that `range` selects, as offset and length; `None` where it selects nothing that exists.
pub fn clamp(range: impl RangeBounds<u64>, len: u64) -> Option<(u64, u64)> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match range.start_bound() {
        Included(&start) => start,
        Excluded(&start) => start.checked_add(1)?,
        Unbounded => 0,
    };
    let end = match range.end_bound() {
        Included(&end) => end.saturating_add(1).min(len),
        Excluded(&end) => end.min(len),
        Unbounded => len,
    };
    (start < end).then(|| (start, end - start))
}
