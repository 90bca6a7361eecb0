//! `refuge db … --node`: the same commands on a running node, by the requests that any client of CouchDB makes.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::Session;
use super::super::exit::{Exit, Failure};
use super::Command;
use super::databases::{self, Created, DatabaseLine, ServerArgs};
use super::docs::{self, ChangeLine, Row, Written};
use super::find;
use crate::http::{Client, Error, Method, Request, StatusCode};
use crate::id::{DbName, DocId, Rev, StoreName};
use crate::node::DOCUMENT_BYTES_MAX;

/// What a path segment or a value of a query keeps as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// Rows that are asked for at once.
const PAGE: usize = 256;

/// What the node adds to a document's own bytes, at most: ids, revisions, the stubs of its attachments.
const RENDERED_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 1024 * 1024;

/// What `GET /db/{db}` tells.
#[derive(Deserialize)]
struct Info {
    db_name: DbName,
    engine: String,
    store: StoreName,
    doc_count: u64,
    doc_del_count: u64,
    update_seq: String,
    sizes: Sizes,
}

#[derive(Deserialize)]
struct Sizes {
    file: u64,
    active: u64,
}

#[derive(Deserialize)]
struct Listed {
    rows: Vec<ListedRow>,
}

#[derive(Deserialize)]
struct ListedRow {
    id: DocId,
    value: ListedRev,
}

#[derive(Deserialize)]
struct ListedRev {
    rev: Rev,
}

#[derive(Deserialize)]
struct Changes {
    results: Vec<ChangeLine>,
}

/// Only what a deletion has to know of a document.
#[derive(Deserialize)]
struct Head {
    _rev: Rev,
}

/// A node with databases.
struct Over<'a> {
    client: &'a Client,
    session: &'a mut Session,
}

/// Does what a command says, on a node.
pub(super) fn run(client: &Client, command: Command, session: &mut Session) -> anyhow::Result<()> {
    let mut over = Over { client, session };
    match command {
        Command::Create {
            db,
            engine,
            revs_limit,
            server,
            place,
        } => over.create(db, &place.store, (&engine, revs_limit, &server)),
        Command::Ls { db: None, .. } => over.databases(),
        Command::Ls { db: Some(db), .. } => over.list(&db),
        Command::Info { db, .. } => {
            let line = over.info(&db)?;
            databases::print_line(&line, over.session)
        }
        Command::Get { db, id, rev, .. } => over.get(&db, &id, rev.as_ref()),
        Command::Put {
            db, id, file, rev, ..
        } => over.put(&db, &id, (&file, rev)),
        Command::Rm {
            db,
            id: Some(id),
            rev,
            ..
        } => over.remove(&db, &id, rev),
        Command::Rm { db, not_empty, .. } => over.remove_database(&db, not_empty),
        Command::Changes { db, since, limit, .. } => over.changes(&db, since, limit),
        Command::Find { db, looked, .. } => find::over(client, (&db, &path_of(&db)), &looked, over.session),
        Command::Copy { .. } => {
            let why = "refuge db copy works on a data folder (--data), while its node does not run; between nodes, replicate";
            Err(Failure::new(Exit::Usage, why).into())
        }
        Command::Compact { db, .. } => over.compact(&db),
    }
}

impl Over<'_> {
    fn create(
        &mut self,
        db: DbName,
        store: &StoreName,
        (engine, revs_limit, server): (&str, u32, &ServerArgs),
    ) -> anyhow::Result<()> {
        let mut path = format!("{}?engine={}&store={store}", path_of(&db), encoded(engine));
        let asked = [
            ("server", server.server.clone()),
            ("secret", server.server_secret.as_ref().map(ToString::to_string)),
            ("node_id", server.server_id.map(|id| id.to_string())),
        ];
        for (name, value) in asked {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(&value)));
            }
        }
        let made = self.client.send(Request::new(Method::PUT, path));
        made.map_err(|error| named(error, &db, None))?;
        let limit = Request::new(Method::PUT, format!("{}/_revs_limit", path_of(&db)));
        self.client.send(limit.json(&revs_limit))?;
        let info: Info = self.json(path_of(&db))?;
        // What tells it apart from another of its name stands behind each of its sequences.
        let uuid = info.update_seq.split_once('-').map(|(_, uuid)| uuid.to_owned());
        let created = Created {
            name: db,
            uuid: uuid.unwrap_or_default(),
        };
        databases::print_created(&created, &info.engine, self.session)
    }

    fn databases(&mut self) -> anyhow::Result<()> {
        let names: Vec<DbName> = self.json("/db/_all_dbs".to_owned())?;
        let mut lines = Vec::with_capacity(names.len());
        for name in names {
            lines.push(self.info(&name)?);
        }
        databases::print_lines(lines, self.session)
    }

    fn info(&self, db: &DbName) -> anyhow::Result<DatabaseLine> {
        let info: Info = self.json(path_of(db))?;
        Ok(DatabaseLine {
            name: info.db_name,
            engine: info.engine,
            store: info.store,
            docs: info.doc_count,
            deleted_docs: info.doc_del_count,
            update_seq: info.update_seq,
            file_bytes: info.sizes.file,
            active_bytes: info.sizes.active,
        })
    }

    fn list(&mut self, db: &DbName) -> anyhow::Result<()> {
        let mut start = String::new();
        loop {
            let path = format!("{}/_all_docs?limit={PAGE}{start}", path_of(db));
            let listed: Listed = self.json(path)?;
            for row in &listed.rows {
                let row = Row {
                    id: row.id.clone(),
                    rev: row.value.rev.clone(),
                };
                docs::print_row(&row, self.session)?;
            }
            match listed.rows.last() {
                Some(last) => {
                    start = format!("&skip=1&startkey={}", encoded(&serde_json::to_string(&last.id)?))
                }
                None => return Ok(()),
            }
        }
    }

    fn get(&mut self, db: &DbName, id: &DocId, rev: Option<&Rev>) -> anyhow::Result<()> {
        let answer = self.client.send(Request::new(Method::GET, doc_path(db, id, rev)));
        let answer = answer.map_err(|error| named(error, db, Some(id)))?;
        let text = answer.bytes(RENDERED_BYTES_MAX)?;
        self.session.output.raw(text.trim_ascii_end())?;
        Ok(self.session.output.raw(b"\n")?)
    }

    fn put(&mut self, db: &DbName, id: &DocId, (file, rev): (&Path, Option<Rev>)) -> anyhow::Result<()> {
        let text = docs::read(file)?;
        // What the node would refuse is refused in the words of a command.
        let parent = docs::checked(id, &text, rev)?;
        let request = Request::new(Method::PUT, doc_path(db, id, parent.as_ref()))
            .header("content-type", "application/json")
            .body(text.into_bytes().into());
        self.write(db, id, request)
    }

    fn remove(&mut self, db: &DbName, id: &DocId, rev: Option<Rev>) -> anyhow::Result<()> {
        let rev = match rev {
            Some(rev) => rev,
            None => {
                let answer = self
                    .client
                    .json(Request::new(Method::GET, doc_path(db, id, None)));
                let head: Head = answer.map_err(|error| named(error, db, Some(id)))?;
                head._rev
            }
        };
        self.write(db, id, Request::new(Method::DELETE, doc_path(db, id, Some(&rev))))
    }

    fn write(&mut self, db: &DbName, id: &DocId, request: Request) -> anyhow::Result<()> {
        let written: Result<Written, Error> = self.client.json(request);
        let written = written.map_err(|error| match status_of(&error) {
            Some(StatusCode::CONFLICT) => docs::conflict(id).into(),
            _ => named(error, db, None),
        })?;
        self.session.output.result(&written, || written.rev.to_string())?;
        Ok(())
    }

    fn remove_database(&mut self, db: &DbName, not_empty: bool) -> anyhow::Result<()> {
        databases::check_removal(&self.info(db)?, not_empty)?;
        self.client.send(Request::new(Method::DELETE, path_of(db)))?;
        Ok(())
    }

    fn changes(&mut self, db: &DbName, mut since: String, limit: Option<usize>) -> anyhow::Result<()> {
        let mut left = limit.unwrap_or(usize::MAX);
        while left > 0 {
            let path = format!(
                "{}/_changes?style=all_docs&limit={}&since={}",
                path_of(db),
                left.min(PAGE),
                encoded(&since)
            );
            let answer: Result<Changes, Error> = self.client.json(Request::new(Method::GET, path));
            let changes = answer.map_err(|error| named(error, db, None))?;
            let Some(last) = changes.results.last() else {
                return Ok(());
            };
            since = last.seq.clone();
            left -= changes.results.len().min(left);
            for line in &changes.results {
                docs::print_change(line, self.session)?;
            }
        }
        Ok(())
    }

    fn compact(&mut self, db: &DbName) -> anyhow::Result<()> {
        let request = Request::new(Method::POST, format!("{}/_compact", path_of(db)));
        let request = request.patience(crate::http::Patience::Long).json(&());
        self.client
            .send(request)
            .map_err(|error| named(error, db, None))?;
        let line = self.info(db)?;
        databases::print_size(&line, self.session)
    }

    fn json<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        self.client.json(Request::new(Method::GET, path))
    }
}

/// An error in the words of a command: what is missing is named, what was asked wrongly is told apart from what failed.
fn named(error: Error, db: &DbName, id: Option<&DocId>) -> anyhow::Error {
    let has_database = error
        .refusal()
        .is_some_and(|refusal| refusal.reason != "Database does not exist.");
    match (status_of(&error), id) {
        (Some(StatusCode::NOT_FOUND), Some(id)) if has_database => docs::missing(db, id).into(),
        (Some(StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE), _) => {
            Failure::new(Exit::Usage, error.to_string()).into()
        }
        // A stub; a database that exists is told by another word, and a failure.
        (Some(StatusCode::PRECONDITION_FAILED), _) if has_code(&error, "missing_stub") => {
            Failure::new(Exit::Usage, error.to_string()).into()
        }
        _ => error.into(),
    }
}

fn status_of(error: &Error) -> Option<StatusCode> {
    error.refusal().map(|refusal| refusal.status)
}

fn has_code(error: &Error, code: &str) -> bool {
    error.refusal().is_some_and(|refusal| refusal.code == code)
}

fn path_of(db: &DbName) -> String {
    format!("/db/{}", encoded(db.as_str()))
}

fn doc_path(db: &DbName, id: &DocId, rev: Option<&Rev>) -> String {
    let query = rev.map_or_else(String::new, |rev| format!("?rev={}", encoded(&rev.to_string())));
    // The slash of a design document stays one.
    let id = match id.as_str().strip_prefix("_design/") {
        Some(design) => format!("_design/{}", encoded(design)),
        None => encoded(id.as_str()),
    };
    format!("{}/{id}{query}", path_of(db))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}
