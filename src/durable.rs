//! Small state files, replaced whole and never half.
//!
//! A file is one header line and its payload:
//!
//! ```text
//! refuge-state 1 <blake3 of the payload, 64 hex digits>\n
//! <payload>
//! ```
//!
//! [`replace`] writes `NAME.new`, flushes it, keeps the present file as `NAME.old` (a hard link, so that at
//! no moment there is none), renames over `NAME` and flushes the folder. [`read`] takes `NAME` where it is
//! whole, else `NAME.old`, and says so; it never makes up a state. What a file means is its owner's matter.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

/// The largest state file that is read, in bytes: above this it is damage, not state.
pub const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;

const MAGIC: &str = "refuge-state 1 ";
const HEADER_BYTES: usize = MAGIC.len() + 64 + 1;

/// Why a state file could not be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the file nor its previous generation is whole, though at least one is there.
    #[error("{} is damaged and so is its previous generation: restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Which generation a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The file itself.
    Current,
    /// The file was missing or damaged, its previous generation was whole.
    Previous,
}

/// What a read found: the payload, and whether it is the newest generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The payload.
    pub payload: Vec<u8>,
    /// Where it came from.
    pub generation: Generation,
}

/// Replaces the file at `path` by `payload`, readable by its owner only. Durable on return; a crash at any
/// moment leaves the old payload or the new one.
///
/// # Errors
/// [`Error::Io`]: the old payload is in force, or the new one already, durably or not. Whoever does something that only one of
/// them allows reads the file first, and takes a new one for neither: a power cut may bring back the old.
pub fn replace(path: &Path, payload: &[u8]) -> Result<(), Error> {
    let fresh = sibling(path, ".new");
    let old = sibling(path, ".old");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(header(payload).as_bytes())?;
        file.write_all(payload)?;
        file.sync_all()?;
        // Only a whole file is worth keeping as the previous generation.
        if matches!(read_one(path), Ok(Some(Some(_)))) {
            remove_if_there(&old)?;
            fs::hard_link(path, &old)?;
        }
        fs::rename(&fresh, path)?;
        sync_folder_of(path)
    };
    write().map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// Reads the file at `path`: `None` where neither it nor a previous generation exists.
///
/// # Errors
/// [`Error::Damaged`] where something is there and nothing is whole; [`Error::Io`] else.
pub fn read(path: &Path) -> Result<Option<State>, Error> {
    let current = read_one(path)?;
    if let Some(Some(payload)) = current {
        return Ok(Some(State {
            payload,
            generation: Generation::Current,
        }));
    }
    let previous = read_one(&sibling(path, ".old"))?;
    match (current, previous) {
        (_, Some(Some(payload))) => Ok(Some(State {
            payload,
            generation: Generation::Previous,
        })),
        (None, None) => Ok(None),
        _ => Err(Error::Damaged {
            path: path.to_owned(),
        }),
    }
}

/// Removes the file and its previous generation. Durable on return; nothing there is no error.
///
/// # Errors
/// [`Error::Io`].
pub fn remove(path: &Path) -> Result<(), Error> {
    let run = || -> io::Result<()> {
        // The previous generation first, and durably: a crash in between must not bring it back as the state.
        let had_previous = remove_if_there(&sibling(path, ".old"))?;
        remove_if_there(&sibling(path, ".new"))?;
        if had_previous {
            sync_folder_of(path)?;
        }
        remove_if_there(path)?;
        sync_folder_of(path)
    };
    run().map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// Flushes the folder that holds `path`, so that its name is durable.
///
/// # Errors
/// As the operating system says.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Creates a folder and its missing parents, each name durable on return.
///
/// # Errors
/// As the operating system says.
pub fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_folder(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn header(payload: &[u8]) -> String {
    format!(
        "{MAGIC}{}\n",
        HEXLOWER.encode_display(blake3::hash(payload).as_bytes())
    )
}

/// `None`: no such file. `Some(None)`: there, but not whole.
fn read_one(path: &Path) -> Result<Option<Option<Vec<u8>>>, Error> {
    let run = || -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(STATE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() < HEADER_BYTES || bytes.len() as u64 > STATE_BYTES_MAX {
            return Ok(None);
        }
        let payload = bytes.split_off(HEADER_BYTES);
        Ok((bytes == header(&payload).as_bytes()).then_some(payload))
    };
    match run() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Says whether it was there.
fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_gives_its_previous_generation_and_never_an_empty_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        let whole = fs::read(&path).unwrap();
        let damages: [Vec<u8>; 4] = [
            vec![],
            whole[..whole.len() / 2].to_vec(),
            whole[..whole.len() - 1].to_vec(),
            vec![0; whole.len()],
        ];
        for damage in damages {
            fs::write(&path, &damage).unwrap();
            let state = read(&path).unwrap().unwrap();
            assert_eq!(
                (state.payload.as_slice(), state.generation),
                (&b"one"[..], Generation::Previous)
            );
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().payload, b"one");
        fs::write(sibling(&path, ".old"), b"noise").unwrap();
        assert!(matches!(read(&path), Err(Error::Damaged { .. })));
    }

    #[test]
    fn replacing_a_damaged_file_keeps_the_whole_previous_generation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        fs::write(&path, b"noise").unwrap();
        replace(&path, b"three").unwrap();
        fs::write(&path, b"noise").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().payload, b"one");
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
