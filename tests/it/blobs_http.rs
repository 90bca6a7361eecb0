//! Blobs over HTTP: what comes back is what was put, and every refusal says why.

use refuge::id::BlobId;
use refuge::node::Scope;

use crate::served::{Ask, Served};

const OCTETS: &str = "application/octet-stream";

struct Bench {
    served: Served,
    token: String,
}

impl Bench {
    fn new() -> Bench {
        let served = Served::claimed();
        let token = served.owner_token();
        Bench { served, token }
    }

    fn ask(&self, method: &str, target: &str) -> Ask {
        self.served.ask(method, target).bearer(&self.token)
    }

    fn put(&self, bytes: &[u8]) -> String {
        let id = BlobId::of(bytes).to_string();
        let put = self
            .ask("PUT", &format!("/blobs/{id}"))
            .body(OCTETS, bytes)
            .send();
        assert_eq!(put.status, 201, "{}", put.text());
        assert_eq!(put.json()["id"], id);
        id
    }
}

#[test]
fn bytes_go_in_and_come_back_with_their_tag() {
    let bench = Bench::new();
    for len in [0, 1, 5000, 300_000, 3 << 20] {
        let bytes: Vec<u8> = (0..len).map(|n: usize| (n % 251) as u8).collect();
        let id = bench.put(&bytes);
        let again = bench
            .ask("PUT", &format!("/blobs/{id}"))
            .body("", bytes.clone())
            .send();
        assert_eq!((again.status, again.json()["fresh"].clone()), (200, false.into()));
        let got = bench.ask("GET", &format!("/blobs/{id}")).send();
        assert_eq!(got.status, 200);
        assert!(got.body == bytes);
        assert_eq!(got.header("etag"), format!("\"{id}\""));
        assert_eq!(got.header("content-length"), len.to_string());
        assert!(got.header("cache-control").contains("immutable"));
        let head = bench.ask("HEAD", &format!("/blobs/{id}")).send();
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, len.to_string().as_str())
        );
        let has = bench
            .ask("GET", &format!("/blobs/{id}"))
            .header("If-None-Match", format!("\"{id}\""))
            .send();
        assert_eq!((has.status, has.body.len()), (304, 0));
    }
}

#[test]
fn ranges_are_parts_and_outside_is_416() {
    let bench = Bench::new();
    let bytes: Vec<u8> = (0..700_000).map(|n: u32| (n % 253) as u8).collect();
    let id = bench.put(&bytes);
    let part = |range: &str| {
        bench
            .ask("GET", &format!("/blobs/{id}"))
            .header("Range", range)
            .send()
    };
    let middle = part("bytes=262100-262200");
    assert_eq!(middle.status, 206);
    assert_eq!(middle.header("content-range"), "bytes 262100-262200/700000");
    assert!(middle.body == bytes[262_100..=262_200]);
    assert!(part("bytes=-5").body == bytes[699_995..]);
    let outside = part("bytes=700000-");
    assert_eq!((outside.status, outside.code().as_str()), (416, "bad_range"));
    assert_eq!(outside.header("content-range"), "bytes */700000");
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_kept() {
    let bench = Bench::new();
    let wrong = BlobId::of(b"other");
    let mismatch = bench
        .ask("PUT", &format!("/blobs/{wrong}"))
        .body(OCTETS, "bytes")
        .send();
    assert_eq!((mismatch.status, mismatch.code().as_str()), (422, "mismatch"));
    for (method, target, status) in [
        ("GET", format!("/blobs/{wrong}"), 404),
        ("GET", "/blobs/blake3;00".to_owned(), 400),
        ("GET", "/blobs/..%2F..%2Fetc".to_owned(), 400),
        (
            "GET",
            format!("/blobs/{}", wrong.to_string().replace("blake3", "md5")),
            400,
        ),
        ("DELETE", format!("/blobs/{wrong}"), 404),
        ("GET", format!("/stores/none/blobs/{wrong}"), 404),
        ("GET", "/blobs?limit=0".to_owned(), 400),
        ("GET", "/blobs?after=x".to_owned(), 400),
        ("PATCH", format!("/blobs/{wrong}"), 405),
        ("GET", "/nothing".to_owned(), 404),
    ] {
        let reply = bench.ask(method, &target).send();
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.text());
        assert!(!reply.json()["reason"].as_str().unwrap().is_empty());
    }
    let truncated = bench.ask("POST", "/blobs").header("Content-Length", "100").wire();
    let cut = crate::served::exchange_half(bench.served.plain, &truncated);
    assert!(cut.is_none_or(|reply| reply.status == 400));
    let listed = bench.ask("GET", "/blobs").send().json();
    assert_eq!(listed["blobs"].as_array().unwrap().len(), 0);
}

#[test]
fn an_alias_by_sha256_finds_the_blob_and_is_confirmed() {
    let bench = Bench::new();
    let digest = ring::digest::digest(&ring::digest::SHA256, b"hello");
    let alias = format!("sha256;{}", data_encoding::HEXLOWER.encode(digest.as_ref()));
    let put = bench
        .ask("PUT", &format!("/blobs/{alias}"))
        .body(OCTETS, "hello")
        .send();
    assert_eq!(
        (put.status, put.json()["id"].clone()),
        (201, BlobId::of(b"hello").to_string().into())
    );
    let got = bench.ask("GET", &format!("/blobs/{alias}")).send();
    assert_eq!(got.body, b"hello");
    assert!(got.header("repr-digest").starts_with("sha-256=:"));
    let wrong = bench
        .ask("PUT", &format!("/blobs/{alias}"))
        .body(OCTETS, "other")
        .send();
    assert_eq!(wrong.status, 422);
}

#[test]
fn many_at_once_by_stat_batch_delete_and_list() {
    let bench = Bench::new();
    let mut body = Vec::new();
    let blobs: Vec<Vec<u8>> = (0..200_usize).map(|n| vec![n as u8; n * 40]).collect();
    for bytes in &blobs {
        body.push(0);
        body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        body.extend_from_slice(BlobId::of(bytes).as_bytes());
        body.extend_from_slice(bytes);
    }
    let batch = bench
        .ask("POST", "/blobs/_batch")
        .body(OCTETS, body.clone())
        .send();
    assert_eq!(batch.status, 200, "{}", batch.text());
    let puts = batch.json()["puts"].as_array().unwrap().clone();
    assert!(blobs.iter().zip(&puts).all(|(bytes, put)| {
        put["id"] == BlobId::of(bytes).to_string() && put["len"] == bytes.len() && put["fresh"] == true
    }));
    let cut = bench
        .ask("POST", "/blobs/_batch")
        .body(OCTETS, body[..body.len() - 1].to_vec())
        .send();
    assert_eq!((cut.status, cut.code().as_str()), (400, "body_cut"));

    let ids = [BlobId::of(&blobs[7]), BlobId::of(b"unknown")];
    let asked = format!("{{\"ids\":[\"{}\",\"{}\"]}}", ids[0], ids[1]);
    let stats = bench.ask("POST", "/blobs/_stat").json(&asked).send().json();
    assert_eq!(stats["blobs"][0]["class"], "part");
    assert_eq!(stats["blobs"][1], serde_json::Value::Null);

    let lines = bench
        .ask("GET", "/blobs")
        .header("Accept", "application/x-ndjson")
        .send()
        .text();
    let listed: Vec<&str> = lines.lines().collect();
    assert_eq!(listed.len(), blobs.len());
    assert!(listed.is_sorted());
    let page = bench.ask("GET", "/blobs?limit=3").send().json();
    assert_eq!(page["blobs"].as_array().unwrap().len(), 3);
    let after = page["next"].as_str().unwrap().to_owned();
    let next = bench
        .ask("GET", &format!("/blobs?limit=3&after={after}"))
        .send()
        .json();
    assert!(next["blobs"][0]["id"].as_str().unwrap() > after.as_str());

    let deleted = bench.ask("POST", "/blobs/_delete").json(&asked).send().json();
    assert_eq!(deleted["deleted"], serde_json::json!([true, false]));
    assert_eq!(bench.ask("GET", &format!("/blobs/{}", ids[0])).send().status, 404);
}

#[test]
fn an_ingest_token_puts_and_neither_reads_nor_deletes() {
    let bench = Bench::new();
    let id = bench.put(b"secret");
    let ingest = bench.served.token(&[Scope::Ingest]);
    let ask = |method: &str, target: &str| bench.served.ask(method, target).bearer(&ingest);
    assert_eq!(ask("POST", "/blobs").body(OCTETS, "new").send().status, 201);
    for (method, target) in [
        ("GET", format!("/blobs/{id}")),
        ("HEAD", format!("/blobs/{id}")),
        ("DELETE", format!("/blobs/{id}")),
        ("GET", "/blobs".to_owned()),
        ("GET", "/api/events".to_owned()),
        ("GET", "/stores".to_owned()),
    ] {
        assert_eq!(ask(method, &target).send().status, 403, "{method} {target}");
    }
}

#[test]
fn a_refusal_comes_before_the_body_is_asked_for() {
    let served = Served::claimed();
    let wire = format!(
        "POST /blobs HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n",
        served.plain
    );
    let reply = crate::served::first_answer(served.plain, wire.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    let token = served.owner_token();
    let wire = wire.replace("Expect", &format!("Authorization: Bearer {token}\r\nExpect"));
    let reply = crate::served::first_answer(served.plain, wire.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 100"), "{reply}");
}
