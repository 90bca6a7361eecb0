//! `refuge put`, `get`, `stat`, `ls`, `rm`: blobs by their ids.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::Session;
use super::exit::{Exit, Failure};
use super::output::{Output, note};
use super::place::PlaceArgs;
use crate::app::{Held, Place};
use crate::id::{BlobAddress, BlobId};
use crate::node::{Class, Stat};

/// Bytes read from a file at once: one window of the store.
const READ_BYTES: usize = 512 * 1024;

/// Ids asked for at once.
const IDS_AT_ONCE: usize = 1000;

/// Store files, each as one blob; prints their ids
#[derive(Args)]
#[command(
    after_help = "Example:\n  refuge put letter.pdf --data ~/refuge\n  date | refuge put - --data ~/refuge"
)]
pub(super) struct PutArgs {
    /// The files; `-` reads standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Refuse the bytes unless they have this id
    #[arg(long, value_name = "ID")]
    expect: Option<BlobAddress>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Write a blob to standard output or a file
#[derive(Args)]
#[command(after_help = "Example:\n  refuge get blake3-af13…3262 --output letter.pdf --data ~/refuge")]
pub(super) struct GetArgs {
    /// The blob
    #[arg(value_name = "ID")]
    id: BlobAddress,
    /// Write to this file instead; it appears when it is whole
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Say which blobs are stored, and how long they are
#[derive(Args)]
#[command(after_help = "Example:\n  refuge stat blake3-af13…3262 --data ~/refuge")]
pub(super) struct StatArgs {
    /// The blobs
    #[arg(value_name = "ID", required = true)]
    ids: Vec<BlobAddress>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// List blobs in the order of their ids
#[derive(Args)]
#[command(after_help = "Example:\n  refuge ls --limit 20 --data ~/refuge")]
pub(super) struct LsArgs {
    /// Begin above this id
    #[arg(long, value_name = "ID")]
    after: Option<BlobId>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Delete blobs
#[derive(Args)]
#[command(after_help = "Example:\n  refuge rm blake3-af13…3262 --data ~/refuge

Also what a snapshot needs: the next backup of its folder puts back what is still there.
To drop snapshots, use `refuge prune`.")]
pub(super) struct RmArgs {
    /// The blobs
    #[arg(value_name = "ID", required = true)]
    ids: Vec<BlobAddress>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct PutLine {
    id: BlobId,
    len: u64,
    fresh: bool,
}

#[derive(Serialize)]
struct StatLine {
    id: String,
    stored: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
}

#[derive(Serialize)]
struct ListLine {
    id: BlobId,
    len: u64,
    class: &'static str,
}

#[derive(Serialize)]
struct RmLine {
    id: String,
    deleted: bool,
}

pub(super) fn put(args: PutArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, true)?;
    for path in &args.files {
        let mut source: Box<dyn Read> = match path == Path::new("-") {
            true => Box::new(io::stdin()),
            false => Box::new(open(path)?),
        };
        let put = session.runtime.block_on(async {
            let mut receiver = place.store.receive(Class::Pinned, args.expect);
            loop {
                let bytes = read_some(&mut *source, path)?;
                if bytes.is_empty() {
                    return anyhow::Ok(receiver.finish().await?);
                }
                receiver.write(bytes).await?;
            }
        })?;
        let line = PutLine {
            id: put.id,
            len: put.len,
            fresh: put.fresh,
        };
        session.output.result(&line, || put.id.to_string())?;
    }
    Ok(Exit::Done)
}

pub(super) fn get(args: GetArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let missing = || Failure::new(Exit::Missing, format!("there is no blob {}", args.id));
    let id = resolve(&place, args.id, session)?.ok_or_else(missing)?;
    let mut reader = place.store.backend().open(&id)?.ok_or_else(missing)?;
    let mut target: Target = match &args.output {
        Some(path) => Target::file(path)?,
        None => Target::Standard(&mut session.output),
    };
    let mut offset = 0;
    loop {
        let bytes = reader.read_at(offset)?;
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        target.write(&bytes)?;
    }
    target.finish()?;
    Ok(Exit::Done)
}

pub(super) fn stat(args: StatArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let mut exit = Exit::Done;
    for address in args.ids {
        let known = match resolve(&place, address, session)? {
            Some(id) => place.store.backend().stat(&[id])?.into_iter().flatten().next(),
            None => None,
        };
        let line = StatLine {
            id: known.map_or_else(|| address.to_string(), |stat| stat.id.to_string()),
            stored: known.is_some(),
            len: known.map(|stat| stat.len),
            class: known.map(class),
        };
        session.output.result(&line, || match known {
            Some(stat) => format!("{}  {}  {}", stat.id, stat.len, class(stat)),
            None => format!("{address}  not stored"),
        })?;
        if known.is_none() {
            exit = Exit::Missing;
        }
    }
    Ok(exit)
}

pub(super) fn ls(args: LsArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let listing = place.store.backend().list(args.after)?;
    for stat in listing.take(args.limit.unwrap_or(usize::MAX)) {
        let stat = stat?;
        let line = ListLine {
            id: stat.id,
            len: stat.len,
            class: class(stat),
        };
        session
            .output
            .result(&line, || format!("{}  {}", stat.id, stat.len))?;
    }
    Ok(Exit::Done)
}

pub(super) fn rm(args: RmArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let mut exit = Exit::Done;
    for addresses in args.ids.chunks(IDS_AT_ONCE) {
        let mut ids = Vec::with_capacity(addresses.len());
        for address in addresses {
            ids.push(resolve(&place, *address, session)?);
        }
        let known: Vec<BlobId> = ids.iter().copied().flatten().collect();
        let deleted = match &place.held {
            // What is deleted is noted where refs may name it.
            Held::Folder(node) => {
                let blobs = node.stores().get(&args.place.store)?;
                session.runtime.block_on(blobs.delete(known))?
            }
            Held::Node(_) => session.runtime.block_on(place.store.delete(known))?,
        };
        let mut deleted = deleted.into_iter();
        for (address, id) in addresses.iter().zip(ids) {
            let was_there = id.is_some() && deleted.next().unwrap_or(false);
            let line = RmLine {
                id: address.to_string(),
                deleted: was_there,
            };
            if session.output.is_json() {
                session.output.result(&line, String::new)?;
            } else if !was_there {
                note(&format!("refuge: there is no blob {address}"));
            }
            if !was_there {
                exit = Exit::Missing;
            }
        }
    }
    Ok(exit)
}

fn resolve(place: &Place, address: BlobAddress, session: &Session) -> anyhow::Result<Option<BlobId>> {
    Ok(session.runtime.block_on(place.store.resolve(address))?)
}

fn class(stat: Stat) -> &'static str {
    match stat.class {
        Class::Part => "part",
        Class::Pinned => "pinned",
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let refuse = |reason: String| Failure::new(Exit::Failed, format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(refuse("is a folder: `refuge backup` takes folders".to_owned()))
        }
        _ => Ok(file),
    }
}

/// The next window of a file; empty at its end.
fn read_some(source: &mut dyn Read, path: &Path) -> Result<Bytes, Failure> {
    let mut window = Vec::with_capacity(READ_BYTES);
    source
        .take(READ_BYTES as u64)
        .read_to_end(&mut window)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))?;
    Ok(window.into())
}

/// Where a blob is written to.
enum Target<'a> {
    Standard(&'a mut Output),
    File {
        path: &'a Path,
        fresh: PathBuf,
        file: File,
    },
}

impl<'a> Target<'a> {
    /// A file that takes its name when it is whole.
    fn file(path: &'a Path) -> Result<Target<'a>, Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let fresh = path.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o666)
            .open(&fresh)
            .map_err(|error| located(path, &error))?;
        Ok(Target::File { path, fresh, file })
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Target::Standard(output) => output.raw(bytes)?,
            Target::File { path, file, .. } => {
                file.write_all(bytes).map_err(|error| located(path, &error))?
            }
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        match &mut self {
            Target::Standard(output) => output.flush()?,
            Target::File { path, fresh, file } => {
                file.sync_all()
                    .and_then(|()| std::fs::rename(&*fresh, *path))
                    .map_err(|error| located(path, &error))?;
            }
        }
        Ok(())
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Target::File { fresh, .. } = self {
            // After a rename there is nothing to remove; a failed write leaves nothing behind.
            let _ = std::fs::remove_file(fresh);
        }
    }
}

fn located(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}
