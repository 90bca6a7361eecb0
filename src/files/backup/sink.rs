//! Where a backup's blobs go: packed by whoever has them, gathered into batches, appended by a few threads.
//!
//! ```text
//!  workers ── put ──> batch (4 MiB) ──> queue (2) ──> appenders (3) ──> Backend::append
//! ```
//!
//! One batch is one request where the store is another node; several are under way at once so that the wire
//! does not wait for the disk at its end.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use super::super::error::Error;
use super::super::progress::Progress;
use crate::coffer::{BATCH_IDS_MAX, Class, Packed, Store};
use crate::id::BlobId;

/// Stored bytes of one batch.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Blobs of one batch: small ones cost more than their bytes.
const BATCH_BLOBS_MAX: usize = 4096;

/// Batches that wait for an appender. With those being appended and the one being filled: 24 MiB.
const QUEUE_MAX: usize = 2;

/// Threads that append.
pub(super) const APPENDERS: usize = 3;

/// Ids remembered as put, some 3 MiB; then they are forgotten and a repeated blob is offered again.
const RECENT_MAX: usize = 65_536;

pub(super) struct Sink<'a> {
    store: &'a Store,
    progress: &'a Progress,
    /// Whether what the store says it has need not be put. Not so after it was found to miss something.
    trusts_stat: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batch: Vec<Packed>,
    batch_bytes: usize,
    queue: VecDeque<(u64, Vec<Packed>)>,
    /// Numbers of the batches that are not yet appended.
    outstanding: BTreeSet<u64>,
    next_number: u64,
    /// What is in the batch, queued or appended.
    recent: HashSet<BlobId>,
    failure: Option<Error>,
    is_closed: bool,
}

impl<'a> Sink<'a> {
    pub(super) fn new(store: &'a Store, progress: &'a Progress, trusts_stat: bool) -> Sink<'a> {
        Sink {
            store,
            progress,
            trusts_stat,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Puts parts that the store does not have; gives their ids in order.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Cancelled`] where another thread met the failure.
    pub(super) fn put_parts(&self, parts: Vec<Bytes>) -> Result<Vec<BlobId>, Error> {
        let ids: Vec<BlobId> = parts.iter().map(|part| BlobId::of(part)).collect();
        let mut missing: Vec<(BlobId, Bytes)> = {
            let state = self.lock();
            let all = ids.iter().copied().zip(parts);
            all.filter(|(id, _)| !state.recent.contains(id)).collect()
        };
        if self.trusts_stat {
            missing = self.without_stored(missing)?;
        }
        for (id, part) in missing {
            self.put(self.store.pack_identified(id, part, Class::Part))?;
        }
        Ok(ids)
    }

    /// Puts a tree or commit.
    ///
    /// # Errors
    /// As [`Sink::put_parts`].
    pub(super) fn put_schema(&self, schema: Vec<u8>) -> Result<BlobId, Error> {
        let packed = self.store.pack(schema.into(), Class::Part);
        let id = packed.id();
        if !self.lock().recent.contains(&id) {
            self.put(packed)?;
        }
        Ok(id)
    }

    fn without_stored(&self, parts: Vec<(BlobId, Bytes)>) -> Result<Vec<(BlobId, Bytes)>, Error> {
        let mut missing = Vec::with_capacity(parts.len());
        for run in parts.chunks(BATCH_IDS_MAX) {
            let ids: Vec<BlobId> = run.iter().map(|(id, _)| *id).collect();
            let stats = self.store.backend().stat(&ids)?;
            let of_run = run.iter().zip(stats).filter(|(_, stat)| stat.is_none());
            missing.extend(of_run.map(|(part, _)| part.clone()));
        }
        Ok(missing)
    }

    fn put(&self, packed: Packed) -> Result<(), Error> {
        let mut state = self.lock();
        if state.failure.is_some() {
            return Err(Error::Cancelled);
        }
        if state.recent.len() >= RECENT_MAX {
            state.recent.clear();
        }
        state.recent.insert(packed.id());
        state.batch_bytes += usize::try_from(packed.stored_len()).unwrap_or(BATCH_BYTES);
        state.batch.push(packed);
        if state.batch_bytes >= BATCH_BYTES || state.batch.len() >= BATCH_BLOBS_MAX {
            self.enqueue(state)?;
        }
        Ok(())
    }

    /// Hands the batch over, when there is room for it; gives its number.
    fn enqueue(&self, mut state: MutexGuard<'_, State>) -> Result<u64, Error> {
        while state.queue.len() >= QUEUE_MAX && state.failure.is_none() {
            state = self.wait(state);
        }
        if state.failure.is_some() {
            return Err(Error::Cancelled);
        }
        let number = state.next_number;
        if !state.batch.is_empty() {
            state.next_number += 1;
            state.batch_bytes = 0;
            let batch = std::mem::take(&mut state.batch);
            state.outstanding.insert(number);
            state.queue.push_back((number, batch));
            drop(state);
            self.changed.notify_all();
        }
        Ok(number)
    }

    /// Makes everything that was put before the call durable.
    ///
    /// # Errors
    /// As [`Sink::put_parts`].
    pub(super) fn flush(&self) -> Result<(), Error> {
        let number = self.enqueue(self.lock())?;
        let mut state = self.lock();
        while state.failure.is_none() && state.outstanding.first().is_some_and(|first| *first <= number) {
            state = self.wait(state);
        }
        if state.failure.is_some() {
            return Err(Error::Cancelled);
        }
        drop(state);
        Ok(self.store.backend().flush()?)
    }

    /// Lets the appenders end once the queue is empty.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// What went wrong with the store, if anything did.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// Appends batches until the sink is closed.
    pub(super) fn append(&self) {
        while let Some((number, batch)) = self.next() {
            let appended = self.store.backend().append(&batch);
            let mut state = self.lock();
            state.outstanding.remove(&number);
            match appended {
                Ok(puts) => {
                    let fresh = batch.iter().zip(puts).filter(|(_, put)| put.fresh);
                    self.progress
                        .stored(fresh.map(|(packed, _)| packed.stored_len()).sum());
                }
                Err(error) => {
                    state.failure.get_or_insert(error.into());
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<(u64, Vec<Packed>)> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(batch) = state.queue.pop_front() {
                drop(state);
                self.changed.notify_all();
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state = self.wait(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds the batch")
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .expect("no thread panics while it holds the batch")
    }
}
