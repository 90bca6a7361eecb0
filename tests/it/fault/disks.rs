//! Rows R7, R8, R9 and R20: the disk fails a flush, is full, turns read-only, is slow.

use std::io;

use nix::errno::Errno;

use super::driver::{Claimed, Driver, drive, judge_node};
use super::folder;
use super::fs::{Call, Fault, FaultFs};
use super::journal::Journal;
use super::loopdev::LoopDisk;
use super::medium::{Crash, Names};
use super::seed::{Count, Rng};
use crate::support::{ANSWER_WITHIN, Http, Node};

/// Failed flushes, each at another place of the script.
const FLUSHES: Count = Count {
    sample: 24,
    full: 200,
};

/// Writes that find no room, each at another place of the script.
const FULL_WRITES: Count = Count {
    sample: 18,
    full: 200,
};

/// Times the disk turns read-only.
const FLIPS: usize = 20;

/// The most calls that a disk which turned read-only may be troubled with by one refused put.
const REFUSED_CALLS: u64 = 20;

/// GETs made while flushes hang.
const GETS: Count = Count {
    sample: 300,
    full: 30_000,
};

/// A fault disk with a claimed node's folder on it.
fn claimed_disk() -> Option<FaultFs> {
    let template = folder::scratch();
    Claimed::template().copy_to(&template.path().join("data"));
    let medium = folder::read_from(template.path(), Names::Strict).expect("a template can be read");
    FaultFs::mount_medium_or_skip(medium)
}

/// What is found after power is lost, judged by rule P.
fn judge_after_power_loss(disk: &FaultFs, journal: &Journal, what: &str) {
    let found = folder::scratch();
    let medium = disk.crash(Crash::DropAll, &mut Rng::fixed(1));
    folder::write_to(&medium, found.path()).expect("a medium can be written out");
    judge_node(&found.path().join("data"), &journal.expected())
        .unwrap_or_else(|wrong| panic!("{what}:\n{wrong}"));
}

#[test]
fn a_failed_flush_is_never_acknowledged_nor_tried_again() {
    let rng = Rng::for_test("failed flush");
    for nth in rng.clone().pick(FLUSHES.rounds(), 4 * FLUSHES.rounds()) {
        let nth = nth as u64 + 1;
        let Some(disk) = claimed_disk() else { return };
        let claimed = Claimed::template();
        let journal = claimed.journal();
        let Ok(node) = Node::start(&disk.path("data")) else {
            continue;
        };
        for call in [Call::Flush, Call::FlushDir] {
            disk.inject(Fault {
                call: Some(call),
                nth,
                errno: Errno::EIO,
                lasting: false,
            });
        }
        drive(
            &node,
            &claimed.token,
            &journal,
            Some(&disk),
            (2, 40),
            &rng.branch(nth),
        );
        drop(node);
        judge_after_power_loss(&disk, &journal, &format!("flush {nth} failed"));
    }
}

#[test]
fn a_write_without_room_is_refused_and_nothing_of_it_stays() {
    let rng = Rng::for_test("no room");
    for nth in rng.clone().pick(FULL_WRITES.rounds(), 6 * FULL_WRITES.rounds()) {
        let Some(disk) = claimed_disk() else { return };
        let claimed = Claimed::template();
        let journal = claimed.journal();
        let node = Node::start(&disk.path("data")).expect("a node starts");
        let fault = Fault {
            call: Some(Call::Write),
            nth: nth as u64 + 1,
            errno: Errno::ENOSPC,
            lasting: false,
        };
        disk.inject(fault);
        drive(
            &node,
            &claimed.token,
            &journal,
            Some(&disk),
            (2, 40),
            &rng.branch(nth),
        );
        let mut driver = Driver::connect(&node, &claimed.token, &journal, Some(&disk)).expect("it listens");
        let answer = driver.put(7).expect("an answer");
        assert!(
            answer.is_success(),
            "room came back without a restart, and: {}",
            answer.text()
        );
        node.terminate().expect("it ends when asked");
        judge_after_power_loss(&disk, &journal, &format!("write {nth} found no room"));
    }
}

#[test]
fn a_full_disk_is_read_and_emptied_and_takes_writes_again() {
    let Some(disk) = LoopDisk::mount_or_skip(64 * 1024 * 1024) else {
        return;
    };
    let data = disk.path("data");
    let claimed = Claimed::template();
    claimed.copy_to(&data);
    let node = Node::start(&data).expect("a node starts");
    let mut http = node.client(&claimed.token).expect("it listens");
    let mut stored = Vec::new();
    let refusal = loop {
        let body = Rng::fixed(stored.len() as u64).bytes(2_000_000);
        let answer = http.send("POST", "/blobs", &[], &body).expect("an answer");
        if !answer.is_success() {
            break answer;
        }
        let put: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        stored.push((put["id"].as_str().expect("an id").replace(';', "-"), body));
        assert!(stored.len() < 64, "64 MiB hold no 128");
    };
    assert_eq!(refusal.status, 507, "{}", refusal.text());
    // A refused body may end its connection.
    let mut http = node.client(&claimed.token).expect("it listens");
    let read = |http: &mut Http, id: &str| {
        http.send("GET", &format!("/blobs/{id}"), &[], &[])
            .expect("an answer")
    };
    assert_eq!(read(&mut http, &stored[0].0).body, stored[0].1);
    for (id, _) in stored.drain(..3) {
        let answer = http
            .send("DELETE", &format!("/blobs/{id}"), &[], &[])
            .expect("an answer");
        assert!(
            answer.is_success(),
            "a full disk can be emptied: {}",
            answer.text()
        );
    }
    let answer = http
        .send("POST", "/blobs", &[], &[7; 500_000])
        .expect("an answer");
    assert!(
        answer.is_success(),
        "writes resume without a restart: {}",
        answer.text()
    );
    for (id, body) in &stored {
        assert!(read(&mut http, id).body == *body, "{id}");
    }
    node.terminate().expect("it ends when asked");
}

#[test]
fn a_disk_that_turns_read_only_refuses_writes_and_serves_reads() {
    let Some(disk) = claimed_disk() else { return };
    let claimed = Claimed::template();
    let journal = claimed.journal();
    for flip in 0..FLIPS {
        let node = Node::start(&disk.path("data")).expect("a node starts");
        let mut driver = Driver::connect(&node, &claimed.token, &journal, Some(&disk)).expect("it listens");
        assert!(driver.put(flip).expect("an answer").is_success());
        disk.set_read_only(true);
        let before = disk.changes();
        refuses_writes_and_serves(&mut driver, flip).unwrap_or_else(|wrong| panic!("flip {flip}: {wrong}"));
        // It gives up at once, and does not try again and again.
        let tried = disk.changes() - before;
        assert!(tried <= REFUSED_CALLS, "flip {flip}: {tried} calls");
        disk.set_read_only(false);
        node.terminate().expect("it ends when asked");
    }
    judge_after_power_loss(&disk, &journal, "read-only");
}

#[test]
fn an_aborted_ext4_refuses_writes_and_serves_reads() {
    let Some(disk) = LoopDisk::mount_or_skip(64 * 1024 * 1024) else {
        return;
    };
    let claimed = Claimed::template();
    let journal = claimed.journal();
    claimed.copy_to(&disk.path("data"));
    let node = Node::start(&disk.path("data")).expect("a node starts");
    let mut driver = Driver::connect(&node, &claimed.token, &journal, None).expect("it listens");
    assert!(driver.put(0).expect("an answer").is_success());
    disk.abort().expect("ext4 gives up when told");
    refuses_writes_and_serves(&mut driver, 0).expect("reads go on");
    node.terminate().expect("it ends when asked");
}

/// On a disk that just turned read-only: a put of something new gets 503 soon, what is stored is served, and the node says so.
fn refuses_writes_and_serves(driver: &mut Driver<'_>, stored: usize) -> Result<(), String> {
    let say = |error: io::Error| error.to_string();
    let answer = driver.put(stored + 40).map_err(say)?;
    if answer.status != 503 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let answer = driver.get(stored).map_err(say)?;
    if answer.status != 200 {
        return Err(format!("a read gives {}: {}", answer.status, answer.text()));
    }
    let status = driver
        .http
        .send("GET", "/api/status", &[], &[])
        .map_err(say)?
        .text();
    if status.contains("read_only") {
        Ok(())
    } else {
        Err(format!("the status is {status}"))
    }
}

#[test]
fn slow_flushes_delay_writes_alone_and_queues_stay_bounded() {
    let Some(disk) = claimed_disk() else { return };
    let claimed = Claimed::template();
    let journal = claimed.journal();
    let node = Node::start(&disk.path("data")).expect("a node starts");
    let mut driver = Driver::connect(&node, &claimed.token, &journal, Some(&disk)).expect("it listens");
    assert!(driver.put(1).expect("an answer").is_success());
    disk.hold_flushes();
    // More bytes than may wait for a flush, over as many connections: some must be sent away.
    let (outcomes, answered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for n in 0..40_u64 {
            let (outcomes, node, token) = (outcomes.clone(), &node, &claimed.token);
            scope.spawn(move || {
                let body = Rng::fixed(n).bytes(900_000);
                let mut http = node.client(token).expect("it listens");
                let answer = http
                    .send("POST", "/blobs", &[], &body)
                    .map_or(0, |answer| answer.status);
                outcomes.send(answer).expect("the test listens");
            });
        }
        // No flush ends before all of these were answered: none of them waits for one.
        for _ in 0..GETS.rounds() {
            assert_eq!(driver.get(1).expect("an answer").status, 200);
        }
        let refused = answered
            .recv_timeout(ANSWER_WITHIN)
            .expect("some are sent away while flushes hang");
        assert_eq!(refused, 503);
        disk.release_flushes();
        drop(outcomes);
        let rest: Vec<u16> = answered.iter().collect();
        assert!(
            rest.iter().any(|status| (200..300).contains(status)),
            "those that waited are stored: {rest:?}"
        );
        assert!(
            rest.iter()
                .all(|status| (200..300).contains(status) || *status == 503),
            "{rest:?}"
        );
    });
    let mut driver = Driver::connect(&node, &claimed.token, &journal, Some(&disk)).expect("it listens");
    assert!(
        driver.put(2).expect("an answer").is_success(),
        "and all is as before"
    );
    node.terminate().expect("it ends when asked");
}

#[test]
fn a_data_folder_on_a_read_only_disk_does_not_start_as_a_new_node() {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    disk.set_read_only(true);
    let started = Node::start(&disk.path("data"));
    assert!(
        started.is_err(),
        "there is no node without an identity that lasts"
    );
}
