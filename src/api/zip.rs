//! The ZIP format as it is streamed: stored entries, sizes after the bytes, 64-bit where needed, pure.
//!
//! Layout of an archive (PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5):
//!
//! ```text
//! for each entry:   local header | name | [zip64 extra]     bytes     data descriptor
//! then:             central header | name | [zip64 extra] | unix mode in the external attributes   (each entry)
//!                   [zip64 end record | zip64 locator]     end record
//! ```
//!
//! Nothing is compressed: what compresses well is already small on the node's disk, and a small processor has
//! better things to do. Checksums come after the bytes, so no file is read twice.

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// A file with its bytes.
    File,
    /// A folder; its name ends with a slash.
    Folder,
    /// A link; its bytes are where it points.
    Link,
}

/// One entry, as known before its bytes were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The path, with `/` between its parts and at the end of a folder's.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) kind: EntryKind,
    /// Length in bytes.
    pub(super) len: u64,
    /// Permission bits.
    pub(super) mode: u32,
    /// Modification time, seconds since 1970.
    pub(super) modified: i64,
}

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const DESCRIPTOR_SIGNATURE: u32 = 0x0807_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR64_SIGNATURE: u32 = 0x0706_4b50;

/// Version 4.5 of the format: the first with 64-bit sizes.
const VERSION: u16 = 45;

/// Made by: the same version, on Unix, so that the modes are read.
const MADE_BY: u16 = 3 << 8 | VERSION;

/// Bit 3: sizes and checksum come after the bytes. Bit 11: the name is UTF-8.
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

/// The value that says "look in the zip64 extra".
const MOVED: u32 = u32::MAX;

/// Extra fields: 64-bit sizes (4.5.3), and the modification time in seconds.
const EXTRA_ZIP64: u16 = 0x0001;
const EXTRA_TIME: u16 = 0x5455;

impl Entry {
    /// What comes before the bytes.
    pub(super) fn local_header(&self) -> Vec<u8> {
        let (time, date) = dos_time(self.modified);
        let mut extra = self.time_extra();
        if self.is_large() {
            // The sizes are in the descriptor; the field being there says that they have 64 bits.
            put16(&mut extra, EXTRA_ZIP64);
            put16(&mut extra, 16);
            extra.extend_from_slice(&[0; 16]);
        }
        let mut out = Vec::with_capacity(30 + self.name.len() + extra.len());
        put32(&mut out, LOCAL_SIGNATURE);
        put16(&mut out, VERSION);
        put16(&mut out, self.flags());
        put16(&mut out, 0);
        put16(&mut out, time);
        put16(&mut out, date);
        put32(&mut out, 0);
        let size = if self.is_large() { MOVED } else { 0 };
        put32(&mut out, size);
        put32(&mut out, size);
        put16(&mut out, len16(&self.name));
        put16(&mut out, len16(&extra));
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&extra);
        out
    }

    /// What comes after the bytes; nothing for a folder.
    pub(super) fn descriptor(&self, crc: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        if self.kind == EntryKind::Folder {
            return out;
        }
        put32(&mut out, DESCRIPTOR_SIGNATURE);
        put32(&mut out, crc);
        match u32::try_from(self.len) {
            Ok(len) if !self.is_large() => {
                put32(&mut out, len);
                put32(&mut out, len);
            }
            Ok(_) | Err(_) => {
                put64(&mut out, self.len);
                put64(&mut out, self.len);
            }
        }
        out
    }

    /// The entry in the directory at the end; `offset` is where its local header begins.
    pub(super) fn central_header(&self, crc: u32, offset: u64) -> Vec<u8> {
        let (time, date) = dos_time(self.modified);
        let small_len = u32::try_from(self.len).ok().filter(|_| !self.is_large());
        let small_offset = u32::try_from(offset).ok().filter(|offset| *offset != MOVED);
        let mut wide = Vec::new();
        if small_len.is_none() {
            put64(&mut wide, self.len);
            put64(&mut wide, self.len);
        }
        if small_offset.is_none() {
            put64(&mut wide, offset);
        }
        let mut extra = self.time_extra();
        if !wide.is_empty() {
            put16(&mut extra, EXTRA_ZIP64);
            put16(&mut extra, len16(&wide));
            extra.extend_from_slice(&wide);
        }
        let mut out = Vec::with_capacity(46 + self.name.len() + extra.len());
        put32(&mut out, CENTRAL_SIGNATURE);
        put16(&mut out, MADE_BY);
        put16(&mut out, VERSION);
        put16(&mut out, self.flags());
        put16(&mut out, 0);
        put16(&mut out, time);
        put16(&mut out, date);
        put32(&mut out, crc);
        put32(&mut out, small_len.unwrap_or(MOVED));
        put32(&mut out, small_len.unwrap_or(MOVED));
        put16(&mut out, len16(&self.name));
        put16(&mut out, len16(&extra));
        put16(&mut out, 0);
        put16(&mut out, 0);
        put16(&mut out, 0);
        put32(&mut out, self.attributes());
        put32(&mut out, small_offset.unwrap_or(MOVED));
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&extra);
        out
    }

    /// Bytes of the whole entry before the directory: header, bytes and descriptor.
    pub(super) fn span(&self) -> u64 {
        self.local_header().len() as u64 + self.len + self.descriptor(0).len() as u64
    }

    fn is_large(&self) -> bool {
        self.len >= u64::from(MOVED)
    }

    fn flags(&self) -> u16 {
        let descriptor = if self.kind == EntryKind::Folder {
            0
        } else {
            FLAG_DESCRIPTOR
        };
        let utf8 = if std::str::from_utf8(&self.name).is_ok() {
            FLAG_UTF8
        } else {
            0
        };
        descriptor | utf8
    }

    fn attributes(&self) -> u32 {
        let kind: u32 = match self.kind {
            EntryKind::File => 0o100_000,
            EntryKind::Folder => 0o040_000,
            EntryKind::Link => 0o120_000,
        };
        let dos = if self.kind == EntryKind::Folder { 0x10 } else { 0 };
        (kind | self.mode & 0o777) << 16 | dos
    }

    /// The time in seconds where it fits: the field of the header counts in twos, in no time zone.
    fn time_extra(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if let Ok(seconds) = i32::try_from(self.modified) {
            put16(&mut extra, EXTRA_TIME);
            put16(&mut extra, 5);
            extra.push(1);
            extra.extend_from_slice(&seconds.to_le_bytes());
        }
        extra
    }
}

/// The end of the archive: `entries` of them, their directory of `len` bytes beginning at `offset`.
pub(super) fn end(entries: u64, offset: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let small_entries = u16::try_from(entries).ok().filter(|entries| *entries != u16::MAX);
    let small_offset = u32::try_from(offset).ok().filter(|offset| *offset != MOVED);
    let small_len = u32::try_from(len).ok().filter(|len| *len != MOVED);
    if small_entries.is_none() || small_offset.is_none() || small_len.is_none() {
        put32(&mut out, END64_SIGNATURE);
        put64(&mut out, 44);
        put16(&mut out, MADE_BY);
        put16(&mut out, VERSION);
        put32(&mut out, 0);
        put32(&mut out, 0);
        put64(&mut out, entries);
        put64(&mut out, entries);
        put64(&mut out, len);
        put64(&mut out, offset);
        put32(&mut out, LOCATOR64_SIGNATURE);
        put32(&mut out, 0);
        put64(&mut out, offset + len);
        put32(&mut out, 1);
    }
    put32(&mut out, END_SIGNATURE);
    put16(&mut out, 0);
    put16(&mut out, 0);
    put16(&mut out, small_entries.unwrap_or(u16::MAX));
    put16(&mut out, small_entries.unwrap_or(u16::MAX));
    put32(&mut out, small_len.unwrap_or(MOVED));
    put32(&mut out, small_offset.unwrap_or(MOVED));
    put16(&mut out, 0);
    out
}

/// Time and date as MS-DOS counted them, from 1980 to 2107, here in UTC.
fn dos_time(seconds: i64) -> (u16, u16) {
    const EPOCH: (u16, u16) = (0, 1 << 5 | 1);
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(seconds) else {
        return EPOCH;
    };
    let Some(year) = u16::try_from(at.year() - 1980).ok().filter(|year| *year < 128) else {
        return EPOCH;
    };
    let time = u16::from(at.hour()) << 11 | u16::from(at.minute()) << 5 | u16::from(at.second() / 2);
    let date = year << 9 | u16::from(u8::from(at.month())) << 5 | u16::from(at.day());
    (time, date)
}

/// Names and extras are cut from paths of at most 4 KiB.
fn len16(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("no path of a tree has 64 KiB")
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Read};

    fn entry(name: &str, kind: EntryKind, len: u64) -> Entry {
        Entry {
            name: name.as_bytes().to_vec(),
            kind,
            len,
            mode: 0o640,
            modified: 1_700_000_000,
        }
    }

    fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (entry, bytes) in entries {
            let (crc, offset) = (crc32fast::hash(bytes), out.len() as u64);
            out.extend(entry.local_header());
            out.extend_from_slice(bytes);
            out.extend(entry.descriptor(crc));
            assert_eq!(out.len() as u64 - offset, entry.span());
            directory.extend(entry.central_header(crc, offset));
        }
        let offset = out.len() as u64;
        out.extend_from_slice(&directory);
        out.extend(end(entries.len() as u64, offset, directory.len() as u64));
        out
    }

    #[test]
    fn another_implementation_reads_what_we_write() {
        let bytes = archive(&[
            (entry("folder/", EntryKind::Folder, 0), b""),
            (entry("folder/é.txt", EntryKind::File, 5), b"hello"),
            (entry("link", EntryKind::Link, 6), b"folder"),
        ]);
        let mut read = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        assert_eq!(read.len(), 3);
        assert!(read.by_index(0).unwrap().is_dir());
        let mut file = read.by_name("folder/é.txt").unwrap();
        assert_eq!(file.unix_mode(), Some(0o100_640));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(file);
        assert!(read.by_name("link").unwrap().is_symlink());
    }

    #[test]
    fn more_entries_than_16_bits_hold_are_all_there() {
        let entries: Vec<_> = (0..70_000)
            .map(|n| (entry(&n.to_string(), EntryKind::File, 0), &b""[..]))
            .collect();
        let read = zip::ZipArchive::new(Cursor::new(archive(&entries))).unwrap();
        assert_eq!(read.len(), 70_000);
    }

    #[test]
    fn sizes_and_offsets_above_32_bits_go_to_the_extra_field() {
        let large = entry("x", EntryKind::File, 5 << 30);
        assert_eq!(large.descriptor(7).len(), 24);
        let central = large.central_header(7, 6 << 30);
        assert_eq!(&central[20..28], &[0xff; 8]);
        let extra = &central[46 + 1 + 9..];
        assert_eq!(&extra[..4], &[1, 0, 24, 0]);
        assert_eq!(&extra[4..12], &(5_u64 << 30).to_le_bytes());
        assert_eq!(&extra[20..28], &(6_u64 << 30).to_le_bytes());
    }
}
