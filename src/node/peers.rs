//! Other nodes on the local network, as they were seen: hints where to look, never proof of who is there.
//!
//! What discovery hears, anybody on the network can have said. A node that is to be spoken with proves its id in the TLS
//! handshake, before any data. The table is bounded, and what is not heard of again leaves it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::clock::Clock;
use crate::id::{HostName, NodeId};

/// Nodes remembered, some 100 KiB. When the table is full, new ones wait until one leaves: whoever makes up nodes drives
/// out none that is there.
pub const PEERS_MAX: usize = 256;

/// Addresses remembered of one node.
pub const PEER_ADDRESSES_MAX: usize = 8;

/// How a node was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// By its dns-sd announcement.
    Announcement,
    /// By its answer to the UDP beacon.
    Beacon,
}

/// What discovery heard of a node at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who it says it is.
    pub node: NodeId,
    /// Its name on the local network.
    pub host: HostName,
    /// Whether it says that it has an owner.
    pub is_claimed: bool,
    /// Where it says that HTTPS listens.
    pub https: Vec<SocketAddr>,
    /// How it was heard.
    pub found_by: FoundBy,
    /// How long it counts.
    pub believed: Duration,
}

/// A node that was seen and is believed to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it says it is.
    pub node: NodeId,
    /// Its name on the local network.
    pub host: HostName,
    /// Whether it says that it has an owner.
    pub is_claimed: bool,
    /// Where it says that HTTPS listens: what can be typed into a browser first.
    pub https: Vec<SocketAddr>,
    /// How it was found, each way once.
    pub found_by: Vec<FoundBy>,
    /// When it was heard of last.
    pub seen: SystemTime,
}

impl Peer {
    /// Where it says that HTTPS listens, as URLs: what can be typed into a browser first.
    pub fn urls(&self) -> Vec<String> {
        self.https
            .iter()
            .map(|address| format!("https://{address}"))
            .collect()
    }
}

/// The table; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    own: NodeId,
    clock: Clock,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The name this node has on the local network.
    host: HostName,
    table: Table,
}

/// Holds no clock: time comes with each call.
#[derive(Debug, Default)]
struct Table {
    nodes: BTreeMap<NodeId, Heard>,
}

/// What was heard of a node, the latest of each way.
#[derive(Debug, Default)]
struct Heard(BTreeMap<FoundBy, Latest>);

#[derive(Debug)]
struct Latest {
    sighting: Sighting,
    until: Duration,
    seen: SystemTime,
}

impl FoundBy {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            FoundBy::Announcement => "mdns",
            FoundBy::Beacon => "udp",
        }
    }
}

impl Peers {
    /// Nobody yet. What says it is `own` is not listed.
    pub fn new(own: NodeId, clock: Clock) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                own,
                clock,
                started: Instant::now(),
                state: Mutex::new(State {
                    host: HostName::of_node(&own, None),
                    table: Table::default(),
                }),
            }),
        }
    }

    /// Takes note of a sighting. One of this node itself, or of one too many, is dropped.
    pub fn saw(&self, sighting: Sighting) {
        if sighting.node == self.inner.own {
            return;
        }
        let (now, seen) = (self.inner.started.elapsed(), self.inner.clock.now());
        self.state().table.saw(sighting, now, seen);
    }

    /// Forgets a node: it said that it goes. One that is still there is heard of again.
    pub fn left(&self, node: &NodeId) {
        self.state().table.nodes.remove(node);
    }

    /// The nodes that are believed to be there, by name.
    pub fn list(&self) -> Vec<Peer> {
        let now = self.inner.started.elapsed();
        self.state().table.list(now)
    }

    /// The name of this node on the local network: its own, or another where somebody has that.
    pub fn own_host(&self) -> HostName {
        self.state().host.clone()
    }

    /// Says what the node is called on the local network from now on.
    pub fn rename(&self, host: HostName) {
        self.state().host = host;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.inner.state.lock();
        state.expect("no thread panics while it holds the peers")
    }
}

impl Table {
    fn saw(&mut self, mut sighting: Sighting, now: Duration, seen: SystemTime) {
        if !self.nodes.contains_key(&sighting.node) {
            self.tidy(now);
            if self.nodes.len() >= PEERS_MAX {
                return;
            }
        }
        sighting.https.truncate(PEER_ADDRESSES_MAX);
        let latest = Latest {
            until: now + sighting.believed,
            seen,
            sighting,
        };
        let heard = self.nodes.entry(latest.sighting.node).or_default();
        heard.0.insert(latest.sighting.found_by, latest);
    }

    /// Drops what is believed no longer.
    fn tidy(&mut self, now: Duration) {
        self.nodes.retain(|_, heard| {
            heard.0.retain(|_, latest| latest.until > now);
            !heard.0.is_empty()
        });
    }

    fn list(&mut self, now: Duration) -> Vec<Peer> {
        self.tidy(now);
        let mut peers: Vec<Peer> = self.nodes.values().filter_map(Heard::peer).collect();
        peers.sort_by(|a, b| (&a.host, a.node).cmp(&(&b.host, b.node)));
        peers
    }
}

impl Heard {
    /// What was heard in all ways together; what was heard last is right.
    fn peer(&self) -> Option<Peer> {
        let last = self.0.values().max_by_key(|latest| latest.until)?;
        let mut https: Vec<_> = self
            .0
            .values()
            .flat_map(|latest| latest.sighting.https.clone())
            .collect();
        https.sort_by_key(|address| (trouble_of(address), *address));
        https.dedup();
        https.truncate(PEER_ADDRESSES_MAX);
        Some(Peer {
            node: last.sighting.node,
            host: last.sighting.host.clone(),
            is_claimed: last.sighting.is_claimed,
            https,
            found_by: self.0.keys().copied().collect(),
            seen: self.0.values().map(|latest| latest.seen).max()?,
        })
    }
}

/// Lower is easier for people: browsers take no address that holds for one interface only.
fn trouble_of(address: &SocketAddr) -> u8 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => 2,
        SocketAddr::V6(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn sighting(node: u8, found_by: FoundBy, address: &str) -> Sighting {
        let node = NodeId::from_bytes([node; 32]);
        Sighting {
            node,
            host: HostName::of_node(&node, None),
            is_claimed: false,
            https: vec![address.parse().unwrap()],
            found_by,
            believed: Duration::from_secs(100),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ways_of_finding_one_node_are_put_together_and_forgotten_each_in_its_time() {
        let mut table = Table::default();
        let mut see = |found_by, address: &str, second| {
            table.saw(
                sighting(1, found_by, address),
                at(second),
                UNIX_EPOCH + at(second),
            );
        };
        see(FoundBy::Announcement, "[fe80::1%2]:443", 0);
        see(FoundBy::Beacon, "192.0.2.1:443", 50);
        let [peer] = &table.list(at(60))[..] else {
            panic!("one node");
        };
        assert_eq!(peer.found_by, [FoundBy::Announcement, FoundBy::Beacon]);
        assert_eq!(peer.https[0], "192.0.2.1:443".parse().unwrap());
        assert_eq!((peer.https.len(), peer.seen), (2, UNIX_EPOCH + at(50)));
        assert_eq!(table.list(at(100))[0].found_by, [FoundBy::Beacon]);
        assert_eq!(table.list(at(150)), []);
    }

    #[test]
    fn who_says_good_bye_is_gone() {
        let peers = Peers::new(NodeId::from_bytes([9; 32]), Clock::system());
        let seen = sighting(1, FoundBy::Announcement, "192.0.2.1:443");
        peers.saw(seen.clone());
        peers.saw(sighting(2, FoundBy::Beacon, "192.0.2.2:443"));
        assert_eq!(peers.list().len(), 2);
        peers.left(&seen.node);
        assert_eq!(peers.list().len(), 1);
    }

    #[test]
    fn made_up_nodes_fill_the_table_and_drive_out_none() {
        let mut table = Table::default();
        let own = sighting(1, FoundBy::Beacon, "192.0.2.1:443");
        table.saw(own.clone(), at(0), UNIX_EPOCH);
        for made_up in 0..100_000_u32 {
            let mut key = [9; 32];
            key[..4].copy_from_slice(&made_up.to_be_bytes());
            let mut fake = sighting(2, FoundBy::Announcement, "192.0.2.2:1");
            fake.node = NodeId::from_bytes(key);
            fake.https = vec![fake.https[0]; 1000];
            table.saw(fake, at(1), UNIX_EPOCH);
        }
        assert_eq!(table.nodes.len(), PEERS_MAX);
        assert!(table.list(at(2)).iter().any(|peer| peer.node == own.node));
        assert!(
            table
                .list(at(2))
                .iter()
                .all(|peer| peer.https.len() <= PEER_ADDRESSES_MAX)
        );
    }

    #[test]
    fn a_node_does_not_list_itself() {
        let own = sighting(1, FoundBy::Beacon, "192.0.2.1:443");
        let peers = Peers::new(own.node, Clock::system());
        peers.saw(own);
        peers.saw(sighting(2, FoundBy::Beacon, "192.0.2.2:443"));
        let listed: Vec<_> = peers.list().into_iter().map(|peer| peer.node).collect();
        assert_eq!(listed, [NodeId::from_bytes([2; 32])]);
    }
}
