//! What orders promise: changes by sequence, documents by the bytes of their ids.

use std::ops::Bound;

use super::*;

/// More documents than a page has rows.
const MANY: usize = 700;

fn filled(subject: &Subject, number: usize) -> Database {
    let database = subject.create();
    let edits = (0..number).map(|n| edit(&format!("doc-{n:04}"), None, &format!("{{\"n\":{n}}}")));
    let saved = database.save_docs(edits.collect()).unwrap();
    assert!(saved.iter().all(Result::is_ok));
    database
}

fn numbers(changes: &[Change]) -> Vec<u64> {
    changes.iter().map(|change| change.seq.number()).collect()
}

pub(crate) fn changes_come_in_order_and_go_on_anywhere(subject: &Subject) {
    let database = filled(subject, MANY);
    let all = MANY as u64;
    let (found, end) = changes(&database, &ChangesQuery::default());
    assert_eq!(numbers(&found), (1..=all).collect::<Vec<_>>());
    assert_eq!((end.last, end.pending), (seq(all), 0));
    assert_eq!(found[41].id, id("doc-0041"));
    assert!(
        found
            .iter()
            .all(|change| change.leaves.len() == 1 && change.doc.is_none())
    );
    let from = |since, limit, descending, docs| ChangesQuery {
        since: seq(since),
        limit,
        descending,
        docs,
    };
    let (found, end) = changes(&database, &from(690, 5, false, false));
    assert_eq!(numbers(&found), [691, 692, 693, 694, 695]);
    assert_eq!((end.last, end.pending), (seq(695), 5));
    let (found, end) = changes(&database, &from(0, 300, true, false));
    assert_eq!(numbers(&found), (401..=700).rev().collect::<Vec<_>>());
    assert_eq!((end.last, end.pending), (seq(401), 400));
    let (found, _) = changes(&database, &from(0, 40, false, true));
    for (n, change) in found.iter().enumerate() {
        let doc = change.doc.as_ref().unwrap();
        assert_eq!(doc.body, body(&format!("{{\"n\":{n}}}")));
        assert_eq!(doc.rev(), &change.leaves[0].rev);
    }
    // What is not reached yet, or by another database.
    let (found, end) = changes(&database, &from(9000, 5, false, false));
    assert_eq!((found.len(), end.last, end.pending), (0, seq(9000), 0));
}

pub(crate) fn changes_tell_how_many_are_left(subject: &Subject) {
    let database = filled(subject, 20);
    let none = |since| ChangesQuery {
        since: seq(since),
        limit: 0,
        ..ChangesQuery::default()
    };
    let (found, end) = changes(&database, &none(5));
    assert_eq!((found.len(), end.last, end.pending), (0, seq(5), 15));
    // Sequences that are no document's any more do not count.
    let first = open(&database, "doc-0019").revisions[0].clone();
    let mut last = first;
    for n in 0..10 {
        last = save(
            &database,
            edit("doc-0019", Some(&last), &format!("{{\"again\":{n}}}")),
        );
    }
    let (_, end) = changes(&database, &none(5));
    assert_eq!(end.pending, 15);
    let (_, end) = changes(&database, &none(29));
    assert_eq!(end.pending, 1);
    let (_, end) = changes(&database, &none(30));
    assert_eq!((end.last, end.pending), (seq(30), 0));
}

pub(crate) fn a_document_stands_once_where_it_changed_last(subject: &Subject) {
    let database = filled(subject, 3);
    let first = open(&database, "doc-0000").revisions[0].clone();
    let second = save(&database, edit("doc-0000", Some(&first), "{}"));
    save(&database, deletion("doc-0001", open(&database, "doc-0001").rev()));
    let (found, end) = changes(&database, &ChangesQuery::default());
    let order: Vec<(&str, u64, bool)> = found
        .iter()
        .map(|change| (change.id.as_str(), change.seq.number(), change.is_deleted()))
        .collect();
    assert_eq!(
        order,
        [
            ("doc-0002", 3, false),
            ("doc-0000", 4, false),
            ("doc-0001", 5, true)
        ]
    );
    assert_eq!(found[1].leaves[0].rev, second);
    assert_eq!(end.last, seq(5));
    save(&database, replicated("doc-0000", &["1-zz"], true));
    let (found, _) = changes(&database, &ChangesQuery::default());
    let leaves: Vec<(String, bool)> = found[2]
        .leaves
        .iter()
        .map(|leaf| (leaf.rev.to_string(), leaf.deleted))
        .collect();
    assert_eq!(leaves, [(second.to_string(), false), ("1-zz".to_owned(), true)]);
}

pub(crate) fn a_list_is_in_the_order_of_bytes(subject: &Subject) {
    let database = subject.create();
    let unordered = ["b", "a", "B", "é", "aa", "a\u{0}", "_design/x", "😀", "\u{ffff}"];
    for name in unordered {
        save(&database, edit(name, None, "{}"));
    }
    let mut ordered = unordered;
    ordered.sort_unstable();
    assert_eq!(ids(&listed(&database, &ListQuery::default())), ordered);
    let backwards = ListQuery {
        descending: true,
        ..ListQuery::default()
    };
    ordered.reverse();
    assert_eq!(ids(&listed(&database, &backwards)), ordered);
    // A document whose winner is deleted is not in it.
    save(&database, deletion("aa", open(&database, "aa").rev()));
    assert_eq!(
        listed(&database, &ListQuery::default()).len(),
        unordered.len() - 1
    );
}

pub(crate) fn a_list_begins_and_ends_anywhere(subject: &Subject) {
    let database = filled(subject, MANY);
    let name = |n: usize| id(&format!("doc-{n:04}"));
    let query = |start, end| ListQuery {
        start,
        end,
        ..ListQuery::default()
    };
    let span = |query: &ListQuery| -> (usize, String, String) {
        let rows = listed(&database, query);
        let text = |row: Option<&Listed>| row.map(|row| row.id.to_string()).unwrap_or_default();
        (rows.len(), text(rows.first()), text(rows.last()))
    };
    let between = query(Bound::Included(name(10)), Bound::Included(name(20)));
    assert_eq!(span(&between), (11, name(10).to_string(), name(20).to_string()));
    let between = query(Bound::Excluded(name(10)), Bound::Excluded(name(20)));
    assert_eq!(span(&between), (9, name(11).to_string(), name(19).to_string()));
    let nothing = query(Bound::Included(name(20)), Bound::Included(name(10)));
    assert_eq!(span(&nothing).0, 0);
    let backwards = ListQuery {
        descending: true,
        ..query(Bound::Included(name(20)), Bound::Excluded(name(10)))
    };
    assert_eq!(span(&backwards), (10, name(20).to_string(), name(11).to_string()));
    for docs in [false, true] {
        let page = ListQuery {
            skip: 300,
            limit: 280,
            docs,
            ..ListQuery::default()
        };
        assert_eq!(span(&page), (280, name(300).to_string(), name(579).to_string()));
        let rows = listed(&database, &page);
        assert!(rows.iter().all(|row| row.doc.is_some() == docs));
    }
    let beyond = ListQuery {
        skip: MANY,
        docs: true,
        ..ListQuery::default()
    };
    assert_eq!(span(&beyond).0, 0);
    let rows = listed(
        &database,
        &ListQuery {
            docs: true,
            ..ListQuery::default()
        },
    );
    assert_eq!(rows.len(), MANY);
    assert_eq!(rows[7].doc.as_ref().unwrap().body, body("{\"n\":7}"));
}

pub(crate) fn visitors_may_ask_the_database_and_stop(subject: &Subject) {
    let database = filled(subject, MANY);
    let mut seen = 0;
    let end = database.changes(&ChangesQuery::default(), &mut |change| {
        let doc = database.open_doc(&change.id).unwrap().unwrap();
        // Also to write to it: what changes goes behind what is visited.
        save(&database, edit(change.id.as_str(), Some(doc.rev()), "{}"));
        seen += 1;
        match seen {
            5 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert_eq!((seen, end.unwrap().last), (5, seq(5)));
    let mut listed = 0;
    let visited = database.list(&ListQuery::default(), &mut |row| {
        assert!(database.open_doc(&row.id).unwrap().is_some());
        listed += 1;
        match listed {
            300 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    visited.unwrap();
    assert_eq!(listed, 300);
}
