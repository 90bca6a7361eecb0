//! Volume files: what they are called, how one begins, and which are open.
//!
//! ```text
//! volumes/00000007.vol         a shared volume: needles of many blobs, in groups that begin on 4 KiB
//! solo/000/00000012.vol        a volume of one large blob, made in staging/ and renamed when it is whole
//!
//! 0     magic "REFUGEVL", format u32, number u32, key 32, zeros, checksum of bytes 0..4080 (16 of BLAKE3)
//! 4096  needles
//! ```
//!
//! The key is the same in every volume of a store, so that one damaged first page loses nothing. Numbers are
//! never used twice, so a file that is gone stays gone. No volume is memory mapped: 32-bit
//! address space is small, and a read error must be an error, not a signal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

use crate::coffer::error::Error;
use crate::durable;

/// Bytes of a volume's first page; also what groups are aligned to, so that a torn write never touches a
/// page that was acknowledged before.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The same as the length of an array.
const PAGE_LEN: usize = 4096;

/// Marks the number of a solo volume.
pub(super) const SOLO: u32 = 1 << 31;

const MAGIC: &[u8; 8] = b"REFUGEVL";
const FORMAT: u32 = 1;
const CHECKED_BYTES: usize = 4080;

/// Volumes kept open for reading: few, as a box has few file descriptors.
const OPEN_MAX: usize = 16;

/// An open volume.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) key: [u8; 32],
}

/// The volume files of a store.
#[derive(Debug)]
pub(super) struct Volumes {
    root: PathBuf,
    key: OnceLock<[u8; 32]>,
    /// Most recently used last.
    open: Mutex<Vec<Arc<Volume>>>,
}

impl Volume {
    /// Creates a volume file and writes its first page; nothing is flushed.
    pub(super) fn create(path: &Path, number: u32, key: [u8; 32]) -> Result<Volume, Error> {
        let fail = |source| Error::io(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let volume = Volume {
            number,
            path: path.to_owned(),
            file,
            key,
        };
        if let Err(error) = volume.write_first_page(number) {
            // What stays holds nothing, and its number is not given again.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(volume)
    }

    /// Writes the first page; nothing is flushed.
    pub(super) fn write_first_page(&self, number: u32) -> Result<(), Error> {
        let page = first_page(number, &self.key);
        self.file
            .write_all_at(&page, 0)
            .map_err(|source| Error::io(&self.path, source))
    }

    /// Opens a volume file for reading, and for writing where the disk allows it. Where its first page is
    /// damaged, the store's key serves, if it is known.
    pub(super) fn open(path: &Path, number: u32, key: Option<&[u8; 32]>) -> Result<Volume, Error> {
        let fail = |source| Error::io(path, source);
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                File::open(path).map_err(fail)?
            }
            opened => opened.map_err(fail)?,
        };
        let damaged = |what| Error::Damaged {
            path: path.to_owned(),
            what,
        };
        let mut page = [0; PAGE_LEN];
        match file.read_exact_at(&mut page, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("its first page is cut"));
            }
            read => read.map_err(fail)?,
        }
        if &page[0..8] != MAGIC || page[CHECKED_BYTES..] != checksum(&page) {
            let key = *key.ok_or_else(|| damaged("its first page is not that of a volume"))?;
            tracing::warn!(path = %path.display(), "the first page of a volume is damaged; the store's key serves");
            return Ok(Volume {
                number,
                path: path.to_owned(),
                file,
                key,
            });
        }
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes"));
        if word(8) > FORMAT {
            return Err(Error::Newer {
                path: path.to_owned(),
                found: word(8),
                known: FORMAT,
            });
        }
        if word(12) != number {
            return Err(damaged("it is another volume under this name"));
        }
        let key = page[16..48].try_into().expect("32 bytes");
        Ok(Volume {
            number,
            path: path.to_owned(),
            file,
            key,
        })
    }

    /// Reads exactly these bytes.
    pub(super) fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| Error::io(&self.path, source))
    }

    /// Reads up to these bytes: fewer only at the end of the file.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::io(&self.path, source)),
            }
        }
        Ok(filled)
    }

    /// Asks the file system to set blocks aside for `len` bytes from `offset` on, beyond the end of the file and
    /// without moving it: appends then change nothing but the file itself, which halves what a small flush
    /// writes to its journal. Says whether it did; nothing depends on it.
    pub(super) fn reserve(&self, offset: u64, len: u64) -> bool {
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
            return false;
        };
        fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len).is_ok()
    }

    /// Gives back what was set aside and not used. What can't be given back is only space.
    pub(super) fn release(&self) {
        let released = self
            .file
            .metadata()
            .and_then(|file| self.file.set_len(file.len()));
        if let Err(error) = released {
            tracing::debug!(path = %self.path.display(), %error, "blocks set aside for a volume stay for now");
        }
    }

    /// Asks the system to begin writing what its page cache holds of these bytes, and to let go of what counts as
    /// written; a length of 0 is to the end. Nothing depends on it.
    pub(super) fn uncache(&self, from: u64, len: u64) {
        if let (Ok(from), Ok(len)) = (from.try_into(), len.try_into()) {
            let _ = posix_fadvise(&self.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    /// The file's length in bytes.
    pub(super) fn len(&self) -> Result<u64, Error> {
        Ok(self
            .file
            .metadata()
            .map_err(|source| Error::io(&self.path, source))?
            .len())
    }
}

/// Removes every file of a haystack but what was set aside, the index first. Durable on return.
pub(super) fn remove_all(root: &Path) -> Result<(), Error> {
    let is_absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let run = || -> io::Result<()> {
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            let is_index = path.file_stem().is_some_and(|stem| stem == "manifest")
                || path.extension().is_some_and(|extension| extension == "run");
            if is_index {
                fs::remove_file(&path)?;
            }
        }
        for folder in ["volumes", "solo", "staging"] {
            match fs::remove_dir_all(root.join(folder)) {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        durable::sync_folder_of(&root.join("manifest"))
    };
    match run() {
        Err(error) if !is_absent(&error) => Err(Error::io(root, error)),
        _ => Ok(()),
    }
}

impl Volumes {
    /// The volumes under the store's folder `root`, its folders created where missing.
    pub(super) fn at(root: &Path) -> Result<Volumes, Error> {
        for folder in ["volumes", "solo", "staging", "quarantine"] {
            let folder = root.join(folder);
            durable::create_folder(&folder).map_err(|source| Error::io(&folder, source))?;
        }
        Ok(Volumes {
            root: root.to_owned(),
            key: OnceLock::new(),
            open: Mutex::new(Vec::new()),
        })
    }

    /// Settles the store's key: the one known, else that of a volume, else a new one.
    pub(super) fn settle_key(&self, known: Option<[u8; 32]>) -> Result<[u8; 32], Error> {
        if let Some(key) = known.or_else(|| self.key.get().copied()) {
            return Ok(*self.key.get_or_init(|| key));
        }
        let shared = self.shared()?;
        let solos = self.solos(0)?;
        let readable = |&number: &u32| {
            Volume::open(&self.path(number), number, None)
                .ok()
                .map(|volume| volume.key)
        };
        let key = match shared.iter().chain(&solos).find_map(readable) {
            Some(key) => key,
            None => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|_| Error::Busy)?;
                key
            }
        };
        Ok(*self.key.get_or_init(|| key))
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        if number & SOLO == 0 {
            return self.root.join(format!("volumes/{number:08}.vol"));
        }
        let number = number & !SOLO;
        self.root
            .join(format!("solo/{:03}/{number:08}.vol", number / 1000))
    }

    /// The open volume of this number; `None` where there is no such file.
    pub(super) fn get(&self, number: u32) -> Result<Option<Arc<Volume>>, Error> {
        let mut open = self.open.lock().expect("no panic while the list is held");
        if let Some(at) = open.iter().position(|volume| volume.number == number) {
            let volume = open.remove(at);
            open.push(Arc::clone(&volume));
            return Ok(Some(volume));
        }
        let path = self.path(number);
        let volume = match Volume::open(&path, number, self.key.get()) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => Arc::new(opened?),
        };
        self.keep(&mut open, Arc::clone(&volume));
        Ok(Some(volume))
    }

    /// Makes a volume just created known as open.
    pub(super) fn insert(&self, volume: Arc<Volume>) {
        let mut open = self.open.lock().expect("no panic while the list is held");
        self.keep(&mut open, volume);
    }

    fn keep(&self, open: &mut Vec<Arc<Volume>>, volume: Arc<Volume>) {
        if open.len() >= OPEN_MAX {
            open.remove(0);
        }
        open.push(volume);
    }

    /// Removes a volume file; durable on return. Who reads it goes on; one that is gone is no error.
    pub(super) fn remove(&self, number: u32) -> Result<(), Error> {
        self.open
            .lock()
            .expect("no panic while the list is held")
            .retain(|volume| volume.number != number);
        let path = self.path(number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(|source| Error::io(&path, source))?,
        }
        durable::sync_folder_of(&path).map_err(|source| Error::io(&path, source))
    }

    /// The numbers of all shared volumes, ascending.
    pub(super) fn shared(&self) -> Result<Vec<u32>, Error> {
        numbers_in(&self.folder("volumes"))
    }

    /// The numbers of all solo volumes from `first` on, ascending, with their mark.
    pub(super) fn solos(&self, first: u32) -> Result<Vec<u32>, Error> {
        let first = first & !SOLO;
        let root = self.folder("solo");
        let mut solos = Vec::new();
        for entry in fs::read_dir(&root).map_err(|source| Error::io(&root, source))? {
            let entry = entry.map_err(|source| Error::io(&root, source))?;
            let thousand = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok());
            if thousand.is_some_and(|thousand| thousand >= first / 1000) {
                solos.extend(
                    numbers_in(&entry.path())?
                        .into_iter()
                        .filter(|&n| n >= first)
                        .map(|n| n | SOLO),
                );
            }
        }
        solos.sort_unstable();
        Ok(solos)
    }

    /// Removes shared volumes whose first page never became durable: needles are appended only after that, so
    /// nothing in them was acknowledged, and their key is on no medium.
    pub(super) fn clear_unbegun(&self) -> Result<(), Error> {
        for number in self.shared()? {
            let path = self.path(number);
            if is_unbegun(&path).map_err(|source| Error::io(&path, source))? {
                tracing::warn!(number, "a volume that was never begun is removed");
                self.remove(number)?;
            }
        }
        Ok(())
    }

    /// Removes what streams that were cut left behind.
    pub(super) fn clear_staging(&self) -> Result<(), Error> {
        let folder = self.folder("staging");
        for entry in fs::read_dir(&folder).map_err(|source| Error::io(&folder, source))? {
            let path = entry.map_err(|source| Error::io(&folder, source))?.path();
            fs::remove_file(&path).map_err(|source| Error::io(&path, source))?;
        }
        Ok(())
    }
}

fn numbers_in(folder: &Path) -> Result<Vec<u32>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| Error::io(folder, source))? {
        let name = entry.map_err(|source| Error::io(folder, source))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".vol"))
            .and_then(|name| name.parse().ok());
        numbers.extend(number.filter(|number| number & SOLO == 0));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn is_unbegun(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len != PAGE_BYTES {
        return Ok(len < PAGE_BYTES);
    }
    let mut page = [0; PAGE_LEN];
    file.read_exact_at(&mut page, 0)?;
    Ok(&page[0..8] != MAGIC || page[CHECKED_BYTES..] != checksum(&page))
}

fn first_page(number: u32, key: &[u8; 32]) -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    page[0..8].copy_from_slice(MAGIC);
    page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    page[12..16].copy_from_slice(&number.to_le_bytes());
    page[16..48].copy_from_slice(key);
    let checksum = checksum(&page);
    page[CHECKED_BYTES..].copy_from_slice(&checksum);
    page
}

fn checksum(page: &[u8]) -> [u8; 16] {
    blake3::hash(&page[..CHECKED_BYTES]).as_bytes()[..16]
        .try_into()
        .expect("16 of 32 bytes")
}
