//! What went wrong below the crate, which forgets some of it: the first failure, and how many there were.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use super::super::error::Error;

/// What a disk met so far.
#[derive(Default)]
pub(super) struct Health {
    met: Mutex<Met>,
}

#[derive(Default)]
struct Met {
    faults: u64,
    first: Option<Fault>,
}

enum Fault {
    Failed(io::ErrorKind, String),
    Damaged(String),
}

impl Health {
    /// Notes a call that failed; the same error, for whoever made it.
    pub(super) fn failed(&self, error: io::Error) -> io::Error {
        self.note(Fault::Failed(error.kind(), error.to_string()));
        error
    }

    /// Notes bytes that are not what was written; the error for whoever read them.
    pub(super) fn damaged(&self, what: String) -> io::Error {
        self.note(Fault::Damaged(what.clone()));
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    /// How often something went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.met().faults
    }

    /// Refuses once something went wrong: what the crate makes of that must not reach the medium.
    pub(super) fn writable(&self) -> io::Result<()> {
        match self.met().first {
            None => Ok(()),
            Some(_) => Err(io::Error::other("not written: something failed before")),
        }
    }

    /// What went wrong first.
    pub(super) fn error(&self, folder: &Path) -> Option<Error> {
        self.met().first.as_ref().map(|fault| match fault {
            Fault::Failed(kind, text) => match kind {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full {
                    path: folder.to_owned(),
                },
                kind => Error::Io {
                    path: folder.to_owned(),
                    source: io::Error::new(*kind, text.clone()),
                },
            },
            Fault::Damaged(what) => Error::Corrupt {
                path: folder.to_owned(),
                what: what.clone(),
            },
        })
    }

    fn note(&self, fault: Fault) {
        let mut met = self.met();
        met.faults += 1;
        met.first.get_or_insert(fault);
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
