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
use crate::node::{Hardware, HealthReport, HealthState, Scope};

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
    /// `ok`, `degraded` where someone should look, `damaged` where blobs were set aside, `read_only` where the
    /// store `main` takes no writes; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Why it is not `ok`, a sentence each; with the scope `read`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// How long it has been running, in seconds; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_s: Option<u64>,
    /// The stores; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<StoreBody>>,
    /// What its hardware says, on a box; with the scope `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    board: Option<HardwareBody>,
}

/// What the hardware says of itself.
#[derive(Serialize, ToSchema)]
pub(super) struct HardwareBody {
    /// What people call the board.
    title: String,
    /// In degrees Celsius, at its hottest place, where it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature_c: Option<i32>,
    /// Whether it is slowed at this moment, for heat or power.
    throttled: bool,
    /// Whether its supply is too weak at this moment.
    under_voltage: bool,
    /// How much of its card's life is used up, rounded up to ten, where the card tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    card_used_percent: Option<u8>,
}

impl From<Hardware> for HardwareBody {
    fn from(hardware: Hardware) -> HardwareBody {
        HardwareBody {
            title: hardware.title,
            temperature_c: hardware.temperature_mc.map(|heat| heat / 1000),
            throttled: hardware.is_throttled,
            under_voltage: hardware.is_under_voltage,
            card_used_percent: hardware.card_used_percent,
        }
    }
}

/// How the node is.
pub(super) async fn status(call: Call) -> Result<Response, Error> {
    let node = call.node();
    let may_read = call.caller.may(Scope::Read);
    let report = may_read.then(|| node.health().report());
    let body = StatusBody {
        id: node.identity().node_id(),
        host: node.peers().own_host().to_string(),
        claimed: node.claim().is_claimed(),
        version: report.as_ref().map(|report| report.version),
        state: report.as_ref().map(state),
        reasons: report
            .as_ref()
            .map_or_else(Vec::new, |report| report.reasons.clone()),
        uptime_s: report.as_ref().map(|report| report.uptime.as_secs()),
        board: report
            .as_ref()
            .and_then(|_| node.board().hardware())
            .map(HardwareBody::from),
        stores: report.map(|report| report.stores.into_iter().map(StoreBody::from).collect()),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// The state in one word.
pub(super) fn state(report: &HealthReport) -> &'static str {
    let is_damaged = report.stores.iter().any(|info| info.status.quarantined > 0);
    match report.state {
        HealthState::ReadOnly => "read_only",
        HealthState::Degraded if is_damaged => "damaged",
        HealthState::Degraded => "degraded",
        HealthState::Ready => "ok",
    }
}
