//! What a bundle is made of: which system is in it, and the parts that its bytes were cut into. Pure.
//!
//! Kept beside the bundle, and what one box tells another of it:
//!
//! ```text
//! {"format":1,"version":"0.2.0","compatible":"refuge-qemu-arm","size_bytes":7,"blob":"blake3;…",
//!  "parts":[{"id":"blake3;…","size_bytes":7}]}
//! ```
//!
//! Nothing in it is believed: parts are verified by their ids, the whole by its own, and who made the bundle by its signature.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::files::PartSizes;
use crate::id::{BlobId, Version};

/// The longest bundle: a slot holds less.
pub const BUNDLE_BYTES_MAX: u64 = 224 * 1024 * 1024;

/// The parts of bundles. Packed blocks of a root file system are a few hundred KiB, and a change touches one here and there: parts of
/// backups would bring ten times as much over as changed.
pub(super) const PART_SIZES: PartSizes = PartSizes {
    min: 16 * 1024,
    average: 64 * 1024,
    max: 256 * 1024,
};

/// The longest part, in bytes.
pub const BUNDLE_PART_BYTES_MAX: u64 = 256 * 1024;

/// The longest manifest, in bytes: as many parts as a bundle can have are less.
pub const BUNDLE_MANIFEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A bundle of the shortest parts, and the last.
const PARTS_MAX: usize = 14_337;

/// The longest name of a kind of box.
const COMPATIBLE_BYTES_MAX: usize = 128;

/// What a bundle is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    format: u32,
    /// What it makes of a box.
    pub version: Version,
    /// Of which boxes.
    pub compatible: String,
    /// How long it is.
    pub size_bytes: u64,
    /// All of its bytes.
    pub blob: BlobId,
    /// Those bytes in order.
    pub parts: Vec<BundlePart>,
}

/// Some of a bundle's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundlePart {
    /// Their digest.
    pub id: BlobId,
    /// How many.
    pub size_bytes: u64,
}

/// The bytes are no manifest that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no list of a bundle's parts")]
pub struct ManifestError;

/// Where each part is in the bundle: its first byte and how many.
pub(super) type Places = HashMap<BlobId, (u64, u64)>;

impl BundleManifest {
    /// The format that is written and read.
    pub const FORMAT: u32 = 1;

    /// Of parts that were cut.
    pub(super) fn new(
        version: Version,
        compatible: String,
        blob: BlobId,
        parts: Vec<BundlePart>,
    ) -> BundleManifest {
        BundleManifest {
            format: BundleManifest::FORMAT,
            version,
            compatible,
            size_bytes: parts.iter().map(|part| part.size_bytes).sum(),
            blob,
            parts,
        }
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// [`ManifestError`] for all that does not add up, or is larger than it may be.
    pub fn parse(bytes: &[u8]) -> Result<BundleManifest, ManifestError> {
        if bytes.len() > BUNDLE_MANIFEST_BYTES_MAX {
            return Err(ManifestError);
        }
        let manifest: BundleManifest = serde_json::from_slice(bytes).map_err(|_| ManifestError)?;
        let fits = |part: &BundlePart| (1..=BUNDLE_PART_BYTES_MAX).contains(&part.size_bytes);
        let is_plain = manifest.compatible.bytes().all(|b| b.is_ascii_graphic());
        let is_right = manifest.format == BundleManifest::FORMAT
            && is_plain
            && manifest.compatible.len() <= COMPATIBLE_BYTES_MAX
            && manifest.parts.len() <= PARTS_MAX
            && manifest.parts.iter().all(fits)
            && manifest.size_bytes <= BUNDLE_BYTES_MAX
            && manifest.parts.iter().map(|part| part.size_bytes).sum::<u64>() == manifest.size_bytes;
        is_right.then_some(manifest).ok_or(ManifestError)
    }

    /// The JSON.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is plain fields")
    }

    pub(super) fn places(&self) -> Places {
        let mut at = 0;
        let places = self.parts.iter().map(|part| {
            let place = (at, part.size_bytes);
            at += part.size_bytes;
            (part.id, place)
        });
        places.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> BundleManifest {
        let id = BlobId::of(b"example");
        BundleManifest::new(
            "0.2.0".parse().unwrap(),
            "refuge-qemu-arm".to_owned(),
            id,
            vec![BundlePart { id, size_bytes: 7 }],
        )
    }

    #[test]
    fn a_manifest_is_as_drawn() {
        let id = BlobId::of(b"example");
        let drawn = format!(
            "{{\"format\":1,\"version\":\"0.2.0\",\"compatible\":\"refuge-qemu-arm\",\"size_bytes\":7,\"blob\":\"{id}\",\
             \"parts\":[{{\"id\":\"{id}\",\"size_bytes\":7}}]}}"
        );
        assert_eq!(String::from_utf8(example().bytes()).unwrap(), drawn);
        assert_eq!(BundleManifest::parse(drawn.as_bytes()), Ok(example()));
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let text = String::from_utf8(example().bytes()).unwrap();
        let many = "0".repeat(BUNDLE_MANIFEST_BYTES_MAX);
        for (from, to) in [
            ("\"size_bytes\":7,\"blob\"", "\"size_bytes\":8,\"blob\""),
            ("\"size_bytes\":7}]", "\"size_bytes\":0}]"),
            ("\"size_bytes\":7}]", "\"size_bytes\":18446744073709551615}]"),
            ("\"format\":1", "\"format\":2"),
            ("0.2.0", "new"),
            ("refuge-qemu-arm", "a b"),
            ("refuge-qemu-arm", &many),
            ("{\"format\"", "{\"more\":1,\"format\""),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert_ne!(wrong, text);
            assert_eq!(
                BundleManifest::parse(wrong.as_bytes()),
                Err(ManifestError),
                "{from}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = BundleManifest::parse(&bytes);
        }
    }
}
