//! What every store of ordered keys must do, against a map.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::super::error::Error;
use super::{Batch, Opening, Ordered, Range, Store, layout};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Batches, enough for tables on several levels.
const BATCHES: u64 = 300;

/// Keys that may be there.
const KEYS: u64 = 2000;

/// Writes, reads and reopens a store; panics where a map would answer otherwise.
pub(in crate::blanket) fn agrees_with_a_map<S: Store<Around = ()>>() {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let mut random = Random(7);
    let mut model = Model::new();
    let mut store = S::open(dir.path(), Opening::New, &()).unwrap();
    for number in 0..BATCHES {
        let batch = batch(&mut random);
        for (key, value) in &batch {
            match value {
                Some(value) => drop(model.insert(key.clone(), value.clone())),
                None => drop(model.remove(key)),
            }
        }
        store.write(&batch).unwrap();
        if number % 60 == 59 {
            drop(store);
            let opening = if number % 120 == 59 {
                Opening::Again
            } else {
                Opening::InDoubt
            };
            store = S::open(dir.path(), opening, &()).unwrap();
        }
        if number % 20 == 0 {
            compare(&store, &model, &mut random);
        }
    }
    compare(&store, &model, &mut random);
    assert!(tables_in(dir.path()), "all of it is still in the log");
}

/// Makes a database of a newer layout; panics where it is opened all the same.
pub(in crate::blanket) fn a_newer_layout_is_refused<S: Store<Around = ()>>() {
    let dir = tempfile::tempdir().unwrap();
    drop(Ordered::<S>::open(dir.path(), ()).unwrap());
    drop(Ordered::<S>::open(dir.path(), ()).unwrap());
    let store = S::open(&dir.path().join(S::FOLDER), Opening::Again, &()).unwrap();
    let newer = layout::put(b"!refuge".to_vec(), &(layout::FORMAT + 1).to_be_bytes());
    store.write(&vec![newer]).unwrap();
    drop(store);
    assert!(
        matches!(Ordered::<S>::open(dir.path(), ()), Err(Error::Newer { path }) if path.ends_with(S::FOLDER))
    );
}

/// Cuts a compaction at each of its renames; panics where a value is lost.
pub(in crate::blanket) fn a_compaction_that_was_cut_loses_nothing<S: Store<Around = ()>>() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, old, new) = (
        S::FOLDER.to_owned(),
        format!("{}.old", S::FOLDER),
        format!("{}.new", S::FOLDER),
    );
    drop(Ordered::<S>::open(dir.path(), ()).unwrap());
    let holds = || {
        let ordered = Ordered::<S>::open(dir.path(), ()).unwrap();
        let found = super::super::engine::Engine::check(&ordered).unwrap();
        drop(ordered);
        let names = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        (
            found,
            names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>(),
        )
    };
    let whole = (None, vec![folder.clone()]);
    let path = |name: &str| dir.path().join(name);
    // Before any rename: what there is of the new one is of no use.
    std::fs::create_dir(path(&new)).unwrap();
    std::fs::write(path(&new).join("half"), b"of it").unwrap();
    assert_eq!(holds(), whole);
    // Between the two: the new one is whole.
    std::fs::rename(path(&folder), path(&new)).unwrap();
    std::fs::create_dir(path(&old)).unwrap();
    assert_eq!(holds(), whole);
    // After both: the old one is still there.
    std::fs::create_dir(path(&old)).unwrap();
    assert_eq!(holds(), whole);
}

fn batch(random: &mut Random) -> Batch {
    let keys: BTreeMap<Vec<u8>, u64> = (0..40)
        .map(|_| (key(random.below(KEYS)), random.below(4)))
        .collect();
    let value = |kind: u64, random: &mut Random| {
        let length = usize::try_from(random.below(3000)).unwrap();
        (kind > 0).then(|| random.0.to_be_bytes().repeat(length / 8 + 1))
    };
    keys.into_iter()
        .map(|(key, kind)| (key, value(kind, random)))
        .collect()
}

fn key(number: u64) -> Vec<u8> {
    // Some are the beginning of others.
    format!(
        "k{:03}{}",
        number / 10,
        "x".repeat(usize::try_from(number % 10).unwrap())
    )
    .into_bytes()
}

fn compare<S: Store>(store: &S, model: &Model, random: &mut Random) {
    store
        .read(|moment| {
            for _ in 0..50 {
                let key = key(random.below(KEYS));
                assert_eq!(moment.get(&key)?, model.get(&key).cloned());
            }
            for _ in 0..3 {
                let (low, high) = (key(random.below(KEYS)), key(random.below(KEYS)));
                let ranges: [Range<'_>; 3] = [(&low, Some(&high)), (&low, None), (&[], Some(&high))];
                for range in ranges {
                    for descending in [false, true] {
                        let mut found = Vec::new();
                        moment.walk(range, descending, &mut |key, value| {
                            found.push((key.to_vec(), value.to_vec()));
                            Ok(ControlFlow::Continue(()))
                        })?;
                        assert_eq!(found, expected(model, range, descending));
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

fn expected(model: &Model, (low, high): Range<'_>, descending: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let is_within = |key: &[u8]| key >= low && high.is_none_or(|high| key < high);
    let mut found: Vec<_> = model
        .iter()
        .filter(|(key, _)| is_within(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if descending {
        found.reverse();
    }
    found
}

/// Whether a store has written tables.
fn tables_in(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => path.ends_with("tables") && path.read_dir().unwrap().next().is_some() || tables_in(&path),
            false => path.extension().is_some_and(|extension| extension == "ldb"),
        }
    })
}

/// A small generator, the same at each run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
