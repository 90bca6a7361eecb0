//! Blobs as frames: how bytes are cut, hashed and compressed before a backend stores them.
//!
//! A blob is a run of frames of [`FRAME_BYTES`] plain bytes, the last one shorter. A frame is a subtree of
//! BLAKE3's own tree, so its chaining value (CV) proves its bytes against the blob's id: a range is
//! verified by the frames it touches, without reading the rest. The stored form, the *body*:
//!
//! ```text
//! one frame:      <stored frame>
//! several:        <stored frame>* <table: per frame, length u32 LE with bit 31 = zstd, CV 32 bytes>
//! ```
//!
//! A frame is stored compressed (one zstd frame) only where that saves at least a tenth. The id is always
//! that of the plain bytes (BLAKE3 paper, section 2.4 and `blake3::hazmat`).

use std::cell::RefCell;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::class::Class;
use crate::id::BlobId;

/// Plain bytes of a frame: what a verified read needs in memory. A power of two times BLAKE3's 1024.
pub const FRAME_BYTES: usize = 256 * 1024;

/// The most plain bytes of a blob that is packed whole; anything larger is streamed.
pub const PACKED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a table entry.
pub(crate) const TABLE_ENTRY_BYTES: usize = 36;

const ZSTD_BIT: u32 = 1 << 31;

/// Whether and how hard frames are compressed: zstd's level, 0 for not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression(pub i32);

impl Compression {
    /// Stored as they come.
    pub const OFF: Compression = Compression(0);
}

impl Default for Compression {
    fn default() -> Self {
        Compression(1)
    }
}

/// A small blob ready to be stored: hashed, cut and compressed.
#[derive(Debug, Clone)]
pub struct Packed {
    pub(crate) id: BlobId,
    pub(crate) class: Class,
    pub(crate) plain_len: u32,
    pub(crate) body: Body,
}

/// The stored form of a blob, see the module's head.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) frames: u32,
    /// Of a body of one frame: whether it is compressed. Several frames say so in their table.
    pub(crate) zstd: bool,
}

impl Packed {
    /// Packs `plain`: computes its id and its stored form. Pure processor work; do it outside of locks.
    ///
    /// # Panics
    /// Above [`PACKED_BYTES_MAX`]: callers stream what is larger.
    pub fn new(plain: Bytes, class: Class, compression: Compression) -> Packed {
        if plain.len() <= FRAME_BYTES {
            Packed::one_frame(BlobId::of(&plain), plain, class, compression)
        } else {
            Packed::several_frames(&plain, class, compression)
        }
    }

    /// As [`Packed::new`], for bytes whose id the caller has computed: hashing small blobs once more costs a
    /// fifth of compressing them. The id of what has several frames comes from the frames all the same.
    pub(super) fn identified(id: BlobId, plain: Bytes, class: Class, compression: Compression) -> Packed {
        if plain.len() <= FRAME_BYTES {
            debug_assert_eq!(id, BlobId::of(&plain), "computed from these bytes");
            Packed::one_frame(id, plain, class, compression)
        } else {
            Packed::several_frames(&plain, class, compression)
        }
    }

    fn one_frame(id: BlobId, plain: Bytes, class: Class, compression: Compression) -> Packed {
        let plain_len = u32::try_from(plain.len()).expect("below FRAME_BYTES");
        let body = match compress(&plain, compression) {
            Some(stored) => Body {
                bytes: stored.into(),
                frames: 1,
                zstd: true,
            },
            None => Body {
                bytes: plain,
                frames: 1,
                zstd: false,
            },
        };
        Packed {
            id,
            class,
            plain_len,
            body,
        }
    }

    fn several_frames(plain: &Bytes, class: Class, compression: Compression) -> Packed {
        assert!(plain.len() <= PACKED_BYTES_MAX, "larger blobs are streamed");
        let plain_len = u32::try_from(plain.len()).expect("below PACKED_BYTES_MAX");
        let mut tree = Tree::default();
        let mut bytes = Vec::with_capacity(plain.len() + plain.len() / FRAME_BYTES * TABLE_ENTRY_BYTES);
        for frame in plain.chunks(FRAME_BYTES) {
            match compress(frame, compression) {
                Some(stored) => {
                    tree.push(frame, stored.len(), true);
                    bytes.extend_from_slice(&stored);
                }
                None => {
                    tree.push(frame, frame.len(), false);
                    bytes.extend_from_slice(frame);
                }
            }
        }
        tree.write_table(&mut bytes);
        let body = Body {
            bytes: bytes.into(),
            frames: tree.frames(),
            zstd: false,
        };
        Packed {
            id: tree.root(),
            class,
            plain_len,
            body,
        }
    }

    /// The id of the plain bytes.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// The length of the plain bytes.
    pub fn len(&self) -> u64 {
        self.plain_len.into()
    }

    /// Whether the blob is the empty one.
    pub fn is_empty(&self) -> bool {
        self.plain_len == 0
    }

    /// Bytes it takes as stored, without the backend's own header.
    pub fn stored_len(&self) -> u64 {
        self.body.bytes.len() as u64
    }

    /// The plain bytes again, for backends that store those.
    pub(crate) fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(self.plain_len as usize);
        if self.body.frames == 1 {
            decode_frame(
                &self.body.bytes,
                self.body.zstd,
                self.plain_len as usize,
                &mut plain,
            )
            .expect("packed by this process");
            return plain;
        }
        let table_at = self.body.bytes.len() - self.body.frames as usize * TABLE_ENTRY_BYTES;
        let table = Table::parse(&self.body.bytes[table_at..], self.plain_len.into())
            .expect("packed by this process");
        let mut at = 0;
        for index in 0..table.frames() {
            let stored = table.stored_len(index);
            let mut frame = Vec::new();
            decode_frame(
                &self.body.bytes[at..at + stored],
                table.zstd(index),
                table.plain_len(index),
                &mut frame,
            )
            .expect("packed by this process");
            plain.extend_from_slice(&frame);
            at += stored;
        }
        plain
    }
}

/// The frames of a blob being written: their CVs and stored lengths, 36 bytes per 256 KiB of blob.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: Vec<(u32, ChainingValue)>,
    plain_len: u64,
    /// The digest of a blob of one frame is a root, not a CV.
    first_root: Option<BlobId>,
}

impl Tree {
    /// Adds the next frame: its plain bytes, and how it is stored. Only the last may be short.
    pub(crate) fn push(&mut self, plain: &[u8], stored_len: usize, zstd: bool) {
        if self.entries.is_empty() {
            self.first_root = Some(BlobId::of(plain));
        }
        let cv = frame_cv(plain, self.plain_len);
        let stored = u32::try_from(stored_len).expect("a stored frame is no larger than a plain one");
        self.entries.push((stored | if zstd { ZSTD_BIT } else { 0 }, cv));
        self.plain_len += plain.len() as u64;
    }

    pub(crate) fn frames(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// The id of all frames pushed.
    pub(crate) fn root(&self) -> BlobId {
        match (self.entries.len(), self.first_root) {
            (0, _) => BlobId::of(b""),
            (1, Some(root)) => root,
            _ => {
                let cvs: Vec<ChainingValue> = self.entries.iter().map(|entry| entry.1).collect();
                root_of(&cvs, self.plain_len)
            }
        }
    }

    /// Whether the only frame is compressed; what a body of one frame records outside of a table.
    pub(crate) fn only_frame_zstd(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.0 & ZSTD_BIT != 0)
    }

    /// Appends the table; nothing for a body of one frame.
    pub(crate) fn write_table(&self, out: &mut Vec<u8>) {
        if self.entries.len() < 2 {
            return;
        }
        for (stored, cv) in &self.entries {
            out.extend_from_slice(&stored.to_le_bytes());
            out.extend_from_slice(cv);
        }
    }
}

/// The frames of a stored blob, from its table.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<(u32, ChainingValue)>,
    plain_len: u64,
}

impl Table {
    /// Reads a table of a blob of `plain_len` bytes; `None` where it cannot be one.
    pub(crate) fn parse(bytes: &[u8], plain_len: u64) -> Option<Table> {
        let frames = plain_len.div_ceil(FRAME_BYTES as u64);
        if frames < 2 || bytes.len() as u64 != frames * TABLE_ENTRY_BYTES as u64 {
            return None;
        }
        let entries = bytes
            .chunks_exact(TABLE_ENTRY_BYTES)
            .map(|entry| {
                let (stored, cv) = entry.split_at(4);
                let stored = u32::from_le_bytes(stored.try_into().expect("four bytes"));
                (stored, cv.try_into().expect("32 bytes"))
            })
            .collect();
        Some(Table { entries, plain_len })
    }

    /// Whether the CVs make up this id: then every frame that matches its CV is part of that blob.
    pub(crate) fn proves(&self, id: &BlobId) -> bool {
        let cvs: Vec<ChainingValue> = self.entries.iter().map(|entry| entry.1).collect();
        root_of(&cvs, self.plain_len) == *id
    }

    pub(crate) fn frames(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn stored_len(&self, index: usize) -> usize {
        (self.entries[index].0 & !ZSTD_BIT) as usize
    }

    pub(crate) fn zstd(&self, index: usize) -> bool {
        self.entries[index].0 & ZSTD_BIT != 0
    }

    pub(crate) fn plain_len(&self, index: usize) -> usize {
        let start = index as u64 * FRAME_BYTES as u64;
        usize::try_from((self.plain_len - start).min(FRAME_BYTES as u64)).expect("at most a frame")
    }

    /// Whether these plain bytes are the frame.
    pub(crate) fn matches(&self, index: usize, plain: &[u8]) -> bool {
        frame_cv(plain, index as u64 * FRAME_BYTES as u64) == self.entries[index].1
    }
}

/// The stored form of a frame where compression saves at least a tenth.
pub(crate) fn compress(plain: &[u8], compression: Compression) -> Option<Vec<u8>> {
    thread_local! {
        // Setting up a compressor costs more than compressing a small frame.
        static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    }
    /// Below this zstd's own header eats what it saves.
    const PLAIN_BYTES_MIN: usize = 64;
    let Compression(level) = compression;
    if level == 0 || plain.len() < PLAIN_BYTES_MIN || looks_random(plain) {
        return None;
    }
    let limit = plain.len() - plain.len().div_ceil(10);
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(at, _)| *at != level) {
            *slot = Compressor::new(level).ok().map(|compressor| (level, compressor));
        }
        let (_, compressor) = slot.as_mut()?;
        let mut stored = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, &mut stored).ok()?;
        (stored.len() <= limit).then(|| {
            stored.shrink_to_fit();
            stored
        })
    })
}

/// Whether a sample of the bytes is spread so evenly that compressing is not worth trying: photos, videos,
/// archives, encrypted data. A wrong guess costs space or time, never correctness.
fn looks_random(plain: &[u8]) -> bool {
    /// Enough for the estimate to be steady: 16 expected hits for each byte value.
    const SAMPLE_BYTES: usize = 4096;
    if plain.len() < SAMPLE_BYTES {
        return false;
    }
    // Four runs over the whole, so that a random header or a text header decides nothing by itself.
    let run = SAMPLE_BYTES / 4;
    let step = (plain.len() - run) / 3;
    let mut counts = [0_u32; 256];
    for start in [0, step, 2 * step, 3 * step] {
        for &byte in &plain[start..start + run] {
            counts[usize::from(byte)] += 1;
        }
    }
    // The collision count of even bytes is n(n-1)/256 = 65,520, spread by about 360; text has five times
    // that, and already a saving of a tenth wants some 1.5 times.
    let collisions: u64 = counts
        .iter()
        .map(|&n| u64::from(n) * u64::from(n.saturating_sub(1)))
        .sum();
    collisions < 69_000
}

/// Restores a frame of `plain_len` bytes into `out`, which is cleared; `None` where the stored bytes can't be one.
pub(crate) fn decode_frame(stored: &[u8], zstd: bool, plain_len: usize, out: &mut Vec<u8>) -> Option<()> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    out.clear();
    if plain_len > FRAME_BYTES {
        return None;
    }
    if !zstd {
        out.extend_from_slice(stored);
        return (stored.len() == plain_len).then_some(());
    }
    out.reserve_exact(plain_len);
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        // Never writes more than the capacity that was reserved, whatever the frame's header claims.
        slot.as_mut()?.decompress_to_buffer(stored, out).ok()
    })?;
    (out.len() == plain_len).then_some(())
}

fn frame_cv(plain: &[u8], offset: u64) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(plain);
    hasher.finalize_non_root()
}

/// The digest of a blob of `len` bytes with these frame CVs, at least two.
fn root_of(cvs: &[ChainingValue], len: u64) -> BlobId {
    let (left, right) = halves(cvs, len);
    BlobId::from_bytes(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

fn halves(cvs: &[ChainingValue], len: u64) -> (ChainingValue, ChainingValue) {
    let left_len = left_subtree_len(len);
    let split = usize::try_from(left_len / FRAME_BYTES as u64).expect("no more frames than entries");
    (
        subtree(&cvs[..split], left_len),
        subtree(&cvs[split..], len - left_len),
    )
}

fn subtree(cvs: &[ChainingValue], len: u64) -> ChainingValue {
    if let [cv] = cvs {
        return *cv;
    }
    let (left, right) = halves(cvs, len);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn ids_agree_with_blake3_at_every_edge_and_bodies_give_the_plain_bytes_back() {
        for len in [
            0,
            1,
            63,
            64,
            FRAME_BYTES - 1,
            FRAME_BYTES,
            FRAME_BYTES + 1,
            3 * FRAME_BYTES,
            PACKED_BYTES_MAX,
        ] {
            for plain in [noise(len), vec![b'x'; len]] {
                let packed = Packed::new(plain.clone().into(), Class::Part, Compression::default());
                assert_eq!(packed.id(), BlobId::of(&plain), "{len}");
                assert_eq!(packed.plain(), plain, "{len}");
            }
        }
    }

    #[test]
    fn noise_is_stored_as_it_is_and_text_is_not() {
        let noisy = Packed::new(noise(100_000).into(), Class::Part, Compression::default());
        assert_eq!(noisy.stored_len(), 100_000);
        let text = Packed::new(
            b"all work and no play ".repeat(500).into(),
            Class::Part,
            Compression::default(),
        );
        assert!(text.stored_len() < 1000);
    }

    #[test]
    fn a_table_proves_its_blob_and_no_other_frame_passes() {
        let plain = noise(FRAME_BYTES * 2 + 5);
        let packed = Packed::new(plain.clone().into(), Class::Part, Compression::OFF);
        let at = packed.body.bytes.len() - 3 * TABLE_ENTRY_BYTES;
        let table = Table::parse(&packed.body.bytes[at..], plain.len() as u64).unwrap();
        assert!(table.proves(&packed.id()));
        assert!(!table.proves(&BlobId::of(b"other")));
        assert!(table.matches(1, &plain[FRAME_BYTES..2 * FRAME_BYTES]));
        assert!(!table.matches(0, &plain[FRAME_BYTES..2 * FRAME_BYTES]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn noise_where_a_frame_should_be_is_refused_not_a_panic(
            stored in proptest::collection::vec(any::<u8>(), 0..300), zstd: bool, len in 0..1000_usize,
        ) {
            let mut out = Vec::new();
            if decode_frame(&stored, zstd, len, &mut out).is_some() {
                prop_assert_eq!(out.len(), len);
            }
            let _ = Table::parse(&stored, len as u64 * 3000);
        }
    }
}
