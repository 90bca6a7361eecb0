//! How many blobs there are, without an index: sampled at open, followed from then on.

use std::fs;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::layout::{self, Leaf};
use super::listing::{Contents, stat_named};
use super::place::Place;

/// Blobs looked at for the sample: a store of fewer is counted whole, and a larger one within some 2 %.
const SAMPLE_BLOBS: u64 = 4096;

/// What the sample may take: a cold disk with moving parts looks at some hundred blobs in this time.
const SAMPLE_TIME: Duration = Duration::from_secs(1);

/// What is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) blobs: u64,
    pub(super) plain_bytes: u64,
    pub(super) quarantined: u64,
}

impl Counts {
    /// Counts some folders, taken evenly from all, and reckons the rest by them. What can't be read is left out.
    pub(super) fn sample(place: &Place) -> Counts {
        let began = Instant::now();
        let mut seen = Counts::default();
        let mut folders = 0;
        // A small store has few of the 4096 folders.
        let exists: Vec<bool> = (0..=u8::MAX)
            .map(|first| layout::byte_path(place.root(), first).exists())
            .collect();
        for leaf in Leaf::all_spread() {
            if seen.blobs >= SAMPLE_BLOBS || (seen.blobs > 0 && began.elapsed() > SAMPLE_TIME) {
                break;
            }
            folders += 1;
            if !exists[usize::from(leaf.first_byte())] {
                continue;
            }
            let Ok(contents) = Contents::of(place, leaf) else {
                continue;
            };
            for (id, class) in contents.blobs {
                if let Ok(Some(stat)) = stat_named(place, &id, class) {
                    seen.blobs += 1;
                    seen.plain_bytes += stat.len;
                }
            }
        }
        let all = |sampled: u64| {
            let reckoned = u128::from(sampled) * u128::from(Leaf::COUNT) / folders;
            u64::try_from(reckoned).unwrap_or(u64::MAX)
        };
        Counts {
            blobs: all(seen.blobs),
            plain_bytes: all(seen.plain_bytes),
            quarantined: quarantined(place),
        }
    }
}

/// Copies in quarantine. Only a number to show, so a folder that can't be read counts as empty.
fn quarantined(place: &Place) -> u64 {
    let entries = fs::read_dir(place.root().join(layout::QUARANTINE));
    entries.map_or(0, |entries| entries.flatten().count() as u64)
}

/// The counts, as this process knows them.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// Grows with every change, so that a whole count knows whether something changed under it.
    changes: u64,
}

impl Counters {
    pub(super) fn get(&self) -> Counts {
        self.state().counts
    }

    pub(super) fn set(&self, counts: Counts) {
        self.state().counts = counts;
    }

    /// How often something changed so far.
    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Takes what was counted one by one, unless something changed since `changes`.
    pub(super) fn correct(&self, blobs: u64, plain_bytes: u64, changes: u64) {
        let mut state = self.state();
        if state.changes == changes {
            state.counts.blobs = blobs;
            state.counts.plain_bytes = plain_bytes;
        }
    }

    pub(super) fn added(&self, len: u64) {
        let mut state = self.state();
        state.changes += 1;
        state.counts.blobs += 1;
        state.counts.plain_bytes += len;
    }

    /// Saturates: another host may have stored what this one deletes.
    pub(super) fn removed(&self, len: u64) {
        let mut state = self.state();
        state.changes += 1;
        state.counts.blobs = state.counts.blobs.saturating_sub(1);
        state.counts.plain_bytes = state.counts.plain_bytes.saturating_sub(len);
    }

    pub(super) fn set_aside(&self) {
        self.state().counts.quarantined += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no thread panics while it holds the counts")
    }
}
