//! Replication over HTTP: between nodes in every direction, with attachments, conflicts and deletions, cut and resumed; what is refused;
//! what a peer that lies gets stored (nothing); what nobody gets to see (credentials).

mod documents;
mod hostile;
mod killed;
mod spellings;

use std::collections::BTreeMap;
use std::time::Instant;

use refuge::http::NodeUrl;
use refuge::node::Scope;
use refuge::replicate::{self, Options};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::couch::packed::gzip;
use crate::served::{PATIENCE, Reply, Served};

/// A node that replicates.
struct Peer {
    served: Served,
    token: String,
    _stop: DropGuard,
}

impl Peer {
    /// One that may reach loopback.
    fn new() -> Peer {
        Peer::allowed(&["127.0.0.0/8"])
    }

    fn allowed(ranges: &[&str]) -> Peer {
        let served = Served::claimed();
        let token = served.token(&[Scope::Admin]);
        let stop = CancellationToken::new();
        let options = Options {
            allowed: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            known: Vec::new(),
        };
        let running = replicate::run(served.node.clone(), options, stop.clone());
        served.run(async { drop(tokio::spawn(running)) });
        Peer {
            served,
            token,
            _stop: stop.drop_guard(),
        }
    }

    fn send(&self, method: &str, target: &str, body: Option<&Value>) -> Reply {
        let ask = self.served.ask(method, target).bearer(&self.token);
        match body {
            Some(body) => ask.json(&body.to_string()).send(),
            None => ask.send(),
        }
    }

    /// The answer to a request that succeeds.
    fn json(&self, method: &str, target: &str, body: Option<&Value>) -> Value {
        let reply = self.send(method, target, body);
        assert!(
            (200..300).contains(&reply.status),
            "{method} {target}: {}",
            reply.text()
        );
        reply.json()
    }

    fn create(&self, db: &str) {
        self.json("PUT", &format!("/db/{db}"), None);
    }

    /// The URL of a database with what opens it.
    fn url(&self, db: &str) -> String {
        format!("http://app:{}@{}/db/{db}", self.token, self.served.plain)
    }

    fn replicate(&self, source: &str, target: &str) -> Value {
        self.json(
            "POST",
            "/db/_replicate",
            Some(&json!({"source": source, "target": target})),
        )
    }

    /// Every leaf of every document, with what hangs on it.
    fn state(&self, db: &str) -> BTreeMap<String, Vec<(String, bool, Value)>> {
        let feed = self.json("GET", &format!("/db/{db}/_changes?style=all_docs"), None);
        let rows = feed["results"].as_array().unwrap();
        rows.iter()
            .map(|row| {
                let id = row["id"].as_str().unwrap();
                let mut leaves: Vec<_> = row["changes"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|change| {
                        let rev = change["rev"].as_str().unwrap();
                        let doc = self.json("GET", &format!("/db/{db}/{id}?rev={rev}"), None);
                        let digests = doc["_attachments"].as_object().map(|attachments| {
                            let digest =
                                |(name, one): (&String, &Value)| (name.clone(), one["digest"].clone());
                            attachments.iter().map(digest).collect::<serde_json::Map<_, _>>()
                        });
                        (
                            rev.to_owned(),
                            doc["_deleted"] == true,
                            json!([digests, doc["n"]]),
                        )
                    })
                    .collect();
                leaves.sort_by(|one, other| one.0.cmp(&other.0));
                (id.to_owned(), leaves)
            })
            .collect()
    }

    /// Documents, one with attachments, one deleted.
    fn fill(&self, db: &str, count: usize, by: &str) {
        self.create(db);
        let docs: Vec<Value> = (0..count)
            .map(|n| json!({"_id": format!("{by}{n:05}"), "n": n, "text": "x".repeat(100)}))
            .collect();
        self.json(
            "POST",
            &format!("/db/{db}/_bulk_docs"),
            Some(&json!({ "docs": docs })),
        );
        let bytes = vec![7; 3 * 1024 * 1024];
        for name in ["one.bin", "a%20%2F%20b%22.bin"] {
            let doc = self.send("GET", &format!("/db/{db}/{by}hung"), None);
            let rev = if doc.status == 200 {
                format!("?rev={}", doc.json()["_rev"].as_str().unwrap())
            } else {
                String::new()
            };
            let put = self
                .served
                .ask("PUT", &format!("/db/{db}/{by}hung/{name}{rev}"))
                .bearer(&self.token);
            assert_eq!(put.body("application/x-seven", bytes.clone()).send().status, 201);
        }
        self.json("PUT", &format!("/db/{db}/{by}gone"), Some(&json!({"n": 1})));
        let gone = self.json("GET", &format!("/db/{db}/{by}gone"), None);
        self.json(
            "DELETE",
            &format!("/db/{db}/{by}gone?rev={}", gone["_rev"].as_str().unwrap()),
            None,
        );
        self.json(
            "PUT",
            &format!("/db/{db}/_design%2Fd"),
            Some(&json!({"language": "query", "by": 1})),
        );
    }

    /// Asks until it is so.
    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let ends = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < ends, "{what} does not come about");
            std::thread::yield_now();
        }
    }
}

#[test]
fn two_nodes_end_alike_in_every_direction() {
    let (one, other) = (Peer::new(), Peer::new());
    one.fill("a", 1200, "one");
    other.fill("b", 700, "other");
    // Pull, then push; the second turn has nothing to do.
    let pulled = one.replicate(&other.url("b"), "a");
    assert_eq!(pulled["history"][0]["docs_written"], 702, "{pulled}");
    let pushed = one.replicate("a", &other.url("b"));
    assert_eq!(pushed["history"][0]["doc_write_failures"], 0, "{pushed}");
    assert_eq!(one.state("a"), other.state("b"));
    assert_eq!(one.state("a").len(), 1200 + 700 + 4 + 1);
    for again in [
        one.replicate(&other.url("b"), "a"),
        one.replicate("a", &other.url("b")),
    ] {
        let moved = again["history"][0]["docs_written"].as_u64().unwrap();
        assert!(
            again["no_changes"] == true
                || moved == 0
                || again["history"][0]["session_id"] != pulled["session_id"],
            "{again}"
        );
    }
    assert_eq!(one.replicate(&other.url("b"), "a")["no_changes"], true);
    // Conflicts and deletions on both sides.
    for (peer, db, n) in [(&one, "a", 5), (&other, "b", 6)] {
        for id in ["one00000", "other00001"] {
            let mut doc = peer.json("GET", &format!("/db/{db}/{id}"), None);
            doc["n"] = json!(n);
            peer.json("PUT", &format!("/db/{db}/{id}"), Some(&doc));
        }
    }
    let doc = one.json("GET", "/db/a/onehung", None);
    one.json("PUT", "/db/a/onehung", Some(&doc));
    let doc = other.json("GET", "/db/b/one00003", None);
    other.json(
        "DELETE",
        &format!("/db/b/one00003?rev={}", doc["_rev"].as_str().unwrap()),
        None,
    );
    // The other node does the work now, both ways, and one of them between two servers that are both far.
    other.replicate(&one.url("a"), "b");
    other.replicate(&other.url("b"), &one.url("a"));
    assert_eq!(one.state("a"), other.state("b"));
    assert_eq!(one.state("a")["one00000"].len(), 2);
    // From one database of a node to another.
    one.json(
        "POST",
        "/db/_replicate",
        Some(&json!({"source": "a", "target": "copy", "create_target": true})),
    );
    assert_eq!(one.state("copy"), one.state("a"));
    let bytes = other.send("GET", "/db/b/onehung/a%20%2F%20b%22.bin", None);
    assert_eq!(
        (bytes.body.len(), bytes.header("content-type")),
        (3 * 1024 * 1024, "application/x-seven")
    );
}

#[test]
fn what_is_kept_packed_arrives_as_it_is_meant() {
    let (one, other) = (Peer::new(), Peer::new());
    one.create("a");
    let text = "a list of things. ".repeat(20_000);
    let ask = one.served.ask("PUT", "/db/a/doc/list").bearer(&one.token);
    let put = ask
        .header("Content-Encoding", "gzip")
        .body("text/plain", gzip(text.as_bytes()))
        .send();
    assert_eq!(put.status, 201);
    let create =
        |source: &str, target: &str| json!({"source": source, "target": target, "create_target": true});
    one.json("POST", "/db/_replicate", Some(&create("a", &other.url("pushed"))));
    other.json("POST", "/db/_replicate", Some(&create(&one.url("a"), "pulled")));
    one.json("POST", "/db/_replicate", Some(&create("a", "copied")));
    for (peer, db) in [(&other, "pushed"), (&other, "pulled"), (&one, "copied")] {
        let reply = peer.send("GET", &format!("/db/{db}/doc/list"), None);
        assert!(reply.status == 200 && reply.text() == text, "{db}");
    }
}

#[test]
fn what_is_asked_for_alone_is_replicated_alone() {
    let (one, other) = (Peer::new(), Peer::new());
    one.fill("a", 50, "d");
    let ask = |body: Value| {
        let mut body = body;
        body["source"] = json!(one.url("a"));
        body["create_target"] = json!(true);
        other.json("POST", "/db/_replicate", Some(&body))
    };
    ask(json!({"target": "ids", "doc_ids": ["d00007", "d00003", "none"]}));
    assert_eq!(
        other.state("ids").into_keys().collect::<Vec<_>>(),
        ["d00003", "d00007"]
    );
    ask(json!({"target": "chosen", "selector": {"n": {"$gte": 48}}}));
    assert_eq!(
        other.state("chosen").into_keys().collect::<Vec<_>>(),
        ["d00048", "d00049"]
    );
    // The same from this node to another.
    one.create("there");
    let body = json!({"source": "a", "target": one.url("there"), "selector": {"n": {"$lt": 3}}});
    one.json("POST", "/db/_replicate", Some(&body));
    assert_eq!(one.state("there").len(), 3);
    let since = one.json("GET", "/db/a?", None)["update_seq"].clone();
    one.json("PUT", "/db/a/late", Some(&json!({})));
    ask(json!({"target": "late", "since_seq": since}));
    assert_eq!(other.state("late").into_keys().collect::<Vec<_>>(), ["late"]);
}

#[test]
fn a_node_is_known_by_its_id_over_https() {
    let (one, other) = (Peer::new(), Peer::new());
    one.fill("a", 20, "d");
    let url = format!("https://{}/db/a", one.served.tls);
    let auth = json!({"bearer": one.token});
    let body = |id: Option<String>| json!({"source": {"url": url, "auth": auth, "node_id": id}, "target": "b", "create_target": true});
    let id = one.served.node.identity().node_id().to_string();
    let wrong = other.served.node.identity().node_id().to_string();
    let refused = other.send("POST", "/db/_replicate", Some(&body(Some(wrong))));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "forbidden"),
        "{}",
        refused.text()
    );
    // Without its id only an authority could vouch for it, and none does.
    let unknown = other.send("POST", "/db/_replicate", Some(&body(None)));
    assert!(!(200..300).contains(&unknown.status), "{}", unknown.text());
    other.json("POST", "/db/_replicate", Some(&body(Some(id))));
    assert_eq!(one.state("a"), other.state("b"));
    let known = url.strip_suffix("/db/a").unwrap().parse::<NodeUrl>();
    assert!(known.is_ok());
}

#[test]
fn what_can_not_be_replicated_is_said_in_the_words_of_couchdb() {
    let peer = Peer::new();
    peer.create("a");
    let refused = |body: Value| {
        let reply = peer.send("POST", "/db/_replicate", Some(&body));
        (reply.status, reply.code())
    };
    for (body, status, code) in [
        (json!({}), 400, "bad_request"),
        (json!({"source": "a"}), 400, "bad_request"),
        (json!({"source": "none", "target": "a"}), 404, "db_not_found"),
        (json!({"source": "a", "target": "none"}), 404, "db_not_found"),
        (
            json!({"source": peer.url("none"), "target": "a"}),
            404,
            "db_not_found",
        ),
        (json!({"source": "_users", "target": "a"}), 400, "bad_request"),
        (
            json!({"source": "a", "target": "_replicator"}),
            400,
            "bad_request",
        ),
        (
            json!({"source": "a", "target": "b", "filter": "d/f"}),
            400,
            "bad_request",
        ),
        (
            json!({"source": "a", "target": "b", "selector": {"$x": 1}}),
            400,
            "bad_request",
        ),
        (
            json!({"source": format!("http://{}/db/a", peer.served.plain), "target": "a"}),
            403,
            "forbidden",
        ),
        (
            json!({"replication_id": "none", "cancel": true}),
            404,
            "not_found",
        ),
        (
            json!({"source": {"url": peer.url("a"), "auth": {"secret": "none"}}, "target": "a"}),
            404,
            "db_not_found",
        ),
        (
            json!({"source": format!("http://{}", peer.served.plain), "target": "a"}),
            500,
            "replication_failed",
        ),
    ] {
        assert_eq!(refused(body.clone()), (status, code.to_owned()), "{body}");
    }
    // Who may not have the node reach other servers may not ask for it in any way.
    let app = peer.served.token(&[Scope::Read, Scope::Write]);
    for (method, target) in [
        ("POST", "/db/_replicate"),
        ("PUT", "/db/_replicator"),
        ("PUT", "/db/_replicator/x"),
        ("GET", "/db/_replicator/_all_docs"),
        ("GET", "/db/_scheduler/jobs"),
        ("GET", "/db/_scheduler/docs"),
        ("GET", "/db/_active_tasks"),
        ("GET", "/api/secrets"),
    ] {
        let ask = peer.served.ask(method, target).bearer(&app);
        let reply = if method == "GET" {
            ask.send()
        } else {
            ask.json("{}").send()
        };
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "forbidden"),
            "{method} {target}"
        );
    }
    let reader = peer.served.token(&[Scope::Read]);
    let forged = json!({"new_edits": false, "docs": [{"_id": "x", "_rev": "9-a"}]}).to_string();
    let reply = peer
        .served
        .ask("POST", "/db/a/_bulk_docs")
        .bearer(&reader)
        .json(&forged)
        .send();
    assert_eq!(reply.status, 403);
}
