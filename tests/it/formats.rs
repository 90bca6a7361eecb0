//! Row R15 for documents: a database that an earlier Refuge wrote opens, with every engine that is built in, and holds what it held.
//!
//! `fixtures/documents/ENGINE` is a database of format 1, `fixtures/documents/held.txt` what it holds. A format has one version
//! so far: the next one adds its own folders beside these, and a test that stops its migration at every write.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use refuge::blanket::{
    Attachment, AttachmentEdit, Body, ChangesQuery, Database, Edit, EngineKind, Options, create_db, open_db,
};
use refuge::id::{BlobId, DbName, LocalId};

/// Engines that keep something, of those in this binary.
fn engines() -> Vec<EngineKind> {
    let mut engines = vec![EngineKind::Sqlite];
    if cfg!(feature = "lsm") {
        engines.push(EngineKind::Lsm);
    }
    if cfg!(feature = "leveldb") {
        engines.push(EngineKind::Leveldb);
    }
    engines
}

#[test]
fn a_database_of_an_earlier_refuge_opens_and_goes_on() {
    let held = fs::read_to_string(fixtures().join("held.txt")).unwrap();
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixtures().join(engine.to_string()), &dir.path().join("old")).unwrap();
        let database = open_db(dir.path(), &name()).unwrap();
        assert_eq!(database.check().unwrap(), None, "{engine}");
        assert_eq!(look(&database), held, "{engine}");
        save(&database, "another", &["1-a"], false, BTreeMap::new());
        drop(database);
        let database = open_db(dir.path(), &name()).unwrap();
        assert!(look(&database).contains("another"), "{engine}");
    }
}

#[test]
#[ignore = "writes the fixtures of the format that is written now: for a new engine or a new format"]
fn make_fixtures() {
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            engine,
            revs_limit: 20,
            ..Options::default()
        };
        let database = create_db(dir.path(), &name(), &options).unwrap();
        fill(&database);
        fs::write(fixtures().join("held.txt"), look(&database)).unwrap();
        drop(database);
        copy(&dir.path().join("old"), &fixtures().join(engine.to_string())).unwrap();
    }
}

fn fill(database: &Database) {
    let picture = Attachment {
        content_type: "image/png".to_owned(),
        revpos: 1,
        digest: [7; 16],
        length: 7,
        blob: BlobId::of(b"picture"),
        encoded: None,
    };
    let hangs = BTreeMap::from([("p.png".to_owned(), AttachmentEdit::Stored(picture))]);
    save(database, "hung", &["1-a"], false, hangs);
    save(database, "conflict", &["2-b", "1-a"], false, BTreeMap::new());
    save(database, "conflict", &["2-c", "1-a"], false, BTreeMap::new());
    save(database, "conflict", &["2-d", "1-a"], true, BTreeMap::new());
    save(database, "gone", &["3-c", "2-b", "1-a"], true, BTreeMap::new());
    save(database, "_design/é", &["1-a"], false, BTreeMap::new());
    let checkpoint = LocalId::named("checkpoint").unwrap();
    database
        .local_put(&checkpoint, None, Body::from("{\"seq\":5}".to_owned()))
        .unwrap()
        .unwrap();
    database
        .set_security(&Body::from("{\"members\":{}}".to_owned()))
        .unwrap();
}

fn save(
    database: &Database,
    id: &str,
    revisions: &[&str],
    deleted: bool,
    attachments: BTreeMap<String, AttachmentEdit>,
) {
    let edit = Edit::Replicated {
        id: id.parse().unwrap(),
        revisions: revisions.iter().map(|rev| rev.parse().unwrap()).collect(),
        deleted,
        body: Body::from(format!("{{\"of\":\"{}\"}}", revisions[0])),
        attachments,
    };
    database.save_doc(edit).unwrap().unwrap();
}

/// All that a database holds, a fact a line.
fn look(database: &Database) -> String {
    let mut lines = vec![
        format!("revs_limit {}", database.revs_limit()),
        format!("security {:?}", database.security().unwrap()),
        format!("sequence {}", database.update_seq()),
    ];
    let mut ids = Vec::new();
    let changed = database.changes(&ChangesQuery::default(), &mut |change| {
        ids.push(change.id);
        ControlFlow::Continue(())
    });
    changed.unwrap();
    for id in ids {
        for doc in database.open_leaves(&id).unwrap() {
            let revisions: Vec<String> = doc.revisions.iter().map(ToString::to_string).collect();
            let attachments = serde_json::to_string(&doc.attachments).unwrap();
            lines.push(format!(
                "{} {id} {} deleted {} {} {attachments}",
                doc.seq,
                revisions.join(","),
                doc.deleted,
                doc.body.as_str()
            ));
        }
    }
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let listed = database.local_list(everything, false, &mut |id, local| {
        lines.push(format!(
            "local {} {} {}",
            id.name(),
            local.edits,
            local.body.as_str()
        ));
        ControlFlow::Continue(())
    });
    listed.unwrap();
    lines.join("\n") + "\n"
}

/// Copies a folder; of each file no more than up to its last byte that is not zero, as logs are made longer than they are.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target)?;
            continue;
        }
        let mut bytes = fs::read(&path)?;
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let end = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            bytes.truncate(end);
        }
        fs::write(target, bytes)?;
    }
    Ok(())
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/documents")
}

fn name() -> DbName {
    "old".parse().unwrap()
}
