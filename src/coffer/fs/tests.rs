//! What only this backend promises: several hosts over one folder, and what is found on a worn disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use super::layout::{self, Leaf};
use super::{Fs, outboard};
use crate::coffer::backend::{Aside, Backend, CheckOptions, CheckReport, Class, read_whole};
use crate::coffer::contract::{
    Keeps, content, contract, folder, listed, noise, packed, put, stat, stream,
    what_was_put_again_outlives_who_met_the_damage,
};
use crate::coffer::error::Error;
use crate::coffer::frame::FRAME_BYTES;
use crate::id::{BlobId, Sha256Id};

contract!(
    promises,
    |folder| Box::new(Fs::create(folder).unwrap()),
    Keeps::Everything
);

const READ: CheckOptions = CheckOptions {
    read_data: true,
    repair: false,
};
const REPAIR: CheckOptions = CheckOptions {
    read_data: true,
    repair: true,
};

fn check(store: &Fs, options: CheckOptions) -> CheckReport {
    store.check(options, &|_| ()).unwrap()
}

fn is_healthy(report: &CheckReport) -> bool {
    report.damaged.is_empty() && report.missing.is_empty() && report.notes.is_empty()
}

/// Changes one bit of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn two_hosts_put_the_same_and_other_blobs_at_once() {
    const ROUNDS: usize = 60;
    let dir = folder();
    let hosts = [Fs::create(dir.path()).unwrap(), Fs::create(dir.path()).unwrap()];
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for (which, host) in hosts.iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                let class = [Class::Part, Class::Pinned][which];
                for n in 0..ROUNDS {
                    start.wait();
                    let shared = noise(n, 300 + n * 10);
                    put(host, &shared, class);
                    assert!(content(host, &BlobId::of(&shared)).unwrap() == shared);
                    let large = noise(n, 2 * FRAME_BYTES + n);
                    stream(host, &large, class, None).unwrap();
                    assert!(content(host, &BlobId::of(&large)).unwrap() == large);
                    put(host, &noise((which + 1) * 1000 + n, 200), class);
                }
            });
        }
    });
    let [one, two] = &hosts;
    let all = listed(one, None);
    assert_eq!(all.len(), 4 * ROUNDS);
    assert_eq!(all, listed(two, None));
    let pinned = all.iter().filter(|stat| stat.class == Class::Pinned).count();
    assert_eq!(pinned, 3 * ROUNDS, "what either pinned is pinned");
    assert!(is_healthy(&check(two, REPAIR)));
    assert_eq!(listed(one, None), all);
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
}

#[test]
fn a_host_sees_at_once_what_another_put_pinned_and_deleted() {
    let dir = folder();
    let (one, two) = (Fs::create(dir.path()).unwrap(), Fs::open(dir.path()).unwrap());
    let id = put(&one, b"shared", Class::Part).id;
    assert!(!put(&two, b"shared", Class::Pinned).fresh);
    assert_eq!(stat(&one, &id).unwrap().class, Class::Pinned);
    let mut reader = one.open(&id).unwrap().unwrap();
    assert_eq!(two.delete(&[id]).unwrap(), [true]);
    assert_eq!(one.delete(&[id]).unwrap(), [false]);
    assert_eq!((stat(&one, &id), listed(&one, None).len()), (None, 0));
    assert_eq!(
        read_whole(&mut *reader, 100).unwrap(),
        &b"shared"[..],
        "what is open stays readable"
    );
    two.add_alias(&Sha256Id::from_bytes([1; 32]), &id).unwrap();
    assert_eq!(one.resolve(&Sha256Id::from_bytes([1; 32])).unwrap(), Some(id));
    assert!(put(&one, b"shared", Class::Part).fresh);
}

#[test]
fn hosts_that_delete_and_list_while_others_put_miss_nothing_that_stays() {
    const BLOBS: usize = 150;
    let dir = folder();
    let hosts = [Fs::create(dir.path()).unwrap(), Fs::create(dir.path()).unwrap()];
    let stay: Vec<BlobId> = (0..BLOBS)
        .map(|n| put(&hosts[0], &noise(n, 99), Class::Part).id)
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..BLOBS {
                let id = put(&hosts[0], &noise(5000 + n, 99), Class::Part).id;
                assert_eq!(hosts[0].delete(&[id]).unwrap(), [true]);
            }
        });
        scope.spawn(|| {
            for _ in 0..20 {
                let seen: Vec<BlobId> = listed(&hosts[1], None).iter().map(|stat| stat.id).collect();
                assert!(seen.is_sorted_by(|a, b| a < b));
                assert!(stay.iter().all(|id| seen.binary_search(id).is_ok()));
            }
        });
    });
    assert_eq!(listed(&hosts[1], None).len(), BLOBS);
}

#[test]
fn a_blob_of_both_classes_is_pinned_and_listed_deleted_and_mended_as_one() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let twice = |bytes: &[u8]| {
        let id = put(&store, bytes, Class::Pinned).id;
        let part = layout::blob_path(dir.path(), &id, Class::Part);
        fs::copy(layout::blob_path(dir.path(), &id, Class::Pinned), &part).unwrap();
        (id, part)
    };
    let (id, part) = twice(b"one");
    assert_eq!(listed(&store, None).len(), 1);
    assert_eq!(stat(&store, &id).unwrap().class, Class::Pinned);
    assert!(is_healthy(&check(&store, READ)));
    assert!(part.exists());
    assert!(is_healthy(&check(&store, REPAIR)));
    assert!(!part.exists());
    let (id, _) = twice(b"two");
    assert_eq!(store.delete(&[id, id]).unwrap(), [true, false]);
    assert_eq!(stat(&store, &id), None);
    let (id, _) = twice(b"three");
    assert!(store.quarantine(&id, Aside::Any).unwrap());
    assert_eq!(stat(&store, &id), None);
    // Both files are kept, one blob is gone.
    assert_eq!((store.status().quarantined, store.status().blobs), (2, 1));
}

#[test]
fn every_flipped_bit_is_found_never_served_and_the_blob_can_be_put_again() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let blobs: Vec<Vec<u8>> = (0..100)
        .map(|n| noise(n, 1 + n * 50))
        .chain([noise(200, FRAME_BYTES), noise(201, 3 * FRAME_BYTES + 1)])
        .collect();
    for (n, bytes) in blobs.iter().enumerate() {
        stream(&store, bytes, Class::Pinned, None).unwrap();
        let path = layout::blob_path(dir.path(), &BlobId::of(bytes), Class::Pinned);
        flip(&path, (n * 7919 % bytes.len()) as u64);
    }
    let mut ids: Vec<BlobId> = blobs.iter().map(|bytes| BlobId::of(bytes)).collect();
    ids.sort_unstable();
    for id in &ids {
        let mut reader = store.open(id).unwrap().unwrap();
        let refused = read_whole(&mut *reader, usize::MAX).unwrap_err();
        assert!(
            matches!(refused, Error::Corrupt { id: found } if found == *id),
            "{refused:?}"
        );
    }
    assert!(
        is_healthy(&check(&store, CheckOptions::default())),
        "presence is not content"
    );
    let report = check(&store, READ);
    assert_eq!((&report.damaged, report.quarantined.len()), (&ids, 0));
    let report = check(&store, REPAIR);
    assert_eq!((&report.damaged, &report.quarantined), (&ids, &ids));
    assert_eq!((listed(&store, None), store.status().quarantined), (vec![], 102));
    for bytes in &blobs {
        assert!(stream(&store, bytes, Class::Pinned, None).unwrap().fresh);
    }
    assert!(is_healthy(&check(&store, REPAIR)));
    assert_eq!(store.status().blobs, 102);
}

#[test]
fn a_range_is_served_where_only_other_frames_are_damaged() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let bytes = noise(1, 3 * FRAME_BYTES);
    let id = stream(&store, &bytes, Class::Part, None).unwrap().id;
    flip(
        &layout::blob_path(dir.path(), &id, Class::Part),
        FRAME_BYTES as u64 + 5,
    );
    let mut reader = store.open(&id).unwrap().unwrap();
    let frame = FRAME_BYTES as u64;
    assert!(reader.read_at(10).unwrap() == bytes[10..FRAME_BYTES]);
    assert!(matches!(
        reader.read_at(frame + 100_000),
        Err(Error::Corrupt { .. })
    ));
    assert!(reader.read_at(2 * frame).unwrap() == bytes[2 * FRAME_BYTES..]);
    // Without its table only the whole could be verified, and that is damaged.
    fs::remove_file(layout::table_path(dir.path(), &id)).unwrap();
    let mut reader = store.open(&id).unwrap().unwrap();
    assert!(matches!(reader.read_at(0), Err(Error::Corrupt { .. })));
}

#[test]
fn a_file_that_is_too_short_or_too_long_is_never_served() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    for len in [10, FRAME_BYTES, FRAME_BYTES + 10, 3 * FRAME_BYTES] {
        let id = stream(&store, &noise(len, len), Class::Part, None).unwrap().id;
        let file = File::options()
            .write(true)
            .open(layout::blob_path(dir.path(), &id, Class::Part))
            .unwrap();
        for damaged in [
            len - 1,
            len + 1,
            len.saturating_sub(FRAME_BYTES),
            len + FRAME_BYTES,
        ] {
            file.set_len(damaged as u64).unwrap();
            let mut reader = store.open(&id).unwrap().unwrap();
            match read_whole(&mut *reader, usize::MAX) {
                Err(Error::Corrupt { .. }) => {}
                // Nothing is served, though a reader can't tell it from the empty blob.
                Ok(bytes) => assert!(bytes.is_empty() && damaged == 0, "{len} cut to {damaged}"),
                Err(other) => panic!("{other:?}"),
            }
            assert_eq!(check(&store, READ).damaged, [id], "{len} cut to {damaged}");
        }
        store.delete(&[id]).unwrap();
    }
}

#[test]
fn a_missing_or_damaged_table_costs_time_and_is_made_again() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let bytes = noise(1, 3 * FRAME_BYTES + 1);
    let id = put(&store, &bytes, Class::Part).id;
    let path = layout::table_path(dir.path(), &id);
    let table = fs::read(&path).unwrap();
    let damages: [&dyn Fn(); 5] = [
        &|| fs::remove_file(&path).unwrap(),
        &|| fs::write(&path, []).unwrap(),
        &|| fs::write(&path, &table[..table.len() - 1]).unwrap(),
        &|| fs::write(&path, vec![0; table.len()]).unwrap(),
        &|| flip(&path, table.len() as u64 - 1),
    ];
    for damage in damages {
        damage();
        assert!(content(&store, &id).unwrap() == bytes);
        let report = check(&store, READ);
        assert_eq!((report.damaged.len(), report.notes.len()), (0, 1));
        assert_eq!(check(&store, REPAIR).notes.len(), 1);
        assert_eq!(fs::read(&path).unwrap(), table);
        assert!(is_healthy(&check(&store, REPAIR)));
    }
    // Without reading data what is missing shows all the same.
    fs::remove_file(&path).unwrap();
    assert_eq!(check(&store, CheckOptions::default()).notes.len(), 1);
    assert_eq!(
        outboard::encoded_len(bytes.len() as u64),
        Some(table.len() as u64)
    );
}

#[test]
fn only_old_leftovers_are_removed() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let leaf = |n: usize| layout::table_path(dir.path(), &BlobId::of(&noise(n, 9)));
    put(&store, &noise(1, 9), Class::Part);
    fs::create_dir_all(leaf(2).parent().unwrap()).unwrap();
    let files = [dir.path().join("new/0123-4"), leaf(1), leaf(2)];
    for path in &files {
        fs::write(path, [0; 100]).unwrap();
    }
    assert_eq!(store.compact(&|| false).unwrap().freed_bytes, 0);
    let long_ago = SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    for path in &files {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    assert_eq!(store.compact(&|| true).unwrap().freed_bytes, 0);
    assert_eq!(store.compact(&|| false).unwrap().freed_bytes, 200);
    // A blob that is there keeps its table, whatever is wrong with it.
    assert_eq!(files.map(|path| path.exists()), [false, true, false]);
}

#[test]
fn foreign_folders_and_newer_formats_are_refused() {
    let dir = folder();
    let path = dir.path().join("store");
    let is_foreign = |opened: Result<Fs, Error>| matches!(opened, Err(Error::Foreign { .. }));
    assert!(is_foreign(Fs::open(&path)));
    fs::create_dir(&path).unwrap();
    assert!(is_foreign(Fs::open(&path)), "an empty mount point");
    fs::write(path.join("thesis.tex"), "unrelated").unwrap();
    assert!(is_foreign(Fs::create(&path)));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was made");
    fs::remove_file(path.join("thesis.tex")).unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    let id = put(&Fs::create(&path).unwrap(), b"kept", Class::Part).id;
    let marker = path.join("refuge-fs");
    let text = fs::read_to_string(&marker).unwrap();
    assert_eq!(text, "refuge-fs 1\n");
    for damaged in ["", "refuge", "refuge-fs 1", "\0\0\0\0\0\0\0\0\0\0\0\0"] {
        fs::write(&marker, damaged).unwrap();
        assert!(content(&Fs::open(&path).unwrap(), &id).is_some());
        assert_eq!(fs::read_to_string(&marker).unwrap(), text);
    }
    fs::remove_file(&marker).unwrap();
    assert!(content(&Fs::open(&path).unwrap(), &id).is_some());
    fs::write(&marker, "refuge-fs 2\n").unwrap();
    for opened in [Fs::open(&path), Fs::create(&path)] {
        assert!(matches!(
            opened,
            Err(Error::Newer {
                found: 2,
                known: 1,
                ..
            })
        ));
    }
}

#[test]
fn a_pulled_disk_is_an_error_and_no_empty_store() {
    let dir = folder();
    let (path, away) = (dir.path().join("disk"), dir.path().join("away"));
    let store = Fs::create(&path).unwrap();
    let id = put(&store, b"blob", Class::Part).id;
    let mut incoming = store.begin(Class::Part).unwrap();
    incoming.write(b"on its way").unwrap();
    fs::rename(&path, &away).unwrap();
    let is_foreign = |error: Option<Error>| matches!(error, Some(Error::Foreign { .. }));
    assert!(is_foreign(store.stat(&[id]).err()));
    assert!(is_foreign(store.open(&id).err()));
    assert!(is_foreign(store.list(None).err()));
    assert!(is_foreign(store.delete(&[id]).err()));
    assert!(is_foreign(store.check(READ, &|_| ()).err()));
    assert!(is_foreign(store.resolve(&Sha256Id::from_bytes([1; 32])).err()));
    assert!(is_foreign(incoming.finish(None).err()));
    fs::rename(&away, &path).unwrap();
    assert_eq!(content(&store, &id).unwrap(), &b"blob"[..]);
    assert!(put(&store, b"more", Class::Part).fresh, "the same disk resumes");
}

#[test]
fn after_a_failed_write_the_store_is_read_only_until_it_is_reopened() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let id = put(&store, b"before", Class::Part).id;
    let mut incoming = store.begin(Class::Part).unwrap();
    // A folder where a file should be stands for a disk that fails.
    let new = dir.path().join("new");
    fs::remove_dir_all(&new).unwrap();
    fs::write(&new, []).unwrap();
    let packed = packed(b"after", Class::Part);
    assert!(matches!(
        store.append(slice::from_ref(&packed)),
        Err(Error::Io { .. })
    ));
    assert!(store.status().read_only.unwrap().contains("new"));
    let refused = |error: Option<Error>| matches!(error, Some(Error::ReadOnly { .. }));
    assert!(refused(store.append(&[packed]).err()));
    assert!(refused(store.flush().err()));
    assert!(refused(store.begin(Class::Part).err()));
    assert!(refused(incoming.write(&noise(1, FRAME_BYTES)).err()));
    assert!(incoming.finish(None).is_err());
    assert!(refused(store.delete(&[id]).err()));
    assert!(refused(store.quarantine(&id, Aside::Damaged).err()));
    assert!(refused(
        store.add_alias(&Sha256Id::from_bytes([1; 32]), &id).err()
    ));
    assert_eq!(content(&store, &id).unwrap(), &b"before"[..]);
    assert_eq!(listed(&store, None).len(), 1);
    drop(store);
    fs::remove_file(&new).unwrap();
    let store = Fs::create(dir.path()).unwrap();
    assert!(put(&store, b"after", Class::Part).fresh);
}

#[test]
fn a_large_store_is_counted_by_a_sample_and_a_check_counts_it_whole() {
    const BLOBS: u32 = 12_000;
    let dir = folder();
    drop(Fs::create(dir.path()).unwrap());
    for n in 0..BLOBS {
        let id = BlobId::of(&n.to_le_bytes());
        let path = layout::blob_path(dir.path(), &id, Class::Part);
        let leaf: PathBuf = Leaf::of(&id).path(dir.path());
        if !leaf.exists() {
            fs::create_dir_all(leaf).unwrap();
        }
        fs::write(path, n.to_le_bytes()).unwrap();
    }
    let store = Fs::open(dir.path()).unwrap();
    let reckoned = store.status().blobs;
    assert!((11_000..13_000).contains(&reckoned), "{reckoned}");
    put(&store, b"one more", Class::Part);
    assert_eq!(store.status().blobs, reckoned + 1);
    assert!(is_healthy(&check(&store, CheckOptions::default())));
    let status = store.status();
    assert_eq!((status.blobs, status.plain_bytes), (12_001, 48_008));
}

#[test]
fn what_may_not_be_changed_stops_no_other_write() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    // As on a disk with folders of another machine's user; the tests may run as root, whom nothing is forbidden.
    let forbidden = std::io::ErrorKind::PermissionDenied.into();
    let error = store.place.failed(dir.path(), forbidden);
    assert!(matches!(error, Error::Io { .. }), "{error}");
    put(&store, b"goes on", Class::Part);
    let broken = std::io::Error::from_raw_os_error(5);
    assert!(matches!(store.place.failed(dir.path(), broken), Error::Io { .. }));
    assert!(store.status().read_only.is_some());
}

#[test]
fn a_blob_that_was_put_again_is_not_set_aside_for_the_copy_before() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    what_was_put_again_outlives_who_met_the_damage(Arc::new(store), |id| {
        let path = layout::blob_path(dir.path(), id, Class::Pinned);
        flip(&path, 2 * FRAME_BYTES as u64 + 5);
    });
}

#[test]
fn a_put_of_what_is_set_aside_before_its_flush_is_stored() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    for bytes in [noise(1, 3000), noise(2, 2 * FRAME_BYTES)] {
        let id = put(&store, &bytes, Class::Pinned).id;
        flip(&layout::blob_path(dir.path(), &id, Class::Pinned), 5);
        assert!(!store.append(&[packed(&bytes, Class::Pinned)]).unwrap()[0].fresh);
        assert!(store.quarantine(&id, Aside::Damaged).unwrap());
        assert_eq!(stat(&store, &id), None);
        store.flush().unwrap();
        assert!(content(&store, &id).unwrap() == bytes);
        assert_eq!(stat(&store, &id).unwrap().class, Class::Pinned);
    }
    assert!(is_healthy(&check(&store, REPAIR)));
    assert_eq!(store.status().blobs, 2);
}

#[test]
fn of_a_blob_of_both_classes_only_what_is_damaged_goes_and_it_stays_pinned() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    for damaged in [Class::Part, Class::Pinned] {
        let id = put(&store, b"twice", Class::Pinned).id;
        let [part, pinned] =
            [Class::Part, Class::Pinned].map(|class| layout::blob_path(dir.path(), &id, class));
        fs::copy(&pinned, &part).unwrap();
        flip(&layout::blob_path(dir.path(), &id, damaged), 2);
        let glance = CheckOptions {
            read_data: false,
            repair: true,
        };
        assert!(is_healthy(&check(&store, glance)));
        assert!(part.exists(), "nobody knows yet which of the two is whole");
        check(&store, REPAIR);
        assert!(!part.exists());
        assert_eq!(stat(&store, &id).unwrap().class, Class::Pinned);
        assert_eq!(content(&store, &id).unwrap(), &b"twice"[..]);
        assert_eq!(store.status().blobs, 1);
    }
}

#[test]
fn a_part_that_was_put_after_its_pinned_blob_was_deleted_is_no_second_file_of_it() {
    let dir = folder();
    let store = Fs::create(dir.path()).unwrap();
    let id = put(&store, b"blob", Class::Pinned).id;
    // A check has read the pinned file when this comes.
    store.delete(&[id]).unwrap();
    put(&store, b"blob", Class::Part);
    store.place.remove_second(&id).unwrap();
    assert_eq!(content(&store, &id).unwrap(), &b"blob"[..]);
}
