//! Rows R3, R7, R8 and R11 for documents, with every engine that is built in: power is lost, a call of the disk fails, bits rot
//! in the files of a database.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use refuge::blanket::{
    Body, ChangesQuery, Database, Edit, EngineKind, Error, ListQuery, Options, create_db, open_db, set_aside,
};
use refuge::id::{DbName, DocId, LocalId, Rev};

use super::child::{self, Teller, Told};
use super::cuts::{Cuts, judge_cuts};
use super::folder;
use super::fs::{Call, Fault, FaultFs};
use super::journal::{Expectation, Intent, Journal, Outcome};
use super::medium::{Crash, Names};
use super::seed::{Count, Rng};

/// Crash points; each is judged after all three ways of losing power.
const POINTS: Count = Count {
    sample: 60,
    full: 300,
};

/// Failures, each of another call at another place of the load.
const FAILURES: Count = Count {
    sample: 16,
    full: 300,
};

/// Bits that flip, each in a copy of its own.
const FLIPS: Count = Count {
    sample: 120,
    full: 500,
};

/// Edits of the load.
const EDITS: usize = 60;

/// The latest place of a failure: about as many calls of a kind as the load makes.
const PLACES: usize = 80;

/// How often a load tries to get its database where a call fails.
const OPENINGS: usize = 5;

/// Makes the tests of an engine.
macro_rules! engine {
    ($name:ident, $kind:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn documents_that_were_acknowledged_are_there_when_power_is_lost() {
                power_is_lost(stringify!($name));
            }

            #[test]
            fn no_document_is_acknowledged_by_a_call_that_failed() {
                a_call_fails(stringify!($name));
            }

            #[test]
            #[ignore = "runs in a process of its own, started by the tests above"]
            fn load() {
                run_load($kind);
            }

            #[test]
            fn a_flipped_bit_is_found_or_harmless_and_a_damaged_database_is_set_aside() {
                bits_flip(stringify!($name), $kind);
            }
        }
    };
}

engine!(sqlite, EngineKind::Sqlite);
#[cfg(feature = "lsm")]
engine!(lsm, EngineKind::Lsm);
#[cfg(feature = "leveldb")]
engine!(leveldb, EngineKind::Leveldb);

fn power_is_lost(engine: &str) {
    let rng = Rng::for_test(&format!("documents {engine}"));
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let journal = Journal::default();
    disk.record();
    follow(engine, &disk, &journal);
    let recording = disk.recorded();
    drop(disk);
    assert!(
        journal.acked() > EDITS,
        "only {} were acknowledged",
        journal.acked()
    );
    judge_cuts(
        &format!("documents {engine}"),
        &recording,
        &journal,
        (Cuts::power(POINTS.rounds()), &rng),
        judge,
    );
}

fn a_call_fails(engine: &str) {
    let rng = Rng::for_test(&format!("failing documents {engine}"));
    for round in 0..FAILURES.rounds() {
        let mut rng = rng.branch(round);
        let (call, errno) = match rng.below(4) {
            0 => (Call::Flush, Errno::EIO),
            1 => (Call::FlushDir, Errno::EIO),
            2 => (Call::Write, Errno::EIO),
            _ => (Call::Write, Errno::ENOSPC),
        };
        let fault = Fault {
            call: Some(call),
            nth: 1 + rng.below(PLACES) as u64,
            errno,
            lasting: false,
        };
        let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
            return;
        };
        let journal = Journal::default();
        disk.inject(fault);
        follow(engine, &disk, &journal);
        assert!(
            journal.acked() > EDITS / 2,
            "round {round}, {fault:?}: writes go on after it"
        );
        let found = folder::scratch();
        let medium = disk.crash(Crash::DropAll, &mut rng);
        folder::write_to(&medium, found.path()).expect("a medium can be written out");
        if let Err(wrong) = judge(found.path(), &journal.expected()) {
            panic!("round {round}, {fault:?}:\n{wrong}");
        }
    }
}

/// Runs the load in a process of its own: SQLite maps a file of the disk into memory.
fn follow(engine: &str, disk: &FaultFs, journal: &Journal) {
    let mut begun = None;
    let followed = child::follow(
        &format!("fault::documents::{engine}::load"),
        disk.root(),
        |told| match told {
            Told::Begins { key, value } => begun = Some(journal.begin(Some(disk), Intent { key, value })),
            Told::Ends => journal.end(
                Some(disk),
                begun.take().expect("what ends was begun"),
                Outcome::Acked,
            ),
        },
    );
    followed.expect("a load goes on whatever fails");
}

fn run_load(engine: EngineKind) {
    let Some(folder) = child::folder() else { return };
    let mut database = reopened(&folder, engine);
    let teller = Teller;
    let mut rng = Rng::fixed(1);
    let checkpoint = LocalId::named("checkpoint").expect("a name");
    for number in 0..EDITS {
        let name = format!("doc{}", rng.below(8));
        let id: DocId = name.parse().expect("an id");
        // Long enough that pages go to the log before the commit does.
        let text = format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(rng.below(9000)));
        let leaf = database
            .open_doc(&id)
            .expect("a sound document")
            .filter(|_| rng.below(6) > 0);
        let deleted = leaf.as_ref().is_some_and(|doc| !doc.deleted) && rng.one_in(5);
        let edit = match leaf.filter(|doc| !doc.deleted || deleted) {
            Some(doc) if rng.one_in(4) => {
                let rev = format!("{}-conflict{number}", doc.rev().generation() + 1);
                // It wins, or not: either way it was acknowledged.
                replicated(&id, &rev, &doc.revisions, &text)
            }
            Some(doc) => new(&id, Some(doc.rev().clone()), deleted, &text),
            None => replicated(&id, &format!("1-other{number}"), &[], &text),
        };
        let key = format!("edit {number}");
        let saved = teller.attempt(&key, Some("there"), || database.save_docs(vec![edit]));
        let local = format!("{{\"seq\":{number}}}");
        let known = database
            .local_get(&checkpoint)
            .expect("readable")
            .map(|local| local.edits);
        let local = teller.attempt("local", Some(&number.to_string()), || {
            database.local_put(&checkpoint, known, Body::from(local))
        });
        for failed in [saved.err(), local.err()].into_iter().flatten() {
            match failed {
                // Whoever finds no room tries again, without opening anything anew.
                Error::Full { .. } => {}
                Error::ReadOnly { .. } | Error::Database(_) | Error::Io { .. } => {
                    drop(database);
                    database = reopened(&folder, engine);
                }
                other => panic!("{other}"),
            }
        }
        if number == EDITS / 2 {
            // An orderly end and a start are part of it.
            drop(database);
            database = reopened(&folder, engine);
        }
    }
}

/// The database, made where it is not there.
fn reopened(folder: &Path, engine: EngineKind) -> Database {
    let opened = (0..OPENINGS).find_map(|_| match open_db(folder, &name()) {
        Err(Error::Missing { .. }) => create_db(folder, &name(), &made_as(engine)).ok(),
        opened => opened.ok(),
    });
    opened.expect("one call fails, not all")
}

/// What is found: which edits are there, and what the local document says.
fn judge(found: &Path, expected: &Expectation) -> Result<(), String> {
    let mut there: BTreeMap<String, String> = BTreeMap::new();
    match open_db(found, &name()) {
        Ok(database) => {
            if let Some(wrong) = database.check().map_err(|error| error.to_string())? {
                return Err(wrong);
            }
            let told = look(&database).map_err(|error| error.to_string())?;
            there.extend(told);
        }
        // It was never acknowledged: then nothing was.
        Err(Error::Missing { .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    // An edit is known by its revision, which stays known after others followed it; those are told by number, below.
    let wrong = expected.violations(&there);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

/// Every edit that a leaf or its ancestors tell of, and the local document.
fn look(database: &Database) -> Result<BTreeMap<String, String>, Error> {
    let mut there = BTreeMap::new();
    let mut ids = Vec::new();
    database.changes(&ChangesQuery::default(), &mut |change| {
        ids.push(change.id);
        ControlFlow::Continue(())
    })?;
    for id in ids {
        for leaf in database.open_leaves(&id)? {
            for rev in &leaf.revisions {
                there.extend(number_of(rev).map(|number| (format!("edit {number}"), "there".to_owned())));
            }
        }
    }
    let checkpoint = LocalId::named("checkpoint").expect("a name");
    if let Some(local) = database.local_get(&checkpoint)? {
        let number = local
            .body
            .as_str()
            .trim_matches(|c: char| !c.is_ascii_digit())
            .to_owned();
        there.insert("local".to_owned(), number);
    }
    Ok(there)
}

/// Revisions of the load end with the number of their edit.
fn number_of(rev: &Rev) -> Option<usize> {
    let text = rev.to_string();
    let digits = text
        .trim_start_matches(|c: char| c != '-')
        .trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.parse().ok()
}

/// A revision with a name that says which edit it is; what a client would write, with a hash that tells.
fn new(id: &DocId, parent: Option<Rev>, deleted: bool, text: &str) -> Edit {
    let number = text
        .trim_start_matches("{\"n\":")
        .split(',')
        .next()
        .unwrap_or_default();
    let generation = parent.as_ref().map_or(0, Rev::generation) + 1;
    let revisions = std::iter::once(rev(&format!("{generation}-edit{number}"))).chain(parent);
    Edit::Replicated {
        id: id.clone(),
        revisions: revisions.collect(),
        deleted,
        body: Body::from(text.to_owned()),
        attachments: BTreeMap::new(),
    }
}

fn replicated(id: &DocId, tip: &str, above: &[Rev], text: &str) -> Edit {
    Edit::Replicated {
        id: id.clone(),
        revisions: std::iter::once(rev(tip)).chain(above.iter().cloned()).collect(),
        deleted: false,
        body: Body::from(text.to_owned()),
        attachments: BTreeMap::new(),
    }
}

fn rev(text: &str) -> Rev {
    text.parse().expect("a revision")
}

fn name() -> DbName {
    "load".parse().expect("a name")
}

fn bits_flip(engine: &str, kind: EngineKind) {
    let rng = Rng::for_test(&format!("rotten documents {engine}"));
    let sound = folder::scratch();
    let database = create_db(sound.path(), &name(), &made_as(kind)).expect("a database");
    // Some megabytes: more than any engine keeps in its log alone.
    let texts: BTreeMap<String, String> = (0..200)
        .map(|n| {
            let text = format!("rot {n} ").repeat(20 * (20 + n));
            (format!("doc{n:03}"), format!("{{\"text\":\"{text}\"}}"))
        })
        .collect();
    let edits: Vec<Edit> = texts
        .iter()
        .map(|(id, text)| replicated(&id.parse().expect("an id"), "1-a", &[], text))
        .collect();
    for some in edits.chunks(20) {
        database.save_docs(some.to_vec()).expect("a write");
    }
    database.compact().expect("all of it is in the files");
    drop(database);
    let files = files_below(&sound.path().join("load"));
    let bytes = files.iter().map(|(_, bytes, _)| bytes.len()).sum();
    let (mut harmless, mut found) = (0, 0);
    for flip in 0..FLIPS.rounds() {
        let mut rng = rng.branch(flip);
        let place = folder::scratch();
        let (mut at, bit) = (rng.below(bytes), rng.below(8));
        let mut hit = None;
        for (path, bytes, length) in &files {
            let target = place.path().join("load").join(path);
            std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
            let mut bytes = bytes.clone();
            match hit {
                None if at < bytes.len() => {
                    bytes[at] ^= 1 << bit;
                    hit = Some(path.clone());
                }
                None => at -= bytes.len(),
                Some(_) => {}
            }
            std::fs::write(&target, &bytes).expect("a file");
            let file = std::fs::OpenOptions::new().write(true).open(&target);
            file.and_then(|file| file.set_len(*length)).expect("a file");
        }
        match read_all(place.path()) {
            Ok(read) if read == texts => harmless += 1,
            Ok(read) => panic!(
                "flip {flip} at {at} of {hit:?}: other documents are served: {} of them",
                read.len()
            ),
            Err(_) => {
                found += 1;
                let aside = set_aside(place.path(), &name()).expect("it can be set aside");
                assert!(aside.join(hit.expect("a file")).is_file());
                create_db(place.path(), &name(), &made_as(kind)).expect("a new one stands in its place");
            }
        }
    }
    eprintln!("{found} flips were found, {harmless} hit nothing that is read");
    assert!(found > FLIPS.rounds() / 2, "{found} of {}", FLIPS.rounds());
}

/// The files below a folder, by their paths: up to their last byte that is not zero, and how long they are.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>, u64)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).expect("a file");
            let length = bytes.len() as u64;
            let end = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            bytes.truncate(end);
            let own = path.strip_prefix(folder).expect("it is below");
            files.push((own.to_owned(), bytes, length));
        }
    }
    files.sort();
    files
}

fn made_as(engine: EngineKind) -> Options {
    Options {
        engine,
        ..Options::default()
    }
}

/// Every document, over the list; or what is wrong.
fn read_all(folder: &Path) -> Result<BTreeMap<String, String>, Error> {
    let database = open_db(folder, &name())?;
    let mut read = BTreeMap::new();
    let query = ListQuery {
        docs: true,
        ..ListQuery::default()
    };
    database.list(&query, &mut |row| {
        let body = row.doc.map(|doc| doc.body.as_str().to_owned());
        read.insert(row.id.to_string(), body.unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    // What an index hides is still there by the order of changes, or the check finds it.
    match database.check()? {
        None => Ok(read),
        Some(what) => Err(Error::Corrupt {
            path: folder.to_owned(),
            what,
        }),
    }
}
