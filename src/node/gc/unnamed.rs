//! Since when which blob is unnamed, from one collection to the next.
//!
//! ```text
//! "refuge-unnamed 1\n"     17 bytes
//! per blob, ascending:     id 32 bytes, first seen unnamed 8 bytes (seconds since 1970, little endian)
//! BLAKE3 of all that       32 bytes
//! ```
//!
//! A list that is missing or damaged is no list: every blob begins to wait anew, which frees later, never
//! sooner. The new list is written beside the old one and renamed over it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::id::BlobId;
use crate::node::error::Error;

const MAGIC: &[u8; 17] = b"refuge-unnamed 1\n";
const ENTRY_BYTES: usize = 40;
const DIGEST_BYTES: usize = 32;

/// A blob that nothing names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unnamed {
    pub(super) id: BlobId,
    /// Seconds since 1970.
    pub(super) since_s: i64,
}

/// The entries of a list, in ascending order of id.
pub(super) struct UnnamedList {
    reader: Option<io::Take<BufReader<File>>>,
}

/// A list being written.
pub(super) struct UnnamedWriter {
    path: PathBuf,
    fresh: PathBuf,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    last: Option<BlobId>,
}

impl UnnamedList {
    /// Opens the list at `path`; an empty one where there is none that is whole.
    pub(super) fn open(path: &Path) -> Result<UnnamedList, Error> {
        let opened = open_whole(path).map_err(|source| Error::io(path, source))?;
        if opened.is_none() && path.exists() {
            tracing::warn!(path = %path.display(), "the list of unnamed blobs is damaged: they wait anew");
        }
        Ok(UnnamedList { reader: opened })
    }
}

impl Iterator for UnnamedList {
    type Item = io::Result<Unnamed>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        let mut entry = [0; ENTRY_BYTES];
        match reader.read_exact(&mut entry) {
            Ok(()) => Some(Ok(decode(&entry))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl UnnamedWriter {
    pub(super) fn create(path: &Path) -> Result<UnnamedWriter, Error> {
        let fresh = path.with_extension("new");
        let located = |source| Error::io(&fresh, source);
        let mut writer = UnnamedWriter {
            path: path.to_owned(),
            out: BufWriter::new(File::create(&fresh).map_err(located)?),
            fresh: fresh.clone(),
            hasher: blake3::Hasher::new(),
            last: None,
        };
        writer.write(MAGIC).map_err(located)?;
        Ok(writer)
    }

    /// Adds an entry; ids ascend.
    pub(super) fn push(&mut self, unnamed: Unnamed) -> Result<(), Error> {
        debug_assert!(self.last < Some(unnamed.id), "ids ascend");
        self.last = Some(unnamed.id);
        let mut entry = [0; ENTRY_BYTES];
        entry[..32].copy_from_slice(unnamed.id.as_bytes());
        entry[32..].copy_from_slice(&unnamed.since_s.to_le_bytes());
        self.write(&entry)
            .map_err(|source| Error::io(&self.fresh, source))
    }

    /// Puts the list in place of the old one, unless it says the same. Durable on return.
    pub(super) fn finish(self) -> Result<(), Error> {
        let (path, fresh) = (self.path.clone(), self.fresh.clone());
        self.put_in_place().map_err(|source| {
            // The old list stays in force; what is left of the new one is overwritten next time.
            let _ = fs::remove_file(&fresh);
            Error::io(&path, source)
        })
    }

    fn put_in_place(mut self) -> io::Result<()> {
        let digest = self.hasher.finalize();
        if digest_of(&self.path)? == Some(*digest.as_bytes()) {
            drop(self.out);
            return fs::remove_file(&self.fresh);
        }
        self.out.write_all(digest.as_bytes())?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.fresh, &self.path)?;
        durable::sync_folder_of(&self.path)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

fn decode(entry: &[u8; ENTRY_BYTES]) -> Unnamed {
    let (mut id, mut since) = ([0; 32], [0; 8]);
    id.copy_from_slice(&entry[..32]);
    since.copy_from_slice(&entry[32..]);
    Unnamed {
        id: BlobId::from_bytes(id),
        since_s: i64::from_le_bytes(since),
    }
}

/// The digest at the end of a list, as it stands there.
fn digest_of(path: &Path) -> io::Result<Option<[u8; DIGEST_BYTES]>> {
    use std::os::unix::fs::FileExt;
    let Some(file) = open_if_there(path)? else {
        return Ok(None);
    };
    let Some(at) = file.metadata()?.len().checked_sub(DIGEST_BYTES as u64) else {
        return Ok(None);
    };
    let mut digest = [0; DIGEST_BYTES];
    file.read_exact_at(&mut digest, at)?;
    Ok(Some(digest))
}

/// The entries of a list that is whole.
fn open_whole(path: &Path) -> io::Result<Option<io::Take<BufReader<File>>>> {
    let Some(file) = open_if_there(path)? else {
        return Ok(None);
    };
    let len = file.metadata()?.len();
    let Some(entries) = len.checked_sub((MAGIC.len() + DIGEST_BYTES) as u64) else {
        return Ok(None);
    };
    if entries % ENTRY_BYTES as u64 != 0 {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(BufReader::new(file).take(len - DIGEST_BYTES as u64))?;
    if digest_of(path)? != Some(*hasher.finalize().as_bytes()) {
        return Ok(None);
    }
    let mut reader = BufReader::new(File::open(path)?);
    let mut magic = [0; MAGIC.len()];
    reader.read_exact(&mut magic)?;
    Ok((magic == *MAGIC).then(|| reader.take(entries)))
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<Unnamed> {
        UnnamedList::open(path)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    }

    #[test]
    fn a_list_reads_as_written_and_no_damage_makes_an_entry_older() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unnamed");
        assert_eq!(read(&path), []);
        let mut ids: Vec<BlobId> = (0..50_u8).map(|n| BlobId::of(&[n])).collect();
        ids.sort_unstable();
        let entries: Vec<Unnamed> = ids
            .into_iter()
            .map(|id| Unnamed {
                id,
                since_s: 1_800_000_000,
            })
            .collect();
        let write = || {
            let mut writer = UnnamedWriter::create(&path).unwrap();
            for entry in &entries {
                writer.push(*entry).unwrap();
            }
            writer.finish().unwrap();
        };
        write();
        assert_eq!(read(&path), entries);
        let whole = fs::read(&path).unwrap();
        write();
        assert_eq!(fs::read(&path).unwrap(), whole);
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(read(&path), [], "byte {place}");
        }
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(read(&path), []);
        }
    }
}
