//! Small blobs between append and flush: their files are written and flushed, their names are not given yet.
//!
//! All that may fail for want of room happens in append, before a blob waits here. A flush that finds no room
//! for a name leaves the blob waiting, so that the flush of another thread can't pass over it in silence.

use std::borrow::Cow;
use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, MutexGuard};

use super::layout::Leaf;
use super::outboard;
use super::place::{Folder, NewBlob, Place};
use crate::coffer::backend::{Put, Stat};
use crate::coffer::error::Error;
use crate::coffer::frame::{Packed, TABLE_ENTRY_BYTES};
use crate::id::BlobId;

/// What was appended and not flushed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: Mutex<Queue>,
    /// Held by the one thread that flushes.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Those of `entries`, and of a flush under way, that are no blobs yet.
    waiting: HashSet<BlobId>,
}

#[derive(Debug)]
struct Entry {
    stat: Stat,
    held: Held,
}

/// Where the bytes of a blob are that waits.
#[derive(Debug)]
enum Held {
    /// In files of their own.
    New(NewBlob),
    /// The blob was there: its class may rise, and its name is flushed once more, as whoever gave it may not have done
    /// so yet. Where it is set aside before, being damaged, these are written: this put may be the one that mends it.
    There(Packed),
    /// The blob has its name.
    Named,
}

impl Pending {
    /// Takes a blob; its file is flushed, its name is not given.
    pub(super) fn append(&self, place: &Place, packed: &Packed) -> Result<Put, Error> {
        let stat = Stat {
            id: packed.id(),
            len: packed.len(),
            class: packed.class,
        };
        let mut new = None;
        if !self.queue().knows(place, &stat.id)? {
            new = Some(write(place, packed)?);
        }
        let mut queue = self.queue();
        // Once more under the lock that ends this: another thread may have been quicker.
        if new.is_some() && queue.knows(place, &stat.id)? {
            new = None;
        }
        let fresh = new.is_some();
        if fresh {
            queue.waiting.insert(stat.id);
        }
        let held = match new {
            Some(new) => Held::New(new),
            None => Held::There(packed.clone()),
        };
        queue.entries.push(Entry { stat, held });
        Ok(Put {
            id: stat.id,
            len: stat.len,
            fresh,
        })
    }

    /// Gives names to all that waits, each folder flushed once.
    pub(super) fn flush(&self, place: &Place) -> Result<(), Error> {
        let _turn = self.turn.lock().expect("no thread panics during its turn");
        place.writable()?;
        let mut entries = mem::take(&mut self.queue().entries);
        entries.sort_by_key(|entry| Leaf::of(&entry.stat.id));
        let mut named = 0;
        let outcome = entries
            .chunk_by_mut(|a, b| Leaf::of(&a.stat.id) == Leaf::of(&b.stat.id))
            .try_for_each(|group| {
                name_group(place, group)?;
                named += group.len();
                Ok(())
            });
        let left = entries.split_off(named);
        let mut queue = self.queue();
        for entry in entries {
            queue.waiting.remove(&entry.stat.id);
        }
        queue.entries.splice(0..0, left);
        outcome
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("no thread panics while it holds the queue")
    }
}

impl Queue {
    fn knows(&self, place: &Place, id: &BlobId) -> Result<bool, Error> {
        Ok(self.waiting.contains(id) || place.lookup(id)?.is_some())
    }
}

/// Names the blobs of one folder, and flushes it.
fn name_group(place: &Place, group: &mut [Entry]) -> Result<(), Error> {
    let folder = place.folder(Folder::Leaf(Leaf::of(&group[0].stat.id)))?;
    let new = group.iter().filter_map(|entry| match &entry.held {
        Held::New(new) => Some((new, entry.stat.id)),
        Held::There(_) | Held::Named => None,
    });
    place.publish_tables(&folder, new)?;
    for entry in group {
        match &entry.held {
            Held::New(new) => {
                place.publish(new, entry.stat)?;
            }
            Held::There(packed) => {
                if !place.raise(&entry.stat.id, entry.stat.class)? {
                    place.publish(&write(place, packed)?, entry.stat)?;
                }
            }
            Held::Named => {}
        }
        entry.held = Held::Named;
    }
    place.flush_folder(&folder)
}

fn write(place: &Place, packed: &Packed) -> Result<NewBlob, Error> {
    let (plain, table) = files(packed);
    Ok(NewBlob {
        table: table.map(|table| place.write_temp(&table)).transpose()?,
        bytes: place.write_temp(&plain)?,
    })
}

/// The plain bytes of a blob, and its table where it has one.
fn files(packed: &Packed) -> (Cow<'_, [u8]>, Option<Vec<u8>>) {
    let body = &packed.body;
    if body.frames < 2 {
        let plain = if body.zstd {
            Cow::Owned(packed.plain())
        } else {
            Cow::Borrowed(&body.bytes[..])
        };
        return (plain, None);
    }
    let plain_len = packed.plain_len as usize;
    // A compressed frame is a tenth shorter at least, so this length means that none is.
    if body.bytes.len() == plain_len + body.frames as usize * TABLE_ENTRY_BYTES {
        let (plain, entries) = body.bytes.split_at(plain_len);
        return (Cow::Borrowed(plain), Some(outboard::with_header(entries)));
    }
    let plain = packed.plain();
    let table = outboard::encode(&outboard::tree_of(&plain));
    (Cow::Owned(plain), Some(table))
}
