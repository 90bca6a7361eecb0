//! The fault file system is itself tested: what it keeps, what it forgets, and that it behaves like a disk otherwise.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;

use super::child;
use super::folder;
use super::fs::{Call, Fault, FaultFs};
use super::medium::{Crash, Medium, Names};
use super::seed::Rng;
use crate::support::ANSWER_WITHIN;

/// Loses power with everything unflushed gone, and returns the folder that is found.
fn found_after(disk: &FaultFs, crash: Crash) -> tempfile::TempDir {
    show(&disk.crash(crash, &mut Rng::fixed(1)))
}

fn show(medium: &Medium) -> tempfile::TempDir {
    let found = tempfile::tempdir().expect("a temporary folder");
    folder::write_to(medium, found.path()).expect("a medium can be written out");
    found
}

fn flush(path: &Path) {
    File::open(path)
        .and_then(|file| file.sync_all())
        .expect("a flush");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII"))
        .collect();
    names.sort();
    names
}

#[test]
fn unflushed_data_is_lost_and_flushed_data_kept() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::write(disk.path("kept"), b"flushed").expect("a write");
    fs::write(disk.path("lost"), b"not flushed").expect("a write");
    flush(&disk.path("kept"));
    flush(disk.root());
    assert_eq!(fs::read(disk.path("lost")).expect("a read"), b"not flushed");
    let found = found_after(&disk, Crash::DropAll);
    assert_eq!(fs::read(found.path().join("kept")).expect("a read"), b"flushed");
    assert_eq!(fs::read(found.path().join("lost")).expect("a read"), b"");
}

#[test]
fn an_append_after_the_flush_is_lost() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(disk.path("log"))
        .expect("a file");
    file.write_all(&[1; 6000]).expect("a write");
    file.sync_data().expect("a flush");
    flush(disk.root());
    file.write_all(&[2; 6000]).expect("a write");
    let found = found_after(&disk, Crash::DropAll);
    assert_eq!(fs::read(found.path().join("log")).expect("a read"), [1; 6000]);
    let killed = found_after(&disk, Crash::KeepAll);
    assert_eq!(
        fs::metadata(killed.path().join("log")).expect("a file").len(),
        12000
    );
}

#[test]
fn a_name_needs_a_flush_of_its_directory() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::create_dir_all(disk.path("a/b")).expect("folders");
    fs::write(disk.path("a/b/file"), b"x").expect("a write");
    flush(&disk.path("a/b/file"));
    flush(&disk.path("a/b"));
    flush(disk.root());
    assert_eq!(names(found_after(&disk, Crash::DropAll).path()), ["a"]);
    assert!(
        names(&found_after(&disk, Crash::DropAll).path().join("a")).is_empty(),
        "the name b was not flushed"
    );
    flush(&disk.path("a"));
    assert_eq!(
        fs::read(found_after(&disk, Crash::DropAll).path().join("a/b/file")).expect("a read"),
        b"x"
    );
}

#[test]
fn a_rename_reverts_without_a_directory_flush() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::write(disk.path("state"), b"old").expect("a write");
    fs::write(disk.path("state.new"), b"new").expect("a write");
    flush(&disk.path("state"));
    flush(&disk.path("state.new"));
    flush(disk.root());
    fs::rename(disk.path("state.new"), disk.path("state")).expect("a rename");
    assert_eq!(
        fs::read(found_after(&disk, Crash::DropAll).path().join("state")).expect("a read"),
        b"old"
    );
    flush(disk.root());
    let found = found_after(&disk, Crash::DropAll);
    assert_eq!(fs::read(found.path().join("state")).expect("a read"), b"new");
    assert_eq!(names(found.path()), ["state"]);
}

#[test]
fn an_unlink_reverts_without_a_directory_flush() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::write(disk.path("file"), b"bytes").expect("a write");
    flush(&disk.path("file"));
    flush(disk.root());
    fs::remove_file(disk.path("file")).expect("a removal");
    assert_eq!(
        fs::read(found_after(&disk, Crash::DropAll).path().join("file")).expect("a read"),
        b"bytes"
    );
    flush(disk.root());
    assert!(names(found_after(&disk, Crash::DropAll).path()).is_empty());
}

#[test]
fn a_journal_keeps_the_names_before_any_flush() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Journal) else {
        return;
    };
    fs::write(disk.path("file"), b"bytes").expect("a write");
    flush(&disk.path("file"));
    assert_eq!(
        fs::read(found_after(&disk, Crash::DropAll).path().join("file")).expect("a read"),
        b"bytes"
    );
}

#[test]
fn random_pages_tear_and_reordering_brings_old_versions_back() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let file = File::create(disk.path("file")).expect("a file");
    file.write_all_at(&[1; 64 * 4096], 0).expect("a write");
    file.sync_all().expect("a flush");
    flush(disk.root());
    file.write_all_at(&[2; 64 * 4096], 0).expect("a write");
    file.write_all_at(&[3; 64 * 4096], 0).expect("a write");
    let seen = |crash| {
        let found = show(&disk.crash(crash, &mut Rng::fixed(3)));
        let bytes = fs::read(found.path().join("file")).expect("a read");
        let whole = |page: &[u8]| page.iter().all(|byte| *byte == page[0]);
        // The kernel may hand a write on in pieces that end inside a page: such a page has a version between.
        let torn = crash == Crash::Reordered;
        assert!(
            torn || bytes.chunks(4096).all(whole),
            "a page is kept or lost whole"
        );
        [1, 2, 3].map(|version| bytes.chunks(4096).any(|page| page[0] == version))
    };
    assert_eq!(seen(Crash::RandomPages), [true, false, true]);
    assert_eq!(seen(Crash::Reordered), [true, true, true]);
    assert_eq!(seen(Crash::DropAll), [true, false, false]);
}

#[test]
fn a_crash_leaves_no_bytes_behind_a_shorter_end() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let file = File::create(disk.path("file")).expect("a file");
    file.write_all_at(&[7; 10_000], 0).expect("a write");
    file.set_len(100).expect("a cut");
    file.set_len(5000).expect("an extension");
    file.sync_all().expect("a flush");
    flush(disk.root());
    let bytes = fs::read(found_after(&disk, Crash::DropAll).path().join("file")).expect("a read");
    assert_eq!(bytes[..100], [7; 100]);
    assert_eq!(bytes[100..], [0; 4900]);
}

#[test]
fn a_cut_disk_can_be_mounted_again() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::create_dir(disk.path("folder")).expect("a folder");
    fs::write(disk.path("folder/file"), b"bytes").expect("a write");
    flush(&disk.path("folder/file"));
    flush(&disk.path("folder"));
    flush(disk.root());
    let medium = disk.crash(Crash::DropAll, &mut Rng::fixed(1));
    drop(disk);
    let Some(disk) = FaultFs::mount_medium_or_skip(medium) else {
        return;
    };
    assert_eq!(fs::read(disk.path("folder/file")).expect("a read"), b"bytes");
    fs::write(disk.path("folder/more"), b"x").expect("a write");
    assert_eq!(names(&disk.path("folder")), ["file", "more"]);
}

#[test]
fn a_recording_is_cut_at_any_place() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    disk.record();
    for n in 0..5u8 {
        let file = File::create(disk.path(format!("{n}"))).expect("a file");
        file.write_all_at(&[n; 10], 0).expect("a write");
        file.sync_all().expect("a flush");
        flush(disk.root());
        disk.mark(usize::from(n) + 1);
    }
    let recording = disk.recorded();
    let places: Vec<usize> = (0..recording.places()).collect();
    let mut looked = 0;
    recording.visit(&places, |place, medium, mark| {
        let found = show(&medium.after(Crash::DropAll, &mut Rng::fixed(1)));
        let there = names(found.path());
        let state = recording.describe(place);
        assert!(
            there.len() >= mark && there.len() <= mark + 1,
            "{mark} files are acknowledged, found {there:?}\n{state}"
        );
        for name in &there[..mark] {
            assert_eq!(fs::read(found.path().join(name)).expect("a read").len(), 10);
        }
        looked += 1;
    });
    assert!(
        looked >= 25,
        "five rounds of create, write, flush, flush directory, mark; got {looked}"
    );
}

#[test]
fn faults_hit_the_call_they_name() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let file = File::create(disk.path("file")).expect("a file");
    disk.inject(Fault {
        call: Some(Call::Write),
        nth: 2,
        errno: Errno::ENOSPC,
        lasting: false,
    });
    file.write_all_at(b"1", 0).expect("the first write");
    assert_eq!(
        file.write_all_at(b"2", 1).expect_err("the second").kind(),
        ErrorKind::StorageFull
    );
    file.write_all_at(b"3", 1).expect("the third write");
    disk.inject(Fault {
        call: Some(Call::Flush),
        nth: 1,
        errno: Errno::EIO,
        lasting: true,
    });
    assert_eq!(
        file.sync_all().expect_err("a failed flush").raw_os_error(),
        Some(Errno::EIO as i32)
    );
    assert_eq!(
        file.sync_all().expect_err("a failed flush").raw_os_error(),
        Some(Errno::EIO as i32)
    );
    disk.heal();
    disk.set_read_only(true);
    assert_eq!(
        file.write_all_at(b"4", 1).expect_err("read only").kind(),
        ErrorKind::ReadOnlyFilesystem
    );
    disk.set_read_only(false);
    assert_eq!(disk.count(Call::Write), 4);
    assert_eq!(disk.count(Call::Create), 1);
}

#[test]
fn it_counts_what_wears_a_card() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::write(disk.path("file"), [1; 5000]).expect("a write");
    flush(&disk.path("file"));
    flush(&disk.path("file"));
    assert_eq!(disk.written_bytes(), 5000);
    assert_eq!(disk.flushed_bytes(), 8192, "two pages, once");
    assert!(disk.changes() >= 4, "create, write, two flushes");
}

#[test]
fn a_failed_flush_loses_its_data_for_good() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let file = File::create(disk.path("file")).expect("a file");
    file.write_all_at(&[1; 100], 0).expect("a write");
    flush(disk.root());
    disk.inject(Fault {
        call: Some(Call::Flush),
        nth: 1,
        errno: Errno::EIO,
        lasting: false,
    });
    file.sync_all().expect_err("the injected error");
    file.sync_all().expect("the second flush claims success");
    let bytes = fs::read(found_after(&disk, Crash::DropAll).path().join("file")).expect("a read");
    assert_eq!(
        bytes, [0; 100],
        "the pages were marked clean without being written"
    );
}

#[test]
fn a_full_disk_takes_writes_again_after_a_removal() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    disk.set_limit_bytes(16 * 4096);
    fs::write(disk.path("first"), [1; 10 * 4096]).expect("a write");
    assert_eq!(
        fs::write(disk.path("second"), [1; 10 * 4096])
            .expect_err("no room")
            .kind(),
        ErrorKind::StorageFull
    );
    let stat = nix::sys::statvfs::statvfs(disk.root());
    assert_eq!(stat.expect("statvfs").blocks_available(), 6);
    fs::remove_file(disk.path("first")).expect("a removal");
    fs::write(disk.path("second"), [1; 10 * 4096]).expect("room again");
}

#[test]
fn a_power_cut_kills_the_process_before_the_change() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let script = "set -e; for n in 1 2 3 4 5 6 7 8 9; do echo $n > \"$0/$n\"; sync \"$0/$n\"; sync \"$0\"; echo $n; done; read -r forever";
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", script])
        .arg(disk.root())
        // Nothing ever comes: it waits until it is killed.
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = shell.spawn().expect("a shell");
    disk.cut_power_at(14, child.id());
    let mut said = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("output until the end");
    assert!(!child.wait().expect("an exit").success());
    let found = found_after(&disk, Crash::DropAll);
    let there = names(found.path());
    let acknowledged: Vec<&str> = said.lines().collect();
    assert!(acknowledged.len() < 9, "it was killed before the end");
    assert!(
        acknowledged
            .iter()
            .all(|name| there.contains(&(*name).to_owned())),
        "{acknowledged:?} of {there:?}"
    );
    assert!(!disk.is_powered());
}

#[test]
fn a_held_flush_does_not_hold_reads() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::write(disk.path("file"), b"bytes").expect("a write");
    disk.hold_flushes();
    let (done, answers) = std::sync::mpsc::channel();
    let path = disk.path("file");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            flush(&path);
            done.send(()).expect("the test waits");
        });
        assert_eq!(fs::read(disk.path("file")).expect("a read"), b"bytes");
        fs::write(disk.path("other"), b"x").expect("a write");
        assert!(answers.try_recv().is_err(), "the flush is held");
        disk.release_flushes();
        answers
            .recv_timeout(ANSWER_WITHIN)
            .expect("the flush is answered");
    });
}

#[test]
fn it_behaves_like_a_disk() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    fs::write(disk.path("file"), b"0123456789").expect("a write");
    fs::hard_link(disk.path("file"), disk.path("second")).expect("a link");
    assert_eq!(fs::metadata(disk.path("file")).expect("a file").nlink(), 2);
    symlink("file", disk.path("symlink")).expect("a symlink");
    assert_eq!(fs::read(disk.path("symlink")).expect("a read"), b"0123456789");
    fs::set_permissions(disk.path("file"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(
        fs::metadata(disk.path("second")).expect("a file").mode() & 0o777,
        0o600
    );
    fs::create_dir(disk.path("folder")).expect("a folder");
    fs::rename(disk.path("second"), disk.path("folder/moved")).expect("a rename");
    assert_eq!(names(disk.root()), ["file", "folder", "symlink"]);
    assert_eq!(
        fs::remove_dir(disk.path("folder")).expect_err("not empty").kind(),
        ErrorKind::DirectoryNotEmpty
    );
    assert!(File::create_new(disk.path("file")).is_err_and(|error| error.kind() == ErrorKind::AlreadyExists));
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .open(disk.path("file"))
        .expect("a file");
    file.write_all(b"abc").expect("an append");
    file.seek(SeekFrom::Start(8)).expect("a seek");
    let mut tail = String::new();
    file.read_to_string(&mut tail).expect("a read");
    assert_eq!(tail, "89abc");
    fs::remove_file(disk.path("file")).expect("a removal");
    file.write_all_at(b"still open", 0)
        .expect("a write to a file without a name");
    file.try_lock().expect("an flock");
    for n in 0..500 {
        fs::write(disk.path(format!("folder/{n:03}")), b"").expect("many files");
    }
    assert_eq!(fs::read_dir(disk.path("folder")).expect("a folder").count(), 501);
}

#[test]
fn sqlite_runs_on_it_and_keeps_what_it_committed() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    child::run("fault::fs_tests::sqlite_writer", disk.root()).expect("the writer ends well");
    for (crash, seed) in Crash::POWER.into_iter().zip(1..) {
        let found = show(&disk.crash(crash, &mut Rng::fixed(seed)));
        let db = rusqlite::Connection::open(found.path().join("test.db")).expect("a database");
        let kept: i64 = db
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .expect("a count");
        assert_eq!(kept, 50, "after {crash:?}");
    }
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn sqlite_writer() {
    let Some(folder) = child::folder() else { return };
    let db = rusqlite::Connection::open(folder.join("test.db")).expect("a database");
    db.pragma_update(None, "journal_mode", "WAL")
        .expect("write-ahead log");
    db.pragma_update(None, "synchronous", "FULL").expect("flushes");
    db.pragma_update(None, "wal_autocheckpoint", 0)
        .expect("no checkpoint");
    db.execute_batch("CREATE TABLE t (n INTEGER)").expect("a table");
    flush(&folder);
    for n in 0..50 {
        db.execute("INSERT INTO t VALUES (?1)", [n]).expect("an insert");
    }
    let other = rusqlite::Connection::open(folder.join("test.db"))
        .expect("a second connection shares the log's index");
    let seen: i64 = other
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(seen, 50);
    // As a crash: closing would checkpoint the log.
    std::process::exit(0);
}
