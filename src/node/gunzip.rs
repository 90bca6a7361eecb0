//! Bytes out of gzip (RFC 1952) as they pass: a window of 32 KiB, whatever comes.
//!
//! What comes out of little is bounded (row S15): [`RATIO_MAX`] for what comes in, above the first [`FREE_BYTES`]. The checksum and
//! the length at the end of each member are compared, so that what ends well is what was packed.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// Bytes that may come out of one that came in. Text seldom exceeds a tenth of it; a bomb is ten times as dense.
const RATIO_MAX: u64 = 100;

/// Bytes that may come out of anything: a short run of the same letter is no bomb.
const FREE_BYTES: u64 = 1024 * 1024;

/// What is unpacked at once.
const STEP_BYTES: usize = 32 * 1024;

/// Bytes of a member's head before the parts that may be left out.
const HEAD_BYTES: usize = 10;

/// Bytes of the checksum and the length behind a member.
const TAIL_BYTES: usize = 8;

const HAS_CHECKSUM: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;

/// Why bytes are no gzip that is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum GzipError {
    /// Not gzip, damaged, or cut.
    #[error("the bytes are no whole gzip")]
    Damaged,
    /// More comes out than [`RATIO_MAX`] allows.
    #[error("more than {RATIO_MAX} bytes come out of one: that is not taken")]
    Bomb,
}

/// Unpacks one stream of bytes.
pub(super) struct Gunzip {
    part: Part,
    /// Bytes of the part that are not whole yet.
    held: Vec<u8>,
    inflate: Box<InflateState>,
    checksum: crc32fast::Hasher,
    member_bytes: u32,
    taken_bytes: u64,
    given_bytes: u64,
    step: Vec<u8>,
}

/// What comes next of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    ExtraLength,
    Extra(usize),
    Name,
    Comment,
    HeadChecksum,
    Data,
    Tail,
}

impl Default for Gunzip {
    fn default() -> Self {
        Gunzip {
            part: Part::Head,
            held: Vec::new(),
            inflate: InflateState::new_boxed(DataFormat::Raw),
            checksum: crc32fast::Hasher::new(),
            member_bytes: 0,
            taken_bytes: 0,
            given_bytes: 0,
            step: vec![0; STEP_BYTES],
        }
    }
}

impl Gunzip {
    /// Takes the next bytes and gives what comes out of them, in pieces of at most 32 KiB.
    ///
    /// # Errors
    /// [`GzipError`]; what was given before is not to be believed then.
    pub(super) fn push(&mut self, mut bytes: &[u8], give: &mut dyn FnMut(&[u8])) -> Result<(), GzipError> {
        while !bytes.is_empty() {
            if self.part == Part::Data {
                bytes = self.unpack(bytes, give)?;
                continue;
            }
            let (byte, rest) = bytes.split_first().ok_or(GzipError::Damaged)?;
            bytes = rest;
            self.taken_bytes += 1;
            self.frame(*byte)?;
        }
        Ok(())
    }

    /// Ends it; the bytes that came out in all.
    ///
    /// # Errors
    /// [`GzipError::Damaged`] where more had to come.
    pub(super) fn end(&self) -> Result<u64, GzipError> {
        let is_between = self.part == Part::Head && self.held.is_empty() && self.taken_bytes > 0;
        is_between.then_some(self.given_bytes).ok_or(GzipError::Damaged)
    }

    fn unpack<'a>(&mut self, bytes: &'a [u8], give: &mut dyn FnMut(&[u8])) -> Result<&'a [u8], GzipError> {
        let done = inflate(&mut self.inflate, bytes, &mut self.step, MZFlush::None);
        let out = &self.step[..done.bytes_written];
        self.checksum.update(out);
        self.taken_bytes += done.bytes_consumed as u64;
        self.given_bytes += out.len() as u64;
        let length = u32::try_from(out.len()).map_err(|_| GzipError::Damaged)?;
        self.member_bytes = self.member_bytes.wrapping_add(length);
        if self.given_bytes > FREE_BYTES.max(self.taken_bytes.saturating_mul(RATIO_MAX)) {
            return Err(GzipError::Bomb);
        }
        give(out);
        match done.status {
            Ok(MZStatus::StreamEnd) => self.part = Part::Tail,
            Ok(MZStatus::Ok) | Err(MZError::Buf) if done.bytes_consumed + done.bytes_written > 0 => {}
            _ => return Err(GzipError::Damaged),
        }
        Ok(&bytes[done.bytes_consumed..])
    }

    /// Takes a byte of what is around the data.
    fn frame(&mut self, byte: u8) -> Result<(), GzipError> {
        match self.part {
            Part::Name | Part::Comment if byte != 0 => return Ok(()),
            Part::Name | Part::Comment => {}
            Part::Head
            | Part::ExtraLength
            | Part::Extra(_)
            | Part::HeadChecksum
            | Part::Data
            | Part::Tail => {
                self.held_or_counted(byte);
            }
        }
        // The flags of the head stay held until the data begins.
        let flags = self.held.get(3).copied().unwrap_or_default();
        let next = match self.part {
            Part::Head if self.held.len() < HEAD_BYTES => return Ok(()),
            Part::Head => {
                if self.held[..3] != [0x1f, 0x8b, 8] || flags > 31 {
                    return Err(GzipError::Damaged);
                }
                Part::ExtraLength
            }
            Part::ExtraLength if self.held.len() < HEAD_BYTES + 2 => return Ok(()),
            Part::ExtraLength => {
                let length = u16::from_le_bytes([self.held[HEAD_BYTES], self.held[HEAD_BYTES + 1]]);
                match length {
                    0 => Part::Name,
                    length => Part::Extra(usize::from(length)),
                }
            }
            Part::Extra(1) => Part::Name,
            Part::Extra(left) => Part::Extra(left - 1),
            Part::Name => Part::Comment,
            Part::Comment => Part::HeadChecksum,
            Part::HeadChecksum if self.held.len() < HEAD_BYTES + 2 => return Ok(()),
            Part::HeadChecksum | Part::Data => Part::Data,
            Part::Tail if self.held.len() < TAIL_BYTES => return Ok(()),
            Part::Tail => {
                self.compare_tail()?;
                Part::Head
            }
        };
        self.go_on(next, flags);
        Ok(())
    }

    /// Of an extra field only its length counts.
    fn held_or_counted(&mut self, byte: u8) {
        if !matches!(self.part, Part::Extra(_)) {
            self.held.push(byte);
        }
    }

    /// To the next part that is there.
    fn go_on(&mut self, mut next: Part, flags: u8) {
        let was = self.part;
        loop {
            let (is_there, after) = match next {
                Part::ExtraLength => (flags & HAS_EXTRA != 0, Part::Name),
                Part::Name => (flags & HAS_NAME != 0, Part::Comment),
                Part::Comment => (flags & HAS_COMMENT != 0, Part::HeadChecksum),
                Part::HeadChecksum => (flags & HAS_CHECKSUM != 0, Part::Data),
                Part::Head | Part::Extra(_) | Part::Data | Part::Tail => (true, next),
            };
            if is_there {
                break;
            }
            next = after;
        }
        self.part = next;
        match next {
            Part::Data | Part::Head => {
                self.held.clear();
                if was == Part::Tail {
                    self.inflate = InflateState::new_boxed(DataFormat::Raw);
                    self.checksum = crc32fast::Hasher::new();
                    self.member_bytes = 0;
                }
            }
            _ => self.held.truncate(HEAD_BYTES),
        }
    }

    fn compare_tail(&self) -> Result<(), GzipError> {
        let checksum = self.checksum.clone().finalize().to_le_bytes();
        let is_right =
            self.held[..4] == checksum && self.held[4..TAIL_BYTES] == self.member_bytes.to_le_bytes();
        is_right.then_some(()).ok_or(GzipError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A member as RFC 1952 draws it, with the parts that `flags` names.
    fn member(bytes: &[u8], flags: u8) -> Vec<u8> {
        let mut packed = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255];
        if flags & HAS_EXTRA != 0 {
            packed.extend([3, 0, b'a', b'b', b'c']);
        }
        if flags & HAS_NAME != 0 {
            packed.extend(b"name\0");
        }
        if flags & HAS_COMMENT != 0 {
            packed.extend(b"\0");
        }
        if flags & HAS_CHECKSUM != 0 {
            packed.extend([1, 2]);
        }
        packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
        packed.extend(crc32fast::hash(bytes).to_le_bytes());
        packed.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        packed
    }

    fn through(packed: &[u8], size: usize) -> Result<Vec<u8>, GzipError> {
        let mut gunzip = Gunzip::default();
        let mut out = Vec::new();
        for piece in packed.chunks(size.max(1)) {
            gunzip.push(piece, &mut |bytes| out.extend_from_slice(bytes))?;
        }
        assert_eq!(gunzip.end()?, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn a_bomb_is_told_before_it_fills_anything() {
        let packed = member(&vec![0; 40 * 1024 * 1024], 0);
        let mut gunzip = Gunzip::default();
        let mut given = 0;
        let mut told = Ok(());
        for piece in packed.chunks(4096) {
            told = gunzip.push(piece, &mut |bytes| given += bytes.len());
            if told.is_err() {
                break;
            }
        }
        assert_eq!(told, Err(GzipError::Bomb));
        assert!(given < 2 * 1024 * 1024, "{given} bytes came out");
    }

    #[test]
    fn what_is_cut_or_damaged_is_told() {
        let packed = member(b"a shopping list for Monday and Tuesday", HAS_NAME);
        for len in 0..packed.len() {
            assert_eq!(through(&packed[..len], 7), Err(GzipError::Damaged), "{len}");
        }
        for at in [0, 1, 2, 20, packed.len() - 8, packed.len() - 1] {
            let mut damaged = packed.clone();
            damaged[at] ^= 0xff;
            assert!(through(&damaged, 100).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(
            bytes in prop::collection::vec(any::<u8>(), 0..4000),
            more in prop::collection::vec(0..4_u8, 0..70_000),
            flags in 0..32_u8,
            size in 1..5000_usize,
        ) {
            let packed = [member(&bytes, flags & 30), member(&more, 0)].concat();
            prop_assert_eq!(through(&packed, size), Ok([bytes, more].concat()));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in 0..40_u8) {
            let _ = through(&bytes, 3);
            let _ = through(&[&[0x1f, 0x8b, 8, flags][..], &bytes].concat(), 3);
        }
    }
}
