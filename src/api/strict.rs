//! What every JSON body must be before its meaning is looked at: bounded in depth and keys, each key once.
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

/// Why a body is refused.
///
/// # Errors
/// The sentence for the client.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    // The parser recurses; this does not.
    if nests_deeper_than(json, DEPTH_MAX) {
        return Err(format!("nests deeper than {DEPTH_MAX} levels"));
    }
    let mut parser = serde_json::Deserializer::from_slice(json);
    Strict
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|error| error.to_string())
}

/// Whether brackets outside of strings nest deeper than `limit`.
fn nests_deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match (in_string, *byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
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
        while items.next_element_seed(Strict)?.is_some() {}
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
        assert!(!nests_deeper_than(nested(64).as_bytes(), 64));
        assert!(nests_deeper_than(nested(65).as_bytes(), 64));
        assert!(!nests_deeper_than(br#"["[[[[\"[[[["]"#, 1));
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
