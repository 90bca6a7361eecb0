//! Lights and buttons as Linux has them: the LED class (`/sys/class/leds`) and lines of GPIO character devices, behind
//! the traits of embedded-hal.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_hal::digital::{self, ErrorKind, ErrorType, InputPin, OutputPin};
use gpiocdev::Request;
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, Value};
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;

use super::error::Error;
use super::profile;

const LEDS: &str = "/sys/class/leds";

/// Who uses a line, for those who list them.
const CONSUMER: &str = "refuge";

/// A light.
#[derive(Debug)]
pub(super) enum Light {
    /// The kernel drives it.
    Class {
        /// `brightness` of it.
        brightness: File,
        /// What is written there for light.
        most: Vec<u8>,
    },
    /// A line of a GPIO chip.
    Line(Box<Request>),
}

/// The contact of a button: high while it is down, whatever its line is.
#[derive(Debug)]
pub(super) struct Contact {
    line: AsyncFd<Request>,
}

/// A change of the button, as the kernel noted it: whoever was busy at that moment learns of it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// Whether it went down.
    pub(super) is_down: bool,
    /// How long ago.
    pub(super) age: Duration,
}

/// Why a line was not set or read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct LineError(io::Error);

/// Where the light of a profile is.
pub(super) fn path_of(led: &profile::Led) -> PathBuf {
    match led {
        profile::Led::Class(led) => Path::new(LEDS).join(&led.class),
        profile::Led::Line(line) => line.chip.clone(),
    }
}

impl Light {
    /// Opens the light of a profile, dark, and takes it from whatever the kernel shows by itself.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(super) fn open(led: &profile::Led) -> Result<Light, Error> {
        let path = path_of(led);
        let opened = match led {
            profile::Led::Class(_) => Light::of_class(&path),
            profile::Led::Line(line) => {
                let mut request = Request::builder();
                request.on_chip(&line.chip).with_consumer(CONSUMER);
                request.with_line(line.line).as_output(Value::Inactive);
                request
                    .request()
                    .map(|line| Light::Line(Box::new(line)))
                    .map_err(io::Error::other)
            }
        };
        opened.map_err(|source| Error::Device { path, source })
    }

    fn of_class(folder: &Path) -> io::Result<Light> {
        fs::write(folder.join("trigger"), "none")?;
        let most = fs::read(folder.join("max_brightness"))?;
        let brightness = File::options().write(true).open(folder.join("brightness"))?;
        Ok(Light::Class { brightness, most })
    }

    fn set(&mut self, is_light: bool) -> Result<(), LineError> {
        match self {
            Light::Class { brightness, most } => {
                let value: &[u8] = if is_light { most } else { b"0" };
                let written = brightness
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| brightness.write_all(value));
                written.map_err(LineError)
            }
            Light::Line(line) => {
                let value = if is_light { Value::Active } else { Value::Inactive };
                line.set_lone_value(value)
                    .map_err(|error| LineError(io::Error::other(error)))
            }
        }
    }
}

impl ErrorType for Light {
    type Error = LineError;
}

impl OutputPin for Light {
    fn set_low(&mut self) -> Result<(), LineError> {
        self.set(false)
    }

    fn set_high(&mut self) -> Result<(), LineError> {
        self.set(true)
    }
}

impl Contact {
    /// Opens the button of a profile. One to ground is held up by the chip, one to the supply down.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(super) fn open(button: &profile::Button) -> Result<Contact, Error> {
        let open = || {
            let mut request = Request::builder();
            request.on_chip(&button.chip).with_consumer(CONSUMER);
            request
                .with_line(button.line)
                .as_input()
                .with_edge_detection(EdgeDetection::BothEdges);
            if button.is_pressed_high {
                request.as_active_high().with_bias(Bias::PullDown);
            } else {
                request.as_active_low().with_bias(Bias::PullUp);
            }
            let line = request.request().map_err(io::Error::other)?;
            #[expect(
                deprecated,
                reason = "what takes its place needs unsafe code; a request holds its descriptor for as long as it is registered"
            )]
            let line = AsyncFd::new(line)?;
            Ok(Contact { line })
        };
        open().map_err(|source| Error::Device {
            path: button.chip.clone(),
            source,
        })
    }

    /// Returns after the level changed, with every change since the last call. May be cancelled.
    ///
    /// # Errors
    /// As the system says; the button is of no use any more.
    pub(super) async fn changed(&self) -> io::Result<Vec<Edge>> {
        let mut ready = self.line.readable().await?;
        let line = self.line.get_ref();
        let mut edges = Vec::new();
        // The kernel keeps 16 for a line, and drops the oldest.
        while line.has_edge_event().map_err(io::Error::other)? {
            let event = line.read_edge_event().map_err(io::Error::other)?;
            // Its clock is the monotonic one where nothing else was asked for (linux/gpio.h).
            let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
            edges.push(Edge {
                is_down: event.kind == EdgeKind::Rising,
                age: now.saturating_sub(Duration::from_nanos(event.timestamp_ns)),
            });
        }
        ready.clear_ready();
        Ok(edges)
    }
}

impl ErrorType for Contact {
    type Error = LineError;
}

impl InputPin for Contact {
    fn is_high(&mut self) -> Result<bool, LineError> {
        let value = self.line.get_ref().lone_value();
        value
            .map(|value| value == Value::Active)
            .map_err(|error| LineError(io::Error::other(error)))
    }

    fn is_low(&mut self) -> Result<bool, LineError> {
        Ok(!self.is_high()?)
    }
}

impl digital::Error for LineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_light_of_the_kernel_is_taken_from_its_trigger_and_driven() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("trigger", "heartbeat"),
            ("max_brightness", "255\n"),
            ("brightness", "7\n"),
        ] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let mut light = Light::of_class(dir.path()).unwrap();
        let shown = || fs::read_to_string(dir.path().join("brightness")).unwrap();
        light.set_high().unwrap();
        assert_eq!(shown(), "255\n");
        light.set_low().unwrap();
        // A file keeps what is behind; an attribute of the kernel does not.
        assert!(shown().starts_with('0'));
        assert_eq!(fs::read_to_string(dir.path().join("trigger")).unwrap(), "none");
    }

    #[test]
    fn a_board_without_its_parts_is_told_of_by_path() {
        let chip = PathBuf::from("/nonexistent/gpiochip");
        let led = profile::Led::Line(profile::Line {
            chip: chip.clone(),
            line: 1,
        });
        let message = Light::open(&led).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/gpiochip"), "{message}");
        let button = profile::Button {
            chip,
            line: 5,
            is_pressed_high: true,
        };
        assert!(Contact::open(&button).is_err());
    }
}
