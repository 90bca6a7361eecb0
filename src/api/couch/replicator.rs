//! Replications, as CouchDB's API asks for them and shows them: `_replicate`, `_scheduler`, `_active_tasks`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::SystemTime;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::fault::Fault;
use super::query::Query;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::stamp;
use crate::node::{
    self, Job, JobState, ListQuery, Node, Replicated, ReplicationFailure, ReplicationOrder,
    ReplicationRequest,
};

/// The version of how ids are made, as CouchDB counts it.
const ID_VERSION: u32 = 4;

/// Entries of a list where no limit is said: CouchDB's 25.
const LIST_LIMIT: u64 = 25;

/// Documents of `_replicator` that are listed at most.
const DOCS_MAX: usize = 10_000;

impl From<ReplicationFailure> for Error {
    fn from(failure: ReplicationFailure) -> Error {
        Fault::Replication(failure).into()
    }
}

/// `POST /db/_replicate`: answers once it is done; at once where it is to go on.
pub(in crate::api) async fn replicate(mut call: Call) -> Result<Response, Error> {
    let body: Value = call.take_body().couch_json().await?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let order = match body.get("cancel").and_then(Value::as_bool) {
        Some(true) => match text("replication_id").or_else(|| text("_local_id")) {
            Some(id) => ReplicationOrder::Cancel(id),
            None => ReplicationOrder::CancelLike(Box::new(request_of(&body)?)),
        },
        Some(false) | None => ReplicationOrder::Start(Box::new(request_of(&body)?)),
    };
    let (status, answer) = match call.node().replications().ask(order).await? {
        Replicated::Started(id) => (StatusCode::ACCEPTED, json!({"ok": true, "_local_id": id})),
        Replicated::Cancelled(id) => (StatusCode::OK, json!({"ok": true, "_local_id": id})),
        Replicated::Done(done) => {
            let mut answer = json!({
                "ok": true,
                "session_id": done.session_id,
                "source_last_seq": done.source_last_seq,
                "replication_id_version": ID_VERSION,
                "history": done.history,
            });
            if done.no_changes {
                answer["no_changes"] = json!(true);
            }
            (StatusCode::OK, answer)
        }
    };
    Ok(answer::json(status, &answer))
}

fn request_of(body: &Value) -> Result<ReplicationRequest, Error> {
    let request = ReplicationRequest::parse(body).map_err(ReplicationFailure::Invalid)?;
    Ok(request)
}

/// `GET /db/_scheduler/jobs`: what goes on or waits.
pub(in crate::api) async fn jobs(call: Call) -> Result<Response, Error> {
    let query = Query::of(&call)?;
    let jobs = call.node().replications().jobs();
    let shown = jobs.iter().filter(|job| goes_on(job)).map(shown_job);
    list(&query, "jobs", shown.collect())
}

/// `GET /db/_scheduler/jobs/{id}`.
pub(in crate::api) async fn job(call: Call) -> Result<Response, Error> {
    match call.node().replications().job(call.param("id")) {
        Ok(job) if goes_on(&job) => Ok(answer::json(StatusCode::OK, &shown_job(&job))),
        Ok(_) | Err(node::Error::Missing { .. }) => Err(Fault::Missing.into()),
        Err(error) => Err(error.into()),
    }
}

/// `GET /db/_scheduler/docs`: what became of each document of `_replicator`.
pub(in crate::api) async fn docs(call: Call) -> Result<Response, Error> {
    let query = Query::of(&call)?;
    let db = match call.node().documents().get(Node::replicator_db()).await {
        Ok(db) => db,
        Err(node::Error::Missing { .. }) => return list(&query, "docs", Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let found = db
        .run(|database| {
            let mut found = Vec::new();
            let all = ListQuery {
                docs: true,
                limit: DOCS_MAX,
                ..ListQuery::default()
            };
            database.list(&all, &mut |listed| {
                found.extend(listed.doc.filter(|doc| !doc.id.is_design()));
                ControlFlow::Continue(())
            })?;
            Ok(found)
        })
        .await?;
    let jobs = call.node().replications().jobs();
    let jobs: BTreeMap<&str, &Job> = jobs
        .iter()
        .filter_map(|job| Some((job.doc_id.as_deref()?, job)))
        .collect();
    let docs = found.iter().map(|doc| {
        let body: Value = serde_json::from_str(doc.body.as_str()).unwrap_or_default();
        match jobs.get(doc.id.as_str()) {
            Some(job) => shown_doc(doc.id.as_str(), job, &body),
            None => over_doc(doc.id.as_str(), &body),
        }
    });
    list(&query, "docs", docs.collect())
}

/// `GET /db/_active_tasks`: replications that go on.
pub(in crate::api) async fn active_tasks(call: Call) -> Result<Response, Error> {
    let jobs = call.node().replications().jobs();
    let running = jobs.iter().filter(|job| job.state == JobState::Running);
    let tasks: Vec<Value> = running
        .map(|job| {
            let mut task = info(job);
            for (name, value) in [
                ("type", json!("replication")),
                ("replication_id", json!(job.id)),
                ("doc_id", json!(job.doc_id)),
                ("source", json!(job.source)),
                ("target", json!(job.target)),
                ("continuous", json!(job.continuous)),
                ("started_on", json!(seconds(job.started))),
                ("updated_on", json!(seconds(job.updated))),
            ] {
                task[name] = value;
            }
            task
        })
        .collect();
    Ok(answer::json(StatusCode::OK, &tasks))
}

fn goes_on(job: &Job) -> bool {
    match job.state {
        JobState::Pending | JobState::Running | JobState::Crashing => true,
        JobState::Completed | JobState::Failed => false,
    }
}

fn list(query: &Query, name: &str, rows: Vec<Value>) -> Result<Response, Error> {
    let number = |name, default| -> Result<usize, Error> {
        Ok(usize::try_from(query.number(name)?.unwrap_or(default)).unwrap_or(usize::MAX))
    };
    let (skip, limit) = (number("skip", 0)?, number("limit", LIST_LIMIT)?);
    let total = rows.len();
    let rows: Vec<Value> = rows.into_iter().skip(skip).take(limit).collect();
    Ok(answer::json(
        StatusCode::OK,
        &json!({"total_rows": total, "offset": skip, name: rows}),
    ))
}

fn shown_job(job: &Job) -> Value {
    let history: Vec<Value> = job
        .events
        .iter()
        .map(|event| {
            let mut shown = json!({"timestamp": stamp::rfc3339(event.at), "type": event.what});
            if let Some(reason) = &event.reason {
                shown["reason"] = json!(reason);
            }
            shown
        })
        .collect();
    json!({
        "database": job.doc_id.as_ref().map(|_| Node::replicator_db()),
        "doc_id": job.doc_id,
        "history": history,
        "id": job.id,
        "info": info(job),
        "node": "refuge",
        "pid": null,
        "source": job.source,
        "start_time": stamp::rfc3339(job.started),
        "target": job.target,
        "user": null,
    })
}

fn shown_doc(id: &str, job: &Job, body: &Value) -> Value {
    let mut shown = over_doc(id, body);
    for (name, value) in [
        ("id", json!(job.id)),
        ("state", json!(job.state.name())),
        ("error_count", json!(job.errors)),
        ("info", info(job)),
        ("source", json!(job.source)),
        ("target", json!(job.target)),
        ("start_time", json!(stamp::rfc3339(job.started))),
        ("last_updated", json!(stamp::rfc3339(job.updated))),
    ] {
        shown[name] = value;
    }
    shown
}

/// A document as it says by itself what became of it.
fn over_doc(id: &str, body: &Value) -> Value {
    let place = |side: &str| {
        let place = body.get(side);
        place.and_then(|place| place.get("url").or(Some(place))).cloned()
    };
    let state = body.get("_replication_state").cloned();
    let info = match body.get("_replication_state_reason") {
        Some(reason) => json!({"error": reason}),
        None => body.get("_replication_stats").cloned().unwrap_or_default(),
    };
    json!({
        "database": Node::replicator_db(),
        "doc_id": id,
        "error_count": 0,
        "id": body.get("_replication_id"),
        "info": info,
        "last_updated": body.get("_replication_state_time"),
        "node": "refuge",
        "source": place("source"),
        "start_time": body.get("_replication_state_time"),
        "state": state.unwrap_or(json!("initializing")),
        "target": place("target"),
    })
}

fn info(job: &Job) -> Value {
    let mut info = json!({
        "changes_pending": job.pending,
        "checkpointed_source_seq": job.through,
        "doc_write_failures": job.stats.doc_write_failures,
        "docs_read": job.stats.docs_read,
        "docs_written": job.stats.docs_written,
        "missing_revisions_found": job.stats.missing_found,
        "revisions_checked": job.stats.missing_checked,
        "source_seq": job.through,
        "through_seq": job.through,
    });
    if let Some(error) = &job.last_error {
        info["error"] = json!(error);
    }
    info
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
