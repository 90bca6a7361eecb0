//! Blob ids: the digest of a blob's plain bytes, as text `<hashtype>;<hash>`.
//!
//! Canonical text is `blake3;` and 64 lower-case hex digits. Input also takes `-` or `%3B` for `;` and
//! upper-case digits. `sha256` is an alias a client may put and get by; every other type parses and is
//! refused by name.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The canonical id of a blob: BLAKE3 of its plain bytes, 32 bytes. Orders as its text does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; 32]);

/// A SHA-256 digest by which a client may put and get a blob, 32 bytes; an alias of one [`BlobId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Id([u8; 32]);

/// What a client may write where a blob id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobAddress {
    /// The canonical id.
    Blake3(BlobId),
    /// An alias.
    Sha256(Sha256Id),
}

/// Why a text is no blob id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobIdError {
    /// There is no `;` (or `-`, or `%3B`) between type and hash.
    #[error("a blob id is written <hashtype>;<hash>, for example blake3; and 64 hex digits")]
    NoSeparator,
    /// A well-formed type that Refuge does not store by.
    #[error("hash type {0} is not supported: use blake3 (or sha256 as an alias)")]
    UnsupportedType(String),
    /// The type is not a name of 1 to 16 lower-case letters, digits.
    #[error("the hash type of a blob id is 1 to 16 lower-case letters and digits")]
    MalformedType,
    /// The hash is not 64 hex digits.
    #[error("the hash of a {0} blob id is 64 hex digits")]
    MalformedHash(&'static str),
}

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        BlobId(*blake3::hash(bytes).as_bytes())
    }

    /// The id with this digest.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        BlobId(digest)
    }

    /// The digest, 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest as 64 lower-case hex digits, without the type.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl Sha256Id {
    /// The alias with this digest.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Sha256Id(digest)
    }

    /// The digest, 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3;{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Display for Sha256Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256;{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Display for BlobAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobAddress::Blake3(id) => id.fmt(f),
            BlobAddress::Sha256(id) => id.fmt(f),
        }
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Sha256Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobAddress {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        let (hash_type, hash) = split(text).ok_or(BlobIdError::NoSeparator)?;
        match hash_type {
            "blake3" => digest(hash, "blake3").map(|d| BlobAddress::Blake3(BlobId(d))),
            "sha256" => digest(hash, "sha256").map(|d| BlobAddress::Sha256(Sha256Id(d))),
            other if well_formed_type(other) => Err(BlobIdError::UnsupportedType(other.to_owned())),
            _ => Err(BlobIdError::MalformedType),
        }
    }
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        match text.parse()? {
            BlobAddress::Blake3(id) => Ok(id),
            BlobAddress::Sha256(_) => Err(BlobIdError::UnsupportedType("sha256".to_owned())),
        }
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Splits at the first `;`, `-` or `%3B`, whichever the text has after its type.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.find([';', '-', '%'])?;
    let (hash_type, rest) = text.split_at(at);
    let hash = match rest.as_bytes()[0] {
        b'%' => rest.strip_prefix("%3B").or_else(|| rest.strip_prefix("%3b"))?,
        _ => &rest[1..],
    };
    Some((hash_type, hash))
}

fn well_formed_type(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn digest(hash: &str, hash_type: &'static str) -> Result<[u8; 32], BlobIdError> {
    let mut digest = [0; 32];
    // `decode_mut` wants the exact output length, so the input's is checked first.
    if hash.len() != 64
        || HEXLOWER_PERMISSIVE
            .decode_mut(hash.as_bytes(), &mut digest)
            .is_err()
    {
        return Err(BlobIdError::MalformedHash(hash_type));
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "blake3;af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn text_round_trips_and_takes_the_three_separators() {
        let id = BlobId::of(b"");
        assert_eq!(id.to_string(), EMPTY);
        for text in [
            EMPTY.to_owned(),
            EMPTY.replace(';', "-"),
            EMPTY.replace(';', "%3B"),
        ] {
            assert_eq!(text.parse(), Ok(id), "{text}");
        }
        assert_eq!(EMPTY.to_uppercase().replace("BLAKE3", "blake3").parse(), Ok(id));
    }

    #[test]
    fn what_is_refused_says_why() {
        let parse = |text: &str| text.parse::<BlobAddress>();
        assert_eq!(parse("blake3"), Err(BlobIdError::NoSeparator));
        assert_eq!(parse("blake3;00"), Err(BlobIdError::MalformedHash("blake3")));
        assert_eq!(parse("md5;00"), Err(BlobIdError::UnsupportedType("md5".into())));
        assert_eq!(parse("../x;00"), Err(BlobIdError::MalformedType));
        assert_eq!(parse(";00"), Err(BlobIdError::MalformedType));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_the_same(text in "\\PC*") {
            if let Ok(address) = text.parse::<BlobAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn order_is_the_order_of_the_text(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (BlobId::from_bytes(a), BlobId::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
