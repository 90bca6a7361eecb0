//! A box and its channel: asks it when the plan says so, keeps what was seen of it, and tells what is planned.
//!
//! Decides nothing: what is believed is decided in `channel.rs`, what is done when in `plan.rs`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::channel::{ChannelFile, FILE_BYTES_MAX};
use super::plan::{Action, Plan, Seen, Setback, Spread};
use super::redirect::follow;
use super::zone::{ZONE_BYTES_MAX, day_s};
use crate::http::{Method, Patience, Range, Request};
use crate::id::{BundleUrl, Version};
use crate::node::{
    ChannelNews, ChannelSettings, ChannelTrouble, Error, Node, Offer, Step, UpdateTrouble, Updates,
};

/// How soon what changed is dealt with: the window, what is stored, the time of day.
const THINK_EVERY: Duration = Duration::from_secs(60);

/// How long the answer of a channel may take, with all of its body: a page of text.
const LOOK_WITHIN: Duration = Duration::from_secs(60);

/// What the shell around has to do for the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Duty {
    /// Fetch this bundle and keep it.
    Fetch(Offer),
    /// Install it.
    Install(Offer),
}

/// A box's look at its channel.
pub(super) struct Watch {
    node: Node,
    /// Addresses that may be reached besides those of the public internet.
    allowed: Vec<Range>,
    /// The file of the box's time zone; empty for UTC.
    zone: Vec<u8>,
    plan: Plan,
    began: Instant,
    changes: watch::Receiver<u64>,
    offer: Option<Offer>,
    trouble: Option<String>,
}

impl Watch {
    /// With the time zone of the file at `localtime`, where there is one.
    pub(super) fn new(node: Node, allowed: Vec<Range>, localtime: &Path) -> Watch {
        let spread = Spread::of(&node.identity().node_id());
        Watch {
            changes: node.channel().changes(),
            plan: Plan::new(spread),
            began: Instant::now(),
            zone: read_zone(localtime),
            offer: None,
            trouble: None,
            allowed,
            node,
        }
    }

    /// Looks at the channel now and then, until something else has to be done. May be cancelled.
    pub(super) async fn due(&mut self, updates: &Updates) -> Duty {
        loop {
            let left = self.node.channel().left();
            let action = {
                let settings = self.node.channel().settings();
                let seen = self.seen(settings.as_ref(), updates, &left);
                self.plan.next(&seen)
            };
            self.tell(updates);
            match action {
                Action::Look => {
                    if let Err(error) = self.look(updates).await {
                        tracing::warn!(%error, "the channel of updates gives nothing");
                    }
                }
                Action::Fetch(offer) => return Duty::Fetch(offer),
                Action::Install(offer) => return Duty::Install(offer),
                Action::Wait => {
                    tokio::select! {
                        changed = self.changes.changed() => {
                            // Its sender lives as long as the node.
                            if changed.is_ok() {
                                self.set_anew();
                            }
                        }
                        () = sleep(THINK_EVERY) => {}
                    }
                }
            }
        }
    }

    /// Asks the channel what it has for this box, newer than what runs or not.
    ///
    /// # Errors
    /// [`Error::Channel`]: it is not set, not reached or not believed; as [`Channel::believe`](crate::node::Channel::believe).
    pub(super) async fn look(&mut self, updates: &Updates) -> Result<Offer, Error> {
        if self.changes.has_changed().unwrap_or(false) {
            self.changes.mark_unchanged();
            self.set_anew();
        }
        let looked = self.ask(updates).await;
        let now = self.began.elapsed();
        match &looked {
            Ok(offer) => {
                self.plan.looked(now, Ok(Some(offer)));
                (self.offer, self.trouble) = (Some(offer.clone()), None);
            }
            // It was heard, and has nothing.
            Err(error @ Error::Channel(ChannelTrouble::OtherBoard { .. })) => {
                self.plan.looked(now, Ok(None));
                (self.offer, self.trouble) = (None, Some(error.to_string()));
            }
            Err(error) => {
                self.plan.looked(now, Err(()));
                self.trouble = Some(error.to_string());
            }
        }
        self.tell(updates);
        looked
    }

    async fn ask(&self, updates: &Updates) -> Result<Offer, Error> {
        let channel = self.node.channel();
        let settings = channel.settings().ok_or(ChannelTrouble::Unset)?;
        let got = timeout(LOOK_WITHIN, get(&settings.url, &self.allowed)).await;
        let bytes = got.unwrap_or_else(|_| Err(away("it does not answer in time")))?;
        let file = ChannelFile::read(&bytes, settings.key, channel.seen().as_ref(), channel.now())?;
        let offer = file.offer(&updates.compatible, &settings.url);
        let version = offer.as_ref().ok().map(|offer| offer.version.clone());
        channel.believe(file.seen, version).await?;
        Ok(offer?)
    }

    /// What came of [`Duty::Fetch`].
    pub(super) fn fetched(&mut self, done: &Result<(), Error>) {
        self.trouble = done.as_ref().err().map(ToString::to_string);
        // Also where it is another bundle: a server may be slow to have the new one.
        let done = done.as_ref().map_or(Err(()), |()| Ok(()));
        self.plan.fetched(self.began.elapsed(), done);
    }

    /// Why [`Duty::Install`] did not bring the box to its restart.
    pub(super) fn not_installed(&mut self, error: &Error) {
        self.trouble = Some(error.to_string());
        self.plan.installed(self.began.elapsed(), setback(error));
    }

    fn set_anew(&mut self) {
        self.plan.set_anew(self.began.elapsed());
        (self.offer, self.trouble) = (None, None);
    }

    fn seen<'a>(
        &self,
        settings: Option<&ChannelSettings>,
        updates: &'a Updates,
        left: &'a [Version],
    ) -> Seen<'a> {
        Seen {
            now: self.began.elapsed(),
            day_s: day_s(&self.zone, unix_s(self.node.channel().now())),
            wanted: settings.map(|settings| settings.automatic.then_some(settings.window)),
            is_free: updates.step == Step::Idle,
            quiet: self.node.activity().quiet(),
            running: &updates.running,
            left,
        }
    }

    fn tell(&self, updates: &Updates) {
        let channel = self.node.channel();
        let (settings, left) = (channel.settings(), channel.left());
        let seen = self.seen(settings.as_ref(), updates, &left);
        channel.tell(ChannelNews {
            offer: self.offer.clone(),
            planned: self.plan.planned(&seen).map(|wait| channel.now() + wait),
            is_imminent: self.plan.is_imminent(&seen),
            trouble: self.trouble.clone(),
        });
    }
}

/// Takes note of the versions that a box came back from: by itself, or because its owner wanted so.
pub(super) async fn note_left(node: &Node, updates: &Updates) {
    let failed = updates
        .last
        .as_ref()
        .filter(|last| !last.is_good())
        .map(|last| &last.version);
    let newer = updates
        .before
        .as_ref()
        .filter(|before| **before > updates.running);
    for version in failed.into_iter().chain(newer) {
        if let Err(error) = node.channel().leave(version.clone()).await {
            tracing::warn!(%error, %version, "that the box came back from this version is not written down");
        }
    }
}

/// Who made a bundle and what for does not change; all else may.
fn setback(error: &Error) -> Setback {
    let is_for_ever = matches!(
        error,
        Error::Update(
            UpdateTrouble::Bundle { .. }
                | UpdateTrouble::OtherBoard { .. }
                | UpdateTrouble::Older { .. }
                | UpdateTrouble::Withheld { .. }
        )
    );
    if is_for_ever {
        Setback::Never
    } else {
        Setback::Later
    }
}

async fn get(url: &BundleUrl, allowed: &[Range]) -> Result<Vec<u8>, ChannelTrouble> {
    let asked = follow(url, allowed, |path| {
        Request::new(Method::GET, path).patience(Patience::Of(LOOK_WITHIN))
    });
    let answer = asked.await.map_err(|astray| away(&astray))?.response;
    let limit = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
    answer.whole(limit).await.map_err(|error| match error {
        crate::http::Error::Unexpected { .. } => ChannelTrouble::TooLarge {
            limit: FILE_BYTES_MAX,
        },
        error => away(&error),
    })
}

fn away(reason: &(impl std::fmt::Display + ?Sized)) -> ChannelTrouble {
    ChannelTrouble::Unreachable {
        reason: reason.to_string(),
    }
}

/// What is no zone is UTC.
fn read_zone(path: &Path) -> Vec<u8> {
    let mut zone = Vec::new();
    let read = File::open(path).and_then(|file| file.take(ZONE_BYTES_MAX).read_to_end(&mut zone));
    if let Err(error) = read {
        tracing::debug!(%error, path = %path.display(), "the box has no time zone");
    }
    zone
}

fn unix_s(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
