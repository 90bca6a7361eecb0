//! The engine whose rows are on another machine: documents of a database on a server that speaks CouchDB's API.
//!
//! ```text
//!  a group ──> redo (one document: all of it is there, or nothing) ──> its rows, as often as it takes ──> the next group
//!                                                                       └─ no read meanwhile
//! ```
//!
//! What is on the server are the keys and sealed values of `ordered`, one document each, not the documents that somebody keeps here: who
//! wants to read those there, replicates. What a server promises, and what is made of it:
//!
//! - It stores one document as a whole, and answers when that is durable. So a group stands in one document before any of its rows is
//!   touched, see [`redo`]; whoever opens the database finishes it. A row is written on top of the revision that it had, and only
//!   where the record of its group is still the last one.
//! - It knows of no moment. So rows are not read while a group is applied, and one node has the database: it is written down whose it is,
//!   and an opening makes whoever had it open before fail with its next write.
//! - It may not answer. A write whose outcome is not known is looked at before anything else is done: where it came to nothing, it is
//!   called off. What was called done stands in the record, also where its rows could not be written yet.
//! - A row that is deleted leaves a stone on the server, as every document there does.
//!
//! `DIR/NAME/couchdb/server.json` says where the server is, which secret opens it, and by which random name this node has the database.

mod group;
mod ids;
mod moment;
mod opening;
mod redo;
mod settings;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use self::moment::At;
use self::redo::{PART_BYTES, PARTS_MAX, Record};
use self::settings::Settings;
use self::wire::Wire;
use super::engine::{Engine, Sizes};
use super::error::Error;
use super::ordered::{self, Batch, Moment, Opening, Ordered, Store};
use super::servers::{ServerPlace, Servers};

/// The longest value: as base64, with its frame, it fits the 8,000,000 bytes that servers take for a document.
const VALUE_BYTES_MAX: usize = 5_900_000;

/// Attempts of what may be tried again at once.
const ATTEMPTS_MAX: usize = 4;

const OWNER: &str = "owner";
const REDO: &str = "redo";

/// Opens the database in a folder, or makes one in it and at `server`.
pub(super) fn open(
    place: &Path,
    servers: &Servers,
    server: Option<&ServerPlace>,
) -> Result<Arc<dyn Engine>, Error> {
    let access = Access {
        servers: servers.clone(),
        server: server.cloned(),
    };
    Ok(Arc::new(Ordered::<Couch>::open(place, access)?))
}

/// Deletes what is on the server of the database in a folder.
pub(super) fn remove(place: &Path, servers: &Servers) -> Result<(), Error> {
    let settings = Settings::read(&place.join(Couch::FOLDER))?;
    let wire = Wire::to(&settings.server, servers)?;
    if !wire.is_there()? {
        return Ok(());
    }
    match wire.doc::<Owner>(OWNER)? {
        Some(owner) if owner.doc.owner == settings.owner => wire.delete(),
        // Without an owner it is somebody's who knows of no such thing.
        Some(_) | None => Err(taken(&wire)),
    }
}

/// Whether the database in a folder is on a server.
pub(super) fn is_there(place: &Path) -> bool {
    ordered::is_there::<Couch>(place)
}

/// What it takes to open one.
#[derive(Clone)]
struct Access {
    servers: Servers,
    /// Where a new one is made.
    server: Option<ServerPlace>,
}

/// Whose the rows are.
#[derive(Serialize, Deserialize)]
struct Owner {
    version: u32,
    /// The random name by which a node has the database.
    owner: String,
}

/// Keys on a server.
struct Couch {
    folder: PathBuf,
    wire: Wire,
    /// Read by who reads, written by who applies a group.
    applying: RwLock<()>,
    writing: Mutex<Writing>,
    /// Whether something is pending.
    is_pending: AtomicBool,
}

/// Where the last group is.
struct Writing {
    /// The revision of the record.
    rev: String,
    /// The number of the last group.
    group: u64,
    /// Attempts of later groups, of which a request may still be on its way.
    tokens: Vec<String>,
    pending: Pending,
}

enum Pending {
    Nothing,
    /// The record stands; its rows are to be written.
    Apply(Batch),
    /// Whether a record stands that somebody was told is not there.
    Unsure,
}

impl Store for Couch {
    const FOLDER: &'static str = "couchdb";

    type Around = Access;

    fn open(folder: &Path, opening: Opening, access: &Access) -> Result<Couch, Error> {
        let (wire, writing) = match (opening, &access.server) {
            (Opening::New, Some(server)) => opening::make(folder, server, &access.servers)?,
            (Opening::New, None) => {
                return Err(Error::BadServer {
                    reason: "the engine couchdb takes the URL of a server".to_owned(),
                });
            }
            (Opening::Again | Opening::InDoubt, _) => opening::take(folder, &access.servers)?,
        };
        let is_pending = !matches!(writing.pending, Pending::Nothing);
        let store = Couch {
            folder: folder.to_owned(),
            wire,
            applying: RwLock::default(),
            writing: Mutex::new(writing),
            is_pending: AtomicBool::new(is_pending),
        };
        store.settle(&mut store.writing())?;
        Ok(store)
    }

    fn read<T>(&self, work: impl FnOnce(&mut dyn Moment) -> Result<T, Error>) -> Result<T, Error> {
        let _none_is_applied = self.settled()?;
        work(&mut At::of(self))
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        let longest = batch
            .iter()
            .filter_map(|(_, value)| value.as_ref())
            .map(Vec::len)
            .max();
        if longest.is_some_and(|bytes| bytes > VALUE_BYTES_MAX) {
            return Err(Error::TooLong {
                most: VALUE_BYTES_MAX,
            });
        }
        let mut writing = self.writing();
        self.settle(&mut writing)?;
        let record = Record::of(writing.group + 1, random_name()?, batch);
        let (record, parts) = record.ok_or(Error::TooLong {
            most: PARTS_MAX * PART_BYTES,
        })?;
        self.put_parts(&parts)?;
        self.commit(&mut writing, &record)?;
        self.pend(&mut writing, Pending::Apply(batch.clone()));
        if let Err(error) = self.settle(&mut writing) {
            // It is there for good: whoever reads next goes on with it, or hears why not.
            tracing::warn!(server = %self.wire.url(), %error, "a group stands on the server, its rows are still to be written");
        }
        Ok(())
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        self.wire.sizes()
    }

    fn compact(&self) -> Option<Result<(), Error>> {
        Some(self.wire.compact())
    }
}

impl Couch {
    fn writing(&self) -> MutexGuard<'_, Writing> {
        // What it says is put in one go.
        self.writing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn pend(&self, writing: &mut Writing, pending: Pending) {
        let is_pending = !matches!(pending, Pending::Nothing);
        writing.pending = pending;
        self.is_pending.store(is_pending, Ordering::SeqCst);
    }

    /// Waits until no group is applied, and what is pending is done.
    fn settled(&self) -> Result<RwLockReadGuard<'_, ()>, Error> {
        loop {
            let guard = self
                .applying
                .read()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if !self.is_pending.load(Ordering::SeqCst) {
                return Ok(guard);
            }
            drop(guard);
            self.settle(&mut self.writing())?;
        }
    }

    /// Does what is pending.
    fn settle(&self, writing: &mut Writing) -> Result<(), Error> {
        match &writing.pending {
            Pending::Nothing => return Ok(()),
            Pending::Apply(batch) => self.apply(&writing.rev, batch)?,
            Pending::Unsure => self.call_off(writing)?,
        }
        self.pend(writing, Pending::Nothing);
        Ok(())
    }
}

fn random_name() -> Result<String, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::Random)?;
    Ok(HEXLOWER.encode(&random))
}

fn taken(wire: &Wire) -> Error {
    Error::Taken { url: wire.url() }
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}
