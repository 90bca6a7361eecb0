//! Bodies both ways, a piece at a time: what is sent comes through a bounded channel, what is received is asked for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::{Error, Refusal, innermost};

/// A body in which nothing moves for so long has lost its other end.
pub(super) const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of a refusal that are read: a sentence, or a page of missing ids.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Waits on this thread for what happens on the runtime; `None` after `time`.
pub(super) fn wait<T>(runtime: &Handle, time: Duration, what: impl Future<Output = T>) -> Option<T> {
    // A timer can only be made inside of a runtime.
    runtime.block_on(async { timeout(time, what).await.ok() })
}

/// The body of a request.
pub(super) enum Outgoing {
    /// All of it at once.
    Whole(Option<Bytes>),
    /// In pieces, as they come.
    Streamed {
        pieces: mpsc::Receiver<Piece>,
        /// Bytes still to come, where the length was told beforehand.
        left: Option<u64>,
        ended: bool,
    },
}

/// A piece of a streamed body.
pub(super) enum Piece {
    /// Its next bytes.
    Bytes(Bytes),
    /// Its proper end. A channel that closes without it was given up, and the node must not take it as whole.
    End,
}

/// The sender gave up on the body.
#[derive(Debug, thiserror::Error)]
#[error("the upload was given up")]
pub(super) struct GivenUp;

impl Body for Outgoing {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        match self.get_mut() {
            Outgoing::Whole(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Outgoing::Streamed { ended: true, .. } => Poll::Ready(None),
            Outgoing::Streamed { pieces, left, ended } => {
                match std::task::ready!(pieces.poll_recv(context)) {
                    Some(Piece::Bytes(bytes)) => {
                        if let Some(left) = left {
                            *left = left.saturating_sub(bytes.len() as u64);
                        }
                        Poll::Ready(Some(Ok(Frame::data(bytes))))
                    }
                    Some(Piece::End) => {
                        *ended = true;
                        Poll::Ready(None)
                    }
                    None => {
                        *ended = true;
                        Poll::Ready(Some(Err(GivenUp)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Outgoing::Streamed { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
            }
            Outgoing::Streamed { left: Some(left), .. } => SizeHint::with_exact(*left),
            Outgoing::Streamed { left: None, .. } => SizeHint::default(),
        }
    }
}

/// A node's answer: its head is here, its body is read as it is asked for.
pub struct Response {
    pub(super) url: String,
    pub(super) runtime: Handle,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
}

impl Response {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// A header's value, where it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// [`Error::Broken`] and [`Error::Silent`].
    pub fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.next_chunk())
    }

    /// As [`Response::chunk`], for async code; may be cancelled.
    ///
    /// # Errors
    /// As [`Response::chunk`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.next_chunk().await
    }

    /// As [`Response::bytes`], for async code; may be cancelled.
    ///
    /// # Errors
    /// As [`Response::bytes`].
    pub async fn whole(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        self.collect(limit).await
    }

    /// The whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where it is longer, and as [`Response::chunk`].
    pub fn bytes(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.collect(limit))
    }

    /// The whole body as JSON, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where it is longer or another shape, and as [`Response::chunk`].
    pub fn json<T: DeserializeOwned>(self, limit: usize) -> Result<T, Error> {
        let url = self.url.clone();
        let bytes = self.bytes(limit)?;
        serde_json::from_slice(&bytes).map_err(|_| Error::Unexpected {
            url,
            what: "another JSON",
        })
    }

    /// This answer where it is a success.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the node said.
    pub(super) async fn succeeded(mut self) -> Result<Response, Error> {
        if self.status.is_success() {
            return Ok(self);
        }
        // A refusal whose explanation cannot be read is a refusal all the same.
        let body = self.collect(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let location = self.header("location").map(str::to_owned);
        Err(Error::Refused {
            refusal: Box::new(Refusal::new(self.status, location, body)),
            url: self.url,
        })
    }

    async fn collect(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next_chunk().await? {
            if bytes.len() + chunk.len() > limit {
                return Err(Error::Unexpected {
                    url: self.url.clone(),
                    what: "a longer answer than it may be",
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(BODY_IDLE_TIMEOUT, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::Silent {
                url: self.url.clone(),
                patience: BODY_IDLE_TIMEOUT,
            })?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(error)) => {
                    return Err(Error::Broken {
                        url: self.url.clone(),
                        reason: innermost(&error),
                    });
                }
            }
        }
    }
}
