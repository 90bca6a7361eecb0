//! `POST /blobs/_batch`: many small blobs in one request, so that a backup over a slow line does not wait for
//! an answer to each.
//!
//! The body is a sequence of records, numbers little-endian:
//!
//! ```text
//! offset  length  what
//! 0       1       class: 0 part, 1 pinned
//! 1       4       length of the bytes
//! 5       32      their BLAKE3 digest
//! 37      length  the bytes, plain
//! ```
//!
//! The answer comes when all of them are durable. If one is refused, the request fails and names it; those
//! before it may be stored, which does no harm.

use std::collections::VecDeque;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::PutBody;
use crate::api::answer;
use crate::api::body::Incoming;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::{BlobAddress, BlobId};
use crate::node::{self, Blobs, Class, Put};

/// Bytes before those of a record.
const RECORD_HEAD_BYTES: usize = 37;

/// The most one request may carry.
const BATCH_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The longest single record: what is larger is put by itself.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one request that wait for the disk at most, besides one record.
const UNDER_WAY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What became of each record, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct BatchBody {
    puts: Vec<PutBody>,
}

/// Stores the records of the body.
pub(in crate::api) async fn put_many(mut call: Call) -> Result<Response, Error> {
    let mut under_way = UnderWay {
        blobs: call.blobs()?,
        puts: VecDeque::new(),
        bytes: 0,
        done: Vec::new(),
    };
    let mut records = Records {
        body: call.take_body(),
        held: BytesMut::new(),
        taken_bytes: 0,
    };
    while let Some(record) = records.next().await? {
        under_way.begin(record).await?;
    }
    let body = BatchBody {
        puts: under_way.finish().await?,
    };
    Ok(answer::json(StatusCode::OK, &body))
}

struct Record {
    class: Class,
    id: BlobId,
    bytes: Bytes,
}

struct Records {
    body: Incoming,
    held: BytesMut,
    taken_bytes: u64,
}

impl Records {
    async fn next(&mut self) -> Result<Option<Record>, Error> {
        if !self.fill(RECORD_HEAD_BYTES).await? {
            return if self.held.is_empty() {
                Ok(None)
            } else {
                Err(Error::BodyCut)
            };
        }
        let mut head = self.held.split_to(RECORD_HEAD_BYTES);
        let class = match head.get_u8() {
            0 => Class::Part,
            1 => Class::Pinned,
            other => return Err(Error::malformed("class", format!("is 0 or 1, not {other}"))),
        };
        let len = head.get_u32_le() as usize;
        let mut digest = [0; 32];
        head.copy_to_slice(&mut digest);
        if len > RECORD_BYTES_MAX {
            return Err(Error::BodyTooLarge {
                limit: RECORD_BYTES_MAX as u64,
            });
        }
        if !self.fill(len).await? {
            return Err(Error::BodyCut);
        }
        Ok(Some(Record {
            class,
            id: BlobId::from_bytes(digest),
            bytes: self.held.split_to(len).freeze(),
        }))
    }

    /// Reads until `len` bytes are held; false where the body ends before.
    async fn fill(&mut self, len: usize) -> Result<bool, Error> {
        while self.held.len() < len {
            let Some(bytes) = self.body.next().await? else {
                return Ok(false);
            };
            self.taken_bytes += bytes.len() as u64;
            if self.taken_bytes > BATCH_BYTES_MAX {
                return Err(Error::BodyTooLarge {
                    limit: BATCH_BYTES_MAX,
                });
            }
            self.held.extend_from_slice(&bytes);
        }
        Ok(true)
    }
}

struct UnderWay {
    blobs: Blobs,
    /// Oldest first: answers keep the order of the records.
    puts: VecDeque<(usize, OwnedTask)>,
    bytes: usize,
    done: Vec<PutBody>,
}

/// A task that ends with whoever waits for it.
struct OwnedTask(JoinHandle<Result<Put, node::Error>>);

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl UnderWay {
    async fn begin(&mut self, record: Record) -> Result<(), Error> {
        while self.bytes > UNDER_WAY_BYTES_MAX {
            self.finish_oldest().await?;
        }
        let len = record.bytes.len();
        let blobs = self.blobs.clone();
        let put = async move {
            let expect = BlobAddress::Blake3(record.id);
            blobs.put(record.bytes, record.class, Some(expect)).await
        };
        self.bytes += len;
        self.puts.push_back((len, OwnedTask(tokio::spawn(put))));
        Ok(())
    }

    async fn finish_oldest(&mut self) -> Result<(), Error> {
        if let Some((len, mut task)) = self.puts.pop_front() {
            // A task only fails to answer when the runtime ends.
            let put = (&mut task.0).await.unwrap_or(Err(node::Error::Busy))?;
            self.bytes -= len;
            self.done.push(put.into());
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<PutBody>, Error> {
        while !self.puts.is_empty() {
            self.finish_oldest().await?;
        }
        Ok(self.done)
    }
}
