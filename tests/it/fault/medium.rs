//! The model of a disk that forgets what was not flushed: pure, so that any moment of a recorded run can be cut.
//!
//! POSIX promises little, and a store must live with no more than that:
//! - data and size of a file are durable after `fsync` or `fdatasync` of that file;
//! - a name (create, mkdir, link, symlink, rename, unlink, rmdir) is durable after `fsync` of its directory
//!   ([`Names::Strict`]); many file systems keep more, as ext4 does ([`Names::Journal`]: any flush keeps every name before it);
//! - one operation on names is atomic, a rename never loses both names;
//! - everything else is lost, kept, or kept in another order, page by page ([`Crash`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;

use super::pages::Pages;
use super::seed::Rng;

/// The number of a file, directory or link.
pub(crate) type Ino = u64;

/// The root directory, as FUSE numbers it.
pub(crate) const ROOT: Ino = 1;

/// What a crash does with what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Crash {
    /// All of it is lost.
    DropAll,
    /// Every 4 KiB page is lost or kept by chance; of the names the first few are kept.
    RandomPages,
    /// Pages fall back to any version they have had, names are kept in any order that single names allow.
    Reordered,
    /// Nothing is lost: a killed process on a machine that goes on.
    KeepAll,
}

impl Crash {
    /// The three ways of losing power.
    pub(crate) const POWER: [Self; 3] = [Self::DropAll, Self::RandomPages, Self::Reordered];

    /// Those, and a kill.
    pub(crate) const ALL: [Self; 4] = [Self::DropAll, Self::RandomPages, Self::Reordered, Self::KeepAll];
}

/// When names are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Only after a flush of their directory.
    Strict,
    /// With any flush that follows them.
    Journal,
}

/// One change of the disk, or a mark of the test.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        dir: Ino,
        name: OsString,
        mode: u32,
    },
    Mkdir {
        dir: Ino,
        name: OsString,
        mode: u32,
    },
    Symlink {
        dir: Ino,
        name: OsString,
        target: OsString,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: OsString,
    },
    Unlink {
        dir: Ino,
        name: OsString,
    },
    Rmdir {
        dir: Ino,
        name: OsString,
    },
    Rename {
        dir: Ino,
        name: OsString,
        to_dir: Ino,
        to_name: OsString,
        replace: bool,
    },
    Write {
        ino: Ino,
        offset: u64,
        data: Arc<[u8]>,
    },
    Truncate {
        ino: Ino,
        size: u64,
    },
    Punch {
        ino: Ino,
        offset: u64,
        len: u64,
    },
    Attr {
        ino: Ino,
        mode: Option<u32>,
        mtime: Option<SystemTime>,
    },
    Flush {
        ino: Ino,
    },
    FlushDir {
        ino: Ino,
    },
    /// A flush that failed: nothing of the file is dirty any more, and what was not durable never will be.
    FailedFlush {
        ino: Ino,
    },
    /// A place in the journal of the test: what was recorded there came before all later operations.
    Mark(usize),
}

/// What a name leads to.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Pages),
    Directory(BTreeMap<OsString, Ino>),
    Symlink(OsString),
}

/// The part of the metadata that is kept; owner and access time are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) mtime: SystemTime,
}

#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
    flushed_meta: Meta,
    /// Names that lead here now.
    pub(crate) links: u32,
}

/// One atomic change of names: each slot and what it leads to afterwards.
type NameChange = Vec<((Ino, OsString), Option<Ino>)>;

/// The disk: what programs see, and beneath it what is durable.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    rule: Names,
    inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    flushed_names: BTreeMap<(Ino, OsString), Ino>,
    unflushed_names: Vec<NameChange>,
    /// Pages of files that have a name.
    used_pages: usize,
    limit_pages: usize,
}

impl Medium {
    /// An empty disk.
    pub(crate) fn new(rule: Names) -> Self {
        let mut medium = Self {
            rule,
            inodes: BTreeMap::new(),
            next_ino: ROOT,
            flushed_names: BTreeMap::new(),
            unflushed_names: Vec::new(),
            used_pages: 0,
            limit_pages: usize::MAX,
        };
        medium.add(Kind::Directory(BTreeMap::new()), 0o755, SystemTime::UNIX_EPOCH);
        medium
    }

    /// Sets how much data fits; `ENOSPC` beyond it.
    pub(crate) fn set_limit_pages(&mut self, pages: usize) {
        self.limit_pages = pages;
    }

    /// Used pages and all pages.
    pub(crate) fn space(&self) -> (usize, usize) {
        (self.used_pages, self.limit_pages)
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(&ino).ok_or(Errno::ENOENT)
    }

    pub(crate) fn lookup(&self, dir: Ino, name: &OsString) -> Result<Ino, Errno> {
        self.entries(dir)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn entries(&self, dir: Ino) -> Result<&BTreeMap<OsString, Ino>, Errno> {
        match &self.inode(dir)?.kind {
            Kind::Directory(entries) => Ok(entries),
            Kind::File(_) | Kind::Symlink(_) => Err(Errno::ENOTDIR),
        }
    }

    /// Where each file, folder and link is, by one of its names.
    pub(crate) fn paths(&self) -> BTreeMap<Ino, PathBuf> {
        let mut paths = BTreeMap::from([(ROOT, PathBuf::new())]);
        let mut reached = vec![ROOT];
        while let Some(dir) = reached.pop() {
            for (name, ino) in self.entries(dir).into_iter().flatten() {
                paths.insert(*ino, paths[&dir].join(name));
                reached.push(*ino);
            }
        }
        paths
    }

    pub(crate) fn pages(&self, ino: Ino) -> Result<&Pages, Errno> {
        match &self.inode(ino)?.kind {
            Kind::File(pages) => Ok(pages),
            Kind::Directory(_) => Err(Errno::EISDIR),
            Kind::Symlink(_) => Err(Errno::EINVAL),
        }
    }

    /// Applies one operation. Returns the inode it made, or the bytes a flush put on the medium, or zero.
    pub(crate) fn apply(&mut self, op: &Op, now: SystemTime) -> Result<u64, Errno> {
        match op {
            Op::Create { dir, name, mode } => self.make(*dir, name, Kind::File(Pages::default()), *mode, now),
            Op::Mkdir { dir, name, mode } => {
                self.make(*dir, name, Kind::Directory(BTreeMap::new()), *mode, now)
            }
            Op::Symlink { dir, name, target } => {
                self.make(*dir, name, Kind::Symlink(target.clone()), 0o777, now)
            }
            Op::Link { ino, dir, name } => self.link(*ino, *dir, name),
            Op::Unlink { dir, name } => self.remove(*dir, name, false),
            Op::Rmdir { dir, name } => self.remove(*dir, name, true),
            Op::Rename {
                dir,
                name,
                to_dir,
                to_name,
                replace,
            } => self.rename((*dir, name.clone()), (*to_dir, to_name.clone()), *replace),
            Op::Write { ino, offset, data } => self.write(*ino, *offset, data, now),
            Op::Truncate { ino, size } => self.change_pages(*ino, now, |pages| pages.truncate(*size)),
            Op::Punch { ino, offset, len } => {
                self.change_pages(*ino, now, |pages| pages.punch(*offset, *len))
            }
            Op::Attr { ino, mode, mtime } => self.attr(*ino, *mode, *mtime),
            Op::Flush { ino } => self.flush(*ino),
            Op::FlushDir { ino } => self.flush_dir(*ino),
            Op::FailedFlush { ino } => self.change_pages(*ino, now, Pages::forget),
            Op::Mark(_) => Ok(0),
        }
    }

    /// The disk as it is found when power comes back: everything on it is durable.
    pub(crate) fn after(&self, crash: Crash, rng: &mut Rng) -> Self {
        let mut names = self.flushed_names.clone();
        for change in self.kept_changes(crash, rng) {
            apply_change(&mut names, change);
        }
        let mut found = Self {
            inodes: BTreeMap::new(),
            flushed_names: BTreeMap::new(),
            unflushed_names: Vec::new(),
            ..self.clone()
        };
        found.used_pages = 0;
        let mut reached = vec![ROOT];
        while let Some(ino) = reached.pop() {
            if let Some(seen) = found.inodes.get_mut(&ino) {
                seen.links += 1;
                continue;
            }
            let inode = &self.inodes[&ino];
            let meta = if crash == Crash::KeepAll || (crash != Crash::DropAll && rng.one_in(2)) {
                inode.meta
            } else {
                inode.flushed_meta
            };
            let kind = match &inode.kind {
                Kind::File(pages) => {
                    let pages = pages.after(crash, rng);
                    found.used_pages += pages.used();
                    Kind::File(pages)
                }
                Kind::Symlink(target) => Kind::Symlink(target.clone()),
                Kind::Directory(_) => {
                    let slots = names.range((ino, OsString::new())..(ino + 1, OsString::new()));
                    let entries: BTreeMap<_, _> =
                        slots.map(|((_, name), child)| (name.clone(), *child)).collect();
                    for (name, child) in &entries {
                        found.flushed_names.insert((ino, name.clone()), *child);
                        reached.push(*child);
                    }
                    Kind::Directory(entries)
                }
            };
            found.inodes.insert(
                ino,
                Inode {
                    kind,
                    meta,
                    flushed_meta: meta,
                    links: 1,
                },
            );
        }
        found
    }

    /// The unflushed changes of names that a crash leaves on the medium, in order.
    fn kept_changes(&self, crash: Crash, rng: &mut Rng) -> Vec<&NameChange> {
        let all = &self.unflushed_names;
        match crash {
            Crash::DropAll => Vec::new(),
            Crash::KeepAll => all.iter().collect(),
            Crash::RandomPages => all[..rng.below(all.len() + 1)].iter().collect(),
            Crash::Reordered => {
                let mut lost = BTreeSet::new();
                let mut kept = Vec::new();
                for change in all {
                    // A change can't be there without the earlier ones of the same name.
                    if rng.one_in(2) && change.iter().all(|(slot, _)| !lost.contains(slot)) {
                        kept.push(change);
                    } else {
                        lost.extend(change.iter().map(|(slot, _)| slot));
                    }
                }
                kept
            }
        }
    }

    fn add(&mut self, kind: Kind, mode: u32, now: SystemTime) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        let meta = Meta { mode, mtime: now };
        self.inodes.insert(
            ino,
            Inode {
                kind,
                meta,
                flushed_meta: meta,
                links: 1,
            },
        );
        ino
    }

    fn make(
        &mut self,
        dir: Ino,
        name: &OsString,
        kind: Kind,
        mode: u32,
        now: SystemTime,
    ) -> Result<u64, Errno> {
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.add(kind, mode, now);
        self.change_names(vec![((dir, name.clone()), Some(ino))]);
        Ok(ino)
    }

    fn link(&mut self, ino: Ino, dir: Ino, name: &OsString) -> Result<u64, Errno> {
        self.pages(ino)?;
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.hold(ino);
        self.change_names(vec![((dir, name.clone()), Some(ino))]);
        Ok(ino)
    }

    fn remove(&mut self, dir: Ino, name: &OsString, want_dir: bool) -> Result<u64, Errno> {
        let ino = self.lookup(dir, name)?;
        self.check_removable(ino, want_dir)?;
        self.release(ino);
        self.change_names(vec![((dir, name.clone()), None)]);
        Ok(0)
    }

    fn rename(&mut self, from: (Ino, OsString), to: (Ino, OsString), replace: bool) -> Result<u64, Errno> {
        let ino = self.lookup(from.0, &from.1)?;
        if let Some(old) = self.entries(to.0)?.get(&to.1).copied() {
            if !replace {
                return Err(Errno::EEXIST);
            }
            if old == ino {
                return Ok(0);
            }
            let is_dir = matches!(self.inode(ino)?.kind, Kind::Directory(_));
            self.check_removable(old, is_dir)?;
            self.release(old);
        }
        self.change_names(vec![(from, None), (to, Some(ino))]);
        Ok(0)
    }

    fn check_removable(&self, ino: Ino, want_dir: bool) -> Result<(), Errno> {
        match (&self.inode(ino)?.kind, want_dir) {
            (Kind::Directory(entries), true) if !entries.is_empty() => Err(Errno::ENOTEMPTY),
            (Kind::Directory(_), false) => Err(Errno::EISDIR),
            (Kind::File(_) | Kind::Symlink(_), true) => Err(Errno::ENOTDIR),
            (Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_), _) => Ok(()),
        }
    }

    fn write(&mut self, ino: Ino, offset: u64, data: &[u8], now: SystemTime) -> Result<u64, Errno> {
        if self
            .used_pages
            .saturating_add(self.pages(ino)?.missing(offset, data.len()))
            > self.limit_pages
        {
            return Err(Errno::ENOSPC);
        }
        self.change_pages(ino, now, |pages| pages.write(offset, data))
    }

    fn change_pages(
        &mut self,
        ino: Ino,
        now: SystemTime,
        change: impl FnOnce(&mut Pages),
    ) -> Result<u64, Errno> {
        self.pages(ino)?;
        let Some(Inode {
            kind: Kind::File(pages),
            meta,
            links,
            ..
        }) = self.inodes.get_mut(&ino)
        else {
            return Err(Errno::EINVAL);
        };
        let before = pages.used();
        change(pages);
        meta.mtime = now;
        if *links > 0 {
            self.used_pages = self.used_pages + pages.used() - before;
        }
        Ok(0)
    }

    fn attr(&mut self, ino: Ino, mode: Option<u32>, mtime: Option<SystemTime>) -> Result<u64, Errno> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        inode.meta.mode = mode.unwrap_or(inode.meta.mode);
        inode.meta.mtime = mtime.unwrap_or(inode.meta.mtime);
        Ok(0)
    }

    fn flush(&mut self, ino: Ino) -> Result<u64, Errno> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        inode.flushed_meta = inode.meta;
        let written = match &mut inode.kind {
            Kind::File(pages) => pages.flush(),
            Kind::Directory(_) | Kind::Symlink(_) => 0,
        };
        if self.rule == Names::Journal {
            self.keep_names(|_| true);
        }
        Ok(written)
    }

    fn flush_dir(&mut self, dir: Ino) -> Result<u64, Errno> {
        self.flush(dir)?;
        self.keep_names(|slot| slot.0 == dir);
        Ok(0)
    }

    /// Makes the changes with a wanted slot durable, with the earlier changes of the same names.
    fn keep_names(&mut self, wanted: impl Fn(&(Ino, OsString)) -> bool) {
        let all = std::mem::take(&mut self.unflushed_names);
        let mut keep = vec![false; all.len()];
        let mut slots = BTreeSet::new();
        for (at, change) in all.iter().enumerate().rev() {
            if change
                .iter()
                .any(|(slot, _)| wanted(slot) || slots.contains(slot))
            {
                keep[at] = true;
                slots.extend(change.iter().map(|(slot, _)| slot.clone()));
            }
        }
        for (change, keep) in all.into_iter().zip(keep) {
            if keep {
                apply_change(&mut self.flushed_names, &change);
            } else {
                self.unflushed_names.push(change);
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        for ((dir, name), target) in &change {
            if let Some(Inode {
                kind: Kind::Directory(entries),
                ..
            }) = self.inodes.get_mut(dir)
            {
                match target {
                    Some(ino) => entries.insert(name.clone(), *ino),
                    None => entries.remove(name),
                };
            }
        }
        self.unflushed_names.push(change);
    }

    fn hold(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.links += 1;
        }
    }

    /// Takes a name away. The bytes stay: the medium may still name them, and open files read on.
    fn release(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.links -= 1;
            if let (0, Kind::File(pages)) = (inode.links, &inode.kind) {
                self.used_pages -= pages.used();
            }
        }
    }
}

fn apply_change(names: &mut BTreeMap<(Ino, OsString), Ino>, change: &NameChange) {
    for (slot, target) in change {
        match target {
            Some(ino) => names.insert(slot.clone(), *ino),
            None => names.remove(slot),
        };
    }
}
