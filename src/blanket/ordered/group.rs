//! A group as one batch of keys, with the counters that it changes.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::engine::{DocChange, Group, LocalDoc, Record, Summary, UPDATE_SEQ};
use super::super::error::Error;
use super::super::memory::seq_of;
use super::super::tree::Leaf;
use super::layout::{self, COUNTERS_KEY, Counters, Held, Stored};
use super::{Batch, Moment};
use crate::id::{DocId, LocalId, Rev, Seq};

/// What is counted.
pub(super) fn counters(moment: &mut dyn Moment, path: &Path) -> Result<Counters, Error> {
    let sealed = moment
        .get(COUNTERS_KEY)?
        .ok_or_else(|| layout::damaged(COUNTERS_KEY, path))?;
    let value =
        layout::unseal(COUNTERS_KEY, &sealed).map_err(|unreadable| unreadable.at(COUNTERS_KEY, path))?;
    layout::counters_of(value).ok_or_else(|| layout::damaged(COUNTERS_KEY, path))
}

/// The batch of a group, where the documents that it changes were as `before` says.
pub(super) fn batch(
    moment: &mut dyn Moment,
    group: Group,
    before: &BTreeMap<DocId, Option<Stored>>,
    path: &Path,
) -> Result<Batch, Error> {
    let mut batch = Batch::new();
    let Counters {
        summary: mut counted,
        groups,
    } = counters(moment, path)?;
    for change in &group.docs {
        let before = before.get(&change.id).and_then(Option::as_ref);
        count(&mut counted, before, change.after.as_ref());
        doc(&mut batch, change, before);
    }
    for (id, local) in &group.locals {
        batch.push(local_write(id, local.as_ref()));
    }
    for (key, value) in &group.settings {
        if *key == UPDATE_SEQ {
            counted.update_seq = counted.update_seq.max(seq_of(value).unwrap_or_default());
        }
        batch.push(layout::put(layout::setting_key(key), value));
    }
    if !batch.is_empty() {
        batch.push(layout::counters(&Counters {
            summary: counted,
            groups: groups + 1,
        }));
    }
    Ok(batch)
}

fn count(counted: &mut Summary, before: Option<&Stored>, after: Option<&Record>) {
    let is_deleted = |winner: Option<Leaf>| winner.is_some_and(|winner| winner.deleted);
    if let Some(before) = before {
        let number = match is_deleted(before.tree.winner()) {
            true => &mut counted.deleted_docs,
            false => &mut counted.docs,
        };
        *number = number.saturating_sub(1);
    }
    if let Some(after) = after {
        match is_deleted(after.tree.winner()) {
            true => counted.deleted_docs += 1,
            false => counted.docs += 1,
        }
        counted.update_seq = counted.update_seq.max(after.seq);
    }
}

fn doc(batch: &mut Batch, change: &DocChange, before: Option<&Stored>) {
    let id = &change.id;
    let mut had: BTreeMap<Rev, Held> = BTreeMap::new();
    if let Some(before) = before {
        batch.push((layout::seq_key(before.seq), None));
        let leaves = before.tree.leaves().into_iter().map(|leaf| leaf.rev);
        had.extend(leaves.zip(before.held.iter().copied()));
    }
    let Some(after) = &change.after else {
        batch.push((layout::id_key(id), None));
        for (rev, held) in &had {
            drop_leaf(batch, id, rev, *held, 0);
        }
        return;
    };
    let mut held = Vec::new();
    for leaf in after.tree.leaves() {
        let had = had.remove(&leaf.rev);
        let put = change.put.iter().find(|(rev, _)| *rev == leaf.rev);
        held.push(match put {
            Some((rev, content)) => {
                let (pieces, held) = layout::pieces(content);
                for (number, piece) in (0..).zip(&pieces) {
                    batch.push(layout::put(layout::piece_key(id, rev, number), piece));
                }
                if let Some(had) = had {
                    drop_leaf(
                        batch,
                        id,
                        rev,
                        Held {
                            is_attached: had.is_attached && !held.is_attached,
                            ..had
                        },
                        held.pieces,
                    );
                }
                if held.is_attached {
                    batch.push(layout::put(layout::attached_key(id, rev), &[]));
                }
                held
            }
            None => had.expect("a leaf that was not put was there before"),
        });
    }
    for (rev, held) in &had {
        drop_leaf(batch, id, rev, *held, 0);
    }
    batch.push(layout::put(
        layout::seq_key(after.seq),
        &layout::row(id, &after.tree, &held),
    ));
    batch.push(layout::put(layout::id_key(id), &after.seq.number().to_be_bytes()));
}

/// Deletes the pieces of a leaf from `first` on, and that it has attachments.
fn drop_leaf(batch: &mut Batch, id: &DocId, rev: &Rev, held: Held, first: u32) {
    for piece in first..held.pieces {
        batch.push((layout::piece_key(id, rev, piece), None));
    }
    if held.is_attached {
        batch.push((layout::attached_key(id, rev), None));
    }
}

fn local_write(id: &LocalId, local: Option<&LocalDoc>) -> (Vec<u8>, Option<Vec<u8>>) {
    let key = layout::local_key(id);
    match local {
        Some(local) => {
            let value = [&local.edits.to_be_bytes(), local.body.as_str().as_bytes()].concat();
            layout::put(key, &value)
        }
        None => (key, None),
    }
}

/// Whether the counters are those of the rows that are there.
pub(super) fn agrees(counted: Summary, docs: u64, deleted_docs: u64, last: Seq) -> bool {
    (counted.docs, counted.deleted_docs) == (docs, deleted_docs) && counted.update_seq >= last
}
