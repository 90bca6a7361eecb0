//! `_find` and `_explain`: Mango queries.
//!
//! What is asked is understood as CouchDB understands it, `asked.rs`; which index answers it and what matches is the node's part. An
//! answer is sent page by page: its length is not bounded, what is held of it is. One that fits a page is sent whole, so that what
//! goes wrong with it is told with a status. CouchDB's warnings are given where it gives them: no index was used, another one than was
//! asked for, or many more documents were read than are told.

mod asked;

use std::time::Instant;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use self::asked::Asked;
pub(super) use self::asked::{one_direction, sort_field, wrong};
use super::fault::Fault;
use super::pieces::{Paged, Pages, Pieces};
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::node::{Db, FindPlan, FoundPage, IndexCandidate, NoPlan, PageQuery, Position, projected};

/// Documents of one page.
const PAGE_DOCS: usize = 1000;

/// More documents read for one that is told are worth a warning: CouchDB's `index_scan_warning_threshold`.
const READ_FOR_ONE_MAX: u64 = 10;

/// POST of `_find`.
pub(in crate::api) async fn find(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let asked = Asked::of_body(call.take_body().couch_json().await?)?;
    let plan = planned(&db, &asked)
        .await?
        .map_err(|none| no_plan(none, &asked))?;
    let after = match &asked.bookmark {
        None => None,
        Some(bookmark) => {
            Some(Position::from_text(bookmark, &plan).ok_or_else(|| asked::bad_bookmark(bookmark))?)
        }
    };
    let mut answer = Answer {
        db: db.clone(),
        after,
        left: asked.limit,
        skip: asked.skip,
        asked,
        plan,
        begun: Instant::now(),
        keys_examined: 0,
        docs_examined: 0,
        returned: 0,
        state: State::Begins,
    };
    if answer.asked.update {
        let plan = answer.plan.clone();
        db.run(move |database| database.bring_up_to_date(&plan)).await?;
    }
    let first = answer.next_page().await?;
    if answer.state == State::Ended {
        return Ok(first.answer(StatusCode::OK, "application/json", db.blobs()));
    }
    let pages = After {
        first: Some(first),
        answer,
    };
    let mut response = Response::new(answer::stream(Paged::new(pages, db.blobs().clone()), None));
    super::set_json(&mut response);
    Ok(response)
}

/// POST of `_explain`.
pub(in crate::api) async fn explain(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let asked = Asked::of_body(call.take_body().couch_json().await?)?;
    let plan = match planned(&db, &asked).await? {
        Ok(plan) => Some(plan),
        Err(NoPlan::Unsorted) => None,
        Err(none @ NoPlan::Unusable) => return Err(no_plan(none, &asked)),
    };
    let (query, chosen) = (asked.query.clone(), plan.as_ref().map(|plan| plan.index.clone()));
    let candidates = db
        .run(move |database| database.find_candidates(&query, chosen.as_ref()))
        .await?;
    let mut body = json!({
        "dbname": db.name(),
        "index_candidates": candidates.iter().map(shown).collect::<Vec<_>>(),
        "index": plan.as_ref().map(|plan| plan.index.shown()),
        "partitioned": false,
        "selector": asked.selector,
        "opts": asked.options(),
        "limit": asked.limit,
        "skip": asked.skip,
        "fields": asked.fields,
    });
    if let Some(plan) = plan {
        let (low, high) = plan.shown_range();
        let descending = asked.query.descending;
        let (start, end) = if descending { (high, low) } else { (low, high) };
        body["mrargs"] = json!({
            "include_docs": !plan.is_covered,
            "view_type": "map",
            "reduce": false,
            "partition": null,
            "start_key": start,
            "end_key": end,
            "direction": if descending { "rev" } else { "fwd" },
            "stable": false,
            "update": asked.update,
            "conflicts": if asked.conflicts { json!(true) } else { json!("undefined") },
        });
        body["covering"] = json!(plan.is_covered);
    }
    Ok(answer::json(StatusCode::OK, &body))
}

/// An index that is not used, as CouchDB shows it.
fn shown(candidate: &IndexCandidate) -> Value {
    json!({
        "index": candidate.index.shown(),
        "analysis": {
            "usable": candidate.is_usable,
            "reasons": [{"name": candidate.reason}],
            "ranking": candidate.ranking,
            "covering": candidate.is_covering,
        },
    })
}

async fn planned(db: &Db, asked: &Asked) -> Result<Result<FindPlan, NoPlan>, Error> {
    let query = asked.query.clone();
    Ok(db.run(move |database| database.find_plan(&query)).await?)
}

fn no_plan(none: NoPlan, asked: &Asked) -> Error {
    match none {
        NoPlan::Unsorted => Fault::NoIndex.into(),
        NoPlan::Unusable => wrong(
            "invalid_index",
            format!(
                "{} specified by `use_index` could not be found or it is not suitable.",
                asked.hint_text()
            ),
        ),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begins,
    GoesOn,
    Ended,
}

/// An answer on its way.
struct Answer {
    db: Db,
    asked: Asked,
    plan: FindPlan,
    after: Option<Position>,
    left: usize,
    skip: usize,
    begun: Instant,
    keys_examined: u64,
    docs_examined: u64,
    returned: u64,
    state: State,
}

impl Answer {
    async fn next_page(&mut self) -> Result<Pieces, Error> {
        let mut out = Pieces::default();
        if self.state == State::Begins {
            self.state = State::GoesOn;
            out.push("{\"docs\":[");
        }
        let mut is_end = self.left == 0;
        if !is_end {
            let page = PageQuery {
                after: self.after.take(),
                skip: self.skip,
                limit: self.left.min(PAGE_DOCS),
                conflicts: self.asked.conflicts,
            };
            let (plan, query) = (self.plan.clone(), self.asked.query.clone());
            let found = self
                .db
                .run(move |database| database.find_page(&plan, &query, &page))
                .await?;
            is_end = self.take(found, &mut out);
        }
        if is_end {
            self.state = State::Ended;
            self.end(&mut out);
        }
        Ok(out)
    }

    /// Tells what a page found; whether that was the last.
    fn take(&mut self, found: FoundPage, out: &mut Pieces) -> bool {
        self.keys_examined += found.keys_examined;
        self.docs_examined += found.docs_examined;
        self.skip -= found.skipped;
        self.left -= found.docs.len();
        for document in found.docs {
            out.push(if self.returned == 0 { "\n" } else { ",\n" });
            out.push(&projected(document, self.asked.query.fields.as_deref()).to_string());
            self.returned += 1;
        }
        self.after = found.after;
        found.is_end || self.left == 0
    }

    fn end(&self, out: &mut Pieces) {
        let asked = self.asked.bookmark.clone();
        let bookmark = match (&self.after, self.returned) {
            (Some(after), 1..) => after.to_text(),
            _ => asked.unwrap_or_else(|| "nil".to_owned()),
        };
        out.push(&format!("\n],\n\"bookmark\":{}", Value::from(bookmark)));
        if self.asked.execution_stats {
            let stats = json!({
                "total_keys_examined": self.keys_examined,
                "total_docs_examined": self.docs_examined,
                "total_quorum_docs_examined": 0,
                "results_returned": self.returned,
                "execution_time_ms": self.begun.elapsed().as_secs_f64() * 1000.0,
            });
            out.push(&format!(",\n\"execution_stats\":{stats}"));
        }
        let warnings = self.warnings();
        if !warnings.is_empty() {
            out.push(&format!(",\n\"warning\":{}", Value::from(warnings.join("\n"))));
        }
        out.push("}\n");
    }

    /// In CouchDB's words, which apps look for.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.plan.is_fallback {
            let why = match self.asked.names_index() {
                true => "it is not a valid index for this query",
                false => "it does not contain a valid index for this query",
            };
            warnings.push(format!("{} was not used because {why}.", self.asked.hint_text()));
        }
        if self.plan.index.is_all_docs() {
            warnings.push("No matching index found, create an index to optimize query time.".to_owned());
        }
        if self.docs_examined > READ_FOR_ONE_MAX * self.returned.max(1) {
            let many =
                "The number of documents examined is high in proportion to the number of results returned.";
            warnings.push(format!(
                "{many} Consider adding a more specific index to improve this."
            ));
        }
        warnings
    }
}

/// The pages of an answer whose first is there already.
struct After {
    first: Option<Pieces>,
    answer: Answer,
}

impl Pages for After {
    async fn page(&mut self) -> Result<Option<Pieces>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.answer.state {
            State::Ended => Ok(None),
            State::Begins | State::GoesOn => self.answer.next_page().await.map(Some),
        }
    }
}
