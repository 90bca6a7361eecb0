//! The doors through which bytes from outside come in; each takes any bytes and must neither panic nor lie.
//!
//! One text for two users: the fuzz targets beside this file, and `tests/it/doors.rs`, which runs a seeded sample
//! of the same with a stable compiler.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use refuge::coffer::{
    Backend, CheckOptions, Class, Compression, Haystack, HaystackOptions, Memory, Packed, Store, read_whole,
};
use refuge::discovery::mdns::message::Message;
use refuge::discovery::packet::Packet;
use refuge::durable;
use refuge::files::{Commit, Selector, entries, find};
use refuge::id::{AccountName, BlobAddress, BlobId, BundleName, BundleUrl, NodeId, RefName, StoreName};
use refuge::node::{BundleManifest, Source};

/// A way in, and how many cases of it a quick run tries: those that flush a disk are slow.
pub struct Door {
    pub name: &'static str,
    pub cases: u32,
    pub open: fn(&[u8]),
}

/// Every door, by the name of its fuzz target.
pub const ALL: &[Door] = &[
    Door {
        name: "names",
        cases: 1000,
        open: names,
    },
    Door {
        name: "schemas",
        cases: 500,
        open: schemas,
    },
    Door {
        name: "discovery",
        cases: 2000,
        open: discovery,
    },
    Door {
        name: "state_file",
        cases: 200,
        open: state_file,
    },
    Door {
        name: "haystack",
        cases: 60,
        open: haystack,
    },
];

/// Texts that name things. What parses prints as a text that parses to the same.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    fn again<T: FromStr + ToString + PartialEq>(text: &str) {
        if let Ok(name) = text.parse::<T>() {
            let printed = name.to_string();
            let parsed = printed.parse::<T>();
            assert!(
                parsed.is_ok_and(|parsed| parsed == name),
                "{text:?} prints as {printed:?}"
            );
        }
    }
    again::<BlobAddress>(text);
    again::<BlobId>(text);
    again::<NodeId>(text);
    again::<AccountName>(text);
    again::<StoreName>(text);
    again::<RefName>(text);
    again::<BundleName>(text);
    again::<BundleUrl>(text);
    again::<Source>(text);
    // A selector has no text of its own.
    let _ = text.parse::<Selector>();
}

/// Packets of the local network. What is read is written as something that reads the same.
pub fn discovery(data: &[u8]) {
    if let Some(packet) = Packet::parse(data) {
        assert_eq!(Packet::parse(&packet.to_bytes()), Some(packet));
    }
    if let Some(message) = Message::parse(data) {
        let written = message.to_bytes();
        assert!(Message::parse(&written).is_some() || written.len() > data.len());
    }
}

/// What another box says of its bundle; and blobs that say they are a tree or a commit: read through the store, as a restore does.
pub fn schemas(data: &[u8]) {
    if let Ok(manifest) = BundleManifest::parse(data) {
        assert_eq!(BundleManifest::parse(&manifest.bytes()), Ok(manifest));
    }
    let memory = Arc::new(Memory::new());
    let store = Store::new(memory.clone(), Compression(1)).expect("a store in memory opens");
    let id = BlobId::of(data);
    memory
        .append(&[store.pack(data.to_vec().into(), Class::Part)])
        .expect("memory takes what it is given");
    memory.flush().expect("memory has nothing to flush");
    if let Ok(listed) = entries(&store, &id) {
        // A blob cannot name itself, so this ends; an entry that does not parse is an error and no panic.
        for entry in listed {
            if entry.is_err() {
                break;
            }
        }
    }
    // Refusals are what this is about: any is right.
    let _ = find(&store, &id, Path::new("a/b"));
    if let Ok(commit) = Commit::load(&store, &id) {
        let _ = commit.size();
        for piece in commit.pieces(&store) {
            if piece.is_err() {
                break;
            }
        }
    }
}

/// A state file as a dying disk might leave it: what is read back is what was once written, or an error.
pub fn state_file(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("state");
    durable::replace(&path, b"kept").expect("the state is written");
    std::fs::write(&path, data).expect("the file can be damaged");
    if let Ok(Some(state)) = durable::read(&path)
        && state.generation == durable::Generation::Previous
    {
        assert_eq!(state.payload, b"kept");
    }
}

/// A haystack with one of its files changed: it opens or refuses, and gives back what was put, nothing, or an error.
///
/// The first byte chooses the file and whether the rest replaces it or is written into it at the place that the next
/// two bytes say.
pub fn haystack(data: &[u8]) {
    let [choice, high, low, patch @ ..] = data else {
        return;
    };
    let blobs = [&b"a"[..], &[7; 9000], &[0; 70_000]];
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let open = || Haystack::open(folder.path(), HaystackOptions::default());
    {
        let backend = open().expect("an empty folder becomes a haystack");
        let packed = blobs.map(|blob| Packed::new(blob.to_vec().into(), Class::Pinned, Compression(1)));
        backend.append(&packed).expect("a fresh haystack takes blobs");
        backend.flush().expect("a fresh haystack flushes");
    }
    let files = files_below(folder.path());
    let file = &files[usize::from(choice / 2) % files.len()];
    let mut bytes = std::fs::read(file).expect("a file of the haystack can be read");
    if choice % 2 == 0 {
        bytes = patch.to_vec();
    } else {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
        bytes.resize(bytes.len().max(at + patch.len()), 0);
        bytes[at..at + patch.len()].copy_from_slice(patch);
    }
    std::fs::write(file, bytes).expect("a file of the haystack can be changed");

    let Ok(backend) = open() else { return };
    for blob in blobs {
        if let Ok(Some(mut reader)) = backend.open(&BlobId::of(blob))
            && let Ok(read) = read_whole(&mut *reader, 1 << 20)
        {
            assert!(
                read == blob,
                "a changed file gave other bytes under the id of a blob"
            );
        }
    }
    // Any report is right; only a panic is not.
    let _ = backend.check(
        CheckOptions {
            read_data: true,
            repair: true,
        },
        &|_| (),
    );
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files.sort();
    files
}
