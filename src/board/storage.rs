//! Stores on disks of their own: adopted, ejected, gone when pulled and back when plugged in.
//!
//! A disk becomes a *named store* beside `main`, or a store that is there already moves onto it (`moving.rs`), `main` as well: the
//! node starts, knows who it is and answers without the disk, and says of the store that it is offline. Its blobs lie on the disk
//! as one file each, which any Linux reads; its refs stay with the node. Which disks are wanted is said by the stores themselves:
//! one whose folder is `DISKS/UUID/store` is on the disk with that file system, and on no other.
//!
//! ```text
//! look ─> watch (pure) ─> pulled   close the store: 503      helper: unmount what is left
//!                     ├─> bring    helper: check, mount ───> open the store
//!                     └─> failed   close, unmount, check, mount, open
//! ```

pub(super) mod disks;
pub(super) mod mounts;
mod moving;
pub(super) mod signature;
mod watch;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};

use self::moving::Moves;
use self::watch::{DiskStore, MountState, Step, Watch};
use super::privileged::{Answer, Client, Command, disk_path};
use crate::id::{DiskUuid, StoreName};
use crate::node::{
    Adoption, BackendSettings, DiskTrouble, Done, Error, Kind, Node, Order, StoreInfo, StoreSettings,
};

/// The folder of a store on its disk; beside it are the file system's own.
const STORE_FOLDER: &str = "store";

/// Where the disks of stores are, and who mounts them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) disks: PathBuf,
    pub(super) sys: PathBuf,
    pub(super) helper: PathBuf,
}

/// The disks of a node.
pub(super) struct Storage {
    node: Node,
    places: Places,
    helper: Client,
    watch: Watch,
    moves: Moves,
}

impl Storage {
    pub(super) fn new(node: Node, places: Places) -> Storage {
        Storage {
            node,
            helper: Client {
                socket: places.helper.clone(),
            },
            places,
            watch: Watch::default(),
            moves: Moves::default(),
        }
    }

    /// Looks at the disks of stores, and does what is due. Call it every few seconds; may take minutes where a disk has to be
    /// checked. If cancelled, the next look goes on.
    pub(super) async fn look(&mut self, now: Duration) {
        let stores = self.stores();
        let is_moving = |info: &StoreInfo| info.moving.is_some();
        if stores.is_empty() && !self.node.stores().list().iter().any(is_moving) {
            return;
        }
        let present = disks::present(&self.places.sys);
        for (one, step) in self.watch.look(&stores, &present, now) {
            let done = match step {
                Step::Pulled => self.close(&one, "its disk was pulled", true).await,
                Step::Open => self.open(&one).await,
                Step::Bring => self.bring(&one).await,
                Step::Failed => self.mend(&one).await,
            };
            match (done, step) {
                (Ok(()), Step::Pulled) => {
                    tracing::warn!(store = %one.store, "the disk of a store was pulled")
                }
                (Ok(()), _) => tracing::info!(store = %one.store, "a store is back, with its disk"),
                (Err(Error::Disk(DiskTrouble::Absent)), _) => {}
                (Err(error), _) => {
                    tracing::warn!(store = %one.store, %error, "the disk of a store is not used")
                }
            }
        }
        self.go_on(&present, now).await;
    }

    /// Does an order about disks.
    pub(super) async fn obey(&mut self, order: Order) -> Result<Done, Error> {
        match order {
            Order::Disks => self.list().await,
            Order::Adopt(adoption) => self.adopt(adoption).await,
            Order::Eject(store) => self.eject(&store).await,
            Order::Move { store, to } => self.begin_move(&store, to).await,
            Order::Identify
            | Order::Reset
            | Order::Check
            | Order::Look
            | Order::Install(_)
            | Order::Rollback => Ok(Done::Done),
        }
    }

    async fn list(&self) -> Result<Done, Error> {
        match self.helper.ask(&Command::Disks).await? {
            Answer::Disks { disks } => Ok(Done::Disks(disks)),
            other => Err(unexpected(&other)),
        }
    }

    async fn adopt(&mut self, adoption: Adoption) -> Result<Done, Error> {
        let command = Command::Adopt {
            disk: adoption.disk,
            serial: adoption.serial,
            may_format: adoption.may_format,
        };
        let uuid = match self.helper.ask(&command).await? {
            Answer::Mounted { uuid } => uuid,
            other => return Err(unexpected(&other)),
        };
        self.watch.adopt(&uuid);
        let known = self.stores().into_iter().find(|one| one.uuid == uuid);
        if let Some(known) = known {
            self.open(&known).await?;
            return Ok(Done::Store(known.store));
        }
        let settings = StoreSettings {
            backend: BackendSettings::Fs {
                path: Some(store_path(&self.places.disks, &uuid)),
                shared: false,
            },
            compression: 0,
        };
        let added = self.node.stores().add(adoption.store.clone(), settings).await;
        if let Err(error) = added {
            // It is nobody's disk then, and best not mounted.
            let release = Command::Release {
                uuid,
                is_pulled: false,
            };
            if let Err(trouble) = self.helper.ask(&release).await {
                tracing::warn!(%trouble, "a disk that is not used stays mounted");
            }
            return Err(error);
        }
        Ok(Done::Store(adoption.store))
    }

    async fn eject(&mut self, store: &StoreName) -> Result<Done, Error> {
        let found = self.stores().into_iter().find(|one| one.store == *store);
        let one = found.ok_or_else(|| Error::Missing {
            kind: Kind::Store,
            name: format!("{store} on a disk of its own"),
        })?;
        self.watch.eject(&one.uuid, &disks::present(&self.places.sys));
        let closed = self.close(&one, "its disk was ejected", false).await;
        if closed.is_err() {
            // What is under way goes on, and so does the store.
            self.watch.adopt(&one.uuid);
            self.open(&one).await?;
        }
        closed.map(|()| Done::Done)
    }

    /// Takes the store away from whoever uses it, then its disk.
    async fn close(&self, one: &DiskStore, reason: &str, is_pulled: bool) -> Result<(), Error> {
        self.node.stores().close(&one.store, reason).await?;
        let command = Command::Release {
            uuid: one.uuid.clone(),
            is_pulled,
        };
        self.helper.ask(&command).await?;
        Ok(())
    }

    async fn bring(&self, one: &DiskStore) -> Result<(), Error> {
        let command = Command::Mount {
            uuid: one.uuid.clone(),
        };
        self.helper.ask(&command).await?;
        self.open(one).await
    }

    async fn mend(&self, one: &DiskStore) -> Result<(), Error> {
        self.close(one, "its disk failed", true).await?;
        self.bring(one).await
    }

    async fn open(&self, one: &DiskStore) -> Result<(), Error> {
        self.node.stores().reopen(&one.store).await
    }

    /// The stores on disks of their own, and how they are.
    fn stores(&self) -> Vec<DiskStore> {
        let stores = self.node.stores().list();
        stores
            .into_iter()
            .filter_map(|info| {
                let uuid = disk_at(&info.settings.backend, &self.places.disks)?;
                Some(DiskStore {
                    is_open: info.offline.is_none(),
                    is_faulty: info.status.read_only.is_some(),
                    mount: mount_state(&disk_path(&self.places.disks, &uuid), &self.places),
                    store: info.name,
                    uuid,
                })
            })
            .collect()
    }
}

/// Where the blobs of a store are on its disk.
fn store_path(disks: &Path, uuid: &DiskUuid) -> PathBuf {
    disk_path(disks, uuid).join(STORE_FOLDER)
}

/// The disk that blobs are on, where they have one of their own.
fn disk_at(backend: &BackendSettings, disks: &Path) -> Option<DiskUuid> {
    let BackendSettings::Fs { path: Some(path), .. } = backend else {
        return None;
    };
    let uuid: DiskUuid = path.strip_prefix(disks).ok()?.parent()?.to_str()?.parse().ok()?;
    (*path == store_path(disks, &uuid)).then_some(uuid)
}

/// How the disk at `path` is mounted, as far as whoever uses it can tell: its folder is another device than the one above.
fn mount_state(path: &Path, places: &Places) -> MountState {
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    let (Some(own), Some(above)) = (device(path), device(&places.disks)) else {
        return MountState::None;
    };
    if own == above {
        return MountState::None;
    }
    if !disks::is_there(&places.sys, &format!("{}:{}", major(own), minor(own))) {
        return MountState::Dead;
    }
    match statvfs(path) {
        Ok(found) if found.flags().contains(FsFlags::ST_RDONLY) => MountState::ReadOnly,
        _ => MountState::Alive,
    }
}

fn unexpected(answer: &Answer) -> Error {
    let trouble = DiskTrouble::NoHelper {
        reason: format!("it answered {answer:?}"),
    };
    trouble.into()
}
