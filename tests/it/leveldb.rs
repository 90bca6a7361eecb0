//! The files of the engine `leveldb` in another LevelDB program: Google's own, by plyvel (<https://pypi.org/project/plyvel/>).
//!
//! `REFUGE_PLYVEL` names a Python that has it; `scripts/test` makes one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use refuge::blanket::{Body, ChangesQuery, Database, Edit, EngineKind, Options, create_db, open_db};
use refuge::id::DbName;

use crate::fault::seed::skip;

/// Names the Python to this test.
const PYTHON: &str = "REFUGE_PLYVEL";

/// Prints every key and its value, and has LevelDB write all of it anew.
const PROGRAM: &str = "
import sys, plyvel
keys = plyvel.DB(sys.argv[1], create_if_missing=False, paranoid_checks=True)
for key, value in keys.iterator(verify_checksums=True):
    print(key.hex(), value.hex())
keys.compact_range()
keys.close()
";

/// Enough for several tables.
const DOCS: usize = 600;

#[test]
fn another_program_reads_and_compacts_the_files() {
    let Some(python) = std::env::var_os(PYTHON) else {
        return skip("there is no plyvel: REFUGE_PLYVEL names no Python with it");
    };
    let dir = tempfile::tempdir().unwrap();
    let name: DbName = "notes".parse().unwrap();
    let options = Options {
        engine: EngineKind::Leveldb,
        ..Options::default()
    };
    let database = create_db(dir.path(), &name, &options).unwrap();
    for number in 0..DOCS {
        let id = format!("doc{number:04}");
        save(
            &database,
            &id,
            &["1-a"],
            false,
            &format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(9000)),
        );
        if number % 3 == 0 {
            save(&database, &id, &["2-b", "1-a"], number % 2 == 0, "{}");
        }
    }
    let before = look(&database);
    drop(database);

    let folder = dir.path().join("notes").join("leveldb");
    let found = read_with(Path::new(&python), &folder);
    let under = |kind: u8| found.keys().filter(|key| key[0] == kind).count();
    assert_eq!((under(b'd'), under(b's')), (DOCS, DOCS));
    // The layout of src/blanket/ordered/layout.rs: a checksum, then for a document without attachments a zero and its body.
    let piece = found.get(b"cdoc0001\x001-a\x00\x00\x00\x00\x00".as_slice());
    let piece = piece.expect("the body of a document");
    assert!(piece[4..].starts_with(b"\0{\"n\":1,"), "{piece:?}");

    // What the other program wrote is read here.
    let database = open_db(dir.path(), &name).unwrap();
    assert_eq!(database.check().unwrap(), None);
    assert_eq!(look(&database), before);
    save(&database, "another", &["1-a"], false, "{}");
}

fn read_with(python: &Path, folder: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let ran = Command::new(python)
        .args(["-c", PROGRAM])
        .arg(folder)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(key, value)| (bytes(key), bytes(value))).collect()
}

fn save(database: &Database, id: &str, revisions: &[&str], deleted: bool, body: &str) {
    let edit = Edit::Replicated {
        id: id.parse().unwrap(),
        revisions: revisions.iter().map(|rev| rev.parse().unwrap()).collect(),
        deleted,
        body: Body::from(body.to_owned()),
        attachments: BTreeMap::new(),
    };
    database.save_doc(edit).unwrap().unwrap();
}

fn look(database: &Database) -> Vec<(String, String)> {
    let query = ChangesQuery {
        docs: true,
        ..ChangesQuery::default()
    };
    let mut found = Vec::new();
    database
        .changes(&query, &mut |change| {
            found.push((
                change.id.to_string(),
                change.doc.unwrap().body.as_str().to_owned(),
            ));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}
