//! The engine `lsm` where it is not built in: asking for it says so.

use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::error::Error;

/// Refuses.
pub(super) fn open(_: &Path) -> Result<Arc<dyn Engine>, Error> {
    Err(Error::NotBuiltIn { engine: "lsm" })
}

/// Whether a folder holds a database of it, all the same.
pub(super) fn is_there(place: &Path) -> bool {
    place.join("lsm").is_dir() || place.join("lsm.old").is_dir()
}
