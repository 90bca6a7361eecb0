//! What is on a disk: file systems, partition tables and the like, told by the bytes at its beginning.
//!
//! Pure. What is not known is not empty: only zeros are. A wrong guess does no harm, as nothing is formatted without its
//! owner's word; the name is there so that they know what they would lose.
//!
//! A disk of ours is one ext4 file system without a partition table, labelled [`LABEL`]:
//!
//! ```text
//! byte 1024   superblock (kernel documentation, filesystems/ext4/super)
//!      1080     56   magic, 0xEF53, little-endian
//!      1128    104   UUID, 16 bytes
//!      1144    120   label, 16 bytes, ends with zeros
//! ```

use crate::id::DiskUuid;

/// The label of a disk of ours.
pub(in crate::board) const LABEL: &str = "refuge-disk";

/// Bytes from the beginning of a device that hold everything that is looked for.
pub(in crate::board) const HEAD_BYTES: usize = 72 * 1024;

const EXT_MAGIC: usize = 1080;
const EXT_UUID: usize = 1128;
const EXT_LABEL: usize = 1144;
const EXT_LABEL_BYTES: usize = 16;

/// What a device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::board) enum Content {
    /// Zeros.
    Nothing,
    /// A disk of ours.
    Refuge(DiskUuid),
    /// Something else, in words: `ntfs "Photos"`.
    Foreign(String),
}

/// A file system of others that bundles are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::board) struct FileSystem {
    /// What the kernel calls it.
    pub(in crate::board) name: &'static str,
    /// What its driver is told besides.
    pub(in crate::board) options: Option<&'static str>,
}

impl FileSystem {
    /// Its journal is not played back: that would write.
    pub(in crate::board) const EXT4: FileSystem = FileSystem {
        name: "ext4",
        options: Some("noload"),
    };
    const FAT: FileSystem = FileSystem {
        name: "vfat",
        options: None,
    };
    const EXFAT: FileSystem = FileSystem {
        name: "exfat",
        options: None,
    };
}

/// What is told by a few bytes at one place.
struct Mark {
    at: usize,
    bytes: &'static [u8],
    name: &'static str,
    /// Where its label is, and how long that is.
    label: Option<(usize, usize)>,
}

const fn mark(at: usize, bytes: &'static [u8], name: &'static str, label: Option<(usize, usize)>) -> Mark {
    Mark {
        at,
        bytes,
        name,
        label,
    }
}

/// In the order in which they are looked for: a partition table comes last, as file systems leave room for one.
const MARKS: [Mark; 20] = [
    mark(EXT_MAGIC, b"\x53\xef", "ext4", Some((EXT_LABEL, EXT_LABEL_BYTES))),
    mark(0, b"XFSB", "xfs", Some((108, 12))),
    mark(0x1_0040, b"_BHRfS_M", "btrfs", Some((0x1_012b, 64))),
    mark(3, b"NTFS    ", "ntfs", None),
    mark(3, b"EXFAT   ", "exfat", None),
    mark(82, b"FAT32   ", "fat", Some((71, 11))),
    mark(54, b"FAT1", "fat", Some((43, 11))),
    mark(1024, b"\x10\x20\xf5\xf2", "f2fs", None),
    mark(1024, b"H+", "hfs+", None),
    mark(1024, b"HX", "hfs+", None),
    mark(32, b"NXSB", "apfs", None),
    mark(0, b"hsqs", "squashfs", None),
    mark(32_769, b"CD001", "iso9660", Some((32_808, 32))),
    mark(0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)", None),
    mark(3, b"-FVE-FS-", "an encrypted volume (BitLocker)", None),
    mark(512, b"LABELONE", "a part of a volume group (LVM)", None),
    mark(4096, b"\xfc\x4e\x2b\xa9", "a part of an array (md)", None),
    mark(4086, b"SWAPSPACE2", "swap", None),
    mark(512, b"EFI PART", "a partition table (GPT)", None),
    mark(510, b"\x55\xaa", "a partition table (MBR)", None),
];

/// The file system that begins with `head`, where it is one of others that can be read.
pub(in crate::board) fn file_system(head: &[u8]) -> Option<FileSystem> {
    let Content::Foreign(_) = content(head) else {
        return None;
    };
    match found(head)?.name {
        "ext4" => Some(FileSystem::EXT4),
        "fat" => Some(FileSystem::FAT),
        "exfat" => Some(FileSystem::EXFAT),
        _ => None,
    }
}

/// Tells what begins with `head`: [`HEAD_BYTES`] of a device, or fewer where it is smaller.
pub(in crate::board) fn content(head: &[u8]) -> Content {
    if head.iter().all(|byte| *byte == 0) {
        return Content::Nothing;
    }
    let Some(mark) = found(head) else {
        return Content::Foreign("something unknown".to_owned());
    };
    let label = mark
        .label
        .and_then(|(at, length)| bytes_at(head, at, length))
        .map(text_of)
        .filter(|label| !label.is_empty());
    let uuid = bytes_at(head, EXT_UUID, 16).and_then(|uuid| <[u8; 16]>::try_from(uuid).ok());
    match (mark.at, label, uuid) {
        (EXT_MAGIC, Some(label), Some(uuid)) if label == LABEL => Content::Refuge(DiskUuid::from_bytes(uuid)),
        (_, Some(label), _) => Content::Foreign(format!("{} \"{label}\"", mark.name)),
        (_, None, _) => Content::Foreign(mark.name.to_owned()),
    }
}

fn found(head: &[u8]) -> Option<&'static Mark> {
    MARKS
        .iter()
        .find(|mark| bytes_at(head, mark.at, mark.bytes.len()) == Some(mark.bytes))
}

fn bytes_at(head: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    head.get(at..at.checked_add(length)?)
}

/// A label as it can be shown: it is whatever somebody wrote there.
fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let plain = text.trim().chars().map(|c| if c.is_control() { '?' } else { c });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        for (at, bytes) in parts {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    fn foreign(name: &str) -> Content {
        Content::Foreign(name.to_owned())
    }

    #[test]
    fn what_others_wrote_is_named_with_its_label() {
        let told = |parts: &[(usize, &[u8])]| content(&head(parts));
        assert_eq!(told(&[]), Content::Nothing);
        assert_eq!(told(&[(70_000, b"x")]), foreign("something unknown"));
        assert_eq!(
            told(&[(82, b"FAT32   "), (71, b"HOLIDAYS   "), (510, b"\x55\xaa")]),
            foreign("fat \"HOLIDAYS\"")
        );
        assert_eq!(told(&[(3, b"NTFS    "), (510, b"\x55\xaa")]), foreign("ntfs"));
        assert_eq!(
            told(&[(EXT_MAGIC, b"\x53\xef"), (EXT_LABEL, b"root")]),
            foreign("ext4 \"root\"")
        );
        assert_eq!(
            told(&[(510, b"\x55\xaa"), (512, b"EFI PART")]),
            foreign("a partition table (GPT)")
        );
        assert_eq!(told(&[(510, b"\x55\xaa")]), foreign("a partition table (MBR)"));
        assert_eq!(content(&[1, 2, 3]), foreign("something unknown"));
    }

    #[test]
    fn a_disk_of_ours_is_told_by_its_label_and_has_its_uuid() {
        let ours = head(&[
            (EXT_MAGIC, b"\x53\xef"),
            (EXT_UUID, &[0x11; 16]),
            (EXT_LABEL, LABEL.as_bytes()),
        ]);
        let uuid = "11111111-1111-1111-1111-111111111111".parse().unwrap();
        assert_eq!(content(&ours), Content::Refuge(uuid));
    }

    #[test]
    fn a_label_is_shown_without_what_moves_a_terminal() {
        let hostile = head(&[(EXT_MAGIC, b"\x53\xef"), (EXT_LABEL, b"\x1b[2J\xff\x07")]);
        let Content::Foreign(name) = content(&hostile) else {
            panic!("it is no disk of ours");
        };
        assert!(!name.contains(char::is_control), "{name:?}");
    }

    #[test]
    fn of_others_three_can_be_read_and_ours_is_none_of_them() {
        let told = |parts: &[(usize, &[u8])]| file_system(&head(parts)).map(|found| found.name);
        assert_eq!(told(&[(82, b"FAT32   "), (510, b"\x55\xaa")]), Some("vfat"));
        assert_eq!(told(&[(54, b"FAT16   ")]), Some("vfat"));
        assert_eq!(told(&[(3, b"EXFAT   ")]), Some("exfat"));
        assert_eq!(told(&[(EXT_MAGIC, b"\x53\xef")]), Some("ext4"));
        let ours: &[(usize, &[u8])] = &[(EXT_MAGIC, b"\x53\xef"), (EXT_LABEL, LABEL.as_bytes())];
        assert_eq!(told(ours), None);
        assert_eq!(told(&[(3, b"NTFS    ")]), None);
        assert_eq!(told(&[(510, b"\x55\xaa")]), None);
        assert_eq!(told(&[]), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            file_system(&bytes);
            content(&bytes);
        }
    }
}
