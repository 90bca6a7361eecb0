//! A backend under a store that is in use, which can be exchanged for another with the same blobs.
//!
//! Whoever holds the store goes on with the same handle: writes wait for the moment of the exchange, reads do not. What is
//! written before it can be followed, so that the other backend catches up while the first one serves:
//!
//! ```text
//! follow ─> the other gets every blob ─> take_touched ─> it gets those again ─> … ─> exchange: writes wait, the last ones, done
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::backend::{
    Aside, Backend, CheckOptions, CheckReport, Class, Compaction, Incoming, Listing, Put, Reader, Stat,
    Status,
};
use super::error::Error;
use super::frame::Packed;
use crate::id::{BlobId, Sha256Id};

/// Ids that are remembered between two looks of whoever follows, 2 MiB; with more, everything has to be compared again.
const TOUCHED_MAX: usize = 64 * 1024;

/// Blobs that a list reads ahead: few at first, as many callers want no more; then what the longest page of a store wants at once,
/// as each turn begins a list of the backend anew.
const PAGE_FIRST: usize = 128;
const PAGE: usize = 4096;

/// The exchangeable backend. See the module's head; cloning is cheap.
#[derive(Clone)]
pub struct Switch {
    inner: Arc<Inner>,
}

struct Inner {
    current: RwLock<Arc<dyn Backend>>,
    /// Shared by those who write, held alone by an exchange.
    writing: RwLock<()>,
    /// What was written, while somebody follows.
    touched: Mutex<Option<Touched>>,
}

/// What was written since somebody looked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Blobs that were put, pinned or deleted.
    pub blobs: Ids,
    /// Blobs that got an alias.
    pub aliased: Ids,
}

/// Some blobs, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// These.
    These(BTreeSet<BlobId>),
    /// More than are remembered.
    Any,
}

impl Default for Ids {
    fn default() -> Self {
        Ids::These(BTreeSet::new())
    }
}

impl Ids {
    fn note(&mut self, more: impl IntoIterator<Item = BlobId>) {
        let Ids::These(ids) = self else {
            return;
        };
        ids.extend(more);
        if ids.len() > TOUCHED_MAX {
            *self = Ids::Any;
        }
    }
}

impl Switch {
    /// A switch that stands on this backend.
    pub fn new(backend: Arc<dyn Backend>) -> Switch {
        Switch {
            inner: Arc::new(Inner {
                current: RwLock::new(backend),
                writing: RwLock::default(),
                touched: Mutex::default(),
            }),
        }
    }

    /// What is written from now on is remembered, until [`Switch::unfollow`]; all that was written before is visible.
    ///
    /// # Errors
    /// As [`Backend::flush`].
    pub fn follow(&self) -> Result<(), Error> {
        *self.inner.touched() = Some(Touched::default());
        // Appended before, hence not noted, and flushed by its writer only after somebody listed what is there.
        self.inner.current().flush()
    }

    /// Nothing is remembered any more.
    pub fn unfollow(&self) {
        *self.inner.touched() = None;
    }

    /// What was written since the last call. All of it is visible.
    ///
    /// # Errors
    /// As [`Backend::flush`].
    pub fn take_touched(&self) -> Result<Touched, Error> {
        let touched = self
            .inner
            .touched()
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        // Appended, and noted, but perhaps not flushed yet.
        self.inner.current().flush()?;
        Ok(touched)
    }

    /// Exchanges the backend for `to`, once `settle` says that both hold the same: it is given the present one and what was
    /// written since the last look; writes wait meanwhile. Streams that have not ended are answered as busy when they do.
    /// Answers with the backend that was used until then.
    ///
    /// # Errors
    /// What `settle` answers; the present backend is used on.
    pub fn exchange<E: From<Error>>(
        &self,
        to: Arc<dyn Backend>,
        settle: impl FnOnce(&dyn Backend, Touched) -> Result<(), E>,
    ) -> Result<Arc<dyn Backend>, E> {
        let inner = &self.inner;
        let _alone = inner.writing.write().unwrap_or_else(PoisonError::into_inner);
        let touched = self.take_touched()?;
        settle(&*inner.current(), touched)?;
        let mut current = inner.current.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut current, to))
    }

    /// Takes no more writes where there are no blobs, and says whether that is so: nobody writes between the look and the end.
    ///
    /// # Errors
    /// As [`Backend::flush`] and [`Backend::list`]: it goes on.
    pub fn abandon_if_empty(&self) -> Result<bool, Error> {
        let _alone = self.inner.writing.write().unwrap_or_else(PoisonError::into_inner);
        let current = self.inner.current();
        current.flush()?;
        let is_empty = current.list(None)?.next().transpose()?.is_none();
        if is_empty {
            current.abandon();
        }
        Ok(is_empty)
    }
}

impl Inner {
    fn current(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_current(&self, backend: &Arc<dyn Backend>) -> bool {
        Arc::ptr_eq(backend, &self.current())
    }

    /// Held while something is written and noted.
    fn writing(&self) -> RwLockReadGuard<'_, ()> {
        // It guards no data of its own.
        self.writing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn touched(&self) -> MutexGuard<'_, Option<Touched>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, ids: impl IntoIterator<Item = BlobId>) {
        if let Some(touched) = &mut *self.touched() {
            touched.blobs.note(ids);
        }
    }

    fn note_alias(&self, id: BlobId) {
        if let Some(touched) = &mut *self.touched() {
            touched.aliased.note([id]);
        }
    }

    /// Reads from the backend that is still the present one afterwards: the files of the one before may go at any moment.
    fn reading<T>(&self, read: impl Fn(&dyn Backend) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let current = self.current();
            let done = read(&*current);
            if self.is_current(&current) {
                return done;
            }
        }
    }
}

impl Backend for Switch {
    fn append(&self, batch: &[Packed]) -> Result<Vec<Put>, Error> {
        let _writing = self.inner.writing();
        let done = self.inner.current().append(batch);
        // Also of a batch that failed some may turn up.
        self.inner.note(batch.iter().map(Packed::id));
        done
    }

    fn flush(&self) -> Result<(), Error> {
        let _writing = self.inner.writing();
        self.inner.current().flush()
    }

    fn begin(&self, class: Class) -> Result<Box<dyn Incoming>, Error> {
        let began = self.inner.current();
        let incoming = began.begin(class)?;
        Ok(Box::new(Arriving {
            inner: Arc::clone(&self.inner),
            began,
            incoming,
        }))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn Reader>>, Error> {
        self.inner.reading(|backend| backend.open(id))
    }

    fn stat(&self, ids: &[BlobId]) -> Result<Vec<Option<Stat>>, Error> {
        self.inner.reading(|backend| backend.stat(ids))
    }

    fn list(&self, after: Option<BlobId>) -> Result<Listing<'_>, Error> {
        let mut paged = Paged {
            inner: &self.inner,
            after,
            next_page: PAGE_FIRST,
            page: Vec::new().into_iter(),
            is_over: false,
        };
        paged.turn()?;
        Ok(Box::new(paged))
    }

    fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        let _writing = self.inner.writing();
        let done = self.inner.current().delete(ids);
        self.inner.note(ids.iter().copied());
        done
    }

    fn resolve(&self, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
        self.inner.reading(|backend| backend.resolve(alias))
    }

    fn add_alias(&self, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
        let _writing = self.inner.writing();
        let done = self.inner.current().add_alias(alias, id);
        self.inner.note_alias(*id);
        done
    }

    fn quarantine(&self, id: &BlobId, which: Aside) -> Result<bool, Error> {
        let _writing = self.inner.writing();
        let done = self.inner.current().quarantine(id, which);
        self.inner.note([*id]);
        done
    }

    fn compact(&self, stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
        // It changes no blob, and takes too long for others to wait.
        let current = self.inner.current();
        current.compact(&|| stop() || !self.inner.is_current(&current))
    }

    fn check(&self, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error> {
        // As long; what it sets aside may be whole in another backend by then, which is no harm.
        let report = self.inner.current().check(options, progress)?;
        self.inner.note(report.quarantined.iter().copied());
        Ok(report)
    }

    fn abandon(&self) {
        self.inner.current().abandon();
    }

    fn status(&self) -> Status {
        self.inner.current().status()
    }
}

/// A blob on its way into the backend that was used when it began.
struct Arriving {
    inner: Arc<Inner>,
    began: Arc<dyn Backend>,
    incoming: Box<dyn Incoming>,
}

impl Incoming for Arriving {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.incoming.write(bytes)
    }

    fn finish(self: Box<Self>, expect: Option<BlobId>) -> Result<Put, Error> {
        let _writing = self.inner.writing();
        if !self.inner.is_current(&self.began) {
            return Err(Error::Busy);
        }
        let put = self.incoming.finish(expect)?;
        self.inner.note([put.id]);
        Ok(put)
    }
}

/// A list, page after page, each from the backend that is used then.
struct Paged<'a> {
    inner: &'a Inner,
    after: Option<BlobId>,
    next_page: usize,
    page: std::vec::IntoIter<Stat>,
    is_over: bool,
}

impl Paged<'_> {
    fn turn(&mut self) -> Result<(), Error> {
        let (after, wanted) = (self.after, self.next_page);
        let read = |backend: &dyn Backend| backend.list(after)?.take(wanted).collect::<Result<Vec<_>, _>>();
        let page = self.inner.reading(read)?;
        self.is_over = page.len() < wanted;
        self.after = page.last().map(|stat| stat.id).or(after);
        self.next_page = PAGE;
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Paged<'_> {
    type Item = Result<Stat, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(stat) = self.page.next() {
            return Some(Ok(stat));
        }
        if self.is_over {
            return None;
        }
        match self.turn() {
            Ok(()) => self.page.next().map(Ok),
            Err(error) => {
                self.is_over = true;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coffer::contract::{Keeps, contract};
    use crate::coffer::{Compression, Haystack, HaystackOptions, Memory};
    use bytes::Bytes;

    contract!(
        of_a_haystack,
        |folder| {
            let haystack = Haystack::open(folder, HaystackOptions::default()).unwrap();
            Box::new(Switch::new(Arc::new(haystack)))
        },
        Keeps::Everything
    );

    fn packed(text: &'static str) -> Packed {
        Packed::new(Bytes::from(text), Class::Pinned, Compression::OFF)
    }

    fn put(backend: &dyn Backend, text: &'static str) -> BlobId {
        let id = backend.append(&[packed(text)]).unwrap()[0].id;
        backend.flush().unwrap();
        id
    }

    #[test]
    fn what_is_written_is_followed_from_when_that_was_asked_for() {
        let switch = Switch::new(Arc::new(Memory::new()));
        put(&switch, "before");
        switch.follow().unwrap();
        let (one, other) = (put(&switch, "one"), put(&switch, "other"));
        switch.delete(&[one]).unwrap();
        let mut stream = switch.begin(Class::Part).unwrap();
        stream.write(b"streamed").unwrap();
        let streamed = stream.finish(None).unwrap().id;
        let touched = switch.take_touched().unwrap();
        assert_eq!(touched.blobs, Ids::These(BTreeSet::from([one, other, streamed])));
        assert_eq!(switch.take_touched().unwrap(), Touched::default());
        switch.unfollow();
        put(&switch, "after");
        assert_eq!(switch.take_touched().unwrap(), Touched::default());
    }

    #[test]
    fn what_is_appended_counts_although_it_is_flushed_after_the_exchange() {
        let (from, to) = (Memory::new(), Memory::new());
        let switch = Switch::new(Arc::new(from.clone()));
        switch.follow().unwrap();
        let id = switch.append(&[packed("x")]).unwrap()[0].id;
        let settled = switch.exchange(Arc::new(to.clone()), |from, touched| {
            assert_eq!(touched.blobs, Ids::These(BTreeSet::from([id])));
            assert!(from.stat(&[id])?[0].is_some(), "it is there to be copied");
            put(&to, "x");
            Ok::<_, Error>(())
        });
        settled.unwrap();
        switch.flush().unwrap();
        assert!(switch.stat(&[id]).unwrap()[0].is_some());
    }

    #[test]
    fn a_refused_exchange_changes_nothing_and_a_stream_across_one_keeps_nothing() {
        let from = Memory::new();
        let switch = Switch::new(Arc::new(from.clone()));
        let id = put(&switch, "x");
        let refused = switch.exchange(Arc::new(Memory::new()), |_, _| Err(Error::Busy));
        assert!(refused.is_err());
        assert!(switch.stat(&[id]).unwrap()[0].is_some());
        let mut stream = switch.begin(Class::Pinned).unwrap();
        stream.write(b"late").unwrap();
        let to = Memory::new();
        switch
            .exchange(Arc::new(to.clone()), |_, _| Ok::<_, Error>(()))
            .unwrap();
        assert!(matches!(stream.finish(None), Err(Error::Busy)));
        assert_eq!((from.status().blobs, to.status().blobs), (1, 0));
    }

    #[test]
    fn only_what_is_empty_is_abandoned_and_takes_nothing_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let haystack = Haystack::open(dir.path(), HaystackOptions::default()).unwrap();
        let switch = Switch::new(Arc::new(haystack));
        // Appended counts, as its writer is about to flush it.
        let id = switch.append(&[packed("x")]).unwrap()[0].id;
        assert!(!switch.abandon_if_empty().unwrap());
        put(&switch, "y");
        switch.delete(&[id, BlobId::of(b"y")]).unwrap();
        let mut stream = switch.begin(Class::Pinned).unwrap();
        stream.write(b"late").unwrap();
        assert!(switch.abandon_if_empty().unwrap());
        let late = stream.finish(None).map(drop);
        assert!(matches!(late, Err(Error::ReadOnly { .. })), "{late:?}");
        let late = switch.append(&[packed("z")]).map(drop);
        assert!(matches!(late, Err(Error::ReadOnly { .. })), "{late:?}");
    }

    #[test]
    fn more_than_is_remembered_is_any() {
        let mut ids = Ids::default();
        let id = |number: usize| BlobId::of(&number.to_le_bytes());
        ids.note((0..TOUCHED_MAX).map(id));
        assert!(matches!(&ids, Ids::These(ids) if ids.len() == TOUCHED_MAX));
        ids.note([id(TOUCHED_MAX)]);
        assert_eq!(ids, Ids::Any);
    }
}
