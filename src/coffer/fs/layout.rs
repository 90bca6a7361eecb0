//! Which file is what: the names below the folder, and back.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::coffer::backend::Class;
use crate::id::{BlobId, Sha256Id};

pub(super) const MARKER: &str = "refuge-fs";
pub(super) const BLOBS: &str = "blobs";
pub(super) const ALIASES: &str = "aliases";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const NEW: &str = "new";

const PART_SUFFIX: &str = ".part";
const TABLE_SUFFIX: &str = ".table";

/// One of the folders that hold blobs, in the order of the ids they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaf(u16);

impl Leaf {
    /// How many there are: 16 below each of 256.
    pub(super) const COUNT: u16 = 4096;

    /// The folder of a blob.
    pub(super) fn of(id: &BlobId) -> Leaf {
        let [first, second, ..] = *id.as_bytes();
        Leaf(u16::from(first) << 4 | u16::from(second >> 4))
    }

    /// All from this one on.
    pub(super) fn and_above(self) -> impl Iterator<Item = Leaf> + Send + use<> {
        (self.0..Leaf::COUNT).map(Leaf)
    }

    /// All, so that each beginning of the sequence is spread evenly.
    pub(super) fn all_spread() -> impl Iterator<Item = Leaf> {
        // Counting with the 12 bits reversed.
        (0..Leaf::COUNT).map(|n| Leaf(n.reverse_bits() >> 4))
    }

    pub(super) const FIRST: Leaf = Leaf(0);

    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    /// Which of the 256 folders it is in.
    pub(super) fn first_byte(self) -> u8 {
        let [_, low] = (self.0 >> 4).to_be_bytes();
        low
    }

    pub(super) fn path(self, root: &Path) -> PathBuf {
        byte_path(root, self.first_byte()).join(format!("{:x}", self.0 & 0xf))
    }
}

/// The folder of all blobs whose id begins with a byte.
pub(super) fn byte_path(root: &Path, first: u8) -> PathBuf {
    root.join(BLOBS).join(format!("{first:02x}"))
}

pub(super) fn blob_path(root: &Path, id: &BlobId, class: Class) -> PathBuf {
    let suffix = match class {
        Class::Part => PART_SUFFIX,
        Class::Pinned => "",
    };
    Leaf::of(id).path(root).join(format!("{}{suffix}", id.hex()))
}

pub(super) fn table_path(root: &Path, id: &BlobId) -> PathBuf {
    Leaf::of(id)
        .path(root)
        .join(format!("{}{TABLE_SUFFIX}", id.hex()))
}

/// The folder of aliases that begin with the same byte as this one.
pub(super) fn alias_folder(root: &Path, first: u8) -> PathBuf {
    root.join(ALIASES).join(format!("{first:02x}"))
}

pub(super) fn alias_path(root: &Path, alias: &Sha256Id) -> PathBuf {
    alias_folder(root, alias.as_bytes()[0]).join(HEXLOWER.encode(alias.as_bytes()))
}

/// What a file in a folder of blobs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Blob(Class),
    Table,
}

/// What a file name in `leaf` stands for; `None` for a name that no store gives there.
pub(super) fn parse(leaf: Leaf, name: &OsStr) -> Option<(BlobId, Kind)> {
    let name = name.to_str()?;
    let (hex, kind) = match (name.strip_suffix(PART_SUFFIX), name.strip_suffix(TABLE_SUFFIX)) {
        (Some(hex), _) => (hex, Kind::Blob(Class::Part)),
        (None, Some(hex)) => (hex, Kind::Table),
        (None, None) => (name, Kind::Blob(Class::Pinned)),
    };
    let id = BlobId::from_bytes(digest(hex)?);
    (Leaf::of(&id) == leaf).then_some((id, kind))
}

/// Which alias a file name stands for.
pub(super) fn parse_alias(name: &OsStr) -> Option<Sha256Id> {
    digest(name.to_str()?).map(Sha256Id::from_bytes)
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_drawing_and_parse_back() {
        let id = BlobId::of(b"");
        let hex = id.hex();
        assert!(hex.starts_with("af13"));
        let root = Path::new("/srv");
        for (path, name, kind) in [
            (
                blob_path(root, &id, Class::Pinned),
                hex.clone(),
                Kind::Blob(Class::Pinned),
            ),
            (
                blob_path(root, &id, Class::Part),
                format!("{hex}.part"),
                Kind::Blob(Class::Part),
            ),
            (table_path(root, &id), format!("{hex}.table"), Kind::Table),
        ] {
            assert_eq!(path, Path::new("/srv/blobs/af/1").join(&name));
            assert_eq!(parse(Leaf::of(&id), OsStr::new(&name)), Some((id, kind)));
            assert_eq!(parse(Leaf::FIRST, OsStr::new(&name)), None, "in the wrong folder");
        }
        for foreign in ["", "x", &hex[1..], &hex.to_uppercase(), &format!("{hex}.tmp")] {
            assert_eq!(parse(Leaf::of(&id), OsStr::new(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn folders_are_in_the_order_of_ids_and_spread_visits_each_once() {
        let mut last = [0xff; 32];
        assert_eq!(Leaf::of(&BlobId::from_bytes(last)).index(), 4095);
        last[1] = 0x0f;
        assert_eq!(Leaf::of(&BlobId::from_bytes(last)).index(), 0xff0);
        let mut all: Vec<Leaf> = Leaf::all_spread().collect();
        assert_eq!(all[1].index(), 2048);
        all.sort_unstable();
        assert_eq!(all, Leaf::FIRST.and_above().collect::<Vec<_>>());
    }
}
