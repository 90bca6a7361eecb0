//! What documents promise: who may write, what is read back, which revision stands for the rest.

use super::super::doc::AttachmentEdit::{Stored, Stub};
use super::super::engine::Which;
use super::*;

pub(crate) fn a_document_comes_back_as_it_was_written(subject: &Subject) {
    let database = subject.create();
    assert_eq!(database.open_doc(&id("a")).unwrap(), None);
    // Neither blanks nor numbers are written anew.
    let text = "{ \"b\":1.50, \"a\" :[ 1e2,\"\\u00e9\"], \"ü\":{}}";
    let picture = attachment(b"picture");
    let first = save(
        &database,
        with(edit("a", None, text), &[("p.png", Stored(picture.clone()))]),
    );
    let doc = open(&database, "a");
    assert_eq!(doc.body.as_str(), text);
    assert_eq!(doc.revisions, std::slice::from_ref(&first));
    assert!(!doc.deleted);
    assert_eq!(doc.seq, seq(1));
    // What came with the edit has its generation.
    let expected = Attachment { revpos: 1, ..picture };
    assert_eq!(doc.attachments.get("p.png"), Some(&expected));
    let second = save(&database, edit("a", Some(&first), "{}"));
    let doc = open(&database, "a");
    assert_eq!(doc.revisions, [second.clone(), first.clone()]);
    assert_eq!((doc.body.as_str(), doc.attachments.len()), ("{}", 0));
    assert_eq!(database.open_rev(&id("a"), &second).unwrap(), Some(doc));
    // What was followed is known by name alone.
    assert_eq!(database.open_rev(&id("a"), &first).unwrap(), None);
    assert!(database.tree(&id("a")).unwrap().unwrap().contains(&first));
    let info = database.info().unwrap();
    assert_eq!(
        (info.doc_count, info.deleted_count, info.update_seq),
        (1, 0, seq(2))
    );
}

pub(crate) fn a_new_edit_must_follow_a_leaf(subject: &Subject) {
    let database = subject.create();
    let strange = rev("1-a");
    assert_eq!(
        refused(&database, edit("a", Some(&strange), "{}")),
        Refused::Conflict
    );
    let first = save(&database, edit("a", None, "{}"));
    assert_eq!(
        refused(&database, edit("a", None, "{\"b\":1}")),
        Refused::Conflict
    );
    assert_eq!(
        refused(&database, edit("a", Some(&strange), "{}")),
        Refused::Conflict
    );
    let second = save(&database, edit("a", Some(&first), "{}"));
    assert_eq!(
        refused(&database, edit("a", Some(&first), "{}")),
        Refused::Conflict
    );
    assert_eq!(open(&database, "a").rev(), &second);
    assert_eq!(database.update_seq(), seq(2));
    // A leaf that does not win can be followed as well.
    save(&database, replicated("a", &["2-00", "1-00"], false));
    let loser = save(&database, edit("a", Some(&rev("2-00")), "{}"));
    assert_eq!(loser.generation(), 3);
    assert_eq!(open(&database, "a").rev(), &loser);
}

pub(crate) fn a_deleted_document_is_answered_and_can_be_written_again(subject: &Subject) {
    let database = subject.create();
    let first = save(&database, edit("a", None, "{\"x\":1}"));
    let gone = save(&database, deletion("a", &first));
    let doc = open(&database, "a");
    assert!(doc.deleted);
    assert_eq!(doc.rev(), &gone);
    let info = database.info().unwrap();
    assert_eq!((info.doc_count, info.deleted_count), (0, 1));
    let nothing = Edit::New {
        id: id("a"),
        parent: None,
        deleted: true,
        body: Body::default(),
        attachments: BTreeMap::new(),
    };
    assert_eq!(refused(&database, nothing), Refused::Conflict);
    let again = save(&database, edit("a", None, "{\"x\":2}"));
    assert_eq!(open(&database, "a").revisions, [again, gone, first]);
    let info = database.info().unwrap();
    assert_eq!((info.doc_count, info.deleted_count), (1, 0));
}

pub(crate) fn a_replicated_revision_is_always_taken(subject: &Subject) {
    let database = subject.create();
    let saved = save(&database, replicated("a", &["3-c", "2-b", "1-a"], false));
    assert_eq!(saved, rev("3-c"));
    assert_eq!(
        open(&database, "a").revisions,
        [rev("3-c"), rev("2-b"), rev("1-a")]
    );
    let before = database.update_seq();
    for known in [&["3-c", "2-b", "1-a"][..], &["2-b", "1-a"], &["1-a"]] {
        save(&database, replicated("a", known, true));
    }
    assert_eq!(database.update_seq(), before);
    assert_eq!(open(&database, "a").body, body("{\"of\":\"3-c\"}"));
    // More of its past is taken, too.
    save(&database, replicated("b", &["3-c"], false));
    save(&database, replicated("b", &["3-c", "2-b"], false));
    assert_eq!(open(&database, "b").revisions, [rev("3-c"), rev("2-b")]);
    assert_eq!(open(&database, "b").body, body("{\"of\":\"3-c\"}"));
}

pub(crate) fn what_wins_moves_with_what_it_holds(subject: &Subject) {
    let database = subject.create();
    let of = |rev: &str| body(&format!("{{\"of\":\"{rev}\"}}"));
    let leaves = || -> Vec<(String, bool)> {
        let leaves = database.open_leaves(&id("a")).unwrap();
        for leaf in &leaves {
            assert_eq!(leaf.body, of(&leaf.rev().to_string()));
            let alone = database.open_rev(&id("a"), leaf.rev()).unwrap().unwrap();
            assert_eq!(&alone, leaf);
        }
        assert_eq!(open(&database, "a"), leaves[0]);
        leaves
            .iter()
            .map(|leaf| (leaf.rev().to_string(), leaf.deleted))
            .collect()
    };
    let alive = |rev: &str| (rev.to_owned(), false);
    let dead = |rev: &str| (rev.to_owned(), true);
    save(&database, replicated("a", &["1-b"], false));
    // Loses, stands beside.
    save(&database, replicated("a", &["1-a"], false));
    assert_eq!(leaves(), [alive("1-b"), alive("1-a")]);
    // Wins, the one before steps aside.
    save(&database, replicated("a", &["1-c"], false));
    assert_eq!(leaves(), [alive("1-c"), alive("1-b"), alive("1-a")]);
    // The one that stood beside is followed and wins.
    save(&database, replicated("a", &["2-a", "1-a"], false));
    assert_eq!(leaves(), [alive("2-a"), alive("1-c"), alive("1-b")]);
    // The winner is deleted, the next one wins.
    save(&database, replicated("a", &["3-a", "2-a", "1-a"], true));
    assert_eq!(leaves(), [alive("1-c"), alive("1-b"), dead("3-a")]);
    // One beside is deleted, the winner stays.
    save(&database, replicated("a", &["2-b", "1-b"], true));
    assert_eq!(leaves(), [alive("1-c"), dead("3-a"), dead("2-b")]);
    save(&database, replicated("a", &["2-c", "1-c"], true));
    assert_eq!(leaves(), [dead("3-a"), dead("2-c"), dead("2-b")]);
    // Two branches that turn out to be one.
    save(&database, replicated("a", &["4-x"], false));
    assert_eq!(leaves(), [alive("4-x"), dead("3-a"), dead("2-c"), dead("2-b")]);
    save(&database, replicated("a", &["4-x", "3-a"], false));
    assert_eq!(leaves(), [alive("4-x"), dead("2-c"), dead("2-b")]);
    let info = database.info().unwrap();
    assert_eq!((info.doc_count, info.deleted_count), (1, 0));
}

pub(crate) fn edits_of_one_document_in_one_call_follow_one_another(subject: &Subject) {
    let database = subject.create();
    let edits = vec![
        replicated("a", &["1-a"], false),
        replicated("a", &["2-b", "1-a"], false),
        edit("b", None, "{}"),
        edit("b", None, "{}"),
        replicated("a", &["2-a", "1-a"], false),
        edit("a", Some(&rev("2-b")), "{\"last\":1}"),
    ];
    let saved = database.save_docs(edits).unwrap();
    let kinds: Vec<bool> = saved.iter().map(Result::is_ok).collect();
    assert_eq!(kinds, [true, true, true, false, true, true]);
    assert_eq!(open(&database, "a").rev(), saved[5].as_ref().unwrap());
    assert_eq!(open(&database, "a").body, body("{\"last\":1}"));
    let leaves = database.open_leaves(&id("a")).unwrap();
    assert_eq!(leaves.len(), 2);
    assert_eq!(leaves[1].body, body("{\"of\":\"2-a\"}"));
    let (changes, _) = changes(&database, &ChangesQuery::default());
    let order: Vec<&str> = changes.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(order, ["b", "a"]);
}

pub(crate) fn what_is_refused_leaves_the_rest_alone(subject: &Subject) {
    let database = subject.create();
    let bad = Edit::Replicated {
        id: id("bad"),
        revisions: vec![rev("3-c"), rev("1-a")],
        deleted: false,
        body: Body::default(),
        attachments: BTreeMap::new(),
    };
    let edits = vec![
        edit("a", None, "{}"),
        bad,
        with(edit("stub", None, "{}"), &[("x", Stub)]),
        edit("b", None, "{}"),
    ];
    let saved = database.save_docs(edits).unwrap();
    assert_eq!(saved[1], Err(Refused::History { id: id("bad") }));
    let missing = Refused::MissingStub {
        id: id("stub"),
        name: "x".to_owned(),
    };
    assert_eq!(saved[2], Err(missing));
    assert_eq!(database.open_doc(&id("bad")).unwrap(), None);
    assert_eq!(database.open_doc(&id("stub")).unwrap(), None);
    assert_eq!(database.info().unwrap().doc_count, 2);
    assert_eq!(database.update_seq(), seq(2));
    let many = vec![edit("a", None, "{}"); super::super::writer::EDITS_MAX + 1];
    assert!(matches!(
        database.save_docs(many),
        Err(super::super::error::Error::TooMany { .. })
    ));
}

pub(crate) fn stubs_stand_for_what_the_revision_before_has(subject: &Subject) {
    let database = subject.create();
    let (one, two) = (attachment(b"one"), attachment(b"two, longer"));
    let first = with(
        edit("a", None, "{}"),
        &[("1", Stored(one)), ("2", Stored(two.clone()))],
    );
    let first = save(&database, first);
    let second = with(edit("a", Some(&first), "{}"), &[("1", Stub), ("3", Stored(two))]);
    let second = save(&database, second);
    let hanging = open(&database, "a").attachments;
    let found: Vec<(&str, u32)> = hanging
        .iter()
        .map(|(name, hanging)| (name.as_str(), hanging.revpos))
        .collect();
    assert_eq!(found, [("1", 1), ("3", 2)]);
    // The nearest ancestor that is kept, for what comes from elsewhere.
    let revisions = vec![rev("4-d"), rev("3-c"), second.clone(), first];
    let replicated = Edit::Replicated {
        id: id("a"),
        revisions,
        deleted: false,
        body: Body::default(),
        attachments: BTreeMap::new(),
    };
    save(&database, with(replicated, &[("3", Stub)]));
    let doc = open(&database, "a");
    assert_eq!(doc.rev(), &rev("4-d"));
    assert_eq!(doc.attachments.get("3"), hanging.get("3"));
    let missing = with(edit("a", Some(&rev("4-d")), "{}"), &[("1", Stub)]);
    let expected = Refused::MissingStub {
        id: id("a"),
        name: "1".to_owned(),
    };
    assert_eq!(refused(&database, missing), expected);
}

pub(crate) fn branches_are_remembered_up_to_the_limit(subject: &Subject) {
    let database = subject.create();
    assert_eq!(database.revs_limit(), REVS_LIMIT);
    database.set_revs_limit(3).unwrap();
    let mut last = save(&database, edit("a", None, "{}"));
    for number in 0..6 {
        last = save(&database, edit("a", Some(&last), &format!("{{\"n\":{number}}}")));
    }
    let generations = |doc: &Doc| -> Vec<u32> { doc.revisions.iter().map(Rev::generation).collect() };
    assert_eq!(generations(&open(&database, "a")), [7, 6, 5]);
    let database = subject.reopen(database);
    assert_eq!(database.revs_limit(), 3);
    assert_eq!(generations(&open(&database, "a")), [7, 6, 5]);
    assert_eq!(database.tree(&id("a")).unwrap().unwrap().len(), 3);
}

pub(crate) fn differences_of_revisions_are_told(subject: &Subject) {
    let database = subject.create();
    save(&database, replicated("a", &["2-b", "1-a"], false));
    save(&database, replicated("a", &["3-z"], false));
    let asked = [
        (id("a"), vec![rev("2-b"), rev("1-a"), rev("3-c")]),
        (id("b"), vec![rev("1-x")]),
        (id("a"), vec![rev("1-a")]),
    ];
    let diff = database.revs_diff(&asked).unwrap();
    assert_eq!(diff.len(), 2);
    assert_eq!((diff[0].id.as_str(), &diff[0].revs), ("a", &vec![rev("3-c")]));
    assert_eq!(diff[0].possible_ancestors, [rev("2-b")]);
    assert_eq!((diff[1].id.as_str(), &diff[1].revs), ("b", &vec![rev("1-x")]));
    assert_eq!(diff[1].possible_ancestors, []);
    let heads = database.heads(&[id("b"), id("a")]).unwrap();
    assert_eq!(heads[0], None);
    assert_eq!(heads[1].as_ref().unwrap().rev, rev("3-z"));
    let snapshot = database.snapshot(&id("a"), &Which::Record).unwrap().unwrap();
    assert_eq!(
        (snapshot.docs.len(), snapshot.tree.conflicts()),
        (0, vec![rev("2-b")])
    );
}
