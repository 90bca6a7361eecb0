//! Keeps what a long backup did so far, so that one that is interrupted goes on where it was.
//!
//! Now and then the folders as far as they are done are written as a tree, flushed, and named by the ref as
//! its `in_progress`. The next backup of the same folder recognises files by it and reads only the others.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::super::error::Error;
use super::super::tree::{Entry, Kind, TreeWriter};
use super::Run;
use super::folder::{Folder, SoFar};
use crate::id::BlobId;

/// How often the time and the bytes since the last checkpoint are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Folders below this depth wait until they are done: the walk must not outgrow its stack.
const DEPTH_MAX: usize = 200;

/// When to keep what was done so far: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// After this time.
    pub every: Duration,
    /// After reading this many bytes.
    pub bytes: u64,
}

impl Default for Checkpoints {
    /// Half a minute, what people are willing to lose; 4 GiB, some half a minute of a fast disk.
    fn default() -> Checkpoints {
        Checkpoints {
            every: Duration::from_secs(30),
            bytes: 4 * 1024 * 1024 * 1024,
        }
    }
}

/// Tells the thread that writes checkpoints that the backup is done.
#[derive(Default)]
pub(super) struct Bell {
    is_rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.is_rung.lock().expect("no thread panics while it rings") = true;
        self.ring.notify_all();
    }

    /// Waits a while; says whether it was rung.
    fn wait(&self) -> bool {
        let is_rung = self.is_rung.lock().expect("no thread panics while it rings");
        let waited = self
            .ring
            .wait_timeout_while(is_rung, LOOK_EVERY, |is_rung| !*is_rung)
            .expect("no thread panics while it rings");
        *waited.0
    }
}

impl<'a> Run<'a> {
    /// Writes checkpoints until the bell rings.
    pub(super) fn write_checkpoints(&self, root: &Folder<'a>, bell: &Bell) {
        let mut last = Instant::now();
        let mut last_bytes = 0;
        while !bell.wait() {
            let bytes = self.progress.counts().read_bytes;
            let due = self.options.checkpoints;
            if last.elapsed() < due.every && bytes - last_bytes < due.bytes {
                continue;
            }
            if let Err(error) = self.checkpoint(root) {
                // The backup itself meets the same failure where it matters.
                tracing::warn!(%error, "what was backed up so far could not be kept as a checkpoint");
            }
            last = Instant::now();
            last_bytes = bytes;
        }
    }

    /// Keeps what was done so far.
    pub(super) fn checkpoint(&self, root: &Folder<'a>) -> Result<(), Error> {
        let Some(tree) = self.write_so_far(root, 0)? else {
            return Ok(());
        };
        self.sink.flush()?;
        self.keep_in_progress(tree)
    }

    fn write_so_far(&self, folder: &Folder<'a>, depth: usize) -> Result<Option<BlobId>, Error> {
        let so_far = folder.lock().so_far();
        let (mut writer, mut entries, waiting) = match so_far {
            SoFar::Tree(tree) => return Ok(Some(tree)),
            SoFar::Parts {
                writer,
                done,
                waiting,
            } => (writer, done, waiting),
        };
        for (name, meta, folder) in waiting.into_iter().filter(|_| depth < DEPTH_MAX) {
            if let Some(tree) = self.write_so_far(&folder, depth + 1)? {
                let kind = Kind::Folder { tree, commit: None };
                entries.push(Entry { name, meta, kind });
            }
        }
        if entries.is_empty() && writer.is_untouched() {
            return Ok(None);
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.finish_so_far(&mut writer, &entries).map(Some)
    }

    fn finish_so_far(&self, writer: &mut TreeWriter, entries: &[Entry]) -> Result<BlobId, Error> {
        let put = &mut |schema| self.sink.put_schema(schema);
        for entry in entries {
            writer.push(entry, put)?;
        }
        writer.clone().finish(put)
    }
}
