//! What the light shows: patterns that can be told apart from across a room.
//!
//! Pure: time comes in, light or dark comes out, and when to look again. A pattern is a row of steps of an eighth of a
//! second, repeated; steady ones need no timer at all.

use std::time::Duration;

/// One step of a pattern.
const STEP: Duration = Duration::from_millis(125);

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// The node is not there yet.
    Starting,
    /// All is well.
    Ready,
    /// All is well, and something is being stored.
    Busy,
    /// All is well, and it waits for its owner.
    Unclaimed,
    /// Its system is being updated, or is about to be: leave it on.
    Updating,
    /// Someone should look.
    Degraded,
    /// Nothing can be stored.
    Failed,
    /// This is the one.
    Identify,
    /// Hold the button on and everything goes.
    Warning,
}

/// Light (`#`) and dark (`.`), a step each.
fn steps(pattern: Pattern) -> &'static [u8] {
    match pattern {
        Pattern::Starting => b"####....",
        Pattern::Ready => b"#",
        Pattern::Busy => b"#######.",
        Pattern::Unclaimed => b"########........",
        Pattern::Updating => b"######..##..",
        Pattern::Degraded => b"#.#.............",
        Pattern::Failed => b"#.#.#...",
        Pattern::Identify => b"#.#.#.#.####....",
        Pattern::Warning => b"#.",
    }
}

impl Pattern {
    /// Whether it is light so long after the pattern began, and for how long that stays so; `None` for always.
    pub(super) fn at(self, since: Duration) -> (bool, Option<Duration>) {
        let steps = steps(self);
        let step = since.as_millis() / STEP.as_millis();
        let length = u128::try_from(steps.len()).unwrap_or(u128::MAX);
        let at = usize::try_from(step % length).unwrap_or(0);
        let is_light = |at: usize| steps[at % steps.len()] == b'#';
        let same = (1..=steps.len()).find(|ahead| is_light(at + ahead) != is_light(at));
        let into = Duration::from_nanos(u64::try_from(since.as_nanos() % STEP.as_nanos()).unwrap_or(0));
        let left = same
            .and_then(|ahead| u32::try_from(ahead).ok())
            .map(|ahead| STEP * ahead - into);
        (is_light(at), left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Pattern; 9] = [
        Pattern::Starting,
        Pattern::Ready,
        Pattern::Busy,
        Pattern::Unclaimed,
        Pattern::Updating,
        Pattern::Degraded,
        Pattern::Failed,
        Pattern::Identify,
        Pattern::Warning,
    ];

    /// The light over four seconds, looked at whenever it says that it changes.
    fn seen(pattern: Pattern) -> Vec<(u64, bool)> {
        let mut seen = Vec::new();
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(4) {
            let (is_light, left) = pattern.at(now);
            seen.push((u64::try_from(now.as_millis()).unwrap(), is_light));
            let Some(left) = left else {
                break;
            };
            assert!(!left.is_zero(), "{pattern:?} at {now:?}");
            now += left;
        }
        seen
    }

    #[test]
    fn the_light_changes_when_it_said_so_and_a_steady_one_needs_no_timer() {
        assert_eq!(seen(Pattern::Ready), [(0, true)]);
        assert_eq!(
            seen(Pattern::Unclaimed),
            [(0, true), (1000, false), (2000, true), (3000, false)]
        );
        assert_eq!(
            seen(Pattern::Degraded)[..5],
            [(0, true), (125, false), (250, true), (375, false), (2000, true)]
        );
        for pattern in ALL {
            assert!(
                seen(pattern).windows(2).all(|pair| pair[0].1 != pair[1].1),
                "{pattern:?}"
            );
        }
    }

    #[test]
    fn no_two_patterns_look_alike() {
        for (at, pattern) in ALL.iter().enumerate() {
            for other in &ALL[at + 1..] {
                assert_ne!(seen(*pattern), seen(*other), "{pattern:?} and {other:?}");
            }
        }
    }

    #[test]
    fn an_odd_moment_and_a_far_one_fit_in() {
        assert_eq!(
            Pattern::Failed.at(Duration::from_millis(100)),
            (true, Some(Duration::from_millis(25)))
        );
        let (_, left) = Pattern::Identify.at(Duration::from_secs(40 * 365 * 24 * 3600));
        assert!(left.is_some_and(|left| !left.is_zero() && left <= STEP * 4));
    }
}
