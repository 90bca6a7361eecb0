//! Writing a group: the statements of one transaction.

use rusqlite::{Connection, params};

use super::super::doc::Content;
use super::super::engine::{Before, DocChange, Group, LocalDoc, Record};
use super::super::error::Error;
use super::{checksum, number, tree_checksum};
use crate::id::{DocId, LocalId, Rev};

/// Writes a group in the transaction under way.
pub(super) fn group(tx: &Connection, group: &Group) -> Result<(), Error> {
    for change in &group.docs {
        doc(tx, change)?;
    }
    for (id, local) in &group.locals {
        write_local(tx, id, local.as_ref())?;
    }
    for (key, value) in &group.settings {
        let mut write = tx.prepare_cached("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)")?;
        write.execute(params![key, value])?;
    }
    Ok(())
}

fn doc(tx: &Connection, change: &DocChange) -> Result<(), Error> {
    let (id, before) = (&change.id, change.before.as_ref());
    let Some(after) = &change.after else {
        return forget(tx, id, before);
    };
    let winner = after.tree.winner().expect("a record has a revision").rev;
    let had = before.map(|before| &before.winner);
    if let Some(before) =
        before.filter(|before| before.winner != winner && !change.drop.contains(&before.winner))
    {
        step_aside(tx, id, before)?;
    }
    for rev in change.drop.iter().filter(|rev| Some(*rev) != had) {
        delete_side(tx, id, rev)?;
    }
    for (rev, content) in change.put.iter().filter(|(rev, _)| *rev != winner) {
        put_side(tx, id, rev, content)?;
    }
    let put = change.put.iter().find(|(rev, _)| *rev == winner);
    match (before, put) {
        (None, Some((_, content))) => insert(tx, id, after, &winner, content),
        (Some(before), Some((_, content))) => replace(tx, id, before, after, &winner, content),
        (Some(before), None) if before.winner == winner => keep(tx, id, before, after),
        (Some(before), None) => promote(tx, id, before, after, &winner),
        (None, None) => unreachable!("a new document holds something"),
    }
}

fn forget(tx: &Connection, id: &DocId, before: Option<&Before>) -> Result<(), Error> {
    if let Some(before) = before {
        tx.prepare_cached("DELETE FROM doc WHERE seq = ?1")?
            .execute([number(before.seq.number())])?;
    }
    tx.prepare_cached("DELETE FROM leaf WHERE id = ?1")?
        .execute([id.as_str()])?;
    Ok(())
}

/// A document that was not there.
fn insert(tx: &Connection, id: &DocId, after: &Record, winner: &Rev, content: &Content) -> Result<(), Error> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO doc (seq, tree, deleted, checksum, attachments, body, id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let (attachments, body) = texts(content);
    insert.execute(params![
        number(after.seq.number()),
        tree(id, after),
        is_deleted(after),
        checksum(id, &winner.to_string(), attachments.as_deref(), body),
        attachments,
        body,
        id.as_str(),
    ])?;
    Ok(())
}

/// A winner that was not there.
fn replace(
    tx: &Connection,
    id: &DocId,
    before: &Before,
    after: &Record,
    winner: &Rev,
    content: &Content,
) -> Result<(), Error> {
    let mut update = tx.prepare_cached(
        "UPDATE doc SET seq = ?1, tree = ?2, deleted = ?3, checksum = ?4, attachments = ?5, body = ?6 WHERE seq = ?7",
    )?;
    let (attachments, body) = texts(content);
    update.execute(params![
        number(after.seq.number()),
        tree(id, after),
        is_deleted(after),
        checksum(id, &winner.to_string(), attachments.as_deref(), body),
        attachments,
        body,
        number(before.seq.number()),
    ])?;
    Ok(())
}

/// The same winner, another tree.
fn keep(tx: &Connection, id: &DocId, before: &Before, after: &Record) -> Result<(), Error> {
    let mut update = tx.prepare_cached("UPDATE doc SET seq = ?1, tree = ?2, deleted = ?3 WHERE seq = ?4")?;
    update.execute(params![
        number(after.seq.number()),
        tree(id, after),
        is_deleted(after),
        number(before.seq.number())
    ])?;
    Ok(())
}

/// A leaf that stood beside the winner and wins now.
fn promote(tx: &Connection, id: &DocId, before: &Before, after: &Record, winner: &Rev) -> Result<(), Error> {
    let mut update = tx.prepare_cached(
        "UPDATE doc SET (seq, tree, deleted, checksum, attachments, body) =
             (SELECT ?1, ?2, ?3, checksum, attachments, body FROM leaf WHERE id = ?4 AND rev = ?5)
         WHERE seq = ?6",
    )?;
    update.execute(params![
        number(after.seq.number()),
        tree(id, after),
        is_deleted(after),
        id.as_str(),
        winner.to_string(),
        number(before.seq.number()),
    ])?;
    delete_side(tx, id, winner)
}

/// The winner before, which stays a leaf: what it holds moves beside.
fn step_aside(tx: &Connection, id: &DocId, before: &Before) -> Result<(), Error> {
    let mut copy = tx.prepare_cached(
        "INSERT INTO leaf (id, rev, checksum, attachments, body)
         SELECT id, ?1, checksum, attachments, body FROM doc WHERE seq = ?2 AND id = ?3",
    )?;
    copy.execute(params![
        before.winner.to_string(),
        number(before.seq.number()),
        id.as_str()
    ])?;
    Ok(())
}

fn put_side(tx: &Connection, id: &DocId, rev: &Rev, content: &Content) -> Result<(), Error> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO leaf (id, rev, checksum, attachments, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let (rev, (attachments, body)) = (rev.to_string(), texts(content));
    let checksum = checksum(id, &rev, attachments.as_deref(), body);
    insert.execute(params![id.as_str(), rev, checksum, attachments, body])?;
    Ok(())
}

fn delete_side(tx: &Connection, id: &DocId, rev: &Rev) -> Result<(), Error> {
    let mut delete = tx.prepare_cached("DELETE FROM leaf WHERE id = ?1 AND rev = ?2")?;
    delete.execute([id.as_str(), rev.to_string().as_str()])?;
    Ok(())
}

fn write_local(tx: &Connection, id: &LocalId, local: Option<&LocalDoc>) -> Result<(), Error> {
    match local {
        Some(local) => {
            let mut write =
                tx.prepare_cached("INSERT OR REPLACE INTO local (id, edits, body) VALUES (?1, ?2, ?3)")?;
            write.execute(params![id.name(), number(local.edits), local.body.as_str()])?;
        }
        None => drop(
            tx.prepare_cached("DELETE FROM local WHERE id = ?1")?
                .execute([id.name()])?,
        ),
    }
    Ok(())
}

fn texts(content: &Content) -> (Option<String>, &str) {
    let attachments = (!content.attachments.is_empty())
        .then(|| serde_json::to_string(&content.attachments).expect("attachments are maps of plain values"));
    (attachments, content.body.as_str())
}

fn tree(id: &DocId, record: &Record) -> Vec<u8> {
    let tree = record.tree.encode();
    let mut bytes = Vec::with_capacity(tree.len() + 4);
    bytes.extend(tree_checksum(id, &tree));
    bytes.extend(tree);
    bytes
}

fn is_deleted(record: &Record) -> bool {
    record.tree.winner().is_some_and(|winner| winner.deleted)
}
