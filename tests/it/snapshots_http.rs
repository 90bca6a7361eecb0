//! Refs and snapshots over HTTP: compare and swap, folders, files with ranges, archives, events.

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;

use refuge::files::{BackupOptions, Progress, backup};
use refuge::id::StoreName;
use tempfile::TempDir;

use crate::served::{Ask, PATIENCE, Served};

struct Bench {
    served: Served,
    token: String,
    folder: TempDir,
}

impl Bench {
    /// A node with one backup of a small folder as ref `photos/2026`.
    fn new() -> Bench {
        let served = Served::claimed();
        let token = served.owner_token();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("empty"), "").unwrap();
        std::fs::write(at("a/small.txt"), "small").unwrap();
        let large: Vec<u8> = (0..9_000_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .take(9_000_000)
            .collect();
        std::fs::write(at("a/b/large"), large).unwrap();
        std::os::unix::fs::symlink("small.txt", at("a/link")).unwrap();
        let bench = Bench {
            served,
            token,
            folder,
        };
        bench.backup();
        bench
    }

    fn backup(&self) {
        let repository = self.served.node.repository(&StoreName::main()).unwrap();
        let name = "photos/2026".parse().unwrap();
        backup(
            &repository,
            self.folder.path(),
            &name,
            &BackupOptions::default(),
            &Progress::new(),
        )
        .unwrap();
    }

    fn ask(&self, method: &str, target: &str) -> Ask {
        self.served.ask(method, target).bearer(&self.token)
    }
}

#[test]
fn folders_are_listed_and_files_come_back() {
    let bench = Bench::new();
    let root = bench.ask("GET", "/api/refs/photos%2F2026/tree").send().json();
    let names: Vec<&str> = root["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "empty"]);
    let folder = bench
        .ask("GET", "/api/refs/photos%2F2026/tree?path=a")
        .send()
        .json();
    assert_eq!(folder["entries"][1]["type"], "link");
    assert_eq!(folder["entries"][1]["target"], "small.txt");
    let large = std::fs::read(bench.folder.path().join("a/b/large")).unwrap();
    let target = "/api/refs/photos%2F2026/file?path=a/b/large";
    let whole = bench.ask("GET", target).send();
    assert!(whole.status == 200 && whole.body == large);
    assert!(whole.header("content-disposition").contains("filename=\"large\""));
    for start in [1, 262_144, 3_000_001, 5_000_000, large.len() - 10] {
        let range = format!("bytes={start}-{}", start + 9);
        let part = bench.ask("GET", target).header("Range", &range).send();
        let expected = &large[start..start + 10];
        assert_eq!((part.status, part.body.as_slice()), (206, expected), "{range}");
    }
    let empty = bench.ask("GET", "/api/refs/photos%2F2026/file?path=empty").send();
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    for (target, status) in [
        ("/api/refs/photos%2F2026/file?path=a", 400),
        ("/api/refs/photos%2F2026/file?path=none", 404),
        ("/api/refs/photos%2F2026/tree?path=a/../..", 404),
        ("/api/refs/photos%2F2026/tree?snapshot=-7", 404),
        ("/api/refs/photos%2F2026/tree?snapshot=!", 400),
        ("/api/refs/none/tree", 404),
        ("/api/refs/photos%2F2026/tree?store=none", 404),
    ] {
        assert_eq!(bench.ask("GET", target).send().status, status, "{target}");
    }
}

#[test]
fn a_folder_comes_as_an_archive() {
    let bench = Bench::new();
    let archive = bench.ask("GET", "/api/refs/photos%2F2026/zip").send();
    assert_eq!(
        (archive.status, archive.header("content-type")),
        (200, "application/zip")
    );
    let mut archive = zip::ZipArchive::new(Cursor::new(archive.body)).unwrap();
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let mut large = Vec::new();
    archive
        .by_name("a/b/large")
        .unwrap()
        .read_to_end(&mut large)
        .unwrap();
    assert!(large == std::fs::read(bench.folder.path().join("a/b/large")).unwrap());
    let folder = bench.ask("GET", "/api/refs/photos%2F2026/zip?path=a/b").send();
    assert_eq!(zip::ZipArchive::new(Cursor::new(folder.body)).unwrap().len(), 1);
}

#[test]
fn a_ref_moves_only_from_the_version_that_was_read() {
    let bench = Bench::new();
    let read = bench.ask("GET", "/refs/photos/2026").send();
    let mut record = read.json();
    record["snapshots"][0]["host"] = "another".into();
    let (tag, record) = (read.header("etag").to_owned(), record.to_string());
    assert_eq!(
        bench.ask("GET", "/refs").send().json()["refs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        bench.ask("PUT", "/refs/photos/2026").json(&record).send().status,
        428
    );
    let late = bench
        .ask("PUT", "/refs/photos/2026")
        .header("If-None-Match", "*")
        .json(&record)
        .send();
    assert_eq!((late.status, late.code().as_str()), (412, "precondition_failed"));
    let moved = bench
        .ask("PUT", "/refs/photos/2026")
        .header("If-Match", &tag)
        .json(&record)
        .send();
    assert_eq!(moved.status, 200, "{}", moved.text());
    assert_ne!(moved.header("etag"), tag);
    let lost = bench
        .ask("PUT", "/refs/photos/2026")
        .header("If-Match", &tag)
        .json(&record)
        .send();
    assert_eq!(lost.status, 412);
    let other = bench
        .ask("PUT", "/refs/other")
        .header("If-None-Match", "*")
        .json(&record)
        .send();
    assert_eq!(other.status, 400);
    let mut missing: serde_json::Value = serde_json::from_str(&record).unwrap();
    let unknown = refuge::id::BlobId::of(b"not stored").to_string();
    missing["name"] = "other".into();
    missing["snapshots"][0]["tree"] = unknown.clone().into();
    let incomplete = bench
        .ask("PUT", "/refs/other")
        .header("If-None-Match", "*")
        .json(&missing.to_string())
        .send();
    assert_eq!(
        (incomplete.status, incomplete.code().as_str()),
        (422, "incomplete")
    );
    assert_eq!(incomplete.json()["missing"], serde_json::json!([unknown]));
    let tag = moved.header("etag");
    assert_eq!(bench.ask("DELETE", "/refs/photos/2026").send().status, 428);
    assert_eq!(
        bench
            .ask("DELETE", "/refs/photos/2026")
            .header("If-Match", tag)
            .send()
            .status,
        204
    );
    assert_eq!(bench.ask("GET", "/refs/photos/2026").send().status, 404);
}

#[test]
fn events_tell_what_changed_and_go_on_by_their_number() {
    let bench = Bench::new();
    let listen = |last: Option<&str>| {
        let mut ask = bench.ask("GET", "/api/events");
        if let Some(last) = last {
            ask = ask.header("Last-Event-ID", last);
        }
        let mut stream = TcpStream::connect(bench.served.plain).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&ask.wire()).unwrap();
        stream
    };
    let until = |stream: &mut TcpStream, wanted: &str| {
        let mut text = String::new();
        let mut piece = [0; 4096];
        while !text.contains(wanted) {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        text
    };
    let mut stream = listen(None);
    let head = until(&mut stream, "retry:");
    assert!(head.contains("text/event-stream"));
    bench.served.put(b"one");
    let told = until(&mut stream, "blob_added");
    let id = told
        .split("id: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    bench.served.put(b"two");
    let mut again = listen(Some(&id));
    let told = until(&mut again, "\"len\":3");
    assert!(
        told.contains(&refuge::id::BlobId::of(b"two").to_string()),
        "{told}"
    );
    let mut strange = listen(Some("1"));
    until(&mut strange, "event: gap");
}
