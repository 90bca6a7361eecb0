//! The packets of the beacon: what a UDP query and its answer look like.
//!
//! Numbers are big-endian. A query is padded, so that no answer is larger than what asked for it.
//!
//! ```text
//!          0         4         5      6         14
//! query    | "RFGB"  | version | 1    | nonce   | zeros, up to 128 bytes in all |
//!
//!          0         4         5      6         14      15           17        49       50
//! answer   | "RFGB"  | version | 2    | nonce   | flags | HTTPS port | node id | length | host name |
//! ```
//!
//! The version is 1. Of the flags, bit 0 says that the node has an owner; the others are zero and not looked at. The
//! host name is written as in [`HostName`], so that it can be shown anywhere.

use crate::id::{HostName, NodeId};

/// Length of a query, and the most an answer has, in bytes.
pub const QUERY_BYTES: usize = 128;

/// What is longer than that is not looked at, in bytes.
pub const PACKET_BYTES_MAX: usize = 512;

const MAGIC: &[u8; 4] = b"RFGB";
const VERSION: u8 = 1;
const KIND_QUERY: u8 = 1;
const KIND_ANSWER: u8 = 2;
const FLAG_CLAIMED: u8 = 1;

const NONCE_AT: usize = 6;
const FLAGS_AT: usize = 14;
const PORT_AT: usize = 15;
const NODE_AT: usize = 17;
const HOST_LENGTH_AT: usize = 49;
const HOST_AT: usize = 50;

// The longest host name has to fit.
const _: () = assert!(HOST_AT + HostName::BYTES_MAX <= QUERY_BYTES);

/// What an answer repeats of its query, so that nobody is believed who did not hear the question.
pub type Nonce = [u8; 8];

/// A packet of the beacon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Who is there?
    Query {
        /// To be repeated.
        nonce: Nonce,
    },
    /// A node is.
    Answer {
        /// Of the query.
        nonce: Nonce,
        /// Which node.
        node: Beacon,
    },
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Who it says it is.
    pub node_id: NodeId,
    /// Its name on the local network.
    pub host: HostName,
    /// Where HTTPS listens.
    pub https_port: u16,
    /// Whether it has an owner.
    pub is_claimed: bool,
}

impl Packet {
    /// Reads a packet; `None` for anything that is none of this version, and for a query too short to be answered.
    pub fn parse(bytes: &[u8]) -> Option<Packet> {
        if bytes.len() > PACKET_BYTES_MAX || bytes.get(..5)? != [MAGIC.as_slice(), &[VERSION]].concat() {
            return None;
        }
        let nonce = *bytes.get(NONCE_AT..FLAGS_AT)?.as_array()?;
        match *bytes.get(5)? {
            KIND_QUERY => (bytes.len() >= QUERY_BYTES).then_some(Packet::Query { nonce }),
            KIND_ANSWER => {
                let host = bytes.get(HOST_AT..)?;
                if usize::from(*bytes.get(HOST_LENGTH_AT)?) != host.len() {
                    return None;
                }
                let node = Beacon {
                    node_id: NodeId::from_bytes(*bytes.get(NODE_AT..HOST_LENGTH_AT)?.as_array()?),
                    host: std::str::from_utf8(host).ok()?.parse().ok()?,
                    https_port: u16::from_be_bytes(*bytes.get(PORT_AT..NODE_AT)?.as_array()?),
                    is_claimed: bytes.get(FLAGS_AT)? & FLAG_CLAIMED != 0,
                };
                Some(Packet::Answer { nonce, node })
            }
            _ => None,
        }
    }

    /// The packet as it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(QUERY_BYTES);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        match self {
            Packet::Query { nonce } => {
                bytes.push(KIND_QUERY);
                bytes.extend(nonce);
                bytes.resize(QUERY_BYTES, 0);
            }
            Packet::Answer { nonce, node } => {
                bytes.push(KIND_ANSWER);
                bytes.extend(nonce);
                bytes.push(if node.is_claimed { FLAG_CLAIMED } else { 0 });
                bytes.extend(node.https_port.to_be_bytes());
                bytes.extend(node.node_id.as_bytes());
                let host = node.host.as_str().as_bytes();
                bytes.push(u8::try_from(host.len()).expect("a host name is shorter than 256 bytes"));
                bytes.extend(host);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn beacon() -> Beacon {
        Beacon {
            node_id: NodeId::from_bytes([0xab; 32]),
            host: "refuge-abcdef.local".parse().unwrap(),
            https_port: 8443,
            is_claimed: true,
        }
    }

    #[test]
    fn the_worked_example_is_what_is_sent() {
        let nonce = *b"12345678";
        let query = Packet::Query { nonce };
        let written = query.to_bytes();
        assert_eq!(
            HEXLOWER.encode(&written[..16]),
            "5246474201013132333435363738".to_owned() + "0000"
        );
        assert_eq!(written.len(), QUERY_BYTES);
        assert_eq!(Packet::parse(&written), Some(query));

        let answer = Packet::Answer {
            nonce,
            node: beacon(),
        };
        let example = format!(
            "52464742010231323334353637380120fb{}137265667567652d6162636465662e6c6f63616c",
            "ab".repeat(32)
        );
        assert_eq!(HEXLOWER.encode(&answer.to_bytes()), example);
        assert_eq!(Packet::parse(&answer.to_bytes()), Some(answer));
    }

    #[test]
    fn an_answer_is_never_larger_than_a_query_that_is_answered() {
        let nonce = [0; 8];
        for length in 0..QUERY_BYTES {
            let short = &Packet::Query { nonce }.to_bytes()[..length];
            assert_eq!(Packet::parse(short), None, "{length} bytes");
        }
        let longest = "a".repeat(HostName::BYTES_MAX - ".local".len()) + ".local";
        let node = Beacon {
            host: longest.parse().unwrap(),
            ..beacon()
        };
        assert!(Packet::Answer { nonce, node }.to_bytes().len() <= QUERY_BYTES);
    }

    #[test]
    fn other_versions_kinds_and_lengths_are_no_packets() {
        let answer = Packet::Answer {
            nonce: [1; 8],
            node: beacon(),
        }
        .to_bytes();
        for (at, byte) in [(0, b'X'), (4, 2), (5, 3), (HOST_LENGTH_AT, 18), (HOST_AT, b' ')] {
            let mut changed = answer.clone();
            changed[at] = byte;
            assert_eq!(Packet::parse(&changed), None, "byte {at}");
        }
        assert_eq!(Packet::parse(&answer[..answer.len() - 1]), None);
        assert_eq!(Packet::parse(&[answer, vec![0; PACKET_BYTES_MAX]].concat()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_none(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            Packet::parse(&bytes);
        }

        #[test]
        fn what_parses_is_written_as_something_that_parses_to_the_same(
            changes in prop::collection::vec((0_usize..80, any::<u8>()), 0..4),
            is_query: bool,
        ) {
            let nonce = [7; 8];
            let packet = if is_query { Packet::Query { nonce } } else { Packet::Answer { nonce, node: beacon() } };
            let mut bytes = packet.to_bytes();
            for (at, byte) in changes {
                let length = bytes.len();
                bytes[at % length] = byte;
            }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert_eq!(Packet::parse(&packet.to_bytes()), Some(packet));
            }
        }
    }
}
