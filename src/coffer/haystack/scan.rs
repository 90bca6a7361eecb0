//! Reading a volume needle by needle: what recovery, rebuilding, compaction and checks have in common.
//!
//! Needles follow each other; zeros lead to the next page, where a group may begin. Where something else
//! stands, the rest is searched for the next header whose keyed checksum fits, and the bytes between are a
//! damaged span.

use std::sync::Arc;

use super::needle::{HEADER_BYTES, Header};
use super::volume::{PAGE_BYTES, Volume};
use crate::coffer::error::Error;

/// Bytes read at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// What stands at a place of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A needle's header at this offset; its body lies within the file.
    Needle(u64, Header),
    /// No needle from here to there, nor zeros.
    Damage(u64, u64),
}

/// Walks a volume from an offset to the end of the file as it was when the walk began.
pub(super) struct Scan {
    volume: Arc<Volume>,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    pub(super) fn new(volume: Arc<Volume>, from: u64) -> Result<Scan, Error> {
        let end = volume.len()?;
        Ok(Scan {
            volume,
            at: from.max(PAGE_BYTES),
            end,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// What stands next; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Error> {
        while self.at + (HEADER_BYTES as u64) <= self.end {
            if let Some(header) = self.header_at(self.at)? {
                let found = Found::Needle(self.at, header);
                self.at += header.span();
                return Ok(Some(found));
            }
            if self.bytes_at(self.at, 4)? != [0; 4] {
                return self.damage().map(Some);
            }
            self.at = (self.at + 1).next_multiple_of(PAGE_BYTES);
        }
        Ok(None)
    }

    /// The header at `at` whose needle fits into the file.
    fn header_at(&mut self, at: u64) -> Result<Option<Header>, Error> {
        let (end, key) = (self.end, self.volume.key);
        let header = Header::decode(self.bytes_at(at, HEADER_BYTES)?, &key);
        Ok(header
            .filter(|header| header.stored_len <= end && at + HEADER_BYTES as u64 + header.stored_len <= end))
    }

    /// Searches on from a place where no needle is.
    fn damage(&mut self) -> Result<Found, Error> {
        let start = self.at;
        self.at += 8;
        while self.at + (HEADER_BYTES as u64) <= self.end {
            if Header::may_begin(self.bytes_at(self.at, HEADER_BYTES)?) && self.header_at(self.at)?.is_some()
            {
                return Ok(Found::Damage(start, self.at));
            }
            self.at += 8;
        }
        self.at = self.end;
        Ok(Found::Damage(start, self.end))
    }

    fn bytes_at(&mut self, at: u64, len: usize) -> Result<&[u8], Error> {
        let cached = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !cached {
            self.window.resize(WINDOW_BYTES, 0);
            let read = self.volume.read(&mut self.window, at)?;
            self.window.truncate(read);
            self.window_at = at;
        }
        let from = usize::try_from(at - self.window_at).expect("inside the window");
        Ok(&self.window[from..(from + len).min(self.window.len())])
    }
}
