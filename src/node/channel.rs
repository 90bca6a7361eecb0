//! The channel that a box is updated from: where it is and whose, what was heard of it, what is planned.
//!
//! ```text
//! DIR/channel      a state file (durable.rs) of JSON
//! {"format":1,
//!  "settings":{"url":"https://updates.example.org/refuge/channel","key":"ed25519;…","automatic":true,"window":"02:00-05:00"},
//!  "seen":{"key":"ed25519;…","serial":7,"digest":"blake3;…"},
//!  "newest":"0.2.0",
//!  "heard_s":1796000000,
//!  "left":["0.2.0"]}
//! ```
//!
//! `seen` stays when the channel is removed, so that who sets it anew with the same key cannot be shown an older file. Fields that
//! are not known are passed over: the version before this one may have to read what this one wrote.
//!
//! The board edge asks the channel and tells what it heard; other edges show that and change the settings.

mod window;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::clock::{Clock, from_unix_s, unix_s};
use super::error::Error;
use super::events::{Event, Events};
use super::health::Health;
use crate::db;
use crate::durable;
use crate::id::{BlobId, BundleUrl, ChannelKey, Version};

pub use window::{Window, WindowError};

const FORMAT: u32 = 1;

/// Whoever keeps a box from its channel keeps it from what mends it: after that long someone should look (security row S24).
const SILENT_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// Versions remembered that the box came back from; a version that is older than the last of these is not offered any more.
const LEFT_MAX: usize = 8;

/// Two moments closer than that are one to people, in seconds.
const SAME_TIME_S: u64 = 300;

/// A channel, as its owner set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSettings {
    /// Where its file is.
    pub url: BundleUrl,
    /// Whose signature the file must have.
    pub key: ChannelKey,
    /// Whether what it offers is installed without being asked for.
    pub automatic: bool,
    /// When that may be.
    pub window: Window,
}

/// The newest file of a channel that was believed: none before it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSeen {
    /// Who signed it.
    pub key: ChannelKey,
    /// Its number.
    pub serial: u64,
    /// What was signed: one number is one file.
    pub digest: BlobId,
}

/// A bundle that a channel has for this box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What it makes of the box.
    pub version: Version,
    /// Where it is.
    pub url: BundleUrl,
    /// Its length.
    pub size_bytes: u64,
    /// What it must be.
    pub blob: BlobId,
}

/// What is known of a channel since this process started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelNews {
    /// What it has for this box, newer than what runs or not.
    pub offer: Option<Offer>,
    /// When that is installed, as far as it can be told; `None` where it is not, or not by itself.
    pub planned: Option<SystemTime>,
    /// Whether that is about to happen: nobody should pull the plug.
    pub is_imminent: bool,
    /// What was wrong with the last look, the last transfer or the last attempt.
    pub trouble: Option<String>,
}

/// Why a channel is not believed, or gives nothing. Nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelTrouble {
    /// None is set.
    #[error("no channel is set: `refuge update channel set URL KEY`")]
    Unset,
    /// Its server does not answer, or not with a file.
    #[error("the channel cannot be read: {reason}")]
    Unreachable {
        /// What failed.
        reason: String,
    },
    /// It is larger than any channel.
    #[error("the file of the channel is larger than {limit} bytes: is the URL right?")]
    TooLarge {
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// It is no channel, or one of a format that this version does not know.
    #[error("this is no file of a channel that this version can read ({reason}): is the URL right?")]
    Format {
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else signed it.
    #[error(
        "the channel is signed by {found} and not by {pinned}: ask whoever makes it, then set the channel anew"
    )]
    OtherKey {
        /// By whom.
        found: ChannelKey,
        /// By whom it must be.
        pinned: ChannelKey,
    },
    /// It was changed after it was signed.
    #[error("the signature of the channel is not that of its key: somebody changed it")]
    Signature,
    /// It is older than one that was seen.
    #[error("the channel shows number {serial} and had {seen} before: somebody holds newer versions back")]
    Older {
        /// Its number.
        serial: u64,
        /// The highest that was seen.
        seen: u64,
    },
    /// There are two with one number.
    #[error("the channel shows another file than before under number {serial}: ask whoever makes it")]
    Twin {
        /// The number.
        serial: u64,
    },
    /// It should have been replaced long ago.
    #[error(
        "the channel has expired: whoever makes it has not renewed it, or somebody holds newer versions back"
    )]
    Expired,
    /// It has nothing for this kind of board.
    #[error("the channel has nothing for {own}")]
    OtherBoard {
        /// This box.
        own: String,
    },
    /// It has nothing newer than what runs.
    #[error("version {running} runs, and the channel has {version}")]
    NotNewer {
        /// What it has.
        version: Version,
        /// What runs.
        running: Version,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    format: u32,
    settings: Option<ChannelSettings>,
    seen: Option<ChannelSeen>,
    /// What that had for this box.
    newest: Option<Version>,
    /// When a file was believed last, or the channel was set.
    heard_s: i64,
    /// Versions that the box came back from, the oldest first.
    left: Vec<Version>,
}

/// The channel of a node; cloning is cheap.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    clock: Clock,
    events: Events,
    health: Health,
    state: Mutex<State>,
    news: Mutex<ChannelNews>,
    /// Rises with each change of the settings.
    settings_changed: watch::Sender<u64>,
}

impl Default for State {
    fn default() -> State {
        State {
            format: FORMAT,
            settings: None,
            seen: None,
            newest: None,
            heard_s: 0,
            left: Vec::new(),
        }
    }
}

impl Channel {
    /// What is kept in `folder`. Blocking. Where that is damaged there is no channel, and the health of the node says so: no file
    /// of a channel would be known to be older.
    pub(super) fn open(folder: &Path, clock: Clock, events: Events, health: Health) -> Channel {
        let path = folder.join("channel");
        let state = read(&path).unwrap_or_else(|reason| {
            tracing::error!(path = %path.display(), reason, "the channel of updates is not known");
            health.note(
                "channel state",
                Some(format!(
                    "the channel of updates is not known any more ({reason}): set it anew"
                )),
            );
            State::default()
        });
        let (settings_changed, _) = watch::channel(0);
        let channel = Channel {
            inner: Arc::new(Inner {
                path,
                clock,
                events,
                health,
                state: Mutex::new(state),
                news: Mutex::default(),
                settings_changed,
            }),
        };
        channel.say_silence();
        channel
    }

    /// How it is set; `None` where there is none.
    pub fn settings(&self) -> Option<ChannelSettings> {
        self.state().settings.clone()
    }

    /// Sets it, in place of what was set before. What was seen of a channel of the same key counts on. Durable on return.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`]: it is as before.
    pub async fn set(&self, settings: ChannelSettings) -> Result<(), Error> {
        let heard_s = unix_s(self.now());
        self.change(move |state| {
            let is_same = state
                .settings
                .as_ref()
                .is_some_and(|before| before.key == settings.key && before.url == settings.url);
            if !is_same {
                state.heard_s = heard_s;
            }
            if state.seen.take_if(|seen| seen.key != settings.key).is_some() {
                state.newest = None;
            }
            state.settings = Some(settings);
        })
        .await?;
        self.settings_changed();
        Ok(())
    }

    /// Forgets it, but not which number was seen. Durable on return.
    ///
    /// # Errors
    /// As [`Channel::set`].
    pub async fn remove(&self) -> Result<(), Error> {
        self.change(|state| state.settings = None).await?;
        self.settings_changed();
        Ok(())
    }

    /// Hears of changes of the settings.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.settings_changed.subscribe()
    }

    /// The newest file that was believed.
    pub fn seen(&self) -> Option<ChannelSeen> {
        self.state().seen.clone()
    }

    /// The version that the channel had for this box when it was believed last, where one is set: an older one is not installed, from
    /// wherever it comes, unless the owner says so.
    pub fn newest(&self) -> Option<Version> {
        let state = self.state();
        state.newest.clone().filter(|_| state.settings.is_some())
    }

    /// Takes note of a file that is believed, and of what it has for this box, before anything that it says is done. Durable on return.
    ///
    /// # Errors
    /// As [`Channel::set`]: do not do what it says.
    pub async fn believe(&self, seen: ChannelSeen, newest: Option<Version>) -> Result<(), Error> {
        let heard_s = unix_s(self.now());
        self.change(move |state| {
            // Another look may have believed a newer one meanwhile.
            if state
                .seen
                .as_ref()
                .is_none_or(|before| before.key != seen.key || before.serial <= seen.serial)
            {
                state.seen = Some(seen);
                state.newest = newest;
            }
            state.heard_s = heard_s;
        })
        .await
    }

    /// When a file was believed last, or the channel was set.
    pub fn heard(&self) -> SystemTime {
        from_unix_s(self.state().heard_s)
    }

    /// Versions that the box came back from: they are not installed without being asked for.
    pub fn left(&self) -> Vec<Version> {
        self.state().left.clone()
    }

    /// Takes note of a version that the box came back from. Durable on return; writes nothing where it is known.
    ///
    /// # Errors
    /// As [`Channel::set`].
    pub async fn leave(&self, version: Version) -> Result<(), Error> {
        if self.state().left.contains(&version) {
            return Ok(());
        }
        self.change(move |state| {
            state.left.push(version);
            let many = state.left.len().saturating_sub(LEFT_MAX);
            state.left.drain(..many);
        })
        .await
    }

    /// The time, no earlier than the node last ran: what has expired stays so while a clock without a battery says 1970.
    pub fn now(&self) -> SystemTime {
        self.inner.clock.now()
    }

    /// What is known of it since this process started.
    pub fn news(&self) -> ChannelNews {
        self.known().clone()
    }

    /// Takes note of what is known of it. Whoever hears events is told of what is planned, once.
    pub fn tell(&self, news: ChannelNews) {
        let before = std::mem::replace(&mut *self.known(), news.clone());
        let planned = |news: &ChannelNews| Some((news.offer.as_ref()?.version.clone(), news.planned?));
        if let Some((version, at)) = planned(&news) {
            let is_known =
                planned(&before).is_some_and(|(known, before)| known == version && is_about(at, before));
            if !is_known {
                self.inner.events.tell(Event::UpdatePlanned { version, at });
            }
        }
        self.say_silence();
    }

    /// Says in the health of the node where nothing was heard for long.
    fn say_silence(&self) {
        let (is_set, heard) = (self.settings().is_some(), self.heard());
        let silent = self.now().duration_since(heard).unwrap_or_default();
        let days = silent.as_secs() / (24 * 3600);
        let is_silent = is_set && silent > SILENT_MAX;
        let said = is_silent.then(|| {
            format!("nothing that can be trusted was heard of the channel of updates for {days} days")
        });
        self.inner.health.note("channel", said);
    }

    fn settings_changed(&self) {
        *self.known() = ChannelNews::default();
        self.inner.health.note("channel state", None);
        self.say_silence();
        self.inner.settings_changed.send_modify(|number| *number += 1);
    }

    async fn change(&self, change: impl FnOnce(&mut State) + Send + 'static) -> Result<(), Error> {
        let channel = self.clone();
        db::crossing(move || {
            // Held over the write, so that what is written last is what is known.
            let mut state = channel.state();
            let mut changed = state.clone();
            change(&mut changed);
            if changed != *state {
                let bytes = serde_json::to_vec(&changed).expect("plain fields");
                durable::replace(&channel.inner.path, &bytes)?;
                *state = changed;
            }
            Ok(())
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.inner.state.lock();
        state.expect("no thread panics while it holds the channel")
    }

    fn known(&self) -> MutexGuard<'_, ChannelNews> {
        let news = self.inner.news.lock();
        news.expect("no thread panics while it holds what is known of the channel")
    }
}

fn is_about(at: SystemTime, other: SystemTime) -> bool {
    let apart = at.duration_since(other).or_else(|_| other.duration_since(at));
    apart.is_ok_and(|apart| apart.as_secs() <= SAME_TIME_S)
}

fn read(path: &Path) -> Result<State, String> {
    let Some(found) = durable::read(path).map_err(|error| error.to_string())? else {
        return Ok(State::default());
    };
    let state: State = serde_json::from_slice(&found.payload).map_err(|error| error.to_string())?;
    match state.format == FORMAT {
        true => Ok(state),
        false => Err(format!("it has format {}", state.format)),
    }
}
