//! Names and ids of what a node keeps about people and their programs: accounts, app tokens, uploads.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest account name, in bytes.
const ACCOUNT_NAME_BYTES_MAX: usize = 64;

/// The name of an account: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit. No name means
/// anything by itself: `root` is a name like any other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(String);

/// The text is no account name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no account name: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit")]
pub struct AccountNameError(pub String);

/// An app token's public handle, 8 random bytes, as 16 hex digits. It opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 8]);

/// A partial upload, 16 random bytes, as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId([u8; 16]);

/// The text is not the hex digits of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this id is written as {digits} lower-case hex digits")]
pub struct HexIdError {
    digits: usize,
}

impl AccountName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        let first_fits = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest_fits = text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if first_fits && rest_fits && text.len() <= ACCOUNT_NAME_BYTES_MAX {
            return Ok(AccountName(text.to_owned()));
        }
        Err(AccountNameError(
            text.chars().take(ACCOUNT_NAME_BYTES_MAX).collect(),
        ))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for AccountName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AccountName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! hex_id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                $name(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                HEXLOWER.encode_display(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = HexIdError;

            fn from_str(text: &str) -> Result<Self, HexIdError> {
                let error = HexIdError { digits: $bytes * 2 };
                let mut bytes = [0; $bytes];
                if text.len() != $bytes * 2 || HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_err() {
                    return Err(error);
                }
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(TokenId, 8);
hex_id!(UploadId, 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_that_are_not_written_as_they_must_be_are_refused() {
        for bad in ["", ".a", "A", "a b", "a/b", "é", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
        assert_eq!("ann.b-2".parse::<AccountName>().unwrap().as_str(), "ann.b-2");
        let id = UploadId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", "../../../../../../../../../../..", &"AB".repeat(16)] {
            assert!(bad.parse::<UploadId>().is_err(), "{bad:?}");
        }
    }
}
