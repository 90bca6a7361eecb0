//! `refuge db create`, `ls`, `rm`, `copy`, `compact`: whole databases.

use serde::Serialize;

use super::super::Session;
use super::super::exit::{Exit, Failure};
use super::super::output::bytes;
use super::{database, engine_kind};
use crate::id::{DbName, StoreName};
use crate::node::{DatabaseOptions, Db, Node, copy_documents};

/// A database in the list.
#[derive(Serialize)]
struct DatabaseLine {
    name: DbName,
    engine: String,
    store: StoreName,
    docs: u64,
    deleted_docs: u64,
    update_seq: String,
    file_bytes: u64,
    active_bytes: u64,
}

#[derive(Serialize)]
struct Created {
    name: DbName,
    uuid: String,
}

#[derive(Serialize)]
struct Copied {
    docs: u64,
}

/// Makes a database; prints what tells it apart from another of that name.
pub(super) fn create(
    node: &Node,
    name: DbName,
    store: &StoreName,
    (engine, revs_limit): (&str, u32),
    session: &mut Session,
) -> anyhow::Result<()> {
    let options = DatabaseOptions {
        engine: engine_kind(engine)?,
        blobs: store.clone(),
        revs_limit,
    };
    let db = session
        .runtime
        .block_on(node.documents().create(name.clone(), options))?;
    let uuid = session
        .runtime
        .block_on(db.run(|database| Ok(database.uuid())))?
        .to_string();
    let created = Created { name, uuid };
    session.output.result(&created, || created.uuid.clone())?;
    Ok(())
}

/// Lists databases. One that can't be opened ends the list with its reason.
pub(super) fn list(node: &Node, session: &mut Session) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for name in node.documents().list() {
        let line = line(&database(node, name, session)?, session)?;
        match session.output.is_json() {
            true => session.output.result(&line, String::new)?,
            false => lines.push(line),
        }
    }
    if session.output.is_json() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = lines
        .into_iter()
        .map(|line| {
            vec![
                line.name.to_string(),
                line.engine,
                line.store.to_string(),
                line.docs.to_string(),
                line.deleted_docs.to_string(),
                bytes(line.file_bytes),
            ]
        })
        .collect();
    let headings = ["DATABASE", "ENGINE", "STORE", "DOCS", "DELETED", "SIZE"];
    Ok(session.output.table(&headings, &rows)?)
}

/// Deletes a database; one with documents only where that was said.
pub(super) fn remove(
    node: &Node,
    name: DbName,
    not_empty: bool,
    session: &mut Session,
) -> anyhow::Result<()> {
    let docs = line(&database(node, name.clone(), session)?, session)?.docs;
    if docs > 0 && !not_empty {
        let why = format!("{name} has {docs} documents: say --not-empty to delete them with it");
        return Err(Failure::new(Exit::Usage, why).into());
    }
    Ok(session.runtime.block_on(node.documents().delete(name))?)
}

/// Copies a database into another; prints how many documents that were.
pub(super) fn copy(
    node: &Node,
    from: DbName,
    to: DbName,
    engine: &str,
    session: &mut Session,
) -> anyhow::Result<()> {
    let source = database(node, from, session)?;
    let options = DatabaseOptions {
        engine: engine_kind(engine)?,
        blobs: source.blobs().name().clone(),
        ..DatabaseOptions::default()
    };
    let is_there = node.documents().list().contains(&to);
    let target = match is_there {
        true => database(node, to, session)?,
        false => session.runtime.block_on(node.documents().create(to, options))?,
    };
    if target.blobs().name() != source.blobs().name() {
        let why = "the two keep their attachments in different stores: replicate instead";
        return Err(Failure::new(Exit::Usage, why).into());
    }
    let copied = target.run(|target| Ok(target.clone()));
    let target = session.runtime.block_on(copied)?;
    let copied = source.run(move |source| copy_documents(source, &target, &mut |_| {}));
    let copied = Copied {
        docs: session.runtime.block_on(copied)?,
    };
    session
        .output
        .result(&copied, || format!("{} documents", copied.docs))?;
    Ok(())
}

/// Gives back the space of what was deleted and replaced.
pub(super) fn compact(db: &Db, session: &mut Session) -> anyhow::Result<()> {
    session.runtime.block_on(db.run(|database| database.compact()))?;
    let line = line(db, session)?;
    let size = bytes(line.file_bytes);
    session.output.result(&line, || size)?;
    Ok(())
}

fn line(db: &Db, session: &Session) -> anyhow::Result<DatabaseLine> {
    let info = session.runtime.block_on(db.run(|database| database.info()))?;
    Ok(DatabaseLine {
        update_seq: db.seq_text(info.update_seq),
        name: info.name,
        engine: info.engine.to_string(),
        store: info.blobs,
        docs: info.doc_count,
        deleted_docs: info.deleted_count,
        file_bytes: info.sizes.file_bytes,
        active_bytes: info.sizes.active_bytes,
    })
}
