//! `refuge discover`: which nodes there are on the local network.

use serde::Serialize;

use super::exit::Exit;
use super::output::note;
use super::{Session, app};
use crate::id::{HostName, NodeId};
use crate::node::{FoundBy, Peer};

/// List the nodes on the local network, and how each was found
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge discover
  refuge discover --json

Asks by multicast DNS (mdns) and by the UDP beacon (udp), and takes less than two seconds. What is listed is
what nodes say of themselves: compare the fingerprint before you trust one.")]
pub(super) struct Args {}

#[derive(Serialize)]
struct Line {
    id: NodeId,
    host: HostName,
    urls: Vec<String>,
    claimed: bool,
    found_by: Vec<&'static str>,
}

impl From<Peer> for Line {
    fn from(peer: Peer) -> Line {
        Line {
            id: peer.node,
            urls: peer.urls(),
            host: peer.host,
            claimed: peer.is_claimed,
            found_by: peer.found_by.into_iter().map(FoundBy::name).collect(),
        }
    }
}

impl Line {
    fn row(&self) -> Vec<String> {
        vec![
            self.host.label().to_owned(),
            self.urls.first().cloned().unwrap_or_default(),
            if self.claimed { "yes" } else { "no" }.to_owned(),
            self.found_by.join(", "),
            self.id.to_string(),
        ]
    }
}

pub(super) fn run(_args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let peers = app::discover(&session.runtime)?;
    let lines: Vec<Line> = peers.into_iter().map(Line::from).collect();
    if session.output.is_json() {
        for line in &lines {
            session.output.result(line, String::new)?;
        }
    } else if lines.is_empty() {
        note("no node answered: is it on the same network, and does it listen on more than loopback?");
    } else {
        let rows: Vec<_> = lines.iter().map(Line::row).collect();
        session
            .output
            .table(&["NAME", "ADDRESS", "CLAIMED", "FOUND BY", "NODE ID"], &rows)?;
    }
    Ok(Exit::Done)
}
