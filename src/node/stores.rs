//! The named stores of a node: each a folder with its settings and its backend's files.
//!
//! ```text
//! NAME/store.json    {"format":1,"backend":"haystack","compression":1,…}
//! NAME/…             the files of a haystack
//! NAME/blobs/        the files of an fs store, where no other folder was given
//! NAME/gc/           since when what is unnamed
//! NAME/refs/         the refs into the store; those into `main` are in `refs/` of the data folder
//! NAME.removed-N/    a store that was removed, kept as it was: no name of a store has a dot
//! ```
//!
//! A store whose backend cannot be opened, such as one on a disk that is not plugged in, does not stop the
//! node: it is listed with the reason, and opened again at the next start or when its disk is back.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::blobs::{Blobs, Gone};
use super::clock::Clock;
use super::doubt::Doubt;
use super::dropped::Dropped;
use super::error::{Cause, Error, FolderError, Kind, Refusal};
use super::events::{Event, Events};
use super::folder::create_private;
use super::lease::Leases;
use super::refs::{CheckedRefs, Kept, Refs};
use crate::coffer::{self, Compression, Fs, Haystack, HaystackOptions, Memory, Status};
use crate::id::StoreName;
use crate::{db, durable};

/// The format of `store.json` that this version writes.
const FORMAT: u32 = 1;

/// Stores of one node: each has a commit thread and an index.
const STORES_MAX: usize = 64;

/// zstd's levels that pay on a small box, and those that don't but may be asked for.
const COMPRESSION_MIN: i32 = -7;
const COMPRESSION_MAX: i32 = 19;

/// Volumes smaller than that are all headers; larger ones have no room in a needle's address.
const VOLUME_BYTES: RangeInclusive<u64> = 16 * 1024 * 1024..=16 * 1024 * 1024 * 1024;

/// The status of a store that is not there.
const NOTHING: Status = Status {
    blobs: 0,
    plain_bytes: 0,
    stored_bytes: 0,
    dead_bytes: 0,
    free_bytes: None,
    read_only: None,
    quarantined: 0,
};

/// What a store is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSettings {
    /// Where blobs are kept.
    #[serde(flatten)]
    pub backend: BackendSettings,
    /// The zstd level of what is stored, negative levels are faster; 0 is off.
    #[serde(default = "default_compression")]
    pub compression: i32,
}

/// The kinds of backends, each with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
pub enum BackendSettings {
    /// Many blobs in few append-only files, in the store's own folder: the default.
    Haystack {
        /// Where a volume ends, in bytes; 0 for the default.
        #[serde(default)]
        volume_bytes: u64,
    },
    /// One file per blob.
    Fs {
        /// The folder, which may be on another disk or mounted by several nodes; the store's own where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// Whether other nodes mount the folder, too. Nothing is collected in it then: what their refs name is
        /// not known here.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        shared: bool,
    },
    /// In memory: gone when the node stops. For trying things out.
    Memory {},
}

/// A store as the list of stores shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its name.
    pub name: StoreName,
    /// What it is made of.
    pub settings: StoreSettings,
    /// How it is.
    pub status: Status,
    /// Why it could not be opened, where it could not; `status` is empty then.
    pub offline: Option<String>,
}

/// What the removal of a store may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Whether the store may hold blobs.
    pub not_empty: bool,
}

/// A store as the collector sees it.
pub(super) struct Collectable {
    pub(super) name: StoreName,
    /// For the collector's own files.
    pub(super) folder: PathBuf,
    pub(super) refs: Arc<CheckedRefs>,
    pub(super) leases: Arc<Leases>,
}

/// The stores of a node; cloning is cheap.
#[derive(Clone)]
pub struct Stores {
    inner: Arc<Inner>,
}

/// What all stores of a node share.
pub(super) struct Around {
    /// Where the stores are.
    pub(super) folder: PathBuf,
    /// Where the refs of `main` are; any other store has its own in its folder.
    pub(super) main_refs: PathBuf,
    pub(super) events: Events,
    pub(super) clock: Clock,
}

struct Inner {
    around: Around,
    main: Blobs,
    open: Mutex<BTreeMap<StoreName, Opened>>,
    /// Held while stores are added or removed, so that the folder and the table change together.
    changing: Mutex<()>,
}

struct Opened {
    settings: StoreSettings,
    /// Or why it could not be opened.
    parts: Result<Parts, String>,
}

struct Parts {
    blobs: Blobs,
    refs: Arc<CheckedRefs>,
}

#[derive(Serialize, Deserialize)]
struct StoreFile {
    format: u32,
    #[serde(flatten)]
    settings: StoreSettings,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            backend: BackendSettings::Haystack { volume_bytes: 0 },
            compression: default_compression(),
        }
    }
}

impl StoreSettings {
    fn check(&self) -> Result<(), Error> {
        if !(COMPRESSION_MIN..=COMPRESSION_MAX).contains(&self.compression) {
            return Err(invalid(
                "compression",
                format!("from {COMPRESSION_MIN} to {COMPRESSION_MAX}, 0 is off"),
            ));
        }
        match &self.backend {
            BackendSettings::Haystack { volume_bytes }
                if *volume_bytes != 0 && !VOLUME_BYTES.contains(volume_bytes) =>
            {
                Err(invalid(
                    "volume_bytes",
                    format!("from {} to {}", VOLUME_BYTES.start(), VOLUME_BYTES.end()),
                ))
            }
            BackendSettings::Fs { path: Some(path), .. } if !path.is_absolute() => {
                Err(invalid("path", "an absolute path".to_owned()))
            }
            BackendSettings::Haystack { .. } | BackendSettings::Fs { .. } | BackendSettings::Memory {} => {
                Ok(())
            }
        }
    }

    fn is_shared(&self) -> bool {
        match &self.backend {
            BackendSettings::Fs { shared, .. } => *shared,
            BackendSettings::Haystack { .. } | BackendSettings::Memory {} => false,
        }
    }

    /// Two stores in one folder would each delete what the other needs.
    fn shares_folder(&self, other: &StoreSettings) -> bool {
        let folder = |settings: &StoreSettings| match &settings.backend {
            BackendSettings::Fs { path: Some(path), .. } => {
                Some(path.canonicalize().unwrap_or_else(|_| path.clone()))
            }
            BackendSettings::Fs { path: None, .. }
            | BackendSettings::Haystack { .. }
            | BackendSettings::Memory {} => None,
        };
        folder(self).is_some_and(|own| Some(own) == folder(other))
    }
}

impl From<(StoreSettings, Parts)> for Opened {
    fn from((settings, parts): (StoreSettings, Parts)) -> Opened {
        Opened {
            settings,
            parts: Ok(parts),
        }
    }
}

impl Stores {
    /// Opens every store below `folder`, and makes `main` with `main_settings` where it is not there.
    pub(super) fn open(around: Around, main_settings: &StoreSettings) -> Result<Stores, Error> {
        let main = StoreName::main();
        let mut names = names_in(&around.folder)?;
        if !names.contains(&main) {
            make_store(&around.folder, &main, main_settings)?;
            names.push(main.clone());
        }
        let main_parts = open_store(&around, &main)?;
        let main_blobs = main_parts.1.blobs.clone();
        let mut open = BTreeMap::from([(main.clone(), Opened::from(main_parts))]);
        for name in names.into_iter().filter(|name| *name != main) {
            let settings = read_settings(&around.folder, &name)?;
            let parts = open_store(&around, &name);
            let parts = parts.map(|(_, parts)| parts).map_err(|error| {
                tracing::error!(store = %name, %error, "a store could not be opened");
                error.to_string()
            });
            open.insert(name, Opened { settings, parts });
        }
        Ok(Stores {
            inner: Arc::new(Inner {
                around,
                main: main_blobs,
                open: Mutex::new(open),
                changing: Mutex::new(()),
            }),
        })
    }

    /// Every store, by name.
    pub fn list(&self) -> Vec<StoreInfo> {
        let open = self.opened();
        open.iter()
            .map(|(name, opened)| StoreInfo {
                name: name.clone(),
                settings: opened.settings.clone(),
                status: match &opened.parts {
                    Ok(parts) => parts.blobs.status(),
                    Err(_) => NOTHING,
                },
                offline: opened.parts.as_ref().err().cloned(),
            })
            .collect()
    }

    /// The store that every node has.
    pub fn main(&self) -> Blobs {
        self.inner.main.clone()
    }

    /// A store by name.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Offline`] where it could not be opened.
    pub fn get(&self, name: &StoreName) -> Result<Blobs, Error> {
        let open = self.opened();
        Ok(parts_of(&open, name)?.blobs.clone())
    }

    /// The refs into a store.
    ///
    /// # Errors
    /// As [`Stores::get`].
    pub fn refs(&self, name: &StoreName) -> Result<Refs, Error> {
        Ok(Refs::new(self.checked_refs(name)?))
    }

    /// The refs into a store, for threads that do storage work.
    pub(super) fn checked_refs(&self, name: &StoreName) -> Result<Arc<CheckedRefs>, Error> {
        let open = self.opened();
        Ok(Arc::clone(&parts_of(&open, name)?.refs))
    }

    /// What the collector may work on: every store that is there and no other node's.
    pub(super) fn collectable(&self) -> Vec<Collectable> {
        let open = self.opened();
        let all = open.iter().filter(|(_, opened)| !opened.settings.is_shared());
        all.filter_map(|(name, opened)| {
            let parts = opened.parts.as_ref().ok()?;
            Some(Collectable {
                name: name.clone(),
                folder: self.inner.around.folder.join(name.as_str()).join("gc"),
                refs: Arc::clone(&parts.refs),
                leases: Arc::clone(parts.blobs.leases()),
            })
        })
        .collect()
    }

    /// Adds a store. Durable on return; goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the name is taken or the backend's folder is another store's;
    /// [`Error::Invalid`] for settings that make no sense or one store too many.
    pub async fn add(&self, name: StoreName, settings: StoreSettings) -> Result<(), Error> {
        let stores = self.clone();
        db::crossing(move || stores.add_blocking(name, &settings)).await
    }

    /// Removes a store: its folder is set aside, nothing in it is deleted. Answers where it lies now. Durable
    /// on return; goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Refused`] for `main`, and for a store that holds blobs unless `options` allow it.
    pub async fn remove(&self, name: StoreName, options: RemoveOptions) -> Result<PathBuf, Error> {
        let stores = self.clone();
        db::crossing(move || stores.remove_blocking(&name, options)).await
    }

    /// Closes a store for a while, such as one whose disk goes: whoever uses it is answered with `reason`. Its settings and its
    /// files stay. One that is closed already keeps its reason.
    ///
    /// # Errors
    /// [`Error::Refused`] for `main`; [`Error::Missing`].
    pub async fn close(&self, name: &StoreName, reason: &str) -> Result<(), Error> {
        let (stores, name, reason) = (self.clone(), name.clone(), reason.to_owned());
        db::crossing(move || stores.close_blocking(&name, reason)).await
    }

    /// Opens a store again; one that is open stays as it is.
    ///
    /// # Errors
    /// [`Error::Missing`]; whatever keeps it from being opened, which is listed as well.
    pub async fn reopen(&self, name: &StoreName) -> Result<(), Error> {
        let (stores, name) = (self.clone(), name.clone());
        db::crossing(move || stores.reopen_blocking(&name)).await
    }

    fn close_blocking(&self, name: &StoreName, reason: String) -> Result<(), Error> {
        let _changing = self.changing();
        if *name == StoreName::main() {
            return Err(Refusal::MainStore.into());
        }
        let parts = {
            let mut open = self.opened();
            let opened = open
                .get_mut(name)
                .ok_or_else(|| Error::missing(Kind::Store, name))?;
            if opened.parts.is_err() {
                return Ok(());
            }
            std::mem::replace(&mut opened.parts, Err(reason.clone()))
        };
        if let Ok(parts) = parts {
            parts.blobs.retire(Gone::Closed(reason));
        }
        Ok(())
    }

    fn reopen_blocking(&self, name: &StoreName) -> Result<(), Error> {
        let _changing = self.changing();
        if self.opened().get(name).is_some_and(|opened| opened.parts.is_ok()) {
            return Ok(());
        }
        let opened = open_store(&self.inner.around, name);
        let mut open = self.opened();
        let known = open
            .get_mut(name)
            .ok_or_else(|| Error::missing(Kind::Store, name))?;
        match opened {
            Ok((_, parts)) => {
                known.parts = Ok(parts);
                Ok(())
            }
            Err(error) => {
                known.parts = Err(error.to_string());
                Err(error)
            }
        }
    }

    fn add_blocking(&self, name: StoreName, settings: &StoreSettings) -> Result<(), Error> {
        let _changing = self.changing();
        settings.check()?;
        {
            let open = self.opened();
            if open.contains_key(&name) {
                return Err(Error::conflict(Kind::Store, name, "there is one of this name"));
            }
            if open.len() >= STORES_MAX {
                return Err(invalid("stores", format!("a node has at most {STORES_MAX}")));
            }
            if open.values().any(|other| settings.shares_folder(&other.settings)) {
                return Err(Error::conflict(
                    Kind::Store,
                    name,
                    "another store has this folder",
                ));
            }
        }
        let folder = &self.inner.around.folder;
        make_store(folder, &name, settings)?;
        let opened = match open_store(&self.inner.around, &name) {
            Ok(opened) => opened,
            Err(error) => {
                // What cannot be opened now was never a store: only its settings go, whatever else is there.
                durable::remove(&store_file(folder, &name))?;
                return Err(error);
            }
        };
        self.opened().insert(name.clone(), opened.into());
        self.inner.around.events.tell(Event::StoreAdded { store: name });
        Ok(())
    }

    fn remove_blocking(&self, name: &StoreName, options: RemoveOptions) -> Result<PathBuf, Error> {
        let _changing = self.changing();
        if *name == StoreName::main() {
            return Err(Refusal::MainStore.into());
        }
        let blobs = match self.get(name) {
            Ok(blobs) => Some(blobs),
            Err(Error::Offline { .. }) => None,
            Err(error) => return Err(error),
        };
        // Of a store that is offline nobody can say that it is empty.
        let is_empty = blobs.as_ref().is_some_and(|blobs| blobs.status().blobs == 0);
        if !options.not_empty && !is_empty {
            return Err(Refusal::StoreNotEmpty.into());
        }
        let folder = self.inner.around.folder.join(name.as_str());
        let aside = (1..)
            .map(|number| self.inner.around.folder.join(format!("{name}.removed-{number}")))
            .find(|aside| !aside.exists())
            .expect("the numbers do not end");
        std::fs::rename(&folder, &aside)
            .and_then(|()| durable::sync_folder_of(&folder))
            .map_err(|source| Error::io(&folder, source))?;
        if let Some(blobs) = blobs {
            blobs.retire(Gone::Removed);
        }
        self.opened().remove(name);
        self.inner
            .around
            .events
            .tell(Event::StoreRemoved { store: name.clone() });
        Ok(aside)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<StoreName, Opened>> {
        self.inner
            .open
            .lock()
            .expect("no thread panics while it holds the stores")
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own.
        self.inner
            .changing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn default_compression() -> i32 {
    Compression::default().0
}

/// The stores that lie in a folder; what was removed has a dot in its name and is no store.
fn names_in(folder: &Path) -> Result<Vec<StoreName>, Error> {
    let located = |source| Error::io(folder, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(located)? {
        let entry = entry.map_err(located)?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(name) = name else {
            continue;
        };
        // A folder without settings is a store whose making was cut: nothing was ever put there.
        if durable::read(&store_file(folder, &name))?.is_some() {
            names.push(name);
        }
    }
    Ok(names)
}

fn make_store(folder: &Path, name: &StoreName, settings: &StoreSettings) -> Result<(), Error> {
    let own = folder.join(name.as_str());
    create_private(&own).map_err(|source| Error::io(&own, source))?;
    if let BackendSettings::Fs { path, .. } = &settings.backend {
        Fs::create(&fs_folder(&own, path.as_deref()))?;
    }
    let file = StoreFile {
        format: FORMAT,
        settings: settings.clone(),
    };
    let payload = serde_json::to_vec(&file).expect("settings are plain fields");
    // Twice, so that there is a previous generation from the start.
    durable::replace(&store_file(folder, name), &payload)?;
    durable::replace(&store_file(folder, name), &payload)?;
    Ok(())
}

fn read_settings(folder: &Path, name: &StoreName) -> Result<StoreSettings, Error> {
    let path = store_file(folder, name);
    let state = durable::read(&path)?.ok_or_else(|| Error::missing(Kind::Store, name))?;
    let file: StoreFile = serde_json::from_slice(&state.payload)
        .map_err(|source| Error::Internal(Cause::Unreadable { path, source }))?;
    if file.format > FORMAT {
        return Err(FolderError::Newer {
            path: store_file(folder, name),
            found: file.format,
            known: FORMAT,
        }
        .into());
    }
    Ok(file.settings)
}

fn open_store(around: &Around, name: &StoreName) -> Result<(StoreSettings, Parts), Error> {
    let Around {
        folder,
        main_refs,
        events,
        clock,
    } = around;
    let settings = read_settings(folder, name)?;
    let own = folder.join(name.as_str());
    let mut compression = Compression(settings.compression);
    let backend: Arc<dyn coffer::Backend> = match &settings.backend {
        BackendSettings::Haystack { volume_bytes } => {
            let mut options = HaystackOptions {
                compression,
                ..HaystackOptions::default()
            };
            if *volume_bytes > 0 {
                options.volume_bytes = *volume_bytes;
            }
            Arc::new(Haystack::open(&own, options)?)
        }
        BackendSettings::Fs { path, .. } => {
            // Its files hold plain bytes: whatever was packed smaller would be unpacked again.
            compression = Compression::OFF;
            Arc::new(Fs::open(&fs_folder(&own, path.as_deref()))?)
        }
        BackendSettings::Memory {} => Arc::new(Memory::new()),
    };
    let store = coffer::Store::new(backend, compression)?;
    let own_refs = own.join("refs");
    let is_main = *name == StoreName::main();
    let refs_folder = if is_main { main_refs } else { &own_refs };
    let dropped = Dropped::at(own.join("gc/dropped"), clock.clone());
    let doubt = Arc::new(Doubt::at(own.join("gc"), store.clone()));
    let kept = Kept {
        dropped,
        doubt: Arc::clone(&doubt),
    };
    let refs = CheckedRefs::open(refs_folder, name.clone(), store.clone(), kept, events.clone())?;
    let parts = Parts {
        blobs: Blobs::new(name.clone(), store, doubt, events.clone(), clock.clone()),
        refs: Arc::new(refs),
    };
    Ok((settings, parts))
}

fn parts_of<'a>(open: &'a BTreeMap<StoreName, Opened>, name: &StoreName) -> Result<&'a Parts, Error> {
    let opened = open.get(name).ok_or_else(|| Error::missing(Kind::Store, name))?;
    opened.parts.as_ref().map_err(|reason| Error::Offline {
        store: name.clone(),
        reason: reason.clone(),
    })
}

fn fs_folder(own: &Path, given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| own.join("blobs"), Path::to_owned)
}

fn invalid(what: &'static str, reason: String) -> Error {
    Error::Invalid { what, reason }
}

fn store_file(folder: &Path, name: &StoreName) -> PathBuf {
    folder.join(name.as_str()).join("store.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coffer::Class;

    fn stores(folder: &Path) -> Stores {
        let around = Around {
            folder: folder.to_owned(),
            main_refs: folder.join("refs.main"),
            events: Events::new(&Clock::system()),
            clock: Clock::system(),
        };
        Stores::open(around, &StoreSettings::default()).unwrap()
    }

    fn fs_settings(path: &Path) -> StoreSettings {
        StoreSettings {
            backend: BackendSettings::Fs {
                path: Some(path.to_owned()),
                shared: false,
            },
            compression: 0,
        }
    }

    #[tokio::test]
    async fn a_store_on_a_disk_that_is_pulled_is_offline_and_the_others_go_on() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounted = disk.path().join("mounted");
        let first = stores(dir.path());
        first.add(named("usb"), fs_settings(&mounted)).await.unwrap();
        let usb = first.get(&named("usb")).unwrap();
        let id = usb.put("x".into(), Class::Pinned, None).await.unwrap().id;
        let shared = first.add(named("twin"), fs_settings(&mounted)).await;
        assert!(matches!(shared, Err(Error::Conflict { .. })));
        drop((first, usb));
        std::fs::rename(&mounted, disk.path().join("pulled")).unwrap();
        let second = stores(dir.path());
        assert!(second.list()[1].offline.is_some());
        assert!(matches!(second.get(&named("usb")), Err(Error::Offline { .. })));
        let refused = second.remove(named("usb"), RemoveOptions::default()).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::StoreNotEmpty))));
        drop(second);
        std::fs::rename(disk.path().join("pulled"), &mounted).unwrap();
        let back = stores(dir.path()).get(&named("usb")).unwrap();
        assert_eq!(back.read(id, 10).await.unwrap(), "x");
    }

    #[tokio::test]
    async fn a_store_is_closed_and_opened_again_while_others_hold_it() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stores = stores(dir.path());
        let mounted = disk.path().join("mounted");
        stores.add(named("usb"), fs_settings(&mounted)).await.unwrap();
        let held = stores.get(&named("usb")).unwrap();
        let id = held.put("x".into(), Class::Pinned, None).await.unwrap().id;
        stores.close(&named("usb"), "its disk was pulled").await.unwrap();
        let offline =
            |error: Error| matches!(error, Error::Offline { reason, .. } if reason == "its disk was pulled");
        assert!(offline(held.read(id, 10).await.unwrap_err()));
        assert!(offline(
            held.put("y".into(), Class::Pinned, None).await.unwrap_err()
        ));
        assert!(offline(stores.get(&named("usb")).map(drop).unwrap_err()));
        std::fs::rename(&mounted, disk.path().join("pulled")).unwrap();
        assert!(stores.reopen(&named("usb")).await.is_err());
        assert!(!mounted.exists(), "nothing is made where the disk is not");
        std::fs::rename(disk.path().join("pulled"), &mounted).unwrap();
        stores.reopen(&named("usb")).await.unwrap();
        stores.reopen(&named("usb")).await.unwrap();
        let back = stores.get(&named("usb")).unwrap();
        assert_eq!(back.read(id, 10).await.unwrap(), "x");
        let main = stores.close(&StoreName::main(), "no").await;
        assert!(matches!(main, Err(Error::Refused(Refusal::MainStore))));
        let none = stores.reopen(&named("none")).await;
        assert!(matches!(none, Err(Error::Missing { .. })));
    }

    #[tokio::test]
    async fn settings_that_make_no_sense_leave_no_store() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = tempfile::tempdir().unwrap();
        std::fs::write(foreign.path().join("thesis.txt"), "years").unwrap();
        let stores = stores(dir.path());
        let wild = StoreSettings {
            compression: 99,
            ..StoreSettings::default()
        };
        for settings in [wild, fs_settings(Path::new("a/b")), fs_settings(foreign.path())] {
            assert!(stores.add(named("x"), settings).await.is_err());
        }
        stores.add(named("x"), StoreSettings::default()).await.unwrap();
    }

    fn named(name: &str) -> StoreName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn stores_are_added_listed_removed_and_there_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = stores(dir.path());
        first.add(named("usb"), StoreSettings::default()).await.unwrap();
        let taken = first.add(named("usb"), StoreSettings::default()).await;
        assert!(matches!(taken, Err(Error::Conflict { .. })));
        let names = |stores: &Stores| -> Vec<String> {
            stores.list().iter().map(|info| info.name.to_string()).collect()
        };
        drop(first);
        let second = stores(dir.path());
        assert_eq!(names(&second), ["main", "usb"]);
        second
            .remove(named("usb"), RemoveOptions::default())
            .await
            .unwrap();
        assert_eq!(names(&second), ["main"]);
        assert_eq!(names(&stores(dir.path())), ["main"]);
    }

    #[tokio::test]
    async fn a_store_with_blobs_goes_only_when_told_and_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        stores.add(named("usb"), StoreSettings::default()).await.unwrap();
        let usb = stores.get(&named("usb")).unwrap();
        usb.put("x".into(), Class::Pinned, None).await.unwrap();
        let refused = stores.remove(named("usb"), RemoveOptions::default()).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::StoreNotEmpty))));
        let aside = stores
            .remove(named("usb"), RemoveOptions { not_empty: true })
            .await;
        assert!(aside.unwrap().join("store.json").exists());
        let late = usb.put("y".into(), Class::Pinned, None).await;
        assert!(matches!(late, Err(Error::Missing { .. })));
        let main = stores
            .remove(StoreName::main(), RemoveOptions { not_empty: true })
            .await;
        assert!(matches!(main, Err(Error::Refused(Refusal::MainStore))));
    }
}
