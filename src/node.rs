//! The use cases: the only place that joins blobs, files, accounts and events.
//!
//! A [`Node`] is one open data folder. Edges hold a clone of it and speak with its parts, one for each kind of
//! use case; they need nothing below this module, and what fails is an outcome ([`Error`]) that they only
//! have to word for their protocol. Opening and the calls that say so block; everything else is async.

mod access;
mod account;
mod activity;
mod attach;
mod blobs;
mod board;
mod browse;
mod bundles;
mod channel;
mod claim;
mod clock;
mod disk;
mod documents;
mod doubt;
mod dropped;
mod error;
mod events;
mod folder;
mod gc;
mod gunzip;
mod health;
mod identity;
mod lease;
mod limit;
mod password;
mod peers;
mod pulse;
mod refs;
mod replications;
mod secret;
mod secrets;
mod security_log;
mod session;
mod start_over;
mod stores;
mod token;
mod trial;
mod unpacking;
mod update;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;

pub use access::{Principal, Role, Scope, Scopes, Via};
pub use account::{Account, Accounts, PasswordChange};
pub use activity::Activity;
pub use attach::{Attached, Attaching, Coding, Expected};
pub use blobs::{Blobs, Reading, Receiver};
pub use board::{Adoption, Asked, Board, CardReserve, Done, Hardware, MoveTo, Order};
pub use browse::{FOLDER_PAGE_MAX, FileReading};
pub use bundles::{
    Arriving, BUNDLE_BYTES_MAX, BUNDLE_MANIFEST_BYTES_MAX, BUNDLE_PART_BYTES_MAX, BundleManifest, BundlePart,
    Bundles, Coming, ManifestError, PartReading,
};
pub use channel::{
    Channel, ChannelNews, ChannelSeen, ChannelSettings, ChannelTrouble, Offer, Window, WindowError,
};
pub use claim::{
    CLAIM_EXPORTER_LABEL, CLAIM_WINDOW, Claim, ClaimCode, ClaimCodeError, ClaimProof, ClaimSide, Proven,
    claim_mac,
};
pub use clock::Clock;
pub use disk::{Disk, DiskTrouble, Holds};
pub use documents::{DATABASES_OPEN_MAX, DATABASES_USED_MAX, Db, Documents};
pub use dropped::COLLECT_AFTER;
pub use error::{Cause, Error, FolderError, Kind, Refusal};
pub use events::{Delivery, EVENTS_KEPT, Event, EventId, Events, Subscription};
pub use gc::{COLLECT_EVERY, Collected, Gc};
pub use health::{Health, Report as HealthReport, State as HealthState};
pub use identity::Identity;
pub use peers::{FoundBy, PEER_ADDRESSES_MAX, PEERS_MAX, Peer, Peers, Sighting};
pub use pulse::{PULSE_EVERY, time_floor};
pub use refs::{INCOMPLETE_NAMED_MAX, Refs};
pub use replications::{
    Endpoint, Job, JobEvent, JobState, Opens, Remote, Replicated, ReplicationAsked, ReplicationDone,
    ReplicationError, ReplicationFailure, ReplicationOrder, ReplicationRequest, ReplicationStats,
    Replications,
};
pub use secret::{Password, SecretText};
pub use secrets::{Secrets, StoredSecret};
pub use security_log::{LOG_ENTRIES_MAX, LogEntry, SecurityLog};
pub use session::{NewSession, SESSION_ABSOLUTE, SESSION_IDLE, Sessions};
pub use start_over::forget_owner;
pub use stores::{BackendSettings, MoveInfo, RemoveOptions, StoreInfo, StoreSettings, Stores};
pub use token::{NewToken, TokenInfo, TokenRequest, Tokens};
pub use unpacking::Unpacking;
pub use update::{
    Available, BundleDigest, Installation, Outcome, Progress, Slot, Source, SourceError, Step, UpdateTrouble,
    Updates,
};
pub use upload::{
    Appending, NewUpload, UPLOAD_EXPIRY, UPLOAD_METADATA_BYTES_MAX, UPLOAD_PARTS_MAX, UPLOADS_BYTES_MAX,
    UPLOADS_MAX, UploadInfo, Uploads,
};

pub use crate::blanket::selector::{FieldPath, Selector as MangoSelector, SelectorError};
pub use crate::blanket::{
    Attachment, AttachmentEdit, BODY_BYTES_MAX as DOCUMENT_BYTES_MAX, Body as DocumentBody, Change,
    ChangesQuery, Database, DesignError, Doc, Edit, Encoded as EncodedLength, EngineKind,
    Error as DatabaseError, FoundPage, Hint as IndexHint, INDEX_FIELDS_MAX, Index, IndexCandidate,
    IndexField, IndexState, ListQuery, Listed, LocalDoc, NoPlan, Options as DatabaseOptions, PageQuery,
    Plan as FindPlan, Position, Query as FindQuery, Refused, RevTree, ServerPlace as DatabaseServer, Servers,
    Which, copy as copy_documents, projected, split as split_document, whole as whole_document, with_index,
    without_index,
};
use crate::coffer;
pub use crate::coffer::{
    BATCH_IDS_MAX, CheckOptions, CheckReport, Class, Compaction, LIST_PAGE_MAX, PACKED_BYTES_MAX, Packed,
    Put, Stat, Status, clamp,
};
pub use crate::files::{
    Body, Entry, EntryName, Kind as EntryKind, RefRecord, RefVersion, RootMeta, SNAPSHOTS_MAX, Selector,
    Snapshot,
};
use access::Access;
use folder::Folder;
use password::Hasher;
use pulse::Pulse;
use stores::Around;

use crate::db;
use crate::files::Repository;
use crate::id::{BlobId, StoreName};

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
    /// What claims it while it has no owner, in place of a code of its own.
    pub claim_code: Option<ClaimCode>,
    /// What its owner is to be told of how it was started, until it is started anew.
    pub note: Option<String>,
    /// How servers are reached that databases are on; what opens them are the node's secrets.
    pub servers: Servers,
    /// Whether this binary may still be left for the one before: what is on the disk then keeps the form that both know.
    pub is_on_trial: bool,
}

impl Options {
    /// Opens `folder`, makes it where it is new, with everything else as it is by default: the clock is the system's,
    /// and no earlier than the folder was last in use.
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        let folder = folder.into();
        Options {
            create: true,
            main_store: StoreSettings::default(),
            clock: Clock::system().not_before(time_floor(&folder)),
            folder,
            claim_code: None,
            note: None,
            servers: Servers::default(),
            is_on_trial: false,
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
    claim: Claim,
    accounts: Accounts,
    sessions: Sessions,
    tokens: Tokens,
    access: Arc<Access>,
    stores: Stores,
    documents: Documents,
    uploads: Uploads,
    gc: Gc,
    health: Health,
    events: Events,
    peers: Peers,
    board: Board,
    bundles: Bundles,
    replications: Replications,
    secrets: Secrets,
    pulse: Pulse,
    channel: Channel,
    activity: Activity,
    /// Last, so that the folder is held until everything in it is closed.
    folder: Folder,
}

impl Node {
    /// Opens a data folder: takes its lock, proves its identity, opens its stores. Blocking. A new folder
    /// gets its keys here; one whose factory reset was asked for is emptied first.
    ///
    /// # Errors
    /// [`Error::Folder`]; nothing was changed then.
    pub fn open(options: Options) -> Result<Node, Error> {
        start_over::reset_if_asked(&options.folder)?;
        let mut folder = Folder::open(&options.folder, options.create)?;
        let keys = folder.subfolder("identity")?;
        let identity = Identity::open(&keys, folder.node())?;
        let events = Events::new(&options.clock);
        let had_accounts = folder.node().is_some();
        let rise = if options.is_on_trial {
            db::Rise::Later
        } else {
            db::Rise::Now
        };
        let accounts_at = folder.join("node.db");
        let (access, found) =
            access::recovery::open(&accounts_at, had_accounts, &options.clock, &events, rise)?;
        let access = Arc::new(access);
        let accounts = Accounts::new(Arc::clone(&access), Arc::new(Hasher::new()));
        let claim = Claim::open(
            &keys,
            identity.node_id(),
            Arc::clone(&access),
            accounts.clone(),
            options.claim_code,
        )?;
        let activity = Activity::new();
        let around = Around {
            node: identity.node_id(),
            folder: folder.subfolder("stores")?,
            main_refs: folder.subfolder("refs")?,
            events: events.clone(),
            clock: options.clock.clone(),
            activity: activity.clone(),
        };
        let stores = Stores::open(around, &options.main_store)?;
        let secrets = Secrets::new(folder.subfolder("secrets")?);
        let servers = secrets.opening(options.servers);
        let databases = folder.subfolder("databases")?;
        let documents = Documents::open(databases, servers, stores.clone(), events.clone())?;
        let health = Health::new(stores.clone());
        health.note("start", options.note);
        if let Some(note) = found.note() {
            health.note("accounts", Some(note.to_owned()));
        }
        let uploads = Uploads::open(
            &folder.subfolder("uploads")?,
            stores.clone(),
            events.clone(),
            options.clock.clone(),
            activity.clone(),
        )?;
        if folder.node().is_none() {
            folder.settle(identity.node_id())?;
        }
        tracing::info!(node = %identity.node_id(), folder = %folder.path().display(), "data folder opened");
        Ok(Node {
            inner: Arc::new(Inner {
                claim,
                accounts,
                sessions: Sessions::new(Arc::clone(&access)),
                tokens: Tokens::new(Arc::clone(&access)),
                access,
                board: Board::new(health.clone()),
                bundles: Bundles::open(folder.join("bundles")),
                replications: Replications::new(),
                secrets,
                channel: Channel::open(
                    folder.path(),
                    options.clock.clone(),
                    events.clone(),
                    health.clone(),
                ),
                activity,
                pulse: Pulse::new(folder.path(), options.clock.clone()),
                peers: Peers::new(identity.node_id(), options.clock.clone()),
                gc: Gc::new(
                    stores.clone(),
                    documents.clone(),
                    health.clone(),
                    events.clone(),
                    options.clock,
                ),
                health,
                identity,
                stores,
                documents,
                uploads,
                events,
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

    /// The refs into the store `main`; those into others are at [`Stores::refs`].
    ///
    /// # Panics
    /// Where `main` is on a disk that is not there: edges use [`Stores::refs`], which says so.
    pub fn refs(&self) -> Refs {
        let refs = self.stores().refs(&StoreName::main());
        refs.expect("the store main is on the card, or its disk is there")
    }

    /// A store and its refs, for threads that back up, restore and verify. Its refs look for what they would
    /// name before they move.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn repository(&self, name: &StoreName) -> Result<Repository, Error> {
        Ok(Repository {
            store: self.store(name)?,
            refs: self.stores().checked_refs(name)?,
        })
    }

    /// Its databases of documents.
    pub fn documents(&self) -> &Documents {
        &self.inner.documents
    }

    /// Its partial uploads.
    pub fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    /// What frees what nothing names any more.
    pub fn gc(&self) -> &Gc {
        &self.inner.gc
    }

    /// How it is.
    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    /// What changes in it.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// Other nodes that were seen on the local network, and what this one is called there.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// What its hardware can be asked to do.
    pub fn board(&self) -> &Board {
        &self.inner.board
    }

    /// Bundles of its system: one that comes, and the one that others may have.
    pub fn bundles(&self) -> &Bundles {
        &self.inner.bundles
    }

    /// The channel that its system is updated from.
    pub fn channel(&self) -> &Channel {
        &self.inner.channel
    }

    /// Whether somebody is storing something.
    pub fn activity(&self) -> &Activity {
        &self.inner.activity
    }

    /// Its replications.
    pub fn replications(&self) -> &Replications {
        &self.inner.replications
    }

    /// What opens other servers.
    pub fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    /// Asks for a factory reset: keys, accounts and data are destroyed when the folder is opened the next time. Durable
    /// on return.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`]: nothing was asked for.
    pub async fn ask_reset(&self) -> Result<(), Error> {
        let folder = self.inner.folder.path().to_owned();
        db::crossing(move || start_over::ask(&folder)).await
    }

    /// Whether something on the disk waits for its new form until this binary is no longer on trial: the next opening gives it that.
    pub fn waits_to_rise(&self) -> bool {
        self.inner.access.db.waits_to_rise()
    }

    /// Whether it has an owner, and how it gets one.
    pub fn claim(&self) -> &Claim {
        &self.inner.claim
    }

    /// The people who may use it.
    pub fn accounts(&self) -> &Accounts {
        &self.inner.accounts
    }

    /// Their browsers.
    pub fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// Their programs.
    pub fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }

    /// Who tried to get in, what was given and taken.
    pub fn security_log(&self) -> &SecurityLog {
        &self.inner.access.log
    }

    /// Writes to the disk and reads it back; call it every [`PULSE_EVERY`]. Where that fails, the health of the node says
    /// so until it succeeds again.
    ///
    /// # Errors
    /// [`Error::Internal`]: the disk takes no writes, or not what was written.
    pub async fn beat(&self) -> Result<(), Error> {
        let pulse = self.inner.pulse.clone();
        let beaten = db::crossing(move || Ok::<_, Error>(pulse.beat())).await?;
        let trouble = beaten
            .as_ref()
            .err()
            .map(|error| format!("the disk of the data folder takes no writes: {error}"));
        self.inner.health.note("disk", trouble);
        beaten.map_err(|error| Error::io(self.inner.folder.path(), error))
    }

    /// Returns once the node made progress: its main store answered, and no write is stuck. What the store answers does
    /// not matter: a disk that refuses is no hang. Never returns while there is none; may be cancelled.
    pub async fn progress(&self) {
        if self.inner.pulse.is_stuck() {
            return std::future::pending().await;
        }
        let asked = match self.stores().get(&StoreName::main()) {
            Ok(main) => main.stat(vec![BlobId::of(b"")]).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = asked {
            tracing::debug!(%error, "the main store answers, with an error");
        }
    }

    /// What has to be done now and then; call it about once a minute. Writes nothing where nothing is due.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`]: the next call tries again.
    pub async fn tend(&self) -> Result<(), Error> {
        let access = Arc::clone(&self.inner.access);
        db::crossing(move || {
            session::tend(&access)?;
            token::tend(&access)
        })
        .await?;
        self.inner.uploads.tend().await
    }
}

#[cfg(test)]
mod tests;
