//! Updates of the box's system: a signed bundle goes into the slot that does not run, the box starts from it, and goes back by
//! itself where the new system does not prove that the data is well.
//!
//! ```text
//!           order                ready          all sent        RAUC took it      100 %
//!   idle ──────────> transferring ──> checking ──────────> installing ──> restarting
//!     ^  refused: why  │                │                    │               │ boot loader: the other slot first, 3 attempts
//!     └────────────────┴────────────────┴────────────────────┘               v
//!     ^                                            good: slot marked       trying
//!     ├──────────────────────────────────────────────────────────────────────┤
//!     └──── old slot again: why ──────────────── bad, or 3 attempts used up ─┘
//! ```
//!
//! The node knows the bundle as a blob and asks; what is done, is done by root in a process of its own (`updater.rs`, over
//! `wire.rs`), started by the service manager for each command. It knows from `record.rs` what is on trial, and `judge.rs` says
//! when that has proved itself. RAUC verifies and writes; only root may speak with it.

mod judge;
mod record;
mod said;
mod system;
#[cfg(test)]
mod tests;
mod updater;
mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

pub use updater::{UpdaterStep, answer, step};

use self::wire::{Answer, Client, Command, Exchange};
use super::Ended;
use crate::node::{
    Asked, Done, Error, Installation, Node, Order, Progress, Reading, Source, Step, UpdateTrouble, Updates,
};

/// Where the updater is reached.
pub const UPDATER_SOCKET: &str = "/run/refuge/updater.sock";

/// How soon a node that is on trial hears that it was judged.
const JUDGED_EVERY: Duration = Duration::from_secs(3);

/// The node's side of updates.
pub(super) struct Updating {
    node: Node,
    updater: Client,
    updates: Updates,
}

impl Updating {
    /// Looks after updates until it is dropped, or until the node has to be started anew. What the updater was told is done all the
    /// same. Does nothing where there is no updater.
    pub(super) async fn run(node: Node, socket: PathBuf, mut orders: mpsc::Receiver<Asked>) -> Ended {
        let updater = Client { socket };
        let mut updating = match Updating::open(node, updater).await {
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
        while let Some(asked) = orders.recv().await {
            updating.obey(asked).await;
        }
        Ended::Shutdown
    }

    async fn open(node: Node, updater: Client) -> Result<Updating, UpdateTrouble> {
        let updates = ask_state(&updater).await?;
        node.board().tell_updates(updates.clone());
        Ok(Updating {
            node,
            updater,
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

    async fn obey(&mut self, asked: Asked) {
        match asked.order.clone() {
            Order::Install(wanted) => self.obey_install(asked, wanted).await,
            Order::Check => asked.answer(Ok(Done::Bundles(Vec::new()))),
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

    /// Answers when the updater has room for the bundle; what comes of it is told by [`Updates`].
    async fn obey_install(&mut self, asked: Asked, wanted: Installation) {
        let begun = self.begin(&wanted).await;
        let (reading, exchange) = match begun {
            Ok(begun) => begun,
            Err(error) => return asked.answer(Err(error)),
        };
        asked.answer(Ok(Done::Done));
        match self.install(reading, exchange).await {
            Ok(()) => self.step(Step::Restarting),
            Err(trouble) => {
                tracing::warn!(%trouble, "the update was not installed");
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
        }
    }

    async fn begin(&mut self, wanted: &Installation) -> Result<(Reading, Exchange), Error> {
        let Source::Blob { store, blob } = &wanted.source else {
            let reason = "not yet".to_owned();
            return Err(UpdateTrouble::Away {
                from: wanted.source.to_string(),
                reason,
            }
            .into());
        };
        let reading = self.node.stores().get(store)?.get(*blob).await?;
        let mut exchange = self
            .updater
            .begin(&Command::Install {
                size_bytes: reading.stat().len,
                may_be_older: wanted.may_be_older,
            })
            .await?;
        // Ready, or why not.
        exchange.next().await?;
        self.updates.refused = None;
        self.step(Step::Transferring(Progress {
            done: 0,
            total: reading.stat().len,
            elapsed: Duration::ZERO,
        }));
        Ok((reading, exchange))
    }

    async fn install(&mut self, mut reading: Reading, mut exchange: Exchange) -> Result<(), UpdateTrouble> {
        self.transfer(&mut reading, &mut exchange).await?;
        let began = Instant::now();
        loop {
            match exchange.next().await? {
                Answer::Checking | Answer::Ready => self.step(Step::Checking),
                Answer::Installing { percent } => self.step(Step::Installing(Progress {
                    done: percent.into(),
                    total: 100,
                    elapsed: began.elapsed(),
                })),
                Answer::Restarting | Answer::Done | Answer::State { .. } => return Ok(()),
                Answer::Trouble { trouble } => return Err(trouble),
            }
        }
    }

    async fn transfer(
        &mut self,
        reading: &mut Reading,
        exchange: &mut Exchange,
    ) -> Result<(), UpdateTrouble> {
        let began = Instant::now();
        let mut done = 0;
        while done < reading.stat().len {
            let piece = reading.read_at(done).await;
            let piece = piece.map_err(|error| UpdateTrouble::Bundle {
                reason: error.to_string(),
            })?;
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
                total: reading.stat().len,
                elapsed: began.elapsed(),
            }));
        }
        Ok(())
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
            slot,
            is_on_trial,
            last,
            before,
        } => Ok(Updates {
            running,
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
