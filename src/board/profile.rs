//! What is known of a board: `board/NAME/board.toml`, as far as it is of use at run time.
//!
//! The same file says how the board's image is built; those parts are left to the scripts.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::Error;

/// A profile is a page of text; what is larger is none, in bytes.
const PROFILE_BYTES_MAX: u64 = 64 * 1024;

/// A board.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// Its name, that of its folder.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// The light that shows how the node is.
    pub led: Option<Led>,
    /// The button.
    pub button: Option<Button>,
    /// The box's own disk.
    #[serde(default)]
    pub storage: Storage,
}

/// The box's own disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Storage {
    /// A shell pattern of its name in `/sys/block`, with `*` alone; what is plugged in beside it never fits.
    pub disk: String,
}

/// A light.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Led {
    /// One that the kernel drives, by its name below `/sys/class/leds`.
    Class(Class),
    /// A line of a GPIO chip.
    Line(Line),
}

/// A light that the kernel drives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name below `/sys/class/leds`.
    pub class: String,
}

/// A line of a GPIO chip that is driven.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The character device.
    pub chip: PathBuf,
    /// The number of the line on it.
    pub line: u32,
}

/// A button on a line of a GPIO chip.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Button {
    /// The character device.
    pub chip: PathBuf,
    /// The number of the line on it.
    pub line: u32,
    /// Whether the line is high while the button is down; one to ground is low then.
    pub is_pressed_high: bool,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Profile`]: it can't be read, or is no profile.
    pub fn read(path: &Path) -> Result<Profile, Error> {
        let refuse = |reason: String| Error::Profile {
            path: path.to_owned(),
            reason,
        };
        let metadata = fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
        if metadata.len() > PROFILE_BYTES_MAX {
            return Err(refuse("it is too large".to_owned()));
        }
        let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        Profile::parse(&text).map_err(refuse)
    }

    /// Reads the text of a profile; what is wrong with it, in words, where it is none.
    fn parse(text: &str) -> Result<Profile, String> {
        let profile: Profile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        match &profile.led {
            // It becomes a path.
            Some(Led::Class(led)) if !is_class_name(&led.class) => {
                Err(format!("led.class: {:?} is no name of a light", led.class))
            }
            _ => Ok(profile),
        }
    }
}

fn is_class_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = 'b'\ntitle = 'B'\n[image]\nkernel = 'vmlinuz'\n";

    fn parse(rest: &str) -> Result<Profile, String> {
        Profile::parse(&format!("{HEAD}{rest}"))
    }

    #[test]
    fn lights_and_buttons_are_read_and_the_rest_is_left_alone() {
        let board = parse(
            "[led]\nchip = '/dev/gpiochip0'\nline = 1\n[button]\nchip = '/dev/gpiochip0'\nline = 5\nis_pressed_high = true",
        );
        let board = board.unwrap();
        let led = Line {
            chip: "/dev/gpiochip0".into(),
            line: 1,
        };
        assert_eq!(board.led, Some(Led::Line(led)));
        assert!(
            board
                .button
                .is_some_and(|button| button.line == 5 && button.is_pressed_high)
        );
        let board = parse("[led]\nclass = 'beaglebone:green:usr0'").unwrap();
        let class = "beaglebone:green:usr0".to_owned();
        assert_eq!(
            (board.led, board.button),
            (Some(Led::Class(Class { class })), None)
        );
        assert_eq!(parse("").unwrap().led, None);
    }

    #[test]
    fn what_is_half_or_leads_elsewhere_is_refused() {
        for bad in [
            "[led]\nchip = '/dev/gpiochip0'",
            "[led]\nclass = 'a'\nline = 1",
            "[led]\nclass = '../../x'",
            "[led]\nclass = ''",
            "[button]\nchip = '/dev/gpiochip0'\nline = -1\nis_pressed_high = true",
            "[button]\nchip = '/dev/gpiochip0'\nline = 1",
            "[button",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_profile_of_the_repository_is_one() {
        let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("board");
        let Ok(folders) = fs::read_dir(&boards) else {
            return;
        };
        for folder in folders {
            let path = folder.unwrap().path().join("board.toml");
            if path.exists() {
                let board = Profile::read(&path).unwrap();
                assert!(path.parent().unwrap().ends_with(&board.name), "{}", board.name);
            }
        }
    }
}
