//! JSON as documents may have it, read as a sequence of events that borrow from the text.
//!
//! Stricter than most readers, since what is stored here is handed to others as it came: no duplicate keys, a bounded depth,
//! no number that a double can't hold, no half of a surrogate pair. (RFC 8259.)

use std::borrow::Cow;
use std::collections::BTreeSet;

/// Objects and arrays within one another, the outermost counted: deeper ones have no use but to exhaust readers.
pub const DEPTH_MAX: usize = 64;

/// Digits of a whole number: what a double can hold.
const DIGITS_MAX: usize = 308;

/// Why a text is no JSON that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, from this byte on.
    #[error("invalid JSON at byte {at}")]
    Syntax {
        /// Where, counted from 0.
        at: usize,
    },
    /// Two members of one object have the same name.
    #[error("the key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// Too many objects and arrays within one another.
    #[error("objects and arrays may be {DEPTH_MAX} deep")]
    TooDeep,
    /// A number that is too large.
    #[error("the number at byte {at} is too large")]
    Number {
        /// Where, counted from 0.
        at: usize,
    },
}

/// One step through a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// `{`
    ObjectBegins,
    /// The name of a member; its value follows.
    Key(Cow<'a, str>),
    /// `}`
    ObjectEnds,
    /// `[`
    ArrayBegins,
    /// `]`
    ArrayEnds,
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// A number as it is written.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`
    Null,
}

/// Reads one value and what is in it.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open<'a>>,
    expects: Expects,
}

/// An object or array that has not ended.
enum Open<'a> {
    Object(BTreeSet<Cow<'a, str>>),
    Array,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    /// After `[`: a value or the end.
    ValueOrEnd,
    /// After `{`: a key or the end.
    KeyOrEnd,
    /// After a comma in an object.
    Key,
    /// After a value within something: a comma or the end.
    CommaOrEnd,
    Nothing,
}

/// The members of an object, each with the text of its value, in the order they are written in; none where it is no object.
///
/// # Errors
/// [`JsonError`].
pub fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, JsonError> {
    let mut reader = Reader::new(text);
    let mut members = Vec::new();
    if reader.next_event()? != Some(Event::ObjectBegins) {
        return Ok(members);
    }
    while let Some(Event::Key(name)) = reader.next_event()? {
        let depth = reader.depth();
        reader.skip_to_member();
        let begin = reader.position();
        // A key is only ever followed by a value: the text can't end here without an error.
        loop {
            reader.next_event()?;
            if reader.depth() == depth {
                break;
            }
        }
        members.push((name, &text[begin..reader.position()]));
    }
    Ok(members)
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `text`.
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader {
            text,
            at: 0,
            open: Vec::new(),
            expects: Expects::Value,
        }
    }

    /// The next step; `None` after the one value and the blanks behind it.
    ///
    /// # Errors
    /// [`JsonError`]; after one, nothing that this reader says means anything.
    pub fn next_event(&mut self) -> Result<Option<Event<'a>>, JsonError> {
        self.skip_to_member();
        match self.expects {
            Expects::Nothing => match self.peek() {
                None => Ok(None),
                Some(_) => Err(self.syntax()),
            },
            Expects::Value => self.value().map(Some),
            Expects::ValueOrEnd if self.peek() == Some(b']') => self.end().map(Some),
            Expects::ValueOrEnd => self.value().map(Some),
            Expects::KeyOrEnd if self.peek() == Some(b'}') => self.end().map(Some),
            Expects::KeyOrEnd => self.key().map(Some),
            Expects::Key => self.key().map(Some),
            Expects::CommaOrEnd => self.end().map(Some),
        }
    }

    /// The byte behind the last step; after [`Reader::skip_to_member`], where the next one begins.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes on to where the next step begins, over blanks and the comma between two members.
    pub fn skip_to_member(&mut self) {
        self.skip_blanks();
        if self.expects == Expects::CommaOrEnd && self.peek() == Some(b',') {
            self.at += 1;
            self.skip_blanks();
            self.expects = match self.open.last() {
                Some(Open::Object(_)) => Expects::Key,
                _ => Expects::Value,
            };
        }
    }

    /// Objects and arrays that have not ended.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    fn value(&mut self) -> Result<Event<'a>, JsonError> {
        let event = match self.peek() {
            Some(b'{') => {
                self.begin(Open::Object(BTreeSet::new()), Expects::KeyOrEnd)?;
                return Ok(Event::ObjectBegins);
            }
            Some(b'[') => {
                self.begin(Open::Array, Expects::ValueOrEnd)?;
                return Ok(Event::ArrayBegins);
            }
            Some(b'"') => Event::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Event::Number(self.number()?),
            Some(b't') => self.word("true", Event::Bool(true))?,
            Some(b'f') => self.word("false", Event::Bool(false))?,
            Some(b'n') => self.word("null", Event::Null)?,
            _ => return Err(self.syntax()),
        };
        self.after_value();
        Ok(event)
    }

    fn begin(&mut self, open: Open<'a>, expects: Expects) -> Result<(), JsonError> {
        if self.open.len() == DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        self.open.push(open);
        self.expects = expects;
        Ok(())
    }

    fn end(&mut self) -> Result<Event<'a>, JsonError> {
        let event = match (self.open.last(), self.peek()) {
            (Some(Open::Object(_)), Some(b'}')) => Event::ObjectEnds,
            (Some(Open::Array), Some(b']')) => Event::ArrayEnds,
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        self.open.pop();
        self.after_value();
        Ok(event)
    }

    fn key(&mut self) -> Result<Event<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let key = self.string()?;
        self.skip_blanks();
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        if let Some(Open::Object(keys)) = self.open.last_mut()
            && !keys.insert(key.clone())
        {
            return Err(JsonError::DuplicateKey(key.into_owned()));
        }
        self.expects = Expects::Value;
        Ok(Event::Key(key))
    }

    fn after_value(&mut self) {
        self.expects = match self.open.is_empty() {
            true => Expects::Nothing,
            false => Expects::CommaOrEnd,
        };
    }

    fn word(&mut self, word: &str, event: Event<'a>) -> Result<Event<'a>, JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(event)
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let begin = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with('0') {
            return Err(self.syntax());
        }
        let mut is_whole = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
            is_whole = false;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
            is_whole = false;
        }
        let number = &self.text[begin..self.at];
        let fits = match is_whole {
            true => whole.len() <= DIGITS_MAX,
            false => number.parse().is_ok_and(f64::is_finite),
        };
        match fits {
            true => Ok(number),
            false => Err(JsonError::Number { at: begin }),
        }
    }

    fn digits(&mut self) -> Result<&'a str, JsonError> {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        match begin == self.at {
            true => Err(self.syntax()),
            false => Ok(&self.text[begin..self.at]),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let begin = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[begin..self.at - 1]));
                }
                Some(b'\\') => return self.escaped(begin).map(Cow::Owned),
                Some(0..0x20) | None => return Err(self.syntax()),
                Some(_) => self.at += 1,
            }
        }
    }

    /// A string with escapes, from its first one on.
    fn escaped(&mut self, begin: usize) -> Result<String, JsonError> {
        let mut out = self.text[begin..self.at].to_owned();
        loop {
            let plain = self.at;
            while !matches!(self.peek(), Some(b'"' | b'\\' | 0..0x20) | None) {
                self.at += 1;
            }
            out.push_str(&self.text[plain..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let byte = self.peek().ok_or_else(|| self.syntax())?;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        Ok(plain)
    }

    /// At the `u` of `\uXXXX`, or of the first half of a pair.
    fn code_point(&mut self) -> Result<char, JsonError> {
        let high = self.unit()?;
        let code = match high {
            0xd800..0xdc00 => {
                if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    return Err(self.syntax());
                }
                self.at += 1;
                let low = self.unit()?;
                if !(0xdc00..0xe000).contains(&low) {
                    return Err(self.syntax());
                }
                0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
            }
            single => single,
        };
        char::from_u32(code).ok_or_else(|| self.syntax())
    }

    fn unit(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let unit = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.syntax())?;
        self.at += 4;
        Ok(unit)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self) -> JsonError {
        JsonError::Syntax { at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(text: &str) -> Result<Vec<Event<'_>>, JsonError> {
        let mut reader = Reader::new(text);
        std::iter::from_fn(|| reader.next_event().transpose()).collect()
    }

    #[test]
    fn a_text_is_read_step_by_step() {
        let read = events(" {\"a\" : [1, -2.5e3,true], \"\\u0062\\n\":{}, \"c\":null}\n").unwrap();
        let expected = [
            Event::ObjectBegins,
            Event::Key("a".into()),
            Event::ArrayBegins,
            Event::Number("1"),
            Event::Number("-2.5e3"),
            Event::Bool(true),
            Event::ArrayEnds,
            Event::Key("b\n".into()),
            Event::ObjectBegins,
            Event::ObjectEnds,
            Event::Key("c".into()),
            Event::Null,
            Event::ObjectEnds,
        ];
        assert_eq!(read, expected);
        let pair = events(r#""\ud83d\ude00 \"\\\/""#).unwrap();
        assert_eq!(pair, [Event::String("😀 \"\\/".into())]);
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_goes_wrong() {
        for bad in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "tru",
            "nul",
            "\"",
            "\"\u{1}\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\udc00""#,
            "1 1",
            "{}}",
            "[}",
            "{]",
            "NaN",
        ] {
            assert!(matches!(events(bad), Err(JsonError::Syntax { .. })), "{bad:?}");
        }
        assert_eq!(events("[1, x]"), Err(JsonError::Syntax { at: 4 }));
        assert_eq!(events("[1e400]"), Err(JsonError::Number { at: 1 }));
        assert_eq!(events(&"9".repeat(309)), Err(JsonError::Number { at: 0 }));
        assert!(events(&"9".repeat(308)).is_ok());
    }

    #[test]
    fn keys_stand_once_in_an_object_however_they_are_written() {
        assert_eq!(
            events(r#"{"a":1,"\u0061":2}"#),
            Err(JsonError::DuplicateKey("a".into()))
        );
        assert!(events(r#"[{"a":1},{"a":{"a":2}}]"#).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(events(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(events(&nested(DEPTH_MAX + 1)), Err(JsonError::TooDeep));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[\\[\\]{}\",:0-9eE.\\\\utrfalsn -]{0,60}") {
            let taken = events(&text).is_ok();
            // What is taken here, others take as well.
            prop_assert!(!taken || serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }

        #[test]
        fn strings_are_unescaped_as_others_do(text: String) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(events(&written), Ok(vec![Event::String(text.into())]));
        }
    }
}
