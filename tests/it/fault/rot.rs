//! Rows R10 and R12: bits that flip in stored blobs, and state files that are damaged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use refuge::coffer::{
    Backend, CheckOptions, Class, Compression, Error, Haystack, HaystackOptions, Packed, read_whole,
};
use refuge::id::BlobId;

use super::driver::{Claimed, Driver, copy_folder, violations};
use super::folder;
use super::load::Open;
use super::power::blob_files;
use super::seed::Rng;
use crate::support::{Node, Ran, refuge};

/// Blobs that get a flipped bit each.
const BLOBS: usize = 1000;

#[test]
fn every_flipped_bit_in_a_haystack_is_found_and_never_served() {
    let open = |folder: &Path| -> Result<Box<dyn Backend>, Error> {
        Ok(Box::new(Haystack::open(folder, HaystackOptions::default())?))
    };
    every_flipped_bit_is_found("bit rot", open, "volumes");
}

#[test]
fn every_flipped_bit_in_a_file_is_found_and_never_served() {
    every_flipped_bit_is_found("bit rot in files", blob_files, "blobs");
}

fn every_flipped_bit_is_found(name: &str, open: Open, below: &str) {
    let mut rng = Rng::for_test(name);
    let found = folder::scratch();
    let store = open(found.path()).expect("a new store");
    // Incompressible, so that each is in its volume as it is.
    let blobs: Vec<Vec<u8>> = (0..BLOBS).map(|n| rng.bytes(200 + n)).collect();
    for batch in blobs.chunks(100) {
        put(&*store, batch);
    }
    // What follows a group says that the group was flushed: from then on damage is rot and no torn tail.
    put(&*store, &[b"the last one".to_vec()]);
    drop(store);
    flip_one_bit_of_each(&found.path().join(below), &blobs, &mut rng);
    let store = open(found.path()).expect("a store with rot opens");
    let ids: Vec<BlobId> = blobs.iter().map(|blob| BlobId::of(blob)).collect();
    for id in &ids {
        let read = store
            .open(id)
            .and_then(|reader| read_whole(&mut *reader.expect("it is stored"), 1 << 20));
        assert!(
            matches!(read, Err(Error::Corrupt { id: found }) if found == *id),
            "{id} is served, or missing: {read:?}"
        );
    }
    let report = store
        .check(
            CheckOptions {
                read_data: true,
                repair: false,
            },
            &|_| {},
        )
        .expect("a check");
    let mut damaged = report.damaged;
    damaged.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(damaged.len(), expected.len());
    assert_eq!(damaged, expected);
    let report = store
        .check(
            CheckOptions {
                read_data: true,
                repair: true,
            },
            &|_| {},
        )
        .expect("a repair");
    assert_eq!(report.quarantined.len(), BLOBS);
    assert!(
        store.stat(&ids).expect("a stat").iter().all(Option::is_none),
        "what was set aside can be put again"
    );
    put(&*store, &blobs);
    let report = store
        .check(
            CheckOptions {
                read_data: true,
                repair: false,
            },
            &|_| {},
        )
        .expect("a check");
    assert_eq!(report.damaged, []);
    assert_eq!(store.status().blobs, BLOBS as u64 + 1);
}

fn put(store: &dyn Backend, blobs: &[Vec<u8>]) {
    let pack = |blob: &Vec<u8>| Packed::new(Bytes::from(blob.clone()), Class::Pinned, Compression::default());
    store
        .append(&blobs.iter().map(pack).collect::<Vec<_>>())
        .expect("room");
    store.flush().expect("a flush");
}

fn flip_one_bit_of_each(volumes: &Path, blobs: &[Vec<u8>], rng: &mut Rng) {
    let mut flipped = 0;
    // Sixteen random bytes are found once.
    let known: HashMap<&[u8], usize> = blobs.iter().map(|blob| (&blob[..16], blob.len())).collect();
    for path in files_below(volumes) {
        let mut bytes = std::fs::read(&path).expect("a volume");
        let found: Vec<(usize, usize)> = bytes
            .windows(16)
            .enumerate()
            .filter_map(|(at, window)| Some((at, *known.get(window)?)))
            .collect();
        for (at, len) in found {
            bytes[at + rng.below(len)] ^= 1 << rng.below(8);
            flipped += 1;
        }
        std::fs::write(&path, bytes).expect("a volume");
    }
    assert_eq!(flipped, blobs.len());
}

/// A way to damage a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Empty,
    Half,
    LastByte,
    Zeros,
    Missing,
}

const DAMAGES: [Damage; 5] = [
    Damage::Empty,
    Damage::Half,
    Damage::LastByte,
    Damage::Zeros,
    Damage::Missing,
];

impl Damage {
    fn apply(self, path: &Path) {
        let mut bytes = std::fs::read(path).expect("a state file");
        match self {
            Self::Empty => bytes.clear(),
            Self::Half => bytes.truncate(bytes.len() / 2),
            Self::LastByte => bytes.truncate(bytes.len().saturating_sub(1)),
            Self::Zeros => bytes.fill(0),
            Self::Missing => return std::fs::remove_file(path).expect("a removal"),
        }
        std::fs::write(path, bytes).expect("a damage");
    }
}

#[test]
fn no_damaged_state_file_costs_the_identity_or_a_blob() {
    let claimed = Claimed::template();
    let journal = claimed.journal();
    let found = folder::scratch();
    let sound = found.path().join("sound");
    claimed.copy_to(&sound);
    let node = Node::start(&sound).expect("a node starts");
    let node_id = node.ready.node_id.clone();
    let mut driver = Driver::connect(&node, &claimed.token, &journal, None).expect("it listens");
    for number in 0..10 {
        assert!(driver.put(number).expect("an answer").is_success());
    }
    node.terminate().expect("it ends when asked");
    let source = found.path().join("source");
    std::fs::create_dir(&source).expect("a folder");
    for state in ["first", "second"] {
        std::fs::write(source.join("file"), state).expect("a file");
        let mut backup = refuge();
        backup
            .arg("backup")
            .arg(&source)
            .args(["--ref", "home", "--data"])
            .arg(&sound);
        assert!(Ran::of(&mut backup).expect("it starts").status.success());
    }
    let mut tried = 0;
    for file in state_files(&sound) {
        for damage in DAMAGES {
            let name = file.strip_prefix(&sound).expect("below the data folder");
            let what = format!("{} {damage:?}", name.display());
            let data = found.path().join("damaged");
            copy_folder(&sound, &data);
            damage.apply(&data.join(name));
            match Node::start(&data) {
                Ok(node) => {
                    assert_eq!(node.ready.node_id, node_id, "{what}: another identity");
                    assert_eq!(node.ready.claim_code, None, "{what}: the owner is lost");
                    let wrong = violations(&node, &journal.expected()).expect("it answers");
                    // The two snapshots' own blobs were never sent by this journal.
                    let lost: Vec<_> = wrong.iter().filter(|line| !line.contains("never sent")).collect();
                    assert!(lost.is_empty(), "{what}: {lost:?}");
                    node.terminate().expect("it ends when asked");
                }
                Err(error) => panic!("{what} has a previous generation: {error}"),
            }
            std::fs::remove_dir_all(&data).expect("a removal");
            tried += 1;
        }
    }
    assert!(tried >= 8 * DAMAGES.len(), "only {tried} damages were tried");
}

/// Every file of a data folder that is state: neither blobs, nor what is only there while a node runs.
fn state_files(data: &Path) -> Vec<PathBuf> {
    let mut files = files_below(data);
    files.retain(|path| {
        let name = path.to_string_lossy();
        ![
            "/volumes/",
            "/solo/",
            "/staging/",
            ".old",
            ".db-wal",
            ".db-shm",
            "/lock",
        ]
        .iter()
        .any(|part| name.contains(part))
    });
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
