//! Opening a haystack: the last checkpoint, then whatever the volumes have beyond it.
//!
//! The tail of each volume is read needle by needle and every body is checked. A needle's `durable` field
//! says up to where its volume was flushed before it was written; the largest one seen is the *mark*.
//! Broken bytes below the mark were acknowledged once: they are rot, and stay as they are. Broken bytes above
//! it are what a cut left of a group nobody was told of: the tail from there is copied to quarantine/ and cut.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::index::Index;
use super::manifest::{self, Checkpoint, Tally};
use super::needle::{Header, Killed, Kind};
use super::run::Entry;
use super::scan::{Found, Scan};
use super::tail::{Flushed, cut, is_torn, set_aside};
use super::volume::{PAGE_BYTES, SOLO, Volume, Volumes};
use super::writer::{Effect, Writer};
use super::{Core, HaystackOptions, Runs, rebuild};
use crate::coffer::error::Error;

/// A needle found beyond the checkpoint.
#[derive(Debug, Clone, Copy)]
struct Tail {
    header: Header,
    volume: u32,
    offset: u64,
}

/// Opens the haystack in `folder`.
pub(super) fn open(folder: &Path, options: HaystackOptions) -> Result<Core, Error> {
    let volumes = Volumes::at(folder)?;
    let cleared = volumes.clear_unbegun().and_then(|()| volumes.clear_staging());
    let mut fault = cleared.err().map(|error| error.to_string());
    let checkpoint = manifest::read(folder)?;
    let key = volumes.settle_key(checkpoint.as_ref().map(|checkpoint| checkpoint.key))?;
    let present = volumes.shared()?;
    let checkpoint = checkpoint.filter(|checkpoint| all_there(checkpoint, &present));
    let (checkpoint, rebuilt) = match checkpoint {
        Some(checkpoint) => (checkpoint, false),
        None => (
            rebuild::from_volumes(folder, &volumes, key, Some(&mut fault))?,
            true,
        ),
    };
    let Checkpoint {
        runs,
        next_run,
        mut tally,
        ..
    } = checkpoint;
    if fault.is_none() {
        remove_unknown_runs(folder, &runs.iter().map(|run| run.number).collect::<Vec<_>>())?;
    }
    let index = Index::new(runs);
    if !rebuilt {
        let mut tail = Vec::new();
        let checkpointed = tally.next_shared;
        for &number in &present {
            // A compaction was cut between the checkpoint that no longer needs this volume and its removal.
            if number < checkpointed && !tally.volumes.contains_key(&number) {
                volumes.remove(number)?;
                continue;
            }
            let known = tally.volumes.get(&number).map_or(PAGE_BYTES, |volume| volume.end);
            tally.next_shared = tally.next_shared.max(number + 1);
            let flushed = Flushed::of_shared(number, &present);
            match read_tail(&volumes, number, known, flushed, &mut tail) {
                Ok(end) => tally.volumes.entry(number).or_default().end = end,
                Err(error @ (Error::Newer { .. } | Error::Busy)) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "a volume can't be read to its end");
                    fault.get_or_insert(error.to_string());
                }
            }
        }
        for number in volumes.solos(tally.next_solo)? {
            tally.next_solo = tally.next_solo.max((number & !SOLO) + 1);
            tail.extend(solo_needle(&volumes, number)?);
        }
        for item in &tail {
            tally.use_up_solo(&item.header);
        }
        replay(&index, &volumes, &mut tally, tail)?;
    }
    let active = match fault {
        None => active_volume(&volumes, &tally, options.volume_bytes)?,
        Some(_) => None,
    };
    let quarantined = needles_in(&folder.join("quarantine"));
    Ok(Core {
        folder: folder.to_owned(),
        options,
        key,
        volumes,
        index,
        writer: Mutex::new(Writer::new(tally, active)),
        publishing: Mutex::new(Runs { next: next_run }),
        sweeping: Mutex::new(()),
        fault: Mutex::new(fault),
        quarantined: AtomicU64::new(quarantined),
        staged: AtomicU64::new(0),
    })
}

/// Whether every volume the checkpoint counts on is there.
fn all_there(checkpoint: &Checkpoint, present: &[u32]) -> bool {
    let missing = checkpoint
        .tally
        .volumes
        .keys()
        .find(|number| present.binary_search(number).is_err());
    if let Some(number) = missing {
        tracing::warn!(
            number,
            "a volume of the last checkpoint is not there; the index is rebuilt"
        );
    }
    missing.is_none()
}

/// Reads what a shared volume has beyond `known`; returns where it ends.
fn read_tail(
    volumes: &Volumes,
    number: u32,
    known: u64,
    flushed: Flushed,
    tail: &mut Vec<Tail>,
) -> Result<u64, Error> {
    let volume = match volumes.get(number) {
        Ok(Some(volume)) => volume,
        Ok(None) => return Ok(known),
        // A volume whose first page never became durable holds nothing that was acknowledged.
        Err(Error::Damaged { path, .. }) if known == PAGE_BYTES => {
            set_aside(&path, 0, volumes, number)?;
            fs::remove_file(&path).map_err(|source| Error::io(&path, source))?;
            return Ok(PAGE_BYTES);
        }
        Err(error) => return Err(error),
    };
    let len = volume.len()?;
    if len <= known {
        return Ok(known.min(len.max(PAGE_BYTES)));
    }
    // After a flush that failed, pages may count as written that never were: what is shown is read from the medium.
    volume.uncache(known, 0);
    let found = tail_of(&volume, known)?;
    let mark = match flushed {
        Flushed::All => len,
        Flushed::AsNeedlesSay => found.iter().fold(known, |mark, item| match item {
            (Found::Needle(_, header), _) => mark.max(header.durable),
            (Found::Damage(..), _) => mark,
        }),
    };
    let mut end = len;
    for (item, whole) in found {
        match item {
            Found::Needle(offset, header) if whole || offset < mark => {
                if !whole {
                    tracing::error!(id = %header.id, volume = number, "a blob that was flushed is damaged");
                }
                tail.push(Tail {
                    header,
                    volume: number,
                    offset,
                });
            }
            Found::Damage(from, to) if from < mark => {
                tracing::error!(
                    volume = number,
                    from,
                    to,
                    "bytes that were flushed are damaged: run `refuge check`"
                );
            }
            Found::Needle(at, _) | Found::Damage(at, _) => {
                end = at;
                break;
            }
        }
    }
    if end < len {
        cut(volumes, number, end)?;
    }
    // A killed process leaves pages that are written and not flushed; they are shown only after this.
    volume
        .file
        .sync_all()
        .map_err(|source| Error::io(&volume.path, source))?;
    Ok(end)
}

/// What stands beyond `from`, and of each needle whether its body is whole.
fn tail_of(volume: &Arc<Volume>, from: u64) -> Result<Vec<(Found, bool)>, Error> {
    let mut scan = Scan::new(Arc::clone(volume), from)?;
    let mut found = Vec::new();
    while let Some(item) = scan.next()? {
        let whole = match item {
            Found::Needle(offset, header) => !is_torn(volume, offset, &header),
            Found::Damage(..) => false,
        };
        found.push((item, whole));
    }
    Ok(found)
}

/// The needle of a solo volume. One that is not whole was never published: it is renamed only after a flush.
fn solo_needle(volumes: &Volumes, number: u32) -> Result<Option<Tail>, Error> {
    let Some(volume) = volumes.get(number)? else {
        return Ok(None);
    };
    let first = Scan::new(Arc::clone(&volume), PAGE_BYTES)?.next()?;
    match first {
        Some(Found::Needle(offset, header)) => Ok(Some(Tail {
            header,
            volume: number,
            offset,
        })),
        _ => {
            tracing::error!(path = %volume.path.display(), "a volume of one large blob is damaged");
            Ok(None)
        }
    }
}

/// Brings the index and the counters up to what was found, in the order it was written.
fn replay(index: &Index, volumes: &Volumes, tally: &mut Tally, mut tail: Vec<Tail>) -> Result<(), Error> {
    tail.sort_by_key(|item| (item.header.seq, item.header.moved, item.volume));
    let mut writer = Writer::new(std::mem::take(tally), None);
    for Tail {
        header,
        volume,
        offset,
    } in tail
    {
        let existing = index.get(&header.id)?.filter(|entry| !entry.dead);
        let span = header.span();
        let change = match (header.kind, existing) {
            (Kind::Blob, Some(old)) if header.moved => {
                let entry = Entry {
                    volume,
                    offset,
                    pinned: header.pinned || old.pinned,
                    ..old
                };
                let effect = Effect::Moved {
                    from: old.volume,
                    to: volume,
                    span,
                };
                (old.volume != volume || old.offset != offset).then_some((entry, effect))
            }
            // A second copy, or a moved needle whose blob is deleted: dead weight for the next compaction.
            (Kind::Blob, Some(_)) => None,
            (Kind::Blob, None) if header.moved => None,
            (Kind::Blob, None) => {
                let pinned = header.pinned;
                let entry = Entry {
                    volume,
                    offset,
                    len: header.plain_len,
                    pinned,
                    dead: false,
                    alias: false,
                };
                let effect = Effect::Added {
                    volume,
                    span,
                    len: entry.len,
                };
                Some((entry, effect))
            }
            // The original is still in the tail, or the checkpoint has seen it.
            (Kind::Tombstone | Kind::Pin, _) if header.moved => None,
            (Kind::Tombstone, existing) => {
                let killed = Killed::from_plain_len(header.plain_len).volume;
                if killed & SOLO != 0 {
                    volumes.remove(killed)?;
                }
                existing.map(|old| {
                    let dead_span = old.len + super::HEADER_BYTES as u64;
                    let effect = Effect::Removed {
                        volume: old.volume,
                        span: dead_span,
                        len: old.len,
                        tombstone: (volume, span),
                    };
                    (
                        Entry {
                            dead: true,
                            len: 0,
                            ..old
                        },
                        effect,
                    )
                })
            }
            (Kind::Pin, Some(old)) => Some((Entry { pinned: true, ..old }, Effect::Kept { volume, span })),
            (Kind::Pin, None) => None,
            (Kind::Alias, _) => {
                let entry = Entry {
                    volume,
                    offset,
                    len: 64,
                    pinned: false,
                    dead: false,
                    alias: true,
                };
                Some((entry, Effect::Kept { volume, span }))
            }
        };
        if let Some((entry, effect)) = change {
            index.insert([(header.id, entry)]);
            writer.count(effect);
        }
        writer.see(header.seq);
    }
    *tally = writer.tally().clone();
    Ok(())
}

/// The volume appending goes on in: the last one, if it has room and can be written.
fn active_volume(
    volumes: &Volumes,
    tally: &Tally,
    volume_bytes: u64,
) -> Result<Option<(Arc<Volume>, u64)>, Error> {
    let Some((number, last)) = tally.volumes.last_key_value() else {
        return Ok(None);
    };
    if last.end >= volume_bytes {
        return Ok(None);
    }
    let Some(volume) = volumes.get(*number)? else {
        return Ok(None);
    };
    // The file may be longer than what the index knows where its end could not be read: leave it alone.
    Ok((volume.len()? <= last.end.max(PAGE_BYTES)).then_some((volume, last.end.max(PAGE_BYTES))))
}

/// Blobs set aside. Only a number to show, so a folder that can't be read counts as empty.
fn needles_in(folder: &Path) -> u64 {
    let is_needle = |entry: &fs::DirEntry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "needle")
    };
    fs::read_dir(folder).map_or(0, |entries| entries.flatten().filter(is_needle).count() as u64)
}

/// Removes runs that no checkpoint refers to: of merges, or of checkpoints that were cut.
fn remove_unknown_runs(folder: &Path, known: &[u32]) -> Result<(), Error> {
    let fail = |source| Error::io(folder, source);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let is_run = path.extension().is_some_and(|extension| extension == "run");
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if is_run && number.is_none_or(|number| !known.contains(&number)) {
            super::discard(&path);
        }
    }
    Ok(())
}
