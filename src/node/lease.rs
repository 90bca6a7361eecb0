//! Leases: what was put or asked about lately is not collected, whether or not something names it yet.
//!
//! A client that is told "this part is stored" does not send it, and names it only minutes later. So every
//! blob that a put or a stat found is leased for a day or two. Leases are bits in two filters, today's and
//! yesterday's: constant memory, and now and then a blob is spared that nobody asked about.
//!
//! The gate makes putting and collecting exclude each other for a moment: a put that finds its blob stored
//! leases it before a collector looks, or comes after the collector and stores it again.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::id::BlobId;

/// How long a filter is written to; a lease lasts at least as long, and at most twice.
const GENERATION: Duration = Duration::from_secs(24 * 3600);

/// 1 MiB a filter: at a million blobs a day one in forty is spared by chance.
const FILTER_BITS: usize = 8 * 1024 * 1024;

/// Bits a blob sets, each by 4 bytes of its id: ids are hashes already.
const BITS_PER_BLOB: usize = 5;

/// The leases of one store.
pub(super) struct Leases {
    gate: RwLock<()>,
    filters: Mutex<Filters>,
}

#[derive(Default)]
struct Filters {
    /// Empty until the first lease.
    today: Vec<u64>,
    yesterday: Vec<u64>,
    since: Option<SystemTime>,
}

impl Leases {
    pub(super) fn new() -> Leases {
        Leases {
            gate: RwLock::new(()),
            filters: Mutex::default(),
        }
    }

    /// Held while a put or a stat finds out what is stored, until that is leased. Collecting waits for it.
    pub(super) async fn asking(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// Held while what is not leased is deleted. Blocking: for a thread that does storage work.
    pub(super) fn collecting(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.blocking_write()
    }

    /// Leases a blob.
    pub(super) fn lease(&self, ids: impl IntoIterator<Item = BlobId>, now: SystemTime) {
        let mut filters = self.filters();
        filters.turn(now);
        for id in ids {
            filters.add(&id);
        }
    }

    /// Whether a blob is leased, or looks as if it were.
    pub(super) fn holds(&self, id: &BlobId, now: SystemTime) -> bool {
        let mut filters = self.filters();
        filters.turn(now);
        has(&filters.today, id) || has(&filters.yesterday, id)
    }

    fn filters(&self) -> MutexGuard<'_, Filters> {
        self.filters
            .lock()
            .expect("no thread panics while it holds the leases")
    }
}

impl Filters {
    fn add(&mut self, id: &BlobId) {
        if self.today.is_empty() {
            self.today = vec![0; FILTER_BITS / 64];
        }
        for bit in bits(id) {
            self.today[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn turn(&mut self, now: SystemTime) {
        let since = *self.since.get_or_insert(now);
        // A clock that went back leaves the filters as they are until it is past the old time again.
        let Ok(passed) = now.duration_since(since) else {
            return;
        };
        if passed < GENERATION {
            return;
        }
        self.yesterday = std::mem::take(&mut self.today);
        if passed >= 2 * GENERATION {
            self.yesterday = Vec::new();
        }
        self.since = Some(now);
    }
}

fn has(filter: &[u64], id: &BlobId) -> bool {
    !filter.is_empty() && bits(id).all(|bit| filter[bit / 64] & (1 << (bit % 64)) != 0)
}

fn bits(id: &BlobId) -> impl Iterator<Item = usize> {
    let bytes = *id.as_bytes();
    (0..BITS_PER_BLOB).map(move |number| {
        let at = number * 4;
        let word = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        word as usize % FILTER_BITS
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn id(number: u32) -> BlobId {
        BlobId::of(&number.to_le_bytes())
    }

    #[test]
    fn a_lease_lasts_a_day_and_is_over_after_two() {
        let leases = Leases::new();
        let at = |hours: u64| UNIX_EPOCH + Duration::from_secs(hours * 3600);
        leases.lease((0..1000).map(id), at(100));
        assert!((0..1000).all(|number| leases.holds(&id(number), at(100))));
        let others = (1000..101_000).filter(|number| leases.holds(&id(*number), at(100)));
        assert_eq!(others.count(), 0);
        assert!(leases.holds(&id(0), at(125)));
        leases.lease([id(1)], at(126));
        assert!(!leases.holds(&id(0), at(150)));
        assert!(leases.holds(&id(1), at(150)));
        assert!(!leases.holds(&id(1), at(250)));
    }
}
