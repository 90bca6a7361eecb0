//! S13: no name that a client gives leads out of the data folder, as seen from inside and by `strace`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use refuge::id::{AccountName, BlobAddress, RefName, StoreName, TokenId, UploadId};

use crate::fault::driver::Claimed;
use crate::fault::seed::{Count, Rng};
use crate::fault::strace;
use crate::served::Served;
use crate::support::{Http, Node, refuge};

/// Names that are sent, each to every kind of route.
const NAMES: Count = Count {
    sample: 330,
    full: 3_000,
};

/// Texts that are read as names and ids of every kind.
const PARSED: Count = Count {
    sample: 100_000,
    full: 1_000_000,
};

/// Names that must not work, then as many by chance as make up the count.
fn hostile_names(count: usize) -> Vec<String> {
    let mut names: Vec<String> = [
        "..",
        "../..",
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e%2f%2e%2e",
        "..%252f..",
        "%00",
        "a%00b",
        "..%c0%af..",
        "%c0%ae%c0%ae",
        "%ff",
        "..\\..",
        "..%5c..",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "a/../b",
        "./a",
        ".a",
        "a/",
        "a//b",
        "CON",
        "a:b",
        "a@b",
        "~root",
        "$HOME",
        "`id`",
        ";id",
        "blake3;..%2f..",
        "blake3;%00",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut runner = TestRunner::deterministic();
    let fuzzed = "(\\.|/|%2e|%2f|%00|%c0%af|[a-z0-9;_-]){1,24}";
    while names.len() < count {
        let tree = proptest::string::string_regex(fuzzed)
            .unwrap()
            .new_tree(&mut runner)
            .unwrap();
        names.push(tree.current());
    }
    names
}

#[test]
fn s13_no_name_leaves_the_data_folder() {
    let served = Served::claimed();
    let token = served.owner_token();
    let secret = served.dir.path().parent().unwrap().join("refuge-outside");
    let names = hostile_names(NAMES.rounds());
    let before = listing(&served);
    for name in &names {
        for (method, target) in targets(name) {
            let reply = served.ask(method, &target).bearer(&token).send();
            let is_refused = (400..500).contains(&reply.status);
            // A fuzzed path may mean the list itself, as `/blobs/` with a slash does not.
            assert!(is_refused, "{method} {target}: {}", reply.status);
        }
    }
    for name in [
        "../evil",
        "a/../../b",
        "..",
        "",
        "a\u{0}b",
        "A",
        "x".repeat(200).as_str(),
    ] {
        let body = serde_json::json!({"name": name, "settings": {"backend": "memory"}}).to_string();
        let made = served.ask("POST", "/stores").bearer(&token).json(&body).send();
        assert_eq!(made.status, 400, "{name}");
    }
    assert!(!secret.exists());
    assert_eq!(listing(&served), before);
}

/// Everything in the data folder, but for what logs and databases write.
fn listing(served: &Served) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![served.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            names.push(path.display().to_string());
        }
    }
    names.retain(|name| !name.contains("node.db"));
    names.sort();
    names
}

/// Names and ids are made of pieces that mean something to a file system; what is taken as one is a plain name.
#[test]
fn s13_what_is_taken_as_a_name_is_one() {
    const PIECES: [&str; 24] = [
        "..",
        ".",
        "/",
        "//",
        "\\",
        "%2e",
        "%2f",
        "%00",
        "\0",
        "\u{7f}",
        " ",
        "~",
        "\u{202e}",
        "\u{c0}\u{af}",
        "a",
        "b9",
        "blake3;",
        "sha256-",
        "photos",
        "-",
        "_",
        "+",
        "@",
        ":",
    ];
    let mut rng = Rng::for_test("names");
    let mut taken = 0;
    for _ in 0..PARSED.rounds() {
        let mut text: String = (0..1 + rng.below(5))
            .map(|_| PIECES[rng.below(PIECES.len())])
            .collect();
        if rng.one_in(4) {
            text.push_str(&"0123456789abcdef".repeat(1 + rng.below(4)));
        }
        let names = [
            text.parse::<BlobAddress>().map(|id| id.to_string()).ok(),
            text.parse::<StoreName>().map(|name| name.to_string()).ok(),
            text.parse::<RefName>().map(|name| name.to_string()).ok(),
            text.parse::<AccountName>().map(|name| name.to_string()).ok(),
            text.parse::<UploadId>().map(|id| id.to_string()).ok(),
            text.parse::<TokenId>().map(|id| id.to_string()).ok(),
        ];
        for name in names.into_iter().flatten() {
            taken += 1;
            let plain = Path::new(&name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            let printed = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
            assert!(plain && printed && !name.contains("//"), "{name:?} of {text:?}");
        }
    }
    assert!(taken > 100, "only {taken} texts were names at all");
}

#[test]
fn s13_no_name_opens_a_file_that_ordinary_requests_do_not_open() {
    if !strace::works_or_skip() {
        return;
    }
    let ordinary = opened_outside(&["documents".to_owned(), "main".to_owned()]);
    let names: Vec<String> = hostile_names(NAMES.rounds() / 3);
    let hostile = opened_outside(&names);
    let more: Vec<&PathBuf> = hostile.difference(&ordinary).collect();
    assert!(more.is_empty(), "{more:#?}");
}

/// Every path outside of its data folder that a node names to the system while it starts, is asked for these names in each
/// kind of route, and ends.
fn opened_outside(names: &[String]) -> BTreeSet<PathBuf> {
    let claimed = Claimed::template();
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    claimed.copy_to(&data);
    let node = Node::start_as(strace::watch(&refuge(), "%file", &log), &data).unwrap();
    for name in names {
        for (method, target) in targets(name) {
            // A refusal may end the connection.
            let mut http: Http = node.client(&claimed.token).unwrap();
            let answer = http.send(method, &target, &[], &[]).unwrap();
            assert!(answer.status < 500, "{method} {target}: {}", answer.status);
        }
    }
    assert!(node.terminate().unwrap().success());
    let paths = strace::paths_named(&log).unwrap();
    assert!(
        paths.iter().any(|path| path.starts_with(&data)),
        "the trace is of the node"
    );
    let outside = paths.into_iter().filter(|path| !path.starts_with(folder.path()));
    // What the system shows of this very process and its threads has another number each time.
    outside.filter(|path| !path.starts_with("/proc")).collect()
}

/// A route of each kind, asked for a name.
fn targets(name: &str) -> [(&'static str, String); 8] {
    [
        ("GET", format!("/blobs/{name}")),
        ("PUT", format!("/blobs/{name}")),
        ("GET", format!("/stores/{name}/blobs")),
        ("DELETE", format!("/stores/{name}")),
        ("GET", format!("/refs/{name}")),
        ("HEAD", format!("/uploads/{name}")),
        ("GET", format!("/assets/{name}")),
        ("GET", format!("/api/refs/x/tree?path={name}")),
    ]
}
