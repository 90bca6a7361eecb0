//! Seeds and loop counts of the fault tests: one place says how much of each loop runs, and every loop can be repeated.
//!
//! A loop prints its seed. `REFUGE_SEED=<number>` runs the same sequence again; `REFUGE_LONG=1` (set by
//! `scripts/test --long`) runs the full counts of the reliability table instead of the sample for every commit.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

/// How often a fault is injected: a sample for every commit, all of it on demand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    /// What runs on every commit; all samples together stay under six minutes on two cores.
    pub(crate) sample: usize,
    /// The number of the reliability table.
    pub(crate) full: usize,
}

impl Count {
    /// The number of rounds for this run.
    pub(crate) fn rounds(self) -> usize {
        if is_long() { self.full } else { self.sample }
    }
}

/// Whether the full numbers were asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("REFUGE_LONG").is_some_and(|value| value == "1")
}

/// Says why a test can't run on this machine. Where the full numbers were asked for, that is a failure.
///
/// # Panics
/// With `--long`, where a skipped test would be a false promise.
pub(crate) fn skip(reason: &str) {
    assert!(!is_long(), "not tested: {reason}");
    eprintln!("skipped: {reason}");
}

/// A small deterministic generator (SplitMix64, Steele, Lea and Flood 2014): the same seed gives the same faults.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator of the test `name`: from `REFUGE_SEED`, or fresh. Prints how to repeat the run.
    ///
    /// # Panics
    /// When `REFUGE_SEED` is not a number.
    pub(crate) fn for_test(name: &str) -> Self {
        let seed = match std::env::var("REFUGE_SEED") {
            Ok(text) => text.parse().expect("REFUGE_SEED is a decimal number"),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        eprintln!("{name}: REFUGE_SEED={seed} repeats this run");
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        hasher.update(&seed.to_le_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(u64::from_le_bytes(first))
    }

    /// A generator from a fixed number, for tests whose outcome must not vary.
    pub(crate) fn fixed(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for one round, so that a round does not depend on how much the others drew.
    pub(crate) fn branch(&self, label: impl Hash) -> Self {
        let mut hasher = Fnv(self.0 ^ 0xcbf2_9ce4_8422_2325);
        label.hash(&mut hasher);
        let mut child = Self(hasher.finish());
        child.next();
        child
    }

    /// The next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    ///
    /// # Panics
    /// When `limit` is zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "there is no number below zero");
        usize::try_from(self.next() % limit as u64).expect("a number below a usize is a usize")
    }

    /// True once in `n` calls on average.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// `len` random bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// `count` different numbers below `limit`, ascending; all of them where there are no more.
    pub(crate) fn pick(&mut self, count: usize, limit: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..limit).collect();
        for at in 0..count.min(limit) {
            let other = at + self.below(limit - at);
            all.swap(at, other);
        }
        all.truncate(count);
        all.sort_unstable();
        all
    }
}

/// FNV-1a: a hash that, unlike the standard one, is the same in every process.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[test]
fn a_seed_repeats_its_sequence() {
    let (mut one, mut two) = (Rng::fixed(7), Rng::fixed(7));
    assert_eq!(one.bytes(100), two.bytes(100));
    assert_eq!(one.branch("x").next(), two.branch("x").next());
    assert_ne!(one.branch("x").next(), two.branch("y").next());
}

#[test]
fn picks_are_different_and_sorted() {
    let picks = Rng::fixed(1).pick(50, 60);
    assert_eq!(picks.len(), 50);
    assert!(picks.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(Rng::fixed(1).pick(9, 3), [0, 1, 2]);
}
