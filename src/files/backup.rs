//! Backs a folder up: walks it, reads what changed, and adds a snapshot to a ref.
//!
//! ```text
//!  names ── stat ──┬─ as in the snapshot before ────────────────┐
//!                  └─ read ─ cut ─ hash ─ stored? ─ pack ─ sink ─┴─> tree ─> ... ─> flush ─> ref
//! ```
//!
//! A few threads share the work, deepest folder first. Memory is a window: of names that wait, of entries of
//! the folders under way, of parts on their way to the store. A folder in which nothing changed is not even
//! written again: its tree is the one of the snapshot before.
//!
//! Nothing is named before it is durable: one flush, then the ref moves. Between checkpoints an interrupted
//! backup leaves parts that the next one finds stored, and a collector frees after a day.

mod checkpoint;
mod folder;
mod read;
mod rules;
mod sink;
#[cfg(test)]
mod tests;
mod walk;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

pub use checkpoint::Checkpoints;

use super::Repository;
use super::beneath::status_of;
use super::chunk::Cutter;
use super::error::Error;
use super::pool::Pool;
use super::progress::{Counts, Problem, Progress};
use super::refs::{RefRecord, RootMeta, SNAPSHOTS_MAX, Snapshot, update};
use super::tree::Kind;
use crate::coffer::Store;
use crate::id::{BlobId, RefName};
use checkpoint::Bell;
use folder::{Earlier, Folder};
use rules::Rules;
use sink::{APPENDERS, Sink};
use walk::ToRead;

/// What to back up, and how.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Rules in gitignore's syntax of what to leave out, in order; one with `!` in front takes back in. They
    /// are relative to the folder. What is in an excluded folder is not looked at.
    pub rules: Vec<String>,
    /// Keep extended attributes (and with them access control lists) of files and folders.
    pub xattrs: bool,
    /// Do not go into folders on which another file system is mounted; they are kept empty.
    pub one_file_system: bool,
    /// A folder that is left out wherever it lies: the one that is backed up into.
    pub not_into: Option<PathBuf>,
    /// The name of this machine, for people and for finding the snapshot before.
    pub host: String,
    /// When to keep what was done so far.
    pub checkpoints: Checkpoints,
    /// The clock.
    pub now: fn() -> SystemTime,
}

impl Default for BackupOptions {
    fn default() -> BackupOptions {
        BackupOptions {
            rules: Vec::new(),
            xattrs: false,
            one_file_system: false,
            not_into: None,
            host: host_name(),
            checkpoints: Checkpoints::default(),
            now: SystemTime::now,
        }
    }
}

/// What a backup did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot that was added.
    pub snapshot: Snapshot,
    /// The tree of the snapshot before, where there is one of this folder.
    pub parent: Option<BlobId>,
    /// What was done.
    pub counts: Counts,
    /// What was left out, and why. The snapshot is partial where one of these is a loss.
    pub problems: Vec<Problem>,
}

/// Backs the folder at `source` up, and adds a snapshot to the ref `name`, which is made where it is missing.
/// Durable on return. What can't be read is left out and reported, and the snapshot marked as partial.
///
/// # Errors
/// [`Error::Io`] where the folder itself can't be read; [`Error::Cancelled`] after [`Progress::stop`], what
/// was done is then kept for the next backup; [`Error::Full`], [`Error::Rule`], [`Error::Store`].
pub fn backup(
    repository: &Repository,
    source: &Path,
    name: &RefName,
    options: &BackupOptions,
    progress: &Progress,
) -> Result<BackupReport, Error> {
    match attempt(repository, source, name, options, progress, true) {
        // Something that the store said it had was collected meanwhile: put everything that is read.
        Err(Error::Incomplete { .. }) => attempt(repository, source, name, options, progress, false),
        done => done,
    }
}

fn attempt(
    repository: &Repository,
    source: &Path,
    name: &RefName,
    options: &BackupOptions,
    progress: &Progress,
    trusts_stat: bool,
) -> Result<BackupReport, Error> {
    let source = fs::canonicalize(source).map_err(|error| Error::io(source, error))?;
    let root = File::open(&source).map_err(|error| Error::io(&source, error))?;
    let status = status_of(&root).map_err(|errno| Error::io(&source, errno))?;
    let not_into = options.not_into.as_deref().map(identify).transpose()?;
    if not_into == Some((status.dev, status.inode)) {
        return Err(Error::IntoItself { path: source });
    }
    let record = repository.refs.get(name)?;
    if record
        .as_ref()
        .is_some_and(|record| record.snapshots.len() >= SNAPSHOTS_MAX)
    {
        return Err(Error::Full {
            name: name.clone(),
            limit: SNAPSHOTS_MAX,
        });
    }
    let origin = Origin {
        host: options.host.clone(),
        source: source.to_string_lossy().into_owned(),
        xattrs: options.xattrs,
        time_ms: i64::try_from(nanos(options.now) / 1_000_000).unwrap_or(0),
    };
    let parent = record.as_ref().and_then(|record| origin.parent(record));
    let interrupted = record.as_ref().and_then(|record| origin.interrupted(record));
    let earlier = if trusts_stat {
        Earlier::new(parent, interrupted)
    } else {
        Earlier::new(None, None)
    };
    let folder = Arc::new(Folder::new(PathBuf::new(), None, earlier));
    let run = Run {
        store: &repository.store,
        repository,
        name,
        options,
        progress,
        origin,
        rules: Rules::new(&options.rules)?,
        sink: Sink::new(&repository.store, progress, trusts_stat),
        root: root.into(),
        root_dev: status.dev,
        not_into,
        source,
        pool: Pool::new(Task::List(Arc::clone(&folder))),
        cutters: Mutex::default(),
        done: Mutex::new(None),
    };
    let (tree, commit) = run.run(&folder)?;
    let snapshot = Snapshot {
        root: Some(RootMeta {
            mode: status.meta.mode,
            uid: status.meta.uid,
            gid: status.meta.gid,
            mtime: status.meta.mtime,
            commit,
        }),
        ..run.snapshot(tree)
    };
    let problems = progress.take_problems();
    let snapshot = Snapshot {
        partial: problems.iter().any(|problem| problem.what.is_loss()),
        ..snapshot
    };
    run.add(&snapshot)?;
    Ok(BackupReport {
        snapshot,
        parent,
        counts: progress.counts(),
        problems,
    })
}

/// The device and inode of a folder, which tell it whatever path led there.
fn identify(folder: &Path) -> Result<(u64, u64), Error> {
    let open = File::open(folder).map_err(|error| Error::io(folder, error))?;
    let status = status_of(&open).map_err(|errno| Error::io(folder, errno))?;
    Ok((status.dev, status.inode))
}

/// Where a snapshot comes from: the one before is the last one from there.
struct Origin {
    host: String,
    source: String,
    xattrs: bool,
    time_ms: i64,
}

impl Origin {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        (&self.host, &self.source, self.xattrs) == (&snapshot.host, &snapshot.source, snapshot.xattrs)
    }

    fn parent(&self, record: &RefRecord) -> Option<BlobId> {
        let before = record
            .snapshots
            .iter()
            .rev()
            .find(|snapshot| self.is_of(snapshot));
        before.map(|snapshot| snapshot.tree)
    }

    fn interrupted(&self, record: &RefRecord) -> Option<BlobId> {
        let interrupted = record
            .in_progress
            .as_ref()
            .filter(|snapshot| self.is_of(snapshot));
        interrupted.map(|snapshot| snapshot.tree)
    }
}

/// A backup under way.
struct Run<'a> {
    store: &'a Store,
    repository: &'a Repository,
    name: &'a RefName,
    options: &'a BackupOptions,
    progress: &'a Progress,
    origin: Origin,
    rules: Rules,
    sink: Sink<'a>,
    /// The folder of the backup, open.
    root: OwnedFd,
    root_dev: u64,
    /// The device and inode of the folder that is left out.
    not_into: Option<(u64, u64)>,
    source: PathBuf,
    pool: Pool<Task<'a>>,
    /// Windows that no large file is read through: making one costs more than cutting a small part.
    cutters: Mutex<Vec<Cutter>>,
    /// The folder of the backup, when it is done.
    done: Mutex<Option<Kind>>,
}

enum Task<'a> {
    List(Arc<Folder<'a>>),
    ReadSmall {
        folder: Arc<Folder<'a>>,
        fd: Arc<OwnedFd>,
        files: Vec<ToRead>,
    },
    ReadLarge {
        folder: Arc<Folder<'a>>,
        fd: Arc<OwnedFd>,
        file: ToRead,
    },
}

impl<'a> Run<'a> {
    /// Does the work; gives the tree of the folder and the commit with its extended attributes. Everything
    /// they name is durable then.
    fn run(&self, root: &Arc<Folder<'a>>) -> Result<(BlobId, Option<BlobId>), Error> {
        let bell = Bell::default();
        let done = thread::scope(|scope| {
            for _ in 0..APPENDERS {
                scope.spawn(|| self.sink.append());
            }
            scope.spawn(|| self.write_checkpoints(root, &bell));
            let walked = self.pool.run(|task| self.work(task));
            let done = match walked {
                Ok(()) => self.sink.flush(),
                Err(Error::Cancelled) => {
                    if let Err(error) = self.checkpoint(root) {
                        tracing::warn!(%error, "what was backed up so far could not be kept");
                    }
                    Err(Error::Cancelled)
                }
                Err(error) => Err(error),
            };
            bell.ring();
            self.sink.close();
            done
        });
        if let Some(failure) = self.sink.take_failure() {
            return Err(failure);
        }
        done?;
        match self.lock_done().take() {
            Some(Kind::Folder { tree, commit }) => Ok((tree, commit)),
            _ => unreachable!("a walk that met no failure ends with its first folder"),
        }
    }

    fn work(&self, task: Task<'a>) -> Result<(), Error> {
        match task {
            Task::List(folder) => self.list(&folder),
            Task::ReadSmall { folder, fd, files } => self.read_small(&folder, &fd, files),
            Task::ReadLarge { folder, fd, file } => self.read_large(&folder, &fd, &file),
        }
    }

    /// A snapshot of what was done so far.
    fn snapshot(&self, tree: BlobId) -> Snapshot {
        let counts = self.progress.counts();
        Snapshot {
            tree,
            time_ms: self.origin.time_ms,
            host: self.origin.host.clone(),
            source: self.origin.source.clone(),
            files: counts.files,
            bytes: counts.bytes,
            partial: false,
            xattrs: self.origin.xattrs,
            root: None,
        }
    }

    /// Adds the snapshot to the ref, and forgets the backup in progress.
    fn add(&self, snapshot: &Snapshot) -> Result<(), Error> {
        self.update(|record| {
            record.snapshots.push(snapshot.clone());
            record.in_progress = record
                .in_progress
                .take()
                .filter(|other| !self.origin.is_of(other));
        })
    }

    /// Names what was stored so far.
    fn keep_in_progress(&self, tree: BlobId) -> Result<(), Error> {
        self.update(|record| {
            record.in_progress = Some(Snapshot {
                partial: true,
                ..self.snapshot(tree)
            });
        })
    }

    fn update(&self, change: impl Fn(&mut RefRecord)) -> Result<(), Error> {
        update(&*self.repository.refs, self.name, |record| {
            let mut record = record.unwrap_or_else(|| RefRecord::new(self.name.clone()));
            change(&mut record);
            Ok(Some(record))
        })
    }

    fn lock_cutters(&self) -> MutexGuard<'_, Vec<Cutter>> {
        self.cutters
            .lock()
            .expect("no thread panics while it takes a window")
    }

    fn now_nanos(&self) -> i128 {
        nanos(self.options.now)
    }

    fn lock_done(&self) -> MutexGuard<'_, Option<Kind>> {
        self.done
            .lock()
            .expect("no thread panics while it holds the result")
    }
}

fn nanos(now: fn() -> SystemTime) -> i128 {
    let nanos = |duration: std::time::Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

/// The name of this machine as the kernel has it.
fn host_name() -> String {
    match fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim().to_owned(),
        Err(_) => "localhost".to_owned(),
    }
}
