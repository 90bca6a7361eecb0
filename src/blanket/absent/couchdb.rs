//! The engine `couchdb` where it is not built in: asking for it says so.

use std::path::Path;
use std::sync::Arc;

use super::engine::Engine;
use super::error::Error;
use super::servers::{ServerPlace, Servers};

/// Refuses.
pub(super) fn open(_: &Path, _: &Servers, _: Option<&ServerPlace>) -> Result<Arc<dyn Engine>, Error> {
    Err(Error::NotBuiltIn { engine: "couchdb" })
}

/// Refuses: what is on the server would be left there.
pub(super) fn remove(_: &Path, _: &Servers) -> Result<(), Error> {
    Err(Error::NotBuiltIn { engine: "couchdb" })
}

/// Whether a folder says that its database is on a server, all the same.
pub(super) fn is_there(place: &Path) -> bool {
    place.join("couchdb").is_dir()
}
