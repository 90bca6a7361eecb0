//! Secrets of people and programs: made, shown once, compared, and never printed by accident.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::Error;

/// The shortest password that may be set, in bytes (NIST SP 800-63B, section 5.1.1.2: 8 characters).
const PASSWORD_BYTES_MIN: usize = 8;

/// The longest password that is looked at, in bytes: more is no password but an attempt to keep us busy.
const PASSWORD_BYTES_MAX: usize = 256;

/// A password as a person typed it.
pub struct Password(Zeroizing<String>);

/// A secret to hand to whoever asked for it, once.
pub struct SecretText(Zeroizing<String>);

/// What is kept of an opaque secret of 256 random bits: its hash, which opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SecretHash([u8; 32]);

impl Password {
    /// Takes what was typed.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is too long to be one.
    pub fn new(text: String) -> Result<Password, Error> {
        let text = Zeroizing::new(text);
        if text.len() > PASSWORD_BYTES_MAX {
            return Err(Error::Invalid {
                what: "password",
                reason: format!("at most {PASSWORD_BYTES_MAX} bytes"),
            });
        }
        Ok(Password(text))
    }

    /// Whether it may be set as someone's password.
    pub(super) fn strong_enough(&self) -> Result<(), Error> {
        if self.0.len() < PASSWORD_BYTES_MIN {
            return Err(Error::Invalid {
                what: "password",
                reason: format!("at least {PASSWORD_BYTES_MIN} characters"),
            });
        }
        Ok(())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl SecretText {
    pub(super) fn new(text: String) -> SecretText {
        SecretText(Zeroizing::new(text))
    }

    /// The secret itself, for the one answer that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl SecretHash {
    /// Makes a secret: its text is `prefix` and 43 characters of base64url.
    pub(super) fn make(prefix: &str) -> Result<(SecretText, SecretHash), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)?;
        let mut text = String::with_capacity(prefix.len() + 43);
        text.push_str(prefix);
        BASE64URL_NOPAD.encode_append(&*secret, &mut text);
        let hash = SecretHash::of_bytes(&secret);
        Ok((SecretText::new(text), hash))
    }

    /// The hash of a secret's text; `None` where it is not written as one.
    pub(super) fn of_text(prefix: &str, text: &str) -> Option<SecretHash> {
        let encoded = text.strip_prefix(prefix)?;
        let mut secret = Zeroizing::new([0; 32]);
        let fits = encoded.len() == 43
            && BASE64URL_NOPAD.decode_mut(encoded.as_bytes(), &mut *secret) == Ok(secret.len());
        fits.then(|| SecretHash::of_bytes(&secret))
    }

    pub(super) fn from_stored(bytes: [u8; 32]) -> SecretHash {
        SecretHash(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time, for the entry that a look-up found.
    pub(super) fn same(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// A fast hash is enough: nobody guesses 256 random bits.
    fn of_bytes(secret: &[u8; 32]) -> SecretHash {
        SecretHash(blake3::derive_key("refuge 2026 secret v1", secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_by_its_text_alone_and_never_printed() {
        let (text, hash) = SecretHash::make("rft_").unwrap();
        assert!(SecretHash::of_text("rft_", text.expose()).unwrap().same(&hash));
        assert!(!format!("{text:?}").contains(text.expose()));
        let secret = text.expose();
        for cut in 0..secret.len() {
            assert!(SecretHash::of_text("rft_", &secret[..cut]).is_none());
        }
        assert!(SecretHash::of_text("", secret).is_none());
        assert!(SecretHash::of_text("rft_", &format!("{secret}A")).is_none());
    }

    #[test]
    fn no_flipped_bit_of_a_secret_has_its_hash() {
        let (text, hash) = SecretHash::make("rft_").unwrap();
        for place in 0..text.expose().len() {
            for bit in 0..7 {
                let mut bytes = text.expose().as_bytes().to_vec();
                bytes[place] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                let found = SecretHash::of_text("rft_", &flipped);
                assert!(!found.is_some_and(|found| found.same(&hash)), "{flipped}");
            }
        }
    }
}
