//! Messages of multicast DNS: as much of RFC 1035 and RFC 6762 as announcing and finding services takes.
//!
//! ```text
//! header    id | flags | questions | answers | authorities | additionals      six numbers of 16 bits, big-endian
//! question  name | type | class, its top bit asking for an answer by unicast
//! record    name | type | class, its top bit clearing what was cached | TTL (32 bits) | length | data
//! name      labels, each its length and its bytes, up to an empty one; or a pointer (0xC0) to an earlier name
//! ```
//!
//! Reading takes pointers, writing makes none: our messages are a few hundred bytes. Names are kept in lower case, as
//! DNS compares them (RFC 1035, section 2.3.3).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A message may be that long (RFC 6762, section 17), in bytes.
pub const MESSAGE_BYTES_MAX: usize = 9000;

/// Questions and records of a message that are looked at; nobody has more to say to us.
const ENTRIES_MAX: usize = 256;

const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
/// Operation and result: what is not zero here is no business of mDNS (RFC 6762, section 18).
const FLAGS_REFUSED: u16 = 0x780f;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
const TOP_BIT: u16 = 0x8000;

/// Types of records (RFC 1035, 2782, 3596, 4034).
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A name.
    pub const PTR: u16 = 12;
    /// Texts.
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// Host and port.
    pub const SRV: u16 = 33;
    /// Which types there are.
    pub const NSEC: u16 = 47;
    /// In questions: all there are.
    pub const ANY: u16 = 255;
}

/// A name, lower case, as it is written: labels with their lengths, and an empty one at the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// About which name.
    pub name: Name,
    /// For which type of record.
    pub kind: u16,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which name.
    pub name: Name,
    /// For how long, in seconds; 0 says good-bye.
    pub ttl_s: u32,
    /// Whether this is all there is of the name and type.
    pub is_whole: bool,
    /// What.
    pub data: Data,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// A name.
    Ptr(Name),
    /// Texts, each `key=value`.
    Txt(Vec<Vec<u8>>),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Where a service is.
    Srv {
        /// The port.
        port: u16,
        /// The host.
        host: Name,
    },
    /// The types below 256 that a name has, ascending; written, never read.
    Nsec {
        /// The name again.
        name: Name,
        /// The types.
        kinds: Vec<u16>,
    },
    /// Something else, unread.
    Other {
        /// Its type.
        kind: u16,
    },
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Whether it answers.
    pub is_response: bool,
    /// What it asks.
    pub questions: Vec<Question>,
    /// What it says; in a question, what the asker knows already.
    pub answers: Vec<Record>,
    /// In a question: what the asker wants to become true.
    pub authorities: Vec<Record>,
    /// What it says besides.
    pub additionals: Vec<Record>,
}

impl Name {
    /// A name of labels, such as `["refuge-abcdef", "local"]`; `None` where one is empty or too long.
    pub fn of(labels: &[&str]) -> Option<Name> {
        let mut written = Vec::new();
        for label in labels {
            let length = u8::try_from(label.len()).ok()?;
            if length == 0 || label.len() > LABEL_BYTES_MAX {
                return None;
            }
            written.push(length);
            written.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        written.push(0);
        (written.len() <= NAME_BYTES_MAX).then(|| Name(written.into()))
    }

    /// The labels, without the empty one.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }

    /// Whether this is a name directly below `parent`.
    pub fn is_directly_below(&self, parent: &Name) -> bool {
        self.0
            .split_first()
            .and_then(|(length, after)| after.split_at_checked(usize::from(*length)))
            .is_some_and(|(_, rest)| *rest == *parent.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, label) in self.labels().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            write!(f, "{dot}{}", label.escape_ascii())?;
        }
        Ok(())
    }
}

impl Data {
    /// The type of record that holds this.
    pub fn kind(&self) -> u16 {
        match self {
            Data::A(_) => kind::A,
            Data::Ptr(_) => kind::PTR,
            Data::Txt(_) => kind::TXT,
            Data::Aaaa(_) => kind::AAAA,
            Data::Srv { .. } => kind::SRV,
            Data::Nsec { .. } => kind::NSEC,
            Data::Other { kind } => *kind,
        }
    }

    /// As it is written, and compared when two ask for one name (RFC 6762, section 8.2).
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Data::A(address) => address.octets().to_vec(),
            Data::Aaaa(address) => address.octets().to_vec(),
            Data::Ptr(name) => name.0.to_vec(),
            // Priority and weight say nothing where there is one of each.
            Data::Srv { port, host } => [&[0; 4], &port.to_be_bytes()[..], &host.0].concat(),
            Data::Txt(texts) if texts.is_empty() => vec![0],
            Data::Txt(texts) => texts.iter().flat_map(|text| text_bytes(text)).collect(),
            Data::Nsec { name, kinds } => nsec_bytes(name, kinds),
            Data::Other { .. } => Vec::new(),
        }
    }
}

/// A text with its length; what does not fit one is cut.
fn text_bytes(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![length];
    bytes.extend(&text[..usize::from(length)]);
    bytes
}

/// RFC 4034, section 4.1.2, in the restricted form of RFC 6762, section 6.1: one block of types below 256.
fn nsec_bytes(name: &Name, kinds: &[u16]) -> Vec<u8> {
    let mut bits = Vec::new();
    for kind in kinds
        .iter()
        .map(|kind| usize::from(*kind))
        .filter(|kind| *kind < 256)
    {
        if bits.len() <= kind / 8 {
            bits.resize(kind / 8 + 1, 0_u8);
        }
        bits[kind / 8] |= 0x80 >> (kind % 8);
    }
    let length = u8::try_from(bits.len()).expect("256 bits are 32 bytes");
    [&name.0[..], &[0, length], &bits].concat()
}

impl Question {
    /// Whether a record of this type answers it.
    pub fn wants(&self, kind: u16) -> bool {
        self.kind == kind || self.kind == kind::ANY
    }
}

impl Message {
    /// Reads a message; `None` for what is none. Records that are unknown, and those behind one that is broken, are
    /// left out: others may know more than we do.
    pub fn parse(bytes: &[u8]) -> Option<Message> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        let mut reader = Reader { bytes, at: 0 };
        let _id = reader.u16()?;
        let flags = reader.u16()?;
        if flags & FLAGS_REFUSED != 0 {
            return None;
        }
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let mut message = Message {
            is_response: flags & FLAG_RESPONSE != 0,
            ..Message::default()
        };
        let mut left = ENTRIES_MAX;
        for _ in 0..counts[0] {
            left = left.checked_sub(1)?;
            let question = reader.question()?;
            message.questions.extend(question);
        }
        let sections = [
            &mut message.answers,
            &mut message.authorities,
            &mut message.additionals,
        ];
        for (section, count) in sections.into_iter().zip(&counts[1..]) {
            for _ in 0..*count {
                // Nothing more is read behind the first record that is broken, or one too many.
                let record = left.checked_sub(1).and_then(|_| reader.record());
                left = if record.is_some() { left - 1 } else { 0 };
                section.extend(record.flatten());
            }
        }
        Some(message)
    }

    /// The message as it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let flags = if self.is_response {
            FLAG_RESPONSE | FLAG_AUTHORITATIVE
        } else {
            0
        };
        let sections = [&self.answers, &self.authorities, &self.additionals];
        let lengths = [
            self.questions.len(),
            sections[0].len(),
            sections[1].len(),
            sections[2].len(),
        ];
        let counts = lengths.map(|length| u16::try_from(length).expect("we write a few records"));
        for number in [0, flags].into_iter().chain(counts) {
            bytes.extend(number.to_be_bytes());
        }
        for question in &self.questions {
            bytes.extend(&question.name.0);
            bytes.extend(question.kind.to_be_bytes());
            bytes.extend(CLASS_IN.to_be_bytes());
        }
        for record in sections.into_iter().flatten() {
            // What a probe wants to become true is not true yet.
            let is_whole = record.is_whole && self.is_response;
            let class = if is_whole { CLASS_IN | TOP_BIT } else { CLASS_IN };
            let data = record.data.to_bytes();
            let length = u16::try_from(data.len()).expect("we write short records");
            bytes.extend(&record.name.0);
            bytes.extend(record.data.kind().to_be_bytes());
            bytes.extend(class.to_be_bytes());
            bytes.extend(record.ttl_s.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    /// Everything it says, whichever the section.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.answers.iter().chain(&self.additionals)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.as_array()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.as_array()?))
    }

    /// A name. Pointers lead to what stands before the name they are in, so that each ends.
    fn name(&mut self) -> Option<Name> {
        let mut written = Vec::new();
        let mut after = None;
        let mut before = self.at;
        loop {
            let length = self.take(1)?[0];
            match length & 0xc0 {
                0 if length == 0 => break,
                0 => {
                    let label = self.take(usize::from(length))?.to_ascii_lowercase();
                    written.push(length);
                    written.extend(label);
                    if written.len() >= NAME_BYTES_MAX {
                        return None;
                    }
                }
                0xc0 => {
                    let low = self.take(1)?[0];
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if target >= before {
                        return None;
                    }
                    after.get_or_insert(self.at);
                    before = target;
                    self.at = target;
                }
                _ => return None,
            }
        }
        written.push(0);
        self.at = after.unwrap_or(self.at);
        Some(Name(written.into()))
    }

    /// The outer `None`: nothing can be read on from here. The inner one: a class that is none of ours.
    fn question(&mut self) -> Option<Option<Question>> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()? & !TOP_BIT;
        Some(matches!(class, CLASS_IN | CLASS_ANY).then_some(Question { name, kind }))
    }

    /// As for questions; a record whose data is not what its type says is left out, and reading goes on behind it.
    fn record(&mut self) -> Option<Option<Record>> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl_s = self.u32()?;
        let length = usize::from(self.u16()?);
        let end = self.at.checked_add(length)?;
        if end > self.bytes.len() {
            return None;
        }
        let mut inside = Reader {
            bytes: &self.bytes[..end],
            at: self.at,
        };
        let data = inside.data(kind);
        self.at = end;
        let is_ours = class & !TOP_BIT == CLASS_IN;
        Some(data.filter(|_| is_ours).map(|data| Record {
            name,
            ttl_s,
            is_whole: class & TOP_BIT != 0,
            data,
        }))
    }

    /// The data of a record, up to the end of the reader.
    fn data(&mut self, kind: u16) -> Option<Data> {
        match kind {
            kind::A => Some(Data::A((*self.take(4)?.as_array::<4>()?).into())),
            kind::AAAA => Some(Data::Aaaa((*self.take(16)?.as_array::<16>()?).into())),
            kind::PTR => Some(Data::Ptr(self.name()?)),
            kind::SRV => {
                let _priority_and_weight = self.u32()?;
                let port = self.u16()?;
                Some(Data::Srv {
                    port,
                    host: self.name()?,
                })
            }
            kind::TXT => {
                let mut texts = Vec::new();
                while self.at < self.bytes.len() {
                    let length = usize::from(self.take(1)?[0]);
                    let text = self.take(length)?.to_vec();
                    if !text.is_empty() {
                        texts.push(text);
                    }
                }
                Some(Data::Txt(texts))
            }
            kind => Some(Data::Other { kind }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER_PERMISSIVE;
    use proptest::prelude::*;

    fn name(labels: &[&str]) -> Name {
        Name::of(labels).unwrap()
    }

    fn sample() -> Message {
        let instance = name(&["refuge-abcdef", "_refuge", "_tcp", "local"]);
        let host = name(&["refuge-abcdef", "local"]);
        let record = |name: &Name, data| Record {
            name: name.clone(),
            ttl_s: 120,
            is_whole: true,
            data,
        };
        Message {
            is_response: true,
            questions: Vec::new(),
            answers: vec![Record {
                is_whole: false,
                ..record(&name(&["_refuge", "_tcp", "local"]), Data::Ptr(instance.clone()))
            }],
            authorities: Vec::new(),
            additionals: vec![
                record(
                    &instance,
                    Data::Srv {
                        port: 443,
                        host: host.clone(),
                    },
                ),
                record(&instance, Data::Txt(vec![b"v=1".to_vec(), b"claimed=0".to_vec()])),
                record(&host, Data::A(Ipv4Addr::new(192, 0, 2, 1))),
                record(&host, Data::Aaaa(Ipv6Addr::LOCALHOST)),
            ],
        }
    }

    #[test]
    fn the_worked_example_is_what_is_sent() {
        let question = Message {
            questions: vec![Question {
                name: name(&["_refuge", "_tcp", "local"]),
                kind: kind::PTR,
            }],
            ..Message::default()
        };
        let example = "0000 0000 0001 0000 0000 0000 \
            07 5f726566756765 04 5f746370 05 6c6f63616c 00 000c 0001"
            .replace(' ', "");
        let example = HEXLOWER_PERMISSIVE.decode(example.as_bytes()).unwrap();
        assert_eq!(question.to_bytes(), example);
        assert_eq!(Message::parse(&example), Some(question));
        let sample = sample();
        assert_eq!(Message::parse(&sample.to_bytes()), Some(sample));
    }

    #[test]
    fn pointers_of_others_are_followed_backwards_only() {
        // A response with one PTR record, whose data is the label "A" and a pointer to the name at 12.
        let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend(b"\x04_tcp\x05Local\x00\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x04\x01A\xc0\x0c");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.answers[0].name.to_string(), "_tcp.local");
        assert_eq!(message.answers[0].data, Data::Ptr(name(&["a", "_tcp", "local"])));
        let end = bytes.len() - 1;
        for target in [0x24_u8, 0x26, 0xff] {
            bytes[end] = target;
            assert_eq!(Message::parse(&bytes).unwrap().answers, [], "pointer to {target}");
        }
    }

    #[test]
    fn the_types_of_a_name_are_written_as_bits() {
        let host = name(&["a", "local"]);
        let data = Data::Nsec {
            name: host.clone(),
            kinds: vec![kind::A, kind::AAAA],
        };
        assert_eq!(data.to_bytes(), [&host.0[..], &[0, 4, 0x40, 0, 0, 0x08]].concat());
    }

    #[test]
    fn names_have_parents() {
        let parent = name(&["_refuge", "_tcp", "local"]);
        assert!(name(&["a", "_refuge", "_tcp", "local"]).is_directly_below(&parent));
        assert!(!name(&["b", "a", "_refuge", "_tcp", "local"]).is_directly_below(&parent));
        assert!(!parent.is_directly_below(&parent));
        assert_eq!(Name::of(&["", "local"]), None);
        assert_eq!(Name::of(&[&"a".repeat(64)]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            Message::parse(&bytes);
        }

        #[test]
        fn changed_messages_are_read_as_something_that_can_be_written(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = sample().to_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(message) = Message::parse(&bytes) {
                Message::parse(&message.to_bytes());
            }
        }
    }
}
