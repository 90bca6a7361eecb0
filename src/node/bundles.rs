//! Bundles that wait in the node's folder: one that is coming or on trial, and the one that runs, which others may have.
//!
//! ```text
//! DIR/bundles/next.json    what is coming: where from, how long it is, which version it was found to be
//! DIR/bundles/next.raucb   what came of it; an interrupted transfer goes on at its end
//! DIR/bundles/kept.json    the bundle that runs, as a manifest
//! DIR/bundles/kept.raucb   its bytes
//! DIR/bundles/offered      empty; while it is there, others may have the bundle that runs
//! ```
//!
//! ```text
//!  begin ─> Arriving ─> came ──> found (its version, after its signature) ──> settle: it runs ──> kept, to be offered by parts
//!              └─ cut off: goes on     └─ refused: forgotten                    └─ it does not: forgotten
//! ```
//!
//! What is offered can be read by anybody: a bundle is signed and public. But it says which version runs, so that is for the owner to
//! switch on. Nothing else can be read by it, as no store is asked.
//! Whatever is damaged here costs a transfer and no more: it is removed.

mod arriving;
mod bucket;
mod manifest;

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{Error, Kind};
use crate::db;
use crate::durable;
use crate::files::Cutter;
use crate::id::{BlobId, Version};

pub use arriving::{Arriving, Coming};
pub use manifest::{
    BUNDLE_BYTES_MAX, BUNDLE_MANIFEST_BYTES_MAX, BUNDLE_PART_BYTES_MAX, BundleManifest, BundlePart,
    ManifestError,
};

use bucket::Buckets;
use manifest::{PART_SIZES, Places};

/// Parts that are on their way to strangers at a time: each is held in memory.
const READINGS_MAX: usize = 8;

/// While it is there, others may have the bundle that runs.
const OFFERED: &str = "offered";

/// A manifest is on its way for as many parts as it is long.
const _: () = assert!(BUNDLE_MANIFEST_BYTES_MAX as u64 <= 8 * BUNDLE_PART_BYTES_MAX);

/// The bundles of a node; cloning is cheap.
#[derive(Clone)]
pub struct Bundles {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    started: Instant,
    readings: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<Arc<Kept>>,
    /// The version that runs and was judged good.
    running: Option<Version>,
    /// Whether others may have it.
    is_offering: bool,
    buckets: Buckets,
}

/// The bundle that runs, or ran before.
struct Kept {
    manifest: BundleManifest,
    places: Places,
    file: File,
}

/// A part, on its way to whoever asked for it.
pub struct PartReading {
    bytes: Option<Bytes>,
    size_bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl PartReading {
    /// How many bytes it has.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// All of its bytes, verified; `None` once they were taken.
    pub fn take(&mut self) -> Option<Bytes> {
        self.bytes.take()
    }
}

impl Bundles {
    /// Those in `folder`, which is made when the first one comes. Blocking.
    pub(super) fn open(folder: PathBuf) -> Bundles {
        let kept = Kept::open(&folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "the bundle that runs is not at hand");
            None
        });
        let state = State {
            kept: kept.map(Arc::new),
            is_offering: matches!(durable::read(&folder.join(OFFERED)), Ok(Some(_))),
            ..State::default()
        };
        Bundles {
            inner: Arc::new(Inner {
                folder,
                started: Instant::now(),
                readings: Arc::new(Semaphore::new(READINGS_MAX)),
                state: Mutex::new(state),
            }),
        }
    }

    /// Begins to take a bundle in, or goes on where the same one from the same source was cut off; what came of another is removed.
    /// Durable on return.
    ///
    /// # Errors
    /// [`Error::Update`] where there is no room for it, or it is longer than a slot; [`Error::NoSpace`], [`Error::Internal`].
    pub async fn begin(&self, coming: Coming) -> Result<Arriving, Error> {
        let folder = self.inner.folder.clone();
        db::crossing(move || Arriving::begin(&folder, coming)).await
    }

    /// Bytes of the bundle that came, from `offset` on: as many as are sent on at once, none at its end.
    ///
    /// # Errors
    /// [`Error::Missing`] where none came; [`Error::Internal`].
    pub async fn came(&self, offset: u64) -> Result<Bytes, Error> {
        let folder = self.inner.folder.clone();
        db::crossing(move || arriving::read(&folder, offset)).await
    }

    /// Takes note of the version that the bundle was found to be, after its signature was verified. Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`] where none came; [`Error::NoSpace`], [`Error::Internal`].
    pub async fn found(&self, version: Version) -> Result<(), Error> {
        let folder = self.inner.folder.clone();
        db::crossing(move || arriving::found(&folder, version)).await
    }

    /// Forgets the bundle that is coming, or came. Durable on return; none there is no error.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn forget(&self) -> Result<(), Error> {
        let folder = self.inner.folder.clone();
        db::crossing(move || arriving::forget(&folder)).await
    }

    /// The system that runs was judged good: the bundle that it came in is kept and offered from now on, one that did not stay is
    /// forgotten. What was cut off on its way stays. Reads all of a bundle once. Durable on return.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`]: the next call tries again.
    pub async fn settle(&self, running: Version, compatible: String) -> Result<(), Error> {
        let bundles = self.clone();
        db::crossing(move || bundles.settle_blocking(running, compatible)).await
    }

    fn settle_blocking(&self, running: Version, compatible: String) -> Result<(), Error> {
        let folder = &self.inner.folder;
        match arriving::found_version(folder)? {
            Some(version) if version == running => {
                keep(folder, version, compatible)?;
                let kept = Kept::open(folder)?.map(Arc::new);
                self.state().kept = kept;
            }
            Some(_) => arriving::forget(folder)?,
            None => {}
        }
        self.state().running = Some(running);
        Ok(())
    }

    /// Whether others may have the bundle that runs, as the owner says. Does not block.
    pub fn is_offering(&self) -> bool {
        self.state().is_offering
    }

    /// Says whether they may. Durable on return.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Internal`]: it is as before.
    pub async fn offer(&self, is_offering: bool) -> Result<(), Error> {
        let bundles = self.clone();
        db::crossing(move || {
            let path = bundles.inner.folder.join(OFFERED);
            match is_offering {
                true => {
                    durable::create_folder(&bundles.inner.folder).map_err(|error| Error::io(&path, error))?;
                    durable::replace(&path, b"")?;
                }
                false => durable::remove(&path)?,
            }
            bundles.state().is_offering = is_offering;
            Ok(())
        })
        .await
    }

    /// What others may have, where the owner says so: the bundle that runs.
    pub fn offered(&self) -> Option<BundleManifest> {
        self.offering().map(|kept| kept.manifest.clone())
    }

    /// Counts a stranger's question, before anything is read for it. The permit is held until the answer is out.
    ///
    /// # Errors
    /// [`Error::RateLimited`]; [`Error::Busy`] where too much is on its way already.
    pub fn admit(&self, address: IpAddr) -> Result<OwnedSemaphorePermit, Error> {
        let now = self.inner.started.elapsed();
        let taken = self.state().buckets.take(address, now);
        taken.map_err(|retry_after| Error::RateLimited { retry_after })?;
        Arc::clone(&self.inner.readings)
            .try_acquire_owned()
            .map_err(|_| Error::Busy)
    }

    /// A part of what is offered, for whoever was admitted.
    ///
    /// # Errors
    /// [`Error::Missing`] for all else; [`Error::Internal`].
    pub async fn part(&self, id: BlobId, permit: OwnedSemaphorePermit) -> Result<PartReading, Error> {
        let kept = self.offering().filter(|kept| kept.places.contains_key(&id));
        let kept = kept.ok_or_else(|| Error::missing(Kind::Bundle, id))?;
        let bytes = self.read(kept, id).await?;
        let bytes = bytes.ok_or_else(|| Error::missing(Kind::Bundle, id))?;
        Ok(PartReading {
            size_bytes: bytes.len() as u64,
            bytes: Some(bytes),
            _permit: permit,
        })
    }

    /// A part that is at hand, of the bundle that runs or ran before.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn own_part(&self, id: BlobId) -> Result<Option<Bytes>, Error> {
        let kept = self.state().kept.clone();
        match kept.filter(|kept| kept.places.contains_key(&id)) {
            Some(kept) => self.read(kept, id).await,
            None => Ok(None),
        }
    }

    /// `None` where the part is damaged: the whole is not offered any more then.
    async fn read(&self, kept: Arc<Kept>, id: BlobId) -> Result<Option<Bytes>, Error> {
        let bundles = self.clone();
        db::crossing(move || {
            let read = kept.read(&id);
            if !matches!(read, Ok(Some(_))) {
                tracing::warn!(part = %id, "the bundle that runs is damaged and not offered any more");
                bundles.state().kept = None;
            }
            read.map_err(|error| Error::io(&bundles.inner.folder, error))
        })
        .await
    }

    fn offering(&self) -> Option<Arc<Kept>> {
        let state = self.state();
        let kept = state.kept.clone()?;
        (Some(&kept.manifest.version) == state.running.as_ref()).then_some(kept)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.inner.state.lock();
        state.expect("no thread panics while it holds the state of bundles")
    }
}

impl Kept {
    /// `None` where there is none, or what is there is none.
    fn open(folder: &Path) -> Result<Option<Kept>, Error> {
        let Some(state) = durable::read(&folder.join("kept.json"))? else {
            return Ok(None);
        };
        let Ok(manifest) = BundleManifest::parse(&state.payload) else {
            return Ok(None);
        };
        let path = folder.join("kept.raucb");
        match File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((len, file)) if len == manifest.size_bytes => Ok(Some(Kept {
                places: manifest.places(),
                manifest,
                file,
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, error)),
        }
    }

    fn read(&self, id: &BlobId) -> io::Result<Option<Bytes>> {
        let Some((at, size_bytes)) = self.places.get(id) else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(*size_bytes).map_err(io::Error::other)?];
        match self.file.read_exact_at(&mut bytes, *at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        Ok((BlobId::of(&bytes) == *id).then(|| bytes.into()))
    }
}

/// Makes the bundle that came the one that is kept. The manifest first: until the bytes follow, parts that do not fit it are
/// found by their ids, and the next start does all of this again.
fn keep(folder: &Path, version: Version, compatible: String) -> Result<(), Error> {
    let (next, kept) = (folder.join("next.raucb"), folder.join("kept.raucb"));
    let file = File::open(&next).map_err(|error| Error::io(&next, error))?;
    let (blob, parts) = cut(&file).map_err(|error| Error::io(&next, error))?;
    let manifest = BundleManifest::new(version, compatible, blob, parts);
    durable::replace(&folder.join("kept.json"), &manifest.bytes())?;
    fs::rename(&next, &kept)
        .and_then(|()| durable::sync_folder_of(&kept))
        .map_err(|error| Error::io(&kept, error))?;
    arriving::forget(folder)
}

fn cut(mut file: &File) -> io::Result<(BlobId, Vec<BundlePart>)> {
    let (mut whole, mut parts) = (blake3::Hasher::new(), Vec::new());
    let mut cutter = Cutter::new(PART_SIZES);
    loop {
        let more = cutter.next_parts(&mut file)?;
        if more.is_empty() {
            return Ok((BlobId::from_bytes(whole.finalize().into()), parts));
        }
        for bytes in more {
            whole.update(&bytes);
            parts.push(BundlePart {
                id: BlobId::of(&bytes),
                size_bytes: bytes.len() as u64,
            });
        }
    }
}

#[cfg(test)]
mod tests;
