//! Rows R3, R7, R8 and R11 for documents: power is lost, a call of the disk fails, bits rot in the file of a database.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use nix::errno::Errno;
use refuge::blanket::{
    Body, ChangesQuery, Database, Edit, Error, ListQuery, Options, create_db, open_db, set_aside,
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

#[test]
fn documents_that_were_acknowledged_are_there_when_power_is_lost() {
    let rng = Rng::for_test("documents");
    let Some(disk) = FaultFs::mount_or_skip(Names::Strict) else {
        return;
    };
    let journal = Journal::default();
    disk.record();
    follow(&disk, &journal);
    let recording = disk.recorded();
    drop(disk);
    assert!(
        journal.acked() > EDITS,
        "only {} were acknowledged",
        journal.acked()
    );
    judge_cuts(
        "documents",
        &recording,
        &journal,
        (Cuts::power(POINTS.rounds()), &rng),
        judge,
    );
}

#[test]
fn no_document_is_acknowledged_by_a_call_that_failed() {
    let rng = Rng::for_test("failing documents");
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
        follow(&disk, &journal);
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
fn follow(disk: &FaultFs, journal: &Journal) {
    let mut begun = None;
    let followed = child::follow("fault::documents::load", disk.root(), |told| match told {
        Told::Begins { key, value } => begun = Some(journal.begin(Some(disk), Intent { key, value })),
        Told::Ends => journal.end(
            Some(disk),
            begun.take().expect("what ends was begun"),
            Outcome::Acked,
        ),
    });
    followed.expect("a load goes on whatever fails");
}

#[test]
#[ignore = "runs in a process of its own, started by the tests above"]
fn load() {
    let Some(folder) = child::folder() else { return };
    let mut database = reopened(&folder);
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
                    database = reopened(&folder);
                }
                other => panic!("{other}"),
            }
        }
        if number == EDITS / 2 {
            // An orderly end and a start are part of it.
            drop(database);
            database = reopened(&folder);
        }
    }
}

/// The database, made where it is not there.
fn reopened(folder: &Path) -> Database {
    let opened = (0..OPENINGS).find_map(|_| match open_db(folder, &name()) {
        Err(Error::Missing { .. }) => create_db(folder, &name(), &Options::default()).ok(),
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

#[test]
fn a_flipped_bit_is_found_or_harmless_and_a_damaged_database_is_set_aside() {
    let rng = Rng::for_test("rotten documents");
    let sound = folder::scratch();
    let database = create_db(sound.path(), &name(), &Options::default()).expect("a database");
    let texts: BTreeMap<String, String> = (0..200)
        .map(|n| {
            (
                format!("doc{n:03}"),
                format!("{{\"text\":\"{}\"}}", "rot ".repeat(20 + n)),
            )
        })
        .collect();
    let edits = texts.iter().map(|(id, text)| {
        let id = id.parse().expect("an id");
        replicated(&id, "1-a", &[], text)
    });
    database.save_docs(edits.collect()).expect("a write");
    database.compact().expect("all of it is in the file");
    drop(database);
    let file = "load/documents.db";
    let bytes = std::fs::read(sound.path().join(file)).expect("a file");
    let (mut harmless, mut found) = (0, 0);
    for flip in 0..FLIPS.rounds() {
        let mut rng = rng.branch(flip);
        let place = folder::scratch();
        std::fs::create_dir(place.path().join("load")).expect("a folder");
        let mut rotten = bytes.clone();
        let at = rng.below(rotten.len());
        rotten[at] ^= 1 << rng.below(8);
        std::fs::write(place.path().join(file), &rotten).expect("a file");
        match read_all(place.path()) {
            Ok(read) if read == texts => harmless += 1,
            Ok(read) => panic!(
                "flip {flip} at {at}: other documents are served: {} of them",
                read.len()
            ),
            Err(_) => {
                found += 1;
                let aside = set_aside(place.path(), &name()).expect("it can be set aside");
                assert_eq!(
                    std::fs::read(aside.join("documents.db"))
                        .expect("it is there")
                        .len(),
                    rotten.len()
                );
                create_db(place.path(), &name(), &Options::default()).expect("a new one stands in its place");
            }
        }
    }
    eprintln!("{found} flips were found, {harmless} hit nothing that is read");
    assert!(found > FLIPS.rounds() / 2, "{found} of {}", FLIPS.rounds());
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
