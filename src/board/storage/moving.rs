//! Stores that move between the card and disks: when to go on with one, and what has to be mounted for it.
//!
//! The node carries blobs and knows where they are ([`crate::node::Stores::begin_move`]); here the disk is brought, and let go of
//! after. One store moves at a time. An attempt that fails is repeated once something was plugged or pulled, or after a minute.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::watch::{AGAIN_AFTER, MountState};
use super::{Answer, Command, Storage, disk_at, disk_path, mount_state, store_path, unexpected};
use crate::id::{DiskName, DiskUuid, StoreName};
use crate::node::{BackendSettings, Done, Error, Holds, MoveInfo, MoveTo, StoreInfo};

type Work = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// What is remembered of moves.
#[derive(Default)]
pub(super) struct Moves {
    running: Option<Running>,
    /// The last attempt of each, and what was plugged in then.
    tried: BTreeMap<StoreName, (Duration, Vec<String>)>,
}

/// An attempt under way. Dropped, it ends at the next blob.
struct Running {
    store: StoreName,
    from: Option<DiskUuid>,
    to: Option<DiskUuid>,
    stop: Arc<AtomicBool>,
    /// Nobody else holds the lock: it only makes what can be sent between threads something that can be seen from several.
    work: Mutex<Work>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Storage {
    /// Has a store move: what follows is done by the next looks.
    pub(super) async fn begin_move(&mut self, store: &StoreName, to: MoveTo) -> Result<Done, Error> {
        let backend = match to {
            MoveTo::Card => BackendSettings::Haystack { volume_bytes: 0 },
            MoveTo::Disk(disk) => {
                let uuid = self.adopted(&disk).await?;
                self.mounted(&uuid).await?;
                BackendSettings::Fs {
                    path: Some(store_path(&self.places.disks, &uuid)),
                    shared: false,
                }
            }
        };
        self.node.stores().begin_move(store, backend).await?;
        self.moves.tried.remove(store);
        Ok(Done::Done)
    }

    /// The file system of a disk that is one of ours.
    async fn adopted(&self, disk: &DiskName) -> Result<DiskUuid, Error> {
        let disks = match self.helper.ask(&Command::Disks).await? {
            Answer::Disks { disks } => disks,
            other => return Err(unexpected(&other)),
        };
        let found = disks.into_iter().find(|found| found.name == *disk);
        match found.ok_or(crate::node::DiskTrouble::Absent)?.holds {
            Holds::Refuge { uuid } => Ok(uuid),
            Holds::System | Holds::Nothing | Holds::Foreign { .. } => Err(Error::Invalid {
                what: "to",
                reason: format!("{disk} was not adopted: do that first, with its serial"),
            }),
        }
    }

    /// Mounts a disk; what is left of it from before it was pulled, or failed, goes first.
    async fn mounted(&self, uuid: &DiskUuid) -> Result<(), Error> {
        match mount_state(&disk_path(&self.places.disks, uuid), &self.places) {
            MountState::Alive => return Ok(()),
            MountState::None => {}
            MountState::Dead | MountState::ReadOnly => self.release(uuid, true).await?,
        }
        let command = Command::Mount { uuid: uuid.clone() };
        self.helper.ask(&command).await?;
        Ok(())
    }

    async fn release(&self, uuid: &DiskUuid, is_pulled: bool) -> Result<(), Error> {
        let uuid = uuid.clone();
        self.helper.ask(&Command::Release { uuid, is_pulled }).await?;
        Ok(())
    }

    /// Goes on with a store that is to move, where that is due.
    pub(super) async fn go_on(&mut self, present: &[String], now: Duration) {
        if self.moves.running.is_some() {
            return;
        }
        let stores = self.node.stores().list();
        self.moves.tried.retain(|store, _| {
            stores
                .iter()
                .any(|info| info.name == *store && info.moving.is_some())
        });
        let due = stores
            .into_iter()
            .find_map(|info| Some((self.is_due(&info, present, now)?.to, info)));
        let Some((to, info)) = due else {
            return;
        };
        self.moves
            .tried
            .insert(info.name.clone(), (now, present.to_vec()));
        let to = disk_at(&to, &self.places.disks);
        if let Some(uuid) = &to {
            match self.mounted(uuid).await {
                Ok(()) => {}
                Err(Error::Disk(crate::node::DiskTrouble::Absent)) => return,
                Err(error) => {
                    tracing::warn!(store = %info.name, %error, "a store does not move on");
                    return;
                }
            }
        }
        tracing::info!(store = %info.name, "a store moves: its blobs are carried");
        let stop = Arc::new(AtomicBool::new(false));
        let work: Work = {
            let (stores, store, stop) = (self.node.stores().clone(), info.name.clone(), Arc::clone(&stop));
            Box::pin(async move { stores.carry_on(&store, stop).await })
        };
        self.moves.running = Some(Running {
            from: disk_at(&info.settings.backend, &self.places.disks),
            store: info.name,
            to,
            stop,
            work: Mutex::new(work),
        });
    }

    fn is_due(&self, info: &StoreInfo, present: &[String], now: Duration) -> Option<MoveInfo> {
        let moving = info.moving.clone().filter(|_| info.offline.is_none())?;
        let tried = self.moves.tried.get(&info.name);
        tried
            .is_none_or(|(at, before)| before != present || now.saturating_sub(*at) >= AGAIN_AFTER)
            .then_some(moving)
    }

    /// Returns when the attempt under way has ended; never where there is none. May be cancelled.
    pub(in crate::board) async fn attempt(&mut self) -> Result<(), Error> {
        match &mut self.moves.running {
            Some(running) => {
                let work = running.work.get_mut().unwrap_or_else(PoisonError::into_inner);
                work.as_mut().await
            }
            None => std::future::pending().await,
        }
    }

    /// Lets go of the disk that is not needed any more after an attempt.
    pub(in crate::board) async fn attempted(&mut self, done: Result<(), Error>) {
        let Some(running) = self.moves.running.take() else {
            return;
        };
        let (unused, is_pulled) = match &done {
            Ok(()) => (&running.from, false),
            // It may have gone in the middle of it.
            Err(_) => (&running.to, true),
        };
        match &done {
            Ok(()) => tracing::info!(store = %running.store, "a store has moved"),
            Err(error) => tracing::warn!(store = %running.store, %error, "a store does not move on"),
        }
        if let Some(uuid) = unused
            && let Err(error) = self.release(uuid, is_pulled).await
        {
            tracing::warn!(disk = %uuid, %error, "a disk that is not used stays mounted");
        }
    }
}
