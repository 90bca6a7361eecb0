//! The suite every [`Backend`] must pass: the contract of `backend.rs`, one function a promise.
//!
//! A backend joins with one line, which makes a test of each promise under a module of that name:
//!
//! ```ignore
//! contract!(memory, |_folder| Box::new(Memory::new()), Keeps::Nothing);
//! ```

mod model;
mod puts;
mod reads;
mod rest;

use std::path::Path;
use std::sync::Arc;

use blake3::Hasher;
use bytes::Bytes;
use tempfile::TempDir;

use super::Store;
use super::backend::{Backend, Class, Put, Stat, read_whole};
use super::error::Error;
use super::frame::{Compression, FRAME_BYTES, Packed};
use super::haystack::{Haystack, HaystackOptions};
use super::memory::Memory;
use crate::id::BlobId;

pub(crate) use model::agrees_with_the_model;
pub(crate) use puts::*;
pub(crate) use reads::*;
pub(crate) use rest::*;

/// Opens, and where nothing is there makes, a backend in a folder.
pub(crate) type Open = fn(&Path) -> Box<dyn Backend>;

/// What a backend still has after it was dropped and opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Everything that was durable.
    Everything,
    /// Nothing: reopening is not tested.
    Nothing,
}

/// Makes a test of every promise for a backend.
macro_rules! contract {
    ($name:ident, $open:expr, $keeps:expr) => {
        mod $name {
            use super::*;
            $crate::coffer::contract::contract!(@of_every_backend $open, $keeps);
            $crate::coffer::contract::contract!(@each $open, $keeps,
                aliases_are_remembered
                quarantined_blobs_are_absent_and_may_be_put_again
                reopening_keeps_what_was_durable
                status_counts_blobs_and_bytes
                agrees_with_the_model
            );
        }
    };
    // What also a backend keeps that is reached over a network.
    (@of_every_backend $open:expr, $keeps:expr) => {
        $crate::coffer::contract::contract!(@each $open, $keeps,
            what_was_appended_shows_after_the_flush_and_not_before
            putting_again_keeps_one_copy_and_says_so
            small_blobs_of_every_edge_size_come_back
            streams_of_every_edge_size_come_back
            a_wrong_expected_id_keeps_nothing
            a_dropped_stream_leaves_nothing
            one_blob_streamed_twice_at_once_is_stored_once
            threads_putting_the_same_blob_all_succeed
            threads_see_their_own_blobs_after_their_own_flush
            classes_only_rise
            what_is_read_at_any_offset_is_the_blob
            readers_outlive_what_happens_to_other_blobs
            a_list_is_sorted_and_goes_on_after_any_id
            a_list_survives_changes_while_it_is_read
            stat_answers_in_the_order_asked
            deleted_blobs_are_gone_and_may_come_back
            what_was_not_flushed_is_whole_or_absent_after_reopening
            a_healthy_store_is_found_healthy
            compaction_loses_nothing_and_readers_go_on
        );
    };
    (@each $open:expr, $keeps:expr, $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            $crate::coffer::contract::$promise(&$crate::coffer::contract::Subject::new($open, $keeps));
        })*
    };
}
pub(crate) use contract;

contract!(memory, |_folder| Box::new(Memory::new()), Keeps::Nothing);

contract!(
    haystack,
    |folder| Box::new(Haystack::open(folder, HaystackOptions::default()).unwrap()),
    Keeps::Everything
);

// Volumes and checkpoints so small that every test meets many of them.
contract!(
    haystack_of_small_volumes,
    |folder| {
        let small = HaystackOptions {
            volume_bytes: 64 * 1024,
            checkpoint_bytes: 4096,
            ..Default::default()
        };
        Box::new(Haystack::open(folder, small).unwrap())
    },
    Keeps::Everything
);

/// A backend under test and the folder it lives in.
pub(crate) struct Subject {
    folder: TempDir,
    open: Open,
    keeps: Keeps,
}

impl Subject {
    pub(crate) fn new(open: Open, keeps: Keeps) -> Subject {
        Subject {
            folder: folder(),
            open,
            keeps,
        }
    }

    /// The backend, opened; again where it was open before.
    pub(crate) fn open(&self) -> Arc<dyn Backend> {
        Arc::from((self.open)(self.folder.path()))
    }

    /// Drops the backend and opens it again; the same where it keeps nothing.
    fn reopen(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        match self.keeps {
            Keeps::Everything => {
                drop(backend);
                self.open()
            }
            Keeps::Nothing => backend,
        }
    }
}

/// A folder for a test, in memory where that can be had: what is flushed matters here, not how long it takes.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder for the test")
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Hasher::new()
        .update(&(seed as u64).to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Bytes that compress well, the same for the same seed.
pub(crate) fn prose(seed: usize, len: usize) -> Vec<u8> {
    let line = format!("{seed} bottles on the wall. ");
    line.bytes().cycle().take(len).collect()
}

/// A blob made ready as a store does it.
pub(crate) fn packed(bytes: &[u8], class: Class) -> Packed {
    Packed::new(Bytes::copy_from_slice(bytes), class, Compression::default())
}

/// Puts a small blob by itself.
pub(crate) fn put(backend: &dyn Backend, bytes: &[u8], class: Class) -> Put {
    let puts = backend.append(&[packed(bytes, class)]).expect("append");
    backend.flush().expect("flush");
    puts[0]
}

/// Streams a blob in pieces that match no frame.
pub(crate) fn stream(
    backend: &dyn Backend,
    bytes: &[u8],
    class: Class,
    expect: Option<BlobId>,
) -> Result<Put, Error> {
    let mut incoming = backend.begin(class)?;
    for piece in bytes.chunks(100_003) {
        incoming.write(piece)?;
    }
    incoming.finish(expect)
}

/// A blob's bytes, `None` where it is not stored.
pub(crate) fn content(backend: &dyn Backend, id: &BlobId) -> Option<Bytes> {
    let mut reader = backend.open(id).expect("open")?;
    Some(read_whole(&mut *reader, usize::MAX).expect("a whole blob"))
}

/// What is known of one blob.
pub(crate) fn stat(backend: &dyn Backend, id: &BlobId) -> Option<Stat> {
    let stats = backend.stat(&[*id]).expect("stat");
    assert_eq!(stats.len(), 1);
    stats[0]
}

/// All blobs, as listed.
pub(crate) fn listed(backend: &dyn Backend, after: Option<BlobId>) -> Vec<Stat> {
    let listing = backend.list(after).expect("list");
    listing.map(|item| item.expect("a listed blob")).collect()
}

/// Asserts that a blob is there with these bytes and this class, by every way to look at it.
fn assert_stored(backend: &dyn Backend, bytes: &[u8], class: Class) {
    let expected = Stat {
        id: BlobId::of(bytes),
        len: bytes.len() as u64,
        class,
    };
    assert_eq!(stat(backend, &expected.id), Some(expected));
    assert!(
        listed(backend, None).contains(&expected),
        "{expected:?} is not listed"
    );
    let reader = backend.open(&expected.id).expect("open").expect("stored");
    assert_eq!(reader.stat(), expected);
    let found = content(backend, &expected.id).expect("stored");
    assert!(found == bytes, "{} came back as other bytes", expected.id);
}

/// Asserts that a blob is not there, by every way to look for it.
fn assert_absent(backend: &dyn Backend, id: &BlobId) {
    assert_eq!(stat(backend, id), None);
    assert!(backend.open(id).expect("open").is_none(), "{id} can be opened");
    assert!(
        listed(backend, None).iter().all(|stat| stat.id != *id),
        "{id} is listed"
    );
}

/// Two readers of one blob meet its damage, the second of them after it was set aside and put again: that copy stays.
pub(crate) fn what_was_put_again_outlives_who_met_the_damage(
    backend: Arc<dyn Backend>,
    damage: impl FnOnce(&BlobId),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let store = Store::new(Arc::clone(&backend), Compression::OFF).expect("a store");
    let bytes = noise(1, 3 * FRAME_BYTES);
    let id = stream(&*backend, &bytes, Class::Pinned, None).expect("a blob").id;
    runtime.block_on(async {
        let reading = async || store.get(id).await.expect("get").expect("stored");
        let (mut first, mut second) = (reading().await, reading().await);
        for reader in [&mut first, &mut second] {
            assert!(reader.read_at(0).await.expect("a frame") == bytes[..FRAME_BYTES]);
        }
        damage(&id);
        let last = 2 * FRAME_BYTES as u64;
        let is_corrupt = |read| matches!(read, Err(Error::Corrupt { .. }));
        assert!(is_corrupt(first.read_at(last).await));
        assert_absent(&*backend, &id);
        stream(&*backend, &bytes, Class::Pinned, None).expect("put again");
        assert!(is_corrupt(second.read_at(last).await));
    });
    assert_stored(&*backend, &bytes, Class::Pinned);
    assert_eq!(backend.status().quarantined, 1);
}
