//! Carries all blobs of a store over to another backend while the store is in use.
//!
//! The other backend becomes a mirror: it gets what it lacks and loses what the first no longer has, first by comparing both
//! lists, then for whatever was written meanwhile, again and again until that is little. Then it is read back, and the store
//! goes on with it ([`Switch::exchange`]). Cut at any moment, the next attempt compares, and carries only the rest.
//!
//! Aliases travel with their blobs, and arrive before them: which alias a blob has is told by its bytes. Of blobs that an earlier
//! attempt carried the bytes are read again, as one may have got its alias since.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;

use ring::digest;

use super::backend::{Aside, Backend, CheckOptions, Listing, Reader, Stat, read_whole};
use super::error::Error;
use super::frame::{Compression, Packed};
use super::switch::{Ids, Switch, Touched};
use crate::id::{BlobId, Sha256Id};

/// Blobs up to that size are put many at a time, and flushed together; larger ones are streamed. In bytes.
const HELD_BYTES_MAX: u64 = 512 * 1024;

/// Bytes, and blobs, that are put before a flush: what is in memory at once.
const BATCH_BYTES: u64 = 2 * 1024 * 1024;
const BATCH_BLOBS: usize = 256;

/// With so few blobs, and bytes, left to carry, writes may wait for them: well below a second.
const LAST_BLOBS: usize = 64;
const LAST_BYTES: u64 = 1024 * 1024;

/// Where it gets no less, as a store is written to as fast as it can be carried, writes wait for that much: seconds. With more it is
/// called busy, and tried again later.
const WAITED_BLOBS: usize = 4096;
const WAITED_BYTES: u64 = 64 * 1024 * 1024;

/// Ids deleted at once.
const DELETED_AT_ONCE: usize = 4096;

/// Where blobs come from and go to.
pub struct Carrier<'a> {
    /// The store's.
    pub from: &'a Switch,
    /// The mirror; nobody else writes to it.
    pub to: Arc<dyn Backend>,
    /// How the mirror wants its blobs.
    pub compression: Compression,
    /// Whether to stop, asked between blobs.
    pub stop: &'a dyn Fn() -> bool,
    /// Hears how many blobs were compared or carried so far.
    pub progress: &'a dyn Fn(u64),
}

/// Why blobs were not carried.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
    /// What was written came back as something else.
    #[error("{count} blobs came back from there as something else than was written: that disk is damaged")]
    Untrue {
        /// How many.
        count: usize,
    },
    /// A backend failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Carrier<'_> {
    /// Carries all blobs, and exchanges the backend once `commit` made that durable; writes wait meanwhile. Answers with the
    /// backend that was used until then.
    ///
    /// # Errors
    /// [`CarryError`], or what `commit` answers: the store goes on with the backend it has, and the mirror may be thrown away or
    /// carried on with.
    pub fn run<E: From<CarryError> + From<Error>>(
        &self,
        commit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Arc<dyn Backend>, E> {
        let done = self.follow_and_exchange(commit);
        self.from.unfollow();
        done
    }

    fn follow_and_exchange<E: From<CarryError> + From<Error>>(
        &self,
        commit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Arc<dyn Backend>, E> {
        self.from.follow()?;
        self.compare(self.from, Known::Doubted)?;
        self.catch_up()?;
        self.read_back()?;
        self.catch_up()?;
        self.from.exchange(Arc::clone(&self.to), |from, touched| {
            self.follow_up(from, touched)?;
            commit()
        })
    }

    /// What was written meanwhile, until that is little.
    fn catch_up(&self) -> Result<(), CarryError> {
        let mut before = Carried {
            blobs: usize::MAX,
            bytes: u64::MAX,
        };
        loop {
            let carried = self.follow_up(self.from, self.from.take_touched()?)?;
            if carried.is_within(LAST_BLOBS, LAST_BYTES) {
                return Ok(());
            }
            let is_less = carried.blobs < before.blobs && carried.bytes < before.bytes;
            if !is_less {
                let may_wait = carried.is_within(WAITED_BLOBS, WAITED_BYTES);
                return if may_wait { Ok(()) } else { Err(Error::Busy.into()) };
            }
            before = carried;
        }
    }

    /// Makes the mirror hold what `from` holds, where that was touched.
    fn follow_up(&self, from: &dyn Backend, touched: Touched) -> Result<Carried, CarryError> {
        let mut carried = Carried::default();
        match (touched.blobs, touched.aliased) {
            (_, Ids::Any) => carried.add(self.compare(from, Known::Doubted)?),
            (Ids::Any, Ids::These(aliased)) => {
                carried.add(self.compare(from, Known::Trusted)?);
                carried.add(self.some(from, aliased)?);
            }
            (Ids::These(blobs), Ids::These(aliased)) => {
                carried.add(self.some(from, blobs)?);
                carried.add(self.some(from, aliased)?);
            }
        }
        Ok(carried)
    }

    fn read_back(&self) -> Result<(), CarryError> {
        let options = CheckOptions {
            read_data: true,
            repair: false,
        };
        let report = self.to.check(options, &|_| {})?;
        match report.damaged.len() + report.missing.len() {
            0 => Ok(()),
            count => Err(CarryError::Untrue { count }),
        }
    }

    /// Makes the mirror hold what `from` lists.
    fn compare(&self, from: &dyn Backend, known: Known) -> Result<Carried, CarryError> {
        let mut batch = Batch::default();
        let mut gone = Vec::new();
        let mut carried = Carried::default();
        let pairs = Pairs {
            one: from.list(None)?.peekable(),
            other: self.to.list(None)?.peekable(),
        };
        for (looked, pair) in (1..).zip(pairs) {
            if (self.stop)() {
                return Err(CarryError::Stopped);
            }
            match pair? {
                (Some(wanted), Some(there)) if there.class == wanted.class => match known {
                    Known::Trusted => {}
                    Known::Doubted => self.look_for_alias(from, wanted)?,
                },
                (Some(wanted), there) => {
                    carried.note(wanted);
                    self.carry(from, wanted, there, &mut batch)?;
                }
                (None, there) => gone.extend(there.map(|there| there.id)),
            }
            if gone.len() >= DELETED_AT_ONCE {
                self.to.delete(&std::mem::take(&mut gone))?;
            }
            (self.progress)(looked);
        }
        self.to.delete(&gone)?;
        self.put(&mut batch)?;
        Ok(carried)
    }

    /// Makes the mirror hold of these blobs what `from` holds of them.
    fn some(&self, from: &dyn Backend, ids: BTreeSet<BlobId>) -> Result<Carried, CarryError> {
        let ids: Vec<BlobId> = ids.into_iter().collect();
        let mut carried = Carried::default();
        for ids in ids.chunks(DELETED_AT_ONCE) {
            let mut batch = Batch::default();
            let mut gone = Vec::new();
            let (wanted, there) = (from.stat(ids)?, self.to.stat(ids)?);
            for (id, pair) in ids.iter().zip(wanted.into_iter().zip(there)) {
                if (self.stop)() {
                    return Err(CarryError::Stopped);
                }
                match pair {
                    (Some(wanted), there) => {
                        carried.note(wanted);
                        self.carry(from, wanted, there, &mut batch)?;
                    }
                    (None, Some(_)) => gone.push(*id),
                    (None, None) => {}
                }
            }
            self.to.delete(&gone)?;
            self.put(&mut batch)?;
        }
        Ok(carried)
    }

    /// One blob with its alias; small ones join the batch. What is damaged is set aside, as by any other read.
    fn carry(
        &self,
        from: &dyn Backend,
        wanted: Stat,
        there: Option<Stat>,
        batch: &mut Batch,
    ) -> Result<(), CarryError> {
        // Classes only rise: what was put anew as less has to go first.
        if there.is_some_and(|there| there.class > wanted.class) {
            self.to.delete(&[wanted.id])?;
        }
        let carried = match wanted.len <= HELD_BYTES_MAX {
            true => self.hold(from, wanted, batch),
            false => self.stream(from, wanted),
        };
        match carried {
            Err(Error::Corrupt { id }) if id == wanted.id => {
                if !from.quarantine(&id, Aside::Damaged)? {
                    // What is there by now is whole, and must not stay behind: another attempt carries it.
                    return Err(Error::Busy.into());
                }
                tracing::error!(%id, "a damaged blob was set aside, and is not carried: put it again or fetch it from a peer");
            }
            carried => carried?,
        }
        if batch.bytes >= BATCH_BYTES || batch.blobs.len() >= BATCH_BLOBS {
            self.put(batch)?;
        }
        Ok(())
    }

    fn hold(&self, from: &dyn Backend, wanted: Stat, batch: &mut Batch) -> Result<(), Error> {
        let Some(mut reader) = from.open(&wanted.id)? else {
            // Deleted meanwhile, and noted.
            return Ok(());
        };
        let limit = usize::try_from(HELD_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = read_whole(&mut *reader, limit)?;
        self.keep_alias(from, wanted.id, digest::digest(&digest::SHA256, &bytes))?;
        batch.bytes += wanted.len;
        batch.blobs.push(Packed::identified(
            wanted.id,
            bytes,
            wanted.class,
            self.compression,
        ));
        Ok(())
    }

    fn stream(&self, from: &dyn Backend, wanted: Stat) -> Result<(), Error> {
        let Some(mut reader) = from.open(&wanted.id)? else {
            return Ok(());
        };
        let mut incoming = self.to.begin(wanted.class)?;
        let sha256 = read_through(&mut *reader, |bytes| incoming.write(bytes))?;
        self.keep_alias(from, wanted.id, sha256)?;
        incoming.finish(Some(wanted.id)).map(drop)
    }

    /// Of a blob that the mirror has.
    fn look_for_alias(&self, from: &dyn Backend, wanted: Stat) -> Result<(), CarryError> {
        let Some(mut reader) = from.open(&wanted.id)? else {
            return Ok(());
        };
        match read_through(&mut *reader, |_| Ok(())) {
            // The mirror's is whole.
            Err(Error::Corrupt { .. }) => Ok(()),
            read => Ok(self.keep_alias(from, wanted.id, read?)?),
        }
    }

    /// Before the blob: a blob that is there has its alias.
    fn keep_alias(&self, from: &dyn Backend, id: BlobId, sha256: digest::Digest) -> Result<(), Error> {
        let bytes = sha256.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let alias = Sha256Id::from_bytes(bytes);
        let is_used = from.resolve(&alias)? == Some(id);
        if is_used && self.to.resolve(&alias)? != Some(id) {
            self.to.add_alias(&alias, &id)?;
        }
        Ok(())
    }

    fn put(&self, batch: &mut Batch) -> Result<(), CarryError> {
        if !batch.blobs.is_empty() {
            self.to.append(&batch.blobs)?;
            self.to.flush()?;
        }
        *batch = Batch::default();
        Ok(())
    }
}

/// Reads a blob from one end to the other; the SHA-256 of its bytes.
fn read_through(
    reader: &mut dyn Reader,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<digest::Digest, Error> {
    let mut sha256 = digest::Context::new(&digest::SHA256);
    let (mut at, len) = (0, reader.stat().len);
    while at < len {
        let bytes = reader.read_at(at)?;
        sha256.update(&bytes);
        take(&bytes)?;
        at += bytes.len() as u64;
    }
    Ok(sha256.finish())
}

/// What the mirror holds already, and was carried by an earlier look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has its alias.
    Trusted,
    /// It may have got one since.
    Doubted,
}

/// How much was carried.
#[derive(Debug, Default)]
struct Carried {
    blobs: usize,
    bytes: u64,
}

impl Carried {
    fn is_within(&self, blobs: usize, bytes: u64) -> bool {
        self.blobs <= blobs && self.bytes <= bytes
    }

    fn note(&mut self, wanted: Stat) {
        self.blobs += 1;
        self.bytes += wanted.len;
    }

    fn add(&mut self, more: Carried) {
        self.blobs += more.blobs;
        self.bytes += more.bytes;
    }
}

/// Small blobs on their way.
#[derive(Default)]
struct Batch {
    blobs: Vec<Packed>,
    bytes: u64,
}

/// Two sorted lists side by side: each id once, with what either has of it.
struct Pairs<'a> {
    one: Peekable<Listing<'a>>,
    other: Peekable<Listing<'a>>,
}

impl Iterator for Pairs<'_> {
    type Item = Result<(Option<Stat>, Option<Stat>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = |listing: &mut Peekable<Listing<'_>>| match listing.peek() {
            Some(Ok(stat)) => Some(stat.id),
            Some(Err(_)) | None => None,
        };
        let (one, other) = (id(&mut self.one), id(&mut self.other));
        let least = one.into_iter().chain(other).min();
        let Some(least) = least else {
            // Both ended, or what is next failed.
            let failed = self.one.next().or_else(|| self.other.next())?;
            return Some(failed.map(|stat| (Some(stat), None)));
        };
        let taken = |listing: &mut Peekable<Listing<'_>>, own: Option<BlobId>| match own {
            Some(id) if id == least => listing.next().transpose(),
            // The others stand behind it, ended, or failed.
            _ => match listing.peek() {
                Some(Err(_)) => listing.next().transpose(),
                Some(Ok(_)) | None => Ok(None),
            },
        };
        let pair = taken(&mut self.one, one).and_then(|one| Ok((one, taken(&mut self.other, other)?)));
        Some(pair)
    }
}

#[cfg(test)]
mod tests;
