//! Updates of the box's system: a signed bundle goes into the slot that does not run, the box starts from it, and goes back by
//! itself where the new system does not prove that the data is well.
//!
//! ```text
//!         order           it came         all sent        RAUC took it      100 %
//!   idle ──────> fetching ──────> transferring ──> checking ──────────> installing ──> restarting
//!     ^ refused:   │                │               │                    │               │ boot loader: the other slot first,
//!     │ why        │                │               │                    │               v 3 attempts
//!     └────────────┴────────────────┴───────────────┴────────────────────┘
//!     ^                                            good: slot marked       trying
//!     ├──────────────────────────────────────────────────────────────────────┤
//!     └──── old slot again: why ──────────────── bad, or 3 attempts used up ─┘
//! ```
//!
//! The node brings the bundle from its source (`fetch.rs`) and asks; what is done, is done by root in a process of its own (`updater.rs`, over
//! `wire.rs`), started by the service manager for each command. It knows from `record.rs` what is on trial, and `judge.rs` says
//! when that has proved itself. RAUC verifies and writes; only root may speak with it.

mod channel;
mod fetch;
mod judge;
mod own;
mod plan;
mod record;
mod redirect;
mod said;
mod system;
#[cfg(test)]
mod tests;
mod updater;
mod watch;
mod wire;
mod zone;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

pub use updater::{UpdaterStep, answer, step};

use self::fetch::{Found, Ways};
use self::own::Own;
use self::watch::{Duty, Watch};
use self::wire::{Answer, Client, Command, Exchange};
use super::{Ended, privileged};
use crate::http::Range;
use crate::node::{
    Arriving, Asked, Done, Error, Installation, Node, Order, Progress, Source, Step, UpdateTrouble, Updates,
};

/// Where the updater is reached.
pub const UPDATER_SOCKET: &str = "/run/refuge/updater.sock";

/// Made by refuge-data.service at a start where the record names a trial: without it root need not be asked, which takes a process.
pub(super) const ON_TRIAL: &str = "/run/refuge/on-trial";

/// How soon a node that is on trial hears that it was judged.
const JUDGED_EVERY: Duration = Duration::from_secs(3);

/// What updates are done with.
pub(super) struct Reach {
    /// Where the updater is reached.
    pub(super) updater: PathBuf,
    /// Where the helper is reached, which reads disks.
    pub(super) helper: PathBuf,
    /// Addresses that may be reached besides those of the public internet, and of the local network for other boxes.
    pub(super) allowed: Vec<Range>,
    /// The file of the box's time zone.
    pub(super) localtime: PathBuf,
}

/// The node's side of updates.
pub(super) struct Updating {
    node: Node,
    updater: Client,
    ways: Ways,
    updates: Updates,
}

impl Updating {
    /// Looks after updates until it is dropped, or until the node has to be started anew. What the updater was told is done all the
    /// same. Does nothing where there is no updater.
    pub(super) async fn run(node: Node, reach: Reach, mut orders: mpsc::Receiver<Asked>) -> Ended {
        let mut watch = Watch::new(node.clone(), reach.allowed.clone(), &reach.localtime);
        let mut updating = match Updating::open(node, reach).await {
            Ok(updating) => updating,
            Err(trouble) => {
                tracing::info!(%trouble, "this box is not updated by its node");
                refuse_all(orders, &trouble).await;
                return Ended::Shutdown;
            }
        };
        if updating.updates.step == Step::Trying {
            updating.prove().await;
            if updating.node.waits_to_rise() {
                return Ended::Proved;
            }
        }
        updating.settle().await;
        watch::note_left(&updating.node, &updating.updates).await;
        while updating.serve(&mut orders, &mut watch).await {}
        Ended::Shutdown
    }

    /// Does one thing: what is ordered, or what is due by the channel. Says whether there may be more.
    async fn serve(&mut self, orders: &mut mpsc::Receiver<Asked>, watch: &mut Watch) -> bool {
        let asked = tokio::select! {
            asked = orders.recv() => asked,
            duty = watch.due(&self.updates) => match duty {
                Duty::Fetch(offer) => {
                    let source = Source::from(offer);
                    tokio::select! {
                        // What came is kept, and goes on later.
                        asked = orders.recv() => asked,
                        fetched = self.fetch(&source) => {
                            watch.fetched(&fetched);
                            return true;
                        }
                    }
                }
                Duty::Install(offer) => {
                    let wanted = Installation { source: offer.into(), may_be_older: false };
                    tracing::info!(source = %wanted.source, "the box installs what its channel has");
                    if let Err(error) = self.install_wanted(&wanted).await {
                        watch.not_installed(&error);
                    }
                    return true;
                }
            },
        };
        match asked {
            Some(asked) => {
                self.obey(asked, watch).await;
                true
            }
            None => false,
        }
    }

    /// Brings a bundle and keeps it: it is installed later. If cancelled, what came is kept.
    async fn fetch(&self, source: &Source) -> Result<(), Error> {
        let own = self.own(false);
        let found = self.ways.open(source, &own).await;
        let found = found.map_err(|failure| failure.told(source))?;
        let arriving = self.ways.begin(found.coming()).await?;
        let fetched = self
            .ways
            .fetch(source, &own, (found, arriving), &mut |_| {})
            .await;
        if matches!(fetched, Err(Error::Update(UpdateTrouble::Bundle { .. }))) {
            self.node.bundles().forget().await?;
        }
        fetched
    }

    /// Installs without anybody who waits for an answer; returns when the box restarts, or why it does not.
    async fn install_wanted(&mut self, wanted: &Installation) -> Result<(), Error> {
        let own = self.own(wanted.may_be_older);
        let begun = self.begin(&wanted.source, &own).await?;
        self.finish(wanted, &own, begun).await.map_err(Error::from)
    }

    async fn open(node: Node, reach: Reach) -> Result<Updating, UpdateTrouble> {
        let updater = Client {
            socket: reach.updater,
        };
        let updates = ask_state(&updater).await?;
        node.board().tell_updates(updates.clone());
        let ways = Ways {
            node: node.clone(),
            allowed: reach.allowed,
            helper: privileged::Client { socket: reach.helper },
        };
        Ok(Updating {
            node,
            updater,
            ways,
            updates,
        })
    }

    /// On trial: has the node examine itself, and waits for the verdict. Where that is a bad one the box starts anew meanwhile.
    async fn prove(&mut self) {
        let reasons = self.node.examine().await;
        for reason in &reasons {
            tracing::error!(%reason, "after an update");
        }
        if let Err(trouble) = self.updater.ask(&Command::Examined { reasons }).await {
            tracing::error!(%trouble, "the node cannot say how it is");
        }
        let mut ticks = interval(JUDGED_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.updates.step == Step::Trying {
            ticks.tick().await;
            match ask_state(&self.updater).await {
                Ok(updates) => self.set(updates),
                Err(trouble) => tracing::warn!(%trouble, "nobody says whether this system is good"),
            }
        }
    }

    /// The system that runs is good: its bundle is kept for others, where it is at hand.
    async fn settle(&self) {
        let (running, compatible) = (self.updates.running.clone(), self.updates.compatible.clone());
        if let Err(error) = self.node.bundles().settle(running, compatible).await {
            tracing::warn!(%error, "the bundle that runs is not kept for others");
        }
    }

    async fn obey(&mut self, asked: Asked, watch: &mut Watch) {
        match asked.order.clone() {
            Order::Install(wanted) => self.obey_install(asked, wanted).await,
            Order::Check => {
                let found = self.ways.look(&self.own(false)).await;
                asked.answer(Ok(Done::Bundles(found)));
            }
            Order::Look => {
                let offer = watch.look(&self.updates).await;
                asked.answer(offer.map(|offer| Done::Offer(Box::new(offer))));
            }
            Order::Rollback => {
                let rolled_back = self.updater.ask(&Command::Rollback).await;
                if rolled_back.is_ok() {
                    self.step(Step::Restarting);
                }
                asked.answer(rolled_back.map(|_| Done::Done).map_err(Error::from));
            }
            Order::Identify
            | Order::Reset
            | Order::Disks
            | Order::Adopt(_)
            | Order::Eject(_)
            | Order::Move { .. } => {
                asked.answer(Ok(Done::Done));
            }
        }
    }

    fn own(&self, may_be_older: bool) -> Own {
        Own {
            running: self.updates.running.clone(),
            compatible: self.updates.compatible.clone(),
            may_be_older,
            channel: self.node.channel().newest(),
        }
    }

    /// Answers when the bundle was found and there is room for it; what comes of it is told by [`Updates`].
    async fn obey_install(&mut self, asked: Asked, wanted: Installation) {
        let own = self.own(wanted.may_be_older);
        let begun = match self.begin(&wanted.source, &own).await {
            Ok(begun) => begun,
            Err(error) => return asked.answer(Err(error)),
        };
        asked.answer(Ok(Done::Done));
        // Why it was not done is told as what was refused.
        let _ = self.finish(&wanted, &own, begun).await;
    }

    /// From a bundle that was found to the restart of the box.
    async fn finish(
        &mut self,
        wanted: &Installation,
        own: &Own,
        begun: (Found, Arriving),
    ) -> Result<(), UpdateTrouble> {
        let done = self.bring_and_install(wanted, own, begun).await;
        match &done {
            Ok(()) => self.step(Step::Restarting),
            Err(trouble) => self.refused(trouble.clone()).await,
        }
        done
    }

    async fn begin(&mut self, source: &Source, own: &Own) -> Result<(Found, Arriving), Error> {
        let found = self.ways.open(source, own).await;
        let found = found.map_err(|failure| failure.told(source))?;
        let arriving = self.ways.begin(found.coming()).await?;
        self.updates.refused = None;
        self.step(Step::Fetching(Progress {
            done: arriving.received(),
            total: found.size_bytes(),
            before: arriving.received(),
            elapsed: Duration::ZERO,
        }));
        Ok((found, arriving))
    }

    async fn bring_and_install(
        &mut self,
        wanted: &Installation,
        own: &Own,
        begun: (Found, Arriving),
    ) -> Result<(), UpdateTrouble> {
        let size_bytes = begun.0.size_bytes();
        let (node, updates) = (&self.node, &mut self.updates);
        let mut tell = |progress| {
            updates.step = Step::Fetching(progress);
            node.board().tell_updates(updates.clone());
        };
        let fetched = self.ways.fetch(&wanted.source, own, begun, &mut tell).await;
        fetched.map_err(trouble_of)?;
        let mut exchange = self
            .updater
            .begin(&Command::Install {
                size_bytes,
                may_be_older: own.may_be_older,
                channel: own.channel.clone(),
            })
            .await?;
        // Ready, or why not.
        exchange.next().await?;
        self.transfer(size_bytes, &mut exchange).await?;
        self.install(exchange).await
    }

    async fn install(&mut self, mut exchange: Exchange) -> Result<(), UpdateTrouble> {
        let began = Instant::now();
        loop {
            match exchange.next().await? {
                Answer::Checking | Answer::Ready => self.step(Step::Checking),
                Answer::Found { version } => {
                    // It is what others may have, once it has proved itself; if that cannot be noted they will not.
                    if let Err(error) = self.node.bundles().found(version).await {
                        tracing::warn!(%error, "this bundle will not be kept for others");
                    }
                }
                Answer::Installing { percent } => self.step(Step::Installing(Progress {
                    done: percent.into(),
                    total: 100,
                    before: 0,
                    elapsed: began.elapsed(),
                })),
                Answer::Restarting | Answer::Done | Answer::State { .. } => return Ok(()),
                Answer::Trouble { trouble } => return Err(trouble),
            }
        }
    }

    async fn transfer(&mut self, size_bytes: u64, exchange: &mut Exchange) -> Result<(), UpdateTrouble> {
        let began = Instant::now();
        let mut done = 0;
        while done < size_bytes {
            let piece = self.node.bundles().came(done).await.map_err(trouble_of)?;
            if piece.is_empty() {
                return Err(UpdateTrouble::Bundle {
                    reason: "it became shorter while it was read".to_owned(),
                });
            }
            done += piece.len() as u64;
            if exchange.send(&piece).await.is_err() {
                // Its last answer says why it hears no more.
                return match exchange.next().await {
                    Err(trouble) => Err(trouble),
                    Ok(_) => Err(UpdateTrouble::NoHelper {
                        reason: "it ended early".to_owned(),
                    }),
                };
            }
            self.step(Step::Transferring(Progress {
                done,
                total: size_bytes,
                before: 0,
                elapsed: began.elapsed(),
            }));
        }
        Ok(())
    }

    /// What only came for this is removed, but for what may still go on.
    async fn refused(&mut self, trouble: UpdateTrouble) {
        tracing::warn!(%trouble, "the update was not installed");
        if !matches!(trouble, UpdateTrouble::Away { .. })
            && let Err(error) = self.node.bundles().forget().await
        {
            tracing::warn!(%error, "a bundle that was refused stays behind");
        }
        self.updates.refused = Some(trouble);
        // The slot that does not run may have been overwritten: what can be gone back to is asked again.
        match ask_state(&self.updater).await {
            Ok(updates) => {
                let refused = self.updates.refused.take();
                self.set(Updates { refused, ..updates });
            }
            Err(_) => self.step(Step::Idle),
        }
    }

    fn step(&mut self, step: Step) {
        self.updates.step = step;
        self.node.board().tell_updates(self.updates.clone());
    }

    fn set(&mut self, updates: Updates) {
        self.updates = updates;
        self.node.board().tell_updates(self.updates.clone());
    }
}

/// Why a bundle did not come, or could not be read again.
fn trouble_of(error: Error) -> UpdateTrouble {
    match error {
        Error::Update(trouble) => trouble,
        other => UpdateTrouble::Failed {
            program: "transfer".to_owned(),
            reason: other.to_string(),
        },
    }
}

/// Whether the system that runs is not judged yet; not where nobody says so.
pub(super) async fn is_on_trial(socket: PathBuf) -> bool {
    let asked = ask_state(&Client { socket }).await;
    asked.is_ok_and(|updates| updates.step == Step::Trying)
}

/// How the system is, as root has it.
async fn ask_state(updater: &Client) -> Result<Updates, UpdateTrouble> {
    match updater.ask(&Command::State).await? {
        Answer::State {
            running,
            compatible,
            slot,
            is_on_trial,
            last,
            before,
        } => Ok(Updates {
            running,
            compatible,
            slot,
            step: if is_on_trial { Step::Trying } else { Step::Idle },
            refused: None,
            last,
            before,
        }),
        other => Err(UpdateTrouble::NoHelper {
            reason: format!("it answered {other:?}"),
        }),
    }
}

async fn refuse_all(mut orders: mpsc::Receiver<Asked>, trouble: &UpdateTrouble) {
    while let Some(asked) = orders.recv().await {
        asked.answer(Err(trouble.clone().into()));
    }
}
