//! Compaction: what is in use goes into a fresh folder, which then takes the place of the other.
//!
//! ```text
//! lsm/        the store
//! lsm.new/    what a compaction has so far; whole as soon as lsm.old is there
//! lsm.old/    the store before, until it is removed
//! ```
//!
//! So the log and what was deleted are given back at once, whatever the store does by itself, at the price of room for both.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use super::super::error::Error;
use super::{Batch, Opening, Store};

/// Bytes that are written at once.
const BATCH_BYTES: usize = 1024 * 1024;

/// Ends a compaction that was cut, one way or the other.
pub(super) fn finish(folder: &Path) -> Result<(), Error> {
    let (new, old) = (sibling(folder, ".new"), sibling(folder, ".old"));
    if !old.is_dir() && !new.is_dir() {
        return Ok(());
    }
    if old.is_dir() && !folder.is_dir() {
        rename(if new.is_dir() { &new } else { &old }, folder)?;
    }
    if folder.is_dir() {
        // What was renamed before this failed must not be undone by a power cut, once more is written.
        sync_folder_of(folder)?;
        remove(&new)?;
        remove(&old)?;
    }
    Ok(())
}

/// Whether a store is in this place, also one whose compaction was cut.
pub(super) fn is_there(folder: &Path) -> bool {
    folder.is_dir() || sibling(folder, ".old").is_dir()
}

/// Makes the store anew, with what is in use; nothing else may write meanwhile.
pub(super) fn rewrite<S: Store>(
    folder: &Path,
    store: &RwLock<Option<S>>,
    around: &S::Around,
) -> Result<(), Error> {
    let (new, old) = (sibling(folder, ".new"), sibling(folder, ".old"));
    remove(&new)?;
    super::private_folder(&new)?;
    let copied = {
        let store = store.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        store.as_ref().map(|store| copy(store, &new, around))
    };
    match copied {
        None => return remove(&new),
        Some(Err(error)) => {
            // Its room is needed; what could not be removed is, when the database is opened.
            let _ = remove(&new);
            return Err(error);
        }
        Some(Ok(())) => {}
    }
    let mut store = store.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Closed before its folder has another name: it knows its files by path.
    *store = None;
    let renamed = rename(folder, &old).and_then(|()| rename(&new, folder));
    // One of the two is whole, whatever came of that.
    finish(folder)?;
    *store = Some(S::open(folder, Opening::Again, around)?);
    renamed
}

fn copy<S: Store>(from: &S, new: &Path, around: &S::Around) -> Result<(), Error> {
    let to = S::open(new, Opening::New, around)?;
    let (mut batch, mut bytes) = (Batch::new(), 0);
    from.read(|moment| {
        moment.walk((&[], None), false, &mut |key, sealed| {
            bytes += key.len() + sealed.len();
            batch.push((key.to_vec(), Some(sealed.to_vec())));
            if bytes >= BATCH_BYTES {
                bytes = 0;
                to.write(&batch)?;
                batch.clear();
            }
            Ok(ControlFlow::Continue(()))
        })
    })?;
    if !batch.is_empty() {
        to.write(&batch)?;
    }
    drop(to);
    sync(new)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| Error::io(from, error))?;
    sync_folder_of(to)
}

fn sync_folder_of(path: &Path) -> Result<(), Error> {
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, error)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), Error> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io(folder, error))
}

fn sibling(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
