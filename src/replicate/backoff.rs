//! How long to wait before the next attempt: longer each time, never twice the same. Pure.

use std::time::Duration;

/// A sequence of waits: each is between half and all of a bound that doubles from `first` to `most`.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Waits from `first` to `most`; peers that fail at once do not come back at once, as each has its own `seed`.
    pub(super) fn new(first: Duration, most: Duration, seed: u64) -> Backoff {
        Backoff {
            first,
            most,
            failures: 0,
            // The generator stands still at 0.
            random: seed | 1,
        }
    }

    /// The wait after another failure.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.after(self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The wait after a failure that followed so many others.
    pub(super) fn after(&mut self, failures: u32) -> Duration {
        let bound = self
            .first
            .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        let bound = bound.min(self.most);
        // xorshift64 (Marsaglia, 2003): nobody's secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = bound / 2;
        let part = u32::try_from(self.random >> 44).unwrap_or_default();
        half + half.mul_f64(f64::from(part) / f64::from(1 << 20))
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something succeeded: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_differ() {
        let second = Duration::from_secs(1);
        let mut one = Backoff::new(second, second * 60, 7);
        let mut other = Backoff::new(second, second * 60, 8);
        let (mut bound, mut alike) = (second, 0);
        for _ in 0..100 {
            let wait = one.next();
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
            alike += u32::from(wait == other.next());
            bound = (bound * 2).min(second * 60);
        }
        assert!(alike < 5);
        one.reset();
        assert!(one.next() <= second);
    }
}
