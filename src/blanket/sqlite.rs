//! The engine that is the default: one SQLite file for each database, written in groups.
//!
//! A document is one row, with its revision tree and what its winner holds; `sqlite/schema-1.sql` says why it is laid out so.
//! Everything that is read is compared with a checksum that was made when it was written and covers the id and the revision:
//! what a bad card changes is an error here, not another document.

mod read;
mod write;

use std::ops::Bound;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::Value;

use super::doc::Content;
use super::engine::{
    Engine, Loaded, LocalDoc, Merge, Row, Sizes, Summary, UPDATE_SEQ, Visit, Visitor, Which,
};
use super::error::Error;
use super::memory::seq_of;
use crate::db;
use crate::id::{DocId, LocalId, Seq};

/// The name of the file in a database's folder.
pub(super) const DOCUMENTS_FILE: &str = "documents.db";

const STEPS: db::Migrations = &[include_str!("sqlite/schema-1.sql")];

/// Documents in one SQLite file.
pub(super) struct Sqlite {
    path: PathBuf,
    db: db::Database,
}

impl Sqlite {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> Result<Sqlite, Error> {
        Ok(Sqlite {
            path: path.to_owned(),
            db: db::Database::open_as(path, STEPS, db::Purpose::Documents)?,
        })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        self.db.read_blocking(work).map_err(|error| self.located(error))
    }

    /// Says which file an error of SQLite is about, where the caller acts on that.
    fn located(&self, error: Error) -> Error {
        match error {
            Error::Database(error) => db::locate(error, &self.path).into(),
            other => other,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Database(error.into())
    }
}

impl Engine for Sqlite {
    fn update(&self, ids: &[DocId], merge: &mut Merge<'_>) -> Result<(), Error> {
        let written = self.db.write_blocking(|tx| -> Result<(), Error> {
            let record = |id| Ok(read::load(tx, id, &Which::Record, &self.path)?.map(|loaded| loaded.record));
            let records = ids.iter().map(record).collect::<Result<_, Error>>()?;
            write::group(tx, &merge(records))
        });
        written.map_err(|error| self.located(error))
    }

    fn summary(&self) -> Result<Summary, Error> {
        self.read(|connection| {
            let number = |sql| connection.query_row(sql, [], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()));
            let all = number("SELECT count(*) FROM doc")?;
            let deleted_docs = number("SELECT count(*) FROM doc WHERE deleted")?;
            let last = number("SELECT ifnull(max(seq), 0) FROM doc")?;
            let kept = read::setting(connection, UPDATE_SEQ)?.and_then(|bytes| seq_of(&bytes));
            Ok(Summary {
                docs: all.saturating_sub(deleted_docs),
                deleted_docs,
                update_seq: Seq::new(last).max(kept).unwrap_or_default(),
            })
        })
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        let sizes = self.db.sizes()?;
        Ok(Sizes {
            file_bytes: sizes.file_bytes,
            active_bytes: sizes.active_bytes,
        })
    }

    fn load(&self, id: &DocId, which: &Which) -> Result<Option<Loaded>, Error> {
        self.read(|connection| {
            // Two statements must see one moment.
            let moment = connection.unchecked_transaction()?;
            read::load(&moment, id, which, &self.path)
        })
    }

    fn by_seq(
        &self,
        range: (Bound<Seq>, Bound<Seq>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error> {
        let (low, high) = seqs(range);
        self.read(|connection| read::rows(connection, read::By::Seq, (low, high), visit, &self.path, visitor))
    }

    fn count(&self, range: (Bound<Seq>, Bound<Seq>)) -> Result<u64, Error> {
        let (low, high) = seqs(range);
        self.read(|connection| {
            let mut count =
                connection.prepare_cached("SELECT count(*) FROM doc WHERE seq >= ?1 AND seq < ?2")?;
            Ok(count
                .query_row([low, high], |row| row.get::<_, i64>(0))?
                .unsigned_abs())
        })
    }

    fn by_id(
        &self,
        range: (Bound<&DocId>, Bound<&DocId>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error> {
        let range = texts((range.0.map(DocId::as_str), range.1.map(DocId::as_str)));
        self.read(|connection| read::rows(connection, read::By::Id, range, visit, &self.path, visitor))
    }

    fn attached(&self, visitor: &mut Visitor<'_, (DocId, Content)>) -> Result<(), Error> {
        self.read(|connection| read::attached(connection, &self.path, visitor))
    }

    fn local(&self, id: &LocalId) -> Result<Option<LocalDoc>, Error> {
        self.read(|connection| read::local(connection, id))
    }

    fn locals(
        &self,
        range: (Bound<&LocalId>, Bound<&LocalId>),
        visit: Visit,
        visitor: &mut Visitor<'_, (LocalId, LocalDoc)>,
    ) -> Result<(), Error> {
        let range = texts((range.0.map(LocalId::name), range.1.map(LocalId::name)));
        self.read(|connection| read::locals(connection, range, visit, visitor))
    }

    fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|connection| read::setting(connection, key))
    }

    fn compact(&self) -> Result<(), Error> {
        Ok(self.db.compact()?)
    }

    fn check(&self) -> Result<Option<String>, Error> {
        if let Some(found) = self.db.check()? {
            return Ok(Some(found));
        }
        self.read(|connection| read::check(connection, &self.path))
    }
}

/// The checksum of what a revision holds.
fn checksum(id: &DocId, rev: &str, attachments: Option<&str>, body: &str) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    // A separator that ids may hold, but no revision and no JSON.
    for part in [rev, attachments.unwrap_or_default(), body, id.as_str()] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    i64::from(i32::from_le_bytes(hasher.finalize().to_le_bytes()))
}

/// The checksum of a tree.
fn tree_checksum(id: &DocId, tree: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(tree);
    hasher.update(id.as_str().as_bytes());
    hasher.finalize().to_le_bytes()
}

/// A number as SQLite keeps it: sequences are no greater, and nobody counts so far.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// From the first to the one behind the last.
fn seqs(range: (Bound<Seq>, Bound<Seq>)) -> (Value, Value) {
    let number = |seq: Seq| number(seq.number());
    let low = match range.0 {
        Bound::Included(seq) => number(seq),
        Bound::Excluded(seq) => number(seq).saturating_add(1),
        Bound::Unbounded => 0,
    };
    let high = match range.1 {
        Bound::Included(seq) => number(seq).saturating_add(1),
        Bound::Excluded(seq) => number(seq),
        Bound::Unbounded => i64::MAX,
    };
    (Value::Integer(low), Value::Integer(high))
}

/// From the first to the one behind the last: the text after another in the order of bytes is that with a zero byte more.
fn texts(range: (Bound<&str>, Bound<&str>)) -> (Value, Value) {
    let low = match range.0 {
        Bound::Included(text) => text.to_owned(),
        Bound::Excluded(text) => format!("{text}\0"),
        Bound::Unbounded => String::new(),
    };
    let high = match range.1 {
        Bound::Included(text) => Value::Text(format!("{text}\0")),
        Bound::Excluded(text) => Value::Text(text.to_owned()),
        // SQLite orders any blob after any text.
        Bound::Unbounded => Value::Blob(Vec::new()),
    };
    (Value::Text(low), high)
}
