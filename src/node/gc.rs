//! Collecting what nothing names any more.
//!
//! For each store, while everything goes on:
//!
//! 1. *Mark*: every blob that a ref names, by walking the trees, and every attachment that a document names.
//! 2. *Judge*: list the store beside the marks. A part that is not named is written down with the time it was
//!    first seen so; what has waited for [`COLLECT_AFTER`] is due. Pinned blobs are never judged.
//! 3. *Sweep*: a few due parts at a time, holding every ref where it is and every put at the gate. What a ref
//!    that moved meanwhile names, what is leased and what was pinned meanwhile stays.
//! 4. *Compact*: give the space back.
//!
//! The list of step 2 forgets what is due before step 3 deletes it, so that whatever is cut in between, a part
//! that is put again later begins to wait anew. Where a tree or commit that a ref names cannot be read, what
//! it names is not known, and nothing of that store is freed. Ids are held on disk, not in memory.

mod ids;
mod unnamed;

use std::collections::HashSet;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use super::clock::{Clock, unix_s};
use super::documents::Documents;
use super::dropped::COLLECT_AFTER;
use super::error::Error;
use super::events::{Event, Events};
use super::folder::create_private;
use super::health::Health;
use super::lease::Leases;
use super::refs::CheckedRefs;
use super::stores::Stores;
use crate::coffer::{Backend, Class, Compaction, Store};
use crate::db;
use crate::files::{self, Named, Root, reachable};
use crate::id::{BlobId, StoreName};
use ids::{IdSet, IdSetBuilder, SCRATCH_PREFIX};
use unnamed::{Unnamed, UnnamedList, UnnamedWriter};

/// How often a node that serves should collect: a run reads every tree.
pub const COLLECT_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Parts freed at once, with refs and puts held: some tens of milliseconds on a card.
const SWEEP_BATCH: usize = 512;

/// Unreadable trees and commits that a report names.
const UNREADABLE_NAMED_MAX: usize = 100;

/// 2024-01-01: a clock before that was never set, and says nothing about how long something waited.
const CLOCK_SET_S: i64 = 1_704_067_200;

/// What a collection did in one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The store.
    pub store: StoreName,
    /// Blobs that refs name.
    pub named: u64,
    /// Parts that are unnamed and wait.
    pub waiting: u64,
    /// Parts that were freed.
    pub freed: u64,
    /// Their plain bytes.
    pub freed_bytes: u64,
    /// What compaction did.
    pub compaction: Compaction,
    /// Trees and commits that are named and can't be read, at most 100: nothing was freed because of them.
    pub unreadable: Vec<BlobId>,
    /// Whether the run ended before it was through: nothing is lost, the next one goes on.
    pub stopped: bool,
}

/// The collector of a node; cloning is cheap.
#[derive(Clone)]
pub struct Gc {
    inner: Arc<Inner>,
}

struct Inner {
    stores: Stores,
    documents: Documents,
    health: Health,
    events: Events,
    clock: Clock,
    running: Mutex<()>,
}

/// One store being collected.
struct Run<'a> {
    inner: &'a Inner,
    refs: &'a CheckedRefs,
    leases: &'a Leases,
    folder: PathBuf,
    now_s: i64,
    stop: &'a dyn Fn() -> bool,
    report: Collected,
    /// Whether everything that refs name was seen in the store.
    all_there: bool,
}

/// What is named, as far as it was looked at.
struct Marks {
    sets: Vec<IdSet>,
    /// What documents name.
    attached: IdSet,
    /// What refs named until less than a day ago.
    dropped: IdSet,
    /// When the last of that was dropped, in seconds since 1970.
    dropped_s: i64,
    /// Where the walks began.
    roots: HashSet<BlobId>,
    /// How often refs had moved before the last walk began.
    moves: u64,
}

/// What a walk does about schemas that can't be read.
#[derive(Clone, Copy)]
enum Unreadable {
    /// What they name is not known, so nothing may be freed.
    Tell,
    /// It does not matter.
    Ignore,
}

impl Gc {
    pub(super) fn new(
        stores: Stores,
        documents: Documents,
        health: Health,
        events: Events,
        clock: Clock,
    ) -> Gc {
        Gc {
            inner: Arc::new(Inner {
                stores,
                documents,
                health,
                events,
                clock,
                running: Mutex::new(()),
            }),
        }
    }

    /// Collects in every store that is there, until `stop` says so; minutes for a large one. Goes on when the
    /// future is dropped.
    ///
    /// # Errors
    /// [`Error::Busy`] while another collection runs; else as the store and the disk say. What was freed is
    /// freed.
    pub async fn run(&self, stop: impl Fn() -> bool + Send + 'static) -> Result<Vec<Collected>, Error> {
        let inner = Arc::clone(&self.inner);
        db::crossing(move || inner.run(&stop)).await
    }
}

impl Inner {
    fn run(&self, stop: &dyn Fn() -> bool) -> Result<Vec<Collected>, Error> {
        let _running = match self.running.try_lock() {
            Ok(running) => running,
            // It guards no data of its own.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
        };
        self.health.note("attachments", None);
        let mut reports = Vec::new();
        for place in self.stores.collectable() {
            create_private(&place.folder).map_err(|source| Error::io(&place.folder, source))?;
            remove_scratch(&place.folder)?;
            let mut run = Run {
                inner: self,
                refs: &place.refs,
                leases: &place.leases,
                folder: place.folder,
                now_s: unix_s(self.clock.now()),
                stop,
                report: Collected {
                    store: place.name,
                    named: 0,
                    waiting: 0,
                    freed: 0,
                    freed_bytes: 0,
                    compaction: Compaction::default(),
                    unreadable: Vec::new(),
                    stopped: false,
                },
                all_there: false,
            };
            run.collect()?;
            tracing::info!(
                store = %run.report.store, named = run.report.named, waiting = run.report.waiting,
                freed = run.report.freed, "collected what nothing names",
            );
            reports.push(run.report);
        }
        self.health.note("collection", unreadable_note(&reports));
        Ok(reports)
    }
}

impl<'a> Run<'a> {
    fn collect(&mut self) -> Result<(), Error> {
        let mut marks = Marks {
            sets: Vec::new(),
            attached: IdSet::Held(Vec::new()),
            dropped: IdSet::Held(Vec::new()),
            dropped_s: 0,
            roots: HashSet::new(),
            moves: 0,
        };
        let doubted = self.refs.doubt().reasons();
        self.mark(&mut marks)?;
        self.mark_attachments(&mut marks)?;
        self.mark_dropped(&mut marks)?;
        self.report.named = marks.sets.iter().map(IdSet::len).sum::<u64>() + marks.attached.len();
        let may_judge = self.report.unreadable.is_empty() && self.now_s >= CLOCK_SET_S;
        if may_judge && !self.stopped() {
            let due = self.judge(&marks)?;
            if self.all_there && !self.stopped() {
                self.refs.doubt().settle(doubted)?;
            }
            self.sweep(&mut marks, &due)?;
        }
        if !self.stopped() {
            self.report.compaction = self.backend().compact(self.stop)?;
        }
        Ok(())
    }

    /// Walks what the refs name and no earlier walk did.
    fn mark(&mut self, marks: &mut Marks) -> Result<(), Error> {
        // Before the refs are read: a move after this is seen as one.
        marks.moves = self.refs.moves();
        let roots = self.refs.roots()?;
        let fresh: Vec<Root> = roots
            .into_iter()
            .filter(|root| !marks.roots.contains(root.id()))
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        marks.roots.extend(fresh.iter().map(|root| *root.id()));
        let mut builder =
            IdSetBuilder::new(&self.folder, if marks.sets.is_empty() { "named" } else { "late" });
        self.walk(fresh, &marks.sets, &mut builder, Unreadable::Tell)?;
        let set = builder.finish()?;
        marks.sets.push(set);
        Ok(())
    }

    /// Adds what documents name: the attachments of every leaf of every database with this store. Those that a document begins
    /// to name after this were put or named within the day, and so are leased or marked.
    fn mark_attachments(&mut self, marks: &mut Marks) -> Result<(), Error> {
        let mut builder = IdSetBuilder::new(&self.folder, "attached");
        let named = self
            .inner
            .documents
            .named_blobs(&self.report.store, &mut |id| builder.add(id));
        let trouble = named.as_ref().err().map(|error| {
            format!(
                "what documents name in store {} is not known, and nothing of it is freed: {error}",
                self.report.store
            )
        });
        if trouble.is_some() {
            self.inner.health.note("attachments", trouble);
        }
        if let Err(error) = named {
            tracing::error!(%error, store = %self.report.store, "attachments could not be listed");
            self.report.stopped = true;
        }
        marks.attached = builder.finish()?;
        Ok(())
    }

    /// Walks what refs named until less than a day ago. What can't be read of it keeps nothing waiting.
    fn mark_dropped(&mut self, marks: &mut Marks) -> Result<(), Error> {
        let recent = self.refs.recently_dropped()?;
        let mut builder = IdSetBuilder::new(&self.folder, "dropped");
        self.walk(recent.roots, &[], &mut builder, Unreadable::Ignore)?;
        marks.dropped = builder.finish()?;
        marks.dropped_s = recent.latest_s;
        Ok(())
    }

    /// Adds everything below the roots; what `walked` holds was added before.
    fn walk(
        &mut self,
        roots: Vec<Root>,
        walked: &[IdSet],
        builder: &mut IdSetBuilder,
        on_unreadable: Unreadable,
    ) -> Result<(), Error> {
        let (store, stop, unreadable) = (self.store(), self.stop, &mut self.report.unreadable);
        let mut failed = None;
        // A schema that was walked is not walked again. A failed look costs a walk, nothing else.
        let skip = |id: &BlobId| walked.iter().any(|set| set.contains(id).unwrap_or(false));
        let outcome = reachable(store, roots, &skip, &mut |named| {
            let added = match (named, on_unreadable) {
                (Named::Tree(id) | Named::Commit(id) | Named::Part(id), _) => builder.add(id),
                (Named::Missing(id) | Named::Damaged(id), Unreadable::Tell) => {
                    if unreadable.len() < UNREADABLE_NAMED_MAX {
                        unreadable.push(id);
                    }
                    Ok(())
                }
                (Named::Missing(_) | Named::Damaged(_), Unreadable::Ignore) => Ok(()),
            };
            if let Err(error) = added {
                failed = Some(error);
                return Err(files::Error::Cancelled);
            }
            if stop() {
                return Err(files::Error::Cancelled);
            }
            Ok(())
        });
        match (outcome, failed) {
            (_, Some(error)) => return Err(error),
            (Err(files::Error::Cancelled), None) => self.report.stopped = true,
            (outcome, None) => outcome?,
        }
        Ok(())
    }

    /// Writes down what is unnamed since when; answers what waited long enough.
    fn judge(&mut self, marks: &Marks) -> Result<IdSet, Error> {
        let path = self.folder.join("unnamed");
        let located = |source| Error::io(&path, source);
        let nothing = IdSet::Held(Vec::new());
        let mut named = marks
            .sets
            .first()
            .unwrap_or(&nothing)
            .iter()
            .map_err(located)?
            .peekable();
        let mut attached = marks.attached.iter().map_err(located)?.peekable();
        let mut dropped = marks.dropped.iter().map_err(located)?.peekable();
        let mut before = UnnamedList::open(&path)?.peekable();
        let mut writer = UnnamedWriter::create(&path)?;
        let mut due = IdSetBuilder::new(&self.folder, "due");
        let now = self.inner.clock.now();
        let mut seen = 0;
        for stat in self.backend().list(None)? {
            if self.stopped() {
                // The old list stays: nothing was decided.
                return Ok(IdSet::Held(Vec::new()));
            }
            let stat = stat?;
            let is_named = advance(&mut named, |id| id.cmp(&stat.id))
                .map_err(located)?
                .is_some();
            let known = advance(&mut before, |entry| entry.id.cmp(&stat.id)).map_err(located)?;
            let was_named = advance(&mut dropped, |id| id.cmp(&stat.id))
                .map_err(located)?
                .is_some();
            let is_attached = advance(&mut attached, |id| id.cmp(&stat.id))
                .map_err(located)?
                .is_some();
            seen += u64::from(is_named);
            if is_named || is_attached || stat.class == Class::Pinned {
                continue;
            }
            let mut since_s = known.map_or(self.now_s, |entry| entry.since_s.min(self.now_s));
            if was_named {
                since_s = since_s.max(marks.dropped_s);
            }
            if self.leases.holds(&stat.id, now) {
                since_s = self.now_s;
            }
            if self.now_s - since_s >= wait_s() {
                due.add(stat.id)?;
            } else {
                self.report.waiting += 1;
                writer.push(Unnamed { id: stat.id, since_s })?;
            }
        }
        self.all_there = seen == marks.sets.first().map_or(0, IdSet::len);
        writer.finish()?;
        due.finish()
    }

    fn sweep(&mut self, marks: &mut Marks, due: &IdSet) -> Result<(), Error> {
        let path = self.folder.join("unnamed");
        let mut ids = due.iter().map_err(|source| Error::io(&path, source))?.peekable();
        while ids.peek().is_some() && !self.stopped() {
            let batch: std::io::Result<Vec<BlobId>> = ids.by_ref().take(SWEEP_BATCH).collect();
            let batch = batch.map_err(|source| Error::io(&path, source))?;
            let refs = self.refs;
            let _held = refs.hold();
            if refs.moves() != marks.moves {
                self.mark(marks)?;
                self.mark_dropped(marks)?;
                if !self.report.unreadable.is_empty() || self.stopped() {
                    return Ok(());
                }
            }
            self.sweep_batch(marks, &batch)?;
        }
        Ok(())
    }

    /// Frees what of a batch is still unnamed, a part, and not leased. Every ref is held.
    fn sweep_batch(&mut self, marks: &Marks, batch: &[BlobId]) -> Result<(), Error> {
        let path = self.folder.join("named");
        let now = self.inner.clock.now();
        let leases = self.leases;
        let collecting = leases.collecting();
        let mut doomed = Vec::with_capacity(batch.len());
        let mut bytes = 0;
        for stat in self.backend().stat(batch)?.into_iter().flatten() {
            let mut is_named = marks
                .dropped
                .contains(&stat.id)
                .map_err(|source| Error::io(&path, source))?
                && self.now_s - marks.dropped_s < wait_s();
            for late in marks.sets.iter().skip(1) {
                is_named |= late
                    .contains(&stat.id)
                    .map_err(|source| Error::io(&path, source))?;
            }
            if !is_named && stat.class == Class::Part && !leases.holds(&stat.id, now) {
                doomed.push(stat.id);
                bytes += stat.len;
            }
        }
        let gone = self.backend().delete(&doomed)?;
        drop(collecting);
        self.report.freed += gone.iter().filter(|gone| **gone).count() as u64;
        self.report.freed_bytes += bytes;
        for id in doomed {
            let store = self.report.store.clone();
            self.inner.events.tell(Event::BlobDeleted { store, id });
        }
        Ok(())
    }

    fn stopped(&mut self) -> bool {
        self.report.stopped |= (self.stop)();
        self.report.stopped
    }

    fn store(&self) -> &'a Store {
        self.refs.store()
    }

    fn backend(&self) -> &'a dyn Backend {
        self.refs.store().backend()
    }
}

fn wait_s() -> i64 {
    i64::try_from(COLLECT_AFTER.as_secs()).unwrap_or(i64::MAX)
}

/// What keeps stores from being collected, for people.
fn unreadable_note(reports: &[Collected]) -> Option<String> {
    let blocked = reports.iter().find(|report| !report.unreadable.is_empty())?;
    Some(format!(
        "in store {} a ref names trees that cannot be read, for example {}: nothing is freed until they are put \
         again or their snapshots pruned",
        blocked.store, blocked.unreadable[0],
    ))
}

/// Goes on in an ascending sequence to where `compare` says equal; `None` where it has no such item.
fn advance<T>(
    items: &mut Peekable<impl Iterator<Item = std::io::Result<T>>>,
    compare: impl Fn(&T) -> std::cmp::Ordering,
) -> std::io::Result<Option<T>> {
    while let Some(item) = items.next_if(|item| item.as_ref().map_or(true, |item| compare(item).is_le())) {
        let item = item?;
        if compare(&item).is_eq() {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

/// Removes what a run that was cut left.
fn remove_scratch(folder: &Path) -> Result<(), Error> {
    let located = |source| Error::io(folder, source);
    for entry in std::fs::read_dir(folder).map_err(located)? {
        let entry = entry.map_err(located)?;
        if entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            std::fs::remove_file(entry.path()).map_err(located)?;
        }
    }
    Ok(())
}
