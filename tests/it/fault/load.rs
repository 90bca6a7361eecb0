//! A mixed load on a backend, with every operation in the journal before it begins and as soon as it is acknowledged.
//!
//! The load is made so that each flush of a store bears weight: small volumes fill and are begun anew, streamed blobs get
//! files of their own, deletes leave tombstones that compaction has to respect, aliases and classes are durable too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use refuge::coffer::{
    Aside, Backend, CheckOptions, Class, Compression, Error, PACKED_BYTES_MAX, Packed, read_whole,
};
use refuge::id::{BlobId, Sha256Id};

use super::fs::FaultFs;
use super::journal::{Expectation, Intent, Journal, Outcome, Value};
use super::seed::Rng;

/// Different small blobs that are put and deleted.
pub(super) const SMALL: usize = 160;

/// Different blobs that are streamed; larger than what a backend takes in one piece.
pub(super) const LARGE: usize = 4;

/// Bytes of a streamed blob.
const LARGE_BYTES: usize = PACKED_BYTES_MAX + 70_000;

/// Blobs of more bytes than this are not in any load.
const READ_BYTES_MAX: usize = 2 * LARGE_BYTES;

/// Opens a backend in a folder.
pub(crate) type Open = fn(&Path) -> Result<Box<dyn Backend>, Error>;

/// Where each backend keeps damaged blobs, below its folder.
pub(crate) const ASIDE: &str = "quarantine";

/// One load: what it drives, and where it is written down.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) journal: &'a Journal,
    /// The disk whose recording gets the marks of the journal.
    pub(crate) disk: Option<&'a FaultFs>,
    /// Where the backend sets blobs aside, to be written down as well: they are kept for a person.
    pub(crate) aside: Option<&'a Path>,
}

impl Load<'_> {
    /// Runs `steps` operations on each of `threads` threads.
    pub(crate) fn run(self, threads: usize, steps: usize, rng: &Rng) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let mut rng = rng.branch(thread);
                scope.spawn(move || {
                    for _ in 0..steps {
                        self.step(thread, &mut rng);
                    }
                });
            }
        });
    }

    /// The same, while one more thread compacts without a pause.
    pub(crate) fn run_compacted(self, threads: usize, steps: usize, rng: &Rng) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.compact();
                }
            });
            self.run(threads, steps, rng);
            done.store(true, Ordering::Relaxed);
        });
    }

    /// One operation, chosen by chance. Its failure is noted as such: a store under faults may fail, not lie.
    fn step(self, thread: usize, rng: &mut Rng) {
        match rng.below(100) {
            0..60 => self.put(rng),
            60..80 => self.delete(rng),
            80..85 => self.stream(rng),
            85..91 => self.alias(rng),
            // By one thread: that a part put after a pin changes nothing is no matter of crashes.
            91..95 if thread == 0 => self.pin(rng),
            91..95 => self.put(rng),
            // By one thread, so that what it finds set aside is what it set aside.
            95..97 if thread == 0 => self.quarantine(rng),
            95..97 => self.put(rng),
            _ => self.compact(),
        }
    }

    fn put(self, rng: &mut Rng) {
        let count = 1 + rng.below(4);
        self.put_these(&rng.pick(count, SMALL));
    }

    /// Puts small blobs as one group.
    pub(super) fn put_these(self, numbers: &[usize]) {
        let batch: Vec<Packed> = numbers
            .iter()
            .map(|number| packed(*number, class_of(*number)))
            .collect();
        let values = numbers
            .iter()
            .map(|number| (id_of(*number), Some(value_of(*number, class_of(*number)))));
        self.journaled(values.collect(), |backend| {
            backend.append(&batch)?;
            backend.flush()
        });
    }

    fn delete(self, rng: &mut Rng) {
        let count = 1 + rng.below(3);
        let mut ids: Vec<BlobId> = rng.pick(count, SMALL).into_iter().map(id_of).collect();
        if rng.one_in(3) {
            ids.push(id_of(SMALL + rng.below(LARGE)));
        }
        self.delete_these(&ids);
    }

    /// Deletes blobs.
    pub(super) fn delete_these(self, ids: &[BlobId]) {
        let gone = ids.iter().map(|id| (*id, None)).collect();
        self.journaled(gone, |backend| backend.delete(ids).map(drop));
    }

    fn stream(self, rng: &mut Rng) {
        self.stream_this(SMALL + rng.below(LARGE));
    }

    /// Streams a large blob in.
    pub(super) fn stream_this(self, number: usize) {
        let class = class_of(number);
        self.journaled(vec![(id_of(number), Some(value_of(number, class)))], |backend| {
            let mut incoming = backend.begin(class)?;
            for piece in content(number).chunks(256 * 1024) {
                incoming.write(piece)?;
            }
            incoming.finish(None).map(drop)
        });
    }

    fn alias(self, rng: &mut Rng) {
        let number = rng.below(SMALL);
        let intent = Intent {
            key: alias_key(number),
            value: Some(id_of(number).to_string()),
        };
        let begun = self.journal.begin(self.disk, intent);
        let done = self.backend.add_alias(&sha256_of(number), &id_of(number));
        self.journal.end(self.disk, begun, outcome(&done));
    }

    /// A part that a client puts by itself becomes pinned, and stays so.
    fn pin(self, rng: &mut Rng) {
        let number = SMALL + LARGE + rng.below(SMALL);
        let pinned = vec![(id_of(number), Some(value_of(number, Class::Pinned)))];
        let part = vec![(id_of(number), Some(value_of(number, Class::Part)))];
        let put = |backend: &dyn Backend, class| {
            backend.append(&[packed(number, class)])?;
            backend.flush()
        };
        // Once pinned, a part of the same bytes changes nothing: only the first put may be one.
        let known = self
            .backend
            .stat(&[id_of(number)])
            .is_ok_and(|stats| stats.iter().any(Option::is_some));
        if !known {
            self.journaled(part, |backend| put(backend, Class::Part));
        }
        self.journaled(pinned, |backend| put(backend, Class::Pinned));
    }

    fn quarantine(self, rng: &mut Rng) {
        let id = id_of(rng.below(SMALL + LARGE));
        self.journaled(vec![(id, None)], |backend| {
            backend.quarantine(&id, Aside::Any).map(drop)
        });
        let Some(folder) = self.aside.filter(|_| self.backend.status().read_only.is_none()) else {
            return;
        };
        let name = id.hex();
        for (key, value) in set_aside(folder)
            .into_iter()
            .filter(|(key, _)| key.contains(&name))
        {
            let value = Some(value);
            let begun = self.journal.begin(self.disk, Intent { key, value });
            self.journal.end(self.disk, begun, Outcome::Acked);
        }
    }

    fn compact(self) {
        // What it does must not show; that it may fail under faults is no news.
        let _ = self.backend.compact(&|| false);
    }

    fn journaled(self, values: Vec<(BlobId, Value)>, work: impl FnOnce(&dyn Backend) -> Result<(), Error>) {
        let intents = values.into_iter().map(|(id, value)| Intent {
            key: blob_key(&id),
            value,
        });
        let begun: Vec<usize> = intents
            .map(|intent| self.journal.begin(self.disk, intent))
            .collect();
        let done = work(self.backend);
        for begun in begun {
            self.journal.end(self.disk, begun, outcome(&done));
        }
    }
}

/// Pass rule P on a backend that was just opened: what it holds is what may be there, a check finds nothing, and it takes
/// new blobs that are still there when it is opened again.
///
/// # Errors
/// With every violation, a line each.
pub(crate) fn judge(open: Open, folder: &Path, expected: &Expectation) -> Result<(), String> {
    let say = |error: Error| error.to_string();
    let backend = open(folder).map_err(say)?;
    let mut wrong = violations(&*backend, folder, expected).map_err(say)?;
    let report = backend
        .check(
            CheckOptions {
                read_data: true,
                repair: false,
            },
            &|_| {},
        )
        .map_err(say)?;
    wrong.extend(
        report
            .damaged
            .iter()
            .map(|id| format!("{id}: the check finds it damaged")),
    );
    wrong.extend(
        report
            .missing
            .iter()
            .map(|id| format!("{id}: the check misses it")),
    );
    wrong.extend(report.notes.iter().map(|note| format!("the check says: {note}")));
    wrong.extend(
        backend
            .status()
            .read_only
            .map(|reason| format!("read only: {reason}")),
    );
    if wrong.is_empty() {
        let journal = Journal::after(expected);
        let load = Load {
            backend: &*backend,
            journal: &journal,
            disk: None,
            aside: None,
        };
        load.run(1, 6, &Rng::fixed(expected.keys().count() as u64));
        let acked = journal.expected();
        drop(backend);
        wrong = violations(&*open(folder).map_err(say)?, folder, &acked).map_err(say)?;
        wrong
            .iter_mut()
            .for_each(|line| line.insert_str(0, "after new writes and a clean start: "));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

fn violations(backend: &dyn Backend, folder: &Path, expected: &Expectation) -> Result<Vec<String>, Error> {
    // More may have been set aside than was written down.
    let mut found = set_aside(&folder.join(ASIDE));
    found.retain(|key, _| expected.value_of(key).is_some());
    for stat in backend.list(None)? {
        let stat = stat?;
        let Some(mut reader) = backend.open(&stat.id)? else {
            return Ok(vec![format!("{} is listed and not there", stat.id)]);
        };
        let bytes = match read_whole(&mut *reader, READ_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(vec![error.to_string()]),
        };
        found.insert(
            blob_key(&stat.id),
            format!("{} {:?}", BlobId::of(&bytes), stat.class),
        );
    }
    for number in 0..SMALL {
        if let Some(id) = backend.resolve(&sha256_of(number))? {
            found.insert(alias_key(number), id.to_string());
        }
    }
    Ok(expected.violations(&found))
}

/// The files of a quarantine and a hash of each.
fn set_aside(folder: &Path) -> BTreeMap<String, String> {
    // A store that was not begun has none.
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let bytes = std::fs::read(file.path()).ok()?;
            let key = format!("aside {}", file.file_name().display());
            Some((key, blake3::hash(&bytes).to_hex().to_string()))
        })
        .collect()
}

fn outcome<T>(done: &Result<T, Error>) -> Outcome {
    if done.is_ok() {
        Outcome::Acked
    } else {
        Outcome::Unknown
    }
}

pub(super) fn blob_key(id: &BlobId) -> String {
    format!("blob {id}")
}

fn alias_key(number: usize) -> String {
    format!("alias {:?}", sha256_of(number))
}

fn value_of(number: usize, class: Class) -> String {
    format!("{} {class:?}", id_of(number))
}

fn class_of(number: usize) -> Class {
    if number.is_multiple_of(3) {
        Class::Pinned
    } else {
        Class::Part
    }
}

pub(super) fn id_of(number: usize) -> BlobId {
    BlobId::of(&content(number))
}

fn sha256_of(number: usize) -> Sha256Id {
    let digest = ring::digest::digest(&ring::digest::SHA256, &content(number));
    Sha256Id::from_bytes(digest.as_ref().try_into().expect("32 bytes"))
}

fn packed(number: usize, class: Class) -> Packed {
    Packed::new(Bytes::from(content(number)), class, Compression::default())
}

/// The bytes of blob `number`: the small ones of a few bytes up to ten pages, half of them compressible.
pub(super) fn content(number: usize) -> Vec<u8> {
    let mut rng = Rng::fixed(number as u64);
    let is_large = (SMALL..SMALL + LARGE).contains(&number);
    let len = match (is_large, number % 8) {
        (true, _) => LARGE_BYTES,
        (_, 0) => 40_000,
        (_, 1 | 2) => 1 + rng.below(100),
        _ => 1 + rng.below(9000),
    };
    if number.is_multiple_of(2) {
        return rng.bytes(len);
    }
    let mut text = format!("blob {number} says the same again and again. ").into_bytes();
    text = text.repeat(len / text.len() + 1);
    text.truncate(len.max(8));
    text
}
