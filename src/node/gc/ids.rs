//! Sets of blob ids too large for memory: sorted runs on disk, merged to one file.
//!
//! A run and the merged file are 32-byte ids in ascending order, nothing else. They are scratch: removed when
//! the set is dropped, and by the next run after a crash. A set that fits the buffer never touches the disk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::id::BlobId;
use crate::node::error::Error;

/// Ids held before a run is written: 2 MiB.
const BUFFER_IDS: usize = 64 * 1024;

/// Bytes read ahead of each run while merging: of 100 runs, six million ids, 1.6 MiB.
const READ_AHEAD_BYTES: usize = 16 * 1024;

const ID_BYTES: usize = 32;

/// Where scratch files go; their names begin so that a later run knows them.
pub(super) const SCRATCH_PREFIX: &str = "scratch-";

/// A set of ids being gathered.
pub(super) struct IdSetBuilder {
    folder: PathBuf,
    name: &'static str,
    buffer: Vec<BlobId>,
    runs: Vec<Scratch>,
}

/// A sorted set of ids.
pub(super) enum IdSet {
    /// Few enough to hold.
    Held(Vec<BlobId>),
    /// In a file.
    Filed { file: File, len: u64, _scratch: Scratch },
}

/// A file that goes when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays after a failure here is removed by the next run.
        let _ = fs::remove_file(&self.0);
    }
}

impl IdSetBuilder {
    pub(super) fn new(folder: &Path, name: &'static str) -> IdSetBuilder {
        IdSetBuilder {
            folder: folder.to_owned(),
            name,
            buffer: Vec::new(),
            runs: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, id: BlobId) -> Result<(), Error> {
        self.buffer.push(id);
        if self.buffer.len() < BUFFER_IDS {
            return Ok(());
        }
        self.settle();
        // Parts are named again and again: often there is room again.
        if self.buffer.len() > BUFFER_IDS / 2 {
            self.write_run()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<IdSet, Error> {
        self.settle();
        if self.runs.is_empty() {
            return Ok(IdSet::Held(self.buffer));
        }
        self.write_run()?;
        let path = self.path("merged");
        let scratch = Scratch(path.clone());
        let merge = || -> io::Result<(File, u64)> {
            let mut out = BufWriter::new(File::create(&path)?);
            let mut len = 0;
            for id in Merge::open(&self.runs)? {
                out.write_all(id?.as_bytes())?;
                len += 1;
            }
            out.into_inner().map_err(io::IntoInnerError::into_error)?;
            Ok((File::open(&path)?, len))
        };
        let (file, len) = merge().map_err(|source| Error::io(&path, source))?;
        Ok(IdSet::Filed {
            file,
            len,
            _scratch: scratch,
        })
    }

    fn settle(&mut self) {
        self.buffer.sort_unstable();
        self.buffer.dedup();
    }

    fn write_run(&mut self) -> Result<(), Error> {
        let path = self.path(&self.runs.len().to_string());
        self.runs.push(Scratch(path.clone()));
        let write = || -> io::Result<()> {
            let mut out = BufWriter::new(File::create(&path)?);
            for id in &self.buffer {
                out.write_all(id.as_bytes())?;
            }
            out.flush()
        };
        write().map_err(|source| Error::io(&path, source))?;
        self.buffer.clear();
        Ok(())
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder
            .join(format!("{SCRATCH_PREFIX}{}-{suffix}", self.name))
    }
}

impl IdSet {
    /// How many ids.
    pub(super) fn len(&self) -> u64 {
        match self {
            IdSet::Held(ids) => ids.len() as u64,
            IdSet::Filed { len, .. } => *len,
        }
    }

    /// Whether the id is in the set.
    pub(super) fn contains(&self, id: &BlobId) -> io::Result<bool> {
        match self {
            IdSet::Held(ids) => Ok(ids.binary_search(id).is_ok()),
            IdSet::Filed { file, len, .. } => {
                let (mut low, mut high) = (0, *len);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let mut found = [0; ID_BYTES];
                    file.read_exact_at(&mut found, middle * ID_BYTES as u64)?;
                    match found.cmp(id.as_bytes()) {
                        std::cmp::Ordering::Equal => return Ok(true),
                        std::cmp::Ordering::Less => low = middle + 1,
                        std::cmp::Ordering::Greater => high = middle,
                    }
                }
                Ok(false)
            }
        }
    }

    /// All ids in ascending order.
    pub(super) fn iter(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<BlobId>> + '_>> {
        match self {
            IdSet::Held(ids) => Ok(Box::new(ids.iter().map(|id| Ok(*id)))),
            IdSet::Filed { _scratch, .. } => Ok(Box::new(Run::open(&_scratch.0)?)),
        }
    }
}

/// The ids of one sorted file.
struct Run(BufReader<File>);

impl Run {
    fn open(path: &Path) -> io::Result<Run> {
        Ok(Run(BufReader::with_capacity(READ_AHEAD_BYTES, File::open(path)?)))
    }
}

impl Iterator for Run {
    type Item = io::Result<BlobId>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut id = [0; ID_BYTES];
        match self.0.read_exact(&mut id) {
            Ok(()) => Some(Ok(BlobId::from_bytes(id))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// The ids of several runs in ascending order, each once.
struct Merge {
    runs: Vec<Run>,
    next: BinaryHeap<Reverse<(BlobId, usize)>>,
    last: Option<BlobId>,
}

impl Merge {
    fn open(files: &[Scratch]) -> io::Result<Merge> {
        let runs: io::Result<Vec<Run>> = files.iter().map(|file| Run::open(&file.0)).collect();
        let mut merge = Merge {
            runs: runs?,
            next: BinaryHeap::new(),
            last: None,
        };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(id) = self.runs[run].next().transpose()? {
            self.next.push(Reverse((id, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = io::Result<BlobId>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(Reverse((id, run))) = self.next.pop() {
            if let Err(error) = self.advance(run) {
                return Some(Err(error));
            }
            if self.last != Some(id) {
                self.last = Some(id);
                return Some(Ok(id));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_set_is_sorted_on_disk_holds_each_id_once_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let count = 200_000_u32;
        let mut builder = IdSetBuilder::new(dir.path(), "test");
        for number in (0..count).chain(0..count / 2) {
            builder.add(BlobId::of(&number.to_le_bytes())).unwrap();
        }
        let set = builder.finish().unwrap();
        assert_eq!(set.len(), u64::from(count));
        let all: Vec<BlobId> = set.iter().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), count as usize);
        assert!(all.is_sorted());
        for number in (0..count + 100).step_by(997) {
            let id = BlobId::of(&number.to_le_bytes());
            assert_eq!(set.contains(&id).unwrap(), number < count);
        }
        drop(set);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
