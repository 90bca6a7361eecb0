//! Hours of the day in which a box may restart by itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY_S: u32 = 24 * 3600;

/// The shortest, in seconds: a box installs at a moment of its own within it, and may have to wait for a backup.
const SHORTEST_S: u32 = 30 * 60;

/// Hours of a day, in the box's time zone: as text `02:00-05:00`; one that ends before it begins goes over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from_s: u32,
    length_s: u32,
}

/// The text is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window is written as 02:00-05:00 and has at least half an hour")]
pub struct WindowError;

impl Window {
    /// The second of the day in which it begins.
    pub fn from_s(self) -> u32 {
        self.from_s
    }

    /// How long it is, in seconds: at most a day.
    pub fn length_s(self) -> u32 {
        self.length_s
    }
}

/// When people sleep, and backups of the evening are done.
impl Default for Window {
    fn default() -> Window {
        Window {
            from_s: 2 * 3600,
            length_s: 3 * 3600,
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Window, WindowError> {
        let (from, to) = text.split_once('-').ok_or(WindowError)?;
        let (from_s, to_s) = (second_of_day(from)?, second_of_day(to)?);
        let length_s = match (to_s + DAY_S - from_s) % DAY_S {
            // The same time twice is the whole day.
            0 => DAY_S,
            length_s => length_s,
        };
        match length_s >= SHORTEST_S {
            true => Ok(Window { from_s, length_s }),
            false => Err(WindowError),
        }
    }
}

fn second_of_day(text: &str) -> Result<u32, WindowError> {
    let (hour, minute) = text.split_once(':').ok_or(WindowError)?;
    let number = |text: &str, most: u32| -> Result<u32, WindowError> {
        let is_plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_plain && *number <= most);
        number.ok_or(WindowError)
    };
    Ok(number(hour, 23)? * 3600 + number(minute, 59)? * 60)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from_s / 60, (self.from_s + self.length_s) % DAY_S / 60);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_is_two_times_of_day_and_may_go_over_midnight() {
        assert_eq!(Window::default().to_string(), "02:00-05:00");
        let window: Window = "23:30-01:00".parse().unwrap();
        assert_eq!((window.from_s(), window.length_s()), (23 * 3600 + 1800, 90 * 60));
        assert_eq!("00:00-00:00".parse::<Window>().unwrap().length_s(), DAY_S);
        for bad in [
            "",
            "02:00",
            "2:00-5:00",
            "02:00-02:29",
            "24:00-05:00",
            "02:60-05:00",
            "02:00-05:00-06:00",
            "+2:00-05:00",
        ] {
            assert_eq!(bad.parse::<Window>(), Err(WindowError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_nothing_panics(text in "[0-9:☂-]{0,12}", from in 0u32..1440, to in 0u32..1440) {
            let _ = text.parse::<Window>();
            let written = format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60);
            if let Ok(window) = written.parse::<Window>() {
                prop_assert_eq!(window.to_string(), written);
            }
        }
    }
}
