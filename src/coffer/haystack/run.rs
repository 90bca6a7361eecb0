//! Sorted runs of the index: immutable files of fixed-size entries, each block checked when it is read.
//!
//! ```text
//! block   85 entries of 48 bytes, then 16 bytes of BLAKE3 over them and the block's number
//! ...
//! fences  u64 big-endian per block: the first eight bytes of its first id
//! bloom   a power of two of bits, 8 to 16 per entry, 6 probes
//! trailer magic "REFUGERN", format u32, zero u32, entries u64, bloom bytes u64, BLAKE3 of fences, bloom and the rest (32)
//!
//! entry   id 32, volume u32, offset u32 in units of 8 bytes, length and flags u64 (bits 56.. flags)
//! ```
//!
//! Ids are digests, evenly spread, so their own bytes serve as the bloom filter's hashes. In memory a run
//! costs its fences and bloom: 1.4 to 2.2 bytes an entry.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::coffer::error::Error;
use crate::id::BlobId;

const ENTRY_BYTES: usize = 48;
const BLOCK_ENTRIES: usize = 85;
const BLOCK_BYTES: usize = 4096;
const TRAILER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"REFUGERN";
const FORMAT: u32 = 1;
const PROBES: u32 = 6;

/// Blocks read at once by a listing at most, 32 KiB: it reads from as many runs as there are.
const LISTING_BLOCKS_MAX: usize = 8;

const LEN_BITS: u32 = 56;

/// Where a needle is, and what a listing wants to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The volume, with its solo mark.
    pub(super) volume: u32,
    /// The needle's offset, a multiple of 8.
    pub(super) offset: u64,
    /// Plain bytes.
    pub(super) len: u64,
    pub(super) pinned: bool,
    /// The id is deleted; hides older entries.
    pub(super) dead: bool,
    /// The id is an alias's key, no blob's.
    pub(super) alias: bool,
}

/// A run, open for reading.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u32,
    path: PathBuf,
    file: File,
    entries: u64,
    fences: Vec<u64>,
    bloom: Vec<u8>,
}

impl Entry {
    fn encode(&self, id: &BlobId, out: &mut Vec<u8>) {
        let flags = u64::from(self.pinned) | u64::from(self.dead) << 1 | u64::from(self.alias) << 2;
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&self.volume.to_le_bytes());
        let units = u32::try_from(self.offset / 8).expect("volumes end below 32 GiB");
        out.extend_from_slice(&units.to_le_bytes());
        out.extend_from_slice(&(self.len | flags << LEN_BITS).to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> (BlobId, Entry) {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let len_flags = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes"));
        let flags = len_flags >> LEN_BITS;
        let entry = Entry {
            volume: word(32),
            offset: u64::from(word(36)) * 8,
            len: len_flags & ((1 << LEN_BITS) - 1),
            pinned: flags & 1 != 0,
            dead: flags & 2 != 0,
            alias: flags & 4 != 0,
        };
        (
            BlobId::from_bytes(bytes[..32].try_into().expect("32 bytes")),
            entry,
        )
    }
}

impl Run {
    /// Writes a run of the entries, ascending, and flushes it. The folder is not flushed.
    pub(super) fn write(
        path: &Path,
        number: u32,
        expected: u64,
        entries: impl Iterator<Item = Result<(BlobId, Entry), Error>>,
    ) -> Result<Run, Error> {
        let fail = |source| Error::io(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let mut out = BufWriter::with_capacity(64 * BLOCK_BYTES, file);
        let mut bloom = vec![0; bloom_bytes(expected)];
        let mut fences = Vec::new();
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut count = 0_u64;
        for item in entries {
            let (id, entry) = item?;
            if block.is_empty() {
                fences.push(fence(&id));
            }
            entry.encode(&id, &mut block);
            probes(&id, bloom.len()).for_each(|(byte, bit)| bloom[byte] |= bit);
            count += 1;
            if block.len() == BLOCK_ENTRIES * ENTRY_BYTES {
                seal(&mut block, fences.len() - 1);
                out.write_all(&block).map_err(fail)?;
                block.clear();
            }
        }
        if !block.is_empty() {
            block.resize(BLOCK_ENTRIES * ENTRY_BYTES, 0);
            seal(&mut block, fences.len() - 1);
            out.write_all(&block).map_err(fail)?;
        }
        for part in footer(&fences, &bloom, count) {
            out.write_all(&part).map_err(fail)?;
        }
        let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)?;
        Ok(Run {
            number,
            path: path.to_owned(),
            file,
            entries: count,
            fences,
            bloom,
        })
    }

    /// Opens a run and checks its footer.
    pub(super) fn open(path: &Path, number: u32) -> Result<Run, Error> {
        let fail = |source| Error::io(path, source);
        let damaged = |what| Error::Damaged {
            path: path.to_owned(),
            what,
        };
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        let mut trailer = [0; TRAILER_BYTES];
        let trailer_at = len
            .checked_sub(TRAILER_BYTES as u64)
            .ok_or(damaged("it is cut"))?;
        file.read_exact_at(&mut trailer, trailer_at).map_err(fail)?;
        if &trailer[0..8] != MAGIC {
            return Err(damaged("it does not end as an index run does"));
        }
        let format = u32::from_le_bytes(trailer[8..12].try_into().expect("four bytes"));
        if format > FORMAT {
            return Err(Error::Newer {
                path: path.to_owned(),
                found: format,
                known: FORMAT,
            });
        }
        let number_at = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
        let (entries, bloom_len) = (number_at(16), number_at(24));
        let blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
        let expected = blocks
            .checked_mul(BLOCK_BYTES as u64 + 8)
            .and_then(|n| n.checked_add(bloom_len));
        if expected != Some(trailer_at) || !bloom_len.is_power_of_two() {
            return Err(damaged("its length does not fit its entries"));
        }
        let too_large = |_| damaged("it is larger than memory can address");
        let mut fences = vec![0; usize::try_from(blocks * 8).map_err(too_large)?];
        file.read_exact_at(&mut fences, blocks * BLOCK_BYTES as u64)
            .map_err(fail)?;
        let fences: Vec<u64> = fences
            .chunks_exact(8)
            .map(|b| u64::from_be_bytes(b.try_into().expect("eight bytes")))
            .collect();
        let mut bloom = vec![0; usize::try_from(bloom_len).map_err(too_large)?];
        file.read_exact_at(&mut bloom, trailer_at - bloom_len)
            .map_err(fail)?;
        if footer(&fences, &bloom, entries)[2] != trailer {
            return Err(damaged("its fences or filter are not what was written"));
        }
        Ok(Run {
            number,
            path: path.to_owned(),
            file,
            entries,
            fences,
            bloom,
        })
    }

    /// Entries, deleted ids included.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The entry of an id, deleted or not.
    pub(super) fn get(&self, id: &BlobId) -> Result<Option<Entry>, Error> {
        if self.entries == 0 || !probes(id, self.bloom.len()).all(|(byte, bit)| self.bloom[byte] & bit != 0) {
            return Ok(None);
        }
        let Some(block) = self.block_of(id) else {
            return Ok(None);
        };
        // Ids that share their first eight bytes with a fence may stand in the block before.
        for block in (block.saturating_sub(1)..=block).rev() {
            let bytes = self.read_blocks(block, 1)?;
            let count = self.entries_in(block);
            let found = (0..count).map(|at| &bytes[at * ENTRY_BYTES..(at + 1) * ENTRY_BYTES]);
            let entries: Vec<&[u8]> = found.collect();
            if let Ok(at) = entries.binary_search_by(|entry| entry[..32].cmp(id.as_bytes())) {
                return Ok(Some(Entry::decode(entries[at]).1));
            }
            if self.fences[block] != fence(id) {
                break;
            }
        }
        Ok(None)
    }

    /// Entries above `after`, ascending, deleted ids included.
    pub(super) fn iter(self: &Arc<Run>, after: Option<BlobId>) -> RunIter {
        let start = after
            .and_then(|id| self.block_of(&id).map(|b| b.saturating_sub(1)))
            .unwrap_or(0);
        RunIter {
            run: Arc::clone(self),
            block: start,
            ahead: 1,
            after,
            buffer: Vec::new(),
            at: 0,
            failed: false,
        }
    }

    /// The last block that may hold the id.
    fn block_of(&self, id: &BlobId) -> Option<usize> {
        self.fences
            .partition_point(|first| *first <= fence(id))
            .checked_sub(1)
    }

    fn entries_in(&self, block: usize) -> usize {
        let before = block as u64 * BLOCK_ENTRIES as u64;
        usize::try_from((self.entries - before).min(BLOCK_ENTRIES as u64)).expect("at most a block")
    }

    fn read_blocks(&self, first: usize, count: usize) -> Result<Vec<u8>, Error> {
        let count = count.min(self.fences.len() - first);
        let mut bytes = vec![0; count * BLOCK_BYTES];
        let at = first as u64 * BLOCK_BYTES as u64;
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|source| Error::io(&self.path, source))?;
        for (index, block) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
            let (entries, sum) = block.split_at(BLOCK_ENTRIES * ENTRY_BYTES);
            if block_checksum(entries, first + index) != sum {
                return Err(Error::Damaged {
                    path: self.path.clone(),
                    what: "a block of the index is not what was written",
                });
            }
        }
        Ok(bytes)
    }
}

/// Reads a run in order.
pub(super) struct RunIter {
    run: Arc<Run>,
    block: usize,
    /// Blocks to read next time: twice as many each time, as most listings want one page and of that a part
    /// from each run.
    ahead: usize,
    after: Option<BlobId>,
    buffer: Vec<(BlobId, Entry)>,
    at: usize,
    failed: bool,
}

impl Iterator for RunIter {
    type Item = Result<(BlobId, Entry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at == self.buffer.len() {
            if self.failed || self.block >= self.run.fences.len() {
                return None;
            }
            if let Err(error) = self.fill() {
                self.failed = true;
                return Some(Err(error));
            }
        }
        self.at += 1;
        Some(Ok(self.buffer[self.at - 1]))
    }
}

impl RunIter {
    fn fill(&mut self) -> Result<(), Error> {
        let bytes = self.run.read_blocks(self.block, self.ahead)?;
        self.ahead = (self.ahead * 2).min(LISTING_BLOCKS_MAX);
        self.buffer.clear();
        self.at = 0;
        for block in bytes.chunks_exact(BLOCK_BYTES) {
            let count = self.run.entries_in(self.block);
            let entries = block.chunks_exact(ENTRY_BYTES).take(count).map(Entry::decode);
            self.buffer
                .extend(entries.filter(|(id, _)| self.after.is_none_or(|after| *id > after)));
            self.block += 1;
        }
        Ok(())
    }
}

fn fence(id: &BlobId) -> u64 {
    u64::from_be_bytes(id.as_bytes()[..8].try_into().expect("eight of 32 bytes"))
}

fn bloom_bytes(entries: u64) -> usize {
    usize::try_from(entries.max(8))
        .unwrap_or(usize::MAX / 16)
        .next_power_of_two()
}

/// The byte and bit of each probe, by double hashing with two words of the id itself.
fn probes(id: &BlobId, bloom_len: usize) -> impl Iterator<Item = (usize, u8)> {
    let word =
        |at: usize| u64::from_le_bytes(id.as_bytes()[at..at + 8].try_into().expect("eight of 32 bytes"));
    let (start, step) = (word(8), word(16) | 1);
    let bits = bloom_len as u64 * 8;
    (0..PROBES).map(move |n| {
        let bit = start.wrapping_add(step.wrapping_mul(n.into())) % bits;
        (
            usize::try_from(bit / 8).expect("inside the filter"),
            1 << (bit % 8),
        )
    })
}

fn seal(block: &mut Vec<u8>, number: usize) {
    let sum = block_checksum(block, number);
    block.extend_from_slice(&sum);
}

fn block_checksum(entries: &[u8], number: usize) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(entries).update(&(number as u64).to_le_bytes());
    hasher.finalize().as_bytes()[..16]
        .try_into()
        .expect("16 of 32 bytes")
}

/// Fences, bloom and trailer as bytes.
fn footer(fences: &[u64], bloom: &[u8], entries: u64) -> [Vec<u8>; 3] {
    let fences: Vec<u8> = fences.iter().flat_map(|fence| fence.to_be_bytes()).collect();
    let mut trailer = Vec::with_capacity(TRAILER_BYTES);
    trailer.extend_from_slice(MAGIC);
    trailer.extend_from_slice(&FORMAT.to_le_bytes());
    trailer.extend_from_slice(&[0; 4]);
    trailer.extend_from_slice(&entries.to_le_bytes());
    trailer.extend_from_slice(&(bloom.len() as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fences).update(bloom).update(&trailer);
    trailer.extend_from_slice(hasher.finalize().as_bytes());
    [fences, bloom.to_vec(), trailer]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> Entry {
        Entry {
            volume: 1,
            offset: n * 8,
            len: n,
            pinned: n.is_multiple_of(2),
            dead: n.is_multiple_of(7),
            alias: false,
        }
    }

    fn sample(count: u64) -> Vec<(BlobId, Entry)> {
        let mut all: Vec<_> = (0..count)
            .map(|n| (BlobId::of(&n.to_le_bytes()), entry(n)))
            .collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    #[test]
    fn what_is_written_is_found_and_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 84, 85, 86, 1000] {
            let path = dir.path().join(format!("{count}.run"));
            let all = sample(count);
            Run::write(&path, 1, count, all.iter().copied().map(Ok)).unwrap();
            let run = Arc::new(Run::open(&path, 1).unwrap());
            for (id, entry) in &all {
                assert_eq!(run.get(id).unwrap(), Some(*entry));
            }
            assert_eq!(run.get(&BlobId::of(b"absent")).unwrap(), None);
            let listed: Vec<_> = run.iter(None).map(Result::unwrap).collect();
            assert_eq!(listed, all);
            if let Some((middle, _)) = all.get(all.len() / 2) {
                let rest: Vec<_> = run.iter(Some(*middle)).map(Result::unwrap).collect();
                assert_eq!(rest, all[all.len() / 2 + 1..]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_an_error_not_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let all = sample(200);
        Run::write(&path, 1, 200, all.iter().copied().map(Ok)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let noticed = match Run::open(&path, 1) {
                Err(_) => true,
                Ok(run) => Arc::new(run).iter(None).any(|item| item.is_err()),
            };
            assert!(noticed, "byte {at}");
        }
    }
}
