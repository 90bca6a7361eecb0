//! Moving a disk between memory and a plain folder: a crash state is judged in a folder, where nothing forgets any more.

use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::medium::{Ino, Kind, Medium, Names, Op, ROOT};
use super::pages::Pages;

/// A folder in memory where there is one: what is judged there is not what a flush is for.
///
/// # Panics
/// When no temporary folder can be made.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary folder")
}

/// Writes what the disk holds into an empty folder. Two names of one file become two files.
pub(crate) fn write_to(medium: &Medium, folder: &Path) -> io::Result<()> {
    write_dir(medium, ROOT, folder)
}

fn write_dir(medium: &Medium, dir: Ino, folder: &Path) -> io::Result<()> {
    for (name, ino) in medium.entries(dir)? {
        let path = folder.join(name);
        let inode = medium.inode(*ino)?;
        match &inode.kind {
            Kind::Directory(_) => {
                fs::create_dir(&path)?;
                write_dir(medium, *ino, &path)?;
            }
            Kind::Symlink(target) => {
                symlink(target, &path)?;
                continue;
            }
            Kind::File(pages) => {
                let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
                file.set_len(pages.size())?;
                write_pieces(pages, &file)?;
                file.set_times(FileTimes::new().set_modified(inode.meta.mtime))?;
            }
        }
        fs::set_permissions(&path, Permissions::from_mode(inode.meta.mode))?;
    }
    Ok(())
}

/// Writes a file, but not its zeros: logs that are made longer than they are would take all memory.
fn write_pieces(pages: &Pages, file: &fs::File) -> io::Result<()> {
    const PIECE: usize = 64 * 1024;
    for offset in (0..pages.size()).step_by(PIECE) {
        let left = usize::try_from(pages.size() - offset).map_err(io::Error::other)?;
        let piece = pages.read(offset, left.min(PIECE));
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece, offset)?;
        }
    }
    Ok(())
}

/// A disk that holds, durably, what a folder holds.
pub(crate) fn read_from(folder: &Path, rule: Names) -> io::Result<Medium> {
    let mut medium = Medium::new(rule);
    read_dir(&mut medium, ROOT, folder)?;
    Ok(medium)
}

fn read_dir(medium: &mut Medium, dir: Ino, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name, meta) = (entry.path(), entry.file_name(), entry.metadata()?);
        let (kind, mode, now) = (
            meta.file_type(),
            meta.permissions().mode() & 0o7777,
            meta.modified()?,
        );
        if kind.is_dir() {
            let ino = done(medium, &Op::Mkdir { dir, name, mode }, now)?;
            read_dir(medium, ino, &path)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path)?.into_os_string();
            done(medium, &Op::Symlink { dir, name, target }, now)?;
        } else {
            let ino = done(medium, &Op::Create { dir, name, mode }, now)?;
            let data: Arc<[u8]> = fs::read(&path)?.into();
            done(medium, &Op::Write { ino, offset: 0, data }, now)?;
            done(medium, &Op::Flush { ino }, now)?;
        }
    }
    done(medium, &Op::FlushDir { ino: dir }, SystemTime::now())?;
    Ok(())
}

fn done(medium: &mut Medium, op: &Op, now: SystemTime) -> io::Result<u64> {
    Ok(medium.apply(op, now)?)
}
