//! A small ext4 file system in a file: full and read-only disks as the kernel makes them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};

use super::seed;

/// A mounted image; unmounted and removed when dropped.
pub(crate) struct LoopDisk {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl LoopDisk {
    /// Makes and mounts an image of `bytes`, or says why the test is skipped.
    pub(crate) fn mount_or_skip(bytes: u64) -> Option<Self> {
        match Self::mount(bytes) {
            Ok(disk) => Some(disk),
            Err(error) => {
                seed::skip(&format!("no ext4 image can be mounted here ({error})"));
                None
            }
        }
    }

    fn mount(bytes: u64) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("refuge-loop-").tempdir()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image))?;
        let mut disk = Self {
            folder,
            mounted: false,
        };
        std::fs::create_dir(disk.root())?;
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .arg(&image)
            .arg(disk.root()))?;
        disk.mounted = true;
        Ok(disk)
    }

    /// The mount point.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// A path below the mount point.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// Makes the disk read-only under whoever uses it, as ext4 does when its journal fails; for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn abort(&self) -> io::Result<()> {
        // `remount,ro` refuses while files are open for writing; an error of the card does not ask.
        run(Command::new("mount")
            .args(["-o", "remount,abort"])
            .arg(self.root()))
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted && umount2(&self.root(), MntFlags::empty()).is_err() {
            eprintln!("{} is still in use, detached", self.root().display());
            if let Err(errno) = umount2(&self.root(), MntFlags::MNT_DETACH) {
                eprintln!("and can't be detached: {errno}");
            }
        }
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{:?}: {}",
        command.get_program(),
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::LoopDisk;
    use std::io::ErrorKind;

    #[test]
    fn a_small_disk_fills_and_an_aborted_one_refuses() {
        let Some(disk) = LoopDisk::mount_or_skip(16 * 1024 * 1024) else {
            return;
        };
        let error = std::fs::write(disk.path("large"), vec![1; 32 * 1024 * 1024]).expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        std::fs::remove_file(disk.path("large")).expect("a removal");
        std::fs::write(disk.path("small"), b"bytes").expect("room again");
        disk.abort().expect("the kernel takes it");
        let error = std::fs::write(disk.path("other"), b"bytes").expect_err("read only");
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(std::fs::read(disk.path("small")).expect("a read"), b"bytes");
    }
}
