//! Attachments and the collector (R14): what a leaf of any document names stays, everything else goes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::id::{BlobId, DbName, DocId, Rev};

fn db_name(text: &str) -> DbName {
    text.parse().unwrap()
}

fn doc_id(number: u8) -> DocId {
    format!("doc{number}").parse().unwrap()
}

/// A new database.
async fn notes(bench: &Bench) -> Db {
    let made = bench
        .node
        .documents()
        .create(db_name("notes"), DatabaseOptions::default());
    made.await.unwrap()
}

async fn attach(db: &Db, bytes: &'static str) -> Attached {
    let mut attaching = Attaching::begin(db.blobs(), Coding::Identity).unwrap();
    attaching.write(bytes.into()).await.unwrap();
    attaching.finish(Expected::default()).await.unwrap()
}

fn stored(attached: Attached) -> AttachmentEdit {
    AttachmentEdit::Stored(Attachment {
        content_type: "text/plain".to_owned(),
        revpos: 0,
        digest: attached.digest,
        length: attached.length,
        blob: attached.blob,
        encoded: None,
    })
}

/// Writes the next revision of a document with these attachments.
async fn write(db: &Db, id: &DocId, deleted: bool, attachments: Vec<(&str, AttachmentEdit)>) -> Rev {
    let id = id.clone();
    let attachments: BTreeMap<String, AttachmentEdit> = attachments
        .into_iter()
        .map(|(name, attachment)| (name.to_owned(), attachment))
        .collect();
    let saved = db.run(move |database| {
        let before = database.open_doc(&id)?;
        database.save_doc(Edit::New {
            parent: before.filter(|doc| !doc.deleted).map(|doc| doc.rev().clone()),
            id,
            deleted,
            body: DocumentBody::default(),
            attachments,
        })
    });
    saved.await.unwrap().unwrap()
}

async fn collect(node: &Node) -> Collected {
    node.gc().run(|| false).await.unwrap().remove(0)
}

async fn is_stored(node: &Node, id: BlobId) -> bool {
    // Not by a stat, which leases.
    node.stores().main().get(id).await.is_ok()
}

/// Lets everything that is unnamed become due, and frees it.
async fn collect_all(bench: &Bench) {
    bench.pass(2 * DAY);
    collect(&bench.node).await;
    bench.pass(2 * DAY);
    collect(&bench.node).await;
}

#[tokio::test]
async fn an_attachment_stays_while_a_leaf_names_it() {
    let bench = Bench::new();
    let node = &bench.node;
    let db = notes(&bench).await;
    let (kept, dropped, never) = (
        attach(&db, "kept").await,
        attach(&db, "dropped").await,
        attach(&db, "never").await,
    );
    write(
        &db,
        &doc_id(1),
        false,
        vec![("a", stored(kept)), ("b", stored(dropped))],
    )
    .await;
    collect_all(&bench).await;
    assert!(is_stored(node, kept.blob).await && is_stored(node, dropped.blob).await);
    assert!(!is_stored(node, never.blob).await);

    write(&db, &doc_id(1), false, vec![("a", AttachmentEdit::Stub)]).await;
    collect_all(&bench).await;
    assert!(is_stored(node, kept.blob).await && !is_stored(node, dropped.blob).await);

    write(&db, &doc_id(1), true, Vec::new()).await;
    collect_all(&bench).await;
    assert!(!is_stored(node, kept.blob).await);
}

/// What came first of a group of documents may be collected before the last has come.
#[tokio::test]
async fn a_document_is_not_written_without_the_bytes_of_its_attachments() {
    let bench = Bench::new();
    let db = notes(&bench).await;
    let first = attach(&db, "first").await;
    collect_all(&bench).await;
    let last = attach(&db, "last").await;
    bench.pass(3 * DAY);
    let edit = |attached: &[Attached]| Edit::New {
        id: doc_id(1),
        parent: None,
        deleted: false,
        body: DocumentBody::default(),
        attachments: attached
            .iter()
            .enumerate()
            .map(|(n, one)| (n.to_string(), stored(*one)))
            .collect(),
    };
    let refused = db.save_docs(vec![edit(&[last, first])]).await;
    assert!(matches!(refused, Err(Error::Incomplete { missing, more: false }) if missing == [first.blob]));
    assert_eq!(db.run(|database| database.info()).await.unwrap().doc_count, 0);
    // The look is a lease: what is there is not collected before the document names it.
    bench.pass(3 * DAY);
    let now = UNIX_EPOCH + Duration::from_secs(bench.now_s.load(Ordering::Relaxed));
    assert!(!db.blobs().leases().holds(&last.blob, now));
    db.save_doc(edit(&[last])).await.unwrap().unwrap();
    assert!(db.blobs().leases().holds(&last.blob, now));
}

#[tokio::test]
async fn the_attachments_of_a_deleted_database_go_and_those_of_its_namesake_stay() {
    let bench = Bench::new();
    let node = &bench.node;
    let first = node
        .documents()
        .create(db_name("notes"), DatabaseOptions::default())
        .await
        .unwrap();
    let gone = attach(&first, "of the first").await;
    write(&first, &doc_id(1), false, vec![("a", stored(gone))]).await;
    node.documents().delete(db_name("notes")).await.unwrap();
    assert!(first.gone().is_cancelled());
    let missing = first.run(|database| database.info()).await;
    assert!(matches!(
        missing,
        Err(Error::Missing {
            kind: Kind::Database,
            ..
        })
    ));
    let second = node
        .documents()
        .create(db_name("notes"), DatabaseOptions::default())
        .await
        .unwrap();
    let kept = attach(&second, "of the second").await;
    write(&second, &doc_id(1), false, vec![("a", stored(kept))]).await;
    collect_all(&bench).await;
    assert!(!is_stored(node, gone.blob).await && is_stored(node, kept.blob).await);
}

#[tokio::test]
async fn bytes_that_are_not_what_was_said_are_not_kept() {
    let bench = Bench::new();
    let db = notes(&bench).await;
    let wrong = [
        Expected {
            digest: Some([0; 16]),
            length: None,
        },
        Expected {
            digest: None,
            length: Some(4),
        },
    ];
    for expected in wrong {
        let mut attaching = Attaching::begin(db.blobs(), Coding::Identity).unwrap();
        attaching.write("bytes".into()).await.unwrap();
        assert!(matches!(
            attaching.finish(expected).await,
            Err(Error::Mismatch { .. })
        ));
    }
    assert_eq!(db.blobs().status().blobs, 0);
    let attached = attach(&db, "hello world").await;
    assert_eq!(
        data_encoding::HEXLOWER.encode(&attached.digest),
        "5eb63bbbe01eeed093cb22bb8f5acdc3"
    );
}

#[tokio::test]
async fn databases_are_found_again_and_more_may_be_used_than_are_open() {
    let bench = Bench::new();
    let documents = bench.node.documents();
    let names: Vec<DbName> = (0..=DATABASES_USED_MAX)
        .map(|n| db_name(&format!("n{n:02}/a")))
        .collect();
    for name in &names {
        let db = documents
            .create(name.clone(), DatabaseOptions::default())
            .await
            .unwrap();
        write(&db, &doc_id(1), false, Vec::new()).await;
    }
    assert_eq!(documents.list(), names);
    let twice = documents
        .create(names[0].clone(), DatabaseOptions::default())
        .await;
    assert!(matches!(
        twice,
        Err(Error::Conflict {
            kind: Kind::Database,
            ..
        })
    ));
    let mut held = Vec::new();
    for name in &names[..DATABASES_USED_MAX] {
        held.push(documents.get(name.clone()).await.unwrap());
    }
    assert!(matches!(
        documents.get(names[DATABASES_USED_MAX].clone()).await,
        Err(Error::Busy)
    ));
    held.clear();
    for name in &names {
        let db = documents.get(name.clone()).await.unwrap();
        assert_eq!(db.run(|database| database.info()).await.unwrap().doc_count, 1);
    }
}

/// What a history does.
#[derive(Debug, Clone)]
enum Step {
    /// Writes a document with these of eight attachments, by number.
    Write(u8, Vec<u8>),
    Delete(u8),
    /// Days pass, and the collector runs.
    Collect,
}

const BYTES: [&str; 8] = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u8, prop::collection::vec(0..8_u8, 0..3)).prop_map(|(doc, named)| Step::Write(doc, named)),
        1 => (0..3_u8).prop_map(Step::Delete),
        2 => Just(Step::Collect),
    ]
}

proptest! {
    #![proptest_config(Config::with_cases(24))]
    #[test]
    fn after_any_history_the_store_holds_what_leaves_name(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let db = notes(&bench).await;
            let mut named: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Write(doc, numbers) => {
                        let mut edits = Vec::new();
                        for number in &numbers {
                            let bytes = BYTES[usize::from(*number)];
                            edits.push((bytes, stored(attach(&db, bytes).await)));
                        }
                        write(&db, &doc_id(doc), false, edits).await;
                        named.insert(doc, numbers.into_iter().collect());
                    }
                    Step::Delete(doc) if named.remove(&doc).is_some() => {
                        write(&db, &doc_id(doc), true, Vec::new()).await;
                    }
                    Step::Delete(_) => {}
                    Step::Collect => collect_all(&bench).await,
                }
                let wanted: BTreeSet<u8> = named.values().flatten().copied().collect();
                for number in wanted {
                    let blob = BlobId::of(BYTES[usize::from(number)].as_bytes());
                    assert!(is_stored(&bench.node, blob).await, "{number} is named and gone");
                }
            }
            collect_all(&bench).await;
            let wanted: BTreeSet<u8> = named.values().flatten().copied().collect();
            assert_eq!(db.blobs().status().blobs, wanted.len() as u64);
        });
    }
}
