//! `/api/update`: the system of a box, and how it is brought to another version.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::{Error, update_outcome};
use super::route::Call;
use crate::id::{BlobAddress, StoreName, Version};
use crate::node::{self, Installation, Order, Outcome, Progress, Refusal, UpdateTrouble, Updates};

/// The system of the box.
#[derive(Serialize, ToSchema)]
pub(super) struct UpdateBody {
    /// The version that runs.
    #[schema(value_type = String, example = "1.2.3")]
    running: Version,
    /// Where it runs: `A` or `B`.
    slot: &'static str,
    /// What is being done: `idle`; `transferring`, `checking` and `installing` a bundle; `restarting`; `trying`: what runs is new
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
}

/// How far something is: bytes while a bundle is transferred, percent while it is installed.
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
    /// The bundle, as a blob of that store.
    blob: String,
    /// Whether it may be no newer than what runs.
    #[serde(default)]
    allow_older: bool,
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
    Ok(answer::json(StatusCode::OK, &UpdateBody::from(updates)))
}

/// Installs a bundle and starts from it. Answers when the transfer has begun; `GET` tells the rest.
pub(super) async fn install(mut call: Call) -> Result<Response, Error> {
    let body: InstallBody = call.take_body().json().await?;
    begin(&call, body.store, &body.blob, body.allow_older).await?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}

/// Has a bundle installed.
pub(super) async fn begin(
    call: &Call,
    store: StoreName,
    blob: &str,
    may_be_older: bool,
) -> Result<(), Error> {
    let blob: BlobAddress = blob.parse().map_err(|error| Error::malformed("blob", error))?;
    let blob = call.node().stores().get(&store)?.resolve(blob).await?;
    let wanted = Installation {
        store,
        blob,
        may_be_older,
    };
    call.node().board().ask(Order::Install(wanted)).await?;
    Ok(())
}

/// Starts from what ran before. Answers when the box is about to.
pub(super) async fn rollback(call: Call) -> Result<Response, Error> {
    call.node().board().ask(Order::Rollback).await?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}
