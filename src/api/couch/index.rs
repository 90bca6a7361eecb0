//! `_index`: definitions of Mango indexes, kept in design documents of the language `query`, as CouchDB keeps them.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document;
use super::fault::Fault;
use super::find::{one_direction, sort_field, wrong};
use super::query::Query;
use super::written;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::DocId;
use crate::node::{
    Db, DesignError, Doc, DocumentBody as Body, Edit, INDEX_FIELDS_MAX, Index, MangoSelector as Selector,
    with_index, without_index,
};

/// A new index as it is sent.
#[derive(Deserialize)]
struct IndexBody {
    index: Option<Value>,
    ddoc: Option<String>,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    partitioned: Option<bool>,
}

/// GET.
pub(in crate::api) async fn list(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let query = Query::of(&call)?;
    let indexes = db.run(|database| database.find_indexes()).await?;
    let number = |name| -> Result<Option<usize>, Error> {
        Ok(query
            .number(name)?
            .map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    };
    let (skip, limit) = (
        number("skip")?.unwrap_or(0),
        number("limit")?.unwrap_or(usize::MAX),
    );
    let shown: Vec<Value> = indexes.iter().skip(skip).take(limit).map(Index::shown).collect();
    let body = json!({"total_rows": indexes.len(), "indexes": shown});
    Ok(answer::json(StatusCode::OK, &body))
}

/// POST.
pub(in crate::api) async fn create(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: IndexBody = call.take_body().couch_json().await?;
    let invalid = |reason: &str| wrong("invalid_index", reason.to_owned());
    match body.kind.as_deref() {
        None | Some("json") => {}
        Some("text" | "nouveau") => {
            return Err(Fault::NotImplemented("only indexes of the type json are kept").into());
        }
        Some(other) => return Err(invalid(&format!("Invalid type for index: {other}"))),
    }
    if body.partitioned == Some(true) {
        return Err(wrong(
            "invalid_partitioned_option",
            "databases here have no partitions".to_owned(),
        ));
    }
    let definition = body
        .index
        .ok_or_else(|| invalid("Index is missing its definition."))?;
    let (def, map) = understood(&definition)?;
    // The same definition has the same name, whoever makes it.
    let digest = blake3::hash(def.as_bytes()).to_hex();
    let name = body.name.unwrap_or_else(|| format!("{:.40}", digest.as_str()));
    let ddoc = body.ddoc.unwrap_or_else(|| format!("{:.40}", digest.as_str()));
    let ddoc = ddoc.strip_prefix("_design/").unwrap_or(&ddoc);
    let id: DocId = format!("_design/{ddoc}").parse().map_err(Fault::Id)?;
    let view = format!("{{\"map\":{map},\"reduce\":\"_count\",\"options\":{{\"def\":{def}}}}}");
    let target = id.clone();
    let before = db.run(move |database| database.open_doc(&target)).await?;
    let before = before.filter(|doc| !doc.deleted);
    let design = with_index(before.as_ref().map(|doc| doc.body.as_str()), &name, &view).map_err(fault)?;
    let result = if design.is_some() { "created" } else { "exists" };
    if let Some(design) = design {
        save(&db, &id, before.as_ref(), Some(&design)).await?;
    }
    Ok(answer::json(
        StatusCode::OK,
        &json!({"result": result, "id": id, "name": name}),
    ))
}

/// What is defined, as `options.def` and as `map` of a view; the order of its fields is kept.
fn understood(definition: &Value) -> Result<(String, String), Error> {
    let invalid = |reason: String| wrong("invalid_index", reason);
    let Value::Object(members) = definition else {
        return Err(invalid(format!(
            "JSON indexes must be an object, not: {definition}"
        )));
    };
    if let Some(key) = members
        .keys()
        .find(|key| !["fields", "partial_filter_selector"].contains(&key.as_str()))
    {
        return Err(wrong(
            "invalid_key",
            format!("Invalid key {key} for this request."),
        ));
    }
    let fields = members.get("fields");
    let fields =
        fields.ok_or_else(|| wrong("missing_required_key", "Missing required key: fields".to_owned()))?;
    let items = fields
        .as_array()
        .filter(|items| (1..=INDEX_FIELDS_MAX).contains(&items.len()));
    let items = items.ok_or_else(|| invalid(format!("an index has 1 to {INDEX_FIELDS_MAX} fields")))?;
    let named = items.iter().map(sort_field).collect::<Result<Vec<_>, _>>()?;
    one_direction(&named)?;
    if let Some((name, _)) = named.iter().enumerate().find_map(|(at, field)| {
        named[..at]
            .iter()
            .any(|before| before.0 == field.0)
            .then_some(field)
    }) {
        return Err(invalid(format!("the field {name} stands twice in the index")));
    }
    let pairs: Vec<String> = named
        .iter()
        .map(|(name, direction)| format!("{}:\"{direction}\"", Value::from(name.as_str())))
        .collect();
    let mut filter = String::new();
    if let Some(selector) = members.get("partial_filter_selector") {
        Selector::parse(selector).map_err(Fault::Selector)?;
        filter = format!(",\"partial_filter_selector\":{selector}");
    }
    Ok((
        format!("{{\"fields\":{fields}{filter}}}"),
        format!("{{\"fields\":{{{}}}{filter}}}", pairs.join(",")),
    ))
}

fn fault(error: DesignError) -> Error {
    match error {
        DesignError::Language => wrong("invalid_ddoc_lang", error.to_string()),
        DesignError::Json(error) => Fault::Body(error.to_string()).into(),
    }
}

/// Writes a design document, or without a text deletes it.
async fn save(db: &Db, id: &DocId, before: Option<&Doc>, design: Option<&str>) -> Result<(), Error> {
    let body = match design {
        Some(design) => Body::parse(design).map_err(|error| Fault::Body(error.to_string()))?,
        None => Body::default(),
    };
    let edit = Edit::New {
        id: id.clone(),
        parent: before.map(|doc| doc.rev().clone()),
        deleted: design.is_none(),
        body,
        attachments: BTreeMap::new(),
    };
    let saved = db.save_doc(edit).await?;
    saved.map_err(written::fault)?;
    Ok(())
}

/// `DELETE _index/{ddoc}/json/{name}`.
pub(in crate::api) async fn delete(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let id = design_id(call.param("doc"))?;
    match forget(&db, &id, call.param("name")).await? {
        true => Ok(answer::json(StatusCode::OK, &json!({"ok": true}))),
        false => Err(Fault::Missing.into()),
    }
}

fn design_id(text: &str) -> Result<DocId, Error> {
    let name = text.strip_prefix("_design/").unwrap_or(text);
    Ok(format!("_design/{name}").parse().map_err(Fault::Id)?)
}

/// Takes an index out of its design document; false where it is not there.
async fn forget(db: &Db, id: &DocId, name: &str) -> Result<bool, Error> {
    let opened = document::open(db, id.clone(), document::Revs::Winner, false, false).await?;
    let found = opened.and_then(|opened| opened.found.into_iter().next());
    let Some(document::Found::Doc(doc)) = found else {
        return Ok(false);
    };
    let left = match without_index(doc.body.as_str(), name) {
        Err(DesignError::Language) => None,
        left => left.map_err(fault)?,
    };
    let Some((design, is_empty)) = left.filter(|_| !doc.deleted) else {
        return Ok(false);
    };
    save(db, id, Some(&doc), (!is_empty).then_some(&design)).await?;
    Ok(true)
}

/// What `_bulk_delete` forgets.
#[derive(Deserialize)]
struct Designs {
    docids: Vec<String>,
}

/// `POST _index/_bulk_delete`: the indexes of several design documents.
pub(in crate::api) async fn delete_many(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: Designs = call.take_body().couch_json().await?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let indexes = db.run(|database| database.find_indexes()).await?;
    for text in body.docids {
        let id = design_id(&text)?;
        let own: Vec<&Index> = indexes
            .iter()
            .filter(|index| index.ddoc.as_ref() == Some(&id))
            .collect();
        // As CouchDB: a design document with several indexes is none that this forgets.
        let forgotten = match own.as_slice() {
            [index] => forget(&db, &id, &index.name).await?,
            _ => false,
        };
        match forgotten {
            true => done.push(json!({"id": id, "ok": true})),
            false => failed.push(json!({"id": id, "error": "not_found"})),
        }
    }
    Ok(answer::json(
        StatusCode::OK,
        &json!({"success": done, "fail": failed}),
    ))
}
