//! Nodes that are killed in the middle of a replication: the next one goes on, and nothing is there twice or missing.

use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Node, refuge};

const DOCS: usize = 3000;

/// Rounds in which a node is killed.
const KILLS: usize = 4;

fn start(data: &Path) -> Node {
    Node::start_with(
        refuge(),
        data,
        &["--listen", "127.0.0.1:0", "--replicate-allow", "127.0.0.1"],
    )
    .unwrap()
}

fn json(node: &Node, token: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
    let body = body.map(Value::to_string).unwrap_or_default();
    let headers = [("content-type", "application/json")];
    let headers = if body.is_empty() { &[][..] } else { &headers[..] };
    let answer = node
        .client(token)
        .unwrap()
        .send(method, path, headers, body.as_bytes());
    serde_json::from_slice(&answer.unwrap().accepted().unwrap().body).unwrap()
}

fn count(node: &Node, token: &str) -> u64 {
    json(node, token, "GET", "/db/b", None)["doc_count"]
        .as_u64()
        .unwrap()
}

#[test]
fn a_replication_goes_on_after_either_side_was_killed() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut source, mut target) = (start(here.path()), start(there.path()));
    let (source_token, target_token) = (source.claim().unwrap(), target.claim().unwrap());
    json(&source, &source_token, "PUT", "/db/a", None);
    json(&target, &target_token, "PUT", "/db/b", None);
    for from in (0..DOCS).step_by(500) {
        let docs: Vec<Value> = (from..from + 500)
            .map(|n| {
                let data = format!("attachment {}", n % 7);
                let data = data_encoding::BASE64.encode(data.as_bytes());
                json!({"_id": format!("{n:05}"), "n": n, "_attachments": {"a": {"data": data, "content_type": "text/plain"}}})
            })
            .collect();
        json(
            &source,
            &source_token,
            "POST",
            "/db/a/_bulk_docs",
            Some(&json!({ "docs": docs })),
        );
    }
    let mut counts = Vec::new();
    for round in 0..KILLS {
        let asked =
            json!({"source": format!("http://app:{source_token}@{}/db/a", source.address()), "target": "b"});
        let asked = asked.to_string();
        let before = count(&target, &target_token);
        let mut asking = target.client(&target_token).unwrap();
        // Its answer is cut where the target is killed.
        let asking = thread::spawn(move || {
            asking.send(
                "POST",
                "/db/_replicate",
                &[("content-type", "application/json")],
                asked.as_bytes(),
            )
        });
        // In the middle, as far as it can be told from here.
        while count(&target, &target_token) == before && before < DOCS as u64 {
            thread::yield_now();
        }
        if round % 2 == 0 {
            target.kill().unwrap();
            target = start(there.path());
        } else {
            source.kill().unwrap();
            source = start(here.path());
        }
        let _ = asking.join().unwrap();
        counts.push(count(&target, &target_token));
    }
    let asked =
        json!({"source": format!("http://app:{source_token}@{}/db/a", source.address()), "target": "b"});
    json(&target, &target_token, "POST", "/db/_replicate", Some(&asked));
    let leaves = |node: &Node, token: &str, db: &str| {
        let feed = json(
            node,
            token,
            "GET",
            &format!("/db/{db}/_changes?style=all_docs"),
            None,
        );
        let mut leaves: Vec<Value> = feed["results"].as_array().unwrap().clone();
        leaves.iter_mut().for_each(|row| row["seq"] = Value::Null);
        leaves.sort_by_key(|row| row["id"].to_string());
        leaves
    };
    assert_eq!(
        leaves(&target, &target_token, "b"),
        leaves(&source, &source_token, "a"),
        "after {counts:?}"
    );
    for n in [0, 1, DOCS / 2, DOCS - 1] {
        let path = format!("/db/b/{n:05}/a");
        let bytes = target
            .client(&target_token)
            .unwrap()
            .send("GET", &path, &[], b"")
            .unwrap();
        assert_eq!(bytes.body, format!("attachment {}", n % 7).as_bytes());
    }
    // Nothing was written twice: a sequence is given out for each document once.
    let seq = json(&target, &target_token, "GET", "/db/b", None)["update_seq"].clone();
    assert_eq!(seq.as_str().unwrap().split('-').next().unwrap(), DOCS.to_string());
}
