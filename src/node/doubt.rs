//! Whether something that refs name may be gone, kept on disk.
//!
//! A move of a ref looks only for what it adds to the snapshots before: what those name was looked for when they were
//! added. That is so until a client deletes blobs, which is not refused for what refs name (only a walk over every
//! tree would tell), or damaged ones are set aside. From then on a new snapshot is looked through whole, so that what
//! is lost and still at hand is put again, until a collector has walked everything and missed nothing.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::folder::create_private;
use crate::coffer::Store;
use crate::durable;

/// The doubt about one store.
pub(super) struct Doubt {
    folder: PathBuf,
    store: Store,
    /// How often it was raised since the node started: what was raised during a walk is not settled by it.
    raised: AtomicU64,
    /// Raised, and not on the disk.
    unkept: AtomicBool,
}

/// What a collector found to be all there.
#[derive(Default, Serialize, Deserialize)]
struct Whole {
    /// Blobs that were set aside when it began.
    set_aside: u64,
}

/// How much reason to doubt there was at a moment.
#[derive(Clone, Copy)]
pub(super) struct Reasons {
    raised: u64,
    set_aside: u64,
}

impl Doubt {
    /// The doubt about `store`, in the collector's folder, which need not be there.
    pub(super) fn at(folder: PathBuf, store: Store) -> Doubt {
        Doubt {
            folder,
            store,
            raised: AtomicU64::new(0),
            unkept: AtomicBool::new(false),
        }
    }

    /// Something is about to be deleted that may be named. Durable on return where the disk takes it: a full one must
    /// not keep anything from being deleted, and the doubt lasts until the node stops then.
    pub(super) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
        let path = self.marker();
        if path.exists() {
            return;
        }
        let make = || -> io::Result<()> {
            create_private(&self.folder)?;
            File::create(&path)?;
            durable::sync_folder_of(&path)
        };
        if let Err(error) = make() {
            tracing::warn!(path = %path.display(), %error, "that blobs were deleted is not kept over a restart");
            self.unkept.store(true, Ordering::Release);
        }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.marker().exists()
            || self.unkept.load(Ordering::Acquire)
            // Fewer as well: a store that moved, or whose damaged blobs somebody cleared away, counts from the beginning.
            || self.store.status().quarantined != self.whole().set_aside
    }

    /// What [`Doubt::settle`] wants to know of the time before a walk.
    pub(super) fn reasons(&self) -> Reasons {
        Reasons {
            raised: self.raised.load(Ordering::Acquire),
            set_aside: self.store.status().quarantined,
        }
    }

    /// A walk that began when there were these reasons missed nothing. What was set aside since then it may have seen before
    /// that: this is not settled. Durable on return.
    ///
    /// # Errors
    /// As the disk says; the doubt stays then.
    pub(super) fn settle(&self, before: Reasons) -> Result<(), Error> {
        if !self.is_there() || self.reasons().raised != before.raised {
            return Ok(());
        }
        let whole = Whole {
            set_aside: before.set_aside,
        };
        let payload = serde_json::to_vec(&whole).expect("a number is JSON");
        durable::replace(&self.folder.join("whole"), &payload)?;
        self.unkept.store(false, Ordering::Release);
        let path = self.marker();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&path, error)),
            // Where the removal is lost in a crash, the doubt is back, and settled again.
            _ => Ok(()),
        }
    }

    /// Where it can't be read there is reason to doubt.
    fn whole(&self) -> Whole {
        match durable::read(&self.folder.join("whole")) {
            Ok(Some(state)) => serde_json::from_slice(&state.payload).unwrap_or_default(),
            Ok(None) | Err(_) => Whole::default(),
        }
    }

    fn marker(&self) -> PathBuf {
        self.folder.join("doubt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coffer::{Aside, Class, Compression, Memory};
    use crate::id::BlobId;

    /// A store with blobs, of which so many are set aside, and the doubt about it.
    async fn doubted(folder: &std::path::Path, set_aside: usize) -> (Store, Doubt, Vec<BlobId>) {
        let store = Store::new(std::sync::Arc::new(Memory::new()), Compression(0)).unwrap();
        let mut ids = Vec::new();
        for text in ["a", "b", "c"] {
            let packed = store.pack(text.into(), Class::Part);
            ids.push(store.commit(packed).await.unwrap().id);
        }
        for id in &ids[..set_aside] {
            store.backend().quarantine(id, Aside::Any).unwrap();
        }
        let doubt = Doubt::at(folder.to_owned(), store.clone());
        (store, doubt, ids)
    }

    #[tokio::test]
    async fn what_is_set_aside_during_a_walk_is_not_settled_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, doubt, ids) = doubted(dir.path(), 1).await;
        assert!(doubt.is_there());
        let before = doubt.reasons();
        store.backend().quarantine(&ids[1], Aside::Any).unwrap();
        doubt.settle(before).unwrap();
        assert!(doubt.is_there());
        doubt.settle(doubt.reasons()).unwrap();
        assert!(!doubt.is_there());
        let before = doubt.reasons();
        doubt.raise();
        doubt.settle(before).unwrap();
        assert!(doubt.is_there());
    }

    #[tokio::test]
    async fn a_count_that_began_anew_is_one_more_reason() {
        let dir = tempfile::tempdir().unwrap();
        durable::replace(&dir.path().join("whole"), br#"{"set_aside":5}"#).unwrap();
        let (_, doubt, _) = doubted(dir.path(), 1).await;
        assert!(doubt.is_there());
        doubt.settle(doubt.reasons()).unwrap();
        assert!(!doubt.is_there());
    }
}
