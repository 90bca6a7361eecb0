//! Row R3 on a store that moves to a disk and back while it is written to: power is lost at any operation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use refuge::durable;
use refuge::id::StoreName;
use refuge::node::{BackendSettings, Class, Node, Options};

use super::cuts::{Cuts, judge_cuts};
use super::fs::{Call, Fault, FaultFs};
use super::journal::{Expectation, Journal};
use super::load::{LARGE, Load, SMALL, id_of, judge};
use super::medium::Names;
use super::power::{blob_files, haystack};
use super::seed::{Count, Rng};

/// Crash points; each is judged after all three ways of losing power.
const POINTS: Count = Count {
    sample: 24,
    full: 300,
};

/// Groups put before the store moves for the first time.
const BEFORE: usize = 40;

#[test]
fn a_store_that_moves_keeps_what_it_acknowledged_when_power_is_lost() {
    let rng = Rng::for_test("moving");
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let journal = Journal::default();
    disk.record();
    std::fs::create_dir(disk.path("usb")).expect("a folder");
    let node = Node::open(Options::new(disk.path("data"))).expect("a node");
    move_there_and_back(&disk, &node, &journal, &rng);
    drop(node);
    let recording = disk.recorded();
    drop(disk);
    assert!(
        journal.acked() > 200,
        "only {} operations were acknowledged",
        journal.acked()
    );
    judge_cuts(
        "moving",
        &recording,
        &journal,
        (Cuts::power(POINTS.rounds()), &rng),
        judge_moving,
    );
}

#[test]
fn a_store_whose_move_fails_at_any_flush_of_a_folder_keeps_what_it_acknowledged() {
    for is_lasting in [false, true] {
        let mut nth = 1;
        while fails_at(nth, is_lasting) {
            nth += 1;
        }
        assert!(nth > 4, "only {nth} flushes");
    }
}

/// Whether there was such a flush.
fn fails_at(nth: u64, is_lasting: bool) -> bool {
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return nth <= 4;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (data, main) = (disk.path("data"), StoreName::main());
    std::fs::create_dir(disk.path("usb")).expect("a folder");
    let node = Node::open(Options::new(&data)).expect("a node");
    let put = |node: &Node, text: &'static str| {
        let blobs = node.stores().main();
        runtime.block_on(blobs.put(text.into(), Class::Pinned, None))
    };
    let carry_on = |node: &Node| runtime.block_on(node.stores().carry_on(&main, Arc::default()));
    let mut acknowledged = vec![put(&node, "before").expect("it is put").id];
    let to = BackendSettings::Fs {
        path: Some(disk.path("usb/store")),
        shared: false,
    };
    runtime
        .block_on(node.stores().begin_move(&main, to))
        .expect("it is noted");
    let flushed = disk.count(Call::FlushDir);
    disk.inject(Fault {
        call: Some(Call::FlushDir),
        nth,
        errno: Errno::EIO,
        lasting: is_lasting,
    });
    let carried = carry_on(&node);
    let was_hit = disk.count(Call::FlushDir) - flushed >= nth;
    disk.heal();
    assert!(was_hit || carried.is_ok(), "{carried:?}");
    acknowledged.extend(put(&node, "after").map(|put| put.id));
    // As whoever looks after it does a minute later.
    let _ = carry_on(&node);
    acknowledged.extend(put(&node, "later").map(|put| put.id));
    drop(node);
    let node = Node::open(Options::new(&data)).expect("the node again");
    for (number, id) in acknowledged.iter().enumerate() {
        let read = runtime.block_on(node.stores().main().read(*id, 10));
        assert!(
            read.is_ok(),
            "blob {number} after flush {nth} failed (lasting: {is_lasting}): {carried:?}, {read:?}"
        );
    }
    was_hit
}

/// Two threads put and delete as long as the store moves.
fn move_there_and_back(disk: &FaultFs, node: &Node, journal: &Journal, rng: &Rng) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let main = StoreName::main();
    let store = node.store(&main).expect("the store main");
    let load = Load {
        backend: store.backend(),
        journal,
        disk: Some(disk),
        aside: None,
    };
    let mut before = rng.branch("before");
    for _ in 0..BEFORE {
        load.put_these(&before.pick(4, SMALL));
    }
    load.stream_this(SMALL);
    let moved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (mut rng, moved) = (rng.branch(thread), &moved);
            scope.spawn(move || {
                // For a while after it as well.
                let mut left = 20;
                while left > 0 {
                    left -= usize::from(moved.load(Ordering::Relaxed));
                    match rng.below(10) {
                        0..6 => load.put_these(&rng.pick(2, SMALL)),
                        6..9 => load.delete_these(&[id_of(rng.below(SMALL))]),
                        _ => load.stream_this(SMALL + rng.below(LARGE)),
                    }
                }
            });
        }
        let there = BackendSettings::Fs {
            path: Some(disk.path("usb/store")),
            shared: false,
        };
        let back = BackendSettings::Haystack { volume_bytes: 0 };
        for to in [there, back] {
            runtime
                .block_on(node.stores().begin_move(&main, to))
                .expect("it is noted");
            runtime
                .block_on(node.stores().carry_on(&main, Arc::default()))
                .expect("it moves");
        }
        moved.store(true, Ordering::Relaxed);
    });
}

/// The blobs are where the settings say, all of them.
fn judge_moving(found: &Path, expected: &Expectation) -> Result<(), String> {
    let own = found.join("data/stores/main");
    let Some(settings) = durable::read(&own.join("store.json")).map_err(|error| error.to_string())? else {
        // Before the store was made nothing was acknowledged.
        return Ok(());
    };
    let settings = String::from_utf8_lossy(&settings.payload).into_owned();
    let is_there = settings.contains(r#""format":1,"backend":"fs""#);
    let judged = match is_there {
        true => judge(blob_files, &found.join("usb/store"), expected),
        false => judge(haystack, &own, expected),
    };
    judged.map_err(|wrong| format!("{settings}\n{wrong}"))
}
