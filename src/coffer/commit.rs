//! Group commit: one thread appends whatever waits, flushes once, answers all.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::backend::{Backend, Put};
use super::error::Error;
use super::frame::Packed;
use crate::id::BlobId;

/// Stored bytes that may wait for a flush: what a slow card makes us hold in memory at most.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Blobs that may wait for a flush.
const WAITING_BLOBS_MAX: usize = 4096;

/// How long a put waits for its place before it is told to come back.
const PLACE_TIMEOUT: Duration = Duration::from_secs(20);

/// Stored bytes of one group: enough to make a flush worth it, little enough to answer soon.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often in a row the thread gives the processor away for requests that are likely to come, before it closes
/// a group without them: some tens of microseconds. Larger groups are fewer flushes, and each costs the card.
const YIELDS_FOR_EXPECTED: usize = 128;

/// The same once the group is as large as the last ones were: what was already being read joins it, and an idle
/// store loses next to nothing.
const YIELDS_FOR_MORE: usize = 4;

/// Groups whose sizes tell how many requests to expect.
const GROUPS_REMEMBERED: usize = 16;

/// The queue in front of a backend's commit thread.
pub(super) struct Queue {
    /// `None` only in `drop`.
    sender: Option<mpsc::Sender<Waiting>>,
    places: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

struct Waiting {
    packed: Packed,
    answer: oneshot::Sender<Result<Put, Error>>,
    _place: OwnedSemaphorePermit,
}

impl Queue {
    /// Starts the commit thread of `backend`.
    ///
    /// # Errors
    /// [`Error::Busy`] where the operating system has no thread to give.
    pub(super) fn start(backend: Arc<dyn Backend>) -> Result<Queue, Error> {
        let (sender, receiver) = mpsc::channel(WAITING_BLOBS_MAX);
        let thread = thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || run(&*backend, receiver))
            .map_err(|_| Error::Busy)?;
        let places = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        Ok(Queue {
            sender: Some(sender),
            places,
            thread: Some(thread),
        })
    }

    /// Stores one blob; durable on return.
    ///
    /// # Errors
    /// [`Error::Busy`] where no place came free in time, and as the backend says.
    pub(super) async fn commit(&self, packed: Packed) -> Result<Put, Error> {
        let size =
            u32::try_from(packed.stored_len().max(1)).map_err(|_| Error::TooLarge { len: packed.len() })?;
        let place = timeout(PLACE_TIMEOUT, Arc::clone(&self.places).acquire_many_owned(size));
        let place = place.await.map_err(|_| Error::Busy)?.map_err(|_| Error::Busy)?;
        let (answer, answered) = oneshot::channel();
        let sender = self.sender.as_ref().ok_or(Error::Busy)?;
        sender
            .send(Waiting {
                packed,
                answer,
                _place: place,
            })
            .await
            .map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Busy)?
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends when the queue is drained; it holds no lock and waits for no one.
            if thread.join().is_err() {
                tracing::error!("the commit thread ended in a panic");
            }
        }
    }
}

fn run(backend: &dyn Backend, mut receiver: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    let mut sizes = Sizes::default();
    while let Some(first) = receiver.blocking_recv() {
        gather(first, &mut receiver, &mut group, sizes.largest());
        sizes.note(group.len());
        let (batch, answers): (Vec<Packed>, Vec<_>) = group
            .drain(..)
            .map(|waiting: Waiting| (waiting.packed, (waiting.answer, waiting._place)))
            .unzip();
        match store(backend, &batch) {
            Ok(puts) => {
                for ((answer, _place), put) in answers.into_iter().zip(puts) {
                    // Who went away meanwhile has its blob stored all the same.
                    let _ = answer.send(Ok(put));
                }
            }
            Err(error) => {
                let mut answers = answers.into_iter();
                // Most groups are of one blob: its sender hears the failure itself.
                let first = answers.next();
                for (answer, _place) in answers {
                    let _ = answer.send(Err(again(&error)));
                }
                if let Some((answer, _place)) = first {
                    let _ = answer.send(Err(error));
                }
            }
        }
    }
}

/// Stores a group; durable on return.
///
/// # Errors
/// As [`Backend::append`] and [`Backend::flush`]. [`Error::Busy`] where a blob that was there was set aside before the
/// flush, being damaged, or deleted: put again, it is stored.
pub(super) fn store(backend: &dyn Backend, batch: &[Packed]) -> Result<Vec<Put>, Error> {
    let puts = backend.append(batch)?;
    backend.flush()?;
    let there: Vec<BlobId> = puts.iter().filter(|put| !put.fresh).map(|put| put.id).collect();
    if !there.is_empty() && backend.stat(&there)?.contains(&None) {
        return Err(Error::Busy);
    }
    Ok(puts)
}

/// Blobs of the last groups: as many clients as put at once are likely to do so again.
#[derive(Default)]
struct Sizes {
    last: [usize; GROUPS_REMEMBERED],
    next: usize,
}

impl Sizes {
    fn note(&mut self, size: usize) {
        self.last[self.next] = size;
        self.next = (self.next + 1) % GROUPS_REMEMBERED;
    }

    fn largest(&self) -> usize {
        self.last.into_iter().max().unwrap_or(0)
    }
}

/// Takes what waits, and what comes while the processor is given away; more patiently up to `expected` blobs.
fn gather(first: Waiting, receiver: &mut mpsc::Receiver<Waiting>, group: &mut Vec<Waiting>, expected: usize) {
    let mut bytes = first.packed.body.bytes.len();
    group.push(first);
    let mut yields = 0;
    while bytes < GROUP_BYTES_MAX {
        let patience = if group.len() < expected {
            YIELDS_FOR_EXPECTED
        } else {
            YIELDS_FOR_MORE
        };
        match receiver.try_recv() {
            Ok(waiting) => {
                bytes += waiting.packed.body.bytes.len();
                group.push(waiting);
                yields = 0;
            }
            Err(TryRecvError::Empty) if yields < patience => {
                yields += 1;
                thread::yield_now();
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
        }
    }
}

/// The same failure for each of a group; `io::Error` does not clone.
fn again(error: &Error) -> Error {
    match error {
        Error::NoSpace { path } => Error::NoSpace { path: path.clone() },
        Error::ReadOnly { reason } => Error::ReadOnly {
            reason: reason.clone(),
        },
        Error::Busy => Error::Busy,
        Error::Http(failed) => Error::Remote {
            reason: failed.to_string(),
        },
        other => Error::ReadOnly {
            reason: other.to_string(),
        },
    }
}
