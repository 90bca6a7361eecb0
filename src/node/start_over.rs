//! Starting over: a factory reset, and letting a new owner in.
//!
//! ```text
//! DIR/reset    a factory reset was asked for: it is done before the folder is opened again
//! ```
//!
//! A reset takes keys first, then accounts and tokens, then all the rest, and last the request for it: cut at any moment, the
//! next start goes on. What it destroys it overwrites before; a card keeps old blocks where no program reaches them.
//! Stores in other folders, such as those on adopted disks, keep their blobs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::access::MIGRATIONS;
use super::error::Error;
use super::folder::take_lock;
use crate::db::{self, Database};
use crate::durable;

/// The request for a reset.
const REQUEST: &str = "reset";

/// What stays: the lock is held meanwhile, the request ends it, the last is the file system's own.
const KEPT: [&str; 5] = ["lock", REQUEST, "reset.new", "reset.old", "lost+found"];

/// What goes first, and is overwritten before: keys, then accounts, sessions and tokens.
const SECRET: [&str; 3] = ["identity", "node.db", "secrets"];

/// Bytes overwritten at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// Asks for a reset at the next start. Durable on return. Blocking.
///
/// # Errors
/// [`Error::NoSpace`], [`Error::Internal`]: nothing was asked for, as far as the disk lets that be taken back.
pub(super) fn ask(folder: &Path) -> Result<(), Error> {
    let request = folder.join(REQUEST);
    let was_asked = request.exists();
    let asked = durable::replace(&request, b"factory reset");
    if asked.is_err() && !was_asked {
        // It may be in force, and who was told that it failed may have changed their mind by the next start.
        durable::remove(&request)?;
    }
    Ok(asked?)
}

/// Does what [`ask`] asked for, and says whether it did. The folder is empty then, and becomes a new node where it is opened.
/// Blocking; takes as long as the removal of all files.
///
/// # Errors
/// [`Error::Folder`] where the folder is in use; [`Error::Internal`]: the next start goes on.
pub(super) fn reset_if_asked(folder: &Path) -> Result<bool, Error> {
    let request = folder.join(REQUEST);
    // Whatever state it is in, somebody asked.
    if !request.exists() {
        return Ok(false);
    }
    let _lock = take_lock(folder)?;
    tracing::warn!(folder = %folder.display(), "factory reset: keys, accounts and data are destroyed");
    for first in SECRET {
        remove(folder, |name| name.starts_with(first), Destroy::Overwritten)?;
    }
    remove(folder, |_| true, Destroy::Removed)?;
    durable::remove(&request)?;
    Ok(true)
}

/// Sets the accounts aside, so that the node has no owner and a new claim code; its data and its keys stay. Answers where
/// they lie now; `None` where there were none. Durable on return. Blocking.
///
/// # Errors
/// [`Error::Folder`] where the folder is in use; [`Error::Internal`].
pub fn forget_owner(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let accounts = folder.join("node.db");
    if !accounts.exists() {
        return Ok(None);
    }
    let _lock = take_lock(folder)?;
    let aside = db::set_aside(&accounts)?;
    // The earlier copy would bring the owner back.
    let copy = folder.join("node.db.old");
    let located = |source| Error::io(&copy, source);
    match fs::rename(&copy, aside.with_added_extension("old")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(located(error)),
        _ => durable::sync_folder_of(&copy).map_err(located)?,
    }
    // Without one, the loss of the accounts would be a damage.
    drop(Database::open(&accounts, MIGRATIONS)?);
    Ok(Some(aside))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destroy {
    Overwritten,
    Removed,
}

/// Removes what is in the folder and chosen, durably.
fn remove(folder: &Path, is_chosen: impl Fn(&str) -> bool, destroy: Destroy) -> Result<(), Error> {
    let run = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if KEPT.contains(&&*name) || !is_chosen(&name) {
                continue;
            }
            if destroy == Destroy::Overwritten {
                overwrite(&entry.path())?;
            }
            // Neither follows a link.
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        durable::sync_folder_of(&folder.join(REQUEST))
    };
    run().map_err(|source| Error::io(folder, source))
}

/// Writes zeros over a file, or over those of a folder, and flushes them.
fn overwrite(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            overwrite(&entry?.path())?;
        }
    }
    if !found.is_file() {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).open(path)?;
    let zeros = vec![0; BLOCK_BYTES];
    let mut left = found.len();
    while left > 0 {
        let take = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        file.write_all(&zeros[..take])?;
        left -= take as u64;
    }
    file.sync_all()
}
