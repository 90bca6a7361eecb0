//! What a press of the button means.
//!
//! Pure: the level of the line and the time come in, a press comes out once it is over. Contacts bounce; what is shorter
//! than a finger can be is none.

use std::time::Duration;

/// What is shorter is the bouncing of a contact.
const BOUNCE: Duration = Duration::from_millis(30);

/// A short press is over within that time; a longer one means something else, or a cat.
const SHORT: Duration = Duration::from_secs(2);

/// The button.
#[derive(Debug, Default)]
pub(super) struct Button {
    /// Since when it has been down.
    down: Option<Duration>,
    /// When it was let go, while that may still be a bounce of one press.
    up: Option<Duration>,
}

impl Button {
    /// Takes the level at `now`; says whether a short press is over. To be called at each change, and again at
    /// [`Button::settles`].
    pub(super) fn level(&mut self, is_down: bool, now: Duration) -> bool {
        match (is_down, self.down, self.up) {
            (true, None, _) => self.down = Some(now),
            // It was a bounce: the press goes on.
            (true, Some(_), _) => self.up = None,
            (false, Some(_), None) => self.up = Some(now),
            (false, Some(down), Some(up)) if now.saturating_sub(up) >= BOUNCE => {
                (self.down, self.up) = (None, None);
                let lasted = up.saturating_sub(down);
                return (BOUNCE..SHORT).contains(&lasted);
            }
            (false, _, _) => {}
        }
        false
    }

    /// When to look again although nothing changed.
    pub(super) fn settles(&self) -> Option<Duration> {
        self.up.map(|up| up + BOUNCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many short presses a row of changes is, given as times in milliseconds, down first.
    fn presses(changes: &[u64]) -> usize {
        let mut button = Button::default();
        let mut count = 0;
        let mut is_down = false;
        for (at, change) in changes.iter().enumerate() {
            let now = Duration::from_millis(*change);
            if let Some(settles) = button.settles().filter(|settles| *settles <= now) {
                count += usize::from(button.level(is_down, settles));
            }
            is_down = at % 2 == 0;
            count += usize::from(button.level(is_down, now));
        }
        if let Some(settles) = button.settles() {
            count += usize::from(button.level(is_down, settles));
        }
        count
    }

    #[test]
    fn a_short_press_counts_once_it_is_over() {
        assert_eq!(presses(&[0]), 0);
        assert_eq!(presses(&[0, 200]), 1);
        assert_eq!(presses(&[0, 200, 1000, 1200]), 2);
    }

    #[test]
    fn bounces_are_one_press_and_a_flicker_is_none() {
        assert_eq!(presses(&[0, 3, 6, 9, 12, 200, 203, 206, 209, 400, 402, 405]), 1);
        assert_eq!(presses(&[0, 5]), 0);
    }

    #[test]
    fn a_long_press_is_no_short_one() {
        assert_eq!(presses(&[0, 2000]), 0);
        assert_eq!(presses(&[0, 1999]), 1);
    }
}
