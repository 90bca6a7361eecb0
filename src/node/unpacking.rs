//! An attachment that is kept packed, read as it is meant.

use bytes::Bytes;

use super::blobs::Reading;
use super::error::Error;
use super::gunzip::Gunzip;

/// Bytes that are unpacked at once: of each may come a thousand.
const PACKED_BYTES: usize = 1024;

/// Bytes after which a piece is given.
const UNPACKED_BYTES: usize = 64 * 1024;

/// Reads what comes out of a blob of gzip, a piece at a time.
pub struct Unpacking {
    reading: Reading,
    offset: u64,
    gunzip: Gunzip,
    /// What was read and not unpacked yet.
    packed: Bytes,
}

impl Unpacking {
    /// From the beginning of a blob.
    pub fn new(reading: Reading) -> Unpacking {
        Unpacking {
            reading,
            offset: 0,
            gunzip: Gunzip::default(),
            packed: Bytes::new(),
        }
    }

    /// The next bytes that come out, about a mebibyte of them at most; none at the end. If cancelled, bytes may be missing.
    ///
    /// # Errors
    /// As reading the blob; [`Error::Invalid`] for what is no gzip.
    pub async fn next(&mut self) -> Result<Bytes, Error> {
        let mut out = Vec::new();
        while out.len() < UNPACKED_BYTES {
            if self.packed.is_empty() {
                self.packed = self.reading.read_at(self.offset).await?;
                self.offset += self.packed.len() as u64;
                if self.packed.is_empty() {
                    break;
                }
            }
            let piece = self.packed.split_to(PACKED_BYTES.min(self.packed.len()));
            let unpacked = self
                .gunzip
                .push(&piece, &mut |bytes| out.extend_from_slice(bytes));
            // It was unpacked once when it came in, and every read is compared with its digest.
            unpacked.map_err(|error| Error::Invalid {
                what: "attachment",
                reason: error.to_string(),
            })?;
        }
        Ok(out.into())
    }
}
