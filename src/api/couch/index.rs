//! `_index`: definitions of Mango indexes, kept in design documents of the language `query`, as CouchDB keeps them.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::document;
use super::fault::Fault;
use super::written;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::DocId;
use crate::node::{Db, Doc, DocumentBody as Body, Edit, FieldPath, ListQuery, MangoSelector as Selector};

/// Fields of one index.
const FIELDS_MAX: usize = 32;

/// Design documents that are looked through.
const DESIGNS_MAX: usize = 1000;

/// A new index as it is sent.
#[derive(Deserialize)]
struct IndexBody {
    index: Definition,
    ddoc: Option<String>,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Definition {
    fields: Vec<Value>,
    partial_filter_selector: Option<Value>,
}

/// An index that is defined.
struct Index {
    ddoc: String,
    name: String,
    /// Each with its direction.
    fields: Vec<(String, String)>,
    partial_filter_selector: Option<Value>,
}

impl Index {
    fn shown(&self) -> Value {
        let fields: Vec<Value> = self
            .fields
            .iter()
            .map(|(name, direction)| json!({name: direction}))
            .collect();
        let mut def = Map::from_iter([("fields".to_owned(), Value::from(fields))]);
        if let Some(filter) = &self.partial_filter_selector {
            def.insert("partial_filter_selector".to_owned(), filter.clone());
        }
        json!({"ddoc": self.ddoc, "name": self.name, "type": "json", "partitioned": false, "def": def})
    }
}

/// The order every database has.
pub(super) fn special() -> Value {
    json!({"ddoc": null, "name": "_all_docs", "type": "special", "def": {"fields": [{"_id": "asc"}]}})
}

/// Whether an index is defined that begins with these fields.
pub(super) async fn sorts(db: &Db, sort: &[FieldPath]) -> Result<bool, Error> {
    let wanted: Vec<FieldPath> = sort.to_vec();
    if wanted == [FieldPath::parse("_id")] {
        return Ok(true);
    }
    let begins = |index: &Index| {
        let fields: Vec<FieldPath> = index
            .fields
            .iter()
            .map(|(name, _)| FieldPath::parse(name))
            .collect();
        fields.starts_with(&wanted)
    };
    Ok(all(db).await?.iter().any(begins))
}

async fn all(db: &Db) -> Result<Vec<Index>, Error> {
    let (start, end) = super::list::design_range();
    let query = ListQuery {
        start,
        end,
        limit: DESIGNS_MAX,
        docs: true,
        ..ListQuery::default()
    };
    let found = db
        .run(move |database| {
            let mut found = Vec::new();
            database.list(&query, &mut |listed| {
                found.extend(listed.doc.as_ref().map(indexes_of).unwrap_or_default());
                std::ops::ControlFlow::Continue(())
            })?;
            Ok(found)
        })
        .await?;
    Ok(found)
}

/// The indexes of a design document; none where it is of another language.
fn indexes_of(doc: &Doc) -> Vec<Index> {
    let body: Value = serde_json::from_str(doc.body.as_str()).unwrap_or(Value::Null);
    if body["language"] != "query" {
        return Vec::new();
    }
    let Some(views) = body["views"].as_object() else {
        return Vec::new();
    };
    let index = |(name, view): (&String, &Value)| {
        let def = &view["options"]["def"];
        let fields: Option<Vec<(String, String)>> = def["fields"].as_array()?.iter().map(field).collect();
        Some(Index {
            ddoc: doc.id.to_string(),
            name: name.clone(),
            fields: fields?,
            partial_filter_selector: def.get("partial_filter_selector").cloned(),
        })
    };
    views.iter().filter_map(index).collect()
}

/// A field as `"name"` or `{"name": "asc"}`.
fn field(value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(name) => Some((name.clone(), "asc".to_owned())),
        Value::Object(members) if members.len() == 1 => {
            let (name, direction) = members.iter().next()?;
            let direction = direction
                .as_str()
                .filter(|direction| ["asc", "desc"].contains(direction))?;
            Some((name.clone(), direction.to_owned()))
        }
        _ => None,
    }
}

/// GET.
pub(in crate::api) async fn list(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let mut indexes = vec![special()];
    indexes.extend(all(&db).await?.iter().map(Index::shown));
    let body = json!({"total_rows": indexes.len(), "indexes": indexes});
    Ok(answer::json(StatusCode::OK, &body))
}

/// POST.
pub(in crate::api) async fn create(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: IndexBody = call.take_body().couch_json().await?;
    let wrong = |reason: &str| Fault::Find {
        code: "invalid_index",
        reason: reason.to_owned(),
    };
    match body.kind.as_deref() {
        None | Some("json") => {}
        Some(_) => return Err(Fault::NotImplemented("only indexes of the type json are kept").into()),
    }
    let fields: Option<Vec<(String, String)>> = body.index.fields.iter().map(field).collect();
    let fields = fields.filter(|fields| (1..=FIELDS_MAX).contains(&fields.len()));
    let fields = fields.ok_or_else(|| wrong("an index has 1 to 32 fields, each a name or {name: asc}"))?;
    let mut def = json!({"fields": body.index.fields});
    let mut map = json!({"fields": fields.iter().map(|(name, direction)| (name.clone(), json!(direction))).collect::<Map<_, _>>()});
    if let Some(filter) = body.index.partial_filter_selector {
        Selector::parse(&filter).map_err(Fault::Selector)?;
        def["partial_filter_selector"] = filter.clone();
        map["partial_filter_selector"] = filter;
    }
    // The same definition has the same name, whoever makes it.
    let digest = blake3::hash(def.to_string().as_bytes()).to_hex();
    let name = body.name.unwrap_or_else(|| format!("{:.40}", digest.as_str()));
    let ddoc = body.ddoc.unwrap_or_else(|| format!("{:.40}", digest.as_str()));
    let ddoc = ddoc.strip_prefix("_design/").unwrap_or(&ddoc);
    let id: DocId = format!("_design/{ddoc}").parse().map_err(Fault::Id)?;
    let view = json!({"map": map, "reduce": "_count", "options": {"def": def}});
    let saved = add(&db, &id, &name, view).await?;
    let result = if saved { "created" } else { "exists" };
    Ok(answer::json(
        StatusCode::OK,
        &json!({"result": result, "id": id, "name": name}),
    ))
}

/// Adds a view to a design document; false where it was there.
async fn add(db: &Db, id: &DocId, name: &str, view: Value) -> Result<bool, Error> {
    let target = id.clone();
    let before = db.run(move |database| database.open_doc(&target)).await?;
    let before = before.filter(|doc| !doc.deleted);
    let mut design = match &before {
        Some(doc) => serde_json::from_str(doc.body.as_str()).unwrap_or(Value::Null),
        None => json!({"language": "query", "views": {}}),
    };
    if design["language"] != "query" || !design["views"].is_object() {
        return Err(Fault::Find {
            code: "invalid_ddoc_lang",
            reason: "Existing design doc has an invalid language".to_owned(),
        }
        .into());
    }
    if design["views"][name] == view {
        return Ok(false);
    }
    design["views"][name] = view;
    save(db, id, before.as_ref(), design).await?;
    Ok(true)
}

async fn save(db: &Db, id: &DocId, before: Option<&Doc>, design: Value) -> Result<(), Error> {
    let is_empty = design["views"].as_object().is_some_and(Map::is_empty);
    let body = Body::parse(&design.to_string()).map_err(|error| Fault::Body(error.to_string()))?;
    let edit = Edit::New {
        id: id.clone(),
        parent: before.map(|doc| doc.rev().clone()),
        deleted: is_empty,
        body: if is_empty { Body::default() } else { body },
        attachments: std::collections::BTreeMap::new(),
    };
    let saved = db.run(move |database| database.save_doc(edit)).await?;
    saved.map_err(written::fault)?;
    Ok(())
}

/// `DELETE _index/{ddoc}/json/{name}`.
pub(in crate::api) async fn delete(call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let ddoc = call.param("doc");
    let id: DocId = format!("_design/{}", ddoc.strip_prefix("_design/").unwrap_or(ddoc))
        .parse()
        .map_err(Fault::Id)?;
    let opened = document::open(&db, id.clone(), document::Revs::Winner, false, false).await?;
    let found = opened.and_then(|opened| opened.found.into_iter().next());
    let Some(document::Found::Doc(doc)) = found else {
        return Err(Fault::Missing.into());
    };
    let mut design: Value = serde_json::from_str(doc.body.as_str()).unwrap_or(Value::Null);
    let removed = design["views"]
        .as_object_mut()
        .and_then(|views| views.remove(call.param("name")));
    if doc.deleted || design["language"] != "query" || removed.is_none() {
        return Err(Fault::Missing.into());
    }
    save(&db, &id, Some(&doc), design).await?;
    Ok(answer::json(StatusCode::OK, &json!({"ok": true})))
}
