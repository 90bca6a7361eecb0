//! Needles: the records of a volume, and the checksum that tells one from noise.
//!
//! Every needle begins on a multiple of 8 bytes with this header, all numbers little-endian:
//!
//! ```text
//!  0  magic       u32  "RNDL"
//!  4  kind        u8   1 blob, 2 tombstone, 3 pin, 4 alias
//!  5  flags       u8   1 pinned, 2 one frame stored as zstd, 4 moved by compaction, 8 quarantined (tombstone)
//!  6  zero        u16
//!  8  seq         u64  rises with every needle of the store; a moved needle keeps its own
//! 16  durable     u64  offset in this volume below which everything was flushed when this was written
//! 24  plain_len   u64  blob: plain bytes. tombstone: see [`Killed`]
//! 32  stored_len  u64  bytes of the body that follows
//! 40  id          32   BLAKE3 of the plain bytes (of an alias: its key, see [`alias_key`])
//! 72  checksum    u64  first 8 bytes of BLAKE3 keyed with the volume's key over bytes 0..72
//! 80  body        stored_len bytes, then zeros to the next multiple of 8
//! ```
//!
//! The checksum is keyed so that no blob's content can pass for a needle when a damaged volume is searched.

use crate::id::{BlobId, Sha256Id};

/// Bytes of a needle's header.
pub(super) const HEADER_BYTES: usize = 80;

const MAGIC: [u8; 4] = *b"RNDL";
const CHECKED_BYTES: usize = 72;

const PINNED: u8 = 1;
const ZSTD: u8 = 2;
const MOVED: u8 = 4;
const QUARANTINED: u8 = 8;

/// What a needle records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A blob; the body is its frames.
    Blob,
    /// The blob is deleted, or set aside.
    Tombstone,
    /// The blob is pinned from here on.
    Pin,
    /// The body is an alias, SHA-256 and BLAKE3, 32 bytes each.
    Alias,
}

/// A needle's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) pinned: bool,
    pub(super) zstd: bool,
    pub(super) moved: bool,
    pub(super) quarantined: bool,
    pub(super) seq: u64,
    pub(super) durable: u64,
    pub(super) plain_len: u64,
    pub(super) stored_len: u64,
    pub(super) id: BlobId,
}

/// What a tombstone knows of the needle it kills: when no volume below `next_shared` is left, nothing can
/// come back and the tombstone may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Killed {
    /// The number the next shared volume had.
    pub(super) next_shared: u32,
    /// The volume of the needle that was live.
    pub(super) volume: u32,
}

impl Killed {
    pub(super) fn to_plain_len(self) -> u64 {
        u64::from(self.next_shared) | u64::from(self.volume) << 32
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the number are meant"
    )]
    pub(super) fn from_plain_len(plain_len: u64) -> Killed {
        Killed {
            next_shared: plain_len as u32,
            volume: (plain_len >> 32) as u32,
        }
    }
}

impl Header {
    /// A needle without a body.
    pub(super) fn bare(kind: Kind, id: BlobId) -> Header {
        Header {
            kind,
            pinned: false,
            zstd: false,
            moved: false,
            quarantined: false,
            seq: 0,
            durable: 0,
            plain_len: 0,
            stored_len: 0,
            id,
        }
    }

    /// Bytes from this needle to the next.
    pub(super) fn span(&self) -> u64 {
        (HEADER_BYTES as u64 + self.stored_len).next_multiple_of(8)
    }

    pub(super) fn encode(&self, key: &[u8; 32]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = match self.kind {
            Kind::Blob => 1,
            Kind::Tombstone => 2,
            Kind::Pin => 3,
            Kind::Alias => 4,
        };
        bytes[5] = flag(self.pinned, PINNED)
            | flag(self.zstd, ZSTD)
            | flag(self.moved, MOVED)
            | flag(self.quarantined, QUARANTINED);
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.durable.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[40..72].copy_from_slice(self.id.as_bytes());
        let checksum = checksum(key, &bytes[..CHECKED_BYTES]);
        bytes[72..80].copy_from_slice(&checksum);
        bytes
    }

    /// The header these bytes are; `None` where they are none of this volume.
    pub(super) fn decode(bytes: &[u8], key: &[u8; 32]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        if bytes[0..4] != MAGIC || bytes[72..80] != checksum(key, &bytes[..CHECKED_BYTES]) {
            return None;
        }
        let kind = match bytes[4] {
            1 => Kind::Blob,
            2 => Kind::Tombstone,
            3 => Kind::Pin,
            4 => Kind::Alias,
            _ => return None,
        };
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Header {
            kind,
            pinned: bytes[5] & PINNED != 0,
            zstd: bytes[5] & ZSTD != 0,
            moved: bytes[5] & MOVED != 0,
            quarantined: bytes[5] & QUARANTINED != 0,
            seq: number(8),
            durable: number(16),
            plain_len: number(24),
            stored_len: number(32),
            id: BlobId::from_bytes(bytes[40..72].try_into().expect("32 bytes")),
        })
    }

    /// Whether these bytes can begin a needle: cheap, for searching.
    pub(super) fn may_begin(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }
}

/// The key under which an alias stands in the index: a hash no blob can have by chance.
pub(super) fn alias_key(alias: &Sha256Id) -> BlobId {
    BlobId::from_bytes(blake3::derive_key(
        "refuge coffer 2026-11 sha256 alias",
        alias.as_bytes(),
    ))
}

fn checksum(key: &[u8; 32], bytes: &[u8]) -> [u8; 8] {
    blake3::keyed_hash(key, bytes).as_bytes()[..8]
        .try_into()
        .expect("eight of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_round_trips_and_any_flipped_bit_is_noticed() {
        let key = [3; 32];
        let header = Header {
            pinned: true,
            zstd: true,
            seq: 7,
            durable: 4096,
            plain_len: 10,
            stored_len: 9,
            ..Header::bare(Kind::Blob, BlobId::of(b"x"))
        };
        let bytes = header.encode(&key);
        assert_eq!(Header::decode(&bytes, &key), Some(header));
        assert_eq!(Header::decode(&bytes, &[4; 32]), None);
        assert_eq!(header.span(), 96);
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged, &key), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Header::decode(&bytes, &[0; 32]), None);
        }
    }
}
