//! An earlier generation of a database: a whole copy beside it, for the day its file is damaged or gone.
//!
//! `NAME.old` is written by SQLite itself (`VACUUM INTO`) under `NAME.new`, flushed and renamed, so that it is
//! always one whole state. It is for small databases whose loss costs more than a second writing of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Error, make_private, sync_folder_of};

/// Writes what the database holds now as its earlier generation. Durable on return; a crash leaves the one
/// before.
///
/// # Errors
/// [`Error::Full`], [`Error::Io`], [`Error::Sqlite`]: the one before is still there.
pub(super) fn keep(connection: &Connection, path: &Path) -> Result<(), Error> {
    let fresh = sibling(path, ".new");
    remove_if_there(&fresh)?;
    // SQLite fills an empty file, which keeps its mode.
    make_private(&fresh)?;
    let name = fresh.to_str().ok_or_else(|| Error::Io {
        path: fresh.clone(),
        source: std::io::ErrorKind::InvalidFilename.into(),
    })?;
    connection.execute("VACUUM INTO ?1", [name])?;
    let io = |source| Error::Io {
        path: fresh.clone(),
        source,
    };
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(&fresh, sibling(path, ".old")).map_err(io)?;
    sync_folder_of(path)
}

/// Puts the earlier generation where the database is missing; `false` where there is none, or an empty one. It stays where it
/// is as well. Durable on return.
///
/// # Errors
/// [`Error::Io`].
pub fn bring_back(path: &Path) -> Result<bool, Error> {
    let (fresh, old) = (sibling(path, ".new"), sibling(path, ".old"));
    // SQLite would take an empty file for a new database.
    if old.metadata().map_or(true, |file| file.len() == 0) {
        return Ok(false);
    }
    let io = |source| Error::Io {
        path: old.clone(),
        source,
    };
    // The mode is copied with the bytes.
    fs::copy(&old, &fresh).map_err(io)?;
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(&fresh, path).map_err(io)?;
    sync_folder_of(path)?;
    Ok(true)
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
