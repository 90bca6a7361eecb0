//! A blob of any length on its way in: small ones join a group commit, large ones are streamed.

use bytes::Bytes;
use ring::digest;
use tokio::task::JoinHandle;

use super::backend::{Class, Incoming, Put, Stat};
use super::error::Error;
use super::frame::FRAME_BYTES;
use super::{Change, INLINE_BYTES_MAX, Store, cross, crossing};
use crate::id::{BlobAddress, BlobId, Sha256Id};

/// Up to here a blob is held in memory and shares a flush with others; above, it is streamed.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// Bytes handed to the storage thread at once, whole frames: while it hashes and writes one window, the next is
/// being received.
const WINDOW_BYTES: usize = 2 * FRAME_BYTES;

/// A blob being received. Dropping it leaves nothing.
pub struct Receiver {
    store: Store,
    class: Class,
    expect: Option<BlobAddress>,
    held: Vec<u8>,
    stream: Stream,
}

enum Stream {
    /// Everything so far is in `held`.
    NotBegun,
    /// The storage thread works on the previous window.
    Working(JoinHandle<Result<Streamed, Error>>),
    /// An earlier write failed, or was cancelled: nothing more can come of it.
    Failed,
}

struct Streamed {
    incoming: Box<dyn Incoming>,
    sha256: Option<digest::Context>,
    /// The memory of the window that was written, for the next one.
    spare: Vec<u8>,
}

impl Receiver {
    pub(super) fn new(store: Store, class: Class, expect: Option<BlobAddress>) -> Receiver {
        Receiver {
            store,
            class,
            expect,
            held: Vec::new(),
            stream: Stream::NotBegun,
        }
    }

    /// Takes the next bytes, in pieces as they come. If cancelled, the blob can't be finished.
    ///
    /// # Errors
    /// As [`super::Backend::append`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let limit = match self.stream {
            Stream::NotBegun => HELD_BYTES_MAX,
            Stream::Working(_) | Stream::Failed => WINDOW_BYTES,
        };
        self.held.extend_from_slice(&bytes);
        if self.held.len() > limit {
            self.hand_over(self.held.len() / FRAME_BYTES * FRAME_BYTES).await
        } else {
            Ok(())
        }
    }

    /// Ends the blob: its digest is compared with what was expected. Durable on return.
    ///
    /// # Errors
    /// [`Error::Mismatch`]; nothing is kept then. Else as [`super::Backend::flush`].
    pub async fn finish(mut self) -> Result<Put, Error> {
        let put = match self.stream {
            Stream::NotBegun => self.finish_held().await?,
            Stream::Working(_) | Stream::Failed => {
                self.hand_over(self.held.len()).await?;
                self.finish_stream().await?
            }
        };
        if let Some(BlobAddress::Sha256(alias)) = self.expect {
            self.store
                .run(move |backend| backend.add_alias(&alias, &put.id))
                .await?;
        }
        Ok(put)
    }

    async fn finish_held(&mut self) -> Result<Put, Error> {
        let is_quick = self.held.len() <= INLINE_BYTES_MAX;
        let bytes = Bytes::from(std::mem::take(&mut self.held));
        let (store, class, expect) = (self.store.clone(), self.class, self.expect);
        let pack = move || {
            if let Some(BlobAddress::Sha256(expected)) = expect {
                compare_sha256(expected, digest::digest(&digest::SHA256, &bytes).as_ref())?;
            }
            Ok(store.pack(bytes, class))
        };
        let packed = if is_quick { pack()? } else { crossing(pack).await? };
        if let Some(BlobAddress::Blake3(expected)) = self.expect {
            compare(expected, packed.id())?;
        }
        self.store.commit(packed).await
    }

    /// Gives the first `len` bytes of what is held to the storage thread, after it is done with the window
    /// before.
    async fn hand_over(&mut self, len: usize) -> Result<(), Error> {
        let mut streamed = self.settle().await?;
        let spare = streamed
            .as_mut()
            .map_or_else(Vec::new, |streamed| std::mem::take(&mut streamed.spare));
        let mut window = std::mem::replace(&mut self.held, spare);
        self.held.extend_from_slice(&window[len..]);
        window.truncate(len);
        let (store, class, wants_sha256) = (
            self.store.clone(),
            self.class,
            matches!(self.expect, Some(BlobAddress::Sha256(_))),
        );
        self.stream = Stream::Working(cross(move || {
            let mut streamed = match streamed {
                Some(streamed) => streamed,
                None => Streamed {
                    incoming: store.backend().begin(class)?,
                    sha256: wants_sha256.then(|| digest::Context::new(&digest::SHA256)),
                    spare: Vec::new(),
                },
            };
            if let Some(sha256) = &mut streamed.sha256 {
                sha256.update(&window);
            }
            streamed.incoming.write(&window)?;
            window.clear();
            // The first window is larger than those that follow.
            window.shrink_to(WINDOW_BYTES + FRAME_BYTES);
            streamed.spare = window;
            Ok(streamed)
        }));
        Ok(())
    }

    /// Waits for the storage thread; `None` where the stream has not begun.
    async fn settle(&mut self) -> Result<Option<Streamed>, Error> {
        match std::mem::replace(&mut self.stream, Stream::Failed) {
            Stream::NotBegun => Ok(None),
            Stream::Working(handle) => handle.await.map_err(|_| Error::Busy)?.map(Some),
            Stream::Failed => Err(Error::Busy),
        }
    }

    async fn finish_stream(&mut self) -> Result<Put, Error> {
        let streamed = self.settle().await?.ok_or(Error::Busy)?;
        let expect = self.expect;
        let put = crossing(move || {
            let expect_id: Option<BlobId> = match (expect, streamed.sha256) {
                (Some(BlobAddress::Sha256(expected)), Some(sha256)) => {
                    compare_sha256(expected, sha256.finish().as_ref())?;
                    None
                }
                (Some(BlobAddress::Blake3(id)), _) => Some(id),
                (Some(BlobAddress::Sha256(_)) | None, _) => None,
            };
            streamed.incoming.finish(expect_id)
        })
        .await?;
        if put.fresh {
            self.store.announce(Change::Added(Stat {
                id: put.id,
                len: put.len,
                class: self.class,
            }));
        }
        Ok(put)
    }
}

fn compare(expected: BlobId, actual: BlobId) -> Result<(), Error> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::Mismatch {
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}

fn compare_sha256(expected: Sha256Id, actual: &[u8]) -> Result<(), Error> {
    if expected.as_bytes() == actual {
        return Ok(());
    }
    let actual = Sha256Id::from_bytes(actual.try_into().expect("SHA-256 has 32 bytes"));
    Err(Error::Mismatch {
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}
