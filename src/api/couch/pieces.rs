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
use crate::node::{Blobs, Reading, Unpacking};

/// Bytes of a group of base64.
const GROUP: usize = 3;

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
    bytes: Opened,
    encode: bool,
    /// What is too short to encode yet.
    left: Vec<u8>,
}

/// The bytes of a blob as they are sent.
enum Opened {
    AsKept { reading: Reading, offset: u64 },
    Unpacked(Unpacking),
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
            let reading = self.blobs.get(blob).await?;
            self.open = Some(Open {
                bytes: match form.unpacked {
                    true => Opened::Unpacked(Unpacking::new(reading)),
                    false => Opened::AsKept { reading, offset: 0 },
                },
                encode: form.base64,
                left: Vec::new(),
            });
        }
    }
}

impl Open {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes = self.bytes.next().await?;
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

impl Opened {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Bytes, Error> {
        Ok(match self {
            Opened::AsKept { reading, offset } => {
                let bytes = reading.read_at(*offset).await?;
                *offset += bytes.len() as u64;
                bytes
            }
            Opened::Unpacked(unpacking) => unpacking.next().await?,
        })
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
