//! The tail of a volume: how far the volume was flushed, which needles in it are whole, and taking off what is torn.
//!
//! What a cut left of a group was acknowledged to nobody. It is copied to quarantine/ before it is cut off all the same.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::needle::{Header, Kind};
use super::reader::NeedleReader;
use super::volume::{Volume, Volumes};
use crate::coffer::backend::Class;
use crate::coffer::error::Error;
use crate::durable;
use crate::id::BlobId;

/// How far a volume is known to have been flushed, beside what its needles say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// To its end: whatever is broken in it is rot, and nothing of it is cut.
    All,
    /// As the needles in it say; what is broken beyond is a torn tail.
    AsNeedlesSay,
}

impl Flushed {
    /// Of a shared volume among all there are, ascending: the next one is begun only after this one was flushed.
    pub(super) fn of_shared(number: u32, all: &[u32]) -> Flushed {
        match all.last() {
            Some(newest) if *newest > number => Flushed::All,
            _ => Flushed::AsNeedlesSay,
        }
    }
}

/// Whether the blob with `len` plain bytes stands at `offset`, read from one end to the other.
///
/// # Errors
/// Where the disk can't read it, which says nothing of the blob.
pub(super) fn is_whole(volume: &Arc<Volume>, offset: u64, id: &BlobId, len: u64) -> Result<bool, Error> {
    let read = || -> Result<(), Error> {
        let mut reader = NeedleReader::open(Arc::clone(volume), offset, *id, len, Class::Part)?;
        let mut at = 0;
        while at < len {
            at += reader.try_read_at(at)?.len() as u64;
        }
        Ok(())
    };
    match read() {
        Err(Error::Corrupt { .. }) => Ok(false),
        read => read.map(|()| true),
    }
}

/// Whether a needle beyond what is known to be flushed was torn by a cut. An alias is checked when it is used, and what
/// the disk can't read now may well be whole: it stays, and reading it reports the damage.
pub(super) fn is_torn(volume: &Arc<Volume>, offset: u64, header: &Header) -> bool {
    header.kind == Kind::Blob
        && is_whole(volume, offset, &header.id, header.plain_len).is_ok_and(|is_whole| !is_whole)
}

/// Cuts a volume where its torn tail begins, after that was set aside.
pub(super) fn cut(volumes: &Volumes, number: u32, end: u64) -> Result<(), Error> {
    let Some(volume) = volumes.get(number)? else {
        return Ok(());
    };
    set_aside(&volume.path, end, volumes, number)?;
    let cut = volume.file.set_len(end).and_then(|()| volume.file.sync_all());
    cut.map_err(|source| Error::io(&volume.path, source))
}

/// Copies a volume's bytes from `from` on to quarantine/: nobody was told of them, somebody may want them.
pub(super) fn set_aside(path: &Path, from: u64, volumes: &Volumes, number: u32) -> Result<(), Error> {
    let target = volumes
        .folder("quarantine")
        .join(format!("torn-{number:08}-{from}"));
    let copy = || -> io::Result<u64> {
        let mut source = File::open(path)?;
        source.seek(SeekFrom::Start(from))?;
        let mut copy = File::create(&target)?;
        let bytes = io::copy(&mut source.take(u64::MAX), &mut copy)?;
        copy.sync_all()?;
        durable::sync_folder_of(&target)?;
        Ok(bytes)
    };
    match copy() {
        Ok(bytes) => tracing::warn!(
            volume = number,
            from,
            bytes,
            "a write that was cut is set aside in quarantine/"
        ),
        // A full disk must not keep the store from opening; nothing acknowledged is lost.
        Err(error) => tracing::warn!(volume = number, %error, "a write that was cut could not be kept"),
    }
    Ok(())
}
