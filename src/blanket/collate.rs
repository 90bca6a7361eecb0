//! The order of JSON values in which CouchDB keeps its views, and in which Mango compares.
//!
//! By kind first: null, false, true, numbers, strings, arrays, objects. Strings are ordered by the Unicode
//! Collation Algorithm with the root table of CLDR, as CouchDB orders them by ICU: `a` `A` `b` `B`. Arrays go item by item,
//! objects member by member (name, then value), and what is a beginning of the other comes first. Members are compared
//! in the order of their names; CouchDB takes them in the order they were written in.
//! Source: CouchDB, "Views Collation".

mod key;

use std::cmp::Ordering;

use icu_collator::CollatorBorrowed;
use icu_collator::options::CollatorOptions;
use serde_json::{Map, Number, Value};

pub use key::{after_prefix, fingerprint, prefix_key, write_key};

/// The root order alone: the tables of all languages would be four times as large.
static ROOT: CollatorBorrowed<'static> = CollatorBorrowed::new_root(CollatorOptions::default());

/// How `a` stands to `b`. Recursion is as deep as the values are.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => compare_texts(a, b),
        (Value::Array(a), Value::Array(b)) => {
            let unequal = a
                .iter()
                .zip(b)
                .map(|(a, b)| compare(a, b))
                .find(|order| order.is_ne());
            unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => compare_objects(a, b),
        _ => kind(a).cmp(&kind(b)),
    }
}

/// How strings stand to each other.
pub fn compare_texts(a: &str, b: &str) -> Ordering {
    ROOT.compare(a, b)
}

fn compare_objects(a: &Map<String, Value>, b: &Map<String, Value>) -> Ordering {
    let members = a
        .iter()
        .zip(b)
        .map(|((a_name, a), (b_name, b))| compare_texts(a_name, b_name).then_with(|| compare(a, b)));
    let unequal = members.into_iter().find(|order| order.is_ne());
    unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Number(_) => 3,
        Value::String(_) => 4,
        Value::Array(_) => 5,
        Value::Object(_) => 6,
    }
}

/// By what they are worth: whole numbers exactly too, of which a double holds 53 bits.
fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    let ((a, a_above), (b, b_above)) = (key::nearest(a), key::nearest(b));
    a.partial_cmp(&b)
        .unwrap_or(Ordering::Equal)
        .then(a_above.cmp(&b_above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_stand_in_the_order_of_views() {
        // As CouchDB's documentation lists it.
        let ordered = [
            json!(null),
            json!(false),
            json!(true),
            json!(-1),
            json!(1),
            json!(2),
            json!(2.5),
            json!(3.0),
            json!(4),
            json!("a"),
            json!("A"),
            json!("aa"),
            json!("b"),
            json!("B"),
            json!("ba"),
            json!("bb"),
            json!(["a"]),
            json!(["b"]),
            json!(["b", "c"]),
            json!(["b", "c", "a"]),
            json!(["b", "d"]),
            json!(["b", "d", "e"]),
            json!({"a": 1}),
            json!({"a": 2}),
            json!({"b": 1}),
            json!({"b": 2}),
            json!({"b": 2, "c": 2}),
        ];
        for (at, a) in ordered.iter().enumerate() {
            for (other, b) in ordered.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} and {b}");
            }
        }
    }

    #[test]
    fn signs_stand_before_digits_and_those_before_letters() {
        // The order of ASCII in the root table, as CouchDB's documentation lists it.
        let order = r##"_-,;:!?.'"()[]{}@*/\&#%`^+<=>|~$0123456789aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ"##;
        for (a, b) in order.chars().zip(order.chars().skip(1)) {
            let (a, b) = (a.to_string(), b.to_string());
            assert_eq!(compare_texts(&a, &b), Ordering::Less, "{a} and {b}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_beyond_what_a_double_holds() {
        let (a, b) = (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64));
        assert_eq!(compare(&a, &b), Ordering::Greater);
        assert_eq!(compare(&json!(u64::MAX), &json!(-1)), Ordering::Greater);
        assert_eq!(compare(&json!(1), &json!(1.0)), Ordering::Equal);
        // As Erlang has it: the double is worth one less.
        assert_eq!(compare(&a, &json!(9_007_199_254_740_992.0)), Ordering::Greater);
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[aAbB_.0]{0,4}", "\\PC{0,6}"]
    }

    proptest! {
        #[test]
        fn the_order_is_one(a in text(), b in text(), c in text()) {
                let ab = compare_texts(&a, &b);
            prop_assert_eq!(compare_texts(&b, &a), ab.reverse());
            if ab.is_le() && compare_texts(&b, &c).is_le() {
                prop_assert!(compare_texts(&a, &c).is_le());
            }
        }
    }
}
