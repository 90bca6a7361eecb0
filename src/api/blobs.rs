//! `/blobs`: bytes by their digest.
//!
//! A blob never changes, so its id is its tag and caches may keep it for good. What a client puts is pinned
//! unless `Refuge-Class: part` says that something else will name it.

mod batch;
mod list;

use std::str::FromStr;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) use batch::{BatchBody, put_many};
pub(super) use list::{PageBody, list};

use super::answer::{self, Source};
use super::error::Error;
use super::range::{self, Selected};
use super::route::Call;
use crate::id::{BlobAddress, BlobId, StoreName};
use crate::node::{self, Blobs, Class, Kind, Put, Reading, Stat};

/// Says who keeps a blob alive: `part` or `pinned`.
pub(super) const CLASS_HEADER: HeaderName = HeaderName::from_static("refuge-class");

/// Who may keep what: the client, for as long as it likes, as the bytes of an id never change.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// What a put did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PutBody {
    /// The id of the bytes.
    #[schema(value_type = String, example = "blake3;af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")]
    id: BlobId,
    /// Their length in bytes.
    len: u64,
    /// Whether the node did not have them before.
    fresh: bool,
}

impl From<Put> for PutBody {
    fn from(put: Put) -> PutBody {
        PutBody {
            id: put.id,
            len: put.len,
            fresh: put.fresh,
        }
    }
}

/// What is known of a blob.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatBody {
    /// Its id.
    #[schema(value_type = String)]
    id: BlobId,
    /// Its length in bytes.
    len: u64,
    /// `part` or `pinned`.
    class: &'static str,
}

impl From<Stat> for StatBody {
    fn from(stat: Stat) -> StatBody {
        StatBody {
            id: stat.id,
            len: stat.len,
            class: class_name(stat.class),
        }
    }
}

/// Ids, at most 10,000.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdsBody {
    ids: Vec<String>,
}

impl IdsBody {
    fn addresses(&self) -> Result<Vec<BlobAddress>, Error> {
        self.ids.iter().map(|id| Ok(id.parse()?)).collect()
    }
}

/// What is known of each id, in the order asked; `null` for what is not stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatsBody {
    blobs: Vec<Option<StatBody>>,
}

/// Of each id, in the order asked, whether it was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeletedBody {
    deleted: Vec<bool>,
}

impl Call {
    /// The blobs of the store that the path names, or of the main one.
    pub(super) fn blobs(&self) -> Result<Blobs, Error> {
        Ok(self.node().stores().get(&self.store()?)?)
    }

    /// The store that the path names, or the main one.
    pub(super) fn store(&self) -> Result<StoreName, Error> {
        match self.param("store") {
            "" => Ok(StoreName::main()),
            name => Ok(StoreName::from_str(name)?),
        }
    }
}

/// PUT of a known id, verified.
pub(super) async fn put(mut call: Call) -> Result<Response, Error> {
    let address: BlobAddress = call.param("id").parse()?;
    receive(&mut call, Some(address)).await
}

/// POST of bytes whose id the node tells.
pub(super) async fn post(mut call: Call) -> Result<Response, Error> {
    receive(&mut call, None).await
}

async fn receive(call: &mut Call, expect: Option<BlobAddress>) -> Result<Response, Error> {
    let class = class_of(call.headers())?;
    let mut receiver = call.blobs()?.receive(class, expect)?;
    let mut body = call.take_body();
    while let Some(bytes) = body.next().await? {
        receiver.write(bytes).await?;
    }
    let put = receiver.finish().await?;
    let status = if put.fresh {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = answer::json(status, &PutBody::from(put));
    response.headers_mut().insert(header::ETAG, etag(put.id));
    Ok(response)
}

/// GET and HEAD, with ranges and conditions.
pub(super) async fn get(call: Call) -> Result<Response, Error> {
    let address: BlobAddress = call.param("id").parse()?;
    let blobs = call.blobs()?;
    let id = blobs.resolve(address).await?;
    if call.parts.method == Method::HEAD {
        let stat = blobs.stat(vec![id]).await?.pop().flatten();
        let stat = stat.ok_or_else(|| Error::missing(Kind::Blob, address))?;
        let mut response = Response::new(Body::empty());
        describe(response.headers_mut(), &stat, address);
        set_length(response.headers_mut(), stat.len);
        return Ok(response);
    }
    let reading = blobs.get(id).await?;
    let stat = reading.stat();
    let mut response = send(call.headers(), &etag_text(id), stat.len, reading).await?;
    describe(response.headers_mut(), &stat, address);
    Ok(response)
}

/// Bytes that can be read from anywhere: a blob, or a file of a tree.
pub(super) trait Readable: Send + Unpin + 'static {
    /// Verified bytes from `offset` on, empty at the end.
    fn read_at(&mut self, offset: u64) -> impl Future<Output = Result<Bytes, node::Error>> + Send;
}

impl Readable for Reading {
    async fn read_at(&mut self, offset: u64) -> Result<Bytes, node::Error> {
        Reading::read_at(self, offset).await
    }
}

/// Answers with `len` bytes, or the part of them the headers ask for. The first bytes are read before the
/// answer begins, so that damage there is an error and no cut answer.
pub(super) async fn send(
    headers: &HeaderMap,
    etag: &str,
    len: u64,
    mut readable: impl Readable,
) -> Result<Response, Error> {
    if range::has_already(headers, etag) {
        return Ok(answer::empty(StatusCode::NOT_MODIFIED));
    }
    let (status, start, part_len) = match range::select(headers, etag, len) {
        Selected::Outside => return Err(Error::Range { len }),
        Selected::Whole => (StatusCode::OK, 0, len),
        Selected::Part { start, len } => (StatusCode::PARTIAL_CONTENT, start, len),
    };
    let end = start + part_len;
    let first = cut(readable.read_at(start).await?, end - start);
    let body = if first.len() as u64 == part_len {
        Body::from(first)
    } else {
        let rest = Rest {
            readable,
            offset: start,
            end,
            first: Some(first),
        };
        answer::stream(rest, Some(part_len))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {start}-{}/{len}", end - 1))
    {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

struct Rest<R> {
    readable: R,
    offset: u64,
    end: u64,
    first: Option<Bytes>,
}

impl<R: Readable> Source for Rest<R> {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes = match self.first.take() {
            Some(first) => first,
            None if self.offset >= self.end => return Ok(None),
            None => cut(self.readable.read_at(self.offset).await?, self.end - self.offset),
        };
        self.offset += bytes.len() as u64;
        // A readable that ends early leaves the answer shorter than announced, which the client sees.
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

fn cut(mut bytes: Bytes, most: u64) -> Bytes {
    bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    bytes
}

/// DELETE of one.
pub(super) async fn delete(call: Call) -> Result<Response, Error> {
    let address: BlobAddress = call.param("id").parse()?;
    let blobs = call.blobs()?;
    let id = blobs.resolve(address).await?;
    if blobs.delete(vec![id]).await? != [true] {
        return Err(Error::missing(Kind::Blob, address));
    }
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// POST of ids: what is known of them.
pub(super) async fn stat_many(mut call: Call) -> Result<Response, Error> {
    let blobs = call.blobs()?;
    let addresses = call.take_body().json::<IdsBody>().await?.addresses()?;
    let ids = resolve(&blobs, &addresses).await?;
    let known = blobs.stat(ids.iter().flatten().copied().collect()).await?;
    let mut known = known.into_iter();
    let stats = ids.into_iter().map(|id| id.and_then(|_| known.next().flatten()));
    let body = StatsBody {
        blobs: stats.map(|stat| stat.map(StatBody::from)).collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// POST of ids: deletes them.
pub(super) async fn delete_many(mut call: Call) -> Result<Response, Error> {
    let blobs = call.blobs()?;
    let addresses = call.take_body().json::<IdsBody>().await?.addresses()?;
    let ids = resolve(&blobs, &addresses).await?;
    let gone = blobs.delete(ids.iter().flatten().copied().collect()).await?;
    let mut gone = gone.into_iter();
    let body = DeletedBody {
        deleted: ids
            .into_iter()
            .map(|id| id.and_then(|_| gone.next()).unwrap_or(false))
            .collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// The canonical ids; `None` for an alias no client used before.
async fn resolve(blobs: &Blobs, addresses: &[BlobAddress]) -> Result<Vec<Option<BlobId>>, Error> {
    let mut ids = Vec::with_capacity(addresses.len());
    for address in addresses {
        ids.push(match (address, blobs.resolve(*address).await) {
            (BlobAddress::Blake3(id), _) => Some(*id),
            (BlobAddress::Sha256(_), Ok(id)) => Some(id),
            (BlobAddress::Sha256(_), Err(node::Error::Missing { .. })) => None,
            (BlobAddress::Sha256(_), Err(error)) => return Err(error.into()),
        });
    }
    Ok(ids)
}

pub(super) fn class_of(headers: &HeaderMap) -> Result<Class, Error> {
    match headers.get(CLASS_HEADER).map(HeaderValue::as_bytes) {
        None | Some(b"pinned") => Ok(Class::Pinned),
        Some(b"part") => Ok(Class::Part),
        Some(_) => Err(Error::malformed("Refuge-Class", "is part or pinned")),
    }
}

pub(super) fn class_name(class: Class) -> &'static str {
    match class {
        Class::Part => "part",
        Class::Pinned => "pinned",
    }
}

fn describe(headers: &mut HeaderMap, stat: &Stat, address: BlobAddress) {
    answer::mark_as_content(headers, HeaderValue::from_static("attachment"));
    headers.insert(header::ETAG, etag(stat.id));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, FOREVER);
    headers.insert(CLASS_HEADER, HeaderValue::from_static(class_name(stat.class)));
    // RFC 9530 has no BLAKE3; whoever asks by SHA-256 can have it confirmed.
    if let BlobAddress::Sha256(alias) = address
        && let Ok(value) = HeaderValue::from_str(&format!("sha-256=:{}:", BASE64.encode(alias.as_bytes())))
    {
        headers.insert(HeaderName::from_static("repr-digest"), value);
    }
}

pub(super) fn set_length(headers: &mut HeaderMap, len: u64) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
}

fn etag_text(id: BlobId) -> String {
    format!("\"{id}\"")
}

pub(super) fn etag(id: BlobId) -> HeaderValue {
    HeaderValue::try_from(etag_text(id)).expect("a blob id is visible ASCII")
}
