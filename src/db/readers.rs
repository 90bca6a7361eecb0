//! The connections that only read, lent to one thread at a time.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, lock, open};

/// Connections that only read: the box has few cores, and each costs about 300 KiB.
const READERS: usize = 2;

/// Connections that only read.
pub(super) struct Readers {
    free: Mutex<Vec<Connection>>,
    came_back: Condvar,
    /// As many permits as readers: what is async waits here, not on a blocking thread.
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Readers, Error> {
        let free = (0..READERS).map(|_| open::reader(path));
        Ok(Readers {
            free: Mutex::new(free.collect::<Result<_, _>>()?),
            came_back: Condvar::new(),
            permits: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Waits until a connection is likely to be free; hold it until it is back.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| Error::Closing)
    }

    /// Runs `work` on a connection; waits for one where none is free.
    pub(super) fn with<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let lent = Lent {
            connection: Some(self.take()),
            readers: self,
        };
        work(lent.connection.as_ref().expect("it is given back when dropped"))
    }

    fn take(&self) -> Connection {
        let mut free = lock(&self.free);
        loop {
            if let Some(connection) = free.pop() {
                return connection;
            }
            free = self
                .came_back
                .wait(free)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

/// A connection that goes back also where the work on it panics.
struct Lent<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        lock(&self.readers.free).extend(self.connection.take());
        self.readers.came_back.notify_one();
    }
}
