//! Which pattern the light shows, and when it changes: the part between the node's state and the line.

use std::time::Duration;

use embedded_hal::digital::OutputPin;

use super::led::Pattern;
use crate::node::HealthState;

/// How long the light says which box it is.
const IDENTIFY: Duration = Duration::from_secs(10);

/// A light and what it shows.
#[derive(Debug)]
pub(super) struct Show<P> {
    light: P,
    pattern: Pattern,
    since: Duration,
    is_lit: Option<bool>,
    identify_until: Duration,
}

/// What the light tells of the node: what is worst, then what its owner has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: HealthState,
    pub(super) is_claimed: bool,
    pub(super) is_busy: bool,
    pub(super) is_updating: bool,
}

/// What that looks like.
pub(super) fn pattern_of(seen: Seen) -> Pattern {
    match seen.state {
        HealthState::ReadOnly => Pattern::Failed,
        HealthState::Ready | HealthState::Degraded if seen.is_updating => Pattern::Updating,
        HealthState::Degraded => Pattern::Degraded,
        HealthState::Ready if !seen.is_claimed => Pattern::Unclaimed,
        HealthState::Ready if seen.is_busy => Pattern::Busy,
        HealthState::Ready => Pattern::Ready,
    }
}

impl<P: OutputPin> Show<P> {
    pub(super) fn new(light: P) -> Show<P> {
        Show {
            light,
            pattern: Pattern::Starting,
            since: Duration::ZERO,
            is_lit: None,
            identify_until: Duration::ZERO,
        }
    }

    /// Says which box it is, from now on for a while.
    pub(super) fn identify(&mut self, now: Duration) {
        self.identify_until = now + IDENTIFY;
    }

    /// Shows `state` at `now`, or which box it is, unless it is a warning; says when to come again, where time alone
    /// changes something.
    ///
    /// # Errors
    /// As the line says.
    pub(super) fn turn(&mut self, state: Pattern, now: Duration) -> Result<Option<Duration>, P::Error> {
        let is_identifying = now < self.identify_until && state != Pattern::Warning;
        let pattern = if is_identifying { Pattern::Identify } else { state };
        if pattern != self.pattern {
            self.pattern = pattern;
            self.since = now;
        }
        let (is_light, left) = pattern.at(now.saturating_sub(self.since));
        if self.is_lit != Some(is_light) {
            self.light.set_state(is_light.into())?;
            self.is_lit = Some(is_light);
        }
        let end = is_identifying.then_some(self.identify_until);
        Ok(left.map(|left| now + left).into_iter().chain(end).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::digital::{Mock, State, Transaction};

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_line_is_set_when_the_light_changes_and_not_else() {
        let set = |is_high| Transaction::set(if is_high { State::High } else { State::Low });
        let mut mock = Mock::new(&[set(true), set(false), set(true)]);
        let mut show = Show::new(mock.clone());
        assert_eq!(
            show.turn(Pattern::Ready, at(0)),
            Ok(None),
            "steady: nobody has to come again"
        );
        assert_eq!(show.turn(Pattern::Ready, at(5000)), Ok(None));
        assert_eq!(show.turn(Pattern::Degraded, at(6000)), Ok(Some(at(6125))));
        assert_eq!(show.turn(Pattern::Degraded, at(6125)), Ok(Some(at(6250))));
        assert_eq!(show.turn(Pattern::Ready, at(6200)), Ok(None));
        mock.done();
    }

    #[test]
    fn a_press_shows_which_box_it_is_for_ten_seconds() {
        let mut mock = Mock::new(&[]);
        let mut show = Show::new(mock.clone());
        show.is_lit = Some(true);
        show.turn(Pattern::Ready, at(0)).unwrap();
        show.identify(at(1000));
        assert_eq!(show.turn(Pattern::Ready, at(1000)), Ok(Some(at(1125))));
        assert_eq!(show.pattern, Pattern::Identify);
        show.turn(Pattern::Warning, at(1000)).unwrap();
        assert_eq!(show.pattern, Pattern::Warning, "nothing hides a warning");
        show.turn(Pattern::Ready, at(1000)).unwrap();
        show.turn(Pattern::Ready, at(11_000)).unwrap();
        assert_eq!(show.pattern, Pattern::Ready);
        mock.done();
    }

    #[test]
    fn each_state_has_its_pattern_and_what_is_worse_shows() {
        let shown = |state, is_claimed, is_busy| {
            pattern_of(Seen {
                state,
                is_claimed,
                is_busy,
                is_updating: false,
            })
        };
        assert_eq!(shown(HealthState::Ready, true, false), Pattern::Ready);
        assert_eq!(shown(HealthState::Ready, true, true), Pattern::Busy);
        assert_eq!(shown(HealthState::Ready, false, true), Pattern::Unclaimed);
        assert_eq!(shown(HealthState::Degraded, false, true), Pattern::Degraded);
        assert_eq!(shown(HealthState::ReadOnly, true, true), Pattern::Failed);
        let updating = |state| {
            pattern_of(Seen {
                state,
                is_claimed: true,
                is_busy: true,
                is_updating: true,
            })
        };
        assert_eq!(updating(HealthState::Degraded), Pattern::Updating);
        assert_eq!(updating(HealthState::ReadOnly), Pattern::Failed);
    }
}
