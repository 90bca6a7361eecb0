//! The folder on its disk: how files get and lose their names, what is flushed when, when writing must stop.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use data_encoding::HEXLOWER;
use nix::errno::Errno;

use super::count::Counters;
use super::layout::{self, Leaf};
use super::{marker, outboard};
use crate::coffer::backend::{Aside, Class, Stat};
use crate::coffer::error::Error;
use crate::id::BlobId;

/// Markers and aliases are a line each; in bytes.
const SMALL_BYTES_MAX: u64 = 4096;

/// A folder of blobs, and what this process knows of it.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    /// Begins the names of this process's new files: 128 random bits, so that no other makes up the same.
    token: String,
    made: AtomicUsize,
    /// Orders changes of names with one another, and with the reading of a folder, within this process.
    names: Mutex<()>,
    /// Which folders this process saw, and made durable, itself.
    settled: Mutex<Vec<bool>>,
    failure: OnceLock<String>,
    counters: Counters,
}

/// A folder that is made when first needed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Folder {
    Leaf(Leaf),
    /// Aliases that begin with this byte.
    Alias(u8),
}

/// A file being written, under a name of its own. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Temp {
    pub(super) path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; what else stays is removed when it is old.
        let _ = fs::remove_file(&self.path);
    }
}

impl Place {
    /// Opens what [`marker::create`] made.
    pub(super) fn open(root: &Path) -> Result<Place, Error> {
        marker::verify(root)?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|_| Error::Busy)?;
        Ok(Place {
            root: root.to_owned(),
            token: HEXLOWER.encode(&token),
            made: AtomicUsize::new(0),
            names: Mutex::new(()),
            settled: Mutex::new(vec![false; usize::from(Leaf::COUNT) + 512]),
            failure: OnceLock::new(),
            counters: Counters::default(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn counts(&self) -> &Counters {
        &self.counters
    }

    /// Orders changes of names; held for moments, never over a flush.
    pub(super) fn names(&self) -> MutexGuard<'_, ()> {
        self.names
            .lock()
            .expect("no thread panics while it holds the names")
    }

    /// What stopped writes, where something did.
    pub(super) fn read_only(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    pub(super) fn writable(&self) -> Result<(), Error> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(Error::ReadOnly {
                reason: reason.clone(),
            }),
        }
    }

    pub(super) fn abandon(&self) {
        // What stopped writes before stays the reason.
        let _ = self.failure.set("its blobs are elsewhere by now".to_owned());
    }

    /// A change that failed: lack of room or descriptors passes, anything else stops writes until reopened. What may not be changed
    /// was not, and belongs to somebody else: a folder that another machine made on this disk, say.
    pub(super) fn failed(&self, path: &Path, source: io::Error) -> Error {
        let is_forbidden = source.kind() == io::ErrorKind::PermissionDenied;
        match Error::io(path, source) {
            error @ Error::Io { .. } if is_forbidden => error,
            Error::Io { path, source } => {
                let reason = format!("{}: {source}", path.display());
                let _ = self.failure.set(reason.clone());
                if source.raw_os_error() == Some(Errno::EROFS as i32) {
                    Error::ReadOnly { reason }
                } else {
                    Error::Io { path, source }
                }
            }
            passing => passing,
        }
    }

    /// Starts a file under a name that nobody else has.
    pub(super) fn temp(&self) -> Result<(Temp, File), Error> {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(layout::NEW).join(format!("{}-{n}", self.token));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match opened {
            Ok(file) => Ok((Temp { path }, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.still_there()?;
                Err(Error::io(&path, error))
            }
            Err(error) => Err(self.failed(&path, error)),
        }
    }

    /// Starts, writes and flushes a file.
    pub(super) fn write_temp(&self, bytes: &[u8]) -> Result<Temp, Error> {
        let (temp, mut file) = self.temp()?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|source| self.failed(&temp.path, source))?;
        Ok(temp)
    }

    /// Makes sure a folder is there for good, and opens it to be flushed after names in it changed: that must
    /// not fail for want of a descriptor once names did.
    pub(super) fn folder(&self, folder: Folder) -> Result<OpenFolder, Error> {
        let path = match folder {
            Folder::Leaf(leaf) => leaf.path(&self.root),
            Folder::Alias(first) => layout::alias_folder(&self.root, first),
        };
        self.settle(folder, &path)?;
        match open_file(&path) {
            Ok(file) => Ok(OpenFolder { path, file }),
            Err(source) => Err(Error::io(&path, source)),
        }
    }

    /// Another host may have made the folder and not flushed its name, so the first time it is flushed here.
    fn settle(&self, folder: Folder, path: &Path) -> Result<(), Error> {
        let aliases_from = usize::from(Leaf::COUNT) + 256;
        let slot = match folder {
            Folder::Leaf(leaf) => leaf.index(),
            Folder::Alias(first) => aliases_from + usize::from(first),
        };
        if self.settled()[slot] {
            return Ok(());
        }
        let make = |path: &Path| {
            make_folder(path)
                .and_then(|()| sync_folder(path.parent().unwrap_or(path)))
                .map_err(|source| self.failed(path, source))
        };
        if let Folder::Leaf(leaf) = folder {
            self.still_there()?;
            let above = usize::from(Leaf::COUNT) + usize::from(leaf.first_byte());
            if !self.settled()[above] {
                make(&layout::byte_path(&self.root, leaf.first_byte()))?;
                self.settled()[above] = true;
            }
        }
        make(path)?;
        self.settled()[slot] = true;
        Ok(())
    }

    fn settled(&self) -> MutexGuard<'_, Vec<bool>> {
        self.settled.lock().expect("no thread panics while it holds this")
    }

    /// Gives the tables of new blobs of one folder their names, durably: after a cut, a table without its blob is
    /// garbage, a blob without its table is slow and a finding.
    pub(super) fn publish_tables<'a>(
        &self,
        folder: &OpenFolder,
        new: impl Iterator<Item = (&'a NewBlob, BlobId)>,
    ) -> Result<(), Error> {
        let mut has_any = false;
        for (new, id) in new {
            if let Some(table) = &new.table {
                let path = layout::table_path(&self.root, &id);
                // Where one is there, it is made right below when its blob gets a name.
                link(&table.path, &path).map_err(|source| self.failed(&path, source))?;
                has_any = true;
            }
        }
        if has_any {
            self.flush_folder(folder)?;
        }
        Ok(())
    }

    /// Gives a flushed file, and its table, the names of a blob: whether there was none before. Durable when
    /// the folder is flushed afterwards.
    pub(super) fn publish(&self, new: &NewBlob, stat: Stat) -> Result<bool, Error> {
        let _names = self.names();
        if self.raise_named(&stat.id, stat.class)? {
            return Ok(false);
        }
        if let Some(table) = &new.table {
            // Tables of one blob are all the same, so whichever is last is right. A deletion may have taken the name
            // that it was given before.
            let path = layout::table_path(&self.root, &stat.id);
            match fs::rename(&table.path, &path) {
                // Where nothing can be linked it was renamed at once.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {}
                renamed => renamed.map_err(|source| self.failed(&path, source))?,
            }
        }
        let path = layout::blob_path(&self.root, &stat.id, stat.class);
        let fresh = link(&new.bytes.path, &path).map_err(|source| self.failed(&path, source))?;
        if fresh {
            self.counters.added(stat.len);
        }
        Ok(fresh)
    }

    /// Whether a blob is there; from now on at least of this class. Durable when the folder is flushed
    /// afterwards.
    pub(super) fn raise(&self, id: &BlobId, class: Class) -> Result<bool, Error> {
        let _names = self.names();
        self.raise_named(id, class)
    }

    fn raise_named(&self, id: &BlobId, class: Class) -> Result<bool, Error> {
        let Some(stat) = self.lookup(id)? else {
            return Ok(false);
        };
        if stat.class < class {
            let from = layout::blob_path(&self.root, id, stat.class);
            let to = layout::blob_path(&self.root, id, class);
            match fs::rename(&from, &to) {
                Ok(()) => {}
                // Another host was quicker: it pinned the blob, or it deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(self.lookup(id)?.is_some());
                }
                Err(source) => return Err(self.failed(&to, source)),
            }
        }
        Ok(true)
    }

    /// What is known of a blob.
    pub(super) fn lookup(&self, id: &BlobId) -> Result<Option<Stat>, Error> {
        self.find(id, |path| path.metadata())
            .map(|found| found.and_then(|(class, metadata)| blob_stat(id, class, &metadata)))
    }

    /// Opens a blob.
    pub(super) fn open_blob(&self, id: &BlobId) -> Result<Option<(File, Stat)>, Error> {
        let found = self.find(id, |path| {
            let file = open_file(path)?;
            let metadata = file.metadata()?;
            Ok((file, metadata))
        })?;
        Ok(found.and_then(|(class, (file, metadata))| Some((file, blob_stat(id, class, &metadata)?))))
    }

    /// Does something with the file of a blob, under whichever name it has.
    fn find<T>(
        &self,
        id: &BlobId,
        what: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<Option<(Class, T)>, Error> {
        // The pinned name once more at the end: the part may have become pinned in between.
        for class in [Class::Pinned, Class::Part, Class::Pinned] {
            let path = layout::blob_path(&self.root, id, class);
            match what(&path) {
                Ok(found) => return Ok(Some((class, found))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::io(&path, source)),
            }
        }
        self.still_there()?;
        Ok(None)
    }

    /// That a missing file means a missing blob, and not a disk that was pulled.
    pub(super) fn still_there(&self) -> Result<(), Error> {
        if marker::layout_is_there(&self.root) {
            return Ok(());
        }
        Err(Error::Foreign {
            path: self.root.clone(),
        })
    }

    /// Deletes blobs, one flush a folder; says of each whether it was there. Durable on return.
    pub(super) fn delete(&self, ids: &[BlobId]) -> Result<Vec<bool>, Error> {
        self.writable()?;
        let mut gone = vec![false; ids.len()];
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|at| Leaf::of(&ids[*at]));
        for group in order.chunk_by(|a, b| Leaf::of(&ids[*a]) == Leaf::of(&ids[*b])) {
            let path = Leaf::of(&ids[group[0]]).path(&self.root);
            let folder = match open_file(&path) {
                Ok(file) => OpenFolder { path, file },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.still_there()?;
                    continue;
                }
                Err(source) => return Err(Error::io(&path, source)),
            };
            for at in group {
                gone[*at] = self.unlink(&ids[*at])?;
            }
            // Where nothing was there as well: another may have removed it and not flushed yet.
            self.flush_folder(&folder)?;
            // Only now: after a cut, a table without its blob is garbage, a blob without its table is slow.
            for at in group {
                self.remove_table(&ids[*at])?;
            }
        }
        Ok(gone)
    }

    /// Removes the table of a blob that is gone; one that was put again meanwhile keeps its own.
    fn remove_table(&self, id: &BlobId) -> Result<(), Error> {
        let _names = self.names();
        if self.lookup(id)?.is_none() {
            self.remove(&layout::table_path(&self.root, id))?;
        }
        Ok(())
    }

    /// Removes the part of a blob that is pinned: what a put on one host and a pin on another at once may leave. For
    /// when the pinned file was found whole; it may have been deleted since, and the part put by itself.
    pub(super) fn remove_second(&self, id: &BlobId) -> Result<(), Error> {
        let _names = self.names();
        if self.lookup(id)?.is_some_and(|stat| stat.class == Class::Pinned) {
            self.remove(&layout::blob_path(&self.root, id, Class::Part))?;
        }
        Ok(())
    }

    fn unlink(&self, id: &BlobId) -> Result<bool, Error> {
        let _names = self.names();
        let found = self.lookup(id)?;
        let mut was_there = false;
        for class in [Class::Part, Class::Pinned] {
            was_there |= self.remove(&layout::blob_path(&self.root, id, class))?;
        }
        if let (true, Some(stat)) = (was_there, found) {
            self.counters.removed(stat.len);
        }
        Ok(was_there)
    }

    /// Removes a file; whether it was there.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, Error> {
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.failed(path, source)),
        }
    }

    /// Sets a blob aside, each of its files by itself; says whether one was. Durable on return.
    pub(super) fn quarantine(&self, id: &BlobId, which: Aside) -> Result<bool, Error> {
        self.writable()?;
        let Some(stat) = self.lookup(id)? else {
            return Ok(false);
        };
        let target = OpenFolder::open(self.root.join(layout::QUARANTINE))?;
        let source = self.folder(Folder::Leaf(Leaf::of(id)))?;
        let mut was_there = false;
        for class in [Class::Part, Class::Pinned] {
            was_there |= self.rename_aside(id, class, which, &target.path)?;
        }
        if !was_there {
            return Ok(false);
        }
        {
            let _names = self.names();
            // A part that is whole stays, and stands for the pinned file that is gone.
            if !self.raise_named(id, stat.class)? {
                self.counters.removed(stat.len);
            }
        }
        self.flush_folder(&target)?;
        self.flush_folder(&source)?;
        self.remove_table(id)?;
        Ok(true)
    }

    /// Renames one file of a blob into `folder`, unless it is whole and only a damaged one is meant. What was read is
    /// what goes: a file that got the name meanwhile stays.
    fn rename_aside(&self, id: &BlobId, class: Class, which: Aside, folder: &Path) -> Result<bool, Error> {
        let from = layout::blob_path(&self.root, id, class);
        let found = match open_file(&from).and_then(|file| Ok((file.metadata()?, file))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found.map_err(|source| Error::io(&from, source))?,
        };
        let (seen, file) = found;
        if which == Aside::Damaged {
            match outboard::read_tree(&file, seen.len()) {
                Ok(tree) if tree.root() == *id => return Ok(false),
                Ok(_) => {}
                Err(source) => {
                    // Too many open files says nothing about the blob.
                    if let Error::Busy = Error::io(&from, source) {
                        return Err(Error::Busy);
                    }
                }
            }
        }
        let _names = self.names();
        let is_still = |named: Metadata| (named.dev(), named.ino()) == (seen.dev(), seen.ino());
        if !from.metadata().is_ok_and(is_still) {
            return Ok(false);
        }
        let to = quarantine_path(folder, id)?;
        match fs::rename(&from, &to) {
            Ok(()) => {
                self.counters.set_aside();
                Ok(true)
            }
            // Another host was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.failed(&to, source)),
        }
    }

    /// Makes the names of a folder durable. Where that fails no one may be told that they are.
    pub(super) fn flush_folder(&self, folder: &OpenFolder) -> Result<(), Error> {
        match sync(&folder.file) {
            Ok(()) => Ok(()),
            Err(source) => {
                let _ = self.failure.set(format!("{}: {source}", folder.path.display()));
                Err(Error::io(&folder.path, source))
            }
        }
    }
}

/// The files of a blob that has no name yet, flushed.
#[derive(Debug)]
pub(super) struct NewBlob {
    pub(super) bytes: Temp,
    /// Of blobs above one frame.
    pub(super) table: Option<Temp>,
}

/// A folder whose names are about to change.
#[derive(Debug)]
pub(super) struct OpenFolder {
    path: PathBuf,
    file: File,
}

impl OpenFolder {
    fn open(path: PathBuf) -> Result<OpenFolder, Error> {
        match open_file(&path) {
            Ok(file) => Ok(OpenFolder { path, file }),
            Err(source) => Err(Error::io(&path, source)),
        }
    }
}

fn blob_stat(id: &BlobId, class: Class, metadata: &Metadata) -> Option<Stat> {
    metadata.is_file().then_some(Stat {
        id: *id,
        len: metadata.len(),
        class,
    })
}

/// Links a file to a second name: whether that name was free. Renames where the file system has no links.
pub(in crate::coffer) fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {
                fs::rename(from, to).map(|()| true)
            }
            _ => Err(error),
        },
    }
}

/// A free name for a blob in quarantine.
fn quarantine_path(folder: &Path, id: &BlobId) -> Result<PathBuf, Error> {
    let mut path = folder.join(id.hex());
    let mut n = 0;
    while path.try_exists().map_err(|source| Error::io(&path, source))? {
        n += 1;
        path = folder.join(format!("{}.{n}", id.hex()));
    }
    Ok(path)
}

/// Makes a folder where there is none; not durable before its parent is flushed.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file or folder to read. A pipe that somebody put in its place on a disk keeps nobody waiting: it reads as empty.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
}

/// Reads a small file; of a larger one, as nobody of us writes it, its beginning.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    sync(&open_file(path)?)
}

fn sync(folder: &File) -> io::Result<()> {
    match folder.sync_all() {
        // The file system has no such thing for folders.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        done => done,
    }
}
