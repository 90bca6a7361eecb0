//! Compaction: what still lives in volumes that are mostly dead is appended anew, then the volume goes.
//!
//! Serving goes on: a needle is moved under the writer's lock only if the index still points at it, readers
//! that hold the old file read on, and who looks up late looks up again. The order that makes it safe: copies
//! flushed, checkpoint that names only the copies durable, old file removed. Cut anywhere, there are at worst
//! two copies with one sequence number. A volume that the index still names is never removed. A volume may be full
//! and yet hold needles of a group whose flush is still to come: those are moved like all others.

use std::sync::Arc;

use super::needle::{HEADER_BYTES, Header, Killed, Kind};
use super::run::Entry;
use super::scan::{Found, Scan};
use super::tail::is_whole;
use super::volume::{PAGE_BYTES, Volume};
use super::writer::{Change, Effect};
use super::{Core, check};
use crate::coffer::backend::{Aside, Compaction};
use crate::coffer::error::Error;
use crate::id::BlobId;

/// A volume is compacted when less than this share of it still lives, in hundredths.
const LIVE_PERCENT_MAX: u64 = 50;

/// Compacts every volume that is worth it.
pub(super) fn compact(core: &Core, stop: &dyn Fn() -> bool) -> Result<Compaction, Error> {
    let _one_at_a_time = core.sweeping.lock().expect("no panic while a compaction runs");
    let mut done = Compaction::default();
    core.flush()?;
    for number in candidates(core) {
        if stop() {
            break;
        }
        core.writable()?;
        let compacted = core.volumes.get(number).and_then(|volume| match volume {
            Some(volume) => Ok((volume.len()?, compact_one(core, &volume)?)),
            None => Ok((0, 0)),
        });
        match compacted {
            Ok((before, moved)) => {
                done.moved_bytes += moved;
                done.freed_bytes += before.saturating_sub(moved);
            }
            // What is wrong with one volume must not keep all others.
            Err(error @ (Error::Io { .. } | Error::NoSpace { .. })) => {
                tracing::error!(volume = number, %error, "a volume is not compacted");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Volumes that are mostly dead, the one being appended to left out; the emptiest first.
fn candidates(core: &Core) -> Vec<u32> {
    let writer = core.writer();
    let active = writer.active_number();
    let mut worth: Vec<(u64, u32)> = writer
        .tally()
        .volumes
        .iter()
        .filter(|(number, _)| Some(**number) != active)
        .map(|(number, volume)| {
            (
                volume.live * 100 / volume.end.saturating_sub(PAGE_BYTES).max(1),
                *number,
            )
        })
        .filter(|(percent, _)| *percent < LIVE_PERCENT_MAX)
        .collect();
    worth.sort_unstable();
    worth.into_iter().map(|(_, number)| number).collect()
}

/// Moves what is wanted out of a volume and removes it; returns the bytes moved.
fn compact_one(core: &Core, volume: &Arc<Volume>) -> Result<u64, Error> {
    let mut scan = Scan::new(Arc::clone(volume), PAGE_BYTES)?;
    let mut moved = 0;
    while let Some(found) = scan.next()? {
        match found {
            Found::Needle(offset, header) => moved += keep(core, volume, offset, &header)?,
            Found::Damage(from, to) => {
                tracing::error!(
                    volume = volume.number,
                    from,
                    to,
                    "damaged bytes keep a volume from being compacted"
                );
                return Ok(moved);
            }
        }
    }
    core.flush()?;
    // Nothing new comes to point here. Whatever still does, this code has a fault, and the blob outlives it.
    if let Some(id) = pointing_at(core, volume.number)? {
        tracing::error!(volume = volume.number, %id, "a volume is kept: a blob in it was not moved");
        return Ok(moved);
    }
    {
        let mut runs = core.publishing();
        core.flush_held(&mut runs)?;
        // The volume goes only after a checkpoint that knows nothing of it.
        core.writer().forget(volume.number);
        core.checkpoint_now(&mut runs)?;
    }
    core.volumes
        .remove(volume.number)
        .map_err(|error| core.fail(error))?;
    Ok(moved)
}

/// A blob or alias that the index has in this volume.
fn pointing_at(core: &Core, volume: u32) -> Result<Option<BlobId>, Error> {
    for item in core.index.iter(None) {
        let (id, entry) = item?;
        if entry.volume == volume {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Appends a needle anew if it is still wanted; returns its span then, else 0.
fn keep(core: &Core, volume: &Arc<Volume>, offset: u64, header: &Header) -> Result<u64, Error> {
    let here = |entry: &Entry| entry.volume == volume.number && entry.offset == offset;
    let wanted = |entry: Option<Entry>| match header.kind {
        Kind::Blob => entry.filter(|entry| here(entry) && !entry.alias),
        Kind::Alias => entry.filter(|entry| here(entry) && entry.alias),
        Kind::Pin => entry.filter(|entry| entry.pinned),
        Kind::Tombstone => None,
    };
    if header.kind == Kind::Tombstone {
        return keep_tombstone(core, volume, header);
    }
    // What is not shown yet counts as well: a group that filled this volume may be acknowledged at any moment.
    if wanted(core.newest(&core.writer(), &header.id)?).is_none() {
        return Ok(0);
    }
    // Read and checked before the lock is taken; a damaged blob must not go with its volume. One that can't be read may
    // be whole, and one that can't be set aside stays: either keeps its volume.
    if header.kind == Kind::Blob && !is_whole(volume, offset, &header.id, header.plain_len)? {
        core.flush()?;
        check::quarantine(core, &header.id, Aside::Damaged)?;
        return Ok(0);
    }
    let body = body_of(volume, offset, header)?;
    let mut writer = core.writer();
    let Some(entry) = wanted(core.newest(&writer, &header.id)?) else {
        return Ok(0);
    };
    let copy = Header {
        moved: true,
        pinned: entry.pinned && header.kind == Kind::Blob,
        ..*header
    };
    let mut run = || -> Result<(), Error> {
        let (to, at) = writer.push(&core.volumes, core.options.volume_bytes, copy, &body)?;
        let span = header.span();
        let moved = Entry {
            volume: to,
            offset: at,
            ..entry
        };
        let change = match header.kind {
            Kind::Pin | Kind::Tombstone => kept(to, span),
            Kind::Blob | Kind::Alias => Change {
                shown: Some((header.id, moved)),
                effect: Effect::Moved {
                    from: volume.number,
                    to,
                    span,
                },
            },
        };
        writer.stage(change);
        writer.write_out()
    };
    run().map_err(|error| core.fail(error))?;
    Ok(header.span())
}

/// A tombstone is wanted while any other volume of its time is there.
fn keep_tombstone(core: &Core, volume: &Arc<Volume>, header: &Header) -> Result<u64, Error> {
    let killed = Killed::from_plain_len(header.plain_len);
    let mut writer = core.writer();
    let needed = writer
        .tally()
        .volumes
        .keys()
        .any(|&other| other != volume.number && other < killed.next_shared);
    if !needed {
        drop(writer);
        if killed.volume & super::SOLO != 0
            && core
                .index
                .live(&header.id)?
                .is_none_or(|e| e.volume != killed.volume)
        {
            core.volumes
                .remove(killed.volume)
                .map_err(|error| core.fail(error))?;
        }
        return Ok(0);
    }
    let mut run = || -> Result<(), Error> {
        let copy = Header {
            moved: true,
            ..*header
        };
        let (to, _) = writer.push(&core.volumes, core.options.volume_bytes, copy, &[])?;
        writer.stage(kept(to, header.span()));
        writer.write_out()
    };
    run().map_err(|error| core.fail(error))?;
    Ok(header.span())
}

/// A needle that is kept for a later rebuild. The index shows whatever it shows: a newer blob of this id, or nothing.
fn kept(volume: u32, span: u64) -> Change {
    Change {
        shown: None,
        effect: Effect::Kept { volume, span },
    }
}

fn body_of(volume: &Volume, offset: u64, header: &Header) -> Result<Vec<u8>, Error> {
    let too_large = |_| Error::TooLarge {
        len: header.stored_len,
    };
    let mut body = vec![0; usize::try_from(header.stored_len).map_err(too_large)?];
    volume.read_exact(&mut body, offset + HEADER_BYTES as u64)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Haystack, HaystackOptions};
    use super::{Found, Kind, PAGE_BYTES, Scan, compact_one, keep_tombstone, pointing_at};
    use crate::coffer::backend::{Backend, Class, read_whole};
    use crate::coffer::frame::{Compression, Packed};
    use crate::id::BlobId;

    /// A store whose volumes hold some 20 blobs each.
    fn small_volumes(folder: &Path) -> Haystack {
        let options = HaystackOptions {
            volume_bytes: 64 * 1024,
            compression: Compression::OFF,
            ..HaystackOptions::default()
        };
        Haystack::open(folder, options).unwrap()
    }

    fn append(store: &Haystack, blobs: std::ops::Range<u8>) -> Vec<BlobId> {
        let batch: Vec<Packed> = blobs
            .map(|fill| Packed::new(vec![fill; 3000].into(), Class::Part, Compression::OFF))
            .collect();
        store.append(&batch).unwrap();
        batch.iter().map(Packed::id).collect()
    }

    fn all_readable(store: &Haystack, ids: &[BlobId]) {
        for id in ids {
            let mut reader = store.open(id).unwrap().expect("it was acknowledged");
            assert_eq!(BlobId::of(&read_whole(&mut *reader, 3000).unwrap()), *id);
        }
    }

    #[test]
    fn what_waits_for_its_flush_in_a_full_volume_outlives_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let store = small_volumes(dir.path());
        let dead = append(&store, 0..15);
        store.delete(&dead).unwrap();
        let mut ids = append(&store, 20..40);
        let volume = store.core.volumes.get(0).unwrap().unwrap();
        assert_ne!(store.core.writer().active_number(), Some(volume.number));
        compact_one(&store.core, &volume).unwrap();
        store.flush().unwrap();
        ids.extend(append(&store, 50..51));
        store.flush().unwrap();
        all_readable(&store, &ids);
        drop(store);
        all_readable(&small_volumes(dir.path()), &ids);
        assert!(!dir.path().join("volumes/00000000.vol").exists());
    }

    #[test]
    fn a_volume_is_named_by_the_index_until_its_blobs_have_moved() {
        let dir = tempfile::tempdir().unwrap();
        let store = small_volumes(dir.path());
        append(&store, 0..40);
        store.flush().unwrap();
        let volume = store.core.volumes.get(0).unwrap().unwrap();
        assert!(pointing_at(&store.core, 0).unwrap().is_some());
        assert_eq!(pointing_at(&store.core, 9).unwrap(), None);
        compact_one(&store.core, &volume).unwrap();
        assert_eq!(pointing_at(&store.core, 0).unwrap(), None);
    }

    #[test]
    fn a_volume_that_the_index_still_names_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = small_volumes(dir.path());
        let ids = append(&store, 0..40);
        store.flush().unwrap();
        let volume = store.core.volumes.get(0).unwrap().unwrap();
        // What no sound index has: a second name for a needle, which no scan of the volume finds.
        let entry = store.core.index.live(&ids[0]).unwrap().unwrap();
        assert_eq!(entry.volume, 0);
        store
            .core
            .index
            .insert([(BlobId::of(b"no scan finds this"), entry)]);
        compact_one(&store.core, &volume).unwrap();
        assert!(dir.path().join("volumes/00000000.vol").exists());
        all_readable(&store, &ids);
    }

    #[test]
    fn a_tombstone_that_moves_while_its_blob_is_streamed_anew_does_not_hide_the_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = small_volumes(dir.path());
        append(&store, 0..40);
        let mut incoming = store.begin(Class::Part).unwrap();
        incoming.write(&vec![7; 2 * 1024 * 1024]).unwrap();
        let id = incoming.finish(None).unwrap().id;
        let core = &store.core;
        let entry = core.index.live(&id).unwrap().unwrap();
        assert_eq!(store.delete(&[id]).unwrap(), [true]);
        let active = core.writer().active_number().unwrap();
        let volume = core.volumes.get(active).unwrap().unwrap();
        let mut scan = Scan::new(volume.clone(), PAGE_BYTES).unwrap();
        let tombstone = std::iter::from_fn(|| scan.next().unwrap()).find_map(|found| match found {
            Found::Needle(_, header) if header.kind == Kind::Tombstone => Some(header),
            _ => None,
        });
        // A stream of the same blob is about to get its volume: the index does not know of it yet.
        core.writer().set_placing(Some(id));
        assert!(keep_tombstone(core, &volume, &tombstone.unwrap()).unwrap() > 0);
        core.index.insert([(id, entry)]);
        core.writer().set_placing(None);
        store.flush().unwrap();
        assert_eq!(core.index.live(&id).unwrap(), Some(entry));
    }
}
