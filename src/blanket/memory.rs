//! The engine that keeps nothing: the reference that others are compared with, and for trying things out.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, MutexGuard};

use super::doc::Content;
use super::engine::{
    Engine, Group, Loaded, LocalDoc, Merge, Record, Row, Sizes, Summary, UPDATE_SEQ, Visit, Visitor, Which,
};
use super::error::Error;
use super::tree::Leaf;
use crate::id::{DocId, LocalId, Rev, Seq};

/// Documents in memory.
#[derive(Default)]
pub(super) struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    docs: BTreeMap<DocId, Kept>,
    by_seq: BTreeMap<Seq, DocId>,
    locals: BTreeMap<LocalId, LocalDoc>,
    settings: BTreeMap<String, Vec<u8>>,
}

struct Kept {
    record: Record,
    contents: BTreeMap<Rev, Content>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // A group is applied by moves alone, which do not panic half way.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Engine for Memory {
    fn update(&self, ids: &[DocId], merge: &mut Merge<'_>) -> Result<(), Error> {
        let records = {
            let state = self.state();
            let record = |id: &DocId| Some(state.docs.get(id)?.record.clone());
            ids.iter().map(record).collect()
        };
        let group = merge(records);
        self.state().apply(group);
        Ok(())
    }

    fn summary(&self) -> Result<Summary, Error> {
        let state = self.state();
        let winners = state.docs.values().filter_map(|kept| kept.record.tree.winner());
        let deleted_docs = winners.filter(|winner| winner.deleted).count() as u64;
        let kept = state.settings.get(UPDATE_SEQ).and_then(|bytes| seq_of(bytes));
        let last = state.by_seq.keys().next_back().copied();
        Ok(Summary {
            docs: state.docs.len() as u64 - deleted_docs,
            deleted_docs,
            update_seq: last.max(kept).unwrap_or_default(),
        })
    }

    fn sizes(&self) -> Result<Sizes, Error> {
        let state = self.state();
        let contents = state.docs.values().flat_map(|kept| kept.contents.values());
        let bytes = contents.map(|content| content.body.as_str().len() as u64).sum();
        Ok(Sizes {
            file_bytes: bytes,
            active_bytes: bytes,
        })
    }

    fn load(&self, id: &DocId, which: &Which) -> Result<Option<Loaded>, Error> {
        let state = self.state();
        Ok(state.docs.get(id).map(|kept| kept.load(which)))
    }

    fn by_seq(
        &self,
        range: (Bound<Seq>, Bound<Seq>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error> {
        if is_empty((range.0.as_ref(), range.1.as_ref())) {
            return Ok(());
        }
        let rows: Vec<Row> = {
            let state = self.state();
            let ids = state.by_seq.range(range).map(|(_, id)| id);
            let row = |id: &DocId| Some(state.docs.get(id)?.row(id, visit));
            in_order(ids, visit).filter_map(row).collect()
        };
        visit_all(rows, visitor);
        Ok(())
    }

    fn count(&self, range: (Bound<Seq>, Bound<Seq>)) -> Result<u64, Error> {
        Ok(match is_empty((range.0.as_ref(), range.1.as_ref())) {
            true => 0,
            false => self.state().by_seq.range(range).count() as u64,
        })
    }

    fn by_id(
        &self,
        range: (Bound<&DocId>, Bound<&DocId>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error> {
        if is_empty(range) {
            return Ok(());
        }
        let rows: Vec<Row> = {
            let state = self.state();
            let docs = state.docs.range::<DocId, _>(range);
            in_order(docs, visit)
                .map(|(id, kept)| kept.row(id, visit))
                .collect()
        };
        visit_all(rows, visitor);
        Ok(())
    }

    fn attached(&self, visitor: &mut Visitor<'_, (DocId, Content)>) -> Result<(), Error> {
        let attached: Vec<(DocId, Content)> = {
            let state = self.state();
            let contents = |(id, kept): (&DocId, &Kept)| -> Vec<(DocId, Content)> {
                let attached = kept
                    .contents
                    .values()
                    .filter(|content| !content.attachments.is_empty());
                attached.map(|content| (id.clone(), content.clone())).collect()
            };
            state.docs.iter().flat_map(contents).collect()
        };
        visit_all(attached, visitor);
        Ok(())
    }

    fn local(&self, id: &LocalId) -> Result<Option<LocalDoc>, Error> {
        Ok(self.state().locals.get(id).cloned())
    }

    fn locals(
        &self,
        range: (Bound<&LocalId>, Bound<&LocalId>),
        visit: Visit,
        visitor: &mut Visitor<'_, (LocalId, LocalDoc)>,
    ) -> Result<(), Error> {
        if is_empty(range) {
            return Ok(());
        }
        let rows: Vec<(LocalId, LocalDoc)> = {
            let state = self.state();
            let locals = state.locals.range::<LocalId, _>(range);
            in_order(locals, visit)
                .map(|(id, local)| (id.clone(), local.clone()))
                .collect()
        };
        visit_all(rows, visitor);
        Ok(())
    }

    fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.state().settings.get(key).cloned())
    }

    fn compact(&self) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }
}

impl State {
    fn apply(&mut self, group: Group) {
        for change in group.docs {
            if let Some(before) = &change.before {
                self.by_seq.remove(&before.seq);
            }
            let kept = self.docs.remove(&change.id);
            let mut contents = kept.map(|kept| kept.contents).unwrap_or_default();
            contents.extend(change.put);
            for rev in &change.drop {
                contents.remove(rev);
            }
            if let Some(record) = change.after {
                self.by_seq.insert(record.seq, change.id.clone());
                self.docs.insert(change.id, Kept { record, contents });
            }
        }
        for (id, local) in group.locals {
            match local {
                Some(local) => drop(self.locals.insert(id, local)),
                None => drop(self.locals.remove(&id)),
            }
        }
        for (key, value) in group.settings {
            self.settings.insert(key.to_owned(), value);
        }
    }
}

impl Kept {
    fn load(&self, which: &Which) -> Loaded {
        let tree = &self.record.tree;
        let leaves = match which {
            Which::Record => Vec::new(),
            Which::Winner => tree.winner().into_iter().collect(),
            Which::Leaf(rev) => tree.leaf(rev).into_iter().collect(),
            Which::Leaves => tree.leaves(),
        };
        let content = |leaf: Leaf| Some((leaf.clone(), self.contents.get(&leaf.rev)?.clone()));
        Loaded {
            record: self.record.clone(),
            contents: leaves.into_iter().filter_map(content).collect(),
        }
    }

    fn row(&self, id: &DocId, visit: Visit) -> Row {
        let leaves = self.record.tree.leaves();
        let content = self
            .contents
            .get(&leaves[0].rev)
            .filter(|_| visit.contents)
            .cloned();
        Row {
            seq: self.record.seq,
            id: id.clone(),
            leaves,
            content,
        }
    }
}

/// The sequence in the setting that keeps it.
pub(super) fn seq_of(bytes: &[u8]) -> Option<Seq> {
    Seq::new(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Whether nothing can be within: the ranges of maps panic there.
fn is_empty<T: Ord>(range: (Bound<&T>, Bound<&T>)) -> bool {
    match range {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
            low >= high
        }
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

fn in_order<'a, T: 'a>(
    items: impl DoubleEndedIterator<Item = T> + 'a,
    visit: Visit,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match visit.descending {
        true => Box::new(items.rev().take(visit.limit)),
        false => Box::new(items.take(visit.limit)),
    }
}

fn visit_all<T>(items: Vec<T>, visitor: &mut Visitor<'_, T>) {
    for item in items {
        if visitor(item) == ControlFlow::Break(()) {
            return;
        }
    }
}
