//! What edits make of documents: CouchDB's rules for who may write, and what is then kept. Pure.
//!
//! A round takes the records that edits are about, applies the edits one after the other, and ends in one group for the
//! engine: each document once, at the sequence of its last edit. A new edit must follow a leaf, or the deletion of the whole
//! document; a replicated one is always merged. What a leaf holds is kept, what it held before it was followed is not.
//!
//! (`couch_db_updater:merge_rev_trees`; <https://docs.couchdb.org/en/stable/api/document/common.html#put--db-docid>.)

use std::collections::BTreeMap;

use super::doc::{ATTACHMENTS_MAX, Attachment, AttachmentEdit, Attachments, Body, Content, Edit, Refused};
use super::engine::{Before, DocChange, Group, LocalDoc, Record};
use super::revid::next_rev;
use super::tree::{BadHistory, Leaf, Merged, RevTree};
use crate::id::{DocId, LocalId, Rev, Seq};

/// What leaves have hanging on them, for edits with stubs: read before the round.
pub(super) type Hanging = BTreeMap<(DocId, Rev), Attachments>;

/// Edits on their way into one group.
pub(super) struct Round {
    docs: BTreeMap<DocId, Working>,
    locals: BTreeMap<LocalId, (Option<LocalDoc>, bool)>,
    settings: BTreeMap<&'static str, Vec<u8>>,
    hanging: Hanging,
    seq: Seq,
    revs_limit: u32,
}

/// How many documents there are more after a round than before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) docs: i64,
    pub(super) deleted_docs: i64,
}

/// One document while edits are applied to it.
#[derive(Default)]
struct Working {
    before: Option<(Before, Leaf)>,
    tree: RevTree,
    seq: Seq,
    put: BTreeMap<Rev, Content>,
    drop: Vec<Rev>,
    is_changed: bool,
}

impl Round {
    /// A round over these documents; `seq` is the last sequence given out so far.
    pub(super) fn new(
        docs: impl Iterator<Item = (DocId, Option<Record>)>,
        hanging: Hanging,
        seq: Seq,
        revs_limit: u32,
    ) -> Round {
        Round {
            docs: docs.map(|(id, record)| (id, Working::begin(record))).collect(),
            locals: BTreeMap::new(),
            settings: BTreeMap::new(),
            hanging,
            seq,
            revs_limit,
        }
    }

    /// The last sequence given out.
    pub(super) fn seq(&self) -> Seq {
        self.seq
    }

    /// Applies one edit; its revision.
    pub(super) fn edit(&mut self, edit: Edit) -> Result<Rev, Refused> {
        let id = edit.id().clone();
        if edit.attachments().len() > ATTACHMENTS_MAX {
            return Err(Refused::Attachments { id });
        }
        let doc = self.docs.entry(id.clone()).or_default();
        let (history, deleted, content) = match edit {
            Edit::New {
                parent,
                deleted,
                body,
                attachments,
                ..
            } => {
                let parent = doc.parent_of_new(parent, deleted)?;
                let generation = parent.as_ref().map_or(0, Rev::generation).checked_add(1);
                let generation = generation.ok_or_else(|| Refused::Generations { id: id.clone() })?;
                let sources: Vec<&Attachments> = parent
                    .iter()
                    .filter_map(|rev| hanging_on(doc, &self.hanging, &id, rev))
                    .collect();
                let attachments = resolve(&id, attachments, generation, &sources)?;
                let rev = next_rev(parent.as_ref(), deleted, &body, &attachments)
                    .ok_or_else(|| Refused::Generations { id: id.clone() })?;
                let history = std::iter::once(rev).chain(parent).collect();
                (history, deleted, Content { body, attachments })
            }
            Edit::Replicated {
                revisions,
                deleted,
                body,
                attachments,
                ..
            } => {
                let tip = revisions
                    .first()
                    .ok_or_else(|| Refused::History { id: id.clone() })?;
                if doc.tree.contains(tip) {
                    // What it holds is here, or was and has been followed.
                    (revisions, deleted, Content::of(body))
                } else {
                    let sources = revisions
                        .iter()
                        .filter_map(|rev| hanging_on(doc, &self.hanging, &id, rev));
                    let sources: Vec<&Attachments> = sources.collect();
                    let attachments = resolve(&id, attachments, tip.generation(), &sources)?;
                    (revisions, deleted, Content { body, attachments })
                }
            }
        };
        let is_new = doc.merge(&history, deleted, content, self.revs_limit);
        if is_new.map_err(|_| Refused::History { id })? {
            self.seq = self.seq.next();
            doc.seq = self.seq;
        }
        let rev = history.into_iter().next();
        Ok(rev.expect("a history that was merged has a first revision"))
    }

    /// Forgets leaves of a document; those that were.
    pub(super) fn purge(&mut self, id: &DocId, revs: &[Rev]) -> Vec<Rev> {
        let Some(doc) = self.docs.get_mut(id) else {
            return Vec::new();
        };
        let purged = doc.tree.purge(revs);
        for rev in &purged {
            doc.drop_content(rev.clone());
        }
        if !purged.is_empty() {
            self.seq = self.seq.next();
            (doc.seq, doc.is_changed) = (self.seq, true);
        }
        purged
    }

    /// What is known of a local document; told before the first edit of it.
    pub(super) fn know_local(&mut self, id: &LocalId, local: Option<LocalDoc>) {
        self.locals.entry(id.clone()).or_insert((local, false));
    }

    /// Writes a local document, or with `None` deletes it; how often it has been written. `parent` is how often it had been.
    pub(super) fn local(
        &mut self,
        id: &LocalId,
        parent: Option<u64>,
        body: Option<Body>,
    ) -> Result<u64, Refused> {
        let (local, is_changed) = self.locals.entry(id.clone()).or_default();
        let edits = local.as_ref().map(|local| local.edits);
        let fits = match (&body, edits) {
            // CouchDB takes any revision for a local document that is not there.
            (Some(_), None) => true,
            _ => parent == edits && edits.is_some(),
        };
        if !fits {
            return Err(Refused::Conflict);
        }
        let edits = edits.unwrap_or(0) + 1;
        *local = body.map(|body| LocalDoc { edits, body });
        *is_changed = true;
        Ok(edits)
    }

    /// Writes a setting.
    pub(super) fn set(&mut self, key: &'static str, value: Vec<u8>) {
        self.settings.insert(key, value);
    }

    /// What is to be written, and what it changes in the counts.
    pub(super) fn finish(self) -> (Group, Difference) {
        let mut group = Group::default();
        let mut difference = Difference::default();
        for (id, doc) in self.docs {
            // What was written and forgotten in one round was never there.
            if doc.is_changed && (doc.before.is_some() || !doc.tree.is_empty()) {
                difference.count(doc.before.as_ref().map(|(_, winner)| winner), -1);
                difference.count(doc.tree.winner().as_ref(), 1);
                group.docs.push(doc.finish(id));
            }
        }
        // Rows that are appended in the order of their sequences fill pages one after the other.
        group
            .docs
            .sort_by_key(|change| change.after.as_ref().map(|record| record.seq));
        let locals = self.locals.into_iter().filter(|(_, (_, is_changed))| *is_changed);
        group.locals = locals.map(|(id, (local, _))| (id, local)).collect();
        group.settings = self.settings.into_iter().collect();
        (group, difference)
    }
}

impl Difference {
    fn count(&mut self, winner: Option<&Leaf>, by: i64) {
        match winner {
            Some(Leaf { deleted: false, .. }) => self.docs += by,
            Some(Leaf { deleted: true, .. }) => self.deleted_docs += by,
            None => {}
        }
    }
}

impl Working {
    fn begin(record: Option<Record>) -> Working {
        let Some(record) = record else {
            return Working::default();
        };
        let winner = record.tree.winner();
        let before = winner.map(|winner| {
            let before = Before {
                seq: record.seq,
                winner: winner.rev.clone(),
            };
            (before, winner)
        });
        Working {
            before,
            tree: record.tree,
            seq: record.seq,
            ..Working::default()
        }
    }

    /// The leaf that a new edit follows; `None` for the first revision of all.
    fn parent_of_new(&self, parent: Option<Rev>, deleted: bool) -> Result<Option<Rev>, Refused> {
        match (self.tree.winner(), parent) {
            (None, None) => Ok(None),
            (Some(_), Some(parent)) if self.tree.leaf(&parent).is_some() => Ok(Some(parent)),
            // A document that was deleted is written anew on top of its deletion.
            (Some(winner), None) if winner.deleted && !deleted => Ok(Some(winner.rev)),
            _ => Err(Refused::Conflict),
        }
    }

    /// Answers whether that changed anything.
    fn merge(
        &mut self,
        history: &[Rev],
        deleted: bool,
        content: Content,
        revs_limit: u32,
    ) -> Result<bool, BadHistory> {
        let before = self.tree.leaves();
        let merged = self.tree.merge(history, deleted)?;
        match merged {
            Merged::NewLeaf | Merged::NewBranch => {
                self.put.insert(history[0].clone(), content);
            }
            Merged::Deeper => {}
            Merged::Known => return Ok(false),
        }
        self.tree.stem(revs_limit);
        for leaf in before {
            if self.tree.leaf(&leaf.rev).is_none() {
                self.drop_content(leaf.rev);
            }
        }
        self.is_changed = true;
        Ok(true)
    }

    fn drop_content(&mut self, rev: Rev) {
        if self.put.remove(&rev).is_none() {
            self.drop.push(rev);
        }
    }

    fn finish(self, id: DocId) -> DocChange {
        let after = (!self.tree.is_empty()).then_some(Record {
            seq: self.seq,
            tree: self.tree,
        });
        DocChange {
            id,
            before: self.before.map(|(before, _)| before),
            after,
            put: self.put.into_iter().collect(),
            drop: self.drop,
        }
    }
}

/// What hangs on a leaf: one of this round, or one that was there.
fn hanging_on<'a>(doc: &'a Working, hanging: &'a Hanging, id: &DocId, rev: &Rev) -> Option<&'a Attachments> {
    let own = doc.put.get(rev).map(|content| &content.attachments);
    own.or_else(|| hanging.get(&(id.clone(), rev.clone())))
}

/// Puts what stubs stand for in their place: the first of `sources` that has one of that name.
fn resolve(
    id: &DocId,
    edits: BTreeMap<String, AttachmentEdit>,
    generation: u32,
    sources: &[&Attachments],
) -> Result<Attachments, Refused> {
    let resolve_one = |(name, edit): (String, AttachmentEdit)| {
        let attachment = match edit {
            AttachmentEdit::Stored(attachment) if attachment.revpos == 0 => Attachment {
                revpos: generation,
                ..attachment
            },
            AttachmentEdit::Stored(attachment) => attachment,
            AttachmentEdit::Stub => match sources.iter().find_map(|source| source.get(&name)) {
                Some(attachment) => attachment.clone(),
                None => return Err(Refused::MissingStub { id: id.clone(), name }),
            },
        };
        Ok((name, attachment))
    };
    edits.into_iter().map(resolve_one).collect()
}
