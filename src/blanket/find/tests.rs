//! An indexed query gives what a scan gives, whatever changed, was lost or damaged in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::blanket::selector::{FieldPath, Selector};
use crate::blanket::{Body, Edit, EngineKind, Options, collate, create_db, open_db, remove_db};

fn put(database: &Database, id: &str, body: &Value) {
    let id: DocId = id.parse().unwrap();
    let before = database.open_doc(&id).unwrap().filter(|doc| !doc.deleted);
    let edit = Edit::New {
        parent: before.map(|doc| doc.rev().clone()),
        id,
        deleted: *body == Value::Null,
        body: if *body == Value::Null {
            Body::default()
        } else {
            Body::from(body.to_string())
        },
        attachments: BTreeMap::new(),
    };
    database.save_doc(edit).unwrap().unwrap();
}

fn define(database: &Database, name: &str, fields: &[&str], filter: Option<&Value>) {
    let fields: Vec<Value> = fields.iter().map(|field| json!({*field: "asc"})).collect();
    let mut map = json!({"fields": fields});
    if let Some(filter) = filter {
        map["partial_filter_selector"] = filter.clone();
    }
    let design = json!({"language": "query", "views": {name: {"map": map}}});
    put(database, &format!("_design/{name}"), &design);
}

fn query(selector: &Value, sort: &[&str]) -> Query {
    Query {
        selector: Selector::parse(selector).unwrap(),
        is_void: false,
        sort: sort.iter().map(|field| FieldPath::parse(field)).collect(),
        descending: false,
        fields: None,
        hint: None,
        may_fall_back: true,
    }
}

/// The ids that are found, in pages of `size`, and the name of what was read.
fn found(database: &Database, query: &Query, size: usize) -> (Vec<String>, String) {
    let plan = database.find_plan(query).unwrap().unwrap();
    database.bring_up_to_date(&plan).unwrap();
    let mut ids = Vec::new();
    let mut page = PageQuery {
        limit: size,
        ..PageQuery::default()
    };
    loop {
        let found = database.find_page(&plan, query, &page).unwrap();
        ids.extend(
            found
                .docs
                .iter()
                .map(|doc| doc["_id"].as_str().unwrap().to_owned()),
        );
        if found.is_end {
            return (ids, plan.index.name);
        }
        // Through text, as a client keeps it.
        let text = found.after.unwrap().to_text();
        page.after = Some(Position::from_text(&text, &plan).unwrap());
    }
}

/// All documents that match, read one by one.
fn scanned(database: &Database, selector: &Selector) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let all = ListQuery {
        docs: true,
        ..ListQuery::default()
    };
    database
        .list(&all, &mut |listed| {
            let doc = listed.doc.unwrap();
            if !doc.id.is_design() && selector.matches(&whole(&doc)) {
                ids.insert(doc.id.to_string());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    ids
}

fn database(folder: &Path) -> Database {
    create_db(folder, &"notes".parse().unwrap(), &Options::default()).unwrap()
}

fn reopened(folder: &Path, database: Database) -> Database {
    drop(database);
    open_db(folder, &"notes".parse().unwrap()).unwrap()
}

#[test]
fn an_index_is_read_in_its_order_both_ways_and_follows_changes() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path());
    define(&database, "by-n", &["n", "t"], None);
    for (id, n, t) in [
        ("a", 2, "x"),
        ("b", 1, "y"),
        ("c", 2, "w"),
        ("d", 1, "y"),
        ("e", 3, "x"),
    ] {
        put(&database, id, &json!({"n": n, "t": t}));
    }
    put(&database, "without", &json!({"n": 2}));
    let mut asked = query(&json!({"n": {"$gte": 1}, "t": {"$exists": true}}), &["n", "t"]);
    for size in [1, 2, 10] {
        assert_eq!(
            found(&database, &asked, size),
            (
                vec!["b", "d", "c", "a", "e"]
                    .into_iter()
                    .map(String::from)
                    .collect(),
                "by-n".to_owned()
            )
        );
    }
    asked.descending = true;
    for size in [1, 3] {
        assert_eq!(found(&database, &asked, size).0, ["e", "a", "c", "d", "b"]);
    }
    put(&database, "b", &json!({"n": 4, "t": "z"}));
    put(&database, "c", &Value::Null);
    put(&database, "e", &json!({"n": 1}));
    put(&database, "f", &json!({"n": 2, "t": "aa"}));
    assert_eq!(found(&database, &asked, 10).0, ["b", "a", "f", "d"]);
    // A purged document is gone from answers, and comes back as any other.
    let id: DocId = "a".parse().unwrap();
    let rev = database.open_doc(&id).unwrap().unwrap().rev().clone();
    database.purge(vec![(id, vec![rev])]).unwrap();
    assert_eq!(found(&database, &asked, 10).0, ["b", "f", "d"]);
    put(&database, "a", &json!({"n": 0, "t": ""}));
    asked.selector = Selector::parse(&json!({"n": {"$gte": 0}, "t": {"$exists": true}})).unwrap();
    assert_eq!(found(&database, &asked, 10).0, ["b", "f", "d", "a"]);
}

#[test]
fn a_filter_keeps_documents_out_of_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path());
    let filter = json!({"done": false});
    define(&database, "open", &["n"], Some(&filter));
    for n in 0..6 {
        put(&database, &format!("{n}"), &json!({"n": n, "done": n % 2 == 0}));
    }
    let mut asked = query(&json!({"n": {"$gt": 0}}), &[]);
    assert_eq!(found(&database, &asked, 10).1, "_all_docs");
    asked.hint = Some(Hint {
        ddoc: "_design/open".parse().unwrap(),
        name: None,
    });
    assert_eq!(
        found(&database, &asked, 10),
        (
            vec!["1".to_owned(), "3".to_owned(), "5".to_owned()],
            "open".to_owned()
        )
    );
    put(&database, "1", &json!({"n": 1, "done": true}));
    assert_eq!(found(&database, &asked, 10).0, ["3", "5"]);
}

#[test]
fn an_index_that_is_lost_damaged_or_of_another_database_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = database(dir.path());
    define(&database, "by-n", &["n"], None);
    for n in 0..300 {
        put(&database, &format!("{n:03}"), &json!({"n": n % 100}));
    }
    let asked = query(&json!({"n": {"$gte": 90}}), &["n"]);
    let wanted = found(&database, &asked, 1000);
    assert_eq!(wanted.0.len(), 30);
    let file = dir.path().join("notes").join(INDEX_FILE);
    let log = dir.path().join("notes").join(format!("{INDEX_FILE}-wal"));
    // The last handle writes the log into the file.
    database = reopened(dir.path(), database);
    let whole = fs::read(&file).unwrap();
    assert!(!log.exists() && whole.len() > 8192);
    let mut found_out = 0;
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        drop(database);
        fs::write(&file, &bytes).unwrap();
        database = open_db(dir.path(), &"notes".parse().unwrap()).unwrap();
        assert_eq!(found(&database, &asked, 1000), wanted, "byte {at}");
        database = reopened(dir.path(), database);
        found_out += usize::from(fs::read(&file).unwrap() != bytes);
    }
    assert!(found_out > 10, "only {found_out} of 97 were found");
    for len in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        drop(database);
        fs::write(&file, &whole[..len]).unwrap();
        database = open_db(dir.path(), &"notes".parse().unwrap()).unwrap();
        assert_eq!(found(&database, &asked, 1000), wanted, "{len} bytes");
    }
    drop(database);
    fs::remove_file(&file).unwrap();
    database = open_db(dir.path(), &"notes".parse().unwrap()).unwrap();
    assert_eq!(found(&database, &asked, 1000), wanted);
    // The file of one database beside another of its name.
    drop(database);
    let other = fs::read(&file).unwrap();
    let name = "notes".parse().unwrap();
    remove_db(dir.path(), &name).unwrap();
    let database = create_db(dir.path(), &name, &Options::default()).unwrap();
    define(&database, "by-n", &["n"], None);
    put(&database, "new", &json!({"n": 95}));
    fs::write(&file, other).unwrap();
    assert_eq!(found(&database, &asked, 10).0, ["new"]);
}

#[test]
fn an_index_of_a_later_state_of_its_database_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("notes");
    let mut database = database(dir.path());
    define(&database, "by-n", &["n"], None);
    for n in 0..10 {
        put(&database, &format!("{n}"), &json!({"n": n}));
    }
    database = reopened(dir.path(), database);
    let documents = fs::read(folder.join("documents.db")).unwrap();
    for n in 10..20 {
        put(&database, &format!("{n}"), &json!({"n": n}));
    }
    let asked = query(&json!({"n": {"$gte": 0}}), &[]);
    assert_eq!(found(&database, &asked, 100).0.len(), 20);
    drop(database);
    // As it was, and then with other changes under the sequences that the index has seen.
    fs::write(folder.join("documents.db"), &documents).unwrap();
    database = open_db(dir.path(), &"notes".parse().unwrap()).unwrap();
    assert_eq!(found(&database, &asked, 100).0.len(), 10);
    drop(database);
    for n in 0..2 {
        fs::write(folder.join("documents.db"), &documents).unwrap();
        database = open_db(dir.path(), &"notes".parse().unwrap()).unwrap();
        for other in 0..=n {
            put(&database, &format!("other{other}"), &json!({"n": 5 + n}));
        }
        assert_eq!(found(&database, &asked, 100).0.len(), 11 + n, "{n}");
        drop(database);
    }
}

#[test]
fn indexes_that_nobody_defines_any_more_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path());
    define(&database, "by-n", &["n"], None);
    put(&database, "a", &json!({"n": 1, "m": 1}));
    let by_n = query(&json!({"n": 1}), &[]);
    assert_eq!(found(&database, &by_n, 10).1, "by-n");
    let plan = database.find_plan(&by_n).unwrap().unwrap();
    let signature = plan.index.signature();
    let store = database.indexes().store(database.uuid()).unwrap();
    assert!(store.built(&signature).unwrap().is_some());
    put(&database, "_design/by-n", &Value::Null);
    assert_eq!(
        found(&database, &by_n, 10),
        (vec!["a".to_owned()], "_all_docs".to_owned())
    );
    define(&database, "by-m", &["m"], None);
    assert_eq!(found(&database, &query(&json!({"m": 1}), &[]), 10).1, "by-m");
    assert!(store.built(&signature).unwrap().is_none());
    put(&database, "_design/by-m", &Value::Null);
    database.forget_indexes().unwrap();
    assert!(!store.keep_only(&[]).unwrap());
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..4_i64).prop_map(Value::from),
        (-6..6_i32).prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
        "[aAb]{0,2}".prop_map(Value::from),
        "[a\u{301}é]{0,2}".prop_map(Value::from),
    ]
}

fn field_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => leaf(),
        1 => prop::collection::vec(leaf(), 0..3).prop_map(Value::from),
        1 => prop::collection::btree_map("[xy]", leaf(), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect())),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[abc]", field_value(), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn condition() -> impl Strategy<Value = Value> {
    let compare = proptest::sample::select(vec!["$lt", "$lte", "$eq", "$ne", "$gte", "$gt"]);
    prop_oneof![
        8 => (compare, field_value()).prop_map(|(operator, value)| json!({operator: value})),
        2 => (field_value(), field_value()).prop_map(|(low, high)| json!({"$gte": low, "$lt": high})),
        1 => any::<bool>().prop_map(|there| json!({"$exists": there})),
        2 => "[aAé]{0,2}".prop_map(|prefix| json!({"$beginsWith": prefix})),
        1 => prop::collection::vec(leaf(), 0..3).prop_map(|values| json!({"$in": values})),
        1 => Just(json!({"$type": "string"})),
    ]
}

fn selector() -> impl Strategy<Value = Value> {
    let field = proptest::sample::select(vec!["a", "b", "c", "a.x", "a.0", "_id"]);
    let one = (field, condition()).prop_map(|(field, condition)| json!({field: condition}));
    one.prop_recursive(2, 8, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            4 => several.clone().prop_map(|all| json!({"$and": all})),
            1 => several.prop_map(|any| json!({"$or": any})),
            1 => inner.prop_map(|one| json!({"$not": one})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_indexed_query_gives_what_a_scan_gives(
        documents in prop::collection::vec(("[a-d]{1,2}", document()), 1..20),
        later in prop::collection::vec(("[a-d]{1,2}", prop_oneof![4 => document(), 1 => Just(Value::Null)]), 0..6),
        selectors in prop::collection::vec(selector(), 1..12),
        descending: bool,
        size in 1..6_usize,
    ) {
        let options = Options { engine: EngineKind::Memory, ..Options::default() };
        let database = create_db(Path::new("/"), &"notes".parse().unwrap(), &options).unwrap();
        let shapes: [&[&str]; 8] =
            [&["a"], &["b"], &["a", "b"], &["b", "a"], &["a", "b", "c"], &["a.x"], &["_id", "a"], &["a", "_id"]];
        for (number, fields) in shapes.iter().enumerate() {
            define(&database, &format!("i{number}"), fields, None);
        }
        for (id, body) in &documents {
            put(&database, id, body);
        }
        for round in 0..2 {
            for json in &selectors {
                let mut asked = query(json, &[]);
                asked.descending = descending;
                let wanted = scanned(&database, &asked.selector);
                // Each index that can answer, also those that would not be chosen.
                for hint in (0..shapes.len()).map(|number| format!("_design/i{number}")) {
                    asked.hint = Some(Hint { ddoc: hint.parse().unwrap(), name: None });
                    let (ids, name) = found(&database, &asked, size);
                    let set: BTreeSet<String> = ids.iter().cloned().collect();
                    prop_assert_eq!(set.len(), ids.len(), "{} is told twice by {}", json, name);
                    prop_assert_eq!(&set, &wanted, "{} by {} in round {}", json, name, round);
                }
                asked.hint = None;
                asked.sort = vec![FieldPath::parse("a"), FieldPath::parse("b")];
                if let Ok(plan) = database.find_plan(&asked).unwrap() {
                    let keys = |id: &String| -> Vec<Value> {
                        let document = whole(&database.open_doc(&id.parse().unwrap()).unwrap().unwrap());
                        asked.sort.iter().map(|path| path.find(&document).unwrap().clone()).collect()
                    };
                    let ids = found(&database, &asked, size).0;
                    for (one, next) in ids.iter().zip(ids.iter().skip(1)) {
                        let order = collate::compare(&Value::from(keys(one)), &Value::from(keys(next)));
                        let order = if descending { order.reverse() } else { order };
                        prop_assert!(order.is_le(), "{} by {}: {one} before {next}", json, plan.index.name);
                    }
                }
            }
            for (id, body) in &later {
                let is_there = database.open_doc(&id.parse().unwrap()).unwrap().is_some_and(|doc| !doc.deleted);
                if *body != Value::Null || is_there {
                    put(&database, id, body);
                }
            }
        }
    }
}
