//! A store and real folders for tests, and pictures of folders to compare.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::backup::{BackupOptions, BackupReport, backup};
use super::error::Error;
use super::progress::Progress;
use super::refs::LocalRefs;
use super::restore::{RestoreOptions, RestoreReport, restore};
use super::{Repository, Snapshot};
use crate::coffer::{Compression, Memory, Store};
use crate::id::RefName;

/// A repository in memory, a folder to back up and one to restore into.
pub(super) struct Scene {
    pub(super) dir: TempDir,
    pub(super) repository: Repository,
    pub(super) name: RefName,
    pub(super) options: BackupOptions,
}

/// An hour ahead, so that every file is settled.
pub(super) fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

impl Scene {
    pub(super) fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        let refs = LocalRefs::open(&dir.path().join("refs")).unwrap();
        let repository = Repository {
            store: Store::new(Arc::new(Memory::new()), Compression::default()).unwrap(),
            refs: Arc::new(refs),
        };
        Scene {
            dir,
            repository,
            name: "test".parse().unwrap(),
            options: BackupOptions {
                now: later,
                ..BackupOptions::default()
            },
        }
    }

    pub(super) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(super) fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// Writes a file of the source, and the folders above it.
    pub(super) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn try_backup(&self, progress: &Progress) -> Result<BackupReport, Error> {
        backup(
            &self.repository,
            &self.source(),
            &self.name,
            &self.options,
            progress,
        )
    }

    pub(super) fn backup(&self) -> BackupReport {
        self.try_backup(&Progress::new()).unwrap()
    }

    pub(super) fn try_restore(&self, options: &RestoreOptions) -> Result<RestoreReport, Error> {
        let progress = Progress::new();
        restore(
            &self.repository.store,
            &self.latest(),
            &self.target(),
            options,
            &progress,
        )
    }

    /// Restores everything into the empty target.
    pub(super) fn restore(&self) -> RestoreReport {
        self.try_restore(&RestoreOptions::default()).unwrap()
    }

    pub(super) fn latest(&self) -> Snapshot {
        let record = self.repository.refs.get(&self.name).unwrap().unwrap();
        record.latest().unwrap().clone()
    }
}

/// What a folder holds, by path.
pub(super) type Picture = BTreeMap<Vec<u8>, Thing>;

/// Everything of a file that a restore brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thing {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    bytes: Option<blake3::Hash>,
    /// The first path of the same file.
    first: Vec<u8>,
    has_holes: bool,
}

pub(super) fn picture(root: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut first = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let meta = fs::symlink_metadata(&path).unwrap();
        let file_type = meta.file_type();
        let mut bytes = None;
        let kind = if file_type.is_dir() {
            let mut inside: Vec<PathBuf> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            // Popped from the end: in ascending order, so that the first path of a file is the same one.
            inside.sort_unstable_by(|a, b| b.cmp(a));
            waiting.extend(inside);
            "folder".to_owned()
        } else if file_type.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).unwrap())
        } else if file_type.is_fifo() {
            "fifo".to_owned()
        } else {
            bytes = Some(blake3::hash(&fs::read(&path).unwrap()));
            format!("file of {}", meta.len())
        };
        let is_file = file_type.is_file();
        let same: &mut Vec<u8> = first.entry(meta.ino()).or_insert_with(|| relative.clone());
        picture.insert(
            relative.clone(),
            Thing {
                kind,
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                mtime: (meta.mtime(), meta.mtime_nsec()),
                bytes,
                first: if is_file { same.clone() } else { relative },
                has_holes: is_file && meta.blocks() * 512 + 4096 < meta.len(),
            },
        );
    }
    picture
}
