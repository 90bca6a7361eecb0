//! A peer that lies, says too much or says nothing: an error that can be seen, and nothing bad is stored.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::Peer;

/// What a server answers: a status, a body, and how often the body comes again.
type Answer = (u16, String, usize);

/// A database of one document, as an honest server would tell of it.
fn honest(method: &str, path: &str) -> Answer {
    let json = |value: Value| (200, value.to_string(), 0);
    match path.split('?').next().unwrap_or_default() {
        "/db/" if method == "GET" => {
            json(json!({"db_name": "db", "update_seq": "1-x", "instance_start_time": "0"}))
        }
        "/db/_changes" => json(
            json!({"results": [{"seq": "1-x", "id": "a", "changes": [{"rev": "2-bb"}]}], "last_seq": "1-x", "pending": 0}),
        ),
        "/db/_bulk_get" => json(json!({"results": [{"id": "a", "docs": [{"ok": document()}]}]})),
        "/db/a/x.txt" => (200, "hello".to_owned(), 0),
        path if path.starts_with("/db/_local/") && method == "PUT" => {
            (201, json!({"ok": true, "rev": "0-1"}).to_string(), 0)
        }
        _ => (404, json!({"error": "not_found"}).to_string(), 0),
    }
}

fn document() -> Value {
    json!({"_id": "a", "_rev": "2-bb", "_revisions": {"start": 2, "ids": ["bb", "aa"]}, "n": 1,
        "_attachments": {"x.txt": {"content_type": "text/plain", "revpos": 1, "length": 5, "stub": true,
            "digest": format!("md5-{}", BASE64.encode(&[0x5d, 0x41, 0x40, 0x2a, 0xbc, 0x4b, 0x2a, 0x76, 0xb9, 0x71, 0x9d, 0x91, 0x10, 0x17, 0xc5, 0x92]))}}})
}

/// Serves `answer` until the process ends.
fn serve(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || converse(stream, &*answer));
        }
    });
    address
}

fn converse(stream: TcpStream, answer: &dyn Fn(&str, &str) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        if head.is_empty() {
            head = line;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let (status, body, again) = answer(words.next()?, words.next()?);
    let stream = reader.get_mut();
    write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n").ok()?;
    for _ in 0..=again {
        stream.write_all(body.as_bytes()).ok()?;
    }
    Some(())
}

fn pull(peer: &Peer, from: SocketAddr) -> (u16, String) {
    let body = json!({"source": format!("http://{from}/db"), "target": "a"});
    let reply = peer.send("POST", "/db/_replicate", Some(&body));
    (reply.status, reply.text())
}

#[test]
fn an_honest_server_is_believed() {
    let peer = Peer::new();
    peer.create("a");
    let (status, text) = pull(&peer, serve(honest));
    assert_eq!(status, 200, "{text}");
    assert_eq!(peer.state("a").len(), 1);
    assert_eq!(peer.send("GET", "/db/a/a/x.txt", None).text(), "hello");
}

/// What was opened is deleted and made anew while documents are on their way: nothing is written down there as done.
#[test]
fn a_database_that_was_made_anew_gets_no_checkpoint() {
    let peer = Peer::new();
    peer.create("a");
    let from = |second: &'static str| {
        let (asked, kept) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&kept);
        let address = serve(move |method, path| match (method, path) {
            ("GET", "/db/") => {
                let started = if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    "17"
                } else {
                    second
                };
                let info = json!({"db_name": "db", "update_seq": "1-x", "instance_start_time": started});
                (200, info.to_string(), 0)
            }
            _ => {
                counted.fetch_add(usize::from(method == "PUT"), Ordering::SeqCst);
                honest(method, path)
            }
        });
        (address, kept)
    };
    let (address, kept) = from("18");
    let (status, text) = pull(&peer, address);
    assert_eq!((status, kept.load(Ordering::SeqCst)), (404, 0), "{text}");
    let (address, kept) = from("17");
    let (status, text) = pull(&peer, address);
    assert_eq!((status, kept.load(Ordering::SeqCst)), (200, 1), "{text}");
}

#[test]
fn what_a_peer_lies_about_is_not_stored() {
    let peer = Peer::new();
    peer.create("a");
    let before = peer.json("GET", "/db/a", None)["update_seq"].clone();
    let bulk = |doc: Value| json!({"results": [{"id": "a", "docs": [{"ok": doc}]}]}).to_string();
    let changed = |pointer: &str, value: Value| {
        let mut doc = document();
        *doc.pointer_mut(pointer).unwrap() = value;
        bulk(doc)
    };
    let deep = bulk(document()).replace(
        "\"n\":1",
        &format!("\"n\":{}1{}", "[".repeat(100), "]".repeat(100)),
    );
    let deeper = format!("{}{}", "{\"results\":[{\"id\":", "[".repeat(200_000));
    let long = bulk(document()).replace("\"n\":1", &format!("\"n\":\"{}\"", "x".repeat(9_500_000)));
    for (what, path, answer) in [
        (
            "the document of another",
            "/db/_bulk_get",
            (200, changed("/_id", json!("b")), 0),
        ),
        (
            "another revision",
            "/db/_bulk_get",
            (200, changed("/_rev", json!("2-cc")), 0),
        ),
        (
            "a forged history",
            "/db/_bulk_get",
            (
                200,
                changed("/_revisions", json!({"start": 1, "ids": ["bb", "aa"]})),
                0,
            ),
        ),
        (
            "no digest",
            "/db/_bulk_get",
            (200, changed("/_attachments/x.txt/digest", json!(null)), 0),
        ),
        (
            "a wrong digest",
            "/db/_bulk_get",
            (
                200,
                changed(
                    "/_attachments/x.txt/digest",
                    json!("md5-AAAAAAAAAAAAAAAAAAAAAA=="),
                ),
                0,
            ),
        ),
        (
            "too short a length",
            "/db/_bulk_get",
            (200, changed("/_attachments/x.txt/length", json!(4)), 0),
        ),
        (
            "too great a length",
            "/db/_bulk_get",
            (200, changed("/_attachments/x.txt/length", json!(6)), 0),
        ),
        ("a document that nests", "/db/_bulk_get", (200, deep, 0)),
        ("a list that nests", "/db/_bulk_get", (200, deeper, 0)),
        ("a document that is too long", "/db/_bulk_get", (200, long, 0)),
        (
            "a list that is cut",
            "/db/_bulk_get",
            (200, cut(&bulk(document())), 0),
        ),
        ("no JSON", "/db/_bulk_get", (200, "<html>".to_owned(), 0)),
        ("other bytes", "/db/a/x.txt", (200, "jello".to_owned(), 0)),
        (
            "bytes without an end",
            "/db/a/x.txt",
            (200, "hello".repeat(1000), 100_000),
        ),
        (
            "changes that are none",
            "/db/_changes",
            (200, "{\"results\":{}}".to_owned(), 0),
        ),
        (
            "more changes than asked for",
            "/db/_changes",
            (200, many_changes(501), 0),
        ),
        (
            "changes without an end",
            "/db/_changes",
            (200, "{\"results\":[".to_owned() + &" ".repeat(1 << 20), 64),
        ),
        (
            "changes that lead nowhere",
            "/db/_changes",
            (
                200,
                json!({"results": [{"seq": 0, "id": "a", "changes": [{"rev": "2-bb"}]}], "last_seq": 0})
                    .to_string(),
                0,
            ),
        ),
        ("changes that nest", "/db/_changes", (200, "[".repeat(200_000), 0)),
        (
            "no database",
            "/db/",
            (200, json!({"couchdb": "Welcome"}).to_string(), 0),
        ),
        ("a redirect", "/db/", (302, String::new(), 0)),
        (
            "no access",
            "/db/_changes",
            (
                401,
                json!({"error": "unauthorized", "reason": "no"}).to_string(),
                0,
            ),
        ),
    ] {
        let from = serve(move |method, asked| match asked.split('?').next() == Some(path) {
            true => answer.clone(),
            false => honest(method, asked),
        });
        let (status, text) = pull(&peer, from);
        assert!(matches!(status, 403 | 500), "{what}: {status} {text}");
        assert!(text.len() < 600, "{what}: {text}");
        assert_eq!(
            peer.json("GET", "/db/a", None)["update_seq"],
            before,
            "{what}: {text}"
        );
    }
    // The node has taken no harm.
    let (status, text) = pull(&peer, serve(honest));
    assert_eq!(status, 200, "{text}");
    assert_eq!(peer.state("a").len(), 1);
}

/// Without its end.
fn cut(text: &str) -> String {
    text.strip_suffix("]}").unwrap().to_owned()
}

fn many_changes(count: usize) -> String {
    let rows: Vec<Value> = (0..count)
        .map(|n| json!({"seq": n, "id": format!("d{n}"), "changes": [{"rev": "1-a"}]}))
        .collect();
    json!({"results": rows, "last_seq": count}).to_string()
}

#[test]
fn documents_that_no_database_here_takes_are_left_out_and_counted() {
    let peer = Peer::new();
    peer.create("a");
    let from = serve(|method, path| {
        match path.split('?').next() == Some("/db/_changes") && !path.contains("since=1-x") {
            true => {
                let mut rows = vec![json!({"seq": "1-x", "id": "a", "changes": [{"rev": "2-bb"}]})];
                rows.extend(
                    ["_security", "_local/x", ""]
                        .map(|id| json!({"seq": "1-x", "id": id, "changes": [{"rev": "1-a"}]})),
                );
                rows.push(json!({"seq": "1-x", "id": "x".repeat(600), "changes": [{"rev": "1-a"}]}));
                rows.push(json!({"seq": "1-x", "id": "b", "changes": [{"rev": "0-a"}]}));
                (
                    200,
                    json!({"results": rows, "last_seq": "1-x", "pending": 0}).to_string(),
                    0,
                )
            }
            false => honest(method, path),
        }
    });
    let (status, text) = pull(&peer, from);
    assert_eq!(status, 200, "{text}");
    let done: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (
            &done["history"][0]["doc_write_failures"],
            &done["history"][0]["docs_written"]
        ),
        (&json!(5), &json!(1))
    );
    assert_eq!(peer.state("a").len(), 1);
    peer.create("fresh");
    let security = |db: &str| peer.json("GET", &format!("/db/{db}/_security"), None);
    assert_eq!(security("a"), security("fresh"));
}

#[test]
fn a_server_without_bulk_get_is_asked_for_each_document() {
    let peer = Peer::new();
    peer.create("a");
    let from = serve(|method, path| match path.split('?').next() {
        Some("/db/_bulk_get") => (405, json!({"error": "method_not_allowed"}).to_string(), 0),
        Some("/db/a") if path.contains("open_revs") => (
            200,
            json!([{"ok": document()}, {"missing": "1-zz"}]).to_string(),
            0,
        ),
        _ => honest(method, path),
    });
    let (status, text) = pull(&peer, from);
    assert_eq!(status, 200, "{text}");
    assert_eq!(peer.send("GET", "/db/a/a/x.txt", None).text(), "hello");
}
