//! `/refs`: names for snapshots, moved by compare and swap.
//!
//! A ref's version is its tag: a change says by `If-Match` which version it replaces, or by `If-None-Match: *`
//! that there is none yet. Who comes second gets 412, reads again and decides again.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::range;
use super::route::Call;
use crate::id::RefName;
use crate::node::{self, Kind, RefRecord, RefVersion, Refs};

/// A ref with its history, as `files/refs.rs` describes it.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(super) struct RefBody(RefRecord);

/// Every ref of a store, by name.
#[derive(Serialize, ToSchema)]
pub(super) struct RefsBody {
    #[schema(value_type = Vec<Object>)]
    refs: Vec<RefRecord>,
}

/// Where a ref is after a change.
#[derive(Serialize, ToSchema)]
pub(super) struct VersionBody {
    #[schema(value_type = u64)]
    version: RefVersion,
}

impl Call {
    /// The refs into the store that the path names, or into the main one.
    pub(super) fn refs(&self) -> Result<Refs, Error> {
        Ok(self.node().stores().refs(&self.store()?)?)
    }

    /// The ref that the path names.
    pub(super) fn ref_name(&self) -> Result<RefName, Error> {
        Ok(self.param("name").parse()?)
    }
}

/// All refs.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let refs = call.refs()?.list().await?;
    Ok(answer::json(StatusCode::OK, &RefsBody { refs }))
}

/// One ref.
pub(super) async fn get(call: Call) -> Result<Response, Error> {
    let record = call.refs()?.get(call.ref_name()?).await?;
    let tag = tag(record.version);
    let mut response = if range::has_already(call.headers(), &tag) {
        answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        answer::json(StatusCode::OK, &RefBody(record))
    };
    set_tag(&mut response, &tag);
    Ok(response)
}

/// Moves a ref, or makes it.
pub(super) async fn put(mut call: Call) -> Result<Response, Error> {
    let expected = expected(call.headers())?;
    let (refs, name) = (call.refs()?, call.ref_name()?);
    let RefBody(record) = call.take_body().json().await?;
    if record.name != name {
        return Err(Error::malformed("name", "is not the ref of the path"));
    }
    let version = swapped(refs.swap(name, expected, Some(record)).await)?;
    let status = if expected.is_none() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = answer::json(status, &VersionBody { version });
    set_tag(&mut response, &tag(version));
    Ok(response)
}

/// Deletes a ref. What only it named is collected a day later.
pub(super) async fn delete(call: Call) -> Result<Response, Error> {
    let expected = expected(call.headers())?;
    let (refs, name) = (call.refs()?, call.ref_name()?);
    if expected.is_none() {
        return Err(Error::PreconditionRequired);
    }
    swapped(refs.swap(name, expected, None).await)?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Which version a change replaces; `None` for a ref that is to be new.
fn expected(headers: &HeaderMap) -> Result<Option<RefVersion>, Error> {
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (Some(tag), None) => version_of(tag).map(Some).ok_or(Error::PreconditionFailed),
        (None, Some(any)) if any == "*" => Ok(None),
        _ => Err(Error::PreconditionRequired),
    }
}

fn version_of(tag: &HeaderValue) -> Option<RefVersion> {
    let digits = tag.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok().map(RefVersion)
}

fn swapped(answer: Result<RefVersion, node::Error>) -> Result<RefVersion, Error> {
    match answer {
        Err(node::Error::Conflict { kind: Kind::Ref, .. }) => Err(Error::PreconditionFailed),
        other => Ok(other?),
    }
}

fn tag(version: RefVersion) -> String {
    format!("\"{version}\"")
}

fn set_tag(response: &mut Response, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}
