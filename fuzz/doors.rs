//! The doors through which bytes from outside come in; each takes any bytes and must neither panic nor lie.
//!
//! One text for two users: the fuzz targets beside this file, and `tests/it/doors.rs`, which runs a seeded sample
//! of the same with a stable compiler.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use refuge::coffer::{Backend, Class, Compression, Memory, Store};
use refuge::durable;
use refuge::files::{Commit, Selector, entries, find};
use refuge::id::{AccountName, BlobAddress, BlobId, NodeId, RefName, StoreName};

/// Every door, by the name of its fuzz target.
pub const ALL: &[(&str, fn(&[u8]))] = &[("names", names), ("schemas", schemas), ("state_file", state_file)];

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
    // A selector has no text of its own.
    let _ = text.parse::<Selector>();
}

/// Blobs that say they are a tree or a commit: read through the store, as a restore does.
pub fn schemas(data: &[u8]) {
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
