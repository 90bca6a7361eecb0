//! One file per blob: for USB disks, and for a distributed POSIX file system (CephFS, GlusterFS, NFS) that
//! several nodes mount at once.
//!
//! ```text
//! DIR/refuge-fs                   "refuge-fs 1\n": the format
//! DIR/blobs/ab/c/<64 hex>         a pinned blob: its plain bytes, nothing else
//! DIR/blobs/ab/c/<64 hex>.part    a part
//! DIR/blobs/ab/c/<64 hex>.table   of blobs above one frame: what proves each frame by itself (`outboard.rs`)
//! DIR/aliases/ab/<64 hex>         by SHA-256: the blob it stands for (`alias.rs`)
//! DIR/quarantine/<64 hex>[.n]     damaged blobs, set aside
//! DIR/new/<32 hex>-<n>            files being written
//! DIR/mirror                      while they are copies of a store that moves here (`../mirror.rs`)
//! ```
//!
//! `ab` is the id's first byte and `c` half of its second: 4096 folders, so that a million blobs make folders
//! of 250 files. A folder is what a list holds in memory, and what a group of puts flushes once.
//!
//! **What makes it safe for several writers on several hosts**: nothing is remembered that another host may
//! change, and no lock is taken that another host does not see. A file is written under a name no one else
//! makes up, flushed, and only then linked to the name of its blob; its folder is flushed last. Two who link
//! the same blob agree about its bytes, whoever is first. A part is pinned by a rename. Should a blob have
//! both names (one host put a part while another pinned it), it is pinned. Within a process one lock orders
//! names, so that a list misses nothing while a part is being pinned.
//!
//! **Full disk**: writes stop at a reserve of 2 %, at most 16 MiB, so that deletes find the room that some
//! file systems want for them. A put that finds no room leaves nothing, and the next one tries again.
//!
//! **Counts** of [`Backend::status`] are taken at open from a sample of the folders, which is all of them
//! up to some thousand blobs; ids are spread evenly, so a sample of 4096 blobs is right within some 2 %. From
//! then on they follow what this process does, and each whole check takes them anew. What other hosts put
//! meanwhile is not counted before that.
//!
//! A file system whose folders can't be flushed (it says so with EINVAL; some network ones) is taken to make
//! names durable by itself.

mod alias;
mod check;
mod count;
mod incoming;
mod layout;
mod listing;
mod marker;
mod outboard;
mod pending;
mod place;
mod reader;

use std::path::Path;
use std::sync::Arc;

use super::backend::{
    Aside, Backend, CheckOptions, CheckReport, Class, Compaction, Incoming, Listing, Put, Reader, Stat,
    Status,
};
use super::error::Error;
use super::frame::Packed;
use super::space;
use crate::id::{BlobId, Sha256Id};
use count::Counts;
use incoming::FsIncoming;
use pending::Pending;
use place::Place;
pub(super) use place::link;
use reader::FsReader;

/// Blobs as files of one folder. See the module's head.
pub struct Fs {
    place: Arc<Place>,
    pending: Pending,
}

impl Fs {
    /// Makes the folder a place for blobs where it is empty or missing, and opens it. A folder that is one
    /// already keeps what it has.
    ///
    /// # Errors
    /// [`Error::Foreign`] where other files are in the folder; as [`Fs::open`].
    pub fn create(folder: &Path) -> Result<Fs, Error> {
        marker::create(folder)?;
        Fs::open(folder)
    }

    /// Opens a folder that [`Fs::create`] made, here or on another host. Samples its blobs for their count,
    /// for a second at most.
    ///
    /// # Errors
    /// [`Error::Foreign`] where it is none, such as the mount point of a disk that is not mounted;
    /// [`Error::Newer`]; [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Fs, Error> {
        let place = Place::open(folder)?;
        place.counts().set(Counts::sample(&place));
        Ok(Fs {
            place: Arc::new(place),
            pending: Pending::default(),
        })
    }

    /// Removes the blobs that were in `folder`; nobody has it open, or who does is abandoned. What was set aside stays. Cut at
    /// any moment, another call goes on. Durable on return; takes as long as the removal of all files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(folder: &Path) -> Result<(), Error> {
        marker::remove(folder)
    }
}

impl Backend for Fs {
    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error> {
        self.place.writable()?;
        space::room_for(self.place.root(), batch.iter().map(Packed::len).sum())?;
        batch
            .iter()
            .map(|packed| self.pending.append(&self.place, packed))
            .collect()
    }

    fn flush(&self) -> Result<(), Error> {
        self.pending.flush(&self.place)
    }

    fn begin(&self, class: Class) -> Result<Box<dyn Incoming>, Error> {
        self.place.writable()?;
        Ok(Box::new(FsIncoming::begin(Arc::clone(&self.place), class)?))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn Reader>>, Error> {
        let opened = FsReader::open(&self.place, id)?;
        Ok(opened.map(|reader| Box::new(reader) as Box<dyn Reader>))
    }

    fn stat(&self, ids: &[BlobId]) -> Result<Vec<Option<Stat>>, Error> {
        ids.iter().map(|id| self.place.lookup(id)).collect()
    }

    fn list(&self, after: Option<BlobId>) -> Result<Listing<'_>, Error> {
        Ok(Box::new(listing::Blobs::after(&self.place, after)?))
    }

    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        match self.pending.flush(&self.place) {
            // What waits for room is stored after this delete, if ever.
            Ok(()) | Err(Error::NoSpace { .. } | Error::Busy) => self.place.delete(ids),
            Err(error) => Err(error),
        }
    }

    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
        alias::resolve(&self.place, alias)
    }

    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
        alias::add(&self.place, alias, id)
    }

    fn quarantine(&self, id: &BlobId, which: Aside) -> Result<bool, Error> {
        self.place.quarantine(id, which)
    }

    fn compact(&self, stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
        let freed_bytes = check::remove_leftovers(&self.place, stop)?;
        Ok(Compaction {
            freed_bytes,
            moved_bytes: 0,
        })
    }

    fn check(&self, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error> {
        check::check(&self.place, options, progress)
    }

    fn abandon(&self) {
        self.place.abandon();
    }

    fn status(&self) -> Status {
        let counts = self.place.counts().get();
        Status {
            blobs: counts.blobs,
            plain_bytes: counts.plain_bytes,
            stored_bytes: counts.plain_bytes,
            dead_bytes: 0,
            free_bytes: space::free_bytes(self.place.root()),
            read_only: self.place.read_only(),
            quarantined: counts.quarantined,
        }
    }
}

#[cfg(test)]
mod tests;
