//! Promises about stored blobs: reading, listing, asking for them.

use super::{Subject, content, listed, noise, prose, put, stat, stream};
use crate::coffer::backend::{Backend, Class, Reader, Stat, read_whole};
use crate::coffer::error::Error;
use crate::coffer::frame::FRAME_BYTES;
use crate::id::BlobId;

pub(crate) fn what_is_read_at_any_offset_is_the_blob(subject: &Subject) {
    let backend = subject.open();
    let frame = FRAME_BYTES as u64;
    for bytes in [
        noise(1, 0),
        noise(2, 1),
        prose(3, 10_000),
        noise(4, FRAME_BYTES),
        noise(5, 3 * FRAME_BYTES + 17),
        prose(6, 3 * FRAME_BYTES),
    ] {
        let len = bytes.len() as u64;
        stream(&*backend, &bytes, Class::Part, None).unwrap();
        let mut reader = backend.open(&BlobId::of(&bytes)).unwrap().unwrap();
        // Backwards as well, so that nothing rests on the order.
        let mut offsets = vec![
            0,
            1,
            frame - 1,
            frame,
            frame + 1,
            2 * frame + 5,
            3 * frame,
            len / 2,
        ];
        offsets.extend([len.saturating_sub(1), len, len + 1, u64::MAX, 0]);
        for offset in offsets.iter().chain(offsets.iter().rev()) {
            assert_reads(&mut *reader, &bytes, *offset);
        }
        let mut limited = backend.open(&BlobId::of(&bytes)).unwrap().unwrap();
        assert!(read_whole(&mut *limited, bytes.len()).unwrap() == bytes);
        if let Some(limit) = bytes.len().checked_sub(1) {
            let refused = read_whole(&mut *limited, limit);
            assert!(matches!(refused, Err(Error::TooLarge { len: found }) if found == len));
        }
    }
}

fn assert_reads(reader: &mut dyn Reader, bytes: &[u8], offset: u64) {
    let read = reader.read_at(offset).unwrap();
    assert!(read.len() <= FRAME_BYTES);
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|at| bytes.get(at..))
        .unwrap_or_default();
    assert_eq!(read.is_empty(), rest.is_empty(), "at {offset} of {}", bytes.len());
    assert!(rest.starts_with(&read), "at {offset} of {}", bytes.len());
}

pub(crate) fn readers_outlive_what_happens_to_other_blobs(subject: &Subject) {
    let backend = subject.open();
    let bytes = noise(1, 3 * FRAME_BYTES);
    stream(&*backend, &bytes, Class::Part, None).unwrap();
    let mut reader = backend.open(&BlobId::of(&bytes)).unwrap().unwrap();
    assert!(reader.read_at(0).unwrap() == bytes[..FRAME_BYTES]);
    for n in 0..20 {
        put(&*backend, &noise(100 + n, 4000), Class::Pinned);
    }
    stream(&*backend, &bytes, Class::Pinned, None).unwrap();
    backend.delete(&[BlobId::of(&noise(100, 4000))]).unwrap();
    assert!(read_whole(&mut *reader, bytes.len()).unwrap() == bytes);
}

pub(crate) fn a_list_is_sorted_and_goes_on_after_any_id(subject: &Subject) {
    let backend = subject.open();
    assert_eq!(listed(&*backend, None), []);
    let mut expected: Vec<Stat> = (0..600)
        .map(|n| {
            let class = if n % 3 == 0 { Class::Pinned } else { Class::Part };
            let bytes = noise(n, n % 700);
            Stat {
                id: append(&*backend, &bytes, class),
                len: bytes.len() as u64,
                class,
            }
        })
        .collect();
    backend.flush().unwrap();
    expected.sort_unstable_by_key(|stat| stat.id);
    expected.dedup_by_key(|stat| stat.id);
    // The empty blob was put with both classes.
    let empty = expected.iter_mut().find(|stat| stat.len == 0).unwrap();
    empty.class = stat(&*backend, &empty.id).unwrap().class;
    let backend = subject.reopen(backend);
    assert_eq!(listed(&*backend, None), expected);
    for at in [0, 1, 255, 256, 300, expected.len() - 1] {
        assert_eq!(listed(&*backend, Some(expected[at].id)), expected[at + 1..]);
        let page: Vec<Stat> = backend
            .list(Some(expected[at].id))
            .unwrap()
            .take(10)
            .map(Result::unwrap)
            .collect();
        assert_eq!(page, expected[at + 1..(at + 11).min(expected.len())]);
    }
    // Ids that are not stored are places to go on from as well.
    assert_eq!(listed(&*backend, Some(BlobId::from_bytes([0; 32]))), expected);
    assert_eq!(listed(&*backend, Some(BlobId::from_bytes([0xff; 32]))), []);
    let mut between = *expected[100].id.as_bytes();
    between[31] ^= 1;
    let from = expected.iter().filter(|stat| *stat.id.as_bytes() > between);
    assert_eq!(
        listed(&*backend, Some(BlobId::from_bytes(between))),
        from.copied().collect::<Vec<_>>()
    );
}

fn append(backend: &dyn Backend, bytes: &[u8], class: Class) -> BlobId {
    backend.append(&[super::packed(bytes, class)]).unwrap()[0].id
}

pub(crate) fn a_list_survives_changes_while_it_is_read(subject: &Subject) {
    let backend = subject.open();
    let ids: Vec<BlobId> = (0..300)
        .map(|n| append(&*backend, &noise(n, 100), Class::Part))
        .collect();
    backend.flush().unwrap();
    let (stay, go) = ids.split_at(200);
    let mut listing = backend.list(None).unwrap();
    let mut seen: Vec<BlobId> = listing.by_ref().take(50).map(|item| item.unwrap().id).collect();
    backend.delete(go).unwrap();
    for n in 1000..1100 {
        put(&*backend, &noise(n, 100), Class::Part);
    }
    backend.compact(&|| false).unwrap();
    seen.extend(listing.map(|item| item.unwrap().id));
    assert!(seen.is_sorted_by(|a, b| a < b), "ascending, each once");
    assert!(stay.iter().all(|id| seen.contains(id)), "what stayed is listed");
    let now: Vec<BlobId> = listed(&*backend, None).iter().map(|stat| stat.id).collect();
    assert!(
        go.iter().all(|id| !now.contains(id)),
        "what was deleted before is not listed"
    );
    assert_eq!(now.len(), 300);
}

pub(crate) fn stat_answers_in_the_order_asked(subject: &Subject) {
    let backend = subject.open();
    let one = put(&*backend, b"one", Class::Part).id;
    let two = put(&*backend, b"number two", Class::Pinned).id;
    let none = BlobId::of(b"none");
    let of = |id, len, class| Some(Stat { id, len, class });
    let expected = [
        of(two, 10, Class::Pinned),
        None,
        of(one, 3, Class::Part),
        of(two, 10, Class::Pinned),
        None,
    ];
    assert_eq!(backend.stat(&[two, none, one, two, none]).unwrap(), expected);
    assert_eq!(backend.stat(&[]).unwrap(), []);
    assert_eq!(content(&*backend, &none), None);
}
