//! The rules of ARCHITECTURE.md that a machine can see, read from the sources: which module may name which, and where what may stand.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::Source;

/// Which modules directly below the crate root a module may name. A module that is not listed may name nothing.
/// Changing this table changes the architecture: it needs a commit of its own, and ARCHITECTURE.md with it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("durable", &[]),
    ("http", &["id"]),
    ("db", &["id"]),
    ("coffer", &["id", "db", "durable", "http"]),
    ("files", &["id", "coffer", "durable", "http"]),
    ("blanket", &["id", "db", "http"]),
    ("index", &["id", "db", "blanket"]),
    (
        "node",
        &["id", "db", "durable", "coffer", "files", "blanket", "index"],
    ),
    ("api", &["id", "node"]),
    ("sync", &["id", "node"]),
    ("replicate", &["id", "http", "node"]),
    ("discovery", &["id", "node"]),
    ("uplink", &["id", "node"]),
    ("board", &["id", "http", "node"]),
    ("hub", &["id", "uplink"]),
    (
        "config",
        &[
            "id",
            "coffer",
            "files",
            "blanket",
            "index",
            "node",
            "api",
            "sync",
            "replicate",
            "discovery",
            "uplink",
            "board",
            "hub",
        ],
    ),
    (
        "app",
        &[
            "id",
            "durable",
            "http",
            "db",
            "coffer",
            "files",
            "blanket",
            "index",
            "node",
            "api",
            "sync",
            "replicate",
            "discovery",
            "uplink",
            "board",
            "hub",
            "config",
        ],
    ),
    ("cli", &["id", "http", "files", "node", "config", "app"]),
    ("main", &["id", "files", "node", "config", "app", "cli"]),
    ("lib", &[]),
];

/// Files longer than this are refused: they hold more than one reason to change.
const MOST_LINES: usize = 800;
/// Longer files that stay, each with its reason.
const LONGER_FILES: &[(&str, &str)] = &[];

/// File names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "manager",
    "misc",
    "types",
    "constants",
];

/// Where storage code meets async.
const CROSSINGS: &[&str] = &["src/db.rs", "src/coffer.rs"];

/// Crates that would bring a second TLS stack or a second HTTP client, or need more than a C compiler on ARMv7.
const REFUSED_CRATES: &[&str] = &[
    "openssl-sys",
    "native-tls",
    "aws-lc-sys",
    "aws-lc-rs",
    "reqwest",
    "ureq",
];

#[test]
fn modules_import_only_what_the_table_allows() {
    refuse(sources("src").iter().flat_map(refused_imports));
}

#[test]
fn files_stay_short_and_are_named_for_what_they_hold() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(sources);
    refuse(files.flat_map(|source| {
        let mut findings = Vec::new();
        let lines = source.text.lines().count();
        if lines > MOST_LINES && !LONGER_FILES.iter().any(|(path, _)| *path == source.path) {
            findings.push(format!("{}: {lines} lines, more than {MOST_LINES}", source.path));
        }
        let stem = Path::new(&source.path)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if stem == "mod" {
            findings.push(format!(
                "{}: a module is name.rs and, when it grows, the folder name/",
                source.path
            ));
        }
        if EMPTY_NAMES.contains(&stem) {
            findings.push(format!(
                "{}: name the concept, or put the code beside its only user",
                source.path
            ));
        }
        findings
    }));
}

#[test]
fn exceptions_are_still_needed() {
    refuse(LONGER_FILES.iter().filter_map(|(path, reason)| {
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        (text.lines().count() <= MOST_LINES).then(|| format!("{path} needs no exception any more ({reason})"))
    }));
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(sources);
    refuse(
        files
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| {
                format!(
                    "{}: begins without `//!` and the one reason it would change for",
                    source.path
                )
            }),
    );
}

#[test]
fn storage_meets_async_in_two_files() {
    refuse(misplaced(&["spawn_blocking", "block_in_place"], |path| {
        CROSSINGS.contains(&path)
    }));
    // The entries of the program start a runtime, and the HTTP client's blocking half drives its own.
    refuse(misplaced(&["block_on"], |path| {
        in_module(path, &["cli", "app", "main", "http"])
    }));
}

#[test]
fn failures_are_values_outside_tests() {
    refuse(misplaced(
        &["unwrap", "unwrap_err", "todo", "unimplemented", "dbg"],
        |_| false,
    ));
}

#[test]
fn only_the_outermost_modules_erase_error_types_and_print() {
    refuse(misplaced(
        &["anyhow", "println", "eprintln", "print", "eprint"],
        |path| in_module(path, &["main", "cli", "app"]),
    ));
}

#[test]
fn lints_are_silenced_with_expect_alone() {
    let shipped = shipped();
    refuse(shipped.iter().flat_map(|source| {
        let allows = source
            .code
            .match_indices("#[allow(")
            .chain(source.code.match_indices("#![allow("));
        let allows = allows.filter(|&(at, _)| !source.is_test_only(at));
        allows.map(|(at, _)| {
            format!(
                "{}:{}: `expect` with a reason instead of `allow`",
                source.path,
                source.line(at)
            )
        })
    }));
}

#[test]
fn pragmas_stand_in_one_file() {
    let all = sources("src");
    refuse(
        all.iter()
            .filter(|source| !source.path.starts_with("src/db/"))
            .flat_map(|source| {
                let found = source
                    .text
                    .match_indices("PRAGMA ")
                    .filter(|&(at, _)| !source.is_test_only(at));
                found.map(|(at, _)| {
                    format!(
                        "{}:{}: pragmas belong in src/db/open.rs",
                        source.path,
                        source.line(at)
                    )
                })
            }),
    );
}

#[test]
fn one_tls_stack_one_http_client_one_registry() {
    let lock =
        fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is part of the repository");
    refuse(lock.lines().filter_map(|line| {
        let (key, value) = line.split_once(" = ")?;
        let value = value.trim_matches('"');
        match key {
            "name" if REFUSED_CRATES.contains(&value) => {
                Some(format!("Cargo.lock: {value} is refused (deny.toml says why)"))
            }
            "source" if value != "registry+https://github.com/rust-lang/crates.io-index" => {
                Some(format!("Cargo.lock: {value} is not crates.io"))
            }
            _ => None,
        }
    }));
}

#[test]
fn nothing_names_a_place_of_one_machine() {
    refuse(texts(&root()).into_iter().flat_map(|(path, text)| {
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| place_of_one_machine(line));
        lines
            .map(|(line, _)| format!("{path}:{}: a folder that only one machine has", line + 1))
            .collect::<Vec<_>>()
    }));
}

fn refused_imports(source: &Source) -> Vec<String> {
    let known = |name: &str| {
        MAY_IMPORT
            .iter()
            .find(|(module, _)| *module == name)
            .map(|(_, allowed)| *allowed)
    };
    let module = source.module();
    let Some(allowed) = known(module) else {
        return vec![format!(
            "{}: module `{module}` is not in the import table",
            source.path
        )];
    };
    let imports = source
        .imports()
        .into_iter()
        .filter(|(_, name)| name != module && known(name).is_some() && !allowed.contains(&name.as_str()));
    let refused: BTreeSet<_> = imports.map(|(at, name)| (source.line(at), name)).collect();
    refused
        .into_iter()
        .map(|(line, name)| format!("{}:{line}: `{module}` must not name `{name}`", source.path))
        .collect()
}

/// Words of the code of `src/`, outside tests, where `allowed` says that they don't belong.
fn misplaced(words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let judged = shipped().into_iter().filter(|source| !allowed(&source.path));
    judged
        .flat_map(|source| {
            words
                .iter()
                .flat_map(|word| uses(&source, word))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The files of `src/` that are not compiled for tests alone.
fn shipped() -> Vec<Source> {
    let mut all = sources("src");
    let test_only: Vec<_> = all.iter().flat_map(Source::test_only_files).collect();
    all.retain(|source| {
        let below = |test: &String| {
            source
                .path
                .strip_prefix(test.as_str())
                .is_some_and(|rest| rest.starts_with(['.', '/']))
        };
        !test_only.iter().any(below)
    });
    all
}

/// Calls, macros and paths of this name outside tests; an item or field may be called so.
fn uses(source: &Source, word: &str) -> Vec<String> {
    let used = source.words(word).filter(|&at| {
        let after = &source.code[at + word.len()..];
        (after.starts_with('(') || after.starts_with("!(") || after.starts_with("::"))
            && !source.is_test_only(at)
    });
    used.map(|at| {
        format!(
            "{}:{}: `{word}` does not belong here",
            source.path,
            source.line(at)
        )
    })
    .collect()
}

fn in_module(path: &str, modules: &[&str]) -> bool {
    modules.contains(&Source::new(path, "").module())
}

/// A path below a home folder or a folder directly below `/` that no distribution has.
fn place_of_one_machine(line: &str) -> bool {
    ["/root/", "/home/", "/Users/", "/work/"]
        .into_iter()
        .any(|place| {
            line.match_indices(place).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                // `src/work/…` and `https://host/home/…` are no places of a machine.
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '_' | '-' | '.' | '}' | '"'))
            })
        })
}

fn refuse(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<_> = findings.into_iter().collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The Rust files below a folder of the repository, in the order of their paths.
fn sources(folder: &str) -> Vec<Source> {
    let rust = texts(&root().join(folder))
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"));
    rust.map(|(path, text)| Source::new(path, text)).collect()
}

/// Every text file below `folder` that is not built or fetched, with its path relative to the repository.
fn texts(folder: &Path) -> Vec<(String, String)> {
    let skipped = |name: &str| matches!(name, "target" | "data" | "boxes" | ".git" | "Cargo.lock");
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder of the checkout can be listed").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if skipped(name) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let inside = path
                    .strip_prefix(root())
                    .expect("the walk starts inside the repository");
                found.push((inside.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_refused_import_is_found() {
    let edge = Source::new(
        "src/api/blobs.rs",
        "//! x\nuse crate::id::BlobId;\nuse crate::{coffer::Store, node};\n",
    );
    assert_eq!(
        refused_imports(&edge),
        ["src/api/blobs.rs:3: `api` must not name `coffer`"]
    );
    let unknown = Source::new("src/cloud.rs", "//! x\n");
    assert_eq!(
        refused_imports(&unknown),
        ["src/cloud.rs: module `cloud` is not in the import table"]
    );
}

#[test]
fn a_misplaced_call_is_found() {
    let text = "fn f() { x.unwrap(); x.unwrap_or(1); }\nfn unwrap_all() {}\n#[cfg(test)]\nmod tests { fn g() { x.unwrap(); } }\n";
    let source = Source::new("src/id.rs", text);
    assert_eq!(
        uses(&source, "unwrap"),
        ["src/id.rs:1: `unwrap` does not belong here"]
    );
    let source = Source::new(
        "src/id.rs",
        "use anyhow::Result;\nfn f() { tokio::task::spawn_blocking(g); println!(\"x\") }",
    );
    assert_eq!(
        uses(&source, "anyhow"),
        ["src/id.rs:1: `anyhow` does not belong here"]
    );
    assert_eq!(
        uses(&source, "spawn_blocking"),
        ["src/id.rs:2: `spawn_blocking` does not belong here"]
    );
    assert_eq!(
        uses(&source, "println"),
        ["src/id.rs:2: `println` does not belong here"]
    );
}

#[test]
fn a_place_of_one_machine_is_found() {
    let home = format!("/{}/", "home");
    assert!(place_of_one_machine(&format!("open({home}ann/refuge)")));
    assert!(place_of_one_machine(&format!("cd {home}ann")));
    assert!(!place_of_one_machine(&format!("https://example.org{home}page")));
    assert!(!place_of_one_machine(&format!("src{home}page")));
}
