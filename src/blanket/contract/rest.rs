//! What a database promises besides documents and orders: local documents, purging, settings, and that it is all still there.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::thread;

use super::super::doc::AttachmentEdit::Stored;
use super::*;
use crate::id::LocalId;

/// Threads that write at once.
const WRITERS: usize = 8;

/// Edits of each.
const EDITS: usize = 40;

fn local(name: &str) -> LocalId {
    LocalId::named(name).expect("a name")
}

pub(crate) fn local_documents_are_in_no_order_of_changes(subject: &Subject) {
    let database = subject.create();
    let checkpoint = local("checkpoint.é=_");
    assert_eq!(database.local_get(&checkpoint).unwrap(), None);
    let put = |parent, json| database.local_put(&checkpoint, parent, body(json)).unwrap();
    assert_eq!(put(None, "{\"seq\":1}"), Ok(1));
    assert_eq!(put(None, "{\"seq\":2}"), Err(Refused::Conflict));
    assert_eq!(put(Some(1), "{\"seq\":2}"), Ok(2));
    assert_eq!(put(Some(1), "{\"seq\":3}"), Err(Refused::Conflict));
    let found = database.local_get(&checkpoint).unwrap().unwrap();
    assert_eq!((found.edits, found.body), (2, body("{\"seq\":2}")));
    let database = subject.reopen(database);
    assert_eq!(database.local_get(&checkpoint).unwrap().unwrap().edits, 2);
    for name in ["b", "a", "c"] {
        assert_eq!(database.local_put(&local(name), None, body("{}")).unwrap(), Ok(1));
    }
    let names = |descending| {
        let mut names = Vec::new();
        let range = (Bound::Included(local("a")), Bound::Excluded(local("c")));
        let listed = database.local_list(range, descending, &mut |id, _| {
            names.push(id.name().to_owned());
            ControlFlow::Continue(())
        });
        listed.unwrap();
        names
    };
    assert_eq!(names(false), ["a", "b"]);
    assert_eq!(names(true), ["b", "a"]);
    assert_eq!(
        database.local_delete(&checkpoint, Some(1)).unwrap(),
        Err(Refused::Conflict)
    );
    assert!(database.local_delete(&checkpoint, Some(2)).unwrap().is_ok());
    assert_eq!(database.local_get(&checkpoint).unwrap(), None);
    assert_eq!(
        database.local_delete(&checkpoint, Some(2)).unwrap(),
        Err(Refused::Conflict)
    );
    assert_eq!(database.update_seq(), Seq::ZERO);
    assert_eq!(database.info().unwrap().doc_count, 0);
}

pub(crate) fn purged_revisions_are_gone_and_sequences_go_on(subject: &Subject) {
    let database = subject.create();
    save(&database, replicated("a", &["2-b", "1-a"], false));
    save(&database, replicated("a", &["2-c", "1-a"], false));
    save(&database, replicated("b", &["1-x"], true));
    let before = database.update_seq();
    let purged = database
        .purge(vec![
            (id("a"), vec![rev("2-c"), rev("1-a")]),
            (id("b"), vec![rev("1-x")]),
            (id("c"), vec![rev("1-x")]),
        ])
        .unwrap();
    assert_eq!(purged, [vec![rev("2-c")], vec![rev("1-x")], vec![]]);
    assert_eq!(open(&database, "a").rev(), &rev("2-b"));
    assert_eq!(open(&database, "a").body, body("{\"of\":\"2-b\"}"));
    assert_eq!(database.open_leaves(&id("a")).unwrap().len(), 1);
    assert_eq!(database.open_doc(&id("b")).unwrap(), None);
    assert!(database.update_seq() > before);
    let last = database.update_seq();
    let database = subject.reopen(database);
    assert_eq!(database.update_seq(), last);
    let info = database.info().unwrap();
    assert_eq!((info.doc_count, info.deleted_count), (1, 0));
    // It may come back.
    save(&database, replicated("b", &["1-x"], false));
    assert_eq!(open(&database, "b").seq, last.next());
}

pub(crate) fn settings_are_remembered(subject: &Subject) {
    let database = subject.create();
    let uuid = database.uuid();
    assert_eq!(database.security().unwrap(), None);
    let json = "{\"members\":{\"roles\":[\"a\"]}}";
    database.set_security(&body(json)).unwrap();
    database.set_revs_limit(7).unwrap();
    let database = subject.reopen(database);
    assert_eq!(database.security().unwrap().as_deref(), Some(json));
    assert_eq!(database.revs_limit(), 7);
    assert_eq!(database.uuid(), uuid);
    assert_eq!(database.blobs(), &StoreName::main());
    let text = database.seq_text(seq(5));
    assert_eq!(database.seq_from_text(&text), Ok(seq(5)));
}

pub(crate) fn everything_is_there_after_reopening(subject: &Subject) {
    let database = subject.create();
    let first = with(edit("a", None, "{\"x\":1}"), &[("p", Stored(attachment(b"p")))]);
    save(&database, first);
    save(&database, replicated("a", &["1-zz"], false));
    save(&database, replicated("b", &["3-c", "2-b"], true));
    let look = |database: &Database| {
        let docs = database.open_leaves(&id("a")).unwrap();
        let (feed, end) = changes(database, &ChangesQuery::default());
        let info = database.info().unwrap();
        (
            docs,
            feed,
            end,
            info.doc_count,
            info.deleted_count,
            info.update_seq,
        )
    };
    let before = look(&database);
    let database = subject.reopen(database);
    assert_eq!(look(&database), before);
    assert_eq!(database.check().unwrap(), None);
    let next = save(&database, edit("c", None, "{}"));
    assert_eq!(open(&database, "c").rev(), &next);
    assert_eq!(open(&database, "c").seq, before.5.next());
}

pub(crate) fn threads_that_write_at_once_are_all_answered(subject: &Subject) {
    let database = subject.create();
    let shared = save(&database, edit("shared", None, "{}"));
    let won: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (database, shared) = (&database, &shared);
                scope.spawn(move || {
                    for n in 0..EDITS {
                        let name = format!("{writer}-{n}");
                        let saved = save(database, edit(&name, None, &format!("{{\"n\":{n}}}")));
                        // What was acknowledged is read by whoever wrote it.
                        assert_eq!(open(database, &name).rev(), &saved);
                    }
                    let own = format!("{{\"by\":{writer}}}");
                    let saved = database.save_doc(edit("shared", Some(shared), &own)).unwrap();
                    usize::from(saved.is_ok())
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"))
            .sum()
    });
    assert_eq!(won, 1);
    let all = (WRITERS * EDITS + 1) as u64;
    let info = database.info().unwrap();
    assert_eq!((info.doc_count, info.update_seq), (all, seq(all + 1)));
    let (feed, _) = changes(&database, &ChangesQuery::default());
    let names: BTreeSet<&str> = feed.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(names.len() as u64, all);
    let database = subject.reopen(database);
    assert_eq!(database.info().unwrap().doc_count, all);
}

pub(crate) fn whoever_waits_hears_of_changes(subject: &Subject) {
    let database = subject.create();
    let mut updated = database.updated();
    assert!(!updated.has_changed().unwrap());
    save(&database, edit("a", None, "{}"));
    assert!(updated.has_changed().unwrap());
    assert_eq!(*updated.borrow_and_update(), seq(1));
    // What changes no document wakes nobody.
    refused(&database, edit("a", None, "{}"));
    database
        .local_put(&local("x"), None, body("{}"))
        .unwrap()
        .unwrap();
    assert!(!updated.has_changed().unwrap());
}

pub(crate) fn compaction_loses_nothing(subject: &Subject) {
    let database = subject.create();
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(20_000));
    for n in 0..60 {
        let first = save(&database, edit(&format!("{n}"), None, &long));
        if n % 3 > 0 {
            save(&database, edit(&format!("{n}"), Some(&first), "{}"));
        }
    }
    let before = changes(
        &database,
        &ChangesQuery {
            docs: true,
            ..ChangesQuery::default()
        },
    );
    database.compact().unwrap();
    let after = changes(
        &database,
        &ChangesQuery {
            docs: true,
            ..ChangesQuery::default()
        },
    );
    assert_eq!(after, before);
    let sizes = database.info().unwrap().sizes;
    assert!(sizes.active_bytes <= sizes.file_bytes, "{sizes:?}");
    // Twenty long ones are left of sixty; how much of its own medium a server gives back is its matter.
    assert!(!subject.is_here() || sizes.file_bytes < 40 * 20_000, "{sizes:?}");
    let database = subject.reopen(database);
    save(&database, edit("another", None, "{}"));
    assert_eq!(database.info().unwrap().doc_count, 61);
}

pub(crate) fn every_blob_that_a_leaf_names_is_told(subject: &Subject) {
    let database = subject.create();
    let told = || {
        let mut told = BTreeSet::new();
        database
            .blob_ids(&mut |blob| {
                told.insert(blob);
            })
            .unwrap();
        told
    };
    let of = |bytes: &[&[u8]]| -> BTreeSet<BlobId> { bytes.iter().map(|bytes| BlobId::of(bytes)).collect() };
    let hang = |edit, bytes: &[u8]| with(edit, &[("x", Stored(attachment(bytes)))]);
    let first = save(&database, hang(edit("a", None, "{}"), b"winner"));
    save(&database, hang(replicated("a", &["1-00"], false), b"loser"));
    save(&database, hang(replicated("b", &["1-b"], true), b"deleted"));
    assert_eq!(told(), of(&[b"winner", b"loser", b"deleted"]));
    save(&database, deletion("a", &first));
    assert_eq!(told(), of(&[b"loser", b"deleted"]));
    database.purge(vec![(id("b"), vec![rev("1-b")])]).unwrap();
    assert_eq!(told(), of(&[b"loser"]));
}
