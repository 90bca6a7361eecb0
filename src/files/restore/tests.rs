//! Restores of real folders.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use proptest::prelude::*;

use super::super::fixture::{Scene, picture};
use super::super::progress::{Progress, Trouble};
use super::super::{Body, Error, Kind, find};
use super::{Overwrite, RestoreOptions, restore};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

fn with(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions {
        overwrite,
        ..RestoreOptions::default()
    }
}

#[test]
fn everything_unusual_comes_back_identical() {
    let mut scene = Scene::new();
    scene.options.xattrs = true;
    let source = scene.source();
    scene.write("big", noise(1, 9_000_000));
    scene.write("empty", "");
    fs::create_dir(source.join("empty folder")).unwrap();
    fs::write(source.join(OsStr::from_bytes(b"odd \xff\n\x01\"name")), "odd").unwrap();
    scene.write("links/a", "linked");
    fs::create_dir(source.join("other")).unwrap();
    fs::hard_link(source.join("links/a"), source.join("links/b")).unwrap();
    fs::hard_link(source.join("links/a"), source.join("other/c")).unwrap();
    symlink("links/a", source.join("to file")).unwrap();
    symlink("/nowhere", source.join("to nothing")).unwrap();
    symlink(OsStr::from_bytes(b"\xfe"), source.join("to odd")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 2_000_000).unwrap();
    sparse.set_len(5_000_000).unwrap();
    let hole = File::create(source.join("hole")).unwrap();
    hole.set_len(1_000_000).unwrap();
    nix::unistd::mkfifo(&source.join("fifo"), Mode::S_IRUSR).unwrap();
    fs::set_permissions(source.join("empty"), Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(source.join("links"), Permissions::from_mode(0o555)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(source.join("big")).unwrap().set_modified(old).unwrap();
    File::open(source.join("links"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    let has_xattrs = xattr::set(source.join("empty"), "user.note", b"text").is_ok()
        && xattr::set(source.join("links"), "user.raw", b"\xff\0").is_ok();
    File::open(&source).unwrap().set_modified(old).unwrap();

    let report = scene.backup();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let options = RestoreOptions {
        specials: true,
        ..RestoreOptions::default()
    };
    let report = scene.try_restore(&options).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(picture(&scene.target()), picture(&source));
    if has_xattrs {
        let read = |path: &str, name: &str| xattr::get(scene.target().join(path), name).unwrap();
        assert_eq!(read("empty", "user.note").as_deref(), Some(&b"text"[..]));
        assert_eq!(read("links", "user.raw").as_deref(), Some(&b"\xff\0"[..]));
    }
    // Only what needs more said has a commit.
    let body = |path: &str| {
        let latest = scene.latest();
        match find(&scene.repository.store, &latest.tree, Path::new(path))
            .unwrap()
            .unwrap()
            .kind
        {
            Kind::File { body, .. } => body,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(body("big"), Body::Commit(_)));
    assert!(matches!(body("sparse"), Body::Commit(_)));
    assert!(matches!(body("links/a"), Body::Part(_)));
    assert_eq!(matches!(body("empty"), Body::Commit(_)), has_xattrs);
}

#[test]
fn pipes_are_left_out_unless_asked_for() {
    let scene = Scene::new();
    nix::unistd::mkfifo(&scene.source().join("fifo"), Mode::S_IRUSR).unwrap();
    scene.backup();
    let options = RestoreOptions {
        specials: false,
        ..RestoreOptions::default()
    };
    let report = scene.try_restore(&options).unwrap();
    assert!(matches!(report.problems[0].what, Trouble::Special));
    assert!(!scene.target().join("fifo").exists());
}

#[test]
fn nothing_is_overwritten_without_being_told() {
    let scene = Scene::new();
    scene.write("a", "new");
    scene.write("b/c", "new");
    scene.backup();
    fs::create_dir(scene.target()).unwrap();
    fs::write(scene.target().join("other"), "kept").unwrap();
    fs::write(scene.target().join("b"), "old").unwrap();
    let refused = scene.try_restore(&with(Overwrite::Refuse));
    assert!(matches!(refused, Err(Error::Exists { path }) if path.ends_with("b")));
    assert!(!scene.target().join("a").exists(), "refused as a whole");

    let report = scene.try_restore(&with(Overwrite::Resume)).unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(fs::read(scene.target().join("a")).unwrap(), b"new");
    assert_eq!(fs::read(scene.target().join("b")).unwrap(), b"old");

    let report = scene.try_restore(&with(Overwrite::Replace)).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(fs::read(scene.target().join("b/c")).unwrap(), b"new");
    assert_eq!(fs::read(scene.target().join("other")).unwrap(), b"kept");

    fs::remove_file(scene.target().join("a")).unwrap();
    fs::create_dir(scene.target().join("a")).unwrap();
    let report = scene.try_restore(&with(Overwrite::Replace)).unwrap();
    assert_eq!(report.problems.len(), 1, "a folder never makes way for a file");
}

#[test]
fn no_link_in_the_target_leads_out_of_it() {
    let scene = Scene::new();
    scene.write("folder/file", "new");
    scene.write("file", "new");
    scene.backup();
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "safe").unwrap();
    for overwrite in [Overwrite::Refuse, Overwrite::Resume, Overwrite::Replace] {
        fs::create_dir(scene.target()).unwrap();
        symlink(&outside, scene.target().join("folder")).unwrap();
        symlink(outside.join("file"), scene.target().join("file")).unwrap();
        // Refused as a whole, or in part, or the links themselves are replaced.
        let done = scene.try_restore(&with(overwrite));
        assert_eq!(done.is_ok(), overwrite != Overwrite::Refuse);
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"safe");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let replaced = overwrite == Overwrite::Replace;
        assert_eq!(scene.target().join("folder").is_symlink(), !replaced);
        assert_eq!(scene.target().join("file").is_symlink(), !replaced);
        fs::remove_dir_all(scene.target()).unwrap();
    }
}

#[test]
fn a_restore_that_was_cut_is_resumed() {
    let scene = Scene::new();
    for n in 0..300 {
        scene.write(&format!("{}/{n}", n % 5), noise(n, 2000));
    }
    fs::hard_link(scene.source().join("0/0"), scene.source().join("1/linked")).unwrap();
    symlink("0/0", scene.source().join("link")).unwrap();
    scene.backup();
    scene.restore();
    // As if it was cut: files missing, one torn under a temporary name, one whose bytes never reached the disk.
    let target = scene.target();
    for n in (0..300).step_by(3) {
        fs::remove_file(target.join(format!("{}/{n}", n % 5))).unwrap();
    }
    fs::write(target.join("2/.refuge-restore-7"), "torn").unwrap();
    let zeroed = target.join("1/1");
    let time = fs::metadata(&zeroed).unwrap().modified().unwrap();
    fs::write(&zeroed, vec![0; 2000]).unwrap();
    File::options()
        .write(true)
        .open(&zeroed)
        .unwrap()
        .set_modified(time)
        .unwrap();

    let report = scene.try_restore(&with(Overwrite::Resume)).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].path, Path::new("1/1"));
    assert!(report.counts.unchanged >= 190);
    fs::remove_file(&zeroed).unwrap();
    let report = scene.try_restore(&with(Overwrite::Resume)).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let (mut there, mut wanted) = (picture(&target), picture(&scene.source()));
    // A target that was not empty keeps its own time.
    there.remove(&b""[..]);
    wanted.remove(&b""[..]);
    assert_eq!(there, wanted);
}

#[test]
fn a_path_is_restored_by_itself() {
    let scene = Scene::new();
    scene.write("a/b/c", "c");
    scene.write("a/d", "d");
    scene.backup();
    let only = |path: &str| RestoreOptions {
        path: Some(PathBuf::from(path)),
        ..RestoreOptions::default()
    };
    scene.try_restore(&only("a/b")).unwrap();
    scene.try_restore(&only("/a/d")).unwrap();
    let there: Vec<_> = picture(&scene.target()).into_keys().collect();
    assert_eq!(there, [&b""[..], b"c", b"d"]);
    for bad in ["a/x", "a/../a", ".."] {
        assert!(
            matches!(scene.try_restore(&only(bad)), Err(Error::NoPath { .. })),
            "{bad}"
        );
    }
}

#[test]
fn a_lost_part_costs_its_file_alone() {
    let scene = Scene::new();
    scene.write("a", "lost");
    scene.write("b", "kept");
    scene.backup();
    let lost = crate::id::BlobId::of(b"lost");
    scene.repository.store.backend().delete(&[lost]).unwrap();
    let report = scene.restore();
    assert_eq!(report.problems.len(), 1);
    assert!(matches!(
        &report.problems[0].what,
        Trouble::NotRestored(Error::Missing { id }) if *id == lost
    ));
    let there: Vec<_> = fs::read_dir(scene.target())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(there, ["b"], "nothing half restored is left");
}

#[test]
fn a_restore_stops_when_asked() {
    let scene = Scene::new();
    scene.write("a", "a");
    scene.backup();
    let progress = Progress::new();
    progress.stop();
    let done = restore(
        &scene.repository.store,
        &scene.latest(),
        &scene.target(),
        &RestoreOptions::default(),
        &progress,
    );
    assert!(matches!(done, Err(Error::Cancelled)));
}

#[derive(Debug, Clone)]
enum Node {
    File {
        size: usize,
        seed: u64,
        mode: u32,
        age: u64,
    },
    Sparse {
        before: u64,
        data: usize,
        after: u64,
    },
    Folder {
        inside: Vec<(Vec<u8>, Node)>,
        mode: u32,
    },
    Link(Vec<u8>),
    /// One more name of the file made last.
    Again,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{1,2}".prop_map(String::into_bytes),
        prop::collection::vec(
            any::<u8>().prop_filter("no name", |b| *b != 0 && *b != b'/'),
            1..20
        )
    ]
    .prop_filter("no name", |name| name != b"." && name != b"..")
}

fn node() -> impl Strategy<Value = Node> {
    let size = prop_oneof![4 => 0..5000_usize, 1 => 200_000..600_000_usize];
    let leaf = prop_oneof![
        6 => (size, any::<u64>(), 0..0o10000_u32, 0..2_000_000_000_u64)
            .prop_map(|(size, seed, mode, age)| Node::File { size, seed, mode, age }),
        1 => (0..300_000_u64, 1..9000_usize, 0..300_000_u64)
            .prop_map(|(before, data, after)| Node::Sparse { before, data, after }),
        1 => prop::collection::vec(1..255_u8, 1..100).prop_map(Node::Link),
        1 => Just(Node::Again),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        (prop::collection::vec((name(), inner), 0..8), 0..0o10000_u32)
            .prop_map(|(inside, mode)| Node::Folder { inside, mode })
    })
}

fn make(path: &Path, node: &Node, last: &mut Option<PathBuf>) {
    if fs::symlink_metadata(path).is_ok() {
        return;
    }
    match node {
        Node::File {
            size,
            seed,
            mode,
            age,
        } => {
            fs::write(path, noise(*seed, *size)).unwrap();
            fs::set_permissions(path, Permissions::from_mode(*mode)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::new(*age, 1);
            // Without being root, one that can't be written keeps the time it has.
            if let Ok(file) = File::options().write(true).open(path) {
                file.set_modified(time).unwrap();
            }
            *last = Some(path.to_owned());
        }
        Node::Sparse { before, data, after } => {
            let file = File::create(path).unwrap();
            file.write_all_at(&noise(1, *data), *before).unwrap();
            file.set_len(before + *data as u64 + after).unwrap();
            *last = Some(path.to_owned());
        }
        Node::Folder { inside, mode } => {
            fs::create_dir(path).unwrap();
            for (name, node) in inside {
                make(&path.join(OsStr::from_bytes(name)), node, last);
            }
            // Not beyond reach of those who run the tests without being root.
            fs::set_permissions(path, Permissions::from_mode(mode | 0o700)).unwrap();
        }
        Node::Link(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
        Node::Again => {
            if let Some(last) = last {
                fs::hard_link(last, path).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_folder_comes_back_identical(inside in prop::collection::vec((name(), node()), 0..8)) {
        let scene = Scene::new();
        fs::remove_dir(scene.source()).unwrap();
        let root = Node::Folder { inside, mode: 0o750 };
        make(&scene.source(), &root, &mut None);
        let report = scene.backup();
        prop_assert!(report.problems.is_empty(), "{:?}", report.problems);
        let report = scene.restore();
        prop_assert!(report.problems.is_empty(), "{:?}", report.problems);
        prop_assert_eq!(picture(&scene.target()), picture(&scene.source()));
        let again = scene.backup();
        prop_assert_eq!(again.counts.read_bytes, 0);
        prop_assert_eq!(again.snapshot.tree, scene.latest().tree);
    }
}
