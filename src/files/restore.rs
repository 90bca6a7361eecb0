//! Brings a snapshot back, all of it or a path, without ever leaving the target.
//!
//! ```text
//!  tree ──> folder made (0700) ──> files: temporary name ─ bytes ─ owner, mode, times ─ final name
//!                              └─> when all in it is done: owner, mode, times of the folder
//! ```
//!
//! Every step below the target is taken relative to an open folder and follows no link, whatever stands
//! there or is swapped in meanwhile. Every part is checked on its way out of the store. A file appears under
//! its name only when it is whole, so a restore that was killed is resumed by running it again with
//! [`Overwrite::Resume`]. Names in a tree were checked when it was read (`tree/wire.rs`).

mod content;
mod folder;
mod hardlink;
mod place;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use nix::unistd::geteuid;

use super::beneath::{names, open_folder, status_at};
use super::error::Error;
use super::pool::Pool;
use super::progress::{Counts, Problem, Progress};
use super::refs::Snapshot;
use super::tree::{Entry, Kind, Meta, entries, find};
use crate::coffer::Store;
use crate::id::BlobId;
use folder::Folder;
use hardlink::Group;
use place::{MARK, is_mark, mark};

/// What to do about what is in the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing is overwritten: where something is in the way, nothing is restored.
    #[default]
    Refuse,
    /// Goes on with a restore that was interrupted: what is there with the same bytes and time is left as it
    /// is, anything else that is in the way is reported and left alone.
    Resume,
    /// Files and links in the way are replaced. A folder in the way of a file never is.
    Replace,
}

/// What to restore, and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// What to restore, relative to the folder that was backed up; `None` for all of it. Of a folder, what is
    /// in it goes into the target; anything else goes there under its own name.
    pub path: Option<PathBuf>,
    /// What to do about what is in the way.
    pub overwrite: Overwrite,
    /// Give files their owners. Only root may.
    pub owners: bool,
    /// Make named pipes and devices. Only root may make devices.
    pub specials: bool,
}

impl Default for RestoreOptions {
    /// All of it, nothing overwritten; owners, pipes and devices for root.
    fn default() -> RestoreOptions {
        let is_root = geteuid().is_root();
        RestoreOptions {
            path: None,
            overwrite: Overwrite::default(),
            owners: is_root,
            specials: is_root,
        }
    }
}

/// What a restore did.
#[derive(Debug)]
pub struct RestoreReport {
    /// What was done.
    pub counts: Counts,
    /// What is not restored, or not as it was, and why.
    pub problems: Vec<Problem>,
}

/// Restores a snapshot into the folder `target`, which is made where it is missing. What can't be restored
/// is reported and the rest goes on.
///
/// # Errors
/// [`Error::Exists`] where something is in the way and nothing may be: nothing was done then.
/// [`Error::NoPath`], [`Error::Cancelled`]; [`Error::Missing`], [`Error::Malformed`], [`Error::Store`] where
/// the tree itself can't be read; [`Error::Io`] where the target can't be written.
pub fn restore(
    store: &Store,
    snapshot: &Snapshot,
    target: &Path,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<RestoreReport, Error> {
    let wanted = Wanted::find(store, snapshot, options.path.as_deref())?;
    fs::create_dir_all(target).map_err(|error| Error::io(target, error))?;
    let root: OwnedFd = File::open(target)
        .map_err(|error| Error::io(target, error))?
        .into();
    let there = open_folder(&root, Path::new("")).and_then(names);
    let there = there.map_err(|errno| Error::io(target, errno))?;
    if options.overwrite == Overwrite::Refuse && !there.is_empty() {
        wanted.refuse_what_is_there(store, &root, target)?;
    }
    // A snapshot with a file of that name goes without the mark.
    let is_marked = !wanted.has_mark(store)?;
    let claim = if there.is_empty() {
        if is_marked {
            mark(&root).map_err(|errno| Error::io(target, errno))?;
        }
        Claim::New
    } else if is_marked && options.overwrite != Overwrite::Refuse && there.iter().any(is_mark) {
        Claim::Resumed
    } else {
        Claim::Others
    };
    let run = Run {
        store,
        options,
        progress,
        root,
        is_marked,
        pool: Pool::new(wanted.task(claim)),
        groups: Mutex::default(),
        temporary: AtomicU64::new(0),
    };
    run.pool.run(|task| run.work(task))?;
    run.unmark().map_err(|errno| Error::io(target, errno))?;
    Ok(RestoreReport {
        counts: progress.counts(),
        problems: progress.take_problems(),
    })
}

/// Whose the target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It was empty: all of it is this restore's.
    New,
    /// It was empty when the restore that is resumed began; by now others may have put things there.
    Resumed,
    /// Other things were there before.
    Others,
}

/// What is restored.
enum Wanted {
    /// What is in a folder; its own owner, mode and times where they are known.
    Folder {
        tree: BlobId,
        meta: Option<Meta>,
        commit: Option<BlobId>,
    },
    /// One thing.
    Entry(Entry),
}

impl Wanted {
    fn find(store: &Store, snapshot: &Snapshot, path: Option<&Path>) -> Result<Wanted, Error> {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Wanted::Folder {
                tree: snapshot.tree,
                meta: snapshot.root.map(|root| root.meta()),
                commit: snapshot.root.and_then(|root| root.commit),
            });
        };
        let found = find(store, &snapshot.tree, path)?;
        let entry = found.ok_or_else(|| Error::NoPath {
            path: path.to_owned(),
        })?;
        Ok(match entry.kind {
            Kind::Folder { tree, commit } => Wanted::Folder {
                tree,
                meta: Some(entry.meta),
                commit,
            },
            Kind::File { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => {
                Wanted::Entry(entry)
            }
        })
    }

    fn refuse_what_is_there(&self, store: &Store, root: &OwnedFd, target: &Path) -> Result<(), Error> {
        let refuse = |entry: &Entry| match status_at(root, &entry.name) {
            Ok(_) => Err(Error::Exists {
                path: target.join(entry.name.as_os_str()),
            }),
            Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::io(target, errno)),
        };
        match self {
            Wanted::Folder { tree, .. } => {
                for entry in entries(store, tree)? {
                    refuse(&entry?)?;
                }
                Ok(())
            }
            Wanted::Entry(entry) => refuse(entry),
        }
    }

    /// Whether what is restored has a file with the name of the mark itself.
    fn has_mark(&self, store: &Store) -> Result<bool, Error> {
        match self {
            Wanted::Folder { tree, .. } => Ok(find(store, tree, Path::new(MARK))?.is_some()),
            Wanted::Entry(entry) => Ok(is_mark(&entry.name)),
        }
    }

    /// The first task. A target that others use already keeps its own owner, mode and times.
    fn task<'a>(self, claim: Claim) -> Task<'a> {
        let is_ours = claim == Claim::New;
        let has_meta = claim != Claim::Others;
        match self {
            Wanted::Folder { tree, meta, commit } => Task::List(Arc::new(Folder::target(
                tree,
                meta.filter(|_| has_meta),
                commit.filter(|_| has_meta),
                is_ours,
            ))),
            Wanted::Entry(entry) => Task::Files {
                folder: Arc::new(Folder::around(is_ours)),
                fd: None,
                files: vec![entry],
            },
        }
    }
}

/// A restore under way.
struct Run<'a> {
    store: &'a Store,
    options: &'a RestoreOptions,
    progress: &'a Progress,
    /// The target, open.
    root: OwnedFd,
    /// Whether a mark in the target is this restore's, to be removed in the end.
    is_marked: bool,
    pool: Pool<Task<'a>>,
    /// The files that have several names, by device and inode.
    groups: Mutex<HashMap<(u64, u64), Group<'a>>>,
    /// Counts temporary names.
    temporary: AtomicU64,
}

enum Task<'a> {
    List(Arc<Folder<'a>>),
    Files {
        folder: Arc<Folder<'a>>,
        /// The folder, where it was open anyway.
        fd: Option<Arc<OwnedFd>>,
        files: Vec<Entry>,
    },
}

impl<'a> Run<'a> {
    fn work(&self, task: Task<'a>) -> Result<(), Error> {
        match task {
            Task::List(folder) => self.list(&folder),
            Task::Files { folder, fd, files } => self.restore_files(&folder, fd, files),
        }
    }
}

fn in_the_way(path: &Path) -> Error {
    Error::Exists {
        path: path.to_owned(),
    }
}
