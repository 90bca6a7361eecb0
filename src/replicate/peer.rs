//! The two sides of a replication, whatever is behind them: a database of this node, or one on a server that speaks CouchDB's API.
//!
//! What a peer says is taken for true only where it can be checked: that revisions are histories, that they are of the documents
//! that were asked for, that bytes have the digest they are said to have. Everything it sends is bounded. Nothing of an answer
//! that lies is stored.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::checkpoint::{Checkpoint, PeerSeq};
use super::transfer::Room;
use crate::id::{BlobId, DocId, LocalId, Rev};
use crate::node::DocumentBody;

/// What a peer is asked for; may be dropped at any time.
pub(super) type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// Why a peer did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    /// A sentence without credentials.
    pub(super) reason: String,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Try again soon: the network, a busy server, a disk that is full for now.
    Passing,
    /// Whoever asks may not.
    Refused,
    /// It is not there.
    Missing,
    /// It was changed by somebody else.
    Conflict,
    /// What came is not what it says it is.
    Lie,
    /// A document names an attachment that the target lacks.
    Stub,
    /// It will not be done however often it is asked.
    Fatal,
}

/// Changes that are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChangesAsk {
    /// Those after this.
    pub(super) since: PeerSeq,
    /// At most so many.
    pub(super) limit: usize,
    /// Whether to wait a while for one where there is none.
    pub(super) wait: bool,
}

/// Changes, the oldest first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    /// Rows with ids or revisions that no database here takes.
    pub(super) skipped: u64,
    /// Where to go on.
    pub(super) last_seq: PeerSeq,
    /// Changes behind it, where the peer tells.
    pub(super) pending: Option<u64>,
}

/// A document that changed, with its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: DocId,
    pub(super) revs: Vec<Rev>,
}

/// Revisions of a document that the target lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: DocId,
    pub(super) revs: Vec<Rev>,
    /// Leaves of the target that they may follow.
    pub(super) ancestors: Vec<Rev>,
}

/// A revision of a document on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Revision {
    pub(super) id: DocId,
    /// The revision, then its ancestors, one generation below the other. Never empty.
    pub(super) revisions: Vec<Rev>,
    pub(super) deleted: bool,
    pub(super) body: DocumentBody,
    pub(super) attachments: BTreeMap<String, Hung>,
}

/// What hangs on a revision, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hung {
    pub(super) content_type: String,
    pub(super) revpos: u32,
    /// The MD5 of the bytes; `None` where the source keeps them in another coding and told the digest of that.
    pub(super) digest: Option<[u8; 16]>,
    /// Bytes.
    pub(super) length: u64,
    /// Where the source is this node.
    pub(super) blob: Option<BlobId>,
}

/// A checkpoint as a side keeps it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    /// What the next one replaces.
    pub(super) rev: String,
    /// What it says; `None` where that is nothing that can be read.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Revisions that were read from the source.
    pub(super) read: u64,
    /// Those that the target has now.
    pub(super) written: u64,
    /// Those that it refused, one by one.
    pub(super) refused: u64,
}

/// Revisions that come one after the other.
pub(super) trait Revisions: Send {
    /// The next; `None` at the end. What the source does not have any more is left out. A large one is read once there is room.
    fn next<'a>(&'a mut self, room: &'a mut Room) -> Answering<'a, Option<Revision>>;
    /// Whether something that was read waits to be taken.
    fn waits(&self) -> bool;
}

/// The bytes of an attachment, in pieces.
pub(super) trait Pieces: Send {
    /// The next; `None` at the end.
    fn next(&mut self) -> Answering<'_, Option<Bytes>>;
}

/// A database that can be a side of a replication.
pub(super) trait Peer: Send + Sync {
    /// Whether it is there.
    fn open(&self) -> Answering<'_, bool>;
    /// Makes it; succeeds also where it is there by now.
    fn create(&self) -> Answering<'_, ()>;
    /// Puts what it has stored on its medium.
    fn commit(&self) -> Answering<'_, ()>;
    /// What it keeps under this name.
    fn checkpoint(&self, id: LocalId) -> Answering<'_, Option<Kept>>;
    /// Keeps this in place of what has revision `rev`; the revision it has then. Fails with [`Trouble::Conflict`], and with
    /// [`Trouble::Missing`] where what was opened is gone, also where there is another of its name.
    fn keep(&self, id: LocalId, rev: Option<String>, checkpoint: Checkpoint) -> Answering<'_, String>;
    /// What changed.
    fn changes(&self, ask: ChangesAsk) -> Answering<'_, Page>;
    /// Which of these it lacks.
    fn differ<'a>(&'a self, rows: &'a [Row]) -> Answering<'a, Vec<Wanted>>;
    /// Reads revisions with their histories.
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> Answering<'a, Box<dyn Revisions + 'a>>;
    /// Reads an attachment.
    fn attachment<'a>(&'a self, of: &'a Revision, name: &'a str) -> Answering<'a, Box<dyn Pieces>>;
    /// Stores revisions as they were made elsewhere, each with what the target has that it may follow. Attachments it lacks are read
    /// from `source`. Durable on return.
    fn store<'a>(
        &'a self,
        revisions: Vec<(Revision, &'a [Rev])>,
        source: &'a dyn Peer,
    ) -> Answering<'a, Moved>;
}

impl Side {
    pub(super) fn index(self) -> usize {
        match self {
            Side::Source => 0,
            Side::Target => 1,
        }
    }
}

impl Failure {
    pub(super) fn new(trouble: Trouble, reason: impl Into<String>) -> Failure {
        Failure {
            trouble,
            reason: reason.into(),
        }
    }

    pub(super) fn fatal(reason: impl Into<String>) -> Failure {
        Failure::new(Trouble::Fatal, reason)
    }

    pub(super) fn lie(reason: impl Into<String>) -> Failure {
        Failure::new(Trouble::Lie, reason)
    }
}

impl Revision {
    /// The revision.
    pub(super) fn rev(&self) -> &Rev {
        &self.revisions[0]
    }

    /// Bytes that are held of it.
    pub(super) fn held_bytes(&self) -> usize {
        let names: usize = self.attachments.keys().map(|name| name.len() + 128).sum();
        self.body.as_str().len() + self.revisions.len() * 40 + names
    }
}
