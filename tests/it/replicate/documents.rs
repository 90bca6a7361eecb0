//! The database `_replicator`, what goes on, and that nobody gets to see what opens another server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Peer;

fn state_of(peer: &Peer, id: &str) -> Value {
    peer.json("GET", &format!("/db/_replicator/{id}"), None)
}

#[test]
fn a_document_asks_for_a_replication_and_is_told_how_it_ended() {
    let (one, other) = (Peer::new(), Peer::new());
    one.fill("a", 30, "d");
    other.create("_replicator");
    let asked = json!({"source": one.url("a"), "target": "b", "create_target": true});
    other.json("PUT", "/db/_replicator/once", Some(&asked));
    other.until("completed", || {
        state_of(&other, "once")["_replication_state"] == "completed"
    });
    let told = state_of(&other, "once");
    assert_eq!(told["_replication_stats"]["docs_written"], 33, "{told}");
    assert_eq!(told["_replication_id"].as_str().unwrap().len(), 32);
    assert_eq!(one.state("a"), other.state("b"));
    // What makes no sense fails at once, and says why.
    for (id, body) in [
        ("none", json!({})),
        ("filtered", json!({"source": "b", "target": "c", "filter": "d/f"})),
        ("own", json!({"source": "_users", "target": "c"})),
    ] {
        let put = other.send("PUT", &format!("/db/_replicator/{id}"), Some(&body));
        if put.status == 201 {
            other.until("failed", || {
                state_of(&other, id)["_replication_state"] == "failed"
            });
            assert!(
                !state_of(&other, id)["_replication_state_reason"]
                    .as_str()
                    .unwrap()
                    .is_empty()
            );
        } else {
            assert_eq!(put.status, 400, "{}", put.text());
        }
    }
    let docs = other.json("GET", "/db/_scheduler/docs", None);
    let once = docs["docs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|doc| doc["doc_id"] == "once")
        .unwrap();
    assert_eq!(
        (&once["state"], &once["target"]),
        (&json!("completed"), &json!("b"))
    );
    // One that is done is done again when it is written without its state.
    one.json("PUT", "/db/a/late", Some(&json!({})));
    let mut again = asked;
    again["_rev"] = told["_rev"].clone();
    other.json("PUT", "/db/_replicator/once", Some(&again));
    other.until("late", || other.send("GET", "/db/b/late", None).status == 200);
}

#[test]
fn a_continuous_replication_goes_on_until_its_document_goes() {
    let (one, other) = (Peer::new(), Peer::new());
    one.create("a");
    other.create("b");
    other.create("_replicator");
    let asked = json!({"source": "b", "target": one.url("a"), "continuous": true});
    let put = other.json("PUT", "/db/_replicator/live", Some(&asked));
    let asked = json!({"source": one.url("a"), "target": "b", "continuous": true});
    let started = other.send("POST", "/db/_replicate", Some(&asked));
    assert_eq!(started.status, 202, "{}", started.text());
    let id = started.json()["_local_id"].as_str().unwrap().to_owned();
    assert!(id.ends_with("+continuous"), "{id}");
    for n in 0..3 {
        other.json("PUT", &format!("/db/b/there{n}"), Some(&json!({ "n": n })));
        one.json("PUT", &format!("/db/a/back{n}"), Some(&json!({ "n": n })));
        one.until("there", || {
            one.send("GET", &format!("/db/a/there{n}"), None).status == 200
        });
        other.until("back", || {
            other.send("GET", &format!("/db/b/back{n}"), None).status == 200
        });
    }
    let jobs = other.json("GET", "/db/_scheduler/jobs", None);
    assert_eq!(jobs["total_rows"], 2, "{jobs}");
    assert_eq!(
        other
            .json("GET", "/db/_active_tasks", None)
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        other.json(
            "GET",
            &format!("/db/_scheduler/jobs/{}", id.replace('+', "%2B")),
            None
        )["id"],
        json!(id)
    );
    let cancel = other.json(
        "POST",
        "/db/_replicate",
        Some(&json!({"replication_id": id, "cancel": true})),
    );
    assert_eq!(cancel["_local_id"], json!(id));
    let rev = put["rev"].as_str().unwrap();
    other.json("DELETE", &format!("/db/_replicator/live?rev={rev}"), None);
    other.until("none", || {
        other.json("GET", "/db/_scheduler/jobs", None)["total_rows"] == 0
    });
    // A peer that is not there is tried again, and its error is to be seen.
    let url = "http://127.0.0.1:1/db/x";
    other.json(
        "PUT",
        "/db/_replicator/away",
        Some(&json!({"source": url, "target": "b"})),
    );
    other.until("an error", || {
        let docs = other.json("GET", "/db/_scheduler/docs", None);
        let away = docs["docs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|doc| doc["doc_id"] == "away")
            .cloned();
        away.is_some_and(|away| {
            away["info"]["error"]
                .as_str()
                .is_some_and(|error| error.contains(url))
        })
    });
}

#[test]
fn credentials_are_in_no_answer_and_in_no_file_but_the_secrets() {
    const CANARY: &str = "canary-7f3a9";
    let (one, other) = (Peer::new(), Peer::new());
    one.create("a");
    other.create("_replicator");
    other.create("b");
    let place = format!("{}/db/a", one.served.plain);
    let bodies = [
        json!({"source": format!("http://ann:{CANARY}@{place}"), "target": "b", "continuous": true}),
        json!({"target": {"url": format!("http://{place}"), "auth": {"basic": {"username": "ann", "password": CANARY}}}, "source": "b"}),
        json!({"source": {"url": format!("http://{place}"), "headers": {"Authorization": format!("Bearer {CANARY}")}}, "target": "b"}),
    ];
    for (number, body) in bodies.iter().enumerate() {
        other.json("PUT", &format!("/db/_replicator/job{number}"), Some(body));
        let refused = other.send("POST", "/db/_replicate", Some(body));
        assert!(!refused.text().contains(CANARY), "{}", refused.text());
    }
    let wrong = json!({"source": format!("http://ann:{CANARY}@[x/db"), "target": {"url": 1, "auth": CANARY}});
    for (method, target) in [("POST", "/db/_replicate"), ("PUT", "/db/_replicator/wrong")] {
        let refused = other.send(method, target, Some(&wrong));
        assert!(
            refused.status >= 400 && !refused.text().contains(CANARY),
            "{}",
            refused.text()
        );
    }
    // They are refused over there, which is seen here, without them.
    other.until("refused", || {
        let docs = other.json("GET", "/db/_scheduler/docs", None);
        docs["docs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|doc| doc["info"]["error"].is_string())
            .count()
            == 3
    });
    for target in [
        "/db/_replicator/_all_docs?include_docs=true",
        "/db/_replicator/_changes?include_docs=true",
        "/db/_replicator/job0?revs=true",
        "/db/_replicator/job1",
        "/db/_replicator/job2",
        "/db/_scheduler/jobs",
        "/db/_scheduler/docs",
        "/db/_active_tasks",
        "/db/a/_local_docs?include_docs=true",
        "/db/b/_local_docs?include_docs=true",
        "/api/secrets",
    ] {
        let reply = other.send("GET", target, None);
        assert!(!reply.text().contains(CANARY), "{target}: {}", reply.text());
    }
    let named = other.json("GET", "/db/_replicator/job0", None);
    assert_eq!(named["source"]["url"], json!(format!("http://{place}")));
    let folder = other.served.dir.path();
    assert_eq!(
        files_with(folder, CANARY.as_bytes()),
        3,
        "one file for each that was given"
    );
    assert_eq!(files_with(&folder.join("secrets"), CANARY.as_bytes()), 3);
    // A secret that goes with its document.
    let rev = named["_rev"].as_str().unwrap();
    other.json("DELETE", &format!("/db/_replicator/job0?rev={rev}"), None);
    other.until("two", || files_with(folder, CANARY.as_bytes()) == 2);
}

#[test]
fn a_stored_secret_opens_a_server_and_is_never_told() {
    let (one, other) = (Peer::new(), Peer::new());
    one.fill("a", 10, "d");
    let body = json!({"user": "app", "secret": one.token});
    assert_eq!(other.send("PUT", "/api/secrets/friend", Some(&body)).status, 204);
    assert_eq!(
        other.json("GET", "/api/secrets", None),
        json!({"secrets": ["friend"]})
    );
    let url = format!("http://{}/db/a", one.served.plain);
    let asked =
        json!({"source": {"url": url, "auth": {"secret": "friend"}}, "target": "b", "create_target": true});
    other.json("POST", "/db/_replicate", Some(&asked));
    assert_eq!(one.state("a"), other.state("b"));
    // One that is wrong is replaced, and the replication that waits for its next attempt goes on with the other.
    let wrong = json!({"user": "app", "secret": "wrong"});
    assert_eq!(other.send("PUT", "/api/secrets/friend", Some(&wrong)).status, 204);
    other.create("_replicator");
    other.json("PUT", "/db/_replicator/job", Some(&asked));
    let state = || {
        let docs = other.json("GET", "/db/_scheduler/docs", None);
        docs["docs"][0]["state"].as_str().unwrap_or_default().to_owned()
    };
    other.until("crashing", || state() == "crashing");
    assert_eq!(other.send("PUT", "/api/secrets/friend", Some(&body)).status, 204);
    other.until("completed", || state() == "completed");
    assert_eq!(other.send("DELETE", "/api/secrets/friend", None).status, 204);
    assert_eq!(other.send("POST", "/db/_replicate", Some(&asked)).status, 404);
    for (name, body) in [
        ("Friend", json!({"secret": "x"})),
        ("x", json!({"secret": ""})),
        ("x", json!({"secret": "a b"})),
    ] {
        assert_eq!(
            other
                .send("PUT", &format!("/api/secrets/{name}"), Some(&body))
                .status,
            400
        );
    }
}

fn files_with(folder: &Path, needle: &[u8]) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found += files_with(&path, needle);
        } else if let Ok(bytes) = fs::read(&path) {
            found += usize::from(bytes.windows(needle.len()).any(|window| window == needle));
        }
    }
    found
}
