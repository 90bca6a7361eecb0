//! Checking a haystack, and setting damaged blobs aside.
//!
//! Without `read_data` every entry of the index is compared with the needle it points at; with it every blob
//! is read and hashed. A repair that finds the index at odds with the volumes rebuilds it first.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::needle::{HEADER_BYTES, Header, Kind};
use super::run::Entry;
use super::volume::SOLO;
use super::{Core, rebuild};
use crate::coffer::backend::{CheckOptions, CheckReport, Reader};
use crate::coffer::error::Error;
use crate::durable;
use crate::id::BlobId;

/// Damaged blobs a report names; the rest is counted in a note.
const NAMED_MAX: usize = 100_000;

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
        for id in report.damaged.clone() {
            quarantine(core, &id)?;
            report.quarantined.push(id);
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

/// Copies the needle of a damaged blob to quarantine/ and takes it out of the index. Durable on return.
///
/// Only what was copied goes: where the blob was put anew or moved meanwhile, what is there now is copied as well.
pub(super) fn quarantine(core: &Core, id: &BlobId) -> Result<(), Error> {
    while let Some(entry) = core.index.live(id)? {
        core.writable()?;
        let folder = core.volumes.folder("quarantine");
        let target = folder.join(format!(
            "{}-{:08x}-{}.needle",
            id.hex(),
            entry.volume,
            entry.offset
        ));
        // A disk that can't read the needle must not keep it in the way of a good copy.
        match copy_needle(core, &entry, &target) {
            Ok(true) => {
                core.quarantined.fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%id, %error, "the bytes of a damaged blob could not be kept"),
        }
        if core.delete_set_aside(id, &entry)? {
            break;
        }
    }
    Ok(())
}

/// Says whether anything was kept.
fn copy_needle(core: &Core, entry: &Entry, target: &Path) -> Result<bool, Error> {
    let Some(volume) = core.volumes.get(entry.volume)? else {
        return Ok(false);
    };
    let span = core.span_of(entry).unwrap_or(entry.len + HEADER_BYTES as u64);
    let copy = || -> io::Result<()> {
        if entry.volume & SOLO != 0 {
            // A large blob is not copied: its volume gets a second name, which stays when the first goes.
            std::fs::hard_link(&volume.path, target)?;
            return durable::sync_folder_of(target);
        }
        let mut source = std::fs::File::open(&volume.path)?;
        source.seek(SeekFrom::Start(entry.offset))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(target)?;
        io::copy(&mut source.take(span), &mut file)?;
        file.flush()?;
        file.sync_all()?;
        durable::sync_folder_of(target)
    };
    copy().map(|()| true).map_err(|source| Error::io(target, source))
}
