//! Bundles on disks of others: such a disk is mounted for a moment, to be read and not to be written, and nobody sees it.
//!
//! ```text
//! mount (ro, nosuid, nodev, noexec, nosymfollow) ─> list or open ─> detach
//! ```
//!
//! Only regular files at its top whose names parsed are looked at. What is open is read to its end after the disk is detached. A
//! disk is never checked, formatted or written here: a journal that was not played back stays so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::act::{NO_SYMLINKS, Tools, failed};
use super::wire::FoundBundle;
use crate::board::storage::disks::Device;
use crate::board::storage::mounts;
use crate::board::storage::signature::FileSystem;
use crate::id::{BundleName, DiskName};
use crate::node::DiskTrouble;

/// Names at the top of a disk that are looked at, and bundles that are told of.
const NAMES_MAX: usize = 4096;
const BUNDLES_MAX: usize = 64;

/// The file system on a disk or a part of it.
struct Stick {
    device: DiskName,
    title: String,
    kind: FileSystem,
}

/// A disk that is mounted until this is dropped; what is open on it stays open.
struct Mounted<'a> {
    path: &'a Path,
}

impl Tools<'_> {
    /// The bundles at the top of every disk of others that can be read.
    pub(super) fn bundles(&self) -> Result<Vec<FoundBundle>, DiskTrouble> {
        let mut found = Vec::new();
        for stick in self.sticks()? {
            match self.mount_stick(&stick) {
                Ok(mounted) => found.extend(bundles_at(mounted.path, &stick)),
                Err(trouble) => tracing::info!(%trouble, disk = %stick.device, "a disk cannot be read"),
            }
            if found.len() >= BUNDLES_MAX {
                break;
            }
        }
        found.truncate(BUNDLES_MAX);
        Ok(found)
    }

    /// Opens a bundle on one of them.
    pub(super) fn open_bundle(&self, disk: &DiskName, name: &BundleName) -> Result<File, DiskTrouble> {
        let stick = self.sticks()?.into_iter().find(|stick| stick.device == *disk);
        let mounted = self.mount_stick(&stick.ok_or(DiskTrouble::Absent)?)?;
        let opened = open(&mounted.path.join(name.as_str()));
        opened.map_err(|error| failed("open", &error))
    }

    fn sticks(&self) -> Result<Vec<Stick>, DiskTrouble> {
        let mounts = self.mounts()?;
        let devices = self.devices()?.into_iter();
        let free = devices.filter(|device| !self.is_taken(device, &mounts));
        Ok(free.flat_map(|device| self.sticks_of(&device)).collect())
    }

    fn sticks_of(&self, device: &Device) -> Vec<Stick> {
        let names = device.partitions.iter().map(|part| &part.name);
        let readable = [&device.name].into_iter().chain(names).filter_map(|name| {
            Some(Stick {
                kind: self.file_system(name)?,
                device: name.clone(),
                title: device.title.clone(),
            })
        });
        readable.collect()
    }

    fn mount_stick(&self, stick: &Stick) -> Result<Mounted<'_>, DiskTrouble> {
        let path = self.options.stick.as_path();
        fs::create_dir_all(path).map_err(|error| failed("mkdir", &error))?;
        // A helper that was killed left it.
        while mounts::at(&self.mounts()?, path).is_some() {
            umount2(path, MntFlags::MNT_DETACH).map_err(|error| failed("umount", &error))?;
        }
        let flags = MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            | MsFlags::MS_NOATIME
            | NO_SYMLINKS;
        let device: PathBuf = self.options.dev.join(stick.device.as_str());
        match mount(
            Some(&device),
            path,
            Some(stick.kind.name),
            flags,
            stick.kind.options,
        ) {
            Ok(()) => Ok(Mounted { path }),
            Err(Errno::EBUSY) => Err(DiskTrouble::Busy),
            Err(error) => Err(failed("mount", &error)),
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.path, MntFlags::MNT_DETACH) {
            tracing::warn!(%error, "a disk stays mounted");
        }
    }
}

fn bundles_at(path: &Path, stick: &Stick) -> Vec<FoundBundle> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::info!(%error, disk = %stick.device, "a disk cannot be listed");
            return Vec::new();
        }
    };
    let mut found: Vec<FoundBundle> = entries
        .take(NAMES_MAX)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name: BundleName = entry.file_name().to_str()?.parse().ok()?;
            // Of the entry itself, whatever it leads to.
            let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(FoundBundle {
                disk: stick.device.clone(),
                title: stick.title.clone(),
                name,
                size_bytes: about.len(),
            })
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// A regular file and nothing that only looks like one.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

/// How long an open bundle is, and when it was changed, in seconds since 1970.
pub(super) fn about(file: &File) -> Result<(u64, i64), DiskTrouble> {
    let about = file.metadata().map_err(|error| failed("stat", &error))?;
    Ok((about.len(), about.mtime()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn s14_only_regular_files_with_names_of_bundles_are_listed_and_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good.raucb"), b"bundle").unwrap();
        fs::write(at("notes.txt"), b"notes").unwrap();
        fs::write(at(".hidden.raucb"), b"x").unwrap();
        fs::write(at("odd name.raucb"), b"x").unwrap();
        fs::create_dir(at("folder.raucb")).unwrap();
        symlink("/etc/shadow", at("link.raucb")).unwrap();
        nix::unistd::mkfifo(&at("pipe.raucb"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let stick = Stick {
            device: "sda1".parse().unwrap(),
            title: "Stick".to_owned(),
            kind: FileSystem::EXT4,
        };
        let found = bundles_at(dir.path(), &stick);
        let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
        assert_eq!((names, found[0].size_bytes), (vec!["good.raucb"], 6));
        assert_eq!(about(&open(&at("good.raucb")).unwrap()).unwrap().0, 6);
        for other in ["link.raucb", "pipe.raucb", "folder.raucb", "none.raucb"] {
            assert!(open(&at(other)).is_err(), "{other}");
        }
    }
}
