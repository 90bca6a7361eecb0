//! `_find`, `_explain` and `_index` over HTTP: which index answers, what is told of it, and that an index goes where documents go.

use serde_json::{Value, json};

use super::{Couch, outcome};

const NO_INDEX: &str = "No matching index found, create an index to optimize query time.";

/// Whether an answer warns that no index was used.
fn is_scan(answer: &Value) -> bool {
    answer["warning"]
        .as_str()
        .is_some_and(|warning| warning.starts_with(NO_INDEX))
}

impl Couch {
    fn asked(&self, target: &str, body: &Value) -> Value {
        let reply = self.send("POST", &format!("/db/notes/{target}"), Some(&body.to_string()));
        assert!(reply.status < 300, "{target} {body}: {}", reply.text());
        reply.json()
    }

    /// The ids that are found.
    fn found(&self, query: &Value) -> Vec<String> {
        let docs = self.asked("_find", query)["docs"].clone();
        let docs = docs.as_array().unwrap().iter();
        docs.map(|doc| doc["_id"].as_str().unwrap().to_owned()).collect()
    }

    /// Documents `000`… with `n` as their number and `team` as its last digit.
    fn fill(&self, count: u32) {
        let docs: Vec<Value> = (0..count)
            .map(|n| json!({"_id": format!("{n:03}"), "n": n, "team": format!("t{}", n % 10)}))
            .collect();
        self.asked("_bulk_docs", &json!({"docs": docs}));
    }
}

#[test]
fn an_index_answers_in_its_order_and_without_a_warning() {
    let couch = Couch::new();
    couch.fill(30);
    let query = json!({"selector": {"team": "t3", "n": {"$gt": 3}}, "fields": ["_id", "n"]});
    let scanned = couch.asked("_find", &query);
    assert!(is_scan(&scanned), "{scanned}");
    let made = couch.asked(
        "_index",
        &json!({"index": {"fields": ["team", "n"]}, "name": "teams", "ddoc": "teams"}),
    );
    assert_eq!(
        made,
        json!({"result": "created", "id": "_design/teams", "name": "teams"})
    );
    let again = couch.asked(
        "_index",
        &json!({"index": {"fields": ["team", "n"]}, "name": "teams", "ddoc": "teams"}),
    );
    assert_eq!(again["result"], "exists");
    let found = couch.asked("_find", &query);
    assert_eq!(
        found["docs"],
        json!([{"_id": "013", "n": 13}, {"_id": "023", "n": 23}])
    );
    assert_eq!(found["docs"], scanned["docs"]);
    assert_eq!(found["warning"], Value::Null);
    let sorted = json!({"selector": {"team": {"$gte": "t8"}}, "sort": [{"team": "desc"}, {"n": "desc"}]});
    assert_eq!(couch.found(&sorted), ["029", "019", "009", "028", "018", "008"]);
    let constant = json!({"selector": {"team": "t5"}, "sort": ["n"]});
    assert_eq!(couch.found(&constant), ["005", "015", "025"]);
    // What changes is found at once.
    let rev = couch.send("GET", "/db/notes/013", None).json()["_rev"].clone();
    assert_eq!(
        couch
            .put("013", &json!({"_rev": rev, "team": "t5", "n": 7}).to_string())
            .status,
        201
    );
    assert_eq!(couch.found(&constant), ["005", "013", "015", "025"]);
    assert_eq!(couch.found(&query), ["023"]);
    assert_eq!(
        couch
            .send("DELETE", "/db/notes/_index/teams/json/teams", None)
            .json(),
        json!({"ok": true})
    );
    assert!(is_scan(&couch.asked("_find", &query)));
    let reply = couch.send("POST", "/db/notes/_find", Some(&sorted.to_string()));
    assert_eq!(outcome(&reply), (400, "no_usable_index".to_owned()));
}

#[test]
fn what_is_explained_is_what_couchdb_explains() {
    let couch = Couch::new();
    couch.asked(
        "_index",
        &json!({"index": {"fields": ["b", "a"]}, "name": "ba", "ddoc": "ba"}),
    );
    let query = json!({"selector": {"b": {"$gte": 2}, "a": 1}, "fields": ["a", "_id"], "limit": 3, "sort": [{"b": "desc"}]});
    let explained = couch.asked("_explain", &query);
    let def = json!({"fields": [{"b": "asc"}, {"a": "asc"}]});
    assert_eq!(
        explained["index"],
        json!({"ddoc": "_design/ba", "name": "ba", "type": "json", "partitioned": false, "def": def})
    );
    assert_eq!(explained["covering"], true);
    let args = &explained["mrargs"];
    assert_eq!(
        (&args["start_key"], &args["end_key"]),
        (&json!(["<MAX>"]), &json!([2, 1]))
    );
    assert_eq!(
        (&args["direction"], &args["include_docs"]),
        (&json!("rev"), &json!(false))
    );
    assert_eq!(explained["opts"]["sort"], json!({"b": "desc"}));
    assert_eq!(
        (&explained["dbname"], &explained["limit"]),
        (&json!("notes"), &json!(3))
    );
    let scan = couch.asked("_explain", &json!({"selector": {"c": 1}}));
    assert_eq!(
        (&scan["index"]["name"], &scan["covering"]),
        (&json!("_all_docs"), &json!(false))
    );
    let candidates = |explained: &Value| -> Vec<Value> {
        let told = explained["index_candidates"].as_array().unwrap().iter();
        told.map(|one| json!([one["index"]["name"], one["analysis"]]))
            .collect()
    };
    let analysis = |usable: bool, reason: &str, ranking: u32, covering: Value| json!({"usable": usable, "reasons": [{"name": reason}], "ranking": ranking, "covering": covering});
    assert_eq!(
        candidates(&explained),
        [json!([
            "_all_docs",
            analysis(false, "sort_order_mismatch", 1, Value::Null)
        ])]
    );
    assert_eq!(
        candidates(&scan),
        [json!(["ba", analysis(false, "field_mismatch", 1, json!(false))])]
    );
    let none = couch.asked("_explain", &json!({"selector": {"c": 1}, "sort": ["c"]}));
    assert_eq!(candidates(&none).len(), 2);
    assert_eq!(none["index"], Value::Null);
}

#[test]
fn answers_go_on_where_they_ended_and_may_be_long() {
    let couch = Couch::new();
    couch.asked("_index", &json!({"index": {"fields": ["n"]}}));
    for _ in 0..2 {
        couch.asked(
            "_bulk_docs",
            &json!({"docs": (0..1250).map(|n| json!({"n": n})).collect::<Vec<_>>()}),
        );
    }
    for selector in [json!({"n": {"$gte": 0}}), json!({"_id": {"$gt": null}})] {
        let all = couch.found(&json!({"selector": selector, "limit": 100_000}));
        assert_eq!(all.len(), 2500);
        let mut told = Vec::new();
        let mut bookmark = Value::Null;
        loop {
            let query = json!({"selector": selector, "limit": 700, "bookmark": bookmark});
            let page = couch.asked("_find", &query);
            let docs = page["docs"].as_array().unwrap();
            told.extend(docs.iter().map(|doc| doc["_id"].as_str().unwrap().to_owned()));
            assert!(docs.is_empty() || page["bookmark"] != bookmark);
            bookmark = page["bookmark"].clone();
            if docs.is_empty() {
                break;
            }
        }
        assert_eq!(told, all);
        let skipped = couch.found(&json!({"selector": selector, "limit": 3, "skip": 2000}));
        assert_eq!(skipped, all[2000..2003]);
        assert_eq!(
            couch.found(&json!({"selector": selector, "limit": 0})),
            Vec::<String>::new()
        );
    }
    let stats = json!({"selector": {"n": {"$gte": 1249}}, "execution_stats": true});
    let stats = couch.asked("_find", &stats)["execution_stats"].clone();
    assert_eq!(
        (&stats["total_keys_examined"], &stats["results_returned"]),
        (&json!(2), &json!(2))
    );
    let few = couch.asked(
        "_find",
        &json!({"selector": {"n": {"$gte": 0}, "x": {"$exists": false}, "m": 1}}),
    );
    assert!(
        few["warning"]
            .as_str()
            .unwrap()
            .contains("in proportion to the number of results"),
        "{few}"
    );
}

#[test]
fn an_index_is_used_where_it_is_named() {
    let couch = Couch::new();
    couch.fill(20);
    let filter = json!({"n": {"$lt": 10}});
    let partial =
        json!({"index": {"fields": ["team"], "partial_filter_selector": filter}, "ddoc": "few", "name": "i"});
    couch.asked("_index", &partial);
    let mut query = json!({"selector": {"team": "t1"}});
    assert!(is_scan(&couch.asked("_find", &query)));
    for named in [
        json!("few"),
        json!("_design/few"),
        json!(["few", "i"]),
        json!("few/i"),
    ] {
        query["use_index"] = named;
        assert_eq!(couch.found(&query), ["001"], "{query}");
    }
    query["use_index"] = json!("other");
    let warning = couch.asked("_find", &query)["warning"].clone();
    let wanted = "_design/other was not used because it does not contain a valid index for this query.";
    assert!(warning.as_str().unwrap().starts_with(wanted), "{warning}");
    query["allow_fallback"] = json!(false);
    let reply = couch.send("POST", "/db/notes/_find", Some(&query.to_string()));
    assert_eq!(outcome(&reply), (400, "invalid_index".to_owned()));
}

#[test]
fn an_index_goes_where_its_design_document_goes() {
    let couch = Couch::new();
    couch.fill(10);
    // The order of the fields is no order of letters, so that a document that lost it would be another index.
    couch.asked(
        "_index",
        &json!({"index": {"fields": ["team", "n"]}, "ddoc": "d", "name": "i"}),
    );
    let design = couch.send("GET", "/db/notes/_design/d", None);
    assert!(
        design.text().contains(r#""fields":{"team":"asc","n":"asc"}"#),
        "{}",
        design.text()
    );
    couch.asked(
        "_index",
        &json!({"index": {"fields": ["n"]}, "ddoc": "d", "name": "j"}),
    );
    let design = couch.send("GET", "/db/notes/_design/d?revs=true", None);
    assert!(
        design.text().contains(r#""fields":{"team":"asc","n":"asc"}"#),
        "{}",
        design.text()
    );
    assert_eq!(couch.send("PUT", "/db/other", None).status, 201);
    let body = format!(
        "{{\"new_edits\":false,\"docs\":[{},{}]}}",
        design.text(),
        json!({"_id": "a", "_rev": "1-a", "team": "t", "n": 1})
    );
    assert_eq!(
        couch.send("POST", "/db/other/_bulk_docs", Some(&body)).json(),
        json!([])
    );
    let query = json!({"selector": {"team": "t"}, "sort": ["team", "n"]}).to_string();
    let found = couch.send("POST", "/db/other/_find", Some(&query)).json();
    assert_eq!(
        (&found["docs"][0]["_id"], &found["warning"]),
        (&json!("a"), &Value::Null)
    );
    let indexes = couch.send("GET", "/db/other/_index?limit=2&skip=1", None).json();
    assert_eq!(
        (
            &indexes["total_rows"],
            indexes["indexes"].as_array().map(Vec::len)
        ),
        (&json!(3), Some(2))
    );
    let gone = couch
        .send(
            "POST",
            "/db/other/_index/_bulk_delete",
            Some(r#"{"docids":["d","e"]}"#),
        )
        .json();
    assert_eq!(gone["fail"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        couch
            .send("DELETE", "/db/other/_index/_design/d/json/j", None)
            .status,
        200
    );
    let gone = couch
        .send(
            "POST",
            "/db/other/_index/_bulk_delete",
            Some(r#"{"docids":["d"]}"#),
        )
        .json();
    assert_eq!(gone["success"], json!([{"id": "_design/d", "ok": true}]));
    assert_eq!(couch.send("GET", "/db/other/_design/d", None).status, 404);
}

#[test]
fn what_is_no_query_and_no_index_is_told_in_couchdbs_words() {
    let couch = Couch::new();
    for (target, body, code) in [
        ("_find", json!([]), "bad_request"),
        ("_find", json!({}), "missing_required_key"),
        ("_find", json!({"selector": 1}), "invalid_selector_json"),
        ("_find", json!({"selector": {"a": {"$x": 1}}}), "invalid_operator"),
        (
            "_find",
            json!({"selector": {}, "limit": -1}),
            "invalid_non_neg_integer",
        ),
        (
            "_find",
            json!({"selector": {}, "skip": "1"}),
            "invalid_non_neg_integer",
        ),
        ("_find", json!({"selector": {}, "sort": "a"}), "invalid_sort_json"),
        (
            "_find",
            json!({"selector": {}, "sort": [1]}),
            "invalid_sort_field",
        ),
        (
            "_find",
            json!({"selector": {}, "sort": [{"a": "up"}]}),
            "invalid_sort_dir",
        ),
        (
            "_find",
            json!({"selector": {}, "sort": ["a", {"b": "desc"}]}),
            "unsupported_mixed_sort",
        ),
        ("_find", json!({"selector": {}, "fields": "a"}), "invalid_fields"),
        ("_find", json!({"selector": {}, "fields": [1]}), "invalid_field"),
        (
            "_find",
            json!({"selector": {}, "use_index": 1}),
            "invalid_index_name",
        ),
        (
            "_find",
            json!({"selector": {}, "bookmark": "!"}),
            "invalid_bookmark",
        ),
        (
            "_find",
            json!({"selector": {}, "conflicts": 1}),
            "invalid_boolean",
        ),
        ("_find", json!({"selector": {}, "unknown": 1}), "invalid_key"),
        ("_find", json!({"selector": {}, "partition": "p"}), "bad_request"),
        ("_index", json!({}), "invalid_index"),
        ("_index", json!({"index": 1}), "invalid_index"),
        ("_index", json!({"index": {}}), "missing_required_key"),
        ("_index", json!({"index": {"fields": []}}), "invalid_index"),
        (
            "_index",
            json!({"index": {"fields": ["a", "a"]}}),
            "invalid_index",
        ),
        ("_index", json!({"index": {"fields": [""]}}), "invalid_sort_field"),
        (
            "_index",
            json!({"index": {"fields": ["a"], "x": 1}}),
            "invalid_key",
        ),
        (
            "_index",
            json!({"index": {"fields": ["a"]}, "type": "x"}),
            "invalid_index",
        ),
        (
            "_index",
            json!({"index": {"fields": ["a"], "partial_filter_selector": 1}}),
            "invalid_selector_json",
        ),
        (
            "_index",
            json!({"index": {"fields": ["a", {"b": "desc"}]}}),
            "unsupported_mixed_sort",
        ),
    ] {
        let reply = couch.send("POST", &format!("/db/notes/{target}"), Some(&body.to_string()));
        assert_eq!(
            outcome(&reply),
            (400, code.to_owned()),
            "{target} {body}: {}",
            reply.text()
        );
    }
    let text = json!({"index": {"fields": ["a"]}, "type": "text"}).to_string();
    assert_eq!(couch.send("POST", "/db/notes/_index", Some(&text)).status, 501);
    couch.put("_design/js", r#"{"language":"javascript"}"#);
    let into = json!({"index": {"fields": ["a"]}, "ddoc": "js"}).to_string();
    assert_eq!(
        outcome(&couch.send("POST", "/db/notes/_index", Some(&into))),
        (400, "invalid_ddoc_lang".to_owned())
    );
}

#[test]
fn a_design_document_tells_of_its_indexes() {
    let couch = Couch::new();
    let info = |design: &str| couch.send("GET", &format!("/db/notes/_design/{design}/_info"), None);
    assert_eq!(outcome(&info("teams")), (404, "not_found".to_owned()));
    couch.fill(10);
    couch.asked(
        "_index",
        &json!({"index": {"fields": ["team"]}, "name": "teams", "ddoc": "teams"}),
    );
    let before = info("teams").json();
    assert_eq!(
        (&before["name"], &before["view_index"]["language"]),
        (&json!("teams"), &json!("query"))
    );
    assert_eq!(
        (
            &before["view_index"]["update_seq"],
            &before["view_index"]["updates_pending"]["total"]
        ),
        (&json!(0), &json!(11))
    );
    couch.found(&json!({"selector": {"team": "t3"}}));
    let after = info("teams").json();
    assert_eq!(
        (
            &after["view_index"]["update_seq"],
            &after["view_index"]["updates_pending"]["total"]
        ),
        (&json!(11), &json!(0))
    );
    assert!(after["view_index"]["sizes"]["active"].as_u64().unwrap() > 0);
    assert_eq!(
        before["view_index"]["signature"],
        after["view_index"]["signature"]
    );
    let views = r#"{"views":{"all":{"map":"function(doc) { emit(1) }"}}}"#;
    assert_eq!(couch.put("_design/js", views).status, 201);
    assert_eq!(info("js").json()["view_index"]["language"], "javascript");
}
