//! `/db/{db}/{doc}/{attachment}`: bytes of a document, from the coffer and into it.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use data_encoding::BASE64;

use super::document::{self, Found, Revs};
use super::fault::Fault;
use super::intake::{self, check_name};
use super::pieces::{Form, Pieces, Sending};
use super::query::Query;
use crate::api::answer;
use crate::api::blobs;
use crate::api::error::Error;
use crate::api::range;
use crate::api::route::Call;
use crate::id::{DocId, Rev};
use crate::node::{
    self, Attaching, Attachment, AttachmentEdit, Db, Doc, DocumentBody as Body, Edit, Expected,
};

/// The type of an attachment of which nobody says one.
const BYTES_TYPE: &str = "application/octet-stream";

/// GET and HEAD, with ranges.
pub(in crate::api) async fn get(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let rev = document::rev_of(&Query::of(&call)?)?;
    let is_winner = rev.is_none();
    let doc = open(&db, id, rev).await?.ok_or(Fault::Missing)?;
    if doc.deleted && is_winner {
        return Err(Fault::Deleted.into());
    }
    let attachment = doc
        .attachments
        .get(call.param("attachment"))
        .ok_or(Fault::NoAttachment)?;
    let digest = BASE64.encode(&attachment.digest);
    let etag = format!("\"{digest}\"");
    let is_packed = attachment.encoded.is_some();
    let mut response = if let Some(encoded) = &attachment.encoded {
        packed(&call, &db, &etag, attachment, encoded.decoded_length).await?
    } else if call.parts.method == Method::HEAD && !range::has_already(call.headers(), &etag) {
        let mut response = answer::empty(StatusCode::OK);
        blobs::set_length(response.headers_mut(), attachment.length);
        response
    } else {
        let reading = db.blobs().get(attachment.blob).await?;
        blobs::send(call.headers(), &etag, attachment.length, reading).await?
    };
    let headers = response.headers_mut();
    let name = call.param("attachment");
    answer::mark_as_content(
        headers,
        answer::attachment(name.rsplit('/').next().unwrap_or(name)),
    );
    if let Ok(media_type) = HeaderValue::from_str(&attachment.content_type) {
        headers.insert(header::CONTENT_TYPE, media_type);
    }
    for (name, value) in [
        (header::ETAG, &etag),
        (HeaderName::from_static("content-md5"), &digest),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    let ranges = if is_packed { "none" } else { "bytes" };
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static(ranges));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, must-revalidate"),
    );
    Ok(response)
}

/// What is kept packed: as it is for who takes that, unpacked for others; whole in either case.
async fn packed(
    call: &Call,
    db: &Db,
    etag: &str,
    attachment: &Attachment,
    decoded_length: u64,
) -> Result<Response, Error> {
    let takes_gzip = takes_gzip(call.header("accept-encoding").unwrap_or_default());
    let length = if takes_gzip {
        attachment.length
    } else {
        decoded_length
    };
    let mut response = if range::has_already(call.headers(), etag) {
        answer::empty(StatusCode::NOT_MODIFIED)
    } else if call.parts.method == Method::HEAD {
        let mut response = answer::empty(StatusCode::OK);
        blobs::set_length(response.headers_mut(), length);
        response
    } else {
        let mut bytes = Pieces::default();
        bytes.push_blob(
            attachment.blob,
            Form {
                unpacked: !takes_gzip,
                base64: false,
            },
        );
        Response::new(answer::stream(
            Sending::new(bytes, db.blobs().clone()),
            Some(length),
        ))
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if takes_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Whether an `Accept-Encoding` names gzip, and not as what is never to come (RFC 9110, 12.5.3).
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .and_then(|weight| weight.parse::<f32>().ok());
        is_gzip && weight.unwrap_or(1.0) > 0.0
    })
}

async fn open(db: &Db, id: DocId, rev: Option<Rev>) -> Result<Option<Doc>, Error> {
    let revs = rev.map_or(Revs::Winner, Revs::One);
    let opened = document::open(db, id, revs, false, false).await?;
    Ok(match opened.and_then(|opened| opened.found.into_iter().next()) {
        Some(Found::Doc(doc)) => Some(*doc),
        Some(Found::Missing(_)) | None => None,
    })
}

/// PUT: a new revision of the document with these bytes under this name; a new document where there is none.
pub(in crate::api) async fn put(mut call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let name = call.param("attachment").to_owned();
    check_name(&name)?;
    let query = Query::of(&call)?;
    let parent = document::parent_of(&call, &query)?;
    // A conflict is told before the bytes are read.
    let before = followed(&db, &id, parent.as_ref()).await?;
    let media_type = call.header("content-type").unwrap_or(BYTES_TYPE).to_owned();
    let expected = Expected {
        digest: call
            .header("content-md5")
            .and_then(|text| BASE64.decode(text.as_bytes()).ok()?.try_into().ok()),
        length: None,
    };
    let coding = intake::coding(call.header("content-encoding"))?;
    let mut attaching = Attaching::begin(db.blobs(), coding)?;
    let mut body = call.take_body();
    while let Some(bytes) = body.next().await? {
        attaching.write(bytes).await?;
    }
    let attached = attaching.finish(expected).await.map_err(|error| match error {
        node::Error::Mismatch { .. } => Fault::Digest.into(),
        error => Error::Node(error),
    })?;
    let (body, mut attachments) = kept(before);
    attachments.insert(name, intake::stored(&media_type, None, attached));
    let rev = save(&call, &db, id.clone(), parent, body, attachments).await?;
    Ok(document::saved(StatusCode::CREATED, &id, &rev))
}

/// DELETE: a new revision without it.
pub(in crate::api) async fn delete(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let query = Query::of(&call)?;
    let parent = document::parent_of(&call, &query)?;
    let before = followed(&db, &id, parent.as_ref()).await?.ok_or(Fault::Missing)?;
    let (body, mut attachments) = kept(Some(before));
    if attachments.remove(call.param("attachment")).is_none() {
        return Err(Fault::NoAttachment.into());
    }
    let rev = save(&call, &db, id.clone(), parent, body, attachments).await?;
    Ok(document::saved(StatusCode::OK, &id, &rev))
}

/// The revision that an edit follows; `None` where the document is not there.
async fn followed(db: &Db, id: &DocId, parent: Option<&Rev>) -> Result<Option<Doc>, Error> {
    let found = open(db, id.clone(), parent.cloned()).await?;
    match (found, parent) {
        (Some(doc), Some(_)) => Ok(Some(doc)),
        (Some(doc), None) if doc.deleted => Ok(None),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(Fault::Conflict.into()),
    }
}

/// What the next revision has of the one before.
fn kept(before: Option<Doc>) -> (Body, BTreeMap<String, AttachmentEdit>) {
    let Some(before) = before else {
        return (Body::default(), BTreeMap::new());
    };
    let names = before.attachments.into_keys();
    (
        before.body,
        names.map(|name| (name, AttachmentEdit::Stub)).collect(),
    )
}

async fn save(
    call: &Call,
    db: &Db,
    id: DocId,
    parent: Option<Rev>,
    body: Body,
    attachments: BTreeMap<String, AttachmentEdit>,
) -> Result<Rev, Error> {
    let edit = Edit::New {
        id,
        parent,
        deleted: false,
        body,
        attachments,
    };
    document::one(call, db, edit).await
}
