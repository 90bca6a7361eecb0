//! `/api/board`: what the box can be asked to do with its hardware.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use crate::id::{DiskName, DiskSerial, StoreName};
use crate::node::{Adoption, Disk, Done, Holds, MoveTo, Order};

/// The disks that are plugged in.
#[derive(Serialize, ToSchema)]
pub(super) struct DisksBody {
    disks: Vec<DiskBody>,
}

/// A disk.
#[derive(Serialize, ToSchema)]
pub(super) struct DiskBody {
    /// What it is called until it is pulled.
    #[schema(value_type = String)]
    name: DiskName,
    /// Who made it and what they call it.
    title: String,
    /// What has to be typed to adopt it.
    #[schema(value_type = String)]
    serial: DiskSerial,
    /// How large it is.
    size_bytes: u64,
    /// `system`: the box uses it; `nothing`; `refuge`: blobs of a node, with `uuid`; `foreign`: with `what` is on it.
    #[schema(value_type = Object)]
    holds: Holds,
}

impl From<Disk> for DiskBody {
    fn from(disk: Disk) -> DiskBody {
        DiskBody {
            name: disk.name,
            title: disk.title,
            serial: disk.serial,
            size_bytes: disk.size_bytes,
            holds: disk.holds,
        }
    }
}

/// A disk that is to hold a store.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptBody {
    /// Which disk.
    #[schema(value_type = String)]
    disk: DiskName,
    /// Its serial, so that no other disk is meant.
    #[schema(value_type = String)]
    serial: DiskSerial,
    /// Whether all that is on it may be lost. Not needed for an empty disk and for one of a node.
    #[serde(default)]
    format: bool,
    /// The store that it holds from then on.
    #[schema(value_type = String)]
    store: StoreName,
}

/// A store on a disk of its own.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskStoreBody {
    /// The store.
    #[schema(value_type = String)]
    store: StoreName,
}

/// A store that is to be elsewhere.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveBody {
    /// The store.
    #[schema(value_type = String)]
    store: StoreName,
    /// `card`, or the name of a disk that was adopted and holds no other blobs.
    to: String,
}

/// That everything may be destroyed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetBody {
    /// The box's name, `refuge-xxxxxx.local`, so that no other box is meant.
    host: String,
}

/// The disks that are plugged in.
pub(super) async fn disks(call: Call) -> Result<Response, Error> {
    let disks = listed(&call).await?.into_iter().map(DiskBody::from).collect();
    Ok(answer::json(StatusCode::OK, &DisksBody { disks }))
}

/// The disks that are plugged in, asked of the box.
pub(super) async fn listed(call: &Call) -> Result<Vec<Disk>, Error> {
    Ok(match call.node().board().ask(Order::Disks).await? {
        Done::Disks(disks) => disks,
        Done::Done | Done::Store(_) | Done::Bundles(_) | Done::Offer(_) => Vec::new(),
    })
}

/// Keeps a store on a disk from now on. Answers when the disk is ready.
pub(super) async fn adopt(mut call: Call) -> Result<Response, Error> {
    let body: AdoptBody = call.take_body().json().await?;
    let order = Order::Adopt(Adoption {
        disk: body.disk,
        serial: body.serial,
        may_format: body.format,
        store: body.store.clone(),
    });
    let store = match call.node().board().ask(order).await? {
        Done::Store(store) => store,
        Done::Done | Done::Disks(_) | Done::Bundles(_) | Done::Offer(_) => body.store,
    };
    Ok(answer::json(StatusCode::CREATED, &DiskStoreBody { store }))
}

/// Makes the disk of a store safe to pull.
pub(super) async fn eject(mut call: Call) -> Result<Response, Error> {
    let body: DiskStoreBody = call.take_body().json().await?;
    call.node().board().ask(Order::Eject(body.store)).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Has a store move. Answers when that is noted: the store goes on where it is until all of it is there, and says so itself.
pub(super) async fn move_store(mut call: Call) -> Result<Response, Error> {
    let body: MoveBody = call.take_body().json().await?;
    let to: MoveTo = body.to.parse().map_err(|error| Error::malformed("to", error))?;
    let order = Order::Move {
        store: body.store,
        to,
    };
    call.node().board().ask(order).await?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}

/// Shows which box this is.
pub(super) async fn identify(call: Call) -> Result<Response, Error> {
    call.node().board().ask(Order::Identify).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Destroys everything and starts anew as another node.
pub(super) async fn reset(mut call: Call) -> Result<Response, Error> {
    let body: ResetBody = call.take_body().json().await?;
    let own = call.node().identity().host_name();
    if body.host != own {
        return Err(Error::malformed(
            "host",
            format_args!("the box that would be reset is {own}"),
        ));
    }
    call.node().board().ask(Order::Reset).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
