//! The FUSE side of the fault file system: kernel requests become operations of the model.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag};

use super::fs::{Call, Shared, Wait};
use super::medium::{Ino, Kind, Medium, Op};
use super::pages::PAGE_BYTES;

/// The kernel may keep names and attributes: nothing changes but through it.
const KEEP: Duration = Duration::from_secs(3600);

/// Answers the kernel from the shared model.
pub(super) struct Daemon {
    shared: Arc<Shared>,
}

impl Daemon {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes a name and answers with what it leads to.
    fn make(&self, call: Call, op: &Op, reply: ReplyEntry) {
        match self.shared.change(call, op).and_then(|ino| self.attr(ino)) {
            Ok(attr) => reply.entry(&KEEP, &attr, Generation(0)),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn change(&self, call: Call, op: &Op, reply: ReplyEmpty) {
        match self.shared.change(call, op) {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn flush_then_reply(&self, call: Call, op: &Op, reply: ReplyEmpty) {
        match self.shared.flush(call, op) {
            Ok(Wait::None) => reply.ok(),
            Ok(Wait::Until(until)) => {
                // The daemon goes on with other requests: a slow flush must not slow reads down.
                let shared = Arc::clone(&self.shared);
                std::thread::spawn(move || {
                    shared.wait_for_flush(until);
                    reply.ok();
                });
            }
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn attr(&self, ino: Ino) -> Result<FileAttr, Errno> {
        attr(&self.shared.lock().medium, ino)
    }
}

impl Filesystem for Daemon {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.shared.lock();
        match state
            .medium
            .lookup(parent.0, &name.to_owned())
            .and_then(|ino| attr(&state.medium, ino))
        {
            Ok(attr) => reply.entry(&KEEP, &attr, Generation(0)),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino.0) {
            Ok(attr) => reply.attr(&KEEP, &attr),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let ino = ino.0;
        let mtime = mtime.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        let cut = size.map_or(Ok(0), |size| {
            self.shared.change(Call::Truncate, &Op::Truncate { ino, size })
        });
        let mode = mode.map(|mode| mode & 0o7777);
        let done = cut.and_then(|_| match (mode, mtime) {
            (None, None) => Ok(0),
            _ => self.shared.change(Call::Attr, &Op::Attr { ino, mode, mtime }),
        });
        match done.and_then(|_| self.attr(ino)) {
            Ok(attr) => reply.attr(&KEEP, &attr),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self
            .shared
            .lock()
            .medium
            .inode(ino.0)
            .map(|inode| inode.kind.clone())
        {
            Ok(Kind::Symlink(target)) => reply.data(target.as_bytes()),
            Ok(Kind::File(_) | Kind::Directory(_)) => reply.error(answer(Errno::EINVAL)),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let op = Op::Mkdir {
            dir: parent.0,
            name: name.into(),
            mode: mode & 0o7777,
        };
        self.make(Call::Mkdir, &op, reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let op = Op::Symlink {
            dir: parent.0,
            name: link_name.into(),
            target: target.into(),
        };
        self.make(Call::Symlink, &op, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.make(
            Call::Link,
            &Op::Link {
                ino: ino.0,
                dir: newparent.0,
                name: newname.into(),
            },
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(
            Call::Unlink,
            &Op::Unlink {
                dir: parent.0,
                name: name.into(),
            },
            reply,
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(
            Call::Rmdir,
            &Op::Rmdir {
                dir: parent.0,
                name: name.into(),
            },
            reply,
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(answer(Errno::EINVAL));
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let op = Op::Rename {
            dir: parent.0,
            name: name.into(),
            to_dir: newparent.0,
            to_name: newname.into(),
            replace,
        };
        self.change(Call::Rename, &op, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (dir, name) = (parent.0, OsString::from(name));
        let there = self.shared.lock().medium.lookup(dir, &name);
        let exclusive = OFlag::from_bits_retain(flags).contains(OFlag::O_EXCL);
        let ino = match there {
            Ok(_) if exclusive => Err(Errno::EEXIST),
            Ok(ino) => Ok(ino),
            Err(_) => self.shared.change(
                Call::Create,
                &Op::Create {
                    dir,
                    name,
                    mode: mode & 0o7777,
                },
            ),
        };
        match ino.and_then(|ino| self.attr(ino)) {
            Ok(attr) => reply.created(
                &KEEP,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.shared.lock();
        let read = state
            .admit(Call::Read)
            .and_then(|()| Ok(state.medium.pages(ino.0)?.read(offset, size as usize)));
        drop(state);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let op = Op::Write {
            ino: ino.0,
            offset,
            data: data.into(),
        };
        match self.shared.change(Call::Write, &op) {
            Ok(_) => reply.written(u32::try_from(data.len()).expect("the kernel's writes are small")),
            Err(errno) => reply.error(answer(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // FUSE's word for close(2), which makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.flush_then_reply(Call::Flush, &Op::Flush { ino: ino.0 }, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.flush_then_reply(Call::FlushDir, &Op::FlushDir { ino: ino.0 }, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.shared.lock();
        let mut listing = vec![(ino.0, ".".into()), (ino.0, "..".into())];
        match state.medium.entries(ino.0) {
            Ok(entries) => listing.extend(entries.iter().map(|(name, child)| (*child, name.clone()))),
            Err(errno) => return reply.error(answer(errno)),
        }
        let handle = state.next_handle;
        state.next_handle += 1;
        state.listings.insert(handle, listing);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.shared.lock();
        let listing = state.listings.get(&fh.0).map_or(&[][..], Vec::as_slice);
        for (at, (ino, name)) in (0u64..).zip(listing).skip_while(|(at, _)| *at < offset) {
            let kind = state
                .medium
                .inode(*ino)
                .map_or(FileType::RegularFile, |inode| file_type(&inode.kind));
            if reply.add(INodeNo(*ino), at + 1, kind, name) {
                break;
            }
        }
        drop(state);
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.shared.lock().listings.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // 1 TiB where no limit is set: a size that programs compute with safely.
        const UNLIMITED_PAGES: usize = 1 << 28;
        let (used, limit) = self.shared.lock().medium.space();
        let limit = limit.min(UNLIMITED_PAGES);
        let free = limit.saturating_sub(used) as u64;
        let block = u32::try_from(PAGE_BYTES).expect("a page is small");
        reply.statfs(limit as u64, free, free, 1 << 20, 1 << 20, block, 255, block);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(answer(Errno::EOPNOTSUPP));
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(answer(Errno::EOPNOTSUPP));
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(answer(Errno::EOPNOTSUPP));
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(answer(Errno::EOPNOTSUPP));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (ino, flags) = (ino.0, FallocateFlags::from_bits_retain(mode));
        let op = if flags.is_empty() {
            let size = self
                .shared
                .lock()
                .medium
                .pages(ino)
                .map_or(0, super::pages::Pages::size);
            Op::Truncate {
                ino,
                size: size.max(offset + length),
            }
        } else if flags == FallocateFlags::FALLOC_FL_KEEP_SIZE {
            return reply.ok();
        } else if flags == FallocateFlags::FALLOC_FL_KEEP_SIZE | FallocateFlags::FALLOC_FL_PUNCH_HOLE {
            Op::Punch {
                ino,
                offset,
                len: length,
            }
        } else {
            return reply.error(answer(Errno::EOPNOTSUPP));
        };
        self.change(Call::Allocate, &op, reply);
    }
}

fn attr(medium: &Medium, ino: Ino) -> Result<FileAttr, Errno> {
    let inode = medium.inode(ino)?;
    let (size, pages) = match &inode.kind {
        Kind::File(pages) => (pages.size(), pages.used()),
        Kind::Directory(entries) => (entries.len() as u64, 0),
        Kind::Symlink(target) => (target.len() as u64, 0),
    };
    let mtime = inode.meta.mtime;
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: (pages * PAGE_BYTES / 512) as u64,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(&inode.kind),
        perm: u16::try_from(inode.meta.mode & 0o7777).expect("twelve bits"),
        nlink: inode.links,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: u32::try_from(PAGE_BYTES).expect("a page is small"),
        flags: 0,
    })
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Directory(_) => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
    }
}

fn answer(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}
