//! That a write failed, for whoever opens the store next: an empty file beside it.
//!
//! After a flush that failed, the system may hold what the medium does not, and show it to whoever reads: a log that is read
//! then is not one to go on with. After the machine itself stopped, what is read is what the medium has, and the mark is of no
//! use: so it need not be durable.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::super::error::Error;

/// Marks a store.
pub(super) fn mark(folder: &Path) {
    if let Err(error) = File::create(place(folder)) {
        // The failure itself is answered; without the mark, only a second one right after it would be missed.
        tracing::warn!(folder = %folder.display(), %error, "a write failed, and that could not be noted");
    }
}

/// Whether it is marked.
pub(super) fn is_marked(folder: &Path) -> bool {
    place(folder).exists()
}

/// Takes the mark away.
pub(super) fn clear(folder: &Path) -> Result<(), Error> {
    let place = place(folder);
    match fs::remove_file(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&place, error)),
        _ => Ok(()),
    }
}

fn place(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".doubt");
    PathBuf::from(name)
}
