//! `refuge db get`, `put`, `rm`, `ls DB`, `changes`: documents of a data folder, as the JSON that CouchDB shows, and how they are
//! printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::super::Session;
use super::super::exit::{Exit, Failure};
use crate::id::{DbName, DocId, Rev, Seq};
use crate::node::{
    AttachmentEdit, Change, ChangesQuery, DOCUMENT_BYTES_MAX, Db, Doc, DocumentBody, Edit, ListQuery,
    Refused, split_document,
};

/// Rows that are taken from the database at once.
const PAGE: usize = 256;

/// A document in the list.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) id: DocId,
    pub(super) rev: Rev,
}

/// What a write answers.
#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) id: DocId,
    pub(super) rev: Rev,
}

/// A change, as a line of CouchDB's feed.
#[derive(Serialize, Deserialize)]
pub(super) struct ChangeLine {
    pub(super) seq: String,
    id: DocId,
    changes: Vec<ChangedRev>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
struct ChangedRev {
    rev: Rev,
}

/// What of a document's JSON is not its body.
#[derive(Default)]
struct Fields {
    rev: Option<Rev>,
    deleted: bool,
    attachments: BTreeMap<String, AttachmentEdit>,
}

/// Prints the winner, or one leaf.
pub(super) fn get(db: &Db, id: DocId, rev: Option<Rev>, session: &mut Session) -> anyhow::Result<()> {
    let wanted = id.clone();
    let doc = db.run(move |database| match &rev {
        Some(rev) => database.open_rev(&wanted, rev),
        None => Ok(database.open_doc(&wanted)?.filter(|doc| !doc.deleted)),
    });
    let doc = session
        .runtime
        .block_on(doc)?
        .ok_or_else(|| missing(db.name(), &id))?;
    let text = json_of(&doc)?;
    session.output.raw(text.as_bytes())?;
    Ok(session.output.raw(b"\n")?)
}

/// Writes a document; prints its revision.
pub(super) fn put(
    db: &Db,
    id: DocId,
    (file, rev): (&Path, Option<Rev>),
    session: &mut Session,
) -> anyhow::Result<()> {
    let text = read(file)?;
    let parts = split_document(&text).map_err(usage)?;
    let fields = fields(&id, &parts.fields)?;
    let edit = Edit::New {
        id,
        parent: parent(rev, &fields)?,
        deleted: fields.deleted,
        body: parts.body,
        attachments: fields.attachments,
    };
    write(db, edit, session)
}

/// Deletes the winner, or one leaf; prints the revision of the deletion.
pub(super) fn remove(db: &Db, id: DocId, rev: Option<Rev>, session: &mut Session) -> anyhow::Result<()> {
    let wanted = id.clone();
    let parent = match rev {
        Some(rev) => rev,
        None => {
            let doc = db.run(move |database| database.open_doc(&wanted));
            let doc = session.runtime.block_on(doc)?.filter(|doc| !doc.deleted);
            doc.ok_or_else(|| missing(db.name(), &id))?.rev().clone()
        }
    };
    let edit = Edit::New {
        id,
        parent: Some(parent),
        deleted: true,
        body: DocumentBody::default(),
        attachments: BTreeMap::new(),
    };
    write(db, edit, session)
}

/// Lists the documents that are not deleted.
pub(super) fn list(db: &Db, session: &mut Session) -> anyhow::Result<()> {
    let mut start = Bound::Unbounded;
    loop {
        let query = ListQuery {
            start: start.clone(),
            limit: PAGE,
            ..ListQuery::default()
        };
        let rows = db.run(move |database| {
            let mut rows = Vec::new();
            database.list(&query, &mut |row| {
                rows.push(Row {
                    id: row.id,
                    rev: row.rev,
                });
                ControlFlow::Continue(())
            })?;
            Ok(rows)
        });
        let rows = session.runtime.block_on(rows)?;
        for row in &rows {
            print_row(row, session)?;
        }
        match rows.into_iter().next_back() {
            Some(last) => start = Bound::Excluded(last.id),
            None => return Ok(()),
        }
    }
}

/// Prints what changed after a sequence.
pub(super) fn changes(
    db: &Db,
    since: &str,
    limit: Option<usize>,
    session: &mut Session,
) -> anyhow::Result<()> {
    let mut since = db.seq_from_text(since).map_err(usage)?;
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0 {
        let changes = page(db, since, left.min(PAGE), session)?;
        let Some(last) = changes.last() else {
            return Ok(());
        };
        since = last.seq;
        left -= changes.len();
        for change in changes {
            print_change(&line(db, change), session)?;
        }
    }
    Ok(())
}

/// Prints a document of a list.
pub(super) fn print_row(row: &Row, session: &mut Session) -> anyhow::Result<()> {
    session
        .output
        .result(row, || format!("{}  {}", row.id, row.rev))?;
    Ok(())
}

/// Prints a change.
pub(super) fn print_change(line: &ChangeLine, session: &mut Session) -> anyhow::Result<()> {
    session.output.result(line, || {
        let deleted = if line.deleted { "  deleted" } else { "" };
        let revs: Vec<String> = line.changes.iter().map(|change| change.rev.to_string()).collect();
        format!("{}  {}  {}{deleted}", line.seq, line.id, revs.join(" "))
    })?;
    Ok(())
}

fn page(db: &Db, since: Seq, limit: usize, session: &Session) -> anyhow::Result<Vec<Change>> {
    let query = ChangesQuery {
        since,
        limit,
        ..ChangesQuery::default()
    };
    let changes = db.run(move |database| {
        let mut changes = Vec::new();
        database.changes(&query, &mut |change| {
            changes.push(change);
            ControlFlow::Continue(())
        })?;
        Ok(changes)
    });
    Ok(session.runtime.block_on(changes)?)
}

fn line(db: &Db, change: Change) -> ChangeLine {
    ChangeLine {
        seq: db.seq_text(change.seq),
        deleted: change.is_deleted(),
        changes: change
            .leaves
            .into_iter()
            .map(|leaf| ChangedRev { rev: leaf.rev })
            .collect(),
        id: change.id,
    }
}

fn write(db: &Db, edit: Edit, session: &mut Session) -> anyhow::Result<()> {
    let id = edit.id().clone();
    let saved = session.runtime.block_on(db.save_doc(edit))?;
    let rev = saved.map_err(|refused| match refused {
        Refused::Conflict => conflict(&id),
        Refused::MissingStub { .. }
        | Refused::History { .. }
        | Refused::Generations { .. }
        | Refused::Attachments { .. } => Failure::new(Exit::Usage, refused.to_string()),
    })?;
    let written = Written { id, rev };
    session.output.result(&written, || written.rev.to_string())?;
    Ok(())
}

/// Checks a document's text; the revision that it follows.
pub(super) fn checked(id: &DocId, text: &str, rev: Option<Rev>) -> anyhow::Result<Option<Rev>> {
    let parts = split_document(text).map_err(usage)?;
    parent(rev, &fields(id, &parts.fields)?)
}

fn parent(rev: Option<Rev>, fields: &Fields) -> anyhow::Result<Option<Rev>> {
    if let (Some(rev), Some(own)) = (&rev, &fields.rev)
        && rev != own
    {
        return Err(usage(format!("--rev is {rev}, the document's _rev {own}")).into());
    }
    Ok(rev.or_else(|| fields.rev.clone()))
}

/// Reads a document's text, and no more than one may have.
pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let most = DOCUMENT_BYTES_MAX as u64 + 1;
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().take(most).read_to_string(&mut text),
        _ => File::open(file)
            .with_context(|| file.display().to_string())?
            .take(most)
            .read_to_string(&mut text),
    };
    read.with_context(|| file.display().to_string())?;
    Ok(text)
}

fn fields(id: &DocId, given: &[(std::borrow::Cow<'_, str>, &str)]) -> anyhow::Result<Fields> {
    let mut fields = Fields::default();
    for (name, value) in given {
        match name.as_ref() {
            "_id" => {
                let own: String = serde_json::from_str(value).map_err(usage)?;
                if own != id.as_str() {
                    return Err(usage(format!("the document's _id is {own:?}, not {id}")).into());
                }
            }
            "_rev" => fields.rev = Some(serde_json::from_str(value).map_err(usage)?),
            "_deleted" => fields.deleted = serde_json::from_str(value).map_err(usage)?,
            "_attachments" => fields.attachments = stubs(value)?,
            other => return Err(usage(format!("bad special document member: {other}")).into()),
        }
    }
    Ok(fields)
}

/// What a document that was read before has hanging on it; new attachments go over HTTP.
fn stubs(value: &str) -> anyhow::Result<BTreeMap<String, AttachmentEdit>> {
    #[derive(serde::Deserialize)]
    struct Stub {
        #[serde(default)]
        stub: bool,
    }
    let named: BTreeMap<String, Stub> = serde_json::from_str(value).map_err(usage)?;
    if let Some((name, _)) = named.iter().find(|(_, stub)| !stub.stub) {
        return Err(usage(format!(
            "the attachment {name:?} is no stub: put it over HTTP, below /db"
        ))
        .into());
    }
    Ok(named
        .into_keys()
        .map(|name| (name, AttachmentEdit::Stub))
        .collect())
}

/// A document as CouchDB shows it: its own members, then the body as it came.
fn json_of(doc: &Doc) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Stub<'a> {
        content_type: &'a str,
        revpos: u32,
        digest: String,
        length: u64,
        stub: bool,
    }
    let mut text = format!(
        "{{\"_id\":{},\"_rev\":\"{}\"",
        serde_json::to_string(&doc.id)?,
        doc.rev()
    );
    if doc.deleted {
        text.push_str(",\"_deleted\":true");
    }
    if !doc.body.members().is_empty() {
        text.push(',');
        text.push_str(doc.body.members());
    }
    if !doc.attachments.is_empty() {
        let stubs: BTreeMap<&str, Stub<'_>> = doc
            .attachments
            .iter()
            .map(|(name, attachment)| {
                let stub = Stub {
                    content_type: &attachment.content_type,
                    revpos: attachment.revpos,
                    digest: format!("md5-{}", data_encoding::BASE64.encode(&attachment.digest)),
                    length: attachment.length,
                    stub: true,
                };
                (name.as_str(), stub)
            })
            .collect();
        text.push_str(",\"_attachments\":");
        text.push_str(&serde_json::to_string(&stubs)?);
    }
    text.push('}');
    Ok(text)
}

/// A document that is not there.
pub(super) fn missing(db: &DbName, id: &DocId) -> Failure {
    Failure::new(Exit::Missing, format!("{db} has no document {id}"))
}

/// A write on top of a revision that was followed meanwhile.
pub(super) fn conflict(id: &DocId) -> Failure {
    let why = format!("{id} is at another revision: read it again, or name the one to follow with --rev");
    Failure::new(Exit::Failed, why)
}

fn usage(why: impl ToString) -> Failure {
    Failure::new(Exit::Usage, why.to_string())
}
