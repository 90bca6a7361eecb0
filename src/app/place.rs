//! Where a command of the shell works: a data folder of this machine, or another node.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::boot;
use crate::coffer::{self, Compression, Remote};
use crate::files::{RemoteRefs, Repository};
use crate::http::{Client, NodeUrl, Token, Trust};
use crate::id::StoreName;
use crate::node::{self, Node};
use crate::replicate;

/// How a place is reached.
#[derive(Debug)]
pub enum Access {
    /// A data folder that nobody serves.
    Folder {
        /// The folder.
        data: PathBuf,
        /// Whether a folder that is not there becomes a new node.
        create: bool,
    },
    /// A running node.
    Node {
        /// Its address.
        url: NodeUrl,
        /// Who it must be.
        trust: Trust,
        /// What opens it.
        token: Option<Token>,
    },
}

/// An open place.
pub struct Place {
    /// The blobs of the named store, here or there.
    pub store: coffer::Store,
    /// The same store with its refs, for work on folders.
    pub repository: Repository,
    /// What holds them.
    pub held: Held,
}

/// What a place is.
pub enum Held {
    /// A data folder, open in this process.
    Folder(Node),
    /// A client of a running node.
    Node(Client),
}

impl Place {
    /// Opens a place and its store `name`.
    ///
    /// # Errors
    /// A data folder that can't be opened ([`node::FolderError`]), or a store that is not there.
    pub fn open(access: Access, name: &StoreName, runtime: &Handle) -> anyhow::Result<Place> {
        match access {
            Access::Folder { data, create } => {
                let node = Node::open(node::Options {
                    create,
                    servers: boot::reached(replicate::Options::of_user(Vec::new()), runtime.clone()),
                    ..node::Options::new(data)
                })?;
                let repository = node.repository(name)?;
                Ok(Place {
                    store: repository.store.clone(),
                    repository,
                    held: Held::Folder(node),
                })
            }
            Access::Node { url, trust, token } => {
                let client = Client::new(url, trust, token, runtime.clone())?;
                let backend = Remote::new(client.clone(), name);
                // The node packs as its store wants; compressing here would be undone before sending.
                let store = coffer::Store::new(Arc::new(backend), Compression::OFF)?;
                Ok(Place {
                    repository: Repository {
                        store: store.clone(),
                        refs: Arc::new(RemoteRefs::new(client.clone(), name)),
                    },
                    store,
                    held: Held::Node(client),
                })
            }
        }
    }
}
