//! Folders that go away and come back: here, and on another node.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::{Desk, bytes_of};

/// What a folder holds, with all that a backup keeps of it.
pub(super) fn inventory(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut names_of: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full).unwrap();
            let content = if meta.is_dir() {
                waiting.push(path.clone());
                "folder".to_owned()
            } else if meta.is_symlink() {
                format!("-> {:?}", fs::read_link(&full).unwrap())
            } else {
                blake3::hash(&bytes_of(&full)).to_string()
            };
            let first_name = names_of.entry(meta.ino()).or_insert_with(|| path.clone());
            // Of the names of one file the least stands for all.
            *first_name = first_name.clone().min(path.clone());
            let (mode, mtime) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
            let text = format!("{content} {mode:o} {mtime:?} {} {}", meta.nlink(), meta.ino());
            found.insert(path, text);
        }
    }
    // Inodes are others after a restore; which names share one is not.
    for text in found.values_mut() {
        let (rest, inode) = text.rsplit_once(' ').unwrap();
        *text = format!("{rest} {:?}", names_of[&inode.parse().unwrap()]);
    }
    found
}

/// A folder with what is hard to keep.
pub(super) fn odd_folder(root: &Path) {
    fs::create_dir_all(root.join("deep/er/still")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("text"), "all work and no play ".repeat(10_000)).unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    let mut noise = vec![0; 3_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(root.join("deep/noise"), &noise).unwrap();
    fs::hard_link(root.join("deep/noise"), root.join("deep/er/same noise")).unwrap();
    symlink("../text", root.join("deep/link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), "bytes").unwrap();
    fs::write(root.join("new\nline \u{1b}[31m"), "odd").unwrap();
    fs::set_permissions(root.join("text"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o2750)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    let long_ago = UNIX_EPOCH + Duration::new(86_400 * 365, 123_456_789);
    let text = fs::File::options().write(true).open(root.join("text")).unwrap();
    text.set_modified(long_ago).unwrap();
    for folder in ["deep/er/still", "deep/er", "empty"] {
        fs::File::open(root.join(folder))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
}

/// Backups after which what is not touched has settled: two and a half take longer than a tick.
const SETTLED_AFTER: usize = 20;

/// Backs up, changes, backs up again and restores everything, with commands that `place` sends somewhere.
fn round_trip(desk: &Desk, place: &[&str]) {
    let run = |arguments: &[&str]| desk.run(arguments.iter().chain(place));
    let folder = desk.path("folder");
    odd_folder(&folder);
    run(&["backup", "folder", "--ref", "me/docs"]).done();
    let first = inventory(&folder);
    let mut backups = 1;
    // What was written just before it was read is read again: it may have changed within the same tick of the clock.
    for again in 0.. {
        assert!(again < SETTLED_AFTER, "unchanged files are read");
        let again = run(&["backup", "folder", "--ref", "me/docs", "--json"]).done();
        let again: serde_json::Value = serde_json::from_str(&again).unwrap();
        backups += 1;
        if again["unchanged"] == again["files"] && again["read_bytes"] == 0 {
            break;
        }
    }

    fs::write(folder.join("text"), "changed").unwrap();
    fs::remove_file(folder.join("nothing")).unwrap();
    run(&["backup", "folder", "--ref", "me/docs"]).done();
    let diff = run(&["diff", "me/docs@-1", "me/docs"]).done();
    assert!(diff.contains("M text") && diff.contains("- nothing"), "{diff}");

    run(&["restore", "me/docs", "latest"]).done();
    assert_eq!(inventory(&desk.path("latest")), inventory(&folder));
    run(&["restore", &format!("me/docs@-{backups}"), "oldest"]).done();
    assert_eq!(inventory(&desk.path("oldest")), first);
    run(&["restore", "me/docs:deep/er", "part"]).done();
    assert!(desk.path("part/same noise").exists());
    run(&["restore", "me/docs:absent", "absent"]).refused(3, "absent");

    let said = run(&["restore", "me/docs", "latest"]).failed(1);
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(
        inventory(&desk.path("latest")),
        inventory(&folder),
        "nothing was touched"
    );
    run(&["restore", "me/docs", "latest", "--resume"]).done();
    assert_eq!(inventory(&desk.path("latest")), inventory(&folder));

    let verified = run(&["verify", "me/docs"]).done();
    assert!(
        verified.contains(&format!("{} snapshots", backups + 1)) && verified.contains("all is well"),
        "{verified}"
    );
    let listed = run(&["snapshots", "me/docs", "--json"]).done();
    assert_eq!(listed.lines().count(), backups + 1);
    run(&["prune", "me/docs", "--keep-last", "1"]).done();
    assert_eq!(run(&["snapshots", "me/docs", "--json"]).done().lines().count(), 1);
    run(&["prune", "me/docs"]).refused(2, "--keep-last");
    run(&["restore", "me/docs", "after"]).done();
    assert_eq!(inventory(&desk.path("after")), inventory(&folder));
}

#[test]
fn a_folder_comes_back_identical_from_a_data_folder() {
    let desk = Desk::new();
    let data = desk.data();
    round_trip(&desk, &["--data", data.to_str().unwrap()]);
    desk.here(["check", "--read-data"]).done();
}

#[test]
fn a_folder_comes_back_identical_from_another_node() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    round_trip(&desk, &["--node", &super::https(&node)]);
    desk.run(["check", "--read-data"]).done();
}

#[test]
fn a_folder_comes_back_identical_from_a_store_of_single_files() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    fs::create_dir(desk.path("usb")).unwrap();
    let usb = desk.path("usb");
    desk.run([
        "store",
        "add",
        "usb",
        "--backend",
        "fs",
        "--path",
        usb.to_str().unwrap(),
    ])
    .done();
    round_trip(&desk, &["--store", "usb", "--node", &super::https(&node)]);
    assert_eq!(desk.run(["ls"]).done(), "", "the store main has none of it");
}

#[test]
fn rules_leave_out_and_take_back_in() {
    let desk = Desk::new();
    for name in ["keep/a.txt", "keep/a.tmp", "keep/b.tmp", "cache/x", "other/y"] {
        desk.write(&format!("folder/{name}"), name);
    }
    desk.write("rules", "# from a file\nother/\n");
    let rules = [
        "--exclude-file",
        "rules",
        "--exclude",
        "*.tmp",
        "--exclude",
        "cache/",
        "--include",
        "b.tmp",
    ];
    desk.here(["backup", "folder", "--ref", "r"].iter().chain(&rules))
        .done();
    desk.here(["restore", "r", "out"]).done();
    let names: Vec<PathBuf> = inventory(&desk.path("out")).into_keys().collect();
    assert_eq!(
        names,
        [
            Path::new("keep"),
            Path::new("keep/a.txt"),
            Path::new("keep/b.tmp")
        ]
    );
}

/// Takes a part of a snapshot away, in a way that `lose` knows, and backs the untouched folder up again.
fn comes_back_by_a_backup(desk: &Desk, place: &[&str], lose: impl Fn(&str)) {
    let run = |arguments: &[&str]| desk.run(arguments.iter().chain(place));
    let folder = desk.path("folder");
    odd_folder(&folder);
    let part = format!(
        "blake3;{}",
        blake3::hash(&bytes_of(&folder.join("text"))).to_hex()
    );
    run(&["backup", "folder", "--ref", "r"]).done();
    lose(&part);
    run(&["verify", "r"]).failed(4);
    run(&["backup", "folder", "--ref", "r"]).done();
    run(&["verify", "r"]).done();
    run(&["restore", "r", "out"]).done();
    assert_eq!(inventory(&desk.path("out")), inventory(&folder));
}

#[test]
fn what_was_deleted_of_a_snapshot_is_put_again_by_the_next_backup() {
    let desk = Desk::new();
    let data = desk.data();
    let place = ["--data", data.to_str().unwrap()];
    comes_back_by_a_backup(&desk, &place, |part| {
        desk.run(["rm", part].iter().chain(&place)).done();
    });
}

#[test]
fn what_was_deleted_on_a_node_is_put_again_by_the_next_backup() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    let url = super::https(&node);
    let place = ["--node", url.as_str()];
    comes_back_by_a_backup(&desk, &place, |part| {
        desk.run(["rm", part].iter().chain(&place)).done();
    });
}

#[test]
fn what_a_repair_set_aside_is_put_again_by_the_next_backup() {
    let desk = Desk::new();
    let data = desk.data();
    let place = ["--data", data.to_str().unwrap()];
    comes_back_by_a_backup(&desk, &place, |_| {
        for volume in fs::read_dir(data.join("stores/main/volumes")).unwrap() {
            let path = volume.unwrap().path();
            let mut bytes = bytes_of(&path);
            // The first group of the volume: its last bytes belong to a needle.
            let at = 4096 + 600;
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        }
        let repaired = desk.run(["check", "--read-data", "--repair"].iter().chain(&place));
        repaired.failed(4);
    });
}
