//! The slowest a client may be: a budget of waiting that grows with what it moves.
//!
//! Only time spent waiting for the client counts, never the node's own work, so that a slow card makes
//! nobody a slow client.

use std::time::Duration;

use tokio::time::Instant;

/// How long a client may stall before it moved anything: as long as it gets for its header.
const GRACE: Duration = Duration::from_secs(10);

/// The longest a client may stall at once, however much it moved: a phone that changes its cell comes back
/// within this.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Bytes per second that a client must move on average. Slower than any line that is worth waiting for.
const FLOOR_BYTES_PER_SECOND: u64 = 1024;

/// The account of one direction of one transfer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    moved_bytes: u64,
    stalled: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// The client is waited for from `now` on; until when, if it moves nothing.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        let earned = Duration::from_secs(self.moved_bytes / FLOOR_BYTES_PER_SECOND);
        let left = (GRACE + earned).saturating_sub(self.stalled);
        since + left.min(STALL_MAX)
    }

    /// The client moved bytes at `now`; the wait is over.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        self.moved_bytes += bytes as u64;
        if let Some(since) = self.waiting_since.take() {
            self.stalled += now.saturating_duration_since(since);
        }
    }

    /// Whether a wait is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_runs_out_and_a_stream_earns_its_pauses() {
        let began = Instant::now();
        let mut trickle = Pace::default();
        let mut now = began;
        while trickle.wait(now) > now {
            now += Duration::from_secs(1);
            trickle.moved(1, now);
        }
        assert_eq!(now - began, GRACE);

        let mut stream = Pace::default();
        stream.moved(1 << 20, began);
        assert_eq!(stream.wait(now), now + STALL_MAX);
    }
}
