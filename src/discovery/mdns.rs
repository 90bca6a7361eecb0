//! Announcing the node by dns-sd over multicast DNS, and finding others that do (RFC 6762, RFC 6763).
//!
//! Pure: messages, interfaces and the time come in, messages and sightings come out. What goes beyond the RFCs is there
//! for machines that mean no good. Nothing is ever answered by unicast, which may leave the link and is larger than the
//! question; what is remembered of others is bounded, whatever they say. A general library did neither, so that the few
//! messages that two services and one question take are written here.

pub mod message;

mod browser;
mod responder;

pub(super) use browser::{Browser, Found};
pub(super) use responder::{Responder, Service};

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use self::message::{Message, Name};

/// The port of multicast DNS.
pub(super) const MDNS_PORT: u16 = 5353;

/// Its groups.
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// The service that nodes are found by.
pub(super) const REFUGE: &str = "_refuge";

/// The service that browsers of people list.
pub(super) const HTTP: &str = "_http";

/// A message for the groups of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// The interface.
    pub(super) link: u32,
    /// What to send.
    pub(super) message: Message,
}

/// `_refuge._tcp.local` for `_refuge`.
fn service_name(kind: &str) -> Name {
    Name::of(&[kind, "_tcp", "local"]).expect("our services have short names")
}

/// Spreads what many machines would do at once. No secret depends on it.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// A duration of `least` up to `most`, by the SplitMix64 generator.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let span = u64::try_from((most - least).as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        least + Duration::from_micros(mixed % span)
    }
}
