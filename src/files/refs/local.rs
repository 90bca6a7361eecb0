//! Refs in a folder, one state file each.
//!
//! The file of ref `photos/2026` is `photos+2026.ref` (`+` is in no name). Its payload:
//!
//! ```text
//! {"format":1,"name":"photos/2026","snapshots":[...],"in_progress":...}
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{FORMAT, RefRecord, RefVersion, Refs, SNAPSHOTS_MAX, Snapshot};
use crate::durable;
use crate::files::error::Error;
use crate::id::RefName;

const SUFFIX: &str = ".ref";

/// Refs in a folder of this machine. One process at a time has it: the data folder's lock sees to that.
pub struct LocalRefs {
    folder: PathBuf,
    /// Held from reading a ref to having replaced it.
    swapping: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    name: RefName,
    snapshots: Vec<Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    in_progress: Option<Snapshot>,
}

impl LocalRefs {
    /// The refs in `folder`, which is created where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: &Path) -> Result<LocalRefs, Error> {
        durable::create_folder(folder).map_err(|source| Error::io(folder, source))?;
        Ok(LocalRefs {
            folder: folder.to_owned(),
            swapping: Mutex::new(()),
        })
    }

    fn path(&self, name: &RefName) -> PathBuf {
        self.folder
            .join(format!("{}{SUFFIX}", name.as_str().replace('/', "+")))
    }

    fn read(&self, name: &RefName) -> Result<Option<RefRecord>, Error> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let path = self.path(name);
        let Some(state) = durable::read(&path)? else {
            return Ok(None);
        };
        let damaged = || durable::Error::Damaged { path: path.clone() };
        let head: Head = serde_json::from_slice(&state.payload).map_err(|_| damaged())?;
        if head.format > FORMAT {
            return Err(Error::Newer {
                what: path.display().to_string(),
                found: head.format,
                known: FORMAT,
            });
        }
        let stored: Stored = serde_json::from_slice(&state.payload).map_err(|_| damaged())?;
        Ok(Some(RefRecord {
            name: stored.name,
            version: version_of(&state.payload),
            snapshots: stored.snapshots,
            in_progress: stored.in_progress,
        }))
    }
}

impl Refs for LocalRefs {
    fn get(&self, name: &RefName) -> Result<Option<RefRecord>, Error> {
        self.read(name)
    }

    fn list(&self) -> Result<Vec<RefRecord>, Error> {
        let read = || -> io::Result<BTreeSet<RefName>> {
            let mut names = BTreeSet::new();
            for file in fs::read_dir(&self.folder)? {
                let file = file?.file_name();
                let Some(text) = file.to_str() else { continue };
                // A file that was lost still has its previous generation.
                let stem = text.strip_suffix(".old").unwrap_or(text).strip_suffix(SUFFIX);
                if let Some(Ok(name)) = stem.map(|stem| stem.replace('+', "/").parse()) {
                    names.insert(name);
                }
            }
            Ok(names)
        };
        let names = read().map_err(|source| Error::io(&self.folder, source))?;
        // A ref that was deleted since its name was read is simply gone.
        names
            .iter()
            .filter_map(|name| self.read(name).transpose())
            .collect()
    }

    fn swap(
        &self,
        name: &RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, Error> {
        let _swapping = self.swapping.lock().expect("no thread panics while it swaps");
        let current = self.read(name)?.map(|record| record.version);
        if current != expected {
            return Err(Error::Conflict { name: name.clone() });
        }
        let Some(next) = next else {
            durable::remove(&self.path(name))?;
            return Ok(RefVersion::GONE);
        };
        if next.snapshots.len() > SNAPSHOTS_MAX {
            return Err(Error::Full {
                name: name.clone(),
                limit: SNAPSHOTS_MAX,
            });
        }
        let stored = Stored {
            format: FORMAT,
            name: name.clone(),
            snapshots: next.snapshots,
            in_progress: next.in_progress,
        };
        let payload = serde_json::to_vec(&stored).expect("plain data always has a JSON form");
        durable::replace(&self.path(name), &payload)?;
        Ok(version_of(&payload))
    }
}

/// A version says what a record holds, so that a ref that was deleted and made again is not mistaken for
/// the one before, as a counter would be.
fn version_of(payload: &[u8]) -> RefVersion {
    const JSON_BITS: u64 = (1 << 53) - 1;
    let hash = blake3::hash(payload);
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    let version = u64::from_le_bytes([a, b, c, d, e, f, g, h]) & JSON_BITS;
    RefVersion(version.max(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::super::update;
    use super::*;
    use crate::id::BlobId;

    fn snapshot(n: u32) -> Snapshot {
        Snapshot {
            tree: BlobId::of(&n.to_le_bytes()),
            time_ms: i64::from(n),
            host: "host".to_owned(),
            source: "/data".to_owned(),
            files: 1,
            bytes: 2,
            partial: false,
            xattrs: false,
            root: None,
        }
    }

    fn record(name: &str, snapshots: Vec<Snapshot>) -> RefRecord {
        RefRecord {
            snapshots,
            ..RefRecord::new(name.parse().unwrap())
        }
    }

    #[test]
    fn a_ref_moves_only_from_the_version_that_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let refs = LocalRefs::open(&dir.path().join("refs")).unwrap();
        let name: RefName = "photos/2026".parse().unwrap();
        assert_eq!(refs.get(&name).unwrap(), None);
        let one = record("photos/2026", vec![snapshot(1)]);
        let two = record("photos/2026", vec![snapshot(1), snapshot(2)]);
        let first = refs.swap(&name, None, Some(one.clone())).unwrap();
        let lost = |expected| {
            matches!(
                refs.swap(&name, expected, Some(two.clone())),
                Err(Error::Conflict { .. })
            )
        };
        assert!(lost(None));
        assert!(lost(Some(RefVersion(first.0 + 1))));
        let second = refs.swap(&name, Some(first), Some(two.clone())).unwrap();
        assert!(lost(Some(first)));
        let read = refs.get(&name).unwrap().unwrap();
        assert_eq!((read.version, &read.snapshots), (second, &two.snapshots));

        assert_eq!(refs.swap(&name, Some(second), None).unwrap(), RefVersion::GONE);
        assert_eq!(refs.get(&name).unwrap(), None);
        refs.swap(&name, None, Some(record("photos/2026", vec![])))
            .unwrap();
        assert!(lost(Some(second)), "a ref made again is another one");
    }

    #[test]
    fn refs_are_listed_by_name_and_a_lost_file_gives_its_previous_generation() {
        let dir = tempfile::tempdir().unwrap();
        let refs = LocalRefs::open(dir.path()).unwrap();
        for name in ["b", "a/b", "a.old", "a"] {
            refs.swap(
                &name.parse().unwrap(),
                None,
                Some(record(name, vec![snapshot(1)])),
            )
            .unwrap();
        }
        let name: RefName = "b".parse().unwrap();
        let version = refs.get(&name).unwrap().unwrap().version;
        refs.swap(&name, Some(version), Some(record("b", vec![snapshot(2)])))
            .unwrap();
        fs::remove_file(dir.path().join("b.ref")).unwrap();
        let listed = refs.list().unwrap();
        let names: Vec<&str> = listed.iter().map(|record| record.name.as_str()).collect();
        assert_eq!(names, ["a", "a.old", "a/b", "b"]);
        assert_eq!(listed[3].snapshots, [snapshot(1)]);
    }

    #[test]
    fn a_damaged_and_a_newer_ref_are_refused_and_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let refs = LocalRefs::open(dir.path()).unwrap();
        let name: RefName = "a".parse().unwrap();
        let path = dir.path().join("a.ref");
        fs::write(&path, b"noise").unwrap();
        assert!(matches!(refs.get(&name), Err(Error::State(_))));
        assert!(matches!(refs.swap(&name, None, None), Err(Error::State(_))));
        durable::replace(&path, br#"{"format":2}"#).unwrap();
        assert!(matches!(refs.get(&name), Err(Error::Newer { found: 2, .. })));
    }

    #[test]
    fn snapshots_added_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let refs = Arc::new(LocalRefs::open(dir.path()).unwrap());
        let name: RefName = "a".parse().unwrap();
        thread::scope(|scope| {
            for worker in 0..4 {
                let (refs, name) = (Arc::clone(&refs), name.clone());
                scope.spawn(move || {
                    for n in 0..5 {
                        update(&*refs, &name, |current| {
                            let mut next = current.unwrap_or_else(|| RefRecord::new(name.clone()));
                            next.snapshots.push(snapshot(worker * 100 + n));
                            Ok(Some(next))
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(refs.get(&name).unwrap().unwrap().snapshots.len(), 20);
    }

    #[test]
    fn a_full_ref_says_to_prune() {
        let dir = tempfile::tempdir().unwrap();
        let refs = LocalRefs::open(dir.path()).unwrap();
        let full = record("a", vec![snapshot(1); SNAPSHOTS_MAX + 1]);
        assert!(matches!(
            refs.swap(&full.name.clone(), None, Some(full)),
            Err(Error::Full { .. })
        ));
    }
}
