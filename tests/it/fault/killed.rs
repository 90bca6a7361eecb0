//! Rows R1, R2 and R29: the process dies, at a random time and at every system call.

use std::path::Path;
use std::process::Command;

use super::driver::{Claimed, Driver, copy_folder, drive, judge_node, violations};
use super::folder;
use super::journal::Journal;
use super::seed::{Count, Rng};
use super::strace::{self, Injection};
use crate::support::{Node, Ran, refuge};

/// R1: kills at a random time.
const KILLS: Count = Count {
    sample: 40,
    full: 2000,
};

/// R2: system calls at which the node of the script dies. The script makes fewer than these.
const SYSCALLS: Count = Count {
    sample: 12,
    full: 500,
};

/// R29: restores that are killed.
const RESTORES: Count = Count { sample: 6, full: 50 };

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_at_any_time() {
    let rng = Rng::for_test("killed at any time");
    let claimed = Claimed::template();
    let found = folder::scratch();
    let data = found.path().join("data");
    claimed.copy_to(&data);
    let mut journal = claimed.journal();
    for round in 0..KILLS.rounds() {
        let mut rng = rng.branch(round);
        let node = Node::start(&data).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let wrong = violations(&node, &journal.expected()).expect("a node that is ready answers");
        assert!(wrong.is_empty(), "round {round}:\n{}", wrong.join("\n"));
        let (pid, requests) = (node.pid(), 1 + rng.below(40));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drive(
                    &node,
                    &claimed.token,
                    &journal,
                    None,
                    (2, 200),
                    &rng.branch("load"),
                )
            });
            // The killer counts its own requests, so that the time of death varies with the load.
            let mut killer = Driver::connect(&node, &claimed.token, &journal, None).expect("it listens");
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
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_dies_at_any_system_call() {
    if !strace::works_or_skip() {
        return;
    }
    let rng = Rng::for_test("killed at a system call");
    let claimed = Claimed::template();
    let rounds = SYSCALLS.rounds();
    for at in Rng::pick(
        &mut rng.branch("calls"),
        rounds,
        if rounds < 100 { 120 } else { rounds },
    ) {
        let found = folder::scratch();
        let data = found.path().join("data");
        claimed.copy_to(&data);
        let journal = claimed.journal();
        let when = (at + 1).to_string();
        let injection = Injection {
            calls: strace::CHANGES,
            what: "signal=KILL",
            when: &when,
        };
        let command = strace::inject(&refuge(), injection, &strace::log_beside(&data));
        // A node that dies before it is ready has acknowledged nothing.
        if let Ok(node) = Node::start_as(command, &data) {
            drive(
                &node,
                &claimed.token,
                &journal,
                None,
                (1, 60),
                &rng.branch("script"),
            );
        }
        judge_node(&data, &journal.expected())
            .unwrap_or_else(|wrong| panic!("killed at call {when}:\n{wrong}"));
    }
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
    for at in rng.pick(RESTORES.rounds(), 60) {
        kill_at(at + 1, backup(&source, &data), &data);
    }
    finish(backup(&source, &data));
    let target = found.path().join("target");
    for at in rng.pick(RESTORES.rounds(), 200) {
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
