//! The time of day, passed in: what waits for hours in life is tested without waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a node gets the time from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The clock of the system.
    pub fn system() -> Clock {
        Clock(Arc::new(SystemTime::now))
    }

    /// A clock that says what `now` answers.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// This clock, but no earlier than `floor` was when it was made, and from there at the pace of time: what a clock that
    /// starts in 1970 says is no time, and what waits for a minute still has to wait for one.
    pub fn not_before(self, floor: SystemTime) -> Clock {
        let started = Instant::now();
        Clock::from_fn(move || self.now().max(floor + started.elapsed()))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Seconds since 1970, as tables and state files keep them; 0 for a clock set before that.
    pub(crate) fn unix_s(&self) -> i64 {
        unix_s(self.now())
    }
}

/// Seconds since 1970 of a time.
pub(crate) fn unix_s(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The time so many seconds after 1970.
pub(crate) fn from_unix_s(seconds: i64) -> SystemTime {
    // A file may hold any number; the year 9999 is as good as any beyond it.
    let seconds = seconds.clamp(0, 253_402_300_799);
    UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
}

impl Default for Clock {
    fn default() -> Self {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn jumps_of_the_clock_never_lead_below_the_floor() {
        let seconds = Arc::new(AtomicU64::new(0));
        let system = Arc::clone(&seconds);
        let floor = from_unix_s(1_800_000_000);
        let clock = Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(system.load(Ordering::Relaxed)))
            .not_before(floor);
        let mut last = clock.now();
        assert!(last >= floor);
        for jump in [0, 60, 1_799_999_999, 1_000_000_000, 0] {
            seconds.store(jump, Ordering::Relaxed);
            assert!(clock.now() >= last, "{jump}");
            last = clock.now();
        }
        // A clock that is set, in ten years as well, is right.
        seconds.store(2_115_000_000, Ordering::Relaxed);
        assert_eq!(clock.now(), from_unix_s(2_115_000_000));
        seconds.store(2_114_913_600, Ordering::Relaxed);
        assert_eq!(clock.now(), from_unix_s(2_114_913_600), "a day back");
    }
}
