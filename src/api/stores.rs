//! `/stores`: the named stores and how they are.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use crate::id::StoreName;
use crate::node::{BackendSettings, Kind, MoveInfo, RemoveOptions, Status, StoreInfo, StoreSettings};

/// A store and how it is.
#[derive(Serialize, ToSchema)]
pub(super) struct StoreBody {
    /// Its name.
    #[schema(value_type = String)]
    name: StoreName,
    /// What it is made of: `backend` and its settings.
    #[schema(value_type = Object)]
    settings: StoreSettings,
    /// How it is.
    status: StoreStatusBody,
    /// Why it is not open, such as a disk that is not plugged in; `status` is empty then.
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<String>,
    /// Where it moves to, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    moving: Option<MovingBody>,
}

/// A store on its way to another place.
#[derive(Serialize, ToSchema)]
pub(super) struct MovingBody {
    /// That place: `backend` and its settings.
    #[schema(value_type = Object)]
    to: BackendSettings,
    /// Blobs compared or carried so far.
    blobs: u64,
    /// Why the last attempt ended, where it failed; there will be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl From<MoveInfo> for MovingBody {
    fn from(info: MoveInfo) -> MovingBody {
        MovingBody {
            to: info.to,
            blobs: info.blobs,
            trouble: info.trouble,
        }
    }
}

/// How a store is.
#[derive(Serialize, ToSchema)]
pub(super) struct StoreStatusBody {
    /// Blobs stored.
    blobs: u64,
    /// Their bytes, together.
    plain_bytes: u64,
    /// Bytes they take on the disk, with what was deleted and not yet freed.
    stored_bytes: u64,
    /// Of those, what compaction can free.
    dead_bytes: u64,
    /// Bytes free on the disk, where it can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    /// Whether writes are refused since one failed.
    read_only: bool,
    /// Damaged blobs that were set aside.
    quarantined: u64,
}

impl From<Status> for StoreStatusBody {
    fn from(status: Status) -> StoreStatusBody {
        StoreStatusBody {
            blobs: status.blobs,
            plain_bytes: status.plain_bytes,
            stored_bytes: status.stored_bytes,
            dead_bytes: status.dead_bytes,
            free_bytes: status.free_bytes,
            read_only: status.read_only.is_some(),
            quarantined: status.quarantined,
        }
    }
}

impl From<StoreInfo> for StoreBody {
    fn from(info: StoreInfo) -> StoreBody {
        StoreBody {
            name: info.name,
            settings: info.settings,
            status: info.status.into(),
            offline: info.offline,
            moving: info.moving.map(MovingBody::from),
        }
    }
}

/// The stores by name.
#[derive(Serialize, ToSchema)]
pub(super) struct StoresBody {
    stores: Vec<StoreBody>,
}

/// A store to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewStoreBody {
    /// Its name.
    #[schema(value_type = String)]
    name: StoreName,
    /// What it is to be made of: `{"backend": "haystack"}`, or `{"backend": "fs", …}`.
    #[schema(value_type = Object)]
    settings: StoreSettings,
}

/// All stores.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let body = StoresBody {
        stores: call
            .node()
            .stores()
            .list()
            .into_iter()
            .map(StoreBody::from)
            .collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// One store.
pub(super) async fn get(call: Call) -> Result<Response, Error> {
    let name = call.store()?;
    let info = call
        .node()
        .stores()
        .list()
        .into_iter()
        .find(|info| info.name == name);
    let info = info.ok_or_else(|| Error::missing(Kind::Store, &name))?;
    Ok(answer::json(StatusCode::OK, &StoreBody::from(info)))
}

/// Adds a store.
pub(super) async fn add(mut call: Call) -> Result<Response, Error> {
    let body: NewStoreBody = call.take_body().json().await?;
    call.node().stores().add(body.name, body.settings).await?;
    Ok(answer::empty(StatusCode::CREATED))
}

/// Removes a store; one that holds blobs only with `?not_empty=true`. Its files are set aside.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let not_empty = call.query()?.parsed("not_empty")?.unwrap_or(false);
    let options = RemoveOptions { not_empty };
    call.node().stores().remove(call.store()?, options).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
