//! Backups of real folders.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::SystemTime;

use super::super::fixture::{Scene, later, picture};
use super::super::progress::{Progress, Trouble};
use super::super::refs::{RefRecord, RefVersion, Refs};
use super::super::{Error, Repository, find};
use super::backup;
use crate::id::{BlobId, RefName};

#[test]
fn what_did_not_change_is_neither_read_nor_written_again() {
    let scene = Scene::new();
    scene.write("a/b/one", "one");
    scene.write("a/two", "two");
    scene.write("three", vec![7; 3_000_000]);
    let first = scene.backup();
    assert_eq!((first.counts.files, first.counts.read_bytes), (3, 3_000_006));
    let blobs = scene.repository.store.status().blobs;

    let second = scene.backup();
    assert_eq!(second.parent, Some(first.snapshot.tree));
    assert_eq!(second.snapshot.tree, first.snapshot.tree);
    assert_eq!((second.counts.unchanged, second.counts.read_bytes), (3, 0));
    assert_eq!(scene.repository.store.status().blobs, blobs);

    scene.write("a/two", "TWO");
    scene.write("a/b/four", "four");
    fs::remove_file(scene.source().join("three")).unwrap();
    let third = scene.backup();
    assert_eq!((third.counts.files, third.counts.read_bytes), (3, 7));
    let at = |path: &str| find(&scene.repository.store, &third.snapshot.tree, Path::new(path)).unwrap();
    assert!(at("a/b/four").is_some());
    assert!(at("three").is_none());
    scene.restore();
    assert_eq!(picture(&scene.target()), picture(&scene.source()));
}

#[test]
fn a_file_that_changed_a_moment_before_it_was_read_is_read_again() {
    let mut scene = Scene::new();
    scene.write("a", "one");
    scene.options.now = || SystemTime::UNIX_EPOCH;
    scene.backup();
    scene.options.now = later;
    assert_eq!(scene.backup().counts.read_bytes, 3);
    assert_eq!(scene.backup().counts.read_bytes, 0);
}

#[test]
fn the_folder_that_is_backed_up_into_is_left_out_by_whatever_name() {
    let mut scene = Scene::new();
    scene.write("kept/one", "one");
    scene.write("deep/data/blob", "two");
    std::os::unix::fs::symlink("deep/data", scene.dir.path().join("source/link")).unwrap();
    scene.options.not_into = Some(scene.source().join("link"));
    let report = scene.backup();
    let at = |path: &str| find(&scene.repository.store, &report.snapshot.tree, Path::new(path)).unwrap();
    assert!(at("kept/one").is_some() && at("deep").is_some() && at("link").is_some());
    assert!(at("deep/data").is_none());

    scene.options.not_into = Some(scene.source());
    assert!(matches!(
        scene.try_backup(&Progress::new()),
        Err(Error::IntoItself { .. })
    ));
}

/// Folders whose last two entries are done by two threads at the same moment: each goes on to the one above
/// once, and none of its entries is left out.
#[test]
fn folders_that_are_done_at_the_same_moment_are_kept_whole() {
    let scene = Scene::new();
    for at in 0..100 {
        scene.write(&format!("{at}/a/deep/one"), "one");
        scene.write(&format!("{at}/b/deep/two"), "two");
    }
    let first = scene.backup();
    scene.restore();
    assert_eq!(picture(&scene.target()), picture(&scene.source()));
    for round in 0..100 {
        assert_eq!(scene.backup().snapshot.tree, first.snapshot.tree, "round {round}");
    }
}

#[test]
fn equal_files_are_stored_once() {
    let scene = Scene::new();
    for n in 0..50 {
        scene.write(&format!("{n}"), "the same");
    }
    scene.backup();
    // The part and the tree.
    assert_eq!(scene.repository.store.status().blobs, 2);
}

#[test]
fn rules_leave_out_and_take_back_in() {
    let mut scene = Scene::new();
    for path in ["a.o", "keep.o", "src/a.c", "src/b.o", "cache/x", "src/cache/y"] {
        scene.write(path, path);
    }
    scene.backup();
    scene.options.rules = vec!["*.o".to_owned(), "!keep.o".to_owned(), "/cache/".to_owned()];
    let report = scene.backup();
    scene.restore();
    let kept: Vec<String> = picture(&scene.target())
        .into_keys()
        .map(|path| String::from_utf8(path).unwrap())
        .collect();
    assert_eq!(kept, ["", "keep.o", "src", "src/a.c", "src/cache", "src/cache/y"]);
    assert_eq!(report.counts.files, 3);
    scene.options.rules = vec!["[z-a]".to_owned()];
    assert!(matches!(
        scene.try_backup(&Progress::new()),
        Err(Error::Rule { .. })
    ));
}

#[test]
fn what_cannot_be_kept_is_named_and_the_rest_goes_on() {
    let scene = Scene::new();
    scene.write("a", "a");
    let _socket = UnixListener::bind(scene.source().join("socket")).unwrap();
    let report = scene.backup();
    assert!(matches!(report.problems[0].what, Trouble::Socket));
    assert!(!report.snapshot.partial, "a socket is no loss");

    // A process's memory can't be read from its beginning, and its status has more bytes than it says.
    let mut scene = Scene::new();
    scene.options.rules = ["*", "!mem", "!status"].map(str::to_owned).into();
    let proc = |scene: &Scene| {
        backup(
            &scene.repository,
            Path::new("/proc/self"),
            &scene.name,
            &scene.options,
            &Progress::new(),
        )
        .unwrap()
    };
    let report = proc(&scene);
    let mut problems: Vec<String> = report
        .problems
        .iter()
        .map(|p| format!("{}: {}", p.path.display(), p.what))
        .collect();
    problems.sort();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("mem: could not be read"), "{problems:?}");
    assert!(
        problems[1].starts_with("status: changed while it was read"),
        "{problems:?}"
    );
    assert!(report.snapshot.partial);
    assert_eq!(report.snapshot.files, 1);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let scene = Scene::new();
    fs::remove_dir(scene.source()).unwrap();
    let failure = scene.try_backup(&Progress::new()).unwrap_err();
    assert!(failure.to_string().contains("source"), "{failure}");
}

static STOPS: OnceLock<Progress> = OnceLock::new();

/// A clock that stops the backup when it is asked for the fiftieth time.
fn stopping_clock() -> SystemTime {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    if ASKED.fetch_add(1, Relaxed) == 50 {
        STOPS.get().unwrap().stop();
    }
    later()
}

#[test]
fn an_interrupted_backup_goes_on_where_it_was() {
    let mut scene = Scene::new();
    for n in 0..400 {
        scene.write(&format!("{}/{}/{n}", n % 7, n % 5), format!("{n:01000}"));
    }
    scene.options.now = stopping_clock;
    let progress = STOPS.get_or_init(Progress::new);
    assert!(matches!(scene.try_backup(progress), Err(Error::Cancelled)));
    let record = scene.repository.refs.get(&scene.name).unwrap().unwrap();
    assert_eq!(record.snapshots, []);
    assert!(record.in_progress.is_some());
    let read = progress.counts().read_bytes;
    assert!((50_000..400_000).contains(&read), "{read}");

    scene.options.now = later;
    let report = scene.backup();
    assert_eq!(report.counts.files, 400);
    let again = report.counts.read_bytes;
    // What was under way when it was stopped, a folder on each thread, is read twice.
    assert!(
        again <= 400_000 - 30_000 && again + read < 600_000,
        "{read} bytes were read, then {again} of 400,000"
    );
    let record = scene.repository.refs.get(&scene.name).unwrap().unwrap();
    assert_eq!(record.in_progress, None);
    scene.restore();
    assert_eq!(picture(&scene.target()), picture(&scene.source()));
}

#[test]
fn two_backups_into_one_ref_keep_both_snapshots() {
    let scene = Scene::new();
    scene.write("a/x", "x");
    scene.write("b/y", "y");
    thread::scope(|scope| {
        for folder in ["a", "b"] {
            let scene = &scene;
            scope.spawn(move || {
                let source = scene.source().join(folder);
                backup(
                    &scene.repository,
                    &source,
                    &scene.name,
                    &scene.options,
                    &Progress::new(),
                )
                .unwrap();
            });
        }
    });
    let record = scene.repository.refs.get(&scene.name).unwrap().unwrap();
    assert_eq!(record.snapshots.len(), 2);
}

/// Refs that once find a blob missing, as a node does that collected it meanwhile.
struct Forgetful {
    refs: Arc<dyn Refs>,
    swaps: AtomicU64,
}

impl Refs for Forgetful {
    fn get(&self, name: &RefName) -> Result<Option<RefRecord>, Error> {
        self.refs.get(name)
    }

    fn list(&self) -> Result<Vec<RefRecord>, Error> {
        self.refs.list()
    }

    fn swap(
        &self,
        name: &RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, Error> {
        if self.swaps.fetch_add(1, Relaxed) == 0 {
            return Err(Error::Incomplete {
                name: name.clone(),
                missing: vec![BlobId::of(b"gone")],
            });
        }
        self.refs.swap(name, expected, next)
    }
}

#[test]
fn what_was_collected_meanwhile_is_put_again() {
    let mut scene = Scene::new();
    scene.write("a", "a");
    scene.repository = Repository {
        store: scene.repository.store.clone(),
        refs: Arc::new(Forgetful {
            refs: Arc::clone(&scene.repository.refs),
            swaps: AtomicU64::new(0),
        }),
    };
    let report = scene.backup();
    // Once for nothing, once in earnest.
    assert_eq!(report.counts.read_bytes, 2);
    scene.restore();
    assert_eq!(picture(&scene.target()), picture(&scene.source()));
}

#[test]
fn a_lost_tree_of_the_snapshot_before_costs_reading_and_nothing_else() {
    let scene = Scene::new();
    scene.write("a/b", "b");
    scene.write("c", "c");
    let first = scene.backup();
    scene
        .repository
        .store
        .backend()
        .delete(&[first.snapshot.tree])
        .unwrap();
    let second = scene.backup();
    assert_eq!(second.counts.read_bytes, 2);
    scene.restore();
    assert_eq!(picture(&scene.target()), picture(&scene.source()));
}

#[test]
fn a_folder_of_many_entries_is_listed_in_windows() {
    let scene = Scene::new();
    for n in 0..200 {
        scene.write(&format!("many/{n}"), "");
    }
    scene.write("many/150", "x");
    let first = scene.backup();
    assert_eq!(first.counts.files, 200);
    let second = scene.backup();
    assert_eq!(second.snapshot.tree, first.snapshot.tree);
    assert_eq!(second.counts.unchanged, 200);
    scene.restore();
    assert_eq!(picture(&scene.target()), picture(&scene.source()));
}
