//! What trees and commits have in common: JSON blobs that say what they are, and in which version.
//!
//! A schema is canonical JSON: object keys in ascending order, no white space, no field that is empty, whole
//! numbers only, bytes that are UTF-8 as text under `KEY` and any other bytes as lower-case hex under
//! `KEY_hex`. So equal things have equal ids. Every schema has `"refuge"`, which names its kind, and
//! `"version"`, a number. A reader refuses unknown fields: whoever adds one raises the version.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::coffer::{PACKED_BYTES_MAX, Store, read_whole};
use crate::id::BlobId;

/// The version of trees and commits that this binary writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;

/// A moment as it stands in a schema: seconds since 1970-01-01 UTC and nanoseconds below 1,000,000,000, as
/// two numbers, since one would not fit the 53 bits that every JSON reader has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

impl Time {
    /// Whether the nanoseconds are in range.
    pub(super) fn is_valid(self) -> bool {
        self.1 < 1_000_000_000
    }
}

/// Reads a schema blob whole; these are never larger than a packed blob.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Store`].
pub(super) fn load(store: &Store, id: &BlobId) -> Result<Bytes, Error> {
    let mut reader = store.backend().open(id)?.ok_or(Error::Missing { id: *id })?;
    Ok(read_whole(&mut *reader, PACKED_BYTES_MAX)?)
}

/// Reads the JSON of a schema of this kind.
///
/// # Errors
/// [`Error::Newer`] for a later version, [`Error::Malformed`] for anything else that does not fit.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    id: &BlobId,
    kind: &'static str,
) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Head {
        refuge: String,
        version: u32,
    }
    let failure = match serde_json::from_slice(bytes) {
        Ok(parsed) => return Ok(parsed),
        Err(failure) => failure,
    };
    match serde_json::from_slice::<Head>(bytes) {
        Ok(head) if head.refuge == kind && head.version > VERSION => Err(Error::Newer {
            what: format!("{kind} {id}"),
            found: head.version,
            known: VERSION,
        }),
        Ok(_) | Err(_) => Err(Error::Malformed {
            id: *id,
            expected: kind,
            what: failure.to_string(),
        }),
    }
}

/// Whether what was parsed says that it is of this kind and version.
///
/// # Errors
/// As [`parse`].
pub(super) fn expect_head(
    id: &BlobId,
    kind: &'static str,
    found_kind: &str,
    found_version: u32,
) -> Result<(), Error> {
    if found_kind != kind {
        return Err(Error::Malformed {
            id: *id,
            expected: kind,
            what: format!("it says that it is a {found_kind:?}"),
        });
    }
    if found_version != VERSION {
        return Err(Error::Newer {
            what: format!("{kind} {id}"),
            found: found_version,
            known: VERSION,
        });
    }
    Ok(())
}

/// Bytes as the two fields that stand for them: text, else hex.
pub(super) fn split_bytes(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(HEXLOWER.encode(bytes))),
    }
}

/// The bytes two such fields stand for; `None` where they are not what [`split_bytes`] gives.
pub(super) fn join_bytes(text: Option<String>, hex: Option<String>) -> Option<Vec<u8>> {
    match (text, hex) {
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(hex)) => {
            let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
            // Text as hex would be a second spelling of the same bytes.
            std::str::from_utf8(&bytes).is_err().then_some(bytes)
        }
        (Some(_), Some(_)) | (None, None) => None,
    }
}
