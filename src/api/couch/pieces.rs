//! Answers that are text with attachments in between, sent as they are read: none is ever held whole.

use std::collections::VecDeque;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use data_encoding::BASE64;

use crate::api::answer::{self, Source};
use crate::api::error::Error;
use crate::id::BlobId;
use crate::node::{self, Blobs, Gunzip, Reading};

/// Bytes of a group of base64.
const GROUP: usize = 3;

/// Bytes that are unpacked at once: of each may come a thousand.
const PACKED_BYTES: usize = 1024;

/// Bytes that come out before they are sent.
const UNPACKED_BYTES: usize = 64 * 1024;

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The bytes of a blob.
    Blob(BlobId, Form),
}

/// How the bytes of a blob are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// What comes out of it, which is gzip.
    pub(super) unpacked: bool,
    /// As base64.
    pub(super) base64: bool,
}

/// An answer being written.
#[derive(Debug, Default)]
pub(super) struct Pieces(VecDeque<Piece>);

impl Pieces {
    /// Adds text.
    pub(super) fn push(&mut self, text: &str) {
        match self.0.back_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push_back(Piece::Text(text.to_owned())),
        }
    }

    /// Adds the JSON of a string.
    pub(super) fn push_json_text(&mut self, text: &str) {
        self.push(&json_text(text));
    }

    /// Adds the bytes of a blob.
    pub(super) fn push_blob(&mut self, blob: BlobId, form: Form) {
        self.0.push_back(Piece::Blob(blob, form));
    }

    pub(super) fn append(&mut self, mut other: Pieces) {
        self.0.append(&mut other.0);
    }

    /// An answer of this media type: with its length where it is text alone, else streamed from `blobs`.
    pub(super) fn answer(mut self, status: StatusCode, media_type: &str, blobs: &Blobs) -> Response {
        let body = match (self.0.pop_front(), self.0.is_empty()) {
            (None, _) => Body::empty(),
            (Some(Piece::Text(text)), true) => Body::from(text),
            (Some(first), _) => {
                self.0.push_front(first);
                answer::stream(Sending::new(self, blobs.clone()), None)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if let Ok(media_type) = HeaderValue::from_str(media_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        }
        response
    }
}

/// The JSON of a string.
pub(super) fn json_text(text: &str) -> String {
    serde_json::to_string(text).expect("every string is JSON")
}

/// Pieces on their way out.
pub(super) struct Sending {
    pieces: Pieces,
    blobs: Blobs,
    open: Option<Open>,
}

/// A blob being sent.
struct Open {
    reading: Reading,
    offset: u64,
    gunzip: Option<Gunzip>,
    /// What was read and not unpacked yet.
    packed: Bytes,
    encode: bool,
    /// What is too short to encode yet.
    left: Vec<u8>,
}

impl Sending {
    pub(super) fn new(pieces: Pieces, blobs: Blobs) -> Sending {
        Sending {
            pieces,
            blobs,
            open: None,
        }
    }

    /// Goes on with these.
    pub(super) fn add(&mut self, pieces: Pieces) {
        self.pieces.append(pieces);
    }
}

impl Source for Sending {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(open) = &mut self.open {
                match open.next().await? {
                    Some(bytes) if bytes.is_empty() => continue,
                    Some(bytes) => return Ok(Some(bytes)),
                    None => self.open = None,
                }
            }
            let (blob, form) = match self.pieces.0.pop_front() {
                None => return Ok(None),
                Some(Piece::Text(text)) => return Ok(Some(Bytes::from(text))),
                Some(Piece::Blob(blob, form)) => (blob, form),
            };
            self.open = Some(Open {
                reading: self.blobs.get(blob).await?,
                offset: 0,
                gunzip: form.unpacked.then(Gunzip::default),
                packed: Bytes::new(),
                encode: form.base64,
                left: Vec::new(),
            });
        }
    }
}

impl Open {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes = match self.gunzip.is_some() {
            true => self.unpacked().await?,
            false => self.read().await?,
        };
        if !self.encode {
            return Ok(Some(bytes).filter(|bytes| !bytes.is_empty()));
        }
        if bytes.is_empty() {
            let last = std::mem::take(&mut self.left);
            return Ok((!last.is_empty()).then(|| Bytes::from(BASE64.encode(&last))));
        }
        self.left.extend_from_slice(&bytes);
        let tail = self.left.split_off(self.left.len() - self.left.len() % GROUP);
        let whole = std::mem::replace(&mut self.left, tail);
        Ok(Some(Bytes::from(BASE64.encode(&whole))))
    }
}

impl Open {
    async fn read(&mut self) -> Result<Bytes, Error> {
        let bytes = self.reading.read_at(self.offset).await?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }

    /// The next bytes that come out; none at the end.
    async fn unpacked(&mut self) -> Result<Bytes, Error> {
        let mut out = Vec::new();
        loop {
            if self.packed.is_empty() {
                self.packed = self.read().await?;
            }
            let Some(gunzip) = &mut self.gunzip else {
                return Ok(out.into());
            };
            if self.packed.is_empty() {
                return Ok(out.into());
            }
            let piece = self.packed.split_to(PACKED_BYTES.min(self.packed.len()));
            let unpacked = gunzip.push(&piece, &mut |bytes| out.extend_from_slice(bytes));
            // It was unpacked once when it came in, and every read is compared with its digest.
            unpacked.map_err(|error| node::Error::Invalid {
                what: "attachment",
                reason: error.to_string(),
            })?;
            if out.len() >= UNPACKED_BYTES {
                return Ok(out.into());
            }
        }
    }
}

/// Where the pages of a long answer come from.
pub(super) trait Pages: Send + Unpin + 'static {
    /// The next page; `None` at the end. Not called again after that.
    ///
    /// # Errors
    /// The answer is cut.
    fn page(&mut self) -> impl Future<Output = Result<Option<Pieces>, Error>> + Send;
}

/// An answer of many pages: one is held at a time.
pub(super) struct Paged<P> {
    pages: P,
    sending: Sending,
}

impl<P: Pages> Paged<P> {
    pub(super) fn new(pages: P, blobs: Blobs) -> Paged<P> {
        Paged {
            pages,
            sending: Sending::new(Pieces::default(), blobs),
        }
    }
}

impl<P: Pages> Source for Paged<P> {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(bytes) = self.sending.next().await? {
                return Ok(Some(bytes));
            }
            match self.pages.page().await? {
                Some(page) => self.sending.add(page),
                None => return Ok(None),
            }
        }
    }
}
