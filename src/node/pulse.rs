//! Signs of life: a write that goes to the disk now and then and is read back, and the time that it leaves there.
//!
//! ```text
//! DIR/pulse    seconds since 1970, 8 bytes, big-endian | the first 24 bytes of their BLAKE3 hash
//! ```
//!
//! The file is overwritten in place: one block each time, as little as a card can be made to wear. Half a write is found
//! by the hash, and costs no more than the time. That is the floor of the clock at the next start, for boards that have
//! none of their own and start in 1970: no earlier than this program was made, no earlier than it last ran.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::clock::{Clock, from_unix_s, unix_s};

/// Often enough that the floor is good for something, seldom enough for the quarter of a mebibyte that an idle hour may
/// write: six blocks, and six entries of a file system's journal.
pub const PULSE_EVERY: Duration = Duration::from_secs(10 * 60);

/// A write that takes longer is not slow any more: cards pause for half a minute when they tidy up.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// This program was made after 2026-11-01; SOURCE_DATE_EPOCH says more exactly, where a build sets it.
const MADE_S: i64 = 1_793_491_200;

/// A saved time that far after the program was made is a clock that was wrong, not a box that was off.
const SAVED_AHEAD_MAX_S: i64 = 20 * 366 * 24 * 3600;

const FILE: &str = "pulse";
const TIME_BYTES: usize = 8;
const PULSE_BYTES: usize = 32;

/// The writes of one node; cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    clock: Clock,
    /// Since when a write has been under way.
    writing: Mutex<Option<Instant>>,
}

/// The earliest that it can be, as far as a data folder tells: when the program was made, or when the folder was last
/// in use. A file that is damaged or makes no sense counts as none.
pub fn time_floor(folder: &Path) -> SystemTime {
    let made = made_s();
    let saved = File::open(folder.join(FILE))
        .and_then(|file| read(&file))
        .ok()
        .flatten();
    let saved = saved.filter(|saved| *saved < made.saturating_add(SAVED_AHEAD_MAX_S));
    from_unix_s(saved.unwrap_or(made).max(made))
}

impl Pulse {
    pub(super) fn new(folder: &Path, clock: Clock) -> Pulse {
        Pulse {
            inner: Arc::new(Inner {
                path: folder.join(FILE),
                clock,
                writing: Mutex::new(None),
            }),
        }
    }

    /// Writes the time, flushes it and reads it back. Blocking.
    ///
    /// # Errors
    /// As the system says: the disk is full, read-only or failing.
    pub(super) fn beat(&self) -> io::Result<()> {
        *self.writing() = Some(Instant::now());
        let written = self.write();
        *self.writing() = None;
        written
    }

    /// Whether a write has not come back for so long that it never will.
    pub(super) fn is_stuck(&self) -> bool {
        self.writing().is_some_and(|since| since.elapsed() >= STUCK_AFTER)
    }

    fn write(&self) -> io::Result<()> {
        let path = &self.inner.path;
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let now_s = unix_s(self.inner.clock.now());
        file.write_all_at(&encode(now_s), 0)?;
        file.sync_data()?;
        if let (true, Some(folder)) = (is_new, path.parent()) {
            File::open(folder)?.sync_all()?;
        }
        match read(&file)? {
            Some(found) if found == now_s => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what was written is not what is read",
            )),
        }
    }

    fn writing(&self) -> MutexGuard<'_, Option<Instant>> {
        let writing = self.inner.writing.lock();
        writing.expect("no thread panics while it holds an instant")
    }
}

fn encode(seconds: i64) -> [u8; PULSE_BYTES] {
    let mut bytes = [0; PULSE_BYTES];
    let (time, check) = bytes.split_at_mut(TIME_BYTES);
    time.copy_from_slice(&seconds.to_be_bytes());
    check.copy_from_slice(&blake3::hash(time).as_bytes()[..PULSE_BYTES - TIME_BYTES]);
    bytes
}

/// `None` for what is no pulse.
fn read(file: &File) -> io::Result<Option<i64>> {
    let mut bytes = [0; PULSE_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    let seconds = bytes
        .first_chunk::<TIME_BYTES>()
        .map(|time| i64::from_be_bytes(*time));
    Ok(seconds.filter(|seconds| encode(*seconds) == bytes))
}

fn made_s() -> i64 {
    option_env!("SOURCE_DATE_EPOCH")
        .and_then(|text| text.parse().ok())
        .unwrap_or(MADE_S)
        .max(MADE_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

    fn pulse(folder: &Path, now: SystemTime) -> Pulse {
        Pulse::new(folder, Clock::from_fn(move || now))
    }

    fn made() -> SystemTime {
        from_unix_s(made_s())
    }

    #[test]
    fn the_floor_is_when_the_program_was_made_or_when_it_last_ran() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(time_floor(dir.path()), made());
        pulse(dir.path(), made() + YEAR).beat().unwrap();
        assert_eq!(time_floor(dir.path()), made() + YEAR);
        pulse(dir.path(), UNIX_EPOCH).beat().unwrap();
        assert_eq!(time_floor(dir.path()), made(), "a clock without a battery");
        pulse(dir.path(), made() + 40 * YEAR).beat().unwrap();
        assert_eq!(time_floor(dir.path()), made(), "a clock that is wrong by decades");
    }

    #[test]
    fn a_damaged_file_costs_the_saved_time_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        pulse(dir.path(), made() + YEAR).beat().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[3] ^= 1;
        for damaged in [&whole[..0], &whole[..16], &whole[..31], &[0; 32], &flipped] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(time_floor(dir.path()), made());
            pulse(dir.path(), made() + YEAR).beat().unwrap();
            assert_eq!(time_floor(dir.path()), made() + YEAR);
        }
    }

    #[test]
    fn a_disk_that_takes_no_writes_is_an_error_and_nothing_is_stuck_after_it() {
        let gone = Pulse::new(Path::new("/nonexistent/refuge"), Clock::system());
        assert_eq!(gone.beat().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!gone.is_stuck());
        *gone.writing() = Instant::now().checked_sub(STUCK_AFTER);
        assert!(gone.is_stuck());
    }
}
