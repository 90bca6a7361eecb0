//! Promises about blobs on their way in.

use std::sync::Barrier;
use std::thread;

use super::{Subject, assert_absent, assert_stored, listed, noise, packed, prose, put, stream};
use crate::coffer::backend::{Backend, Class, Put};
use crate::coffer::error::Error;
use crate::coffer::frame::{FRAME_BYTES, PACKED_BYTES_MAX};
use crate::id::BlobId;

/// Lengths around which blobs change their stored form.
const EDGES: [usize; 9] = [
    0,
    1,
    63,
    FRAME_BYTES - 1,
    FRAME_BYTES,
    FRAME_BYTES + 1,
    3 * FRAME_BYTES,
    3 * FRAME_BYTES + 1,
    PACKED_BYTES_MAX,
];

pub(crate) fn what_was_appended_shows_after_the_flush_and_not_before(subject: &Subject) {
    let backend = subject.open();
    let (one, two) = (noise(1, 5000), prose(2, 70_000));
    let batch = [packed(&one, Class::Part), packed(&two, Class::Pinned)];
    let puts = backend.append(&batch).unwrap();
    assert_eq!(puts.len(), 2);
    for (put, bytes) in puts.iter().zip([&one, &two]) {
        assert_eq!(
            (put.id, put.len, put.fresh),
            (BlobId::of(bytes), bytes.len() as u64, true)
        );
        assert_absent(&*backend, &put.id);
    }
    backend.flush().unwrap();
    assert_stored(&*backend, &one, Class::Part);
    assert_stored(&*backend, &two, Class::Pinned);
    assert_eq!(backend.append(&[]).unwrap(), []);
    backend.flush().unwrap();
    assert_eq!(listed(&*backend, None).len(), 2);
}

pub(crate) fn putting_again_keeps_one_copy_and_says_so(subject: &Subject) {
    let backend = subject.open();
    let bytes = noise(1, 3000);
    let blob = packed(&bytes, Class::Part);
    let fresh = |puts: Vec<Put>| puts.iter().map(|put| put.fresh).collect::<Vec<_>>();
    assert_eq!(
        fresh(backend.append(&[blob.clone(), blob.clone()]).unwrap()),
        [true, false]
    );
    assert_eq!(fresh(backend.append(&[blob]).unwrap()), [false]);
    backend.flush().unwrap();
    assert!(!put(&*backend, &bytes, Class::Part).fresh);
    assert!(!stream(&*backend, &bytes, Class::Part, None).unwrap().fresh);
    assert_stored(&*backend, &bytes, Class::Part);
    assert_eq!(listed(&*backend, None).len(), 1);
    let large = noise(2, 2 * FRAME_BYTES);
    assert!(stream(&*backend, &large, Class::Part, None).unwrap().fresh);
    assert!(!stream(&*backend, &large, Class::Part, None).unwrap().fresh);
    assert!(!put(&*backend, &large, Class::Part).fresh);
    assert_eq!(listed(&*backend, None).len(), 2);
    assert_eq!(backend.status().blobs, 2);
}

pub(crate) fn small_blobs_of_every_edge_size_come_back(subject: &Subject) {
    let backend = subject.open();
    for (bytes, class) in edges() {
        let put = put(&*backend, &bytes, class);
        assert_eq!((put.id, put.len), (BlobId::of(&bytes), bytes.len() as u64));
        assert_stored(&*backend, &bytes, class);
    }
    let backend = subject.reopen(backend);
    for (bytes, class) in edges() {
        assert_stored(&*backend, &bytes, class);
    }
}

pub(crate) fn streams_of_every_edge_size_come_back(subject: &Subject) {
    let backend = subject.open();
    let longer = noise(9, PACKED_BYTES_MAX + FRAME_BYTES + 7);
    let all = || edges().chain([(longer.clone(), Class::Pinned)]);
    for (bytes, class) in all() {
        let id = BlobId::of(&bytes);
        let put = stream(&*backend, &bytes, class, Some(id)).unwrap();
        assert_eq!((put.id, put.len, put.fresh), (id, bytes.len() as u64, true));
        assert_stored(&*backend, &bytes, class);
    }
    let backend = subject.reopen(backend);
    for (bytes, class) in all() {
        assert_stored(&*backend, &bytes, class);
    }
}

/// A blob of each edge length that compresses and one that does not; the empty one and that of one byte once.
fn edges() -> impl Iterator<Item = (Vec<u8>, Class)> {
    let incompressible = EDGES.map(|len| (noise(len, len), Class::Part));
    let compressible = EDGES.map(|len| (prose(len, len), Class::Pinned));
    incompressible.into_iter().chain(compressible.into_iter().skip(2))
}

pub(crate) fn a_wrong_expected_id_keeps_nothing(subject: &Subject) {
    let backend = subject.open();
    let wrong = BlobId::of(b"something else");
    for len in [0, 1, FRAME_BYTES, 3 * FRAME_BYTES + 1] {
        let bytes = noise(1, len);
        let refused = stream(&*backend, &bytes, Class::Pinned, Some(wrong)).unwrap_err();
        let Error::Mismatch { expected, actual } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (expected, actual),
            (wrong.to_string(), BlobId::of(&bytes).to_string())
        );
        assert_absent(&*backend, &BlobId::of(&bytes));
        assert_absent(&*backend, &wrong);
    }
    backend.flush().unwrap();
    let backend = subject.reopen(backend);
    assert_eq!(listed(&*backend, None), []);
    assert_eq!(backend.status().blobs, 0);
}

pub(crate) fn a_dropped_stream_leaves_nothing(subject: &Subject) {
    let backend = subject.open();
    let bytes = noise(1, 2 * FRAME_BYTES + 5);
    for sent in [0, 1, FRAME_BYTES, bytes.len()] {
        let mut incoming = backend.begin(Class::Pinned).unwrap();
        incoming.write(&bytes[..sent]).unwrap();
        drop(incoming);
        assert_absent(&*backend, &BlobId::of(&bytes[..sent]));
    }
    backend.flush().unwrap();
    let backend = subject.reopen(backend);
    assert_eq!(listed(&*backend, None), []);
    assert_eq!((backend.status().blobs, backend.status().plain_bytes), (0, 0));
    stream(&*backend, &bytes, Class::Part, None).unwrap();
    assert_stored(&*backend, &bytes, Class::Part);
}

pub(crate) fn one_blob_streamed_twice_at_once_is_stored_once(subject: &Subject) {
    let backend = subject.open();
    let bytes = noise(1, 2 * FRAME_BYTES + 5);
    let mut one = backend.begin(Class::Part).unwrap();
    let mut two = backend.begin(Class::Pinned).unwrap();
    for piece in bytes.chunks(FRAME_BYTES / 2) {
        one.write(piece).unwrap();
        two.write(piece).unwrap();
    }
    assert_absent(&*backend, &BlobId::of(&bytes));
    assert!(one.finish(None).unwrap().fresh);
    assert_stored(&*backend, &bytes, Class::Part);
    assert!(!two.finish(Some(BlobId::of(&bytes))).unwrap().fresh);
    assert_stored(&*backend, &bytes, Class::Pinned);
    assert_eq!((listed(&*backend, None).len(), backend.status().blobs), (1, 1));
}

pub(crate) fn threads_putting_the_same_blob_all_succeed(subject: &Subject) {
    const THREADS: usize = 4;
    let backend = subject.open();
    for round in 0..8 {
        let (small, large) = (noise(round, 900), noise(round, 2 * FRAME_BYTES));
        let start = Barrier::new(THREADS);
        let fresh: Vec<[bool; 2]> = thread::scope(|scope| {
            let put_both = || {
                start.wait();
                let small = put(&*backend, &small, Class::Part);
                let large = stream(&*backend, &large, Class::Part, None).unwrap();
                [small.fresh, large.fresh]
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(put_both)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for which in [0, 1] {
            let fresh = fresh.iter().filter(|fresh| fresh[which]).count();
            assert_eq!(fresh, 1, "one of them stored it");
        }
        assert_stored(&*backend, &small, Class::Part);
        assert_stored(&*backend, &large, Class::Part);
    }
    assert_eq!((listed(&*backend, None).len(), backend.status().blobs), (16, 16));
}

pub(crate) fn threads_see_their_own_blobs_after_their_own_flush(subject: &Subject) {
    const BLOBS: usize = 40;
    let backend = subject.open();
    let run = |backend: &dyn Backend, thread: usize| {
        for n in 0..BLOBS {
            let bytes = noise(thread * BLOBS + n, 50 + n);
            put(backend, &bytes, Class::Part);
            let id = BlobId::of(&bytes);
            assert!(super::content(backend, &id).is_some_and(|found| found == bytes));
        }
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let backend = &*backend;
            scope.spawn(move || run(backend, thread));
        }
    });
    assert_eq!(listed(&*backend, None).len(), 4 * BLOBS);
    let backend = subject.reopen(backend);
    assert_eq!(listed(&*backend, None).len(), 4 * BLOBS);
}

pub(crate) fn classes_only_rise(subject: &Subject) {
    let mut backend = subject.open();
    type Way = fn(&dyn Backend, &[u8], Class) -> Put;
    let ways: [Way; 2] = [put, |backend, bytes, class| {
        stream(backend, bytes, class, None).unwrap()
    }];
    for (len, way) in [(500, ways[0]), (700, ways[1]), (2 * FRAME_BYTES + 1, ways[1])] {
        let bytes = noise(1, len);
        for (class, kept) in [
            (Class::Part, Class::Part),
            (Class::Pinned, Class::Pinned),
            (Class::Part, Class::Pinned),
        ] {
            way(&*backend, &bytes, class);
            assert_stored(&*backend, &bytes, kept);
            backend = subject.reopen(backend);
            assert_stored(&*backend, &bytes, kept);
        }
    }
    // Both in one group, and a rise that is not flushed yet.
    let bytes = noise(2, 500);
    let both = [packed(&bytes, Class::Pinned), packed(&bytes, Class::Part)];
    backend.append(&both).unwrap();
    backend.flush().unwrap();
    assert_stored(&*backend, &bytes, Class::Pinned);
    let bytes = noise(3, 500);
    put(&*backend, &bytes, Class::Part);
    backend.append(&[packed(&bytes, Class::Pinned)]).unwrap();
    assert_stored(&*backend, &bytes, Class::Part);
    backend.flush().unwrap();
    assert_stored(&*backend, &bytes, Class::Pinned);
    assert_eq!(listed(&*backend, None).len(), 5);
}
