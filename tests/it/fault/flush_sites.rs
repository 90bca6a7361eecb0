//! The test of the test: a run is judged again without the flushes of one call site, as if the call were not in the code.
//! Each must then be missed by some crash, or row R3 would not notice its removal.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use refuge::coffer::Fs;
use refuge::durable::{self, Generation};

use super::folder;
use super::journal::{Expectation, Journal};
use super::load::{Open, judge};
use super::medium::Crash;
use super::node_state;
use super::power::{blob_files, haystack, record};
use super::recording::Recording;
use super::seed::{self, Rng};

/// Places after a missing flush that are looked at before it counts as not missed: in a backend, and in a node, where
/// looking costs less.
const PLACES: usize = 120;
const PLACES_OF_NODE: usize = 800;

/// How far behind a missing flush its absence is looked for most of the time, in operations.
const REACH: usize = 24;

/// Missing flushes of one site behind which every place is looked at, and up to how many operations behind.
const GAPS: usize = 8;
const CLOSE: usize = 16;

const HAYSTACK: &str = "haystack flushes";
const BLOB_FILES: &str = "fs flushes";
const NODE: &str = "node flushes";

/// Flushes that nothing acknowledged depends on, each with the reason it is made.
const SPARED: &[(&str, &str, &str)] = &[
    (
        HAYSTACK,
        "file store/volumes/#.vol after its first page",
        "flushed once more with the first group; a volume cut between the two holds nothing acknowledged",
    ),
    (
        HAYSTACK,
        "folder store/solo/# after unlink",
        "the next start removes the file again, as its tombstone is durable",
    ),
    (
        HAYSTACK,
        "folder store/volumes after unlink",
        "the next start removes the volume again, as the checkpoint does not name it",
    ),
    (
        BLOB_FILES,
        "folder store after create",
        "flushed once more with the name of the marker, before anything is taken in",
    ),
    (
        NODE,
        "file data/node.#-journal after its first page",
        "SQLite's own, of a database in which nothing is yet",
    ),
    (
        NODE,
        "file data/node.#-wal after its first page",
        "SQLite's own: the head of a log is flushed once more with the first commit in it",
    ),
    (
        NODE,
        "file data/stores/main/volumes/#.vol after its first page",
        "as in a haystack by itself",
    ),
    (
        NODE,
        "folder data/stores/main after rename",
        "two checkpoints are too few to miss one always: a haystack by itself is judged for them",
    ),
    (
        NODE,
        "file data/stores/main/#/unnamed.new after its first page",
        "since when a part is unnamed: a list that is damaged makes parts wait another day",
    ),
    (
        NODE,
        "file data/stores/#/#/unnamed.new after its first page",
        "as that of the store main",
    ),
    (NODE, "folder data/stores/#/# after rename", "as the file in it"),
    (
        NODE,
        "folder data after create",
        "flushed once more when the marker says whose the folder is, before anything is acknowledged",
    ),
    (
        NODE,
        "folder data after rename",
        "a marker that does not yet say whose the folder is finds the keys that are there",
    ),
    (
        NODE,
        "folder data/stores/# after create",
        "flushed once more with the settings of the store, before it is acknowledged",
    ),
    (
        NODE,
        "folder data/stores/#/blobs after create",
        "as in a folder of blobs by itself",
    ),
];

#[test]
fn a_haystack_without_any_one_of_its_flushes_is_caught() {
    backend_without_flushes(HAYSTACK, haystack, haystack);
}

#[test]
fn blob_files_without_any_one_of_their_flushes_are_caught() {
    // A start makes no store where one was: that would hide a lost marker.
    backend_without_flushes(BLOB_FILES, blob_files, |folder| Ok(Box::new(Fs::open(folder)?)));
}

#[test]
fn a_node_without_any_one_of_its_flushes_is_caught() {
    if !is_asked_for(NODE) {
        return;
    }
    let rng = Rng::for_test(NODE);
    let Some((recording, journal)) = node_state::record() else {
        return;
    };
    let look = |found: &Path, expected: &Expectation| {
        let data = found.join("data");
        checkpoints_are_whole(&data.join("stores/main"))?;
        for store in node_state::STORES {
            let key = format!("store {store}");
            if expected.is_certain(&key) && expected.value_of(&key).is_some() {
                marker_is_whole(&data.join("stores").join(store).join("blobs"))?;
            }
        }
        node_state::judge(&data, expected)
    };
    every_flush_bears_weight(NODE, (&recording, &journal), PLACES_OF_NODE, &rng, look);
}

fn is_asked_for(name: &str) -> bool {
    if !seed::is_long() {
        // A sample would now and then miss what is missing.
        eprintln!("skipped: {name} are taken out with --long");
    }
    seed::is_long()
}

fn backend_without_flushes(name: &str, create: Open, open: Open) {
    if !is_asked_for(name) {
        return;
    }
    let rng = Rng::for_test(name);
    let Some((recording, journal)) = record(create, &rng) else {
        return;
    };
    let look = |found: &Path, expected: &Expectation| {
        checkpoints_are_whole(&found.join("store"))?;
        if expected.keys().next().is_some() {
            marker_is_whole(&found.join("store"))?;
        }
        // Before the first operation the store may not be there yet.
        let open = if expected.keys().next().is_some() {
            open
        } else {
            create
        };
        judge(open, &found.join("store"), expected)
    };
    every_flush_bears_weight(name, (&recording, &journal), PLACES, &rng, look);
}

fn every_flush_bears_weight(
    name: &str,
    (recording, journal): (&Recording, &Journal),
    places: usize,
    rng: &Rng,
    look: impl Fn(&Path, &Expectation) -> Result<(), String> + Sync,
) {
    let sites: Vec<(String, Vec<usize>)> = recording.flush_sites().into_iter().collect();
    let next = AtomicUsize::new(0);
    let table = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((site, calls)) = sites.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (less, gaps) = recording.without(calls);
                    let missed = first_loss((&less, &gaps), places, journal, &rng.branch(site), &look);
                    table
                        .lock()
                        .expect("no judge panics here")
                        .push((site, calls.len(), missed));
                }
            });
        }
    });
    let mut table = table.into_inner().expect("no judge panics here");
    table.sort();
    for (site, count, missed) in &table {
        let said = missed.as_deref().map_or("nothing is missed", |said| {
            said.lines().next().unwrap_or_default()
        });
        eprintln!("{name}: {count} x {site}: {said}");
    }
    let idle: Vec<_> = table
        .iter()
        .filter(|(_, _, missed)| missed.is_none())
        .map(|(site, ..)| site)
        .collect();
    let unknown: Vec<_> = idle
        .iter()
        .filter(|site| {
            !SPARED
                .iter()
                .any(|(of, spared, _)| *of == name && *spared == site.as_str())
        })
        .collect();
    assert!(
        unknown.is_empty(),
        "{name}: nobody would notice if these were removed: {unknown:#?}"
    );
}

/// What the first crash behind a gap loses, if any does.
fn first_loss(
    (less, gaps): (&Recording, &[usize]),
    count: usize,
    journal: &Journal,
    rng: &Rng,
    look: &(impl Fn(&Path, &Expectation) -> Result<(), String> + Sync),
) -> Option<String> {
    let mut rng = rng.clone();
    // What is lost at once shows close behind; the name of a folder is lost with all that comes into it later.
    let behind = |gap: usize, rng: &mut Rng| {
        let rest = less.places() - 1 - gap;
        let reach = if rng.one_in(3) { rest } else { rest.min(REACH) };
        gap + rng.below(reach + 1)
    };
    let close = rng.pick(GAPS, gaps.len());
    let close = close.into_iter().flat_map(|at| gaps[at]..=gaps[at] + CLOSE);
    let mut places: Vec<usize> = close.filter(|place| *place < less.places()).collect();
    places.extend((0..count).map(|_| behind(gaps[rng.below(gaps.len())], &mut rng)));
    places.sort_unstable();
    places.dedup();
    let mut loss = None;
    less.visit(&places, |place, medium, mark| {
        for crash in Crash::POWER {
            if loss.is_some() {
                return;
            }
            let found = folder::scratch();
            let after = medium.after(crash, &mut rng.branch((place, crash)));
            folder::write_to(&after, found.path()).expect("a medium can be written out");
            loss = look(found.path(), &journal.expected_at(mark)).err();
        }
    });
    loss
}

/// The marker of a folder of blobs is written anew where it is damaged, which would hide that it was not flushed.
fn marker_is_whole(store: &Path) -> Result<(), String> {
    let is_haystack = store.join("volumes").is_dir();
    match std::fs::read_to_string(store.join("refuge-fs")) {
        Ok(marker) if marker.starts_with("refuge-fs ") => Ok(()),
        Err(_) if is_haystack => Ok(()),
        found => Err(format!("the marker is damaged: {found:?}")),
    }
}

/// A crash alone never costs a generation of a state file, nor a run of the index that the last checkpoint names: both are
/// mended at the next start, which would hide that they were not flushed.
fn checkpoints_are_whole(store: &Path) -> Result<(), String> {
    let manifest = store.join("manifest");
    let state = match durable::read(&manifest) {
        Ok(None) => return Ok(()),
        Ok(Some(state)) if state.generation == Generation::Current => state,
        Ok(Some(_)) => return Err("the manifest is damaged, its previous generation serves".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let state: serde_json::Value =
        serde_json::from_slice(&state.payload).map_err(|error| error.to_string())?;
    for number in state["runs"].as_array().into_iter().flatten() {
        let run = store.join(format!("{:08}.run", number.as_u64().unwrap_or_default()));
        let bytes = std::fs::read(&run).map_err(|error| format!("{}: {error}", run.display()))?;
        let trailer = bytes.len().checked_sub(64).map(|at| &bytes[at..at + 8]);
        if trailer != Some(b"REFUGERN") || bytes[..bytes.len().min(4096)].iter().all(|byte| *byte == 0) {
            return Err(format!(
                "{} is damaged",
                run.file_name().unwrap_or_default().display()
            ));
        }
    }
    Ok(())
}
