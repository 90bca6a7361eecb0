//! JSON read piece by piece as it comes in, strictly, and never held.
//!
//! What passes is JSON of RFC 8259 in UTF-8, no deeper than asked, with each key of an object once however it is spelled,
//! without lone surrogates, and with no number that a double cannot hold (security rows S15 and S16). Whoever
//! listens hears events and keeps what it wants of them: that bounds memory, not this.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// How deep JSON may nest.
pub(super) const DEPTH_MAX: usize = 64;

/// Keys of one object. A document of 8 MiB could hold a million, and each costs memory to know it again.
const KEYS_MAX: usize = 65_536;

/// Bytes of one key.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one number: nobody writes longer ones.
const NUMBER_BYTES_MAX: usize = 1024;

/// Keys that are compared one by one before a table pays.
const FEW_KEYS: usize = 16;

/// What comes along. Texts and keys are decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Event<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Key(&'a str),
    TextStart,
    /// Bytes of a text that stand for themselves; where they begin and end says nothing.
    Text(&'a [u8]),
    /// A character of a text that was escaped.
    Escaped(char),
    TextEnd,
    /// As it was written.
    Number(&'a str),
    True,
    False,
    Null,
}

/// Who listens.
pub(super) trait Sink {
    /// Hears the next event.
    ///
    /// # Errors
    /// The sentence for the client; nothing is heard after it.
    fn event(&mut self, event: Event<'_>) -> Result<(), Refusal>;
}

/// Why JSON is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is none, or breaks a bound: a sentence.
    Invalid(String),
    /// A member with an underscore that documents do not have, or not so: a sentence.
    Member(String),
    /// A document is larger than it may be.
    TooLarge,
    /// Documents are larger together than they may be.
    BatchTooLarge,
}

impl Refusal {
    pub(super) fn invalid(reason: impl Into<String>) -> Refusal {
        Refusal::Invalid(reason.into())
    }
}

/// A sink that only wants to know whether it is JSON.
pub(super) struct Nobody;

impl Sink for Nobody {
    fn event(&mut self, _: Event<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Whether this is one JSON value within the bounds.
///
/// # Errors
/// [`Refusal::Invalid`].
pub(super) fn check(json: &[u8]) -> Result<(), Refusal> {
    std::str::from_utf8(json).map_err(|_| Refusal::invalid("invalid UTF-8 JSON"))?;
    let mut scanner = Scanner::new(DEPTH_MAX);
    scanner.feed(json, &mut Nobody)?;
    scanner.end(&mut Nobody)
}

/// The state between two pieces.
pub(super) struct Scanner {
    state: State,
    levels: Vec<Level>,
    depth_max: usize,
    /// The key or number that is being read.
    held: Vec<u8>,
    hasher: RandomState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// A value or the end of an array.
    FirstItem,
    /// A key or the end of an object.
    FirstKey,
    Key,
    Colon,
    /// A comma or an end.
    After,
    Text(Role),
    Escape(Role),
    /// Hex digits of `\u`, how many and their value so far; the high surrogate before them, or 0.
    Hex {
        role: Role,
        digits: u8,
        value: u16,
        high: u16,
    },
    /// `\` of a low surrogate must come.
    LowEscape(Role, u16),
    /// `u` of it.
    LowU(Role, u16),
    Number(Digits),
    /// The rest of `true`, `false` or `null`.
    Literal(Literal, u8),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

/// Where in a number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    True,
    False,
    Null,
}

enum Level {
    Array,
    Object(Keys),
}

/// The keys of an object, by their hashes: two keys with one hash would be refused, once in 2^32 documents of many keys.
#[derive(Default)]
struct Keys {
    few: Vec<u64>,
    many: HashSet<u64>,
}

impl Keys {
    /// Whether the key is new.
    fn add(&mut self, hash: u64) -> bool {
        if self.many.is_empty() && self.few.len() < FEW_KEYS {
            let is_new = !self.few.contains(&hash);
            self.few.push(hash);
            return is_new;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.drain(..));
        }
        self.many.insert(hash)
    }

    fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }
}

impl Scanner {
    /// For one value that nests at most `depth_max` levels.
    pub(super) fn new(depth_max: usize) -> Scanner {
        Scanner {
            state: State::Value,
            levels: Vec::new(),
            depth_max,
            held: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// As the sink says; [`Refusal::Invalid`].
    pub(super) fn feed(&mut self, piece: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        let mut rest = piece;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match self.state {
                State::Text(role) => self.text(role, rest, sink)?,
                State::Number(digits) => match next_digits(digits, byte) {
                    Some(next) => {
                        self.hold(&[byte], NUMBER_BYTES_MAX)?;
                        self.state = State::Number(next);
                        tail
                    }
                    None => {
                        self.number_ends(digits, sink)?;
                        rest
                    }
                },
                _ => {
                    self.step(byte, sink)?;
                    tail
                }
            };
        }
        Ok(())
    }

    /// Says that nothing comes any more.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] where the value is not whole.
    pub(super) fn end(&mut self, sink: &mut impl Sink) -> Result<(), Refusal> {
        if let State::Number(digits) = self.state
            && self.levels.is_empty()
        {
            self.number_ends(digits, sink)?;
        }
        match self.state {
            State::Done => Ok(()),
            _ => Err(Refusal::invalid("invalid UTF-8 JSON: it ends early")),
        }
    }

    /// Bytes of a text up to its end, an escape, or the end of the piece.
    fn text<'a>(&mut self, role: Role, rest: &'a [u8], sink: &mut impl Sink) -> Result<&'a [u8], Refusal> {
        let plain = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
            .unwrap_or(rest.len());
        let (run, rest) = rest.split_at(plain);
        if !run.is_empty() {
            match role {
                Role::Key => self.hold(run, KEY_BYTES_MAX)?,
                Role::Value => sink.event(Event::Text(run))?,
            }
        }
        let Some((&byte, rest)) = rest.split_first() else {
            return Ok(rest);
        };
        match (byte, role) {
            (b'\\', _) => self.state = State::Escape(role),
            (b'"', Role::Key) => self.key_ends(sink)?,
            (b'"', Role::Value) => {
                sink.event(Event::TextEnd)?;
                self.value_ends();
            }
            _ => {
                return Err(Refusal::invalid(
                    "invalid UTF-8 JSON: a control character in a text",
                ));
            }
        }
        Ok(rest)
    }

    fn step(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), Refusal> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::Value
            | State::FirstItem
            | State::FirstKey
            | State::Key
            | State::Colon
            | State::After
            | State::Done
                if is_space => {}
            State::FirstItem if byte == b']' => self.ends(sink)?,
            State::Value | State::FirstItem => self.value_begins(byte, sink)?,
            State::FirstKey if byte == b'}' => self.ends(sink)?,
            State::FirstKey | State::Key if byte == b'"' => self.state = State::Text(Role::Key),
            State::Colon if byte == b':' => self.state = State::Value,
            State::After => self.after(byte, sink)?,
            State::Escape(role) => self.escape(role, byte, sink)?,
            State::Hex {
                role,
                digits,
                value,
                high,
            } => self.hex(role, (digits, value, high), byte, sink)?,
            State::LowEscape(role, high) if byte == b'\\' => self.state = State::LowU(role, high),
            State::LowU(role, high) if byte == b'u' => {
                self.state = State::Hex {
                    role,
                    digits: 0,
                    value: 0,
                    high,
                };
            }
            State::LowEscape(..) | State::LowU(..) => return Err(lone_surrogate()),
            State::Literal(literal, at) => self.literal(literal, at, byte, sink)?,
            State::FirstKey | State::Key | State::Colon | State::Done | State::Text(_) | State::Number(_) => {
                return Err(unexpected(byte));
            }
        }
        Ok(())
    }

    fn value_begins(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), Refusal> {
        match byte {
            b'{' => {
                self.begins(Level::Object(Keys::default()))?;
                self.state = State::FirstKey;
                sink.event(Event::ObjectStart)
            }
            b'[' => {
                self.begins(Level::Array)?;
                self.state = State::FirstItem;
                sink.event(Event::ArrayStart)
            }
            b'"' => {
                self.state = State::Text(Role::Value);
                sink.event(Event::TextStart)
            }
            b'-' | b'0'..=b'9' => {
                self.held.clear();
                self.held.push(byte);
                self.state = State::Number(match byte {
                    b'-' => Digits::Minus,
                    b'0' => Digits::Zero,
                    _ => Digits::Whole,
                });
                Ok(())
            }
            b't' => self.literal_begins(Literal::True),
            b'f' => self.literal_begins(Literal::False),
            b'n' => self.literal_begins(Literal::Null),
            _ => Err(unexpected(byte)),
        }
    }

    fn begins(&mut self, level: Level) -> Result<(), Refusal> {
        if self.levels.len() == self.depth_max {
            return Err(Refusal::invalid(format!(
                "JSON nests deeper than {} levels",
                self.depth_max
            )));
        }
        self.levels.push(level);
        Ok(())
    }

    fn after(&mut self, byte: u8, sink: &mut impl Sink) -> Result<(), Refusal> {
        match (byte, self.levels.last()) {
            (b',', Some(Level::Array)) => self.state = State::Value,
            (b',', Some(Level::Object(_))) => self.state = State::Key,
            (b']', Some(Level::Array)) | (b'}', Some(Level::Object(_))) => self.ends(sink)?,
            _ => return Err(unexpected(byte)),
        }
        Ok(())
    }

    fn ends(&mut self, sink: &mut impl Sink) -> Result<(), Refusal> {
        let event = match self.levels.pop() {
            Some(Level::Object(_)) => Event::ObjectEnd,
            Some(Level::Array) | None => Event::ArrayEnd,
        };
        self.value_ends();
        sink.event(event)
    }

    fn value_ends(&mut self) {
        self.state = if self.levels.is_empty() {
            State::Done
        } else {
            State::After
        };
    }

    fn key_ends(&mut self, sink: &mut impl Sink) -> Result<(), Refusal> {
        self.state = State::Colon;
        let key = std::mem::take(&mut self.held);
        let hash = self.hasher.hash_one(&key);
        let key = std::str::from_utf8(&key).map_err(|_| Refusal::invalid("invalid UTF-8 JSON"))?;
        if let Some(Level::Object(keys)) = self.levels.last_mut() {
            if keys.len() == KEYS_MAX {
                return Err(Refusal::invalid(format!(
                    "more than {KEYS_MAX} keys in an object"
                )));
            }
            if !keys.add(hash) {
                let shown: String = key.chars().take(100).collect();
                return Err(Refusal::invalid(format!("the key {shown:?} is there twice")));
            }
        }
        sink.event(Event::Key(key))
    }

    fn hold(&mut self, bytes: &[u8], most: usize) -> Result<(), Refusal> {
        if self.held.len() + bytes.len() > most {
            return Err(Refusal::invalid(format!(
                "a key or number of more than {most} bytes"
            )));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn escape(&mut self, role: Role, byte: u8, sink: &mut impl Sink) -> Result<(), Refusal> {
        let letter = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.state = State::Hex {
                    role,
                    digits: 0,
                    value: 0,
                    high: 0,
                };
                return Ok(());
            }
            _ => return Err(unexpected(byte)),
        };
        self.escaped(role, letter, sink)
    }

    fn hex(
        &mut self,
        role: Role,
        (digits, value, high): (u8, u16, u16),
        byte: u8,
        sink: &mut impl Sink,
    ) -> Result<(), Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or_else(|| unexpected(byte))?;
        let value = value << 4 | u16::try_from(digit).unwrap_or(0);
        if digits < 3 {
            self.state = State::Hex {
                role,
                digits: digits + 1,
                value,
                high,
            };
            return Ok(());
        }
        if high == 0 && (0xd800..0xdc00).contains(&value) {
            self.state = State::LowEscape(role, value);
            return Ok(());
        }
        let units = [high, value];
        let units = if high == 0 { &units[1..] } else { &units[..] };
        let mut letters = char::decode_utf16(units.iter().copied());
        match (letters.next(), letters.next()) {
            (Some(Ok(letter)), None) => self.escaped(role, letter, sink),
            _ => Err(lone_surrogate()),
        }
    }

    fn escaped(&mut self, role: Role, letter: char, sink: &mut impl Sink) -> Result<(), Refusal> {
        self.state = State::Text(role);
        match role {
            Role::Key => self.hold(letter.encode_utf8(&mut [0; 4]).as_bytes(), KEY_BYTES_MAX),
            Role::Value => sink.event(Event::Escaped(letter)),
        }
    }

    fn literal_begins(&mut self, literal: Literal) -> Result<(), Refusal> {
        self.state = State::Literal(literal, 1);
        Ok(())
    }

    fn literal(&mut self, literal: Literal, at: u8, byte: u8, sink: &mut impl Sink) -> Result<(), Refusal> {
        let (text, event) = match literal {
            Literal::True => (&b"true"[..], Event::True),
            Literal::False => (&b"false"[..], Event::False),
            Literal::Null => (&b"null"[..], Event::Null),
        };
        if text.get(usize::from(at)) != Some(&byte) {
            return Err(unexpected(byte));
        }
        if usize::from(at) + 1 < text.len() {
            self.state = State::Literal(literal, at + 1);
            return Ok(());
        }
        self.value_ends();
        sink.event(event)
    }

    fn number_ends(&mut self, digits: Digits, sink: &mut impl Sink) -> Result<(), Refusal> {
        if matches!(digits, Digits::Minus | Digits::Point | Digits::E | Digits::ESign) {
            return Err(Refusal::invalid("invalid UTF-8 JSON: a number without digits"));
        }
        let text = std::mem::take(&mut self.held);
        let text = std::str::from_utf8(&text).unwrap_or_default();
        if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Refusal::invalid("a number that is too large"));
        }
        self.value_ends();
        sink.event(Event::Number(text))
    }
}

/// Where a number goes on with this byte; `None` where it ended before it.
fn next_digits(digits: Digits, byte: u8) -> Option<Digits> {
    Some(match (digits, byte) {
        (Digits::Minus, b'0') => Digits::Zero,
        (Digits::Minus, b'1'..=b'9') | (Digits::Whole, b'0'..=b'9') => Digits::Whole,
        (Digits::Zero | Digits::Whole, b'.') => Digits::Point,
        (Digits::Point | Digits::Fraction, b'0'..=b'9') => Digits::Fraction,
        (Digits::Zero | Digits::Whole | Digits::Fraction, b'e' | b'E') => Digits::E,
        (Digits::E, b'+' | b'-') => Digits::ESign,
        (Digits::E | Digits::ESign | Digits::Exponent, b'0'..=b'9') => Digits::Exponent,
        _ => return None,
    })
}

fn unexpected(byte: u8) -> Refusal {
    Refusal::invalid(format!("invalid UTF-8 JSON: unexpected {:?}", char::from(byte)))
}

fn lone_surrogate() -> Refusal {
    Refusal::invalid("invalid UTF-8 JSON: half of a surrogate pair")
}

#[cfg(test)]
mod tests {
    use super::super::compact::Compact;
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Reads in pieces of `size` and writes again what was heard.
    fn through(json: &[u8], size: usize) -> Result<Vec<u8>, Refusal> {
        struct Keep(Compact);
        impl Sink for Keep {
            fn event(&mut self, event: Event<'_>) -> Result<(), Refusal> {
                self.0.push(event);
                Ok(())
            }
        }
        let mut sink = Keep(Compact::default());
        let mut scanner = Scanner::new(DEPTH_MAX);
        for piece in json.chunks(size) {
            scanner.feed(piece, &mut sink)?;
        }
        scanner.end(&mut sink)?;
        Ok(sink.0.into_bytes())
    }

    #[test]
    fn what_is_no_json_is_refused_with_a_sentence() {
        for wrong in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "NaN",
            "01",
            "1.",
            "-",
            "1e",
            "+1",
            ".5",
            "\"\\x\"",
            "\"\u{1}\"",
            "tru",
            "nulll",
            "1 2",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\\ud800x\"",
            "1e999",
            "'a'",
            "[1 2]",
            "{\"a\" 1}",
            "]",
            "\"a",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "[{\"x\":{\"k\":1,\"k\":1}}]",
        ] {
            for size in [1, 3, 100] {
                assert!(
                    through(wrong.as_bytes(), size).is_err(),
                    "{wrong} in pieces of {size}"
                );
            }
        }
        assert!(check(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_and_keys_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
        let Err(Refusal::Invalid(reason)) = check("[".repeat(1_000_000).as_bytes()) else {
            panic!("a million levels");
        };
        assert!(reason.contains("deeper"), "{reason}");
        let keys = |count: usize| {
            let keys: Vec<String> = (0..count).map(|key| format!("\"{key}\":1")).collect();
            format!("{{{}}}", keys.join(","))
        };
        assert_eq!(check(keys(KEYS_MAX).as_bytes()), Ok(()));
        assert!(check(keys(KEYS_MAX + 1).as_bytes()).is_err());
        let twice = format!("{},\"7\":2}}", keys(100).trim_end_matches('}'));
        assert!(check(twice.as_bytes()).is_err());
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(value in json_value(), size in 1..40_usize) {
            let json = serde_json::to_vec_pretty(&value).unwrap();
            let again = through(&json, size).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&again).unwrap(), value);
        }

        #[test]
        fn it_takes_what_another_parser_takes(json in "[\\[\\]{}:,\"a0.e1 \\\\u-]{0,12}", size in 1..6_usize) {
            let ours = through(json.as_bytes(), size);
            let theirs = serde_json::from_str::<Value>(&json);
            // Keys that are there twice are all we may refuse beyond the grammar.
            match (&ours, &theirs) {
                (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", json, error),
                (Err(Refusal::Invalid(reason)), Ok(_)) => prop_assert!(reason.contains("twice"), "{}: {}", json, reason),
                _ => {}
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
        }
    }
}
