//! The use cases: the only place that joins blobs, files, accounts and events.
//!
//! A [`Node`] is one open data folder. Edges hold a clone of it and speak with its parts, one for each kind of
//! use case; they need nothing below this module, and what fails is an outcome ([`Error`]) that they only
//! have to word for their protocol. Opening and the calls that say so block; everything else is async.

mod blobs;
mod clock;
mod error;
mod events;
mod folder;
mod identity;
mod stores;

use std::path::PathBuf;
use std::sync::Arc;

pub use blobs::{Blobs, Reading, Receiver};
pub use clock::Clock;
pub use error::{Cause, Error, FolderError, Kind, Refusal};
pub use events::{Delivery, EVENTS_KEPT, Event, EventId, Events, Subscription};
pub use identity::Identity;
pub use stores::{BackendSettings, RemoveOptions, StoreInfo, StoreSettings, Stores};

use crate::coffer;
pub use crate::coffer::{
    BATCH_IDS_MAX, CheckOptions, CheckReport, Class, LIST_PAGE_MAX, PACKED_BYTES_MAX, Packed, Put, Stat,
    Status, clamp,
};
use crate::id::StoreName;
use folder::Folder;

/// How a node is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder.
    pub folder: PathBuf,
    /// Whether a folder that is not there, or empty, becomes a new node.
    pub create: bool,
    /// What the store `main` of a new node is made of.
    pub main_store: StoreSettings,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Options {
    /// Opens `folder`, makes it where it is new, with everything else as it is by default.
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        Options {
            folder: folder.into(),
            create: true,
            main_store: StoreSettings::default(),
            clock: Clock::system(),
        }
    }
}

/// An open data folder; cloning is cheap, the last clone lets go of the folder.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    stores: Stores,
    events: Events,
    clock: Clock,
    /// Last, so that the folder is held until everything in it is closed.
    folder: Folder,
}

impl Node {
    /// Opens a data folder: takes its lock, proves its identity, opens its stores. Blocking. A new folder
    /// gets its keys here.
    ///
    /// # Errors
    /// [`Error::Folder`]; nothing was changed then.
    pub fn open(options: Options) -> Result<Node, Error> {
        let mut folder = Folder::open(&options.folder, options.create)?;
        let identity = Identity::open(&folder.subfolder("identity")?, folder.node())?;
        let events = Events::new(&options.clock);
        let stores = Stores::open(&folder.subfolder("stores")?, options.main_store, &events)?;
        if folder.node().is_none() {
            folder.settle(identity.node_id())?;
        }
        tracing::info!(node = %identity.node_id(), folder = %folder.path().display(), "data folder opened");
        Ok(Node {
            inner: Arc::new(Inner {
                identity,
                stores,
                events,
                clock: options.clock,
                folder,
            }),
        })
    }

    /// Who the node is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Its named stores, and through them its blobs.
    pub fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    /// A named store itself, for threads that do storage work: what is changed through it is told to nobody.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn store(&self, name: &StoreName) -> Result<coffer::Store, Error> {
        Ok(self.stores().get(name)?.store().clone())
    }

    /// What changes in it.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }
}
