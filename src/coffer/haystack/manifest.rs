//! The manifest: what a checkpoint made durable, so that opening reads only what came after it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::needle::{Header, Killed, Kind};
use super::run::Run;
use super::volume::SOLO;
use crate::coffer::error::Error;
use crate::durable::{self, Generation};

const FORMAT: u32 = 1;

/// The counters of a store, as of a checkpoint or now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tally {
    /// The number the next shared volume gets.
    pub(super) next_shared: u32,
    /// The number the next solo volume gets, without its mark.
    pub(super) next_solo: u32,
    /// The sequence number the next needle gets.
    pub(super) next_seq: u64,
    /// Live blobs.
    pub(super) blobs: u64,
    /// Their plain bytes.
    pub(super) plain_bytes: u64,
    /// Bytes of solo volumes.
    pub(super) solo_bytes: u64,
    /// The shared volumes.
    pub(super) volumes: BTreeMap<u32, VolumeTally>,
}

impl Tally {
    /// A deleted solo volume leaves no file, only the tombstone that names it. Its number must not be given
    /// again: the tombstone would take the new volume away at the next start.
    pub(super) fn use_up_solo(&mut self, header: &Header) {
        let killed = Killed::from_plain_len(header.plain_len).volume;
        if header.kind == Kind::Tombstone && killed & SOLO != 0 {
            self.next_solo = self.next_solo.max((killed & !SOLO) + 1);
        }
    }
}

/// One shared volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeTally {
    /// Where it ends; in a manifest, up to where the index knows it.
    pub(super) end: u64,
    /// Bytes of needles that are still wanted.
    pub(super) live: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    /// The store's key, 64 hex digits.
    key: String,
    /// Index runs, oldest first.
    runs: Vec<u32>,
    next_run: u32,
    tally: Tally,
}

/// What opening begins with.
pub(super) struct Checkpoint {
    pub(super) key: [u8; 32],
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) next_run: u32,
    pub(super) tally: Tally,
}

/// Reads the last checkpoint; `None` where there is none that can be trusted, and the volumes must be read.
///
/// # Errors
/// [`Error::Newer`], and what is wrong with the disk rather than with the index.
pub(super) fn read(folder: &Path) -> Result<Option<Checkpoint>, Error> {
    let path = folder.join("manifest");
    let state = match durable::read(&path) {
        Ok(Some(state)) if state.generation == Generation::Current => state,
        Ok(_) | Err(durable::Error::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&state.payload) else {
        let format = serde_json::from_slice::<serde_json::Value>(&state.payload).ok();
        let format = format
            .and_then(|v| v.get("format")?.as_u64())
            .and_then(|n| u32::try_from(n).ok());
        return match format {
            Some(found) if found > FORMAT => Err(Error::Newer {
                path,
                found,
                known: FORMAT,
            }),
            _ => Ok(None),
        };
    };
    if manifest.format > FORMAT {
        return Err(Error::Newer {
            path,
            found: manifest.format,
            known: FORMAT,
        });
    }
    let mut key = [0; 32];
    if manifest.key.len() != 64 || HEXLOWER.decode_mut(manifest.key.as_bytes(), &mut key).is_err() {
        return Ok(None);
    }
    let mut runs = Vec::with_capacity(manifest.runs.len());
    for number in manifest.runs {
        match Run::open(&run_path(folder, number), number) {
            Ok(run) => runs.push(Arc::new(run)),
            Err(error @ (Error::Newer { .. } | Error::Busy)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "an index run can't be used; the index is rebuilt from the volumes");
                return Ok(None);
            }
        }
    }
    Ok(Some(Checkpoint {
        key,
        runs,
        next_run: manifest.next_run,
        tally: manifest.tally,
    }))
}

/// Makes a checkpoint of these runs the last one. Durable on return.
pub(super) fn write(
    folder: &Path,
    key: &[u8; 32],
    runs: &[u32],
    next_run: u32,
    tally: &Tally,
) -> Result<(), Error> {
    let manifest = Manifest {
        format: FORMAT,
        key: HEXLOWER.encode(key),
        runs: runs.to_vec(),
        next_run,
        tally: tally.clone(),
    };
    let payload = serde_json::to_vec(&manifest).expect("numbers and text are JSON");
    let path = folder.join("manifest");
    durable::replace(&path, &payload).map_err(|error| match error {
        durable::Error::Io { path, source } => Error::io(&path, source),
        error @ durable::Error::Damaged { .. } => error.into(),
    })
}

pub(super) fn run_path(folder: &Path, number: u32) -> std::path::PathBuf {
    folder.join(format!("{number:08}.run"))
}
