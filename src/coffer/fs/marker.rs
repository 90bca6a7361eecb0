//! What tells a folder of blobs from any other: its marker, and who may make one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::layout;
use super::place::{Temp, make_folder, read_file, sync_folder};
use crate::coffer::error::Error;
use crate::coffer::mirror::MIRROR;
use crate::durable;

/// The format this module reads and writes. A newer one must not have a folder `blobs`, which is taken for
/// this one where the marker is damaged.
const FORMAT: u32 = 1;

const MARKER_WORD: &str = "refuge-fs";

/// Makes what is missing of a place for blobs. Durable on return.
pub(super) fn create(root: &Path) -> Result<(), Error> {
    let is_marked = is_marked(root)?;
    durable::create_folder(root).map_err(|source| Error::io(root, source))?;
    if !layout_is_there(root) {
        refuse_foreign(root)?;
    }
    for name in [layout::ALIASES, layout::QUARANTINE, layout::NEW, layout::BLOBS] {
        let folder = root.join(name);
        make_folder(&folder).map_err(|source| Error::io(&folder, source))?;
    }
    sync_folder(root).map_err(|source| Error::io(root, source))?;
    if is_marked { Ok(()) } else { write_marker(root) }
}

/// Takes away what [`create`] made and all blobs, but not what was set aside. Durable on return.
pub(super) fn remove(root: &Path) -> Result<(), Error> {
    let run = || -> io::Result<()> {
        for name in [layout::NEW, layout::ALIASES, layout::BLOBS] {
            allow_absent(fs::remove_dir_all(root.join(name)))?;
        }
        // Not before them: what is left of a mirror in a cut is one.
        allow_absent(fs::remove_file(root.join(MIRROR)))?;
        // One that holds something stays, and with it the marker.
        let aside = fs::remove_dir(root.join(layout::QUARANTINE));
        if aside.is_ok() || !root.join(layout::QUARANTINE).exists() {
            allow_absent(fs::remove_file(root.join(layout::MARKER)))?;
            if let Err(error) = fs::remove_dir(root) {
                tracing::info!(folder = %root.display(), %error, "a folder of blobs is empty and stays");
            }
        }
        allow_absent(durable::sync_folder_of(root))
    };
    run().map_err(|source| Error::io(root, source))
}

fn allow_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// That the folder is one that [`create`] made, in a format that is known.
pub(super) fn verify(root: &Path) -> Result<(), Error> {
    match (is_marked(root)?, layout_is_there(root)) {
        (true, true) => Ok(()),
        (true, false) => create(root),
        (false, true) => {
            tracing::warn!(folder = %root.display(), "the marker of a folder of blobs is damaged: written anew");
            create(root)
        }
        (false, false) => Err(Error::Foreign {
            path: root.to_owned(),
        }),
    }
}

/// Whether the folder has a whole marker, of a format that is known.
fn is_marked(root: &Path) -> Result<bool, Error> {
    let path = root.join(layout::MARKER);
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(Error::io(&path, source)),
    };
    match std::str::from_utf8(&text).ok().and_then(format_of) {
        Some(found) if found > FORMAT => Err(Error::Newer {
            path,
            found,
            known: FORMAT,
        }),
        found => Ok(found.is_some()),
    }
}

/// Whether the folder has blobs, or could have.
pub(super) fn layout_is_there(root: &Path) -> bool {
    root.join(layout::BLOBS).is_dir()
}

/// Refuses a folder that holds files of others: we would not know them from ours.
fn refuse_foreign(root: &Path) -> Result<(), Error> {
    let ours = [
        layout::MARKER,
        layout::ALIASES,
        layout::QUARANTINE,
        layout::NEW,
        MIRROR,
        // Every fresh ext4 has one.
        "lost+found",
    ];
    for entry in fs::read_dir(root).map_err(|source| Error::io(root, source))? {
        let entry = entry.map_err(|source| Error::io(root, source))?;
        if !ours.iter().any(|name| entry.file_name() == *name) {
            return Err(Error::Foreign {
                path: root.to_owned(),
            });
        }
    }
    Ok(())
}

fn write_marker(root: &Path) -> Result<(), Error> {
    let path = root.join(layout::MARKER);
    let text = format!("{MARKER_WORD} {FORMAT}\n");
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|_| Error::Busy)?;
    let temp = Temp {
        path: root.join(layout::NEW).join(HEXLOWER.encode(&token)),
    };
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp.path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp.path, &path)?;
        sync_folder(root)
    };
    write().map_err(|source| Error::io(&path, source))
}

fn format_of(marker: &str) -> Option<u32> {
    marker
        .strip_prefix(MARKER_WORD)?
        .strip_prefix(' ')?
        .strip_suffix('\n')?
        .parse()
        .ok()
}
