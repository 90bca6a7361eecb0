//! How far a backup, restore or verification is, and how it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::error::Error;

/// The most problems that are kept by name: the others are only counted.
pub const PROBLEMS_MAX: usize = 1000;

/// Counters that go up while work is done, and a flag to stop it. Shared by reference; whoever shows
/// progress reads it now and then.
#[derive(Debug, Default)]
pub struct Progress {
    folders: AtomicU64,
    files: AtomicU64,
    unchanged: AtomicU64,
    bytes: AtomicU64,
    read_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    problem_count: AtomicU64,
    problems: Mutex<Vec<Problem>>,
    stop: AtomicBool,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Folders looked at.
    pub folders: u64,
    /// Regular files done, unchanged ones included.
    pub files: u64,
    /// Of these, the ones that were skipped since nothing about them changed.
    pub unchanged: u64,
    /// Bytes of the files done, holes included.
    pub bytes: u64,
    /// Bytes read from files (backup) or from the store (restore, verify).
    pub read_bytes: u64,
    /// Bytes added to the store, compressed.
    pub stored_bytes: u64,
    /// Things that were left out or are not as they should be.
    pub problems: u64,
}

/// Something that was left out, or is not as it should be. The rest went on.
#[derive(Debug)]
pub struct Problem {
    /// The path, relative to the folder.
    pub path: PathBuf,
    /// What is wrong.
    pub what: Trouble,
}

/// What is wrong with one thing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It could not be read: it is not in the snapshot.
    #[error("could not be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// Its extended attributes could not be read: they are not in the snapshot.
    #[error("its extended attributes could not be read: {0}")]
    UnreadableXattrs(#[source] std::io::Error),
    /// It changed while it was read, twice: what was read is in the snapshot, which may be a mixture.
    #[error("changed while it was read: what is stored may be a mixture, back up again")]
    Changed,
    /// A socket means nothing to anyone but the program that made it.
    #[error("a socket, which no backup can hold")]
    Socket,
    /// Restoring it failed.
    #[error("{0}")]
    NotRestored(#[source] Error),
    /// It is restored, but not its owner, times, links or attributes.
    #[error("restored, but not its {what}: {source}")]
    Incomplete {
        /// What is missing.
        what: &'static str,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Devices and pipes are only restored when asked for.
    #[error("a device or pipe: not restored, as that was not asked for")]
    Special,
}

impl Trouble {
    /// Whether the snapshot, or what was restored, lacks something the user has reason to expect.
    pub fn is_loss(&self) -> bool {
        match self {
            Trouble::Unreadable(_)
            | Trouble::UnreadableXattrs(_)
            | Trouble::Changed
            | Trouble::NotRestored(_)
            | Trouble::Incomplete { .. } => true,
            Trouble::Socket | Trouble::Special => false,
        }
    }
}

impl Progress {
    /// Nothing done yet.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            folders: self.folders.load(Relaxed),
            files: self.files.load(Relaxed),
            unchanged: self.unchanged.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            read_bytes: self.read_bytes.load(Relaxed),
            stored_bytes: self.stored_bytes.load(Relaxed),
            problems: self.problem_count.load(Relaxed),
        }
    }

    /// Asks the work to stop soon; it then ends with [`Error::Cancelled`].
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Takes the problems met so far, in no certain order; at most [`PROBLEMS_MAX`] are kept.
    pub fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.is_stopped() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    pub(super) fn folder(&self) {
        self.folders.fetch_add(1, Relaxed);
    }

    pub(super) fn file(&self, bytes: u64) {
        self.files.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn unchanged(&self, files: u64, bytes: u64) {
        self.unchanged.fetch_add(files, Relaxed);
        self.files.fetch_add(files, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn problem(&self, path: &Path, what: Trouble) {
        self.problem_count.fetch_add(1, Relaxed);
        let mut problems = self.lock();
        if problems.len() < PROBLEMS_MAX {
            problems.push(Problem {
                path: path.to_owned(),
                what,
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Problem>> {
        self.problems
            .lock()
            .expect("no thread panics while it notes a problem")
    }
}
