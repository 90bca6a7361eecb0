//! Row R13 on a backend: a check that repairs and a compaction are cut at any operation, by a kill and by lost power, and
//! done again: what was whole stays, what was damaged is set aside and never deleted, and a further run finds nothing.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use refuge::coffer::{CheckOptions, CheckReport, Compaction, Error};
use refuge::id::BlobId;

use super::cuts::{Cuts, POINTS_OF_FILES, POINTS_OF_HAYSTACK, judge_cuts};
use super::folder;
use super::fs::FaultFs;
use super::journal::{Expectation, Intent, Journal, Outcome};
use super::load::{ASIDE, LARGE, Load, Open, SMALL, blob_key, content, id_of, judge};
use super::medium::{Crash, Names};
use super::power::{blob_files, haystack};
use super::recording::Recording;
use super::seed::{Count, Rng};

/// Blobs that are damaged before the upkeep.
const DAMAGED: usize = 6;

/// Of so many blobs that are there one is kept: what is left is worth compacting.
const KEPT_ONE_IN: usize = 4;

/// Older than what a stream under way may have left.
const LEFTOVER_AGE: Duration = Duration::from_secs(48 * 3600);

/// What else is wrong with the store.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    /// A file that can be made again from the blobs is damaged as well: a run of the index, a table.
    Derived,
}

#[test]
fn a_haystack_is_repaired_and_compacted_whenever_that_is_cut() {
    upkeep_is_idempotent("haystack upkeep", haystack, Beside::Nothing, POINTS_OF_HAYSTACK);
}

#[test]
fn a_haystack_with_a_damaged_index_is_repaired_whenever_that_is_cut() {
    upkeep_is_idempotent(
        "haystack upkeep with index",
        haystack,
        Beside::Derived,
        POINTS_OF_HAYSTACK,
    );
}

#[test]
fn blob_files_are_repaired_and_compacted_whenever_that_is_cut() {
    upkeep_is_idempotent("fs upkeep", blob_files, Beside::Nothing, POINTS_OF_FILES);
}

#[test]
fn blob_files_with_a_damaged_table_are_repaired_whenever_that_is_cut() {
    upkeep_is_idempotent(
        "fs upkeep with table",
        blob_files,
        Beside::Derived,
        POINTS_OF_FILES,
    );
}

fn upkeep_is_idempotent(name: &str, open: Open, beside: Beside, points: Count) {
    let rng = Rng::for_test(name);
    let Some(run) = record(open, beside, &rng) else {
        return;
    };
    let cuts = Cuts {
        count: points.rounds(),
        crashes: &Crash::ALL,
    };
    let expected = run.journal.expected();
    judge_cuts(name, &run.recording, &run.journal, (cuts, &rng), |found, _| {
        judge_again(open, &found.join("store"), &expected, &run.damaged)
    });
}

/// One upkeep of a damaged store.
struct Run {
    recording: Recording,
    /// What must be there after an upkeep that was not cut.
    journal: Journal,
    damaged: Vec<BlobId>,
}

fn record(open: Open, beside: Beside, rng: &Rng) -> Option<Run> {
    let found = folder::scratch();
    let store = found.path().join("store");
    let journal = Journal::default();
    for round in 0..2 {
        let backend = open(&store).expect("a new store");
        let load = Load {
            backend: &*backend,
            journal: &journal,
            disk: None,
            aside: None,
        };
        load.run(2, 60, &rng.branch(round));
    }
    thin_out(open, &store, &journal);
    provide(open, &store, &journal);
    let damaged = damage(&store, &journal, &mut rng.branch("damage"));
    leave_behind(&store.join("new"));
    if let Beside::Derived = beside {
        damage_derived(&store);
    }
    let medium = folder::read_from(found.path(), Names::Strict).expect("a store can be read");
    let disk = FaultFs::mount_medium_or_skip(medium)?;
    disk.record();
    let (report, compaction) = upkeep(open, &disk.path("store")).expect("an upkeep");
    let mut found: Vec<BlobId> = report.damaged;
    found.sort();
    assert_eq!(found, damaged, "all that is damaged is found");
    assert!(compaction.freed_bytes > 0, "there is something to compact");
    Some(Run {
        recording: disk.recorded(),
        journal,
        damaged,
    })
}

/// Checks with repair, then compacts.
fn upkeep(open: Open, store: &Path) -> Result<(CheckReport, Compaction), Error> {
    let backend = open(store)?;
    let options = CheckOptions {
        read_data: true,
        repair: true,
    };
    let report = backend.check(options, &|_| {})?;
    Ok((report, backend.compact(&|| false)?))
}

/// The upkeep, done again on what a cut one left, ends as if it had not been cut.
fn judge_again(open: Open, store: &Path, expected: &Expectation, damaged: &[BlobId]) -> Result<(), String> {
    let say = |error: Error| error.to_string();
    let (again, _) = upkeep(open, store).map_err(say)?;
    if let Some(other) = again.damaged.iter().find(|id| !damaged.contains(id)) {
        return Err(format!("the upkeep damaged {other}"));
    }
    let (further, _) = upkeep(open, store).map_err(say)?;
    let findings = (&further.damaged, &further.missing, &further.notes);
    if findings != (&Vec::new(), &Vec::new(), &Vec::new()) {
        return Err(format!("a further run finds {findings:?}"));
    }
    let kept: Vec<String> = names_in(&store.join(ASIDE));
    if let Some(lost) = damaged
        .iter()
        .find(|id| !kept.iter().any(|name| name.starts_with(&id.hex())))
    {
        return Err(format!("{lost} was damaged and is not set aside: {kept:?}"));
    }
    judge(open, store, expected)
}

/// Deletes most of what is there.
fn thin_out(open: Open, store: &Path, journal: &Journal) {
    let backend = open(store).expect("a sound store");
    let expected = journal.expected();
    let there = (0..SMALL + LARGE).map(id_of).filter(|id| {
        let key = blob_key(id);
        expected.is_certain(&key) && expected.value_of(&key).is_some()
    });
    for (at, id) in there.enumerate() {
        if at % KEPT_ONE_IN != 0 {
            backend.delete(&[id]).expect("a deletion");
            note_gone(journal, &id);
        }
    }
}

/// Puts what the damage needs, whatever the load left: enough blobs, a large one, and a last group, which proves that
/// those before it were flushed: damage there is no torn end.
fn provide(open: Open, store: &Path, journal: &Journal) {
    let backend = open(store).expect("a sound store");
    let load = Load {
        backend: &*backend,
        journal,
        disk: None,
        aside: None,
    };
    let wanted = (0..SMALL)
        .filter(|number| can_be_damaged(*number))
        .take(2 * DAMAGED);
    for number in wanted {
        load.put_these(&[number]);
    }
    load.stream_this(SMALL);
    let last = SMALL - 1;
    load.delete_these(&[id_of(last)]);
    load.put_these(&[last]);
}

/// Even ones are random, so that they are stored as they are and their beginning is found once.
fn can_be_damaged(number: usize) -> bool {
    number.is_multiple_of(2) && content(number).len() >= 64
}

fn note_gone(journal: &Journal, id: &BlobId) {
    let gone = Intent {
        key: blob_key(id),
        value: None,
    };
    let begun = journal.begin(None, gone);
    journal.end(None, begun, Outcome::Acked);
}

/// What a writer leaves that died two days ago, where single files are stored.
fn leave_behind(folder: &Path) {
    if !folder.is_dir() {
        return;
    }
    let path = folder.join("0123456789abcdef-0");
    std::fs::write(&path, b"begun and never ended").expect("a file");
    let times = FileTimes::new().set_modified(SystemTime::now() - LEFTOVER_AGE);
    let file = File::options().write(true).open(&path);
    file.and_then(|file| file.set_times(times)).expect("a time");
}

/// Flips a bit in each of a few blobs, wherever their bytes are, and notes that they are gone. Their ids, ascending.
fn damage(store: &Path, journal: &Journal, rng: &mut Rng) -> Vec<BlobId> {
    let expected = journal.expected();
    let is_there = |number: &usize| {
        let key = blob_key(&id_of(*number));
        can_be_damaged(*number) && expected.is_certain(&key) && expected.value_of(&key).is_some()
    };
    let all: Vec<usize> = (0..SMALL + LARGE).filter(is_there).collect();
    let picked = rng.pick(DAMAGED, all.len());
    assert_eq!(picked.len(), DAMAGED, "the load leaves enough blobs");
    let mut damaged: Vec<BlobId> = Vec::new();
    for number in picked.into_iter().map(|at| all[at]) {
        flip(store, &content(number));
        note_gone(journal, &id_of(number));
        damaged.push(id_of(number));
    }
    damaged.sort();
    damaged
}

/// Flips a bit in every copy of a blob.
fn flip(store: &Path, blob: &[u8]) {
    let mut flipped = 0;
    for path in files_below(store) {
        let mut bytes = std::fs::read(&path).expect("a file of the store");
        let begin = &blob[..32];
        let copies: Vec<usize> = places_of(&bytes, begin);
        for at in &copies {
            bytes[at + 40] ^= 4;
        }
        if !copies.is_empty() {
            std::fs::write(&path, bytes).expect("a damage");
            flipped += copies.len();
        }
    }
    assert!(flipped > 0, "the blob is stored");
}

fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect()
}

/// Cuts one run of an index, or one table of a large blob.
fn damage_derived(store: &Path) {
    let is_derived = |path: &&PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("run" | "table"))
    };
    let files = files_below(store);
    let derived = files.iter().find(is_derived).expect("something that is derived");
    let len = derived.metadata().expect("a file").len();
    let file = std::fs::OpenOptions::new().write(true).open(derived);
    file.and_then(|file| file.set_len(len / 2)).expect("a cut");
}

/// Every file of a store, but for what is set aside.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if !path.is_dir() {
                files.push(path);
            } else if !path.ends_with(ASIDE) {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}

fn names_in(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}
