//! Files with several names: the first name is restored, the others are linked to it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::super::beneath::{open_folder, status_at};
use super::super::error::Error;
use super::super::tree::{Entry, EntryName};
use super::content::ToRestore;
use super::folder::Folder;
use super::{Overwrite, Run, Task, in_the_way};

/// The names of one file.
pub(super) enum Group<'a> {
    /// The first one is being restored; these wait for it.
    Busy(Vec<(Arc<Folder<'a>>, Entry)>),
    /// The first one is there, relative to the target.
    There(PathBuf),
}

/// What to do with a name.
enum Turn {
    Restore,
    Wait,
    Link(PathBuf),
}

type Groups<'r, 'a> = MutexGuard<'r, HashMap<(u64, u64), Group<'a>>>;

impl<'a> Run<'a> {
    /// Restores one of a file's names.
    pub(super) fn restore_linked(&self, file: &ToRestore<'_, 'a>, key: (u64, u64)) -> Result<(), Error> {
        let turn = match self.lock_groups().entry(key) {
            MapEntry::Vacant(vacant) => {
                vacant.insert(Group::Busy(Vec::new()));
                Turn::Restore
            }
            MapEntry::Occupied(mut occupied) => match occupied.get_mut() {
                Group::Busy(waiting) => {
                    // Its folder ends after it: a name that is added changes the folder's time.
                    file.folder.wait_for(1);
                    waiting.push((Arc::clone(file.folder), file.entry.clone()));
                    Turn::Wait
                }
                Group::There(path) => Turn::Link(path.clone()),
            },
        };
        match turn {
            Turn::Wait => Ok(()),
            Turn::Link(first) => self.link(file, &first),
            Turn::Restore => self.restore_first(file, key),
        }
    }

    fn restore_first(&self, file: &ToRestore<'_, 'a>, key: (u64, u64)) -> Result<(), Error> {
        let done = self.restore_file(file);
        let mut groups = self.lock_groups();
        let group = match &done {
            Ok(()) => groups.insert(key, Group::There(file.path())),
            // The next name tries by itself.
            Err(_) => groups.remove(&key),
        };
        drop(groups);
        if let Some(Group::Busy(waiting)) = group {
            self.pool
                .push(waiting.into_iter().map(|(folder, entry)| Task::Files {
                    folder,
                    fd: None,
                    files: vec![entry],
                }));
        }
        done
    }

    fn link(&self, file: &ToRestore<'_, 'a>, first: &Path) -> Result<(), Error> {
        let path = file.path();
        let failed = |errno| Error::io(&path, errno);
        let folder = open_folder(&self.root, first.parent().unwrap_or(Path::new(""))).map_err(failed)?;
        let first_name = first.file_name().unwrap_or_default();
        let link_as = |name: &OsStr| linkat(&folder, first_name, file.fd, name, AtFlags::empty());
        match link_as(file.entry.name.as_os_str()) {
            Ok(()) => {}
            Err(Errno::EEXIST) => self.link_over(file, first, &link_as)?,
            // A file system without hard links, or a file that has as many as it can: a copy is the same file
            // to everyone who reads it.
            Err(Errno::EPERM | Errno::EMLINK | Errno::EXDEV | Errno::EOPNOTSUPP) => {
                return self.restore_file(file);
            }
            Err(errno) => return Err(failed(errno)),
        }
        self.progress.file(file.size);
        Ok(())
    }

    /// Links where something is in the way.
    fn link_over(
        &self,
        file: &ToRestore<'_, 'a>,
        first: &Path,
        link_as: &dyn Fn(&OsStr) -> Result<(), Errno>,
    ) -> Result<(), Error> {
        let path = file.path();
        let failed = |errno| Error::io(&path, errno);
        let folder = open_folder(&self.root, first.parent().unwrap_or(Path::new(""))).map_err(failed)?;
        let name = EntryName::new(first.file_name().unwrap_or_default().as_encoded_bytes());
        let first = name.map(|name| status_at(&folder, &name));
        let there = status_at(file.fd, &file.entry.name).map_err(failed)?;
        if let Some(Ok(first)) = first
            && (first.dev, first.inode) == (there.dev, there.inode)
        {
            return Ok(());
        }
        let may_replace = match self.options.overwrite {
            Overwrite::Refuse => false,
            // A copy of the same file by an earlier restore.
            Overwrite::Resume => self.is_there(file)?,
            Overwrite::Replace => true,
        };
        if !may_replace {
            return Err(in_the_way(&path));
        }
        unlinkat(file.fd, file.entry.name.as_os_str(), UnlinkatFlags::NoRemoveDir).map_err(failed)?;
        link_as(file.entry.name.as_os_str()).map_err(failed)
    }

    fn lock_groups(&self) -> Groups<'_, 'a> {
        self.groups
            .lock()
            .expect("no thread panics while it holds the groups")
    }
}
