//! How often a transfer that was cut off is taken up again, and after which wait. Pure.

use std::time::Duration;

/// The first wait; each attempt in which nothing came doubles it.
const WAIT_MIN: Duration = Duration::from_millis(500);

/// A router that starts anew takes a minute or two.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Attempts in a row in which nothing came: six minutes and a half.
const ATTEMPTS_MAX: u32 = 12;

/// Counts what failed.
#[derive(Debug, Default)]
pub(super) struct Stamina {
    /// What was there at most.
    received: u64,
    /// Attempts in a row in which nothing came.
    failures: u32,
}

impl Stamina {
    /// How long to wait after an attempt that ended with so many bytes there; `None` where it is given up.
    pub(super) fn failed(&mut self, received: u64) -> Option<Duration> {
        if received > self.received {
            self.received = received;
            self.failures = 0;
        }
        self.failures += 1;
        let doubled = WAIT_MIN.saturating_mul(1 << (self.failures - 1).min(16));
        (self.failures < ATTEMPTS_MAX).then(|| doubled.min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_taken_up_for_ever_and_what_stands_still_a_few_times() {
        let mut stamina = Stamina::default();
        for received in 1..1000 {
            assert_eq!(stamina.failed(received), Some(WAIT_MIN));
        }
        let waits: Vec<Duration> = std::iter::from_fn(|| stamina.failed(500)).collect();
        assert_eq!(u32::try_from(waits.len()), Ok(ATTEMPTS_MAX - 2));
        assert!(waits.is_sorted() && waits.last() == Some(&WAIT_MAX));
        assert_eq!(stamina.failed(500), None);
        assert_eq!(stamina.failed(1001), Some(WAIT_MIN), "it goes on again");
    }
}
