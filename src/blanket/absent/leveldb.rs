//! The engine `leveldb` where it is not built in: asking for it says so.

use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::error::Error;

/// Refuses.
pub(super) fn open(_: &Path) -> Result<Arc<dyn Engine>, Error> {
    Err(Error::NotBuiltIn { engine: "leveldb" })
}

/// Whether a folder holds a database of it, all the same.
pub(super) fn is_there(place: &Path) -> bool {
    place.join("leveldb").is_dir() || place.join("leveldb.old").is_dir()
}
