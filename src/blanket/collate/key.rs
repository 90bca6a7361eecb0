//! Values as bytes that stand in their order: what an index keeps, so that its file compares bytes and knows no collation.
//!
//! ```text
//! null 10   false 18   true 20
//! number   28, the double nearest to it (8 bytes, big end first; sign bit flipped, negative ones inverted), then
//!          80, or where a whole number is not that double: 7f or 81 and how far it is below or above it (2 bytes)
//! string   30, its sort key by the Unicode Collation Algorithm, 00
//! array    38, its items, 00
//! object   40, for each member: 01, the sort key of its name, 00, its value; then 00
//! ```
//!
//! No value is the beginning of another, so that values written one after the other stand in the order of the lists they are.
//! A sort key has no zero byte. What it is changes with the tables of Unicode: see [`fingerprint`].
//!
//! `["a", 1]` is `38 30 (sort key of a) 00 28 bf f0 00 00 00 00 00 00 80 00`.

use serde_json::{Number, Value};

use super::ROOT;

const NULL: u8 = 0x10;
const FALSE: u8 = 0x18;
const TRUE: u8 = 0x20;
const NUMBER: u8 = 0x28;
const STRING: u8 = 0x30;
const ARRAY: u8 = 0x38;
const OBJECT: u8 = 0x40;

/// Ends a string, an array, an object: before all that could follow.
const END: u8 = 0;

/// Stands before each member of an object.
const MEMBER: u8 = 1;

/// Between the weights of a sort key: what stands before the first are those that tell letters apart.
const LEVEL: u8 = 1;

/// Appends `value` to a key. Recursion is as deep as the value is.
pub fn write_key(value: &Value, key: &mut Vec<u8>) {
    match value {
        Value::Null => key.push(NULL),
        Value::Bool(false) => key.push(FALSE),
        Value::Bool(true) => key.push(TRUE),
        Value::Number(number) => write_number(number, key),
        Value::String(text) => {
            key.push(STRING);
            write_text(text, key);
        }
        Value::Array(items) => {
            key.push(ARRAY);
            for item in items {
                write_key(item, key);
            }
            key.push(END);
        }
        Value::Object(members) => {
            key.push(OBJECT);
            for (name, value) in members {
                key.push(MEMBER);
                write_text(name, key);
                write_key(value, key);
            }
            key.push(END);
        }
    }
}

/// What the key of every string begins with that begins with `prefix`: that of the ASCII letters and digits at its beginning, since
/// nothing that follows those changes their weights.
pub fn prefix_key(prefix: &str) -> Vec<u8> {
    let plain = prefix.len()
        - prefix
            .trim_start_matches(|c: char| c.is_ascii_alphanumeric())
            .len();
    let mut key = vec![STRING];
    if plain > 0 {
        let mut weights = Vec::new();
        write_text(&prefix[..plain], &mut weights);
        key.extend(weights.iter().take_while(|byte| **byte != LEVEL));
    }
    key
}

/// The least key that is greater than all that begin with `prefix`; `None` where there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// Tells keys made with other tables of Unicode apart from those of this program.
pub fn fingerprint() -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let mut key = Vec::new();
    // Every 97th letter: scripts are moved as a whole, and what is new comes in blocks.
    for letter in (0..=u32::from(char::MAX)).step_by(97).filter_map(char::from_u32) {
        key.clear();
        write_text(letter.encode_utf8(&mut [0; 4]), &mut key);
        hasher.update(&key);
    }
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    short
}

/// A number as the double nearest to it, and how far a whole number is above that: in this order numbers stand.
pub(super) fn nearest(number: &Number) -> (f64, i64) {
    let double = number.as_f64().unwrap_or(0.0);
    // -0 and 0 are one.
    let double = if double == 0.0 { 0.0 } else { double };
    let whole = number.as_i64().map(i128::from);
    let whole = whole.or_else(|| number.as_u64().map(i128::from));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a double that is nearest to a whole number of 64 bits fits, and is at most 1024 away"
    )]
    let above = whole.map_or(0, |whole| (whole - double as i128) as i64);
    (double, above)
}

fn write_number(number: &Number, key: &mut Vec<u8>) {
    let (double, above) = nearest(number);
    let bits = double.to_bits();
    let ordered = match bits >> 63 {
        0 => bits | 1 << 63,
        _ => !bits,
    };
    key.push(NUMBER);
    key.extend(ordered.to_be_bytes());
    // In two's complement, what is below stands in its order as well.
    let distance = i16::try_from(above).unwrap_or_default().to_be_bytes();
    match above.signum() {
        -1 => key.extend([0x7f, distance[0], distance[1]]),
        0 => key.push(0x80),
        _ => key.extend([0x81, distance[0], distance[1]]),
    }
}

fn write_text(text: &str, key: &mut Vec<u8>) {
    let Ok(()) = ROOT.write_sort_key_to(text, key);
    key.push(END);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::compare;
    use super::*;

    fn key(value: &Value) -> Vec<u8> {
        let mut key = Vec::new();
        write_key(value, &mut key);
        key
    }

    #[test]
    fn the_example_is_as_it_is_drawn() {
        let text = key(&json!("a"));
        assert_eq!((text[0], text.last()), (STRING, Some(&END)));
        let wanted = [
            &[ARRAY][..],
            &text,
            &[NUMBER, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0, 0x80, END],
        ];
        assert_eq!(key(&json!(["a", 1])), wanted.concat());
    }

    #[test]
    fn keys_of_short_texts_are_short() {
        let bytes: usize = key(&json!("a shopping list for Monday")).len();
        assert!(bytes <= 40, "{bytes} bytes for 26 letters");
    }

    fn number() -> impl Strategy<Value = Value> {
        let near =
            |number: u64| (0..6_u64).prop_map(move |by| Value::from(number.wrapping_sub(3).wrapping_add(by)));
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-4..4_i64).prop_map(Value::from),
            (-8..8_i32).prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
            (50..64_u32).prop_flat_map(move |bit| near(1 << bit)),
            (50..64_u32)
                .prop_flat_map(move |bit| near(1 << bit))
                .prop_map(|near| Value::from(near.as_f64().unwrap())),
            (50..63_u32)
                .prop_flat_map(move |bit| near(1 << bit))
                .prop_map(|near| Value::from(-near.as_i64().unwrap())),
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[aAbB_.0]{0,4}",
            "\\PC{0,6}",
            "[a\u{301}\u{30a}\u{0}\u{e40}\u{e01}\u{ffff}ßæǅ\u{1100}\u{1161}가]{0,5}",
            any::<String>(),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number(),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[aAb]{0,2}", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn keys_stand_as_their_values_do(a in value(), b in value()) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), compare(&a, &b));
        }

        #[test]
        fn keys_of_numbers_do_as_well(a in number(), b in number()) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), compare(&a, &b));
        }

        #[test]
        fn no_key_is_the_beginning_of_another(a in value(), b in value()) {
            let (a, b) = (key(&a), key(&b));
            prop_assert!(a == b || !b.starts_with(&a));
        }

        #[test]
        fn what_begins_with_a_text_is_within_its_prefix(prefix in text(), rest in text(), plain in "[a-zA-Z0-9]{0,5}") {
            for prefix in [prefix.clone(), plain.clone(), format!("{plain}{prefix}")] {
                let whole = key(&Value::from(format!("{prefix}{rest}")));
                let low = prefix_key(&prefix);
                prop_assert!(whole.starts_with(&low), "{whole:?} {low:?}");
                prop_assert!(whole < after_prefix(&low).unwrap());
            }
        }
    }
}
