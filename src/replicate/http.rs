//! A database on a server that speaks CouchDB's API as a side of a replication: CouchDB, PouchDB's server, another node.
//!
//! What it answers is read as it comes and bounded: an item of a list at a time, an attachment in pieces. Attachments come by
//! themselves, not in their documents, as PouchDB reads them; they go as parts of a multipart body, as CouchDB writes them, and only those
//! that the target does not have.

mod items;
mod parse;
mod push;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::checkpoint::{Checkpoint, PeerSeq};
use super::local::Filter;
use super::peer::{
    Answering, ChangesAsk, Failure, Kept, Moved, Page, Peer, Pieces, Revision, Revisions, Row, Trouble,
    Wanted,
};
use super::transfer::{LARGE_BYTES, Room};
use crate::http::{Client, Error as HttpError, Method, Patience, Request, Response};
use crate::id::{DocId, LocalId, Rev};
use items::Items;

/// How long the head of an answer may take: CouchDB's `connection_timeout`.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a peer is asked to wait for a change, and how often it is to show that it is there, in milliseconds.
const WAIT_MS: u64 = 30_000;
const HEARTBEAT_MS: u64 = 10_000;

/// How long such an answer is waited for: some servers show that they are there and do not end it before there is a change.
const WAIT_PATIENCE: Duration = Duration::from_secs(45);

/// How long any other list may take as a whole.
const LIST_PATIENCE: Duration = Duration::from_secs(120);

/// The longest list of changes or of differences: 500 documents with a hundred conflicts each have 3 MiB.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest answer to anything else.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The longest document with its members: CouchDB's `max_document_size` and a long history.
const ITEM_BYTES_MAX: usize = 9 * 1024 * 1024;

/// Revisions that one URL names where a peer has no `_bulk_get`: as many as PouchDB asks for.
const OPEN_REVS_MAX: usize = 50;

/// Characters of what a peer says of itself that are told.
const REASON_CHARS_MAX: usize = 200;

/// What stands in a path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A database of a server.
pub(super) struct HttpPeer {
    client: Client,
    filter: Filter,
    /// It has no `_bulk_get`, as it has shown.
    is_plain: AtomicBool,
    /// The `instance_start_time` of what was opened, where it tells one database from a later one of its name. In CouchDB that is when it
    /// was made, in its first versions and in pouchdb-server when it was opened; "0" was given out between, and says nothing.
    opened: Mutex<Option<Value>>,
}

#[derive(Deserialize)]
struct PageBody {
    results: Vec<RowBody>,
    last_seq: Value,
    pending: Option<u64>,
}

#[derive(Deserialize)]
struct RowBody {
    id: String,
    changes: Vec<RevBody>,
}

#[derive(Deserialize)]
struct RevBody {
    rev: String,
}

#[derive(Deserialize)]
struct Difference {
    #[serde(default)]
    missing: Vec<String>,
    #[serde(default)]
    possible_ancestors: Vec<String>,
}

impl HttpPeer {
    /// The database whose URL is that of `client`.
    pub(super) fn new(client: Client, filter: Filter) -> HttpPeer {
        HttpPeer {
            client,
            filter,
            is_plain: AtomicBool::new(false),
            opened: Mutex::default(),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<Value>> {
        self.opened
            .lock()
            .expect("no thread panics while it holds a value")
    }

    async fn info(&self) -> Result<Value, Failure> {
        self.json(Request::new(Method::GET, "/"), ANSWER_BYTES_MAX).await
    }

    /// Fails where another database has the name of the one that was opened by now: it lacks what was stored.
    async fn check_opened(&self) -> Result<(), Failure> {
        let opened = self.opened().clone();
        if opened.is_some() && opened.as_ref() != self.info().await?.get("instance_start_time") {
            let reason = format!("{} was deleted or opened anew", self.client.url());
            return Err(Failure::new(Trouble::Missing, reason));
        }
        Ok(())
    }

    async fn ask(&self, request: Request) -> Result<Response, Failure> {
        let answer = self.client.ask(request.patience(Patience::Of(PATIENCE))).await;
        answer.map_err(failure)
    }

    async fn json(&self, request: Request, limit: usize) -> Result<Value, Failure> {
        let bytes = self.ask(request).await?.whole(limit).await.map_err(failure)?;
        serde_json::from_slice(&bytes).map_err(|_| self.lie("no JSON, or deeper than any that is taken"))
    }

    fn lie(&self, what: &str) -> Failure {
        Failure::lie(format!("{} answers {what}", self.client.url()))
    }

    fn changes_request(&self, ask: &ChangesAsk) -> Request {
        let since = utf8_percent_encode(&ask.since.to_query(), PATH).to_string();
        let mut path = format!("/_changes?style=all_docs&since={since}&limit={}", ask.limit);
        if ask.wait {
            path.push_str(&format!(
                "&feed=longpoll&timeout={WAIT_MS}&heartbeat={HEARTBEAT_MS}"
            ));
        }
        let (filter, body) = match &self.filter {
            Filter::All => return Request::new(Method::GET, path),
            Filter::Ids(ids) => ("_doc_ids", json!({"doc_ids": **ids})),
            Filter::Selector(_, selector) => ("_selector", json!({"selector": selector})),
        };
        Request::new(Method::POST, format!("{path}&filter={filter}")).json(&body)
    }

    fn page_of(&self, body: PageBody, limit: usize) -> Result<Page, Failure> {
        if body.results.len() > limit {
            return Err(self.lie("more changes than were asked for"));
        }
        let mut page = Page {
            rows: Vec::with_capacity(body.results.len()),
            skipped: 0,
            last_seq: PeerSeq::of_json(body.last_seq).ok_or_else(|| self.lie("a last_seq that is none"))?,
            pending: body.pending,
        };
        for row in body.results {
            let is_asked = match &self.filter {
                Filter::Ids(ids) => ids.contains(&row.id),
                Filter::All | Filter::Selector(..) => true,
            };
            let id = row.id.parse::<DocId>();
            let revs: Result<Vec<Rev>, _> = row
                .changes
                .iter()
                .map(|change| change.rev.parse::<Rev>())
                .collect();
            match (id, revs) {
                (Ok(id), Ok(revs)) if is_asked && !revs.is_empty() => page.rows.push(Row { id, revs }),
                (Ok(_), Ok(_)) if !is_asked => {}
                _ => {
                    page.skipped += 1;
                    tracing::warn!(peer = %self.client.url(), "a document whose id or revision is none here is left out");
                }
            }
        }
        Ok(page)
    }
}

/// A path below the database: each part with what no path has escaped.
fn path_of(id: &DocId) -> String {
    match id.as_str().strip_prefix("_design/") {
        Some(name) => format!("/_design/{}", utf8_percent_encode(name, PATH)),
        None => format!("/{}", utf8_percent_encode(id.as_str(), PATH)),
    }
}

fn query(json: &Value) -> String {
    utf8_percent_encode(&json.to_string(), PATH).to_string()
}

/// What a failed request means for a replication.
fn failure(error: HttpError) -> Failure {
    let trouble = match &error {
        HttpError::Unreachable { .. } | HttpError::Silent { .. } | HttpError::Broken { .. } => {
            Trouble::Passing
        }
        HttpError::Impostor { .. } | HttpError::Forbidden { .. } | HttpError::Unproven { .. } => {
            Trouble::Refused
        }
        HttpError::Unexpected { .. } => Trouble::Lie,
        HttpError::Tls(_) => Trouble::Fatal,
        HttpError::Refused { refusal, .. } => match refusal.status.as_u16() {
            401 | 403 | 421 => Trouble::Refused,
            404 => Trouble::Missing,
            409 => Trouble::Conflict,
            412 => Trouble::Stub,
            408 | 425 | 429 | 500..=599 if refusal.status.as_u16() != 501 => Trouble::Passing,
            _ => Trouble::Fatal,
        },
    };
    let reason = error.to_string();
    let cut: String = reason
        .chars()
        .filter(|c| !c.is_control())
        .take(REASON_CHARS_MAX)
        .collect();
    Failure::new(trouble, cut)
}

/// The status of a refusal.
fn status(error: &HttpError) -> u16 {
    error.refusal().map_or(0, |refusal| refusal.status.as_u16())
}

impl Peer for HttpPeer {
    fn open(&self) -> Answering<'_, bool> {
        Box::pin(async {
            match self.info().await {
                Ok(info) if info.get("update_seq").is_some() => {
                    let started = info.get("instance_start_time");
                    *self.opened() = started.filter(|started| **started != "0").cloned();
                    Ok(true)
                }
                Ok(_) => Err(Failure::fatal(format!(
                    "{} is no database: its URL ends with the database's name",
                    self.client.url()
                ))),
                Err(failure) if failure.trouble == Trouble::Missing => Ok(false),
                Err(failure) => Err(failure),
            }
        })
    }

    fn create(&self) -> Answering<'_, ()> {
        Box::pin(async {
            let request = Request::new(Method::PUT, "/").patience(Patience::Of(PATIENCE));
            match self.client.ask(request).await {
                Err(error) if status(&error) != 412 => Err(failure(error)),
                Ok(_) | Err(_) => self.open().await.map(drop),
            }
        })
    }

    fn commit(&self) -> Answering<'_, ()> {
        Box::pin(async {
            let request = Request::new(Method::POST, "/_ensure_full_commit").json(&json!({}));
            match self.client.ask(request.patience(Patience::Of(PATIENCE))).await {
                Ok(_) => Ok(()),
                // A server that has none puts everything there at once, or never says so.
                Err(error) if matches!(status(&error), 404 | 405 | 501) => Ok(()),
                Err(error) => Err(failure(error)),
            }
        })
    }

    fn checkpoint(&self, id: LocalId) -> Answering<'_, Option<Kept>> {
        Box::pin(async move {
            let request = Request::new(Method::GET, format!("/{id}"));
            match self.json(request, ANSWER_BYTES_MAX).await {
                Ok(kept) => {
                    let rev = kept.get("_rev").and_then(Value::as_str);
                    let rev = rev
                        .ok_or_else(|| self.lie("a local document without a _rev"))?
                        .to_owned();
                    let checkpoint = serde_json::from_value(kept).ok();
                    Ok(Some(Kept { rev, checkpoint }))
                }
                Err(failure) if failure.trouble == Trouble::Missing => Ok(None),
                Err(failure) => Err(failure),
            }
        })
    }

    fn keep(&self, id: LocalId, rev: Option<String>, checkpoint: Checkpoint) -> Answering<'_, String> {
        Box::pin(async move {
            self.check_opened().await?;
            let mut body = serde_json::to_value(&checkpoint).expect("a checkpoint is JSON");
            body["_id"] = json!(id);
            if let Some(rev) = rev {
                body["_rev"] = json!(rev);
            }
            let request = Request::new(Method::PUT, format!("/{id}")).json(&body);
            let kept = self.json(request, ANSWER_BYTES_MAX).await?;
            let rev = kept.get("rev").and_then(Value::as_str);
            Ok(rev
                .ok_or_else(|| self.lie("no revision for what it kept"))?
                .to_owned())
        })
    }

    fn changes(&self, ask: ChangesAsk) -> Answering<'_, Page> {
        Box::pin(async move {
            let request = self.changes_request(&ask);
            // Heartbeats keep a connection from looking dead: the time of the whole answer is bounded instead.
            let reading = async {
                let bytes = self
                    .ask(request)
                    .await?
                    .whole(LIST_BYTES_MAX)
                    .await
                    .map_err(failure)?;
                serde_json::from_slice(&bytes).map_err(|_| self.lie("a list of changes that is none"))
            };
            let patience = if ask.wait { WAIT_PATIENCE } else { LIST_PATIENCE };
            let body = match tokio::time::timeout(patience, reading).await {
                Ok(body) => body,
                Err(_) if ask.wait => {
                    return Ok(Page {
                        rows: Vec::new(),
                        skipped: 0,
                        last_seq: ask.since,
                        pending: None,
                    });
                }
                Err(_) => {
                    let reason = format!("{} does not end its list of changes", self.client.url());
                    return Err(Failure::new(Trouble::Passing, reason));
                }
            };
            self.page_of(body?, ask.limit)
        })
    }

    fn differ<'a>(&'a self, rows: &'a [Row]) -> Answering<'a, Vec<Wanted>> {
        Box::pin(async move {
            let asked: BTreeMap<&str, Vec<String>> = rows
                .iter()
                .map(|row| (row.id.as_str(), row.revs.iter().map(Rev::to_string).collect()))
                .collect();
            let request = Request::new(Method::POST, "/_revs_diff").json(&asked);
            let answer = self.json(request, LIST_BYTES_MAX).await?;
            let differences: BTreeMap<String, Difference> =
                serde_json::from_value(answer).map_err(|_| self.lie("differences that are none"))?;
            let mut wanted = Vec::with_capacity(differences.len());
            for row in rows {
                let Some(difference) = differences.get(row.id.as_str()) else {
                    continue;
                };
                let is_missing = |rev: &&Rev| {
                    difference
                        .missing
                        .iter()
                        .any(|missing| *missing == rev.to_string())
                };
                let revs: Vec<Rev> = row.revs.iter().filter(is_missing).cloned().collect();
                if !revs.is_empty() {
                    wanted.push(Wanted {
                        id: row.id.clone(),
                        revs,
                        ancestors: difference
                            .possible_ancestors
                            .iter()
                            .filter_map(|rev| rev.parse().ok())
                            .collect(),
                    });
                }
            }
            Ok(wanted)
        })
    }

    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> Answering<'a, Box<dyn Revisions + 'a>> {
        Box::pin(async move {
            let mut answer = None;
            if !self.is_plain.load(Ordering::Relaxed) {
                match self.bulk_get(wanted).await {
                    Ok(response) => answer = Some((response, Bytes::new())),
                    Err(error) if matches!(status(&error), 400 | 404 | 405 | 501) => {
                        self.is_plain.store(true, Ordering::Relaxed);
                    }
                    Err(error) => return Err(failure(error)),
                }
            }
            let fetched = Fetched {
                peer: self,
                wanted,
                asked: 0,
                answer,
                items: Items::new(ITEM_BYTES_MAX),
                is_bulk: !self.is_plain.load(Ordering::Relaxed),
                ready: VecDeque::new(),
            };
            Ok(Box::new(fetched) as Box<dyn Revisions + 'a>)
        })
    }

    fn attachment<'a>(&'a self, of: &'a Revision, name: &'a str) -> Answering<'a, Box<dyn Pieces>> {
        Box::pin(async move {
            let path = format!(
                "{}/{}?rev={}",
                path_of(&of.id),
                utf8_percent_encode(name, PATH),
                utf8_percent_encode(&of.rev().to_string(), PATH)
            );
            let response = self.ask(Request::new(Method::GET, path)).await?;
            Ok(Box::new(AnswerPieces(response)) as Box<dyn Pieces>)
        })
    }

    fn store<'a>(
        &'a self,
        revisions: Vec<(Revision, &'a [Rev])>,
        source: &'a dyn Peer,
    ) -> Answering<'a, Moved> {
        Box::pin(push::store(self, revisions, source))
    }
}

impl HttpPeer {
    async fn bulk_get(&self, wanted: &[Wanted]) -> Result<Response, HttpError> {
        let docs: Vec<Value> = wanted
            .iter()
            .flat_map(|one| one.revs.iter().map(|rev| json!({"id": one.id, "rev": rev})))
            .collect();
        let path = "/_bulk_get?revs=true&latest=true&attachments=false&att_encoding_info=true";
        let request = Request::new(Method::POST, path).json(&json!({ "docs": docs }));
        self.client.ask(request.patience(Patience::Of(PATIENCE))).await
    }

    /// Leaves of one document, where a peer has no `_bulk_get`.
    async fn open_revs(&self, id: &DocId, revs: &[Rev]) -> Result<Response, Failure> {
        let revs: Vec<String> = revs.iter().map(Rev::to_string).collect();
        let path = format!(
            "{}?revs=true&latest=true&att_encoding_info=true&open_revs={}",
            path_of(id),
            query(&json!(revs))
        );
        self.ask(Request::new(Method::GET, path).header("accept", "application/json"))
            .await
    }
}

/// Revisions out of one answer, or out of one for each document.
struct Fetched<'a> {
    peer: &'a HttpPeer,
    wanted: &'a [Wanted],
    /// Revisions that were asked for one document after the other.
    asked: usize,
    /// An answer, and what was read of it and not taken.
    answer: Option<(Response, Bytes)>,
    items: Items,
    is_bulk: bool,
    ready: VecDeque<Revision>,
}

impl Revisions for Fetched<'_> {
    fn next<'a>(&'a mut self, room: &'a mut Room) -> Answering<'a, Option<Revision>> {
        Box::pin(async move {
            loop {
                if let Some(revision) = self.ready.pop_front() {
                    return Ok(Some(revision));
                }
                if self.answer.is_none() && !self.begin().await? {
                    return Ok(None);
                }
                if let Some(item) = self.item(room).await? {
                    let text = String::from_utf8(item).map_err(|_| self.peer.lie("what is no UTF-8"))?;
                    let found = match self.is_bulk {
                        true => parse::results_item(&text, self.wanted),
                        false => parse::open_revs_item(&text, self.wanted),
                    };
                    self.ready = found.map_err(|what| self.peer.lie(&what))?.into();
                }
            }
        })
    }

    fn waits(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl Fetched<'_> {
    /// Asks for the next document by itself; false at the end.
    async fn begin(&mut self) -> Result<bool, Failure> {
        if self.is_bulk {
            return Ok(false);
        }
        let Some(one) = self.wanted.first() else {
            return Ok(false);
        };
        let until = one.revs.len().min(self.asked + OPEN_REVS_MAX);
        let response = self.peer.open_revs(&one.id, &one.revs[self.asked..until]).await?;
        self.items = Items::new(ITEM_BYTES_MAX);
        self.answer = Some((response, Bytes::new()));
        self.asked = until;
        Ok(true)
    }

    /// The next item of the answer; `None` at its end.
    async fn item(&mut self, room: &mut Room) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let Some((response, left)) = &mut self.answer else {
                return Ok(None);
            };
            let item = self.items.take(left);
            match item.map_err(|_| self.peer.lie("no list of revisions, or one that is too long"))? {
                Some(item) => return Ok(Some(item)),
                None if self.items.held_bytes() > LARGE_BYTES && !room.is_for_large() => {
                    room.for_large().await?;
                }
                None => match response.next().await.map_err(failure)? {
                    Some(bytes) => *left = bytes,
                    None => {
                        self.ended()?;
                        return Ok(None);
                    }
                },
            }
        }
    }

    fn ended(&mut self) -> Result<(), Failure> {
        self.answer = None;
        if !self.items.is_over() {
            return Err(self.peer.lie("a list of revisions without an end"));
        }
        if !self.is_bulk
            && self
                .wanted
                .first()
                .is_some_and(|one| self.asked >= one.revs.len())
        {
            self.wanted = &self.wanted[1..];
            self.asked = 0;
        }
        Ok(())
    }
}

struct AnswerPieces(Response);

impl Pieces for AnswerPieces {
    fn next(&mut self) -> Answering<'_, Option<Bytes>> {
        Box::pin(async { self.0.next().await.map_err(failure) })
    }
}
