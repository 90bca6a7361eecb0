//! `/uploads`: resumable uploads by the tus protocol, version 1.0.0 (<https://tus.io/protocols/resumable-upload>).
//!
//! Core and the extensions creation, creation-with-upload, creation-defer-length, expiration, checksum,
//! termination and concatenation. A complete upload is a pinned blob of the store that `?store=` named when it
//! was made; its id comes back in `Refuge-Blob`. With `?id=` the bytes must have that id.

mod headers;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use self::headers::{Concat, PieceChecksum};
use super::answer;
use super::body::Incoming;
use super::error::Error;
use super::route::Call;
use crate::id::{StoreName, UploadId};
use crate::node::{Kind, NewUpload, UPLOADS_BYTES_MAX, UploadInfo};

const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue = HeaderValue::from_static(
    "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation",
);

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const REFUGE_BLOB: HeaderName = HeaderName::from_static("refuge-blob");

/// What the node speaks.
pub(super) async fn discover(_call: Call) -> Result<Response, Error> {
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(TUS_RESUMABLE, VERSION);
    headers.insert(TUS_VERSION, VERSION);
    headers.insert(TUS_EXTENSION, EXTENSIONS);
    headers.insert(TUS_MAX_SIZE, HeaderValue::from(UPLOADS_BYTES_MAX));
    headers.insert(
        TUS_CHECKSUM_ALGORITHM,
        HeaderValue::from_static(headers::CHECKSUM_ALGORITHMS),
    );
    Ok(response)
}

/// Begins an upload, with its first piece where the body has one; or puts parts together.
pub(super) async fn create(call: Call) -> Result<Response, Error> {
    spoken(call, async |call| begin(call).await).await
}

/// How far an upload is.
pub(super) async fn head(call: Call) -> Result<Response, Error> {
    spoken(call, async |call| {
        let info = call.node().uploads().info(upload_id(&call)?).await?;
        let mut response = answer::empty(StatusCode::OK);
        describe(response.headers_mut(), &info);
        Ok(response)
    })
    .await
}

/// Goes on with an upload.
pub(super) async fn patch(call: Call) -> Result<Response, Error> {
    spoken(call, async |call| go_on(call).await).await
}

/// Ends an upload.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    spoken(call, async |call| end(call).await).await
}

/// For clients behind something that lets only POST through: the method stands in a header.
pub(super) async fn overridden(call: Call) -> Result<Response, Error> {
    spoken(call, async |call| match call.header("x-http-method-override") {
        Some("PATCH") => go_on(call).await,
        Some("DELETE") => end(call).await,
        _ => Err(Error::Method(vec!["DELETE", "HEAD", "PATCH"])),
    })
    .await
}

/// Checks that the client speaks our version, and says in every answer that we do.
async fn spoken(
    call: Call,
    answer: impl AsyncFnOnce(Call) -> Result<Response, Error>,
) -> Result<Response, Error> {
    let answered = if call.header("tus-resumable") == Some("1.0.0") {
        answer(call).await
    } else {
        Err(Error::TusVersion)
    };
    let mut response = answered.unwrap_or_else(Error::into_response);
    response.headers_mut().insert(TUS_RESUMABLE, VERSION);
    Ok(response)
}

async fn begin(mut call: Call) -> Result<Response, Error> {
    let query = call.query()?;
    let concat = headers::concat(call.headers())?;
    let new = NewUpload {
        store: query.parsed("store")?.unwrap_or_else(StoreName::main),
        length: headers::number(call.headers(), &UPLOAD_LENGTH)?,
        metadata: headers::metadata(call.headers())?,
        expect: query.parsed("id")?,
        partial: matches!(concat, Some(Concat::Partial)),
    };
    let deferred = headers::defers_length(call.headers())?;
    let mut info = match concat {
        Some(Concat::Final(parts)) if new.length.is_none() && !deferred => {
            call.node().uploads().concatenate(parts, new).await?
        }
        Some(Concat::Partial) | None if new.length.is_some() != deferred => {
            call.node().uploads().create(new).await?
        }
        Some(Concat::Final(_)) => {
            return Err(Error::malformed(
                "Upload-Length",
                "is not for what is put together",
            ));
        }
        Some(Concat::Partial) | None => {
            return Err(Error::malformed(
                "Upload-Length",
                "is a number of bytes, or is deferred by Upload-Defer-Length: 1",
            ));
        }
    };
    let mut response = answer::empty(StatusCode::CREATED);
    if call.parts.headers.contains_key(header::CONTENT_TYPE) {
        // The piece that came along failing does not undo what was made: the client goes on by HEAD and PATCH.
        let checksum = headers::checksum(call.headers())?;
        info = append(&call.edge.node.clone(), info, call.take_body(), checksum).await?;
        response
            .headers_mut()
            .insert(UPLOAD_OFFSET, HeaderValue::from(info.offset));
    }
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/uploads/{}", info.id)) {
        headers.insert(header::LOCATION, location);
    }
    set_expiry_and_blob(headers, &info);
    Ok(response)
}

async fn go_on(mut call: Call) -> Result<Response, Error> {
    let id = upload_id(&call)?;
    let offset = headers::number(call.headers(), &UPLOAD_OFFSET)?
        .ok_or_else(|| Error::malformed("Upload-Offset", "is missing"))?;
    let checksum = headers::checksum(call.headers())?;
    let node = call.node().clone();
    let mut info = node.uploads().info(id).await?;
    if !info.parts.is_empty() {
        return Err(Error::FinalUpload);
    }
    if let Some(length) = headers::number(call.headers(), &UPLOAD_LENGTH)? {
        info = node.uploads().declare_length(id, length).await?;
    }
    if info.offset != offset {
        return Err(crate::node::Error::Offset {
            expected: info.offset,
            found: offset,
        }
        .into());
    }
    let info = append(&node, info, call.take_body(), checksum).await?;
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(info.offset));
    set_expiry_and_blob(headers, &info);
    Ok(response)
}

async fn end(call: Call) -> Result<Response, Error> {
    call.node().uploads().remove(upload_id(&call)?).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Appends what the body has. Of a body that breaks off, what came is kept: that is what the protocol is for.
/// A piece with a checksum counts whole or not at all.
async fn append(
    node: &crate::node::Node,
    info: UploadInfo,
    mut body: Incoming,
    mut checksum: Option<PieceChecksum>,
) -> Result<UploadInfo, Error> {
    if info.blob.is_some() {
        // A client that missed the last answer comes with nothing more to say.
        return match body.next().await? {
            None => Ok(info),
            Some(_) => Err(Error::BodyTooLarge { limit: 0 }),
        };
    }
    let mut appending = node.uploads().append(info.id, info.offset).await?;
    if let (Some(room), Some(announced)) = (appending.room(), body.announced())
        && announced > room
    {
        return Err(Error::BodyTooLarge { limit: room });
    }
    let broken = loop {
        match body.next().await {
            Ok(Some(bytes)) => {
                if let Some(checksum) = &mut checksum {
                    checksum.update(&bytes);
                }
                appending.write(bytes).await?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let has_checksum = checksum.is_some();
    match (broken, checksum.is_none_or(PieceChecksum::fits)) {
        (None, false) => Err(Error::Checksum),
        (None, true) => Ok(appending.finish().await?),
        (Some(error), _) if has_checksum => Err(error),
        (Some(error), _) => {
            appending.finish().await?;
            Err(error)
        }
    }
}

fn upload_id(call: &Call) -> Result<UploadId, Error> {
    // An id that is none is the id of no upload.
    call.param("id")
        .parse()
        .map_err(|_| Error::missing(Kind::Upload, call.param("id")))
}

fn describe(headers: &mut HeaderMap, info: &UploadInfo) {
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(info.offset));
    match info.length {
        Some(length) => headers.insert(UPLOAD_LENGTH, HeaderValue::from(length)),
        None => headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    if !info.metadata.is_empty()
        && let Ok(metadata) = HeaderValue::from_str(&info.metadata)
    {
        headers.insert(UPLOAD_METADATA, metadata);
    }
    if info.partial {
        headers.insert(UPLOAD_CONCAT, HeaderValue::from_static("partial"));
    } else if let Ok(value) = HeaderValue::try_from(headers::final_of(&info.parts))
        && !info.parts.is_empty()
    {
        headers.insert(UPLOAD_CONCAT, value);
    }
    set_expiry_and_blob(headers, info);
}

fn set_expiry_and_blob(headers: &mut HeaderMap, info: &UploadInfo) {
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(info.expires)) {
        headers.insert(UPLOAD_EXPIRES, date);
    }
    if let Some(blob) = info.blob
        && let Ok(id) = HeaderValue::try_from(blob.to_string())
    {
        headers.insert(REFUGE_BLOB, id);
    }
}
