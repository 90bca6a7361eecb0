//! Lists folders: decides of each entry what it is, whether it is as it was, and what must be read.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::readlinkat;

use super::super::beneath::{FileKind, Status, join, names, open_folder, status_at};
use super::super::chunk::PART_BYTES_MIN;
use super::super::error::Error;
use super::super::progress::Trouble;
use super::super::tree::{Body, Entry, EntryName, Kind, Meta, Seen};
use super::folder::{Earlier, Folder, Next, Slot, State, WINDOW_ENTRIES};
use super::{Run, Task};

/// Small files read as one task: their parts are asked for and put together.
const SMALL_FILES: usize = 128;

/// Bytes of these, together.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;

/// A file that is to be read.
pub(super) struct ToRead {
    pub(super) slot: usize,
    pub(super) name: EntryName,
    /// As it was when it was listed.
    pub(super) status: Status,
}

/// What listing a window found to do.
struct Found<'a> {
    folders: Vec<Task<'a>>,
    files: Vec<ToRead>,
    unchanged: u64,
    unchanged_bytes: u64,
}

impl<'a> Run<'a> {
    /// Lists the next window of a folder.
    pub(super) fn list(&self, folder: &Arc<Folder<'a>>) -> Result<(), Error> {
        self.progress.check()?;
        let mut state = folder.lock();
        let fd = match self.open(folder, &mut state) {
            Ok(fd) => fd,
            Err(errno) => return self.cannot_list(folder, state, errno),
        };
        // Until the window is listed it is not done, whatever is done of it.
        state.pending = 1;
        let mut found = Found {
            folders: Vec::new(),
            files: Vec::new(),
            unchanged: 0,
            unchanged_bytes: 0,
        };
        let window: Vec<EntryName> = match &mut state.names {
            Some(names) => names.by_ref().take(WINDOW_ENTRIES).collect(),
            None => Vec::new(),
        };
        for name in window {
            self.list_entry(folder, &fd, &mut state, name, &mut found)?;
        }
        self.progress.unchanged(found.unchanged, found.unchanged_bytes);
        state.pending -= 1;
        let is_waiting = state.pending > 0;
        drop(state);
        if is_waiting {
            // Files last, so that they are taken first: they need this folder open, the others do not.
            let files = batches(folder, &Arc::new(fd), found.files);
            self.pool.push(found.folders.into_iter().chain(files));
            return Ok(());
        }
        self.advance(Arc::clone(folder))
    }

    /// Opens a folder, and the first time reads its names.
    fn open(&self, folder: &Folder<'a>, state: &mut State<'a>) -> Result<OwnedFd, Errno> {
        let fd = open_folder(&self.root, &folder.path)?;
        if state.names.is_none() {
            self.progress.folder();
            if self.options.xattrs {
                state.commit = self.folder_xattrs(&folder.path, &fd).map_err(|_| Errno::EIO)?;
            }
            let again = fd.try_clone().map_err(|_| Errno::EMFILE)?;
            state.names = Some(names(again)?.into_iter());
            state.earlier.open(self.store);
        }
        Ok(fd)
    }

    /// A folder that can't be listed is kept, as far as it is known, and reported.
    fn cannot_list(
        &self,
        folder: &Arc<Folder<'a>>,
        mut state: std::sync::MutexGuard<'_, State<'a>>,
        errno: Errno,
    ) -> Result<(), Error> {
        if folder.parent.is_none() {
            return Err(Error::io(&self.source, errno));
        }
        self.progress
            .problem(&folder.path, Trouble::Unreadable(errno.into()));
        state.names = Some(Vec::new().into_iter());
        state.earlier.is_same = false;
        drop(state);
        self.advance(Arc::clone(folder))
    }

    fn list_entry(
        &self,
        folder: &Arc<Folder<'a>>,
        fd: &OwnedFd,
        state: &mut State<'a>,
        name: EntryName,
        found: &mut Found<'a>,
    ) -> Result<(), Error> {
        let (was, interrupted) = state.earlier.take(&name);
        let status = match status_at(fd, &name) {
            Ok(status) => status,
            Err(errno) => {
                // What is gone since the folder was listed was never to be kept.
                if errno != Errno::ENOENT {
                    self.unreadable(&folder.path, &name, errno);
                }
                state.earlier.compare(was.as_ref(), None);
                return Ok(());
            }
        };
        let is_folder = status.kind == FileKind::Folder;
        if is_folder && self.not_into == Some((status.dev, status.inode)) {
            state.earlier.compare(was.as_ref(), None);
            return Ok(());
        }
        if !self.rules.is_empty() && self.rules.excludes(&join(&folder.path, &name), is_folder) {
            state.earlier.compare(was.as_ref(), None);
            return Ok(());
        }
        let kind = match status.kind {
            FileKind::File => {
                let known = [&was, &interrupted]
                    .into_iter()
                    .find_map(|earlier| recognise(&status, earlier.as_ref()?));
                match known {
                    Some(kind) => {
                        found.unchanged += 1;
                        found.unchanged_bytes += status.size;
                        Some(kind)
                    }
                    None => {
                        found.files.push(ToRead {
                            slot: state.slots.len(),
                            name: name.clone(),
                            status,
                        });
                        state.wait(name, status.meta, was, None);
                        return Ok(());
                    }
                }
            }
            FileKind::Folder => {
                let earlier = Earlier::new(
                    was.as_ref().and_then(tree_of),
                    interrupted.as_ref().and_then(tree_of),
                );
                let place = Some((Arc::downgrade(folder), state.slots.len()));
                let child = Arc::new(Folder::new(join(&folder.path, &name), place, earlier));
                if self.options.one_file_system && status.dev != self.root_dev {
                    child.lock().names = Some(Vec::new().into_iter());
                }
                state.wait(name, status.meta, was, Some(Arc::clone(&child)));
                found.folders.push(Task::List(child));
                return Ok(());
            }
            FileKind::Link => match readlinkat(fd, name.as_os_str()) {
                Ok(target) => Some(Kind::Link {
                    target: target.into_vec(),
                }),
                Err(errno) => {
                    self.unreadable(&folder.path, &name, errno);
                    None
                }
            },
            FileKind::Fifo => Some(Kind::Fifo),
            FileKind::Char(device) => Some(Kind::Char(device)),
            FileKind::Block(device) => Some(Kind::Block(device)),
            FileKind::Socket => {
                self.progress.problem(&join(&folder.path, &name), Trouble::Socket);
                None
            }
        };
        let entry = kind.map(|kind| Entry {
            name,
            meta: status.meta,
            kind,
        });
        state.earlier.compare(was.as_ref(), entry.as_ref());
        state.slots.extend(entry.map(Slot::Done));
        Ok(())
    }

    /// Fills a slot of a folder in, and goes on with it where that was the last one.
    pub(super) fn fill(
        &self,
        folder: &Arc<Folder<'a>>,
        slot: usize,
        kind: Option<Kind>,
        newer_meta: Option<Meta>,
    ) -> Result<(), Error> {
        let is_last = folder.lock().fill(slot, kind, newer_meta);
        if is_last {
            self.advance(Arc::clone(folder))?;
        }
        Ok(())
    }

    /// Goes on with a folder whose window is done, and with those above it. Called once for each window, by
    /// whoever saw the last of it done.
    fn advance(&self, mut folder: Arc<Folder<'a>>) -> Result<(), Error> {
        loop {
            let next = folder
                .lock()
                .advance(&mut |schema| self.sink.put_schema(schema))?;
            let kind = match next {
                Next::List => {
                    self.pool.push([Task::List(folder)]);
                    return Ok(());
                }
                Next::Done(kind) => kind,
            };
            let Some((parent, slot)) = &folder.parent else {
                *self.lock_done() = Some(kind);
                return Ok(());
            };
            let parent = parent.upgrade().expect("a folder outlives those in it");
            if !parent.lock().fill(*slot, Some(kind), None) {
                return Ok(());
            }
            folder = parent;
        }
    }

    pub(super) fn unreadable(&self, folder: &Path, name: &EntryName, error: impl Into<std::io::Error>) {
        self.progress
            .problem(&join(folder, name), Trouble::Unreadable(error.into()));
    }
}

impl<'a> State<'a> {
    fn wait(&mut self, name: EntryName, meta: Meta, was: Option<Entry>, folder: Option<Arc<Folder<'a>>>) {
        self.pending += 1;
        self.slots.push(Slot::Waiting {
            name,
            meta,
            was,
            folder,
        });
    }
}

/// What an unchanged file is: everything that a write would have changed is as it was.
fn recognise(status: &Status, earlier: &Entry) -> Option<Kind> {
    let Kind::File { size, body, seen } = &earlier.kind else {
        return None;
    };
    let is_same = *size == status.size
        && earlier.meta.mtime == status.meta.mtime
        && seen.ctime == Some(status.ctime)
        && seen.inode == status.inode;
    is_same.then(|| file(status, *size, *body, true))
}

/// The entry of a file with these bytes. `is_settled`: its times prove that it did not change since.
pub(super) fn file(status: &Status, size: u64, body: Body, is_settled: bool) -> Kind {
    Kind::File {
        size,
        body,
        seen: Seen {
            inode: status.inode,
            ctime: is_settled.then_some(status.ctime),
            dev: (status.links > 1).then_some(status.dev),
        },
    }
}

fn tree_of(entry: &Entry) -> Option<crate::id::BlobId> {
    match &entry.kind {
        Kind::Folder { tree, .. } => Some(*tree),
        Kind::File { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => None,
    }
}

/// Cuts the files to read into tasks: small ones together, each other one by itself.
fn batches<'a>(folder: &Arc<Folder<'a>>, fd: &Arc<OwnedFd>, files: Vec<ToRead>) -> Vec<Task<'a>> {
    let mut tasks = Vec::new();
    let mut small: Vec<ToRead> = Vec::new();
    let mut small_bytes = 0;
    let task = |files: Vec<ToRead>| Task::ReadSmall {
        folder: Arc::clone(folder),
        fd: Arc::clone(fd),
        files,
    };
    for file in files {
        if needs_more(&file.status) {
            tasks.push(Task::ReadLarge {
                folder: Arc::clone(folder),
                fd: Arc::clone(fd),
                file,
            });
            continue;
        }
        small_bytes += file.status.size;
        small.push(file);
        if small.len() >= SMALL_FILES || small_bytes >= SMALL_BYTES {
            tasks.push(task(std::mem::take(&mut small)));
            small_bytes = 0;
        }
    }
    if !small.is_empty() {
        tasks.push(task(small));
    }
    tasks
}

/// Whether a file may be of several parts.
pub(super) fn needs_more(status: &Status) -> bool {
    status.size > PART_BYTES_MIN as u64
}
