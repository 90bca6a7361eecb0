//! Nodes on a local network: they find each other and are found by the resolvers of others, and what means no good
//! gets nothing out of them (rows S19 and S20). Each test has a network of its own; without root it is skipped.

mod hostile;
mod network;
mod responders;

use network::Lan;

/// Looking takes a second and a half each time; that often, before a test gives up.
const LOOKS: usize = 20;

/// What `refuge discover` on `host` lists, once that is what is wanted.
fn discovered(
    lan: &Lan,
    host: usize,
    wanted: impl Fn(&[serde_json::Value]) -> bool,
) -> Vec<serde_json::Value> {
    let mut listed = Vec::new();
    for _ in 0..LOOKS {
        listed = lan.discover(host);
        if wanted(&listed) {
            return listed;
        }
    }
    panic!("not what is wanted: {listed:?}");
}

#[test]
fn nodes_are_found_both_ways_and_each_lists_the_other() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let nodes = [lan.serve(0, "0.0.0.0:0"), lan.serve(1, "[::]:0")];
    let listed = discovered(&lan, 1, |listed| {
        listed.iter().any(|line| {
            line["id"] == nodes[0].ready.node_id && line["found_by"] == serde_json::json!(["mdns", "udp"])
        })
    });
    let first = listed
        .iter()
        .find(|line| line["id"] == nodes[0].ready.node_id)
        .unwrap();
    let port = nodes[0]
        .ready
        .https
        .as_deref()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap();
    assert_eq!(
        first["urls"],
        serde_json::json!([format!("https://{}:{port}", lan.address(0))])
    );
    assert_eq!(first["claimed"], false);
    assert!(
        listed.iter().any(|line| line["id"] == nodes[1].ready.node_id),
        "itself: {listed:?}"
    );

    for (host, other) in [(0, 1), (1, 0)] {
        let token = lan.inside(host, || nodes[host].claim()).unwrap();
        discovered(&lan, host, |_| {
            let peers = lan.peers(host, &nodes[host], &token);
            peers.iter().any(|peer| peer["id"] == nodes[other].ready.node_id)
        });
        let page = lan.get(host, &nodes[host], &token, "/").text();
        let name = lan.peers(host, &nodes[host], &token)[0]["host"]
            .as_str()
            .unwrap()
            .replace(".local", "");
        assert!(page.contains(&name), "the page lists {name}");
    }
    // A claim is told of without a restart.
    discovered(&lan, 1, |listed| {
        listed.iter().all(|line| line["claimed"] == true)
    });

    let token = lan.inside(1, || nodes[1].client("").map(drop)).is_ok();
    assert!(token, "the other one runs on");
    let [first, second] = nodes;
    first.terminate().unwrap();
    let listed = lan.discover(1);
    assert!(
        listed.iter().all(|line| line["id"] == second.ready.node_id),
        "{listed:?}"
    );
}

#[test]
fn who_says_good_bye_is_not_listed_any_more() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let (stays, goes) = (lan.serve(0, "0.0.0.0:0"), lan.serve(1, "0.0.0.0:0"));
    let token = lan.inside(0, || stays.claim()).unwrap();
    discovered(&lan, 0, |_| !lan.peers(0, &stays, &token).is_empty());
    goes.terminate().unwrap();
    discovered(&lan, 0, |_| lan.peers(0, &stays, &token).is_empty());
}

#[test]
fn a_node_on_loopback_is_not_told_of() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let (_hidden, shown) = (lan.serve(0, "127.0.0.1:0"), lan.serve(0, "0.0.0.0:0"));
    let listed = discovered(&lan, 1, |listed| !listed.is_empty());
    assert!(
        listed.iter().all(|line| line["id"] == shown.ready.node_id),
        "{listed:?}"
    );
}

#[test]
fn interfaces_are_followed_as_they_come_and_go() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    lan.unplug(0);
    let node = lan.serve(0, "0.0.0.0:0");
    assert_eq!(lan.discover(1), [] as [serde_json::Value; 0]);
    for _ in 0..2 {
        lan.plug(0);
        discovered(&lan, 1, |listed| {
            listed.iter().any(|line| line["id"] == node.ready.node_id)
        });
        lan.unplug(0);
        assert_eq!(lan.discover(1), [] as [serde_json::Value; 0]);
    }
}

#[test]
fn two_with_one_name_get_along() {
    let Some(lan) = Lan::of_or_skip(3) else {
        return;
    };
    // One identity on two machines is the one way to get one name without trying a billion keys.
    let first = lan.serve(0, "0.0.0.0:0");
    lan.copy_data(0, 1);
    let second = lan.serve(1, "0.0.0.0:0");
    assert_eq!(first.ready.node_id, second.ready.node_id);
    let token = lan.inside(0, || first.claim()).unwrap();
    let name = |host: usize, node| {
        lan.get(host, node, "", "/api/status").json()["host"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    discovered(&lan, 2, |_| name(0, &first) != name(1, &second));
    let names = [name(0, &first), name(1, &second)];
    assert!(names.iter().any(|name| name.ends_with("-2.local")), "{names:?}");
    assert!(names.iter().any(|name| !name.ends_with("-2.local")), "{names:?}");
    assert!(
        lan.peers(0, &first, &token).is_empty(),
        "what says it is oneself is nobody else"
    );
}
