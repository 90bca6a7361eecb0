//! Refs: names for the snapshots of a folder, moved by compare and swap.
//!
//! A ref's record is its whole history: a list of snapshots, newest last. A backup appends one, `prune`
//! drops some. Who moves a ref says which version it read; whoever comes second is told so, reads again and
//! decides again, so that no snapshot is lost to a race.
//!
//! A record may also hold the state of a backup that is under way or was interrupted (`in_progress`): a tree
//! of what was stored so far. It is no snapshot and never restored; the next backup of the same folder skips
//! what it holds, and it keeps those parts from being collected.

mod local;
mod remote;
mod select;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use local::LocalRefs;
pub use remote::RemoteRefs;
pub use select::Selector;

use super::error::Error;
use super::reachable::Root;
use super::tree::{Meta, Time};
use crate::id::{BlobId, RefName};

/// The most snapshots of one ref: an hourly backup fills it in 14 months, its record is then some 3 MiB.
pub const SNAPSHOTS_MAX: usize = 10_000;

/// The newest format of a record that this binary reads, and the one it writes.
pub(super) const FORMAT: u32 = 1;

/// Which state of a ref someone read. Opaque; equal versions mean equal records. Fits the 53 bits of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefVersion(pub u64);

impl RefVersion {
    /// The version of a ref that was deleted.
    pub const GONE: RefVersion = RefVersion(0);
}

impl fmt::Display for RefVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A ref: its name and its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// Its name.
    pub name: RefName,
    /// The state that was read; what [`Refs::swap`] is given here does not matter.
    #[serde(default = "unversioned")]
    pub version: RefVersion,
    /// Newest last; at most [`SNAPSHOTS_MAX`].
    pub snapshots: Vec<Snapshot>,
    /// What an unfinished backup stored so far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_progress: Option<Snapshot>,
}

fn unversioned() -> RefVersion {
    RefVersion::GONE
}

/// One backup of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The tree of the folder.
    pub tree: BlobId,
    /// When the backup began, in milliseconds since 1970-01-01 UTC.
    pub time_ms: i64,
    /// The host it ran on.
    pub host: String,
    /// The folder, as an absolute path; what is not UTF-8 is replaced. For people, and to find the parent.
    pub source: String,
    /// Regular files in it.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Whether something could not be read and is missing.
    #[serde(default)]
    pub partial: bool,
    /// Whether extended attributes were kept.
    #[serde(default)]
    pub xattrs: bool,
    /// The folder's own mode, owner and time; its tree has only those of what is in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<RootMeta>,
}

/// What the folder of a snapshot has itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMeta {
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last written: seconds and nanoseconds.
    pub mtime: Time,
    /// The commit with its extended attributes, where it has some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<BlobId>,
}

impl RootMeta {
    pub(super) fn meta(&self) -> Meta {
        Meta {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
        }
    }
}

/// Where refs are kept. Blocking; callable from several threads at once.
pub trait Refs: Send + Sync {
    /// The ref with this name.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Newer`], [`Error::Remote`].
    fn get(&self, name: &RefName) -> Result<Option<RefRecord>, Error>;

    /// All refs in ascending order of name.
    ///
    /// # Errors
    /// As [`Refs::get`].
    fn list(&self) -> Result<Vec<RefRecord>, Error>;

    /// Moves the ref from the version that was read (`None`: there was none) to `next` (`None`: delete it).
    /// Durable on return; answers the new version, [`RefVersion::GONE`] after a delete.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the ref is not at `expected`; [`Error::Full`]; [`Error::Incomplete`] where
    /// `next` names what is not stored, from those that check; else as [`Refs::get`].
    fn swap(
        &self,
        name: &RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, Error>;
}

impl RefRecord {
    /// A ref without history.
    pub fn new(name: RefName) -> RefRecord {
        RefRecord {
            name,
            version: RefVersion::GONE,
            snapshots: Vec::new(),
            in_progress: None,
        }
    }

    /// Its newest snapshot.
    pub fn latest(&self) -> Option<&Snapshot> {
        self.snapshots.last()
    }

    /// Everything it keeps alive: where [`super::reachable()`] begins.
    pub fn roots(&self) -> impl Iterator<Item = Root> {
        self.snapshots
            .iter()
            .chain(&self.in_progress)
            .flat_map(Snapshot::roots)
    }
}

impl Snapshot {
    /// What it keeps alive: its tree, and the commit of the folder itself.
    pub fn roots(&self) -> impl Iterator<Item = Root> + use<> {
        let commit = self.root.as_ref().and_then(|root| root.commit);
        std::iter::once(Root::Tree(self.tree)).chain(commit.map(Root::Commit))
    }
}

/// Reads a ref, lets `change` make the next record of it, and moves it; again where someone else came first.
/// `change` answers `None` to leave the ref as it is.
///
/// # Errors
/// [`Error::Conflict`] after twenty lost races; what `change` and [`Refs::swap`] answer.
pub(super) fn update(
    refs: &dyn Refs,
    name: &RefName,
    mut change: impl FnMut(Option<RefRecord>) -> Result<Option<RefRecord>, Error>,
) -> Result<(), Error> {
    /// Each lost race means that someone else won one.
    const SWAP_TRIES: usize = 20;
    for _ in 0..SWAP_TRIES {
        let current = refs.get(name)?;
        let expected = current.as_ref().map(|record| record.version);
        let Some(next) = change(current)? else {
            return Ok(());
        };
        match refs.swap(name, expected, Some(next)) {
            Err(Error::Conflict { .. }) => {}
            done => return done.map(|_| ()),
        }
    }
    Err(Error::Conflict { name: name.clone() })
}
