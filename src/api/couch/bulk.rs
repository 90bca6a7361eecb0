//! Many documents in one request: what replicators live on.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::document::{self, Found, Opened, Revs};
use super::fault::Fault;
use super::intake::{self, Arrivals, Edits};
use super::pieces::{Paged, Pages, Pieces, json_text};
use super::query::Query;
use super::render::{self, Rendered, Shown};
use super::server::new_id;
use super::written;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::{DocId, Rev};
use crate::node::{Db, Edit};

/// Documents that one `_bulk_docs` may hold.
const BATCH_DOCS_MAX: usize = 10_000;

/// What became of one document of a batch.
#[derive(Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<Rev>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Outcome {
    fn failed(id: String, fault: &Fault) -> Outcome {
        let (_, error) = fault.outcome();
        Outcome {
            ok: None,
            id,
            rev: None,
            error: Some(error),
            reason: Some(fault.to_string()),
        }
    }
}

/// `POST /db/{db}/_bulk_docs`: one durable group, each document for itself.
pub(in crate::api) async fn bulk_docs(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let mut arrivals = Arrivals::new(db.blobs());
    let (drafts, edits) = intake::batch(call.take_body(), &mut arrivals).await?;
    if drafts.len() > BATCH_DOCS_MAX {
        return Err(Fault::Body(format!("one request holds at most {BATCH_DOCS_MAX} documents")).into());
    }
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(drafts.len());
    let mut writes: Vec<Edit> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let text = match &draft.id {
            Some(id) => id.clone(),
            None => new_id()?,
        };
        let id = text.parse::<DocId>().map_err(Fault::Id);
        // Also where the id is none: what arrived with a document is taken with it.
        let unused = "unused".parse::<DocId>().map_err(Fault::Id)?;
        let known = id.clone().unwrap_or(unused);
        let write = intake::edit(draft, known, None, edits, &mut arrivals, &mut Vec::new());
        match id.and(write) {
            Ok(write) => {
                outcomes.push(None);
                writes.push(write);
            }
            Err(fault) => outcomes.push(Some(Outcome::failed(text, &fault))),
        }
    }
    let writes = document::put_away(&call, &db, writes).await?;
    let ids: Vec<DocId> = writes.iter().map(|edit| edit.id().clone()).collect();
    let saved = db.save_docs(writes).await?;
    let mut saved = ids.into_iter().zip(saved);
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
        *outcome = saved.next().map(|(id, saved)| match saved {
            Ok(rev) => Outcome {
                ok: Some(true),
                id: id.to_string(),
                rev: Some(rev),
                error: None,
                reason: None,
            },
            Err(refused) => Outcome::failed(id.to_string(), &written::fault(refused)),
        });
    }
    let told = outcomes.into_iter().flatten();
    let told: Vec<Outcome> = match edits {
        Edits::New => told.collect(),
        // Replicators want to hear of failures alone.
        Edits::Replicated => told.filter(|outcome| outcome.error.is_some()).collect(),
    };
    Ok(answer::json(StatusCode::CREATED, &told))
}

/// Revisions by document.
type RevsBody = BTreeMap<String, Vec<String>>;

/// Revisions of a document that were asked about: where the id or one of them is none, nothing of it is here.
fn parsed(body: RevsBody) -> Result<Vec<(DocId, Vec<Rev>)>, Error> {
    let mut wanted = Vec::with_capacity(body.len());
    for (id, revs) in body {
        let id: DocId = id.parse().map_err(Fault::Id)?;
        let revs: Result<Vec<Rev>, _> = revs.iter().map(|rev| rev.parse::<Rev>()).collect();
        wanted.push((id, revs.map_err(Fault::Rev)?));
    }
    Ok(wanted)
}

#[derive(Serialize)]
struct Difference {
    missing: Vec<Rev>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    possible_ancestors: Vec<Rev>,
}

/// `POST /db/{db}/_revs_diff`.
pub(in crate::api) async fn revs_diff(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let wanted = parsed(call.take_body().couch_json().await?)?;
    let missing = db.run(move |database| database.revs_diff(&wanted)).await?;
    let body: BTreeMap<DocId, Difference> = missing
        .into_iter()
        .map(|missing| {
            let difference = Difference {
                missing: missing.revs,
                possible_ancestors: missing.possible_ancestors,
            };
            (missing.id, difference)
        })
        .collect();
    Ok(answer::json(StatusCode::OK, &body))
}

/// `POST /db/{db}/_missing_revs`.
pub(in crate::api) async fn missing_revs(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let wanted = parsed(call.take_body().couch_json().await?)?;
    let missing = db.run(move |database| database.revs_diff(&wanted)).await?;
    let body: BTreeMap<DocId, Vec<Rev>> = missing
        .into_iter()
        .map(|missing| (missing.id, missing.revs))
        .collect();
    Ok(answer::json(StatusCode::OK, &json!({"missing_revs": body})))
}

#[derive(Deserialize)]
struct BulkGetBody {
    docs: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    id: String,
    rev: Option<String>,
    atts_since: Option<Vec<Rev>>,
}

/// `POST /db/{db}/_bulk_get`: as many results as were asked for, in that order.
pub(in crate::api) async fn bulk_get(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let query = Query::of(&call)?;
    let (shown, latest) = (document::shown(&query)?, query.flag("latest")?);
    let body: BulkGetBody = call.take_body().couch_json().await?;
    let results = Results {
        db: db.clone(),
        shown,
        latest,
        asked: body.docs.into_iter(),
        state: State::Begin,
    };
    let mut response = Response::new(answer::stream(Paged::new(results, db.blobs().clone()), None));
    super::set_json(&mut response);
    Ok(response)
}

struct Results {
    db: Db,
    shown: Shown,
    latest: bool,
    asked: std::vec::IntoIter<Asked>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    Middle,
    Ended,
}

impl Pages for Results {
    async fn page(&mut self) -> Result<Option<Pieces>, Error> {
        let mut out = Pieces::default();
        match self.state {
            State::Begin => out.push("{\"results\":["),
            State::Middle => out.push(",\n"),
            State::Ended => return Ok(None),
        }
        if let Some(asked) = self.asked.next() {
            self.result(&mut out, asked).await?;
            self.state = State::Middle;
            if self.asked.len() > 0 {
                return Ok(Some(out));
            }
        }
        self.state = State::Ended;
        out.push("]}\n");
        Ok(Some(out))
    }
}

impl Results {
    async fn result(&self, out: &mut Pieces, asked: Asked) -> Result<(), Error> {
        out.push(&format!("{{\"id\":{},\"docs\":[", json_text(&asked.id)));
        let opened = self.open(&asked).await;
        let failed = |fault: &Fault, rev: Option<&str>| {
            let (_, error) = fault.outcome();
            let body =
                json!({"error": {"id": asked.id, "rev": rev, "error": error, "reason": fault.to_string()}});
            body.to_string()
        };
        match opened? {
            Err(fault) => out.push(&failed(&fault, asked.rev.as_deref().or(Some("undefined")))),
            Ok(opened) => {
                for (index, found) in opened.found.iter().enumerate() {
                    if index > 0 {
                        out.push(",");
                    }
                    match found {
                        Found::Missing(rev) => out.push(&failed(&Fault::Missing, Some(&rev.to_string()))),
                        Found::Doc(doc) => {
                            out.push("{\"ok\":");
                            let has = asked.atts_since.as_deref();
                            let rendered = Rendered {
                                doc,
                                tree: opened.tree.as_ref(),
                                shown: &self.shown,
                                has,
                                seq: "",
                            };
                            render::document(out, rendered);
                            out.push("}");
                        }
                    }
                }
            }
        }
        out.push("]}");
        Ok(())
    }

    async fn open(&self, asked: &Asked) -> Result<Result<Opened, Fault>, Error> {
        let id: DocId = match asked.id.parse() {
            Ok(id) => id,
            Err(error) => return Ok(Err(Fault::Id(error))),
        };
        let revs = match asked.rev.as_deref().map(str::parse::<Rev>) {
            None => Revs::All,
            Some(Ok(rev)) => Revs::These(vec![rev]),
            Some(Err(error)) => return Ok(Err(Fault::Rev(error))),
        };
        let opened = document::open(&self.db, id, revs, self.latest, self.shown.needs_tree()).await?;
        Ok(opened.ok_or(Fault::Missing))
    }
}
