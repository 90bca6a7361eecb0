//! Refs of one store that never name what is not stored.
//!
//! Before a ref moves, what its next record names and no present record of it or another ref named is looked
//! for in the store. The look and the move are one step to the collector: both hold the same lock
//! ([`CheckedRefs::hold`]), so that nothing is freed in between.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Semaphore;

use super::doubt::Doubt;
use super::dropped::{Dropped, Recent};
use super::error::{Error, Kind};
use super::events::{Event, Events};
use crate::coffer::Store;
use crate::db;
use crate::files::{
    self, LocalRefs, MISSING_NAMED_MAX, Named, RefRecord, RefVersion, Refs as _, Root, Selector, Snapshot,
};
use crate::id::{BlobId, RefName, StoreName};

/// Missing blobs that an answer names.
pub const INCOMPLETE_NAMED_MAX: usize = 1000;

/// Ids looked for at once.
const STAT_BATCH: usize = 4096;

/// The refs of one store, as edges see them; cloning is cheap.
#[derive(Clone)]
pub struct Refs {
    checked: Arc<CheckedRefs>,
}

/// The refs of one store, as threads that do storage work see them.
pub(super) struct CheckedRefs {
    store_name: StoreName,
    store: Store,
    local: LocalRefs,
    kept: Kept,
    events: Events,
    /// One move at a time gets a thread: moves that wait for a collector must not take the threads that the
    /// puts need which the collector waits for.
    turn: Arc<Semaphore>,
    moving: Mutex<()>,
    /// How often a ref moved.
    moves: AtomicU64,
}

/// What is kept on disk beside the refs of a store.
pub(super) struct Kept {
    pub(super) dropped: Dropped,
    pub(super) doubt: Arc<Doubt>,
}

impl Refs {
    pub(super) fn new(checked: Arc<CheckedRefs>) -> Refs {
        Refs { checked }
    }

    /// Every ref with its history, by name.
    ///
    /// # Errors
    /// [`Error::Internal`], [`Error::Folder`] for a ref that is damaged with its previous generation.
    pub async fn list(&self) -> Result<Vec<RefRecord>, Error> {
        let checked = Arc::clone(&self.checked);
        db::crossing(move || Ok(checked.local.list()?)).await
    }

    /// A ref with its history.
    ///
    /// # Errors
    /// [`Error::Missing`], and as [`Refs::list`].
    pub async fn get(&self, name: RefName) -> Result<RefRecord, Error> {
        let checked = Arc::clone(&self.checked);
        db::crossing(move || {
            let found = checked.local.get(&name)?;
            found.ok_or_else(|| Error::missing(Kind::Ref, name))
        })
        .await
    }

    /// The snapshot of a ref that `selector` means.
    ///
    /// # Errors
    /// [`Error::Missing`] for the ref or the snapshot; [`Error::Invalid`] where it means several.
    pub async fn snapshot(&self, name: RefName, selector: &Selector) -> Result<Snapshot, Error> {
        let record = self.get(name).await?;
        Ok(selector.select(&record)?.clone())
    }

    /// Moves a ref from the version that was read (`None`: there was none) to `next` (`None`: delete it).
    /// Answers the new version. Durable on return; goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the ref is at another version; [`Error::Incomplete`] where `next` names
    /// what is not stored; [`Error::NoSpace`].
    pub async fn swap(
        &self,
        name: RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, Error> {
        let turn = Arc::clone(&self.checked.turn).acquire_owned().await;
        let turn = turn.map_err(|_| Error::Busy)?;
        let checked = Arc::clone(&self.checked);
        db::crossing(move || {
            // Goes with the work, not with whoever waits for it.
            let _turn = turn;
            let held = checked.hold();
            let mut missing = checked.missing(&name, next.as_ref(), INCOMPLETE_NAMED_MAX + 1)?;
            if !missing.is_empty() {
                let more = missing.len() > INCOMPLETE_NAMED_MAX;
                missing.truncate(INCOMPLETE_NAMED_MAX);
                return Err(Error::Incomplete { missing, more });
            }
            Ok(checked.move_held(&held, &name, expected, next)?)
        })
        .await
    }
}

impl CheckedRefs {
    /// The refs in `folder` of what is in `store`.
    pub(super) fn open(
        folder: &Path,
        store_name: StoreName,
        store: Store,
        kept: Kept,
        events: Events,
    ) -> Result<CheckedRefs, Error> {
        Ok(CheckedRefs {
            store_name,
            store,
            local: LocalRefs::open(folder)?,
            kept,
            events,
            turn: Arc::new(Semaphore::new(1)),
            moving: Mutex::new(()),
            moves: AtomicU64::new(0),
        })
    }

    /// Holds every ref where it is, until the guard is dropped.
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own.
        self.moving
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What every ref names: where a walk begins.
    pub(super) fn roots(&self) -> Result<Vec<Root>, files::Error> {
        let records = self.local.list()?;
        Ok(records.iter().flat_map(RefRecord::roots).collect())
    }

    /// What refs named until less than a day ago.
    pub(super) fn recently_dropped(&self) -> Result<Recent, files::Error> {
        self.kept.dropped.recent()
    }

    /// How often a ref moved, or tried to, since the node started.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// The store that the refs are into.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// What `next` names and the store does not have, at most `limit` ids.
    fn missing(
        &self,
        name: &RefName,
        next: Option<&RefRecord>,
        limit: usize,
    ) -> Result<Vec<BlobId>, files::Error> {
        let Some(next) = next else {
            return Ok(Vec::new());
        };
        let (fresh, bases) = if self.doubt().is_there() {
            (self.added_roots(name, next)?, Vec::new())
        } else {
            let known: HashSet<BlobId> = self.roots()?.iter().map(|root| *root.id()).collect();
            let fresh = next.roots().filter(|root| !known.contains(root.id()));
            (fresh.collect(), self.bases(name)?)
        };
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let mut looking = Looking::new(&self.store, limit);
        for root in fresh {
            let mut visit = |named| looking.visit(named);
            let walked = match root {
                Root::Tree(tree) => files::added(&self.store, &bases, &tree, &mut visit),
                Root::Commit(_) => files::reachable(&self.store, [root], &|_| false, &mut visit),
            };
            match walked {
                // Enough is known to be missing.
                Err(files::Error::Cancelled) => break,
                walked => walked?,
            }
        }
        looking.finish()
    }

    /// What the snapshots name that `next` has and the ref has not, whether or not something names the same: what older
    /// snapshots lost may be nowhere any more, and is no reason to refuse a new one.
    fn added_roots(&self, name: &RefName, next: &RefRecord) -> Result<Vec<Root>, files::Error> {
        let mut added = next.clone();
        if let Some(current) = self.local.get(name)? {
            added
                .snapshots
                .retain(|snapshot| !current.snapshots.contains(snapshot));
            added.in_progress = added
                .in_progress
                .filter(|snapshot| current.in_progress.as_ref() != Some(snapshot));
        }
        Ok(added.roots().collect())
    }

    /// Whether something that is named may be gone.
    pub(super) fn doubt(&self) -> &Doubt {
        &self.kept.doubt
    }

    /// The trees that a new snapshot of this ref most likely shares most with.
    fn bases(&self, name: &RefName) -> Result<Vec<BlobId>, files::Error> {
        let Some(current) = self.local.get(name)? else {
            return Ok(Vec::new());
        };
        let newest = current.snapshots.last().into_iter().chain(&current.in_progress);
        Ok(newest.map(|snapshot| snapshot.tree).collect())
    }

    fn move_held(
        &self,
        _held: &MutexGuard<'_, ()>,
        name: &RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, files::Error> {
        let deleted = next.is_none();
        if let Some(current) = self.local.get(name)? {
            let kept: HashSet<BlobId> = next
                .iter()
                .flat_map(RefRecord::roots)
                .map(|root| *root.id())
                .collect();
            self.kept
                .dropped
                .add(current.roots().filter(|root| !kept.contains(root.id())))?;
        }
        let swapped = self.local.swap(name, expected, next);
        // After the move, and also where it failed halfway: who read the number before the refs and finds it
        // the same while refs are held has seen them as they are.
        self.moves.fetch_add(1, Ordering::AcqRel);
        let version = swapped?;
        let (store, name) = (self.store_name.clone(), name.clone());
        self.events.tell(if deleted {
            Event::RefDeleted { store, name }
        } else {
            Event::RefMoved { store, name }
        });
        Ok(version)
    }
}

impl files::Refs for CheckedRefs {
    fn get(&self, name: &RefName) -> Result<Option<RefRecord>, files::Error> {
        self.local.get(name)
    }

    fn list(&self) -> Result<Vec<RefRecord>, files::Error> {
        self.local.list()
    }

    fn swap(
        &self,
        name: &RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, files::Error> {
        let held = self.hold();
        let missing = self.missing(name, next.as_ref(), MISSING_NAMED_MAX)?;
        if !missing.is_empty() {
            return Err(files::Error::Incomplete {
                name: name.clone(),
                missing,
            });
        }
        self.move_held(&held, name, expected, next)
    }
}

/// Looks for what a walk names, many at once.
struct Looking<'a> {
    store: &'a Store,
    batch: Vec<BlobId>,
    missing: Vec<BlobId>,
    limit: usize,
}

impl<'a> Looking<'a> {
    fn new(store: &'a Store, limit: usize) -> Looking<'a> {
        Looking {
            store,
            batch: Vec::with_capacity(STAT_BATCH),
            missing: Vec::new(),
            limit,
        }
    }

    fn visit(&mut self, named: Named) -> Result<(), files::Error> {
        match named {
            // They were just read.
            Named::Tree(_) | Named::Commit(_) => {}
            Named::Part(id) => self.batch.push(id),
            // A damaged schema is to be put again, as a missing one is.
            Named::Missing(id) | Named::Damaged(id) => self.missing.push(id),
        }
        if self.batch.len() >= STAT_BATCH {
            self.look()?;
        }
        if self.missing.len() >= self.limit {
            return Err(files::Error::Cancelled);
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), files::Error> {
        self.batch.sort_unstable();
        self.batch.dedup();
        let stats = self.store.backend().stat(&self.batch)?;
        let absent = self.batch.iter().zip(&stats).filter(|(_, stat)| stat.is_none());
        self.missing.extend(absent.map(|(id, _)| *id));
        self.batch.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<BlobId>, files::Error> {
        self.look()?;
        self.missing.sort_unstable();
        self.missing.dedup();
        self.missing.truncate(self.limit);
        Ok(self.missing)
    }
}
