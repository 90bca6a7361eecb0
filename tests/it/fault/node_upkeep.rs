//! Row R13 on a node: a prune and the collections after it are cut at any operation, by a kill and by lost power, and done
//! again: nothing that a ref names or a client pinned is lost, and what is left is what a run that was not cut leaves.

use std::collections::BTreeSet;
use std::path::Path;

use refuge::coffer::CheckOptions;
use refuge::files::{BackupOptions, Keep, Progress, backup, prune, verify};
use refuge::id::{BlobId, RefName, StoreName};
use refuge::node::{BackendSettings, Class, StoreSettings};

use super::child;
use super::cuts::{Cuts, POINTS_OF_FILES, POINTS_OF_HAYSTACK, judge_cuts};
use super::folder;
use super::fs::FaultFs;
use super::journal::Journal;
use super::medium::{Crash, Names};
use super::node_state::{BEGIN_S, DAY_S, Life};
use super::recording::Recording;
use super::seed::{Count, Rng};

/// Snapshots of the ref that is pruned, and how many of them stay.
const SNAPSHOTS: usize = 5;
const KEPT: usize = 2;

#[test]
fn a_haystack_is_collected_whenever_that_is_cut() {
    let settings = StoreSettings::default();
    collects_again("haystack collection", settings, POINTS_OF_HAYSTACK);
}

#[test]
fn blob_files_are_collected_whenever_that_is_cut() {
    let settings = StoreSettings {
        backend: BackendSettings::Fs {
            path: None,
            shared: false,
        },
        ..StoreSettings::default()
    };
    collects_again("fs collection", settings, POINTS_OF_FILES);
}

fn collects_again(name: &str, settings: StoreSettings, points: Count) {
    let rng = Rng::for_test(name);
    let found = folder::scratch();
    let data = found.path().join("data");
    let pinned = fill(&data, settings, &mut rng.branch("content"));
    let medium = folder::read_from(found.path(), Names::Strict).expect("a data folder can be read");
    let Some(recording) = record(medium) else { return };
    let goal = finish(&data).expect("upkeep that is not cut");
    assert!(goal.freed > SNAPSHOTS, "something is freed: {}", goal.freed);
    assert!(goal.left.is_superset(&pinned), "pinned blobs are never collected");
    let cuts = Cuts {
        count: points.rounds(),
        crashes: &Crash::ALL,
    };
    let journal = Journal::default();
    judge_cuts(name, &recording, &journal, (cuts, &rng), |found, _| {
        let ended = finish(&found.join("data"))?;
        let lost: Vec<&BlobId> = goal.left.difference(&ended.left).collect();
        let kept: Vec<&BlobId> = ended.left.difference(&goal.left).collect();
        if lost.is_empty() && kept.is_empty() {
            Ok(())
        } else {
            Err(format!("lost {lost:?}, left behind {kept:?}"))
        }
    });
}

/// A ref with a history, one that was deleted an hour ago, and blobs that a client put by itself, which are returned.
fn fill(data: &Path, settings: StoreSettings, rng: &mut Rng) -> BTreeSet<BlobId> {
    let source = folder::scratch();
    let life = Life::make(data, BEGIN_S, settings).expect("a new node");
    let repository = life.node.repository(&StoreName::main()).expect("the store main");
    let back_up = |name: &RefName| {
        backup(
            &repository,
            source.path(),
            name,
            &BackupOptions::default(),
            &Progress::new(),
        )
        .expect("a backup");
    };
    for snapshot in 0..SNAPSHOTS {
        for file in 0..4 {
            let len = 1 + rng.below(20_000);
            std::fs::write(source.path().join(format!("{file}")), rng.bytes(len)).expect("a file");
        }
        back_up(&home());
        life.pass(60);
        if snapshot == 0 {
            back_up(&gone());
        }
    }
    let refs = life.node.refs();
    let version = life
        .runtime
        .block_on(refs.get(gone()))
        .expect("the ref is there")
        .version;
    life.runtime
        .block_on(refs.swap(gone(), Some(version), None))
        .expect("a deletion");
    let main = life.node.stores().main();
    let put = |n: u8| {
        let put = main.put(vec![n; 300].into(), Class::Pinned, None);
        life.runtime.block_on(put).expect("a put").id
    };
    let pinned = (0..3).map(put).collect();
    life.pass(3600);
    life.runtime
        .block_on(life.node.gc().run(|| false))
        .expect("a first collection");
    pinned
}

/// The upkeep of a data folder on a recorded disk; `None` where nothing can be mounted.
fn record(medium: super::medium::Medium) -> Option<Recording> {
    let disk = FaultFs::mount_medium_or_skip(medium)?;
    disk.record();
    child::run("fault::node_upkeep::upkeep", disk.root()).expect("upkeep on a sound disk");
    Some(disk.recorded())
}

#[test]
#[ignore = "runs in a process of its own, started by the tests above"]
fn upkeep() {
    let Some(folder) = child::folder() else { return };
    let life = Life::open(&folder.join("data"), BEGIN_S + 2 * DAY_S, false).expect("the node opens");
    tend(&life).expect("upkeep");
}

/// Prunes, and collects now and whenever something more is due. How many blobs were freed.
fn tend(life: &Life) -> Result<usize, String> {
    let repository = life
        .node
        .repository(&StoreName::main())
        .map_err(|error| error.to_string())?;
    let keep = Keep {
        last: KEPT,
        ..Keep::default()
    };
    prune(&repository, &home(), keep, false).map_err(|error| error.to_string())?;
    let mut freed = 0;
    for _ in 0..3 {
        let collected = life.runtime.block_on(life.node.gc().run(|| false));
        for store in collected.map_err(|error| error.to_string())? {
            if !store.unreadable.is_empty() {
                return Err(format!("named and not readable: {:?}", store.unreadable));
            }
            freed += usize::try_from(store.freed).map_err(|error| error.to_string())?;
        }
        life.pass(2 * DAY_S);
    }
    Ok(freed)
}

/// What a data folder holds after upkeep.
struct Ended {
    left: BTreeSet<BlobId>,
    freed: usize,
}

/// Does the upkeep of a data folder to its end, however far another came, and looks at everything.
fn finish(data: &Path) -> Result<Ended, String> {
    let life = Life::open(data, BEGIN_S + 20 * DAY_S, false)?;
    let repository = life
        .node
        .repository(&StoreName::main())
        .map_err(|error| error.to_string())?;
    let freed = tend(&life)?;
    let again = tend(&life)?;
    if again > 0 {
        return Err(format!("a further run freed {again} more"));
    }
    let record = life
        .runtime
        .block_on(life.node.refs().get(home()))
        .map_err(|error| error.to_string())?;
    if record.snapshots.len() != KEPT {
        return Err(format!("{} snapshots are left", record.snapshots.len()));
    }
    let report = verify(&repository.store, &record.snapshots, &Progress::new());
    let report = report.map_err(|error| error.to_string())?;
    if !report.is_sound() {
        return Err(format!("the ref names what is not there: {report:?}"));
    }
    let backend = repository.store.backend();
    let options = CheckOptions {
        read_data: true,
        repair: false,
    };
    let check = backend
        .check(options, &|_| {})
        .map_err(|error| error.to_string())?;
    if !(check.damaged.is_empty() && check.missing.is_empty() && check.notes.is_empty()) {
        return Err(format!("the check finds {check:?}"));
    }
    let left = backend.list(None).map_err(|error| error.to_string())?;
    let left: Result<BTreeSet<BlobId>, _> = left.map(|stat| stat.map(|stat| stat.id)).collect();
    Ok(Ended {
        left: left.map_err(|error| error.to_string())?,
        freed,
    })
}

fn home() -> RefName {
    "home".parse().expect("a name")
}

fn gone() -> RefName {
    "gone".parse().expect("a name")
}
