//! Reads files: small ones several at a time, large ones a window at a time, each looked at before and
//! after so that one that changes meanwhile is known.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use xattr::FileExt;

use super::super::beneath::{FileKind, Status, join, open_file, status_of};
use super::super::chunk::{Cutter, PART_BYTES_MIN, PartSizes};
use super::super::commit::{Commit, Segment};
use super::super::error::Error;
use super::super::progress::Trouble;
use super::super::tree::{Body, Time};
use super::folder::Folder;
use super::walk::{ToRead, file, needs_more};
use super::{Run, Task};
use crate::id::BlobId;

/// How often a file is read until it holds still.
const READ_TRIES: usize = 2;

/// File systems note times by a clock that ticks every 1 to 10 ms: a write within one tick of another leaves
/// no trace. A file that changed so shortly before it was read is read again next time.
const SETTLED_NANOS: i128 = 20_000_000;

/// Segments that a commit holds itself; longer lists are cut into runs of as many, some 1 MiB each.
const RUN_SEGMENTS: usize = 8192;

/// Bytes of extended attributes kept of one file; what Linux file systems take is less.
const XATTRS_BYTES_MAX: usize = 1024 * 1024;

/// Extended attributes, name and value.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A small file that was read.
struct Small {
    slot: usize,
    status: Status,
    bytes: Bytes,
    xattrs: Xattrs,
    is_torn: bool,
}

impl<'a> Run<'a> {
    /// Reads small files and puts them as parts.
    pub(super) fn read_small(
        &self,
        folder: &Arc<Folder<'a>>,
        fd: &Arc<OwnedFd>,
        files: Vec<ToRead>,
    ) -> Result<(), Error> {
        let mut read = Vec::with_capacity(files.len());
        for file in files {
            self.progress.check()?;
            match self.read_one_small(&folder.path, fd, &file) {
                Ok(Some(small)) => read.push(small),
                // It grew meanwhile.
                Ok(None) => self.pool.push([Task::ReadLarge {
                    folder: Arc::clone(folder),
                    fd: Arc::clone(fd),
                    file,
                }]),
                Err(error) => self.drop_file(folder, &file, error)?,
            }
        }
        let parts = read
            .iter()
            .map(|small| small.bytes.clone())
            .filter(|bytes| !bytes.is_empty());
        let mut ids = self.sink.put_parts(parts.collect())?.into_iter();
        for small in read {
            let len = small.bytes.len() as u64;
            self.progress.file(len);
            let segments = if len > 0 {
                ids.next().map(|id| Segment::Part { id, size: len })
            } else {
                None
            };
            let body = self.body(segments.into_iter().collect(), small.xattrs)?;
            let is_settled = !small.is_torn && self.is_settled(&small.status);
            let kind = file(&small.status, len, body, is_settled);
            self.fill(folder, small.slot, Some(kind), Some(small.status.meta))?;
        }
        Ok(())
    }

    /// A file that could not be read is reported and left out.
    fn drop_file(&self, folder: &Arc<Folder<'a>>, file: &ToRead, error: io::Error) -> Result<(), Error> {
        if error.kind() != io::ErrorKind::NotFound {
            self.unreadable(&folder.path, &file.name, error);
        }
        self.fill(folder, file.slot, None, None)
    }

    /// `None` where it is not small any more, or has holes.
    fn read_one_small(&self, folder: &Path, fd: &OwnedFd, to_read: &ToRead) -> io::Result<Option<Small>> {
        let mut before = to_read.status;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut file = open_file(fd, &to_read.name)?;
            if has_holes(&mut file, &before)? {
                return Ok(None);
            }
            // One byte more than expected: if that comes too, the file grew.
            let mut bytes = vec![0; usize::try_from(before.size).unwrap_or(PART_BYTES_MIN) + 1];
            let len = read_up_to(&mut file, &mut bytes)?;
            let xattrs = self.xattrs(|| join(folder, &to_read.name), &file);
            let after = status_of(&file)?;
            expect_file(&after)?;
            self.progress.read(len as u64);
            let is_torn = !after.is_same_content(&before) || len as u64 != after.size;
            if is_torn && tries < READ_TRIES {
                if needs_more(&after) {
                    return Ok(None);
                }
                before = after;
                continue;
            }
            if is_torn {
                self.progress
                    .problem(&join(folder, &to_read.name), Trouble::Changed);
            }
            bytes.truncate(len);
            return Ok(Some(Small {
                slot: to_read.slot,
                status: after,
                bytes: bytes.into(),
                xattrs,
                is_torn,
            }));
        }
    }

    /// Reads a file of several parts, or with holes.
    pub(super) fn read_large(
        &self,
        folder: &Arc<Folder<'a>>,
        fd: &Arc<OwnedFd>,
        to_read: &ToRead,
    ) -> Result<(), Error> {
        let mut before = to_read.status;
        let mut tries = 0;
        loop {
            tries += 1;
            let read = match self.read_segments(fd, to_read, &before) {
                Err(Error::Io { source, .. }) => return self.drop_file(folder, to_read, source),
                read => read?,
            };
            let is_torn = !read.after.is_same_content(&before) || read.size != read.after.size;
            if is_torn && tries < READ_TRIES {
                before = read.after;
                continue;
            }
            let path = || join(&folder.path, &to_read.name);
            if is_torn {
                self.progress.problem(&path(), Trouble::Changed);
            }
            self.progress.file(read.size);
            let xattrs = self.xattrs(path, &read.file);
            let body = self.body(read.segments, xattrs)?;
            let kind = file(
                &read.after,
                read.size,
                body,
                !is_torn && self.is_settled(&read.after),
            );
            return self.fill(folder, to_read.slot, Some(kind), Some(read.after.meta));
        }
    }

    fn read_segments(&self, fd: &OwnedFd, to_read: &ToRead, before: &Status) -> Result<ReadLarge, Error> {
        let failed = |error: io::Error| Error::io(to_read.name.as_os_str().as_ref(), error);
        let mut file = open_file(fd, &to_read.name).map_err(|errno| failed(errno.into()))?;
        let opened = status_of(&file).map_err(|errno| failed(errno.into()))?;
        expect_file(&opened).map_err(failed)?;
        let mut segments = Vec::new();
        let mut size: u64 = 0;
        let idle = self.lock_cutters().pop();
        let mut cutter = idle.unwrap_or_else(|| Cutter::new(PartSizes::OF_FILES));
        let has_holes = before.allocated < before.size;
        while let Some(data) = next_data(&file, size, before.size, has_holes).map_err(failed)? {
            if data.hole > 0 {
                segments.push(Segment::Hole { size: data.hole });
                size += data.hole;
            }
            file.seek(SeekFrom::Start(size)).map_err(failed)?;
            let mut run = (&file).take(data.len);
            cutter.restart();
            loop {
                self.progress.check()?;
                let parts = cutter.next_parts(&mut run).map_err(failed)?;
                if parts.is_empty() {
                    break;
                }
                let sizes: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
                let ids = self.sink.put_parts(parts)?;
                for (id, len) in ids.into_iter().zip(sizes) {
                    segments.push(Segment::Part { id, size: len });
                    size += len;
                    self.progress.read(len);
                }
            }
            if data.is_last || run.limit() > 0 {
                break;
            }
        }
        // One that a failure keeps is made again.
        self.lock_cutters().push(cutter);
        let after = status_of(&file).map_err(|errno| failed(errno.into()))?;
        Ok(ReadLarge {
            file,
            segments,
            size,
            after,
        })
    }

    /// Where the bytes of a file are: nowhere, in a part, or as a commit says.
    fn body(&self, segments: Vec<Segment>, xattrs: Xattrs) -> Result<Body, Error> {
        match (segments.as_slice(), xattrs.is_empty()) {
            ([], true) => Ok(Body::Empty),
            ([Segment::Part { id, .. }], true) => Ok(Body::Part(*id)),
            _ => Ok(Body::Commit(self.put_commit(segments, xattrs)?)),
        }
    }

    fn put_commit(&self, mut segments: Vec<Segment>, xattrs: Xattrs) -> Result<BlobId, Error> {
        if segments.len() > RUN_SEGMENTS {
            let mut runs = Vec::new();
            for run in segments.chunks(RUN_SEGMENTS) {
                let size = run.iter().map(Segment::size).sum();
                let commit = self.put_commit(run.to_vec(), Vec::new())?;
                runs.push(Segment::Run { commit, size });
            }
            segments = runs;
        }
        self.sink.put_schema(Commit { segments, xattrs }.encode())
    }

    /// The commit with the extended attributes of a folder, where it has some.
    pub(super) fn folder_xattrs(&self, path: &Path, fd: &OwnedFd) -> Result<Option<BlobId>, Error> {
        let file = File::from(fd.try_clone().map_err(|error| Error::io(path, error))?);
        let xattrs = self.xattrs(|| path.to_owned(), &file);
        if xattrs.is_empty() {
            return Ok(None);
        }
        self.put_commit(Vec::new(), xattrs).map(Some)
    }

    /// Extended attributes in ascending order; what can't be read is reported.
    fn xattrs(&self, path: impl Fn() -> std::path::PathBuf, file: &File) -> Xattrs {
        if !self.options.xattrs {
            return Vec::new();
        }
        read_xattrs(file).unwrap_or_else(|error| {
            // A file system without them has none.
            if error.raw_os_error() != Some(Errno::ENOTSUP as i32) {
                self.progress.problem(&path(), Trouble::UnreadableXattrs(error));
            }
            Vec::new()
        })
    }

    fn is_settled(&self, status: &Status) -> bool {
        let Time(seconds, nanos) = status.ctime;
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        self.now_nanos() - changed > SETTLED_NANOS
    }
}

struct ReadLarge {
    file: File,
    segments: Vec<Segment>,
    size: u64,
    after: Status,
}

/// A run of data in a file, after a hole.
struct Data {
    hole: u64,
    len: u64,
    /// Whether to read on to wherever the file ends: it may have grown.
    is_last: bool,
}

/// The next data of a file from `at` on; `None` at its end.
fn next_data(file: &File, at: u64, size: u64, has_holes: bool) -> io::Result<Option<Data>> {
    if !has_holes {
        return Ok((at == 0).then_some(Data {
            hole: 0,
            len: u64::MAX,
            is_last: true,
        }));
    }
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, at, Whence::SeekData) {
        Ok(start) => start.min(size),
        // Nothing but a hole up to the end.
        Err(Errno::ENXIO) => size,
        // A file system that knows no holes.
        Err(Errno::EINVAL) => at,
        Err(errno) => return Err(errno.into()),
    };
    let end = match seek(file, start, Whence::SeekHole) {
        Ok(end) => end.min(size),
        Err(Errno::ENXIO | Errno::EINVAL) => size,
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some(Data {
        hole: start - at,
        len: end - start,
        is_last: false,
    }))
}

fn seek(file: &File, at: u64, whence: Whence) -> Result<u64, Errno> {
    let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
    let found = lseek64(file.as_fd(), at, whence)?;
    u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
}

/// Whether a file has holes. One that merely takes less room than it is long may be compressed by its file
/// system.
fn has_holes(file: &mut File, status: &Status) -> io::Result<bool> {
    if status.allocated >= status.size {
        return Ok(false);
    }
    let has_holes = seek(file, 0, Whence::SeekHole).is_ok_and(|hole| hole < status.size);
    file.rewind()?;
    Ok(has_holes)
}

/// Fills the buffer as far as the file goes; gives the bytes read.
fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                // All that was expected is there: what is known of the file afterwards tells whether it grew.
                if filled + 1 == buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn expect_file(status: &Status) -> io::Result<()> {
    if status.kind == FileKind::File {
        return Ok(());
    }
    Err(io::Error::other(
        "it was a file when the folder was listed, and is none now",
    ))
}

fn read_xattrs(file: &File) -> io::Result<Xattrs> {
    let mut xattrs = Vec::new();
    let mut bytes = 0;
    for name in file.list_xattr()? {
        // One that is gone since it was listed was never to be kept.
        let Some(value) = file.get_xattr(&name)? else {
            continue;
        };
        bytes += name.len() + value.len();
        if bytes > XATTRS_BYTES_MAX {
            return Err(io::Error::from(Errno::E2BIG));
        }
        xattrs.push((name.as_bytes().to_vec(), value));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}
