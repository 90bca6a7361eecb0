//! S28, and what travels over which line.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use refuge::node::ClaimSide;
use refuge::node::claim_mac;

use crate::fault::driver::Claimed;
use crate::measure::memory_kib;
use crate::served::{Served, exchange};
use crate::support::Node;

/// Slow clients, of which a few more come before each request of the owner; and the memory a node may take beside them.
const SLOW: usize = 500;
const SLOW_FIRST: usize = 100;
const REQUESTS: usize = 200;
const MEMORY_KIB_MAX: u64 = 96 * 1024;

#[test]
fn s28_slow_clients_keep_nobody_out() {
    let claimed = Claimed::template();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    claimed.copy_to(&data);
    let node = Node::start(&data).unwrap();
    let ask = || {
        let answer = node
            .client(&claimed.token)?
            .send("GET", "/blobs?limit=1", &[], &[])?;
        Ok::<_, std::io::Error>(answer.status)
    };
    let mut crowd: Vec<TcpStream> = (0..SLOW_FIRST).map(|n| slow_client(&node, n)).collect();
    let mut times = Vec::new();
    let mut outlasted = 0;
    for request in 0..REQUESTS {
        let latest = slow_client(&node, request);
        for _ in 0..(SLOW - SLOW_FIRST) / REQUESTS - 1 {
            crowd.push(slow_client(&node, request));
        }
        let began = Instant::now();
        assert_eq!(ask().expect("the owner is served"), 200, "request {request}");
        times.push(began.elapsed());
        outlasted += usize::from(is_open(&latest));
        crowd.push(latest);
    }
    assert_eq!(crowd.len(), SLOW);
    times.sort();
    eprintln!("all but one in a hundred: {:?}", times[REQUESTS * 99 / 100]);
    // Whoever came just before the owner's request is still being waited for when that is answered: it waited for none.
    assert!(
        outlasted >= REQUESTS / 2,
        "only {outlasted} slow clients outlast a request"
    );
    let most = memory_kib(node.pid(), "VmHWM");
    assert!(most <= MEMORY_KIB_MAX, "{most} KiB");
    drop(crowd);
    assert_eq!(ask().expect("the owner is served"), 200);
    node.terminate().unwrap();
}

/// A client that sends half of a header, half of a body, or nothing at all, and then nothing more.
fn slow_client(node: &Node, kind: usize) -> TcpStream {
    let address = node.address();
    let mut stream = TcpStream::connect(address).unwrap();
    let beginning = match kind % 3 {
        0 => String::new(),
        1 => "GET / HTTP/1.1\r\nHo".to_owned(),
        _ => format!("POST /sign-in HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100\r\n\r\na"),
    };
    // It may have had to make room already.
    let _ = stream.write_all(beginning.as_bytes());
    stream
}

/// Whether the node still waits for this client.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let waits = stream
        .peek(&mut [0])
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    waits
}

#[test]
fn s28_a_header_that_is_too_large_is_refused() {
    let served = Served::claimed();
    let long = served
        .ask("GET", "/")
        .header("X-Long", "a".repeat(17 * 1024))
        .send();
    assert_eq!(long.status, 431);
    let many = (0..200).fold(served.ask("GET", "/"), |ask, n| {
        ask.header(&format!("X-{n}"), "a")
    });
    assert_eq!(many.send().status, 431);
}

/// An address of this machine that is not loopback, where it has one. Nothing is sent.
fn outside_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .filter(|address| !address.ip().is_loopback())
}

#[test]
fn plain_http_from_outside_serves_the_way_to_https_and_nothing_else() {
    let Some(outside) = outside_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let served = Served::claimed();
    let token = served.owner_token();
    let plain = served.listen_plain(SocketAddr::new(outside.ip(), 0));
    let get = |target: &str, more: &str| {
        let wire = format!("GET {target} HTTP/1.1\r\nHost: {plain}\r\n{more}Connection: close\r\n\r\n");
        exchange(plain, wire.as_bytes(), false)
    };
    let page = get("/", "");
    assert_eq!(page.status, 200);
    let text = page.text();
    assert!(
        text.contains(&format!("https://{}:8443/", outside.ip())),
        "{text}"
    );
    assert!(!text.contains(&served.node.identity().fingerprint().to_string()));
    assert!(!text.contains("<form"));
    assert_eq!(get("/assets/style.css", "").status, 200);
    for target in ["/blobs", "/api/status", "/api/session", "/metrics", "/tokens"] {
        let reply = get(target, &format!("Authorization: Bearer {token}\r\n"));
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "https_required"),
            "{target}"
        );
    }
}

#[test]
fn a_claim_by_proof_is_bound_to_the_line_and_answered_with_one() {
    let served = Served::unclaimed();
    let code = served.node.claim().code().unwrap();
    let node_id = served.node.identity().node_id();
    let mut line = served.tls_line();
    let proof = claim_mac(&code, ClaimSide::Client, &line.exporter, &node_id);
    let body = format!(
        r#"{{"account":"ada","proof":"{}","label":"laptop"}}"#,
        data_encoding::HEXLOWER.encode(&proof)
    );
    let ask = || {
        served
            .ask("POST", "/api/claim")
            .without("Host")
            .header("Host", served.tls.to_string())
            .json(&body)
    };
    let (other_line, _) = served.over_tls(&ask().wire());
    assert_eq!(
        (other_line.status, other_line.code().as_str()),
        (403, "wrong_claim_code")
    );
    let claimed = line.exchange(&ask().wire());
    assert_eq!(claimed.status, 201, "{}", claimed.text());
    let answer = claim_mac(&code, ClaimSide::Node, &line.exporter, &node_id);
    assert_eq!(claimed.json()["answer"], data_encoding::HEXLOWER.encode(&answer));
    let token = claimed.json()["token"]["token"].as_str().unwrap().to_owned();
    assert_eq!(served.ask("GET", "/blobs").bearer(&token).send().status, 200);
    let again = served.ask("POST", "/api/claim").json(&body).send();
    assert_eq!((again.status, again.code().as_str()), (403, "claimed"));
}
