//! What keeps the node from its board.

use std::io;
use std::path::PathBuf;

/// Why a part of the board is not used. The node runs without.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The profile can't be read, or is none.
    #[error("the board's profile {}: {reason}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; names the key.
        reason: String,
    },
    /// Somebody who may not asks the helper.
    #[error("user {user} may not ask")]
    Stranger {
        /// Who.
        user: u32,
    },
    /// The connection to the helper ended early, or what came over it is no command.
    #[error("the connection ended: {0}")]
    Helper(#[source] io::Error),
    /// A step of a start that an update needs was not done.
    #[error(transparent)]
    Update(crate::node::UpdateTrouble),
    /// A light or a button is not there, or not for this user.
    #[error("{}: {source}", path.display())]
    Device {
        /// The device.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
