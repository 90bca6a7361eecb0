//! Names of document databases, by CouchDB's rule, and the folder each is kept in.
//!
//! A name may hold `/`, which no folder can: it is written `%2F` there. No other byte of a name needs an escape,
//! and no folder's name of ours has a dot, so that what has one beside a database is never taken for one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name in bytes, with three for each `/`: CouchDB's bound, and short enough for a folder's name with a suffix.
const DATABASE_NAME_BYTES_MAX: usize = 238;

/// The names with a leading underscore that CouchDB knows.
const SYSTEM_NAMES: [&str; 3] = ["_users", "_replicator", "_global_changes"];

/// The name of a database: a lower-case letter, then lower-case letters, digits and `_ $ ( ) + - /`; or one of CouchDB's own
/// (`_users`, `_replicator`, `_global_changes`). At most 238 bytes, each `/` counted as three.
/// (<https://docs.couchdb.org/en/stable/api/database/common.html>, `PUT /{db}`.)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbName(String);

/// Why a text is no name of a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DbNameError {
    /// A character that no name has, in that place.
    #[error(
        "{0:?} is no database name: a lower-case letter first, then lower-case letters, digits and _ $ ( ) + - /"
    )]
    Malformed(String),
    /// Too long.
    #[error("a database name has at most {DATABASE_NAME_BYTES_MAX} bytes, with three for each /")]
    TooLong,
}

impl DbName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its folder: `notes%2F2026` for `notes/2026`.
    pub fn folder_name(&self) -> String {
        self.0.replace('/', "%2F")
    }

    /// The database that a folder of this name is for; `None` where it is no such folder.
    pub fn from_folder_name(folder_name: &str) -> Option<DbName> {
        let name: DbName = folder_name.replace("%2F", "/").parse().ok()?;
        (name.folder_name() == folder_name).then_some(name)
    }
}

impl FromStr for DbName {
    type Err = DbNameError;

    fn from_str(text: &str) -> Result<Self, DbNameError> {
        let fits =
            |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'$' | b'(' | b')' | b'+' | b'-' | b'/');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !(SYSTEM_NAMES.contains(&text) || begins && text.bytes().all(fits)) {
            return Err(DbNameError::Malformed(text.chars().take(64).collect()));
        }
        let slashes = text.bytes().filter(|b| *b == b'/').count();
        if text.len() + 2 * slashes > DATABASE_NAME_BYTES_MAX {
            return Err(DbNameError::TooLong);
        }
        Ok(DbName(text.to_owned()))
    }
}

impl fmt::Display for DbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for DbName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DbName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_couchdb() {
        for good in ["a", "notes/2026", "a0_$()+-/", "_users", "_replicator"] {
            let name: DbName = good.parse().unwrap();
            assert_eq!(name.as_str(), good);
            assert_eq!(DbName::from_folder_name(&name.folder_name()), Some(name));
        }
        for bad in [
            "", "A", "1a", "_x", "_users/a", "a.b", "a%2F", "a b", "é", "-a", "a\0",
        ] {
            assert!(
                matches!(bad.parse::<DbName>(), Err(DbNameError::Malformed(_))),
                "{bad:?}"
            );
        }
        assert_eq!(
            "notes/2026".parse::<DbName>().unwrap().folder_name(),
            "notes%2F2026"
        );
        assert!("a".repeat(238).parse::<DbName>().is_ok());
        assert_eq!("a".repeat(239).parse::<DbName>(), Err(DbNameError::TooLong));
        assert_eq!("a/".repeat(80).parse::<DbName>(), Err(DbNameError::TooLong));
        assert_eq!(DbName::from_folder_name("notes.removed-1"), None);
        assert_eq!(DbName::from_folder_name("notes%2f2026"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_is_one_folder(text in "\\PC*|[a-z_$()+/-]{0,40}") {
            if let Ok(name) = text.parse::<DbName>() {
                prop_assert!(!name.folder_name().contains(['/', '.']));
                prop_assert_eq!(DbName::from_folder_name(&name.folder_name()), Some(name));
            }
        }
    }
}
