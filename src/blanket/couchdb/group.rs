//! A group on its way: its record, which makes it be there, then its rows.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use super::super::error::Error;
use super::super::ordered::Batch;
use super::redo::{Part, Record, part_id};
use super::wire::{Bulk, Put, Row};
use super::{ATTEMPTS_MAX, Couch, Pending, REDO, Writing, ids, random_name, taken};

/// Rows that are written at once, and their bytes.
const CHUNK_ROWS: usize = 500;
const CHUNK_BYTES: usize = 256 * 1024;

/// Attempts that came to nothing as far as is known: no more are waited for.
const TOKENS_KEPT: usize = 16;

impl Couch {
    /// Puts what does not stand in the record itself: nothing names it yet.
    pub(super) fn put_parts(&self, parts: &[Part]) -> Result<(), Error> {
        for (number, part) in parts.iter().enumerate() {
            let id = part_id(number);
            let mut rows = self.wire.rows(std::slice::from_ref(&id), false)?;
            let rev = rows.pop().and_then(live_rev);
            match self.wire.put(&id, rev.as_deref(), part) {
                Put::Stored(_) => {}
                Put::Conflict => return Err(taken(&self.wire)),
                // Nothing names it yet.
                Put::Refused(error) | Put::Unsure(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the record of a group in place of the one before: from then on the group is there.
    pub(super) fn commit(&self, writing: &mut Writing, record: &Record) -> Result<(), Error> {
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let error = match self.wire.put(REDO, Some(&writing.rev), record) {
                Put::Stored(rev) => {
                    committed(writing, rev, record);
                    return Ok(());
                }
                Put::Refused(error) => return Err(error),
                Put::Conflict => None,
                Put::Unsure(error) => Some(error),
            };
            match self.wire.doc::<Record>(REDO) {
                // Its answer was lost.
                Ok(Some(found)) if found.doc.token == record.token => {
                    committed(writing, found.rev, record);
                    return Ok(());
                }
                // An earlier attempt, which came to nothing as far as was known.
                Ok(Some(found)) if writing.tokens.contains(&found.doc.token) => writing.rev = found.rev,
                Ok(Some(found)) if found.rev == writing.rev => last = error.or(last),
                Ok(_) => return Err(taken(&self.wire)),
                Err(away) => {
                    last = Some(error.unwrap_or(away));
                    break;
                }
            }
        }
        writing.tokens.push(record.token.clone());
        if writing.tokens.len() > TOKENS_KEPT {
            writing.tokens.remove(0);
        }
        self.pend(writing, Pending::Unsure);
        Err(last.unwrap_or_else(|| self.wire.error("it does not say what became of a group")))
    }

    /// Sees to it that a group is not there of which somebody was told so.
    pub(super) fn call_off(&self, writing: &mut Writing) -> Result<(), Error> {
        for _ in 0..ATTEMPTS_MAX {
            let found = self.wire.doc::<Record>(REDO)?;
            let found = found.ok_or_else(|| self.wire.error("the record of its groups is gone"))?;
            if found.rev == writing.rev {
                return Ok(());
            }
            if !writing.tokens.contains(&found.doc.token) {
                return Err(taken(&self.wire));
            }
            let none = Record::none(writing.group, random_name()?);
            match self.wire.put(REDO, Some(&found.rev), &none) {
                Put::Stored(rev) => {
                    writing.rev = rev;
                    return Ok(());
                }
                // Looked at once more.
                Put::Conflict => {}
                Put::Unsure(error) => {
                    writing.tokens.push(none.token);
                    return Err(error);
                }
                Put::Refused(error) => return Err(error),
            }
        }
        Err(self.wire.error("it does not say what became of a group"))
    }

    /// Writes the rows of a group whose record has revision `rev`. May be done any number of times.
    pub(super) fn apply(&self, rev: &str, batch: &Batch) -> Result<(), Error> {
        let _nobody_reads = self
            .applying
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(key, value): &&(Vec<u8>, Option<Vec<u8>>)| {
                bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                bytes <= CHUNK_BYTES
            };
            let count = rest.iter().take(CHUNK_ROWS).take_while(fits).count().max(1);
            let (chunk, after) = rest.split_at(count);
            self.apply_chunk(rev, chunk)?;
            rest = after;
        }
        Ok(())
    }

    fn apply_chunk(&self, rev: &str, chunk: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), Error> {
        let mut ids: Vec<String> = chunk.iter().map(|(key, _)| ids::id_of(key)).collect();
        // Read last: whoever opened the database meanwhile has changed it before any row.
        ids.push(REDO.to_owned());
        for _ in 0..ATTEMPTS_MAX {
            let mut rows = self.wire.rows(&ids, false)?;
            if rows.pop().and_then(live_rev).as_deref() != Some(rev) {
                return Err(taken(&self.wire));
            }
            let docs = chunk.iter().zip(&ids).zip(rows);
            let docs: Vec<Value> = docs
                .filter_map(|(((key, value), id), row)| document(id, live_rev(row), key, value.as_deref()))
                .collect();
            if docs.is_empty() {
                return Ok(());
            }
            match self.wire.bulk(docs)? {
                Bulk::Stored => return Ok(()),
                // A request that was given up came through after all.
                Bulk::Conflict => {}
            }
        }
        Err(self.wire.error("rows change while they are written"))
    }
}

fn committed(writing: &mut Writing, rev: String, record: &Record) {
    writing.rev = rev;
    writing.group = record.group;
    writing.tokens.clear();
}

/// The revision of a row that is there.
fn live_rev(row: Row) -> Option<String> {
    row.value.filter(|value| !value.deleted).map(|value| value.rev)
}

/// What becomes of a row; `None` where nothing does.
fn document(id: &str, rev: Option<String>, key: &[u8], value: Option<&[u8]>) -> Option<Value> {
    let Some(value) = value else {
        return rev.map(|rev| json!({"_id": id, "_rev": rev, "_deleted": true}));
    };
    let mut document = json!({"_id": id, "v": BASE64.encode(value)});
    if let Some(rev) = rev {
        document["_rev"] = Value::from(rev);
    }
    if ids::is_long(key) {
        document["k"] = Value::from(HEXLOWER.encode(key));
    }
    Some(document)
}
