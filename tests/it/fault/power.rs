//! Rows R3 and R13 on a backend: power is lost at any operation, also while the store mends itself, and what was not
//! flushed is gone. The judge of every flush call below a backend.

use std::path::Path;

use refuge::coffer::{Backend, Error, Fs, Haystack, HaystackOptions};

use super::cuts::{Cuts, judge_cuts};
use super::folder;
use super::fs::FaultFs;
use super::journal::{Expectation, Journal};
use super::load::{ASIDE, Load, Open, judge};
use super::medium::{Crash, Medium, Names};
use super::recording::Recording;
use super::seed::{Count, Rng};

/// Crash points of one run; each is judged after all three ways of losing power.
const POINTS: Count = Count {
    sample: 40,
    full: 300,
};

/// Fewer where thousands of folders are looked at again and again.
const POINTS_OF_FILES: Count = Count {
    sample: 12,
    full: 300,
};

/// Starts after a power cut that are cut themselves, and crash points in each of them.
const RECOVERIES: Count = Count { sample: 6, full: 60 };
const POINTS_OF_RECOVERY: usize = 5;

/// Runs in which volumes are compacted without a pause while others write.
const COMPACTED_RUNS: Count = Count { sample: 6, full: 200 };

/// Volumes and checkpoints so small that there are many of each within one run.
pub(crate) fn haystack(folder: &Path) -> Result<Box<dyn Backend>, Error> {
    let options = HaystackOptions {
        volume_bytes: 192 * 1024,
        checkpoint_bytes: 96 * 1024,
        ..HaystackOptions::default()
    };
    Ok(Box::new(Haystack::open(folder, options)?))
}

/// One file per blob.
pub(crate) fn blob_files(folder: &Path) -> Result<Box<dyn Backend>, Error> {
    Ok(Box::new(Fs::create(folder)?))
}

#[test]
fn blob_files_keep_what_was_acknowledged_when_power_is_lost() {
    survives_power_loss("fs", blob_files, Names::Strict, POINTS_OF_FILES);
}

#[test]
fn a_haystack_keeps_what_it_acknowledged_when_power_is_lost() {
    survives_power_loss("haystack", haystack, Names::Strict, POINTS);
}

#[test]
fn a_haystack_keeps_it_where_names_outlive_data() {
    survives_power_loss("haystack on a journal", haystack, Names::Journal, POINTS);
}

#[test]
fn a_haystack_keeps_it_when_its_recovery_is_cut() {
    survives_power_loss_in_recovery("haystack recovery", haystack);
}

#[test]
fn a_haystack_keeps_what_is_written_while_its_volumes_are_compacted() {
    let rng = Rng::for_test("haystack compacted");
    for round in 0..COMPACTED_RUNS.rounds() {
        let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
            return;
        };
        let journal = Journal::default();
        let (store, rng) = (disk.path("store"), rng.branch(round));
        {
            let backend = haystack(&store).expect("a store on a sound disk");
            let load = Load {
                backend: &*backend,
                journal: &journal,
                disk: None,
                aside: Some(&store.join(ASIDE)),
            };
            load.run_compacted(3, 80, &rng);
        }
        let kept = disk.crash(Crash::DropAll, &mut rng.branch("crash"));
        if let Err(wrong) = judge_crash(haystack, &kept, &journal.expected()) {
            panic!(
                "round {round}: {wrong}\n{}",
                journal.histories(&wrong, journal.len())
            );
        }
    }
}

/// Runs a load once on a recorded disk, then judges what each crash leaves of it.
fn survives_power_loss(name: &str, open: Open, rule: Names, points: Count) {
    let rng = Rng::for_test(name);
    let Some(disk) = FaultFs::mount_or_skip(rule) else {
        return;
    };
    let journal = Journal::default();
    disk.record();
    drive(&disk, &journal, open, &rng);
    let recording = disk.recorded();
    drop(disk);
    assert!(
        journal.acked() > 200,
        "only {} operations were acknowledged",
        journal.acked()
    );
    judge_cuts(
        name,
        &recording,
        &journal,
        (Cuts::power(points.rounds()), &rng),
        |found, expected| judge(open, &found.join("store"), expected),
    );
}

/// Cuts a run, and then the start after it.
fn survives_power_loss_in_recovery(name: &str, open: Open) {
    let rng = Rng::for_test(name);
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let journal = Journal::default();
    disk.record();
    drive(&disk, &journal, open, &rng);
    let recording = disk.recorded();
    drop(disk);
    let mut states: Vec<(Medium, usize)> = Vec::new();
    recording.visit(
        &recording.pick(RECOVERIES.rounds(), &mut rng.branch("places")),
        |place, medium, mark| {
            let mut rng = rng.branch(place);
            let crash = Crash::POWER[rng.below(Crash::POWER.len())];
            states.push((medium.after(crash, &mut rng), mark));
        },
    );
    for (number, (medium, mark)) in states.into_iter().enumerate() {
        // What the first loss of power took is not to be looked for in the recovery.
        if let Err(wrong) = judge_crash(open, &medium, &journal.expected_at(mark)) {
            panic!(
                "{name}, state {number}: {wrong}\n{}",
                journal.histories(&wrong, mark)
            );
        }
        let Some(disk) = FaultFs::mount_medium_or_skip(medium) else {
            return;
        };
        disk.record();
        drop(open(&disk.path("store")).expect("a store opens after a power cut"));
        let recovery = disk.recorded();
        drop(disk);
        let before = Journal::after(&journal.expected_at(mark));
        let points = (Cuts::power(POINTS_OF_RECOVERY), &rng.branch(number));
        judge_cuts(name, &recovery, &before, points, |found, _| {
            judge(open, &found.join("store"), &before.expected())
        });
    }
}

/// Judges the store on what a crash left.
fn judge_crash(open: Open, medium: &Medium, expected: &Expectation) -> Result<(), String> {
    let found = folder::scratch();
    folder::write_to(medium, found.path()).expect("a medium can be written out");
    judge(open, &found.path().join("store"), expected)
}

/// A recorded load on a backend and its journal; `None` where nothing can be mounted.
pub(crate) fn record(open: Open, rng: &Rng) -> Option<(Recording, Journal)> {
    let disk = FaultFs::mount_or_skip(Names::Strict)?;
    let journal = Journal::default();
    disk.record();
    drive(&disk, &journal, open, rng);
    Some((disk.recorded(), journal))
}

/// A load twice over, so that a start after an orderly end is part of it.
fn drive(disk: &FaultFs, journal: &Journal, open: Open, rng: &Rng) {
    for round in 0..2 {
        let store = disk.path("store");
        let backend = open(&store).expect("a store on a sound disk");
        let load = Load {
            backend: &*backend,
            journal,
            disk: Some(disk),
            aside: Some(&store.join(ASIDE)),
        };
        load.run(3, 60, &rng.branch(round));
    }
}
