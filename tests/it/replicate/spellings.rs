//! Row S17: however an address is written, no connection is made where the owner has not said that one may be.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use super::Peer;

/// Hosts that are this machine, a network near it, a metadata service, or nobody; as a resolver or a parser may read them.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LocalHost.",
    "0",
    "0.0.0.0",
    "00.0.0.0",
    "0x0",
    "0x7f000001",
    "0x7F.0x0.0x0.0x1",
    "0x7f.1",
    "0x7f.0.0.0x1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "2130706433",
    "127.0.0.1.",
    "127.000.000.001",
    "127.0x0.0.01",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[::ffff:0:127.0.0.1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff01::1]",
    "[100::1]",
    "[2001:db8::1]",
    "169.254.169.254",
    "169.254.170.2",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "100.100.100.200",
    "168.63.129.16",
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "192.168.257",
    "3232235521",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "ip6-localhost",
    "127.0.0.1%00.example.org",
    "①②⑦.⓪.⓪.①",
];

/// Requests at a time.
const THREADS: usize = 24;

/// Counts connections to a port on both loopback addresses, where the machine has both.
fn honeypot() -> (u16, Arc<AtomicUsize>) {
    let first = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = first.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let second = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    for listener in [Ok(first), second].into_iter().flatten() {
        let seen = Arc::clone(&seen);
        thread::spawn(move || {
            for _ in listener.incoming() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    (port, seen)
}

fn refused(peer: &Peer, url: &str) {
    for body in [
        json!({"source": url, "target": "a"}),
        json!({"source": "a", "target": {"url": url}}),
    ] {
        let reply = peer.send("POST", "/db/_replicate", Some(&body));
        assert!(
            matches!(reply.status, 400 | 403 | 500),
            "{url}: {} {}",
            reply.status,
            reply.text()
        );
    }
}

#[test]
fn s17_no_spelling_of_an_address_reaches_what_the_owner_has_not_allowed() {
    let peer = Peer::allowed(&[]);
    peer.create("a");
    let (port, seen) = honeypot();
    let mut urls: Vec<String> = Vec::new();
    for host in HOSTS {
        for scheme in ["http", "https"] {
            urls.push(format!("{scheme}://{host}:{port}/db"));
        }
    }
    urls.extend([
        format!("http://1.1.1.1@127.0.0.1:{port}/db"),
        format!("http://127.0.0.1:{port}@[::1]:{port}/db"),
        format!("http://a:b@c@127.0.0.1:{port}/db"),
        format!("HTTP://127.0.0.1:{port}/db"),
        format!("http:127.0.0.1:{port}/db"),
        format!("http:///127.0.0.1:{port}/db"),
        format!("http://127.0.0.1:{port}\\@1.1.1.1/db"),
        format!("http://1.1.1.1\\@127.0.0.1:{port}/db"),
        format!("//127.0.0.1:{port}/db"),
        format!("file://127.0.0.1:{port}/db"),
        format!("gopher://127.0.0.1:{port}/db"),
        format!("unix://127.0.0.1:{port}/db"),
        format!("http://127.0.0.1:{port}#@1.1.1.1/db"),
        format!("http://127.0.0.1:{port}?@1.1.1.1/db"),
        format!(" http://127.0.0.1:{port}/db"),
        format!("http://127.0.0.1 :{port}/db"),
        format!("http://127.0.0.1\t:{port}/db"),
        format!("http://127.0.0.1:0{port}/db"),
    ]);
    assert!(urls.len() >= 60);
    // What no resolver knows is tried again for some seconds: many at a time.
    thread::scope(|scope| {
        for share in urls.chunks(urls.len().div_ceil(THREADS)) {
            let peer = &peer;
            scope.spawn(move || share.iter().for_each(|url| refused(peer, url)));
        }
    });
    assert_eq!(seen.load(Ordering::SeqCst), 0, "a connection was made");
    // The same port is reached once the owner says so: the honeypot would have seen it.
    let allowed = Peer::new();
    allowed.create("a");
    let body = json!({"source": format!("http://127.0.0.1:{port}/db"), "target": "a"});
    thread::scope(|scope| {
        scope.spawn(|| allowed.send("POST", "/db/_replicate", Some(&body)));
        allowed.until("a connection", || seen.load(Ordering::SeqCst) > 0);
        // Nobody answers there: it is ended, not waited for.
        allowed.until("its end", || {
            let mut cancel = body.clone();
            cancel["cancel"] = json!(true);
            allowed.send("POST", "/db/_replicate", Some(&cancel)).status == 200
        });
    });
}
