//! `_all_docs` and `_design_docs`: documents by id, in the order of bytes.

use std::collections::VecDeque;
use std::ops::Bound;

use axum::http::Method;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use super::pieces::{Paged, Pages, Pieces, json_text};
use super::query::Query;
use super::render::{self, Rendered, Shown};
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::DocId;
use crate::node::{Db, Doc, ListQuery, Listed, RevTree, Which};

/// Rows that are read at a time.
const PAGE_ROWS: usize = 500;

/// Rows with their documents that are read at a time: those may have 8 MB each.
const PAGE_DOCS: usize = 8;

/// The longest id.
const ID_BYTES_MAX: usize = 512;

/// What a POST may say besides its query.
#[derive(Default, Deserialize)]
#[serde(default)]
struct KeysBody {
    keys: Option<Vec<String>>,
    queries: Option<Vec<Asked>>,
    #[serde(flatten)]
    asked: Asked,
}

/// What is asked of a list.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(alias = "start_key")]
    startkey: Option<Value>,
    #[serde(alias = "end_key")]
    endkey: Option<Value>,
    key: Option<Value>,
    #[serde(skip)]
    keys: Option<Vec<String>>,
    inclusive_end: Option<bool>,
    descending: Option<bool>,
    include_docs: Option<bool>,
    conflicts: Option<bool>,
    attachments: Option<bool>,
    update_seq: Option<bool>,
    skip: Option<usize>,
    limit: Option<usize>,
}

impl Asked {
    /// What a query string says, over what a body says.
    fn over(query: &Query, body: Asked) -> Result<Asked, Error> {
        let number = |name| -> Result<Option<usize>, Error> {
            let number = query.number(name)?;
            Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
        };
        let flag = |name, other: Option<bool>| -> Result<Option<bool>, Error> {
            match query.text(name) {
                None => Ok(other),
                Some(_) => query.flag(name).map(Some),
            }
        };
        let json = |one, other| -> Result<Option<Value>, Error> {
            match query.json(one)? {
                Some(value) => Ok(Some(value)),
                None => query.json(other),
            }
        };
        Ok(Asked {
            startkey: json("startkey", "start_key")?.or(body.startkey),
            endkey: json("endkey", "end_key")?.or(body.endkey),
            key: query.json("key")?.or(body.key),
            keys: query.json("keys")?.or(body.keys),
            inclusive_end: flag("inclusive_end", body.inclusive_end)?,
            descending: flag("descending", body.descending)?,
            include_docs: flag("include_docs", body.include_docs)?,
            conflicts: flag("conflicts", body.conflicts)?,
            attachments: flag("attachments", body.attachments)?,
            update_seq: flag("update_seq", body.update_seq)?,
            skip: number("skip")?.or(body.skip),
            limit: number("limit")?.or(body.limit),
        })
    }
}

/// GET and POST of `_all_docs`.
pub(in crate::api) async fn all_docs(mut call: Call) -> Result<Response, Error> {
    let body = body_of(&mut call).await?;
    answer_list(call, body, Rows::All).await
}

/// GET and POST of `_design_docs`.
pub(in crate::api) async fn design_docs(mut call: Call) -> Result<Response, Error> {
    let body = body_of(&mut call).await?;
    answer_list(call, body, Rows::Design).await
}

/// `POST _all_docs/queries`: several lists in one answer.
pub(in crate::api) async fn queries(call: Call) -> Result<Response, Error> {
    answer_lists(call, Rows::All).await
}

/// `POST _design_docs/queries`.
pub(in crate::api) async fn design_queries(call: Call) -> Result<Response, Error> {
    answer_lists(call, Rows::Design).await
}

async fn answer_lists(mut call: Call, rows: Rows) -> Result<Response, Error> {
    let body: KeysBody = call.take_body().couch_json().await?;
    let db = call.db().await?;
    let missing = || Fault::Body("`queries` is missing".to_owned());
    let queries = body.queries.ok_or_else(missing)?;
    let mut lists = VecDeque::new();
    for asked in queries {
        lists.push_back(List::new(db.clone(), asked, rows)?);
    }
    let mut response = Response::new(answer::stream(
        Paged::new(
            Lists {
                lists,
                state: Step::Begin,
            },
            db.blobs().clone(),
        ),
        None,
    ));
    super::set_json(&mut response);
    Ok(response)
}

async fn body_of(call: &mut Call) -> Result<Asked, Error> {
    if call.parts.method != Method::POST {
        return Ok(Asked::default());
    }
    let body: KeysBody = call.take_body().couch_json().await?;
    Ok(Asked {
        keys: body.keys,
        ..body.asked
    })
}

async fn answer_list(call: Call, body: Asked, rows: Rows) -> Result<Response, Error> {
    let db = call.db().await?;
    let asked = Asked::over(&Query::of(&call)?, body)?;
    let list = List::new(db.clone(), asked, rows)?;
    let mut response = Response::new(answer::stream(Paged::new(list, db.blobs().clone()), None));
    super::set_json(&mut response);
    Ok(response)
}

/// Which documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    Design,
}

/// Of an answer that is written page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Rows,
    Ended,
}

struct Lists {
    lists: VecDeque<List>,
    state: Step,
}

impl Pages for Lists {
    async fn page(&mut self) -> Result<Option<Pieces>, Error> {
        let mut out = Pieces::default();
        if self.state == Step::Ended {
            return Ok(None);
        }
        if self.state == Step::Begin {
            self.state = Step::Rows;
            out.push("{\"results\":[");
        }
        while let Some(list) = self.lists.front_mut() {
            if let Some(page) = list.page().await? {
                out.append(page);
                return Ok(Some(out));
            }
            self.lists.pop_front();
            if !self.lists.is_empty() {
                out.push(",");
            }
        }
        self.state = Step::Ended;
        out.push("]}\n");
        Ok(Some(out))
    }
}

struct List {
    db: Db,
    rows: Rows,
    shown: Shown,
    include_docs: bool,
    update_seq: bool,
    query: ListQuery,
    /// Keys that are still to come.
    keys: Option<VecDeque<String>>,
    state: Step,
    is_first: bool,
    /// Whether no key says where it begins.
    is_from_first: bool,
}

/// A row and what hangs on it.
struct Row {
    key: String,
    found: Result<(Listed, bool), ()>,
    tree: Option<RevTree>,
}

impl List {
    fn new(db: Db, asked: Asked, rows: Rows) -> Result<List, Error> {
        let descending = asked.descending.unwrap_or(false);
        let include_docs = asked.include_docs.unwrap_or(false);
        let (mut start, mut end) = (asked.startkey, asked.endkey);
        let mut inclusive_end = asked.inclusive_end.unwrap_or(true);
        if let Some(key) = asked.key {
            (start, end, inclusive_end) = (Some(key.clone()), Some(key), true);
        }
        let first = bound(start.as_ref(), Side::of(descending), true);
        let last = bound(end.as_ref(), Side::of(!descending), inclusive_end);
        let mut query = ListQuery {
            start: first.unwrap_or(Bound::Unbounded),
            end: last.unwrap_or(Bound::Unbounded),
            descending,
            skip: asked.skip.unwrap_or(0),
            limit: asked.limit.unwrap_or(usize::MAX),
            docs: include_docs,
        };
        // A key that no text comes after, or before.
        if start.is_some() && first_is_nothing(start.as_ref(), descending)
            || end.is_some() && first_is_nothing(end.as_ref(), !descending)
        {
            query.limit = 0;
        }
        let is_from_first = query.start == Bound::Unbounded;
        if rows == Rows::Design {
            within_design(&mut query);
        }
        Ok(List {
            db,
            rows,
            shown: Shown {
                conflicts: asked.conflicts.unwrap_or(false),
                attachments: match asked.attachments.unwrap_or(false) {
                    true => render::Data::Inline,
                    false => render::Data::None,
                },
                ..Shown::default()
            },
            include_docs,
            update_seq: asked.update_seq.unwrap_or(false),
            keys: asked.keys.map(|keys| {
                let mut keys: VecDeque<String> = keys.into();
                if descending {
                    keys.make_contiguous().reverse();
                }
                keys.into_iter().skip(query.skip).take(query.limit).collect()
            }),
            query,
            state: Step::Begin,
            is_first: true,
            is_from_first,
        })
    }

    async fn begin(&mut self, out: &mut Pieces) -> Result<(), Error> {
        let info = self.db.run(|database| database.info()).await?;
        let total = match self.rows {
            Rows::All => info.doc_count,
            Rows::Design => self.db.run(design_count).await?,
        };
        let offset = match (&self.keys, self.is_from_first) {
            (None, true) => self.query.skip.to_string(),
            // To know it, everything before would have to be counted.
            _ => "null".to_owned(),
        };
        out.push(&format!("{{\"total_rows\":{total},\"offset\":{offset},"));
        if self.update_seq {
            out.push(&format!(
                "\"update_seq\":{},",
                json_text(&self.db.seq_text(info.update_seq))
            ));
        }
        out.push("\"rows\":[");
        Ok(())
    }

    async fn rows(&mut self) -> Result<(Vec<Row>, bool), Error> {
        let most = if self.include_docs { PAGE_DOCS } else { PAGE_ROWS };
        let needs_tree = self.include_docs && self.shown.needs_tree();
        if let Some(keys) = &mut self.keys {
            let page: Vec<String> = keys.drain(..keys.len().min(most)).collect();
            let is_last = keys.is_empty();
            let docs = self.include_docs;
            let rows = self
                .db
                .run(move |database| page.into_iter().map(|key| by_key(database, key, docs)).collect());
            return Ok((rows.await?, is_last));
        }
        let query = ListQuery {
            limit: self.query.limit.min(most),
            ..self.query.clone()
        };
        let asked = query.limit;
        let rows: Vec<Row> = self
            .db
            .run(move |database| {
                let mut listed = Vec::new();
                database.list(&query, &mut |row| {
                    listed.push(row);
                    std::ops::ControlFlow::Continue(())
                })?;
                let with_tree = |listed: Listed| {
                    let tree = if needs_tree {
                        database.tree(&listed.id)?
                    } else {
                        None
                    };
                    Ok(Row {
                        key: listed.id.to_string(),
                        found: Ok((listed, false)),
                        tree,
                    })
                };
                listed.into_iter().map(with_tree).collect()
            })
            .await?;
        self.query.skip = 0;
        self.query.limit -= rows.len();
        if let Some(Ok((last, _))) = rows.last().map(|row| row.found.as_ref()) {
            self.query.start = Bound::Excluded(last.id.clone());
        }
        let is_last = rows.len() < asked || self.query.limit == 0;
        Ok((rows, is_last))
    }

    fn write(&mut self, out: &mut Pieces, row: &Row) {
        out.push(if self.is_first { "\n" } else { ",\n" });
        self.is_first = false;
        let key = json_text(&row.key);
        let Ok((listed, deleted)) = &row.found else {
            out.push(&format!("{{\"key\":{key},\"error\":\"not_found\"}}"));
            return;
        };
        let deletion = if *deleted { ",\"deleted\":true" } else { "" };
        out.push(&format!(
            "{{\"id\":{key},\"key\":{key},\"value\":{{\"rev\":\"{}\"{deletion}}}",
            listed.rev
        ));
        match &listed.doc {
            Some(doc) if self.include_docs && !deleted => {
                out.push(",\"doc\":");
                let rendered = Rendered {
                    doc,
                    tree: row.tree.as_ref(),
                    shown: &self.shown,
                    has: None,
                    seq: "",
                };
                render::document(out, rendered);
            }
            _ if self.include_docs => out.push(",\"doc\":null"),
            _ => {}
        }
        out.push("}");
    }
}

fn by_key(
    database: &crate::node::Database,
    key: String,
    docs: bool,
) -> Result<Row, crate::node::DatabaseError> {
    let missing = |key| Row {
        key,
        found: Err(()),
        tree: None,
    };
    let Ok(id) = key.parse::<DocId>() else {
        return Ok(missing(key));
    };
    let which = if docs { Which::Winner } else { Which::Record };
    let Some(snapshot) = database.snapshot(&id, &which)? else {
        return Ok(missing(key));
    };
    let Some(winner) = snapshot.tree.winner() else {
        return Ok(missing(key));
    };
    let doc: Option<Doc> = snapshot.docs.into_iter().next();
    let listed = Listed {
        id,
        rev: winner.rev,
        doc,
    };
    Ok(Row {
        key,
        found: Ok((listed, winner.deleted)),
        tree: Some(snapshot.tree),
    })
}

impl Pages for List {
    async fn page(&mut self) -> Result<Option<Pieces>, Error> {
        let mut out = Pieces::default();
        match self.state {
            Step::Begin => {
                self.begin(&mut out).await?;
                self.state = Step::Rows;
            }
            Step::Rows => {}
            Step::Ended => return Ok(None),
        }
        let (rows, is_last) = match self.query.limit {
            0 if self.keys.is_none() => (Vec::new(), true),
            _ => self.rows().await?,
        };
        for row in &rows {
            self.write(&mut out, row);
        }
        if is_last {
            self.state = Step::Ended;
            out.push("\n]}\n");
        }
        Ok(Some(out))
    }
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Low,
    High,
}

impl Side {
    /// The side a range begins at.
    fn of(descending: bool) -> Side {
        if descending { Side::High } else { Side::Low }
    }
}

/// Ids are texts: what comes before all texts bounds nothing from below, what comes after all nothing from above.
fn bound(key: Option<&Value>, side: Side, inclusive: bool) -> Option<Bound<DocId>> {
    let text = key?.as_str()?;
    match (text.parse::<DocId>(), side) {
        (Ok(id), _) if inclusive => Some(Bound::Included(id)),
        (Ok(id), _) => Some(Bound::Excluded(id)),
        (Err(_), Side::Low) => Some(Bound::Included(nearest(text))),
        (Err(_), Side::High) => Some(Bound::Excluded(nearest(text))),
    }
}

/// The lowest id there can be at or after a text that is none, such as `_design0`, by which people ask for what is around design
/// documents.
fn nearest(text: &str) -> DocId {
    /// Nothing with a leading underscore lies between.
    const ORDERED: [&str; 3] = ["\0", "_design/\0", "`"];
    let known = ORDERED
        .into_iter()
        .find(|id| text <= *id && (text.is_empty() || text.starts_with('_')));
    // What is left is longer than an id may be.
    let cut = known.unwrap_or(&text[..text.floor_char_boundary(ID_BYTES_MAX)]);
    cut.parse()
        .unwrap_or_else(|_| ORDERED[2].parse().expect("it is a letter of its own"))
}

/// Whether a bound that is no text lies on the wrong side of all texts.
fn first_is_nothing(key: Option<&Value>, is_high: bool) -> bool {
    match key {
        None | Some(Value::String(_)) => false,
        Some(Value::Null | Value::Bool(_) | Value::Number(_)) => is_high,
        Some(Value::Array(_) | Value::Object(_)) => !is_high,
    }
}

/// Design documents that are not deleted: what CouchDB tells as the total of their list.
fn design_count(database: &crate::node::Database) -> Result<u64, crate::node::DatabaseError> {
    let (start, end) = design_range();
    let query = ListQuery {
        start,
        end,
        ..ListQuery::default()
    };
    let mut count = 0;
    database.list(&query, &mut |_| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// Where design documents are.
pub(super) fn design_range() -> (Bound<DocId>, Bound<DocId>) {
    let (low, high) = (nearest("_design/"), nearest("_design0"));
    (Bound::Included(low), Bound::Excluded(high))
}

/// Narrows a query to design documents.
fn within_design(query: &mut ListQuery) {
    let (low, high) = design_range();
    let (start, end) = if query.descending {
        (high, low)
    } else {
        (low, high)
    };
    if query.start == Bound::Unbounded {
        query.start = start;
    }
    if query.end == Bound::Unbounded {
        query.end = end;
    }
}
