//! The revision tree of one document: a pure value that grows by merging histories and decides the winner.
//!
//! ```text
//!          ┌─ 2-b ── 3-c        leaf, the winner: not deleted, the highest generation, then the highest hash
//!  1-a ────┤
//!          └─ 2-d (deleted)     leaf; a conflict if it were not deleted
//! ```
//!
//! A tree is a set of revisions, each with its parents. Merging is the union of two such sets, so that the order in which
//! histories arrive changes nothing. A revision normally has one parent; one that two peers give different parents keeps both,
//! which no honest peer causes (a hash covers the parent's) and which leaves no revision without a body. What is known of
//! leaves alone (whether they are deleted) is forgotten when they get a child.
//!
//! The rules are CouchDB's (`couch_key_tree.erl`; <https://docs.couchdb.org/en/stable/replication/conflicts.html>).

mod codec;

use std::collections::BTreeMap;

use crate::id::{Rev, RevHash};

pub(super) use codec::{CodecError, leaves_of};

/// As many revisions of a branch as are remembered where nobody says otherwise: CouchDB's default.
pub const REVS_LIMIT: u32 = 1000;

/// The revisions of a document and how they follow one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevTree {
    nodes: BTreeMap<Rev, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// Sorted; the last one is followed where one line of ancestors is wanted.
    parents: Vec<RevHash>,
    has_child: bool,
    /// Of a leaf; `false` for any other.
    is_deleted: bool,
}

/// A revision that none follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The revision.
    pub rev: Rev,
    /// Whether it is a deletion.
    pub deleted: bool,
}

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// The revision is a new leaf, and what it follows was a leaf: the branch grew.
    NewLeaf,
    /// The revision is a new leaf beside others.
    NewBranch,
    /// The revision was known, but not all of the ancestors that came with it.
    Deeper,
    /// All of it was known.
    Known,
}

/// A history that is none: generations that do not descend one by one to at least 1, or nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a history is one revision and its ancestors, each one generation below the one before")]
pub struct BadHistory;

impl RevTree {
    /// A tree without revisions: that of a document nobody wrote.
    pub fn new() -> RevTree {
        RevTree::default()
    }

    /// Whether there is no revision.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of revisions.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has this revision, leaf or not.
    pub fn contains(&self, rev: &Rev) -> bool {
        self.nodes.contains_key(rev)
    }

    /// The leaf of this revision; `None` where there is no such revision or it has been followed.
    pub fn leaf(&self, rev: &Rev) -> Option<Leaf> {
        let node = self.nodes.get(rev)?;
        (!node.has_child).then(|| Leaf {
            rev: rev.clone(),
            deleted: node.is_deleted,
        })
    }

    /// Merges a revision and its ancestors, the revision first. `deleted` is of the revision.
    ///
    /// # Errors
    /// [`BadHistory`]: nothing was merged.
    pub fn merge(&mut self, history: &[Rev], deleted: bool) -> Result<Merged, BadHistory> {
        check(history)?;
        let tip = &history[0];
        let is_new = !self.contains(tip);
        let grows = history.get(1).is_some_and(|parent| self.leaf(parent).is_some());
        let mut is_deeper = false;
        for (index, rev) in history.iter().enumerate() {
            if !self.contains(rev) {
                let node = Node {
                    is_deleted: deleted && index == 0,
                    ..Node::default()
                };
                self.nodes.insert(rev.clone(), node);
                is_deeper = true;
            }
            if index > 0 {
                is_deeper |= self.link(&history[index - 1], rev);
            }
        }
        Ok(match (is_new, grows, is_deeper) {
            (true, true, _) => Merged::NewLeaf,
            (true, false, _) => Merged::NewBranch,
            (false, _, true) => Merged::Deeper,
            (false, _, false) => Merged::Known,
        })
    }

    /// The leaves, the winner first: those not deleted before the deleted ones, then from the highest revision down.
    pub fn leaves(&self) -> Vec<Leaf> {
        let leaves = self.nodes.iter().rev().filter(|(_, node)| !node.has_child);
        let mut leaves: Vec<Leaf> = leaves
            .map(|(rev, node)| Leaf {
                rev: rev.clone(),
                deleted: node.is_deleted,
            })
            .collect();
        // Stable: within each half the order of the revisions stays.
        leaves.sort_by_key(|leaf| leaf.deleted);
        leaves
    }

    /// The leaf that stands for the document: see [`RevTree::leaves`]. `None` where there is no revision.
    pub fn winner(&self) -> Option<Leaf> {
        let leaves = || self.nodes.iter().rev().filter(|(_, node)| !node.has_child);
        let alive = leaves().find(|(_, node)| !node.is_deleted);
        let (rev, node) = alive.or_else(|| leaves().next())?;
        Some(Leaf {
            rev: rev.clone(),
            deleted: node.is_deleted,
        })
    }

    /// The leaves besides the winner that are not deleted, from the highest down.
    pub fn conflicts(&self) -> Vec<Rev> {
        let leaves = self.leaves().into_iter().skip(1);
        leaves.filter(|leaf| !leaf.deleted).map(|leaf| leaf.rev).collect()
    }

    /// The deleted leaves besides the winner, from the highest down.
    pub fn deleted_conflicts(&self) -> Vec<Rev> {
        let leaves = self.leaves().into_iter().skip(1);
        leaves.filter(|leaf| leaf.deleted).map(|leaf| leaf.rev).collect()
    }

    /// A revision and what is remembered of its ancestors, itself first; empty where it is not known.
    pub fn history_of(&self, rev: &Rev) -> Vec<Rev> {
        let mut history = Vec::new();
        let mut next = self.contains(rev).then(|| rev.clone());
        while let Some(rev) = next {
            next = self.parent_of(&rev);
            history.push(rev);
        }
        history
    }

    /// The leaves that follow a revision, itself where it is one; the highest first.
    pub fn leaves_after(&self, rev: &Rev) -> Vec<Leaf> {
        let follows = |leaf: &Leaf| leaf.rev == *rev || self.descends(&leaf.rev, rev);
        self.leaves().into_iter().filter(follows).collect()
    }

    /// Forgets what is further than `limit` revisions from every leaf, the leaf itself counted. Answers whether that was any.
    pub fn stem(&mut self, limit: u32) -> bool {
        let limit = limit.max(1);
        let before = self.nodes.len();
        if before <= limit as usize {
            return false;
        }
        // Revisions left until the limit, for each that a leaf is near to. From high generations to low, every child is seen
        // before its parents.
        let mut left: BTreeMap<Rev, u32> = BTreeMap::new();
        for (rev, node) in self.nodes.iter().rev() {
            let own = match node.has_child {
                true => left.get(rev).copied().unwrap_or(0),
                false => limit,
            };
            left.insert(rev.clone(), own);
            for parent in parents(rev, node).filter(|_| own > 1) {
                let of_parent = left.entry(parent).or_insert(0);
                *of_parent = (*of_parent).max(own - 1);
            }
        }
        self.nodes
            .retain(|rev, _| left.get(rev).is_some_and(|left| *left > 0));
        if before == self.nodes.len() {
            return false;
        }
        self.drop_dangling_parents();
        true
    }

    /// Forgets leaves, and of what led to them what leads to no other. Answers which of `revs` were leaves.
    pub fn purge(&mut self, revs: &[Rev]) -> Vec<Rev> {
        let mut purged = Vec::new();
        for rev in revs {
            if self.leaf(rev).is_some() {
                self.remove_branch(rev.clone());
                purged.push(rev.clone());
            }
        }
        purged
    }

    /// Adds an edge; answers whether it was not there.
    fn link(&mut self, child: &Rev, parent: &Rev) -> bool {
        let node = self.nodes.get_mut(child).expect("both ends were merged before");
        let Err(at) = node.parents.binary_search(parent.hash()) else {
            return false;
        };
        node.parents.insert(at, parent.hash().clone());
        if let Some(node) = self.nodes.get_mut(parent) {
            node.has_child = true;
            node.is_deleted = false;
        }
        true
    }

    fn parent_of(&self, rev: &Rev) -> Option<Rev> {
        Rev::new(rev.generation() - 1, self.nodes.get(rev)?.parents.last()?.clone())
    }

    /// Whether `rev` has `ancestor` among its ancestors, over every parent.
    fn descends(&self, rev: &Rev, ancestor: &Rev) -> bool {
        let mut level = vec![rev.clone()];
        while let Some(generation) = level.first().map(Rev::generation) {
            if generation <= ancestor.generation() {
                return level.contains(ancestor);
            }
            let nodes = level.iter().filter_map(|rev| Some((rev, self.nodes.get(rev)?)));
            let mut above: Vec<Rev> = nodes.flat_map(|(rev, node)| parents(rev, node)).collect();
            above.sort();
            above.dedup();
            level = above;
        }
        false
    }

    fn remove_branch(&mut self, leaf: Rev) {
        let mut next = vec![leaf];
        while let Some(rev) = next.pop() {
            let Some(node) = self.nodes.remove(&rev) else {
                continue;
            };
            for parent in parents(&rev, &node) {
                if !self.is_followed(&parent) {
                    next.push(parent);
                }
            }
        }
    }

    fn is_followed(&self, rev: &Rev) -> bool {
        let mut above = self.nodes.range(rev..);
        above.any(|(other, node)| {
            other.generation() == rev.generation() + 1 && node.parents.binary_search(rev.hash()).is_ok()
        })
    }

    fn drop_dangling_parents(&mut self) {
        let known: Vec<Rev> = self.nodes.keys().cloned().collect();
        for (rev, node) in &mut self.nodes {
            node.parents.retain(|hash| {
                let parent = Rev::new(rev.generation() - 1, hash.clone());
                parent.is_some_and(|parent| known.binary_search(&parent).is_ok())
            });
        }
    }
}

fn parents<'a>(rev: &Rev, node: &'a Node) -> impl Iterator<Item = Rev> + use<'a> {
    let above = rev.generation() - 1;
    node.parents
        .iter()
        .filter_map(move |hash| Rev::new(above, hash.clone()))
}

fn check(history: &[Rev]) -> Result<(), BadHistory> {
    let descends = history
        .windows(2)
        .all(|pair| pair[1].generation().checked_add(1) == Some(pair[0].generation()));
    match history.is_empty() || !descends {
        true => Err(BadHistory),
        false => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests;
