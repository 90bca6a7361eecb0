//! How documents are keys: version 1.
//!
//! ```text
//! key                         value, sealed
//! !refuge                     u32 version of this layout, big endian
//! d ID                        u64 its sequence, big endian
//! s SEQ                       a document at its last sequence; SEQ is 8 bytes, big endian:
//!   varint length, ID
//!   varint number of leaves
//!   for each leaf, the winner first: varint 2 × pieces of what it holds + 1 where it has attachments
//!   the revision tree
//! c ID 0 REV 0 PIECE          a piece of what a leaf holds; PIECE is 4 bytes, big endian. All pieces together:
//!   varint length, attachments as JSON (nothing where there are none), the body
//! a ID 0 REV                  nothing: a leaf that has attachments
//! l NAME                      u64 edits, big endian, then the body of a local document
//! n                           u64 documents, u64 deleted ones, u64 the last sequence, u64 groups that were written, big endian
//! x KEY                       a setting
//! ```
//!
//! A sealed value is a CRC-32 (little endian) of its key and the rest, then the rest: a value that the medium changed or moved
//! is an error. Ids may hold zero bytes, revisions do not, so that the last two zeros of a key are found from its end. What a
//! leaf holds is cut in pieces, so that no block of a store, and nothing it caches, is as long as a document may be.

use std::path::Path;

use super::super::doc::{Attachments, Body, Content};
use super::super::engine::Summary;
use super::super::error::Error;
use super::super::tree::{CodecError, Leaf, RevTree, leaves_of};
use super::{Batch, Moment};
use crate::id::{DocId, LocalId, Rev, Seq};

/// The version that is written; a greater one is refused.
pub(super) const FORMAT: u32 = 1;

/// The longest piece: some pages of a medium.
const PIECE_BYTES: usize = 32 * 1024;

const FORMAT_KEY: &[u8] = b"!refuge";
pub(super) const COUNTERS_KEY: &[u8] = b"n";
const CHECKSUM_BYTES: usize = 4;

/// A document as its row holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) seq: Seq,
    pub(super) tree: RevTree,
    /// One for each leaf, the winner first.
    pub(super) held: Vec<Held>,
}

/// A row without what is behind its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: DocId,
    pub(super) leaves: Vec<Leaf>,
    pub(super) held: Vec<Held>,
}

/// How what a leaf holds is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) pieces: u32,
    pub(super) is_attached: bool,
}

/// What is counted with each group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) summary: Summary,
    /// Groups that were written: tells whether the last one was.
    pub(super) groups: u64,
}

/// Why a value is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged,
    Newer,
}

impl From<CodecError> for Unreadable {
    fn from(error: CodecError) -> Unreadable {
        match error {
            CodecError::Newer(_) => Unreadable::Newer,
            CodecError::Damaged => Unreadable::Damaged,
        }
    }
}

impl Unreadable {
    /// The error where it is known which document is meant.
    pub(super) fn of(self, id: &DocId, path: &Path) -> Error {
        match self {
            Unreadable::Damaged => Error::DamagedDoc { id: id.clone() },
            Unreadable::Newer => Error::Newer {
                path: path.to_owned(),
            },
        }
    }

    /// The error where it is not.
    pub(super) fn at(self, key: &[u8], path: &Path) -> Error {
        match self {
            Unreadable::Damaged => damaged(key, path),
            Unreadable::Newer => Error::Newer {
                path: path.to_owned(),
            },
        }
    }
}

/// What a new database holds.
pub(super) fn first() -> Batch {
    vec![
        put(FORMAT_KEY.to_vec(), &FORMAT.to_be_bytes()),
        counters(&Counters::default()),
    ]
}

/// Refuses what is none of ours, or of a newer Refuge.
pub(super) fn check_format(moment: &mut dyn Moment, path: &Path) -> Result<(), Error> {
    let sealed = moment.get(FORMAT_KEY)?.ok_or_else(|| Error::Corrupt {
        path: path.to_owned(),
        what: "it does not say which format it has".to_owned(),
    })?;
    let format = unseal(FORMAT_KEY, &sealed).map_err(|unreadable| unreadable.at(FORMAT_KEY, path))?;
    let format = format.try_into().map(u32::from_be_bytes);
    match format.map_err(|_| damaged(FORMAT_KEY, path))? {
        FORMAT => Ok(()),
        0 => Err(damaged(FORMAT_KEY, path)),
        _ => Err(Error::Newer {
            path: path.to_owned(),
        }),
    }
}

/// A key with its sealed value.
pub(super) fn put(key: Vec<u8>, value: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    sealed.extend(checksum(&key, value));
    sealed.extend(value);
    (key, Some(sealed))
}

/// What was sealed for a key.
pub(super) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let (found, value) = sealed
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or(Unreadable::Damaged)?;
    match checksum(key, value) == found {
        true => Ok(value),
        false => Err(Unreadable::Damaged),
    }
}

pub(super) fn damaged(key: &[u8], path: &Path) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        what: format!(
            "the value of the key {:?} is damaged",
            String::from_utf8_lossy(key)
        ),
    }
}

pub(super) fn id_key(id: &DocId) -> Vec<u8> {
    [b"d", id.as_str().as_bytes()].concat()
}

/// The id in a key of `d`.
pub(super) fn id_of(key: &[u8]) -> Option<DocId> {
    std::str::from_utf8(key.strip_prefix(b"d")?).ok()?.parse().ok()
}

pub(super) fn seq_key(seq: Seq) -> Vec<u8> {
    [b"s".as_slice(), &seq.number().to_be_bytes()].concat()
}

/// The sequence in a key of `s`.
pub(super) fn seq_of(key: &[u8]) -> Option<Seq> {
    number(key.strip_prefix(b"s")?).and_then(Seq::new)
}

/// The sequence in a value of `d`.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

pub(super) fn piece_key(id: &DocId, rev: &Rev, piece: u32) -> Vec<u8> {
    let mut key = leaf_key(b"c", id, rev);
    key.push(0);
    key.extend(piece.to_be_bytes());
    key
}

pub(super) fn attached_key(id: &DocId, rev: &Rev) -> Vec<u8> {
    leaf_key(b"a", id, rev)
}

/// The document and the leaf in a key of `a`.
pub(super) fn attached_of(key: &[u8]) -> Option<(DocId, Rev)> {
    let text = std::str::from_utf8(key.strip_prefix(b"a")?).ok()?;
    let (id, rev) = text.rsplit_once('\0')?;
    Some((id.parse().ok()?, rev.parse().ok()?))
}

pub(super) fn local_key(id: &LocalId) -> Vec<u8> {
    [b"l", id.name().as_bytes()].concat()
}

/// The local document in a key of `l`.
pub(super) fn local_of(key: &[u8]) -> Option<LocalId> {
    LocalId::named(std::str::from_utf8(key.strip_prefix(b"l")?).ok()?).ok()
}

pub(super) fn setting_key(key: &str) -> Vec<u8> {
    [b"x", key.as_bytes()].concat()
}

pub(super) fn counters(counters: &Counters) -> (Vec<u8>, Option<Vec<u8>>) {
    let Counters { summary, groups } = counters;
    let numbers = [
        summary.docs,
        summary.deleted_docs,
        summary.update_seq.number(),
        *groups,
    ];
    put(
        COUNTERS_KEY.to_vec(),
        numbers.map(u64::to_be_bytes).as_flattened(),
    )
}

pub(super) fn counters_of(value: &[u8]) -> Option<Counters> {
    let (numbers, []) = value.as_chunks::<8>() else {
        return None;
    };
    let [docs, deleted_docs, update_seq, groups] = *numbers else {
        return None;
    };
    Some(Counters {
        summary: Summary {
            docs: u64::from_be_bytes(docs),
            deleted_docs: u64::from_be_bytes(deleted_docs),
            update_seq: Seq::new(u64::from_be_bytes(update_seq))?,
        },
        groups: u64::from_be_bytes(groups),
    })
}

/// The value of a row.
pub(super) fn row(id: &DocId, tree: &RevTree, held: &[Held]) -> Vec<u8> {
    let tree = tree.encode();
    let id = id.as_str().as_bytes();
    let mut value = Vec::with_capacity(4 + id.len() + 2 * held.len() + tree.len());
    put_number(&mut value, id.len() as u64);
    value.extend(id);
    put_number(&mut value, held.len() as u64);
    for held in held {
        put_number(
            &mut value,
            2 * u64::from(held.pieces) + u64::from(held.is_attached),
        );
    }
    value.extend(tree);
    value
}

/// Reads a row with its whole tree.
pub(super) fn stored(seq: Seq, value: &[u8]) -> Result<Stored, Unreadable> {
    let (_, rest) = id_and_rest(value)?;
    let (held, tree) = held_and_tree(rest)?;
    let tree = RevTree::decode(tree)?;
    match tree.leaves().len() == held.len() && !held.is_empty() {
        true => Ok(Stored { seq, tree, held }),
        false => Err(Unreadable::Damaged),
    }
}

/// Reads a row up to its leaves.
pub(super) fn head(value: &[u8]) -> Result<Head, Unreadable> {
    let (id, rest) = id_and_rest(value)?;
    let (held, tree) = held_and_tree(rest)?;
    let leaves = leaves_of(tree)?;
    match leaves.len() == held.len() && !held.is_empty() {
        true => Ok(Head { id, leaves, held }),
        false => Err(Unreadable::Damaged),
    }
}

/// What a leaf holds, in pieces.
pub(super) fn pieces(content: &Content) -> (Vec<Vec<u8>>, Held) {
    let attachments = match content.attachments.is_empty() {
        true => String::new(),
        false => serde_json::to_string(&content.attachments).expect("attachments are maps of plain values"),
    };
    let body = content.body.as_str();
    let mut whole = Vec::with_capacity(4 + attachments.len() + body.len());
    put_number(&mut whole, attachments.len() as u64);
    whole.extend(attachments.as_bytes());
    whole.extend(body.as_bytes());
    let pieces: Vec<Vec<u8>> = whole.chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect();
    let held = Held {
        pieces: u32::try_from(pieces.len()).expect("a document is not that long"),
        is_attached: !attachments.is_empty(),
    };
    (pieces, held)
}

/// What a leaf holds, out of its pieces.
pub(super) fn content(whole: &[u8]) -> Option<Content> {
    let (len, rest) = take_number(whole)?;
    let (attachments, body) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    let attachments = match attachments {
        [] => Attachments::new(),
        json => serde_json::from_slice(json).ok()?,
    };
    Some(Content {
        body: Body::from(std::str::from_utf8(body).ok()?.to_owned()),
        attachments,
    })
}

fn leaf_key(kind: &[u8], id: &DocId, rev: &Rev) -> Vec<u8> {
    [kind, id.as_str().as_bytes(), b"\0", rev.to_string().as_bytes()].concat()
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

fn id_and_rest(value: &[u8]) -> Result<(DocId, &[u8]), Unreadable> {
    let read = || {
        let (len, rest) = take_number(value)?;
        let (id, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        Some((std::str::from_utf8(id).ok()?.parse().ok()?, rest))
    };
    read().ok_or(Unreadable::Damaged)
}

fn held_and_tree(bytes: &[u8]) -> Result<(Vec<Held>, &[u8]), Unreadable> {
    let (count, mut rest) = take_number(bytes).ok_or(Unreadable::Damaged)?;
    let mut held = Vec::new();
    for _ in 0..count {
        let (number, after) = take_number(rest).ok_or(Unreadable::Damaged)?;
        held.push(Held {
            pieces: u32::try_from(number / 2).map_err(|_| Unreadable::Damaged)?,
            is_attached: number % 2 == 1,
        });
        rest = after;
    }
    Ok((held, rest))
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn id(text: &str) -> DocId {
        text.parse().unwrap()
    }

    fn rev(text: &str) -> Rev {
        text.parse().unwrap()
    }

    #[test]
    fn a_worked_example() {
        let (key, sealed) = put(id_key(&id("a")), &1_u64.to_be_bytes());
        assert_eq!(key, b"da");
        assert_eq!(HEXLOWER.encode(&sealed.unwrap()), "0d6999070000000000000001");
        assert_eq!(seq_key(Seq::new(258).unwrap()), b"s\0\0\0\0\0\0\x01\x02");
        assert_eq!(piece_key(&id("a"), &rev("1-x"), 2), b"ca\x001-x\0\0\0\0\x02");
        let mut tree = RevTree::new();
        tree.merge(&[rev("1-x")], false).unwrap();
        let held = [Held {
            pieces: 1,
            is_attached: true,
        }];
        let value = row(&id("a"), &tree, &held);
        // The id, one leaf of one piece with attachments, the tree.
        assert_eq!(HEXLOWER.encode(&value[..4]), "01610103");
        assert_eq!(value[4..], tree.encode());
        let seq = Seq::new(1).unwrap();
        let stored = stored(seq, &value).unwrap();
        assert_eq!((stored.tree, stored.held), (tree, held.to_vec()));
    }

    #[test]
    fn a_value_is_that_of_its_key_alone() {
        let (key, sealed) = put(b"da".to_vec(), b"value");
        let sealed = sealed.unwrap();
        assert_eq!(unseal(&key, &sealed), Ok(b"value".as_slice()));
        assert_eq!(unseal(b"db", &sealed), Err(Unreadable::Damaged));
        assert_eq!(unseal(&key, &sealed[..3]), Err(Unreadable::Damaged));
    }

    #[test]
    fn ids_with_zeros_have_keys_of_their_own() {
        let (one, other) = (id("a\0"), id("a"));
        assert_ne!(piece_key(&one, &rev("1-x"), 0), piece_key(&other, &rev("1-x"), 0));
        assert_eq!(
            attached_of(&attached_key(&one, &rev("1-x"))),
            Some((one, rev("1-x")))
        );
    }

    #[test]
    fn what_is_long_is_cut_and_put_together_again() {
        let text = format!("{{\"text\":\"{}\"}}", "x".repeat(3 * PIECE_BYTES));
        let content = Content::of(Body::from(text));
        let (pieces, held) = pieces(&content);
        assert_eq!((held.pieces, held.is_attached), (4, false));
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(super::content(&pieces.concat()), Some(content));
        assert_eq!(super::content(b"\x05{}"), None);
    }
}
