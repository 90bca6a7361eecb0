//! Rows R1, R2 and R29: the process dies, at a random time and at every system call.

use std::path::Path;
use std::process::Command;

use super::driver::{Claimed, Driver, copy_folder, drive, judge_node, violations};
use super::folder;
use super::journal::{Intent, Journal, Outcome};
use super::seed::{Count, Rng};
use super::strace::{self, Injection};
use super::work::{ref_key, uploads};
use crate::support::{Answer, Node, Ran, refuge};

/// R1: kills at a random time.
const KILLS: Count = Count {
    sample: 200,
    full: 2000,
};

/// A folder is backed up to the node in one of so many rounds, into this ref.
const BACKUP_ONE_IN: usize = 4;
const BACKED_UP: &str = "backed-up";

/// R2: system calls at which the node of the script dies; every one that it makes with the full numbers.
const SYSCALLS: Count = Count {
    sample: 60,
    full: usize::MAX,
};

/// Requests of its script.
const SCRIPT: usize = 60;

/// R29: backups, and restores, that are killed.
const RESTORES: usize = 50;

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_at_any_time() {
    let rng = Rng::for_test("killed at any time");
    let claimed = Claimed::template();
    let found = folder::scratch();
    let data = found.path().join("data");
    claimed.copy_to(&data);
    let mut journal = claimed.journal();
    let source = folder::scratch();
    for round in 0..KILLS.rounds() {
        let mut rng = rng.branch(round);
        let node = Node::start(&data).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let wrong = violations(&node, &journal.expected()).expect("a node that is ready answers");
        assert!(wrong.is_empty(), "round {round}:\n{}", wrong.join("\n"));
        let (pid, requests) = (node.pid(), 1 + rng.below(40));
        let mut killer = Driver::connect(&node, &claimed.token, &journal, None).expect("it listens");
        for upload in uploads(&journal.expected()) {
            killer.finish_upload(&upload).expect("an answer");
        }
        let load = rng.branch("load");
        std::thread::scope(|scope| {
            scope.spawn(|| drive(&node, &claimed.token, &journal, None, (2, 200), &load));
            if rng.one_in(BACKUP_ONE_IN) {
                change(source.path(), &mut rng);
                scope.spawn(|| back_up(source.path(), &node, &claimed.token, &journal));
            }
            // The killer counts its own requests, so that the time of death varies with the load.
            killer.run(requests, &mut rng.branch("killer"));
            Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .status()
                .expect("kill runs");
        });
        drop(node);
        journal = Journal::after(&journal.expected());
    }
    judge_node(&data, &journal.expected()).expect("rule P");
    let refs = Ran::of(refuge().args(["verify", BACKED_UP, "--data"]).arg(&data));
    let refs = refs.expect("it can be started");
    // Where no backup came to its end there is no ref.
    let is_there = journal.expected().is_certain(&ref_key(BACKED_UP));
    assert!(
        !is_there || refs.status.success(),
        "{}{}",
        refs.stdout,
        refs.stderr
    );
}

/// Writes a few files anew.
fn change(source: &Path, rng: &mut Rng) {
    for file in 0..12 {
        let len = 1 + rng.below(6000);
        std::fs::write(source.join(format!("{file}")), rng.bytes(len)).expect("a file");
    }
}

/// Snapshots in the ref of backups.
fn snapshots(node: &Node, token: &str) -> Option<usize> {
    let mut http = node.client(token).ok()?;
    let record = http
        .send("GET", &format!("/refs/{BACKED_UP}"), &[], &[])
        .and_then(Answer::accepted)
        .ok()?;
    let record: serde_json::Value = serde_json::from_slice(&record.body).ok()?;
    record["snapshots"].as_array().map(Vec::len)
}

/// Backs a folder up to a node that may die meanwhile: then there is one snapshot more, or not.
fn back_up(source: &Path, node: &Node, token: &str, journal: &Journal) {
    let key = ref_key(BACKED_UP);
    // Nobody else moves this ref.
    let before = snapshots(node, token).unwrap_or(0);
    let intent = Intent {
        key,
        value: Some(format!("{} snapshots", before + 1)),
    };
    let begun = journal.begin(None, intent);
    let mut command = refuge();
    command
        .arg("backup")
        .arg(source)
        .args(["--ref", BACKED_UP, "--node"])
        .arg(format!("http://{}", node.address()))
        .env("REFUGE_TOKEN", token);
    let done = Ran::of(&mut command).is_ok_and(|ran| ran.status.success());
    let outcome = if done { Outcome::Acked } else { Outcome::Unknown };
    journal.end(None, begun, outcome);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_dies_at_any_system_call() {
    if !strace::works_or_skip() {
        return;
    }
    let rng = Rng::for_test("killed at a system call");
    let claimed = Claimed::template();
    let run = |command: Command| {
        let found = folder::scratch();
        let data = found.path().join("data");
        claimed.copy_to(&data);
        let journal = claimed.journal();
        let mut died = true;
        // A node that dies before it is ready has acknowledged nothing.
        if let Ok(node) = Node::start_as(command, &data) {
            let script = rng.branch("script");
            drive(&node, &claimed.token, &journal, None, (1, SCRIPT), &script);
            // What is killed does not end well.
            died = !node.terminate().is_ok_and(|status| status.success());
        }
        (found, journal, died)
    };
    let logs = folder::scratch();
    let log = logs.path().join("calls");
    run(strace::watch(&refuge(), strace::CHANGES, &log));
    let made = strace::most_of_a_thread(&log).expect("a trace");
    let all: Vec<(String, usize)> = made
        .into_iter()
        .flat_map(|(call, most)| (1..=most).map(move |nth| (call.clone(), nth)))
        .collect();
    let tried = rng.branch("calls").pick(SYSCALLS.rounds(), all.len());
    let mut died = 0;
    for (call, nth) in tried.iter().map(|at| &all[*at]) {
        let injection = Injection {
            calls: call,
            what: "signal=KILL",
            when: &nth.to_string(),
        };
        let (found, journal, has_died) = run(strace::inject(&refuge(), injection, &log));
        died += usize::from(has_died);
        judge_node(&found.path().join("data"), &journal.expected())
            .unwrap_or_else(|wrong| panic!("killed at {call} {nth}:\n{wrong}"));
    }
    eprintln!(
        "killed at {died} of {} points, of {} there are",
        tried.len(),
        all.len()
    );
    // Which thread makes how many calls differs from run to run: the last ones of each are not always reached.
    assert!(
        2 * died >= tried.len(),
        "only {died} of {} were killed",
        tried.len()
    );
}

#[test]
fn a_backup_killed_at_any_system_call_goes_on_and_a_restore_too() {
    if !strace::works_or_skip() {
        return;
    }
    let mut rng = Rng::for_test("killed backup and restore");
    let found = folder::scratch();
    let source = found.path().join("source");
    make_tree(&source, &mut rng);
    let data = found.path().join("data");
    Claimed::template().copy_to(&data);
    for at in rng.pick(RESTORES, 80) {
        kill_at(at + 1, backup(&source, &data), &data);
    }
    finish(backup(&source, &data));
    let target = found.path().join("target");
    for at in rng.pick(RESTORES, 200) {
        kill_at(at + 1, restore(&data, &target), &data);
    }
    finish(restore(&data, &target));
    same_tree(&source, &target);
    let mut check = refuge();
    check.args(["check", "--read-data", "--data"]).arg(&data);
    finish(check);
}

/// Runs a command until its `nth` changing system call, if it makes so many.
fn kill_at(nth: usize, command: Command, data: &Path) {
    let when = nth.to_string();
    let injection = Injection {
        calls: strace::CHANGES,
        what: "signal=KILL",
        when: &when,
    };
    let status = strace::inject(&command, injection, &strace::log_beside(data))
        .output()
        .expect("strace runs")
        .status;
    assert!(
        status.code().is_none_or(|code| code == 0),
        "killed or done, and not {status}"
    );
}

fn finish(mut command: Command) {
    let ran = Ran::of(&mut command).expect("it can be started");
    assert!(ran.status.success(), "{command:?}: {}{}", ran.stdout, ran.stderr);
}

fn backup(source: &Path, data: &Path) -> Command {
    let mut command = refuge();
    command
        .arg("backup")
        .arg(source)
        .args(["--ref", "tree", "--data"])
        .arg(data);
    command
}

fn restore(data: &Path, target: &Path) -> Command {
    let mut command = refuge();
    command
        .args(["restore", "tree"])
        .arg(target)
        .arg("--resume")
        .arg("--data")
        .arg(data);
    command
}

/// A folder with the kinds of files that a restore makes in different ways.
fn make_tree(root: &Path, rng: &mut Rng) {
    for dir in ["", "a", "a/b", "empty"] {
        std::fs::create_dir_all(root.join(dir)).expect("a folder");
    }
    for n in 0..40 {
        let len = rng.below(if n % 10 == 0 { 600_000 } else { 9000 });
        std::fs::write(
            root.join(["", "a", "a/b"][n % 3]).join(format!("file {n}")),
            rng.bytes(len),
        )
        .expect("a file");
    }
    std::os::unix::fs::symlink("file 3", root.join("symlink")).expect("a link");
    std::fs::hard_link(root.join("file 3"), root.join("a/hard link")).expect("a link");
}

fn same_tree(one: &Path, two: &Path) {
    let compared = Ran::of(
        Command::new("diff")
            .arg("--recursive")
            .arg("--no-dereference")
            .arg(one)
            .arg(two),
    );
    let compared = compared.expect("diff runs");
    assert!(compared.status.success(), "{}", compared.stdout);
    let listing = |root: &Path| {
        let mut find = Command::new("find");
        find.args([".", "-printf", "%P %y %m %T@ %n %l\n"])
            .current_dir(root);
        let mut lines: Vec<String> = Ran::of(&mut find)
            .expect("find runs")
            .stdout
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let (one, two) = (listing(one), listing(two));
    let differs: Vec<_> = one.iter().zip(&two).filter(|(one, two)| one != two).collect();
    assert!(
        differs.is_empty() && one.len() == two.len(),
        "modes, times and links: {differs:#?}"
    );
}

#[test]
fn a_copied_data_folder_is_a_node() {
    let found = folder::scratch();
    let (first, second) = (found.path().join("first"), found.path().join("second"));
    Claimed::template().copy_to(&first);
    copy_folder(&first, &second);
    judge_node(&second, &Claimed::template().journal().expected()).expect("rule P");
}
