//! Logs and manifests before the crate reads them: what was damaged is an error, not an earlier end.
//!
//! ```text
//! blocks of 32 KiB, each:
//!   u32 CRC-32C of type and data, masked; u16 length; u8 type: 1 whole, 2 first, 3 middle, 4 last; data        a fragment
//!   zeros, where no fragment fits any more
//! ```
//!
//! Numbers are little endian (LevelDB's `doc/log_format.md`). A record that a power cut tore lacks its end, or whole sectors; what
//! is there in full, or has whole records behind it, was acknowledged, and is damaged.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::error::Error;
use super::super::ordered::tail::{SECTOR_BYTES, fill, tail};
use super::table::masked;

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Looks at the manifest that is in use and at every log.
///
/// # Errors
/// [`Error::Corrupt`]; nothing is ever changed.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let manifest = manifest(folder)?;
    let mut logs = logs(folder)?;
    logs.sort();
    let last = logs.pop();
    for path in [Some(manifest), last.map(|(_, path)| path)].into_iter().flatten() {
        if let Judged::Damaged(at) = located(&path, judge(&path))? {
            return Err(damaged(&path, at));
        }
    }
    for (_, path) in logs {
        // It was flushed as a whole before the next one was made.
        if let Judged::Torn(at) | Judged::Damaged(at) = located(&path, judge(&path))? {
            return Err(damaged(&path, at));
        }
    }
    Ok(())
}

/// What a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Sound,
    /// Its last record is not whole, from this byte on.
    Torn(u64),
    /// A record that was whole is not any more.
    Damaged(u64),
}

fn manifest(folder: &Path) -> Result<PathBuf, Error> {
    let current = folder.join("CURRENT");
    let named = located(&current, fs::read(&current));
    let missing = || Error::Corrupt {
        path: current.clone(),
        what: "it names no manifest".to_owned(),
    };
    let named = match named {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(missing()),
        named => named?,
    };
    let name = std::str::from_utf8(&named)
        .ok()
        .and_then(|text| text.strip_suffix('\n'));
    let path = name
        .filter(|name| name.starts_with("MANIFEST-") && !name.contains('/'))
        .map(|name| folder.join(name));
    path.filter(|path| path.is_file()).ok_or_else(missing)
}

fn logs(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut logs = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    for entry in entries {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            logs.extend(number.map(|number| (number, path)));
        }
    }
    Ok(logs)
}

fn judge(path: &Path) -> io::Result<Judged> {
    let mut log = File::open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut begin: u64 = 0;
    // Where the record under way began.
    let mut open: Option<u64> = None;
    loop {
        let read = fill(&mut log, &mut block)?;
        let mut at = 0;
        while at < read && BLOCK_BYTES - at >= HEADER_BYTES {
            let place = begin + at as u64;
            let Some(fragment) = fragment(&block[at..read]) else {
                let from = open.unwrap_or(place);
                return behind(&mut log, path, (from, place), &block[at..read]);
            };
            open = match (fragment.kind, open) {
                (WHOLE, None) | (LAST, Some(_)) => None,
                (FIRST, None) => Some(place),
                (MIDDLE, Some(from)) => Some(from),
                // The checksum is right, the order is not: a fragment is missing.
                _ => return Ok(Judged::Damaged(open.unwrap_or(place))),
            };
            at += HEADER_BYTES + fragment.length;
        }
        begin += read as u64;
        if read < BLOCK_BYTES {
            return Ok(match open {
                Some(from) => Judged::Torn(from),
                None => Judged::Sound,
            });
        }
    }
}

/// Judges what is behind the last whole fragment: `rest` is what its block has of it.
fn behind(log: &mut File, path: &Path, (from, place): (u64, u64), rest: &[u8]) -> io::Result<Judged> {
    let tail = tail(log, place, &mut |_, _| {})?;
    if tail.written == place {
        return Ok(match from == place {
            true => Judged::Sound,
            false => Judged::Torn(from),
        });
    }
    let written = usize::try_from(tail.written - place).unwrap_or(usize::MAX);
    let is_damage = (!tail.has_gap && is_all_there(rest, written)) || has_record_behind(path, place)?;
    Ok(match is_damage {
        true => Judged::Damaged(from),
        false => Judged::Torn(from),
    })
}

/// Whether bytes are a whole fragment of which a bit is another: in its data, its checksum, its type or its length. Behind
/// `written` there are zeros.
fn is_all_there(rest: &[u8], written: usize) -> bool {
    let Some((header, data)) = rest.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let has_checksum = |kind: u8| checksum(kind, data) == header[..4];
    let begins_record = |at: usize| {
        let fragment = rest.get(at..).and_then(fragment);
        fragment.is_some_and(|fragment| fragment.kind == WHOLE || fragment.kind == FIRST)
    };
    // Its last sector is there, too.
    let has_end = length <= data.len() && written + SECTOR_BYTES > HEADER_BYTES + length;
    // Nothing is behind the last fragment of a file; whole records may be behind any other.
    (WHOLE..=LAST).contains(&header[6]) && has_end
        || (WHOLE..=LAST).any(has_checksum)
        || (1..rest.len()).any(begins_record)
}

/// Whether a whole record begins at the beginning of a later block.
fn has_record_behind(path: &Path, place: u64) -> io::Result<bool> {
    let mut log = File::open(path)?;
    let block_bytes = BLOCK_BYTES as u64;
    log.seek(SeekFrom::Start((place / block_bytes + 1) * block_bytes))?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = fill(&mut log, &mut block)?;
        let mut at = 0;
        while let Some(fragment) = block[..read].get(at..).and_then(fragment) {
            if fragment.kind == WHOLE || fragment.kind == FIRST {
                return Ok(true);
            }
            at += HEADER_BYTES + fragment.length;
        }
        if read < BLOCK_BYTES {
            return Ok(false);
        }
    }
}

struct Fragment {
    kind: u8,
    length: usize,
}

/// The fragment at the beginning of bytes, where it is whole.
fn fragment(bytes: &[u8]) -> Option<Fragment> {
    let (header, data) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let kind = header[6];
    let is_whole = (WHOLE..=LAST).contains(&kind) && checksum(kind, data.get(..length)?) == header[..4];
    is_whole.then_some(Fragment { kind, length })
}

fn checksum(kind: u8, data: &[u8]) -> [u8; 4] {
    masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), data)).to_le_bytes()
}

fn located<T>(path: &Path, read: io::Result<T>) -> Result<T, Error> {
    read.map_err(|error| Error::io(path, error))
}

fn damaged(path: &Path, at: u64) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        what: format!("it is damaged from byte {at} on"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A log of some records, each as the crate writes them; the second spans blocks.
    fn log() -> (Vec<u8>, Vec<usize>) {
        let mut log = Vec::new();
        let mut begins = Vec::new();
        for (number, length) in [900, 70_000, 5000, 300].into_iter().enumerate() {
            begins.push(log.len());
            let byte = b'a' + u8::try_from(number).unwrap();
            let mut data = &vec![byte; length][..];
            let mut is_first = true;
            while !data.is_empty() {
                let left = BLOCK_BYTES - log.len() % BLOCK_BYTES;
                if left < HEADER_BYTES {
                    log.resize(log.len() + left, 0);
                    continue;
                }
                let (now, rest) = data.split_at(data.len().min(left - HEADER_BYTES));
                let kind = match (is_first, rest.is_empty()) {
                    (true, true) => WHOLE,
                    (true, false) => FIRST,
                    (false, false) => MIDDLE,
                    (false, true) => LAST,
                };
                log.extend(checksum(kind, now));
                log.extend(u16::try_from(now.len()).unwrap().to_le_bytes());
                log.push(kind);
                log.extend(now);
                (data, is_first) = (rest, false);
            }
        }
        (log, begins)
    }

    fn judged(bytes: &[u8]) -> Judged {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        fs::write(&path, bytes).unwrap();
        judge(&path).unwrap()
    }

    #[test]
    fn a_log_that_ends_early_or_lacks_sectors_of_its_last_record_is_torn() {
        let (log, begins) = log();
        assert_eq!(judged(&log), Judged::Sound);
        for (record, begin) in begins.iter().copied().enumerate() {
            let end = begins.get(record + 1).copied().unwrap_or(log.len());
            assert_eq!(judged(&log[..begin]), Judged::Sound);
            for cut in [begin + 8, (begin + end) / 2, end - 1] {
                assert_eq!(
                    judged(&log[..cut]),
                    Judged::Torn(begin as u64),
                    "record {record} to {cut}"
                );
            }
            // Each page of a record may be as it was: zeros.
            for page in (begin / 4096)..=((end - 1) / 4096) {
                let mut torn = log[..end].to_vec();
                let lost = (page * 4096).max(begin)..((page + 1) * 4096).min(end);
                torn[lost.clone()].fill(0);
                let found = judged(&torn);
                let is_torn = matches!(found, Judged::Torn(at) if at == begin as u64);
                // The first page alone, and nothing is written of it.
                let is_gone = found == Judged::Sound && lost == (begin..end);
                assert!(is_torn || is_gone, "record {record}, page {page}: {found:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage() {
        let (log, _) = log();
        for at in (0..log.len())
            .step_by(97)
            .chain(0..7)
            .chain(log.len() - 307..log.len() - 295)
        {
            let mut damaged = log.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(
                matches!(judged(&damaged), Judged::Damaged(_)),
                "a bit of byte {at}"
            );
        }
    }
}
