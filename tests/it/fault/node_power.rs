//! Row R3 on a whole node: power is lost while it is claimed, filled, and backed up to.

use std::path::Path;

use super::cuts::{Cuts, judge_cuts};
use super::driver::{drive, judge_node, note_owner};
use super::folder;
use super::fs::FaultFs;
use super::journal::{Intent, Journal, Outcome};
use super::medium::Names;
use super::seed::{Count, Rng};
use crate::support::{Node, Ran, refuge};

/// Crash points; each is judged after all three ways of losing power.
const POINTS: Count = Count {
    sample: 24,
    full: 300,
};

/// Snapshots that are taken one after the other.
const SNAPSHOTS: usize = 4;

#[test]
fn a_node_keeps_what_it_acknowledged_when_power_is_lost() {
    let rng = Rng::for_test("node");
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let journal = Journal::default();
    disk.record();
    let node = Node::start(&disk.path("data")).expect("a node starts on an empty disk");
    let token = node.claim().expect("it can be claimed");
    note_owner(&journal, Some(&disk), &token);
    drive(
        &node,
        &token,
        &journal,
        Some(&disk),
        (3, 25),
        &rng.branch("first"),
    );
    node.terminate().expect("it ends when asked");
    let node = Node::start(&disk.path("data")).expect("it starts again");
    drive(
        &node,
        &token,
        &journal,
        Some(&disk),
        (3, 25),
        &rng.branch("second"),
    );
    node.kill().expect("it can be killed");
    let recording = disk.recorded();
    drop(disk);
    judge_cuts(
        "node",
        &recording,
        &journal,
        (Cuts::power(POINTS.rounds()), &rng),
        |found, expected| {
            // Before the folder's own name is durable there is nothing to be lost.
            judge_node(&found.join("data"), expected)
        },
    );
}

#[test]
fn a_snapshot_that_was_reported_is_there_when_power_is_lost() {
    let rng = Rng::for_test("snapshots");
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let journal = Journal::default();
    let source = folder::scratch();
    disk.record();
    for round in 0..SNAPSHOTS {
        let mut rng = rng.branch(round);
        for n in 0..8 {
            let len = rng.below(30_000);
            std::fs::write(source.path().join(format!("{n}")), rng.bytes(len)).expect("a file");
        }
        let begun = journal.begin(Some(&disk), snapshot(round));
        let mut backup = refuge();
        backup
            .arg("backup")
            .arg(source.path())
            .args(["--ref", "home", "--data"])
            .arg(disk.path("data"));
        let ran = Ran::of(&mut backup).expect("it can be started");
        assert!(ran.status.success(), "{}", ran.stderr);
        journal.end(Some(&disk), begun, Outcome::Acked);
    }
    let recording = disk.recorded();
    drop(disk);
    judge_cuts(
        "snapshots",
        &recording,
        &journal,
        (Cuts::power(POINTS.rounds()), &rng),
        |found, expected| {
            let data = found.join("data");
            if expected.value_of(&snapshot(0).key).is_none() || !data.exists() {
                return Ok(());
            }
            let (status, listed) = run(&["snapshots", "home", "--json", "--data"], &data)?;
            let there = if status == Some(0) {
                listed.matches("\"tree\"").count()
            } else {
                0
            };
            let found = (0..there)
                .map(|round| (snapshot(round).key, "taken".to_owned()))
                .collect();
            let mut wrong = expected.violations(&found);
            if there > 0 {
                let (status, said) = run(&["verify", "home", "--data"], &data)?;
                wrong.extend((status != Some(0)).then(|| format!("verify: {status:?} {said}")));
            }
            let (status, said) = run(&["check", "--read-data", "--data"], &data)?;
            // A crash before the folder was a data folder leaves none to check.
            wrong.extend((status != Some(0) && there > 0).then(|| format!("check: {status:?} {said}")));
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(format!("{}\n{listed}", wrong.join("\n")))
            }
        },
    );
}

fn snapshot(round: usize) -> Intent {
    Intent {
        key: format!("snapshot {round}"),
        value: Some("taken".into()),
    }
}

/// Runs `refuge` on a data folder; its exit code, and all that it said.
fn run(args: &[&str], data: &Path) -> Result<(Option<i32>, String), String> {
    let ran = Ran::of(refuge().args(args).arg(data)).map_err(|error| error.to_string())?;
    Ok((ran.status.code(), format!("{}{}", ran.stdout, ran.stderr)))
}
