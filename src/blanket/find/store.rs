//! The file of a database's indexes: one SQLite file beside the database's own, that may be lost at any time.
//!
//! A group of entries is committed together with how far the index is then, and is not flushed: SQLite's log keeps the order of
//! writes, so that after a power cut the file is what it was some groups ago, and the index goes on from there. What was flushed by a
//! database is never missing in an index that says it has it, since only what is durable is read into one.
//!
//! What the file says is not believed blindly. When it is opened, all entries are read: they must stand in order, and their number and
//! the sum of their checksums must be those that were written with the last group; the database must be the one they were read from,
//! and not an earlier state of it. Else the file is made anew. What is read from an index is compared with its document again.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::definition::Signature;
use super::range::Keys;
use crate::blanket::collate;
use crate::blanket::error::Error;
use crate::db;
use crate::id::{DbUuid, DocId, Rev, Seq};

/// The name of the file in a database's folder.
pub(in crate::blanket) const INDEX_FILE: &str = "find.db";

const STEPS: db::Migrations = &[include_str!("schema-1.sql")];

/// The format of keys: `collate/key.rs`, and how those of several fields are put together.
const KEY_FORMAT: u8 = 1;

/// Greater than every key: none begins with this byte.
const AFTER_ALL: &[u8] = &[u8::MAX];

/// An open file of indexes.
pub(super) struct Store {
    path: PathBuf,
    db: db::Database,
}

/// Where an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    /// What it is called in the file.
    pub(super) number: i64,
    /// Up to where the changes of its database are in it.
    pub(super) seq: Seq,
    /// The document that changed there, and its winner then.
    pub(super) last: Option<(DocId, Rev)>,
}

/// What becomes of a document's entry: its key from now on, where it has one.
pub(super) type Entry = (DocId, Option<Vec<u8>>);

/// How an index is read.
pub(super) struct Reading<'a> {
    pub(super) keys: &'a Keys,
    pub(super) descending: bool,
    /// The entry to go on after.
    pub(super) after: Option<(&'a [u8], &'a DocId)>,
    /// At most so many entries.
    pub(super) limit: usize,
}

impl Store {
    /// Opens the file in `place`, or where there is no place a store in memory; what is damaged or of another database is made anew.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub(super) fn open(place: Option<&Path>, database: DbUuid) -> Result<Store, Error> {
        let Some(place) = place else {
            let store = Store {
                path: PathBuf::from(INDEX_FILE),
                db: db::Database::in_memory(STEPS)?,
            };
            store.begin(database)?;
            return Ok(store);
        };
        let path = place.join(INDEX_FILE);
        match Store::open_file(&path).and_then(|store| Ok((store.is_sound(database)?, store))) {
            Ok((true, store)) => return Ok(store),
            Err(error @ (Error::Full { .. } | Error::Io { .. })) => return Err(error),
            Ok((false, _)) | Err(_) => {}
        }
        remove(&path)?;
        let store = Store::open_file(&path)?;
        store.begin(database)?;
        Ok(store)
    }

    fn open_file(path: &Path) -> Result<Store, Error> {
        Ok(Store {
            path: path.to_owned(),
            db: db::Database::open_as(path, STEPS, db::Purpose::Derived)?,
        })
    }

    fn begin(&self, database: DbUuid) -> Result<(), Error> {
        self.write(|tx| {
            let origin = params![database.as_bytes(), key_format()];
            tx.execute("INSERT INTO origin (database, keys) VALUES (?1, ?2)", origin)?;
            Ok(())
        })
    }

    /// Reads everything: whether it is of this database and as it was written.
    fn is_sound(&self, database: DbUuid) -> Result<bool, Error> {
        self.read(|connection| {
            let origin = "SELECT count(*) FROM origin WHERE database = ?1 AND keys = ?2";
            let origins: i64 =
                connection.query_row(origin, params![database.as_bytes(), key_format()], |row| {
                    row.get(0)
                })?;
            if origins != 1 {
                return Ok(false);
            }
            let mut select =
                connection.prepare("SELECT number, entries, checksum, own FROM built ORDER BY number")?;
            let rows = select.query_map([], |row| {
                Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?))
            })?;
            let rows: Vec<((i64, i64, i64), i64)> = rows.collect::<Result<_, _>>()?;
            for ((number, _, _), own) in &rows {
                if row_checksum(connection, *number)? != *own {
                    return Ok(false);
                }
            }
            let built: Vec<(i64, i64, i64)> = rows.into_iter().map(|(row, _)| row).collect();
            let mut found: Vec<(i64, i64, i64)> =
                built.iter().map(|(number, _, _)| (*number, 0, 0)).collect();
            let mut select = connection.prepare("SELECT number, key, id FROM entry NOT INDEXED")?;
            let mut rows = select.query([])?;
            let mut before: (i64, Vec<u8>, String) = Default::default();
            while let Some(row) = rows.next()? {
                let entry: (i64, Vec<u8>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let Some(index) = found.iter_mut().find(|(number, _, _)| *number == entry.0) else {
                    return Ok(false);
                };
                index.1 += 1;
                index.2 = index.2.wrapping_add(checksum(&entry.1, &entry.2));
                if entry <= before {
                    return Ok(false);
                }
                before = entry;
            }
            Ok(found == built)
        })
    }

    /// Where an index is, where it is in the file.
    pub(super) fn built(&self, signature: &Signature) -> Result<Option<Built>, Error> {
        self.read(|connection| built(connection, signature))
    }

    /// Bytes of an index's entries. Reads all of them.
    pub(super) fn bytes(&self, index: &Built) -> Result<u64, Error> {
        self.read(|connection| {
            let sum = "SELECT coalesce(sum(length(key) + length(id)), 0) FROM entry WHERE number = ?1";
            let bytes: i64 = connection.query_row(sum, [index.number], |row| row.get(0))?;
            Ok(bytes.cast_unsigned())
        })
    }

    /// Begins an index that is not in the file.
    pub(super) fn add(&self, signature: &Signature) -> Result<Built, Error> {
        self.write(|tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO built (signature, seq, entries, checksum, own) VALUES (?1, 0, 0, 0, 0)",
            )?;
            insert.execute(params![signature])?;
            let number = tx.last_insert_rowid();
            seal(tx, number)?;
            Ok(Built {
                number,
                seq: Seq::ZERO,
                last: None,
            })
        })
    }

    /// Forgets all indexes but these; whether there was one.
    pub(super) fn keep_only(&self, signatures: &[Signature]) -> Result<bool, Error> {
        let known: Vec<(i64, Vec<u8>)> = self.read(|connection| {
            let mut select = connection.prepare("SELECT number, signature FROM built")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        let gone = known
            .iter()
            .filter(|(_, known)| !signatures.iter().any(|kept| kept[..] == known[..]));
        let gone: Vec<i64> = gone.map(|(number, _)| *number).collect();
        if gone.is_empty() {
            return Ok(false);
        }
        self.write(|tx| {
            for number in &gone {
                tx.execute("DELETE FROM entry WHERE number = ?1", [number])?;
                tx.execute("DELETE FROM built WHERE number = ?1", [number])?;
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// Writes one group: entries of documents, each document once, and how far the index is then. Documents that are `fresh` have no
    /// entry so far.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::ReadOnly`]: nothing of it is there.
    pub(super) fn put(&self, index: &Built, mut entries: Vec<Entry>, is_fresh: bool) -> Result<(), Error> {
        // Pages of the index are met one after the other.
        entries.sort_by(|(_, a), (_, b)| a.cmp(b));
        self.write(|tx| {
            let mut delete =
                tx.prepare_cached("DELETE FROM entry WHERE number = ?1 AND id = ?2 RETURNING key")?;
            let mut insert = tx.prepare_cached("INSERT INTO entry (number, key, id) VALUES (?1, ?2, ?3)")?;
            let (mut more, mut sum) = (0_i64, 0_i64);
            for (id, key) in &entries {
                if !is_fresh {
                    let mut gone = delete.query(params![index.number, id.as_str()])?;
                    while let Some(row) = gone.next()? {
                        let key: Vec<u8> = row.get(0)?;
                        more -= 1;
                        sum = sum.wrapping_sub(checksum(&key, id.as_str()));
                    }
                }
                if let Some(key) = key {
                    insert.execute(params![index.number, key, id.as_str()])?;
                    more += 1;
                    sum = sum.wrapping_add(checksum(key, id.as_str()));
                }
            }
            let before: i64 = tx.query_row(
                "SELECT checksum FROM built WHERE number = ?1",
                [index.number],
                |row| row.get(0),
            )?;
            let mut update = tx.prepare_cached(
                "UPDATE built SET seq = ?2, last_id = ?3, last_rev = ?4, entries = entries + ?5, checksum = ?6
                 WHERE number = ?1",
            )?;
            let last = index.last.as_ref();
            update.execute(params![
                index.number,
                i64::try_from(index.seq.number()).unwrap_or(i64::MAX),
                last.map(|(id, _)| id.as_str()),
                last.map(|(_, rev)| rev.to_string()),
                more,
                before.wrapping_add(sum),
            ])?;
            seal(tx, index.number)
        })
    }

    /// Visits entries within a range in their order, at one moment: up to where the index was then.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; what the visitor answers.
    pub(super) fn read_range(
        &self,
        signature: &Signature,
        reading: &Reading<'_>,
        visitor: &mut dyn FnMut(Seq, Vec<u8>, DocId) -> Result<std::ops::ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        self.read(|connection| {
            let moment = connection.unchecked_transaction()?;
            let Some(index) = built(&moment, signature)? else {
                return Ok(());
            };
            let (from, before) = (
                &reading.keys.from[..],
                reading.keys.before.as_deref().unwrap_or(AFTER_ALL),
            );
            // No id is empty, so that this stands before all entries of the key.
            let (near, far) = if reading.descending {
                (before, from)
            } else {
                (from, before)
            };
            let (key, id) = reading.after.map_or((near, ""), |(key, id)| (key, id.as_str()));
            let mut select = moment.prepare_cached(match reading.descending {
                false => {
                    "SELECT key, id FROM entry WHERE number = ?1 AND (key, id) > (?2, ?3) AND key < ?4
                     ORDER BY key, id LIMIT ?5"
                }
                true => {
                    "SELECT key, id FROM entry WHERE number = ?1 AND (key, id) < (?2, ?3) AND key >= ?4
                     ORDER BY key DESC, id DESC LIMIT ?5"
                }
            })?;
            let limit = i64::try_from(reading.limit).unwrap_or(i64::MAX);
            let mut rows = select.query(params![index.number, key, id, far, limit])?;
            while let Some(row) = rows.next()? {
                let id: String = row.get(1)?;
                let id = id.parse().map_err(|_| self.corrupt("an entry has no id"))?;
                if visitor(index.seq, row.get(0)?, id)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        self.db.read_blocking(work).map_err(|error| self.located(error))
    }

    fn write<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        self.db
            .write_blocking(|tx| work(tx))
            .map_err(|error| self.located(error))
    }

    fn located(&self, error: Error) -> Error {
        match error {
            Error::Database(error) => db::locate(error, &self.path).into(),
            other => other,
        }
    }
}

fn built(connection: &Connection, signature: &Signature) -> Result<Option<Built>, Error> {
    let mut select =
        connection.prepare_cached("SELECT number, seq, last_id, last_rev FROM built WHERE signature = ?1")?;
    let row = select.query_row(params![signature], |row| {
        let last: (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        Ok((row.get(0)?, row.get::<_, i64>(1)?, last))
    });
    Ok(row.optional()?.map(|(number, seq, (id, rev))| Built {
        number,
        seq: u64::try_from(seq).ok().and_then(Seq::new).unwrap_or_default(),
        last: id
            .and_then(|id| id.parse().ok())
            .zip(rev.and_then(|rev| rev.parse().ok())),
    }))
}

/// Writes the checksum of an index's row, whatever else is in it.
fn seal(tx: &Connection, number: i64) -> Result<(), Error> {
    let own = row_checksum(tx, number)?;
    tx.prepare_cached("UPDATE built SET own = ?2 WHERE number = ?1")?
        .execute([number, own])?;
    Ok(())
}

fn row_checksum(connection: &Connection, number: i64) -> Result<i64, Error> {
    let mut select = connection.prepare_cached(
        "SELECT concat_ws(' ', number, hex(signature), seq, last_id, last_rev, entries, checksum) FROM built WHERE number = ?1",
    )?;
    let row: String = select.query_row([number], |row| row.get(0))?;
    Ok(checksum(row.as_bytes(), ""))
}

/// Removes the file with its log. Whoever has it open goes on with files that have no name.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    for suffix in ["-wal", "-shm", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(Path::new(&name), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn key_format() -> Vec<u8> {
    let mut format = vec![KEY_FORMAT];
    format.extend(collate::fingerprint());
    format
}

fn checksum(key: &[u8], id: &str) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(id.as_bytes());
    i64::from(hasher.finalize())
}
