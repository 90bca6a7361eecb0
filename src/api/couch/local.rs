//! `/db/{db}/_local/{name}`: documents that stay in their database; replicators keep their checkpoints in them.

use axum::http::{Method, StatusCode};
use axum::response::Response;
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

/// `GET /db/{db}/_local_docs`, and POST of keys.
pub(in crate::api) async fn list(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let query = Query::of(&call)?;
    let include_docs = query.flag("include_docs")?;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let keys: Option<Vec<String>> = match call.parts.method == Method::POST {
        true => call.take_body().couch_json::<super::list::KeysBody>().await?.keys,
        false => query.json("keys")?,
    };
    let found = db
        .run(move |database| {
            let mut found = Vec::new();
            let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
            database.local_list(all, false, &mut |id, doc| {
                found.push((id, doc));
                match found.len() < limit.min(PAGE_MAX) {
                    true => std::ops::ControlFlow::Continue(()),
                    false => std::ops::ControlFlow::Break(()),
                }
            })?;
            Ok(found)
        })
        .await?;
    let mut out = Pieces::default();
    out.push("{\"total_rows\":null,\"offset\":null,\"rows\":[");
    let wanted = |id: &LocalId| keys.as_ref().is_none_or(|keys| keys.contains(&id.to_string()));
    for (index, (id, doc)) in found.iter().filter(|(id, _)| wanted(id)).take(limit).enumerate() {
        out.push(if index > 0 { ",\n" } else { "\n" });
        let text = super::pieces::json_text(&id.to_string());
        out.push(&format!(
            "{{\"id\":{text},\"key\":{text},\"value\":{{\"rev\":\"0-{}\"}}",
            doc.edits
        ));
        if include_docs {
            out.push(",\"doc\":");
            write(&mut out, id, doc);
        }
        out.push("}");
    }
    out.push("\n]}\n");
    Ok(out.answer(StatusCode::OK, "application/json", db.blobs()))
}
