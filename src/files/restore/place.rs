//! Names in the target: temporary files that appear whole, links and special files, and what each is given
//! beside its bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, symlinkat, unlinkat};
use xattr::FileExt;

use super::super::beneath::{FileKind, join, names, status_at};
use super::super::error::Error;
use super::super::progress::Trouble;
use super::super::tree::{Entry, EntryName, Kind, Meta, Time};
use super::folder::Folder;
use super::{Overwrite, Run, in_the_way};

/// What temporary names begin with; a number follows.
const TEMPORARY: &str = ".refuge-restore-";

/// Stands in a target that was empty until all in it is done, so that a restore that goes on after a kill
/// knows that the folder's own owner, mode and times are to be restored too.
pub(super) const MARK: &str = ".refuge-restore-target";

/// Setuid and setgid: not for a file whose owner is another than it was.
const SET_ID: u32 = 0o6000;

/// A file under a temporary name, gone again unless it is published.
pub(super) struct Temporary<'r> {
    folder: &'r OwnedFd,
    name: String,
    file: File,
    is_published: bool,
}

impl<'r> Temporary<'r> {
    pub(super) fn create(folder: &'r OwnedFd, name: String, path: &Path) -> Result<Temporary<'r>, Error> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = match create() {
            Err(Errno::EEXIST) => {
                unlinkat(folder, name.as_str(), UnlinkatFlags::NoRemoveDir)
                    .map_err(|errno| Error::io(path, errno))?;
                create()
            }
            created => created,
        };
        Ok(Temporary {
            folder,
            file: fd.map_err(|errno| Error::io(path, errno))?.into(),
            name,
            is_published: false,
        })
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            // Left behind at worst: the next restore into this folder removes it.
            let _ = unlinkat(self.folder, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Marks an empty target as this restore's own.
pub(super) fn mark(target: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(target, MARK, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(drop)
}

/// Whether a name in the target is that of the mark.
pub(super) fn is_mark(name: &EntryName) -> bool {
    name.as_os_str() == OsStr::new(MARK)
}

/// Removes what a restore that was killed left in a folder.
pub(super) fn remove_temporaries(folder: &OwnedFd) -> Result<(), Errno> {
    for name in names(folder.try_clone().map_err(|_| Errno::EMFILE)?)? {
        let number = name.as_bytes().strip_prefix(TEMPORARY.as_bytes());
        if number.is_some_and(|number| number.iter().all(u8::is_ascii_digit)) {
            unlinkat(folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(())
}

impl<'a> Run<'a> {
    /// A name nobody else uses in this restore.
    pub(super) fn temporary_name(&self) -> String {
        format!("{TEMPORARY}{}", self.temporary.fetch_add(1, Relaxed))
    }

    /// Removes the mark of the target, where there is one.
    pub(super) fn unmark(&self) -> Result<(), Errno> {
        if !self.is_marked {
            return Ok(());
        }
        match unlinkat(&self.root, MARK, UnlinkatFlags::NoRemoveDir) {
            Err(errno) if errno != Errno::ENOENT => Err(errno),
            _ => Ok(()),
        }
    }

    pub(super) fn is_ours(&self, folder: &Folder<'a>) -> bool {
        folder.is_ours.load(Relaxed)
    }

    /// Gives a whole file its name.
    pub(super) fn publish(
        &self,
        mut temporary: Temporary<'_>,
        name: &EntryName,
        folder: &Folder<'a>,
        path: &Path,
    ) -> Result<(), Error> {
        if !self.is_ours(folder) {
            self.make_way(temporary.folder, name, path)?;
        }
        let folder = temporary.folder;
        renameat(folder, temporary.name.as_str(), folder, name.as_os_str())
            .map_err(|errno| Error::io(path, errno))?;
        temporary.is_published = true;
        Ok(())
    }

    /// Refuses what must not be overwritten. A file or link that may be is left to `rename`.
    fn make_way(&self, fd: &OwnedFd, name: &EntryName, path: &Path) -> Result<(), Error> {
        match status_at(fd, name) {
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::io(path, errno)),
            Ok(there) if self.options.overwrite == Overwrite::Replace && there.kind != FileKind::Folder => {
                Ok(())
            }
            Ok(_) => Err(in_the_way(path)),
        }
    }

    /// Restores what has no bytes: a link, a pipe or a device.
    pub(super) fn restore_unreadable(
        &self,
        folder: &Arc<Folder<'a>>,
        fd: &OwnedFd,
        entry: &Entry,
    ) -> Result<(), Error> {
        let path = join(&folder.path, &entry.name);
        if !matches!(entry.kind, Kind::Link { .. }) && !self.options.specials {
            self.progress.problem(&path, Trouble::Special);
            return Ok(());
        }
        let done = self.make_unreadable(fd, entry, &path);
        self.report(&path, done)
    }

    fn make_unreadable(&self, fd: &OwnedFd, entry: &Entry, path: &Path) -> Result<(), Error> {
        let name = entry.name.as_os_str();
        let make = || match &entry.kind {
            Kind::Link { target } => symlinkat(OsStr::from_bytes(target), fd, name),
            Kind::Fifo => mknodat(fd, name, SFlag::S_IFIFO, Mode::empty(), 0),
            Kind::Char(device) => {
                let number = makedev(device.major, device.minor);
                mknodat(fd, name, SFlag::S_IFCHR, Mode::empty(), number)
            }
            Kind::Block(device) => {
                let number = makedev(device.major, device.minor);
                mknodat(fd, name, SFlag::S_IFBLK, Mode::empty(), number)
            }
            Kind::File { .. } | Kind::Folder { .. } => Err(Errno::EINVAL),
        };
        let made = match make() {
            Err(Errno::EEXIST) if self.is_same_link(fd, entry) => return Ok(()),
            Err(Errno::EEXIST) => {
                self.make_way(fd, &entry.name, path)?;
                unlinkat(fd, name, UnlinkatFlags::NoRemoveDir).and_then(|()| make())
            }
            made => made,
        };
        made.map_err(|errno| Error::io(path, errno))?;
        self.set_meta_at(fd, entry, path);
        Ok(())
    }

    fn is_same_link(&self, fd: &OwnedFd, entry: &Entry) -> bool {
        let Kind::Link { target } = &entry.kind else {
            return false;
        };
        self.options.overwrite == Overwrite::Resume
            && readlinkat(fd, entry.name.as_os_str()).is_ok_and(|there| there.into_vec() == *target)
    }

    /// Gives what has no descriptor its owner, mode and times.
    fn set_meta_at(&self, fd: &OwnedFd, entry: &Entry, path: &Path) {
        let (name, meta) = (entry.name.as_os_str(), &entry.meta);
        if self.options.owners {
            let (uid, gid) = owner(meta);
            let set = fchownat(fd, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW);
            self.note(set, "owner", path);
        }
        if !matches!(entry.kind, Kind::Link { .. }) {
            let set = fchmodat(fd, name, self.mode(meta), FchmodatFlags::FollowSymlink);
            self.note(set, "mode", path);
        }
        let (omit, mtime) = (TimeSpec::UTIME_OMIT, time_spec(meta.mtime));
        let set = utimensat(fd, name, &omit, &mtime, UtimensatFlags::NoFollowSymlink);
        self.note(set, "times", path);
    }

    /// Gives an open file or folder its owner, mode and times, in this order: a change of owner takes bits
    /// of the mode away.
    pub(super) fn set_meta(&self, file: &File, meta: &Meta, path: &Path) {
        if self.options.owners {
            let (uid, gid) = owner(meta);
            self.note(fchown(file, uid, gid), "owner", path);
        }
        self.note(fchmod(file, self.mode(meta)), "mode", path);
        let set = futimens(file, &TimeSpec::UTIME_OMIT, &time_spec(meta.mtime));
        self.note(set, "times", path);
    }

    pub(super) fn set_xattrs(&self, file: &File, xattrs: &[(Vec<u8>, Vec<u8>)], path: &Path) {
        for (name, value) in xattrs {
            if let Err(source) = file.set_xattr(OsStr::from_bytes(name), value) {
                self.incomplete("extended attributes", source, path);
            }
        }
    }

    fn mode(&self, meta: &Meta) -> Mode {
        let is_owner_kept = self.options.owners || geteuid().as_raw() == meta.uid;
        let bits = if is_owner_kept {
            meta.mode
        } else {
            meta.mode & !SET_ID
        };
        Mode::from_bits_truncate(bits)
    }

    fn note(&self, set: Result<(), Errno>, what: &'static str, path: &Path) {
        if let Err(errno) = set {
            self.incomplete(what, errno.into(), path);
        }
    }

    fn incomplete(&self, what: &'static str, source: io::Error, path: &Path) {
        self.progress.problem(path, Trouble::Incomplete { what, source });
    }
}

fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

#[cfg_attr(
    target_pointer_width = "64",
    expect(
        clippy::useless_conversion,
        clippy::unnecessary_fallible_conversions,
        reason = "seconds may have 32 bits"
    )
)]
fn time_spec(time: Time) -> TimeSpec {
    // Where seconds have 32 bits, a later time becomes the latest there is.
    TimeSpec::new(
        time.0.try_into().unwrap_or(if time.0 < 0 {
            i32::MIN.into()
        } else {
            i32::MAX.into()
        }),
        time.1.try_into().unwrap_or(0),
    )
}
