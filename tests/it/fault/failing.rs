//! Rows R7 and R8 on a backend: one call of the disk fails, whichever it is, and no acknowledged blob suffers for it.

use nix::errno::Errno;

use super::folder;
use super::fs::{Call, Fault, FaultFs};
use super::journal::Journal;
use super::load::{Load, Open, judge};
use super::medium::{Crash, Names};
use super::power::{blob_files, haystack};
use super::seed::{Count, Rng};

/// Failures, each of another call at another place of a load.
const FAILURES: Count = Count {
    sample: 30,
    full: 300,
};

/// Operations of the load that meets the failure, and of the one after it.
const STEPS: usize = 25;

/// The latest place of a failure: about as many calls of a kind as a load makes.
const PLACES: usize = 40;

/// What a disk that fails may refuse.
const BROKEN: [Call; 9] = [
    Call::Create,
    Call::Mkdir,
    Call::Link,
    Call::Unlink,
    Call::Rename,
    Call::Write,
    Call::Truncate,
    Call::Flush,
    Call::FlushDir,
];

/// What a full disk may refuse.
const FULL: [Call; 5] = [Call::Create, Call::Mkdir, Call::Link, Call::Rename, Call::Write];

#[test]
fn a_haystack_lies_about_no_call_that_failed() {
    survives_failures("failing haystack", haystack);
}

#[test]
fn blob_files_lie_about_no_call_that_failed() {
    survives_failures("failing fs", blob_files);
}

fn survives_failures(name: &str, open: Open) {
    let rng = Rng::for_test(name);
    for round in 0..FAILURES.rounds() {
        let mut rng = rng.branch(round);
        let is_full = rng.one_in(2);
        let (calls, errno) = if is_full {
            (&FULL[..], Errno::ENOSPC)
        } else {
            (&BROKEN[..], Errno::EIO)
        };
        let call = calls[rng.below(calls.len())];
        let fault = Fault {
            call: Some(call),
            nth: 1 + rng.below(PLACES) as u64,
            errno,
            lasting: false,
        };
        let what = format!("{name}, round {round}: {fault:?}");
        let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
            return;
        };
        let journal = Journal::default();
        let backend = open(&disk.path("store")).expect("a store on a sound disk");
        disk.inject(fault);
        let load = Load {
            backend: &*backend,
            journal: &journal,
            disk: None,
            aside: None,
        };
        load.run(2, STEPS, &rng.branch("meets it"));
        disk.heal();
        if is_full {
            assert_eq!(backend.status().read_only, None, "{what}");
            let acked = journal.acked();
            load.run(1, STEPS, &rng.branch("after it"));
            assert!(journal.acked() > acked, "writes resume by themselves: {what}");
        }
        // Power is lost before the store is closed, so that closing it mends nothing.
        let found = folder::scratch();
        let medium = disk.crash(Crash::DropAll, &mut rng);
        folder::write_to(&medium, found.path()).expect("a medium can be written out");
        drop(backend);
        if let Err(wrong) = judge(open, &found.path().join("store"), &journal.expected()) {
            panic!("{what}:\n{wrong}");
        }
    }
}
