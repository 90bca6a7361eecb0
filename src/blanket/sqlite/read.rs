//! Reading rows back: every one is compared with its checksum before it is believed.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::super::doc::{Attachments, Body, Content};
use super::super::engine::{Loaded, LocalDoc, Record, Row, Visit, Visitor, Which};
use super::super::error::Error;
use super::super::tree::{Leaf, RevTree, leaves_of};
use super::{checksum, tree_checksum};
use crate::id::{DocId, LocalId, Rev, Seq};

/// The bytes before a tree.
const CHECKSUM_BYTES: usize = 4;

/// An order of documents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Seq,
    Id,
}

/// One document. On a connection whose statements all see one moment.
pub(super) fn load(
    connection: &Connection,
    id: &DocId,
    which: &Which,
    path: &Path,
) -> Result<Option<Loaded>, Error> {
    let wants_content = !matches!(which, Which::Record);
    let mut select = connection.prepare_cached(match wants_content {
        true => "SELECT seq, tree, checksum, attachments, body FROM doc WHERE id = ?1",
        false => "SELECT seq, tree FROM doc WHERE id = ?1",
    })?;
    let mut rows = select.query([id.as_str()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let tree = RevTree::decode(tree_bytes(
        id,
        row.get_ref(1)?.as_blob().map_err(|_| damaged(id))?,
    )?);
    let record = Record {
        seq: seq(row, 0)?,
        tree: tree.map_err(|error| Error::of_tree(id, error, path))?,
    };
    let leaves = match which {
        Which::Record => Vec::new(),
        Which::Winner => record.tree.winner().into_iter().collect(),
        Which::Leaf(rev) => record.tree.leaf(rev).into_iter().collect(),
        Which::Leaves => record.tree.leaves(),
    };
    let winner = record.tree.winner();
    let mut contents = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        let content = match Some(&leaf) == winner.as_ref() {
            true => content(id, &leaf.rev, row, 2)?,
            false => side(connection, id, &leaf.rev)?,
        };
        contents.push((leaf, content));
    }
    Ok(Some(Loaded { record, contents }))
}

/// Documents in an order, from `range.0` to before `range.1`.
pub(super) fn rows(
    connection: &Connection,
    by: By,
    range: (Value, Value),
    visit: Visit,
    path: &Path,
    visitor: &mut Visitor<'_, Row>,
) -> Result<(), Error> {
    let mut select = connection.prepare_cached(select_rows(by, visit))?;
    let limit = i64::try_from(visit.limit).unwrap_or(i64::MAX);
    let mut rows = select.query((range.0, range.1, limit))?;
    while let Some(row) = rows.next()? {
        let id = doc_id(row, 1, path)?;
        let tree = tree_bytes(&id, row.get_ref(2)?.as_blob().map_err(|_| damaged(&id))?)?;
        let leaves = leaves_of(tree).map_err(|error| Error::of_tree(&id, error, path))?;
        let winner = leaves.first().ok_or_else(|| damaged(&id))?;
        let content = match visit.contents {
            true => Some(content(&id, &winner.rev, row, 3)?),
            false => None,
        };
        let row = Row {
            seq: seq(row, 0)?,
            id,
            leaves,
            content,
        };
        if visitor(row) == ControlFlow::Break(()) {
            return Ok(());
        }
    }
    Ok(())
}

/// What revisions with attachments hold.
pub(super) fn attached(
    connection: &Connection,
    path: &Path,
    visitor: &mut Visitor<'_, (DocId, Content)>,
) -> Result<(), Error> {
    // One moment for both: what is a winner now may be beside one in the next.
    let moment = connection.unchecked_transaction()?;
    let mut winners = moment.prepare_cached(
        "SELECT id, tree, checksum, attachments, body FROM doc WHERE attachments IS NOT NULL",
    )?;
    let mut rows = winners.query([])?;
    while let Some(row) = rows.next()? {
        let id = doc_id(row, 0, path)?;
        let tree = tree_bytes(&id, row.get_ref(1)?.as_blob().map_err(|_| damaged(&id))?)?;
        let leaves = leaves_of(tree).map_err(|error| Error::of_tree(&id, error, path))?;
        let winner: &Leaf = leaves.first().ok_or_else(|| damaged(&id))?;
        let content = content(&id, &winner.rev, row, 2)?;
        if visitor((id, content)) == ControlFlow::Break(()) {
            return Ok(());
        }
    }
    let mut sides = moment.prepare_cached(
        "SELECT id, rev, checksum, attachments, body FROM leaf WHERE attachments IS NOT NULL",
    )?;
    let mut rows = sides.query([])?;
    while let Some(row) = rows.next()? {
        let id = doc_id(row, 0, path)?;
        let rev = row.get_ref(1)?.as_str().ok().and_then(|text| text.parse().ok());
        let content = content(&id, &rev.ok_or_else(|| damaged(&id))?, row, 2)?;
        if visitor((id, content)) == ControlFlow::Break(()) {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn local(connection: &Connection, id: &LocalId) -> Result<Option<LocalDoc>, Error> {
    let mut select = connection.prepare_cached("SELECT edits, body FROM local WHERE id = ?1")?;
    let local = select.query_row([id.name()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    });
    Ok(local.optional()?.map(|(edits, body)| LocalDoc {
        edits: edits.unsigned_abs(),
        body: body.into(),
    }))
}

pub(super) fn locals(
    connection: &Connection,
    range: (Value, Value),
    visit: Visit,
    visitor: &mut Visitor<'_, (LocalId, LocalDoc)>,
) -> Result<(), Error> {
    let mut select = connection.prepare_cached(match visit.descending {
        false => "SELECT id, edits, body FROM local WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
        true => "SELECT id, edits, body FROM local WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    })?;
    let limit = i64::try_from(visit.limit).unwrap_or(i64::MAX);
    let mut rows = select.query((range.0, range.1, limit))?;
    while let Some(row) = rows.next()? {
        let Ok(id) = LocalId::named(row.get_ref(0)?.as_str().unwrap_or_default()) else {
            continue;
        };
        let local = LocalDoc {
            edits: row.get::<_, i64>(1)?.unsigned_abs(),
            body: row.get::<_, String>(2)?.into(),
        };
        if visitor((id, local)) == ControlFlow::Break(()) {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn setting(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut select = connection.prepare_cached("SELECT value FROM setting WHERE key = ?1")?;
    Ok(select.query_row([key], |row| row.get(0)).optional()?)
}

/// Reads every leaf of every document; the first that is damaged.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<Option<String>, Error> {
    let moment = connection.unchecked_transaction()?;
    let mut select = moment.prepare("SELECT id FROM doc ORDER BY seq")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let id = doc_id(row, 0, path)?;
        match load(&moment, &id, &Which::Leaves, path) {
            Err(Error::DamagedDoc { id }) => return Ok(Some(format!("the document {id} is damaged"))),
            loaded => drop(loaded?),
        }
    }
    Ok(None)
}

fn select_rows(by: By, visit: Visit) -> &'static str {
    match (by, visit.descending, visit.contents) {
        (By::Seq, false, false) => {
            "SELECT seq, id, tree FROM doc WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3"
        }
        (By::Seq, true, false) => {
            "SELECT seq, id, tree FROM doc WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
        }
        (By::Seq, false, true) => {
            "SELECT seq, id, tree, checksum, attachments, body FROM doc WHERE seq >= ?1 AND seq < ?2
             ORDER BY seq LIMIT ?3"
        }
        (By::Seq, true, true) => {
            "SELECT seq, id, tree, checksum, attachments, body FROM doc WHERE seq >= ?1 AND seq < ?2
             ORDER BY seq DESC LIMIT ?3"
        }
        (By::Id, false, false) => {
            "SELECT seq, id, tree FROM doc WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3"
        }
        (By::Id, true, false) => {
            "SELECT seq, id, tree FROM doc WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
        }
        (By::Id, false, true) => {
            "SELECT seq, id, tree, checksum, attachments, body FROM doc WHERE id >= ?1 AND id < ?2
             ORDER BY id LIMIT ?3"
        }
        (By::Id, true, true) => {
            "SELECT seq, id, tree, checksum, attachments, body FROM doc WHERE id >= ?1 AND id < ?2
             ORDER BY id DESC LIMIT ?3"
        }
    }
}

/// What a leaf besides the winner holds.
fn side(connection: &Connection, id: &DocId, rev: &Rev) -> Result<Content, Error> {
    let mut select = connection
        .prepare_cached("SELECT checksum, attachments, body FROM leaf WHERE id = ?1 AND rev = ?2")?;
    let mut rows = select.query([id.as_str(), rev.to_string().as_str()])?;
    let row = rows.next()?.ok_or_else(|| damaged(id))?;
    content(id, rev, row, 0)
}

/// The content in three columns from `at` on.
fn content(id: &DocId, rev: &Rev, row: &SqlRow<'_>, at: usize) -> Result<Content, Error> {
    let text = |column| -> Result<Option<String>, Error> {
        row.get(column).map_err(|error| match error {
            // What is no text any more was text when it was written.
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                damaged(id)
            }
            other => other.into(),
        })
    };
    let found: i64 = row.get(at)?;
    let attachments = text(at + 1)?;
    let body = text(at + 2)?.ok_or_else(|| damaged(id))?;
    if checksum(id, &rev.to_string(), attachments.as_deref(), &body) != found {
        return Err(damaged(id));
    }
    let attachments = match attachments {
        Some(json) => serde_json::from_str(&json).map_err(|_| damaged(id))?,
        None => Attachments::new(),
    };
    Ok(Content {
        body: Body::from(body),
        attachments,
    })
}

/// The tree behind its checksum.
fn tree_bytes<'a>(id: &DocId, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let (found, tree) = bytes
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or_else(|| damaged(id))?;
    match tree_checksum(id, tree) == found {
        true => Ok(tree),
        false => Err(damaged(id)),
    }
}

fn seq(row: &SqlRow<'_>, column: usize) -> Result<Seq, Error> {
    let number = row.get::<_, i64>(column)?;
    Ok(u64::try_from(number).ok().and_then(Seq::new).unwrap_or_default())
}

fn doc_id(row: &SqlRow<'_>, column: usize, path: &Path) -> Result<DocId, Error> {
    let id = row
        .get_ref(column)?
        .as_str()
        .ok()
        .and_then(|text| text.parse().ok());
    id.ok_or_else(|| Error::Corrupt {
        path: path.to_owned(),
        what: "a row has an id that is none".to_owned(),
    })
}

fn damaged(id: &DocId) -> Error {
    Error::DamagedDoc { id: id.clone() }
}
