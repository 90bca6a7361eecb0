//! Files: their bytes from the store into a temporary file, and whether a file that is there has them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::super::beneath::{FileKind, join, open_file, open_folder, status_at};
use super::super::commit::{Commit, Segment};
use super::super::error::Error;
use super::super::progress::Trouble;
use super::super::tree::{Body, Entry, EntryName, Kind};
use super::folder::Folder;
use super::place::Temporary;
use super::{Overwrite, Run, in_the_way};
use crate::coffer::{FRAME_BYTES, PACKED_BYTES_MAX, Reader, read_whole};
use crate::id::BlobId;

/// A file to restore, and where.
pub(super) struct ToRestore<'r, 'a> {
    pub(super) folder: &'r Arc<Folder<'a>>,
    pub(super) fd: &'r OwnedFd,
    pub(super) entry: &'r Entry,
    pub(super) size: u64,
    pub(super) body: &'r Body,
}

impl ToRestore<'_, '_> {
    pub(super) fn path(&self) -> std::path::PathBuf {
        join(&self.folder.path, &self.entry.name)
    }
}

impl<'a> Run<'a> {
    /// Restores files of one folder.
    pub(super) fn restore_files(
        &self,
        folder: &Arc<Folder<'a>>,
        fd: Option<Arc<OwnedFd>>,
        files: Vec<Entry>,
    ) -> Result<(), Error> {
        let fd = match fd {
            Some(fd) => fd,
            None => {
                let opened = open_folder(&self.root, &folder.path);
                Arc::new(opened.map_err(|errno| Error::io(&folder.path, errno))?)
            }
        };
        for entry in files {
            self.progress.check()?;
            match &entry.kind {
                Kind::File { size, body, seen } => {
                    let file = ToRestore {
                        folder,
                        fd: &fd,
                        entry: &entry,
                        size: *size,
                        body,
                    };
                    let done = match seen.dev {
                        Some(dev) => self.restore_linked(&file, (dev, seen.inode)),
                        None => self.restore_file(&file),
                    };
                    self.report(&file.path(), done)?;
                }
                Kind::Folder { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => {
                    self.restore_unreadable(folder, &fd, &entry)?;
                }
            }
        }
        self.done_with(Arc::clone(folder));
        Ok(())
    }

    /// Notes what could not be restored. A full disk ends the restore.
    pub(super) fn report(&self, path: &Path, done: Result<(), Error>) -> Result<(), Error> {
        match done {
            Ok(()) => Ok(()),
            Err(error) if error.is_no_space() || matches!(error, Error::Cancelled) => Err(error),
            Err(error) => {
                self.progress.problem(path, Trouble::NotRestored(error));
                Ok(())
            }
        }
    }

    pub(super) fn restore_file(&self, file: &ToRestore<'_, 'a>) -> Result<(), Error> {
        let path = file.path();
        if self.options.overwrite == Overwrite::Resume && !self.is_ours(file.folder) {
            if self.is_there(file)? {
                self.progress.unchanged(1, file.size);
                return Ok(());
            }
            if status_at(file.fd, &file.entry.name).is_ok() {
                return Err(in_the_way(&path));
            }
        }
        let mut temporary = Temporary::create(file.fd, self.temporary_name(), &path)?;
        let commit = self.write(file, temporary.file(), &path)?;
        if let Some(commit) = commit {
            self.set_xattrs(temporary.file(), &commit.xattrs, &path);
        }
        self.set_meta(temporary.file(), &file.entry.meta, &path);
        self.publish(temporary, &file.entry.name, file.folder, &path)?;
        self.progress.file(file.size);
        Ok(())
    }

    /// Writes the bytes of a file; gives its commit where it has one.
    fn write(&self, file: &ToRestore<'_, 'a>, to: &mut File, path: &Path) -> Result<Option<Commit>, Error> {
        let failed = |error: io::Error| Error::io(path, error);
        let commit = match file.body {
            Body::Empty => {
                expect_size(file, 0)?;
                None
            }
            Body::Part(id) => {
                let mut reader = self.open_part(id, file.size)?;
                let bytes = read_whole(&mut *reader, PACKED_BYTES_MAX)?;
                self.progress.read(bytes.len() as u64);
                to.write_all(&bytes).map_err(failed)?;
                None
            }
            Body::Commit(id) => {
                let commit = Commit::load(self.store, id)?;
                expect_size(file, commit.size())?;
                let mut at = 0;
                for piece in commit.pieces(self.store) {
                    let piece = piece?;
                    if let Segment::Part { id, size } = &piece {
                        self.write_part(id, *size, to, at, path)?;
                    }
                    at += piece.size();
                }
                // A hole at the end is made by the length alone.
                to.set_len(file.size).map_err(failed)?;
                Some(commit)
            }
        };
        Ok(commit)
    }

    fn write_part(&self, id: &BlobId, size: u64, to: &File, at: u64, path: &Path) -> Result<(), Error> {
        let mut reader = self.open_part(id, size)?;
        let mut done = 0;
        while done < size {
            self.progress.check()?;
            let bytes = reader.read_at(done)?;
            if bytes.is_empty() {
                return Err(Error::Missing { id: *id });
            }
            to.write_all_at(&bytes, at + done)
                .map_err(|error| Error::io(path, error))?;
            done += bytes.len() as u64;
            self.progress.read(bytes.len() as u64);
        }
        Ok(())
    }

    fn open_part(&self, id: &BlobId, size: u64) -> Result<Box<dyn Reader>, Error> {
        let reader = self.store.backend().open(id)?.ok_or(Error::Missing { id: *id })?;
        if reader.stat().len != size {
            return Err(Error::Malformed {
                id: *id,
                expected: "part",
                what: format!("it has {} bytes where {size} are named", reader.stat().len),
            });
        }
        Ok(reader)
    }

    /// Whether a file is there with the bytes and the time it is to have.
    pub(super) fn is_there(&self, file: &ToRestore<'_, 'a>) -> Result<bool, Error> {
        let Ok(status) = status_at(file.fd, &file.entry.name) else {
            return Ok(false);
        };
        let may_be = status.kind == FileKind::File
            && status.size == file.size
            && status.meta.mtime == file.entry.meta.mtime;
        if !may_be {
            return Ok(false);
        }
        let segments = match file.body {
            Body::Empty => return Ok(true),
            Body::Part(id) => vec![Segment::Part {
                id: *id,
                size: file.size,
            }],
            Body::Commit(id) => {
                let commit = Commit::load(self.store, id)?;
                commit.pieces(self.store).collect::<Result<_, _>>()?
            }
        };
        // The length and the time survive a power cut that the bytes did not: only reading tells.
        Ok(holds(file.fd, &file.entry.name, &segments).unwrap_or(false))
    }
}

fn expect_size(file: &ToRestore<'_, '_>, found: u64) -> Result<(), Error> {
    if file.size == found {
        return Ok(());
    }
    let what = io::Error::other(format!("its tree says {} bytes, its parts {found}", file.size));
    Err(Error::io(&file.path(), what))
}

/// Whether a file's bytes are these.
fn holds(fd: &OwnedFd, name: &EntryName, segments: &[Segment]) -> io::Result<bool> {
    let file = open_file(fd, name)?;
    let mut buffer = vec![0; FRAME_BYTES];
    let mut at = 0;
    for segment in segments {
        let mut hasher = blake3::Hasher::new();
        let end = at + segment.size();
        let mut is_zero = true;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(FRAME_BYTES).min(FRAME_BYTES);
            file.read_exact_at(&mut buffer[..len], at)?;
            match segment {
                Segment::Part { .. } => {
                    hasher.update(&buffer[..len]);
                }
                Segment::Hole { .. } => is_zero &= buffer[..len].iter().all(|byte| *byte == 0),
                Segment::Run { .. } => return Ok(false),
            }
            at += len as u64;
        }
        let is_same = match segment {
            Segment::Part { id, .. } => hasher.finalize().as_bytes() == id.as_bytes(),
            Segment::Hole { .. } | Segment::Run { .. } => is_zero,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}
