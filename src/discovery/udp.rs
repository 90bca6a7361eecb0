//! The beacon: asking and answering over UDP, for networks that filter mDNS.
//!
//! Pure: packets and the time come in, packets come out. A node answers only who is on its link, once a second for
//! each address and ten times a second in all, and never with more bytes than it was asked with: nobody can use it to
//! flood somebody else.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::link::Origin;
use super::packet::{Beacon, Nonce, Packet};

/// Where nodes listen for queries; "REFU" on a telephone.
pub(super) const BEACON_PORT: u16 = 7338;

/// The groups that are asked besides broadcast: one of the local scope (RFC 2365), one of the link (RFC 4291).
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 82, 70);
/// See [`GROUP_V4`].
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x5246, 0x4742);

const WINDOW: Duration = Duration::from_secs(1);

/// Answers within [`WINDOW`] to everyone together.
const ANSWERS: usize = 10;

/// The answering half.
#[derive(Debug, Default)]
pub(super) struct Answerer {
    /// Whom it answered within the last [`WINDOW`], oldest first; at most [`ANSWERS`].
    answered: VecDeque<(Duration, IpAddr)>,
}

impl Answerer {
    /// What to send back to the source of `bytes`, if anything. `now` is any clock that never goes back.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        origin: &Origin,
        node: &Beacon,
        now: Duration,
    ) -> Option<Vec<u8>> {
        if !origin.is_on_link() {
            return None;
        }
        let Some(Packet::Query { nonce }) = Packet::parse(bytes) else {
            return None;
        };
        while self
            .answered
            .front()
            .is_some_and(|(then, _)| now.saturating_sub(*then) >= WINDOW)
        {
            self.answered.pop_front();
        }
        let address = origin.source.ip();
        if self.answered.len() >= ANSWERS || self.answered.iter().any(|(_, whom)| *whom == address) {
            return None;
        }
        self.answered.push_back((now, address));
        let node = node.clone();
        let answer = Packet::Answer { nonce, node }.to_bytes();
        // The format sees to it; a query may be longer, never shorter.
        debug_assert!(answer.len() <= bytes.len());
        Some(answer)
    }
}

/// The asking half: knows its own queries, and believes nobody who did not hear them.
#[derive(Debug, Default)]
pub(super) struct Asker {
    nonces: VecDeque<Nonce>,
}

/// Queries whose answers still count: those of the last minutes.
const NONCES: usize = 4;

impl Asker {
    /// The query to send, with a nonce that nobody can guess.
    pub(super) fn query(&mut self, nonce: Nonce) -> Vec<u8> {
        if self.nonces.len() == NONCES {
            self.nonces.pop_front();
        }
        self.nonces.push_back(nonce);
        Packet::Query { nonce }.to_bytes()
    }

    /// The node that answered, where `bytes` is an answer to one of the queries.
    pub(super) fn received(&self, bytes: &[u8], origin: &Origin) -> Option<Beacon> {
        if !origin.is_on_link() {
            return None;
        }
        match Packet::parse(bytes) {
            Some(Packet::Answer { nonce, node }) if self.nonces.contains(&nonce) => Some(node),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::HOPS;
    use super::super::packet::QUERY_BYTES;
    use super::*;
    use crate::id::NodeId;
    use std::net::SocketAddr;

    fn beacon() -> Beacon {
        Beacon {
            node_id: NodeId::from_bytes([1; 32]),
            host: "refuge-abcdef.local".parse().unwrap(),
            https_port: 443,
            is_claimed: false,
        }
    }

    fn origin(last: u8) -> Origin {
        Origin {
            source: SocketAddr::from(([192, 0, 2, last], 40_000)),
            link: 2,
            hops: HOPS,
            is_neighbour: true,
            is_to_link: false,
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_question_from_the_link_is_answered_and_the_answer_believed() {
        let mut asker = Asker::default();
        let query = asker.query([5; 8]);
        let answer = Answerer::default()
            .received(&query, &origin(1), &beacon(), at(0))
            .unwrap();
        assert_eq!(asker.received(&answer, &origin(2)), Some(beacon()));
        assert_eq!(
            Asker::default().received(&answer, &origin(2)),
            None,
            "nobody asked"
        );
    }

    #[test]
    fn what_comes_from_beyond_the_link_or_pretends_to_gets_nothing() {
        let mut asker = Asker::default();
        let query = asker.query([5; 8]);
        let answer = Answerer::default()
            .received(&query, &origin(1), &beacon(), at(0))
            .unwrap();
        let routed = Origin {
            hops: 254,
            ..origin(1)
        };
        let spoofed = Origin {
            is_neighbour: false,
            ..origin(1)
        };
        for far in [routed, spoofed] {
            assert_eq!(Answerer::default().received(&query, &far, &beacon(), at(0)), None);
            assert_eq!(asker.received(&answer, &far), None);
        }
    }

    #[test]
    fn an_address_is_answered_once_a_second_and_all_together_ten_times() {
        let mut answerer = Answerer::default();
        let query = Asker::default().query([5; 8]);
        let mut ask = |last, now| {
            answerer
                .received(&query, &origin(last), &beacon(), at(now))
                .is_some()
        };
        assert!(ask(1, 0));
        assert!(!ask(1, 999));
        assert!(ask(1, 1000));
        assert_eq!((2..=250).filter(|&last| ask(last, 1500)).count(), 9);
        assert!(!ask(251, 1999));
        assert!(ask(251, 2000));
    }

    #[test]
    fn ten_thousand_a_second_are_answered_ten_times_with_no_more_bytes_than_they_asked_with() {
        let mut answerer = Answerer::default();
        let query = Asker::default().query([5; 8]);
        let answers: Vec<_> = (0..10_000_u64)
            .filter_map(|packet| {
                let source = origin(u8::try_from(packet % 251).unwrap());
                answerer.received(&query, &source, &beacon(), at(packet / 10))
            })
            .collect();
        assert!(answers.len() <= ANSWERS, "{}", answers.len());
        assert!(answers.iter().all(|answer| answer.len() <= QUERY_BYTES));
    }

    #[test]
    fn answers_and_noise_are_not_answered() {
        let answer = Packet::Answer {
            nonce: [5; 8],
            node: beacon(),
        };
        for bytes in [answer.to_bytes(), vec![0; QUERY_BYTES], Vec::new()] {
            assert_eq!(
                Answerer::default().received(&bytes, &origin(1), &beacon(), at(0)),
                None
            );
        }
    }
}
