//! The LAN edge: tells other machines on the local network where this node is, and notes who else is there.
//!
//! Two ways lead there, because networks filter one or the other: dns-sd over multicast DNS ([`mdns`]) and a beacon of
//! our own over UDP (`udp.rs`). Both are pure state machines; the sockets are in `port.rs`, and this file is the loop
//! that turns between them. Everything is sent to the link and believed only when it comes from there (hop limit 255 and
//! an address of the link's own networks); nothing is sent back that is larger than what asked for it; and all that is
//! heard is a hint, kept in [`Peers`]: who a node is, its key says.

pub mod mdns;
pub mod packet;

mod link;
mod port;
mod udp;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::link::{Link, Origin, links};
use self::mdns::message::{MESSAGE_BYTES_MAX, Message};
use self::mdns::{Browser, Found, MDNS_PORT, Outgoing, Responder, Service};
use self::packet::{Beacon, Nonce};
use self::port::{Family, Port, Role, any_readable};
use self::udp::{Answerer, Asker, BEACON_PORT};
use self::watch::Watch;
use crate::id::NodeId;
use crate::node::{Clock, FoundBy, Node, Peer, Peers, Sighting};

/// What there is no notice of is looked at that often: whether the node was claimed, and the interfaces where the system
/// does not tell of them.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The beacon is asked that often, and the first times faster.
const BEACON_EVERY: Duration = Duration::from_secs(60);
const BEACON_FIRST: Duration = Duration::from_millis(500);
const BEACON_FIRST_QUERIES: u32 = 3;

/// How long a node that answered the beacon is believed to be there: two queries that it did not answer.
const BEACON_BELIEVED: Duration = Duration::from_secs(150);

/// Where a node can be reached; what it tells others.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where HTTPS listens.
    pub https: SocketAddr,
    /// Where plain HTTP listens, for browsers of people; not told where it is on loopback.
    pub http: SocketAddr,
}

/// Tells of the node and notes others until `shutdown`; then says good-bye. Does nothing where the node listens on
/// loopback alone. What can't be opened is logged and done without.
pub async fn run(node: Node, options: Options, shutdown: CancellationToken) {
    if options.https.ip().to_canonical().is_loopback() {
        tracing::debug!("a node on loopback is not told of to others");
        return shutdown.cancelled().await;
    }
    let voice = Voice::new(node.clone(), options);
    let mut discovery = Discovery::new(node.peers().clone(), Some(voice));
    discovery.open();
    if discovery.ports.is_empty() {
        tracing::warn!("the local network can't be used: others will not find this node by themselves");
    }
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = discovery.turn() => {}
        }
    }
    discovery.good_bye();
}

/// Asks the local network who is there, for as long as `patience`.
///
/// # Errors
/// Where no socket can be opened at all.
pub async fn look(patience: Duration) -> io::Result<Vec<Peer>> {
    // The table leaves out its own node; nobody has this id, which is no key.
    let nobody = NodeId::from_bytes([0; 32]);
    let mut discovery = Discovery::new(Peers::new(nobody, Clock::system()), None);
    discovery.open();
    if discovery.ports.is_empty() {
        return Err(io::Error::other("no UDP socket could be opened"));
    }
    let turning = async {
        loop {
            discovery.turn().await;
        }
    };
    // It turns until the patience is over.
    let _over: Result<(), _> = timeout(patience, turning).await;
    Ok(discovery.peers.list())
}

/// The half that tells of the node.
struct Voice {
    node: Node,
    options: Options,
    responder: Responder,
    answerer: Answerer,
}

struct Discovery {
    peers: Peers,
    voice: Option<Voice>,
    browser: Browser,
    asker: Asker,
    links: Vec<Link>,
    ports: Vec<Port>,
    watch: Option<Watch>,
    started: Instant,
    queries: u32,
    query_at: Duration,
    look_at: Duration,
    buffer: Vec<u8>,
}

impl Voice {
    fn new(node: Node, options: Options) -> Voice {
        let services = services(&node, &options);
        Voice {
            responder: Responder::new(node.identity().node_id(), services, seed()),
            answerer: Answerer::default(),
            node,
            options,
        }
    }

    /// The one address that is listened on, unless it is all of them.
    fn only(&self) -> Option<IpAddr> {
        let ip = self.options.https.ip();
        (!ip.is_unspecified()).then_some(ip)
    }

    fn beacon(&self) -> Beacon {
        Beacon {
            node_id: self.node.identity().node_id(),
            host: self.responder.host(),
            https_port: self.options.https.port(),
            is_claimed: self.node.claim().is_claimed(),
        }
    }
}

impl Discovery {
    fn new(peers: Peers, voice: Option<Voice>) -> Discovery {
        Discovery {
            peers,
            voice,
            browser: Browser::new(seed()),
            asker: Asker::default(),
            links: Vec::new(),
            ports: Vec::new(),
            watch: None,
            started: Instant::now(),
            queries: 0,
            query_at: Duration::ZERO,
            look_at: LOOK_AGAIN,
            // One more than is taken, so that what was cut can be told.
            buffer: vec![0; MESSAGE_BYTES_MAX + 1],
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn open(&mut self) {
        let mut wanted = vec![(Role::Mdns, MDNS_PORT), (Role::Ask, 0)];
        if self.voice.is_some() {
            wanted.push((Role::Answer, BEACON_PORT));
        }
        for family in [Family::V4, Family::V6] {
            for (role, port) in &wanted {
                match Port::bind(family, *role, *port) {
                    Ok(port) => self.ports.push(port),
                    Err(error) => tracing::debug!(?family, ?role, %error, "a port of discovery is not used"),
                }
            }
        }
        self.watch = Watch::new()
            .inspect_err(|error| tracing::debug!(%error, "interfaces are looked at now and then"))
            .ok();
        self.find_links();
    }

    /// One turn of the loop: waits for whatever comes next, and deals with it. May be cancelled.
    async fn turn(&mut self) {
        let now = self.now();
        let paused = self.ports.iter_mut().filter_map(|port| port.pause(now)).min();
        let responder = self.voice.as_ref().and_then(|voice| voice.responder.next_due());
        let next = [
            Some(self.look_at),
            Some(self.query_at),
            paused,
            self.browser.next_due(),
            responder,
        ];
        let next = next.into_iter().flatten().min().unwrap_or(self.look_at);
        let watch = self.watch.as_ref();
        let changed = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => self.find_links(),
            index = any_readable(&mut self.ports, now) => self.read(index),
            () = sleep_until(self.started + next) => {}
        }
        self.due();
    }

    /// What the time brings.
    fn due(&mut self) {
        let now = self.now();
        if now >= self.look_at {
            self.look_at = now + LOOK_AGAIN;
            if self.watch.is_none() {
                self.find_links();
            }
            if let Some(voice) = &mut self.voice {
                let services = services(&voice.node, &voice.options);
                voice.responder.set_services(services, now);
            }
        }
        let mut outgoing = self.browser.due(now);
        if let Some(voice) = &mut self.voice {
            outgoing.extend(voice.responder.due(now));
        }
        self.multicast(&outgoing);
        if now >= self.query_at {
            self.query();
        }
    }

    /// Takes over the interfaces that there are now.
    fn find_links(&mut self) {
        let only = self.voice.as_ref().and_then(Voice::only);
        let mut found = match links(only) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the interfaces can't be listed");
                return;
            }
        };
        // A node that listens on IPv4 alone is not told of with addresses where nobody answers.
        if self
            .voice
            .as_ref()
            .is_some_and(|voice| voice.options.https.is_ipv4())
        {
            found.iter_mut().for_each(|link| link.v6.clear());
            found.retain(|link| !link.v4.is_empty());
        }
        if found == self.links {
            return;
        }
        tracing::debug!(links = ?found, "the interfaces changed");
        self.links = found;
        for port in &self.ports {
            if let Some(group) = group(port) {
                self.links.iter().for_each(|link| port.join(group, link));
            }
        }
        let now = self.now();
        self.browser
            .set_links(self.links.iter().map(|link| link.index).collect(), now);
        if let Some(voice) = &mut self.voice {
            voice.responder.set_links(&self.links, now);
        }
        self.queries = 0;
        self.query_at = now;
    }

    /// Reads what one port has.
    fn read(&mut self, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let now = self.now();
            let port = &mut self.ports[index];
            match port.receive(&mut buffer, &self.links, now) {
                None => break,
                Some(None) => {}
                Some(Some((bytes, origin))) => self.received(index, bytes, &origin, now),
            }
        }
        self.buffer = buffer;
    }

    fn received(&mut self, index: usize, bytes: &[u8], origin: &Origin, now: Duration) {
        match self.ports[index].role {
            Role::Mdns => self.heard(bytes, origin, now),
            Role::Answer => {
                let Some(voice) = &mut self.voice else {
                    return;
                };
                let beacon = voice.beacon();
                if let Some(answer) = voice.answerer.received(bytes, origin, &beacon, now) {
                    self.ports[index].send(&answer, origin.source, origin.link);
                }
            }
            Role::Ask => {
                if let Some(beacon) = self.asker.received(bytes, origin) {
                    self.peers.saw(sighting(beacon, origin));
                }
            }
        }
    }

    fn heard(&mut self, bytes: &[u8], origin: &Origin, now: Duration) {
        if !origin.may_ask() {
            return;
        }
        let Some(message) = Message::parse(bytes) else {
            return;
        };
        // An answer from elsewhere than the port of mDNS is none (RFC 6762, section 6).
        if message.is_response && !(origin.is_on_link() && origin.source.port() == MDNS_PORT) {
            return;
        }
        for found in self.browser.received(origin.link, &message, now) {
            match found {
                Found::Here(sighting) => self.peers.saw(sighting),
                Found::Gone(node) => self.peers.left(&node),
            }
        }
        if let Some(voice) = &mut self.voice {
            let before = voice.responder.host();
            voice.responder.received(origin.link, &message, now);
            let host = voice.responder.host();
            if host != before {
                tracing::warn!(%before, %host, "another machine has the name of this node on the local network");
                self.peers.rename(host);
            }
        }
    }

    fn multicast(&self, outgoing: &[Outgoing]) {
        for Outgoing { link, message } in outgoing {
            let bytes = message.to_bytes();
            for port in self.ports.iter().filter(|port| port.role == Role::Mdns) {
                if let (Some(group), true) = (group(port), self.has_family(*link, port.family)) {
                    port.send(&bytes, SocketAddr::new(group, MDNS_PORT), *link);
                }
            }
        }
    }

    /// Asks the beacon on all links.
    fn query(&mut self) {
        let again = if self.queries < BEACON_FIRST_QUERIES {
            BEACON_FIRST
        } else {
            BEACON_EVERY
        };
        self.queries = self.queries.saturating_add(1);
        self.query_at = self.now() + again;
        let mut nonce = Nonce::default();
        if getrandom::fill(&mut nonce).is_err() {
            return;
        }
        let query = self.asker.query(nonce);
        for port in self.ports.iter().filter(|port| port.role == Role::Ask) {
            let groups: &[IpAddr] = match port.family {
                Family::V4 => &[IpAddr::V4(udp::GROUP_V4), IpAddr::V4(Ipv4Addr::BROADCAST)],
                Family::V6 => &[IpAddr::V6(udp::GROUP_V6)],
            };
            for link in self
                .links
                .iter()
                .filter(|link| self.has_family(link.index, port.family))
            {
                for group in groups {
                    port.send(&query, SocketAddr::new(*group, BEACON_PORT), link.index);
                }
            }
        }
    }

    fn has_family(&self, link: u32, family: Family) -> bool {
        let mut links = self.links.iter();
        links
            .find(|candidate| candidate.index == link)
            .is_some_and(|link| match family {
                Family::V4 => !link.v4.is_empty(),
                Family::V6 => !link.v6.is_empty(),
            })
    }

    fn good_bye(&mut self) {
        if let Some(voice) = &self.voice {
            self.multicast(&voice.responder.good_bye());
        }
    }
}

/// The group that a port listens to beside its own address.
fn group(port: &Port) -> Option<IpAddr> {
    match (port.role, port.family) {
        (Role::Mdns, Family::V4) => Some(mdns::GROUP_V4.into()),
        (Role::Mdns, Family::V6) => Some(mdns::GROUP_V6.into()),
        (Role::Answer, Family::V4) => Some(udp::GROUP_V4.into()),
        (Role::Answer, Family::V6) => Some(udp::GROUP_V6.into()),
        (Role::Ask, _) => None,
    }
}

/// What the node announces.
fn services(node: &Node, options: &Options) -> Vec<Service> {
    let claimed = u8::from(node.claim().is_claimed());
    let mut services = vec![Service {
        kind: mdns::REFUGE,
        port: options.https.port(),
        texts: vec![
            format!("id={}", node.identity().node_id()),
            "v=1".to_owned(),
            format!("claimed={claimed}"),
        ],
    }];
    if !options.http.ip().to_canonical().is_loopback() {
        services.push(Service {
            kind: mdns::HTTP,
            port: options.http.port(),
            texts: vec!["path=/".to_owned()],
        });
    }
    services
}

fn sighting(beacon: Beacon, origin: &Origin) -> Sighting {
    let mut https = origin.source;
    https.set_port(beacon.https_port);
    Sighting {
        node: beacon.node_id,
        host: beacon.host,
        is_claimed: beacon.is_claimed,
        https: vec![https],
        found_by: FoundBy::Beacon,
        believed: BEACON_BELIEVED,
    }
}

/// Chance for timing alone: without any, machines only answer closer together.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_default()
}
