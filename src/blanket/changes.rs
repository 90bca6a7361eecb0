//! What is asked of a database's orders, and what comes back: changes by sequence, documents by id.

use std::ops::Bound;

use super::doc::Doc;
use super::tree::Leaf;
use crate::id::{DocId, Rev, Seq};

/// Which changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Those after this sequence; descending, those up to the last one and after this.
    pub since: Seq,
    /// At most so many.
    pub limit: usize,
    /// The latest first.
    pub descending: bool,
    /// With the winning revision of each.
    pub docs: bool,
}

/// A document that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it changed last.
    pub seq: Seq,
    /// The document.
    pub id: DocId,
    /// Its leaves, the winner first: CouchDB's `style=all_docs`; the first alone is `main_only`.
    pub leaves: Vec<Leaf>,
    /// The winning revision, where it was asked for.
    pub doc: Option<Doc>,
}

/// How far a visit of changes came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangesEnd {
    /// Where to go on: the sequence of the last change that was visited, or where there is none left, of the database.
    pub last: Seq,
    /// Changes behind it: exact up to [`PENDING_COUNTED_MAX`], an upper bound beyond; 0 where there is none.
    pub pending: u64,
}

/// Up to here the changes that are left are counted, beyond they are estimated from sequences: counting reads them.
pub const PENDING_COUNTED_MAX: u64 = 1000;

/// Which documents, by id in the order of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Where to begin; with `descending`, the upper end.
    pub start: Bound<DocId>,
    /// Where to end; with `descending`, the lower end.
    pub end: Bound<DocId>,
    /// From the end of the order to its beginning.
    pub descending: bool,
    /// So many are passed over first.
    pub skip: usize,
    /// At most so many.
    pub limit: usize,
    /// With the winning revision of each.
    pub docs: bool,
}

/// A document in the order of ids; its winner is not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The document.
    pub id: DocId,
    /// Its winner.
    pub rev: Rev,
    /// The winning revision, where it was asked for.
    pub doc: Option<Doc>,
}

/// What a document is at, without what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// When it changed last.
    pub seq: Seq,
    /// Its winner.
    pub rev: Rev,
    /// Whether the winner is a deletion.
    pub deleted: bool,
}

/// Revisions of one document that are not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The document.
    pub id: DocId,
    /// Of those asked for, what is not here. Never empty.
    pub revs: Vec<Rev>,
    /// Leaves that what is missing may follow.
    pub possible_ancestors: Vec<Rev>,
}

impl Change {
    /// Whether the winner is a deletion.
    pub fn is_deleted(&self) -> bool {
        self.leaves[0].deleted
    }
}

impl Default for ChangesQuery {
    /// All, the oldest first, without documents.
    fn default() -> Self {
        ChangesQuery {
            since: Seq::ZERO,
            limit: usize::MAX,
            descending: false,
            docs: false,
        }
    }
}

impl Default for ListQuery {
    /// All, the lowest id first, without documents.
    fn default() -> Self {
        ListQuery {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            descending: false,
            skip: 0,
            limit: usize::MAX,
            docs: false,
        }
    }
}
