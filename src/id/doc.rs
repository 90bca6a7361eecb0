//! Ids of documents, replicated ones and local ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id in bytes: it is a key of two indexes and a part of URLs.
const DOC_ID_BYTES_MAX: usize = 512;

/// What the ids of design documents begin with.
const DESIGN: &str = "_design/";

/// What the ids of local documents begin with.
const LOCAL: &str = "_local/";

/// The id of a document: any text of 1 to 512 bytes that does not begin with an underscore, or `_design/` and a name.
/// Orders by its bytes, as CouchDB's `_all_docs` with raw collation does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId(String);

/// The id of a document that stays in its database: as text `_local/` and a name of 1 to 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(String);

/// Why a text is no id of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocIdError {
    /// Nothing.
    #[error("a document id is not empty")]
    Empty,
    /// An underscore first, and not one of CouchDB's own prefixes.
    #[error("only reserved document ids begin with an underscore")]
    Reserved,
    /// Too long.
    #[error("a document id has at most {DOC_ID_BYTES_MAX} bytes")]
    TooLong,
}

impl DocId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the id of a design document.
    pub fn is_design(&self) -> bool {
        self.0.starts_with(DESIGN)
    }
}

impl LocalId {
    /// The local document of this name: what follows `_local/`.
    ///
    /// # Errors
    /// [`DocIdError::Empty`], [`DocIdError::TooLong`].
    pub fn named(name: &str) -> Result<LocalId, DocIdError> {
        match name.len() {
            0 => Err(DocIdError::Empty),
            1..=DOC_ID_BYTES_MAX => Ok(LocalId(name.to_owned())),
            _ => Err(DocIdError::TooLong),
        }
    }

    /// What follows `_local/`.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for DocId {
    type Err = DocIdError;

    fn from_str(text: &str) -> Result<Self, DocIdError> {
        if text.is_empty() {
            return Err(DocIdError::Empty);
        }
        let is_design = text.strip_prefix(DESIGN).is_some_and(|name| !name.is_empty());
        if text.starts_with('_') && !is_design {
            return Err(DocIdError::Reserved);
        }
        if text.len() > DOC_ID_BYTES_MAX {
            return Err(DocIdError::TooLong);
        }
        Ok(DocId(text.to_owned()))
    }
}

impl FromStr for LocalId {
    type Err = DocIdError;

    fn from_str(text: &str) -> Result<Self, DocIdError> {
        LocalId::named(text.strip_prefix(LOCAL).ok_or(DocIdError::Reserved)?)
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LOCAL}{}", self.0)
    }
}

impl Serialize for DocId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DocId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for LocalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_ids_are_refused_by_reason() {
        for good in ["a", "Ünïcode", "a/b c", "_design/x", " ", "\u{0}"] {
            assert_eq!(good.parse::<DocId>().unwrap().as_str(), good);
        }
        assert!("_design/x".parse::<DocId>().unwrap().is_design());
        assert_eq!("".parse::<DocId>(), Err(DocIdError::Empty));
        for reserved in ["_x", "_local/a", "_design", "_design/"] {
            assert_eq!(reserved.parse::<DocId>(), Err(DocIdError::Reserved), "{reserved}");
        }
        assert_eq!("a".repeat(513).parse::<DocId>(), Err(DocIdError::TooLong));
    }

    #[test]
    fn local_ids_have_their_prefix_in_text_alone() {
        let id: LocalId = "_local/aB.c_=/d".parse().unwrap();
        assert_eq!(
            (id.name(), id.to_string().as_str()),
            ("aB.c_=/d", "_local/aB.c_=/d")
        );
        assert_eq!("_local/".parse::<LocalId>(), Err(DocIdError::Empty));
        assert_eq!("a".parse::<LocalId>(), Err(DocIdError::Reserved));
        assert_eq!(LocalId::named(&"a".repeat(513)), Err(DocIdError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_order_is_that_of_bytes(a in "\\PC*", b in "\\PC*") {
            if let (Ok(a), Ok(b)) = (a.parse::<DocId>(), b.parse::<DocId>()) {
                prop_assert_eq!(a.cmp(&b), a.as_str().as_bytes().cmp(b.as_str().as_bytes()));
            }
            if let Ok(id) = a.parse::<LocalId>() {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }
}
