//! The hash of a new revision, as CouchDB makes it: the MD5 of `[Deleted, Generation, Parent, Body, Attachments]` in Erlang's
//! external term format.
//!
//! Whoever makes the same edit gets the same revision, on CouchDB as here, so that replication finds no conflict in it. That
//! holds for every body whose text CouchDB reads as we do, with at most one attachment or with attachments that were sent in
//! the order of their names; it says nothing where CouchDB would have compressed an attachment first.
//!
//! ```text
//! 131 | list of 5: atom true/false | integer, the parent's generation or 0 | binary, the parent's hash, or the integer 0
//!                | body | list of attachments, the last name first, each a tuple {name, type, md5} of binaries
//!
//! object   tuple of one list of tuples {key, value}      string   binary, UTF-8
//! array    list; of integers from 0 to 255 alone (up to 65535 of them): string of bytes
//! number   with a dot or an exponent: float of 64 bits, else integer: of 8 bits unsigned, 32 bits signed, or big
//! ```
//!
//! (`couch_db:new_revid`, <https://www.erlang.org/doc/apps/erts/erl_ext_dist.html>; atoms are in the old form, which CouchDB
//! asks for by `minor_version` 1.)

use md5::{Digest, Md5};

use super::doc::{Attachments, Body};
use super::json::{Event, Reader};
use crate::id::{Rev, RevHash};

const VERSION: u8 = 131;
const FLOAT: u8 = 70;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const ATOM: u8 = 100;
const SMALL_TUPLE: u8 = 104;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;

/// The tag and length of a list, written when it ends.
const LIST_HEAD_BYTES: usize = 5;

/// The revision that an edit makes; `None` after generation 4294967295.
pub(super) fn next_rev(
    parent: Option<&Rev>,
    deleted: bool,
    body: &Body,
    attachments: &Attachments,
) -> Option<Rev> {
    let mut out = vec![VERSION, LIST, 0, 0, 0, 5];
    put_atom(&mut out, if deleted { "true" } else { "false" });
    put_integer(&mut out, &parent.map_or(0, Rev::generation).to_string());
    match parent {
        Some(parent) => put_binary(&mut out, parent.hash().as_bytes()),
        None => put_integer(&mut out, "0"),
    }
    put_json(&mut out, body.as_str());
    put_attachments(&mut out, attachments);
    out.push(NIL);
    let generation = parent.map_or(0, Rev::generation).checked_add(1)?;
    Rev::new(generation, RevHash::Digest(Md5::digest(&out).into()))
}

/// A list that has not ended.
struct Open {
    /// Where its head is to be written.
    at: usize,
    items: u32,
    /// Whether all items so far are integers from 0 to 255.
    is_bytes: bool,
}

fn put_json(out: &mut Vec<u8>, text: &str) {
    let mut reader = Reader::new(text);
    let mut open: Vec<Open> = Vec::new();
    // A body was read by the same reader when it came in.
    while let Ok(Some(event)) = reader.next_event() {
        let mut is_byte = false;
        match event {
            Event::ObjectBegins => {
                count(&mut open, false);
                out.extend([SMALL_TUPLE, 1]);
                begin(out, &mut open, false);
                continue;
            }
            Event::ArrayBegins => {
                count(&mut open, false);
                begin(out, &mut open, true);
                continue;
            }
            Event::ObjectEnds | Event::ArrayEnds => {
                let list = open.pop().expect("the reader ends what it began");
                end(out, &list);
                continue;
            }
            Event::Key(key) => {
                // The value that follows counts the pair.
                out.extend([SMALL_TUPLE, 2]);
                put_binary(out, key.as_bytes());
                continue;
            }
            Event::String(text) => put_binary(out, text.as_bytes()),
            Event::Number(number) => {
                let begun = out.len();
                put_number(out, number);
                is_byte = out[begun] == SMALL_INTEGER;
            }
            Event::Bool(true) => put_atom(out, "true"),
            Event::Bool(false) => put_atom(out, "false"),
            Event::Null => put_atom(out, "null"),
        }
        count(&mut open, is_byte);
    }
}

fn begin(out: &mut Vec<u8>, open: &mut Vec<Open>, is_bytes: bool) {
    open.push(Open {
        at: out.len(),
        items: 0,
        is_bytes,
    });
    out.extend([0; LIST_HEAD_BYTES]);
}

fn count(open: &mut [Open], is_byte: bool) {
    if let Some(list) = open.last_mut() {
        list.items += 1;
        list.is_bytes &= is_byte;
    }
}

fn end(out: &mut Vec<u8>, list: &Open) {
    if list.items == 0 {
        out.truncate(list.at);
        out.push(NIL);
        return;
    }
    match u16::try_from(list.items) {
        Ok(items) if list.is_bytes => {
            let items_at = list.at + LIST_HEAD_BYTES;
            // Each stands there with its tag.
            let bytes: Vec<u8> = out[items_at..].iter().skip(1).step_by(2).copied().collect();
            out.truncate(list.at);
            out.push(STRING);
            out.extend(items.to_be_bytes());
            out.extend(bytes);
        }
        _ => {
            out[list.at] = LIST;
            out[list.at + 1..list.at + LIST_HEAD_BYTES].copy_from_slice(&list.items.to_be_bytes());
            out.push(NIL);
        }
    }
}

fn put_attachments(out: &mut Vec<u8>, attachments: &Attachments) {
    let mut open = Vec::new();
    begin(out, &mut open, false);
    for (name, attachment) in attachments.iter().rev() {
        out.extend([SMALL_TUPLE, 3]);
        put_binary(out, name.as_bytes());
        put_binary(out, attachment.content_type.as_bytes());
        put_binary(out, &attachment.digest);
        count(&mut open, false);
    }
    end(out, &open[0]);
}

fn put_number(out: &mut Vec<u8>, number: &str) {
    if number.contains(['.', 'e', 'E']) {
        out.push(FLOAT);
        // The reader took no number that is none.
        out.extend(number.parse::<f64>().unwrap_or_default().to_be_bytes());
    } else {
        put_integer(out, number);
    }
}

fn put_integer(out: &mut Vec<u8>, number: &str) {
    match number.parse::<i64>() {
        Ok(small @ 0..=255) => out.extend([SMALL_INTEGER, small.to_be_bytes()[7]]),
        Ok(number) if i32::try_from(number).is_ok() => {
            out.push(INTEGER);
            out.extend_from_slice(&number.to_be_bytes()[4..]);
        }
        _ => put_big(out, number),
    }
}

/// The magnitude in base 256, the lowest byte first, after its length and sign.
fn put_big(out: &mut Vec<u8>, number: &str) {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (1, digits),
        None => (0, number),
    };
    let mut magnitude: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in &mut magnitude {
            let sum = u32::from(*byte) * 10 + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        if carry > 0 {
            magnitude.push(carry.to_le_bytes()[0]);
        }
    }
    let len = u8::try_from(magnitude.len()).expect("the reader takes no more digits than fit 128 bytes");
    out.extend([SMALL_BIG, len, sign]);
    out.extend(magnitude);
}

fn put_atom(out: &mut Vec<u8>, name: &str) {
    out.push(ATOM);
    let len = u16::try_from(name.len()).expect("the names of our atoms are short");
    out.extend(len.to_be_bytes());
    out.extend(name.as_bytes());
}

fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(BINARY);
    let len = u32::try_from(bytes.len()).expect("a body has 8 MB at most");
    out.extend(len.to_be_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parent: Option<&str>, deleted: bool, body: &str) -> String {
        let parent: Option<Rev> = parent.map(|text| text.parse().unwrap());
        let body = Body::parse(body).unwrap();
        let rev = next_rev(parent.as_ref(), deleted, &body, &Attachments::new());
        rev.unwrap().to_string()
    }

    fn term(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_json(&mut out, json);
        out
    }

    #[test]
    fn revisions_are_those_that_couchdb_gives() {
        let first = "1-967a00dff5e02add41819138abb3284d";
        assert_eq!(hash(None, false, "{}"), first);
        // The guide's example of an update and the deletion after it.
        assert_eq!(
            hash(Some(first), false, "{}"),
            "2-7051cbe5c8faecd085a3fa619e6e6337"
        );
        assert_eq!(
            hash(Some(first), true, "{}"),
            "2-eec205a9d413992850a6e32678485900"
        );
    }

    #[test]
    fn a_revision_depends_on_the_edit_alone() {
        let rev = hash(None, false, r#"{"a":[1,2.5,"x",null,true,{"b":[]}]}"#);
        assert_eq!(
            rev,
            hash(
                None,
                false,
                r#" { "a" : [1, 2.5, "\u0078", null, true, {"b": []}] } "#
            )
        );
        assert_ne!(rev, hash(None, true, r#"{"a":[1,2.5,"x",null,true,{"b":[]}]}"#));
        assert_ne!(hash(None, false, r#"{"a":1}"#), hash(None, false, r#"{"a":1.0}"#));
        assert_ne!(hash(Some("1-a"), false, "{}"), hash(Some("1-b"), false, "{}"));
        let last = Rev::new(u32::MAX, RevHash::Digest([0; 16])).unwrap();
        assert_eq!(
            next_rev(Some(&last), false, &Body::default(), &Attachments::new()),
            None
        );
    }

    #[test]
    fn json_becomes_the_terms_of_the_format() {
        assert_eq!(term("[]"), [NIL]);
        assert_eq!(term("[0,255]"), [STRING, 0, 2, 0, 255]);
        assert_eq!(
            term("[1,256]"),
            [LIST, 0, 0, 0, 2, SMALL_INTEGER, 1, INTEGER, 0, 0, 1, 0, NIL]
        );
        assert_eq!(term("[[]]"), [LIST, 0, 0, 0, 1, NIL, NIL]);
        assert_eq!(term("{}"), [SMALL_TUPLE, 1, NIL]);
        assert_eq!(
            term("{\"a\":-1}"),
            [
                SMALL_TUPLE,
                1,
                LIST,
                0,
                0,
                0,
                1,
                SMALL_TUPLE,
                2,
                BINARY,
                0,
                0,
                0,
                1,
                b'a',
                INTEGER,
                255,
                255,
                255,
                255,
                NIL
            ]
        );
        assert_eq!(term("1.5"), [FLOAT, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(term("4294967296"), [SMALL_BIG, 5, 0, 0, 0, 0, 0, 1]);
        assert_eq!(term("-2147483649"), [SMALL_BIG, 4, 1, 1, 0, 0, 0x80]);
        assert_eq!(
            term("18446744073709551616"),
            [SMALL_BIG, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(term("null"), [ATOM, 0, 4, b'n', b'u', b'l', b'l']);
    }
}
