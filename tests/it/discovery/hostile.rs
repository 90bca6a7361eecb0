//! S19 and S20 over real sockets: floods, forged sources, noise, and a node that says it is another.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::network::Lan;
use super::{LOOKS, discovered};
use crate::fault::seed::is_long;
use crate::support::{Node, Ran};
use refuge::discovery::packet::{Packet, QUERY_BYTES};

/// Where the beacon listens.
const BEACON: u16 = 7338;
const MDNS: u16 = 5353;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn query() -> Vec<u8> {
    Packet::Query { nonce: *b"hostile!" }.to_bytes()
}

/// A socket with this source address and TTL.
fn socket(source: Ipv4Addr, ttl: u32) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    socket.set_ttl(ttl).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Asks until an answer comes: one more than the limit was may have been dropped.
fn answered(socket: &UdpSocket, to: SocketAddr) -> Vec<u8> {
    socket
        .set_read_timeout(Some(Duration::from_millis(1100)))
        .unwrap();
    let mut buffer = [0; 2048];
    for _ in 0..LOOKS {
        socket.send_to(&query(), to).unwrap();
        if let Ok(length) = socket.recv(&mut buffer) {
            return buffer[..length].to_vec();
        }
    }
    panic!("the node does not answer");
}

/// How many packets wait, and the longest of them.
fn waiting(sockets: &[UdpSocket]) -> (usize, usize) {
    let (mut count, mut longest) = (0, 0);
    let mut buffer = [0; 2048];
    for socket in sockets {
        socket.set_nonblocking(true).unwrap();
        while let Ok(length) = socket.recv(&mut buffer) {
            count += 1;
            longest = longest.max(length);
        }
    }
    (count, longest)
}

#[test]
fn s19_nobody_beyond_the_link_is_answered() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let _node = lan.serve(0, "0.0.0.0:0");
    let beacon = SocketAddr::from((lan.address(0), BEACON));
    let victim = Ipv4Addr::new(198, 51, 100, 7);
    lan.add_address(1, "198.51.100.7/32");
    lan.add_route(0, "198.51.100.0/24", 1);
    lan.inside(1, || {
        let near = socket(lan.address(1), 255);
        answered(&near, beacon);
        // As if a router had passed it on; as if somebody elsewhere had asked.
        let far = [
            socket(lan.address(1), 254),
            socket(lan.address(1), 64),
            socket(victim, 255),
        ];
        for socket in &far {
            for _ in 0..100 {
                socket.send_to(&query(), beacon).unwrap();
            }
        }
        // An answer to somebody on the link comes after every answer to these would have.
        answered(&near, beacon);
        assert_eq!(waiting(&far), (0, 0));
    });
}

#[test]
fn s19_mdns_answers_nobody_by_unicast() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let _node = lan.serve(0, "0.0.0.0:0");
    discovered(&lan, 1, |listed| {
        listed
            .iter()
            .any(|line| line["found_by"] == serde_json::json!(["mdns", "udp"]))
    });
    // A question for _refuge._tcp.local, type PTR, asking for an answer by unicast.
    let question =
        b"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07_refuge\x04_tcp\x05local\x00\x00\x0c\x80\x01";
    lan.inside(1, || {
        let near = socket(lan.address(1), 255);
        for to in [
            SocketAddr::from((lan.address(0), MDNS)),
            "224.0.0.251:5353".parse().unwrap(),
        ] {
            near.send_to(question, to).unwrap();
        }
        answered(
            &socket(lan.address(1), 255),
            SocketAddr::from((lan.address(0), BEACON)),
        );
        assert_eq!(waiting(&[near]), (0, 0));
    });
}

#[test]
fn a_question_to_the_group_is_answered_to_the_group_whatever_its_hop_limit() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let node = lan.serve(0, "0.0.0.0:0");
    discovered(&lan, 1, |listed| {
        listed
            .iter()
            .any(|line| line["found_by"] == serde_json::json!(["mdns", "udp"]))
    });
    let question =
        b"\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07_refuge\x04_tcp\x05local\x00\x00\x0c\x00\x01";
    let id = format!("id={}", node.ready.node_id);
    lan.inside(1, || {
        let group: Ipv4Addr = "224.0.0.251".parse().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, MDNS)).unwrap();
        socket.join_multicast_v4(&group, &lan.address(1)).unwrap();
        socket.set_multicast_ttl_v4(1).unwrap();
        // Without a route to the world a group is reached by saying where.
        let sends = socket2::SockRef::from(&socket);
        sends.set_multicast_if_v4(&lan.address(1)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(1100)))
            .unwrap();
        let mut buffer = [0; 9000];
        let answered = (0..LOOKS).any(|_| {
            socket.send_to(question, (group, MDNS)).unwrap();
            (0..LOOKS)
                .map_while(|_| {
                    socket
                        .recv(&mut buffer)
                        .ok()
                        .map(|length| buffer[..length].to_vec())
                })
                .any(|heard| heard.windows(id.len()).any(|text| text == id.as_bytes()))
        });
        assert!(answered);
    });
}

#[test]
fn s19_a_flood_is_answered_ten_times_a_second_with_no_more_than_was_asked() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let node = lan.serve(0, "0.0.0.0:0");
    let beacon = SocketAddr::from((lan.address(0), BEACON));
    let sources: Vec<Ipv4Addr> = (100..140).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect();
    for source in &sources {
        lan.add_address(1, &format!("{source}/24"));
    }
    lan.inside(1, || {
        answered(&socket(lan.address(1), 255), beacon);
        let sockets: Vec<_> = sources.iter().map(|source| socket(*source, 255)).collect();
        let begun = Instant::now();
        for _ in 0..500 {
            for socket in &sockets {
                // What the sender's own queue has no room for is no matter.
                let _ = socket.send_to(&query(), beacon);
            }
        }
        answered(&socket(lan.address(1), 255), beacon);
        let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
        let (answers, longest) = waiting(&sockets);
        assert!(answers <= 10 * (seconds + 2), "{answers} answers in {seconds} s");
        assert!(longest <= QUERY_BYTES, "{longest} bytes");
    });
    discovered(&lan, 1, |listed| {
        listed.iter().any(|line| line["id"] == node.ready.node_id)
    });
}

#[test]
fn s20_noise_and_made_up_nodes_cost_no_memory_and_no_answer() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let node = lan.serve(0, "0.0.0.0:0");
    let token = lan.inside(0, || node.claim()).unwrap();
    discovered(&lan, 1, |listed| !listed.is_empty());
    let before = resident_bytes(&node).unwrap();
    let packets = if is_long() { 1_000_000 } else { 50_000 };
    lan.inside(1, || {
        let noise = socket(lan.address(1), 255);
        let announcer = UdpSocket::bind((lan.address(1), MDNS)).unwrap();
        announcer.set_ttl(255).unwrap();
        let mut rng = 0x9e37_79b9_7f4a_7c15_u64;
        for packet in 0..packets {
            rng = rng
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let length = usize::try_from(rng >> 56).unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (rng >> (at % 57)) as u8).collect();
            // What the sender's own queue has no room for is no matter.
            let _ = noise.send_to(
                &bytes,
                (lan.address(0), if packet % 2 == 0 { BEACON } else { MDNS }),
            );
            let _ = announcer.send_to(&made_up(packet), (lan.address(0), MDNS));
        }
    });
    let listed = lan.peers(0, &node, &token).len();
    assert!(listed <= 256, "{listed} nodes");
    discovered(&lan, 1, |listed| {
        listed.iter().any(|line| line["id"] == node.ready.node_id)
    });
    let grown = resident_bytes(&node).unwrap().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more");
    assert!(lan.get(0, &node, &token, "/api/status").is_success());
}

#[test]
fn s20_a_node_that_says_it_is_another_is_refused_before_any_data() {
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let (known, impostor) = (lan.serve(0, "0.0.0.0:0"), lan.serve(1, "0.0.0.0:0"));
    let url = impostor
        .ready
        .https
        .as_deref()
        .unwrap()
        .replace("127.0.0.1", &lan.address(1).to_string());
    let reach = |id: &str| {
        let mut command = lan.refuge(0);
        command
            .args(["ls", "--node", &url, "--node-id", id])
            .env("REFUGE_TOKEN", "none");
        Ran::of(&mut command).unwrap()
    };
    let refused = reach(&known.ready.node_id);
    assert_eq!(refused.status.code(), Some(7), "{}", refused.stderr);
    let says = &refused.stderr;
    assert!(
        says.contains("is not the node it should be") && says.contains(&impostor.ready.node_id),
        "{says}"
    );
    // By its own id it gets as far as the token, which is none.
    let reached = reach(&impostor.ready.node_id);
    assert!(!reached.stderr.contains("is not the node"), "{}", reached.stderr);
}

/// A node that is not there, in one message with everything it takes.
fn made_up(number: u32) -> Vec<u8> {
    let label = format!("n{number:08}");
    let id = format!("id=ed25519;{number:064x}");
    let host = [&[9], label.as_bytes(), b"\x05local\x00"].concat();
    let instance = [&[9], label.as_bytes(), b"\xc0\x0c"].concat();
    let mut bytes =
        b"\x00\x00\x84\x00\x00\x00\x00\x04\x00\x00\x00\x00\x07_refuge\x04_tcp\x05local\x00".to_vec();
    let mut record = |name: Option<&[u8]>, kind: u16, data: &[u8]| {
        bytes.extend(name.unwrap_or_default());
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0xff, 0xff, 0xff, 0xff]);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    };
    record(None, 12, &instance);
    record(Some(&instance), 33, &[&[0, 0, 0, 0, 1, 187], &host[..]].concat());
    record(Some(&instance), 16, &[&[75], id.as_bytes()].concat());
    record(Some(&host), 1, &[192, 0, 2, 1]);
    bytes
}

/// What a process has in memory.
fn resident_bytes(node: &Node) -> io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no VmRSS"))
}
