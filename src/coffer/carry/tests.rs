//! Carrying blobs to another backend: whole, cut and gone on with, and while others write.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::coffer::backend::Class;
use crate::coffer::contract::folder;
use crate::coffer::{Fs, Haystack, HaystackOptions, Memory};

fn never() -> bool {
    false
}

fn carrier<'a>(from: &'a Switch, to: &Arc<dyn Backend>, stop: &'a dyn Fn() -> bool) -> Carrier<'a> {
    Carrier {
        from,
        to: Arc::clone(to),
        compression: Compression::OFF,
        stop,
        progress: &|_| {},
    }
}

fn carry(from: &Switch, to: &Arc<dyn Backend>) -> Result<Arc<dyn Backend>, CarryError> {
    carrier(from, to, &never).run(|| Ok(()))
}

fn put(backend: &dyn Backend, bytes: &[u8], class: Class) -> BlobId {
    let packed = Packed::new(Bytes::copy_from_slice(bytes), class, Compression::default());
    let id = backend.append(&[packed]).unwrap()[0].id;
    backend.flush().unwrap();
    id
}

fn stream(backend: &dyn Backend, bytes: &[u8], class: Class) -> BlobId {
    let mut incoming = backend.begin(class).unwrap();
    incoming.write(bytes).unwrap();
    incoming.finish(None).unwrap().id
}

fn alias(bytes: &[u8]) -> Sha256Id {
    Sha256Id::from_bytes(
        digest::digest(&digest::SHA256, bytes)
            .as_ref()
            .try_into()
            .unwrap(),
    )
}

/// Every blob with its class and bytes.
fn all(backend: &dyn Backend) -> BTreeMap<BlobId, (Class, Vec<u8>)> {
    let listed: Result<Vec<Stat>, Error> = backend.list(None).unwrap().collect();
    let bytes = |id: &BlobId| {
        let mut reader = backend.open(id).unwrap().unwrap();
        read_whole(&mut *reader, 16 << 20).unwrap().to_vec()
    };
    let listed = listed.unwrap().into_iter();
    listed
        .map(|stat| (stat.id, (stat.class, bytes(&stat.id))))
        .collect()
}

fn haystack(folder: &std::path::Path) -> Arc<dyn Backend> {
    Arc::new(Haystack::open(folder, HaystackOptions::default()).unwrap())
}

#[test]
fn a_haystack_goes_into_files_and_back_with_classes_and_aliases() {
    let (card, disk, again) = (folder(), folder(), folder());
    let from = Switch::new(haystack(card.path()));
    let large = vec![7; 3 * 1024 * 1024];
    put(&from, b"", Class::Pinned);
    let part = put(&from, b"a part", Class::Part);
    let streamed = stream(&from, &large, Class::Pinned);
    for (bytes, id) in [(&b"a part"[..], part), (&large, streamed)] {
        from.add_alias(&alias(bytes), &id).unwrap();
    }
    let before = all(&from);
    let files: Arc<dyn Backend> = Arc::new(Fs::create(&disk.path().join("store")).unwrap());
    carry(&from, &files).unwrap();
    assert_eq!(all(&from), before);
    assert_eq!(all(&*files), before);
    let back = haystack(again.path());
    carry(&from, &back).unwrap();
    assert_eq!(all(&*back), before);
    for (bytes, id) in [(&b"a part"[..], part), (&large, streamed)] {
        assert_eq!(from.resolve(&alias(bytes)).unwrap(), Some(id));
    }
}

#[test]
fn what_an_earlier_attempt_left_is_brought_up_to_date() {
    let from = Switch::new(Arc::new(Memory::new()));
    let to: Arc<dyn Backend> = Arc::new(Memory::new());
    let (gone, lowered) = (
        put(&from, b"gone", Class::Pinned),
        put(&from, b"lowered", Class::Pinned),
    );
    let risen = put(&from, b"risen", Class::Part);
    let aliased = put(&from, b"aliased", Class::Pinned);
    let refused = carrier(&from, &to, &never).run(|| Err::<(), _>(CarryError::Stopped));
    assert!(matches!(refused, Err(CarryError::Stopped)));
    assert_eq!(to.status().blobs, 4);
    from.delete(&[gone, lowered]).unwrap();
    put(&from, b"lowered", Class::Part);
    put(&from, b"risen", Class::Pinned);
    from.add_alias(&alias(b"aliased"), &aliased).unwrap();
    let before = all(&from);
    carry(&from, &to).unwrap();
    assert_eq!(all(&*to), before);
    assert_eq!(before[&lowered].0, Class::Part);
    assert_eq!(before[&risen].0, Class::Pinned);
    assert_eq!(to.resolve(&alias(b"aliased")).unwrap(), Some(aliased));
}

#[test]
fn a_damaged_blob_is_set_aside_and_the_others_are_carried() {
    let card = folder();
    let files = card.path().join("store");
    let from = Switch::new(Arc::new(Fs::create(&files).unwrap()));
    let (whole, damaged) = (
        put(&from, b"whole", Class::Pinned),
        put(&from, b"damaged", Class::Pinned),
    );
    let hex = damaged.to_string().split_once(';').unwrap().1.to_owned();
    std::fs::write(
        files.join("blobs").join(&hex[..2]).join(&hex[2..3]).join(&hex),
        b"damagee",
    )
    .unwrap();
    let to: Arc<dyn Backend> = Arc::new(Memory::new());
    let old = carry(&from, &to).unwrap();
    assert_eq!(all(&*to).into_keys().collect::<Vec<_>>(), [whole]);
    assert_eq!(old.status().quarantined, 1);
}

#[test]
fn being_told_to_stop_ends_it_between_two_blobs() {
    let from = Switch::new(Arc::new(Memory::new()));
    for number in 0..100_u8 {
        put(&from, &[number], Class::Pinned);
    }
    let to: Arc<dyn Backend> = Arc::new(Memory::new());
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) >= 50;
    let stopped = carrier(&from, &to, &stop).run(|| Ok::<_, CarryError>(()));
    assert!(matches!(stopped, Err(CarryError::Stopped)));
    put(&from, b"goes on", Class::Pinned);
    assert_eq!(from.status().blobs, 101);
}

#[test]
fn what_was_appended_before_it_and_is_flushed_after_it_is_carried() {
    let from = Switch::new(Arc::new(Memory::new()));
    let packed = Packed::new(Bytes::from_static(b"late"), Class::Pinned, Compression::OFF);
    let id = from.append(&[packed]).unwrap()[0].id;
    let to: Arc<dyn Backend> = Arc::new(Memory::new());
    carry(&from, &to).unwrap();
    from.flush().unwrap();
    assert_eq!(all(&from).into_keys().collect::<Vec<_>>(), [id]);
}

#[test]
fn what_is_written_by_others_meanwhile_is_all_there() {
    let (card, disk) = (folder(), folder());
    let from = Switch::new(haystack(card.path()));
    for number in 0..2000_u32 {
        put(&from, &number.to_le_bytes(), Class::Pinned);
    }
    let ended = AtomicBool::new(false);
    let acknowledged = Mutex::new(BTreeMap::new());
    let files: Arc<dyn Backend> = Arc::new(Fs::create(&disk.path().join("store")).unwrap());
    std::thread::scope(|scope| {
        for writer in 0..3_u32 {
            let (from, ended, acknowledged) = (&from, &ended, &acknowledged);
            scope.spawn(move || {
                for turn in 0..600_u32 {
                    // Half of it before or while it is carried, as far as there is time; half of it after.
                    while turn == 300 && !ended.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    let bytes = [writer.to_le_bytes(), turn.to_le_bytes(), [1; 4]].concat();
                    let id = put(from, &bytes, Class::Pinned);
                    acknowledged.lock().unwrap().insert(id, true);
                    if turn % 3 == 0 {
                        from.delete(&[id]).unwrap();
                        acknowledged.lock().unwrap().insert(id, false);
                    }
                }
            });
        }
        // Some of what is written lies before, some after, some in the middle of it.
        while acknowledged.lock().unwrap().len() < 100 {
            std::thread::yield_now();
        }
        let carried = carry(&from, &files);
        ended.store(true, Ordering::Relaxed);
        carried.unwrap();
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let there = all(&*files);
    for (id, is_stored) in &acknowledged {
        assert_eq!(there.contains_key(id), *is_stored, "{id}");
    }
    let stored = acknowledged.values().filter(|is_stored| **is_stored).count();
    assert_eq!(there.len(), 2000 + stored);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, Class),
    Delete(u8),
    Alias(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![Just(Class::Part), Just(Class::Pinned)];
    prop_oneof![
        (0..20_u8, class).prop_map(|(blob, class)| Step::Put(blob, class)),
        (0..20_u8).prop_map(Step::Delete),
        (0..20_u8).prop_map(Step::Alias),
    ]
}

fn does(backend: &dyn Backend, step: &Step) {
    match step {
        Step::Put(blob, class) => drop(put(backend, &[*blob], *class)),
        Step::Delete(blob) => drop(backend.delete(&[BlobId::of(&[*blob])]).unwrap()),
        Step::Alias(blob) => backend
            .add_alias(&alias(&[*blob]), &BlobId::of(&[*blob]))
            .unwrap(),
    }
}

proptest! {
    /// Attempts that are cut anywhere, with anything in between and meanwhile, and one that is not.
    #[test]
    fn the_mirror_is_one_in_the_end(attempts in prop::collection::vec((prop::collection::vec(step(), 0..20), prop::collection::vec(step(), 0..10), 0..30_u32), 1..4)) {
        let from = Switch::new(Arc::new(Memory::new()));
        let to: Arc<dyn Backend> = Arc::new(Memory::new());
        // Enough that what comes meanwhile comes before the exchange, for which writes wait.
        for blob in 100..120 {
            put(&from, &[blob], Class::Pinned);
        }
        for (before, meanwhile, cut) in &attempts {
            before.iter().for_each(|step| does(&from, step));
            let meanwhile = Cell::new(&meanwhile[..]);
            let looked = Cell::new(0);
            let stop = || {
                if let [next, rest @ ..] = meanwhile.get() {
                    meanwhile.set(rest);
                    does(&from, next);
                }
                looked.replace(looked.get() + 1) >= *cut
            };
            let _ = carrier(&from, &to, &stop).run(|| Err::<(), _>(CarryError::Stopped));
        }
        let expected = all(&from);
        let aliases: Vec<_> = (0..20_u8).map(|blob| from.resolve(&alias(&[blob])).unwrap()).collect();
        carry(&from, &to).unwrap();
        prop_assert_eq!(all(&*to), expected.clone());
        for (blob, id) in (0..20_u8).zip(aliases) {
            if let Some(id) = id.filter(|id| expected.contains_key(id)) {
                prop_assert_eq!(to.resolve(&alias(&[blob])).unwrap(), Some(id));
            }
        }
    }
}
