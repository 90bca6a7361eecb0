//! A bundle from another box: found on the network, its parts that are lacking alone, and from no other than the one that was meant.

use std::time::Duration;

use refuge::http::{Client, Method, Request, Trust};
use refuge::id::{HostName, NodeId};
use refuge::node::{Done, FoundBy, Order, Sighting, Source, UpdateTrouble};

use super::{TestBox, Wire, bundle, noise};

/// One box sees another, as discovery would tell it.
fn sees(one: &TestBox, node: NodeId, at: std::net::SocketAddr) {
    one.node.peers().saw(Sighting {
        node,
        host: HostName::of_node(&node, None),
        is_claimed: true,
        https: vec![at],
        found_by: FoundBy::Beacon,
        believed: Duration::from_secs(3600),
    });
}

/// Two bundles as two versions make them: a run of other bytes and changes here and there. `REFUGE_TWO_BUNDLES` names two that were
/// made by `scripts/bundle`, with a comma, to be taken instead.
fn two_versions() -> (Vec<u8>, Vec<u8>) {
    if let Ok(files) = std::env::var("REFUGE_TWO_BUNDLES") {
        let (old, new) = files.split_once(',').unwrap();
        let read = |path| std::fs::read(path).unwrap();
        return (bundle("0.1.0", &read(old)), bundle("0.2.0", &read(new)));
    }
    let old = noise(12_000_000, 1);
    let mut new = old.clone();
    // The program, which became longer.
    new.splice(4_000_000..5_500_000, noise(1_510_007, 2));
    for at in [100_000, 2_000_000, 9_000_000] {
        new[at..at + 1000].copy_from_slice(&noise(1000, 3));
    }
    // The tree of hashes, whose salt is another each time.
    let tail = new.len() - 100_000;
    new[tail..].copy_from_slice(&noise(100_000, 4));
    (bundle("0.1.0", &old), bundle("0.2.0", &new))
}

#[test]
fn a_box_takes_from_another_what_it_lacks_without_any_server() {
    let (old, new) = two_versions();
    let wire = Wire::new();
    let other = TestBox::behind(&wire, "0.0.9").run("0.2.0", &new);
    let one = TestBox::new("0.0.9").run("0.1.0", &old);
    sees(&one, other.node.identity().node_id(), wire.address);
    let Done::Bundles(found) = one.ask(Order::Check).unwrap() else {
        panic!("bundles are listed");
    };
    let [found] = &found[..] else {
        panic!("one box has one: {found:?}");
    };
    assert_eq!(found.version, Some("0.2.0".parse().unwrap()));
    assert_eq!(found.size_bytes, new.len() as u64);
    let before = wire.bytes();
    assert_eq!(one.install(&found.source).unwrap(), new);
    let travelled = wire.bytes() - before;
    println!("{travelled} bytes travelled of a bundle of {}", new.len());
    assert!(travelled * 3 <= new.len() as u64, "{travelled} of {}", new.len());
    // And on to the next one.
    let one = one.restarted("0.2.0");
    one.until_offered();
    let third = TestBox::new("0.1.0");
    let at_one = format!("box:{}@https://{}", one.node.identity().node_id(), one.https);
    assert_eq!(third.install(&at_one.parse().unwrap()).unwrap(), new);
}

#[test]
fn s20_only_the_box_that_was_meant_is_asked() {
    let wire = Wire::new();
    let impostor = TestBox::behind(&wire, "0.0.9").run("0.2.0", &bundle("0.2.0", &noise(500_000, 1)));
    let one = TestBox::new("0.1.0");
    let meant = NodeId::from_bytes([7; 32]);
    sees(&one, meant, wire.address);
    let Done::Bundles(found) = one.ask(Order::Check).unwrap() else {
        panic!("bundles are listed");
    };
    assert_eq!(found, []);
    for source in [
        format!("box:{meant}"),
        format!("box:{meant}@https://{}", impostor.https),
    ] {
        let refused = one.install(&source.parse().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("is not the node"), "{refused}");
    }
    // One that nobody saw.
    let source = format!("box:{}", impostor.node.identity().node_id());
    let refused = one.install(&source.parse().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("not seen"), "{refused}");
    assert_eq!(one.waiting(), Vec::<String>::new());
}

#[test]
fn what_is_older_or_for_another_kind_of_box_is_not_fetched() {
    let other = TestBox::new("0.0.9").run("0.2.0", &bundle("0.2.0", &noise(500_000, 1)));
    let one = TestBox::new("0.2.0");
    let source: Source = format!("box:{}@https://{}", other.node.identity().node_id(), other.https)
        .parse()
        .unwrap();
    let refused = one.install(&source).unwrap_err();
    assert!(matches!(refused, UpdateTrouble::Older { .. }), "{refused}");
    sees(&one, other.node.identity().node_id(), other.https);
    assert_eq!(one.ask(Order::Check).unwrap(), Done::Bundles(Vec::new()));
}

#[test]
fn s3_a_box_whose_owner_has_not_said_so_tells_no_other_what_it_runs() {
    let other = TestBox::new("0.0.9").run("0.2.0", &bundle("0.2.0", &noise(500_000, 1)));
    let one = TestBox::new("0.1.0");
    let node = other.node.identity().node_id();
    sees(&one, node, other.https);
    let source: Source = format!("box:{node}").parse().unwrap();
    let offers = |is_offering| {
        let offered = other.node.bundles().offer(is_offering);
        other.runtime.block_on(offered).unwrap();
    };
    offers(false);
    assert_eq!(one.ask(Order::Check).unwrap(), Done::Bundles(Vec::new()));
    let refused = one.install(&source).unwrap_err();
    assert!(refused.to_string().contains("`refuge update offer`"), "{refused}");
    offers(true);
    let Done::Bundles(found) = one.ask(Order::Check).unwrap() else {
        panic!("bundles are listed");
    };
    assert_eq!(found[0].source, source);
}

#[test]
fn strangers_read_the_bundle_that_runs_and_nothing_else() {
    let file = bundle("0.2.0", &noise(500_000, 1));
    let one = TestBox::new("0.0.9").run("0.2.0", &file);
    // Bytes of the store, the bundle as a blob among them, and what is no id.
    let Source::Blob { blob, .. } = one.put(b"somebody's own") else {
        panic!("it is a blob");
    };
    let url = format!("https://{}", one.https).parse().unwrap();
    let trust = Trust::Pinned(one.node.identity().node_id());
    let client = Client::new(url, trust, None, one.runtime.handle().clone()).unwrap();
    let ask = |path: String| client.send(Request::new(Method::GET, path));
    let offer: serde_json::Value = client
        .json(Request::new(Method::GET, "/api/update/offer"))
        .unwrap();
    assert_eq!(
        (&offer["version"], &offer["compatible"]),
        (&"0.2.0".into(), &"refuge-x".into())
    );
    let mut whole = Vec::new();
    for part in offer["parts"].as_array().unwrap() {
        let id = part["id"].as_str().unwrap();
        whole.extend(
            ask(format!("/api/update/offer/{id}"))
                .unwrap()
                .bytes(1 << 20)
                .unwrap(),
        );
    }
    assert_eq!(whole, file);
    let status = |path: String| {
        ask(path)
            .map(drop)
            .unwrap_err()
            .refusal()
            .unwrap()
            .status
            .as_u16()
    };
    assert_eq!(status(format!("/api/update/offer/{blob}")), 404);
    assert_eq!(
        status(format!("/api/update/offer/{}", offer["blob"].as_str().unwrap())),
        404
    );
    assert_eq!(status("/api/update/offer/..%2f..%2fnode.db".to_owned()), 400);
    assert_eq!(status(format!("/blobs/{blob}")), 401);
    // More than a box asks for at once.
    let refused = (0..2000).find_map(|_| ask("/api/update/offer".to_owned()).err());
    assert_eq!(refused.unwrap().refusal().unwrap().status.as_u16(), 429);
}
