//! Writes the tree of a folder entry by entry, cut into leaves where it is large.

use super::super::error::Error;
use super::Entry;
use super::wire::{LEAF_HEAD, encode_branch, encode_entry, leaf_tail};
use crate::id::BlobId;

/// A leaf of this many bytes ends at the next name whose hash says so: some 500 entries. Smaller leaves
/// would cost more ids than they save.
const LEAF_BYTES_MIN: usize = 128 * 1024;

/// One name in this many ends a leaf.
const LEAF_END_ODDS: u16 = 512;

/// A leaf of this many bytes ends, whatever the names are: its last entry (a link of at most 4 KiB) keeps it
/// well below what is packed whole.
const LEAF_BYTES_MAX: usize = 1024 * 1024;

/// Takes a folder's entries in order, and gives the id of its tree.
#[derive(Clone)]
pub(in crate::files) struct TreeWriter {
    leaf: Vec<u8>,
    leaves: Vec<BlobId>,
}

impl TreeWriter {
    pub(in crate::files) fn new() -> TreeWriter {
        TreeWriter {
            leaf: Vec::new(),
            leaves: Vec::new(),
        }
    }

    /// Adds an entry; its name is above all before. `put` stores a blob and gives its id.
    ///
    /// # Errors
    /// What `put` answers.
    pub(in crate::files) fn push(
        &mut self,
        entry: &Entry,
        put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId, Error>,
    ) -> Result<(), Error> {
        if self.leaf.is_empty() {
            self.leaf.extend_from_slice(LEAF_HEAD);
        } else {
            self.leaf.push(b',');
        }
        encode_entry(entry, &mut self.leaf);
        if self.leaf.len() >= LEAF_BYTES_MAX || (self.leaf.len() >= LEAF_BYTES_MIN && ends_leaf(entry)) {
            self.close(put)?;
        }
        Ok(())
    }

    /// Ends the folder.
    ///
    /// # Errors
    /// What `put` answers.
    pub(in crate::files) fn finish(
        mut self,
        put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId, Error>,
    ) -> Result<BlobId, Error> {
        if !self.leaf.is_empty() || self.leaves.is_empty() {
            if self.leaf.is_empty() {
                self.leaf.extend_from_slice(LEAF_HEAD);
            }
            self.close(put)?;
        }
        match self.leaves.as_slice() {
            [only] => Ok(*only),
            leaves => put(encode_branch(leaves)),
        }
    }

    /// Whether nothing was added yet.
    pub(in crate::files) fn is_untouched(&self) -> bool {
        self.leaf.is_empty() && self.leaves.is_empty()
    }

    fn close(&mut self, put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId, Error>) -> Result<(), Error> {
        let mut leaf = std::mem::take(&mut self.leaf);
        leaf.extend_from_slice(leaf_tail().as_bytes());
        self.leaves.push(put(leaf)?);
        Ok(())
    }
}

fn ends_leaf(entry: &Entry) -> bool {
    let hash = blake3::hash(entry.name.as_bytes());
    let [low, high, ..] = *hash.as_bytes();
    u16::from_le_bytes([low, high]).is_multiple_of(LEAF_END_ODDS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::wire::{Tree, decode};
    use super::super::{EntryName, Kind, Meta, Time};
    use super::*;
    use crate::coffer::PACKED_BYTES_MAX;

    fn fifo(name: &str) -> Entry {
        Entry {
            name: EntryName::new(name.as_bytes()).unwrap(),
            meta: Meta {
                mode: 0,
                uid: 0,
                gid: 0,
                mtime: Time(0, 0),
            },
            kind: Kind::Fifo,
        }
    }

    fn write(names: &[String]) -> (BlobId, HashMap<BlobId, Vec<u8>>) {
        let mut blobs = HashMap::new();
        let mut put = |bytes: Vec<u8>| {
            let id = BlobId::of(&bytes);
            blobs.insert(id, bytes);
            Ok(id)
        };
        let mut writer = TreeWriter::new();
        for name in names {
            writer.push(&fifo(name), &mut put).unwrap();
        }
        let id = writer.finish(&mut put).unwrap();
        (id, blobs)
    }

    #[test]
    fn a_large_folder_is_cut_where_its_names_say_so() {
        let names: Vec<String> = (0..40_000).map(|n| format!("file-{n:08}")).collect();
        let (id, blobs) = write(&names);
        assert!(blobs.values().all(|bytes| bytes.len() < PACKED_BYTES_MAX));
        let Tree::Branch(leaves) = decode(&id, &blobs[&id]).unwrap() else {
            panic!("a folder of 40,000 entries is a branch");
        };
        let mut read = Vec::new();
        for leaf in &leaves {
            let Tree::Leaf(entries) = decode(leaf, &blobs[leaf]).unwrap() else {
                panic!("a branch holds leaves");
            };
            read.extend(entries.into_iter().map(|entry| entry.name.to_string()));
        }
        assert_eq!(read, names);

        let mut one_more = names.clone();
        one_more.insert(7, "file-00000006a".to_owned());
        let (_, grown) = write(&one_more);
        let fresh = grown.keys().filter(|id| !blobs.contains_key(id)).count();
        assert!(fresh <= 3, "{fresh} of {} blobs are new", grown.len());
    }

    #[test]
    fn an_empty_folder_has_one_spelling() {
        let (id, blobs) = write(&[]);
        assert_eq!(decode(&id, &blobs[&id]).unwrap(), Tree::Leaf(vec![]));
        assert_eq!(blobs[&id], br#"{"entries":[],"refuge":"tree","version":1}"#);
    }
}
