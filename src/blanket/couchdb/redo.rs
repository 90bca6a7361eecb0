//! The last group of a database, as it stands on its server before any of it is applied. Pure.
//!
//! ```text
//! redo      {"version": 1, "group": N, "token": "…", "state": "apply" | "none", "parts": P, "sum": CRC, "ops": BASE64}
//! redo-0 …  {"group": N, "token": "…", "ops": BASE64}      the parts of a group that is too long for one document
//!
//! ops       for each key: varint length, key, varint 0 where it goes, or 1 + length of its value, then the value
//! ```
//!
//! A server stores one document as a whole. So a group is there as soon as `redo` says `apply`: what it changes is written after
//! that, as often as it takes until all of it is, and whoever opens the database begins with that. Parts are written before it. The sum
//! is a CRC-32 of all ops; the token tells one attempt from another of the same number.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::super::ordered::Batch;

/// The format of what stands on a server; a greater one is refused.
pub(super) const VERSION: u32 = 1;

/// The most bytes of ops in one document: a third more as base64, and far from the 8 MB that a server takes. Each is held a few times.
pub(super) const PART_BYTES: usize = 512 * 1024;

/// The most parts: a call writes at most 10,000 documents, and few have more than some KiB.
pub(super) const PARTS_MAX: usize = 4096;

/// The document `redo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    /// Counts groups.
    pub(super) group: u64,
    /// What tells this attempt from others.
    pub(super) token: String,
    pub(super) state: State,
    /// Documents that hold the ops; they stand here where there are none.
    pub(super) parts: usize,
    sum: u32,
    ops: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// There is nothing to do.
    None,
    /// What it says is to be written.
    Apply,
}

/// The document of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) group: u64,
    pub(super) token: String,
    ops: String,
}

impl Record {
    /// That there is nothing to do after this group.
    pub(super) fn none(group: u64, token: String) -> Record {
        Record {
            version: VERSION,
            group,
            token,
            state: State::None,
            parts: 0,
            sum: 0,
            ops: String::new(),
        }
    }

    /// A group, with the parts that are written before it; `None` where it is longer than any may be.
    pub(super) fn of(group: u64, token: String, batch: &Batch) -> Option<(Record, Vec<Part>)> {
        let ops = encode(batch);
        let mut record = Record {
            state: State::Apply,
            sum: crc32fast::hash(&ops),
            ..Record::none(group, token.clone())
        };
        if ops.len() <= PART_BYTES {
            record.ops = BASE64.encode(&ops);
            return Some((record, Vec::new()));
        }
        let parts: Vec<Part> = ops
            .chunks(PART_BYTES)
            .map(|ops| Part {
                group,
                token: token.clone(),
                ops: BASE64.encode(ops),
            })
            .collect();
        record.parts = parts.len();
        (parts.len() <= PARTS_MAX).then_some((record, parts))
    }

    /// What is to be written, of a record and its parts; `None` where they are not what was put.
    pub(super) fn batch(&self, parts: &[Part]) -> Option<Batch> {
        if parts.len() != self.parts || !parts.iter().all(|part| self.is_of(part)) {
            return None;
        }
        let mut ops = BASE64.decode(self.ops.as_bytes()).ok()?;
        for part in parts {
            ops.extend(BASE64.decode(part.ops.as_bytes()).ok()?);
        }
        (crc32fast::hash(&ops) == self.sum).then(|| decode(&ops))?
    }

    fn is_of(&self, part: &Part) -> bool {
        (part.group, &part.token) == (self.group, &self.token)
    }
}

/// The id of a part.
pub(super) fn part_id(number: usize) -> String {
    format!("redo-{number}")
}

fn encode(batch: &Batch) -> Vec<u8> {
    let mut ops = Vec::new();
    for (key, value) in batch {
        put_number(&mut ops, key.len() as u64);
        ops.extend(key);
        put_number(&mut ops, value.as_ref().map_or(0, |value| value.len() as u64 + 1));
        ops.extend(value.iter().flatten());
    }
    ops
}

fn decode(mut ops: &[u8]) -> Option<Batch> {
    let mut batch = Batch::new();
    while !ops.is_empty() {
        let key = take(&mut ops)?;
        let key = take_bytes(&mut ops, key)?.to_vec();
        let value = match take(&mut ops)?.checked_sub(1) {
            None => None,
            Some(len) => Some(take_bytes(&mut ops, len)?.to_vec()),
        };
        batch.push((key, value));
    }
    Some(batch)
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn take(bytes: &mut &[u8]) -> Option<usize> {
    let mut number: usize = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch() -> Batch {
        vec![
            (b"a".to_vec(), Some(b"xyz".to_vec())),
            (b"b".to_vec(), None),
            (b"c".to_vec(), Some(Vec::new())),
        ]
    }

    #[test]
    fn a_worked_example() {
        let (record, parts) = Record::of(3, "t".to_owned(), &batch()).unwrap();
        assert_eq!(parts, []);
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"version":1,"group":3,"token":"t","state":"apply","parts":0,"sum":3624309468,"ops":"AWEEeHl6AWIAAWMB"}"#
        );
        assert_eq!(record.batch(&[]), Some(batch()));
        let none = Record::none(3, "t".to_owned());
        assert_eq!((none.state, none.batch(&[])), (State::None, Some(Batch::new())));
    }

    #[test]
    fn a_long_group_is_cut_and_put_together_again_from_its_own_parts_alone() {
        let long: Batch = (0..50)
            .map(|number| (vec![number], Some(vec![number; 100_000])))
            .collect();
        let (record, parts) = Record::of(1, "t".to_owned(), &long).unwrap();
        assert_eq!((record.parts, parts.len()), (10, 10));
        assert_eq!(record.batch(&parts), Some(long.clone()));
        assert_eq!(record.batch(&parts[..9]), None);
        let (_, others) = Record::of(1, "u".to_owned(), &long).unwrap();
        assert_eq!(record.batch(&others), None);
        let mut mixed = parts;
        mixed.swap(0, 1);
        assert_eq!(record.batch(&mixed), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(ops in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&ops);
        }
    }
}
