//! Names of disks: what the kernel calls one, what its maker wrote into it, what its file system is called. All of them come
//! from outside and end in paths, arguments and pages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::text_newtype;

/// What the kernel calls a disk, such as `sda`: until it is pulled, and then another may have it. 1 to 32 of `a-z 0-9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskName(String);

/// What a disk's maker wrote into it: 1 to 128 visible ASCII characters and spaces between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskSerial(String);

/// What the file system on a disk is called for life, as `8-4-4-4-12` lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskUuid(String);

/// The text names no disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// Not a name.
    #[error("a disk is named as the kernel does, for example sda")]
    Name,
    /// Not a serial.
    #[error("a serial is 1 to 128 plain characters")]
    Serial,
    /// Not a UUID.
    #[error("a file system's id is 32 hex digits as 8-4-4-4-12")]
    Uuid,
}

const NAME_BYTES_MAX: usize = 32;
const SERIAL_BYTES_MAX: usize = 128;
/// Digits of each group of a UUID.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

impl DiskName {
    /// The name as text; safe as one part of a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DiskSerial {
    /// The serial as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DiskUuid {
    /// The id as text; safe as one part of a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of 16 bytes, as they stand in a superblock.
    pub fn from_bytes(bytes: [u8; 16]) -> DiskUuid {
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        let mut rest = hex.as_str();
        let groups = GROUPS.map(|digits| {
            let (group, left) = rest.split_at(digits);
            rest = left;
            group
        });
        DiskUuid(groups.join("-"))
    }
}

impl FromStr for DiskName {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<DiskName, DiskError> {
        let is_plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        (is_plain && fits)
            .then(|| DiskName(text.to_owned()))
            .ok_or(DiskError::Name)
    }
}

impl FromStr for DiskSerial {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<DiskSerial, DiskError> {
        let is_plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let fits = (1..=SERIAL_BYTES_MAX).contains(&text.len()) && text.trim() == text;
        (is_plain && fits)
            .then(|| DiskSerial(text.to_owned()))
            .ok_or(DiskError::Serial)
    }
}

impl FromStr for DiskUuid {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<DiskUuid, DiskError> {
        let is_hex = |group: &str| group.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let groups: Vec<&str> = text.split('-').collect();
        let fits = groups.iter().map(|group| group.len()).eq(GROUPS);
        (fits && groups.iter().copied().all(is_hex))
            .then(|| DiskUuid(text.to_owned()))
            .ok_or(DiskError::Uuid)
    }
}

text_newtype!(DiskName);
text_newtype!(DiskSerial);
text_newtype!(DiskUuid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_a_path_or_a_line_is_refused() {
        for bad in [
            "", ".", "..", "sd a", "sda/..", "../sda", "SDA", "-sda", "sda\n", "sd\0",
        ] {
            assert!(bad.parse::<DiskName>().is_err(), "{bad:?}");
        }
        for bad in ["", " ", " x", "x ", "x\n", "é", "x\u{7f}"] {
            assert!(bad.parse::<DiskSerial>().is_err(), "{bad:?}");
        }
        let uuid = "0123abcd-0123-4567-89ab-0123456789ab";
        for bad in [
            "",
            "../..",
            &uuid.to_uppercase(),
            &uuid.replace('-', ""),
            &uuid[1..],
            "0123abcd-0123-4567-89ab-0123456789a/",
        ] {
            assert!(bad.parse::<DiskUuid>().is_err(), "{bad:?}");
        }
        assert_eq!(uuid.parse::<DiskUuid>().unwrap().as_str(), uuid);
        assert_eq!("nvme0n1".parse::<DiskName>().unwrap().as_str(), "nvme0n1");
        assert_eq!("WD-1 2".parse::<DiskSerial>().unwrap().as_str(), "WD-1 2");
    }

    #[test]
    fn a_uuid_of_bytes_reads_as_it_is_written() {
        let uuid = DiskUuid::from_bytes(*b"\x01\x23\xab\xcd\x01\x23\x45\x67\x89\xab\x01\x23\x45\x67\x89\xab");
        assert_eq!(uuid.as_str(), "0123abcd-0123-4567-89ab-0123456789ab");
        assert_eq!(uuid.as_str().parse(), Ok(uuid));
    }
}
