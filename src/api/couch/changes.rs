//! `_changes`: what changed since, now or as it happens.
//!
//! A feed reads a page of changes, writes what its filter lets through, and goes on where it was. One that waits ends when its
//! time is up, its database is deleted, the node stops, or the right of whoever asked is taken away.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::document;
use super::fault::Fault;
use super::pieces::{Paged, Pages, Pieces, json_text};
use super::query::Query;
use super::render::{self, Rendered, Shown};
use super::watching::Watching;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::Seq;
use crate::node::{
    Change, ChangesQuery, Database, DatabaseError, Db, Doc, MangoSelector as Selector, RevTree,
    whole_document,
};

/// Changes that are read at a time.
const PAGE_ROWS: usize = 500;

/// Changes with their documents that are read at a time: those may have 8 MB each.
const PAGE_DOCS: usize = 8;

/// How long a feed waits at most, and how often it says that it is there: CouchDB's own.
const WAIT: Duration = Duration::from_secs(60);

/// The shortest time between two signs of life: each is a packet.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// What a POST may say besides its query.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ChangesBody {
    doc_ids: Option<Vec<String>>,
    selector: Option<Value>,
}

/// How changes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Normal,
    Longpoll,
    Continuous,
    EventSource,
}

/// Which changes are told.
enum Filter {
    All,
    Ids(BTreeSet<String>),
    Design,
    Selector(Box<Selector>),
}

/// GET and POST.
pub(in crate::api) async fn changes(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    let body = match call.parts.method == Method::POST {
        true => call
            .take_body()
            .couch_json_or_nothing()
            .await?
            .unwrap_or_default(),
        false => ChangesBody::default(),
    };
    let query = Query::of(&call)?;
    let feed = match query.text("feed") {
        None | Some("normal") => Feed::Normal,
        Some("longpoll") => Feed::Longpoll,
        Some("continuous" | "live") => Feed::Continuous,
        Some("eventsource") => Feed::EventSource,
        Some(_) => return Err(query.wrong("feed")),
    };
    let updated = db.updated();
    let now = *updated.borrow();
    let since = since(&call, &query, &db, now)?;
    let heartbeat = match query.text("heartbeat") {
        None | Some("false") if feed == Feed::EventSource => Some(WAIT),
        None | Some("false") => None,
        Some("true") => Some(WAIT),
        Some(_) => query.number("heartbeat")?.map(Duration::from_millis),
    };
    let wait = query
        .number("timeout")?
        .map_or(WAIT, Duration::from_millis)
        .min(WAIT);
    let shown = document::shown(&query)?;
    let source = Changes {
        filter: filter(&query, body)?,
        feed,
        since,
        left: query
            .number("limit")?
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        descending: query.flag("descending")?,
        all_leaves: query.text("style") == Some("all_docs"),
        include_docs: query.flag("include_docs")?,
        seq_interval: query.number("seq_interval")?.unwrap_or(1).max(1),
        shown: Shown { revs: false, ..shown },
        heartbeat: heartbeat.map(|every| every.max(HEARTBEAT_MIN)),
        // With heartbeats a feed that goes on has no end of its own.
        ends_at: match (heartbeat, query.text("timeout")) {
            (Some(_), None) => None,
            _ => Some(wait),
        },
        watching: Watching::of(&call, &db),
        updated,
        db: db.clone(),
        told: 0,
        scanned: 0,
        step: Step::Begin,
    };
    let mut response = Response::new(answer::stream(Paged::new(source, db.blobs().clone()), None));
    super::set_json(&mut response);
    if feed == Feed::EventSource {
        let stream = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, stream);
    }
    Ok(response)
}

fn since(call: &Call, query: &Query, db: &Db, now: Seq) -> Result<Seq, Error> {
    let text = query.text("since").or_else(|| query.text("last-event-id"));
    match text.or_else(|| call.header("last-event-id")) {
        None => Ok(Seq::ZERO),
        Some("now") => Ok(now),
        // Some clients write what they were told as JSON.
        Some(text) => Ok(db.seq_from_text(text.trim_matches('"')).map_err(Fault::Since)?),
    }
}

fn filter(query: &Query, body: ChangesBody) -> Result<Filter, Error> {
    match query.text("filter") {
        None => Ok(Filter::All),
        Some("_doc_ids") => {
            let ids = match body.doc_ids {
                Some(ids) => Some(ids),
                None => query.json("doc_ids")?,
            };
            let missing = || Fault::Body("`doc_ids` filter parameter is not provided.".to_owned());
            Ok(Filter::Ids(ids.ok_or_else(missing)?.into_iter().collect()))
        }
        Some("_design") => Ok(Filter::Design),
        Some("_selector") => {
            let missing = || Fault::Body("Selector must be specified in POST payload".to_owned());
            let selector = Selector::parse(&body.selector.ok_or_else(missing)?).map_err(Fault::Selector)?;
            Ok(Filter::Selector(Box::new(selector)))
        }
        Some(_) => Err(Fault::NotImplemented(
            "filters in JavaScript are not run here: use _doc_ids, _selector or _design",
        )
        .into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Reading,
    Waiting,
    Ended,
}

struct Changes {
    db: Db,
    feed: Feed,
    filter: Filter,
    since: Seq,
    left: usize,
    descending: bool,
    all_leaves: bool,
    include_docs: bool,
    seq_interval: u64,
    shown: Shown,
    heartbeat: Option<Duration>,
    ends_at: Option<Duration>,
    watching: Watching,
    updated: watch::Receiver<Seq>,
    /// Rows written.
    told: u64,
    /// Rows read of a descending feed, which has no place to go on from but its number of rows.
    scanned: usize,
    step: Step,
}

/// A change with what is shown of it.
struct Told {
    change: Change,
    doc: Option<Doc>,
    tree: Option<RevTree>,
}

struct Page {
    rows: Vec<Told>,
    last: Seq,
    pending: u64,
    is_end: bool,
}

impl Pages for Changes {
    async fn page(&mut self) -> Result<Option<Pieces>, Error> {
        let mut out = Pieces::default();
        match self.step {
            Step::Begin => {
                self.step = Step::Reading;
                if matches!(self.feed, Feed::Normal | Feed::Longpoll) {
                    out.push("{\"results\":[\n");
                }
                self.read(&mut out).await?;
            }
            Step::Reading => self.read(&mut out).await?,
            Step::Waiting => self.wait(&mut out).await?,
            Step::Ended => return Ok(None),
        }
        Ok(Some(out))
    }
}

impl Changes {
    async fn read(&mut self, out: &mut Pieces) -> Result<(), Error> {
        // Before it is read: a change after this wakes whoever waits.
        self.updated.borrow_and_update();
        let page = self.next_page().await?;
        for row in &page.rows {
            if self.left == 0 {
                break;
            }
            if self.passes(row) {
                self.left -= 1;
                self.write(out, row);
            }
            self.since = if self.descending {
                self.since
            } else {
                row.change.seq
            };
        }
        let is_cut = self.left == 0;
        if !is_cut && !self.descending {
            self.since = page.last;
        }
        if !page.is_end && !is_cut {
            return Ok(());
        }
        let waits = match self.feed {
            Feed::Normal => false,
            Feed::Longpoll => self.told == 0,
            Feed::Continuous | Feed::EventSource => true,
        };
        if waits && !is_cut && !self.descending {
            self.step = Step::Waiting;
            return Ok(());
        }
        let pending = if is_cut && !self.descending {
            self.pending().await?
        } else {
            page.pending
        };
        self.end(out, pending);
        Ok(())
    }

    /// Changes behind where the feed is.
    async fn pending(&self) -> Result<u64, Error> {
        let since = self.since;
        let query = ChangesQuery {
            since,
            limit: 0,
            ..ChangesQuery::default()
        };
        let end = self
            .db
            .run(move |database| database.changes(&query, &mut |_| std::ops::ControlFlow::Break(())));
        Ok(end.await?.pending)
    }

    async fn next_page(&mut self) -> Result<Page, Error> {
        let needs_doc = self.include_docs || matches!(self.filter, Filter::Selector(_));
        let most = if needs_doc { PAGE_DOCS } else { PAGE_ROWS };
        let needs_tree = self.include_docs && self.shown.needs_tree();
        let skip = if self.descending { self.scanned } else { 0 };
        let limit = match self.filter {
            Filter::All => most.min(self.left),
            Filter::Ids(_) | Filter::Design | Filter::Selector(_) => most,
        };
        let query = ChangesQuery {
            since: self.since,
            limit: limit.saturating_add(skip),
            descending: self.descending,
            docs: needs_doc,
        };
        let page = self
            .db
            .run(move |database| read_page(database, &query, skip, needs_tree))
            .await?;
        self.scanned += page.rows.len();
        Ok(page)
    }

    fn passes(&self, row: &Told) -> bool {
        match &self.filter {
            Filter::All => true,
            Filter::Ids(ids) => ids.contains(row.change.id.as_str()),
            Filter::Design => row.change.id.is_design(),
            Filter::Selector(selector) => row
                .doc
                .as_ref()
                .is_some_and(|doc| selector.matches(&whole_document(doc))),
        }
    }

    fn write(&mut self, out: &mut Pieces, row: &Told) {
        let seq = json_text(&self.db.seq_text(row.change.seq));
        match self.feed {
            Feed::Normal | Feed::Longpoll if self.told > 0 => out.push(",\n"),
            Feed::EventSource => out.push("data: "),
            Feed::Normal | Feed::Longpoll | Feed::Continuous => {}
        }
        self.told += 1;
        let shown_seq = if self.told.is_multiple_of(self.seq_interval) {
            &seq
        } else {
            "null"
        };
        out.push(&format!("{{\"seq\":{shown_seq},\"id\":"));
        out.push_json_text(row.change.id.as_str());
        out.push(",\"changes\":[");
        let told = if self.all_leaves { usize::MAX } else { 1 };
        let revs: Vec<String> = row
            .change
            .leaves
            .iter()
            .take(told)
            .map(|leaf| format!("{{\"rev\":\"{}\"}}", leaf.rev))
            .collect();
        out.push(&revs.join(","));
        out.push("]");
        if row.change.is_deleted() {
            out.push(",\"deleted\":true");
        }
        if let (true, Some(doc)) = (self.include_docs, &row.doc) {
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
        out.push("}");
        match self.feed {
            Feed::Normal | Feed::Longpoll => {}
            Feed::Continuous => out.push("\n"),
            Feed::EventSource => out.push(&format!("\nid: {seq}\n\n")),
        }
    }

    fn end(&mut self, out: &mut Pieces, pending: u64) {
        self.step = Step::Ended;
        let last = json_text(&self.db.seq_text(self.since));
        match self.feed {
            Feed::Normal | Feed::Longpoll => {
                out.push(&format!("\n],\n\"last_seq\":{last},\"pending\":{pending}}}\n"));
            }
            Feed::Continuous => out.push(&format!("{{\"last_seq\":{last},\"pending\":{pending}}}\n")),
            Feed::EventSource => {}
        }
    }

    async fn wait(&mut self, out: &mut Pieces) -> Result<(), Error> {
        let now = Instant::now();
        let ends_at = self.ends_at.map(|wait| now + wait);
        let beats_at = self.heartbeat.map(|every| now + every);
        let never = now + WAIT * 60 * 24;
        tokio::select! {
            changed = self.updated.changed() => {
                match changed {
                    Ok(()) => self.step = Step::Reading,
                    Err(_) => self.end(out, 0),
                }
            }
            () = sleep_until(beats_at.unwrap_or(never)), if beats_at.is_some() => {
                match self.watching.is_allowed() {
                    true => out.push(if self.feed == Feed::EventSource { "event: heartbeat\ndata: \n\n" } else { "\n" }),
                    false => self.end(out, 0),
                }
            }
            () = sleep_until(ends_at.unwrap_or(never)), if ends_at.is_some() => self.end(out, 0),
            () = self.watching.ended() => self.end(out, 0),
        }
        Ok(())
    }
}

fn read_page(
    database: &Database,
    query: &ChangesQuery,
    mut skip: usize,
    needs_tree: bool,
) -> Result<Page, DatabaseError> {
    let mut changes = Vec::new();
    let limit = query.limit;
    let mut seen = 0;
    let end = database.changes(query, &mut |change| {
        seen += 1;
        match skip {
            0 => changes.push(change),
            _ => skip -= 1,
        }
        std::ops::ControlFlow::Continue(())
    })?;
    let with_history = |mut change: Change| {
        let doc = change.doc.take();
        let tree = match needs_tree {
            true => database.tree(&change.id)?,
            false => None,
        };
        Ok(Told { change, doc, tree })
    };
    Ok(Page {
        rows: changes
            .into_iter()
            .map(with_history)
            .collect::<Result<_, DatabaseError>>()?,
        last: end.last,
        pending: end.pending,
        is_end: seen < limit,
    })
}
