//! `_find` and `_explain`: Mango queries.
//!
//! Documents are read one after the other by id and those that match are told; a query that sorts holds the first of its order, never
//! all. Sorting wants an index by those fields, as with CouchDB, which says what apps rely on; every answer warns that none was used.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

use axum::http::StatusCode;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::changes::whole;
use super::fault::Fault;
use super::index;
use super::pieces::Pieces;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::DocId;
use crate::node::{
    Database, DatabaseError, Db, FieldPath, ListQuery, MangoSelector as Selector, compare_values,
};

/// Documents that are told where nobody says how many.
const LIMIT: usize = 25;

/// Documents that one query may tell or pass over: they are held until they are sent.
const WINDOW_MAX: usize = 10_000;

/// Bytes of the documents of one answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Documents that are read at a time.
const PAGE_DOCS: usize = 64;

/// What every answer says.
const WARNING: &str = "The documents were read one after the other: no index was used.";

/// A query as it is sent. What says how an index is to be used has no meaning here.
#[derive(Clone, Deserialize)]
pub(super) struct FindBody {
    selector: Value,
    limit: Option<usize>,
    skip: Option<usize>,
    sort: Option<Vec<Value>>,
    fields: Option<Vec<String>>,
    bookmark: Option<String>,
    #[serde(default)]
    conflicts: bool,
    #[serde(default)]
    execution_stats: bool,
}

/// A query that was understood.
struct Find {
    selector: Selector,
    limit: usize,
    skip: usize,
    sort: Vec<FieldPath>,
    descending: bool,
    fields: Vec<FieldPath>,
    /// The id to go on after.
    after: Option<DocId>,
    conflicts: bool,
}

/// What was found.
#[derive(Default)]
struct FoundDocs {
    /// With the values they are sorted by.
    docs: Vec<(Vec<Value>, DocId, Value)>,
    bytes: usize,
    examined: u64,
    /// Where a next query goes on.
    last: Option<DocId>,
}

/// POST of `_find`.
pub(in crate::api) async fn find(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: FindBody = call.take_body().couch_json().await?;
    let stats = body.execution_stats;
    let find = understood(&db, body).await?;
    let is_sorted = !find.sort.is_empty();
    let found = db.run(move |database| run(database, &find)).await?;
    let mut out = Pieces::default();
    out.push("{\"docs\":[\n");
    let returned = found.docs.len();
    for (index, (_, _, doc)) in found.docs.into_iter().enumerate() {
        if index > 0 {
            out.push(",\n");
        }
        out.push(&doc.to_string());
    }
    let bookmark = match (&found.last, is_sorted) {
        (Some(last), false) => BASE64URL_NOPAD.encode(last.as_str().as_bytes()),
        _ => "nil".to_owned(),
    };
    out.push(&format!(
        "\n],\"bookmark\":\"{bookmark}\",\"warning\":\"{WARNING}\""
    ));
    if stats {
        let stats = json!({"total_keys_examined": 0, "total_docs_examined": found.examined,
            "total_quorum_docs_examined": 0, "results_returned": returned});
        out.push(&format!(",\"execution_stats\":{stats}"));
    }
    out.push("}\n");
    Ok(out.answer(StatusCode::OK, "application/json", db.blobs()))
}

/// POST of `_explain`.
pub(in crate::api) async fn explain(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body: FindBody = call.take_body().couch_json().await?;
    let asked = body.clone();
    let find = understood(&db, body).await?;
    let body = json!({
        "dbname": db.name(),
        "index": index::special(),
        "selector": asked.selector,
        "opts": {"limit": find.limit, "skip": find.skip, "sort": asked.sort, "fields": asked.fields, "conflicts": find.conflicts},
        "limit": find.limit,
        "skip": find.skip,
        "fields": asked.fields.map_or(json!("all_fields"), |fields| json!(fields)),
    });
    Ok(answer::json(StatusCode::OK, &body))
}

async fn understood(db: &Db, body: FindBody) -> Result<Find, Error> {
    let selector = Selector::parse(&body.selector).map_err(Fault::Selector)?;
    let (sort, descending) = sort(body.sort.unwrap_or_default())?;
    if !sort.is_empty() && !index::sorts(db, &sort).await? {
        return Err(Fault::NoIndex.into());
    }
    let (limit, skip) = (body.limit.unwrap_or(LIMIT), body.skip.unwrap_or(0));
    if limit.saturating_add(skip) > WINDOW_MAX {
        return Err(wrong(
            "invalid_value",
            format!("limit and skip are at most {WINDOW_MAX} together"),
        ));
    }
    let after = match body.bookmark.as_deref() {
        None | Some("" | "nil") => None,
        Some(bookmark) => Some(bookmarked(bookmark)?),
    };
    Ok(Find {
        selector,
        limit,
        skip,
        sort,
        descending,
        fields: body
            .fields
            .unwrap_or_default()
            .iter()
            .map(|field| FieldPath::parse(field))
            .collect(),
        after,
        conflicts: body.conflicts,
    })
}

fn bookmarked(bookmark: &str) -> Result<DocId, Error> {
    let bytes = BASE64URL_NOPAD.decode(bookmark.as_bytes()).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    id.ok_or_else(|| {
        wrong(
            "invalid_bookmark",
            format!("Invalid bookmark value: {}", Value::from(bookmark)),
        )
    })
}

fn wrong(code: &'static str, reason: String) -> Error {
    Fault::Find { code, reason }.into()
}

/// The fields of a sort and its one direction.
fn sort(sort: Vec<Value>) -> Result<(Vec<FieldPath>, bool), Error> {
    let mut fields = Vec::new();
    let mut directions = Vec::new();
    for field in sort {
        let (name, direction) = match &field {
            Value::String(name) => (name, "asc"),
            Value::Object(members) if members.len() == 1 => {
                let (name, direction) = members.iter().next().expect("it has one");
                (name, direction.as_str().unwrap_or_default())
            }
            _ => {
                return Err(wrong(
                    "invalid_sort_field",
                    format!("Invalid sort field: {field}"),
                ));
            }
        };
        if !["asc", "desc"].contains(&direction) {
            return Err(wrong(
                "invalid_sort_dir",
                format!("Invalid sort direction: {field}"),
            ));
        }
        fields.push(FieldPath::parse(name));
        directions.push(direction == "desc");
    }
    let descending = directions.first().copied().unwrap_or(false);
    if directions.contains(&!descending) {
        let reason = "Sorts currently only support a single direction for all fields.";
        return Err(wrong("unsupported_mixed_sort", reason.to_owned()));
    }
    Ok((fields, descending))
}

fn run(database: &Database, find: &Find) -> Result<FoundDocs, DatabaseError> {
    let mut found = FoundDocs::default();
    let wanted = find.limit + find.skip;
    let mut query = ListQuery {
        start: find.after.clone().map_or(Bound::Unbounded, Bound::Excluded),
        docs: true,
        limit: PAGE_DOCS,
        ..ListQuery::default()
    };
    let mut skipped = 0;
    // Those that sort see every document first.
    while !find.sort.is_empty() || found.docs.len() < find.limit {
        let mut page = Vec::new();
        database.list(&query, &mut |listed| {
            page.push(listed);
            ControlFlow::Continue(())
        })?;
        let is_end = page.len() < PAGE_DOCS;
        for listed in page {
            query.start = Bound::Excluded(listed.id.clone());
            let Some(doc) = listed.doc.filter(|_| !listed.id.is_design()) else {
                continue;
            };
            found.examined += 1;
            let mut value = whole(&doc);
            if !find.selector.matches(&value) {
                continue;
            }
            if find.sort.is_empty() && skipped < find.skip {
                skipped += 1;
                continue;
            }
            let keys: Option<Vec<Value>> = find.sort.iter().map(|path| path.find(&value).cloned()).collect();
            // An index has no document that lacks one of its fields.
            let Some(keys) = keys else { continue };
            if find.conflicts {
                conflicts(database, &listed.id, &mut value)?;
            }
            let shown = projected(value, &find.fields);
            found.bytes += doc.body.as_str().len();
            found.last = Some(listed.id.clone());
            found.docs.push((keys, listed.id, shown));
            if find.sort.is_empty() && (found.docs.len() == find.limit || found.bytes > ANSWER_BYTES_MAX) {
                return Ok(found);
            }
            if !find.sort.is_empty() && found.docs.len() >= (2 * wanted).max(PAGE_DOCS) {
                keep_first(&mut found.docs, wanted, find.descending);
            }
        }
        if is_end {
            break;
        }
    }
    if find.sort.is_empty() {
        found.last = None;
        return Ok(found);
    }
    keep_first(&mut found.docs, wanted, find.descending);
    found.docs.drain(..find.skip.min(found.docs.len()));
    Ok(found)
}

fn keep_first(docs: &mut Vec<(Vec<Value>, DocId, Value)>, most: usize, descending: bool) {
    docs.sort_by(|(a, a_id, _), (b, b_id, _)| {
        let unequal = a
            .iter()
            .zip(b)
            .map(|(a, b)| compare_values(a, b))
            .find(|order| order.is_ne());
        let order = unequal.unwrap_or(Ordering::Equal).then_with(|| a_id.cmp(b_id));
        if descending { order.reverse() } else { order }
    });
    docs.truncate(most);
}

fn conflicts(database: &Database, id: &DocId, value: &mut Value) -> Result<(), DatabaseError> {
    let conflicts = database
        .tree(id)?
        .map(|tree| tree.conflicts())
        .unwrap_or_default();
    if let (false, Value::Object(members)) = (conflicts.is_empty(), value) {
        members.insert("_conflicts".to_owned(), json!(conflicts));
    }
    Ok(())
}

/// Only these fields, each at its place; all where none is named.
fn projected(value: Value, fields: &[FieldPath]) -> Value {
    if fields.is_empty() {
        return value;
    }
    let mut shown = Map::new();
    for field in fields {
        let (Some(found), Some((last, way))) = (field.find(&value), field.names().split_last()) else {
            continue;
        };
        let mut at = &mut shown;
        for name in way {
            let member = at.entry(name.clone()).or_insert_with(|| json!({}));
            if !member.is_object() {
                *member = json!({});
            }
            at = member.as_object_mut().expect("it was made one");
        }
        at.insert(last.clone(), found.clone());
    }
    Value::Object(shown)
}
