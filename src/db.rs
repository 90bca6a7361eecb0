//! One SQLite file: one connection that writes, a few that only read.
//!
//! Blocking, with async on top: this is one of the two places where blocking work meets async (the other is
//! `coffer.rs`). SQL lives in the module that owns a table; what a table means is not known here. A write is
//! one immediate transaction; nobody else writes, so that it never meets a lock. A write that fails on the
//! medium puts the database in *read only* until it is opened again, since what the medium holds is unknown.

mod error;
mod generation;
mod migrate;
mod open;
mod readers;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::task::spawn_blocking;

pub use error::Error;
pub use generation::bring_back;
pub use migrate::{Migrations, Rise};
pub use open::{Purpose, Sizes};

use self::readers::Readers;

/// The handle to one database; cloning it is cheap.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Mutex<Writer>,
    /// None for a database in memory, which is its one connection.
    readers: Option<Readers>,
    /// Whether steps of the schema are missing that had to wait.
    waits: bool,
}

struct Writer {
    connection: Connection,
    /// Why writes are refused, where they are.
    failed: Option<String>,
}

impl Database {
    /// Opens the database at `path`, makes it where it is not there, and brings its schema up to date.
    /// Blocking. The file is checked as a whole, which reads all of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: see [`set_aside`]. [`Error::Newer`], [`Error::OldSqlite`], [`Error::Full`].
    pub fn open(path: &Path, steps: Migrations) -> Result<Database, Error> {
        Database::open_when(path, steps, Purpose::State, Rise::Now)
    }

    /// As [`Database::open`], for what `purpose` says: only what is small is checked as a whole.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_as(path: &Path, steps: Migrations, purpose: Purpose) -> Result<Database, Error> {
        Database::open_when(path, steps, purpose, Rise::Now)
    }

    /// As [`Database::open_as`], with its schema brought up to date when `rise` says.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_when(
        path: &Path,
        steps: Migrations,
        purpose: Purpose,
        rise: Rise,
    ) -> Result<Database, Error> {
        open::assert_version(rusqlite::version_number())?;
        let located = |error| locate(error, path);
        let is_new = !path.exists();
        if is_new {
            make_private(path)?;
        }
        let mut connection = open::writer(path, purpose).map_err(located)?;
        let found = match purpose {
            Purpose::State => open::integrity(&connection).map_err(|error| locate(error.into(), path))?,
            Purpose::Documents | Purpose::Derived => None,
        };
        if let Some(what) = found {
            return Err(Error::Corrupt {
                path: path.to_owned(),
                what,
            });
        }
        let waits = migrate::migrate(&mut connection, path, steps, rise).map_err(located)?;
        if is_new {
            sync_folder_of(path)?;
        }
        Ok(Database {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                readers: Some(Readers::open(path).map_err(located)?),
                writer: Mutex::new(Writer {
                    connection,
                    failed: None,
                }),
                waits,
            }),
        })
    }

    /// A database in memory, gone with its last handle. Reads wait for writes.
    ///
    /// # Errors
    /// [`Error::OldSqlite`].
    pub fn in_memory(steps: Migrations) -> Result<Database, Error> {
        open::assert_version(rusqlite::version_number())?;
        let path = PathBuf::from(":memory:");
        let mut connection = open::in_memory()?;
        let waits = migrate::migrate(&mut connection, &path, steps, Rise::Now)?;
        Ok(Database {
            inner: Arc::new(Inner {
                path,
                readers: None,
                writer: Mutex::new(Writer {
                    connection,
                    failed: None,
                }),
                waits,
            }),
        })
    }

    /// Whether its schema waits to be brought up to date: the next opening with [`Rise::Now`] does it.
    pub fn waits_to_rise(&self) -> bool {
        self.inner.waits
    }

    /// Runs `work` in one immediate transaction, committed and durable on return, rolled back where it
    /// fails. Goes on when the future is dropped.
    ///
    /// # Errors
    /// What `work` answers; [`Error::Full`], [`Error::ReadOnly`], [`Error::Closing`].
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        crossing(move || inner.write(work)).await
    }

    /// As [`Database::write`], on the calling thread.
    ///
    /// # Errors
    /// As [`Database::write`].
    pub fn write_blocking<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.inner.write(work)
    }

    /// Runs `work` on a connection that only reads; what it sees is one moment if it is one statement.
    ///
    /// # Errors
    /// What `work` answers; [`Error::Closing`].
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let permit = match &self.inner.readers {
            Some(readers) => Some(readers.permit().await?),
            None => None,
        };
        let inner = Arc::clone(&self.inner);
        crossing(move || {
            let read = inner.read(work);
            // Not before the connection is back, also where nobody waits for the answer any more.
            drop(permit);
            read
        })
        .await
    }

    /// As [`Database::read`], on the calling thread, which waits until a connection is free.
    ///
    /// # Errors
    /// What `work` answers.
    pub fn read_blocking<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.inner.read(work)
    }

    /// The bytes of the file and its log, and how many of them are in use. Blocking.
    ///
    /// # Errors
    /// Where they can't be told.
    pub fn sizes(&self) -> Result<Sizes, Error> {
        self.inner
            .read(|connection| open::sizes(connection, &self.inner.path))
    }

    /// Gives pages that are not in use back to the file system: writes the whole file anew. Blocking; writes wait meanwhile.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::ReadOnly`]: the file is as it was.
    pub fn compact(&self) -> Result<(), Error> {
        let writer = lock(&self.inner.writer);
        if let Some(reason) = &writer.failed {
            return Err(self.inner.read_only(reason));
        }
        open::compact(&writer.connection).map_err(|error| locate(error.into(), &self.inner.path))
    }

    /// Writes what the database holds now as its earlier generation, beside it: see [`bring_back`]. Blocking;
    /// durable on return.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`]: the one before is still there.
    pub fn keep_generation(&self) -> Result<(), Error> {
        let writer = lock(&self.inner.writer);
        generation::keep(&writer.connection, &self.inner.path)
            .map_err(|error| locate(error, &self.inner.path))
    }

    /// What SQLite finds wrong with the file; `None` where it is whole. Blocking, reads all of it.
    ///
    /// # Errors
    /// Only where the check cannot be made.
    pub fn check(&self) -> Result<Option<String>, Error> {
        let writer = lock(&self.inner.writer);
        open::integrity(&writer.connection).map_err(|error| locate(error.into(), &self.inner.path))
    }
}

impl Inner {
    fn read_only(&self, reason: &str) -> Error {
        Error::ReadOnly {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }

    fn read<T, E: From<Error>>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        match &self.readers {
            Some(readers) => readers.with(work),
            None => work(&lock(&self.writer).connection),
        }
    }

    fn write<T, E: From<Error>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut writer = lock(&self.writer);
        if let Some(reason) = &writer.failed {
            return Err(E::from(self.read_only(reason)));
        }
        let begun = writer
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|error| locate(error.into(), &self.path))?;
        let done = work(&transaction)?;
        if let Err(error) = transaction.commit() {
            if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
                writer.failed = Some(error.to_string());
            }
            return Err(E::from(locate(error.into(), &self.path)));
        }
        Ok(done)
    }
}

/// Renames a damaged database, with its log, so that a new one can stand in its place; answers its new path.
/// Nothing is deleted.
///
/// # Errors
/// [`Error::Io`].
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (1..)
        .map(|number| with(path, &format!(".damaged-{number}")))
        .find(|aside| !aside.exists())
        .expect("the numbers do not end");
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::rename(with(path, suffix), with(&aside, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    sync_folder_of(path)?;
    Ok(aside)
}

/// Makes an empty file that only its owner reads; SQLite gives its log the same mode.
fn make_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    let made = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    made.map(|_| ()).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// Flushes the folder that holds `path`, so that its name is durable.
fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| Error::Io {
            path: folder.to_owned(),
            source,
        })
}

/// Says which file an error of SQLite is about, where its caller acts on that.
pub(crate) fn locate(error: Error, path: &Path) -> Error {
    let Error::Sqlite(sqlite) = error else {
        return error;
    };
    match sqlite.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt {
            path: path.to_owned(),
            what: sqlite.to_string(),
        },
        Some(ErrorCode::DiskFull) => Error::Full {
            path: path.to_owned(),
        },
        _ => Error::Sqlite(sqlite),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in a closure leaves a rolled-back transaction or a lent connection: neither is broken.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Blocking work from async, awaited; it goes on when the future is dropped. Also for what a node does with
/// its own files: this is one of the two places that may start a blocking thread.
pub(crate) async fn crossing<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(done) => done,
        // Only a runtime that shuts down cancels blocking work; a panic aborts the shipped binary.
        Err(_) => Err(E::from(Error::Closing)),
    }
}

/// Blocking work that nobody awaits, as it says itself what came of it.
pub(crate) fn detached(work: impl FnOnce() + Send + 'static) {
    drop(spawn_blocking(work));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const STEPS: Migrations = &[
        "CREATE TABLE kept (name TEXT PRIMARY KEY) STRICT;",
        "ALTER TABLE kept ADD COLUMN size INTEGER NOT NULL DEFAULT 0;",
    ];

    fn put(database: &Database, name: &'static str) {
        database
            .write_blocking(|tx| -> Result<(), Error> {
                tx.execute("INSERT INTO kept (name) VALUES (?1)", [name])?;
                Ok(())
            })
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_written_is_read_by_the_readers_that_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("a.db"), STEPS).unwrap();
        put(&database, "one");
        let count = |c: &Connection| -> Result<i64, Error> {
            Ok(c.query_row("SELECT count(*) FROM kept", [], |row| row.get(0))?)
        };
        assert_eq!(database.read(count).await.unwrap(), 1);
        for file in ["a.db", "a.db-wal"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
        let written = database
            .read(|c| -> Result<(), Error> { Ok(c.execute_batch("DELETE FROM kept")?) })
            .await;
        assert!(matches!(written, Err(Error::Sqlite(_))));
        assert_eq!(database.check().unwrap(), None);
    }

    #[test]
    fn a_database_in_memory_reads_what_it_wrote() {
        let database = Database::in_memory(STEPS).unwrap();
        put(&database, "one");
        let count = |c: &Connection| -> Result<i64, Error> {
            Ok(c.query_row("SELECT count(*) FROM kept", [], |row| row.get(0))?)
        };
        assert_eq!(database.read_blocking(count).unwrap(), 1);
    }

    #[test]
    fn r15_a_schema_waits_until_its_binary_stays_and_the_one_before_opens_it_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let open = |steps, rise| Database::open_when(&path, steps, Purpose::State, rise);
        let (before, next): (Migrations, Migrations) = (&STEPS[..1], STEPS);
        put(&open(before, Rise::Now).unwrap(), "one");
        // The next version, on trial: it works on the schema of the one before.
        let on_trial = open(next, Rise::Later).unwrap();
        assert!(on_trial.waits_to_rise());
        put(&on_trial, "two");
        drop(on_trial);
        // It did not stay.
        put(&open(before, Rise::Now).unwrap(), "three");
        // It stays.
        let judged = open(next, Rise::Now).unwrap();
        assert!(!judged.waits_to_rise());
        put(&judged, "four");
        drop(judged);
        assert!(matches!(open(before, Rise::Now), Err(Error::Newer { .. })));
        // What a new version makes is of its own schema.
        let new = Database::open_when(&dir.path().join("b.db"), next, Purpose::State, Rise::Later).unwrap();
        assert!(!new.waits_to_rise());
    }

    #[test]
    fn an_older_schema_is_migrated_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (old, fresh) = (dir.path().join("old.db"), dir.path().join("fresh.db"));
        drop(Database::open(&old, &STEPS[..1]).unwrap());
        let schema = |path: &Path| -> String {
            let connection = open::writer(path, Purpose::State).unwrap();
            connection
                .query_row("SELECT group_concat(sql) FROM sqlite_schema", [], |row| {
                    row.get(0)
                })
                .unwrap()
        };
        drop(Database::open(&old, STEPS).unwrap());
        drop(Database::open(&fresh, STEPS).unwrap());
        assert_eq!(schema(&old), schema(&fresh));
        assert!(matches!(
            Database::open(&old, &STEPS[..1]),
            Err(Error::Newer {
                found: 2,
                known: 1,
                ..
            })
        ));
    }

    #[test]
    fn a_damaged_database_is_reported_and_set_aside_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        put(&Database::open(&path, STEPS).unwrap(), "one");
        let mut bytes = fs::read(&path).unwrap();
        bytes[20..4096].fill(0xee);
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(Database::open(&path, STEPS), Err(Error::Corrupt { .. })));
        let aside = set_aside(&path).unwrap();
        assert_eq!(fs::read(aside).unwrap(), bytes);
        put(&Database::open(&path, STEPS).unwrap(), "two");
    }

    #[test]
    fn a_lost_database_comes_back_as_it_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        assert!(!bring_back(&path).unwrap());
        let database = Database::open(&path, STEPS).unwrap();
        for name in ["one", "two"] {
            put(&database, name);
            database.keep_generation().unwrap();
        }
        put(&database, "three");
        drop(database);
        fs::remove_file(&path).unwrap();
        assert!(bring_back(&path).unwrap());
        let names = |tx: &Transaction<'_>| -> Result<String, Error> {
            Ok(tx.query_row("SELECT group_concat(name) FROM kept", [], |row| row.get(0))?)
        };
        let found = Database::open(&path, STEPS)
            .unwrap()
            .write_blocking(names)
            .unwrap();
        assert_eq!(found, "one,two");
        use std::os::unix::fs::PermissionsExt;
        for file in ["a.db", "a.db.old"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
    }

    #[test]
    fn a_failed_write_is_rolled_back() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("a.db"), STEPS).unwrap();
        put(&database, "one");
        let failed = database.write_blocking(|tx| -> Result<(), Error> {
            tx.execute("INSERT INTO kept (name) VALUES ('two')", [])?;
            Ok(tx.execute_batch("INSERT INTO kept (name) VALUES ('one')")?)
        });
        assert!(matches!(failed, Err(Error::Sqlite(_))));
        put(&database, "two");
    }
}
