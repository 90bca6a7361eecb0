//! Writes events as JSON again, without spaces and with no escape that is not needed.

use super::scan::Event;

/// JSON being written. What is pushed must be what a scanner tells: whole, and in its order.
#[derive(Debug, Default)]
pub(super) struct Compact {
    bytes: Vec<u8>,
}

impl Compact {
    /// Adds an event.
    pub(super) fn push(&mut self, event: Event<'_>) {
        match event {
            Event::ObjectStart => self.begin(b"{"),
            Event::ArrayStart => self.begin(b"["),
            Event::ObjectEnd => self.bytes.push(b'}'),
            Event::ArrayEnd => self.bytes.push(b']'),
            Event::Key(key) => {
                self.begin(b"\"");
                for run in key.split_inclusive(needs_escape) {
                    let last = run.chars().next_back().filter(|letter| needs_escape(*letter));
                    let plain = run.len() - last.map_or(0, char::len_utf8);
                    self.bytes.extend_from_slice(&run.as_bytes()[..plain]);
                    if let Some(letter) = last {
                        self.escape(letter);
                    }
                }
                self.bytes.extend_from_slice(b"\":");
            }
            Event::TextStart => self.begin(b"\""),
            Event::Text(run) => self.bytes.extend_from_slice(run),
            Event::Escaped(letter) if needs_escape(letter) => self.escape(letter),
            Event::Escaped(letter) => self
                .bytes
                .extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            Event::TextEnd => self.bytes.push(b'"'),
            Event::Number(text) => self.begin(text.as_bytes()),
            Event::True => self.begin(b"true"),
            Event::False => self.begin(b"false"),
            Event::Null => self.begin(b"null"),
        }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A key or a value begins: with a comma, unless something was opened or a key came before it. No value ends with one of
    /// those signs, as a text ends with its quote.
    fn begin(&mut self, bytes: &[u8]) {
        if !matches!(self.bytes.last(), None | Some(b'{' | b'[' | b':')) {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn escape(&mut self, letter: char) {
        match letter {
            '"' => self.bytes.extend_from_slice(b"\\\""),
            '\\' => self.bytes.extend_from_slice(b"\\\\"),
            '\n' => self.bytes.extend_from_slice(b"\\n"),
            '\r' => self.bytes.extend_from_slice(b"\\r"),
            '\t' => self.bytes.extend_from_slice(b"\\t"),
            other => self
                .bytes
                .extend_from_slice(format!("\\u{:04x}", u32::from(other)).as_bytes()),
        }
    }
}

/// RFC 8259, section 7.
fn needs_escape(letter: char) -> bool {
    matches!(letter, '"' | '\\' | '\0'..='\u{1f}')
}
