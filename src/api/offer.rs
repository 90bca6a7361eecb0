//! `/api/update/offer`: the bundle that this box runs, for boxes of the same network. Once the owner says so anybody may read it: it is
//! signed and public, and a box that lacks it has no account here. Nothing else can be read here.

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use crate::id::{BlobAddress, BlobId, Version};
use crate::node::{self, BundleManifest, BundlePart, Kind, PartReading};

/// What the bundle is made of. Nothing in it needs to be believed: parts and whole are verified by their digests, and who made the
/// bundle by its signature.
#[derive(Serialize, ToSchema)]
pub(super) struct OfferBody {
    /// 1.
    format: u32,
    /// What it makes of a box.
    #[schema(value_type = String)]
    version: Version,
    /// Of which boxes.
    compatible: String,
    /// How long it is.
    size_bytes: u64,
    /// All of its bytes.
    #[schema(value_type = String)]
    blob: BlobId,
    /// Those bytes in order.
    parts: Vec<OfferPartBody>,
}

/// Some of a bundle's bytes.
#[derive(Serialize, ToSchema)]
pub(super) struct OfferPartBody {
    /// Their digest.
    #[schema(value_type = String)]
    id: BlobId,
    /// How many.
    size_bytes: u64,
}

/// Others may have it from now on.
pub(super) async fn begin(call: Call) -> Result<Response, Error> {
    set(&call, true).await
}

/// They may have it no more.
pub(super) async fn end(call: Call) -> Result<Response, Error> {
    set(&call, false).await
}

async fn set(call: &Call, is_offering: bool) -> Result<Response, Error> {
    call.node().bundles().offer(is_offering).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// What the bundle is made of.
pub(super) async fn manifest(call: Call) -> Result<Response, Error> {
    let bundles = call.node().bundles();
    let permit = bundles.admit(call.connection.peer())?;
    let manifest = bundles.offered().ok_or_else(|| node::Error::Missing {
        kind: Kind::Bundle,
        name: "that others may have".to_owned(),
    })?;
    let answer = answer::json(StatusCode::OK, &OfferBody::from(manifest));
    drop(permit);
    Ok(answer)
}

/// A part of it.
pub(super) async fn part(call: Call) -> Result<Response, Error> {
    let bundles = call.node().bundles();
    let permit = bundles.admit(call.connection.peer())?;
    let id: BlobAddress = call
        .param("id")
        .parse()
        .map_err(|error| Error::malformed("id", error))?;
    let BlobAddress::Blake3(id) = id else {
        return Err(Error::malformed("id", "parts are named by blake3"));
    };
    let reading = bundles.part(id, permit).await?;
    let len = reading.size_bytes();
    let mut response = Response::new(answer::stream(Whole(Some(reading)), Some(len)));
    answer::mark_as_content(response.headers_mut(), HeaderValue::from_static("attachment"));
    Ok(response)
}

/// A part that counts as being on its way until its answer is out.
struct Whole(Option<PartReading>);

impl answer::Source for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.as_mut().and_then(PartReading::take))
    }
}

impl From<BundleManifest> for OfferBody {
    fn from(manifest: BundleManifest) -> OfferBody {
        OfferBody {
            format: BundleManifest::FORMAT,
            version: manifest.version,
            compatible: manifest.compatible,
            size_bytes: manifest.size_bytes,
            blob: manifest.blob,
            parts: manifest.parts.into_iter().map(OfferPartBody::from).collect(),
        }
    }
}

impl From<BundlePart> for OfferPartBody {
    fn from(part: BundlePart) -> OfferPartBody {
        OfferPartBody {
            id: part.id,
            size_bytes: part.size_bytes,
        }
    }
}
