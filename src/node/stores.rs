//! The named stores of a node: each a folder with its settings and its backend's files.
//!
//! A store has refs of its own: those into `main` lie in `refs/` of the data folder, those into any other in
//! its folder. `stores/NAME/store.json` is `{"format":1,"backend":"haystack","compression":1,…}`; the backend keeps its files
//! beside it. A store that is removed is renamed to `NAME.removed-N` and kept: no name of a store has a dot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::blobs::Blobs;
use super::error::{Cause, Error, Kind, Refusal};
use super::events::{Event, Events};
use super::folder::create_private;
use super::refs::{CheckedRefs, Refs};
use crate::coffer::{self, Compression, Fs, Haystack, HaystackOptions, Memory, Status};
use crate::id::StoreName;
use crate::{db, durable};

/// The format of `store.json` that this version writes.
const FORMAT: u32 = 1;

/// Stores of one node: each has a commit thread and an index.
const STORES_MAX: usize = 64;

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
}

/// What the removal of a store may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Whether the store may hold blobs.
    pub not_empty: bool,
}

/// The stores of a node; cloning is cheap.
#[derive(Clone)]
pub struct Stores {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    /// Where the refs of `main` are; any other store has its own in its folder.
    main_refs: PathBuf,
    events: Events,
    main: Blobs,
    open: Mutex<BTreeMap<StoreName, Opened>>,
    /// Held while stores are added or removed, so that the folder and the table change together.
    changing: Mutex<()>,
}

struct Opened {
    blobs: Blobs,
    refs: Arc<CheckedRefs>,
    settings: StoreSettings,
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

impl Stores {
    /// Opens every store below `folder`, and makes `main` with `main_settings` where it is not there.
    pub(super) fn open(
        folder: &Path,
        main_refs: &Path,
        main_settings: &StoreSettings,
        events: &Events,
    ) -> Result<Stores, Error> {
        let main = StoreName::main();
        let mut names = names_in(folder)?;
        if !names.contains(&main) {
            make_store(folder, &main, main_settings)?;
            names.push(main.clone());
        }
        let mut open = BTreeMap::new();
        for name in names {
            let opened = open_store(folder, main_refs, &name, events)?;
            open.insert(name, opened);
        }
        Ok(Stores {
            inner: Arc::new(Inner {
                folder: folder.to_owned(),
                main_refs: main_refs.to_owned(),
                events: events.clone(),
                main: open[&main].blobs.clone(),
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
                status: opened.blobs.status(),
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
    /// [`Error::Missing`].
    pub fn get(&self, name: &StoreName) -> Result<Blobs, Error> {
        let open = self.opened();
        let opened = open.get(name).ok_or_else(|| Error::missing(Kind::Store, name))?;
        Ok(opened.blobs.clone())
    }

    /// The refs into a store.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn refs(&self, name: &StoreName) -> Result<Refs, Error> {
        Ok(Refs::new(self.checked_refs(name)?))
    }

    /// The refs into a store, for threads that do storage work.
    pub(super) fn checked_refs(&self, name: &StoreName) -> Result<Arc<CheckedRefs>, Error> {
        let open = self.opened();
        let opened = open.get(name).ok_or_else(|| Error::missing(Kind::Store, name))?;
        Ok(Arc::clone(&opened.refs))
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

    fn add_blocking(&self, name: StoreName, settings: &StoreSettings) -> Result<(), Error> {
        let _changing = self.changing();
        let count = {
            let open = self.opened();
            if open.contains_key(&name) {
                return Err(Error::conflict(Kind::Store, name, "there is one of this name"));
            }
            open.len()
        };
        if count >= STORES_MAX {
            return Err(Error::Invalid {
                what: "stores",
                reason: format!("a node has at most {STORES_MAX}"),
            });
        }
        make_store(&self.inner.folder, &name, settings)?;
        let opened = open_store(
            &self.inner.folder,
            &self.inner.main_refs,
            &name,
            &self.inner.events,
        )?;
        self.opened().insert(name.clone(), opened);
        self.inner.events.tell(Event::StoreAdded { store: name });
        Ok(())
    }

    fn remove_blocking(&self, name: &StoreName, options: RemoveOptions) -> Result<PathBuf, Error> {
        let _changing = self.changing();
        if *name == StoreName::main() {
            return Err(Refusal::MainStore.into());
        }
        let blobs = self.get(name)?;
        if !options.not_empty && blobs.status().blobs > 0 {
            return Err(Refusal::StoreNotEmpty.into());
        }
        let folder = self.inner.folder.join(name.as_str());
        let aside = (1..)
            .map(|number| self.inner.folder.join(format!("{name}.removed-{number}")))
            .find(|aside| !aside.exists())
            .expect("the numbers do not end");
        std::fs::rename(&folder, &aside)
            .and_then(|()| durable::sync_folder_of(&folder))
            .map_err(|source| Error::io(&folder, source))?;
        blobs.retire();
        self.opened().remove(name);
        self.inner
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

fn open_store(folder: &Path, main_refs: &Path, name: &StoreName, events: &Events) -> Result<Opened, Error> {
    let path = store_file(folder, name);
    let state = durable::read(&path)?.ok_or_else(|| Error::missing(Kind::Store, name))?;
    let file: StoreFile = serde_json::from_slice(&state.payload)
        .map_err(|source| Error::Internal(Cause::Unreadable { path, source }))?;
    let backend: Arc<dyn coffer::Backend> = match &file.settings.backend {
        BackendSettings::Haystack { volume_bytes } => {
            let mut options = HaystackOptions {
                compression: Compression(file.settings.compression),
                ..HaystackOptions::default()
            };
            if *volume_bytes > 0 {
                options.volume_bytes = *volume_bytes;
            }
            Arc::new(Haystack::open(&folder.join(name.as_str()), options)?)
        }
        BackendSettings::Fs { path } => {
            let own = folder.join(name.as_str());
            Arc::new(Fs::open(path.as_deref().unwrap_or(&own))?)
        }
        BackendSettings::Memory {} => Arc::new(Memory::new()),
    };
    let store = coffer::Store::new(backend, Compression(file.settings.compression))?;
    let own_refs = folder.join(name.as_str()).join("refs");
    let refs_folder = if *name == StoreName::main() {
        main_refs
    } else {
        &own_refs
    };
    let refs = CheckedRefs::open(refs_folder, name.clone(), store.clone(), events.clone())?;
    Ok(Opened {
        blobs: Blobs::new(name.clone(), store, events.clone()),
        refs: Arc::new(refs),
        settings: file.settings,
    })
}

fn store_file(folder: &Path, name: &StoreName) -> PathBuf {
    folder.join(name.as_str()).join("store.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coffer::Class;
    use crate::node::Clock;

    fn stores(folder: &Path) -> Stores {
        let refs = folder.join("refs.main");
        let settings = StoreSettings::default();
        Stores::open(folder, &refs, &settings, &Events::new(&Clock::system())).unwrap()
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
