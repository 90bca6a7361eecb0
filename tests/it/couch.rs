//! CouchDB's API over HTTP: what is refused, and that nothing of it is kept. What is taken is tested with PouchDB (`tests/couch`).

mod find;
pub(crate) mod packed;

use refuge::node::Scope;
use serde_json::{Value, json};

use crate::served::{PASSWORD, Reply, Served};

/// A node with a database, and an app's token for it.
struct Couch {
    served: Served,
    token: String,
}

impl Couch {
    fn new() -> Couch {
        let served = Served::claimed();
        let token = served.token(&[Scope::Read, Scope::Write]);
        let couch = Couch { served, token };
        assert_eq!(couch.send("PUT", "/db/notes", None).status, 201);
        couch
    }

    fn send(&self, method: &str, target: &str, body: Option<&str>) -> Reply {
        let ask = self.served.ask(method, target).bearer(&self.token);
        match body {
            Some(body) => ask.json(body).send(),
            None => ask.send(),
        }
    }

    fn put(&self, id: &str, body: &str) -> Reply {
        self.send("PUT", &format!("/db/notes/{id}"), Some(body))
    }

    fn info(&self) -> Value {
        let mut info = self.send("GET", "/db/notes", None).json();
        info["sizes"] = Value::Null;
        info
    }

    /// Blobs of the main store.
    fn blobs(&self) -> u64 {
        self.served.node.stores().main().status().blobs
    }
}

fn outcome(reply: &Reply) -> (u16, String) {
    (reply.status, reply.code())
}

#[test]
fn a_document_that_is_none_is_refused_and_nothing_of_it_is_kept() {
    let couch = Couch::new();
    let before = couch.info();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(8_000_000));
    for (body, status, code) in [
        ("", 400, "bad_request"),
        ("{", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        ("{\"a\":1}x", 400, "bad_request"),
        ("{\"a\":NaN}", 400, "bad_request"),
        ("{\"a\":1,\"a\":2}", 400, "bad_request"),
        ("{\"a\":1,\"\\u0061\":2}", 400, "bad_request"),
        ("{\"a\":{\"b\":1,\"b\":2}}", 400, "bad_request"),
        ("{\"a\":\"\\ud800\"}", 400, "bad_request"),
        ("{\"a\":1e999}", 400, "bad_request"),
        (deep.as_str(), 400, "bad_request"),
        (large.as_str(), 413, "document_too_large"),
        ("{\"_foo\":1}", 400, "doc_validation"),
        ("{\"_rev\":\"x\"}", 400, "bad_request"),
        ("{\"_rev\":1}", 400, "doc_validation"),
        ("{\"_deleted\":1}", 400, "doc_validation"),
        ("{\"_rev\":\"1-a\"}", 409, "conflict"),
        ("{\"_attachments\":{\"a\":{\"data\":\"!\"}}}", 400, "bad_request"),
        ("{\"_attachments\":{\"a\":{}}}", 412, "missing_stub"),
        ("{\"_attachments\":{\"a\":{\"stub\":true}}}", 412, "missing_stub"),
        (
            "{\"_attachments\":{\"_a\":{\"data\":\"QQ==\"}}}",
            400,
            "bad_request",
        ),
        (
            "{\"_attachments\":{\"a\":{\"follows\":true}}}",
            412,
            "missing_stub",
        ),
    ] {
        let reply = couch.put("doc", body);
        let shown: String = body.chars().take(60).collect();
        assert_eq!(
            outcome(&reply),
            (status, code.to_owned()),
            "{shown}: {}",
            reply.text()
        );
    }
    assert_eq!(couch.info(), before);
    // The data of the one whose name was refused had come by then: it is collected like any part that nobody names.
    assert!(couch.blobs() <= 1);
}

#[test]
fn ids_names_and_revisions_that_are_none_are_refused() {
    let couch = Couch::new();
    for (method, target, status, code) in [
        ("PUT", "/db/Notes".to_owned(), 400, "illegal_database_name"),
        ("PUT", "/db/_notes".to_owned(), 400, "illegal_database_name"),
        ("PUT", "/db/a..b".to_owned(), 400, "illegal_database_name"),
        ("PUT", "/db/notes".to_owned(), 412, "file_exists"),
        ("PUT", "/db/other?engine=none".to_owned(), 400, "bad_request"),
        ("PUT", "/db/other?store=none".to_owned(), 404, "missing"),
        ("GET", "/db/other".to_owned(), 404, "not_found"),
        ("GET", "/db/Other/doc".to_owned(), 404, "not_found"),
        ("GET", "/db/notes/_x".to_owned(), 400, "illegal_docid"),
        (
            "GET",
            format!("/db/notes/{}", "x".repeat(513)),
            400,
            "illegal_docid",
        ),
        ("GET", "/db/notes/doc?rev=x".to_owned(), 400, "bad_request"),
        ("GET", "/db/notes/doc?rev=0-a".to_owned(), 400, "bad_request"),
        (
            "GET",
            "/db/notes/doc?conflicts=maybe".to_owned(),
            400,
            "query_parse_error",
        ),
        (
            "GET",
            "/db/notes/doc?open_revs=x".to_owned(),
            400,
            "query_parse_error",
        ),
        ("GET", "/db/notes/_changes?since=x".to_owned(), 400, "bad_request"),
        (
            "GET",
            "/db/notes/_changes?feed=x".to_owned(),
            400,
            "query_parse_error",
        ),
        (
            "GET",
            "/db/notes/_changes?filter=app/mine".to_owned(),
            501,
            "not_implemented",
        ),
        (
            "GET",
            "/db/notes/_all_docs?limit=-1".to_owned(),
            400,
            "query_parse_error",
        ),
        (
            "GET",
            "/db/notes/_all_docs?startkey=x".to_owned(),
            400,
            "query_parse_error",
        ),
        (
            "GET",
            "/db/notes/_design/a/_view/b".to_owned(),
            501,
            "not_implemented",
        ),
        ("DELETE", "/db/notes".to_owned(), 403, "forbidden"),
        ("POST", "/db/notes/_compact".to_owned(), 403, "forbidden"),
    ] {
        let reply = couch.send(method, &target, None);
        let shown: String = target.chars().take(60).collect();
        assert_eq!(
            outcome(&reply),
            (status, code.to_owned()),
            "{method} {shown}: {}",
            reply.text()
        );
    }
    assert_eq!(couch.send("GET", "/db/_all_dbs", None).json(), json!(["notes"]));
}

#[test]
fn of_a_batch_what_is_wrong_is_told_and_the_rest_is_written() {
    let couch = Couch::new();
    for wrong in [
        "{}",
        "[]",
        "{\"docs\":1}",
        "{\"docs\":[1]}",
        "{\"docs\":[{\"a\":1,\"a\":2}]}",
        "{\"docs\":[{}",
    ] {
        let reply = couch.send("POST", "/db/notes/_bulk_docs", Some(wrong));
        assert_eq!(outcome(&reply), (400, "bad_request".to_owned()), "{wrong}");
    }
    assert_eq!(couch.info()["doc_count"], 0);
    let docs = r#"{"docs":[{"_id":"a"},{"_id":"_b"},{"_id":"c","_rev":"1-a"},{"_id":"a"},
        {"_id":"d","_attachments":{"x":{"data":"aGVsbG8="}}},{"_id":"e","_attachments":{"y":{"stub":true}}}]}"#;
    let reply = couch.send("POST", "/db/notes/_bulk_docs", Some(docs));
    assert_eq!(reply.status, 201);
    let told: Vec<Value> = reply
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.get("error").cloned().unwrap_or_default())
        .collect();
    let wanted = [
        Value::Null,
        json!("illegal_docid"),
        json!("conflict"),
        json!("conflict"),
        Value::Null,
        json!("missing_stub"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(couch.info()["doc_count"], 2);
    // Replicated edits tell of failures alone.
    let docs = r#"{"docs":[{"_id":"f","_rev":"3-c","_revisions":{"start":3,"ids":["c","b","a"]}},{"_id":"g"},
        {"_id":"h","_rev":"2-b","_revisions":{"start":1,"ids":["b","a"]}},
        {"_id":"i","_rev":"1-a","_attachments":{"x":{"data":"aGVsbG8=","digest":"md5-AAAAAAAAAAAAAAAAAAAAAA=="}}}],"new_edits":false}"#;
    let reply = couch.send("POST", "/db/notes/_bulk_docs", Some(docs)).json();
    let told: Vec<&str> = reply
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["error"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["doc_validation", "doc_validation", "content_md5_mismatch"]);
    let kept = couch.send("GET", "/db/notes/f?revs=true", None).json();
    assert_eq!(kept["_revisions"], json!({"start": 3, "ids": ["c", "b", "a"]}));
    assert_eq!(couch.send("GET", "/db/notes/i", None).status, 404);
}

#[test]
fn multipart_goes_in_and_comes_out() {
    let couch = Couch::new();
    let document = r#"{"_id":"m","_attachments":{"one.txt":{"follows":true,"content_type":"text/plain","length":3},"two":{"follows":true,"length":5}}}"#;
    let body = |second: &str| {
        format!(
            "--xx\r\nContent-Type: application/json\r\n\r\n{document}\r\n--xx\r\n\r\none\r\n--xx\r\n\r\n{second}\r\n--xx--"
        )
    };
    let put = |body: String| {
        couch
            .served
            .ask("PUT", "/db/notes/m")
            .bearer(&couch.token)
            .body("multipart/related; boundary=\"xx\"", body)
            .send()
    };
    assert_eq!(
        outcome(&put(body("four"))),
        (400, "content_md5_mismatch".to_owned())
    );
    assert_eq!(
        put(body("other").replace("--xx--", "--xx\r\n\r\nmore\r\n--xx--")).status,
        400
    );
    assert_eq!(put(body("other").replace("\r\n--xx--", "")).status, 400);
    assert_eq!(couch.info()["doc_count"], 0);
    assert_eq!(put(body("other")).status, 201);
    assert_eq!(couch.send("GET", "/db/notes/m/two", None).text(), "other");
    let ask = |target: &str, accept: &str| {
        couch
            .served
            .ask("GET", target)
            .bearer(&couch.token)
            .header("Accept", accept)
            .send()
    };
    let related = ask("/db/notes/m?attachments=true", "multipart/related");
    assert!(
        related
            .header("content-type")
            .starts_with("multipart/related; boundary=")
    );
    assert!(
        related.text().contains(
            "filename=\"one.txt\"\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\none\r\n--"
        )
    );
    // What comes out goes in elsewhere.
    let copy = couch
        .served
        .ask("PUT", "/db/notes/copy")
        .bearer(&couch.token)
        .body(
            related.header("content-type"),
            related
                .text()
                .replace(&format!("\"_rev\":{}", related_rev(&related)), "\"x\":1"),
        )
        .send();
    assert_eq!(copy.status, 201, "{}", copy.text());
    assert_eq!(couch.send("GET", "/db/notes/copy/one.txt", None).text(), "one");
    let mixed = ask(
        "/db/notes/m?open_revs=%5B%229-x%22%5D&attachments=true",
        "multipart/mixed",
    );
    assert!(
        mixed
            .text()
            .contains("error=\"true\"\r\n\r\n{\"missing\":\"9-x\"}")
    );
    let json = ask("/db/notes/m?open_revs=all&attachments=true", "application/json").json();
    assert_eq!(json[0]["ok"]["_attachments"]["two"]["data"], "b3RoZXI=");
}

fn related_rev(related: &Reply) -> String {
    let text = related.text();
    let rev = text.split("\"_rev\":").nth(1).unwrap();
    rev[..rev.find(',').unwrap()].to_owned()
}

#[test]
fn copies_and_conditions_follow_couchdb() {
    let couch = Couch::new();
    let rev = couch
        .put("a", r#"{"x":1,"_attachments":{"t":{"data":"aGk="}}}"#)
        .json()["rev"]
        .as_str()
        .unwrap()
        .to_owned();
    let copy = |destination: &str| {
        couch
            .served
            .ask("COPY", "/db/notes/a")
            .bearer(&couch.token)
            .header("Destination", destination)
            .send()
    };
    assert_eq!(copy("b").status, 201);
    assert_eq!(couch.send("GET", "/db/notes/b/t", None).text(), "hi");
    assert_eq!(copy("b").status, 409);
    let before = couch.send("GET", "/db/notes/b", None).json()["_rev"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(copy(&format!("b?rev={before}")).status, 201);
    assert_eq!(copy("_b").status, 400);
    let tagged = couch
        .served
        .ask("GET", "/db/notes/a")
        .bearer(&couch.token)
        .header("If-None-Match", format!("\"{rev}\""));
    assert_eq!(tagged.send().status, 304);
    let stale = couch
        .served
        .ask("DELETE", "/db/notes/a")
        .bearer(&couch.token)
        .header("If-Match", "1-a");
    assert_eq!(stale.send().status, 409);
    assert_eq!(couch.send("DELETE", "/db/notes/a", None).status, 409);
    assert_eq!(
        couch
            .send("DELETE", &format!("/db/notes/a?rev={rev}"), None)
            .status,
        200
    );
    assert_eq!(couch.send("GET", "/db/notes/a", None).json()["reason"], "deleted");
    assert_eq!(couch.send("HEAD", "/db/notes/b", None).status, 200);
    assert_eq!(couch.send("PATCH", "/db/notes/b", None).status, 405);
}

#[test]
fn a_feed_that_waits_hears_of_changes_and_ends_with_its_database() {
    let couch = Couch::new();
    couch.put("a", "{}");
    let since = couch.info()["update_seq"].as_str().unwrap().to_owned();
    let none = couch
        .send(
            "GET",
            &format!("/db/notes/_changes?feed=longpoll&timeout=1&since={since}"),
            None,
        )
        .json();
    assert_eq!(none["results"], json!([]));
    assert_eq!(none["last_seq"], since.as_str());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            couch.send(
                "GET",
                &format!("/db/notes/_changes?feed=longpoll&since={since}"),
                None,
            )
        });
        couch.put("b", "{}");
        let heard = waits.join().unwrap().json();
        assert_eq!(heard["results"][0]["id"], "b");
        // Without heartbeats it may end by its time first, on a machine that stands still: that is an end as well.
        let waits = scope.spawn(|| {
            couch.send(
                "GET",
                "/db/notes/_changes?feed=continuous&since=now&heartbeat=100",
                None,
            )
        });
        let admin = couch.served.owner_token();
        assert_eq!(
            couch
                .served
                .ask("DELETE", "/db/notes")
                .bearer(&admin)
                .send()
                .status,
            200
        );
        let ended = waits.join().unwrap();
        assert!(
            ended.status == 404 || ended.text().contains("last_seq"),
            "{}",
            ended.text()
        );
    });
}

#[test]
fn a_feed_ends_with_the_token_it_was_asked_with() {
    let couch = Couch::new();
    let tokens = couch.served.node.tokens();
    let known: Vec<_> = tokens.list(None).into_iter().map(|token| token.id).collect();
    let doomed = couch.served.token(&[Scope::Read]);
    let id = tokens
        .list(None)
        .into_iter()
        .map(|token| token.id)
        .find(|id| !known.contains(id))
        .unwrap();
    std::thread::scope(|scope| {
        let ask = couch
            .served
            .ask("GET", "/db/notes/_changes?feed=continuous&since=0&heartbeat=100");
        let waits = scope.spawn(|| ask.bearer(&doomed).send());
        couch.served.run(tokens.revoke(id, None)).unwrap();
        let ended = waits.join().unwrap();
        assert!(
            ended.status == 401 || ended.text().contains("last_seq"),
            "{}",
            ended.text()
        );
    });
}

#[test]
fn a_listed_origin_is_let_in_under_db_alone_and_no_other_is() {
    let couch = Couch::new();
    let listed = "https://app.example.org";
    let ask = |method: &str, target: &str, origin: &str| {
        let ask = couch.served.ask(method, target).header("Origin", origin);
        ask.header("Access-Control-Request-Method", "PUT").send()
    };
    let preflight = ask("OPTIONS", "/db/notes/_local/x", listed);
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), listed);
    assert_eq!(preflight.header("access-control-allow-credentials"), "true");
    assert!(
        preflight
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    let refused = ask("GET", "/db/notes", listed);
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, listed)
    );
    for (target, origin) in [
        ("/db/notes", "https://app.example.org.evil.example"),
        ("/db/notes", "null"),
        ("/blobs", listed),
        ("/dbx", listed),
    ] {
        for method in ["OPTIONS", "GET"] {
            let reply = ask(method, target, origin);
            assert!(
                !reply
                    .headers
                    .keys()
                    .any(|name| name.starts_with("access-control")),
                "{method} {target} {origin}"
            );
        }
    }
}

#[test]
fn what_a_replicated_document_says_changes_no_right() {
    let couch = Couch::new();
    let admin = couch.served.owner_token();
    let security = || couch.send("GET", "/db/notes/_security", None).json();
    let before = security();
    let docs = r#"{"docs":[{"_id":"_security","_rev":"1-a"},{"_id":"_design/auth","_rev":"1-a","validate_doc_update":"function() { throw 1 }"},
        {"_id":"org.couchdb.user:eve","_rev":"1-a","roles":["_admin"]}],"new_edits":false}"#;
    assert_eq!(
        couch.send("POST", "/db/notes/_bulk_docs", Some(docs)).json()[0]["error"],
        "illegal_docid"
    );
    assert_eq!(security(), before);
    assert_eq!(couch.put("still", "{}").status, 201);
    assert_eq!(couch.send("PUT", "/db/notes/_security", Some("{}")).status, 403);
    let set = couch
        .served
        .ask("PUT", "/db/notes/_security")
        .bearer(&admin)
        .json(r#"{"members":{"names":["x"]}}"#)
        .send();
    assert_eq!(set.status, 200);
    assert_eq!(security(), json!({"members": {"names": ["x"]}}));
    assert_eq!(couch.put("still-2", "{}").status, 201);
    assert_eq!(couch.served.ask("GET", "/db/notes").send().status, 401);
}

#[test]
fn people_sign_in_as_with_couchdb_and_their_cookie_is_for_our_own_pages() {
    let couch = Couch::new();
    let sign_in = |name: &str, password: &str| {
        let body = json!({"name": name, "password": password}).to_string();
        couch.served.ask("POST", "/db/_session").json(&body).send()
    };
    assert_eq!(sign_in("ada", "wrong").status, 401);
    let session = sign_in("ada", PASSWORD);
    assert_eq!(session.status, 200, "{}", session.text());
    assert_eq!(session.json()["roles"], json!(["owner", "_admin"]));
    let cookie = session.header("set-cookie").split(';').next().unwrap().to_owned();
    let ask = |method: &str, target: &str| couch.served.ask(method, target).header("Cookie", &cookie);
    assert_eq!(ask("GET", "/db/_session").send().json()["userCtx"]["name"], "ada");
    assert_eq!(ask("PUT", "/db/notes/a").json("{}").send().status, 403);
    let own = ask("PUT", "/db/notes/a").header("Origin", couch.served.origin());
    assert_eq!(own.json("{}").send().status, 201);
    let ended = ask("DELETE", "/db/_session").header("Origin", couch.served.origin());
    assert_eq!(ended.send().status, 200);
    assert_eq!(ask("GET", "/db/_session").send().status, 401);
}

#[test]
fn servers_and_databases_answer_what_clients_look_at() {
    let couch = Couch::new();
    let admin = couch.served.owner_token();
    let asked = |method: &str, target: &str, body: &str| {
        let ask = couch.served.ask(method, target).bearer(&admin);
        let reply = if body.is_empty() {
            ask.send()
        } else {
            ask.json(body).send()
        };
        assert!(
            reply.status < 300,
            "{method} {target}: {} {}",
            reply.status,
            reply.text()
        );
        reply.json()
    };
    let root = asked("GET", "/db/", "");
    assert_eq!(root, asked("GET", "/db", ""));
    assert_eq!(
        (&root["couchdb"], root["uuid"].as_str().map(str::len)),
        (&json!("Welcome"), Some(32))
    );
    assert_eq!(asked("GET", "/db/_up", "")["status"], "ok");
    assert_eq!(asked("GET", "/db/_active_tasks", ""), json!([]));
    assert_eq!(
        asked("GET", "/db/_uuids?count=3", "")["uuids"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    asked("PUT", "/db/zoo%2Fcats", "");
    assert_eq!(asked("GET", "/db/_all_dbs", ""), json!(["notes", "zoo/cats"]));
    assert_eq!(
        asked("GET", "/db/_all_dbs?startkey=%22o%22&limit=1", ""),
        json!(["zoo/cats"])
    );
    assert_eq!(asked("GET", "/db/zoo%2Fcats/", "")["db_name"], "zoo/cats");

    let first = asked("PUT", "/db/notes/a", "{}")["rev"].clone();
    asked(
        "PUT",
        "/db/notes/_design/app",
        r#"{"views":{"v":{"map":"function(doc){}"}}}"#,
    );
    asked("POST", "/db/notes", r#"{"_id":"_local/mark","at":1}"#);
    let rows = |target: &str, body: &str| -> Vec<Value> {
        let method = if body.is_empty() { "GET" } else { "POST" };
        asked(method, target, body)["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["key"].clone())
            .collect()
    };
    assert_eq!(rows("/db/notes/_all_docs", ""), ["_design/app", "a"]);
    assert_eq!(
        rows("/db/notes/_all_docs?endkey=%22_design0%22", ""),
        ["_design/app"]
    );
    assert_eq!(rows("/db/notes/_all_docs?startkey=%22_design0%22", ""), ["a"]);
    assert_eq!(
        rows("/db/notes/_all_docs?startkey=null", ""),
        ["_design/app", "a"]
    );
    assert_eq!(
        rows("/db/notes/_all_docs?startkey=%7B%7D", ""),
        Vec::<Value>::new()
    );
    assert_eq!(rows("/db/notes/_all_docs", r#"{"keys":["a","b"]}"#), ["a", "b"]);
    assert_eq!(rows("/db/notes/_design_docs", ""), ["_design/app"]);
    assert_eq!(rows("/db/notes/_local_docs", ""), ["_local/mark"]);
    let lists = asked(
        "POST",
        "/db/notes/_all_docs/queries",
        r#"{"queries":[{"keys":["a"]},{"limit":1}]}"#,
    );
    assert_eq!(lists["results"].as_array().map(Vec::len), Some(2));

    // The total of a list of design documents is theirs, not that of all documents.
    let total = |target: &str| asked("GET", target, "")["total_rows"].clone();
    assert_eq!(total("/db/notes/_design_docs?startkey=%22_design/z%22"), json!(1));
    assert_ne!(total("/db/notes/_all_docs"), json!(1));
    let ids = |answer: &Value| -> Value {
        let lists = answer["results"].as_array().unwrap().iter();
        lists
            .map(|list| {
                let rows = list["rows"].as_array().unwrap().iter();
                rows.map(|row| row["id"].clone()).collect::<Value>()
            })
            .collect()
    };
    let queries = r#"{"queries":[{},{"startkey":"_design/b"},{"limit":0}]}"#;
    let lists = asked("POST", "/db/notes/_design_docs/queries", queries);
    assert_eq!(ids(&lists), json!([["_design/app"], [], []]));
    let local = r#"{"queries":[{"include_docs":true},{"endkey":"_local/m"},{"key":"_local/mark"},{"skip":1},{"keys":["_local/no"]}]}"#;
    let lists = asked("POST", "/db/notes/_local_docs/queries", local);
    assert_eq!(ids(&lists), json!([["_local/mark"], [], ["_local/mark"], [], []]));
    assert_eq!(lists["results"][0]["rows"][0]["doc"]["_id"], "_local/mark");

    let infos = asked("GET", "/db/_dbs_info", "");
    let told: Vec<_> = infos.as_array().unwrap().iter().collect();
    assert_eq!((told.len(), &told[1]["key"]), (2, &json!("zoo/cats")));
    assert_eq!(told[0]["info"], asked("GET", "/db/notes", ""));
    assert_eq!(asked("GET", "/db/_dbs_info?startkey=%22zz%22", ""), json!([]));
    let infos = asked("POST", "/db/_dbs_info", r#"{"keys":["zoo/cats","none","No"]}"#);
    assert_eq!(infos[0]["info"]["db_name"], "zoo/cats");
    assert_eq!(infos[1], json!({"key": "none", "error": "not_found"}));
    assert_eq!(infos[2], json!({"key": "No", "error": "not_found"}));
    let reply = couch.send("POST", "/db/_dbs_info", Some("{}"));
    assert_eq!(outcome(&reply), (400, "bad_request".to_owned()));

    let missing = asked("POST", "/db/notes/_missing_revs", r#"{"a":["1-x"]}"#);
    assert_eq!(missing, json!({"missing_revs": {"a": ["1-x"]}}));
    let diff = asked("POST", "/db/notes/_revs_diff", r#"{"a":["2-x"],"b":["1-y"]}"#);
    assert_eq!(
        diff["a"],
        json!({"missing": ["2-x"], "possible_ancestors": [first]})
    );
    assert_eq!(diff["b"], json!({"missing": ["1-y"]}));
    assert_eq!(
        asked("POST", "/db/notes/_explain", r#"{"selector":{"a":1}}"#)["index"]["type"],
        "special"
    );
    assert_eq!(asked("GET", "/db/notes/_revs_limit", ""), json!(1000));
    asked("PUT", "/db/notes/_revs_limit", "5");
    assert_eq!(asked("GET", "/db/notes/_revs_limit", ""), json!(5));
    let started = asked("GET", "/db/notes", "")["instance_start_time"].clone();
    let committed = asked("POST", "/db/notes/_ensure_full_commit", "");
    assert_eq!(committed["instance_start_time"], started);
    assert_ne!(asked("GET", "/db/zoo%2Fcats", "")["instance_start_time"], started);
    asked("POST", "/db/notes/_compact", "");
    asked("POST", "/db/notes/_view_cleanup", "");
    let purged = asked("POST", "/db/notes/_purge", &format!("{{\"a\":[{first}]}}"));
    assert_eq!(purged["purged"]["a"], json!([first]));
    assert_eq!(couch.send("GET", "/db/notes/a", None).json()["reason"], "missing");
    asked("DELETE", "/db/zoo%2Fcats", "");
    assert_eq!(asked("GET", "/db/_all_dbs", ""), json!(["notes"]));
}

#[test]
fn events_of_a_feed_are_written_as_the_standard_says() {
    let couch = Couch::new();
    couch.put("a", "{}");
    let feed = couch.send("GET", "/db/notes/_changes?feed=eventsource&limit=1", None);
    assert_eq!(feed.header("content-type"), "text/event-stream");
    let text = feed.text();
    let data: Value =
        serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data["id"], "a");
    assert!(text.ends_with(&format!("\nid: {}\n\n", data["seq"])), "{text}");
    let lines = couch
        .send("GET", "/db/notes/_changes?feed=continuous&timeout=1", None)
        .text();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["id"], &lines[1]["last_seq"]),
        (&json!("a"), &lines[0]["seq"])
    );
}
