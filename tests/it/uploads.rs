//! Resumable uploads as the tus protocol writes them, step by step.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use data_encoding::BASE64;
use refuge::id::BlobId;
use refuge::node::Scope;

use crate::served::{Ask, Reply, Served};

const PIECE: &str = "application/offset+octet-stream";

struct Bench {
    served: Served,
    token: String,
}

impl Bench {
    fn new() -> Bench {
        let served = Served::claimed();
        let token = served.token(&[Scope::Ingest]);
        Bench { served, token }
    }

    fn ask(&self, method: &str, target: &str) -> Ask {
        self.served
            .ask(method, target)
            .bearer(&self.token)
            .header("Tus-Resumable", "1.0.0")
    }

    fn create(&self, length: usize) -> String {
        let made = self
            .ask("POST", "/uploads")
            .header("Upload-Length", length.to_string())
            .send();
        self.made(&made)
    }

    fn made(&self, made: &Reply) -> String {
        assert_eq!(
            (made.status, made.header("tus-resumable")),
            (201, "1.0.0"),
            "{}",
            made.text()
        );
        assert!(!made.header("upload-expires").is_empty());
        made.header("location").to_owned()
    }

    fn piece(&self, upload: &str, offset: usize, bytes: &[u8]) -> Ask {
        self.ask("PATCH", upload)
            .header("Upload-Offset", offset.to_string())
            .body(PIECE, bytes)
    }

    fn offset(&self, upload: &str) -> String {
        self.ask("HEAD", upload).send().header("upload-offset").to_owned()
    }

    fn blob(&self, id: &str) -> Vec<u8> {
        let reader = self.served.token(&[Scope::Read]);
        let got = self
            .served
            .ask("GET", &format!("/blobs/{id}"))
            .bearer(&reader)
            .send();
        assert_eq!(got.status, 200);
        got.body
    }
}

#[test]
fn an_upload_goes_on_where_it_stopped_and_becomes_a_blob() {
    let bench = Bench::new();
    let bytes: Vec<u8> = (0..2_000_000).map(|n: u32| (n % 249) as u8).collect();
    let upload = bench.create(bytes.len());
    assert_eq!(bench.offset(&upload), "0");
    let first = bench.piece(&upload, 0, &bytes[..700_000]).send();
    assert_eq!((first.status, first.header("upload-offset")), (204, "700000"));
    let wrong = bench.piece(&upload, 5, &bytes[5..]).send();
    assert_eq!((wrong.status, wrong.header("tus-resumable")), (409, "1.0.0"));
    let last = bench.piece(&upload, 700_000, &bytes[700_000..]).send();
    assert_eq!((last.status, last.header("upload-offset")), (204, "2000000"));
    let id = BlobId::of(&bytes).to_string();
    assert_eq!(last.header("refuge-blob"), id);
    assert!(bench.blob(&id) == bytes);
    let head = bench.ask("HEAD", &upload).send();
    assert_eq!(head.header("refuge-blob"), id);
    assert_eq!(head.header("cache-control"), "no-store");
}

#[test]
fn what_came_before_the_line_broke_is_kept() {
    let bench = Bench::new();
    let upload = bench.create(1_000_000);
    let wire = bench.piece(&upload, 0, &[7; 1_000_000]).wire();
    let mut stream = TcpStream::connect(bench.served.plain).unwrap();
    stream.write_all(&wire[..wire.len() - 400_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The answer comes when what was sent is durable.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(bench.offset(&upload), "600000");
    let rest = bench.piece(&upload, 600_000, &[7; 400_000]).send();
    assert_eq!(
        rest.header("refuge-blob"),
        BlobId::of(&[7; 1_000_000]).to_string()
    );
}

#[test]
fn the_first_piece_may_come_along_and_the_length_later() {
    let bench = Bench::new();
    let made = bench
        .ask("POST", "/uploads")
        .header("Upload-Length", "11")
        .header("Upload-Metadata", "filename aGVsbG8=")
        .body(PIECE, "hello")
        .send();
    let upload = bench.made(&made);
    assert_eq!(made.header("upload-offset"), "5");
    let head = bench.ask("HEAD", &upload).send();
    assert_eq!(head.header("upload-metadata"), "filename aGVsbG8=");
    assert_eq!(bench.piece(&upload, 5, b" world").send().status, 204);

    let made = bench
        .ask("POST", "/uploads")
        .header("Upload-Defer-Length", "1")
        .send();
    let upload = bench.made(&made);
    assert_eq!(
        bench.ask("HEAD", &upload).send().header("upload-defer-length"),
        "1"
    );
    assert_eq!(bench.piece(&upload, 0, b"hello").send().status, 204);
    let last = bench
        .piece(&upload, 5, b" world")
        .header("Upload-Length", "11")
        .send();
    assert_eq!(last.header("refuge-blob"), BlobId::of(b"hello world").to_string());
}

#[test]
fn a_piece_with_another_checksum_is_not_kept() {
    let bench = Bench::new();
    let upload = bench.create(5);
    let sums = [
        (
            "sha1",
            ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, b"hello")
                .as_ref()
                .to_vec(),
        ),
        (
            "sha256",
            ring::digest::digest(&ring::digest::SHA256, b"hello")
                .as_ref()
                .to_vec(),
        ),
        ("blake3", blake3::hash(b"hello").as_bytes().to_vec()),
    ];
    for (algorithm, sum) in &sums {
        let value = format!("{algorithm} {}", BASE64.encode(sum));
        let wrong = bench
            .piece(&upload, 0, b"hallo")
            .header("Upload-Checksum", &value)
            .send();
        assert_eq!((wrong.status, bench.offset(&upload).as_str()), (460, "0"));
    }
    let unknown = bench
        .piece(&upload, 0, b"hello")
        .header("Upload-Checksum", "md5 AAAA")
        .send();
    assert_eq!(unknown.status, 400);
    let value = format!("sha1 {}", BASE64.encode(&sums[0].1));
    let right = bench
        .piece(&upload, 0, b"hello")
        .header("Upload-Checksum", value)
        .send();
    assert_eq!(right.status, 204);
}

#[test]
fn parts_are_put_together() {
    let bench = Bench::new();
    let parts: Vec<String> = [&b"hello "[..], b"world"]
        .iter()
        .map(|bytes| {
            let made = bench
                .ask("POST", "/uploads")
                .header("Upload-Length", bytes.len().to_string())
                .header("Upload-Concat", "partial")
                .body(PIECE, *bytes)
                .send();
            bench.made(&made)
        })
        .collect();
    let whole = bench
        .ask("POST", "/uploads")
        .header("Upload-Concat", format!("final;{} {}", parts[0], parts[1]))
        .send();
    let upload = bench.made(&whole);
    assert_eq!(
        whole.header("refuge-blob"),
        BlobId::of(b"hello world").to_string()
    );
    let head = bench.ask("HEAD", &upload).send();
    assert_eq!(
        head.header("upload-concat"),
        format!("final;{} {}", parts[0], parts[1])
    );
    assert_eq!(head.header("upload-length"), "11");
    assert_eq!(bench.piece(&upload, 11, b"!").send().status, 403);
}

#[test]
fn what_is_wrong_gets_the_status_of_the_protocol() {
    let bench = Bench::new();
    let upload = bench.create(5);
    let old = bench.served.ask("HEAD", &upload).bearer(&bench.token).send();
    assert_eq!((old.status, old.header("tus-version")), (412, "1.0.0"));
    let unknown = format!("/uploads/{}", "0".repeat(32));
    assert_eq!(bench.ask("HEAD", &unknown).send().status, 404);
    assert_eq!(bench.ask("HEAD", "/uploads/..%2Fx").send().status, 404);
    assert_eq!(bench.piece(&upload, 0, b"longer").send().status, 413);
    let typed = bench
        .ask("PATCH", &upload)
        .header("Upload-Offset", "0")
        .body("application/octet-stream", "hello")
        .send();
    assert_eq!(typed.status, 415);
    let negative = bench.ask("POST", "/uploads").header("Upload-Length", "-1").send();
    assert_eq!(negative.status, 400);
    assert_eq!(bench.ask("POST", "/uploads").send().status, 400);
    let tool = bench
        .ask("POST", &upload)
        .header("X-HTTP-Method-Override", "PATCH")
        .header("Upload-Offset", "0")
        .body(PIECE, "hel")
        .send();
    assert_eq!((tool.status, tool.header("upload-offset")), (204, "3"));
    assert_eq!(bench.ask("DELETE", &upload).send().status, 204);
    assert_eq!(bench.ask("HEAD", &upload).send().status, 404);
    let spoken = bench
        .served
        .ask("OPTIONS", "/uploads")
        .bearer(&bench.token)
        .send();
    assert!(spoken.header("tus-extension").contains("creation-with-upload"));
}
