//! A folder while it is restored: made first, open to us alone, and given its owner, mode and times when all
//! that is in it is done.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::super::beneath::{FileKind, join, open_folder, status_at};
use super::super::commit::Commit;
use super::super::error::Error;
use super::super::progress::Trouble;
use super::super::tree::{Entries, Entry, EntryName, Kind, Meta, entries};
use super::place::remove_temporaries;
use super::{Overwrite, Run, Task, in_the_way};
use crate::id::BlobId;

/// Entries of one folder that are handed out at once. Tests cross the edge with fewer files.
const WINDOW_ENTRIES: usize = if cfg!(test) { 64 } else { 4096 };

/// Files restored as one task.
const TASK_FILES: usize = 64;

pub(super) struct Folder<'a> {
    /// Relative to the target.
    pub(super) path: PathBuf,
    pub(super) parent: Option<Arc<Folder<'a>>>,
    name: Option<EntryName>,
    tree: Option<BlobId>,
    meta: Option<Meta>,
    commit: Option<BlobId>,
    /// Whether this restore made it: then nothing of others is in it.
    pub(super) is_ours: AtomicBool,
    /// Tasks that are not done: listing it, files in it, folders in it.
    pending: AtomicUsize,
    entries: Mutex<Option<Entries<'a>>>,
}

impl<'a> Folder<'a> {
    /// The target, for what is in a folder.
    pub(super) fn target(
        tree: BlobId,
        meta: Option<Meta>,
        commit: Option<BlobId>,
        is_ours: bool,
    ) -> Folder<'a> {
        Folder {
            tree: Some(tree),
            meta,
            commit,
            ..Folder::around(is_ours)
        }
    }

    /// The target, for one thing in it.
    pub(super) fn around(is_ours: bool) -> Folder<'a> {
        Folder {
            path: PathBuf::new(),
            parent: None,
            name: None,
            tree: None,
            meta: None,
            commit: None,
            is_ours: AtomicBool::new(is_ours),
            pending: AtomicUsize::new(1),
            entries: Mutex::new(None),
        }
    }

    fn below(
        parent: &Arc<Folder<'a>>,
        name: &EntryName,
        meta: Meta,
        tree: BlobId,
        commit: Option<BlobId>,
    ) -> Self {
        Folder {
            path: join(&parent.path, name),
            parent: Some(Arc::clone(parent)),
            name: Some(name.clone()),
            tree: Some(tree),
            meta: Some(meta),
            commit,
            ..Folder::around(false)
        }
    }

    /// Counts tasks that are to be waited for.
    pub(super) fn wait_for(&self, tasks: usize) {
        self.pending.fetch_add(tasks, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Entries<'a>>> {
        self.entries
            .lock()
            .expect("no thread panics while it lists a folder")
    }
}

impl<'a> Run<'a> {
    /// Makes a folder and hands out the next window of what is in it.
    pub(super) fn list(&self, folder: &Arc<Folder<'a>>) -> Result<(), Error> {
        self.progress.check()?;
        let fd = match self.enter(folder) {
            Ok(fd) => Arc::new(fd),
            Err(error) => return self.cannot_enter(folder, error),
        };
        let mut listed = folder.lock();
        let is_first = listed.is_none();
        let window = match self.next_window(folder, &mut listed) {
            Ok(window) => window,
            Err(error) => {
                drop(listed);
                return self.cannot_enter(folder, error);
            }
        };
        drop(listed);
        if is_first {
            self.progress.folder();
        }
        let has_more = window.len() == WINDOW_ENTRIES;
        let mut tasks = Vec::new();
        let mut files: Vec<Vec<Entry>> = Vec::new();
        if has_more {
            tasks.push(Task::List(Arc::clone(folder)));
        }
        for entry in window {
            match entry.kind {
                Kind::Folder { tree, commit } => {
                    let below = Folder::below(folder, &entry.name, entry.meta, tree, commit);
                    tasks.push(Task::List(Arc::new(below)));
                }
                Kind::File { .. } => match files.last_mut().filter(|last| last.len() < TASK_FILES) {
                    Some(last) => last.push(entry),
                    None => files.push(vec![entry]),
                },
                Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => {
                    self.restore_unreadable(folder, &fd, &entry)?;
                }
            }
        }
        // Files last, so that they are taken first: their folder is open now.
        tasks.extend(files.into_iter().map(|files| Task::Files {
            folder: Arc::clone(folder),
            fd: Some(Arc::clone(&fd)),
            files,
        }));
        folder.wait_for(tasks.len());
        self.pool.push(tasks);
        self.done_with(Arc::clone(folder));
        Ok(())
    }

    fn next_window(
        &self,
        folder: &Folder<'a>,
        listed: &mut Option<Entries<'a>>,
    ) -> Result<Vec<Entry>, Error> {
        let Some(tree) = &folder.tree else {
            return Ok(Vec::new());
        };
        if listed.is_none() {
            *listed = Some(entries(self.store, tree)?);
        }
        listed.iter_mut().flatten().take(WINDOW_ENTRIES).collect()
    }

    /// Opens a folder; the first time, makes it.
    fn enter(&self, folder: &Folder<'a>) -> Result<OwnedFd, Error> {
        let failed = |errno| Error::io(&folder.path, errno);
        if folder.lock().is_some() {
            return open_folder(&self.root, &folder.path).map_err(failed);
        }
        let fd = match (&folder.parent, &folder.name) {
            (Some(parent), Some(name)) => {
                let above = open_folder(&self.root, &parent.path).map_err(failed)?;
                let is_new = self.make(&above, name, &folder.path)?;
                folder.is_ours.store(is_new, Relaxed);
                open_folder(&above, Path::new(name.as_os_str())).map_err(failed)?
            }
            _ => open_folder(&self.root, &folder.path).map_err(failed)?,
        };
        if self.options.overwrite != Overwrite::Refuse && !self.is_ours(folder) {
            remove_temporaries(&fd).map_err(failed)?;
        }
        Ok(fd)
    }

    /// Makes a folder; says whether it is new.
    fn make(&self, above: &OwnedFd, name: &EntryName, path: &Path) -> Result<bool, Error> {
        let ours = Mode::S_IRWXU;
        let failed = |errno| Error::io(path, errno);
        match mkdirat(above, name.as_os_str(), ours) {
            Ok(()) => return Ok(true),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let is_folder = status_at(above, name).map_err(failed)?.kind == FileKind::Folder;
        match (self.options.overwrite, is_folder) {
            (Overwrite::Resume | Overwrite::Replace, true) => {
                let there = open_folder(above, Path::new(name.as_os_str())).map_err(failed)?;
                // It may have been read-only; its own mode comes back in the end.
                fchmod(&there, ours).map_err(failed)?;
                Ok(false)
            }
            (Overwrite::Replace, false) => {
                unlinkat(above, name.as_os_str(), UnlinkatFlags::NoRemoveDir).map_err(failed)?;
                mkdirat(above, name.as_os_str(), ours).map_err(failed)?;
                Ok(true)
            }
            (Overwrite::Refuse, _) | (Overwrite::Resume, false) => Err(in_the_way(path)),
        }
    }

    /// A folder that can't be made or read is reported; the rest goes on. Without the first one, or without
    /// room, there is no rest.
    fn cannot_enter(&self, folder: &Arc<Folder<'a>>, error: Error) -> Result<(), Error> {
        if folder.parent.is_none() || error.is_no_space() {
            return Err(error);
        }
        self.progress.problem(&folder.path, Trouble::NotRestored(error));
        self.done_with(Arc::clone(folder));
        Ok(())
    }

    /// Notes that a task of a folder is done, and ends the folders that are done with it.
    pub(super) fn done_with(&self, mut folder: Arc<Folder<'a>>) {
        loop {
            if folder.pending.fetch_sub(1, AcqRel) > 1 {
                return;
            }
            if folder.lock().is_some() {
                self.end(&folder);
            }
            match &folder.parent {
                Some(parent) => folder = Arc::clone(parent),
                None => return,
            }
        }
    }

    /// Gives a folder what it had itself.
    fn end(&self, folder: &Folder<'a>) {
        let Some(meta) = &folder.meta else { return };
        match open_folder(&self.root, &folder.path) {
            Ok(fd) => {
                // Before the times, which it changes.
                if folder.parent.is_none()
                    && let Err(errno) = self.unmark()
                {
                    self.progress
                        .problem(&folder.path, Trouble::NotRestored(Error::io(&folder.path, errno)));
                }
                let file = File::from(fd);
                if let Some(commit) = &folder.commit {
                    match Commit::load(self.store, commit) {
                        Ok(commit) => self.set_xattrs(&file, &commit.xattrs, &folder.path),
                        Err(error) => self.progress.problem(&folder.path, Trouble::NotRestored(error)),
                    }
                }
                self.set_meta(&file, meta, &folder.path);
            }
            Err(errno) => self.progress.problem(
                &folder.path,
                Trouble::Incomplete {
                    what: "mode and times",
                    source: errno.into(),
                },
            ),
        }
    }
}
