//! Revisions from one peer to another: read one by one, written in groups that bound what is held.
//!
//! Documents have up to 8 MB, and eight batches may be under way. So what is on its way is counted: each batch holds a group and as
//! much of the next document as is no large one; whoever comes to a large one waits until no other is held, with what it has by then,
//! and gives the place back as soon as it is stored. Nobody waits for anything else while it has that place.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::peer::{Failure, Moved, Peer, Revision, Wanted};
use crate::id::Rev;

/// Bytes of documents that are written together.
const GROUP_BYTES: usize = 1024 * 1024;

/// A document with more bytes is a large one.
pub(super) const LARGE_BYTES: usize = 1024 * 1024;

/// Batches of all replications that are brought over at a time: each holds a group, and one document more that is no large one.
const BATCHES_MAX: usize = 8;

/// Large documents of all replications that are held at a time: an item of 9 MiB is there as it came, as it was read and as it is sent.
const LARGE_MAX: usize = 1;

/// Batches that read from a database of this node at a time: how large a document is, is known when it was read.
const READING_MAX: usize = 1;

/// What documents on their way take of memory, of all replications.
#[derive(Clone)]
pub(super) struct Transfers {
    batches: Arc<Semaphore>,
    large: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// What one batch may hold. Given back when it is dropped.
pub(super) struct Room {
    transfers: Transfers,
    _batch: OwnedSemaphorePermit,
    large: Option<OwnedSemaphorePermit>,
}

impl Default for Transfers {
    fn default() -> Transfers {
        Transfers {
            batches: Arc::new(Semaphore::new(BATCHES_MAX)),
            large: Arc::new(Semaphore::new(LARGE_MAX)),
            reading: Arc::new(Semaphore::new(READING_MAX)),
        }
    }
}

impl Transfers {
    /// Room for a batch, once there is.
    ///
    /// # Errors
    /// Where replications have ended.
    pub(super) async fn room(transfers: &Arc<Transfers>) -> Result<Room, Failure> {
        Ok(Room {
            _batch: taken(&transfers.batches).await?,
            transfers: (**transfers).clone(),
            large: None,
        })
    }
}

impl Room {
    /// Waits until a large document may be held.
    ///
    /// # Errors
    /// Where replications have ended.
    pub(super) async fn for_large(&mut self) -> Result<(), Failure> {
        if self.large.is_none() {
            self.large = Some(taken(&self.transfers.large).await?);
        }
        Ok(())
    }

    /// Whether a large document may be held.
    pub(super) fn is_for_large(&self) -> bool {
        self.large.is_some()
    }

    /// Waits until a document whose size is not known may be read; it is put away, or in this room, before that is given back.
    ///
    /// # Errors
    /// Where replications have ended.
    pub(super) async fn for_reading(&self) -> Result<OwnedSemaphorePermit, Failure> {
        taken(&self.transfers.reading).await
    }
}

async fn taken(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    let taken = Arc::clone(places).acquire_owned().await;
    taken.map_err(|_| Failure::fatal("replications have ended"))
}

/// Brings what is wanted from `source` to `target`. Of a batch that fails some may be stored.
///
/// # Errors
/// What either failed with.
pub(super) async fn transfer(
    source: &dyn Peer,
    target: &dyn Peer,
    wanted: &[Wanted],
    mut room: Room,
) -> Result<Moved, Failure> {
    let mut revisions = source.fetch(wanted).await?;
    let (mut group, mut bytes, mut moved): (Vec<(Revision, &[Rev])>, _, _) =
        (Vec::new(), 0, Moved::default());
    loop {
        let next = revisions.next(&mut room).await?;
        let is_end = next.is_none();
        if let Some(revision) = next {
            moved.read += 1;
            bytes += revision.held_bytes();
            let one = wanted.iter().find(|one| one.id == revision.id);
            group.push((revision, one.map_or(&[], |one| &one.ancestors)));
        }
        if (is_end || bytes >= GROUP_BYTES) && !group.is_empty() {
            let stored = target.store(std::mem::take(&mut group), source).await?;
            moved.written += stored.written;
            moved.refused += stored.refused;
            bytes = 0;
            if !revisions.waits() {
                room.large = None;
            }
        }
        if is_end {
            return Ok(moved);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::checkpoint::Checkpoint;
    use super::super::peer::{Answering, ChangesAsk, Kept, Page, Pieces, Revisions, Row};
    use super::*;
    use crate::id::LocalId;
    use crate::node::DocumentBody;

    /// The bytes of each document, and how many of them are held.
    struct Held {
        bytes: usize,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    /// A source of documents that are all alike, and a target that takes a while.
    struct Peers(Arc<Held>);

    struct Reads<'a> {
        held: &'a Held,
        left: &'a [Wanted],
    }

    impl Revisions for Reads<'_> {
        fn next<'a>(&'a mut self, room: &'a mut Room) -> Answering<'a, Option<Revision>> {
            Box::pin(async move {
                let Some((one, left)) = self.left.split_first() else {
                    return Ok(None);
                };
                self.left = left;
                if self.held.bytes > LARGE_BYTES {
                    room.for_large().await?;
                }
                let now = self.held.now.fetch_add(self.held.bytes, Ordering::SeqCst) + self.held.bytes;
                self.held.most.fetch_max(now, Ordering::SeqCst);
                Ok(Some(Revision {
                    id: one.id.clone(),
                    revisions: one.revs.clone(),
                    deleted: false,
                    body: DocumentBody::from(" ".repeat(self.held.bytes)),
                    attachments: Default::default(),
                }))
            })
        }

        fn waits(&self) -> bool {
            false
        }
    }

    impl Peer for Peers {
        fn open(&self) -> Answering<'_, bool> {
            Box::pin(async { Ok(true) })
        }
        fn create(&self) -> Answering<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn commit(&self) -> Answering<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn checkpoint(&self, _: LocalId) -> Answering<'_, Option<Kept>> {
            Box::pin(async { Ok(None) })
        }
        fn keep(&self, _: LocalId, _: Option<String>, _: Checkpoint) -> Answering<'_, String> {
            Box::pin(async { Ok(String::new()) })
        }
        fn changes(&self, _: ChangesAsk) -> Answering<'_, Page> {
            Box::pin(async { Err(Failure::fatal("not asked")) })
        }
        fn differ<'a>(&'a self, _: &'a [Row]) -> Answering<'a, Vec<Wanted>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> Answering<'a, Box<dyn Revisions + 'a>> {
            let reads = Reads {
                held: &self.0,
                left: wanted,
            };
            Box::pin(async { Ok(Box::new(reads) as Box<dyn Revisions + 'a>) })
        }
        fn attachment<'a>(&'a self, _: &'a Revision, _: &'a str) -> Answering<'a, Box<dyn Pieces>> {
            Box::pin(async { Err(Failure::fatal("not asked")) })
        }
        fn store<'a>(
            &'a self,
            revisions: Vec<(Revision, &'a [Rev])>,
            _: &'a dyn Peer,
        ) -> Answering<'a, Moved> {
            Box::pin(async move {
                // Others come to their next documents meanwhile.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                let bytes = revisions.len() * self.0.bytes;
                self.0.now.fetch_sub(bytes, Ordering::SeqCst);
                Ok(Moved {
                    written: revisions.len() as u64,
                    ..Moved::default()
                })
            })
        }
    }

    /// The most bytes that were held while more batches than may be under way were brought over.
    async fn most_held(bytes: usize) -> usize {
        let held = Arc::new(Held {
            bytes,
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let wanted: Vec<Wanted> = (0..6)
            .map(|number| Wanted {
                id: format!("{number}").parse().unwrap(),
                revs: vec!["1-a".parse().unwrap()],
                ancestors: Vec::new(),
            })
            .collect();
        let (transfers, wanted) = (Arc::new(Transfers::default()), Arc::new(wanted));
        let mut batches = tokio::task::JoinSet::new();
        for _ in 0..2 * BATCHES_MAX {
            let (transfers, wanted, held) = (transfers.clone(), wanted.clone(), held.clone());
            batches.spawn(async move {
                let room = Transfers::room(&transfers).await.unwrap();
                let (source, target) = (Peers(held.clone()), Peers(held));
                transfer(&source, &target, &wanted, room).await.unwrap()
            });
        }
        while let Some(moved) = batches.join_next().await {
            assert_eq!(moved.unwrap().written, 6);
        }
        assert_eq!(held.now.load(Ordering::SeqCst), 0);
        held.most.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn what_is_held_of_documents_on_their_way_is_bounded() {
        let small = most_held(LARGE_BYTES / 2).await;
        assert!(
            small <= BATCHES_MAX * (GROUP_BYTES + LARGE_BYTES),
            "{small} bytes"
        );
        // Several batches were under way.
        assert!(small > GROUP_BYTES + LARGE_BYTES, "{small} bytes");
        let large = most_held(4 * LARGE_BYTES).await;
        assert!(large <= LARGE_MAX * 4 * LARGE_BYTES, "{large} bytes");
    }
}
