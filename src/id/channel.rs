//! Whose a channel of updates is: the public key of whoever signs it.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The Ed25519 public key of whoever signs a channel: as text `ed25519;` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelKey([u8; 32]);

/// The text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of a channel is written ed25519; and 64 hex digits, as `scripts/channel` prints it")]
pub struct ChannelKeyError;

impl ChannelKey {
    /// Whether `signature` is this key's over `message` (RFC 8032), and of no weak key.
    pub fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

impl FromStr for ChannelKey {
    type Err = ChannelKeyError;

    fn from_str(text: &str) -> Result<ChannelKey, ChannelKeyError> {
        let hex = text.strip_prefix("ed25519;").ok_or(ChannelKeyError)?;
        let mut key = [0; 32];
        if hex.len() != 64 || HEXLOWER_PERMISSIVE.decode_mut(hex.as_bytes(), &mut key).is_err() {
            return Err(ChannelKeyError);
        }
        match VerifyingKey::from_bytes(&key) {
            Ok(point) if !point.is_weak() => Ok(ChannelKey(key)),
            Ok(_) | Err(_) => Err(ChannelKeyError),
        }
    }
}

impl fmt::Display for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519;{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChannelKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChannelKey {
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
    fn a_key_is_a_point_that_signs() {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let text = format!("ed25519;{}", HEXLOWER.encode(signing.verifying_key().as_bytes()));
        let key: ChannelKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        let signature = ed25519_dalek::Signer::sign(&signing, b"words").to_bytes();
        assert!(key.has_signed(b"words", &signature));
        assert!(!key.has_signed(b"Words", &signature));
        // The point of order one, that anything is signed by, and what is no point.
        let weak = format!("ed25519;01{}", "00".repeat(31));
        let none = format!("ed25519;02{}", "00".repeat(31));
        for bad in ["", "ed25519;00", &text[8..], &weak, &none, &format!("{text}0")] {
            assert_eq!(bad.parse::<ChannelKey>(), Err(ChannelKeyError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(ed25519;)?([0-9a-f]{64}|[ -~☂]{0,80})") {
            let _ = text.parse::<ChannelKey>();
        }
    }
}
