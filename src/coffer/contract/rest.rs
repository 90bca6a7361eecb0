//! Promises about what happens to stored blobs: deletes, aliases, quarantine, reopening, checks, compaction.

use super::{
    Keeps, Subject, assert_absent, assert_stored, content, listed, noise, packed, prose, put, stat, stream,
};
use crate::coffer::backend::{Aside, Backend, CheckOptions, CheckReport, Class, read_whole};
use crate::coffer::frame::FRAME_BYTES;
use crate::id::{BlobId, Sha256Id};

pub(crate) fn deleted_blobs_are_gone_and_may_come_back(subject: &Subject) {
    let backend = subject.open();
    let (small, large) = (prose(1, 3000), noise(2, 2 * FRAME_BYTES + 1));
    let ids = [BlobId::of(&small), BlobId::of(b"never put"), BlobId::of(&large)];
    put(&*backend, &small, Class::Pinned);
    put(&*backend, b"stays", Class::Part);
    stream(&*backend, &large, Class::Part, None).unwrap();
    assert_eq!(backend.delete(&ids).unwrap(), [true, false, true]);
    assert_eq!(backend.delete(&ids).unwrap(), [false; 3]);
    assert!(backend.delete(&[]).unwrap().is_empty());
    let backend = subject.reopen(backend);
    for id in &ids {
        assert_absent(&*backend, id);
    }
    assert_eq!(backend.status().blobs, 1);
    // Back, and with the class of the new put: nothing of the old one is left.
    assert!(put(&*backend, &small, Class::Part).fresh);
    assert!(stream(&*backend, &large, Class::Part, None).unwrap().fresh);
    let backend = subject.reopen(backend);
    assert_stored(&*backend, &small, Class::Part);
    assert_stored(&*backend, &large, Class::Part);
    assert_stored(&*backend, b"stays", Class::Part);
    // Twice in one call is there once.
    assert_eq!(backend.delete(&[ids[0], ids[0]]).unwrap(), [true, false]);
    assert_absent(&*backend, &ids[0]);
}

pub(crate) fn aliases_are_remembered(subject: &Subject) {
    let backend = subject.open();
    let (alias, other) = (Sha256Id::from_bytes([7; 32]), Sha256Id::from_bytes([8; 32]));
    assert_eq!(backend.resolve(&alias).unwrap(), None);
    let id = put(&*backend, b"known by two names", Class::Pinned).id;
    backend.add_alias(&alias, &id).unwrap();
    backend.add_alias(&alias, &id).unwrap();
    let backend = subject.reopen(backend);
    assert_eq!(backend.resolve(&alias).unwrap(), Some(id));
    assert_eq!(backend.resolve(&other).unwrap(), None);
    // An alias stays when its blob goes.
    backend.delete(&[id]).unwrap();
    backend.add_alias(&other, &id).unwrap();
    let backend = subject.reopen(backend);
    assert_eq!(backend.resolve(&alias).unwrap(), Some(id));
    assert_eq!(backend.resolve(&other).unwrap(), Some(id));
    assert_eq!(listed(&*backend, None), []);
}

pub(crate) fn quarantined_blobs_are_absent_and_may_be_put_again(subject: &Subject) {
    let backend = subject.open();
    let (small, large) = (noise(1, 3000), noise(2, 2 * FRAME_BYTES + 1));
    put(&*backend, &small, Class::Pinned);
    stream(&*backend, &large, Class::Pinned, None).unwrap();
    put(&*backend, b"stays", Class::Part);
    assert!(!backend.quarantine(&BlobId::of(b"unknown"), Aside::Any).unwrap());
    for bytes in [&small, &large] {
        let id = BlobId::of(bytes);
        // What is whole by now is not what somebody found damaged.
        assert!(!backend.quarantine(&id, Aside::Damaged).unwrap());
        assert_stored(&*backend, bytes, Class::Pinned);
        assert!(backend.quarantine(&id, Aside::Any).unwrap());
        assert_absent(&*backend, &id);
        assert!(!backend.quarantine(&id, Aside::Damaged).unwrap());
    }
    let backend = subject.reopen(backend);
    for bytes in [&small, &large] {
        assert_absent(&*backend, &BlobId::of(bytes));
    }
    assert_stored(&*backend, b"stays", Class::Part);
    assert_eq!((backend.status().quarantined, backend.status().blobs), (2, 1));
    backend.compact(&|| false).unwrap();
    assert!(put(&*backend, &small, Class::Part).fresh);
    assert!(stream(&*backend, &large, Class::Part, None).unwrap().fresh);
    let backend = subject.reopen(backend);
    assert_stored(&*backend, &small, Class::Part);
    assert_stored(&*backend, &large, Class::Part);
    // The same blob once more is one more.
    backend.quarantine(&BlobId::of(&small), Aside::Any).unwrap();
    assert_eq!(backend.status().quarantined, 3);
    let backend = subject.reopen(backend);
    assert_eq!(backend.status().quarantined, 3);
}

pub(crate) fn reopening_keeps_what_was_durable(subject: &Subject) {
    if subject.keeps == Keeps::Nothing {
        return;
    }
    let mut backend = subject.open();
    let blob = |n: usize| noise(n, 200 + n * 37);
    for round in 0..5 {
        for n in 0..20 {
            let class = if n % 2 == 0 { Class::Part } else { Class::Pinned };
            put(&*backend, &blob(round * 20 + n), class);
        }
        backend.delete(&[BlobId::of(&blob(round * 20 + 3))]).unwrap();
        let before = listed(&*backend, None);
        let status = backend.status();
        backend = subject.reopen(backend);
        assert_eq!(listed(&*backend, None), before);
        assert_eq!(before.len(), (round + 1) * 19);
        let again = backend.status();
        assert_eq!(
            (again.blobs, again.plain_bytes),
            (status.blobs, status.plain_bytes)
        );
    }
    assert_eq!(content(&*backend, &BlobId::of(&blob(42))).unwrap(), blob(42));
}

pub(crate) fn what_was_not_flushed_is_whole_or_absent_after_reopening(subject: &Subject) {
    let backend = subject.open();
    put(&*backend, b"durable", Class::Part);
    let blobs: Vec<Vec<u8>> = (0..10).map(|n| noise(n, 1000)).collect();
    for bytes in &blobs {
        backend.append(&[packed(bytes, Class::Part)]).unwrap();
    }
    let mut incoming = backend.begin(Class::Part).unwrap();
    incoming.write(&noise(11, 3 * FRAME_BYTES)).unwrap();
    drop(incoming);
    let backend = subject.reopen(backend);
    assert_stored(&*backend, b"durable", Class::Part);
    for bytes in &blobs {
        let id = BlobId::of(bytes);
        match stat(&*backend, &id) {
            Some(_) => assert_stored(&*backend, bytes, Class::Part),
            None => assert_absent(&*backend, &id),
        }
        put(&*backend, bytes, Class::Part);
        assert_stored(&*backend, bytes, Class::Part);
    }
    assert_healthy(&*backend, 11);
}

pub(crate) fn a_healthy_store_is_found_healthy(subject: &Subject) {
    let backend = subject.open();
    assert_healthy(&*backend, 0);
    let mut bytes = 0;
    for n in 0..30 {
        put(&*backend, &noise(n, n * 100), Class::Part);
        bytes += n as u64 * 100;
    }
    stream(&*backend, &noise(99, 3 * FRAME_BYTES + 1), Class::Pinned, None).unwrap();
    bytes += 3 * FRAME_BYTES as u64 + 1;
    backend.delete(&[BlobId::of(&noise(29, 2900))]).unwrap();
    bytes -= 2900;
    let backend = subject.reopen(backend);
    let report = assert_healthy(&*backend, 30);
    assert_eq!(report.bytes_read, bytes);
    assert_eq!(listed(&*backend, None).len(), 30, "a check changes nothing");
}

/// Checks in every way; the report of the most thorough one.
fn assert_healthy(backend: &dyn Backend, blobs: u64) -> CheckReport {
    let mut last = CheckReport::default();
    for (read_data, repair) in [(false, false), (false, true), (true, false), (true, true)] {
        let heard = std::cell::Cell::new(0);
        let report = backend
            .check(CheckOptions { read_data, repair }, &|n| heard.set(n))
            .unwrap();
        let expected = CheckReport {
            blobs,
            bytes_read: report.bytes_read,
            ..CheckReport::default()
        };
        assert_eq!(report, expected);
        assert!(heard.get() <= blobs);
        last = report;
    }
    last
}

pub(crate) fn status_counts_blobs_and_bytes(subject: &Subject) {
    let backend = subject.open();
    let counts = |backend: &dyn Backend| {
        let status = backend.status();
        assert_eq!(status.read_only, None);
        assert!(status.free_bytes.is_none_or(|free| free > 0));
        assert!(status.dead_bytes <= status.stored_bytes);
        (status.blobs, status.plain_bytes, status.quarantined)
    };
    assert_eq!(counts(&*backend), (0, 0, 0));
    let (one, two, three) = (noise(1, 1000), prose(2, 20_000), noise(3, 2 * FRAME_BYTES));
    put(&*backend, &one, Class::Part);
    put(&*backend, &one, Class::Pinned);
    assert_eq!(counts(&*backend), (1, 1000, 0));
    put(&*backend, &two, Class::Part);
    stream(&*backend, &three, Class::Part, None).unwrap();
    stream(&*backend, &three, Class::Pinned, None).unwrap();
    let all = 21_000 + 2 * FRAME_BYTES as u64;
    assert_eq!(counts(&*backend), (3, all, 0));
    assert!(backend.status().stored_bytes >= 1000 + 2 * FRAME_BYTES as u64);
    let backend = subject.reopen(backend);
    assert_eq!(counts(&*backend), (3, all, 0));
    backend
        .delete(&[BlobId::of(&two), BlobId::of(b"unknown")])
        .unwrap();
    assert_eq!(counts(&*backend), (2, all - 20_000, 0));
    backend.quarantine(&BlobId::of(&three), Aside::Any).unwrap();
    assert_eq!(counts(&*backend), (1, 1000, 1));
    let backend = subject.reopen(backend);
    assert_eq!(counts(&*backend), (1, 1000, 1));
}

pub(crate) fn compaction_loses_nothing_and_readers_go_on(subject: &Subject) {
    let backend = subject.open();
    let (large, gone) = (noise(1, 3 * FRAME_BYTES), noise(2, 3 * FRAME_BYTES));
    let blob = |n: usize| noise(10 + n, 20_000);
    stream(&*backend, &large, Class::Pinned, None).unwrap();
    stream(&*backend, &gone, Class::Part, None).unwrap();
    for n in 0..60 {
        put(&*backend, &blob(n), Class::Part);
    }
    let mut reader = backend.open(&BlobId::of(&large)).unwrap().unwrap();
    let mut late = backend.open(&BlobId::of(&gone)).unwrap().unwrap();
    assert!(reader.read_at(0).unwrap() == large[..FRAME_BYTES]);
    let dead: Vec<BlobId> = (0..50).map(|n| BlobId::of(&blob(n))).collect();
    backend.delete(&dead).unwrap();
    backend.delete(&[BlobId::of(&gone)]).unwrap();
    backend.compact(&|| true).unwrap();
    backend.compact(&|| false).unwrap();
    assert!(read_whole(&mut *reader, large.len()).unwrap() == large);
    // A reader of a blob that was deleted meanwhile may fail, and never gives other bytes.
    if let Ok(read) = late.read_at(FRAME_BYTES as u64) {
        assert!(read == gone[FRAME_BYTES..2 * FRAME_BYTES]);
    }
    let backend = subject.reopen(backend);
    assert_eq!(listed(&*backend, None).len(), 11);
    for n in 50..60 {
        assert_stored(&*backend, &blob(n), Class::Part);
    }
    assert_stored(&*backend, &large, Class::Pinned);
    for id in &dead {
        assert_absent(&*backend, id);
    }
    assert_healthy(&*backend, 11);
}
