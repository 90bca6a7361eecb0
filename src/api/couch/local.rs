//! `/db/{db}/_local/{name}`: documents that stay in their database; replicators keep their checkpoints in them.

use std::ops::{Bound, ControlFlow};

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::draft::Draft;
use super::fault::Fault;
use super::intake::{self, Arrivals};
use super::pieces::Pieces;
use super::query::Query;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::LocalId;
use crate::node::{Db, LocalDoc};

/// Documents of one page of `_local_docs`.
const PAGE_MAX: usize = 10_000;

/// Lists of one request: all of them are held until they are sent.
const QUERIES_MAX: usize = 100;

/// GET.
pub(in crate::api) async fn get(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.local_id()?);
    let wanted = id.clone();
    let found = db.run(move |database| database.local_get(&wanted)).await?;
    let found = found.ok_or(Fault::Missing)?;
    let mut out = Pieces::default();
    write(&mut out, &id, &found);
    out.push("\n");
    Ok(out.answer(StatusCode::OK, "application/json", db.blobs()))
}

fn write(out: &mut Pieces, id: &LocalId, doc: &LocalDoc) {
    out.push("{\"_id\":");
    out.push_json_text(&id.to_string());
    out.push(&format!(",\"_rev\":\"0-{}\"", doc.edits));
    let members = doc.body.members();
    if !members.is_empty() {
        out.push(",");
        out.push(members);
    }
    out.push("}");
}

/// PUT.
pub(in crate::api) async fn put(mut call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.local_id()?);
    let body = call.take_body();
    let draft = intake::one(body, &mut Arrivals::new(db.blobs())).await?;
    save(&call, &db, &id.to_string(), draft).await
}

/// Saves a local document, also one that came to the database itself.
pub(super) async fn save(call: &Call, db: &Db, id: &str, draft: Draft) -> Result<Response, Error> {
    let id: LocalId = id.parse().map_err(Fault::Id)?;
    if !draft.attachments.is_empty() {
        return Err(Fault::Body("local documents have no attachments".to_owned()).into());
    }
    let query = Query::of(call)?;
    let edits = edits_of(query.text("rev").or(draft.rev.as_deref()))?;
    let body = intake::body_of(draft.body)?;
    let target = id.clone();
    let deleted = draft.deleted;
    let saved = db
        .run(move |database| match deleted {
            true => database.local_delete(&target, edits),
            false => database.local_put(&target, edits, body),
        })
        .await?;
    let edits = saved.map_err(|_| Fault::Conflict)?;
    let body = json!({"ok": true, "id": id, "rev": format!("0-{edits}")});
    Ok(answer::json(StatusCode::CREATED, &body))
}

/// DELETE.
pub(in crate::api) async fn delete(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.local_id()?);
    let query = Query::of(&call)?;
    let edits = edits_of(query.text("rev"))?;
    let target = id.clone();
    let (known, deleted) = db
        .run(move |database| {
            let known = database.local_get(&target)?.is_some();
            Ok((known, database.local_delete(&target, edits)?))
        })
        .await?;
    if !known {
        return Err(Fault::Missing.into());
    }
    deleted.map_err(|_| Fault::Conflict)?;
    Ok(answer::json(
        StatusCode::OK,
        &json!({"ok": true, "id": id, "rev": "0-0"}),
    ))
}

/// The `N` of `0-N`.
fn edits_of(rev: Option<&str>) -> Result<Option<u64>, Error> {
    let wrong = || Fault::Body("Invalid rev format".to_owned());
    let parsed = rev.map(|rev| {
        rev.strip_prefix("0-")
            .and_then(|edits| edits.parse().ok())
            .ok_or_else(wrong)
    });
    Ok(parsed.transpose()?)
}

/// What is asked of a list of local documents.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(alias = "start_key")]
    startkey: Option<String>,
    #[serde(alias = "end_key")]
    endkey: Option<String>,
    key: Option<String>,
    keys: Option<Vec<String>>,
    inclusive_end: Option<bool>,
    descending: bool,
    include_docs: bool,
    skip: usize,
    limit: Option<usize>,
}

/// What `_local_docs/queries` asks.
#[derive(Deserialize)]
struct QueriesBody {
    queries: Vec<Asked>,
}

impl Asked {
    /// What a query string says.
    fn of(query: &Query) -> Result<Asked, Error> {
        let number = |name| -> Result<Option<usize>, Error> {
            let number = query.number(name)?;
            Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
        };
        let json = |one, other| -> Result<Option<String>, Error> {
            match query.json(one)? {
                Some(text) => Ok(Some(text)),
                None => query.json(other),
            }
        };
        Ok(Asked {
            startkey: json("startkey", "start_key")?,
            endkey: json("endkey", "end_key")?,
            key: query.json("key")?,
            keys: query.json("keys")?,
            inclusive_end: match query.text("inclusive_end") {
                None => None,
                Some(_) => Some(query.flag("inclusive_end")?),
            },
            descending: query.flag("descending")?,
            include_docs: query.flag("include_docs")?,
            skip: number("skip")?.unwrap_or(0),
            limit: number("limit")?,
        })
    }

    /// Whether a document is among those that are asked for.
    fn has(&self, id: &str) -> bool {
        let (low, high) = match self.descending {
            false => (&self.startkey, &self.endkey),
            true => (&self.endkey, &self.startkey),
        };
        let is_last = self.endkey.as_deref() == Some(id);
        self.keys
            .as_ref()
            .is_none_or(|keys| keys.iter().any(|key| key == id))
            && self.key.as_ref().is_none_or(|key| key == id)
            && low.as_ref().is_none_or(|low| id >= low.as_str())
            && high.as_ref().is_none_or(|high| id <= high.as_str())
            && (self.inclusive_end.unwrap_or(true) || !is_last)
    }
}

/// `GET /db/{db}/_local_docs`, and POST of keys.
pub(in crate::api) async fn list(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let mut asked = Asked::of(&Query::of(&call)?)?;
    if call.parts.method == Method::POST {
        let body: Asked = call.take_body().couch_json().await?;
        asked.keys = body.keys.or(asked.keys);
    }
    let mut out = Pieces::default();
    write_list(&db, asked, &mut out).await?;
    out.push("\n");
    Ok(out.answer(StatusCode::OK, "application/json", db.blobs()))
}

/// `POST /db/{db}/_local_docs/queries`: several lists in one answer.
pub(in crate::api) async fn queries(mut call: Call) -> Result<Response, Error> {
    let body: QueriesBody = call.take_body().couch_json().await?;
    let db = call.db().await?;
    if body.queries.len() > QUERIES_MAX {
        return Err(Fault::Body(format!("at most {QUERIES_MAX} `queries` at once")).into());
    }
    let mut out = Pieces::default();
    out.push("{\"results\":[");
    for (index, asked) in body.queries.into_iter().enumerate() {
        out.push(if index > 0 { "," } else { "" });
        write_list(&db, asked, &mut out).await?;
    }
    out.push("]}\n");
    Ok(out.answer(StatusCode::OK, "application/json", db.blobs()))
}

async fn write_list(db: &Db, asked: Asked, out: &mut Pieces) -> Result<(), Error> {
    let include_docs = asked.include_docs;
    let found = db
        .run(move |database| {
            let mut found = Vec::new();
            let most = asked.limit.unwrap_or(usize::MAX).min(PAGE_MAX);
            let mut skip = asked.skip;
            if most == 0 {
                return Ok(found);
            }
            let all = (Bound::Unbounded, Bound::Unbounded);
            database.local_list(all, asked.descending, &mut |id, doc| {
                match asked.has(&id.to_string()) {
                    true if skip > 0 => skip -= 1,
                    true => found.push((id, doc)),
                    false => {}
                }
                match found.len() < most {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            Ok(found)
        })
        .await?;
    out.push("{\"total_rows\":null,\"offset\":null,\"rows\":[");
    for (index, (id, doc)) in found.iter().enumerate() {
        out.push(if index > 0 { ",\n" } else { "\n" });
        let text = super::pieces::json_text(&id.to_string());
        out.push(&format!(
            "{{\"id\":{text},\"key\":{text},\"value\":{{\"rev\":\"0-{}\"}}",
            doc.edits
        ));
        if include_docs {
            out.push(",\"doc\":");
            write(out, id, doc);
        }
        out.push("}");
    }
    out.push("\n]}");
    Ok(())
}
