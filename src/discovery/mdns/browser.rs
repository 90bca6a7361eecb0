//! The finding half: asks for nodes now and then, and puts together what others say of themselves.
//!
//! Everything heard is a hint that anybody on the link could have sent. It is remembered in a table of fixed size, for
//! no longer than [`BELIEVED`], whatever its TTL says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::message::{Data, Message, Name, Question, Record, kind};
use super::{Jitter, Outgoing, REFUGE, service_name};
use crate::id::{HostName, NodeId};
use crate::node::{FoundBy, Sighting};

/// The first question is asked after that time at most, so that machines that start together don't ask together.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// The next follows after a second, and each further one after twice the time, up to this (RFC 6762, section 5.2).
const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(4 * 60);

/// How long a node is believed to be there after it was last heard of: two questions that nobody answered.
const BELIEVED: Duration = Duration::from_secs(10 * 60);

/// Nodes remembered. A link with more has somebody who makes them up.
const INSTANCES_MAX: usize = 256;

/// Addresses of one node that are kept.
const ADDRESSES_MAX: usize = 8;

/// How often what is missing of a node is asked for, and when again.
const FOLLOW_UPS: u8 = 3;
const FOLLOW_UP_GAP: Duration = Duration::from_secs(1);

/// Questions in one message: what more are missing is asked for in the next.
const QUESTIONS_MAX: usize = 16;

/// What a message told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A node is there.
    Here(Sighting),
    /// A node said good-bye.
    Gone(NodeId),
}

/// An instance of the service, as far as it is known.
#[derive(Debug)]
struct Instance {
    link: u32,
    until: Duration,
    place: Option<(u16, Name)>,
    texts: Option<Texts>,
    addresses: Vec<IpAddr>,
    follow_ups: u8,
    follow_up_at: Duration,
}

/// What a node says of itself beside its place.
#[derive(Debug, Clone, Copy)]
struct Texts {
    node: NodeId,
    is_claimed: bool,
}

/// Finds nodes.
#[derive(Debug)]
pub(crate) struct Browser {
    service: Name,
    links: Vec<u32>,
    instances: BTreeMap<Name, Instance>,
    ask_at: Duration,
    ask_again: Duration,
    jitter: Jitter,
}

impl Browser {
    /// Asks nothing until it has links.
    pub(crate) fn new(seed: u64) -> Browser {
        Browser {
            service: service_name(REFUGE),
            links: Vec::new(),
            instances: BTreeMap::new(),
            ask_at: Duration::MAX,
            ask_again: ASK_AGAIN_MIN,
            jitter: Jitter(seed),
        }
    }

    /// Goes on with these links. Where there is a new one, it asks again soon.
    pub(crate) fn set_links(&mut self, links: Vec<u32>, now: Duration) {
        self.instances
            .retain(|_, instance| links.contains(&instance.link));
        if links.iter().any(|link| !self.links.contains(link)) {
            self.ask_at = now + self.jitter.between(Duration::ZERO, FIRST_WAIT);
            self.ask_again = ASK_AGAIN_MIN;
        }
        self.links = links;
    }

    /// When [`Browser::due`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let follow_ups = self
            .instances
            .values()
            .filter(|instance| instance.is_incomplete());
        let follow_ups = follow_ups.map(|instance| instance.follow_up_at);
        let ask = (!self.links.is_empty()).then_some(self.ask_at);
        follow_ups.chain(ask).min()
    }

    /// What is to be asked at this time.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Outgoing> {
        self.instances.retain(|_, instance| instance.until > now);
        let mut questions = self.missing(now);
        if now >= self.ask_at {
            let question = Question {
                name: self.service.clone(),
                kind: kind::PTR,
            };
            questions.extend(self.links.iter().map(|link| (*link, question.clone())));
            self.ask_at = now + self.ask_again;
            self.ask_again = (self.ask_again * 2).min(ASK_AGAIN_MAX);
        }
        let mut messages: BTreeMap<u32, Message> = BTreeMap::new();
        for (link, question) in questions {
            messages.entry(link).or_default().questions.push(question);
        }
        messages
            .into_iter()
            .map(|(link, message)| Outgoing { link, message })
            .collect()
    }

    /// Hears a message that came in by `link`.
    pub(crate) fn received(&mut self, link: u32, message: &Message, now: Duration) -> Vec<Found> {
        if !message.is_response || !self.links.contains(&link) {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut touched = Vec::new();
        for record in message.records() {
            if let Data::Ptr(name) = &record.data
                && record.name == self.service
            {
                if record.ttl_s == 0 {
                    found.extend(self.forget(name));
                } else if self.remember(link, name, now) {
                    touched.push(name.clone());
                }
            }
        }
        for record in message.records().filter(|record| record.ttl_s > 0) {
            if let Some(instance) = self.instances.get_mut(&record.name) {
                instance.learn(&record.data);
                touched.push(record.name.clone());
            }
        }
        for (name, instance) in &mut self.instances {
            if instance.link == link && instance.learn_addresses(message) {
                touched.push(name.clone());
            }
        }
        touched.sort();
        touched.dedup();
        let complete = touched
            .iter()
            .filter_map(|name| self.instances.get(name)?.sighting());
        found.extend(complete.map(Found::Here));
        found
    }

    /// Whether there is a place for it.
    fn remember(&mut self, link: u32, name: &Name, now: Duration) -> bool {
        let until = now + BELIEVED;
        if let Some(instance) = self.instances.get_mut(name) {
            instance.until = until;
            return true;
        }
        if self.instances.len() >= INSTANCES_MAX || !name.is_directly_below(&self.service) {
            return false;
        }
        self.instances.insert(
            name.clone(),
            Instance {
                link,
                until,
                place: None,
                texts: None,
                addresses: Vec::new(),
                follow_ups: 0,
                follow_up_at: now,
            },
        );
        true
    }

    fn forget(&mut self, name: &Name) -> Option<Found> {
        let gone = self.instances.remove(name)?;
        gone.texts.map(|texts| Found::Gone(texts.node))
    }

    /// Questions for what is missing, each with its link.
    fn missing(&mut self, now: Duration) -> Vec<(u32, Question)> {
        let mut questions = Vec::new();
        for (name, instance) in &mut self.instances {
            if !instance.is_incomplete() || instance.follow_up_at > now {
                continue;
            }
            if questions.len() >= QUESTIONS_MAX {
                break;
            }
            instance.follow_ups += 1;
            instance.follow_up_at = now + FOLLOW_UP_GAP;
            let missing = instance.missing(name);
            questions.extend(missing.into_iter().map(|question| (instance.link, question)));
        }
        questions
    }
}

impl Instance {
    /// Whether something is missing that is still worth asking for.
    fn is_incomplete(&self) -> bool {
        let is_whole = self.place.is_some() && self.texts.is_some() && !self.addresses.is_empty();
        !is_whole && self.follow_ups < FOLLOW_UPS
    }

    fn missing(&self, name: &Name) -> Vec<Question> {
        let ask = |name: &Name, kind| Question {
            name: name.clone(),
            kind,
        };
        let mut missing = Vec::new();
        if self.place.is_none() {
            missing.push(ask(name, kind::SRV));
        }
        if self.texts.is_none() {
            missing.push(ask(name, kind::TXT));
        }
        if let Some((_, host)) = self.place.as_ref().filter(|_| self.addresses.is_empty()) {
            missing.extend([ask(host, kind::A), ask(host, kind::AAAA)]);
        }
        missing
    }

    fn learn(&mut self, data: &Data) {
        match data {
            Data::Srv { port, host } => {
                let place = Some((*port, host.clone()));
                if self.place != place {
                    self.addresses.clear();
                    self.place = place;
                }
            }
            Data::Txt(texts) => self.texts = read(texts),
            Data::A(_) | Data::Ptr(_) | Data::Aaaa(_) | Data::Nsec { .. } | Data::Other { .. } => {}
        }
    }

    /// Whether the message says anything of its host's addresses.
    fn learn_addresses(&mut self, message: &Message) -> bool {
        let Some((_, host)) = &self.place else {
            return false;
        };
        let of_host = |record: &&Record| record.name == *host && record.ttl_s > 0;
        let told: Vec<_> = message.records().filter(of_host).filter_map(address).collect();
        if told.is_empty() {
            return false;
        }
        for is_v4 in [true, false] {
            // Addresses are told whole; those of the other family may come in another message.
            if told.iter().any(|address| address.is_ipv4() == is_v4) {
                self.addresses.retain(|address| address.is_ipv4() != is_v4);
            }
        }
        self.addresses.extend(told);
        self.addresses.sort();
        self.addresses.dedup();
        self.addresses.truncate(ADDRESSES_MAX);
        true
    }

    /// What is known, once it is enough.
    fn sighting(&self) -> Option<Sighting> {
        let (port, host) = self.place.as_ref()?;
        let texts = self.texts?;
        let host: HostName = host.to_string().parse().ok()?;
        if self.addresses.is_empty() {
            return None;
        }
        Some(Sighting {
            node: texts.node,
            host,
            is_claimed: texts.is_claimed,
            https: self.addresses.iter().map(|ip| self.socket(*ip, *port)).collect(),
            found_by: FoundBy::Announcement,
            believed: BELIEVED,
        })
    }

    /// An address of the link alone needs to say which.
    fn socket(&self, ip: IpAddr, port: u16) -> SocketAddr {
        match ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, self.link).into(),
            ip => SocketAddr::new(ip, port),
        }
    }
}

/// An address where something can listen.
fn address(record: &Record) -> Option<IpAddr> {
    let address = match record.data {
        Data::A(address) => IpAddr::V4(address),
        Data::Aaaa(address) => IpAddr::V6(address),
        _ => return None,
    };
    let is_nobodys = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => v6 == Ipv6Addr::UNSPECIFIED || v6.to_ipv4_mapped().is_some(),
    };
    (!is_nobodys && !address.is_multicast() && !address.is_loopback()).then_some(address)
}

/// Reads `id=…` and `claimed=…`; `None` without a node id. Of a key that is there twice the first counts (RFC 6763,
/// section 6.4).
fn read(texts: &[Vec<u8>]) -> Option<Texts> {
    let value = |key: &str| {
        texts.iter().find_map(|text| {
            let text = std::str::from_utf8(text).ok()?;
            let (found, value) = text.split_once('=')?;
            found.eq_ignore_ascii_case(key).then_some(value)
        })
    };
    Some(Texts {
        node: value("id")?.parse().ok()?,
        is_claimed: value("claimed") == Some("1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u32 = 3;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn name(label: &str) -> Name {
        Name::of(&[label, REFUGE, "_tcp", "local"]).unwrap()
    }

    fn record(name: &Name, data: Data) -> Record {
        Record {
            name: name.clone(),
            ttl_s: 120,
            is_whole: true,
            data,
        }
    }

    fn pointer(label: &str) -> Record {
        record(&service_name(REFUGE), Data::Ptr(name(label)))
    }

    fn place(label: &str) -> Record {
        let host = Name::of(&[label, "local"]).unwrap();
        record(&name(label), Data::Srv { port: 443, host })
    }

    fn texts(label: &str, node: u8) -> Record {
        let id = format!("id={}", NodeId::from_bytes([node; 32]));
        record(
            &name(label),
            Data::Txt(vec![id.into_bytes(), b"claimed=1".to_vec()]),
        )
    }

    fn addressed(label: &str) -> Record {
        let host = Name::of(&[label, "local"]).unwrap();
        record(&host, Data::A(Ipv4Addr::new(192, 0, 2, 1)))
    }

    fn says(answers: Vec<Record>) -> Message {
        Message {
            is_response: true,
            answers,
            ..Message::default()
        }
    }

    fn browser() -> Browser {
        let mut browser = Browser::new(1);
        browser.set_links(vec![LINK], at(0));
        browser
    }

    #[test]
    fn a_node_that_says_everything_at_once_is_found_and_gone_when_it_says_so() {
        let mut browser = browser();
        let message = says(vec![pointer("a"), place("a"), texts("a", 1), addressed("a")]);
        let found = browser.received(LINK, &message, at(1));
        let node = NodeId::from_bytes([1; 32]);
        let [Found::Here(sighting)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((sighting.node, sighting.is_claimed), (node, true));
        assert_eq!(sighting.https, ["192.0.2.1:443".parse().unwrap()]);
        assert!(
            browser.received(9, &message, at(1)).is_empty(),
            "a link it does not use"
        );
        let good_bye = Record {
            ttl_s: 0,
            ..pointer("a")
        };
        assert_eq!(
            browser.received(LINK, &says(vec![good_bye]), at(2)),
            [Found::Gone(node)]
        );
    }

    #[test]
    fn what_is_missing_is_asked_for_step_by_step_and_not_for_ever() {
        let mut browser = browser();
        let asked = |browser: &mut Browser, now| -> Vec<u16> {
            let sent = browser.due(now);
            sent.iter()
                .flat_map(|out| &out.message.questions)
                .map(|question| question.kind)
                .collect()
        };
        assert_eq!(asked(&mut browser, at(1)), [kind::PTR]);
        browser.received(LINK, &says(vec![pointer("a")]), at(1));
        assert_eq!(asked(&mut browser, at(1)), [kind::SRV, kind::TXT]);
        browser.received(LINK, &says(vec![place("a")]), at(2));
        browser.received(LINK, &says(vec![texts("a", 1)]), at(2));
        assert!(asked(&mut browser, at(2)).ends_with(&[kind::PTR]));
        let found = browser.received(LINK, &says(vec![addressed("a")]), at(3));
        assert!(matches!(found[..], [Found::Here(_)]), "{found:?}");
        browser.received(LINK, &says(vec![pointer("mute")]), at(3));
        let follow_ups = (3..60).flat_map(|second| asked(&mut browser, at(second)));
        assert_eq!(
            follow_ups.filter(|kind| *kind == kind::TXT).count(),
            usize::from(FOLLOW_UPS)
        );
    }

    #[test]
    fn questions_become_rare_and_a_new_link_is_asked_at_once() {
        let mut browser = browser();
        let mut asked = Vec::new();
        while let Some(next) = browser.next_due().filter(|next| *next < at(3600)) {
            asked.push(next.as_secs());
            assert_eq!(browser.due(next).len(), 1);
        }
        assert_eq!(asked[..6], [0, 1, 3, 7, 15, 31]);
        assert!(asked.len() < 25, "{asked:?}");
        browser.set_links(vec![LINK, 4], at(3600));
        assert!(browser.next_due().unwrap() <= at(3600) + FIRST_WAIT);
    }

    #[test]
    fn a_flood_of_made_up_nodes_takes_no_more_room_and_is_forgotten() {
        let mut browser = browser();
        for made_up in 0..2000_u32 {
            let label = format!("n{made_up}");
            let mut message = says(vec![pointer(&label), place(&label), texts(&label, 1)]);
            for host in 0..100 {
                let address = Data::A(Ipv4Addr::new(192, 0, 2, host));
                message
                    .answers
                    .push(record(&Name::of(&[&label, "local"]).unwrap(), address));
            }
            for record in &mut message.answers {
                record.ttl_s = u32::MAX;
            }
            browser.received(LINK, &message, at(1));
        }
        assert_eq!(browser.instances.len(), INSTANCES_MAX);
        let most = browser
            .instances
            .values()
            .map(|instance| instance.addresses.len())
            .max();
        assert_eq!(most, Some(ADDRESSES_MAX));
        browser.due(at(1) + BELIEVED);
        assert_eq!(browser.instances.len(), 0);
    }

    #[test]
    fn names_and_addresses_that_nobody_can_have_are_left_out() {
        let mut browser = browser();
        let host = Name::of(&["evil\u{1b}[2J", "local"]).unwrap();
        let escape = record(
            &name("a"),
            Data::Srv {
                port: 1,
                host: host.clone(),
            },
        );
        let at_host = record(&host, Data::A(Ipv4Addr::new(192, 0, 2, 1)));
        let message = says(vec![pointer("a"), escape, texts("a", 1), at_host]);
        assert_eq!(browser.received(LINK, &message, at(1)), []);
        let host = Name::of(&["b", "local"]).unwrap();
        for nobody in [
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 1),
        ] {
            let message = says(vec![
                pointer("b"),
                place("b"),
                texts("b", 2),
                record(&host, Data::A(nobody)),
            ]);
            assert_eq!(browser.received(LINK, &message, at(1)), []);
        }
    }
}
