//! What a store whose files are in a folder takes of the medium.

use std::fs;
use std::path::Path;

use super::super::engine::Sizes;
use super::super::error::Error;

/// The sizes of a store in a folder; what of it is in use, only a compaction would tell.
pub(in crate::blanket) fn sizes_of(folder: &Path) -> Result<Sizes, Error> {
    let file_bytes = used_bytes(folder)?;
    Ok(Sizes {
        file_bytes,
        active_bytes: file_bytes,
    })
}

/// Bytes that the medium holds for the files below a folder: a log may be longer than what is written of it.
fn used_bytes(folder: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    /// The unit of `st_blocks`, whatever the file system's is.
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    for entry in entries {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => bytes += used_bytes(&path)?,
            Ok(found) => bytes += found.blocks() * BLOCK_BYTES,
            // A compaction of the store removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path, error)),
        }
    }
    Ok(bytes)
}
