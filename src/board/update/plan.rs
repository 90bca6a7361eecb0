//! When a box looks at its channel, fetches what it offers and installs that: pure. The shell does what it says and tells what came of it.
//!
//! ```text
//!           a moment after the start, then daily, each box at its own
//!   wait ────────────> look ──────> offered ──────> fetched ──────> installed
//!     ^                  │ failed      │  │ failed      │  in the window, at this box's moment of it; an hour after it was
//!     └──────────────────┴─────────────┘  └── later ──┐ │  offered or more; while nobody stores anything
//!       later: a quarter of an hour, twice that, … a day ┴─┘
//! ```
//!
//! Nothing is done while the system is being changed or on trial. A version that the box came back from, or whose bundle it does not
//! take, is left alone. Where it may not install by itself it looks all the same, and its owner reads what there is.

use std::time::Duration;

use crate::id::{NodeId, Version};
use crate::node::{Offer, Window};

const DAY_S: u32 = 24 * 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A start has better things to do, and the network may not be there yet.
const FIRST_LOOK: Duration = Duration::from_secs(5 * 60);

/// After a power cut a whole town starts at once: first looks are spread over that.
const FIRST_LOOK_SPREAD: Duration = Duration::from_secs(2 * 3600);

/// How soon it tries again what failed once; twice that after each further failure, and a day at most.
const RETRY_FIRST: Duration = Duration::from_secs(15 * 60);

/// So long before it begins the owner can read of it.
const NOTICE: Duration = Duration::from_secs(3600);

/// So long nobody has stored anything: a backup pauses that long while it reads a large file that did not change.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// A box to which something is sent all the time is updated as well: after that long a moment without a transfer is enough.
const QUIET_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// An offer that was not seen again for that long may have been withdrawn.
const OFFERED_WITHIN: Duration = Duration::from_secs(48 * 3600);

/// From then on nobody should pull the plug.
const IMMINENT: Duration = Duration::from_secs(10 * 60);

/// Where a box stands among all: 0 to 1 in steps of 65,536, by chance and always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread(u16);

/// What is seen when it is asked what to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Since the plan was made; never jumps.
    pub(super) now: Duration,
    /// Seconds since the box's own midnight.
    pub(super) day_s: u32,
    /// The window, where it may install by itself; `None` inside where it may not; `None` without a channel.
    pub(super) wanted: Option<Option<Window>>,
    /// Whether the system is neither being changed nor on trial.
    pub(super) is_free: bool,
    /// For how long nobody has stored anything; `None` while somebody does.
    pub(super) quiet: Option<Duration>,
    /// What runs.
    pub(super) running: &'a Version,
    /// What the box came back from.
    pub(super) left: &'a [Version],
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing yet.
    Wait,
    /// Ask the channel, and say what it has by [`Plan::looked`].
    Look,
    /// Fetch this, and say what came of it by [`Plan::fetched`].
    Fetch(Offer),
    /// Install this, and say what came of it by [`Plan::installed`] where the box does not restart.
    Install(Offer),
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    /// It may go better another time.
    Later,
    /// It never will, with this bundle.
    Never,
}

/// The plan of one box.
#[derive(Debug)]
pub(super) struct Plan {
    spread: Spread,
    look_at: Duration,
    looks_failed: u32,
    pending: Option<Pending>,
}

/// What was offered.
#[derive(Debug)]
struct Pending {
    offer: Offer,
    /// When first, and when last.
    offered: Duration,
    confirmed: Duration,
    is_fetched: bool,
    is_refused: bool,
    failed: u32,
    try_at: Duration,
    /// Since when it could be installed but for somebody who stores something.
    due: Option<Duration>,
}

impl Spread {
    /// That of a node.
    pub(super) fn of(node: &NodeId) -> Spread {
        let hash = blake3::hash(node.as_bytes());
        let [high, low, ..] = *hash.as_bytes();
        Spread(u16::from_be_bytes([high, low]))
    }

    fn part_of(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / (1 << 16)
    }

    /// The second of a day in which this box begins within a window, and how much of the window is left then. The last quarter is for
    /// whoever has to wait.
    fn moment(self, window: Window) -> (u32, u32) {
        let into_s = (u64::from(window.length_s()) * 3 / 4 * u64::from(self.0)) >> 16;
        let into_s = u32::try_from(into_s).unwrap_or(0);
        ((window.from_s() + into_s) % DAY_S, window.length_s() - into_s)
    }
}

impl Plan {
    /// The plan of a box that has just started.
    pub(super) fn new(spread: Spread) -> Plan {
        Plan {
            spread,
            look_at: FIRST_LOOK + spread.part_of(FIRST_LOOK_SPREAD),
            looks_failed: 0,
            pending: None,
        }
    }

    /// Another channel, or other wishes: its owner is there, and wants to know.
    pub(super) fn set_anew(&mut self, now: Duration) {
        self.look_at = now;
        self.looks_failed = 0;
        self.pending = None;
    }

    /// What to do now.
    pub(super) fn next(&mut self, seen: &Seen<'_>) -> Action {
        if seen.wanted.is_none() {
            self.pending = None;
            return Action::Wait;
        }
        if !seen.is_free {
            return Action::Wait;
        }
        if seen.now >= self.look_at {
            return Action::Look;
        }
        match self.ready(seen) {
            Some(wait) => self.go_on(seen, wait),
            None => Action::Wait,
        }
    }

    fn go_on(&mut self, seen: &Seen<'_>, wait: Duration) -> Action {
        let Some(pending) = &mut self.pending else {
            return Action::Wait;
        };
        if seen.now < pending.try_at {
            return Action::Wait;
        }
        if !pending.is_fetched {
            return Action::Fetch(pending.offer.clone());
        }
        if !wait.is_zero() {
            return Action::Wait;
        }
        let waited = seen.now - *pending.due.get_or_insert(seen.now);
        let needed = if waited < QUIET_WITHIN {
            QUIET
        } else {
            Duration::ZERO
        };
        match seen.quiet {
            Some(quiet) if quiet >= needed => Action::Install(pending.offer.clone()),
            Some(_) | None => Action::Wait,
        }
    }

    /// What the channel has for this box, or that it could not be asked.
    pub(super) fn looked(&mut self, now: Duration, found: Result<Option<&Offer>, ()>) {
        let Ok(offer) = found else {
            self.looks_failed += 1;
            self.look_at = now + self.pause(RETRY_FIRST, self.looks_failed);
            return;
        };
        self.looks_failed = 0;
        self.look_at = now + DAY;
        let known = self.pending.take();
        self.pending = offer.map(|offer| match known {
            Some(pending) if pending.offer == *offer => Pending {
                confirmed: now,
                ..pending
            },
            Some(_) | None => Pending {
                offer: offer.clone(),
                offered: now,
                confirmed: now,
                is_fetched: false,
                is_refused: false,
                failed: 0,
                try_at: now,
                due: None,
            },
        });
    }

    /// What came of [`Action::Fetch`].
    pub(super) fn fetched(&mut self, now: Duration, done: Result<(), ()>) {
        match done {
            Ok(()) => {
                if let Some(pending) = &mut self.pending {
                    pending.is_fetched = true;
                    pending.failed = 0;
                }
            }
            Err(()) => self.set_back(now, Setback::Later, RETRY_FIRST),
        }
    }

    /// Why [`Action::Install`] did not bring the box to its restart.
    pub(super) fn installed(&mut self, now: Duration, setback: Setback) {
        self.set_back(now, setback, DAY / 2);
    }

    fn set_back(&mut self, now: Duration, setback: Setback, first: Duration) {
        let spread = self.spread;
        if let Some(pending) = &mut self.pending {
            pending.failed += 1;
            pending.is_refused |= setback == Setback::Never;
            pending.try_at = now + pause(spread, first, pending.failed);
        }
    }

    /// How long until what was offered is installed by itself, as far as it can be told; `None` where it is not.
    pub(super) fn planned(&self, seen: &Seen<'_>) -> Option<Duration> {
        self.ready(seen)
    }

    /// Whether that is so soon that nobody should pull the plug.
    pub(super) fn is_imminent(&self, seen: &Seen<'_>) -> bool {
        let is_fetched = self.pending.as_ref().is_some_and(|pending| pending.is_fetched);
        is_fetched && seen.is_free && self.planned(seen).is_some_and(|wait| wait <= IMMINENT)
    }

    /// How long until the moment at which what was offered is installed; `None` where it is not.
    fn ready(&self, seen: &Seen<'_>) -> Option<Duration> {
        let window = seen.wanted??;
        let pending = self.pending.as_ref()?;
        let version = &pending.offer.version;
        let is_wanted = version > seen.running && !seen.left.contains(version) && !pending.is_refused;
        let is_fresh = seen.now.saturating_sub(pending.confirmed) < OFFERED_WITHIN;
        (is_wanted && is_fresh).then(|| {
            let earliest = (pending.offered + NOTICE).max(pending.try_at);
            self.until_moment(window, seen.day_s, earliest.saturating_sub(seen.now))
        })
    }

    /// How long until this box's moment of the window, or what is left of the window after it, and at least `earliest`.
    fn until_moment(&self, window: Window, day_s: u32, earliest: Duration) -> Duration {
        let (moment_s, left_s) = self.spread.moment(window);
        let earliest_s = earliest.as_secs() + u64::from(earliest.subsec_nanos() > 0);
        let then_s = u32::try_from((u64::from(day_s) + earliest_s) % u64::from(DAY_S)).unwrap_or(0);
        let past_s = (then_s + DAY_S - moment_s) % DAY_S;
        let more_s = if past_s < left_s { 0 } else { DAY_S - past_s };
        Duration::from_secs(earliest_s + u64::from(more_s))
    }

    fn pause(&self, first: Duration, failed: u32) -> Duration {
        pause(self.spread, first, failed)
    }
}

/// How long after so many failures it tries again; up to half as long again, so that those who failed at once do not return at once.
fn pause(spread: Spread, first: Duration, failed: u32) -> Duration {
    let doubled = first
        .saturating_mul(1 << failed.saturating_sub(1).min(16))
        .min(DAY);
    doubled + spread.part_of(doubled / 2)
}

#[cfg(test)]
mod tests;
