//! The table beside a blob of several frames: what lets a range be verified by the frames it touches.
//!
//! ```text
//! 0   "rftable"                    7 bytes
//! 7   version, 1                   1 byte
//! 8   per frame: its length u32 LE, its chaining value 32 bytes   (`frame.rs`)
//! ```
//!
//! A table proves itself: its values make up the blob's id, or it is worth nothing. Without it the blob is
//! read whole once to verify any part of it; a check makes it again.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::place::open_file;
use crate::coffer::backend::Stat;
use crate::coffer::frame::{FRAME_BYTES, TABLE_ENTRY_BYTES, Table, Tree};

const HEADER: [u8; 8] = *b"rftable\x01";

/// The table of a blob whose frames are stored as they are.
pub(super) fn encode(tree: &Tree) -> Vec<u8> {
    let mut table = Vec::with_capacity(HEADER.len() + tree.frames() as usize * TABLE_ENTRY_BYTES);
    table.extend_from_slice(&HEADER);
    tree.write_table(&mut table);
    table
}

/// The table with these entries.
pub(super) fn with_header(entries: &[u8]) -> Vec<u8> {
    [&HEADER, entries].concat()
}

/// The frames of these bytes, stored as they are.
pub(super) fn tree_of(plain: &[u8]) -> Tree {
    let mut tree = Tree::default();
    for frame in plain.chunks(FRAME_BYTES) {
        tree.push(frame, frame.len(), false);
    }
    tree
}

/// Bytes that the table of a blob of this length takes; none for a blob of one frame.
pub(super) fn encoded_len(plain_len: u64) -> Option<u64> {
    let frames = plain_len.div_ceil(FRAME_BYTES as u64);
    (frames > 1).then_some(HEADER.len() as u64 + frames * TABLE_ENTRY_BYTES as u64)
}

/// The table of a blob, where there is one that proves it.
pub(super) fn load(path: &Path, blob: Stat) -> Option<Table> {
    let mut file = open_file(path).ok()?;
    // Before any memory is taken for it.
    if Some(file.metadata().ok()?.len()) != encoded_len(blob.len) {
        return None;
    }
    let mut table = Vec::new();
    file.read_to_end(&mut table).ok()?;
    parse(&table, blob)
}

/// A table as stored, where it proves the blob.
pub(super) fn parse(bytes: &[u8], blob: Stat) -> Option<Table> {
    let table = Table::parse(bytes.strip_prefix(&HEADER)?, blob.len)?;
    // The values say nothing about the length, as those of the last frame are not read yet.
    let fits = (0..table.frames()).all(|index| table.stored_len(index) == table.plain_len(index));
    (fits && table.proves(&blob.id)).then_some(table)
}

/// Reads a file of `len` bytes whole. A file that is shorter than that gives a tree that is shorter too.
pub(super) fn read_tree(file: &File, len: u64) -> std::io::Result<Tree> {
    let mut tree = Tree::default();
    let mut frame = vec![0; FRAME_BYTES];
    let mut at = 0;
    while at < len {
        let wanted = usize::try_from((len - at).min(FRAME_BYTES as u64)).unwrap_or(FRAME_BYTES);
        let read = read_full(file, &mut frame[..wanted], at)?;
        tree.push(&frame[..read], read, false);
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    Ok(tree)
}

/// Reads until the buffer is full or the file ends; how much that was.
fn read_full(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coffer::backend::Class;
    use crate::id::BlobId;

    #[test]
    fn a_table_is_as_drawn_and_proves_only_its_blob() {
        let plain = vec![7; FRAME_BYTES + 1];
        let table = encode(&tree_of(&plain));
        assert_eq!(table[..12], *b"rftable\x01\x00\x00\x04\x00");
        assert_eq!(table[8 + 36..][..4], [1, 0, 0, 0]);
        assert_eq!(Some(table.len() as u64), encoded_len(plain.len() as u64));
        let mut blob = Stat {
            id: BlobId::of(&plain),
            len: plain.len() as u64,
            class: Class::Part,
        };
        assert!(parse(&table, blob).is_some());
        for damaged in [&table[..table.len() - 1], &table[1..], &[][..]] {
            assert!(parse(damaged, blob).is_none());
        }
        let mut flipped = table.clone();
        flipped[20] ^= 1;
        assert!(parse(&flipped, blob).is_none());
        blob.len += 1;
        assert!(parse(&table, blob).is_none());
        assert_eq!(encoded_len(FRAME_BYTES as u64), None);
    }
}
