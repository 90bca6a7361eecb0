//! What a press of the button means.
//!
//! Pure: the level of the line and the time come in, a press comes out once it is over, or long enough. Contacts bounce;
//! what is shorter than a finger can be is none. A contact that is down from the start means nothing before it was let
//! go: what lies on a button, and a button that sticks, must not reset a box.

use std::time::Duration;

/// What is shorter is the bouncing of a contact.
const BOUNCE: Duration = Duration::from_millis(30);

/// A short press is over within that time.
const SHORT: Duration = Duration::from_secs(2);

/// From then on the light warns of what comes at [`LONG`]; letting go stops it.
const WARN: Duration = Duration::from_secs(3);

/// Held for so long, nobody means anything else.
const LONG: Duration = Duration::from_secs(10);

/// A button that is held so long from before the start is no accident.
pub(super) const RECOVER_AFTER: Duration = Duration::from_secs(5);

/// One that is still down then sticks, or was wired the other way round.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(25);

/// What was done with the button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Press {
    /// Pressed and let go.
    Short,
    /// Held down for ten seconds; it still is.
    Long,
}

/// The button.
#[derive(Debug, Default)]
pub(super) struct Button {
    state: State,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Down since before anybody looked, or since a press that already counted.
    #[default]
    Spent,
    Up,
    Down {
        since: Duration,
    },
    /// Let go, if that is no bounce.
    Rising {
        since: Duration,
        up: Duration,
    },
}

/// Whether a button that was down at the start, and all the time up to `now`, was held on purpose: for a while, and then let
/// go; `None` as long as that is open.
pub(super) fn is_held(is_down: bool, now: Duration) -> Option<bool> {
    match is_down {
        true => (now >= STUCK_AFTER).then_some(false),
        false => Some(now >= RECOVER_AFTER),
    }
}

impl Button {
    /// Takes the level at `now`. To be called for each change with the time it happened at, and again at [`Button::next`].
    pub(super) fn level(&mut self, is_down: bool, now: Duration) -> Option<Press> {
        let press = self.over(is_down, now);
        self.state = match (is_down, self.state) {
            (true, State::Spent) => State::Spent,
            (true, State::Up) => State::Down { since: now },
            (true, State::Down { since } | State::Rising { since, .. }) => State::Down { since },
            (false, State::Spent | State::Up) => State::Up,
            (false, State::Down { since }) => State::Rising { since, up: now },
            (false, State::Rising { since, up }) => State::Rising { since, up },
        };
        press
    }

    /// Whether it has been down for so long that the light warns.
    pub(super) fn is_warning(&self, now: Duration) -> bool {
        matches!(self.state, State::Down { since } if now.saturating_sub(since) >= WARN)
    }

    /// When to look again although nothing changed.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Spent | State::Up => None,
            State::Down { since } => [since + WARN, since + LONG].into_iter().find(|at| *at > now),
            State::Rising { up, .. } => Some(up + BOUNCE),
        }
    }

    /// Ends what is over at `now`.
    fn over(&mut self, is_down: bool, now: Duration) -> Option<Press> {
        match self.state {
            State::Rising { since, up } if now.saturating_sub(up) >= BOUNCE => {
                self.state = State::Up;
                let lasted = up.saturating_sub(since);
                (BOUNCE..SHORT).contains(&lasted).then_some(Press::Short)
            }
            State::Down { since } if is_down && now.saturating_sub(since) >= LONG => {
                self.state = State::Spent;
                Some(Press::Long)
            }
            State::Spent | State::Up | State::Down { .. } | State::Rising { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What a row of changes is, given as times in milliseconds, down first; looked at whenever the button wants it.
    fn presses(changes: &[u64]) -> Vec<Press> {
        let mut button = Button::default();
        let mut seen: Vec<Press> = button.level(false, Duration::ZERO).into_iter().collect();
        let mut is_down = false;
        let mut last = Duration::ZERO;
        let ends = changes.iter().copied().chain([u64::from(u32::MAX)]);
        for change in ends {
            let change = at(change);
            while let Some(next) = button.next(last).filter(|next| *next <= change) {
                assert!(next > last, "it wants to be looked at later");
                seen.extend(button.level(is_down, next));
                last = next;
            }
            is_down = !is_down;
            seen.extend(button.level(is_down, change));
            last = change;
        }
        seen
    }

    #[test]
    fn a_short_press_counts_once_it_is_over() {
        assert_eq!(presses(&[10, 210]), [Press::Short]);
        assert_eq!(presses(&[10, 210, 1000, 1200]), [Press::Short; 2]);
        assert_eq!(presses(&[10, 2009]), [Press::Short]);
    }

    #[test]
    fn a_press_that_was_noted_while_nobody_looked_counts() {
        let mut button = Button::default();
        button.level(false, at(0));
        // The light was set, say, and both changes are learned of five seconds later.
        assert_eq!(button.level(true, at(100)), None);
        assert_eq!(button.level(false, at(400)), None);
        assert_eq!(button.level(false, at(5400)), Some(Press::Short));
        // The level was read before the changes were.
        assert_eq!(button.level(true, at(6010)), None);
        assert_eq!(button.level(true, at(6000)), None);
        assert_eq!(button.level(false, at(6300)), None);
        assert_eq!(button.level(false, at(6400)), Some(Press::Short));
    }

    #[test]
    fn bounces_are_one_press_and_a_flicker_is_none() {
        let bounced = [10, 13, 16, 19, 22, 210, 213, 216, 219, 410, 412, 415];
        assert_eq!(presses(&bounced), [Press::Short]);
        assert_eq!(presses(&[10, 15]), []);
    }

    #[test]
    fn ten_seconds_are_a_long_press_and_what_is_between_is_none() {
        assert_eq!(presses(&[10, 2010]), []);
        assert_eq!(presses(&[10, 10_009]), []);
        assert_eq!(presses(&[10, 10_011]), [Press::Long]);
        assert_eq!(
            presses(&[10, 100_000]),
            [Press::Long],
            "once, however long it is held"
        );
        assert_eq!(
            presses(&[10, 5000, 5010, 10_011]),
            [Press::Long],
            "a bounce ends nothing"
        );
    }

    #[test]
    fn the_light_warns_for_seven_seconds_and_letting_go_stops_it() {
        let mut button = Button::default();
        button.level(false, at(0));
        button.level(true, at(1000));
        assert!(!button.is_warning(at(3999)));
        assert_eq!(button.next(at(1000)), Some(at(4000)));
        assert!(button.is_warning(at(4000)));
        assert_eq!(button.next(at(4000)), Some(at(11_000)));
        assert_eq!(button.level(false, at(10_990)), None);
        assert!(!button.is_warning(at(10_990)));
        assert_eq!(button.level(false, at(11_020)), None);
    }

    #[test]
    fn a_button_held_at_the_start_counts_when_it_is_let_go_and_one_that_sticks_never() {
        assert_eq!(is_held(false, at(0)), Some(false));
        assert_eq!(is_held(true, at(4999)), None);
        assert_eq!(is_held(false, at(4999)), Some(false));
        assert_eq!(is_held(true, at(5000)), None);
        assert_eq!(is_held(false, at(5000)), Some(true));
        assert_eq!(is_held(true, at(24_999)), None);
        assert_eq!(is_held(true, at(25_000)), Some(false));
    }

    #[test]
    fn what_is_down_from_the_start_means_nothing_until_it_was_let_go() {
        let mut button = Button::default();
        for seconds in 0..60 {
            assert_eq!(button.level(true, at(seconds * 1000)), None);
            assert_eq!(button.next(at(seconds * 1000)), None);
        }
        assert_eq!(button.level(false, at(60_000)), None);
        button.level(true, at(61_000));
        assert_eq!(button.level(true, at(71_000)), Some(Press::Long));
    }

    proptest! {
        #[test]
        fn a_long_press_needs_ten_seconds_without_an_end(changes in prop::collection::vec((any::<bool>(), 31_u64..4000), 0..200)) {
            let mut button = Button::default();
            // Since when every look found it down.
            let (mut now, mut since) = (0, None);
            for (is_down, step) in changes {
                now += step;
                since = if is_down { since.or(Some(now)) } else { None };
                let press = button.level(is_down, at(now));
                if press == Some(Press::Long) {
                    prop_assert!(since.is_some_and(|since| now - since >= 10_000));
                }
            }
        }
    }
}
