//! The reference model of a backend: everything in a sorted map. For tests, and for trying things out.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::backend::{
    Aside, Backend, CheckOptions, CheckReport, Class, Compaction, Incoming, Listing, Put, Reader, Stat,
    Status,
};
use super::error::Error;
use super::frame::{FRAME_BYTES, Packed};
use crate::id::{BlobId, Sha256Id};

/// Blobs in memory. Nothing is durable; what was appended shows after a flush all the same.
#[derive(Default, Clone)]
pub struct Memory {
    state: std::sync::Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<BlobId, (Class, Bytes)>,
    appended: Vec<(BlobId, Class, Bytes)>,
    aliases: HashMap<Sha256Id, BlobId>,
    quarantined: Vec<(BlobId, Bytes)>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds the state")
    }
}

impl State {
    fn publish(&mut self, id: BlobId, class: Class, bytes: Bytes) {
        let kept = self.blobs.entry(id).or_insert((class, bytes));
        kept.0 = kept.0.max(class);
    }

    fn stat(&self, id: &BlobId) -> Option<Stat> {
        self.blobs.get(id).map(|(class, bytes)| Stat {
            id: *id,
            len: bytes.len() as u64,
            class: *class,
        })
    }
}

impl Backend for Memory {
    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error> {
        let mut state = self.state();
        let mut puts = Vec::with_capacity(batch.len());
        for packed in batch {
            let id = packed.id();
            let fresh = !state.blobs.contains_key(&id) && !state.appended.iter().any(|entry| entry.0 == id);
            state.appended.push((id, packed.class, packed.plain().into()));
            puts.push(Put {
                id,
                len: packed.len(),
                fresh,
            });
        }
        Ok(puts)
    }

    fn flush(&self) -> Result<(), Error> {
        let mut state = self.state();
        for (id, class, bytes) in std::mem::take(&mut state.appended) {
            state.publish(id, class, bytes);
        }
        Ok(())
    }

    fn begin(&self, class: Class) -> Result<Box<dyn Incoming>, Error> {
        Ok(Box::new(MemoryIncoming {
            store: self.clone(),
            class,
            bytes: Vec::new(),
        }))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn Reader>>, Error> {
        let state = self.state();
        let Some((class, bytes)) = state.blobs.get(id) else {
            return Ok(None);
        };
        if BlobId::of(bytes) != *id {
            return Err(Error::Corrupt { id: *id });
        }
        let stat = Stat {
            id: *id,
            len: bytes.len() as u64,
            class: *class,
        };
        Ok(Some(Box::new(MemoryReader {
            stat,
            bytes: bytes.clone(),
        })))
    }

    fn stat(&self, ids: &[BlobId]) -> Result<Vec<Option<Stat>>, Error> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.stat(id)).collect())
    }

    fn list(&self, after: Option<BlobId>) -> Result<Listing<'_>, Error> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let from = after.map_or(Unbounded, Excluded);
        let all: Vec<Stat> = state
            .blobs
            .range((from, Unbounded))
            .filter_map(|(id, _)| state.stat(id))
            .collect();
        Ok(Box::new(all.into_iter().map(Ok)))
    }

    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        self.flush()?;
        let mut state = self.state();
        Ok(ids.iter().map(|id| state.blobs.remove(id).is_some()).collect())
    }

    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
        Ok(self.state().aliases.get(alias).copied())
    }

    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
        self.state().aliases.insert(*alias, *id);
        Ok(())
    }

    fn quarantine(&self, id: &BlobId, which: Aside) -> Result<bool, Error> {
        let mut state = self.state();
        let is_meant = |bytes: &Bytes| which == Aside::Any || BlobId::of(bytes) != *id;
        if !state.blobs.get(id).is_some_and(|(_, bytes)| is_meant(bytes)) {
            return Ok(false);
        }
        let taken = state.blobs.remove(id).map(|(_, bytes)| (*id, bytes));
        state.quarantined.extend(taken);
        Ok(true)
    }

    fn compact(&self, _stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
        Ok(Compaction::default())
    }

    fn check(&self, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error> {
        let mut report = CheckReport::default();
        let blobs = self.state().blobs.clone();
        for (id, (_, bytes)) in blobs {
            report.blobs += 1;
            progress(report.blobs);
            if !options.read_data {
                continue;
            }
            report.bytes_read += bytes.len() as u64;
            if BlobId::of(&bytes) != id {
                report.damaged.push(id);
                if options.repair {
                    self.quarantine(&id, Aside::Damaged)?;
                    report.quarantined.push(id);
                }
            }
        }
        Ok(report)
    }

    fn abandon(&self) {}

    fn status(&self) -> Status {
        let state = self.state();
        let bytes = state.blobs.values().map(|(_, bytes)| bytes.len() as u64).sum();
        Status {
            blobs: state.blobs.len() as u64,
            plain_bytes: bytes,
            stored_bytes: bytes,
            dead_bytes: 0,
            free_bytes: None,
            read_only: None,
            quarantined: state.quarantined.len() as u64,
        }
    }
}

struct MemoryIncoming {
    store: Memory,
    class: Class,
    bytes: Vec<u8>,
}

impl Incoming for MemoryIncoming {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, expect: Option<BlobId>) -> Result<Put, Error> {
        let id = BlobId::of(&self.bytes);
        if let Some(expected) = expect.filter(|expected| *expected != id) {
            return Err(Error::Mismatch {
                expected: expected.to_string(),
                actual: id.to_string(),
            });
        }
        let mut state = self.store.state();
        let put = Put {
            id,
            len: self.bytes.len() as u64,
            fresh: !state.blobs.contains_key(&id),
        };
        state.publish(id, self.class, self.bytes.into());
        Ok(put)
    }
}

struct MemoryReader {
    stat: Stat,
    bytes: Bytes,
}

impl Reader for MemoryReader {
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
