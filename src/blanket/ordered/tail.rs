//! What is behind the last whole record of a log: room, a write that a power cut tore, or damage.
//!
//! Each record is on the medium before the next one begins, so that only the last may be torn: then it lacks its end, or whole
//! sectors of it are as they were before, zeros.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// The least that a medium writes as a whole.
pub(in crate::blanket) const SECTOR_BYTES: usize = 512;

/// Bytes that are looked through at once: whole sectors.
const WINDOW_BYTES: usize = 128 * SECTOR_BYTES;

/// The rest of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::blanket) struct Tail {
    /// Where what is written ends.
    pub(in crate::blanket) written: u64,
    /// Whether a sector before that is all zeros.
    pub(in crate::blanket) has_gap: bool,
}

/// Looks through a file from `from` to its end; `visit` sees all of it but windows of zeros, each with its place.
pub(in crate::blanket) fn tail(
    file: &mut File,
    from: u64,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> io::Result<Tail> {
    let sector = SECTOR_BYTES as u64;
    let mut at = from - from % sector;
    file.seek(SeekFrom::Start(at))?;
    let mut tail = Tail {
        written: from,
        has_gap: false,
    };
    let mut is_behind_gap = false;
    let zeros = vec![0; WINDOW_BYTES];
    let mut window = vec![0; WINDOW_BYTES];
    loop {
        let read = fill(file, &mut window)?;
        let is_last = read < window.len();
        // The first sector may begin with what is whole.
        let skipped = usize::try_from(from.saturating_sub(at)).map_or(read, |skipped| skipped.min(read));
        window[..skipped].fill(0);
        if window[..read] == zeros[..read] {
            // Most of a log that is made longer than what is written of it.
            is_behind_gap |= read > skipped;
            at += read as u64;
            if is_last {
                return Ok(tail);
            }
            continue;
        }
        for (begin, bytes) in (at..)
            .step_by(SECTOR_BYTES)
            .zip(window[..read].chunks(SECTOR_BYTES))
        {
            match bytes.iter().rposition(|byte| *byte != 0) {
                None => is_behind_gap = true,
                Some(last) => {
                    tail.has_gap |= is_behind_gap;
                    tail.written = begin + last as u64 + 1;
                }
            }
        }
        visit(at, &window[..read]);
        at += read as u64;
        if is_last {
            return Ok(tail);
        }
    }
}

/// Reads until a buffer is full or the file ends; how many bytes.
pub(in crate::blanket) fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
