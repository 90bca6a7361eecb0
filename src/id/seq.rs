//! Sequences: the order in which a database changed, and the opaque text that clients keep of it.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

/// A place in a database's order of changes: 0 before the first, then ascending, not without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

/// What a database is told apart by from another of the same name: 8 random bytes, as text 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbUuid([u8; 8]);

/// Why a text is no sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sequence is a number, or <number>-<16 hex digits> as this database gave it out")]
pub struct SeqError;

impl Seq {
    /// Before the first change.
    pub const ZERO: Seq = Seq(0);

    /// The greatest there can be: what engines keep is a signed number of 64 bits.
    pub const MAX: Seq = Seq(i64::MAX as u64);

    /// The sequence of this number; `None` beyond [`Seq::MAX`].
    pub fn new(number: u64) -> Option<Seq> {
        (number <= Seq::MAX.0).then_some(Seq(number))
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The one after it.
    ///
    /// # Panics
    /// After 2^63 changes.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq::new(self.0 + 1).expect("no database sees 2^63 changes")
    }

    /// As clients keep it: `12-4f1d0a9be2c35d77`.
    pub fn to_text(self, uuid: DbUuid) -> String {
        format!("{}-{uuid}", self.0)
    }

    /// Reads what [`Seq::to_text`] wrote, or a bare number. A text that another database gave out is [`Seq::ZERO`]: what it
    /// counted is not here, so that its owner starts over, as with CouchDB.
    ///
    /// # Errors
    /// [`SeqError`].
    pub fn from_text(text: &str, uuid: DbUuid) -> Result<Seq, SeqError> {
        let (number, other) = match text.split_once('-') {
            Some((number, other)) => (number, Some(DbUuid::from_hex(other).ok_or(SeqError)?)),
            None => (text, None),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(SeqError);
        }
        let seq = number.parse().ok().and_then(Seq::new).ok_or(SeqError)?;
        match other {
            Some(other) if other != uuid => Ok(Seq::ZERO),
            _ => Ok(seq),
        }
    }
}

impl DbUuid {
    /// The one with these bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> DbUuid {
        DbUuid(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// Reads 16 hex digits.
    pub fn from_hex(text: &str) -> Option<DbUuid> {
        let mut bytes = [0; 8];
        // `decode_mut` wants the exact output length, so the input's is checked first.
        (text.len() == 16
            && HEXLOWER_PERMISSIVE
                .decode_mut(text.as_bytes(), &mut bytes)
                .is_ok())
        .then_some(DbUuid(bytes))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DbUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for DbUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: DbUuid = DbUuid::from_bytes([0x4f, 0x1d, 0x0a, 0x9b, 0xe2, 0xc3, 0x5d, 0x77]);

    #[test]
    fn text_is_opaque_out_and_takes_a_number_in() {
        let seq = Seq::new(12).unwrap();
        assert_eq!(seq.to_text(OURS), "12-4f1d0a9be2c35d77");
        assert_eq!(Seq::from_text("12-4f1d0a9be2c35d77", OURS), Ok(seq));
        assert_eq!(Seq::from_text("12", OURS), Ok(seq));
        assert_eq!(Seq::from_text("0", OURS), Ok(Seq::ZERO));
        assert_eq!(Seq::from_text("12-0000000000000000", OURS), Ok(Seq::ZERO));
        for bad in [
            "",
            "-",
            "x",
            "-1",
            "+1",
            "12-",
            "12-4f1d",
            "9223372036854775808",
            "now",
        ] {
            assert_eq!(Seq::from_text(bad, OURS), Err(SeqError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[0-9]{1,20}-[0-9a-f]{14,17}") {
            let _ = Seq::from_text(&text, OURS);
        }

        #[test]
        fn text_round_trips(number in 0..=Seq::MAX.number(), uuid: [u8; 8]) {
            let (seq, uuid) = (Seq::new(number).unwrap(), DbUuid::from_bytes(uuid));
            prop_assert_eq!(Seq::from_text(&seq.to_text(uuid), uuid), Ok(seq));
        }
    }
}
