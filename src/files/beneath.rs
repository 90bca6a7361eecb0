//! Reaching into a folder without ever leaving it: every step of a path is opened by itself, relative to the
//! step before, and no link is followed. Whoever swaps a folder for a link meanwhile gets an error, not
//! our bytes. Paths may be longer than one system call takes.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

use super::tree::{Device, EntryName, Meta, Time};

const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// What the operating system knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) kind: FileKind,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) ctime: Time,
    pub(super) inode: u64,
    pub(super) dev: u64,
    pub(super) links: u64,
    /// Bytes that take room on the disk; less than `size` where there are holes.
    pub(super) allocated: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    File,
    Folder,
    Link,
    Fifo,
    Socket,
    Char(Device),
    Block(Device),
}

impl Status {
    /// Whether nothing about the file's bytes changed between the two.
    pub(super) fn is_same_content(&self, other: &Status) -> bool {
        self.kind == other.kind
            && (self.size, self.meta.mtime, self.ctime) == (other.size, other.meta.mtime, other.ctime)
            && (self.inode, self.dev) == (other.inode, other.dev)
    }
}

/// Opens the folder at `path` below `root`; the empty path is `root` itself.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` where a step is a link; as `openat` else.
pub(super) fn open_folder(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut folder: Option<OwnedFd> = None;
    for component in path.components() {
        let Component::Normal(step) = component else {
            return Err(Errno::EINVAL);
        };
        folder = Some(match &folder {
            Some(folder) => openat(folder, step, FOLDER, Mode::empty())?,
            None => openat(&root, step, FOLDER, Mode::empty())?,
        });
    }
    match folder {
        Some(folder) => Ok(folder),
        None => openat(&root, ".", FOLDER, Mode::empty()),
    }
}

/// Opens a file of a folder for reading, without waiting for the other end of a pipe.
///
/// # Errors
/// `ELOOP` where it is a link; as `openat` else.
pub(super) fn open_file(folder: impl AsFd, name: &EntryName) -> Result<File, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    openat(folder, name.as_os_str(), flags, Mode::empty()).map(File::from)
}

/// The names in a folder, sorted by their bytes.
///
/// # Errors
/// As `readdir`.
pub(super) fn names(folder: OwnedFd) -> Result<Vec<EntryName>, Errno> {
    let mut names = Vec::new();
    let mut dir = Dir::from_fd(folder)?;
    for entry in dir.iter() {
        // Only `.` and `..` are no entry names.
        names.extend(EntryName::new(entry?.file_name().to_bytes()));
    }
    names.sort_unstable();
    Ok(names)
}

/// What is known of an entry of a folder; a link is looked at, not followed.
///
/// # Errors
/// As `fstatat`.
pub(super) fn status_at(folder: impl AsFd, name: &EntryName) -> Result<Status, Errno> {
    fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map(read_status)
}

/// What is known of an open file.
///
/// # Errors
/// As `fstat`.
pub(super) fn status_of(file: impl AsFd) -> Result<Status, Errno> {
    fstat(file).map(read_status)
}

fn read_status(stat: FileStat) -> Status {
    let device = || Device {
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
    };
    let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => FileKind::Folder,
        SFlag::S_IFLNK => FileKind::Link,
        SFlag::S_IFIFO => FileKind::Fifo,
        SFlag::S_IFSOCK => FileKind::Socket,
        SFlag::S_IFCHR => FileKind::Char(device()),
        SFlag::S_IFBLK => FileKind::Block(device()),
        _ => FileKind::File,
    };
    Status {
        kind,
        meta: Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        },
        size: unsigned(stat.st_size),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        inode: unsigned(stat.st_ino),
        dev: unsigned(stat.st_dev),
        links: unsigned(stat.st_nlink),
        allocated: unsigned(stat.st_blocks).saturating_mul(512),
    }
}

/// The types of these fields differ from one architecture to the next.
fn time(seconds: impl Into<i64>, nanos: impl TryInto<u32>) -> Time {
    Time(seconds.into(), nanos.try_into().unwrap_or(0))
}

fn unsigned(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(0)
}

/// A name below a folder's path.
pub(super) fn join(folder: &Path, name: &EntryName) -> std::path::PathBuf {
    folder.join(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_step_of_a_path_follows_a_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(open_folder(&root, Path::new("a/b")).is_ok());
        assert!(open_folder(&root, Path::new("")).is_ok());
        for bad in ["link", "link/b", "..", "a/../a", "/"] {
            assert!(open_folder(&root, Path::new(bad)).is_err(), "{bad}");
        }
        let link = EntryName::new(*b"link").unwrap();
        assert_eq!(status_at(&root, &link).unwrap().kind, FileKind::Link);
        assert_eq!(open_file(&root, &link).unwrap_err(), Errno::ELOOP);
        assert_eq!(
            names(root.into()).unwrap(),
            [EntryName::new(*b"a").unwrap(), link]
        );
    }
}
