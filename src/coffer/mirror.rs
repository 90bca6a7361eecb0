//! What tells the mirror of a store from blobs that somebody needs: a file beside them that says whose it is.
//!
//! ```text
//! FOLDER/mirror    as "NODE STORE", the store that blobs are carried here from
//! ```
//!
//! It is made while there are no blobs, and goes when a store goes on with them, whichever and on whichever node. While it is
//! there they are copies, and may be deleted by who made them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::error::Error;
use crate::durable;

/// The file.
pub(super) const MIRROR: &str = "mirror";

/// Whether a folder has the mirror of this store. What cannot be read is none.
pub fn is_mirror(folder: &Path, whose: &str) -> bool {
    let path = folder.join(MIRROR);
    // What somebody else put in its place on a disk is not opened.
    let found = path.symlink_metadata();
    found.is_ok_and(|found| found.is_file() && found.len() == whose.len() as u64)
        && fs::read(&path).is_ok_and(|read| read == whose.as_bytes())
}

/// Makes a folder without blobs the mirror of a store. Durable on return; cut before, it is one or none.
///
/// # Errors
/// [`Error::NoSpace`], [`Error::Busy`], [`Error::Io`].
pub fn make_mirror(folder: &Path, whose: &str) -> Result<(), Error> {
    let path = folder.join(MIRROR);
    let make = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(whose.as_bytes())?;
        file.sync_all()?;
        durable::sync_folder_of(&path)
    };
    make().map_err(|source| Error::io(&path, source))
}

/// Says that the blobs in a folder are nobody's mirror any more; nothing where they were none. Durable on return.
///
/// # Errors
/// [`Error::Busy`], [`Error::Io`]: they still count as one.
pub fn end_mirror(folder: &Path) -> Result<(), Error> {
    let path = folder.join(MIRROR);
    // A disk that takes no writes would refuse also what changes nothing.
    if path
        .symlink_metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        return Ok(());
    }
    fs::remove_file(&path)
        .and_then(|()| durable::sync_folder_of(&path))
        .map_err(|source| Error::io(&path, source))
}
