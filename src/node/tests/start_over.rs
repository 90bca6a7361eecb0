//! A factory reset, and a new owner: what goes and what stays (S27).

use std::fs;
use std::path::Path;

use super::*;
use crate::node::forget_owner;
use crate::node::start_over::reset_if_asked;

const CANARY: &str = "canary-7e1f2c";

/// A node on disk with an owner, a token and a blob that are easy to find.
async fn lived_in() -> Bench {
    let bench = Bench::on(BackendSettings::Fs {
        path: None,
        shared: false,
    });
    let code = bench.node.claim().code().unwrap().reveal();
    let claim = bench.node.claim();
    claim
        .by_code(&code, name("ann"), password("correct horse"), home())
        .await
        .unwrap();
    let request = TokenRequest {
        label: CANARY.to_owned(),
        scopes: [Scope::Read].into_iter().collect(),
        expires: None,
    };
    bench.node.tokens().add(name("ann"), request).await.unwrap();
    let main = bench.node.stores().main();
    main.put(CANARY.into(), Class::Pinned, None).await.unwrap();
    bench
}

/// Files below a folder that hold any of these bytes.
fn holding(folder: &Path, needles: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needles));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let holds = |needle: &&[u8]| bytes.windows(needle.len()).any(|window| window == *needle);
        if needles.iter().any(holds) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn s27_a_reset_leaves_no_key_no_account_and_no_data_and_the_box_is_another_node() {
    let bench = lived_in().await;
    let data = bench.dir.path().join("data");
    let seed = durable_payload(&data.join("identity/node.key"));
    let tls = durable_payload(&data.join("identity/tls.key"));
    let needles = [CANARY.as_bytes(), &seed, &tls];
    assert!(
        holding(&data, &needles).len() >= 4,
        "what is looked for can be found"
    );
    assert!(!reset_if_asked(&data).unwrap(), "nobody asked");
    let before = bench.node.identity().node_id();
    bench.node.ask_reset().await.unwrap();
    let in_use = reset_if_asked(&data);
    assert!(matches!(in_use, Err(Error::Folder(FolderError::InUse { .. }))));
    let Bench { dir, node, now_s } = bench;
    drop(node);
    assert!(reset_if_asked(&data).unwrap());
    assert_eq!(holding(&data, &needles), Vec::<PathBuf>::new());
    assert!(!reset_if_asked(&data).unwrap());
    let node = Node::open(options(&dir, &now_s)).unwrap();
    assert_ne!(node.identity().node_id(), before);
    assert!(!node.claim().is_claimed());
    assert!(node.tokens().list(None).is_empty());
}

#[tokio::test]
async fn s27_a_reset_that_was_cut_goes_on_at_the_next_start() {
    let bench = lived_in().await;
    let data = bench.dir.path().join("data");
    bench.node.ask_reset().await.unwrap();
    let Bench { dir, node, now_s } = bench;
    drop(node);
    // The keys went, then the plug.
    fs::remove_dir_all(data.join("identity")).unwrap();
    fs::remove_file(data.join("refuge.json")).unwrap();
    assert!(reset_if_asked(&data).unwrap());
    assert_eq!(holding(&data, &[CANARY.as_bytes()]), Vec::<PathBuf>::new());
    Node::open(options(&dir, &now_s)).unwrap();
}

#[tokio::test]
async fn s27_a_reset_follows_no_link() {
    let bench = lived_in().await;
    let data = bench.dir.path().join("data");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("thesis.txt"), "years").unwrap();
    for name in ["identity/link", "node.db-link", "link"] {
        std::os::unix::fs::symlink(elsewhere.path(), data.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(elsewhere.path().join("thesis.txt"), data.join("identity/file")).unwrap();
    bench.node.ask_reset().await.unwrap();
    drop(bench.node);
    assert!(reset_if_asked(&data).unwrap());
    assert_eq!(fs::read(elsewhere.path().join("thesis.txt")).unwrap(), b"years");
}

#[tokio::test]
async fn a_forgotten_owner_leaves_the_data_and_the_identity() {
    let bench = lived_in().await;
    let data = bench.dir.path().join("data");
    let before = bench.node.identity().node_id();
    assert!(forget_owner(&data).is_err(), "the folder is in use");
    let Bench { dir, node, now_s } = bench;
    drop(node);
    let aside = forget_owner(&data).unwrap().unwrap();
    assert!(aside.exists());
    let node = Node::open(options(&dir, &now_s)).unwrap();
    assert_eq!(node.identity().node_id(), before);
    assert!(!node.claim().is_claimed() && node.tokens().list(None).is_empty());
    assert_eq!(node.health().report().state, HealthState::Ready);
    let main = node.stores().main();
    let id = BlobId::of(CANARY.as_bytes());
    assert_eq!(main.read(id, 100).await.unwrap(), CANARY);
}

fn durable_payload(path: &Path) -> Vec<u8> {
    crate::durable::read(path).unwrap().unwrap().payload
}
