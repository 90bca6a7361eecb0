//! S28, and what travels over which line.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use refuge::node::ClaimSide;
use refuge::node::claim_mac;

use crate::served::{Served, exchange};

#[test]
fn s28_slow_clients_keep_nobody_out() {
    let served = Served::claimed();
    let token = served.owner_token();
    let memory = resident_bytes();
    let mut crowd = Vec::new();
    for n in 0..500 {
        let Ok(mut stream) = TcpStream::connect(served.plain) else {
            continue;
        };
        // Half of a header, half of a body, or nothing at all.
        let beginning = match n % 3 {
            0 => String::new(),
            1 => "GET / HTTP/1.1\r\nHo".to_owned(),
            _ => format!(
                "POST /sign-in HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\na",
                served.plain
            ),
        };
        let _ = stream.write_all(beginning.as_bytes());
        crowd.push(stream);
    }
    let mut times: Vec<Duration> = (0..200)
        .map(|n| {
            if let Some(stream) = crowd.get_mut(n) {
                let _ = stream.write_all(b"x");
            }
            let began = Instant::now();
            let reply = served.ask("GET", "/api/session").bearer(&token).send();
            assert_eq!(reply.status, 200);
            began.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[197] <= Duration::from_secs(1), "{:?}", times[197]);
    let grown = resident_bytes().saturating_sub(memory);
    assert!(grown < 96 << 20, "{grown}");
    drop(crowd);
    let began = Instant::now();
    assert_eq!(
        served.ask("GET", "/api/session").bearer(&token).send().status,
        200
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
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
    assert_eq!(again.status, 400);
}
