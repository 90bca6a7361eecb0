//! Looking at every file: what a check finds and mends, and what may be removed.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::layout::{self, Leaf};
use super::listing::{Contents, leaves};
use super::place::{Folder, Place, read_file};
use super::{alias, outboard};
use crate::coffer::backend::{Aside, CheckOptions, CheckReport, Class, Stat};
use crate::coffer::error::Error;
use crate::id::BlobId;

/// How old a file without a blob must be before it counts as left over: a stream of another host may pause,
/// and its files look the same as those of one that is no more.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Findings of one check that are written out.
const NOTES_MAX: usize = 1000;

/// A check under way.
struct Check<'a> {
    place: &'a Place,
    options: CheckOptions,
    report: CheckReport,
    plain_bytes: u64,
    notes_left_out: usize,
}

/// Looks at every blob.
///
/// # Errors
/// Where a folder can't be read, or something could not be mended.
pub(super) fn check(
    place: &Place,
    options: CheckOptions,
    progress: &dyn Fn(u64),
) -> Result<CheckReport, Error> {
    place.still_there()?;
    let changes = place.counts().changes();
    let mut check = Check {
        place,
        options,
        report: CheckReport::default(),
        plain_bytes: 0,
        notes_left_out: 0,
    };
    for leaf in leaves(place, Leaf::FIRST) {
        let contents = Contents::of(place, leaf)?;
        for (id, class) in &contents.blobs {
            check.blob(id, *class, contents.tables.binary_search(id).is_ok())?;
            progress(check.report.blobs);
        }
        for name in contents.foreign {
            let path = leaf.path(place.root()).join(name);
            check.note(format!("{} is no file of the store", path.display()));
        }
    }
    if options.read_data {
        check.aliases()?;
    }
    place.still_there()?;
    if check.report.damaged.is_empty() {
        place
            .counts()
            .correct(check.report.blobs, check.plain_bytes, changes);
    }
    if check.notes_left_out > 0 {
        let more = format!("{} more findings of this kind", check.notes_left_out);
        check.report.notes.push(more);
    }
    Ok(check.report)
}

impl Check<'_> {
    fn blob(&mut self, id: &BlobId, class: Class, has_table: bool) -> Result<(), Error> {
        let Some((file, stat)) = self.place.open_blob(id)? else {
            // Deleted since the folder was read, or a folder with the name of a blob.
            let path = layout::blob_path(self.place.root(), id, class);
            if path.is_dir() {
                self.note(format!("{} is a folder where a blob should be", path.display()));
            }
            return Ok(());
        };
        self.report.blobs += 1;
        self.plain_bytes += stat.len;
        let table_path = layout::table_path(self.place.root(), id);
        let table_fits = match outboard::encoded_len(stat.len) {
            None => true,
            Some(len) => has_table && table_path.metadata().is_ok_and(|found| found.len() == len),
        };
        let is_hollow = stat.len == 0 && *id != BlobId::of(b"");
        if !self.options.read_data && table_fits && !is_hollow {
            return Ok(());
        }
        let tree = match outboard::read_tree(&file, stat.len) {
            Ok(tree) if tree.root() == *id => tree,
            Ok(_) => return self.damaged(id),
            Err(source) => {
                // Too many open files says nothing about the blob.
                if let Error::Busy = Error::io(&table_path, source) {
                    return Err(Error::Busy);
                }
                return self.damaged(id);
            }
        };
        if self.options.read_data {
            self.report.bytes_read += stat.len;
        }
        if self.options.repair && stat.class == Class::Pinned {
            self.place.remove_second(id)?;
        }
        let is_proved = match outboard::encoded_len(stat.len) {
            None => true,
            Some(_) => outboard::load(&table_path, stat).is_some(),
        };
        if !is_proved {
            self.table(stat, &table_path, &outboard::encode(&tree))?;
        }
        Ok(())
    }

    fn damaged(&mut self, id: &BlobId) -> Result<(), Error> {
        if self.options.repair {
            // Else it is gone, or was put again since it was read.
            if !self.place.quarantine(id, Aside::Damaged)? {
                return Ok(());
            }
            self.report.quarantined.push(*id);
        }
        self.report.damaged.push(*id);
        Ok(())
    }

    /// A blob is whole and its table is not.
    fn table(&mut self, stat: Stat, path: &Path, table: &[u8]) -> Result<(), Error> {
        if !self.options.repair {
            self.note(format!(
                "the table of {} is missing or damaged: ranges of it are verified by reading it whole",
                stat.id
            ));
            return Ok(());
        }
        let folder = self.place.folder(Folder::Leaf(Leaf::of(&stat.id)))?;
        let temp = self.place.write_temp(table)?;
        fs::rename(&temp.path, path).map_err(|source| self.place.failed(path, source))?;
        self.place.flush_folder(&folder)?;
        self.note(format!(
            "the table of {} was missing or damaged: made again",
            stat.id
        ));
        Ok(())
    }

    fn aliases(&mut self) -> Result<(), Error> {
        for first in 0..=u8::MAX {
            let folder = layout::alias_folder(self.place.root(), first);
            for entry in entries(&folder)? {
                let path = entry.path();
                let Some(alias) = layout::parse_alias(&entry.file_name()) else {
                    continue;
                };
                let text = match read_file(&path) {
                    Ok(text) => text,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(Error::io(&path, source)),
                };
                if alias::parse(&alias, &text).is_none() {
                    self.note(format!("the alias {alias} is damaged: put its blob by it again"));
                    if self.options.repair {
                        // It named a blob, which has its own name, and is made again when it is used.
                        self.place.remove(&path)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, note: String) {
        if self.report.notes.len() < NOTES_MAX {
            self.report.notes.push(note);
        } else {
            self.notes_left_out += 1;
        }
    }
}

/// Removes files that a writer left when it died, and tables without a blob; the bytes that gave back.
pub(super) fn remove_leftovers(place: &Place, stop: &dyn Fn() -> bool) -> Result<u64, Error> {
    place.writable()?;
    let Some(limit) = old_before(place)? else {
        return Ok(0);
    };
    let mut freed = 0;
    for entry in entries(&place.root().join(layout::NEW))? {
        if stop() {
            return Ok(freed);
        }
        freed += remove_if_old(place, &entry.path(), limit)?;
    }
    for leaf in leaves(place, Leaf::FIRST) {
        if stop() {
            return Ok(freed);
        }
        let contents = Contents::of(place, leaf)?;
        for id in &contents.tables {
            if contents.blobs.binary_search_by_key(id, |blob| blob.0).is_err() {
                freed += remove_table(place, id, limit)?;
            }
        }
    }
    Ok(freed)
}

/// Removes a table whose blob is gone, unless it comes back just now.
fn remove_table(place: &Place, id: &BlobId, limit: SystemTime) -> Result<u64, Error> {
    let _names = place.names();
    if place.lookup(id)?.is_some() {
        return Ok(0);
    }
    remove_if_old(place, &layout::table_path(place.root(), id), limit)
}

fn remove_if_old(place: &Place, path: &Path, limit: SystemTime) -> Result<u64, Error> {
    let Ok(metadata) = path.metadata() else {
        return Ok(0);
    };
    let is_old = metadata.is_file() && metadata.modified().is_ok_and(|time| time < limit);
    if is_old && place.remove(path)? {
        return Ok(metadata.len());
    }
    Ok(0)
}

/// Before when a file counts as left over, by the clock that stamps files: that of a file server may differ
/// from this host's.
fn old_before(place: &Place) -> Result<Option<SystemTime>, Error> {
    let (temp, file) = place.temp()?;
    let now = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .map_err(|source| Error::io(&temp.path, source))?;
    Ok(now.checked_sub(LEFTOVER_AGE))
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<DirEntry>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => entries
            .collect::<Result<_, _>>()
            .map_err(|source| Error::io(folder, source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::io(folder, source)),
    }
}
