//! Blobs in ascending order, one folder in memory at a time.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::vec;

use super::layout::{self, Kind, Leaf};
use super::place::Place;
use crate::coffer::backend::{Class, Stat};
use crate::coffer::error::Error;
use crate::id::BlobId;

/// What is in one folder.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Blobs by their best name, ascending.
    pub(super) blobs: Vec<(BlobId, Class)>,
    /// Those that have a table, ascending.
    pub(super) tables: Vec<BlobId>,
    /// Names that no store gives, hidden ones left out: network file systems make such for themselves.
    pub(super) foreign: Vec<OsString>,
}

impl Contents {
    /// Reads a folder; an empty one where there is none.
    pub(super) fn of(place: &Place, leaf: Leaf) -> Result<Contents, Error> {
        let path = leaf.path(place.root());
        let mut contents = Contents::default();
        {
            // So that no blob is missed because it gets its other name meanwhile.
            let _names = place.names();
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(contents),
                Err(source) => return Err(Error::io(&path, source)),
            };
            for entry in entries {
                let name = entry.map_err(|source| Error::io(&path, source))?.file_name();
                match layout::parse(leaf, &name) {
                    Some((id, Kind::Blob(class))) => contents.blobs.push((id, class)),
                    Some((id, Kind::Table)) => contents.tables.push(id),
                    None if name.as_encoded_bytes().starts_with(b".") => {}
                    None => contents.foreign.push(name),
                }
            }
        }
        contents
            .blobs
            .sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        contents.blobs.dedup_by_key(|blob| blob.0);
        contents.tables.sort_unstable();
        Ok(contents)
    }
}

/// The folders from `first` on whose parent exists: a small store has few of the 4096.
pub(super) fn leaves(place: &Place, first: Leaf) -> impl Iterator<Item = Leaf> + Send + '_ {
    let mut known: Option<(u8, bool)> = None;
    first.and_above().filter(move |leaf| {
        let byte = leaf.first_byte();
        match known {
            Some((of, exists)) if of == byte => exists,
            _ => {
                // A folder that can't be looked at is kept, so that reading it tells why.
                let exists = layout::byte_path(place.root(), byte).try_exists().unwrap_or(true);
                known = Some((byte, exists));
                exists
            }
        }
    })
}

/// The list of blobs above an id.
pub(super) struct Blobs<'a> {
    place: &'a Place,
    after: Option<BlobId>,
    /// `None` after an error.
    leaves: Option<Box<dyn Iterator<Item = Leaf> + Send + 'a>>,
    found: vec::IntoIter<(BlobId, Class)>,
}

impl<'a> Blobs<'a> {
    pub(super) fn after(place: &'a Place, after: Option<BlobId>) -> Result<Blobs<'a>, Error> {
        place.still_there()?;
        let first = after.map_or(Leaf::FIRST, |id| Leaf::of(&id));
        Ok(Blobs {
            place,
            after,
            leaves: Some(Box::new(leaves(place, first))),
            found: Vec::new().into_iter(),
        })
    }

    fn step(&mut self) -> Result<Option<Stat>, Error> {
        loop {
            for (id, class) in self.found.by_ref() {
                if let Some(stat) = stat_named(self.place, &id, class)? {
                    return Ok(Some(stat));
                }
            }
            let Some(leaf) = self.leaves.as_mut().and_then(Iterator::next) else {
                // A disk that was pulled meanwhile has no folders either.
                self.place.still_there()?;
                return Ok(None);
            };
            let mut blobs = Contents::of(self.place, leaf)?.blobs;
            if let Some(after) = self.after {
                blobs.retain(|blob| blob.0 > after);
            }
            self.found = blobs.into_iter();
        }
    }
}

impl Iterator for Blobs<'_> {
    type Item = Result<Stat, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.leaves.as_ref()?;
        let step = self.step();
        if !matches!(step, Ok(Some(_))) {
            self.leaves = None;
        }
        step.transpose()
    }
}

/// What is known of a blob that has, or just had, a name of this class.
pub(super) fn stat_named(place: &Place, id: &BlobId, class: Class) -> Result<Option<Stat>, Error> {
    match layout::blob_path(place.root(), id, class).metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some(Stat {
            id: *id,
            len: metadata.len(),
            class,
        })),
        // Pinned or deleted since the folder was read.
        _ => place.lookup(id),
    }
}
