//! Servers that databases may live on: where one is, and what whoever opens databases says of reaching it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::id::{NodeId, SecretName};

/// A database on a server that speaks CouchDB's API. Holds no credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlace {
    /// The URL of the database there, without a name and a password.
    pub url: String,
    /// The secret that opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// The node that it must prove to be, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
}

/// What opens a server.
pub struct Opener {
    /// The name that goes with it; a token has none.
    pub user: Option<String>,
    /// The password or token.
    pub secret: Zeroizing<String>,
}

/// From the name of a secret to what it is, where there is one of that name. Blocking.
pub type Reveal = Arc<dyn Fn(&SecretName) -> Option<Opener> + Send + Sync>;

/// Whether an address may be reached; the first says whether over HTTPS.
pub type Allows = Arc<dyn Fn(bool, IpAddr) -> bool + Send + Sync>;

/// How servers are reached. Where nothing is said, none is.
#[derive(Clone, Default)]
pub struct Servers {
    /// What drives connections, and where they may go.
    pub reach: Option<(Handle, Allows)>,
    /// What opens them.
    pub reveal: Option<Reveal>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers")
            .field("is_reached", &self.reach.is_some())
            .finish_non_exhaustive()
    }
}
