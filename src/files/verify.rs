//! Reads everything a ref names and compares it with its id.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use super::diff::paths_naming;
use super::error::Error;
use super::progress::Progress;
use super::reachable::{Named, reachable};
use super::refs::Snapshot;
use crate::coffer::{self, Store};
use crate::id::BlobId;

/// Threads that read parts.
const READERS: usize = 2;

/// Parts that wait to be read.
const WAITING_MAX: usize = 1024;

/// The most paths that are named as damaged.
const PATHS_MAX: usize = 1000;

/// What a verification found. Sound where nothing is missing and nothing is damaged.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Trees and commits read.
    pub schemas: u64,
    /// Parts read, each once.
    pub parts: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Blobs that are named and not stored.
    pub missing: Vec<BlobId>,
    /// Blobs that are not what their id says, or are no tree or commit where one must be.
    pub damaged: Vec<BlobId>,
    /// What names these: files that can't be restored, relative to the folder; at most a thousand.
    pub paths: Vec<PathBuf>,
}

impl VerifyReport {
    /// Whether everything is there as it was put.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }
}

/// Reads and checks everything these snapshots name, each blob once. Remembers the ids, some 50 bytes each.
///
/// # Errors
/// [`Error::Cancelled`]; [`Error::Store`] where the store can't be read at all, and [`Error::Newer`]. What is
/// missing or damaged is in the report.
pub fn verify(store: &Store, snapshots: &[Snapshot], progress: &Progress) -> Result<VerifyReport, Error> {
    let report = Mutex::new(VerifyReport::default());
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read_parts(store, &receiver, &report, progress)))
            .collect();
        let mut seen = HashSet::new();
        let roots = snapshots.iter().flat_map(Snapshot::roots);
        let walked = reachable(store, roots, &|_| false, &mut |named| {
            progress.check()?;
            match named {
                Named::Tree(_) | Named::Commit(_) => lock(&report).schemas += 1,
                Named::Part(id) => {
                    if seen.insert(id) {
                        // Readers only go away when they met a failure, which is answered below.
                        sender.send(id).map_err(|_| Error::Cancelled)?;
                    }
                }
                Named::Missing(id) => lock(&report).missing.push(id),
                Named::Damaged(id) => lock(&report).damaged.push(id),
            }
            Ok(())
        });
        drop(sender);
        let mut read = Ok(());
        for reader in readers {
            let done = reader.join().unwrap_or(Err(Error::Cancelled));
            read = read.and(done);
        }
        read.and(walked)
    })?;
    let mut report = report.into_inner().expect("no reader panicked with it");
    if !report.is_sound() {
        let bad: HashSet<BlobId> = report.missing.iter().chain(&report.damaged).copied().collect();
        for snapshot in snapshots {
            let limit = PATHS_MAX.saturating_sub(report.paths.len());
            let paths = paths_naming(store, &snapshot.tree, limit, &|id| bad.contains(id));
            report.paths.extend(paths);
        }
        report.paths.sort_unstable();
        report.paths.dedup();
    }
    Ok(report)
}

fn read_parts(
    store: &Store,
    parts: &Mutex<Receiver<BlobId>>,
    report: &Mutex<VerifyReport>,
    progress: &Progress,
) -> Result<(), Error> {
    loop {
        let next = parts.lock().expect("no reader panics while it waits").recv();
        let Ok(id) = next else { return Ok(()) };
        progress.check()?;
        match read_part(store, &id) {
            Ok(Some(bytes)) => {
                progress.file(bytes);
                progress.read(bytes);
                let mut report = lock(report);
                report.parts += 1;
                report.bytes += bytes;
            }
            Ok(None) => lock(report).missing.push(id),
            Err(coffer::Error::Corrupt { id }) => lock(report).damaged.push(id),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads a part to its end; gives its length, `None` where it is not stored.
fn read_part(store: &Store, id: &BlobId) -> Result<Option<u64>, coffer::Error> {
    let Some(mut reader) = store.backend().open(id)? else {
        return Ok(None);
    };
    let len = reader.stat().len;
    let mut at = 0;
    while at < len {
        let bytes = reader.read_at(at)?;
        if bytes.is_empty() {
            return Err(coffer::Error::Corrupt { id: *id });
        }
        at += bytes.len() as u64;
    }
    Ok(Some(len))
}

fn lock(report: &Mutex<VerifyReport>) -> MutexGuard<'_, VerifyReport> {
    report.lock().expect("no thread panics while it counts")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::find;
    use super::super::fixture::Scene;
    use super::super::tree::Kind;
    use super::*;

    #[test]
    fn what_is_missing_is_found_with_the_paths_it_costs() {
        let scene = Scene::new();
        scene.write("a/one", "one");
        scene.write("a/two", "two");
        scene.write("b/one", "one");
        scene.write("big", vec![1; 1_500_000]);
        scene.backup();
        let store = &scene.repository.store;
        let verify = || verify(store, &[scene.latest()], &Progress::new()).unwrap();
        let report = verify();
        assert!(report.is_sound());
        assert_eq!(report.paths, Vec::<PathBuf>::new());
        assert_eq!(report.bytes, 6 + unique_bytes(&scene));

        let tree = find(store, &scene.latest().tree, Path::new("a"))
            .unwrap()
            .unwrap();
        let Kind::Folder { tree, .. } = tree.kind else {
            panic!("a is a folder");
        };
        let lost = BlobId::of(b"one");
        store.backend().delete(&[lost]).unwrap();
        let report = verify();
        assert_eq!(report.missing, [lost]);
        assert_eq!(report.paths, [Path::new("a/one"), Path::new("b/one")]);

        store.backend().delete(&[tree]).unwrap();
        let report = verify();
        assert_eq!(report.missing.len(), 2);
        assert_eq!(report.paths, [Path::new("a"), Path::new("b/one")]);
    }

    /// The parts of `big` are equal where they are cut alike.
    fn unique_bytes(scene: &Scene) -> u64 {
        use super::super::{Body, Commit, Segment};
        let found = find(&scene.repository.store, &scene.latest().tree, Path::new("big")).unwrap();
        let Some(Kind::File {
            body: Body::Commit(commit),
            ..
        }) = found.map(|entry| entry.kind)
        else {
            return 1_500_000;
        };
        let commit = Commit::load(&scene.repository.store, &commit).unwrap();
        let unique: HashSet<Segment> = commit.segments.into_iter().collect();
        unique.iter().map(Segment::size).sum()
    }
}
