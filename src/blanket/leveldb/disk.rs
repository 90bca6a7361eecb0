//! The file system below the crate: it flushes what must be durable, in the order it must, and remembers every failure.
//!
//! - A file that is made, and one that is renamed, is in its folder on the medium when the call returns.
//! - `flush` of a writer is a flush of the file; a writer that is dropped flushes what it has.
//! - After a failure nothing is written, renamed or deleted any more; reads go on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rusty_leveldb::env::{Env, FileLock, Logger, RandomAccess};
use rusty_leveldb::{Result, Status, StatusCode};

use super::super::ordered::tail::fill;
use super::health::Health;
use super::table::Table;

/// Bytes that are read or written at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// The file system, for one database.
pub(super) struct Disk {
    health: Arc<Health>,
    /// Holds the lock of the database.
    lock: Mutex<Option<File>>,
}

impl Disk {
    pub(super) fn new(health: Arc<Health>) -> Disk {
        Disk {
            health,
            lock: Mutex::new(None),
        }
    }

    /// The outcome of a call, noted where it failed.
    fn noted<T>(&self, done: io::Result<T>) -> Result<T> {
        done.map_err(|error| self.health.failed(error).into())
    }

    /// The outcome of a call that may not find what it looks for.
    fn found<T>(&self, done: io::Result<T>) -> Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error.into()),
            done => self.noted(done),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        self.health.writable()?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        sync_folder_of(path)?;
        Ok(Box::new(Flushed {
            file,
            waiting: Vec::with_capacity(BUFFER_BYTES),
            is_flushed: true,
            health: Arc::clone(&self.health),
        }))
    }
}

impl Env for Disk {
    fn open_sequential_file(&self, path: &Path) -> Result<Box<dyn Read>> {
        let file = self.found(File::open(path))?;
        Ok(Box::new(Filled(BufReader::with_capacity(BUFFER_BYTES, file))))
    }

    fn open_random_access_file(&self, path: &Path) -> Result<Box<dyn RandomAccess>> {
        let file = self.noted(File::open(path))?;
        let table = Table::open(file, path, Arc::clone(&self.health))?;
        Ok(Box::new(table))
    }

    fn open_writable_file(&self, path: &Path) -> Result<Box<dyn Write>> {
        self.noted(self.create(path))
    }

    fn open_appendable_file(&self, _: &Path) -> Result<Box<dyn Write>> {
        let why = "logs and manifests are not written on";
        Err(Status::new(StatusCode::NotSupported, why))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.noted(path.try_exists())
    }

    fn children(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let names = fs::read_dir(path).and_then(|entries| {
            entries
                .map(|entry| Ok(PathBuf::from(entry?.file_name())))
                .collect::<io::Result<Vec<PathBuf>>>()
        });
        // The crate panics over names that are no text; it made none of those.
        let is_text = |name: &PathBuf| name.to_str().is_some();
        Ok(self.noted(names)?.into_iter().filter(is_text).collect())
    }

    fn size_of(&self, path: &Path) -> Result<usize> {
        let bytes = self.noted(fs::metadata(path))?.len();
        usize::try_from(bytes).map_err(|_| {
            let why = format!("{} is too long", path.display());
            self.health.damaged(why).into()
        })
    }

    fn delete(&self, path: &Path) -> Result<()> {
        self.health.writable()?;
        // What could not be deleted is found again when the database is opened.
        Ok(fs::remove_file(path)?)
    }

    fn mkdir(&self, _: &Path) -> Result<()> {
        // It is made before, with the rights it needs.
        Ok(())
    }

    fn rmdir(&self, path: &Path) -> Result<()> {
        self.health.writable()?;
        self.noted(fs::remove_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = self
            .health
            .writable()
            .and_then(|()| fs::rename(from, to))
            .and_then(|()| sync_folder_of(to));
        self.noted(renamed)
    }

    fn lock(&self, path: &Path) -> Result<FileLock> {
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let file = self.noted(options)?;
        let short = |number: i32| libc::c_short::try_from(number).expect("the system's own numbers fit");
        let whole = libc::flock {
            l_type: short(libc::F_WRLCK),
            l_whence: short(libc::SEEK_SET),
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // Of the same kind as other LevelDB programs take, so that they are kept out.
        if fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).is_err() {
            return Err(Status::new(StatusCode::LockError, "another program has it open"));
        }
        *self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(file);
        Ok(FileLock {
            id: path.display().to_string(),
        })
    }

    fn unlock(&self, _: FileLock) -> Result<()> {
        *self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        Ok(())
    }

    fn new_logger(&self, _: &Path) -> Result<Logger> {
        Ok(Logger::new(Box::new(io::sink())))
    }

    fn micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn sleep_for(&self, micros: u32) {
        std::thread::sleep(Duration::from_micros(u64::from(micros)));
    }
}

/// A reader that answers as much as was asked for, unless the file ends: the crate takes less for the end.
struct Filled(BufReader<File>);

impl Read for Filled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        fill(&mut self.0, buffer)
    }
}

/// A file that is on the medium when it is flushed, and when it is dropped.
struct Flushed {
    file: File,
    /// What is not written yet. After a failure it never is: half a record stays half.
    waiting: Vec<u8>,
    is_flushed: bool,
    health: Arc<Health>,
}

impl Write for Flushed {
    /// Writes all of it: the crate does not look at how much was.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.health.writable()?;
        self.is_flushed = false;
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= BUFFER_BYTES {
            self.write_waiting()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_flushed {
            return Ok(());
        }
        self.health.writable()?;
        // A flush that failed is not tried again.
        self.is_flushed = true;
        self.write_waiting()?;
        self.file.sync_data().map_err(|error| self.health.failed(error))
    }
}

impl Flushed {
    fn write_waiting(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.waiting);
        self.waiting.clear();
        written.map_err(|error| self.health.failed(error))
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        // A failure is noted, and stops whatever would have relied on this file.
        let _ = self.flush();
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
