//! What every JSON body must be before its meaning is looked at: bounded in depth, keys, items and strings, each key once.
//!
//! Two parsers that read a repeated key differently are a hole (CVE-2017-12635): so nothing with one passes,
//! not even where the key means nothing to us.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep a body may nest (security row S15).
const DEPTH_MAX: usize = 64;

/// Keys of one object: none of ours has more than a dozen.
const KEYS_MAX: usize = 256;

/// Items of one array: twice as many as any of ours may have, which says so itself.
const ITEMS_MAX: usize = 20_000;

/// Bytes of one string, as it is written: paths and labels are far shorter, and an error that quotes one stays small.
const STRING_BYTES_MAX: usize = 64 * 1024;

/// What of a body is out of bounds.
#[derive(Debug, PartialEq, Eq)]
enum Bound {
    Depth,
    String,
}

/// Why a body is refused.
///
/// # Errors
/// The sentence for the client.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    // The parser recurses, and copies strings; this does neither.
    match beyond(json, DEPTH_MAX, STRING_BYTES_MAX) {
        Some(Bound::Depth) => return Err(format!("nests deeper than {DEPTH_MAX} levels")),
        Some(Bound::String) => return Err(format!("has a string of more than {STRING_BYTES_MAX} bytes")),
        None => {}
    }
    let mut parser = serde_json::Deserializer::from_slice(json);
    Strict
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|error| error.to_string())
}

/// Which bound is passed first: of brackets outside of strings, or of bytes in a string.
fn beyond(json: &[u8], depth_max: usize, string_bytes_max: usize) -> Option<Bound> {
    let (mut depth, mut escaped) = (0_usize, false);
    // How far into a string this is.
    let mut string_bytes = None;
    for byte in json {
        match (&mut string_bytes, *byte) {
            (Some(len), _) if *len > string_bytes_max => return Some(Bound::String),
            (None, b'"') => string_bytes = Some(0),
            (None, b'[' | b'{') => depth += 1,
            (None, b']' | b'}') => depth = depth.saturating_sub(1),
            (None, _) => {}
            (Some(_), b'"') if !escaped => string_bytes = None,
            (Some(len), byte) => {
                *len += 1;
                escaped = byte == b'\\' && !escaped;
            }
        }
        if depth > depth_max {
            return Some(Bound::Depth);
        }
    }
    None
}

/// Reads a value and keeps nothing of it.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut count = 0;
        while items.next_element_seed(Strict)?.is_some() {
            count += 1;
            if count > ITEMS_MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {ITEMS_MAX} items in an array"
                )));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys: HashSet<String> = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.len() == KEYS_MAX {
                return Err(A::Error::custom(format_args!(
                    "more than {KEYS_MAX} keys in an object"
                )));
            }
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("the key {twice:?} is there twice")));
            }
            entries.next_value_seed(Strict)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(beyond(nested(64).as_bytes(), 64, 9), None);
        assert_eq!(beyond(nested(65).as_bytes(), 64, 9), Some(Bound::Depth));
        assert_eq!(beyond(br#"["[[[[\"[[[["]"#, 1, 99), None);
        assert_eq!(beyond(br#"["\\",[[]]]"#, 2, 99), Some(Bound::Depth));
    }

    #[test]
    fn strings_are_measured_as_they_are_written() {
        let quoted = |len: usize| format!("[\"{}\",\"{}\"]", "a".repeat(len), "b".repeat(len));
        assert_eq!(beyond(quoted(9).as_bytes(), 1, 9), None);
        assert_eq!(beyond(quoted(10).as_bytes(), 1, 9), Some(Bound::String));
        assert_eq!(beyond(br#"["\"\"\"\"\""]"#, 1, 9), Some(Bound::String));
    }

    #[test]
    fn a_key_twice_is_refused_however_it_is_spelled() {
        assert_eq!(check(br#"{"a":[1,-1,1.5,null,true,"x"],"b":{"a":1}}"#), Ok(()));
        for twice in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"[{"x":{"a":1,"a":1}}]"#,
        ] {
            assert!(check(twice.as_bytes()).unwrap_err().contains("twice"), "{twice}");
        }
        for wrong in ["", "{", "1 2", "NaN", r#""\ud800""#, r#"{"a":1,}"#] {
            assert!(check(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
