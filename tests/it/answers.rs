//! The JSON answers as a whole: a field that is added, renamed or lost shows in a stored snapshot (`snapshots/`), to be looked
//! at and accepted (`INSTA_UPDATE=always`).

use insta::assert_json_snapshot;
use refuge::files::{BackupOptions, Progress, backup};
use refuge::id::StoreName;
use serde_json::Value;

use crate::served::{Ask, Served};

/// Keys whose values say something about this machine or this moment.
const OF_THE_MOMENT: &[&str] = &["uptime_s", "free_bytes", "total_bytes", "version"];

/// A node with an owner and one pinned blob.
struct Bench {
    served: Served,
    token: String,
}

impl Bench {
    fn new() -> Bench {
        let served = Served::claimed();
        let token = served.owner_token();
        let bench = Bench { served, token };
        bench.answer(bench.ask("POST", "/blobs").body("", "a pinned blob"));
        bench
    }

    /// One backup of a small folder.
    fn back_up(&self) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("note.txt"), "a note").unwrap();
        let repository = self.served.node.repository(&StoreName::main()).unwrap();
        let name = "notes".parse().unwrap();
        let options = BackupOptions::default();
        backup(&repository, folder.path(), &name, &options, &Progress::new()).unwrap();
    }

    fn ask(&self, method: &str, target: &str) -> Ask {
        self.served.ask(method, target).bearer(&self.token)
    }

    /// What is answered, with what differs from run to run hidden.
    fn answer(&self, ask: Ask) -> Value {
        let reply = ask.send();
        let mut body = reply.json();
        hide(&mut body);
        serde_json::json!({ "status": reply.status, "body": body })
    }

    fn get(&self, target: &str) -> Value {
        self.answer(self.ask("GET", target))
    }
}

/// Hides what differs from run to run: times, random ids, what only this machine has.
fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => {
            for (key, field) in fields {
                if OF_THE_MOMENT.contains(&key.as_str()) {
                    *field = Value::from("[of the moment]");
                } else {
                    hide(field);
                }
            }
        }
        Value::String(text) => {
            if let Some(name) = hidden(text) {
                *text = name.to_owned();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a text that differs from run to run is.
fn hidden(text: &str) -> Option<&'static str> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.starts_with("ed25519;") {
        Some("[node id]")
    } else if text.starts_with("refuge-") && text.ends_with(".local") {
        Some("[host]")
    } else if text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' {
        Some("[time]")
    } else if text.len() == 16 && is_hex(text) {
        Some("[token id]")
    } else if text.starts_with("rft_") {
        Some("[secret]")
    } else {
        None
    }
}

#[test]
fn of_how_a_node_is() {
    let bench = Bench::new();
    assert_json_snapshot!(
        "status_for_a_stranger",
        bench.answer(bench.served.ask("GET", "/api/status"))
    );
    assert_json_snapshot!("status", bench.get("/api/status"));
    assert_json_snapshot!("stores", bench.get("/stores"));
    assert_json_snapshot!("peers", bench.get("/api/peers"));
}

#[test]
fn of_blobs() {
    let bench = Bench::new();
    let list = bench.get("/blobs");
    let id = list["body"]["blobs"][0]["id"].as_str().unwrap().to_owned();
    assert_json_snapshot!("blobs", list);
    let put = bench
        .ask("PUT", &format!("/blobs/{id}"))
        .body("", "a pinned blob");
    assert_json_snapshot!("blob_put_with_other_bytes", bench.answer(put));
    let known = serde_json::json!({ "ids": [id, format!("blake3;{}", "0".repeat(64))] });
    let stat = bench.ask("POST", "/blobs/_stat").json(&known.to_string());
    assert_json_snapshot!("blobs_stat", bench.answer(stat));
    let delete = bench.ask("POST", "/blobs/_delete").json(&known.to_string());
    assert_json_snapshot!("blobs_deleted", bench.answer(delete));
}

#[test]
fn of_refs_and_folders() {
    let bench = Bench::new();
    bench.back_up();
    let refs = bench.get("/refs");
    assert_eq!(refs["body"]["refs"][0]["name"], "notes");
    let folder = bench.get("/api/refs/notes/tree");
    assert_eq!(folder["body"]["entries"][0]["name"], "note.txt");
    // Ids of trees hold the times of this moment's folder: only what the fields are called is compared.
    assert_json_snapshot!("ref_fields", fields(&bench.get("/refs/notes")));
    assert_json_snapshot!("folder_fields", fields(&folder));
}

#[test]
fn of_accounts_and_tokens() {
    let bench = Bench::new();
    let new = r#"{"label":"phone","scopes":["read","ingest"]}"#;
    assert_json_snapshot!(
        "token_made",
        bench.answer(bench.ask("POST", "/api/tokens").json(new))
    );
    let mut tokens = bench.get("/api/tokens");
    // Made in the same second, they come in the order of their ids, which are random.
    let listed = tokens["body"]["tokens"].as_array_mut().unwrap();
    listed.sort_by_key(|token| token["label"].to_string());
    assert_json_snapshot!("tokens", tokens);
    assert_json_snapshot!("session_of_a_token", bench.get("/api/session"));
}

#[test]
fn of_upkeep() {
    let bench = Bench::new();
    let check = bench
        .ask("POST", "/stores/main/check")
        .json(r#"{"read_data":true}"#);
    assert_json_snapshot!("check", bench.answer(check));
    assert_json_snapshot!("collect", bench.answer(bench.ask("POST", "/api/gc")));
}

#[test]
fn of_refusals() {
    let bench = Bench::new();
    let absent = format!("/blobs/blake3;{}", "0".repeat(64));
    assert_json_snapshot!("missing_blob", bench.get(&absent));
    assert_json_snapshot!("malformed_id", bench.get("/blobs/blake3;xyz"));
    assert_json_snapshot!(
        "other_hash_type",
        bench.get("/blobs/md5;d41d8cd98f00b204e9800998ecf8427e")
    );
    assert_json_snapshot!("no_route", bench.get("/api/nothing"));
    assert_json_snapshot!("without_a_token", bench.answer(bench.served.ask("GET", "/blobs")));
    assert_json_snapshot!(
        "malformed_json",
        bench.answer(bench.ask("POST", "/blobs/_stat").json("{"))
    );
    let wrong = bench.ask("PUT", &absent).body("", "other bytes");
    assert_json_snapshot!("other_bytes_than_the_id", bench.answer(wrong));
}

/// The names of a JSON value's fields, with the kind of each value.
fn fields(value: &Value) -> Value {
    match value {
        Value::Object(fields_of) => fields_of
            .iter()
            .map(|(name, value)| (name.clone(), fields(value)))
            .collect(),
        Value::Array(items) => items.iter().map(fields).collect(),
        Value::String(_) => Value::from("text"),
        Value::Number(_) => Value::from("number"),
        Value::Bool(_) => Value::from("boolean"),
        Value::Null => Value::Null,
    }
}
