//! Checking a haystack, and setting damaged blobs aside.
//!
//! Without `read_data` every entry of the index is compared with the needle it points at; with it every blob
//! is read and hashed. A repair that finds the index at odds with the volumes rebuilds it first.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::needle::{HEADER_BYTES, Header, Kind};
use super::run::Entry;
use super::tail::is_whole;
use super::volume::{SOLO, Volume};
use super::{Core, rebuild};
use crate::coffer::backend::{Aside, CheckOptions, CheckReport, Reader};
use crate::coffer::error::Error;
use crate::coffer::fs::link;
use crate::durable;
use crate::id::BlobId;

/// Damaged blobs a report names; the rest is counted in a note.
const NAMED_MAX: usize = 100_000;

/// Bytes of a needle that are copied at once when it is set aside.
const PIECE_BYTES: usize = 4096;

/// See [`crate::coffer::Backend::check`].
pub(super) fn check(
    core: &Core,
    options: CheckOptions,
    progress: &dyn Fn(u64),
) -> Result<CheckReport, Error> {
    let mut report = look(core, options, progress)?;
    let index_is_wrong =
        !report.missing.is_empty() || report.notes.iter().any(|note| note.starts_with(INDEX));
    if options.repair && index_is_wrong {
        rebuild::rebuild(core)?;
        let missing = report.missing.len();
        report = look(core, options, progress)?;
        report.notes.push(format!(
            "the index was rebuilt from the volumes ({missing} entries had pointed nowhere)"
        ));
    }
    if options.repair {
        for id in std::mem::take(&mut report.damaged) {
            // Else it is gone, or was put again since it was looked at.
            if quarantine(core, &id, Aside::Damaged)? {
                report.damaged.push(id);
                report.quarantined.push(id);
            }
        }
    }
    if let Some(reason) = core
        .fault
        .lock()
        .expect("no panic while the fault is held")
        .clone()
    {
        report.notes.push(format!("the store is read only: {reason}"));
    }
    Ok(report)
}

const INDEX: &str = "the index ";

fn look(core: &Core, options: CheckOptions, progress: &dyn Fn(u64)) -> Result<CheckReport, Error> {
    let mut report = CheckReport::default();
    for item in core.index.iter(None) {
        let (id, entry) = match item {
            Ok(item) => item,
            Err(error @ Error::Busy) => return Err(error),
            Err(error) => {
                report.notes.push(format!("{INDEX}can't be read: {error}"));
                break;
            }
        };
        if entry.alias {
            continue;
        }
        report.blobs += 1;
        progress(report.blobs);
        let found = if options.read_data {
            read(core, &id, &mut report)?
        } else {
            glance(core, &id, &entry)?
        };
        let named = report.damaged.len() + report.missing.len() < NAMED_MAX;
        match found {
            State::Whole => {}
            State::Damaged if named => report.damaged.push(id),
            State::Missing if named => report.missing.push(id),
            State::Damaged | State::Missing => {
                report.notes.push(format!(
                    "more than {NAMED_MAX} blobs are damaged: the rest was not looked at"
                ));
                break;
            }
        }
    }
    Ok(report)
}

enum State {
    Whole,
    Damaged,
    Missing,
}

/// Whether the entry points at a needle of its blob.
fn glance(core: &Core, id: &BlobId, entry: &Entry) -> Result<State, Error> {
    let state_now = |state| {
        Ok(if core.index.live(id)? == Some(*entry) {
            state
        } else {
            State::Whole
        })
    };
    let Some(volume) = core.volumes.get(entry.volume)? else {
        return state_now(State::Missing);
    };
    let mut bytes = [0; HEADER_BYTES];
    let header = match volume.read_exact(&mut bytes, entry.offset) {
        Ok(()) => Header::decode(&bytes, &volume.key),
        Err(Error::Busy) => return Err(Error::Busy),
        Err(_) => None,
    };
    match header {
        Some(header) if header.kind == Kind::Blob && header.id == *id && header.plain_len == entry.len => {
            let end = entry.offset + HEADER_BYTES as u64 + header.stored_len;
            if volume.len()? >= end {
                Ok(State::Whole)
            } else {
                state_now(State::Damaged)
            }
        }
        _ => state_now(State::Damaged),
    }
}

/// Whether the blob reads as what it is.
fn read(core: &Core, id: &BlobId, report: &mut CheckReport) -> Result<State, Error> {
    let mut run = || -> Result<(), Error> {
        let Some(mut reader) = core.open_reader(id)? else {
            return Ok(());
        };
        let len = reader.stat().len;
        let mut at = 0;
        while at < len {
            let bytes = reader.read_at(at)?;
            at += bytes.len() as u64;
            report.bytes_read += bytes.len() as u64;
        }
        Ok(())
    };
    match run() {
        Ok(()) => Ok(State::Whole),
        Err(Error::Corrupt { .. } | Error::Io { .. }) => match core.index.live(id)? {
            Some(entry) if core.volumes.get(entry.volume)?.is_none() => Ok(State::Missing),
            Some(_) => Ok(State::Damaged),
            None => Ok(State::Whole),
        },
        Err(error) => Err(error),
    }
}

/// Copies the needle of a blob to quarantine/ and takes it out of the index; says whether that was done. Durable on
/// return. Where the copy can't be written the blob stays.
///
/// Only what was looked at and copied goes: where the blob was put anew or moved meanwhile, what is there now is
/// looked at as well.
pub(super) fn quarantine(core: &Core, id: &BlobId, which: Aside) -> Result<bool, Error> {
    while let Some(entry) = core.index.live(id)? {
        core.writable()?;
        if let Some(volume) = core.volumes.get(entry.volume)? {
            if which == Aside::Damaged {
                match is_whole(&volume, entry.offset, id, entry.len) {
                    Ok(true) => return Ok(false),
                    Err(error @ Error::Busy) => return Err(error),
                    // A disk that can't read the needle must not keep it in the way of a good copy.
                    Ok(false) | Err(_) => {}
                }
            }
            let name = format!("{}-{:08x}-{}.needle", id.hex(), entry.volume, entry.offset);
            let target = core.volumes.folder("quarantine").join(name);
            let span = core.span_of(&entry).unwrap_or(entry.len + HEADER_BYTES as u64);
            copy_needle(&volume, entry.offset, span, &target).map_err(|source| Error::io(&target, source))?;
        }
        if core.delete_set_aside(id, &entry)? {
            // Not before: who reads the count and then finds the blob has not seen it go.
            core.quarantined.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
    }
    Ok(false)
}

fn copy_needle(volume: &Volume, offset: u64, span: u64, target: &Path) -> io::Result<()> {
    if volume.number & SOLO != 0 {
        // A large blob is not copied: its volume gets a second name, which stays when the first goes.
        link(&volume.path, target)?;
        return durable::sync_folder_of(target);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(target)?;
    let (mut at, end) = (offset, offset + span);
    while at < end {
        // So small that of a needle with a bad sector all the rest is kept, with zeros in its place.
        let mut piece = [0; PIECE_BYTES];
        let piece = &mut piece[..usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)];
        if let Err(error) = volume.read(piece, at) {
            tracing::warn!(%error, at, "bytes of a damaged blob can't be read, nor kept");
        }
        file.write_all(piece)?;
        at += piece.len() as u64;
    }
    file.sync_all()?;
    durable::sync_folder_of(target)
}
