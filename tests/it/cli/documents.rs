//! `refuge db`: databases and documents of a data folder, without a server, and of a running node; replicated between them.

use std::collections::BTreeMap;

use refuge::blanket::{Body, Edit};
use serde_json::{Value, json};

use super::Desk;
use crate::support::Node;

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn document(desk: &Desk, id: &str) -> Value {
    serde_json::from_str(&desk.here(["db", "get", "notes", id]).done()).unwrap()
}

#[test]
fn a_document_is_written_read_changed_and_deleted() {
    let desk = Desk::new();
    desk.here(["db", "create", "notes"]).done();
    let file = desk.write("milk.json", " {\"title\": \"Milk\", \"n\": 1.50}");
    let file = file.to_str().unwrap();
    let first = desk.here(["db", "put", "notes", "milk", file]).done();
    let text = desk.here(["db", "get", "notes", "milk"]).done();
    assert_eq!(
        text,
        format!("{{\"_id\":\"milk\",\"_rev\":\"{first}\",\"title\": \"Milk\", \"n\": 1.50}}")
    );
    desk.here(["db", "put", "notes", "milk", file])
        .refused(1, "--rev");
    // What was printed can be edited and given back.
    let mut changed = document(&desk, "milk");
    changed["title"] = json!("Bread");
    let file = desk.write("bread.json", changed.to_string());
    let second = desk
        .here(["db", "put", "notes", "milk", file.to_str().unwrap()])
        .done();
    assert!(second.starts_with("2-"), "{second}");
    assert_eq!(document(&desk, "milk")["title"], "Bread");
    let gone = desk.here(["db", "rm", "notes", "milk"]).done();
    assert!(gone.starts_with("3-"), "{gone}");
    desk.here(["db", "get", "notes", "milk"]).refused(3, "milk");
    desk.here(["db", "rm", "notes", "milk"]).refused(3, "milk");
    let deleted = desk.here(["db", "get", "notes", "milk", "--rev", &gone]).done();
    assert_eq!(
        deleted,
        format!("{{\"_id\":\"milk\",\"_rev\":\"{gone}\",\"_deleted\":true}}")
    );
    let found = lines(&desk.here(["db", "changes", "notes", "--json"]).done());
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["id"], &found[0]["deleted"]),
        (&json!("milk"), &json!(true))
    );
    assert_eq!(found[0]["changes"], json!([{"rev": gone}]));
    let last = found[0]["seq"].as_str().unwrap();
    assert_eq!(desk.here(["db", "changes", "notes", "--since", last]).done(), "");
}

#[test]
fn databases_are_listed_copied_compacted_and_deleted() {
    let desk = Desk::new();
    desk.here(["db", "create", "notes", "--revs-limit", "20"]).done();
    desk.here(["db", "create", "notes"]).refused(1, "notes");
    for n in 0..3 {
        let file = desk.write("doc.json", json!({ "n": n }).to_string());
        desk.here(["db", "put", "notes", &format!("doc{n}"), file.to_str().unwrap()])
            .done();
    }
    let copied = desk.here(["db", "copy", "notes", "old/notes", "--json"]).done();
    assert_eq!(lines(&copied), [json!({ "docs": 3 })]);
    let ids = |db: &str| -> Vec<Value> {
        lines(&desk.here(["db", "ls", db, "--json"]).done())
            .iter()
            .map(|row| row["id"].clone())
            .collect()
    };
    assert_eq!(ids("old/notes"), ["doc0", "doc1", "doc2"]);
    let found = lines(&desk.here(["db", "ls", "--json"]).done());
    let counts: Vec<(&str, u64, &str)> = found
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap();
            (text("name"), line["docs"].as_u64().unwrap(), text("engine"))
        })
        .collect();
    assert_eq!(counts, [("notes", 3, "sqlite"), ("old/notes", 3, "sqlite")]);
    desk.here(["db", "compact", "notes"]).done();
    assert_eq!(ids("notes").len(), 3);
    desk.here(["db", "rm", "notes"]).refused(2, "--not-empty");
    desk.here(["db", "rm", "notes", "--not-empty"]).done();
    desk.here(["db", "ls", "notes"]).refused(3, "notes");
    assert_eq!(ids("old/notes").len(), 3);
}

#[test]
fn what_is_no_document_and_no_database_is_refused_by_reason() {
    let desk = Desk::new();
    desk.here(["db", "ls"]).refused(3, "data");
    desk.here(["db", "create", "notes", "--engine", "access"])
        .refused(2, "access");
    desk.here(["db", "create", "Notes"]).refused(2, "lower-case");
    desk.here(["db", "create", "notes"]).done();
    let put = |json: &str| {
        let file = desk.write("doc.json", json);
        desk.here(["db", "put", "notes", "a", file.to_str().unwrap()])
    };
    put("{\"a\":1").refused(2, "invalid JSON");
    put("[1]").refused(2, "object");
    put("{\"a\":1,\"a\":2}").refused(2, "twice");
    put("{\"_strange\":1}").refused(2, "_strange");
    put("{\"_id\":\"b\"}").refused(2, "_id");
    put("{\"_rev\":\"x\"}").refused(2, "revision");
    put("{\"_attachments\":{\"a\":{\"data\":\"\"}}}").refused(2, "stub");
    put("{\"_attachments\":{\"a\":{\"stub\":true}}}").refused(2, "\"a\"");
    put(&"[".repeat(100)).refused(2, "deep");
    desk.here(["db", "get", "nothing", "a"]).refused(3, "nothing");
    desk.here(["db", "get", "notes", "_local/a"])
        .refused(2, "underscore");
    desk.here(["db", "changes", "notes", "--since", "soon"])
        .refused(2, "sequence");
    assert_eq!(desk.here(["db", "ls", "notes"]).done(), "");
}

#[test]
fn a_database_is_replicated_to_a_node_and_back_and_between_two_of_a_folder() {
    let desk = Desk::new();
    desk.here(["db", "create", "notes"]).done();
    for n in 0..5 {
        let file = desk.write("doc.json", json!({ "n": n }).to_string());
        desk.here(["db", "put", "notes", &format!("doc{n}"), file.to_str().unwrap()])
            .done();
    }
    let replicated = |arguments: &[&str]| -> Value {
        let all = ["db", "replicate"].iter().chain(arguments).chain(&["--json"]);
        serde_json::from_str(&desk.here(all).done()).unwrap()
    };
    let copied = replicated(&["notes", "copy", "--create-target", "--doc-ids", "doc1,doc3"]);
    assert_eq!(copied["docs_written"], 2);
    let node = Node::start(&desk.path("far")).unwrap();
    let url = super::https(&node);
    desk.run(["claim", &url, node.ready.claim_code.as_deref().unwrap()])
        .done();
    let far = format!("{url}/db/notes");
    // The node is known from the claim: who it must be, and the token that opens it.
    assert_eq!(replicated(&["notes", &far, "--create-target"])["docs_written"], 5);
    assert_eq!(replicated(&["notes", &far])["docs_written"], 0);
    let file = desk.write(
        "doc.json",
        json!({"_rev": document(&desk, "doc0")["_rev"], "n": 9}).to_string(),
    );
    desk.here(["db", "put", "notes", "doc0", file.to_str().unwrap()])
        .done();
    let some = replicated(&[
        &far,
        "chosen",
        "--create-target",
        "--selector",
        "{\"n\": {\"$gt\": 2}}",
    ]);
    assert_eq!(some["docs_written"], 2);
    assert_eq!(replicated(&["notes", &far])["docs_written"], 1);
    desk.here(["db", "replicate", "none", &far]).refused(3, "none");
    desk.here(["db", "replicate", "notes", "Notes"])
        .refused(2, "target");
    desk.here(["db", "replicate", "notes", "copy", "--selector", "{"])
        .refused(2, "--selector");
    // Secrets of the folder: put, listed by name alone, removed.
    let file = desk.write("token", "canary-token\n");
    desk.here(["db", "secret", "put", "friend", file.to_str().unwrap()])
        .done();
    assert_eq!(desk.here(["db", "secret", "ls"]).done(), "friend");
    desk.here(["db", "secret", "rm", "friend"]).done();
    desk.here(["db", "secret", "rm", "friend"]).refused(3, "friend");
    // A running node replicates when it is asked to, and keeps secrets when it is told them.
    desk.run([
        "db",
        "secret",
        "put",
        "friend",
        file.to_str().unwrap(),
        "--node",
        &url,
    ])
    .done();
    assert_eq!(desk.run(["db", "secret", "ls", "--node", &url]).done(), "friend");
    let asked = [
        "db",
        "replicate",
        "notes",
        "there",
        "--create-target",
        "--node",
        &url,
        "--json",
    ];
    let there: Value = serde_json::from_str(&desk.run(asked).done()).unwrap();
    assert_eq!(there["docs_written"], 5);
    let asked = [
        "db",
        "replicate",
        "notes",
        "there",
        "--continuous",
        "--node",
        &url,
    ];
    assert!(desk.run(asked).done().ends_with("+continuous"));
    let asked = [
        "db",
        "replicate",
        "notes",
        "there",
        "--continuous",
        "--cancel",
        "--node",
        &url,
    ];
    assert!(desk.run(asked).done().ends_with("+continuous"));
}

#[test]
fn a_running_node_is_asked_as_a_data_folder_is() {
    let desk = Desk::new();
    desk.here(["db", "create", "many"]).done();
    let ids: Vec<String> = (0..600).map(|number| format!("doc{number:03}")).collect();
    let many = refuge::blanket::open_db(&desk.data().join("databases"), &"many".parse().unwrap()).unwrap();
    let edit = |id: &String| Edit::New {
        id: id.parse().unwrap(),
        parent: None,
        deleted: false,
        body: Body::default(),
        attachments: BTreeMap::new(),
    };
    many.save_docs(ids.iter().map(edit).collect()).unwrap();
    drop(many);
    let node = desk.claimed_node();
    let uuid = desk
        .run(["db", "create", "old/notes", "--revs-limit", "20"])
        .done();
    assert_eq!(uuid.len(), 16, "{uuid}");
    desk.run(["db", "create", "old/notes"]).refused(1, "exist");
    let file = desk.write("milk.json", " {\"title\": \"Milk\", \"n\": 1.50}");
    let file = file.to_str().unwrap();
    let strange = "m i/l?k&é";
    let first = desk.run(["db", "put", "old/notes", strange, file]).done();
    let text = desk.run(["db", "get", "old/notes", strange]).done();
    let expected = format!("{{\"_id\":\"{strange}\",\"_rev\":\"{first}\",\"title\":\"Milk\",\"n\":1.50}}");
    assert_eq!(text, expected);
    desk.run(["db", "put", "old/notes", strange, file])
        .refused(1, "--rev");
    let second = desk
        .run(["db", "put", "old/notes", strange, file, "--rev", &first])
        .done();
    desk.run(["db", "put", "old/notes", "_design/x", file]).done();
    let gone = desk.run(["db", "rm", "old/notes", strange]).done();
    assert!(gone.starts_with("3-"), "{gone} after {second}");
    desk.run(["db", "get", "old/notes", strange]).refused(3, strange);
    desk.run(["db", "rm", "old/notes", strange]).refused(3, strange);
    let deleted = desk
        .run(["db", "get", "old/notes", strange, "--rev", &gone])
        .done();
    assert!(deleted.contains("\"_deleted\":true"), "{deleted}");
    assert!(
        desk.run(["db", "get", "old/notes", "_design/x"])
            .done()
            .contains("Milk")
    );

    // More rows than one answer has.
    let listed = lines(&desk.run(["db", "ls", "many", "--json"]).done());
    let listed: Vec<&str> = listed.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids);
    let changed = lines(&desk.run(["db", "changes", "many", "--json"]).done());
    assert_eq!(changed.len(), ids.len());
    let since = changed[300]["seq"].as_str().unwrap();
    let rest = desk
        .run(["db", "changes", "many", "--json", "--since", since])
        .done();
    assert_eq!(lines(&rest), changed[301..]);
    let some = desk
        .run(["db", "changes", "many", "--json", "--limit", "3"])
        .done();
    assert_eq!(lines(&some), changed[..3]);
    let changed = lines(&desk.run(["db", "changes", "old/notes", "--json"]).done());
    assert_eq!(
        (&changed[1]["deleted"], &changed[1]["id"]),
        (&json!(true), &json!(strange))
    );

    let info = lines(&desk.run(["db", "info", "old/notes", "--json"]).done());
    assert_eq!(
        (&info[0]["docs"], &info[0]["deleted_docs"]),
        (&json!(1), &json!(1))
    );
    let all = lines(&desk.run(["db", "ls", "--json"]).done());
    let names: Vec<&str> = all.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["many", "old/notes"]);
    assert_eq!(all[0]["engine"], "sqlite");
    desk.run(["db", "compact", "old/notes"]).done();
    desk.run(["db", "rm", "old/notes"]).refused(2, "--not-empty");
    // What it does is also there without it.
    let before = desk.run(["db", "ls", "old/notes"]).done();
    drop(node);
    assert_eq!(desk.here(["db", "ls", "old/notes"]).done(), before);
    assert_eq!(
        lines(&desk.here(["db", "info", "old/notes", "--json"]).done())[0]["docs"],
        json!(1)
    );
}

#[test]
fn what_a_node_refuses_is_refused_by_reason() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    desk.run(["db", "create", "notes"]).done();
    let put = |json: &str| {
        let file = desk.write("doc.json", json);
        desk.run(["db", "put", "notes", "a", file.to_str().unwrap()])
    };
    put("{\"a\":1").refused(2, "invalid JSON");
    put("{\"_rev\":\"x\"}").refused(2, "revision");
    put("{\"_attachments\":{\"a\":{\"stub\":true}}}").refused(2, "stub in a");
    desk.run(["db", "get", "nothing", "a"])
        .refused(3, "Database does not exist");
    desk.run(["db", "changes", "notes", "--since", "soon"])
        .refused(2, "sequence");
    desk.run(["db", "copy", "notes", "other"])
        .refused(2, "data folder");
    desk.run(["db", "create", "other", "--store", "attic"])
        .refused(3, "attic");
    desk.run(["db", "rm", "notes"]).done();
    desk.run(["db", "info", "notes"])
        .refused(3, "Database does not exist");
    drop(node);
}

#[test]
fn an_engine_that_is_not_built_in_is_refused_by_name() {
    let over = Desk::new();
    let node = over.claimed_node();
    for (engine, is_built_in) in [
        ("lsm", cfg!(feature = "lsm")),
        ("leveldb", cfg!(feature = "leveldb")),
        ("couchdb", cfg!(feature = "couchdb")),
    ] {
        let created = over.run(["db", "create", engine, "--engine", engine]);
        match is_built_in {
            true if engine == "couchdb" => created.refused(2, "URL of a server"),
            true => drop(created.done()),
            false => created.refused(2, &format!("the engine {engine} is not built in")),
        }
    }
    drop(node);
    let desk = Desk::new();
    for (engine, is_built_in) in [
        ("lsm", cfg!(feature = "lsm")),
        ("leveldb", cfg!(feature = "leveldb")),
    ] {
        let created = desk.here(["db", "create", engine, "--engine", engine]);
        if !is_built_in {
            created.refused(2, &format!("the engine {engine} is not built in"));
            continue;
        }
        created.done();
        let file = desk.write("doc.json", "{\"a\":1}");
        desk.here(["db", "put", engine, "a", file.to_str().unwrap()])
            .done();
        let found = lines(&desk.here(["db", "ls", "--json"]).done());
        assert!(found.iter().any(|line| line["engine"] == engine), "{found:?}");
        desk.here(["db", "compact", engine]).done();
        let copy = format!("copy-of-{engine}");
        desk.here(["db", "copy", engine, &copy]).done();
        assert!(desk.here(["db", "get", &copy, "a"]).done().contains("\"a\":1"));
    }
}

#[test]
fn documents_are_found_alike_in_a_folder_and_on_a_node() {
    let desk = Desk::new();
    desk.here(["db", "create", "notes"]).done();
    let design = json!({"language": "query", "views": {"n": {
        "map": {"fields": {"n": "asc"}}, "reduce": "_count", "options": {"def": {"fields": ["n"]}}}}});
    let put = |id: &str, json: &Value| {
        let file = desk.write("doc.json", json.to_string());
        desk.here(["db", "put", "notes", id, file.to_str().unwrap()])
            .done();
    };
    put("_design/n", &design);
    for n in 0..7 {
        put(
            &format!("doc{n}"),
            &json!({"n": n, "even": n % 2 == 0, "in": {"a": n, "b": 1}}),
        );
    }
    let searches: [(&[&str], Value); 4] = [
        (
            &["{\"n\": {\"$gt\": 4}}", "--fields", "_id"],
            json!([{"_id": "doc5"}, {"_id": "doc6"}]),
        ),
        (
            &[
                "{\"n\": {\"$lt\": 4}, \"even\": true}",
                "--fields",
                "n,in.a",
                "--sort",
                "n",
                "--descending",
            ],
            json!([{"n": 2, "in": {"a": 2}}, {"n": 0, "in": {"a": 0}}]),
        ),
        (
            &["{\"even\": true}", "--fields", "n", "--limit", "2"],
            json!([{"n": 0}, {"n": 2}]),
        ),
        (&["{\"n\": \"none\"}"], json!([])),
    ];
    let unsorted = ["db", "find", "notes", "{}", "--sort", "even"];
    let find = |search: &[&str]| -> Vec<String> {
        let all = ["db", "find", "notes"].iter().chain(search);
        all.map(|word| (*word).to_owned()).collect()
    };
    let here: Vec<String> = searches
        .iter()
        .map(|(search, _)| desk.here(find(search)).done())
        .collect();
    for (found, (_, wanted)) in here.iter().zip(&searches) {
        assert_eq!(json!(lines(found)), *wanted);
    }
    desk.here(unsorted).refused(2, "index");
    desk.here(["db", "find", "notes", "{"]).refused(2, "JSON");
    desk.here(["db", "find", "notes", "{\"a\": {\"$strange\": 1}}"])
        .refused(2, "$strange");
    desk.here(["db", "find", "none", "{}"]).refused(3, "none");
    let node = desk.claimed_node();
    for (found, (search, _)) in here.iter().zip(&searches) {
        assert_eq!(desk.run(find(search)).done(), *found);
    }
    desk.run(unsorted).refused(2, "No index exists");
    desk.run(["db", "find", "none", "{}"])
        .refused(3, "Database does not exist");
    drop(node);
}

#[cfg(feature = "couchdb")]
#[test]
fn a_database_is_kept_on_another_node_and_copied_back() {
    let desk = Desk::new();
    let node = Node::start(&desk.path("far")).unwrap();
    let url = super::https(&node);
    desk.run(["claim", &url, node.ready.claim_code.as_deref().unwrap()])
        .done();
    let scopes = ["--scope", "read", "--scope", "write", "--scope", "admin"];
    let add = ["token", "add", "rows", "--node", &url];
    let token = desk.run(add.iter().chain(&scopes)).done();
    let file = desk.write("token", token);
    let secret = ["db", "secret", "put", "far", file.to_str().unwrap()];
    desk.here(["db", "create", "notes"]).done();
    desk.here(secret).done();
    let file = desk.write("doc.json", json!({"n": 1}).to_string());
    let put = |db: &str, id: &str| desk.here(["db", "put", db, id, file.to_str().unwrap()]);
    put("notes", "a").done();
    let there = format!("{url}/db/rows");
    let place = ["--server", &there, "--server-secret", "far"];
    let engine = ["--engine", "couchdb"];
    // The certificate of a node is its own: it must prove its id.
    let copy = ["db", "copy", "notes", "far"];
    desk.here(copy.iter().chain(&engine).chain(&place)).failed(1);
    let id = ["--server-id", node.ready.node_id.as_str()];
    desk.here(copy.iter().chain(&engine).chain(&place).chain(&id))
        .done();
    put("far", "b").done();
    desk.here(["db", "create", "other", "--engine", "couchdb"])
        .refused(2, "URL of a server");
    desk.here(["db", "create", "other", "--server", &there])
        .refused(2, "engine couchdb");
    let lines = lines(&desk.here(["db", "ls", "--json"]).done());
    let counts: Vec<(&Value, &Value)> = lines
        .iter()
        .map(|line| (&line["engine"], &line["docs"]))
        .collect();
    assert_eq!(
        counts,
        [(&json!("couchdb"), &json!(2)), (&json!("sqlite"), &json!(1))]
    );
    let settings = std::fs::read_to_string(desk.data().join("databases/far/couchdb/server.json")).unwrap();
    assert!(
        settings.contains("\"secret\":\"far\"") && !settings.contains("rft_"),
        "{settings}"
    );
    desk.here(["db", "copy", "far", "back"]).done();
    assert!(desk.here(["db", "get", "back", "b"]).done().contains("\"n\":1"));
    desk.here(["db", "compact", "far"]).done();
    assert!(desk.here(["db", "get", "far", "a"]).done().contains("\"n\":1"));
    drop(node);
    desk.here(["db", "get", "far", "a"]).failed(1);
    assert!(desk.here(["db", "get", "notes", "a"]).done().contains("\"n\":1"));
}
