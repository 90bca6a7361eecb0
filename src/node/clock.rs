//! The time of day, passed in: what waits for hours in life is tested without waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
