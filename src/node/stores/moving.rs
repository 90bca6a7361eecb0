//! A store moves to another place, such as a disk that was adopted, while it is used.
//!
//! ```text
//! store.json   {…card…}
//!   begin  ─>  {…card…, "moving": disk}     blobs are carried to the disk, a mirror by then; each start goes on with it
//!   exchange   {…disk…, "leaving": card}    written while writes wait: from here on the blobs are on the disk
//!   remove ─>  {…disk…}                     what was left on the card is gone
//! ```
//!
//! Each line is one durable replacement of the file. Before the second the old place has everything that was acknowledged, from
//! it on the new one has; cut at any moment, the store is in one of the two, whole. Where the second fails, may be in force
//! all the same and cannot be taken back, neither place takes writes until the store is opened again, by what the file says then.
//! Refs, and since when what is unnamed, stay in the data folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{
    BackendSettings, RemoveOptions, StoreFile, StoreSettings, Stores, fs_folder, invalid, open_backend,
    parts_of, read_file, write_file,
};
use crate::coffer::{self, Backend, Carrier, CarryError, Fs, Haystack, Status};
use crate::db;
use crate::id::StoreName;
use crate::node::error::{Error, Kind};

/// Of every hundred bytes this many more have to be free at the new place: names, folders and tables take some.
const ROOM_PERCENT: u64 = 5;

/// A store on its way to another place, as the list of stores shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveInfo {
    /// Where its blobs are carried to.
    pub to: BackendSettings,
    /// Blobs compared or carried so far, in the attempt under way or the last one.
    pub blobs: u64,
    /// Why the last attempt ended, where it failed.
    pub trouble: Option<String>,
}

/// A store on its way to another place.
pub(super) struct Moving {
    pub(super) to: BackendSettings,
    blobs: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Held by the attempt under way.
    running: Mutex<()>,
    is_cancelled: AtomicBool,
}

/// The stores of an attempt, and what it works on.
struct Attempt<'a> {
    stores: &'a Stores,
    name: &'a StoreName,
    moving: &'a Arc<Moving>,
    /// Where the store is, as this process has it.
    from: StoreSettings,
    store: coffer::Store,
}

impl Moving {
    pub(super) fn new(to: BackendSettings) -> Moving {
        Moving {
            to,
            blobs: AtomicU64::new(0),
            trouble: Mutex::default(),
            running: Mutex::default(),
            is_cancelled: AtomicBool::new(false),
        }
    }

    pub(super) fn info(&self) -> MoveInfo {
        MoveInfo {
            to: self.to.clone(),
            blobs: self.blobs.load(Ordering::Relaxed),
            trouble: self.trouble().clone(),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble
            .lock()
            .expect("no thread panics while it holds a reason")
    }
}

impl BackendSettings {
    /// The folder that blobs lie in, of a store whose own is `own`.
    pub(super) fn place(&self, own: &Path) -> PathBuf {
        match self {
            BackendSettings::Fs { path, .. } => fs_folder(own, path.as_deref()),
            BackendSettings::Haystack { .. } | BackendSettings::Memory {} => own.to_owned(),
        }
    }

    /// Whether blobs of both lie in the same place.
    fn is_same_place(&self, other: &BackendSettings) -> bool {
        match (self, other) {
            (BackendSettings::Haystack { .. }, BackendSettings::Haystack { .. })
            | (BackendSettings::Memory {}, BackendSettings::Memory {}) => true,
            (BackendSettings::Fs { .. }, BackendSettings::Fs { .. }) => self.folder() == other.folder(),
            (
                BackendSettings::Haystack { .. } | BackendSettings::Fs { .. } | BackendSettings::Memory {},
                _,
            ) => false,
        }
    }
}

impl Stores {
    /// Notes that a store is to move: [`Stores::carry_on`] does it, also after a restart. Where it is already, it is to stay,
    /// and what was carried is removed. An empty store that is there is removed and gives its place. Durable on return.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another store or its blobs are, or what it left elsewhere is not removed yet;
    /// [`Error::NoSpace`]; [`Error::Invalid`] for a store that others mount or that is in memory.
    pub async fn begin_move(&self, name: &StoreName, to: BackendSettings) -> Result<(), Error> {
        let (stores, name) = (self.clone(), name.clone());
        db::crossing(move || stores.begin_move_blocking(&name, to)).await
    }

    /// Carries the blobs of a store that is to move, and goes on with them there; returns when that is so. Takes as long as all
    /// of them take. Ends early when `stop` is set.
    ///
    /// # Errors
    /// What kept it from being done, which is listed as well: the store is where it was, and may be carried on with.
    pub async fn carry_on(&self, name: &StoreName, stop: Arc<AtomicBool>) -> Result<(), Error> {
        let (stores, name) = (self.clone(), name.clone());
        db::crossing(move || stores.carry_on_blocking(&name, &stop)).await
    }

    fn begin_move_blocking(&self, name: &StoreName, to: BackendSettings) -> Result<(), Error> {
        let file = self.file_of(name)?;
        let target = StoreSettings {
            backend: to,
            ..file.settings.clone()
        };
        target.check()?;
        let is_ours = |settings: &StoreSettings| {
            !settings.is_shared() && !matches!(settings.backend, BackendSettings::Memory {})
        };
        if !is_ours(&file.settings) || !is_ours(&target) {
            return Err(invalid(
                "store",
                "one that other nodes mount, or that is in memory, cannot move".to_owned(),
            ));
        }
        if target.backend.is_same_place(&file.settings.backend) {
            return self.cancel(name);
        }
        if file.leaving.is_some() {
            return Err(not_left(name));
        }
        if let Some(moving) = &file.moving {
            if moving.is_same_place(&target.backend) {
                return Ok(());
            }
            self.cancel(name)?;
        }
        self.make_place(name, &target.backend)?;
        let to = self.has_room(name, &target)?;
        self.mirror_at(name, &target.backend, &*to)?;
        drop(to);
        self.note(name, Some(target.backend))
    }

    /// The folder of a store, and who it is to a disk.
    fn known_as(&self, name: &StoreName) -> (PathBuf, String) {
        let around = &self.inner.around;
        (
            around.folder.join(name.as_str()),
            format!("{} {name}", around.node),
        )
    }

    /// Makes a place the mirror of a store, unless it is. Durable on return.
    ///
    /// # Errors
    /// [`Error::Conflict`] where there are other blobs: the mirror would lose them.
    fn mirror_at(&self, name: &StoreName, to: &BackendSettings, backend: &dyn Backend) -> Result<(), Error> {
        let (own, whose) = self.known_as(name);
        let place = to.place(&own);
        if coffer::is_mirror(&place, &whose) {
            return Ok(());
        }
        if backend.list(None)?.next().transpose()?.is_some() {
            return Err(Error::conflict(
                Kind::Store,
                name,
                "blobs of another store, such as another box's, are at its new place: take another disk",
            ));
        }
        Ok(coffer::make_mirror(&place, &whose)?)
    }

    /// An empty store that is at the place goes; any other keeps it.
    fn make_place(&self, name: &StoreName, to: &BackendSettings) -> Result<(), Error> {
        let other = {
            let open = self.opened();
            let mut others = open.iter().filter(|(other, _)| *other != name);
            others
                .find(|(_, opened)| opened.is_in(to))
                .map(|(other, _)| other.clone())
        };
        let Some(other) = other else {
            return Ok(());
        };
        let removed = self.remove_blocking(&other, RemoveOptions::default());
        removed.map(drop).map_err(|error| match error {
            Error::Refused(_) => Error::conflict(
                Kind::Store,
                other,
                "it is on this disk, and holds blobs: a disk holds one store",
            ),
            error => error,
        })
    }

    /// Opens the new place, which has room for the store.
    fn has_room(&self, name: &StoreName, target: &StoreSettings) -> Result<Arc<dyn Backend>, Error> {
        let Status { plain_bytes, .. } = self.get(name)?.status();
        let folder = self.inner.around.folder.join(name.as_str());
        let backend = open_or_create(&folder, target)?;
        let wanted = plain_bytes.saturating_add(plain_bytes / 100 * ROOM_PERCENT);
        match backend.status().free_bytes {
            Some(free) if free < wanted => Err(Error::NoSpace {
                path: target.backend.folder().unwrap_or(folder),
            }),
            _ => Ok(backend),
        }
    }

    /// It stays where it is.
    fn cancel(&self, name: &StoreName) -> Result<(), Error> {
        let moving = self.opened().get(name).and_then(|opened| opened.moving.clone());
        let Some(moving) = moving else {
            return Ok(());
        };
        moving.is_cancelled.store(true, Ordering::Relaxed);
        // Its attempt, if there is one, ends before what it carried is removed.
        let _over = moving
            .running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // It may have been done a moment before.
        if self.file_of(name)?.moving.is_none() {
            return Ok(());
        }
        self.note(name, None)?;
        let (own, whose) = self.known_as(name);
        match coffer::is_mirror(&moving.to.place(&own), &whose) {
            true => remove_backend(&own, &moving.to),
            // Somebody has used that disk meanwhile.
            false => Ok(()),
        }
    }

    /// Writes down where it moves to.
    fn note(&self, name: &StoreName, to: Option<BackendSettings>) -> Result<(), Error> {
        let _changing = self.changing();
        let mut file = self.file_of(name)?;
        file.moving = to;
        let written = write_file(&self.inner.around.folder, name, &file);
        if written.is_err() {
            // It may be in force all the same.
            file = self.file_of(name)?;
        }
        let mut open = self.opened();
        let opened = open
            .get_mut(name)
            .ok_or_else(|| Error::missing(Kind::Store, name))?;
        opened.moving = file.moving.map(|to| Arc::new(Moving::new(to)));
        written
    }

    fn file_of(&self, name: &StoreName) -> Result<StoreFile, Error> {
        if !self.opened().contains_key(name) {
            return Err(Error::missing(Kind::Store, name));
        }
        read_file(&self.inner.around.folder, name)
    }

    fn carry_on_blocking(&self, name: &StoreName, stop: &AtomicBool) -> Result<(), Error> {
        let (moving, from, store) = {
            let open = self.opened();
            let store = parts_of(&open, name)?.blobs.store().clone();
            let Some((moving, opened)) = open
                .get(name)
                .and_then(|opened| Some((opened.moving.clone()?, opened)))
            else {
                return Ok(());
            };
            (moving, opened.settings.clone(), store)
        };
        let _running = moving.running.try_lock().map_err(|_| Error::Busy)?;
        *moving.trouble() = None;
        let attempt = Attempt {
            stores: self,
            name,
            moving: &moving,
            from,
            store,
        };
        let done = attempt.run(stop);
        if let Err(error) = &done {
            *moving.trouble() = Some(error.to_string());
        }
        done
    }
}

impl Attempt<'_> {
    fn run(&self, stop: &AtomicBool) -> Result<(), Error> {
        let around = &self.stores.inner.around;
        let own = around.folder.join(self.name.as_str());
        // After a commit that failed the file may say that the store is there already, and this process has it here.
        if !self.is_noted()? {
            return Err(not_left(self.name));
        }
        let target = StoreSettings {
            backend: self.moving.to.clone(),
            ..self.from.clone()
        };
        let to = open_or_create(&own, &target)?;
        self.stores.mirror_at(self.name, &self.moving.to, &*to)?;
        let carrier = Carrier {
            from: self.store.switch(),
            to,
            compression: target.packed(),
            stop: &|| stop.load(Ordering::Relaxed) || self.moving.is_cancelled.load(Ordering::Relaxed),
            progress: &|blobs| self.moving.blobs.store(blobs, Ordering::Relaxed),
        };
        let old = carrier.run(|| self.commit(&target))?;
        self.store.set_compression(target.packed());
        tracing::info!(store = %self.name, "a store has moved");
        // Who still reads there has its files open.
        old.abandon();
        drop(old);
        let mut file = read_file(&around.folder, self.name)?;
        let removed = coffer::end_mirror(&self.moving.to.place(&own))
            .map_err(Error::from)
            .and_then(|()| remove_left(&around.folder, self.name, &mut file));
        // It is done: what stays behind takes room until the next start.
        if let Err(error) = removed {
            tracing::warn!(store = %self.name, %error, "what a store left where it was is not removed yet");
        }
        Ok(())
    }

    /// Whether the file says that the store is where it was, and moves.
    fn is_noted(&self) -> Result<bool, Error> {
        let file = read_file(&self.stores.inner.around.folder, self.name)?;
        Ok(file.moving.as_ref() == Some(&self.moving.to))
    }

    /// From here on the blobs are there. Writes wait meanwhile.
    fn commit(&self, target: &StoreSettings) -> Result<(), Error> {
        let _changing = self.stores.changing();
        // Closed, removed or opened anew meanwhile, it is not the store that was carried.
        let present = self.stores.get(self.name)?;
        if !std::ptr::eq(present.store().switch(), self.store.switch()) {
            return Err(Error::Busy);
        }
        let file = StoreFile {
            leaving: Some(self.from.backend.clone()),
            ..StoreFile::of(target.clone())
        };
        let folder = &self.stores.inner.around.folder;
        let written = write_file(folder, self.name, &file);
        if written.is_err() && !self.is_noted().is_ok_and(|is_noted| is_noted) {
            let before = StoreFile {
                moving: Some(self.moving.to.clone()),
                ..StoreFile::of(self.from.clone())
            };
            // Where it can't be taken back, the next start may go on there, and removes what is here.
            if write_file(folder, self.name, &before).is_err() {
                self.store.backend().abandon();
            }
        }
        written?;
        if let Some(opened) = self.stores.opened().get_mut(self.name) {
            opened.settings = target.clone();
            opened.moving = None;
        }
        Ok(())
    }
}

impl From<CarryError> for Error {
    fn from(error: CarryError) -> Error {
        match error {
            CarryError::Store(error) => error.into(),
            CarryError::Stopped => Error::Busy,
            CarryError::Untrue { count } => Error::conflict(
                Kind::Store,
                format_args!("that moves, {count} blobs of it"),
                "they came back from the new place as something else than was written: that disk is damaged",
            ),
        }
    }
}

fn not_left(name: &StoreName) -> Error {
    let reason = "what it left at its last place is not removed yet: restart the node";
    Error::conflict(Kind::Store, name, reason)
}

/// Removes what a store left where it was before it moved, and writes that down. Nothing where nothing was left.
pub(super) fn remove_left(folder: &Path, name: &StoreName, file: &mut StoreFile) -> Result<(), Error> {
    let Some(left) = &file.leaving else {
        return Ok(());
    };
    // After a cut in the middle of it only one of the generations may say so.
    write_file(folder, name, file)?;
    // Never where it is.
    if !left.is_same_place(&file.settings.backend) {
        remove_backend(&folder.join(name.as_str()), left)?;
    }
    file.leaving = None;
    write_file(folder, name, file)
}

/// The files of a backend that nobody uses any more; none where its disk is not there.
fn remove_backend(own: &Path, backend: &BackendSettings) -> Result<(), Error> {
    match backend {
        BackendSettings::Haystack { .. } => {
            Haystack::remove(own)?;
            coffer::end_mirror(own)?;
        }
        BackendSettings::Fs { path, .. } => Fs::remove(&fs_folder(own, path.as_deref()))?,
        BackendSettings::Memory {} => {}
    }
    Ok(())
}

/// The backend at a new place, where that is there: a folder is made in its disk, and a disk is not made up.
fn open_or_create(own: &Path, settings: &StoreSettings) -> Result<Arc<dyn Backend>, Error> {
    if let BackendSettings::Fs { path, .. } = &settings.backend {
        let folder = fs_folder(own, path.as_deref());
        let disk = folder.parent().unwrap_or(own);
        if !disk.is_dir() {
            return Err(coffer::Error::Foreign { path: folder }.into());
        }
        Fs::create(&folder)?;
    }
    open_backend(own, settings)
}

#[cfg(test)]
mod tests;
