//! The announcing half: makes sure that the node's names are its own, says them, and answers who asks.
//!
//! Names are probed for and announced on each link by itself (RFC 6762, section 8). Where another machine has one of
//! them, the node takes the next on all its links (section 9): `refuge-abcdef-2`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::message::{Data, Message, Name, Question, Record, kind};
use super::{Jitter, Outgoing, service_name};
use crate::discovery::link::Link;
use crate::id::{HostName, NodeId};

/// Probes before a name is taken, and the time between them (RFC 6762, section 8.1).
const PROBES: u8 = 3;
const PROBE_GAP: Duration = Duration::from_millis(250);

/// How long who lost a tie waits before it probes again (section 8.2).
const TIE_WAIT: Duration = Duration::from_secs(1);

/// Announcements of new names, and the time between them (section 8.3).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCEMENT_GAP: Duration = Duration::from_secs(1);

/// Answers that others may have as well are spread over this time (section 6).
const SHARED_WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));

/// What was just said is not said again on a link (section 6), unless somebody is about to take our name.
const SAID_GAP: Duration = Duration::from_secs(1);
const DEFENCE_GAP: Duration = Duration::from_millis(250);

/// That many conflicts in that time, and a node waits before each further one (section 8.1, which asks for less).
const CONFLICTS: usize = 15;
const CONFLICTS_WITHIN: Duration = Duration::from_secs(10 * 60);
const CONFLICT_WAIT: Duration = Duration::from_secs(5);

/// How long others may believe records that hold a host name, and all others, in seconds (section 10).
const HOST_TTL_S: u32 = 120;
const OTHER_TTL_S: u32 = 4500;

/// Names tried one after the other; then it begins again with the first.
const ATTEMPTS: u32 = 99;

/// One service of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Such as `_http`.
    pub(crate) kind: &'static str,
    /// Where it listens.
    pub(crate) port: u16,
    /// What else there is to say: `key=value` each.
    pub(crate) texts: Vec<String>,
}

/// Something the node can say, by the index of its service where it is about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    /// That there are such services.
    Kind(usize),
    /// That the node has one.
    Instance(usize),
    /// Where it is.
    Place(usize),
    /// What else it says.
    Texts(usize),
    /// That there is nothing else of its name.
    InstanceKinds(usize),
    /// The addresses of the host.
    V4,
    V6,
    /// That there is nothing else of the host's name.
    HostKinds,
}

#[derive(Debug)]
struct On {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    phase: Phase,
    /// Answers that wait, and until when.
    waiting: BTreeSet<Fact>,
    answer_at: Duration,
    /// When what was said last.
    said: BTreeMap<Fact, Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Probing { sent: u8, next: Duration },
    Announcing { sent: u8, next: Duration },
    Settled,
}

/// Announces one node.
#[derive(Debug)]
pub(crate) struct Responder {
    node: NodeId,
    /// How often the name had to be changed: `None` is the node's own.
    attempt: Option<u32>,
    services: Vec<Service>,
    links: BTreeMap<u32, On>,
    conflicts: VecDeque<Duration>,
    jitter: Jitter,
}

impl Responder {
    /// Announces nothing until it has links.
    pub(crate) fn new(node: NodeId, services: Vec<Service>, seed: u64) -> Responder {
        Responder {
            node,
            attempt: None,
            services,
            links: BTreeMap::new(),
            conflicts: VecDeque::new(),
            jitter: Jitter(seed),
        }
    }

    /// The name it announces now.
    pub(crate) fn host(&self) -> HostName {
        HostName::of_node(&self.node, self.attempt)
    }

    /// Goes on with these links: probes on those that are new or have other addresses than before.
    pub(crate) fn set_links(&mut self, links: &[Link], now: Duration) {
        self.links
            .retain(|index, _| links.iter().any(|link| link.index == *index));
        for link in links {
            let (v4, v6) = (link.v4_addresses(), link.v6_addresses());
            let known = self.links.get(&link.index);
            if known.is_some_and(|on| on.v4 == v4 && on.v6 == v6) {
                continue;
            }
            let phase = self.probe_from(now);
            let on = On {
                v4,
                v6,
                phase,
                waiting: BTreeSet::new(),
                answer_at: now,
                said: BTreeMap::new(),
            };
            self.links.insert(link.index, on);
        }
    }

    /// Says something else of its services from now on.
    pub(crate) fn set_services(&mut self, services: Vec<Service>, now: Duration) {
        if self.services == services {
            return;
        }
        self.services = services;
        for on in self.links.values_mut().filter(|on| !on.is_probing()) {
            on.phase = Phase::Announcing { sent: 0, next: now };
        }
    }

    /// When [`Responder::due`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.links.values().filter_map(On::next_due).min()
    }

    /// What is to be sent at this time.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Outgoing> {
        let indexes: Vec<u32> = self.links.keys().copied().collect();
        indexes
            .into_iter()
            .flat_map(|index| [self.advance(index, now), self.answer_waiting(index, now)])
            .flatten()
            .collect()
    }

    /// Hears a message that came in by `link`.
    pub(crate) fn received(&mut self, link: u32, message: &Message, now: Duration) {
        if !self.links.contains_key(&link) {
            return;
        }
        if message.is_response {
            if message.records().any(|record| self.is_contradicted_by(record)) {
                self.conflict(now);
            }
        } else if self.links[&link].is_probing() {
            self.break_tie(link, message, now);
        } else {
            self.question(link, message, now);
        }
    }

    /// What to send before the node goes.
    pub(crate) fn good_bye(&self) -> Vec<Outgoing> {
        let announced = self.links.iter().filter(|(_, on)| !on.is_probing());
        announced
            .map(|(index, on)| {
                let mut answers = self.records(on, self.facts());
                for record in &mut answers {
                    record.ttl_s = 0;
                }
                respond(*index, answers, Vec::new())
            })
            .collect()
    }

    /// Goes on with probing and announcing.
    fn advance(&mut self, index: u32, now: Duration) -> Option<Outgoing> {
        let on = self.links.get(&index)?;
        match on.phase {
            Phase::Probing { sent, next } if now >= next && sent < PROBES => {
                let probe = Outgoing {
                    link: index,
                    message: self.probe(on),
                };
                self.set_phase(
                    index,
                    Phase::Probing {
                        sent: sent + 1,
                        next: now + PROBE_GAP,
                    },
                );
                Some(probe)
            }
            Phase::Probing { next, .. } if now >= next => {
                self.set_phase(index, Phase::Announcing { sent: 0, next: now });
                self.advance(index, now)
            }
            Phase::Announcing { sent, next } if now >= next => {
                let announcement = respond(index, self.records(on, self.facts()), Vec::new());
                let facts = self.facts();
                let phase = match sent + 1 {
                    ANNOUNCEMENTS => Phase::Settled,
                    sent => Phase::Announcing {
                        sent,
                        next: now + ANNOUNCEMENT_GAP,
                    },
                };
                self.set_phase(index, phase);
                self.note_said(index, facts, now);
                Some(announcement)
            }
            Phase::Probing { .. } | Phase::Announcing { .. } | Phase::Settled => None,
        }
    }

    fn answer_waiting(&mut self, index: u32, now: Duration) -> Option<Outgoing> {
        let on = self.links.get_mut(&index)?;
        if on.waiting.is_empty() || now < on.answer_at {
            return None;
        }
        let facts: Vec<Fact> = std::mem::take(&mut on.waiting).into_iter().collect();
        let on = self.links.get(&index)?;
        let besides = self.besides(&facts);
        let answer = respond(index, self.records(on, facts.clone()), self.records(on, besides));
        self.note_said(index, facts, now);
        Some(answer)
    }

    fn set_phase(&mut self, index: u32, phase: Phase) {
        if let Some(on) = self.links.get_mut(&index) {
            on.phase = phase;
        }
    }

    fn note_said(&mut self, index: u32, facts: Vec<Fact>, now: Duration) {
        if let Some(on) = self.links.get_mut(&index) {
            on.said.extend(facts.into_iter().map(|fact| (fact, now)));
        }
    }

    /// Puts what answers a question in line, without what the asker knows or everyone just heard.
    fn question(&mut self, link: u32, message: &Message, now: Duration) {
        let Some(on) = self.links.get(&link) else {
            return;
        };
        // Who probes for our name asks with what it wants to say.
        let is_probe = !message.authorities.is_empty();
        let gap = if is_probe { DEFENCE_GAP } else { SAID_GAP };
        let mut facts: BTreeSet<Fact> = message
            .questions
            .iter()
            .flat_map(|question| self.answers_to(on, question))
            .collect();
        facts.retain(|fact| {
            on.said
                .get(fact)
                .is_none_or(|then| now.saturating_sub(*then) >= gap)
        });
        facts.retain(|fact| {
            let records = self.records(on, vec![*fact]);
            !records.is_empty() && !records.iter().all(|record| is_known(record, &message.answers))
        });
        if facts.is_empty() {
            return;
        }
        let is_shared = facts
            .iter()
            .any(|fact| matches!(fact, Fact::Kind(_) | Fact::Instance(_)));
        let wait = if is_shared {
            self.jitter.between(SHARED_WAIT.0, SHARED_WAIT.1)
        } else {
            Duration::ZERO
        };
        let Some(on) = self.links.get_mut(&link) else {
            return;
        };
        let answer_at = now + wait;
        on.answer_at = if on.waiting.is_empty() {
            answer_at
        } else {
            on.answer_at.min(answer_at)
        };
        on.waiting.extend(facts);
    }

    fn answers_to(&self, on: &On, question: &Question) -> Vec<Fact> {
        let mut facts = Vec::new();
        if question.name == self.host_name() {
            let has = [
                (Fact::V4, kind::A, on.v4.is_empty()),
                (Fact::V6, kind::AAAA, on.v6.is_empty()),
            ];
            let wanted = has
                .iter()
                .filter(|(_, kind, is_empty)| question.wants(*kind) && !is_empty);
            facts.extend(wanted.map(|(fact, ..)| *fact));
            if facts.is_empty() {
                facts.push(Fact::HostKinds);
            }
            return facts;
        }
        let all_kinds = Name::of(&["_services", "_dns-sd", "_udp", "local"]).expect("short labels");
        for (index, service) in self.services.iter().enumerate() {
            if question.name == service_name(service.kind) && question.wants(kind::PTR) {
                facts.push(Fact::Instance(index));
            } else if question.name == all_kinds && question.wants(kind::PTR) {
                facts.push(Fact::Kind(index));
            } else if question.name == self.instance(service) {
                let has = [(Fact::Place(index), kind::SRV), (Fact::Texts(index), kind::TXT)];
                let wanted = has.iter().filter(|(_, kind)| question.wants(*kind));
                facts.extend(wanted.map(|(fact, _)| *fact));
                if facts.is_empty() {
                    facts.push(Fact::InstanceKinds(index));
                }
            }
        }
        facts
    }

    /// What saves the next question (RFC 6763, section 12).
    fn besides(&self, facts: &[Fact]) -> Vec<Fact> {
        let mut besides = BTreeSet::new();
        for fact in facts {
            match fact {
                Fact::Instance(index) => {
                    besides.extend([Fact::Place(*index), Fact::Texts(*index), Fact::V4, Fact::V6]);
                }
                Fact::Place(_) | Fact::V4 | Fact::V6 => besides.extend([Fact::V4, Fact::V6]),
                Fact::Kind(_) | Fact::Texts(_) | Fact::InstanceKinds(_) | Fact::HostKinds => {}
            }
        }
        besides.into_iter().filter(|fact| !facts.contains(fact)).collect()
    }

    /// Everything worth announcing.
    fn facts(&self) -> Vec<Fact> {
        let services = 0..self.services.len();
        let of_services = services.flat_map(|index| {
            [
                Fact::Kind(index),
                Fact::Instance(index),
                Fact::Place(index),
                Fact::Texts(index),
            ]
        });
        of_services.chain([Fact::V4, Fact::V6]).collect()
    }

    fn records(&self, on: &On, facts: Vec<Fact>) -> Vec<Record> {
        facts
            .into_iter()
            .flat_map(|fact| self.records_of(on, fact))
            .collect()
    }

    fn records_of(&self, on: &On, fact: Fact) -> Vec<Record> {
        let host = self.host_name();
        let unique = |name: &Name, ttl_s, data| Record {
            name: name.clone(),
            ttl_s,
            is_whole: true,
            data,
        };
        let shared = |name: Name, data| Record {
            name,
            ttl_s: OTHER_TTL_S,
            is_whole: false,
            data,
        };
        let service = |index: usize| &self.services[index];
        match fact {
            Fact::Kind(index) => {
                let all_kinds = Name::of(&["_services", "_dns-sd", "_udp", "local"]).expect("short labels");
                vec![shared(all_kinds, Data::Ptr(service_name(service(index).kind)))]
            }
            Fact::Instance(index) => {
                let instance = self.instance(service(index));
                vec![shared(service_name(service(index).kind), Data::Ptr(instance))]
            }
            Fact::Place(index) => {
                let port = service(index).port;
                vec![unique(
                    &self.instance(service(index)),
                    HOST_TTL_S,
                    Data::Srv { port, host },
                )]
            }
            Fact::Texts(index) => {
                let texts = service(index)
                    .texts
                    .iter()
                    .map(|text| text.clone().into_bytes())
                    .collect();
                vec![unique(
                    &self.instance(service(index)),
                    OTHER_TTL_S,
                    Data::Txt(texts),
                )]
            }
            Fact::V4 => on
                .v4
                .iter()
                .map(|address| unique(&host, HOST_TTL_S, Data::A(*address)))
                .collect(),
            Fact::V6 => on
                .v6
                .iter()
                .map(|address| unique(&host, HOST_TTL_S, Data::Aaaa(*address)))
                .collect(),
            Fact::HostKinds => {
                let kinds = [(kind::A, on.v4.is_empty()), (kind::AAAA, on.v6.is_empty())];
                let kinds = kinds
                    .into_iter()
                    .filter(|(_, is_empty)| !is_empty)
                    .map(|(kind, _)| kind)
                    .collect();
                vec![unique(
                    &host,
                    HOST_TTL_S,
                    Data::Nsec {
                        name: host.clone(),
                        kinds,
                    },
                )]
            }
            Fact::InstanceKinds(index) => {
                let name = self.instance(service(index));
                let kinds = vec![kind::TXT, kind::SRV];
                vec![unique(&name.clone(), HOST_TTL_S, Data::Nsec { name, kinds })]
            }
        }
    }

    fn host_name(&self) -> Name {
        Name::of(&[self.host().label(), "local"]).expect("a host name is short")
    }

    fn instance(&self, service: &Service) -> Name {
        Name::of(&[self.host().label(), service.kind, "_tcp", "local"]).expect("a host name is short")
    }

    /// Asks whether anybody has the names, and says what would be said of them.
    fn probe(&self, on: &On) -> Message {
        let mut wanted = self.records(on, self.facts());
        wanted.retain(|record| record.is_whole);
        let names: BTreeSet<_> = wanted.iter().map(|record| record.name.clone()).collect();
        Message {
            questions: names
                .into_iter()
                .map(|name| Question {
                    name,
                    kind: kind::ANY,
                })
                .collect(),
            authorities: wanted,
            ..Message::default()
        }
    }

    /// Whether somebody else says something of our names. What any of our own links has is ours: two of them may
    /// lead to the same network.
    fn is_contradicted_by(&self, record: &Record) -> bool {
        if record.ttl_s == 0 {
            return false;
        }
        match &record.data {
            Data::A(address) if record.name == self.host_name() => {
                !self.links.values().any(|on| on.v4.contains(address))
            }
            Data::Aaaa(address) if record.name == self.host_name() => {
                !self.links.values().any(|on| on.v6.contains(address))
            }
            Data::Srv { port, host } => self.services.iter().any(|service| {
                record.name == self.instance(service) && (*port != service.port || *host != self.host_name())
            }),
            _ => false,
        }
    }

    /// Who probes loses a name to who says it; who has said it makes sure first.
    fn conflict(&mut self, now: Duration) {
        while self
            .conflicts
            .front()
            .is_some_and(|then| now.saturating_sub(*then) >= CONFLICTS_WITHIN)
        {
            self.conflicts.pop_front();
        }
        let from = if self.conflicts.len() >= CONFLICTS {
            now + CONFLICT_WAIT
        } else {
            now
        };
        // A machine that claims every name is not followed through all of them: no faster than it waits.
        if from > now && self.links.values().any(|on| on.is_waiting(now)) {
            return;
        }
        if self.conflicts.len() < CONFLICTS {
            self.conflicts.push_back(now);
        }
        if self.links.values().any(On::is_probing) {
            let next = self.attempt.map_or(2, |attempt| attempt + 1);
            self.attempt = (next <= ATTEMPTS).then_some(next);
        }
        let phase = self.probe_from(from);
        for on in self.links.values_mut() {
            on.phase = phase;
            on.waiting.clear();
            on.said.clear();
        }
    }

    /// Two probe for one name: whose data is greater has it (section 8.2), the other one looks again after it.
    fn break_tie(&mut self, link: u32, message: &Message, now: Duration) {
        let Some(on) = self.links.get(&link) else {
            return;
        };
        let ours = self.probe(on).authorities;
        let names: BTreeSet<_> = ours.iter().map(|record| record.name.clone()).collect();
        let is_lost = names.iter().any(|name| {
            let theirs = sorted(&message.authorities, name);
            !theirs.is_empty() && theirs.cmp(&sorted(&ours, name)) == Ordering::Greater
        });
        if is_lost {
            let next = now + TIE_WAIT;
            self.set_phase(link, Phase::Probing { sent: 0, next });
        }
    }

    fn probe_from(&mut self, now: Duration) -> Phase {
        let next = now + self.jitter.between(Duration::ZERO, PROBE_GAP);
        Phase::Probing { sent: 0, next }
    }
}

impl On {
    fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing { .. })
    }

    /// Whether its first probe is far off.
    fn is_waiting(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Probing { sent: 0, next } if next > now + PROBE_GAP)
    }

    fn next_due(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Probing { next, .. } | Phase::Announcing { next, .. } => Some(next),
            Phase::Settled => None,
        };
        let answer = (!self.waiting.is_empty()).then_some(self.answer_at);
        phase.into_iter().chain(answer).min()
    }
}

fn respond(link: u32, answers: Vec<Record>, additionals: Vec<Record>) -> Outgoing {
    Outgoing {
        link,
        message: Message {
            is_response: true,
            answers,
            additionals,
            ..Message::default()
        },
    }
}

/// Whether the asker knows it, for long enough (section 7.1).
fn is_known(record: &Record, known: &[Record]) -> bool {
    known.iter().any(|known| {
        known.name == record.name && known.data == record.data && known.ttl_s >= record.ttl_s / 2
    })
}

/// Type and data of the records of a name, in the order they are compared in.
fn sorted(records: &[Record], name: &Name) -> Vec<(u16, Vec<u8>)> {
    let of_name = records.iter().filter(|record| record.name == *name);
    let mut sorted: Vec<_> = of_name
        .map(|record| (record.data.kind(), record.data.to_bytes()))
        .collect();
    sorted.sort();
    sorted
}

#[cfg(test)]
mod tests;
