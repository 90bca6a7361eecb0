//! S15, S16: what comes in bodies.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::fault::driver::Claimed;
use crate::measure::{memory_kib, processor_time, reset_peak};
use crate::served::Served;
use crate::support::Node;

const JSON: (&str, &str) = ("content-type", "application/json");

/// The processor time a bomb may cost.
const BOMB_WORK: Duration = Duration::from_secs(1);

/// What a bomb may add to the resident memory.
const BOMB_ADDS_KIB: u64 = 16 * 1024;

/// A bomb that is only announced, and what of it may be taken: what fits into buffers on the way, and no window more.
const BOMB_BYTES: u64 = 10 << 30;
const TAKEN_MAX: u64 = 16 << 20;

#[test]
fn s15_bombs_cost_little_work_and_little_memory() {
    let claimed = Claimed::template();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    claimed.copy_to(&data);
    let node = Node::start(&data).unwrap();
    let send = |(method, target): (&str, &str), bomb: &str| {
        // A refusal may end the connection.
        let mut http = node.client(&claimed.token).unwrap();
        http.send(method, target, &[JSON], bomb.as_bytes()).unwrap()
    };
    // What is made once is made now.
    let (stat, bulk, doc) = (
        ("POST", "/blobs/_stat"),
        ("POST", "/db/notes/_bulk_docs"),
        ("PUT", "/db/notes/one"),
    );
    assert_eq!(send(stat, r#"{"ids":[]}"#).status, 200);
    assert_eq!(
        node.client(&claimed.token)
            .unwrap()
            .send("PUT", "/db/notes", &[], &[])
            .unwrap()
            .status,
        201
    );
    assert_eq!(send(doc, "{}").status, 201);
    let keys: String = (0..600_000).map(|n| format!("\"{n}\":0,")).collect();
    let bombs = [
        ("deep", stat, "[".repeat(1_000_000)),
        ("deep objects", stat, "{\"a\":".repeat(1_000_000)),
        (
            "deep in a batch",
            bulk,
            format!("{{\"docs\":[{}", "{\"a\":".repeat(1_000_000)),
        ),
        ("deep in a document", doc, "{\"a\":".repeat(1_000_000)),
        (
            "just too deep",
            stat,
            format!("{}{}", "[".repeat(65), "]".repeat(65)),
        ),
        ("many keys", stat, format!("{{{keys}\"x\":0}}")),
        (
            "many keys in a batch",
            bulk,
            format!("{{\"docs\":[{{{keys}\"x\":0}}]}}"),
        ),
        ("many keys in a document", doc, format!("{{{keys}\"x\":0}}")),
        (
            "a long string",
            stat,
            format!("{{\"ids\":\"{}\"}}", "a".repeat(7_000_000)),
        ),
        (
            "many ids",
            stat,
            format!("{{\"ids\":[{}\"\"]}}", "\"\",".repeat(2_000_000)),
        ),
        ("too large", stat, " ".repeat(9 * 1024 * 1024)),
    ];
    for (name, door, bomb) in bombs {
        let (memory, work) = (memory_kib(node.pid(), "VmRSS"), processor_time(node.pid()));
        reset_peak(node.pid());
        let answer = send(door, &bomb);
        assert!(matches!(answer.status, 400 | 413), "{name}: {}", answer.status);
        let work = processor_time(node.pid()) - work;
        let added = memory_kib(node.pid(), "VmHWM").saturating_sub(memory);
        eprintln!("{name}: {work:?} of work, {added} KiB");
        assert!(work <= BOMB_WORK, "{name}: {work:?} of work");
        assert!(added <= BOMB_ADDS_KIB, "{name}: {added} KiB");
    }
}

#[test]
fn s15_what_is_announced_too_large_or_packed_is_refused_before_it_is_read() {
    let claimed = Claimed::template();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    claimed.copy_to(&data);
    let node = Node::start(&data).unwrap();
    for (packing, status) in [(None, 413), (Some(("content-encoding", "gzip")), 415)] {
        let mut http = node.client(&claimed.token).unwrap();
        let headers: Vec<_> = [JSON].into_iter().chain(packing).collect();
        let sent = AtomicU64::new(0);
        let zeros = Counted(&sent);
        let answer = http.send_from("POST", "/blobs/_stat", &headers, BOMB_BYTES, zeros);
        // Where the refusal came while this side was still sending, the connection may be gone.
        if let Ok(answer) = answer {
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        let sent = sent.into_inner();
        assert!(sent <= TAKEN_MAX, "{sent} of {BOMB_BYTES} bytes were taken");
    }
    let served = Served::claimed();
    let token = served.owner_token();
    let announced = format!(
        "POST /blobs/_stat HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {BOMB_BYTES}\r\n\r\n",
        served.plain
    );
    let answer = crate::served::first_answer(served.plain, announced.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let packed = served
        .ask("POST", "/blobs/_stat")
        .bearer(&token)
        .header("Content-Encoding", "gzip")
        .json("\u{1f}\u{8b}")
        .send();
    assert_eq!(packed.status, 415);
}

/// Zeros without end, counted as they are sent.
struct Counted<'a>(&'a AtomicU64);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(0);
        self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(buffer.len())
    }
}

#[test]
fn s16_what_two_parsers_could_read_differently_is_refused() {
    let served = Served::claimed();
    let token = served.owner_token();
    for body in [
        r#"{"label":"a","scopes":["read"],"scopes":["admin"]}"#,
        r#"{"label":"a","scopes":["read"],"\u0073copes":["admin"]}"#,
        r#"{"label":"a","scopes":["read"],"Scopes":["admin"]}"#,
        r#"{"label":"a","scopes":["read"],"roles":["_admin"]}"#,
        r#"{"label":"a","scopes":["read"],"expires_in_s":NaN}"#,
        r#"{"label":"a","scopes":["read"],"expires_in_s":-1}"#,
        r#"{"label":"a","scopes":["read"],"expires_in_s":1e400}"#,
        r#"{"label":"\ud800","scopes":["read"]}"#,
        r#"{"label":"a","scopes":["read"]} {"label":"b","scopes":["admin"]}"#,
        r#"{"label":"a","scopes":["read"],}"#,
        r#"{"label":"a","scopes":["READ"]}"#,
        r#"{'label':'a','scopes':['read']}"#,
        r#"["a",["read"]]"#,
        "\u{feff}{\"label\":\"a\",\"scopes\":[\"read\"]}",
        "{\"label\":\"a\",\"scopes\":[\"read\"]/**/}",
    ] {
        let reply = served.ask("POST", "/api/tokens").bearer(&token).json(body).send();
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    let latin = served
        .ask("POST", "/api/tokens")
        .bearer(&token)
        .body(
            "application/json",
            b"{\"label\":\"\xe9\",\"scopes\":[\"read\"]}".to_vec(),
        )
        .send();
    assert_eq!(latin.status, 400);
}
