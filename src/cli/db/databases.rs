//! `refuge db create`, `ls`, `info`, `rm`, `copy`, `compact`: whole databases of a data folder, and how databases are printed.

use serde::Serialize;

use super::super::Session;
use super::super::exit::{Exit, Failure};
use super::super::output::{bytes, note};
use super::{database, engine_kind};
use crate::id::{DbName, NodeId, SecretName, StoreName};
use crate::node::{DatabaseOptions, DatabaseServer, Db, EngineKind, Node, copy_documents};

/// Where the engine `couchdb` keeps its rows.
#[derive(clap::Args)]
pub(super) struct ServerArgs {
    /// Where the engine couchdb keeps its rows: a database on a server that speaks CouchDB's API, which is not there or empty
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// What opens that server: a secret of the place (`refuge db secret`)
    #[arg(long, value_name = "NAME", requires = "server")]
    pub(super) server_secret: Option<SecretName>,
    /// The node that the server must prove to be
    #[arg(long, value_name = "ID", requires = "server")]
    pub(super) server_id: Option<NodeId>,
}

impl ServerArgs {
    fn place(&self) -> Option<DatabaseServer> {
        Some(DatabaseServer {
            url: self.server.clone()?,
            secret: self.server_secret.clone(),
            node_id: self.server_id,
        })
    }
}

/// A database in the list.
#[derive(Serialize)]
pub(super) struct DatabaseLine {
    pub(super) name: DbName,
    pub(super) engine: String,
    pub(super) store: StoreName,
    pub(super) docs: u64,
    pub(super) deleted_docs: u64,
    pub(super) update_seq: String,
    pub(super) file_bytes: u64,
    pub(super) active_bytes: u64,
}

/// A database that was made, with what tells it apart from another of that name.
#[derive(Serialize)]
pub(super) struct Created {
    pub(super) name: DbName,
    pub(super) uuid: String,
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
    (engine, revs_limit, server): (&str, u32, &ServerArgs),
    session: &mut Session,
) -> anyhow::Result<()> {
    let options = DatabaseOptions {
        engine: engine_kind(engine)?,
        blobs: store.clone(),
        revs_limit,
        server: server.place(),
    };
    let db = session
        .runtime
        .block_on(node.documents().create(name.clone(), options))?;
    let uuid = session
        .runtime
        .block_on(db.run(|database| Ok(database.uuid())))?
        .to_string();
    print_created(&Created { name, uuid }, engine, session)
}

/// Lists databases. One that can't be opened ends the list with its reason.
pub(super) fn list(node: &Node, session: &mut Session) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for name in node.documents().list() {
        lines.push(line(&database(node, name, session)?, session)?);
    }
    print_lines(lines, session)
}

/// Says how one database is.
pub(super) fn info(db: &Db, session: &mut Session) -> anyhow::Result<()> {
    let line = line(db, session)?;
    print_line(&line, session)
}

/// Deletes a database; one with documents only where that was said.
pub(super) fn remove(
    node: &Node,
    name: DbName,
    not_empty: bool,
    session: &mut Session,
) -> anyhow::Result<()> {
    check_removal(
        &line(&database(node, name.clone(), session)?, session)?,
        not_empty,
    )?;
    Ok(session.runtime.block_on(node.documents().delete(name))?)
}

/// Copies a database into another; prints how many documents that were.
pub(super) fn copy(
    node: &Node,
    from: DbName,
    to: DbName,
    (engine, server): (&str, &ServerArgs),
    session: &mut Session,
) -> anyhow::Result<()> {
    let source = database(node, from, session)?;
    let options = DatabaseOptions {
        engine: engine_kind(engine)?,
        blobs: source.blobs().name().clone(),
        server: server.place(),
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
    print_size(&line, session)
}

/// Refuses to remove a database that is in use, unless that was said.
pub(super) fn check_removal(line: &DatabaseLine, not_empty: bool) -> anyhow::Result<()> {
    let DatabaseLine { name, docs, .. } = line;
    if *docs > 0 && !not_empty {
        let why = format!("{name} has {docs} documents: say --not-empty to delete them with it");
        return Err(Failure::new(Exit::Usage, why).into());
    }
    Ok(())
}

/// Prints what was made, and what the owner should know of its engine.
pub(super) fn print_created(created: &Created, engine: &str, session: &mut Session) -> anyhow::Result<()> {
    session.output.result(created, || created.uuid.clone())?;
    match engine.parse() {
        Ok(EngineKind::Memory) => note("It is in memory alone: gone when its node stops"),
        Ok(EngineKind::Lsm) => {
            note("Its journal takes up to 64 MiB of the disk; a compaction needs room for a copy")
        }
        Ok(EngineKind::Leveldb) => note(
            "Other LevelDB programs can read its files while its node does not run; a compaction needs room for a copy",
        ),
        Ok(EngineKind::Couchdb) => note(
            "Its rows are on the server, and read by this node alone: replicate for documents that others read there",
        ),
        Ok(EngineKind::Sqlite) | Err(_) => {}
    }
    Ok(())
}

/// Prints databases, as lines for machines and as a table for people.
pub(super) fn print_lines(lines: Vec<DatabaseLine>, session: &mut Session) -> anyhow::Result<()> {
    if session.output.is_json() {
        for line in &lines {
            session.output.result(line, String::new)?;
        }
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

/// Prints one database, a fact a line.
pub(super) fn print_line(line: &DatabaseLine, session: &mut Session) -> anyhow::Result<()> {
    session.output.result(line, || {
        let facts = [
            ("engine", line.engine.clone()),
            ("store", line.store.to_string()),
            ("documents", line.docs.to_string()),
            ("deleted", line.deleted_docs.to_string()),
            ("sequence", line.update_seq.clone()),
            ("size", bytes(line.file_bytes)),
            ("in use", bytes(line.active_bytes)),
        ];
        let facts = facts.map(|(name, fact)| format!("{name:<10}{fact}"));
        facts.join("\n")
    })?;
    Ok(())
}

/// Prints how large a database is now.
pub(super) fn print_size(line: &DatabaseLine, session: &mut Session) -> anyhow::Result<()> {
    session.output.result(line, || bytes(line.file_bytes))?;
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
