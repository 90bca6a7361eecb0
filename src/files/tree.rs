//! A `tree`: the blob that describes one folder.
//!
//! Two shapes, both canonical JSON (see `schema.rs`). A small folder is one *leaf*, its entries in
//! ascending order of their names' bytes:
//!
//! ```text
//! {"entries":[ENTRY,...],"refuge":"tree","version":1}
//! ```
//!
//! A large one is a *branch* over leaves, so that no folder makes an unbounded blob, and a folder of a
//! million files that gains one does not store the others again: leaves end where the hash of a name says so.
//!
//! ```text
//! {"leaves":["blake3;...",...],"refuge":"tree","version":1}
//! ```
//!
//! An entry:
//!
//! | field | for | what |
//! |---|---|---|
//! | `commit` | file, folder | the commit that says what does not fit here |
//! | `ctime` | file | when its inode last changed; left out where the file changed so lately that its times prove nothing |
//! | `dev` | file with several links | with `inode`, the group of names that are one file |
//! | `gid`, `uid` | all | owner, numbers |
//! | `inode` | file | for skipping what did not change |
//! | `mode` | all | permission bits, 0 to 4095 |
//! | `mtime` | all | seconds and nanoseconds |
//! | `name` or `name_hex` | all | 1 to 255 bytes without `/` and NUL, not `.` or `..` |
//! | `part` | file of one part | its bytes |
//! | `rdev` | char, block | major and minor number |
//! | `size` | file | length in bytes |
//! | `target` or `target_hex` | link | where it points, not resolved |
//! | `tree` | folder | the folder |
//! | `type` | all | `file`, `folder`, `link`, `fifo`, `char`, `block` |
//!
//! The worked example of both shapes is a test of `tree/wire.rs`.

mod walk;
mod wire;
mod writer;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

pub use super::schema::Time;
pub use walk::{Entries, entries, find};
pub(super) use wire::{Tree, decode};
pub(super) use writer::TreeWriter;

use crate::id::BlobId;

/// The longest name of an entry, in bytes: what Linux file systems take.
const NAME_BYTES_MAX: usize = 255;

/// The name of an entry in its folder: 1 to 255 bytes, no `/` and no NUL, not `.` or `..`. Any other byte
/// may occur: names need not be UTF-8. Orders by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// The name with these bytes; `None` where no file can have it.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Option<EntryName> {
        let bytes = bytes.into();
        let fits = (1..=NAME_BYTES_MAX).contains(&bytes.len())
            && &*bytes != b"."
            && &*bytes != b".."
            && !bytes.iter().any(|&byte| byte == b'/' || byte == 0);
        fits.then_some(EntryName(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the operating system takes it.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().fmt(f)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().display().fmt(f)
    }
}

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: EntryName,
    /// What everything has.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// What everything in a folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last written.
    pub mtime: Time,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Its bytes.
        body: Body,
        /// What it is recognised by.
        seen: Seen,
    },
    /// A folder.
    Folder {
        /// Its tree.
        tree: BlobId,
        /// The commit with its extended attributes, where it has some.
        commit: Option<BlobId>,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as stored: never resolved.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    Char(Device),
    /// A block device.
    Block(Device),
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It has none.
    Empty,
    /// In one part.
    Part(BlobId),
    /// As the commit says.
    Commit(BlobId),
}

/// By what a later backup recognises that a file did not change, beside its size and mtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its inode.
    pub inode: u64,
    /// When its inode last changed; `None` where it must be read again next time.
    pub ctime: Option<Time>,
    /// Its device where it has several names: with the inode, the group of names that are one file.
    pub dev: Option<u64>,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u64,
    /// The device of that driver.
    pub minor: u64,
}
