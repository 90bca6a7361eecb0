//! `/db/{db}`: a database itself.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::fault::Fault;
use super::query::Query;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::{DocId, Rev, StoreName};
use crate::node::{self, DatabaseOptions, DatabaseServer, Db, Kind, Scope};

/// CouchDB's number for the format of its files, which clients show.
const DISK_FORMAT_VERSION: u32 = 8;

/// PUT: a new database. `engine` and `store` choose what keeps it and where its attachments go; `server`, `secret` and `node_id`, for who
/// may have the node reach other servers (security row S17), where the engine `couchdb` does.
pub(in crate::api) async fn create(call: Call) -> Result<Response, Error> {
    let name = call.db_name()?;
    let query = Query::of(&call)?;
    let mut options = DatabaseOptions::default();
    if let Some(engine) = query.text("engine") {
        options.engine = engine.parse().map_err(node::Error::from)?;
    }
    if let Some(store) = query.text("store") {
        options.blobs = store.parse::<StoreName>()?;
    }
    if let Some(url) = query.text("server") {
        if !call.caller.may(Scope::Admin) {
            return Err(Error::Forbidden(Scope::Admin));
        }
        let named = |name: &'static str| query.wrong(name);
        options.server = Some(DatabaseServer {
            url: url.to_owned(),
            secret: query
                .text("secret")
                .map(str::parse)
                .transpose()
                .map_err(|_| named("secret"))?,
            node_id: query
                .text("node_id")
                .map(str::parse)
                .transpose()
                .map_err(|_| named("node_id"))?,
        });
    }
    match call.node().documents().create(name.clone(), options).await {
        Err(node::Error::Conflict {
            kind: Kind::Database, ..
        }) => return Err(Fault::Exists.into()),
        created => created?,
    };
    let mut response = answer::json(StatusCode::CREATED, &json!({"ok": true}));
    let location = format!("/db/{}", name.as_str().replace('/', "%2F"));
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// GET and HEAD.
pub(in crate::api) async fn info(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    Ok(answer::json(StatusCode::OK, &info_of(&db).await?))
}

/// What is told of a database.
pub(super) async fn info_of(db: &Db) -> Result<Value, Error> {
    let info = db.run(|database| database.info()).await?;
    Ok(json!({
        "db_name": info.name,
        "engine": info.engine.to_string(),
        "store": info.blobs,
        "doc_count": info.doc_count,
        "doc_del_count": info.deleted_count,
        "update_seq": db.seq_text(info.update_seq),
        "purge_seq": 0,
        "compact_running": false,
        "sizes": {"file": info.sizes.file_bytes, "active": info.sizes.active_bytes, "external": info.sizes.active_bytes},
        "disk_format_version": DISK_FORMAT_VERSION,
        "instance_start_time": start_time(db),
        "props": {},
        "cluster": {"q": 1, "n": 1, "w": 1, "r": 1},
    }))
}

/// What replicators tell a database from a later one of its name by, before they write down that it has everything: in CouchDB when it was
/// made, in microseconds in its first versions. Here as many digits of its uuid.
fn start_time(db: &Db) -> String {
    (u64::from_be_bytes(*db.uuid().as_bytes()) >> 11).to_string()
}

/// DELETE: the database with all its documents.
pub(in crate::api) async fn delete(call: Call) -> Result<Response, Error> {
    if Query::of(&call)?.text("rev").is_some() {
        let reason = "You tried to DELETE a database with a ?rev= parameter. Did you mean to DELETE a document instead?";
        return Err(Fault::Body(reason.to_owned()).into());
    }
    let name = call.db_name()?;
    match call.node().documents().delete(name).await {
        Err(node::Error::Missing {
            kind: Kind::Database, ..
        }) => Err(Fault::NoDatabase.into()),
        deleted => {
            deleted?;
            Ok(ok(StatusCode::OK))
        }
    }
}

fn ok(status: StatusCode) -> Response {
    answer::json(status, &json!({"ok": true}))
}

/// POST of `_ensure_full_commit`: everything that was answered is durable already.
pub(in crate::api) async fn ensure_full_commit(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body = json!({"ok": true, "instance_start_time": start_time(&db)});
    Ok(answer::json(StatusCode::CREATED, &body))
}

/// POST of `_compact`.
pub(in crate::api) async fn compact(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    db.run(|database| database.compact()).await?;
    Ok(ok(StatusCode::ACCEPTED))
}

/// POST of `_view_cleanup`: indexes that nobody defines any more are forgotten.
pub(in crate::api) async fn view_cleanup(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    db.run(|database| database.forget_indexes()).await?;
    Ok(ok(StatusCode::ACCEPTED))
}

/// GET of `_revs_limit`.
pub(in crate::api) async fn revs_limit(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let limit = db.run(|database| Ok(database.revs_limit())).await?;
    Ok(answer::json(StatusCode::OK, &limit))
}

/// PUT of `_revs_limit`.
pub(in crate::api) async fn set_revs_limit(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let limit: u32 = call.take_body().couch_json().await?;
    if limit == 0 {
        return Err(Fault::Body("`_revs_limit` is a number above 0".to_owned()).into());
    }
    db.run(move |database| database.set_revs_limit(limit)).await?;
    Ok(ok(StatusCode::OK))
}

/// GET of `_security`. Who may do what is said by accounts and tokens; this is kept for clients that look at it, and never
/// replicated.
pub(in crate::api) async fn security(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let security = db.run(|database| database.security()).await?;
    let nobody = r#"{"admins":{"names":[],"roles":["_admin"]},"members":{"names":[],"roles":[]}}"#;
    Ok(answer::text(
        StatusCode::OK,
        HeaderValue::from_static("application/json"),
        security.unwrap_or_else(|| nobody.to_owned()),
    ))
}

/// PUT of `_security`.
pub(in crate::api) async fn set_security(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: BTreeMap<String, Value> = call.take_body().couch_json().await?;
    let text = serde_json::to_vec(&body).expect("it came as JSON");
    let security = super::intake::body_of(text)?;
    db.run(move |database| database.set_security(&security)).await?;
    Ok(ok(StatusCode::OK))
}

/// POST of `_purge`: forgets leaves as if they had never been.
pub(in crate::api) async fn purge(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: BTreeMap<String, Vec<String>> = call.take_body().couch_json().await?;
    let mut asked = Vec::with_capacity(body.len());
    for (id, revs) in body {
        let id: DocId = id.parse().map_err(Fault::Id)?;
        let revs: Result<Vec<Rev>, _> = revs.iter().map(|rev| rev.parse::<Rev>()).collect();
        asked.push((id, revs.map_err(Fault::Rev)?));
    }
    let ids: Vec<DocId> = asked.iter().map(|(id, _)| id.clone()).collect();
    let purged = db.run(move |database| database.purge(asked)).await?;
    let purged: BTreeMap<DocId, Vec<Rev>> = ids.into_iter().zip(purged).collect();
    let body = json!({"purge_seq": null, "purged": purged});
    Ok(answer::json(StatusCode::CREATED, &body))
}

/// Views of design documents: what they say in JavaScript is kept and replicated, and never run here (security row S18).
pub(in crate::api) async fn view(call: Call) -> Result<Response, Error> {
    call.db().await?;
    Err(Fault::NotImplemented(
        "views in JavaScript are kept and replicated, but not run here: use _find with an index, or query a CouchDB that this replicates with",
    )
    .into())
}
