//! The index made anew from the volumes alone, in bounded memory.
//!
//! Every needle's header becomes a record; records are sorted in pieces on disk and merged by id. Of an id
//! the needle with the highest sequence number stands; after compaction was cut there may be two, and the
//! one in the newer volume is taken. Pins count when they are younger than the last tombstone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Core;
use super::manifest::{self, Checkpoint, Tally};
use super::needle::{Header, Kind};
use super::run::{Entry, Run};
use super::scan::{Found, Scan};
use super::tail::{Flushed, cut, is_torn};
use super::volume::{PAGE_BYTES, SOLO, Volumes};
use crate::coffer::error::Error;
use crate::durable;
use crate::id::BlobId;

/// Records sorted in memory at once: about 10 MiB.
const PIECE_RECORDS: usize = 128 * 1024;

const RECORD_BYTES: usize = 32 + 8 + 4 + 8 + 8 + 8 + 1;

/// What a needle says of an id. Orders by id, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    id: BlobId,
    seq: u64,
    volume: u32,
    offset: u64,
    len: u64,
    span: u64,
    /// 1 blob, 2 tombstone, 3 pin, 4 alias; 16 pinned.
    kind: u8,
}

const BLOB: u8 = 1;
const TOMBSTONE: u8 = 2;
const PIN: u8 = 3;
const ALIAS: u8 = 4;
const PINNED: u8 = 16;

/// Makes a checkpoint from the volumes in `folder`. With `fault` nobody appends yet: what a crash left of a group nobody
/// was told of is cut, and of a volume that can't be read now a note is made there. The checkpoint lacks what is in it,
/// so it is not written: by a later one that volume would count as empty, and be removed. Without `fault` everything
/// there has been flushed, and such a volume is an error.
pub(super) fn from_volumes(
    folder: &Path,
    volumes: &Volumes,
    key: [u8; 32],
    fault: Option<&mut Option<String>>,
) -> Result<Checkpoint, Error> {
    let cut_torn = fault.is_some();
    let mut unread = None;
    let next_run = next_run_number(folder)?;
    let mut tally = Tally {
        next_seq: 1,
        ..Tally::default()
    };
    let mut sorter = Sorter {
        folder: folder.to_owned(),
        records: Vec::new(),
        pieces: 0,
    };
    let shared = volumes.shared()?;
    for &number in &shared {
        tally.next_shared = tally.next_shared.max(number + 1);
        let flushed = if cut_torn {
            Flushed::of_shared(number, &shared)
        } else {
            Flushed::All
        };
        let scanned = scan_volume(volumes, number, flushed, &mut sorter, &mut tally);
        let (end, torn) = read_or_noted(scanned, cut_torn, &mut unread)?;
        if torn && cut_torn {
            cut(volumes, number, end)?;
        } else if flushed == Flushed::AsNeedlesSay {
            // A killed process leaves pages that are written and not flushed; they are shown only after this.
            sync(volumes, number)?;
        }
        tally.volumes.entry(number).or_default().end = end;
    }
    for number in volumes.solos(0)? {
        tally.next_solo = tally.next_solo.max((number & !SOLO) + 1);
        // It was flushed before it got its name.
        let scanned = scan_volume(volumes, number, Flushed::All, &mut sorter, &mut tally);
        read_or_noted(scanned, cut_torn, &mut unread)?;
    }
    if tally.next_shared == 0 && tally.next_solo == 0 {
        return Ok(Checkpoint {
            key,
            runs: Vec::new(),
            next_run,
            tally,
        });
    }
    let expected = sorter.pieces as u64 * PIECE_RECORDS as u64 + sorter.records.len() as u64;
    let path = manifest::run_path(folder, next_run);
    let mut merged = sorter.merge()?;
    let entries = std::iter::from_fn(|| next_entry(&mut merged, &mut tally, volumes).transpose());
    let run = Run::write(&path, next_run, expected, entries)?;
    match fault.zip(unread) {
        // It is read while it is open.
        Some((fault, unread)) => {
            super::discard(&path);
            fault.get_or_insert(unread);
        }
        None => {
            durable::sync_folder_of(&path).map_err(|source| Error::io(&path, source))?;
            manifest::write(folder, &key, &[next_run], next_run + 1, &tally)?;
        }
    }
    tracing::warn!(blobs = tally.blobs, "the index was rebuilt from the volumes");
    Ok(Checkpoint {
        key,
        runs: vec![Arc::new(run)],
        next_run: next_run + 1,
        tally,
    })
}

/// Rebuilds the index of an open haystack. Writes wait meanwhile, reads go on.
pub(super) fn rebuild(core: &Core) -> Result<(), Error> {
    let _one_at_a_time = core.sweeping.lock().expect("no panic while a compaction runs");
    let mut runs = core.publishing();
    // What is written and not flushed must not show.
    let mut writer = core.settled(&mut runs)?;
    let checkpoint = from_volumes(&core.folder, &core.volumes, core.key, None)?;
    runs.next = checkpoint.next_run;
    if let [run] = &checkpoint.runs[..] {
        core.index.reset(Arc::clone(run));
    }
    writer.recount(checkpoint.tally);
    Ok(())
}

/// What a scan found; where the disk could not read that volume, `unread` tells of it if it may.
fn read_or_noted(
    scanned: Result<(u64, bool), Error>,
    may_note: bool,
    unread: &mut Option<String>,
) -> Result<(u64, bool), Error> {
    match scanned {
        Err(error @ (Error::Io { .. } | Error::Damaged { .. })) if may_note => {
            tracing::error!(%error, "a volume can't be read");
            unread.get_or_insert(error.to_string());
            Ok((PAGE_BYTES, false))
        }
        scanned => scanned,
    }
}

fn sync(volumes: &Volumes, number: u32) -> Result<(), Error> {
    let Ok(Some(volume)) = volumes.get(number) else {
        return Ok(());
    };
    let synced = volume.file.sync_all();
    synced.map_err(|source| Error::io(&volume.path, source))
}

/// Records every needle of a volume; returns where it ends, and whether what comes after is torn.
fn scan_volume(
    volumes: &Volumes,
    number: u32,
    flushed: Flushed,
    sorter: &mut Sorter,
    tally: &mut Tally,
) -> Result<(u64, bool), Error> {
    let Some(volume) = volumes.get(number)? else {
        return Ok((PAGE_BYTES, false));
    };
    let len = volume.len()?;
    let mut mark = match flushed {
        Flushed::All => u64::MAX,
        Flushed::AsNeedlesSay => {
            // As in the tail of any volume: a failed flush may have left pages that count as written.
            volume.uncache(0, 0);
            PAGE_BYTES
        }
    };
    let mut scan = Scan::new(Arc::clone(&volume), PAGE_BYTES)?;
    while let Some(found) = scan.next()? {
        match found {
            Found::Needle(_, header) => mark = mark.max(header.durable),
            Found::Damage(from, to) => {
                tracing::error!(
                    volume = number,
                    from,
                    to,
                    "these bytes of a volume are no needles"
                );
            }
        }
    }
    let mut scan = Scan::new(Arc::clone(&volume), PAGE_BYTES)?;
    while let Some(found) = scan.next()? {
        let (offset, header) = match found {
            Found::Needle(offset, header) => (offset, header),
            Found::Damage(from, _) if from >= mark => return Ok((from, true)),
            Found::Damage(..) => continue,
        };
        // Below the mark a damaged body still belongs into the index: reading it reports the damage.
        if offset >= mark && is_torn(&volume, offset, &header) {
            return Ok((offset, true));
        }
        tally.next_seq = tally.next_seq.max(header.seq + 1);
        tally.use_up_solo(&header);
        sorter.push(record(number, offset, &header))?;
    }
    Ok((len.max(PAGE_BYTES), false))
}

fn record(volume: u32, offset: u64, header: &Header) -> Record {
    let kind = match header.kind {
        Kind::Blob if header.pinned => BLOB | PINNED,
        Kind::Blob => BLOB,
        Kind::Tombstone => TOMBSTONE,
        Kind::Pin => PIN,
        Kind::Alias => ALIAS,
    };
    let len = if header.kind == Kind::Alias {
        64
    } else {
        header.plain_len
    };
    Record {
        id: header.id,
        seq: header.seq,
        volume,
        offset,
        len,
        span: header.span(),
        kind,
    }
}

/// The entry of the next id that lives.
fn next_entry(
    merged: &mut Merged,
    tally: &mut Tally,
    volumes: &Volumes,
) -> Result<Option<(BlobId, Entry)>, Error> {
    while let Some(first) = merged.next()? {
        let mut live = None;
        let mut pinned = false;
        let mut record = first;
        loop {
            match record.kind & !PINNED {
                TOMBSTONE => {
                    if let Some(old) = live.take() {
                        forget_solo(&old, volumes)?;
                    }
                    pinned = false;
                    add_live(tally, record.volume, record.span);
                }
                PIN => {
                    pinned = true;
                    add_live(tally, record.volume, record.span);
                }
                _ => {
                    pinned |= record.kind & PINNED != 0;
                    live = Some(record);
                }
            }
            match merged.next_of(&first.id)? {
                Some(next) => record = next,
                None => break,
            }
        }
        if let Some(record) = live {
            let alias = record.kind == ALIAS;
            let Record {
                volume,
                offset,
                len,
                span,
                ..
            } = record;
            add_live(tally, volume, span);
            if !alias {
                tally.blobs += 1;
                tally.plain_bytes += len;
            }
            return Ok(Some((
                record.id,
                Entry {
                    volume,
                    offset,
                    len,
                    pinned,
                    dead: false,
                    alias,
                },
            )));
        }
    }
    Ok(None)
}

fn add_live(tally: &mut Tally, volume: u32, span: u64) {
    if volume & SOLO != 0 {
        tally.solo_bytes += span;
    } else {
        tally.volumes.entry(volume).or_default().live += span;
    }
}

/// Removes the volume of a large blob whose tombstone was durable when a crash came.
fn forget_solo(record: &Record, volumes: &Volumes) -> Result<(), Error> {
    if record.volume & SOLO != 0 {
        volumes.remove(record.volume)
    } else {
        Ok(())
    }
}

fn next_run_number(folder: &Path) -> Result<u32, Error> {
    let fail = |source| Error::io(folder, source);
    let mut next = 1;
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let number: Option<u32> = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if path.extension().is_some_and(|extension| extension == "run") {
            next = next.max(number.unwrap_or(0) + 1);
        }
    }
    Ok(next)
}

/// Sorts records in pieces in staging/.
struct Sorter {
    folder: PathBuf,
    records: Vec<Record>,
    pieces: usize,
}

impl Sorter {
    fn push(&mut self, record: Record) -> Result<(), Error> {
        self.records.push(record);
        if self.records.len() >= PIECE_RECORDS {
            self.spill()
        } else {
            Ok(())
        }
    }

    fn piece(&self, number: usize) -> PathBuf {
        self.folder.join("staging").join(format!("sort-{number}"))
    }

    fn spill(&mut self) -> Result<(), Error> {
        self.records.sort_unstable();
        let path = self.piece(self.pieces);
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(&path)?);
            for record in &self.records {
                out.write_all(&record.encode())?;
            }
            out.flush()
        };
        write().map_err(|source| Error::io(&path, source))?;
        self.records.clear();
        self.pieces += 1;
        Ok(())
    }

    fn merge(mut self) -> Result<Merged, Error> {
        self.records.sort_unstable();
        let mut sources: Vec<Box<dyn Iterator<Item = Result<Record, Error>>>> = Vec::new();
        for number in 0..self.pieces {
            let path = self.piece(number);
            let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
            // Unlinked at once: the open file is all that is needed.
            fs::remove_file(&path).map_err(|source| Error::io(&path, source))?;
            sources.push(Box::new(PieceReader {
                input: BufReader::new(file),
                path,
            }));
        }
        sources.push(Box::new(std::mem::take(&mut self.records).into_iter().map(Ok)));
        let mut merged = Merged {
            sources,
            heads: BinaryHeap::new(),
        };
        for source in 0..merged.sources.len() {
            merged.advance(source)?;
        }
        Ok(merged)
    }
}

struct PieceReader {
    input: BufReader<File>,
    path: PathBuf,
}

impl Iterator for PieceReader {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = [0; RECORD_BYTES];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => Some(Ok(Record::decode(&bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(source) => Some(Err(Error::io(&self.path, source))),
        }
    }
}

/// All records in order.
struct Merged {
    sources: Vec<Box<dyn Iterator<Item = Result<Record, Error>>>>,
    heads: BinaryHeap<Reverse<(Record, usize)>>,
}

impl Merged {
    fn advance(&mut self, source: usize) -> Result<(), Error> {
        if let Some(record) = self.sources[source].next() {
            self.heads.push(Reverse((record?, source)));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, Error> {
        let Some(Reverse((record, source))) = self.heads.pop() else {
            return Ok(None);
        };
        self.advance(source)?;
        Ok(Some(record))
    }

    fn next_of(&mut self, id: &BlobId) -> Result<Option<Record>, Error> {
        match self.heads.peek() {
            Some(Reverse((record, _))) if record.id == *id => self.next(),
            _ => Ok(None),
        }
    }
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..40].copy_from_slice(&self.seq.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.volume.to_le_bytes());
        bytes[44..52].copy_from_slice(&self.offset.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.len.to_le_bytes());
        bytes[60..68].copy_from_slice(&self.span.to_le_bytes());
        bytes[68] = self.kind;
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Record {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Record {
            id: BlobId::from_bytes(bytes[..32].try_into().expect("32 bytes")),
            seq: number(32),
            volume: u32::from_le_bytes(bytes[40..44].try_into().expect("four bytes")),
            offset: number(44),
            len: number(52),
            span: number(60),
            kind: bytes[68],
        }
    }
}
