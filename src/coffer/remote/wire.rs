//! The shapes of a node's blob API as its client sees them.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::coffer::backend::{Class, Put, Stat, Status};
use crate::coffer::error::Error;
use crate::coffer::frame::Packed;
use crate::http::{Client, Error as HttpError, Response, StatusCode};
use crate::id::BlobId;

/// Class, length and digest in front of each blob of a batch.
pub(super) const RECORD_HEAD_BYTES: usize = 1 + 4 + 32;

/// The most bytes of a JSON answer: 10,000 entries of about 150 bytes, with room.
pub(super) const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest line of a listing.
const LINE_BYTES_MAX: usize = 1024;

/// The ids a request is about.
#[derive(Serialize)]
pub(super) struct Ids<'a> {
    pub(super) ids: &'a [BlobId],
}

/// The answer to `_stat`, in the order asked.
#[derive(Deserialize)]
pub(super) struct Stats {
    pub(super) blobs: Vec<Option<StatLine>>,
}

/// A blob as `_stat` and listings tell of it.
#[derive(Deserialize)]
pub(super) struct StatLine {
    id: BlobId,
    len: u64,
    #[serde(default)]
    class: ClassText,
}

/// A listing leaves `pinned` out.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClassText {
    Part,
    #[default]
    Pinned,
}

/// The answer to a put.
#[derive(Deserialize)]
pub(super) struct PutAnswer {
    pub(super) id: BlobId,
    pub(super) len: u64,
    fresh: bool,
}

/// The answer to `_batch`, in the order sent.
#[derive(Deserialize)]
pub(super) struct BatchAnswer {
    pub(super) puts: Vec<PutAnswer>,
}

/// The answer to `_delete`, in the order asked: whether each was there.
#[derive(Deserialize)]
pub(super) struct Deleted {
    pub(super) deleted: Vec<bool>,
}

/// The answer to a question for a store.
#[derive(Deserialize)]
pub(super) struct StoreAnswer {
    pub(super) status: StoreStatus,
}

/// How a store is, as its node tells.
#[derive(Deserialize)]
pub(super) struct StoreStatus {
    blobs: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    dead_bytes: u64,
    #[serde(default)]
    free_bytes: Option<u64>,
    read_only: bool,
    quarantined: u64,
}

impl From<StoreStatus> for Status {
    fn from(status: StoreStatus) -> Status {
        Status {
            blobs: status.blobs,
            plain_bytes: status.plain_bytes,
            stored_bytes: status.stored_bytes,
            dead_bytes: status.dead_bytes,
            free_bytes: status.free_bytes,
            read_only: status
                .read_only
                .then(|| "the node says that an earlier write failed".to_owned()),
            quarantined: status.quarantined,
        }
    }
}

impl From<StatLine> for Stat {
    fn from(line: StatLine) -> Stat {
        Stat {
            id: line.id,
            len: line.len,
            class: match line.class {
                ClassText::Part => Class::Part,
                ClassText::Pinned => Class::Pinned,
            },
        }
    }
}

impl From<PutAnswer> for Put {
    fn from(answer: PutAnswer) -> Put {
        Put {
            id: answer.id,
            len: answer.len,
            fresh: answer.fresh,
        }
    }
}

pub(super) fn class_text(class: Class) -> &'static str {
    match class {
        Class::Part => "part",
        Class::Pinned => "pinned",
    }
}

pub(super) fn record_head(packed: &Packed) -> [u8; RECORD_HEAD_BYTES] {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[0] = match packed.class {
        Class::Part => 0,
        Class::Pinned => 1,
    };
    head[1..5].copy_from_slice(&packed.plain_len.to_le_bytes());
    head[5..].copy_from_slice(packed.id.as_bytes());
    head
}

/// What a failed request means to whoever uses the store.
pub(super) fn error(client: &Client, error: HttpError) -> Error {
    let url = client.url().to_string();
    let Some(refusal) = error.refusal() else {
        return match error {
            HttpError::Silent { .. }
            | HttpError::Unreachable { .. }
            | HttpError::Impostor { .. }
            | HttpError::Forbidden { .. }
            | HttpError::Unproven { .. }
            | HttpError::Broken { .. }
            | HttpError::Refused { .. }
            | HttpError::Unexpected { .. }
            | HttpError::Tls(_) => Error::Http(error),
        };
    };
    match refusal.status {
        StatusCode::INSUFFICIENT_STORAGE => Error::NoSpace { path: url.into() },
        StatusCode::TOO_MANY_REQUESTS => Error::Busy,
        _ => Error::Http(error),
    }
}

/// Whether a request failed because there is no such thing.
pub(super) fn is_missing(error: &HttpError) -> bool {
    error
        .refusal()
        .is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND)
}

/// Whether a request failed because whoever asks may not.
pub(super) fn is_forbidden(error: &HttpError) -> bool {
    error
        .refusal()
        .is_some_and(|refusal| refusal.status == StatusCode::FORBIDDEN)
}

/// Whether a request failed because the node found the blob damaged.
pub(super) fn is_damaged(error: &HttpError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.code == "corrupt")
}

/// What the head of an answer says of the blob it brings.
pub(super) fn described(answer: &Response, id: BlobId) -> Option<Stat> {
    Some(Stat {
        id,
        len: answer.header("content-length")?.parse().ok()?,
        class: match answer.header("refuge-class")? {
            "part" => Class::Part,
            "pinned" => Class::Pinned,
            _ => return None,
        },
    })
}

/// A listing as it arrives: one JSON object a line, ids ascending.
pub(super) struct Lines {
    client: Client,
    answer: Response,
    buffer: BytesMut,
    last: Option<BlobId>,
    ended: bool,
}

impl Lines {
    pub(super) fn new(client: Client, answer: Response, after: Option<BlobId>) -> Lines {
        Lines {
            client,
            answer,
            buffer: BytesMut::new(),
            last: after,
            ended: false,
        }
    }

    fn garbled(&self) -> Error {
        Error::Remote {
            reason: format!("{}: its list of blobs is not in order", self.client.url()),
        }
    }

    /// The next line without its end; `None` at the end of the listing.
    fn line(&mut self) -> Result<Option<Bytes>, Error> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + at + 1).freeze();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                return Err(self.garbled());
            }
            match self.answer.chunk() {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                // A line without its end was cut off.
                Ok(None) if searched > 0 => return Err(self.garbled()),
                Ok(None) => return Ok(None),
                Err(failed) => return Err(error(&self.client, failed)),
            }
        }
    }

    fn stat(&mut self) -> Result<Option<Stat>, Error> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        let stat: StatLine = serde_json::from_slice(&line).map_err(|_| self.garbled())?;
        if self.last.is_some_and(|last| last >= stat.id) {
            return Err(self.garbled());
        }
        self.last = Some(stat.id);
        Ok(Some(stat.into()))
    }
}

impl Iterator for Lines {
    type Item = Result<Stat, Error>;

    fn next(&mut self) -> Option<Result<Stat, Error>> {
        if self.ended {
            return None;
        }
        let stat = self.stat().transpose();
        self.ended = !matches!(stat, Some(Ok(_)));
        stat
    }
}
