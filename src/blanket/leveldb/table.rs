//! A table that checks itself: every block that is read is compared with its checksum, whatever the crate makes of it.
//!
//! ```text
//! block, u8 its compression, u32 CRC-32C of both, masked          … of data, one of the filter, two of indexes
//! varint offset, length of the index of the others; the same of the index of data; zeros up to 40 bytes; the magic number
//! ```
//!
//! Numbers are little endian (LevelDB's `doc/table_format.md`). The crate reads a block with what follows it, compares it with
//! the checksum, and where that fails goes on with the next; the filter and the footer it does not compare at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusty_leveldb::Result;
use rusty_leveldb::env::RandomAccess;

use super::health::Health;

const FOOTER_BYTES: usize = 48;
const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();

/// The compression and the checksum behind a block.
const TRAILER_BYTES: usize = 5;

/// What the masked form of a checksum adds, so that one over bytes with a checksum in them is no trivial one.
const MASK_DELTA: u32 = 0xa282_ead8;

/// An open table.
pub(super) struct Table {
    file: File,
    path: PathBuf,
    bytes: u64,
    health: Arc<Health>,
}

impl Table {
    /// Opens a table whose footer is one.
    pub(super) fn open(file: File, path: &Path, health: Arc<Health>) -> io::Result<Table> {
        let bytes = file.metadata().map_err(|error| health.failed(error))?.len();
        let table = Table {
            file,
            path: path.to_owned(),
            bytes,
            health,
        };
        match table.footer()? {
            true => Ok(table),
            false => Err(table.damaged("its end is none of a table")),
        }
    }

    fn footer(&self) -> io::Result<bool> {
        let mut footer = [0; FOOTER_BYTES];
        let Some(at) = self.bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Ok(false);
        };
        self.read(&mut footer, at)?;
        // Both handles lie within the file: a longer one would be memory that is not there.
        let handles = || {
            let (offset, rest) = number(&footer[..40])?;
            let (length, rest) = number(rest)?;
            let (index_offset, rest) = number(rest)?;
            let (index_length, _) = number(rest)?;
            let is_within = |offset: u64, length: u64| {
                let end = offset.checked_add(length)?.checked_add(TRAILER_BYTES as u64)?;
                Some(end <= at)
            };
            Some(is_within(offset, length)? && is_within(index_offset, index_length)?)
        };
        Ok(footer.ends_with(&MAGIC) && handles().unwrap_or(false))
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file
            .read_exact_at(buffer, at)
            .map_err(|error| self.health.failed(error))
    }

    fn damaged(&self, what: &str) -> io::Error {
        self.health.damaged(format!("{}: {what}", self.path.display()))
    }
}

impl RandomAccess for Table {
    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<usize> {
        let at = offset as u64;
        if at
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.bytes)
        {
            return Err(self.damaged("a block lies behind its end").into());
        }
        self.read(buffer, at)?;
        let is_footer = buffer.len() == FOOTER_BYTES && at + FOOTER_BYTES as u64 == self.bytes;
        if is_footer || is_sound(buffer) {
            return Ok(buffer.len());
        }
        // A filter is read without what follows it.
        let mut trailer = [0; TRAILER_BYTES];
        let behind = at + buffer.len() as u64;
        if behind + TRAILER_BYTES as u64 <= self.bytes {
            self.read(&mut trailer, behind)?;
            if is_sound(&[&*buffer, &trailer].concat()) {
                return Ok(buffer.len());
            }
        }
        Err(self.damaged("a block is not what was written").into())
    }
}

/// Whether a block with what follows it has its checksum.
fn is_sound(block: &[u8]) -> bool {
    block
        .split_last_chunk::<4>()
        .is_some_and(|(block, checksum)| masked(crc32c::crc32c(block)) == u32::from_le_bytes(*checksum))
}

/// A checksum as it stands in files.
pub(super) fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(MASK_DELTA)
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number: u64 = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}
