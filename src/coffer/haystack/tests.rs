//! What only a haystack can suffer: torn tails, rotten bytes, a lost index, compactions cut short.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::volume::PAGE_BYTES;
use super::*;
use crate::coffer::backend::read_whole;
use crate::coffer::commit;
use crate::coffer::contract::what_was_put_again_outlives_who_met_the_damage;
use crate::coffer::frame::FRAME_BYTES;

const SMALL: HaystackOptions = HaystackOptions {
    volume_bytes: 64 * 1024,
    checkpoint_bytes: 1 << 40,
    compression: Compression::OFF,
};

fn open(folder: &Path) -> Haystack {
    Haystack::open(folder, SMALL).unwrap()
}

fn blob(n: u32) -> Packed {
    let mut bytes = vec![0; 3000];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    Packed::new(bytes.into(), Class::Pinned, Compression::OFF)
}

fn put(store: &Haystack, blobs: impl IntoIterator<Item = u32>) -> Vec<BlobId> {
    let batch: Vec<Packed> = blobs.into_iter().map(blob).collect();
    store.append(&batch).unwrap();
    store.flush().unwrap();
    batch.iter().map(Packed::id).collect()
}

fn large(store: &Haystack, fill: u8) -> BlobId {
    let mut incoming = store.begin(Class::Part).unwrap();
    for _ in 0..3 {
        incoming.write(&vec![fill; 1024 * 1024]).unwrap();
    }
    incoming.finish(None).unwrap().id
}

fn listed(store: &Haystack) -> Vec<BlobId> {
    store.list(None).unwrap().map(|item| item.unwrap().id).collect()
}

fn sorted(mut ids: Vec<BlobId>) -> Vec<BlobId> {
    ids.sort();
    ids
}

fn readable(store: &Haystack, id: &BlobId) -> bool {
    store
        .open(id)
        .unwrap()
        .is_some_and(|mut reader| read_whole(&mut *reader, 1 << 24).is_ok())
}

/// Ends a haystack as a killed process does: nothing is written on the way out.
fn kill(store: Haystack) {
    store
        .core
        .fault
        .lock()
        .unwrap()
        .get_or_insert("killed".to_owned());
}

fn lose_index(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}

fn volume(folder: &TempDir, number: u32) -> PathBuf {
    folder.path().join(format!("volumes/{number:08}.vol"))
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_killed_process_leaves_everything_that_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ids = put(&store, 0..50);
    ids.push(large(&store, 7));
    store.delete(&ids[10..20]).unwrap();
    ids.drain(10..20);
    kill(store);
    let store = open(dir.path());
    assert_eq!(listed(&store), sorted(ids.clone()));
    assert!(ids.iter().all(|id| readable(&store, id)));
    assert_eq!(store.status().blobs, ids.len() as u64);
}

#[test]
fn a_torn_tail_is_set_aside_and_cut_and_writing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = put(&store, 0..3);
    let torn = put(&store, 3..6);
    kill(store);
    // The last group lost a page in its middle: what no later needle vouches for is torn.
    let len = fs::metadata(volume(&dir, 0)).unwrap().len();
    flip(&volume(&dir, 0), len - 5000);
    let store = open(dir.path());
    assert!(first.iter().all(|id| readable(&store, id)));
    assert!(readable(&store, &torn[0]));
    assert!(
        !listed(&store).contains(&torn[2]),
        "nothing after the tear is shown"
    );
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
    let more = put(&store, 6..9);
    kill(store);
    let store = open(dir.path());
    assert!(more.iter().all(|id| readable(&store, id)));
    assert_eq!(
        store
            .check(
                CheckOptions {
                    read_data: true,
                    repair: false
                },
                &|_| ()
            )
            .unwrap()
            .damaged,
        []
    );
}

#[test]
fn rot_in_what_was_flushed_is_reported_and_cuts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..3);
    let later = put(&store, 3..6);
    kill(store);
    flip(&volume(&dir, 0), 4096 + 80 + 1500);
    let store = open(dir.path());
    assert!(later.iter().all(|id| readable(&store, id)));
    assert!(matches!(store.open(&ids[0]), Err(Error::Corrupt { .. })));
    let options = CheckOptions {
        read_data: true,
        repair: true,
    };
    let report = store.check(options, &|_| ()).unwrap();
    assert_eq!((report.damaged, report.quarantined), (vec![ids[0]], vec![ids[0]]));
    assert_eq!(store.stat(&[ids[0]]).unwrap(), [None]);
    put(&store, 0..1);
    assert!(readable(&store, &ids[0]));
}

/// A volume that was followed by another was flushed to its end: its last group is no torn tail.
#[test]
fn rot_at_the_end_of_a_full_volume_is_reported_and_cuts_nothing() {
    for is_index_lost in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut ids = Vec::new();
        while !volume(&dir, 1).exists() {
            let next = u32::try_from(ids.len()).unwrap();
            ids.extend(put(&store, next..next + 3));
        }
        kill(store);
        if is_index_lost {
            lose_index(dir.path());
        }
        let len = fs::metadata(volume(&dir, 0)).unwrap().len();
        flip(&volume(&dir, 0), len - 200);
        let store = open(dir.path());
        let is_damaged = |id: &BlobId| matches!(store.open(id), Err(Error::Corrupt { .. }));
        let damaged: Vec<BlobId> = ids.iter().copied().filter(is_damaged).collect();
        assert_eq!(damaged.len(), 1, "index lost: {is_index_lost}");
        let sound = ids.iter().filter(|id| !is_damaged(id));
        assert!(sound.into_iter().all(|id| readable(&store, id)));
        let options = CheckOptions {
            read_data: true,
            repair: true,
        };
        assert_eq!(store.check(options, &|_| ()).unwrap().quarantined, damaged);
    }
}

#[test]
fn a_lost_index_is_rebuilt_and_resurrects_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..100);
    let big = [large(&store, 1), large(&store, 2)];
    store.delete(&ids[..80]).unwrap();
    store.delete(&big[..1]).unwrap();
    assert!(store.compact(&|| false).unwrap().freed_bytes > 0);
    let back = put(&store, 5..7);
    let expected = sorted([&ids[80..], &back[..], &big[1..]].concat());
    assert_eq!(listed(&store), expected);
    let counted = store.status();
    drop(store);
    lose_index(dir.path());
    let store = open(dir.path());
    assert_eq!(listed(&store), expected);
    assert!(expected.iter().all(|id| readable(&store, id)));
    let rebuilt = store.status();
    assert_eq!(
        (rebuilt.blobs, rebuilt.plain_bytes),
        (counted.blobs, counted.plain_bytes)
    );
    assert_eq!(rebuilt.dead_bytes, counted.dead_bytes);
}

#[test]
fn a_damaged_run_is_noticed_by_a_lookup_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..100);
    drop(store);
    let runs = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let run = runs
        .filter(|path| path.extension().is_some_and(|e| e == "run"))
        .last()
        .unwrap();
    flip(&run, 100);
    let store = open(dir.path());
    assert!(store.stat(&ids).unwrap().iter().all(Option::is_some));
    assert!(ids.iter().all(|id| readable(&store, id)));
}

#[test]
fn a_damaged_first_page_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..50);
    drop(store);
    flip(&volume(&dir, 0), 20);
    let store = open(dir.path());
    assert!(ids.iter().all(|id| readable(&store, id)));
}

#[test]
fn compaction_frees_what_is_dead_and_its_volumes_stay_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..200);
    let before = store.status().stored_bytes;
    store.delete(&ids[..150]).unwrap();
    store.compact(&|| false).unwrap();
    assert!(store.status().stored_bytes < before / 2, "{:?}", store.status());
    assert_eq!(listed(&store), sorted(ids[150..].to_vec()));
    kill(store);
    let store = open(dir.path());
    assert_eq!(listed(&store), sorted(ids[150..].to_vec()));
}

#[test]
fn a_volume_that_came_back_after_its_compaction_resurrects_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..100);
    store.delete(&ids[..90]).unwrap();
    let copies = dir.path().join("copies");
    fs::create_dir(&copies).unwrap();
    fs::copy(volume(&dir, 0), copies.join("0")).unwrap();
    store.compact(&|| false).unwrap();
    drop(store);
    // As if the removal of the old file had not reached the medium.
    fs::copy(copies.join("0"), volume(&dir, 0)).unwrap();
    let store = open(dir.path());
    assert_eq!(listed(&store), sorted(ids[90..].to_vec()));
}

#[test]
fn a_quarantined_large_blob_keeps_its_bytes_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = large(&store, 9);
    assert!(store.quarantine(&id, Aside::Any).unwrap());
    assert_eq!(store.stat(&[id]).unwrap(), [None]);
    assert_eq!(store.status().quarantined, 1);
    assert_eq!(large(&store, 9), id);
    assert!(readable(&store, &id));
}

#[test]
fn a_large_blob_streamed_while_it_is_deleted_is_the_same_after_a_crash() {
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let id = large(&store, 3);
        let mut incoming = store.begin(Class::Part).unwrap();
        incoming.write(&vec![3; 3 * 1024 * 1024]).unwrap();
        // What waits for a flush makes the one that publishes the stream take its time.
        store.append(&[blob(1)]).unwrap();
        std::thread::scope(|scope| {
            let finish = scope.spawn(|| incoming.finish(None).unwrap());
            while store.core.publishing.try_lock().is_ok() && !finish.is_finished() {
                std::hint::spin_loop();
            }
            store.delete(&[id]).unwrap();
        });
        let before = store.stat(&[id]).unwrap();
        let blobs = store.status().blobs;
        assert!(before[0].is_none() || readable(&store, &id));
        kill(store);
        let store = open(dir.path());
        assert_eq!(store.stat(&[id]).unwrap(), before, "round {round}");
        assert_eq!(store.status().blobs, blobs, "round {round}");
        assert!(before[0].is_none() || readable(&store, &id));
    }
}

#[test]
fn a_group_that_meets_a_damaged_run_is_stored_after_the_index_was_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, 0..100);
    drop(store);
    let runs = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for run in runs.filter(|path| path.extension().is_some_and(|e| e == "run")) {
        flip(&run, 100);
        flip(&run, 5000);
    }
    let store = open(dir.path());
    // The first is appended before the second finds the damage.
    let group: Vec<Packed> = (100..101).chain(0..100).map(blob).collect();
    let fresh: Vec<bool> = store
        .append(&group)
        .unwrap()
        .iter()
        .map(|put| put.fresh)
        .collect();
    store.flush().unwrap();
    assert!(fresh[0] && !fresh[1..].contains(&true));
    assert_eq!(store.status().blobs, 101);
    assert!(group.iter().all(|packed| readable(&store, &packed.id())));
}

#[test]
fn the_number_of_a_deleted_large_blob_is_not_given_again() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let first = large(&store, 1);
    store.delete(&[first]).unwrap();
    kill(store);
    for _ in 0..2 {
        let store = open(folder.path());
        let second = large(&store, 2);
        kill(store);
        assert!(
            readable(&open(folder.path()), &second),
            "the tombstone of the first took it away"
        );
    }
    lose_index(folder.path());
    let store = open(folder.path());
    let third = large(&store, 3);
    kill(store);
    assert!(readable(&open(folder.path()), &third));
}

#[test]
fn a_blob_that_was_put_again_is_not_set_aside_for_the_copy_before() {
    let dir = TempDir::new().unwrap();
    what_was_put_again_outlives_who_met_the_damage(Arc::new(open(dir.path())), |_| {
        let last_frame = PAGE_BYTES + (HEADER_BYTES + 2 * FRAME_BYTES) as u64;
        flip(&volume(&dir, 0), last_frame + 5);
    });
}

#[test]
fn a_damaged_blob_whose_bytes_can_not_be_kept_stays_and_keeps_its_volume() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..100);
    let stay = [ids[0], ids[99]];
    store.delete(&ids[1..99]).unwrap();
    flip(&volume(&dir, 0), PAGE_BYTES + HEADER_BYTES as u64 + 5);
    // A file where the folder should be stands for a disk without room.
    let aside = dir.path().join("quarantine");
    fs::remove_dir(&aside).unwrap();
    fs::write(&aside, []).unwrap();
    let refused = store.quarantine(&ids[0], Aside::Damaged);
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert!(
        store.compact(&|| false).unwrap().freed_bytes > 0,
        "other volumes go"
    );
    assert_eq!(listed(&store), sorted(stay.to_vec()));
    assert!(volume(&dir, 0).exists() && !volume(&dir, 1).exists());
    fs::remove_file(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    store.compact(&|| false).unwrap();
    assert_eq!(listed(&store), stay[1..]);
    assert!(readable(&store, &ids[99]));
    assert!(!volume(&dir, 0).exists());
    let kept = fs::read_dir(&aside).unwrap().next().unwrap().unwrap();
    assert_eq!(kept.metadata().unwrap().len(), 3080);
}

/// Puts a folder where a volume is, which stands for a disk that can't read it for a while.
fn hide(path: &Path) -> impl FnOnce() + use<> {
    let (path, aside) = (path.to_owned(), path.with_extension("hidden"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    move || {
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn a_volume_that_can_not_be_read_while_the_index_is_rebuilt_costs_nothing_once_it_can() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut ids = put(&store, 0..70);
    ids.extend([large(&store, 1), large(&store, 2)]);
    store.delete(&ids[3..6]).unwrap();
    ids.drain(3..6);
    let expected = sorted(ids);
    drop(store);
    let solo = dir.path().join("solo/000/00000000.vol");
    for path in [volume(&dir, 0), volume(&dir, 3), solo] {
        assert!(path.exists());
        lose_index(dir.path());
        let show = hide(&path);
        let store = open(dir.path());
        assert!(store.status().read_only.is_some(), "{}", path.display());
        let rest = listed(&store);
        assert!(!rest.is_empty() && rest.len() < expected.len());
        assert!(rest.iter().all(|id| readable(&store, id)));
        show();
        assert!(matches!(store.compact(&|| false), Err(Error::ReadOnly { .. })));
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.status().read_only, None);
        assert_eq!(listed(&store), expected, "{}", path.display());
        store.compact(&|| false).unwrap();
        assert!(expected.iter().all(|id| readable(&store, id)));
    }
}

#[test]
fn an_index_is_not_rebuilt_in_use_without_a_volume_that_can_not_be_read() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    // More volumes than are kept open.
    let ids = put(&store, 0..400);
    let show = hide(&volume(&dir, 0));
    assert!(matches!(rebuild::rebuild(&store.core), Err(Error::Io { .. })));
    show();
    store.compact(&|| false).unwrap();
    assert_eq!(listed(&store), sorted(ids.clone()));
    assert!(ids.iter().all(|id| readable(&store, id)));
    drop(store);
    assert_eq!(listed(&open(dir.path())).len(), ids.len());
}

#[test]
fn a_blob_whose_volume_is_gone_is_damaged_and_can_be_put_again() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let ids = put(&store, 0..2);
    let entry = store.core.index.live(&ids[0]).unwrap().unwrap();
    store.core.index.insert([(ids[0], Entry { volume: 99, ..entry })]);
    assert!(matches!(store.open(&ids[0]), Err(Error::Corrupt { .. })));
    assert!(store.quarantine(&ids[0], Aside::Damaged).unwrap());
    put(&store, 0..1);
    assert!(ids.iter().all(|id| readable(&store, id)));
}

#[test]
fn a_group_with_a_blob_that_is_set_aside_before_the_flush_is_not_called_stored() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let id = put(&store, 0..1)[0];
    let group = [blob(0), blob(1)];
    let publishing = store.core.publishing();
    std::thread::scope(|scope| {
        let stored = scope.spawn(|| commit::store(&store, &group));
        while store.core.writer().is_flushed() && !stored.is_finished() {
            std::hint::spin_loop();
        }
        // It was appended and waits for its flush: what sets the other one aside meanwhile ends so.
        let entry = store.core.index.live(&id).unwrap().unwrap();
        store.core.index.insert([(id, Entry { dead: true, ..entry })]);
        drop(publishing);
        assert!(matches!(stored.join().unwrap(), Err(Error::Busy)));
    });
    assert!(commit::store(&store, &group).unwrap()[0].fresh);
    assert!(readable(&store, &id));
}
