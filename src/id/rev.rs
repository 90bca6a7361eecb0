//! Revisions: `<generation>-<hash>`, in CouchDB's order.
//!
//! A hash of 32 hex digits is kept, and compared, as its 16 bytes; any other text (`1-a`, as old databases and tests have)
//! as it is. So does CouchDB (`couch_doc:parse_revid`), whose order of binaries decides which of two conflicting leaves wins.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest hash that is not 32 hex digits.
const REV_TEXT_BYTES_MAX: usize = 128;

/// A revision of a document. Orders by generation, then by the bytes of the hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev {
    generation: u32,
    hash: RevHash,
}

/// What follows the generation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum RevHash {
    /// 32 hex digits in text.
    Digest([u8; 16]),
    /// Any other: 1 to 128 visible ASCII characters, without quotes, backslashes and commas.
    Text(Box<str>),
}

/// Why a text is no revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevError {
    /// It is not written as one.
    #[error("a revision is written <generation>-<hash>, for example 1-967a00dff5e02add41819138abb3284d")]
    Malformed,
    /// The generation is 0 or more than 4294967295.
    #[error("the generation of a revision is from 1 to 4294967295")]
    Generation,
    /// The hash is too long, or has characters that no hash has.
    #[error("the hash of a revision is 1 to {REV_TEXT_BYTES_MAX} visible characters")]
    Hash,
}

impl Rev {
    /// A revision; `None` for generation 0.
    pub fn new(generation: u32, hash: RevHash) -> Option<Rev> {
        (generation > 0).then_some(Rev { generation, hash })
    }

    /// How many edits led to it, itself included, from 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What follows the generation.
    pub fn hash(&self) -> &RevHash {
        &self.hash
    }
}

impl RevHash {
    /// The bytes that CouchDB compares and digests.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RevHash::Digest(digest) => digest,
            RevHash::Text(text) => text.as_bytes(),
        }
    }
}

impl FromStr for RevHash {
    type Err = RevError;

    fn from_str(text: &str) -> Result<Self, RevError> {
        let mut digest = [0; 16];
        // `decode_mut` wants the exact output length, so the input's is checked first.
        if text.len() == 32
            && HEXLOWER_PERMISSIVE
                .decode_mut(text.as_bytes(), &mut digest)
                .is_ok()
        {
            return Ok(RevHash::Digest(digest));
        }
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b',');
        if !(1..=REV_TEXT_BYTES_MAX).contains(&text.len()) || !text.bytes().all(fits) {
            return Err(RevError::Hash);
        }
        Ok(RevHash::Text(text.into()))
    }
}

impl FromStr for Rev {
    type Err = RevError;

    fn from_str(text: &str) -> Result<Self, RevError> {
        let (generation, hash) = text.split_once('-').ok_or(RevError::Malformed)?;
        if generation.is_empty() || !generation.bytes().all(|b| b.is_ascii_digit()) {
            return Err(RevError::Malformed);
        }
        let generation = generation.parse().map_err(|_| RevError::Generation)?;
        Rev::new(generation, hash.parse()?).ok_or(RevError::Generation)
    }
}

impl Ord for RevHash {
    fn cmp(&self, other: &Self) -> Ordering {
        // A text of 16 characters may have the bytes of a digest; the two are not the same hash.
        let kind = |hash: &RevHash| matches!(hash, RevHash::Text(_));
        self.as_bytes()
            .cmp(other.as_bytes())
            .then_with(|| kind(self).cmp(&kind(other)))
    }
}

impl PartialOrd for RevHash {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RevHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevHash::Digest(digest) => write!(f, "{}", HEXLOWER.encode_display(digest)),
            RevHash::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.hash)
    }
}

impl fmt::Debug for RevHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Rev {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rev {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rev(text: &str) -> Rev {
        text.parse().unwrap()
    }

    #[test]
    fn digests_and_other_texts_round_trip() {
        for text in [
            "1-967a00dff5e02add41819138abb3284d",
            "1-a",
            "4294967295-x",
            "2-1-2",
        ] {
            assert_eq!(rev(text).to_string(), text);
        }
        assert_eq!(
            rev("1-967A00DFF5E02ADD41819138ABB3284D"),
            rev("1-967a00dff5e02add41819138abb3284d")
        );
        assert_eq!(rev("01-a"), rev("1-a"));
    }

    #[test]
    fn what_is_refused_says_why() {
        let parse = |text: &str| text.parse::<Rev>();
        for malformed in ["", "1", "-a", "a-1", "+1-a", "x"] {
            assert_eq!(parse(malformed), Err(RevError::Malformed), "{malformed}");
        }
        assert_eq!(parse("0-a"), Err(RevError::Generation));
        assert_eq!(parse("4294967296-a"), Err(RevError::Generation));
        for hash in ["1-", "1-a b", "1-\"", "1-é", "1-a,b"] {
            assert_eq!(parse(hash), Err(RevError::Hash), "{hash}");
        }
        assert_eq!(parse(&format!("1-{}", "a".repeat(129))), Err(RevError::Hash));
    }

    #[test]
    fn order_is_couchdbs_order_of_binaries() {
        let ascending = [
            "1-00000000000000000000000000000000",
            "1-61000000000000000000000000000000",
            "1-62",
            "1-a",
            "1-aa",
            "1-ffffffffffffffffffffffffffffffff",
            "2-0",
            "10-0",
        ];
        // "62" is the text of two digits, 0x36 0x32, not a digest.
        let mut sorted: Vec<Rev> = ascending.iter().map(|text| rev(text)).collect();
        sorted.sort();
        let sorted: Vec<String> = sorted.iter().map(Rev::to_string).collect();
        let expected = [
            "1-00000000000000000000000000000000",
            "1-62",
            "1-a",
            "1-61000000000000000000000000000000",
            "1-aa",
            "1-ffffffffffffffffffffffffffffffff",
            "2-0",
            "10-0",
        ];
        assert_eq!(sorted, expected);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_the_same(text in "\\PC*|[0-9]{1,12}-[0-9a-f]{0,40}") {
            if let Ok(rev) = text.parse::<Rev>() {
                prop_assert_eq!(rev.to_string().parse(), Ok(rev));
            }
        }

        #[test]
        fn order_of_digests_is_the_order_of_their_text(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (RevHash::Digest(a), RevHash::Digest(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
