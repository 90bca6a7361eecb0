//! Documents: a database for small devices that replicates with CouchDB in both directions.
//!
//! ```text
//!  save_doc ──> writer (one group for all that wait) ──> merge (pure: who may write, what is kept)
//!                                                          └─> Engine: sqlite, memory…  one row for each document,
//!  open_doc, changes, list ─────────────────────────────────>                           in order of id and of change
//!  find ──> indexes, derived from changes ──> documents
//! ```
//!
//! [`create_db`], [`open_db`], then [`Database::save_doc`] and [`Database::open_doc`], which always answers the winning
//! revision. What revisions are and which one wins is in `tree`; it needs no engine and no clock. Attachments are named by their
//! digests: no blob is opened here. Only the leaves of a document's tree keep what they held: an older revision is known by its
//! name alone, as it is in CouchDB after a compaction.

mod changes;
pub mod collate;
#[cfg(test)]
pub(crate) mod contract;
mod copy;
#[cfg(feature = "couchdb")]
mod couchdb;
#[cfg(not(feature = "couchdb"))]
#[path = "blanket/absent/couchdb.rs"]
mod couchdb;
mod database;
mod doc;
mod engine;
mod error;
mod find;
mod folder;
pub mod json;
mod kind;
#[cfg(feature = "leveldb")]
mod leveldb;
#[cfg(not(feature = "leveldb"))]
#[path = "blanket/absent/leveldb.rs"]
mod leveldb;
#[cfg(feature = "lsm")]
mod lsm;
#[cfg(not(feature = "lsm"))]
#[path = "blanket/absent/lsm.rs"]
mod lsm;
mod memory;
mod merge;
#[cfg(any(feature = "couchdb", feature = "leveldb", feature = "lsm"))]
mod ordered;
mod revid;
pub mod selector;
mod servers;
mod settings;
mod sqlite;
mod tree;
mod whole;
mod writer;

pub use changes::{Change, ChangesEnd, ChangesQuery, Head, ListQuery, Listed, Missing, PENDING_COUNTED_MAX};
pub use copy::copy;
pub use database::{Database, Info, Snapshot};
pub use doc::{
    ATTACHMENTS_MAX, Attachment, AttachmentEdit, Attachments, BODY_BYTES_MAX, Body, Content, Doc, DocError,
    Edit, Encoded, Parts, Refused, split,
};
pub use engine::{LocalDoc, Sizes, Which};
pub use error::Error;
pub use find::{
    DesignError, Filter, FoundPage, Hint, INDEX_FIELDS_MAX, Index, IndexCandidate, IndexField, IndexState,
    NoPlan, PageQuery, Plan, Position, Query, projected, with_index, without_index,
};
pub use folder::{
    Options, create_db, create_db_on, list_dbs, open_db, open_db_on, remove_db, remove_db_on, set_aside,
};
pub use kind::EngineKind;
pub use servers::{Allows, Opener, Reveal, ServerPlace, Servers};
pub use tree::{BadHistory, Leaf, Merged, REVS_LIMIT, RevTree};
pub use whole::whole;
pub use writer::{EDITS_MAX, Lead};
