//! Cuts a file by its content (FastCDC 2020, Xia et al.), so that a changed file shares its other parts.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use fastcdc::v2020::FastCDC;

use crate::coffer::PACKED_BYTES_MAX;

/// The shortest part that is cut by content; a file up to this size is always one part.
pub(super) const PART_BYTES_MIN: usize = 256 * 1024;

/// What a part is cut to on average.
const PART_BYTES_AVERAGE: usize = 1024 * 1024;

/// The longest part: what the coffer packs whole.
const PART_BYTES_MAX: usize = PACKED_BYTES_MAX;

/// Longest parts that are read ahead: one can always be cut while the next is there.
const WINDOW_PARTS: usize = 2;

/// How long parts are, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSizes {
    /// The shortest, but for the last of a run.
    pub min: usize,
    /// What is aimed at.
    pub average: usize,
    /// The longest.
    pub max: usize,
}

impl PartSizes {
    /// Of files in backups.
    pub(super) const OF_FILES: PartSizes = PartSizes {
        min: PART_BYTES_MIN,
        average: PART_BYTES_AVERAGE,
        max: PART_BYTES_MAX,
    };
}

/// Cuts what a reader gives into parts, a window at a time.
pub struct Cutter {
    sizes: PartSizes,
    window: Vec<u8>,
    /// The part of the window that is filled and not yet cut.
    filled: Range<usize>,
}

impl Cutter {
    /// A cutter into parts of these sizes; it holds twice the longest.
    pub fn new(sizes: PartSizes) -> Cutter {
        Cutter {
            sizes,
            window: vec![0; WINDOW_PARTS * sizes.max],
            filled: 0..0,
        }
    }

    /// Begins another run of bytes.
    pub(super) fn restart(&mut self) {
        self.filled = 0..0;
    }

    /// The next parts of the run, at most a window of them; none at its end.
    ///
    /// # Errors
    /// What the reader answers.
    pub fn next_parts(&mut self, from: &mut impl Read) -> io::Result<Vec<Bytes>> {
        let is_end = self.fill(from)?;
        let mut parts = Vec::new();
        let chunker = FastCDC::new(
            &self.window[..self.filled.end],
            self.sizes.min,
            self.sizes.average,
            self.sizes.max,
        );
        // A cut depends on at most a longest part: before the end, only cut where that much is there.
        while !self.filled.is_empty() && (is_end || self.filled.len() >= self.sizes.max) {
            let (_, end) = chunker.cut(self.filled.start, self.filled.len());
            parts.push(Bytes::copy_from_slice(&self.window[self.filled.start..end]));
            self.filled.start = end;
        }
        Ok(parts)
    }

    /// Fills the window; says whether the run ended.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        self.window.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        while self.filled.end < self.window.len() {
            match from.read(&mut self.window[self.filled.end..]) {
                Ok(0) => return Ok(true),
                Ok(count) => self.filled.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const WINDOW_BYTES: usize = WINDOW_PARTS * PART_BYTES_MAX;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut out);
        out
    }

    fn cut(mut bytes: &[u8]) -> Vec<Bytes> {
        let mut cutter = Cutter::new(PartSizes::OF_FILES);
        let mut parts = Vec::new();
        loop {
            let more = cutter.next_parts(&mut bytes).unwrap();
            if more.is_empty() {
                return parts;
            }
            parts.extend(more);
        }
    }

    #[test]
    fn parts_make_up_the_file_and_keep_to_their_lengths() {
        for len in [
            0,
            1,
            PART_BYTES_MIN,
            WINDOW_BYTES,
            WINDOW_BYTES + 1,
            5 * WINDOW_BYTES + 7,
        ] {
            let bytes = noise(len);
            let parts = cut(&bytes);
            assert_eq!(parts.concat(), bytes);
            assert!(parts.iter().all(|part| part.len() <= PART_BYTES_MAX));
            let inner = &parts[..parts.len().saturating_sub(1)];
            assert!(inner.iter().all(|part| part.len() >= PART_BYTES_MIN));
        }
    }

    #[test]
    fn a_byte_more_at_the_front_leaves_most_parts_as_they_were() {
        let bytes = noise(40 * 1024 * 1024);
        let before: HashSet<Bytes> = cut(&bytes).into_iter().collect();
        let after = cut(&[b"x", &bytes[..]].concat());
        let fresh = after.iter().filter(|part| !before.contains(*part)).count();
        assert!(fresh <= 2, "{fresh} of {} parts are new", after.len());
    }
}
