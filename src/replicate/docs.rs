//! The database `_replicator`: its documents ask for replications, and are told how those ended.
//!
//! As with CouchDB 3, a document gets `_replication_state` `completed` or `failed` and nothing in between; what goes on is in
//! `/db/_scheduler`. One that has a state is not begun again until it is written without it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::id::{DbName, DocId, Rev, SecretName, Seq};
use crate::node::{
    self, AttachmentEdit, ChangesQuery, Db, Delivery, Doc, DocumentBody, Edit, Endpoint, Event, Job, Node,
    Opens, ReplicationError, ReplicationRequest, Subscription,
};

/// Documents that are read at once.
const PAGE_DOCS: usize = 64;

/// How long to wait after the database could not be read.
const RETRY: Duration = Duration::from_secs(5);

/// What a document wants.
pub(super) enum Wish {
    /// A replication from now on, in place of any that it wanted before; or what is wrong with what it says.
    Start(DocId, Result<Box<ReplicationRequest>, ReplicationError>),
    /// None any more.
    Stop(DocId),
}

/// The database, and how far it was read.
pub(super) struct Docs {
    node: Node,
    name: DbName,
    events: Subscription,
    opened: Option<Opened>,
    /// When to look for it, at first and where it could not be read.
    look_at: Option<Instant>,
    /// What is asked for by documents, as of these revisions.
    begun: BTreeMap<DocId, Rev>,
}

struct Opened {
    db: Db,
    updated: tokio::sync::watch::Receiver<Seq>,
    gone: CancellationToken,
    since: Seq,
    is_read: bool,
}

impl Docs {
    pub(super) fn new(node: Node) -> Docs {
        Docs {
            name: Node::replicator_db(),
            events: node.events().subscribe(None),
            node,
            opened: None,
            look_at: Some(Instant::now()),
            begun: BTreeMap::new(),
        }
    }

    /// Returns once there may be something to read. May be cancelled.
    pub(super) async fn changed(&mut self) {
        match &mut self.opened {
            Some(opened) if !opened.is_read => {}
            Some(opened) => tokio::select! {
                _ = opened.updated.changed() => {}
                () = opened.gone.cancelled() => {}
            },
            None => loop {
                let look_at = self.look_at;
                let due = async {
                    match look_at {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = due => return,
                    delivery = self.events.next() => match delivery {
                        Delivery::Event(_, Event::DatabaseAdded { database }) if database == self.name => return,
                        Delivery::Gap(_) => return,
                        Delivery::Event(..) => {}
                    }
                }
            },
        }
    }

    /// What documents want that were written since this was asked last.
    pub(super) async fn read(&mut self) -> Vec<Wish> {
        if self
            .opened
            .as_ref()
            .is_some_and(|opened| opened.gone.is_cancelled())
        {
            self.opened = None;
            let begun = std::mem::take(&mut self.begun);
            return begun.into_keys().map(Wish::Stop).collect();
        }
        if self.opened.is_none() && !self.open().await {
            return Vec::new();
        }
        let mut wishes = Vec::new();
        loop {
            let page = self.page().await;
            if page.is_empty() {
                return wishes;
            }
            for doc in page {
                if let Some(wish) = self.wish(doc).await {
                    wishes.push(wish);
                }
            }
        }
    }

    async fn open(&mut self) -> bool {
        self.look_at = None;
        match self.node.documents().get(self.name.clone()).await {
            Ok(db) => {
                self.opened = Some(Opened {
                    updated: db.updated(),
                    gone: db.gone().clone(),
                    db,
                    since: Seq::ZERO,
                    is_read: false,
                });
                true
            }
            Err(node::Error::Missing { .. }) => false,
            Err(error) => {
                tracing::error!(%error, "the database _replicator cannot be opened: it is tried again");
                self.look_at = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    /// The next documents, the earliest change first; empty where there are none.
    async fn page(&mut self) -> Vec<Doc> {
        let Some(opened) = &mut self.opened else {
            return Vec::new();
        };
        opened.updated.borrow_and_update();
        opened.is_read = true;
        let query = ChangesQuery {
            since: opened.since,
            limit: PAGE_DOCS,
            docs: true,
            ..ChangesQuery::default()
        };
        let read = opened.db.run(move |database| {
            let mut docs = Vec::new();
            let end = database.changes(&query, &mut |change| {
                docs.extend(change.doc);
                ControlFlow::Continue(())
            })?;
            Ok((docs, end.last))
        });
        match read.await {
            Ok((docs, last)) => {
                opened.since = last;
                docs
            }
            Err(error) => {
                tracing::error!(%error, "the database _replicator cannot be read");
                Vec::new()
            }
        }
    }

    async fn wish(&mut self, doc: Doc) -> Option<Wish> {
        if doc.id.is_design() || self.begun.get(&doc.id) == Some(doc.rev()) {
            return None;
        }
        let body: Value = serde_json::from_str(doc.body.as_str()).unwrap_or_default();
        let is_over = body.get("_replication_state").is_some();
        if doc.deleted || is_over {
            let was_begun = self.begun.remove(&doc.id).is_some();
            if doc.deleted {
                self.forget_secrets(&doc.id, &[]).await;
            }
            return (was_begun || doc.deleted).then_some(Wish::Stop(doc.id));
        }
        let parsed = ReplicationRequest::parse(&body);
        let request = match parsed {
            Ok(request) => request,
            Err(error) => return Some(Wish::Start(doc.id, Err(error))),
        };
        if has_inline(&request) {
            // It was written by other means than the API, which takes them out before.
            self.put_away(doc).await;
            return None;
        }
        self.begun.insert(doc.id.clone(), doc.rev().clone());
        self.forget_secrets(&doc.id, &secrets_of(&request)).await;
        let request = ReplicationRequest {
            doc_id: Some(doc.id.to_string()),
            ..request
        };
        Some(Wish::Start(doc.id, Ok(Box::new(request))))
    }

    async fn put_away(&mut self, doc: Doc) {
        let id = doc.id.clone();
        let edit = Edit::New {
            parent: Some(doc.rev().clone()),
            attachments: stubs(&doc),
            id: doc.id,
            deleted: false,
            body: doc.body,
        };
        match self.node.put_away(vec![edit]).await {
            Ok(edits) => self.save(edits).await,
            Err(error) => self.failed(&id, None, &error.to_string()).await,
        }
    }

    async fn save(&self, edits: Vec<Edit>) {
        let Some(opened) = &self.opened else {
            return;
        };
        // One that was changed meanwhile is read again anyway.
        if let Err(error) = opened.db.save_docs(edits).await {
            tracing::error!(%error, "a document of _replicator cannot be told how its replication is");
        }
    }

    async fn forget_secrets(&self, id: &DocId, named: &[SecretName]) {
        if let Err(error) = self.node.forget_secrets_of(id, named).await {
            tracing::warn!(%error, "secrets of a replication cannot be removed");
        }
    }

    /// Writes down that what a document asks for is done.
    pub(super) async fn completed(&mut self, id: &DocId, job: &Job) {
        let stats = serde_json::to_value(&job.stats).expect("numbers are JSON");
        let mut fields = fields("completed");
        fields.insert("_replication_id".to_owned(), json!(job.id));
        fields.insert("_replication_stats".to_owned(), stats);
        self.tell(id, fields).await;
    }

    /// Writes down that what a document asks for can't be done.
    pub(super) async fn failed(&mut self, id: &DocId, job_id: Option<&str>, reason: &str) {
        let mut fields = fields("failed");
        fields.insert("_replication_state_reason".to_owned(), json!(reason));
        if let Some(job_id) = job_id {
            fields.insert("_replication_id".to_owned(), json!(job_id));
        }
        self.tell(id, fields).await;
    }

    async fn tell(&mut self, id: &DocId, fields: Map<String, Value>) {
        let begun = self.begun.remove(id);
        let Some(opened) = &self.opened else {
            return;
        };
        let wanted = id.clone();
        let found = opened.db.run(move |database| database.open_doc(&wanted)).await;
        let Ok(Some(doc)) = found else {
            return;
        };
        let is_another = begun.is_some_and(|begun| begun != *doc.rev());
        let Ok(Value::Object(mut members)) = serde_json::from_str(doc.body.as_str()) else {
            return;
        };
        if is_another || doc.deleted {
            return;
        }
        members.extend(fields);
        let edit = Edit::New {
            parent: Some(doc.rev().clone()),
            attachments: stubs(&doc),
            id: doc.id,
            deleted: false,
            body: DocumentBody::from(Value::Object(members).to_string()),
        };
        self.save(vec![edit]).await;
    }
}

/// What hangs on a document stays.
fn stubs(doc: &Doc) -> BTreeMap<String, AttachmentEdit> {
    let names = doc.attachments.keys();
    names.map(|name| (name.clone(), AttachmentEdit::Stub)).collect()
}

fn fields(state: &str) -> Map<String, Value> {
    let now = OffsetDateTime::from(SystemTime::now()).replace_nanosecond(0);
    let now = now
        .ok()
        .and_then(|now| now.format(&Rfc3339).ok())
        .unwrap_or_default();
    let mut fields = Map::new();
    fields.insert("_replication_state".to_owned(), json!(state));
    fields.insert("_replication_state_time".to_owned(), json!(now));
    fields
}

fn has_inline(request: &ReplicationRequest) -> bool {
    [&request.source, &request.target]
        .into_iter()
        .any(|endpoint| match endpoint {
            Endpoint::Remote(remote) => matches!(remote.opens, Some(Opens::Basic { .. } | Opens::Bearer(_))),
            Endpoint::Local(_) => false,
        })
}

fn secrets_of(request: &ReplicationRequest) -> Vec<SecretName> {
    let endpoints = [&request.source, &request.target].into_iter();
    endpoints
        .filter_map(|endpoint| match endpoint {
            Endpoint::Remote(remote) => match &remote.opens {
                Some(Opens::Secret(name)) => Some(name.clone()),
                Some(Opens::Basic { .. } | Opens::Bearer(_)) | None => None,
            },
            Endpoint::Local(_) => None,
        })
        .collect()
}
