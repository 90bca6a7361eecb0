//! What is asked wrongly: each gets its exit code and a sentence that names the thing, and nothing stored is lost.

use std::fs;

use refuge::durable;
use refuge::id::BlobId;

use super::{Desk, bytes_of, https};
use crate::support::{Node, Ran};

/// A data folder with one blob in it, and that blob's id.
fn desk_with_a_blob() -> (Desk, String) {
    let desk = Desk::new();
    let file = desk.write("letter", "dear all");
    let id = desk.here(["put".as_ref(), file.as_os_str()]).done();
    assert_eq!(id, BlobId::of(b"dear all").to_string());
    (desk, id)
}

#[test]
fn bytes_of_another_id_are_refused_and_not_kept() {
    let (desk, id) = desk_with_a_blob();
    let wrong = BlobId::of(b"something else").to_string();
    desk.here(["put", "letter", "--expect", &wrong])
        .refused(4, &wrong);
    let other = desk.write("other", "other bytes");
    let put = desk.here([
        "put".as_ref(),
        other.as_os_str(),
        "--expect".as_ref(),
        wrong.as_ref(),
    ]);
    put.refused(4, &BlobId::of(b"other bytes").to_string());
    assert_eq!(desk.here(["ls"]).done(), format!("{id}  8"));
}

#[test]
fn ids_and_names_that_are_none_are_refused_by_name() {
    let desk = Desk::new();
    desk.here(["get", "blake3"]).refused(2, "<hashtype>;<hash>");
    desk.here(["get", "blake3;12"]).refused(2, "64 hex digits");
    desk.here(["get", "md5;12"]).refused(2, "md5 is not supported");
    desk.here(["stat", "../../etc/passwd;00"]).refused(2, "hash type");
    desk.here(["ls", "--store", "../main"]).refused(2, "../main");
    desk.here(["backup", ".", "--ref", "../x"]).refused(2, "../x");
    desk.here(["backup", ".", "--ref", "a@b"]).refused(2, "a@b");
    desk.here(["restore", "a/../b", "target"]).refused(2, "a/../b");
    desk.here(["restore", "docs@yesterday", "target"])
        .refused(2, "yesterday");
    desk.here(["put"]).refused(2, "<FILE>");
    desk.here(["frobnicate"]).refused(2, "frobnicate");
    desk.run(["ls", "--node", "http://192.168.1.5:8080"])
        .refused(2, "in the clear");
    desk.run(["ls", "--node", "box.local"]).refused(2, "box.local");
    desk.run(["ls"]).refused(2, "--data");
    assert!(!desk.data().exists(), "nothing of this makes a data folder");
}

#[test]
fn what_is_not_there_is_said_to_be_missing() {
    let (desk, _) = desk_with_a_blob();
    let absent = BlobId::of(b"absent").to_string();
    desk.here(["get", &absent]).refused(3, &absent);
    desk.here(["rm", &absent]).refused(3, &absent);
    let stat = desk.here(["stat", &absent]);
    assert_eq!(stat.stdout.trim_end(), format!("{absent}  not stored"));
    stat.failed(3);
    desk.here(["ls", "--store", "usb"]).refused(3, "usb");
    desk.here(["restore", "docs", "target"]).refused(3, "docs");
    desk.here(["snapshots", "docs"]).refused(3, "docs");
    desk.here(["verify", "docs"]).refused(3, "docs");
    desk.here(["put", "nowhere"]).refused(1, "nowhere");
    desk.here(["put", "."]).refused(1, "refuge backup");
    desk.here(["backup", "nowhere", "--ref", "docs"])
        .refused(1, "nowhere");
}

#[test]
fn a_failed_get_leaves_no_file() {
    let (desk, id) = desk_with_a_blob();
    desk.write("out", "precious");
    let absent = BlobId::of(b"absent").to_string();
    desk.here(["get", &absent, "--output", "out"]).failed(3);
    assert_eq!(bytes_of(&desk.path("out")), b"precious");
    desk.here(["get", &id, "--output", "out"]).done();
    assert_eq!(bytes_of(&desk.path("out")), b"dear all");
    let names: Vec<_> = fs::read_dir(desk.dir.path()).unwrap().collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn missing_and_foreign_data_folders_are_refused_and_left_alone() {
    let desk = Desk::new();
    desk.here(["ls"]).refused(3, "there is no data folder");
    assert!(!desk.data().exists());
    desk.write("thesis/chapter", "years of work");
    for command in [&["ls"][..], &["put", "thesis/chapter"], &["serve"]] {
        let ran = desk.run(command.iter().chain(&["--data", "thesis"]));
        ran.refused(1, "no Refuge data folder");
    }
    assert_eq!(fs::read_dir(desk.path("thesis")).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (desk, _) = desk_with_a_blob();
    let marker = desk.data().join("refuge.json");
    durable::replace(&marker, br#"{"format":99}"#).unwrap();
    let before = bytes_of(&marker);
    desk.here(["ls"]).refused(1, "install a newer refuge");
    desk.run(["serve", "--data", "data"]).refused(1, "format 99");
    assert_eq!(bytes_of(&marker), before);
}

#[test]
fn a_folder_that_a_server_holds_is_refused_with_its_process() {
    let (desk, id) = desk_with_a_blob();
    let node = Node::start(&desk.data()).unwrap();
    let pid = format!("process {}", node.pid());
    for command in [
        &["ls"][..],
        &["get", &id],
        &["serve"],
        &["backup", ".", "--ref", "x"],
    ] {
        let said = desk.here(command).failed(6);
        assert!(said.contains(&pid) && said.contains("--node"), "{said}");
    }
    node.terminate().unwrap();
    assert_eq!(desk.here(["get", &id]).done(), "dear all");
}

#[test]
fn a_configuration_is_refused_by_the_key() {
    let desk = Desk::new();
    let serve = |text: &str| {
        let file = desk.write("refuge.toml", text);
        desk.run(["serve".as_ref(), "--config".as_ref(), file.as_os_str()])
    };
    serve("data = 'data'\nlissten = '127.0.0.1:0'").refused(2, "lissten");
    serve("data = 'data'\nlisten = 'here'").refused(2, "listen");
    serve("listen = '127.0.0.1:0'").refused(2, "data");
    serve("data = 'data'\nlog = 7").refused(2, "log");
    desk.run(["serve", "--config", "absent.toml"])
        .refused(2, "absent.toml");
    desk.run(["serve", "--data", "data", "--plain-http", "8080"])
        .refused(2, "plain_http");
    assert!(!desk.data().exists());
}

#[test]
fn an_address_that_is_taken_is_refused_by_the_key() {
    let desk = Desk::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = desk.here(["serve", "--listen", &address, "--plain-http", "127.0.0.1:0"]);
    let said = serve.failed(1);
    assert!(said.contains("--listen") && said.contains(&address), "{said}");
}

#[test]
fn a_node_that_is_not_there_or_not_known_is_refused() {
    let desk = Desk::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}");
    desk.run(["ls", "--node", &url]).refused(1, "does not answer");
    let node = Node::start(&desk.data()).unwrap();
    desk.run(["ls", "--node", &https(&node)])
        .refused(7, "refuge claim");
    let other = format!("ed25519;{}", "0".repeat(64));
    let said = desk
        .run(["ls", "--node", &https(&node), "--node-id", &other])
        .failed(7);
    assert!(
        said.contains(&node.ready.node_id) && said.contains(&other),
        "{said}"
    );
    let own = &node.ready.node_id;
    desk.run(["ls", "--node", &https(&node), "--node-id", own])
        .refused(7, "token");
}

/// Runs in a mount namespace of its own, on a file system of this many bytes; `None` where the system has none.
fn on_a_small_disk(desk: &Desk, size: &str, script: &str) -> Option<Ran> {
    let mount = format!("mount -t tmpfs -o size={size} none disk && {script}");
    fs::create_dir_all(desk.path("disk")).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(mount).current_dir(desk.dir.path());
    command.env("REFUGE", env!("CARGO_BIN_EXE_refuge"));
    let probe = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .output();
    let can = probe.is_ok_and(|probe| probe.status.success());
    can.then(|| Ran::of(&mut command).unwrap())
}

#[test]
fn a_full_disk_keeps_what_was_stored_and_takes_more_after_a_delete() {
    let desk = Desk::new();
    let noise = |seed: u8, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(&[seed])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    };
    desk.write("small", noise(1, 500_000));
    desk.write("large", noise(2, 30_000_000));
    let small = BlobId::of(&noise(1, 500_000)).to_string();
    let script = format!(
        "set -x; $REFUGE put small --data disk/d || exit 20
        $REFUGE put large --data disk/d; [ $? = 8 ] || exit 21
        $REFUGE get '{small}' --data disk/d | cmp - small || exit 22
        $REFUGE rm '{small}' --data disk/d || exit 23
        $REFUGE put small --data disk/d || exit 24
        $REFUGE check --read-data --data disk/d || exit 25"
    );
    let Some(ran) = on_a_small_disk(&desk, "24m", &script) else {
        eprintln!("skipped: this system has no user namespaces");
        return;
    };
    assert!(ran.stderr.contains("is full: free space"), "{}", ran.stderr);
    ran.done();
}

#[test]
fn a_read_only_disk_is_refused_and_says_so() {
    let desk = Desk::new();
    desk.write("small", "small");
    let script =
        "$REFUGE put small --data disk/d && mount -o remount,ro none disk && $REFUGE put small --data disk/d";
    let Some(ran) = on_a_small_disk(&desk, "24m", script) else {
        eprintln!("skipped: this system has no user namespaces");
        return;
    };
    ran.refused(8, "cannot be written");
}
