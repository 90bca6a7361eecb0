//! Keys as ids of documents on a server, in the same order. Pure.
//!
//! ```text
//! kHEX            a key of at most 232 bytes: k and its bytes in hexadecimal
//! kHEX~DIGEST     a longer one: its first 232 bytes, and a digest of all of them; the document holds the key itself
//! owner           whose the rows are
//! redo redo-0 …   the last group, see redo.rs
//! ```
//!
//! Servers order ids by their bytes, some views of them by Unicode's rules; digits and the letters a to f stand alike in both. Ids
//! that begin with an underscore are the server's, and some servers take none longer than 512 bytes. Keys that are longer than what
//! an id holds share the place of their beginning: whoever walks over them puts those in order.

use data_encoding::HEXLOWER;

/// The most bytes of a key that stand in an id: with its digest it has 502 bytes then.
const KEY_BYTES_MAX: usize = 232;

const PREFIX: &str = "k";

/// Stands behind the digits of a key that is cut, and behind all digits.
const CUT: char = '~';

/// Behind every row, and before every other document.
pub(super) const AFTER_ROWS: &str = "l";

/// The id of a key's document.
pub(super) fn id_of(key: &[u8]) -> String {
    let hex = HEXLOWER.encode(&key[..key.len().min(KEY_BYTES_MAX)]);
    match is_long(key) {
        false => format!("{PREFIX}{hex}"),
        true => {
            let digest = HEXLOWER.encode(&blake3::hash(key).as_bytes()[..16]);
            format!("{PREFIX}{hex}{CUT}{digest}")
        }
    }
}

/// Whether a key does not stand in its id.
pub(super) fn is_long(key: &[u8]) -> bool {
    key.len() > KEY_BYTES_MAX
}

/// The key that stands in an id; `None` where that is another document, or holds its key itself.
pub(super) fn key_in(id: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(id.strip_prefix(PREFIX)?.as_bytes()).ok()
}

/// What all keys share that stand in one place: the id without the digest.
pub(super) fn place_of(id: &str) -> &str {
    id.split(CUT).next().unwrap_or(id)
}

/// At or before the id of every key from this one on.
pub(super) fn lowest(key: &[u8]) -> String {
    format!(
        "{PREFIX}{}",
        HEXLOWER.encode(&key[..key.len().min(KEY_BYTES_MAX)])
    )
}

/// At or behind the id of every key before this one; behind all where there is none.
pub(super) fn highest(key: Option<&[u8]>) -> String {
    match key {
        None => AFTER_ROWS.to_owned(),
        Some(key) if is_long(key) => format!("{}{CUT}{CUT}", lowest(key)),
        Some(key) => lowest(key),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_worked_example() {
        assert_eq!(id_of(b"da"), "k6461");
        assert_eq!(key_in("k6461"), Some(b"da".to_vec()));
        assert_eq!(key_in("owner"), None);
        let long = id_of(&[b'x'; 600]);
        assert_eq!((long.len(), key_in(&long)), (498, None));
        assert_eq!(place_of(&long), lowest(&[b'x'; 300]));
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Many that share a beginning, around the length where keys are cut.
        let tail = proptest::collection::vec(prop_oneof![Just(0), Just(b'a'), Just(0xff)], 0..4);
        (prop_oneof![0..3_usize, 229..236_usize], tail)
            .prop_map(|(len, tail)| [vec![b'k'; len], tail].concat())
    }

    proptest! {
        #[test]
        fn ids_are_in_the_order_of_keys_but_for_those_in_one_place(one in key(), other in key()) {
            let (a, b) = (id_of(&one), id_of(&other));
            prop_assert_eq!(one == other, a == b);
            if place_of(&a) != place_of(&b) || !is_long(&one) || !is_long(&other) {
                prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            }
            if one >= other {
                prop_assert!(a >= lowest(&other));
            } else {
                prop_assert!(a <= highest(Some(&other)));
            }
            prop_assert!(a.as_str() < AFTER_ROWS);
        }
    }
}
