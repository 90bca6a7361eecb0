//! Backups that are cut in the middle and finished later, as after a crash of either side.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::folders::inventory;
use super::{Desk, https};
use crate::support::{ANSWER_WITHIN, Process};

/// Enough small files that a backup of them takes a while, in a debug build too.
fn many_files(root: &Path) {
    for folder in 0..60 {
        let folder = root.join(format!("folder {folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..40 {
            let mut noise = vec![0; 20_000];
            let seed = format!("{} {file}", folder.display());
            blake3::Hasher::new()
                .update(seed.as_bytes())
                .finalize_xof()
                .fill(&mut noise);
            fs::write(folder.join(format!("file {file}")), noise).unwrap();
        }
    }
}

/// Waits until what is below `folder` takes this many bytes.
fn grown_to(folder: &Path, bytes: u64) -> io::Result<()> {
    let begun = Instant::now();
    while size_of(folder) < bytes {
        if begun.elapsed() > ANSWER_WITHIN {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was stored"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_of(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn a_backup_that_was_killed_is_finished_by_the_next() {
    let desk = Desk::new();
    many_files(&desk.path("folder"));
    let backup = ["backup", "folder", "--ref", "r", "--data", "data"];
    for bytes in [2_000_000, 12_000_000, 25_000_000] {
        let running = Process::start(desk.command(backup)).unwrap();
        grown_to(&desk.data().join("stores"), bytes).unwrap();
        // Dropping it kills it.
        drop(running);
    }
    desk.run(backup).done();
    desk.here(["restore", "r", "out"]).done();
    assert_eq!(inventory(&desk.path("out")), inventory(&desk.path("folder")));
    desk.here(["check", "--read-data"]).done();
    desk.here(["verify", "r"]).done();
}

#[test]
fn a_backup_to_a_node_that_was_killed_is_finished_after_its_restart() {
    let desk = Desk::new();
    many_files(&desk.path("folder"));
    let node = desk.claimed_node();
    let url = https(&node);
    let (own, listen) = (node.ready.node_id.clone(), url.replace("https://", ""));
    let backup = ["backup", "folder", "--ref", "r", "--node", &url];
    let running = Process::start(desk.command(backup)).unwrap();
    grown_to(&desk.data().join("stores"), 12_000_000).unwrap();
    node.kill().unwrap();
    let status = running.exit_within(ANSWER_WITHIN).unwrap();
    assert_eq!(status.code(), Some(1), "the backup says that the node is gone");

    let mut serve = desk.command(["serve", "--data", "data", "--listen", &listen]);
    serve.args(["--plain-http", "127.0.0.1:0", "--json"]);
    let node = Process::start(serve).unwrap();
    assert!(node.line_within(ANSWER_WITHIN).unwrap().contains(&own));
    desk.run(backup).done();
    desk.run(["restore", "r", "out"]).done();
    assert_eq!(inventory(&desk.path("out")), inventory(&desk.path("folder")));
    desk.run(["verify", "r"]).done();
}
