//! The journals of fjall before it reads them: a record that was torn is cut off, one that was damaged is an error.
//!
//! ```text
//! u8 1, u32 items, u64 sequence                                                          a batch begins
//!   u8 2, u8 kind, u8 0, u64 keyspace, u16 key, u32 value, u32 value, key, value         an item, as many as were told
//! u8 3, u64 XXH3 of the items, "FJL" 3                                                   it ends
//! 0…                                                                                     room for more
//! ```
//!
//! Numbers are little endian (`journal/entry.rs` of fjall 3.1). Only the last batch may be torn: each is on the medium before the
//! next one begins. What was torn lacks whole sectors, or its end; what is there in full, or has whole batches behind it, was
//! acknowledged, and is damaged. No checksum covers the sequence of a batch: it has to follow the one before, so that only
//! that of the first and of the last can be another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::super::error::Error;
use super::super::ordered::tail::tail;

const BATCH: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: &[u8] = b"FJL\x03";

/// How far sequences of batches lie apart at most: between them fjall counts its own tables.
const STEP_MAX: u64 = 1 << 16;

/// Looks at every journal in a folder.
///
/// # Errors
/// [`Error::Corrupt`]: nothing was changed.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let mut journals = journals(folder)?;
    journals.sort();
    let last = journals.pop();
    for (_, path) in journals {
        // It was flushed as a whole before the next one was made.
        if let Some(torn) = located(&path, judge(&path))? {
            return Err(damaged(&path, torn));
        }
    }
    let Some((_, path)) = last else {
        return Err(Error::Corrupt {
            path: folder.to_owned(),
            what: "there is no journal in it".to_owned(),
        });
    };
    match located(&path, judge(&path))? {
        Some(torn) if torn.is_damage => Err(damaged(&path, torn)),
        Some(torn) => located(&path, cut(&path, torn.at)),
        None => Ok(()),
    }
}

/// Writes the journal that is in use anew: what the system shows of it need not be on the medium. Durable on return.
///
/// # Errors
/// [`Error::Full`], [`Error::Io`]: it is as it was.
pub(super) fn renew(folder: &Path) -> Result<(), Error> {
    let Some((_, path)) = journals(folder)?.into_iter().max() else {
        return Ok(());
    };
    let fresh = path.with_extension("new");
    let copied = fs::copy(&path, &fresh)
        .and_then(|_| File::open(&fresh)?.sync_all())
        .and_then(|()| fs::rename(&fresh, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    located(&path, copied)
}

/// Where a journal stops to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Torn {
    at: u64,
    is_damage: bool,
}

fn journals(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut journals = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    for entry in entries {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            journals.extend(number.map(|number| (number, path)));
        }
    }
    Ok(journals)
}

/// Reads a journal to its end; `None` where nothing but room is behind its last whole batch.
fn judge(path: &Path) -> io::Result<Option<Torn>> {
    let mut journal = BufReader::new(File::open(path)?);
    let (mut at, mut last) = (0, None);
    while let Some((end, sequence)) = batch(&mut journal, at)? {
        if last.is_some_and(|last| !follows(sequence, last)) {
            return Ok(Some(Torn { at, is_damage: true }));
        }
        (at, last) = (end, Some(sequence));
    }
    let rest = look_through(&mut journal, at)?;
    if rest.written == at {
        return Ok(None);
    }
    let mut is_damage = rest.is_complete;
    for candidate in rest.trailers {
        // A whole batch behind what is none.
        is_damage |= batch(&mut journal, candidate)?.is_some();
    }
    Ok(Some(Torn { at, is_damage }))
}

/// Whether a sequence may come after another: the checksum of a batch does not cover its own.
fn follows(sequence: u64, last: u64) -> bool {
    sequence > last && sequence - last <= STEP_MAX
}

/// Reads a batch; where it ends and its sequence, or `None` where there is no whole one.
fn batch(journal: &mut BufReader<File>, at: u64) -> io::Result<Option<(u64, u64)>> {
    let from = journal.stream_position()?;
    journal.seek_relative(offset(at, from))?;
    match read_batch(journal) {
        Ok(Some(sequence)) => Ok(Some((journal.stream_position()?, sequence))),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_batch(journal: &mut BufReader<File>) -> io::Result<Option<u64>> {
    let mut begin = [0; 13];
    journal.read_exact(&mut begin)?;
    let [BATCH, i0, i1, i2, i3, sequence @ ..] = begin else {
        return Ok(None);
    };
    let mut hasher = Xxh3::new();
    for _ in 0..u32::from_le_bytes([i0, i1, i2, i3]) {
        let mut item = [0; 21];
        journal.read_exact(&mut item)?;
        if item[0] != ITEM || item[2] != 0 {
            return Ok(None);
        }
        hasher.update(&item);
        let key = u64::from(u16::from_le_bytes([item[11], item[12]]));
        let value = u64::from(u32::from_le_bytes([item[17], item[18], item[19], item[20]]));
        if !hash(journal, &mut hasher, key + value)? {
            return Ok(None);
        }
    }
    let mut end = [0; 13];
    journal.read_exact(&mut end)?;
    let [END, checksum @ .., _, _, _, _] = end else {
        return Ok(None);
    };
    let is_whole = u64::from_le_bytes(checksum) == hasher.digest() && end.ends_with(TRAILER);
    Ok(is_whole.then_some(u64::from_le_bytes(sequence)))
}

/// Adds the next bytes to a checksum; whether there are as many.
fn hash(journal: &mut BufReader<File>, hasher: &mut Xxh3, bytes: u64) -> io::Result<bool> {
    let mut window = [0; 4096];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).map_or(window.len(), |left| left.min(window.len()));
        match journal.read(&mut window[..most])? {
            0 => return Ok(false),
            read => {
                hasher.update(&window[..read]);
                left -= read as u64;
            }
        }
    }
    Ok(true)
}

/// What is behind the last whole batch.
struct Rest {
    /// Where what is written ends.
    written: u64,
    /// Whether it has no gap and ends as a batch does.
    is_complete: bool,
    /// Where batches may begin.
    trailers: Vec<u64>,
}

/// Places where batches may begin that are tried at most: JSON holds none by chance.
const TRAILERS_MAX: usize = 64;

fn look_through(journal: &mut BufReader<File>, from: u64) -> io::Result<Rest> {
    let mut trailers = Vec::new();
    // A trailer may lie across two windows, where no zeros are between them.
    let mut seen: Vec<u8> = Vec::new();
    let mut end = 0;
    let tail = tail(journal.get_mut(), from, &mut |at, window| {
        if at != end {
            seen.clear();
        }
        end = at + window.len() as u64;
        let begin = at - seen.len() as u64;
        seen.extend_from_slice(window);
        for (behind, found) in (begin + TRAILER.len() as u64..).zip(seen.windows(TRAILER.len())) {
            if found == TRAILER && trailers.len() < TRAILERS_MAX {
                trailers.push(behind);
            }
        }
        seen.drain(..seen.len().saturating_sub(TRAILER.len() - 1));
    })?;
    // What the reader has buffered is of another place.
    journal.seek(SeekFrom::Start(from))?;
    Ok(Rest {
        written: tail.written,
        is_complete: !tail.has_gap && trailers.last() == Some(&tail.written),
        trailers,
    })
}

fn cut(path: &Path, at: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(at)?;
    file.sync_all()
}

fn offset(to: u64, from: u64) -> i64 {
    // Journals are far shorter than that.
    i64::try_from(to).unwrap_or(i64::MAX) - i64::try_from(from).unwrap_or(i64::MAX)
}

fn located<T>(path: &Path, read: io::Result<T>) -> Result<T, Error> {
    read.map_err(|error| Error::io(path, error))
}

fn damaged(path: &Path, torn: Torn) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        what: format!("its journal is damaged from byte {} on", torn.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal of some batches, and where each begins.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let mut journal = Vec::new();
        let mut begins = Vec::new();
        for (number, lengths) in [&[10_usize, 300][..], &[70_000, 9, 5000], &[2000], &[1, 1]]
            .into_iter()
            .enumerate()
        {
            begins.push(journal.len());
            journal.push(BATCH);
            journal.extend(u32::try_from(lengths.len()).unwrap().to_le_bytes());
            journal.extend((number as u64 + 7).to_le_bytes());
            let mut hasher = Xxh3::new();
            for length in lengths {
                let value = vec![b'a' + u8::try_from(number).unwrap(); *length];
                let mut item = vec![ITEM, 0, 0];
                item.extend(1_u64.to_le_bytes());
                item.extend(3_u16.to_le_bytes());
                let length = u32::try_from(*length).unwrap().to_le_bytes();
                item.extend([length, length].as_flattened());
                item.extend(b"key");
                item.extend(value);
                hasher.update(&item);
                journal.extend(item);
            }
            journal.push(END);
            journal.extend(hasher.digest().to_le_bytes());
            journal.extend(TRAILER);
        }
        (journal, begins)
    }

    /// Judges bytes with room behind them.
    fn judged(bytes: &[u8]) -> Option<Torn> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.jnl");
        fs::write(&path, bytes).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1024 * 1024).unwrap();
        judge(&path).unwrap()
    }

    #[test]
    fn a_journal_that_ends_early_or_lacks_sectors_of_its_last_batch_is_torn() {
        let (journal, begins) = journal();
        assert_eq!(judged(&journal), None);
        for (batch, begin) in begins.iter().copied().enumerate() {
            let end = begins.get(batch + 1).copied().unwrap_or(journal.len());
            assert_eq!(judged(&journal[..begin]), None);
            let torn = Some(Torn {
                at: begin as u64,
                is_damage: false,
            });
            for cut in [begin + 8, (begin + end) / 2, end - 1] {
                assert_eq!(judged(&journal[..cut]), torn, "batch {batch} to {cut}");
            }
            for page in (begin / 4096)..=((end - 1) / 4096) {
                let mut lacking = journal[..end].to_vec();
                let lost = (page * 4096).max(begin)..((page + 1) * 4096).min(end);
                lacking[lost.clone()].fill(0);
                let found = judged(&lacking);
                let is_gone = found.is_none() && lost == (begin..end);
                assert!(found == torn || is_gone, "batch {batch}, page {page}: {found:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage() {
        let (journal, begins) = journal();
        let around = begins.iter().flat_map(|begin| *begin..begin + 30);
        // The sequences of the first and the last follow nothing, and are followed by nothing.
        let is_free = |at: usize| {
            [begins[0], begins[3]]
                .iter()
                .any(|begin| (begin + 5..begin + 13).contains(&at))
        };
        for at in (0..journal.len())
            .step_by(97)
            .chain(around)
            .filter(|at| !is_free(*at))
        {
            let mut damaged = journal.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(
                judged(&damaged).is_some_and(|torn| torn.is_damage),
                "a bit of byte {at}"
            );
        }
    }

    #[test]
    fn a_torn_batch_is_cut_off_and_a_damaged_one_is_left_as_it_is() {
        let (journal, begins) = journal();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.jnl");
        fs::write(&path, &journal[..begins[3] + 20]).unwrap();
        check(dir.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), journal[..begins[3]]);
        let mut damaged = journal.clone();
        damaged[begins[1] + 40] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(matches!(check(dir.path()), Err(Error::Corrupt { path: found, .. }) if found == path));
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}
