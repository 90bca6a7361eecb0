//! A `commit`: the blob that says of a file, or of a folder, what its tree entry has no room for.
//!
//! Canonical JSON (see `schema.rs`). `segments` are the file's bytes in order: parts, holes that were never
//! written, and *runs*, commits of their own with a long file's segments (which hold no runs again), so that
//! no file makes an unbounded blob. `segments` is left out for a folder. `xattrs` are the extended attributes in ascending order of
//! name, each a name and a value; it is left out where there are none.
//!
//! ```text
//! {"refuge":"commit","segments":[{"part":"blake3;...","size":7},{"hole":4096},{"commit":"blake3;...","size":9}],
//!  "version":1,"xattrs":[{"name":"user.note","value":"text"},{"name":"user.raw","value_hex":"ff00"}]}
//! ```

use std::slice;
use std::vec;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::schema::{VERSION, expect_head, join_bytes, load, parse, split_bytes};
use crate::coffer::Store;
use crate::id::BlobId;

/// The value of `"refuge"`.
const KIND: &str = "commit";

/// What a tree entry has no room for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The bytes of the file in order; empty for a folder. [`Commit::pieces`] resolves runs.
    pub segments: Vec<Segment>,
    /// Extended attributes, name and value, in ascending order of name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Stored bytes.
    Part {
        /// The blob.
        id: BlobId,
        /// Its length in bytes.
        size: u64,
    },
    /// Bytes never written, which read as zero.
    Hole {
        /// Its length in bytes.
        size: u64,
    },
    /// As the segments of another commit say.
    Run {
        /// That commit.
        commit: BlobId,
        /// Their length in bytes.
        size: u64,
    },
}

impl Segment {
    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Segment::Part { size, .. } | Segment::Hole { size } | Segment::Run { size, .. } => *size,
        }
    }
}

/// The parts and holes of a file in order.
pub struct Pieces<'a> {
    store: &'a Store,
    segments: slice::Iter<'a, Segment>,
    run: vec::IntoIter<Segment>,
}

impl Iterator for Pieces<'_> {
    type Item = Result<Segment, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(segment) = self.run.next() {
                return Some(Ok(segment));
            }
            match self.segments.next()? {
                Segment::Run { commit, size } => match load_run(self.store, commit, *size) {
                    Ok(segments) => self.run = segments.into_iter(),
                    Err(error) => return Some(Err(error)),
                },
                plain @ (Segment::Part { .. } | Segment::Hole { .. }) => return Some(Ok(*plain)),
            }
        }
    }
}

fn load_run(store: &Store, id: &BlobId, size: u64) -> Result<Vec<Segment>, Error> {
    let run = Commit::load(store, id)?;
    if run.size() != size || !run.xattrs.is_empty() {
        return Err(Error::commit(id, "it is not the run that another commit names"));
    }
    // One level is enough for any file, and a level more could be made to go round in circles.
    if run
        .segments
        .iter()
        .any(|segment| matches!(segment, Segment::Run { .. }))
    {
        return Err(Error::commit(id, "it is a run and holds another"));
    }
    Ok(run.segments)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitWire {
    refuge: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    segments: Vec<SegmentWire>,
    version: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    xattrs: Vec<XattrWire>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentWire {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    commit: Option<BlobId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    hole: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    part: Option<BlobId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    size: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct XattrWire {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    name_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value_hex: Option<String>,
}

impl Commit {
    /// Reads a commit from the store.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Malformed`], [`Error::Newer`], [`Error::Store`].
    pub fn load(store: &Store, id: &BlobId) -> Result<Commit, Error> {
        Commit::decode(id, &load(store, id)?)
    }

    /// The length of the file in bytes.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(Segment::size).sum()
    }

    /// Its parts and holes in order, runs resolved one at a time.
    pub fn pieces<'a>(&'a self, store: &'a Store) -> Pieces<'a> {
        Pieces {
            store,
            segments: self.segments.iter(),
            run: Vec::new().into_iter(),
        }
    }

    /// The JSON.
    pub(super) fn encode(&self) -> Vec<u8> {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Part { id, size } => SegmentWire {
                part: Some(*id),
                size: Some(*size),
                ..SegmentWire::default()
            },
            Segment::Hole { size } => SegmentWire {
                hole: Some(*size),
                ..SegmentWire::default()
            },
            Segment::Run { commit, size } => SegmentWire {
                commit: Some(*commit),
                size: Some(*size),
                ..SegmentWire::default()
            },
        });
        let xattrs = self.xattrs.iter().map(|(name, value)| {
            let (name, name_hex) = split_bytes(name);
            let (value, value_hex) = split_bytes(value);
            XattrWire {
                name: name.map(str::to_owned),
                name_hex,
                value: value.map(str::to_owned),
                value_hex,
            }
        });
        let wire = CommitWire {
            refuge: KIND.to_owned(),
            segments: segments.collect(),
            version: VERSION,
            xattrs: xattrs.collect(),
        };
        serde_json::to_vec(&wire).expect("plain data always has a JSON form")
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::Newer`].
    pub(super) fn decode(id: &BlobId, bytes: &[u8]) -> Result<Commit, Error> {
        let wire: CommitWire = parse(bytes, id, KIND)?;
        expect_head(id, KIND, &wire.refuge, wire.version)?;
        let mut size: u64 = 0;
        let mut segments = Vec::with_capacity(wire.segments.len());
        for segment in wire.segments {
            let segment = match (segment.part, segment.commit, segment.size, segment.hole) {
                (Some(id), None, Some(size), None) if size > 0 => Segment::Part { id, size },
                (None, Some(commit), Some(size), None) if size > 0 => Segment::Run { commit, size },
                (None, None, None, Some(size)) if size > 0 => Segment::Hole { size },
                _ => return Err(Error::commit(id, "a segment is no part, no hole and no run")),
            };
            size = size
                .checked_add(segment.size())
                .ok_or_else(|| Error::commit(id, "its segments are longer than a file can be"))?;
            segments.push(segment);
        }
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(wire.xattrs.len());
        for xattr in wire.xattrs {
            let name = join_bytes(xattr.name, xattr.name_hex)
                .filter(|name| !name.is_empty() && !name.contains(&0))
                .ok_or_else(|| Error::commit(id, "an extended attribute has a name that none can have"))?;
            let value = join_bytes(xattr.value, xattr.value_hex)
                .ok_or_else(|| Error::commit(id, "an extended attribute has no value"))?;
            if xattrs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(Error::commit(id, "its extended attributes are out of order"));
            }
            xattrs.push((name, value));
        }
        Ok(Commit { segments, xattrs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> BlobId {
        BlobId::of(b"")
    }

    #[test]
    fn the_worked_example_reads_and_writes_the_same() {
        let commit = Commit {
            segments: vec![
                Segment::Part { id: id(), size: 7 },
                Segment::Hole { size: 4096 },
                Segment::Run {
                    commit: id(),
                    size: 9,
                },
            ],
            xattrs: vec![
                (b"user.note".to_vec(), b"text".to_vec()),
                (b"user.raw".to_vec(), b"\xff\0".to_vec()),
            ],
        };
        let json = format!(
            concat!(
                r#"{{"refuge":"commit","segments":[{{"part":"{0}","size":7}},{{"hole":4096}},{{"commit":"{0}","size":9}}],"#,
                r#""version":1,"xattrs":[{{"name":"user.note","value":"text"}},{{"name":"user.raw","value_hex":"ff00"}}]}}"#
            ),
            id()
        );
        assert_eq!(String::from_utf8(commit.encode()).unwrap(), json);
        assert_eq!(Commit::decode(&id(), json.as_bytes()).unwrap(), commit);
        assert_eq!(commit.size(), 4112);
    }

    #[test]
    fn segments_that_do_not_fit_are_refused() {
        for segments in [
            r#"{}"#.to_owned(),
            r#"{"hole":0}"#.to_owned(),
            r#"{"hole":1,"size":1}"#.to_owned(),
            format!(r#"{{"part":"{}"}}"#, id()),
            format!(r#"{{"part":"{}","size":0}}"#, id()),
            r#"{"hole":18446744073709551615},{"hole":1}"#.to_owned(),
        ] {
            let json = format!(r#"{{"refuge":"commit","segments":[{segments}],"version":1}}"#);
            assert!(
                matches!(
                    Commit::decode(&id(), json.as_bytes()),
                    Err(Error::Malformed { .. })
                ),
                "{segments}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Commit::decode(&id(), &bytes);
        }
    }
}
