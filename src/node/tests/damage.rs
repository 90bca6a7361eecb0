//! Every identity and state file, damaged in every way: the previous generation, or an error that says so.

use std::fs;
use std::path::Path;

use super::*;
use crate::coffer::Class;

type Damage = fn(&Path, &[u8]);

const DAMAGES: [(&str, Damage); 5] = [
    ("empty", |path, _| fs::write(path, b"").unwrap()),
    ("half", |path, whole| {
        fs::write(path, &whole[..whole.len() / 2]).unwrap()
    }),
    ("short", |path, whole| {
        fs::write(path, &whole[..whole.len() - 1]).unwrap()
    }),
    ("zeros", |path, whole| {
        fs::write(path, vec![0; whole.len()]).unwrap()
    }),
    ("missing", |path, _| fs::remove_file(path).unwrap()),
];

const FILES: [&str; 6] = [
    "refuge.json",
    "identity/node.key",
    "identity/tls.key",
    "identity/cert.pem",
    "identity/claim.json",
    "stores/main/store.json",
];

#[test]
fn a_damaged_file_gives_the_same_node_as_before() {
    for file in FILES {
        for (damage_name, damage) in DAMAGES {
            let bench = Bench::new();
            let (id, print, code) = facts(&bench.node);
            let path = bench.dir.path().join("data").join(file);
            let Bench { dir, node, now_s } = bench;
            drop(node);
            let whole = fs::read(&path).unwrap();
            damage(&path, &whole);
            let node =
                Node::open(options(&dir, &now_s)).unwrap_or_else(|e| panic!("{file} {damage_name}: {e}"));
            assert_eq!(facts(&node), (id, print, code), "{file} {damage_name}");
        }
    }
}

#[test]
fn keys_lost_for_good_are_never_made_again() {
    for file in ["identity/node.key", "identity/tls.key"] {
        for (damage_name, damage) in DAMAGES {
            let Bench { dir, node, now_s } = Bench::new();
            drop(node);
            for generation in ["", ".old"] {
                let path = dir.path().join("data").join(format!("{file}{generation}"));
                let whole = fs::read(&path).unwrap();
                damage(&path, &whole);
            }
            let Err(error) = Node::open(options(&dir, &now_s)) else {
                panic!("{file} {damage_name}: opened");
            };
            let text = error.to_string();
            assert!(
                matches!(error, Error::Folder(FolderError::Identity { .. })) && text.contains("backup"),
                "{file} {damage_name}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_its_copy_has_every_account_and_token() {
    for (damage_name, damage) in DAMAGES {
        let bench = Bench::claimed().await;
        let id = bench.node.identity().node_id();
        let request = TokenRequest {
            label: "laptop".to_owned(),
            scopes: [Scope::Read].into_iter().collect(),
            expires: None,
        };
        let token = bench.node.tokens().add(name("ann"), request).await.unwrap();
        let Bench { dir, node, now_s } = bench;
        drop(node);
        let path = dir.path().join("data/node.db");
        let whole = fs::read(&path).unwrap();
        damage(&path, &whole);
        let node = Node::open(options(&dir, &now_s)).unwrap();
        assert_eq!(node.identity().node_id(), id);
        assert!(node.claim().is_claimed(), "{damage_name}");
        assert!(
            node.tokens().find(token.secret.expose()).is_some(),
            "{damage_name}"
        );
        if damage_name == "short" {
            // What that byte was part of is free space: to SQLite the file is whole.
            continue;
        }
        let is_aside = dir.path().join("data/node.db.damaged-1").exists();
        assert_eq!(is_aside, damage_name != "missing", "{damage_name}");
        let notes = node.health().report().reasons.join("; ");
        assert!(notes.contains("node.db"), "{damage_name}: {notes}");
    }
}

#[tokio::test]
async fn accounts_lost_with_their_copy_are_said_to_be_and_the_node_is_claimed_again() {
    for (damage_name, damage) in DAMAGES {
        let bench = Bench::claimed().await;
        let Bench { dir, node, now_s } = bench;
        drop(node);
        for file in ["data/node.db", "data/node.db.old"] {
            let path = dir.path().join(file);
            let whole = fs::read(&path).unwrap();
            damage(&path, &whole);
        }
        let node = Node::open(options(&dir, &now_s)).unwrap();
        // As above.
        if node.claim().is_claimed() {
            assert_eq!(damage_name, "short");
            continue;
        }
        let notes = node.health().report().reasons.join("; ");
        assert!(notes.contains("claim the node again"), "{damage_name}: {notes}");
        let code = node.claim().code().unwrap().reveal();
        let claim = node
            .claim()
            .by_code(&code, name("ann"), password("correct horse"), home());
        claim.await.unwrap();
    }
}

#[tokio::test]
async fn a_start_that_was_cut_goes_on_where_it_was() {
    let Bench { dir, node, now_s } = Bench::new();
    let id = node.identity().node_id();
    drop(node);
    // As before the last step of a first start: keys are there, the marker does not say whose.
    let data = dir.path().join("data");
    for file in ["refuge.json", "refuge.json.old"] {
        fs::remove_file(data.join(file)).unwrap();
    }
    crate::durable::replace(&data.join("refuge.json"), br#"{"format":1}"#).unwrap();
    let node = Node::open(options(&dir, &now_s)).unwrap();
    assert_eq!(node.identity().node_id(), id);
    node.stores()
        .main()
        .put("x".into(), Class::Pinned, None)
        .await
        .unwrap();
}

fn facts(node: &Node) -> (crate::id::NodeId, crate::id::Fingerprint, String) {
    let identity = node.identity();
    let code = node.claim().code().unwrap().reveal();
    (identity.node_id(), identity.fingerprint(), code)
}
