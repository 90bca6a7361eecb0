//! What the helper does: lists disks, formats one, mounts and unmounts it.
//!
//! A disk is touched only if it is listed, has the serial that was given, and nobody else uses it. What is on it is data and
//! nothing else: it is mounted without devices, programs, set-user-id and links (security row S14).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::HelperOptions;
use crate::board::storage::disks::{self, Device};
use crate::board::storage::mounts::{self, Mount};
use crate::board::storage::signature::{self, Content, FileSystem};
use crate::id::{DiskName, DiskSerial, DiskUuid};
use crate::node::{Disk, DiskTrouble, Holds};

/// Where programs of the system are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Erased at both ends before a disk is formatted: partition tables and their copies, marks of arrays.
const ERASED_BYTES: u64 = 1024 * 1024;

/// The smallest disk that is worth it, and that a file system fits on.
const DISK_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Links on the disk lead nowhere (mount(2), Linux 5.10; older kernels pass over it).
pub(super) const NO_SYMLINKS: MsFlags = MsFlags::from_bits_retain(256);

/// The words of the program's failure that are passed on, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// The helper's hands.
pub(in crate::board) struct Tools<'a> {
    pub(in crate::board) options: &'a HelperOptions,
}

/// Where the disk with this id is mounted.
pub(in crate::board) fn disk_path(disks: &Path, uuid: &DiskUuid) -> PathBuf {
    disks.join(uuid.as_str())
}

/// A program or a call that failed.
pub(super) fn failed(program: &str, reason: &dyn std::fmt::Display) -> DiskTrouble {
    DiskTrouble::Failed {
        program: program.to_owned(),
        reason: reason.to_string(),
    }
}

impl Tools<'_> {
    /// The disks that are plugged in, and what they hold.
    pub(super) fn disks(&self) -> Result<Vec<Disk>, DiskTrouble> {
        let mounts = self.mounts()?;
        let devices = self.devices()?;
        Ok(devices
            .into_iter()
            .map(|device| Disk {
                holds: self.holds(&device, &mounts),
                name: device.name,
                title: device.title,
                serial: device.serial,
                size_bytes: device.size_bytes,
            })
            .collect())
    }

    /// Mounts a disk; formats it before where it is empty, or is not ours and may be.
    pub(super) fn adopt(
        &self,
        name: &DiskName,
        serial: &DiskSerial,
        may_format: bool,
    ) -> Result<DiskUuid, DiskTrouble> {
        let device = self.devices()?.into_iter().find(|device| device.name == *name);
        let device = device.ok_or(DiskTrouble::Absent)?;
        if device.serial != *serial {
            return Err(DiskTrouble::Serial);
        }
        match self.holds(&device, &self.mounts()?) {
            Holds::System => return Err(DiskTrouble::System),
            Holds::Foreign { what } if !may_format => return Err(DiskTrouble::Foreign { what }),
            Holds::Foreign { .. } | Holds::Nothing => self.format(&device)?,
            Holds::Refuge { .. } => {}
        }
        match self.content(&device.name) {
            Ok(Content::Refuge(uuid)) => {
                self.mount(&uuid)?;
                Ok(uuid)
            }
            Ok(Content::Nothing | Content::Foreign(_)) => {
                Err(failed("mke2fs", &"it made no file system of ours"))
            }
            Err(error) => Err(failed("read", &error)),
        }
    }

    /// Mounts the disk with this file system, checked.
    pub(super) fn mount(&self, uuid: &DiskUuid) -> Result<(), DiskTrouble> {
        let device = self.find(uuid)?;
        let path = disk_path(&self.options.disks, uuid);
        if let Some(mounted) = mounts::at(&self.mounts()?, &path) {
            if mounted.device == device.numbers && !mounted.is_read_only {
                return Ok(());
            }
            // Of the same disk before it was pulled, or before it failed.
            self.release(uuid, true)?;
        }
        let node = self.options.dev.join(device.name.as_str());
        check(&node)?;
        fs::create_dir_all(&path).map_err(|error| failed("mkdir", &error))?;
        let flags =
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME | NO_SYMLINKS;
        mount(Some(&node), &path, Some("ext4"), flags, Some("errors=remount-ro"))
            .map_err(|error| failed("mount", &error))?;
        chown(&path, Some(self.options.user), Some(self.options.group))
            .map_err(|error| failed("chown", &error))
    }

    /// Unmounts it, if it is mounted.
    pub(super) fn release(&self, uuid: &DiskUuid, is_pulled: bool) -> Result<(), DiskTrouble> {
        let path = disk_path(&self.options.disks, uuid);
        let flags = match is_pulled {
            // Whoever still has a file open there only sees errors.
            true => MntFlags::MNT_DETACH,
            false => MntFlags::empty(),
        };
        while mounts::at(&self.mounts()?, &path).is_some() {
            match umount2(&path, flags) {
                Ok(()) => {}
                Err(Errno::EBUSY) => return Err(DiskTrouble::Busy),
                Err(error) => return Err(failed("umount", &error)),
            }
        }
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("rmdir", &error)),
            _ => Ok(()),
        }
    }

    /// The one disk with this file system.
    fn find(&self, uuid: &DiskUuid) -> Result<Device, DiskTrouble> {
        let is_it = |device: &Device| {
            !self.is_own(device)
                && matches!(self.content(&device.name), Ok(Content::Refuge(found)) if found == *uuid)
        };
        let mut found = self.devices()?.into_iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(device), None) => Ok(device),
            (Some(_), Some(_)) => Err(DiskTrouble::Twin),
            (None, _) => Err(DiskTrouble::Absent),
        }
    }

    /// Makes it a disk of ours. Whatever was on it is lost.
    fn format(&self, device: &Device) -> Result<(), DiskTrouble> {
        if device.size_bytes < DISK_BYTES_MIN {
            return Err(failed("mke2fs", &"the disk is too small"));
        }
        let node = self.options.dev.join(device.name.as_str());
        erase(&node, device.size_bytes).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => DiskTrouble::Busy,
            _ => failed("erase", &error),
        })?;
        let owner = format!(
            "lazy_itable_init=1,root_owner={}:{}",
            self.options.user, self.options.group
        );
        let mut program = program("mke2fs");
        program.args(["-t", "ext4", "-F", "-q", "-m", "0", "-L", signature::LABEL, "-E"]);
        run(program.arg(owner).arg(&node), |code| code == 0)
    }

    fn holds(&self, device: &Device, mounts: &[Mount]) -> Holds {
        if self.is_taken(device, mounts) {
            return Holds::System;
        }
        match self.content(&device.name) {
            Ok(Content::Refuge(uuid)) => Holds::Refuge { uuid },
            Ok(Content::Nothing) => Holds::Nothing,
            Ok(Content::Foreign(whole)) => {
                let parts = device
                    .partitions
                    .iter()
                    .filter_map(|part| match self.content(&part.name) {
                        Ok(Content::Foreign(what)) => Some(format!("{}: {what}", part.name)),
                        Ok(Content::Refuge(_)) => Some(format!("{}: blobs of a node", part.name)),
                        Ok(Content::Nothing) => None,
                        Err(error) => Some(format!("{}: {error}", part.name)),
                    });
                Holds::Foreign {
                    what: [whole].into_iter().chain(parts).collect(),
                }
            }
            Err(error) => Holds::Foreign {
                what: vec![format!("what cannot be read ({error})")],
            },
        }
    }

    /// Whether the box itself uses it, or something on it.
    pub(super) fn is_taken(&self, device: &Device, mounts: &[Mount]) -> bool {
        let numbers = || {
            device
                .partitions
                .iter()
                .map(|part| &part.numbers)
                .chain([&device.numbers])
        };
        let is_elsewhere = |mount: &Mount| !mount.path.starts_with(&self.options.disks);
        let is_used = mounts
            .iter()
            .any(|mount| is_elsewhere(mount) && numbers().any(|numbers| *numbers == mount.device));
        is_used || device.is_held || self.is_own(device)
    }

    fn is_own(&self, device: &Device) -> bool {
        disks::fits(&self.options.own_disk, device.name.as_str())
    }

    fn content(&self, name: &DiskName) -> io::Result<Content> {
        Ok(signature::content(&self.head(name)?))
    }

    /// What a disk of others, or a part of it, can be mounted as.
    pub(super) fn file_system(&self, name: &DiskName) -> Option<FileSystem> {
        signature::file_system(&self.head(name).ok()?)
    }

    fn head(&self, name: &DiskName) -> io::Result<Vec<u8>> {
        let device = File::open(self.options.dev.join(name.as_str()))?;
        let mut head = Vec::with_capacity(signature::HEAD_BYTES);
        device.take(signature::HEAD_BYTES as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    pub(super) fn devices(&self) -> Result<Vec<Device>, DiskTrouble> {
        disks::list(&self.options.sys).map_err(|error| failed("list", &error))
    }

    pub(super) fn mounts(&self) -> Result<Vec<Mount>, DiskTrouble> {
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(|error| failed("mountinfo", &error))?;
        Ok(mounts::parse(&text))
    }
}

/// Zeros over both ends of a device that nobody has open for himself.
fn erase(node: &Path, size_bytes: u64) -> io::Result<()> {
    let mut device = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(node)?;
    let zeros = vec![0; usize::try_from(ERASED_BYTES).unwrap_or(0)];
    for at in [0, size_bytes.saturating_sub(ERASED_BYTES)] {
        device.seek(SeekFrom::Start(at))?;
        device.write_all(&zeros)?;
    }
    device.sync_all()
}

/// Brings a file system in order as far as that loses nothing (e2fsck(8): 0 and 1 are good, 2 is for the root alone).
fn check(node: &Path) -> Result<(), DiskTrouble> {
    run(program("e2fsck").arg("-p").arg(node), |code| code & !3 == 0)
}

fn program(name: &str) -> Command {
    let mut program = Command::new(name);
    program
        .env_clear()
        .env("PATH", PATH)
        .stdin(std::process::Stdio::null());
    program
}

fn run(program: &mut Command, is_good: impl Fn(i32) -> bool) -> Result<(), DiskTrouble> {
    let name = program.get_program().to_string_lossy().into_owned();
    let output = program.output().map_err(|error| failed(&name, &error))?;
    if output.status.code().is_some_and(is_good) {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let mut said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
    said.truncate(said.floor_char_boundary(REASON_BYTES_MAX));
    Err(failed(&name, &said))
}
