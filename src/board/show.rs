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

/// What the state of the node looks like.
pub(super) fn pattern_of(state: HealthState, is_claimed: bool) -> Pattern {
    match (state, is_claimed) {
        (HealthState::ReadOnly, _) => Pattern::Failed,
        (HealthState::Degraded, _) => Pattern::Degraded,
        (HealthState::Ready, true) => Pattern::Ready,
        (HealthState::Ready, false) => Pattern::Unclaimed,
    }
}

impl<P: OutputPin> Show<P> {
    pub(super) fn new(light: P) -> Show<P> {
        Show {
            light,
            pattern: Pattern::Ready,
            since: Duration::ZERO,
            is_lit: None,
            identify_until: Duration::ZERO,
        }
    }

    /// Says which box it is, from now on for a while.
    pub(super) fn identify(&mut self, now: Duration) {
        self.identify_until = now + IDENTIFY;
    }

    /// Shows `state` at `now`; says when to come again, where time alone changes something.
    ///
    /// # Errors
    /// As the line says.
    pub(super) fn turn(&mut self, state: Pattern, now: Duration) -> Result<Option<Duration>, P::Error> {
        let is_identifying = now < self.identify_until;
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
        show.turn(Pattern::Ready, at(11_000)).unwrap();
        assert_eq!(show.pattern, Pattern::Ready);
        mock.done();
    }

    #[test]
    fn each_state_has_its_pattern_and_what_is_worse_shows() {
        assert_eq!(pattern_of(HealthState::Ready, true), Pattern::Ready);
        assert_eq!(pattern_of(HealthState::Ready, false), Pattern::Unclaimed);
        assert_eq!(pattern_of(HealthState::Degraded, false), Pattern::Degraded);
        assert_eq!(pattern_of(HealthState::ReadOnly, true), Pattern::Failed);
    }
}
