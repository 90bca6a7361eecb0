//! The contract every engine fulfils: a small blocking trait for what is kept, and in what order.
//!
//! An engine knows no rule of documents: which revision wins, what an edit means and who may write is decided above it, by
//! `writer.rs` and `merge.rs`. What must hold, and `contract.rs` checks for each engine:
//!
//! - **Durable on return.** [`Engine::update`] returns when the whole group is on the medium, or none of it is.
//! - **One writer.** [`Engine::update`] is never called by two threads at once; everything else may be, also beside it. What
//!   reads see is one moment: before a group or after it.
//! - **In order.** Rows come by ascending sequence or by the bytes of their ids; a document has one row, at its last sequence.
//! - **Whole or an error.** What comes back is what was put, byte for byte; damage is an error, never other bytes.
//! - **A window of memory.** A visit holds a row at a time.

use std::ops::{Bound, ControlFlow};

use super::doc::{Body, Content};
use super::error::Error;
use super::tree::{Leaf, RevTree};
use crate::id::{DocId, LocalId, Rev, Seq};

/// What is known of a document besides what its revisions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// When it changed last.
    pub seq: Seq,
    /// Its revisions.
    pub tree: RevTree,
}

/// What of a document's revisions is to be read with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Nothing.
    Record,
    /// The winner.
    Winner,
    /// One leaf; nothing where it is none.
    Leaf(Rev),
    /// All leaves, the winner first.
    Leaves,
}

/// A document as an engine has it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Its record.
    pub record: Record,
    /// What was asked for.
    pub contents: Vec<(Leaf, Content)>,
}

/// A row of the orders by sequence and by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// When the document changed last.
    pub seq: Seq,
    /// The document.
    pub id: DocId,
    /// Its leaves, the winner first; never empty.
    pub leaves: Vec<Leaf>,
    /// What the winner holds, where that was asked for.
    pub content: Option<Content>,
}

/// How far a document database is, and what is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Documents whose winner is not deleted.
    pub docs: u64,
    /// Documents whose winner is deleted.
    pub deleted_docs: u64,
    /// The last sequence given out.
    pub update_seq: Seq,
}

/// Bytes of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// On the medium.
    pub file_bytes: u64,
    /// Of those, what is in use; the rest a compaction gives back.
    pub active_bytes: u64,
}

/// A document that stays in its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDoc {
    /// How often it was written: `0-N` as a revision.
    pub edits: u64,
    /// Its JSON.
    pub body: Body,
}

/// What is written in one go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Each document once.
    pub docs: Vec<DocChange>,
    /// Local documents, each once; `None` is a deletion.
    pub locals: Vec<(LocalId, Option<LocalDoc>)>,
    /// Settings, each key once.
    pub settings: Vec<(&'static str, Vec<u8>)>,
}

/// What becomes of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DocChange {
    /// The document.
    pub id: DocId,
    /// Where it was: `None` where it was not there.
    pub before: Option<Before>,
    /// What it is from now on; `None` where it is forgotten with all it holds.
    pub after: Option<Record>,
    /// What revisions hold that were not there, each a leaf of `after`.
    pub put: Vec<(Rev, Content)>,
    /// Revisions whose content is dropped: leaves before, no leaves after.
    pub drop: Vec<Rev>,
}

/// Where a document was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    /// Its sequence.
    pub seq: Seq,
    /// Its winner.
    pub winner: Rev,
}

/// What of the orders is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visit {
    /// From the end to the beginning.
    pub descending: bool,
    /// At most so many rows.
    pub limit: usize,
    /// With what the winners hold.
    pub contents: bool,
}

/// From the records of the documents that were asked for, in that order, to what is written.
pub(super) type Merge<'a> = dyn FnMut(Vec<Option<Record>>) -> Group + 'a;

/// A visitor: breaks where it has enough.
pub(super) type Visitor<'a, T> = dyn FnMut(T) -> ControlFlow<()> + 'a;

/// A place that keeps the documents of one database. Blocking.
pub(super) trait Engine: Send + Sync + 'static {
    /// Reads the records of documents, and writes what `merge` makes of them. Durable on return.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::ReadOnly`], [`Error::DamagedDoc`]: nothing of the group is there.
    fn update(&self, ids: &[DocId], merge: &mut Merge<'_>) -> Result<(), Error>;

    /// What is in it. Reads no more than a count takes.
    ///
    /// # Errors
    /// Where it can't be read.
    fn summary(&self) -> Result<Summary, Error>;

    /// Bytes on the medium.
    ///
    /// # Errors
    /// Where they can't be told.
    fn sizes(&self) -> Result<Sizes, Error>;

    /// One document, `None` where it was never written or is forgotten.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    fn load(&self, id: &DocId, which: &Which) -> Result<Option<Loaded>, Error>;

    /// Documents that changed within `range`, by sequence.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`], after the rows before it.
    fn by_seq(
        &self,
        range: (Bound<Seq>, Bound<Seq>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error>;

    /// How many documents changed last within `range`.
    ///
    /// # Errors
    /// Where it can't be read.
    fn count(&self, range: (Bound<Seq>, Bound<Seq>)) -> Result<u64, Error>;

    /// Documents within `range`, deleted ones included, by id.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`], after the rows before it.
    fn by_id(
        &self,
        range: (Bound<&DocId>, Bound<&DocId>),
        visit: Visit,
        visitor: &mut Visitor<'_, Row>,
    ) -> Result<(), Error>;

    /// What revisions with attachments hold, in no particular order: every leaf of every document.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`].
    fn attached(&self, visitor: &mut Visitor<'_, (DocId, Content)>) -> Result<(), Error>;

    /// One local document.
    ///
    /// # Errors
    /// Where it can't be read.
    fn local(&self, id: &LocalId) -> Result<Option<LocalDoc>, Error>;

    /// Local documents within `range`, by id.
    ///
    /// # Errors
    /// Where they can't be read.
    fn locals(
        &self,
        range: (Bound<&LocalId>, Bound<&LocalId>),
        visit: Visit,
        visitor: &mut Visitor<'_, (LocalId, LocalDoc)>,
    ) -> Result<(), Error>;

    /// One setting.
    ///
    /// # Errors
    /// Where it can't be read.
    fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Gives back what is not in use.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was lost.
    fn compact(&self) -> Result<(), Error>;

    /// Reads everything and says what is wrong; `None` where nothing is.
    ///
    /// # Errors
    /// Only where the check cannot be made.
    fn check(&self) -> Result<Option<String>, Error>;
}

/// The key of the setting in which the last sequence is kept once it is no document's any more.
pub(super) const UPDATE_SEQ: &str = "update_seq";
