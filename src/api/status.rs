//! `GET /api/status`: how the node is. Strangers learn that it is one, and whether it is claimed.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use super::stores::StoreBody;
use crate::id::NodeId;
use crate::node::Scope;

/// How the node is.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusBody {
    /// Who it is.
    #[schema(value_type = String)]
    id: NodeId,
    /// Its name on the local network.
    host: String,
    /// Whether it has an owner.
    claimed: bool,
    /// Its version; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// `ok`, `read_only` where a store takes no writes, `damaged` where blobs were set aside; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// The stores; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<StoreBody>>,
}

/// How the node is.
pub(super) async fn status(call: Call) -> Result<Response, Error> {
    let node = call.node();
    let may_read = call.caller.may(Scope::Read);
    let body = StatusBody {
        id: node.identity().node_id(),
        host: node.identity().host_name().to_owned(),
        claimed: node.claim().is_claimed(),
        version: may_read.then_some(env!("CARGO_PKG_VERSION")),
        state: may_read.then(|| state(&call)),
        stores: may_read.then(|| node.stores().list().into_iter().map(StoreBody::from).collect()),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// The worst of any store.
pub(super) fn state(call: &Call) -> &'static str {
    let stores = call.node().stores().list();
    if stores.iter().any(|info| info.status.read_only.is_some()) {
        "read_only"
    } else if stores.iter().any(|info| info.status.quarantined > 0) {
        "damaged"
    } else {
        "ok"
    }
}
