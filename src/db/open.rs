//! Opening a connection: the version that is needed, and every pragma with its reason.

use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Error;

/// SQLite 3.51.3: the first with the fix of the WAL-reset race, by which a checkpoint beside a writer could
/// lose committed pages (<https://www.sqlite.org/wal.html>, section 11).
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long a connection waits for another's lock: only recovery and checkpoints ever hold one that long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The system interface of SQLite for a file that one process has to itself, as a node has its data folder. The index of the log
/// is on the heap: otherwise it is a file that is memory mapped, whose pages the system writes to the card over and over, and
/// which is SIGBUS where its disk was pulled (<https://www.sqlite.org/vfs.html>, section 2.1).
const ALONE: &CStr = c"unix-excl";

/// For every connection.
const PRAGMAS: &str = "
    -- Readers never wait for the writer, and a commit is one append and one flush.
    PRAGMA journal_mode = WAL;
    -- A commit is on the medium when it returns; WAL's default would lose the last ones in a power cut.
    PRAGMA synchronous = FULL;
    -- Off by default for history's sake.
    PRAGMA foreign_keys = ON;
    -- 256 KiB a connection instead of 2 MiB: the page cache of the system holds the rest.
    PRAGMA cache_size = -256;
    -- No address space on 32 bits, and a failing card is an error code, not SIGBUS.
    PRAGMA mmap_size = 0;
    -- Small sorts, and no folder for temporary files to depend on.
    PRAGMA temp_store = MEMORY;
    -- Checkpoint after 1 MiB and give the log's space back: it would stay at its highest mark for ever.
    PRAGMA wal_autocheckpoint = 256;
    PRAGMA journal_size_limit = 1048576;
    -- A file someone else wrote may hold a schema that calls functions.
    PRAGMA trusted_schema = OFF;
    -- Damaged pages are found when they are read, not when they are written back.
    PRAGMA cell_size_check = ON;
";

/// For connections that only read: a write through one is a bug, and says so.
const READER_PRAGMA: &str = "PRAGMA query_only = ON;";

/// For the connection that writes documents.
const DOCUMENTS_PRAGMAS: &str = "
    -- 2 MiB: a group of a few hundred documents stays in memory until it is committed, instead of reaching the log twice.
    PRAGMA cache_size = -2048;
    -- Checkpoint after 16 MiB: a page of an index is written to the file once for all documents that changed it meanwhile, and
    -- fewer flushes of the file stand between those of the log. That much is read at a start after a power cut.
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA journal_size_limit = 4194304;
";

/// For the connection that writes what is derived from documents.
const DERIVED_PRAGMAS: &str = "
    -- A commit is in the log and in order, and flushed with the next checkpoint: after a power cut the file is what it was some
    -- commits ago, which is as good, since what it lacks is derived again.
    PRAGMA synchronous = NORMAL;
    -- 1 MiB: a group of entries meets pages all over an index.
    PRAGMA cache_size = -1024;
    PRAGMA wal_autocheckpoint = 1000;
    PRAGMA journal_size_limit = 4194304;
";

/// What a file is for, and by that how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The state of a node: small, changed now and then, checked as a whole when it is opened.
    State,
    /// Documents: large, written all the time, and checked row by row by whoever reads them.
    Documents,
    /// What is derived from documents: as large, checked by whoever opens it, and not flushed with each commit, so that the last ones
    /// may be gone after a power cut.
    Derived,
}

/// Bytes of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Of the file and its log.
    pub file_bytes: u64,
    /// Of pages that hold something.
    pub active_bytes: u64,
}

/// Opens the one connection that writes; makes the file where it is not there.
pub(super) fn writer(path: &Path, purpose: Purpose) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connect(path, flags)?;
    match purpose {
        Purpose::State => {}
        Purpose::Documents => connection.execute_batch(DOCUMENTS_PRAGMAS)?,
        Purpose::Derived => connection.execute_batch(DERIVED_PRAGMAS)?,
    }
    Ok(connection)
}

/// Opens the only connection to a database in memory.
pub(super) fn in_memory() -> Result<Connection, Error> {
    set_up(Connection::open_in_memory()?)
}

/// Opens a connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, Error> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(READER_PRAGMA)?;
    Ok(connection)
}

/// Refuses to run on an SQLite without the fixes that durability depends on.
pub(super) fn assert_version(found: i32) -> Result<(), Error> {
    if found < SQLITE_VERSION_MIN {
        return Err(Error::OldSqlite {
            found,
            needed: SQLITE_VERSION_MIN,
        });
    }
    Ok(())
}

/// What SQLite finds wrong with the file, the first finding only; `None` where it is whole. Reads all of it.
pub(super) fn integrity(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let finding: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((finding != "ok").then_some(finding))
}

/// Bytes of the file and its log, and of its pages in use.
pub(super) fn sizes(connection: &Connection, path: &Path) -> Result<Sizes, Error> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let page_bytes = number("PRAGMA page_size")?;
    let used = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // A log that is not there has no bytes.
    let log_bytes = std::fs::metadata(&log).map_or(0, |log| log.len());
    let file = std::fs::metadata(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(Sizes {
        file_bytes: file.len() + log_bytes,
        active_bytes: (page_bytes * used).try_into().unwrap_or_default(),
    })
}

/// Writes the whole file anew, without pages that hold nothing. The copy stands in a file meanwhile, where SQLite keeps temporary
/// ones (`SQLITE_TMPDIR`, else `/var/tmp`): in memory it would be as large as the database.
pub(super) fn compact(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch("PRAGMA temp_store = FILE;")?;
    let compacted = connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);");
    connection.execute_batch("PRAGMA temp_store = MEMORY;")?;
    compacted
}

/// The version of the schema, 0 for a new file.
pub(super) fn schema_version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Sets the version of the schema, in the transaction under way.
pub(super) fn set_schema_version(connection: &Connection, version: u32) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "user_version", version)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    // One connection is never used by two threads at once: `Database` sees to that.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    set_up(Connection::open_with_flags_and_vfs(path, flags, ALONE)?)
}

fn set_up(connection: Connection) -> Result<Connection, Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(PRAGMAS)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_a_log_without_a_file_that_is_memory_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let writer = writer(&path, Purpose::State).unwrap();
        let reader = reader(&path).unwrap();
        writer
            .execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (7);")
            .unwrap();
        let seen: i64 = reader.query_row("SELECT n FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(seen, 7);
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["test.db", "test.db-wal"]);
    }

    #[test]
    fn an_sqlite_that_is_too_old_is_refused() {
        assert!(assert_version(rusqlite::version_number()).is_ok());
        assert!(matches!(
            assert_version(3_051_002),
            Err(Error::OldSqlite { found: 3_051_002, .. })
        ));
    }
}
