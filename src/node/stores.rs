//! The named stores of a node: each a folder with its settings and its backend's files.
//!
//! ```text
//! NAME/store.json    {"format":1,"backend":"haystack","compression":1,…}
//! NAME/…             the files of a haystack
//! NAME/blobs/        the files of an fs store, where no other folder was given
//! NAME/gc/           since when what is unnamed; whether it held blobs when it was added, and is not collected
//! NAME/mirror        while the haystack is a copy of the store that moves here (`coffer/mirror.rs`)
//! NAME/refs/         the refs into the store; those into `main` are in `refs/` of the data folder
//! NAME.removed-N/    a store that was removed, kept as it was: no name of a store has a dot
//! ```
//!
//! While a store moves, and until what it left is removed, `store.json` says where to and where from as well (`moving.rs`).
//!
//! A store whose backend cannot be opened, such as one on a disk that is not plugged in, does not stop the
//! node: it is listed with the reason, and opened again at the next start or when its disk is back.

mod moving;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

pub use self::moving::MoveInfo;
use self::moving::Moving;
use super::activity::Activity;
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
use crate::id::{NodeId, StoreName};
use crate::{db, durable};

/// The format of `store.json` that this version writes.
const FORMAT: u32 = 1;

/// Stores of one node: each has a commit thread and an index.
const STORES_MAX: usize = 64;

/// zstd's fastest levels: the only ones that keep up with a card, and the only ones that the binary that ships has
/// (scripts/build). What another level packed is read all the same.
const COMPRESSION_MIN: i32 = -7;
const COMPRESSION_MAX: i32 = 1;

/// Volumes smaller than that are all headers; larger ones have no room in a needle's address.
const VOLUME_BYTES: RangeInclusive<u64> = 16 * 1024 * 1024..=16 * 1024 * 1024 * 1024;

/// Beside the collector's files, of a store that held blobs when it was added: refs of another node, or of this one before a
/// reset, may name them.
const ADOPTED: &str = "gc/adopted";

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
    /// The zstd level of what is stored: 1, or a negative one, which is faster; 0 is off.
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
    /// Where it moves to, where it does.
    pub moving: Option<MoveInfo>,
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
    /// Whose stores they are.
    pub(super) node: NodeId,
    /// Where they are.
    pub(super) folder: PathBuf,
    /// Where the refs of `main` are; any other store has its own in its folder.
    pub(super) main_refs: PathBuf,
    pub(super) events: Events,
    pub(super) clock: Clock,
    pub(super) activity: Activity,
}

struct Inner {
    around: Around,
    open: Mutex<BTreeMap<StoreName, Opened>>,
    /// Held while stores are added or removed, so that the folder and the table change together.
    changing: Mutex<()>,
}

struct Opened {
    settings: StoreSettings,
    moving: Option<Arc<Moving>>,
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
    /// Where its blobs are carried to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moving: Option<BackendSettings>,
    /// Where they were until then, and are to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaving: Option<BackendSettings>,
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

    /// How blobs are packed: files hold plain bytes, and whatever was packed smaller would be unpacked again.
    fn packed(&self) -> Compression {
        match &self.backend {
            BackendSettings::Fs { .. } => Compression::OFF,
            // A store of an earlier version may have been told a higher one.
            BackendSettings::Haystack { .. } | BackendSettings::Memory {} => {
                Compression(self.compression.clamp(COMPRESSION_MIN, COMPRESSION_MAX))
            }
        }
    }

    /// Whether its blobs are in a folder that is not the store's own, such as one on another disk.
    fn is_elsewhere(&self) -> bool {
        self.backend.folder().is_some()
    }
}

impl BackendSettings {
    /// The folder of the blobs where it is not the store's own. Two stores in one would each delete what the other needs.
    fn folder(&self) -> Option<PathBuf> {
        match self {
            BackendSettings::Fs { path: Some(path), .. } => {
                Some(path.canonicalize().unwrap_or_else(|_| path.clone()))
            }
            BackendSettings::Fs { path: None, .. }
            | BackendSettings::Haystack { .. }
            | BackendSettings::Memory {} => None,
        }
    }
}

impl StoreFile {
    fn of(settings: StoreSettings) -> StoreFile {
        StoreFile {
            format: FORMAT,
            settings,
            moving: None,
            leaving: None,
        }
    }
}

impl Opened {
    /// Whether it has that folder, or moves there.
    fn is_in(&self, backend: &BackendSettings) -> bool {
        let to = self.moving.as_ref().and_then(|moving| moving.to.folder());
        backend.folder().is_some_and(|folder| {
            self.settings.backend.folder().as_ref() == Some(&folder) || to == Some(folder)
        })
    }

    fn new(file: StoreFile, parts: Result<Parts, String>) -> Opened {
        Opened {
            settings: file.settings,
            moving: file.moving.map(|to| Arc::new(Moving::new(to))),
            parts,
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
        let mut open = BTreeMap::new();
        for name in names {
            let mut file = read_file(&around.folder, &name)?;
            let parts = match open_store(&around, &name, &mut file) {
                Ok(parts) => Ok(parts),
                // A node whose card lost it is no node; one whose disk is not there yet says so.
                Err(error) if name == main && !file.settings.is_elsewhere() => return Err(error),
                Err(error) => {
                    tracing::error!(store = %name, %error, "a store could not be opened");
                    Err(error.to_string())
                }
            };
            open.insert(name, Opened::new(file, parts));
        }
        Ok(Stores {
            inner: Arc::new(Inner {
                around,
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
                moving: opened.moving.as_deref().map(Moving::info),
            })
            .collect()
    }

    /// The store that every node has.
    ///
    /// # Panics
    /// Where it is on a disk that is not there: edges use [`Stores::get`], which says so.
    pub fn main(&self) -> Blobs {
        self.get(&StoreName::main())
            .expect("the store main is on the card, or its disk is there")
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

    /// What the collector may work on: every store that is there, no other node's, and was empty when it was added. Of an adopted
    /// one nobody here knows what refs name.
    pub(super) fn collectable(&self) -> Vec<Collectable> {
        let open = self.opened();
        let all = open.iter().filter(|(_, opened)| !opened.settings.is_shared());
        all.filter_map(|(name, opened)| {
            let parts = opened.parts.as_ref().ok()?;
            let own = self.inner.around.folder.join(name.as_str());
            if own.join(ADOPTED).exists() {
                return None;
            }
            Some(Collectable {
                name: name.clone(),
                folder: own.join("gc"),
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
    /// [`Error::Refused`] for `main` where it is not on a disk of its own; [`Error::Missing`].
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
        let parts = {
            let mut open = self.opened();
            let opened = open
                .get_mut(name)
                .ok_or_else(|| Error::missing(Kind::Store, name))?;
            if *name == StoreName::main() && !opened.settings.is_elsewhere() {
                return Err(Refusal::MainStore.into());
            }
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
        let around = &self.inner.around;
        let opened = read_file(&around.folder, name)
            .and_then(|mut file| Ok((open_store(around, name, &mut file)?, file)));
        let mut open = self.opened();
        let known = open
            .get_mut(name)
            .ok_or_else(|| Error::missing(Kind::Store, name))?;
        match opened {
            Ok((parts, file)) => {
                // A commit of its move may have failed, and be in force all the same. Else an attempt that still runs is the one
                // that there is.
                if known.moving.as_ref().map(|moving| &moving.to) == file.moving.as_ref() {
                    known.parts = Ok(parts);
                } else {
                    *known = Opened::new(file, Ok(parts));
                }
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
            if open.values().any(|other| other.is_in(&settings.backend)) {
                return Err(Error::conflict(
                    Kind::Store,
                    name,
                    "another store has this folder",
                ));
            }
        }
        let folder = &self.inner.around.folder;
        make_store(folder, &name, settings)?;
        let mut file = StoreFile::of(settings.clone());
        let parts = match open_store(&self.inner.around, &name, &mut file) {
            Ok(parts) => parts,
            Err(error) => {
                // What cannot be opened now was never a store: only its settings go, whatever else is there.
                durable::remove(&store_file(folder, &name))?;
                return Err(error);
            }
        };
        self.opened().insert(name.clone(), Opened::new(file, Ok(parts)));
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
        if !options.not_empty {
            // Of a store that is offline nobody can say that it is empty. Its number of blobs may be a guess.
            let is_empty = match &blobs {
                Some(blobs) => blobs.store().switch().abandon_if_empty()?,
                None => false,
            };
            if !is_empty {
                return Err(Refusal::StoreNotEmpty.into());
            }
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
        let blobs = Fs::create(&fs_folder(&own, path.as_deref()))?;
        // What cannot be listed holds something.
        if coffer::Backend::list(&blobs, None)?.next().is_some() {
            let adopted = own.join(ADOPTED);
            create_private(&own.join("gc")).map_err(|source| Error::io(&adopted, source))?;
            durable::replace(&adopted, b"")?;
        }
    }
    write_file(folder, name, &StoreFile::of(settings.clone()))
}

/// Durable on return.
///
/// # Errors
/// As [`durable::replace`]: what the file said is in force, or `file` is.
fn write_file(folder: &Path, name: &StoreName, file: &StoreFile) -> Result<(), Error> {
    let payload = serde_json::to_vec(file).expect("settings are plain fields");
    // Twice, so that there is a previous generation, and that it says the same: what is elsewhere by now, an older one would
    // look for where it was.
    durable::replace(&store_file(folder, name), &payload)?;
    durable::replace(&store_file(folder, name), &payload)?;
    Ok(())
}

fn read_file(folder: &Path, name: &StoreName) -> Result<StoreFile, Error> {
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
    Ok(file)
}

fn open_store(around: &Around, name: &StoreName, file: &mut StoreFile) -> Result<Parts, Error> {
    let Around {
        node: _,
        folder,
        main_refs,
        events,
        clock,
        activity,
    } = around;
    let own = folder.join(name.as_str());
    moving::remove_left(folder, name, file)?;
    let compression = file.settings.packed();
    let backend = open_backend(&own, &file.settings)?;
    // Whoever carried blobs here may not go on with that: what is put from now on would be too much to them.
    coffer::end_mirror(&file.settings.backend.place(&own))?;
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
    Ok(Parts {
        blobs: Blobs::new(
            name.clone(),
            store,
            doubt,
            events.clone(),
            clock.clone(),
            activity.clone(),
        ),
        refs: Arc::new(refs),
    })
}

fn open_backend(own: &Path, settings: &StoreSettings) -> Result<Arc<dyn coffer::Backend>, Error> {
    Ok(match &settings.backend {
        BackendSettings::Haystack { volume_bytes } => {
            let mut options = HaystackOptions {
                compression: settings.packed(),
                ..HaystackOptions::default()
            };
            if *volume_bytes > 0 {
                options.volume_bytes = *volume_bytes;
            }
            Arc::new(Haystack::open(own, options)?)
        }
        BackendSettings::Fs { path, .. } => Arc::new(Fs::open(&fs_folder(own, path.as_deref()))?),
        BackendSettings::Memory {} => Arc::new(Memory::new()),
    })
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
mod tests;
