//! Node ids: the Ed25519 public key of a node, as text `ed25519;<64 hex>`.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node's identity: its Ed25519 public key, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// The text is not `ed25519;` and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node id is written ed25519; and 64 hex digits")]
pub struct NodeIdError;

impl NodeId {
    /// The id with this public key.
    pub const fn from_bytes(public_key: [u8; 32]) -> Self {
        NodeId(public_key)
    }

    /// The public key, 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The short name: six lower-case base-32 characters of the key's BLAKE3 hash, for host names and
    /// announcements (`refuge-xxxxxx`). A hint for people, never proof.
    pub fn short(&self) -> String {
        let hash = blake3::hash(&self.0);
        BASE32_NOPAD.encode(&hash.as_bytes()[..4])[..6].to_ascii_lowercase()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519;{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let hash = text
            .strip_prefix("ed25519;")
            .or_else(|| text.strip_prefix("ed25519-"))
            .ok_or(NodeIdError)?;
        let mut key = [0; 32];
        if hash.len() != 64 || HEXLOWER_PERMISSIVE.decode_mut(hash.as_bytes(), &mut key).is_err() {
            return Err(NodeIdError);
        }
        Ok(NodeId(key))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_the_short_name_is_six_characters() {
        let id = NodeId::from_bytes([7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 6);
        assert_eq!("ed25519;00".parse::<NodeId>(), Err(NodeIdError));
    }
}
