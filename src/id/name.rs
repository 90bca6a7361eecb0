//! Names people give: stores, refs and secrets. No name is ever used as a path before it parsed here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest store or ref name, in bytes: short enough for a file name with a suffix everywhere.
const NAME_BYTES_MAX: usize = 128;

/// The name of a store in a node: 1 to 128 of `a-z 0-9 _ -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreName(String);

/// The name of a ref: 1 to 128 bytes of letters, digits, `.`, `_`, `-` and `/` between parts; no part is
/// empty or begins with a dot, so that a name is also a safe relative path. No `@` and no `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

/// The name of a secret that a node keeps: written as that of a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a store name.
    #[error("{0:?} is no store name: 1 to 128 of a-z 0-9 _ -, beginning with a letter or digit")]
    Store(String),
    /// Not a name of a secret. What it is instead may be the secret, and is not said.
    #[error("this is no name of a secret: 1 to 128 of a-z 0-9 _ -, beginning with a letter or digit")]
    Secret,
    /// Not a ref name.
    #[error(
        "{0:?} is no ref name: 1 to 128 of letters, digits, . _ - and / between parts, no part beginning with a dot"
    )]
    Ref(String),
}

impl StoreName {
    /// The store every node has.
    pub fn main() -> Self {
        StoreName("main".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RefName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StoreName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match is_plain(text) {
            true => Ok(StoreName(text.to_owned())),
            false => Err(NameError::Store(text.to_owned())),
        }
    }
}

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match is_plain(text) {
            true => Ok(SecretName(text.to_owned())),
            false => Err(NameError::Secret),
        }
    }
}

fn is_plain(text: &str) -> bool {
    let first_fits = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest_fits = text
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    first_fits && rest_fits && text.len() <= NAME_BYTES_MAX
}

impl FromStr for RefName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let part_fits = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() <= NAME_BYTES_MAX && text.split('/').all(part_fits) {
            return Ok(RefName(text.to_owned()));
        }
        Err(NameError::Ref(text.to_owned()))
    }
}

/// Shows and stores a newtype of text as that text, and parses it where it is read.
macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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

pub(super) use text_newtype;

text_newtype!(StoreName);
text_newtype!(RefName);
text_newtype!(SecretName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for bad in [
            "", ".", "..", "a/../b", "/a", "a/", "a//b", "a\0b", "a@b", "a:b", ".hidden", "a/.b",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad:?}");
            assert!(bad.parse::<StoreName>().is_err(), "{bad:?}");
        }
        assert!("Photos/2026.summer".parse::<RefName>().is_ok());
        assert!("main".parse::<StoreName>().is_ok());
        assert!("a/b".parse::<StoreName>().is_err());
        assert!("x".repeat(NAME_BYTES_MAX + 1).parse::<RefName>().is_err());
    }
}
