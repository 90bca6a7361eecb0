//! `/api/update/channel`: where the box's updates come from by themselves, and what there is.

use std::time::SystemTime;

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use super::stamp::rfc3339;
use crate::id::{BlobId, BundleUrl, ChannelKey, Version};
use crate::node::{
    self, ChannelSettings, ChannelTrouble, Done, Offer, Order, Refusal, Source, Updates, Window,
};

/// A channel, and what is known of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelBody {
    /// Where its file is.
    #[schema(value_type = String)]
    url: BundleUrl,
    /// Whose signature the file must have.
    #[schema(value_type = String)]
    key: ChannelKey,
    /// Whether what it offers is installed without being asked for.
    automatic: bool,
    /// When that may be, in the box's time zone.
    #[schema(value_type = String, example = "02:00-05:00")]
    window: Window,
    /// When it was heard of last, or set.
    heard: String,
    /// What it had for this box when it was asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<OfferBody>,
    /// When that is installed, as far as it can be told; not where it is not installed by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    planned: Option<String>,
    /// What was wrong when it was asked last, or with what it offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// What a channel has for this box.
#[derive(Serialize, ToSchema)]
pub(super) struct OfferBody {
    /// What it makes of the box.
    #[schema(value_type = String)]
    version: Version,
    /// Whether that is newer than what runs.
    newer: bool,
    /// Whether the box came back from it: it is installed only where somebody asks for it.
    came_back: bool,
    /// How long the bundle is.
    size_bytes: u64,
    /// Where it is.
    #[schema(value_type = String)]
    url: BundleUrl,
    /// What it must be.
    #[schema(value_type = String)]
    blob: BlobId,
}

/// How a channel is to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetChannelBody {
    /// Where its file is.
    url: String,
    /// Whose signature the file must have, as `scripts/channel` says it.
    key: String,
    /// Whether what it offers is installed without being asked for.
    #[serde(default = "yes")]
    automatic: bool,
    /// When that may be, in the box's time zone; at night where nothing is said.
    #[serde(default)]
    #[schema(example = "02:00-05:00")]
    window: Option<String>,
}

/// Who sets a channel and pins its key has said whom they trust; what nobody clicks on is never installed.
fn yes() -> bool {
    true
}

/// The channel, where there is one.
pub(super) fn body(call: &Call, running: &Version) -> Option<ChannelBody> {
    let channel = call.node().channel();
    let settings = channel.settings()?;
    let news = channel.news();
    Some(ChannelBody {
        heard: rfc3339(channel.heard()),
        offer: news.offer.map(|offer| described(call, offer, running)),
        planned: news.planned.map(rfc3339),
        trouble: news.trouble,
        url: settings.url,
        key: settings.key,
        automatic: settings.automatic,
        window: settings.window,
    })
}

fn described(call: &Call, offer: Offer, running: &Version) -> OfferBody {
    OfferBody {
        newer: offer.version > *running,
        came_back: call.node().channel().left().contains(&offer.version),
        version: offer.version,
        size_bytes: offer.size_bytes,
        url: offer.url,
        blob: offer.blob,
    }
}

/// Sets the channel, in place of the one before.
pub(super) async fn set(mut call: Call) -> Result<Response, Error> {
    let body: SetChannelBody = call.take_body().json().await?;
    let window = body.window.as_deref().unwrap_or_default();
    set_to(&call, &body.url, &body.key, body.automatic, window).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Sets the channel as people write it; without a window it is the usual one.
pub(super) async fn set_to(
    call: &Call,
    url: &str,
    key: &str,
    automatic: bool,
    window: &str,
) -> Result<(), Error> {
    updates(call)?;
    let window = match window.trim() {
        "" => Window::default(),
        window => window
            .parse()
            .map_err(|error| Error::malformed("window", error))?,
    };
    let settings = ChannelSettings {
        url: url
            .trim()
            .parse()
            .map_err(|error| Error::malformed("url", error))?,
        key: key
            .trim()
            .parse()
            .map_err(|error| Error::malformed("key", error))?,
        automatic,
        window,
    };
    Ok(call.node().channel().set(settings).await?)
}

/// Forgets the channel: nothing is looked for, and nothing is installed by itself.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    call.node().channel().remove().await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Asks the channel now.
pub(super) async fn check(call: Call) -> Result<Response, Error> {
    let running = updates(&call)?.running;
    let offer = look(&call).await?;
    Ok(answer::json(StatusCode::OK, &described(&call, offer, &running)))
}

/// What the channel has for this box at this moment.
pub(super) async fn look(call: &Call) -> Result<Offer, Error> {
    match call.node().board().ask(Order::Look).await? {
        Done::Offer(offer) => Ok(*offer),
        Done::Done | Done::Disks(_) | Done::Store(_) | Done::Bundles(_) => Err(node::Error::Busy.into()),
    }
}

/// The bundle that the channel has for this box, to be installed.
pub(super) async fn source(call: &Call, may_be_older: bool) -> Result<Source, Error> {
    let running = updates(call)?.running;
    let offer = look(call).await?;
    if offer.version <= running && !may_be_older {
        let version = offer.version;
        return Err(node::Error::from(ChannelTrouble::NotNewer { version, running }).into());
    }
    Ok(offer.into())
}

fn updates(call: &Call) -> Result<Updates, Error> {
    let updates = call.node().board().updates();
    Ok(updates.ok_or(node::Error::Refused(Refusal::NoBoard))?)
}

/// How long until `at`, for people; nothing where that is now or past.
pub(super) fn hours_until(call: &Call, at: SystemTime) -> Option<u64> {
    let left = at.duration_since(call.node().channel().now()).ok()?;
    Some(left.as_secs().div_ceil(3600)).filter(|hours| *hours > 0)
}
