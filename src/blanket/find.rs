//! Mango queries: which documents match, read from an index where there is one.
//!
//! ```text
//!  Query ──> choice (pure: which index, which range) ──> Plan ──> find_page: entries of the range ──> documents ──> matched again
//!                                                          │
//!            changes since the index was read last ──> bring_up_to_date ──> store: one SQLite file beside the database's own
//! ```
//!
//! Indexes are derived: their file can go at any time and is made again from the feed of changes, so that they are the same over every
//! engine. As CouchDB's views, they are brought up to date by who asks them, in groups. An index names documents and never speaks for
//! them: each is read and matched again, so that what an entry says too much (of a document that was purged, or has changed since) is
//! passed over. What it might say too little is why its file is checked when it is opened: see `store.rs`.
//!
//! A page of an answer is one moment of the index. Between two pages documents may change, and with them their places.

mod candidates;
mod choice;
mod definition;
mod design;
mod projection;
mod range;
mod store;

use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

pub use candidates::Candidate as IndexCandidate;
pub use choice::{Hint, NoPlan, Plan, Query};
use definition::Signature;
pub use definition::{Filter, INDEX_FIELDS_MAX, Index, IndexField};
pub use design::{DesignError, with_index, without_index};
pub use projection::projected;
use store::{Built, Entry, INDEX_FILE, Reading, Store};

use super::changes::{Change, ChangesQuery, ListQuery};
use super::database::Database;
use super::engine::Which;
use super::error::Error;
use super::whole::whole;
use crate::id::{DbUuid, DocId, Seq};

/// Design documents that are looked through for indexes.
const DESIGNS_MAX: usize = 1000;

/// Documents of one group of entries.
const GROUP_DOCS_MAX: usize = 2000;

/// Bytes of keys of one group: a group is in memory as a whole.
const GROUP_BYTES_MAX: usize = 512 * 1024;

/// Entries of one page: whoever asks for little shall not read for long without being asked again.
const PAGE_ENTRIES_MAX: usize = 4096;

/// Bytes of documents of one page, unless one document has more.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The format of a position as text.
const POSITION_FORMAT: u8 = 1;

/// The indexes of one database; opened when they are first asked.
#[derive(Default)]
pub(super) struct Indexes {
    /// The folder of the database; without one they are in memory, as it is.
    place: OnceLock<PathBuf>,
    open: Mutex<Option<Arc<Store>>>,
    /// Held by who brings an index up to date.
    updating: Mutex<()>,
}

impl Indexes {
    /// Says where they are kept, before they are first asked.
    pub(super) fn keep_in(&self, place: PathBuf) {
        // A database has one folder: a second call says the same.
        let _ = self.place.set(place);
    }

    fn store(&self, database: DbUuid) -> Result<Arc<Store>, Error> {
        let mut open = lock(&self.open);
        if let Some(store) = &*open {
            return Ok(Arc::clone(store));
        }
        let store = Arc::new(Store::open(self.place.get().map(PathBuf::as_path), database)?);
        *open = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Forgets all of them, on the medium too.
    fn discard(&self) -> Result<(), Error> {
        let mut open = lock(&self.open);
        *open = None;
        match self.place.get() {
            Some(place) => store::remove(&place.join(INDEX_FILE)),
            None => Ok(()),
        }
    }

    /// Does something with the store, and once more with a new one where the file turns out to be damaged.
    fn with<T>(
        &self,
        database: DbUuid,
        mut work: impl FnMut(&Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.store(database).and_then(|store| work(&store)) {
            // Also where a write failed once: a new file is as good as the old one.
            Err(Error::Corrupt { .. } | Error::ReadOnly { .. } | Error::Database(_)) => {
                self.discard()?;
                self.store(database).and_then(|store| work(&store))
            }
            done => done,
        }
    }
}

/// How the indexes of one design document are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexState {
    /// What tells them from others; empty where there are none.
    pub signature: Vec<u8>,
    /// Up to where changes are in all of them.
    pub seq: Seq,
    /// Bytes of their entries.
    pub bytes: u64,
}

/// Where an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The index, and the key of the last entry in it; nothing in the order by id.
    entry: Option<(Signature, Vec<u8>)>,
    /// The last document.
    id: DocId,
}

impl Position {
    /// As clients keep it: letters of base64.
    pub fn to_text(&self) -> String {
        let (signature, key) = self.entry.clone().unwrap_or_default();
        let mut bytes = vec![POSITION_FORMAT];
        bytes.extend(signature);
        bytes.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(key);
        bytes.extend(self.id.as_str().as_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Reads what [`Position::to_text`] wrote for an answer from the same index; `None` for anything else.
    pub fn from_text(text: &str, plan: &Plan) -> Option<Position> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (format, bytes) = bytes.split_first()?;
        let (signature, bytes) = bytes.split_first_chunk::<16>()?;
        let (len, bytes) = bytes.split_first_chunk::<4>()?;
        let (key, id) = bytes.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        let id = std::str::from_utf8(id).ok()?.parse().ok()?;
        let entry = (!plan.index.is_all_docs()).then(|| (plan.index.signature(), key.to_vec()));
        let is_of_index = match &entry {
            Some((own, _)) => own == signature,
            None => key.is_empty() && *signature == Signature::default(),
        };
        (*format == POSITION_FORMAT && is_of_index).then_some(Position { entry, id })
    }
}

/// What of an answer is read at once.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// Where to go on.
    pub after: Option<Position>,
    /// So many that match are passed over.
    pub skip: usize,
    /// At most so many.
    pub limit: usize,
    /// With the names of revisions in conflict, as the member `_conflicts`.
    pub conflicts: bool,
}

/// A part of an answer.
#[derive(Debug, Clone, Default)]
pub struct FoundPage {
    /// Documents that match, whole.
    pub docs: Vec<Value>,
    /// Where to go on; what it was where nothing was read.
    pub after: Option<Position>,
    /// Whether there is nothing behind it.
    pub is_end: bool,
    /// Documents that matched and were passed over.
    pub skipped: usize,
    /// Entries that were read.
    pub keys_examined: u64,
    /// Documents that were read.
    pub docs_examined: u64,
    bytes: usize,
}

/// What becomes of a document that was read.
struct Candidate {
    id: DocId,
    document: Value,
    bytes: usize,
}

impl Database {
    /// The indexes that are defined, by design document and name; the order by id first.
    ///
    /// # Errors
    /// Where design documents can't be read.
    pub fn find_indexes(&self) -> Result<Vec<Index>, Error> {
        let bound = |text: &str| text.parse::<DocId>().map_or(Bound::Unbounded, Bound::Included);
        let query = ListQuery {
            // No other id begins with an underscore, and the grave accent stands behind it.
            start: bound("_design/\0"),
            end: bound("`"),
            limit: DESIGNS_MAX,
            docs: true,
            ..ListQuery::default()
        };
        let mut indexes = Vec::new();
        self.list(&query, &mut |listed| {
            let design = listed.doc.filter(|doc| doc.id.is_design());
            indexes.extend(design.iter().flat_map(Index::of_doc));
            ControlFlow::Continue(())
        })?;
        indexes.sort_by(|a, b| (&a.ddoc, &a.name).cmp(&(&b.ddoc, &b.name)));
        indexes.insert(0, Index::all_docs());
        Ok(indexes)
    }

    /// How a query would be answered.
    ///
    /// # Errors
    /// Where design documents can't be read.
    pub fn find_plan(&self, query: &Query) -> Result<Result<Plan, NoPlan>, Error> {
        Ok(choice::choose(query, self.find_indexes()?))
    }

    /// The indexes that do not answer a query, each with why; `chosen` does, where one does.
    ///
    /// # Errors
    /// Where design documents can't be read.
    pub fn find_candidates(
        &self,
        query: &Query,
        chosen: Option<&Index>,
    ) -> Result<Vec<IndexCandidate>, Error> {
        Ok(candidates::candidates(query, self.find_indexes()?, chosen))
    }

    /// How the indexes of a design document are.
    ///
    /// # Errors
    /// Where they can't be read.
    pub fn index_state(&self, ddoc: &DocId) -> Result<IndexState, Error> {
        let own = self.find_indexes()?.into_iter();
        let own: Vec<Signature> = own
            .filter(|index| index.ddoc.as_ref() == Some(ddoc))
            .map(|index| index.signature())
            .collect();
        let mut state = IndexState {
            signature: own.concat(),
            ..IndexState::default()
        };
        let indexes = self.indexes();
        indexes.with(self.uuid(), |store| {
            (state.seq, state.bytes) = (self.update_seq(), 0);
            for signature in &own {
                let built = store.built(signature)?;
                state.seq = state.seq.min(built.as_ref().map_or(Seq::ZERO, |built| built.seq));
                if let Some(built) = built {
                    state.bytes += store.bytes(&built)?;
                }
            }
            Ok(())
        })?;
        Ok(state)
    }

    /// Reads what changed into the index of a plan. Takes as long as that takes; others who ask wait.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::DamagedDoc`].
    pub fn bring_up_to_date(&self, plan: &Plan) -> Result<(), Error> {
        if plan.index.is_all_docs() || plan.is_void() {
            return Ok(());
        }
        let signature = plan.index.signature();
        let indexes = self.indexes();
        let _updating = lock(&indexes.updating);
        indexes.with(self.uuid(), |store| {
            let mut built = match store.built(&signature)? {
                Some(built) if self.has_been_at(&built)? => built,
                Some(_) => {
                    // An earlier state of the database: whatever the file says, it is of another history.
                    store.keep_only(&[])?;
                    store.add(&signature)?
                }
                None => {
                    // Those that nobody defines any more make room.
                    let defined = self.find_indexes()?;
                    store.keep_only(&defined.iter().map(Index::signature).collect::<Vec<_>>())?;
                    store.add(&signature)?
                }
            };
            while built.seq < self.update_seq() {
                self.read_changes(store, &plan.index, &mut built)?;
            }
            Ok(())
        })
    }

    /// Whether the database's history is the one that an index has read.
    fn has_been_at(&self, built: &Built) -> Result<bool, Error> {
        if built.seq > self.update_seq() {
            return Ok(false);
        }
        let Some((id, rev)) = &built.last else {
            return Ok(true);
        };
        let head = self.heads(std::slice::from_ref(id))?.pop().flatten();
        Ok(match head {
            Some(head) if head.seq <= built.seq => head.rev == *rev,
            // It changed since, or was purged.
            Some(_) => true,
            None => self.update_seq() > built.seq,
        })
    }

    /// Reads changes into an index, up to the last there is when this begins.
    fn read_changes(&self, store: &Store, index: &Index, built: &mut Built) -> Result<(), Error> {
        let is_fresh = built.seq == Seq::ZERO;
        let query = ChangesQuery {
            since: built.seq,
            docs: true,
            ..ChangesQuery::default()
        };
        let (mut group, mut bytes) = (Vec::<Entry>::new(), 0);
        let mut failed = Ok(());
        let end = self.changes(&query, &mut |change: Change| {
            let key = change
                .doc
                .as_ref()
                .filter(|doc| !doc.deleted && !doc.id.is_design())
                .and_then(|doc| index.key_of(&whole(doc)));
            bytes += key.as_ref().map_or(0, Vec::len);
            built.seq = change.seq;
            built.last = Some((change.id.clone(), change.leaves[0].rev.clone()));
            group.push((change.id, key));
            if group.len() < GROUP_DOCS_MAX && bytes < GROUP_BYTES_MAX {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            failed = store.put(built, std::mem::take(&mut group), is_fresh);
            match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        failed?;
        // Behind the last change may be sequences that are no document's any more.
        built.seq = end.last;
        store.put(built, group, is_fresh)
    }

    /// Reads one part of an answer.
    ///
    /// # Errors
    /// [`Error::DamagedDoc`]; what [`Database::bring_up_to_date`] says.
    pub fn find_page(&self, plan: &Plan, query: &Query, page: &PageQuery) -> Result<FoundPage, Error> {
        let mut found = FoundPage {
            after: page.after.clone(),
            ..FoundPage::default()
        };
        match (plan.is_void(), plan.index.is_all_docs()) {
            (true, _) => found.is_end = true,
            (false, true) => self.page_by_id(plan, query, page, &mut found)?,
            (false, false) => self.page_of_index(plan, query, page, &mut found)?,
        }
        Ok(found)
    }

    fn page_by_id(
        &self,
        plan: &Plan,
        query: &Query,
        page: &PageQuery,
        found: &mut FoundPage,
    ) -> Result<(), Error> {
        let range = match plan.id_range().map(range::ids) {
            Some(Some(range)) => range,
            Some(None) => {
                found.is_end = true;
                return Ok(());
            }
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let (low, high) = (id_bound(range.0), id_bound(range.1));
        let (start, end) = if query.descending {
            (high, low)
        } else {
            (low, high)
        };
        let list = ListQuery {
            start: page
                .after
                .as_ref()
                .map_or(start, |after| Bound::Excluded(after.id.clone())),
            end,
            descending: query.descending,
            docs: true,
            limit: PAGE_ENTRIES_MAX,
            ..ListQuery::default()
        };
        found.is_end = true;
        let mut failed = Ok(());
        self.list(&list, &mut |listed| {
            found.keys_examined += 1;
            found.after = Some(Position {
                entry: None,
                id: listed.id.clone(),
            });
            let Some(doc) = listed.doc.filter(|_| !listed.id.is_design()) else {
                return going_on(found);
            };
            let mut candidate = Candidate {
                bytes: doc.body.as_str().len(),
                document: whole(&doc),
                id: listed.id,
            };
            if page.conflicts {
                match self.tree(&candidate.id) {
                    Ok(tree) => {
                        candidate.add_conflicts(&tree.map(|tree| tree.conflicts()).unwrap_or_default())
                    }
                    Err(error) => {
                        failed = Err(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            found.take(candidate, query, page)
        })?;
        failed
    }

    fn page_of_index(
        &self,
        plan: &Plan,
        query: &Query,
        page: &PageQuery,
        found: &mut FoundPage,
    ) -> Result<(), Error> {
        let signature = plan.index.signature();
        let keys = plan.keys();
        let after = page.after.as_ref();
        let reading = Reading {
            keys: &keys,
            descending: query.descending,
            after: after.and_then(|after| Some((after.entry.as_ref()?.1.as_slice(), &after.id))),
            limit: PAGE_ENTRIES_MAX,
        };
        self.indexes().with(self.uuid(), |store| {
            *found = FoundPage {
                after: page.after.clone(),
                is_end: true,
                ..FoundPage::default()
            };
            store.read_range(&signature, &reading, &mut |seq, key, id| {
                found.keys_examined += 1;
                let candidate = self.candidate(&plan.index, &key, id.clone(), seq, page.conflicts)?;
                found.after = Some(Position {
                    entry: Some((signature, key)),
                    id,
                });
                Ok(match candidate {
                    Some(candidate) => found.take(candidate, query, page),
                    None => going_on(found),
                })
            })
        })
    }

    /// The document of an entry, where it is still what the entry says, or has changed since the index was read.
    fn candidate(
        &self,
        index: &Index,
        key: &[u8],
        id: DocId,
        built: Seq,
        conflicts: bool,
    ) -> Result<Option<Candidate>, Error> {
        let Some(snapshot) = self.snapshot(&id, &Which::Winner)? else {
            return Ok(None);
        };
        let Some(doc) = snapshot.docs.first().filter(|doc| !doc.deleted) else {
            return Ok(None);
        };
        let document = whole(doc);
        let own = index.key_of(&document);
        if own.as_deref() != Some(key) && (own.is_none() || snapshot.seq <= built) {
            return Ok(None);
        }
        let mut candidate = Candidate {
            bytes: doc.body.as_str().len(),
            document,
            id,
        };
        if conflicts {
            candidate.add_conflicts(&snapshot.tree.conflicts());
        }
        Ok(Some(candidate))
    }

    /// Forgets indexes that nobody defines any more; what they took is used for others.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn forget_indexes(&self) -> Result<(), Error> {
        let signatures: Vec<Signature> = self.find_indexes()?.iter().map(Index::signature).collect();
        let indexes = self.indexes();
        let _updating = lock(&indexes.updating);
        indexes.with(self.uuid(), |store| store.keep_only(&signatures).map(drop))
    }
}

impl Candidate {
    fn add_conflicts(&mut self, conflicts: &[crate::id::Rev]) {
        if let (false, Value::Object(members)) = (conflicts.is_empty(), &mut self.document) {
            members.insert("_conflicts".to_owned(), json!(conflicts));
        }
    }
}

impl FoundPage {
    /// Takes a document where it matches, and says whether the page has room for more.
    fn take(&mut self, candidate: Candidate, query: &Query, page: &PageQuery) -> ControlFlow<()> {
        self.docs_examined += 1;
        if query.selector.matches(&candidate.document) {
            if self.skipped < page.skip {
                self.skipped += 1;
            } else {
                self.bytes += candidate.bytes;
                self.docs.push(candidate.document);
            }
        }
        if self.docs.len() >= page.limit || self.bytes >= PAGE_BYTES_MAX {
            self.is_end = false;
            return ControlFlow::Break(());
        }
        going_on(self)
    }
}

fn going_on(found: &mut FoundPage) -> ControlFlow<()> {
    // The last entry that is read at once tells that there may be more.
    if found.keys_examined == PAGE_ENTRIES_MAX as u64 {
        found.is_end = false;
    }
    ControlFlow::Continue(())
}

fn id_bound(bound: Bound<String>) -> Bound<DocId> {
    let of = |text: &String| text.parse::<DocId>();
    match &bound {
        Bound::Included(text) => of(text).map_or(Bound::Unbounded, Bound::Included),
        Bound::Excluded(text) => of(text).map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole at any time.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
