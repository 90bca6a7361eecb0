//! A database of this node as a side of a replication.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::checkpoint::{Checkpoint, PeerSeq};
use super::peer::{
    Answering, ChangesAsk, Failure, Hung, Kept, Moved, Page, Peer, Pieces, Revision, Revisions, Row, Trouble,
    Wanted,
};
use super::transfer::{LARGE_BYTES, Room};
use crate::id::{DbName, DbUuid, DocId, LocalId, Rev, Seq};
use crate::node::{
    self, Attaching, Attachment, AttachmentEdit, ChangesQuery, Coding, Db, Doc, DocumentBody, Edit, Expected,
    MangoSelector, Node, Reading, Unpacking, Which,
};

/// Rows that are looked at for one page, so that a filter that passes little answers now and then.
const SCANNED_MAX: usize = 5_000;

/// Rows that are read with their documents at once, for a selector.
const DOC_ROWS: usize = 64;

/// How long a question for changes waits for one.
const WAIT: Duration = Duration::from_secs(30);

/// Bytes of documents that are read ahead.
const AHEAD_BYTES: usize = 512 * 1024;

/// Which documents a source tells of.
#[derive(Clone, Default)]
pub(super) enum Filter {
    /// All.
    #[default]
    All,
    /// These.
    Ids(Arc<BTreeSet<String>>),
    /// Those that match: parsed, and as it was written.
    Selector(Arc<MangoSelector>, Value),
}

/// A database of this node.
pub(super) struct LocalPeer {
    node: Node,
    name: DbName,
    filter: Filter,
    /// What was opened: one that is made under its name later lacks what was stored, and what is known of checkpoints is not of it.
    opened: Mutex<Option<DbUuid>>,
}

impl LocalPeer {
    /// The database of this name, whether it is there or not.
    pub(super) fn new(node: Node, name: DbName, filter: Filter) -> LocalPeer {
        LocalPeer {
            node,
            name,
            filter,
            opened: Mutex::default(),
        }
    }

    /// The database that was opened.
    async fn db(&self) -> Result<Db, Failure> {
        let db = self.node.documents().get(self.name.clone()).await?;
        match *self.opened() {
            Some(opened) if opened != db.uuid() => Err(self.deleted()),
            _ => Ok(db),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<DbUuid>> {
        self.opened
            .lock()
            .expect("no thread panics while it holds a uuid")
    }

    fn deleted(&self) -> Failure {
        Failure::new(Trouble::Missing, format!("{} was deleted", self.name))
    }

    async fn page(&self, db: &Db, ask: &ChangesAsk) -> Result<Page, Failure> {
        let mut since = seq_of(db, &ask.since)?;
        let (mut rows, mut scanned) = (Vec::new(), 0);
        loop {
            let with_docs = matches!(self.filter, Filter::Selector(..));
            let limit = match &self.filter {
                Filter::All => ask.limit,
                Filter::Ids(_) => SCANNED_MAX,
                Filter::Selector(..) => DOC_ROWS,
            };
            let filter = self.filter.clone();
            let query = ChangesQuery {
                since,
                limit,
                docs: with_docs,
                ..ChangesQuery::default()
            };
            let room = ask.limit - rows.len();
            let (mut found, seen, last, pending) = db
                .run(move |database| read(database, &query, &filter, room))
                .await?;
            rows.append(&mut found);
            scanned += seen;
            since = last;
            let is_full = rows.len() >= ask.limit || scanned >= SCANNED_MAX;
            if pending == 0 || is_full {
                return Ok(Page {
                    rows,
                    skipped: 0,
                    last_seq: db.seq_text(since).into(),
                    pending: Some(pending),
                });
            }
        }
    }

    /// An edit with all that hangs on it in the coffer.
    async fn prepared(&self, db: &Db, revision: Revision, source: &dyn Peer) -> Result<Edit, Failure> {
        let mut attachments = std::collections::BTreeMap::new();
        if !revision.attachments.is_empty() {
            let id = revision.id.clone();
            let leaves = db.run(move |database| database.open_leaves(&id)).await?;
            for (name, hung) in &revision.attachments {
                // What was set aside as damaged is brought again; what is there is leased by the look.
                let found = match held(&leaves, hung) {
                    Some(held) => db.blobs().stat(vec![held.blob]).await?[0].and(Some(held)),
                    None => None,
                };
                let attachment = match found {
                    Some(held) => Attachment {
                        content_type: hung.content_type.clone(),
                        revpos: hung.revpos,
                        ..held.clone()
                    },
                    None => received(db, &revision, name, hung, source).await?,
                };
                attachments.insert(name.clone(), AttachmentEdit::Stored(attachment));
            }
        }
        Ok(Edit::Replicated {
            id: revision.id,
            revisions: revision.revisions,
            deleted: revision.deleted,
            body: revision.body,
            attachments,
        })
    }
}

/// Rows that pass, how many were looked at, where to go on, and how many are left to look at.
type Scan = (Vec<Row>, usize, Seq, u64);

fn read(
    database: &node::Database,
    query: &ChangesQuery,
    filter: &Filter,
    room: usize,
) -> Result<Scan, node::DatabaseError> {
    let (mut rows, mut seen, mut last) = (Vec::new(), 0, query.since);
    let end = database.changes(query, &mut |change| {
        seen += 1;
        last = change.seq;
        let passes = match filter {
            Filter::All => true,
            Filter::Ids(ids) => ids.contains(change.id.as_str()),
            Filter::Selector(selector, _) => change
                .doc
                .as_ref()
                .is_some_and(|doc| selector.matches(&whole(doc))),
        };
        if passes {
            let revs = change.leaves.into_iter().map(|leaf| leaf.rev).collect();
            rows.push(Row { id: change.id, revs });
        }
        match rows.len() < room {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    let is_cut = rows.len() >= room || seen >= query.limit;
    let last = if is_cut { last } else { end.last };
    Ok((rows, seen, last, end.pending))
}

/// A document as selectors see it.
fn whole(doc: &Doc) -> Value {
    let mut value: Value = serde_json::from_str(doc.body.as_str()).unwrap_or_default();
    if let Value::Object(members) = &mut value {
        members.insert("_id".to_owned(), Value::from(doc.id.as_str()));
        members.insert("_rev".to_owned(), Value::from(doc.rev().to_string()));
        if doc.deleted {
            members.insert("_deleted".to_owned(), Value::from(true));
        }
    }
    value
}

/// The same bytes on another revision of the document.
fn held<'a>(leaves: &'a [Doc], hung: &Hung) -> Option<&'a Attachment> {
    let mut all = leaves.iter().flat_map(|leaf| leaf.attachments.values());
    all.find(|held| Some(held.digest) == hung.digest && held.length == hung.length)
}

async fn received(
    db: &Db,
    revision: &Revision,
    name: &str,
    hung: &Hung,
    source: &dyn Peer,
) -> Result<Attachment, Failure> {
    let mut pieces = source.attachment(revision, name).await?;
    let mut attaching = Attaching::begin(db.blobs(), Coding::Identity)?;
    while let Some(bytes) = pieces.next().await? {
        if attaching.length() + bytes.len() as u64 > hung.length {
            return Err(wrong_bytes(revision, name));
        }
        attaching.write(bytes).await?;
    }
    let expected = Expected {
        digest: hung.digest,
        length: Some(hung.length),
    };
    let attached = attaching.finish(expected).await.map_err(|error| match error {
        node::Error::Mismatch { .. } => wrong_bytes(revision, name),
        error => error.into(),
    })?;
    Ok(Attachment {
        content_type: hung.content_type.clone(),
        revpos: hung.revpos,
        digest: attached.digest,
        length: attached.length,
        blob: attached.blob,
        encoded: None,
    })
}

/// An attachment is not what its document says.
pub(super) fn wrong_bytes(revision: &Revision, name: &str) -> Failure {
    let Revision { id, .. } = revision;
    Failure::lie(format!(
        "the attachment {name:?} of {id} is not what its document says: nothing of it was stored"
    ))
}

fn seq_of(db: &Db, seq: &PeerSeq) -> Result<Seq, Failure> {
    let seq = db.seq_from_text(&seq.to_query());
    seq.map_err(|_| Failure::fatal("since_seq is no sequence of the source"))
}

impl Peer for LocalPeer {
    fn open(&self) -> Answering<'_, bool> {
        Box::pin(async {
            match self.node.documents().get(self.name.clone()).await {
                Ok(db) => {
                    *self.opened() = Some(db.uuid());
                    Ok(true)
                }
                Err(node::Error::Missing { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn create(&self) -> Answering<'_, ()> {
        Box::pin(async {
            let options = node::DatabaseOptions::default();
            match self.node.documents().create(self.name.clone(), options).await {
                Ok(_) | Err(node::Error::Conflict { .. }) => self.open().await.map(drop),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Everything that was answered is durable, where it is there still.
    fn commit(&self) -> Answering<'_, ()> {
        Box::pin(async { self.db().await.map(drop) })
    }

    fn checkpoint(&self, id: LocalId) -> Answering<'_, Option<Kept>> {
        Box::pin(async move {
            let kept = self
                .db()
                .await?
                .run(move |database| database.local_get(&id))
                .await?;
            Ok(kept.map(|kept| Kept {
                rev: format!("0-{}", kept.edits),
                checkpoint: serde_json::from_str(kept.body.as_str()).ok(),
            }))
        })
    }

    fn keep(&self, id: LocalId, rev: Option<String>, checkpoint: Checkpoint) -> Answering<'_, String> {
        Box::pin(async move {
            let parent = rev.and_then(|rev| rev.strip_prefix("0-")?.parse().ok());
            let json = serde_json::to_string(&checkpoint).expect("a checkpoint is JSON");
            let body = DocumentBody::parse(&json).map_err(|error| Failure::fatal(error.to_string()))?;
            let db = self.db().await?;
            let kept = db
                .run(move |database| database.local_put(&id, parent, body))
                .await?;
            match kept {
                Ok(edits) => Ok(format!("0-{edits}")),
                Err(refused) => Err(Failure::new(Trouble::Conflict, refused.to_string())),
            }
        })
    }

    fn changes(&self, ask: ChangesAsk) -> Answering<'_, Page> {
        Box::pin(async move {
            let db = self.db().await?;
            // Before it is read: a change after this wakes whoever waits.
            let mut updated = db.updated();
            updated.borrow_and_update();
            let page = self.page(&db, &ask).await?;
            if !ask.wait || !page.rows.is_empty() || page.last_seq != ask.since {
                return Ok(page);
            }
            tokio::select! {
                () = db.gone().cancelled() => Err(self.deleted()),
                _ = tokio::time::timeout(WAIT, updated.changed()) => self.page(&db, &ask).await,
            }
        })
    }

    fn differ<'a>(&'a self, rows: &'a [Row]) -> Answering<'a, Vec<Wanted>> {
        let asked: Vec<_> = rows
            .iter()
            .map(|row| (row.id.clone(), row.revs.clone()))
            .collect();
        Box::pin(async move {
            let missing = self
                .db()
                .await?
                .run(move |database| database.revs_diff(&asked))
                .await?;
            Ok(missing
                .into_iter()
                .map(|missing| Wanted {
                    id: missing.id,
                    revs: missing.revs,
                    ancestors: missing.possible_ancestors,
                })
                .collect())
        })
    }

    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> Answering<'a, Box<dyn Revisions + 'a>> {
        Box::pin(async move {
            let leaves = Leaves {
                db: self.db().await?,
                wanted,
                more: VecDeque::new(),
                ahead: VecDeque::new(),
            };
            Ok(Box::new(leaves) as Box<dyn Revisions + 'a>)
        })
    }

    fn attachment<'a>(&'a self, of: &'a Revision, name: &'a str) -> Answering<'a, Box<dyn Pieces>> {
        Box::pin(async move {
            let hung = of.attachments.get(name).ok_or_else(|| wrong_bytes(of, name))?;
            let blob = hung.blob.ok_or_else(|| wrong_bytes(of, name))?;
            let reading = self.db().await?.blobs().get(blob).await?;
            Ok(match hung.digest {
                Some(_) => Box::new(BlobPieces { reading, offset: 0 }) as Box<dyn Pieces>,
                None => Box::new(Unpacking::new(reading)),
            })
        })
    }

    fn store<'a>(
        &'a self,
        revisions: Vec<(Revision, &'a [Rev])>,
        source: &'a dyn Peer,
    ) -> Answering<'a, Moved> {
        Box::pin(async move {
            let db = self.db().await?;
            let mut edits = Vec::with_capacity(revisions.len());
            for (revision, _) in revisions {
                edits.push(self.prepared(&db, revision, source).await?);
            }
            let saved = db.save_docs(edits).await?;
            let mut moved = Moved::default();
            for saved in saved {
                match saved {
                    Ok(_) => moved.written += 1,
                    Err(refused) => {
                        moved.refused += 1;
                        tracing::warn!(database = %self.name, error = %refused, "a replicated document was refused");
                    }
                }
            }
            Ok(moved)
        })
    }
}

/// Leaves that are the revisions that are wanted, or follow them.
struct Leaves<'a> {
    db: Db,
    wanted: &'a [Wanted],
    /// Leaves of documents before `wanted` that were not read yet.
    more: VecDeque<(DocId, Rev)>,
    ahead: VecDeque<Revision>,
}

impl Revisions for Leaves<'_> {
    fn next<'a>(&'a mut self, room: &'a mut Room) -> Answering<'a, Option<Revision>> {
        Box::pin(async move {
            while self.ahead.is_empty() && !(self.wanted.is_empty() && self.more.is_empty()) {
                let (wanted, more) = (self.wanted.to_vec(), std::mem::take(&mut self.more));
                let may_be_large = room.is_for_large();
                let reading = room.for_reading().await?;
                let ahead = self
                    .db
                    .run(move |database| read_ahead(database, &wanted, more, may_be_large))
                    .await?;
                drop(reading);
                self.ahead = ahead.revisions;
                self.more = ahead.more;
                self.wanted = &self.wanted[ahead.taken..];
                if ahead.is_stopped && self.ahead.is_empty() {
                    room.for_large().await?;
                }
            }
            Ok(self.ahead.pop_front())
        })
    }

    fn waits(&self) -> bool {
        !self.ahead.is_empty()
    }
}

/// What was read.
#[derive(Default)]
struct Ahead {
    revisions: VecDeque<Revision>,
    /// Documents of which all leaves are among these, or in `more`.
    taken: usize,
    more: VecDeque<(DocId, Rev)>,
    /// Whether a large document stands first in `more`.
    is_stopped: bool,
    bytes: usize,
}

/// Reads leaf after leaf, so that of a document with many that are large one is held at a time.
fn read_ahead(
    database: &node::Database,
    wanted: &[Wanted],
    more: VecDeque<(DocId, Rev)>,
    may_be_large: bool,
) -> Result<Ahead, node::DatabaseError> {
    let mut ahead = Ahead {
        more,
        ..Ahead::default()
    };
    loop {
        while let Some((id, rev)) = ahead.more.pop_front() {
            let snapshot = database.snapshot(&id, &Which::Leaf(rev))?;
            // One that has been followed since is told of by a later change.
            for doc in snapshot.into_iter().flat_map(|snapshot| snapshot.docs) {
                ahead.take(doc, may_be_large);
            }
            if ahead.is_full() {
                return Ok(ahead);
            }
        }
        let Some(one) = wanted.get(ahead.taken) else {
            return Ok(ahead);
        };
        ahead.taken += 1;
        let Some(snapshot) = database.snapshot(&one.id, &Which::Winner)? else {
            continue;
        };
        let is_wanted = |rev: &Rev| {
            let history = snapshot.tree.history_of(rev);
            history.iter().any(|rev| one.revs.contains(rev))
        };
        let leaves = snapshot.tree.leaves().into_iter().map(|leaf| leaf.rev);
        let leaves: Vec<Rev> = leaves.filter(is_wanted).collect();
        let winner = snapshot.docs.into_iter().next();
        let winner = winner.filter(|winner| leaves.contains(winner.rev()));
        let others = leaves
            .into_iter()
            .filter(|rev| winner.as_ref().is_none_or(|winner| winner.rev() != rev));
        ahead.more.extend(others.map(|rev| (one.id.clone(), rev)));
        if let Some(winner) = winner {
            ahead.take(winner, may_be_large);
        }
        if ahead.is_full() {
            return Ok(ahead);
        }
    }
}

impl Ahead {
    /// Takes a document, or where it is a large one and there is no room for it, leaves it for later.
    fn take(&mut self, doc: Doc, may_be_large: bool) {
        let revision = revision_of(doc);
        let bytes = revision.held_bytes();
        if bytes > LARGE_BYTES && !may_be_large {
            self.is_stopped = true;
            self.more
                .push_front((revision.id.clone(), revision.rev().clone()));
            return;
        }
        self.bytes += bytes;
        self.revisions.push_back(revision);
    }

    fn is_full(&self) -> bool {
        self.is_stopped || self.bytes >= AHEAD_BYTES
    }
}

fn revision_of(doc: Doc) -> Revision {
    let attachments = doc.attachments.into_iter().map(|(name, attachment)| {
        // What is kept packed is sent as it is meant: its digest is that of other bytes.
        let (digest, length) = match attachment.encoded {
            Some(encoded) => (None, encoded.decoded_length),
            None => (Some(attachment.digest), attachment.length),
        };
        let hung = Hung {
            content_type: attachment.content_type,
            revpos: attachment.revpos,
            digest,
            length,
            blob: Some(attachment.blob),
        };
        (name, hung)
    });
    Revision {
        id: doc.id,
        revisions: doc.revisions,
        deleted: doc.deleted,
        body: doc.body,
        attachments: attachments.collect(),
    }
}

struct BlobPieces {
    reading: Reading,
    offset: u64,
}

impl Pieces for BlobPieces {
    fn next(&mut self) -> Answering<'_, Option<Bytes>> {
        Box::pin(async {
            let bytes = self.reading.read_at(self.offset).await?;
            self.offset += bytes.len() as u64;
            Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
        })
    }
}

impl Pieces for Unpacking {
    fn next(&mut self) -> Answering<'_, Option<Bytes>> {
        Box::pin(async {
            let bytes = Unpacking::next(self).await?;
            Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
        })
    }
}

impl From<node::Error> for Failure {
    fn from(error: node::Error) -> Failure {
        let trouble = match &error {
            node::Error::Missing { .. } => Trouble::Missing,
            node::Error::Conflict { .. } | node::Error::Offset { .. } => Trouble::Conflict,
            node::Error::Mismatch { .. } | node::Error::Corrupt { .. } => Trouble::Lie,
            node::Error::Refused(_) => Trouble::Refused,
            node::Error::Busy
            | node::Error::RateLimited { .. }
            | node::Error::NoSpace { .. }
            | node::Error::ReadOnly { .. }
            | node::Error::Offline { .. }
            | node::Error::Away { .. }
            // An attachment was collected while others were on their way: all are fetched again.
            | node::Error::Incomplete { .. }
            | node::Error::Disk(_) => Trouble::Passing,
            node::Error::Invalid { .. }
            | node::Error::TooLarge { .. }
            | node::Error::Update(_)
            | node::Error::Channel(_)
            | node::Error::Folder(_)
            | node::Error::Internal(_) => Trouble::Fatal,
        };
        Failure::new(trouble, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document with a leaf of each size.
    fn write(database: &node::Database, id: &str, sizes: &[usize]) -> Wanted {
        let mut revs = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let rev: Rev = format!("1-{number:02x}").parse().unwrap();
            let edit = Edit::Replicated {
                id: id.parse().unwrap(),
                revisions: vec![rev.clone()],
                deleted: false,
                body: DocumentBody::from(format!("{{\"text\":\"{}\"}}", "x".repeat(*size))),
                attachments: Default::default(),
            };
            database.save_doc(edit).unwrap().unwrap();
            revs.push(rev);
        }
        Wanted {
            id: id.parse().unwrap(),
            revs,
            ancestors: Vec::new(),
        }
    }

    async fn notes_of(node: &Node) -> Db {
        let options = node::DatabaseOptions::default();
        let made = node.documents().create("notes".parse().unwrap(), options);
        made.await.unwrap()
    }

    fn peer_of(node: &Node) -> LocalPeer {
        LocalPeer::new(node.clone(), "notes".parse().unwrap(), Filter::All)
    }

    fn revision(
        id: &str,
        attachments: std::collections::BTreeMap<String, Hung>,
    ) -> (Revision, &'static [Rev]) {
        let revision = Revision {
            id: id.parse().unwrap(),
            revisions: vec!["1-aa".parse().unwrap()],
            deleted: false,
            body: DocumentBody::default(),
            attachments,
        };
        (revision, &[])
    }

    #[tokio::test]
    async fn a_database_made_anew_is_not_the_one_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(node::Options::new(dir.path())).unwrap();
        drop(notes_of(&node).await);
        let peer = peer_of(&node);
        let id = LocalId::named("0123").unwrap();
        let json =
            r#"{"session_id":"s","source_last_seq":2,"history":[{"session_id":"s","recorded_seq":2}]}"#;
        let checkpoint: Checkpoint = serde_json::from_str(json).unwrap();
        let keep = |rev: Option<String>| peer.keep(id.clone(), rev, checkpoint.clone());
        assert_eq!(peer.open().await, Ok(true));
        for id in ["a", "b"] {
            peer.store(vec![revision(id, Default::default())], &peer)
                .await
                .unwrap();
        }
        let rev = keep(None).await.unwrap();
        node.documents().delete("notes".parse().unwrap()).await.unwrap();
        drop(notes_of(&node).await);
        let stored = peer.store(vec![revision("c", Default::default())], &peer).await;
        assert_eq!(stored.unwrap_err().trouble, Trouble::Missing);
        assert_eq!(peer.commit().await.unwrap_err().trouble, Trouble::Missing);
        assert_eq!(keep(Some(rev)).await.unwrap_err().trouble, Trouble::Missing);

        // A session that opens it begins at the beginning.
        assert_eq!(peer.open().await, Ok(true));
        assert_eq!(peer.checkpoint(id.clone()).await, Ok(None));
        peer.store(vec![revision("c", Default::default())], &peer)
            .await
            .unwrap();
        keep(None).await.unwrap();
    }

    /// What was set aside as damaged, or collected, is brought again with the next document that names it.
    #[tokio::test]
    async fn an_attachment_that_is_named_and_gone_is_fetched() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [source, target] = dirs
            .each_ref()
            .map(|dir| Node::open(node::Options::new(dir.path())).unwrap());
        let from = notes_of(&source).await;
        let to = notes_of(&target).await;
        let mut attaching = Attaching::begin(from.blobs(), Coding::Identity).unwrap();
        attaching.write("bytes".into()).await.unwrap();
        let attached = attaching.finish(Expected::default()).await.unwrap();
        let hung = Hung {
            content_type: "text/plain".to_owned(),
            revpos: 1,
            digest: Some(attached.digest),
            length: attached.length,
            blob: Some(attached.blob),
        };
        let named = std::collections::BTreeMap::from([("x".to_owned(), hung)]);
        let (source, target) = (peer_of(&source), peer_of(&target));
        target
            .store(vec![revision("a", named.clone())], &source)
            .await
            .unwrap();
        assert_eq!(to.blobs().delete(vec![attached.blob]).await.unwrap(), [true]);
        let (mut next, _) = revision("a", named);
        next.revisions.insert(0, "2-bb".parse().unwrap());
        target.store(vec![(next, &[])], &source).await.unwrap();
        assert!(to.blobs().get(attached.blob).await.is_ok());
    }

    #[tokio::test]
    async fn a_large_document_is_read_where_there_is_room_and_its_conflicts_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(node::Options::new(dir.path())).unwrap();
        let options = node::DatabaseOptions {
            engine: node::EngineKind::Memory,
            ..node::DatabaseOptions::default()
        };
        let db = node
            .documents()
            .create("notes".parse().unwrap(), options)
            .await
            .unwrap();
        let looked = db.run(|database| {
            look(database);
            Ok(())
        });
        looked.await.unwrap();
    }

    fn look(database: &node::Database) {
        let large = LARGE_BYTES + 1;
        let wanted = [
            write(database, "a", &[10]),
            write(database, "b", &[large, large, large]),
            write(database, "c", &[10, 20]),
        ];
        let ahead = read_ahead(database, &wanted, VecDeque::new(), false).unwrap();
        let ids =
            |ahead: &Ahead| -> Vec<String> { ahead.revisions.iter().map(|one| one.id.to_string()).collect() };
        assert_eq!(
            (ids(&ahead), ahead.taken, ahead.more.len()),
            (vec!["a".to_owned()], 2, 3)
        );
        assert!(ahead.is_stopped);
        // With room, one at a time.
        let (mut more, mut taken) = (ahead.more, 2);
        for left in [2, 1, 0] {
            let ahead = read_ahead(database, &wanted[taken..], more, true).unwrap();
            assert_eq!((ids(&ahead), ahead.more.len()), (vec!["b".to_owned()], left));
            more = ahead.more;
            taken += ahead.taken;
        }
        let ahead = read_ahead(database, &wanted[taken..], more, false).unwrap();
        assert_eq!((ids(&ahead), ahead.is_stopped), (vec!["c".to_owned(); 2], false));
    }
}
