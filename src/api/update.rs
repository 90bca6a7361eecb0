//! `/api/update`: the system of a box, and how it is brought to another version.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::channel::{self, ChannelBody};
use super::error::{Error, update_outcome};
use super::route::Call;
use crate::id::{BlobAddress, StoreName, Version};
use crate::node::{
    self, Available, Done, Installation, Order, Outcome, Progress, Refusal, Source, UpdateTrouble, Updates,
};

/// The system of the box.
#[derive(Serialize, ToSchema)]
pub(super) struct UpdateBody {
    /// The version that runs.
    #[schema(value_type = String, example = "1.2.3")]
    running: Version,
    /// Where it runs: `A` or `B`.
    slot: &'static str,
    /// What is being done: `idle`; `fetching`, `transferring`, `checking` and `installing` a bundle; `restarting`; `trying`: what runs is new
    /// and not yet judged.
    step: &'static str,
    /// How far that is, where it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressBody>,
    /// Why the bundle that was wanted last was not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedBody>,
    /// What came of the last one that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<OutcomeBody>,
    /// The version that can be gone back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    before: Option<Version>,
    /// Whether other boxes may have the bundle that runs.
    offered: bool,
    /// Where updates come from by themselves, where that was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelBody>,
}

/// How far something is: bytes while a bundle is fetched or transferred, percent while it is installed.
#[derive(Serialize, ToSchema)]
pub(super) struct ProgressBody {
    /// So much is done.
    done: u64,
    /// Of so much.
    total: u64,
    /// So much each second.
    rate: u64,
    /// How long the rest takes, in seconds, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_s: Option<u64>,
}

/// Why a bundle was not installed.
#[derive(Serialize, ToSchema)]
pub(super) struct RefusedBody {
    /// A word for programs.
    error: &'static str,
    /// A sentence for people.
    reason: String,
}

/// What came of an update.
#[derive(Serialize, ToSchema)]
pub(super) struct OutcomeBody {
    /// What was tried.
    #[schema(value_type = String)]
    version: Version,
    /// Whether it was judged good.
    good: bool,
    /// Why not, a sentence each.
    reasons: Vec<String>,
}

/// A bundle that is to be installed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InstallBody {
    /// The store that holds it.
    #[serde(default = "StoreName::main")]
    #[schema(value_type = String)]
    store: StoreName,
    /// The bundle, as a blob of that store; this or `from`. Without either it is what the channel has.
    #[serde(default)]
    blob: Option<String>,
    /// Where the bundle comes from: `https://HOST/PATH`, `usb:NAME`, `usb:DISK/NAME`, `box:NODE-ID`, `box:NODE-ID@https://HOST`.
    #[serde(default)]
    from: Option<String>,
    /// Whether it may be no newer than what runs.
    #[serde(default)]
    allow_older: bool,
}

/// The bundles that can be had near.
#[derive(Serialize, ToSchema)]
pub(super) struct BundlesBody {
    /// Those at other boxes, then those on disks.
    bundles: Vec<BundleBody>,
}

/// A bundle that can be had, as whoever has it says.
#[derive(Serialize, ToSchema)]
pub(super) struct BundleBody {
    /// What to install it by.
    from: String,
    /// What it makes of the box; not told of one on a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    version: Option<Version>,
    /// How long it is.
    size_bytes: u64,
    /// What people know the place by.
    place: String,
}

impl From<Available> for BundleBody {
    fn from(available: Available) -> BundleBody {
        BundleBody {
            from: available.source.to_string(),
            version: available.version,
            size_bytes: available.size_bytes,
            place: available.place,
        }
    }
}

impl From<Updates> for UpdateBody {
    fn from(updates: Updates) -> UpdateBody {
        UpdateBody {
            running: updates.running,
            slot: updates.slot.name(),
            step: updates.step.name(),
            progress: updates.step.progress().map(ProgressBody::from),
            refused: updates.refused.as_ref().map(RefusedBody::from),
            last: updates.last.map(OutcomeBody::from),
            before: updates.before,
            offered: false,
            channel: None,
        }
    }
}

impl From<Progress> for ProgressBody {
    fn from(progress: Progress) -> ProgressBody {
        ProgressBody {
            done: progress.done,
            total: progress.total,
            rate: progress.rate(),
            left_s: progress.left().map(|left| left.as_secs()),
        }
    }
}

impl From<&UpdateTrouble> for RefusedBody {
    fn from(trouble: &UpdateTrouble) -> RefusedBody {
        RefusedBody {
            error: update_outcome(trouble).1,
            reason: trouble.to_string(),
        }
    }
}

impl From<Outcome> for OutcomeBody {
    fn from(outcome: Outcome) -> OutcomeBody {
        OutcomeBody {
            good: outcome.is_good(),
            version: outcome.version,
            reasons: outcome.reasons,
        }
    }
}

/// The system of the box.
pub(super) async fn status(call: Call) -> Result<Response, Error> {
    let updates = call.node().board().updates();
    let updates = updates.ok_or(node::Error::Refused(Refusal::NoBoard))?;
    let channel = channel::body(&call, &updates.running);
    let body = UpdateBody {
        channel,
        offered: call.node().bundles().is_offering(),
        ..UpdateBody::from(updates)
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// Installs a bundle and starts from it. Answers when the transfer has begun; `GET` tells the rest.
pub(super) async fn install(mut call: Call) -> Result<Response, Error> {
    let body: InstallBody = call.take_body().json().await?;
    let source = match (&body.blob, &body.from) {
        (Some(blob), None) => blob_of(&call, body.store, blob).await?,
        (None, Some(from)) => from.parse().map_err(|error| Error::malformed("from", error))?,
        (None, None) => channel::source(&call, body.allow_older).await?,
        (Some(_), Some(_)) => {
            return Err(Error::malformed("from", "either blob or from names the bundle"));
        }
    };
    begin(&call, source, body.allow_older).await?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}

/// What there is to install, on disks and at other boxes.
pub(super) async fn check(call: Call) -> Result<Response, Error> {
    let bundles = match call.node().board().ask(Order::Check).await? {
        Done::Bundles(bundles) => bundles,
        Done::Done | Done::Disks(_) | Done::Store(_) | Done::Offer(_) => Vec::new(),
    };
    let body = BundlesBody {
        bundles: bundles.into_iter().map(BundleBody::from).collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// A blob of a store, as the source of a bundle.
async fn blob_of(call: &Call, store: StoreName, blob: &str) -> Result<Source, Error> {
    let blob: BlobAddress = blob.parse().map_err(|error| Error::malformed("blob", error))?;
    let blob = call.node().stores().get(&store)?.resolve(blob).await?;
    Ok(Source::Blob { store, blob })
}

/// Where a bundle comes from, as a person writes it: the id of a blob, or where to.
pub(super) async fn source_of(call: &Call, text: &str) -> Result<Source, Error> {
    match text.parse::<Source>() {
        Ok(source) => Ok(source),
        Err(_) => blob_of(call, StoreName::main(), text).await,
    }
}

/// Has a bundle installed.
pub(super) async fn begin(call: &Call, source: Source, may_be_older: bool) -> Result<(), Error> {
    let wanted = Installation { source, may_be_older };
    call.node().board().ask(Order::Install(wanted)).await?;
    Ok(())
}

/// Starts from what ran before. Answers when the box is about to.
pub(super) async fn rollback(call: Call) -> Result<Response, Error> {
    call.node().board().ask(Order::Rollback).await?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}
