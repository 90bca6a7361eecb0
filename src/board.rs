//! The board edge: the light shows how the node is, the button says which box it is.
//!
//! What a board has is data, `board/NAME/board.toml` ([`Profile`]); no code asks which board it runs on. Patterns and
//! presses are pure, behind the traits of embedded-hal; `lines.rs` has what Linux offers. A part that is missing is said
//! in the log and done without.

mod button;
mod error;
mod led;
mod lines;
mod profile;
mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_hal::digital::InputPin;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use profile::Profile;

use self::button::Button;
use self::lines::{Contact, Light};
use self::show::{Show, pattern_of};
use crate::node::Node;

/// How soon the light follows the state of the node.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The devices and folders that the parts of a board are reached by: for those who may use nothing else.
pub fn devices(profile: &Profile) -> Vec<PathBuf> {
    let led = profile.led.as_ref().map(lines::path_of);
    let button = profile.button.as_ref().map(|button| button.chip.clone());
    led.into_iter().chain(button).collect()
}

/// Shows how the node is, and hears the button, until `shutdown`.
pub async fn run(node: Node, profile: PathBuf, shutdown: CancellationToken) {
    let Some(mut parts) = Parts::open(&profile) else {
        return shutdown.cancelled().await;
    };
    let started = Instant::now();
    while !shutdown.is_cancelled() {
        let now = started.elapsed();
        let next = parts.turn(&node, now);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = parts.changed() => {}
            () = sleep_until(started + next) => {}
        }
    }
}

/// What there is of the board's parts.
struct Parts {
    show: Option<Show<Light>>,
    contact: Option<Contact>,
    button: Button,
}

impl Parts {
    /// `None` where there is nothing to do.
    fn open(profile: &Path) -> Option<Parts> {
        let profile = Profile::read(profile).inspect_err(warn).ok()?;
        tracing::info!(board = %profile.title, "this board is known");
        let light = profile
            .led
            .as_ref()
            .and_then(|led| Light::open(led).inspect_err(warn).ok());
        let contact = profile
            .button
            .as_ref()
            .and_then(|button| Contact::open(button).inspect_err(warn).ok());
        (light.is_some() || contact.is_some()).then(|| Parts {
            show: light.map(Show::new),
            contact,
            button: Button::default(),
        })
    }

    /// Reads the button and sets the light; says when to come again at the latest.
    fn turn(&mut self, node: &Node, now: Duration) -> Duration {
        if let Some(contact) = &mut self.contact {
            match contact.is_high() {
                Ok(is_down) => {
                    if self.button.level(is_down, now)
                        && let Some(show) = &mut self.show
                    {
                        tracing::info!("the button was pressed: the light shows which box this is");
                        show.identify(now);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the button is not used any more");
                    self.contact = None;
                }
            }
        }
        let pattern = pattern_of(node.health().report().state, node.claim().is_claimed());
        let light = self.show.as_mut().map(|show| show.turn(pattern, now));
        let change = match light {
            Some(Ok(change)) => change,
            Some(Err(error)) => {
                tracing::warn!(%error, "the light is not used any more");
                self.show = None;
                None
            }
            None => None,
        };
        let soonest = [change, self.button.settles(), Some(now + LOOK_EVERY)]
            .into_iter()
            .flatten()
            .min();
        soonest.unwrap_or(now + LOOK_EVERY)
    }

    /// Returns after the button's level changed.
    async fn changed(&mut self) {
        let changed = match &self.contact {
            Some(contact) => contact.changed().await,
            None => std::future::pending().await,
        };
        if let Err(error) = changed {
            tracing::warn!(%error, "the button is not used any more");
            self.contact = None;
        }
    }
}

fn warn(error: &Error) {
    tracing::warn!(%error, "a part of the board is not used");
}
