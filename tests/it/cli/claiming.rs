//! Becoming the owner of a node from another process, and what the token opens.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Desk, https};
use crate::support::Node;

#[test]
fn the_code_makes_an_owner_once_and_a_wrong_one_does_not() {
    let desk = Desk::new();
    let node = Node::start(&desk.data()).unwrap();
    let (url, code) = (https(&node), node.ready.claim_code.clone().unwrap());
    desk.run(["claim", &url, "0000-0000-0000-0000"])
        .refused(7, "claim code");
    desk.run(["claim", &url, "0000"]).refused(2, "XXXX-XXXX");
    assert!(!desk.path("config").exists(), "nothing is kept of a failed claim");

    // As people type it.
    let claimed = desk
        .run(["claim", &url, &code.to_lowercase().replace('-', " ")])
        .done();
    assert!(claimed.contains(&node.ready.node_id), "{claimed}");
    let nodes = desk.path("config/refuge/nodes.toml");
    assert_eq!(fs::metadata(&nodes).unwrap().permissions().mode() & 0o777, 0o600);
    desk.run(["claim", &url, &code]).refused(7, "has an owner");
    assert!(!node.log().contains(&code), "the code is not logged");
}

#[test]
fn a_claimed_node_needs_no_more_words_and_a_stranger_gets_nothing() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    desk.write("letter", "dear all");
    let id = desk.run(["put", "letter"]).done();
    assert_eq!(desk.run(["get", &id]).done(), "dear all");
    assert_eq!(
        desk.run(["ls", "--node", &https(&node)]).done(),
        format!("{id}  8")
    );

    let stranger = Desk::new();
    let (url, own) = (https(&node), &node.ready.node_id);
    stranger
        .run(["get", &id, "--node", &url, "--node-id", own])
        .failed(7);
    let mut command = stranger.command(["get", &id, "--node", &url, "--node-id", own]);
    let wrong = crate::support::Ran::of(command.env("REFUGE_TOKEN", "rft_wrong")).unwrap();
    wrong.failed(7);
}

#[test]
fn a_second_machine_keeps_a_token_for_a_node_that_proved_itself() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    let made = desk
        .run(["token", "add", "second", "--scope", "read", "--json"])
        .done();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let (url, own) = (https(&node), &node.ready.node_id);

    let second = Desk::new();
    second.write("token", made["token"].as_str().unwrap());
    let login = ["login", &url, "--token-file", "token"];
    // Nobody is at a terminal to compare the fingerprint.
    second.run(login).refused(2, "--node-id");
    let other = format!("ed25519;{}", "0".repeat(64));
    second.run(login.iter().chain(&["--node-id", &other])).failed(7);
    second.write("wrong", "rft_wrong");
    second
        .run(["login", &url, "--token-file", "wrong", "--node-id", own])
        .failed(7);
    assert!(
        !second.path("config").exists(),
        "nothing is kept of a failed login"
    );

    let kept = second.run(login.iter().chain(&["--node-id", own])).done();
    assert!(kept.contains("may read"), "{kept}");
    let id = desk
        .run([
            "put",
            "--node",
            &url,
            &*desk.write("letter", "dear all").to_string_lossy(),
        ])
        .done();
    assert_eq!(second.run(["get", &id]).done(), "dear all");
}

#[test]
fn a_token_does_what_its_scopes_say_until_it_is_revoked() {
    let desk = Desk::new();
    let node = desk.claimed_node();
    let token = desk
        .run([
            "token",
            "add",
            "camera",
            "--scope",
            "ingest",
            "--expires",
            "1d",
            "--json",
        ])
        .done();
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let (handle, token) = (token["id"].as_str().unwrap(), token["token"].as_str().unwrap());

    let camera = Desk::new();
    camera.write("photo", "pixels");
    camera.write("token", token);
    let (url, own) = (https(&node), &node.ready.node_id);
    let at = ["--node", &url, "--node-id", own, "--token-file", "token"];
    let id = camera.run(["put", "photo"].iter().chain(&at)).done();
    camera.run(["get", &id].iter().chain(&at)).failed(7);
    camera.run(["rm", &id].iter().chain(&at)).failed(7);

    let listed = desk.run(["token", "ls"]).done();
    assert!(listed.contains(handle) && listed.contains("camera"), "{listed}");
    assert!(!listed.contains(token), "the list does not show tokens");
    desk.run(["token", "rm", handle]).done();
    camera.run(["put", "photo"].iter().chain(&at)).failed(7);
}

#[test]
fn the_node_says_the_same_of_itself_here_and_there() {
    let desk = Desk::new();
    let node = Node::start(&desk.data()).unwrap();
    let there = desk.run(["id", "--node", &https(&node)]).done();
    let there_pem = desk.run(["id", "--cert", "--node", &https(&node)]).done();
    assert!(there.contains(&node.ready.node_id), "{there}");
    node.terminate().unwrap();
    assert_eq!(desk.here(["id"]).done(), there);
    assert_eq!(desk.here(["id", "--cert"]).done(), there_pem);
    assert!(there_pem.starts_with("-----BEGIN CERTIFICATE-----"));
}
