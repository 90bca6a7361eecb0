//! `GET /api/peers`: other nodes that were seen on the local network.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use super::stamp;
use crate::id::{HostName, NodeId};
use crate::node::{FoundBy, Peer};

/// Other nodes on the local network, as they were seen: hints, not proof of who is there.
#[derive(Serialize, ToSchema)]
pub(super) struct PeersBody {
    /// By name.
    peers: Vec<PeerBody>,
}

/// A node that was seen.
#[derive(Serialize, ToSchema)]
struct PeerBody {
    /// Who it says it is.
    #[schema(value_type = String)]
    id: NodeId,
    /// Its name on the local network.
    #[schema(value_type = String, example = "refuge-abcdef.local")]
    host: HostName,
    /// Where it says that HTTPS listens.
    urls: Vec<String>,
    /// Whether it says that it has an owner.
    claimed: bool,
    /// How it was found: `mdns`, `udp`.
    found_by: Vec<&'static str>,
    /// When it was heard of last (RFC 3339).
    seen: String,
}

impl From<Peer> for PeerBody {
    fn from(peer: Peer) -> PeerBody {
        PeerBody {
            id: peer.node,
            urls: peer.urls(),
            host: peer.host,
            claimed: peer.is_claimed,
            found_by: peer.found_by.into_iter().map(FoundBy::name).collect(),
            seen: stamp::rfc3339(peer.seen),
        }
    }
}

/// The nodes that are believed to be there.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let peers = call.node().peers().list();
    let body = PeersBody {
        peers: peers.into_iter().map(PeerBody::from).collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}
