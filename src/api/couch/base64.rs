//! Base64 decoded as it comes, in pieces of any size.

use data_encoding::BASE64;

/// A decoder between two pieces: holds at most one group.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Letters of a group that is not whole.
    group: Vec<u8>,
    /// Padding was seen: nothing may follow.
    ended: bool,
}

/// It was no base64.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoBase64;

/// Letters of a group.
const GROUP: usize = 4;

impl Decoder {
    /// Decodes the next letters onto `out`. Line breaks and spaces mean nothing (RFC 2045, section 6.8).
    ///
    /// # Errors
    /// [`NoBase64`].
    pub(super) fn push(&mut self, letters: &[u8], out: &mut Vec<u8>) -> Result<(), NoBase64> {
        if letters.iter().any(u8::is_ascii_whitespace) {
            let dense: Vec<u8> = letters
                .iter()
                .copied()
                .filter(|letter| !letter.is_ascii_whitespace())
                .collect();
            return self.push_dense(&dense, out);
        }
        self.push_dense(letters, out)
    }

    fn push_dense(&mut self, letters: &[u8], out: &mut Vec<u8>) -> Result<(), NoBase64> {
        let missing = (GROUP - self.group.len()) % GROUP;
        if letters.len() < missing || self.group.len() + letters.len() < GROUP {
            self.group.extend_from_slice(letters);
            return Ok(());
        }
        let (head, rest) = letters.split_at(missing);
        if !self.group.is_empty() {
            self.group.extend_from_slice(head);
            let group = std::mem::take(&mut self.group);
            self.decode(&group, out)?;
        }
        let (whole, tail) = rest.split_at(rest.len() - rest.len() % GROUP);
        self.decode(whole, out)?;
        self.group.extend_from_slice(tail);
        Ok(())
    }

    /// Says that nothing comes any more.
    ///
    /// # Errors
    /// [`NoBase64`] where a group is not whole.
    pub(super) fn end(&self) -> Result<(), NoBase64> {
        if self.group.is_empty() {
            Ok(())
        } else {
            Err(NoBase64)
        }
    }

    fn decode(&mut self, groups: &[u8], out: &mut Vec<u8>) -> Result<(), NoBase64> {
        if groups.is_empty() {
            return Ok(());
        }
        // The decoder of the crate takes padding between groups, as concatenated texts have it.
        let padding = groups.iter().position(|letter| *letter == b'=');
        if self.ended || padding.is_some_and(|at| at + 2 < groups.len()) {
            return Err(NoBase64);
        }
        self.ended = padding.is_some();
        let start = out.len();
        out.resize(start + groups.len() / GROUP * 3, 0);
        let len = BASE64
            .decode_mut(groups, &mut out[start..])
            .map_err(|_| NoBase64)?;
        out.truncate(start + len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(text: &[u8], size: usize) -> Result<Vec<u8>, NoBase64> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for piece in text.chunks(size) {
            decoder.push(piece, &mut out)?;
        }
        decoder.end()?;
        Ok(out)
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for wrong in [
            "A", "AA", "AAA", "AA=A", "AA==AAAA", "AA==A", "A===", "====", "AA-_", "é",
        ] {
            for size in [1, 2, 100] {
                assert_eq!(
                    decode(wrong.as_bytes(), size),
                    Err(NoBase64),
                    "{wrong} in pieces of {size}"
                );
            }
        }
        assert_eq!(decode(b"aGVs\r\nbG8=\n", 3), Ok(b"hello".to_vec()));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_decode_alike(bytes in prop::collection::vec(any::<u8>(), 0..100), size in 1..30_usize) {
            prop_assert_eq!(decode(BASE64.encode(&bytes).as_bytes(), size), Ok(bytes));
        }

        #[test]
        fn no_letters_panic(text in "[A-Za-z0-9+/= ]{0,20}", size in 1..9_usize) {
            let _ = decode(text.as_bytes(), size);
        }
    }
}
