//! The handle to one database of documents: what can be asked of it and done to it, over any engine.
//!
//! Blocking; async code crosses over in `db.rs`. Acknowledged means durable: what a call wrote is on the medium when it
//! returns, together with whatever other threads wrote at the time. Visitors run between the pages that are read for them,
//! so that they may take their time and ask the database themselves.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use tokio::sync::watch;

use super::changes::{
    Change, ChangesEnd, ChangesQuery, Head, ListQuery, Listed, Missing, PENDING_COUNTED_MAX,
};
use super::doc::{Body, Content, Doc, Edit, Refused};
use super::engine::{Engine, Loaded, LocalDoc, Row, Sizes, Visit, Which};
use super::error::Error;
use super::find::Indexes;
use super::kind::EngineKind;
use super::settings::{REVS_LIMIT_KEY, SECURITY_KEY, Settings};
use super::tree::{Leaf, RevTree};
use super::writer::{Answer, EDITS_MAX, Job, Lead, Writer};
use crate::id::{BlobId, DbName, DbUuid, DocId, LocalId, Rev, Seq, SeqError, StoreName};

/// Rows that are read at once for a visitor.
const PAGE_ROWS: usize = 256;

/// The same with what the documents hold, which may be large.
const PAGE_DOCS: usize = 16;

/// One database; cloning it is cheap. The last clone closes it.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    name: DbName,
    kind: EngineKind,
    uuid: DbUuid,
    blobs: StoreName,
    engine: Arc<dyn Engine>,
    writer: Arc<Writer>,
    indexes: Indexes,
}

/// A database as its list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its name.
    pub name: DbName,
    /// What tells it apart from another of that name.
    pub uuid: DbUuid,
    /// What keeps it.
    pub engine: EngineKind,
    /// The store of its attachments.
    pub blobs: StoreName,
    /// Documents whose winner is not deleted.
    pub doc_count: u64,
    /// Documents whose winner is deleted.
    pub deleted_count: u64,
    /// The sequence of the last change.
    pub update_seq: Seq,
    /// Its bytes.
    pub sizes: Sizes,
    /// Revisions of a branch that are remembered.
    pub revs_limit: u32,
}

/// A document at one moment: its tree, and of its revisions what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it changed last.
    pub seq: Seq,
    /// Its revisions.
    pub tree: RevTree,
    /// Those that were asked for, the winner first.
    pub docs: Vec<Doc>,
}

impl Database {
    /// A database over an open engine.
    pub(super) fn new(
        name: DbName,
        kind: EngineKind,
        engine: Arc<dyn Engine>,
        settings: Settings,
    ) -> Result<Database, Error> {
        let writer = Arc::new(Writer::new(Arc::clone(&engine), settings.revs_limit)?);
        Ok(Database {
            inner: Arc::new(Inner {
                name,
                kind,
                uuid: settings.uuid,
                blobs: settings.blobs,
                engine,
                writer,
                indexes: Indexes::default(),
            }),
        })
    }

    /// Its name.
    pub fn name(&self) -> &DbName {
        &self.inner.name
    }

    /// What tells it apart from another of that name.
    pub fn uuid(&self) -> DbUuid {
        self.inner.uuid
    }

    /// The store of its attachments.
    pub fn blobs(&self) -> &StoreName {
        &self.inner.blobs
    }

    /// How it is.
    ///
    /// # Errors
    /// Where its size can't be told.
    pub fn info(&self) -> Result<Info, Error> {
        let inner = &self.inner;
        let summary = inner.writer.summary();
        Ok(Info {
            name: inner.name.clone(),
            uuid: inner.uuid,
            engine: inner.kind,
            blobs: inner.blobs.clone(),
            doc_count: summary.docs,
            deleted_count: summary.deleted_docs,
            update_seq: summary.update_seq,
            sizes: inner.engine.sizes()?,
            revs_limit: inner.writer.revs_limit(),
        })
    }

    /// The sequence of the last change.
    pub fn update_seq(&self) -> Seq {
        self.inner.writer.summary().update_seq
    }

    /// The last sequence that is durable, and a way to wait for a newer one.
    pub fn updated(&self) -> watch::Receiver<Seq> {
        self.inner.writer.updated()
    }

    /// A sequence as clients keep it.
    pub fn seq_text(&self, seq: Seq) -> String {
        seq.to_text(self.inner.uuid)
    }

    /// Reads what [`Database::seq_text`] gave out, or a number: see [`Seq::from_text`].
    ///
    /// # Errors
    /// [`SeqError`].
    pub fn seq_from_text(&self, text: &str) -> Result<Seq, SeqError> {
        Seq::from_text(text, self.inner.uuid)
    }

    /// Makes one edit; its revision. Durable on return.
    ///
    /// # Errors
    /// As [`Database::save_docs`].
    pub fn save_doc(&self, edit: Edit) -> Result<Result<Rev, Refused>, Error> {
        let mut saved = self.save_docs(vec![edit])?;
        Ok(saved.pop().expect("one edit has one answer"))
    }

    /// Makes edits, in one durable group: what became of each, in their order. Those that are refused leave the others alone.
    ///
    /// # Errors
    /// [`Error::TooMany`], [`Error::Busy`], [`Error::Full`], [`Error::ReadOnly`]: none was made.
    pub fn save_docs(&self, edits: Vec<Edit>) -> Result<Vec<Result<Rev, Refused>>, Error> {
        check_number(edits.len())?;
        saved(self.inner.writer.submit(Job::Edits(edits)))
    }

    /// As [`Database::save_docs`], without a thread that waits: `tell` hears what became of the edits, and must not block. What is
    /// answered has to be run, on a thread that may block, and commits what others enqueue meanwhile as well. Where the database is
    /// closed before it comes to that, `tell` is dropped.
    ///
    /// # Errors
    /// [`Error::TooMany`]; [`Error::Busy`] where too many wait.
    pub fn enqueue_docs(
        &self,
        edits: Vec<Edit>,
        tell: impl FnOnce(Result<Vec<Result<Rev, Refused>>, Error>) + Send + 'static,
    ) -> Result<Option<Lead>, Error> {
        check_number(edits.len())?;
        let tell = move |answer| tell(saved(answer));
        self.inner.writer.enqueue(Job::Edits(edits), Box::new(tell))
    }

    /// Whether nobody writes, so that it is closed with this handle where that is the last.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.inner.writer) == 1
    }

    /// The winning revision of a document, also where it is a deletion; `None` where it was never written.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn open_doc(&self, id: &DocId) -> Result<Option<Doc>, Error> {
        Ok(self.snapshot(id, &Which::Winner)?.and_then(first_doc))
    }

    /// One leaf of a document; `None` where there is no such revision, or it has been followed.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn open_rev(&self, id: &DocId, rev: &Rev) -> Result<Option<Doc>, Error> {
        Ok(self.snapshot(id, &Which::Leaf(rev.clone()))?.and_then(first_doc))
    }

    /// All leaves of a document, the winner first; empty where it was never written.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn open_leaves(&self, id: &DocId) -> Result<Vec<Doc>, Error> {
        let snapshot = self.snapshot(id, &Which::Leaves)?;
        Ok(snapshot.map(|snapshot| snapshot.docs).unwrap_or_default())
    }

    /// The revisions of a document; `None` where it was never written.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn tree(&self, id: &DocId) -> Result<Option<RevTree>, Error> {
        Ok(self.snapshot(id, &Which::Record)?.map(|snapshot| snapshot.tree))
    }

    /// A document at one moment.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn snapshot(&self, id: &DocId, which: &Which) -> Result<Option<Snapshot>, Error> {
        let loaded = self.inner.engine.load(id, which)?;
        Ok(loaded.map(|loaded| snapshot_of(id, loaded)))
    }

    /// What each document is at, in the order asked; `None` where it was never written.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn heads(&self, ids: &[DocId]) -> Result<Vec<Option<Head>>, Error> {
        let head = |id: &DocId| -> Result<Option<Head>, Error> {
            let record = self
                .inner
                .engine
                .load(id, &Which::Record)?
                .map(|loaded| loaded.record);
            Ok(record.and_then(|record| {
                let Leaf { rev, deleted } = record.tree.winner()?;
                let seq = record.seq;
                Some(Head { seq, rev, deleted })
            }))
        };
        ids.iter().map(head).collect()
    }

    /// Which of these revisions are not here, of those documents that lack any.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    pub fn revs_diff(&self, asked: &[(DocId, Vec<Rev>)]) -> Result<Vec<Missing>, Error> {
        let mut diff = Vec::new();
        for (id, revs) in asked {
            let tree = self.tree(id)?.unwrap_or_default();
            let revs: Vec<Rev> = revs.iter().filter(|rev| !tree.contains(rev)).cloned().collect();
            let Some(highest) = revs.iter().map(Rev::generation).max() else {
                continue;
            };
            let leaves = tree.leaves().into_iter().map(|leaf| leaf.rev);
            diff.push(Missing {
                id: id.clone(),
                revs,
                possible_ancestors: leaves.filter(|leaf| leaf.generation() < highest).collect(),
            });
        }
        Ok(diff)
    }

    /// Visits documents in the order they changed in. A document that changes meanwhile is visited at its new place, or where
    /// that is not reached, not at all.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`], after what came before it.
    pub fn changes(
        &self,
        query: &ChangesQuery,
        visitor: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> Result<ChangesEnd, Error> {
        let until = self.update_seq();
        let mut range = (Bound::Excluded(query.since), Bound::Included(until));
        let mut left = query.limit;
        let mut last = query.since;
        loop {
            let visit = page(query.descending, query.docs, left);
            let mut rows = Vec::with_capacity(visit.limit);
            self.inner.engine.by_seq(range, visit, &mut |row| {
                rows.push(row);
                ControlFlow::Continue(())
            })?;
            let is_end = rows.len() < visit.limit;
            for row in rows {
                last = row.seq;
                left -= 1;
                match query.descending {
                    true => range.1 = Bound::Excluded(row.seq),
                    false => range.0 = Bound::Excluded(row.seq),
                }
                if visitor(change_of(row)).is_break() {
                    return self.end(query, last, until);
                }
            }
            if is_end && !query.descending {
                // What is behind the last row of an order is its end.
                last = until.max(query.since);
            }
            if is_end || left == 0 {
                return self.end(query, last, until);
            }
        }
    }

    /// Visits documents that are not deleted, by id.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`], after what came before it.
    pub fn list(
        &self,
        query: &ListQuery,
        visitor: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (mut low, mut high) = match query.descending {
            false => (query.start.clone(), query.end.clone()),
            true => (query.end.clone(), query.start.clone()),
        };
        let (mut skip, mut left) = (query.skip, query.limit);
        while left > 0 {
            let visit = page(query.descending, query.docs && skip == 0, usize::MAX);
            let mut rows = Vec::with_capacity(visit.limit);
            self.inner
                .engine
                .by_id((low.as_ref(), high.as_ref()), visit, &mut |row| {
                    rows.push(row);
                    ControlFlow::Continue(())
                })?;
            let mut is_end = rows.len() < visit.limit;
            for row in rows {
                match query.descending {
                    true => high = Bound::Excluded(row.id.clone()),
                    false => low = Bound::Excluded(row.id.clone()),
                }
                if row.leaves[0].deleted {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    if skip == 0 && query.docs {
                        // The rest of the page is read again, with what the documents hold.
                        is_end = false;
                        break;
                    }
                    continue;
                }
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                if visitor(listed_of(row)).is_break() {
                    return Ok(());
                }
            }
            if is_end {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A local document: how often it was written, and what it holds.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn local_get(&self, id: &LocalId) -> Result<Option<LocalDoc>, Error> {
        self.inner.engine.local(id)
    }

    /// Writes a local document; how often it has been written. `parent` is how often it had been, as the client knows it.
    /// Durable on return.
    ///
    /// # Errors
    /// As [`Database::save_docs`].
    pub fn local_put(
        &self,
        id: &LocalId,
        parent: Option<u64>,
        body: Body,
    ) -> Result<Result<u64, Refused>, Error> {
        self.local_write(id, parent, Some(body))
    }

    /// Deletes a local document. Durable on return.
    ///
    /// # Errors
    /// As [`Database::save_docs`].
    pub fn local_delete(&self, id: &LocalId, parent: Option<u64>) -> Result<Result<u64, Refused>, Error> {
        self.local_write(id, parent, None)
    }

    /// Visits local documents by id, within `range`.
    ///
    /// # Errors
    /// Where they can't be read.
    pub fn local_list(
        &self,
        range: (Bound<LocalId>, Bound<LocalId>),
        descending: bool,
        visitor: &mut dyn FnMut(LocalId, LocalDoc) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (mut low, mut high) = range;
        loop {
            let visit = page(descending, true, usize::MAX);
            let mut rows = Vec::new();
            self.inner
                .engine
                .locals((low.as_ref(), high.as_ref()), visit, &mut |row| {
                    rows.push(row);
                    ControlFlow::Continue(())
                })?;
            let is_end = rows.len() < visit.limit;
            for (id, local) in rows {
                match descending {
                    true => high = Bound::Excluded(id.clone()),
                    false => low = Bound::Excluded(id.clone()),
                }
                if visitor(id, local).is_break() {
                    return Ok(());
                }
            }
            if is_end {
                return Ok(());
            }
        }
    }

    /// Who may do what, as JSON text; `None` where nobody said.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn security(&self) -> Result<Option<String>, Error> {
        let bytes = self.inner.engine.setting(SECURITY_KEY)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Keeps who may do what: the text of a JSON object. Durable on return.
    ///
    /// # Errors
    /// As [`Database::save_docs`].
    pub fn set_security(&self, json: &Body) -> Result<(), Error> {
        let value = json.as_str().as_bytes().to_vec();
        self.inner
            .writer
            .submit(Job::Setting(SECURITY_KEY, value))
            .map(drop)
    }

    /// Revisions of a branch that are remembered.
    pub fn revs_limit(&self) -> u32 {
        self.inner.writer.revs_limit()
    }

    /// How many revisions of a branch are remembered from the next edit of a document on; 0 means 1. Durable on return.
    ///
    /// # Errors
    /// As [`Database::save_docs`].
    pub fn set_revs_limit(&self, limit: u32) -> Result<(), Error> {
        let value = limit.max(1).to_be_bytes().to_vec();
        self.inner
            .writer
            .submit(Job::Setting(REVS_LIMIT_KEY, value))
            .map(drop)
    }

    /// Forgets leaves, with all that led to them alone: for each document, those that were. Durable on return. A replication
    /// may bring them back.
    ///
    /// # Errors
    /// As [`Database::save_docs`].
    pub fn purge(&self, leaves: Vec<(DocId, Vec<Rev>)>) -> Result<Vec<Vec<Rev>>, Error> {
        check_number(leaves.len())?;
        match self.inner.writer.submit(Job::Purge(leaves))? {
            Answer::Purged(purged) => Ok(purged),
            Answer::Edits(_) | Answer::Local(_) | Answer::Set => unreachable!("a purge is answered as one"),
        }
    }

    /// Gives back to the medium what is not in use. Writes wait meanwhile.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was lost.
    pub fn compact(&self) -> Result<(), Error> {
        self.inner.engine.compact()
    }

    /// Reads everything and says what is wrong; `None` where nothing is.
    ///
    /// # Errors
    /// Only where the check cannot be made.
    pub fn check(&self) -> Result<Option<String>, Error> {
        self.inner.engine.check()
    }

    /// Visits every blob that an attachment of a leaf names: what a collector must keep. A blob may come more than once.
    /// The visitor must not ask the database.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`]: what it names is not known, so that nothing may be collected.
    pub fn blob_ids(&self, visitor: &mut dyn FnMut(BlobId)) -> Result<(), Error> {
        self.inner.engine.attached(&mut |(_, content): (DocId, Content)| {
            for attachment in content.attachments.values() {
                visitor(attachment.blob);
            }
            ControlFlow::Continue(())
        })
    }

    /// Its Mango indexes.
    pub(super) fn indexes(&self) -> &Indexes {
        &self.inner.indexes
    }

    fn local_write(
        &self,
        id: &LocalId,
        parent: Option<u64>,
        body: Option<Body>,
    ) -> Result<Result<u64, Refused>, Error> {
        let id = id.clone();
        match self.inner.writer.submit(Job::Local { id, parent, body })? {
            Answer::Local(written) => Ok(written),
            Answer::Edits(_) | Answer::Purged(_) | Answer::Set => {
                unreachable!("a local edit is answered as one")
            }
        }
    }

    fn end(&self, query: &ChangesQuery, last: Seq, until: Seq) -> Result<ChangesEnd, Error> {
        let behind = match query.descending {
            true => (Bound::Excluded(query.since), Bound::Excluded(last)),
            false => (Bound::Excluded(last), Bound::Included(until)),
        };
        let from = if query.descending { query.since } else { last };
        let to = if query.descending { last } else { until };
        let most = to.number().saturating_sub(from.number());
        let pending = match most {
            0 => 0,
            1..=PENDING_COUNTED_MAX => self.inner.engine.count(behind)?,
            more => {
                let summary = self.inner.writer.summary();
                more.min(summary.docs + summary.deleted_docs)
            }
        };
        Ok(ChangesEnd { last, pending })
    }
}

/// Edits are answered as edits.
fn saved(answer: Result<Answer, Error>) -> Result<Vec<Result<Rev, Refused>>, Error> {
    match answer? {
        Answer::Edits(saved) => Ok(saved),
        Answer::Local(_) | Answer::Purged(_) | Answer::Set => unreachable!("edits are answered as edits"),
    }
}

fn check_number(number: usize) -> Result<(), Error> {
    match number > EDITS_MAX {
        true => Err(Error::TooMany { most: EDITS_MAX }),
        false => Ok(()),
    }
}

fn page(descending: bool, contents: bool, left: usize) -> Visit {
    let rows = if contents { PAGE_DOCS } else { PAGE_ROWS };
    Visit {
        descending,
        limit: rows.min(left),
        contents,
    }
}

fn snapshot_of(id: &DocId, loaded: Loaded) -> Snapshot {
    let Loaded { record, contents } = loaded;
    let doc = |(leaf, content): (Leaf, Content)| Doc {
        id: id.clone(),
        revisions: record.tree.history_of(&leaf.rev),
        deleted: leaf.deleted,
        body: content.body,
        attachments: content.attachments,
        seq: record.seq,
    };
    Snapshot {
        docs: contents.into_iter().map(doc).collect(),
        seq: record.seq,
        tree: record.tree,
    }
}

fn first_doc(snapshot: Snapshot) -> Option<Doc> {
    snapshot.docs.into_iter().next()
}

fn change_of(row: Row) -> Change {
    let doc = doc_of(&row.id, row.seq, &row.leaves[0], row.content);
    Change {
        seq: row.seq,
        id: row.id,
        leaves: row.leaves,
        doc,
    }
}

fn listed_of(row: Row) -> Listed {
    let doc = doc_of(&row.id, row.seq, &row.leaves[0], row.content);
    let winner = row.leaves.into_iter().next();
    Listed {
        id: row.id,
        rev: winner.expect("a row has a winner").rev,
        doc,
    }
}

/// The winner of a row; of its ancestors, a row says nothing.
fn doc_of(id: &DocId, seq: Seq, winner: &Leaf, content: Option<Content>) -> Option<Doc> {
    content.map(|content| Doc {
        id: id.clone(),
        revisions: vec![winner.rev.clone()],
        deleted: winner.deleted,
        body: content.body,
        attachments: content.attachments,
        seq,
    })
}
