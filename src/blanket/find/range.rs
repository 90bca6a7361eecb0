//! From what a selector says of fields to a range of keys. Pure.
//!
//! A range holds all documents that match, and may hold others: what is read is matched again. It is taken as CouchDB's
//! `mango_idx_view` takes it, and shown so by `_explain`; the keys between which an index is read are narrower where that is
//! exact. Ids are compared by their bytes and stand in an index by collation, so that of a range of ids only an equal one is used.

use std::cmp::Ordering;
use std::ops::Bound;

use serde_json::{Value, json};

use crate::blanket::collate::{after_prefix, compare, prefix_key, write_key};
use crate::blanket::selector::{Ends, FieldPath, Limit, Selector};

/// A text after every text that begins with what stands before it: U+FFFF, the greatest letter in the collation.
const AFTER_EVERY_LETTER: char = '\u{ffff}';

/// What stands in `_explain` for an end that is open.
const OPEN_END: &str = "<MAX>";

/// Within what one field lies.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::blanket) enum Range {
    /// Nothing can match.
    Empty,
    /// Between these.
    Between(Between),
}

/// Two ends, each `None` where it is open, and the beginning of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::blanket) struct Between {
    low: Option<(Value, Ends)>,
    high: Option<(Value, Ends)>,
    prefix: Option<String>,
}

/// Keys from the first to before the second; open where there is no second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::blanket) struct Keys {
    pub(in crate::blanket) from: Vec<u8>,
    pub(in crate::blanket) before: Option<Vec<u8>>,
}

/// The ranges of the fields that a selector limits, by field; one alone where nothing can match.
pub(in crate::blanket) fn field_ranges(selector: &Selector) -> Vec<(FieldPath, Range)> {
    let limits = selector.limits();
    let mut fields: Vec<&FieldPath> = limits.iter().map(|(path, _)| *path).collect();
    fields.sort();
    fields.dedup();
    let mut ranges = Vec::with_capacity(fields.len());
    for field in fields {
        let own = limits.iter().filter(|(path, _)| *path == field);
        let range = own.fold(Range::Between(Between::default()), |range, (_, limit)| {
            narrowed(range, *limit, field.is_id())
        });
        if range == Range::Empty {
            return vec![(field.clone(), range)];
        }
        ranges.push((field.clone(), range));
    }
    ranges
}

fn narrowed(range: Range, limit: Limit<'_>, is_id: bool) -> Range {
    let Range::Between(mut between) = range else {
        return Range::Empty;
    };
    match limit {
        Limit::Low(value, ends) => between.raise(value, ends, is_id),
        Limit::High(value, ends) => between.lower(value, ends, is_id),
        Limit::Equal(value) => {
            between.raise(value, Ends::Within, is_id);
            between.lower(value, Ends::Within, is_id);
        }
        Limit::Prefix(prefix) => between.prefix = Some(prefix.to_owned()),
        Limit::Exists => {}
    }
    match between.is_empty(is_id) {
        true => Range::Empty,
        false => Range::Between(between),
    }
}

fn order(a: &Value, b: &Value, is_id: bool) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) if is_id => a.cmp(b),
        _ => compare(a, b),
    }
}

impl Between {
    fn raise(&mut self, value: &Value, ends: Ends, is_id: bool) {
        let is_higher = self.low.as_ref().is_none_or(|(low, before)| {
            let order = order(value, low, is_id);
            order.is_gt() || (order.is_eq() && *before == Ends::Within)
        });
        if is_higher {
            self.low = Some((value.clone(), ends));
        }
    }

    fn lower(&mut self, value: &Value, ends: Ends, is_id: bool) {
        let is_lower = self.high.as_ref().is_none_or(|(high, before)| {
            let order = order(value, high, is_id);
            order.is_lt() || (order.is_eq() && *before == Ends::Within)
        });
        if is_lower {
            self.high = Some((value.clone(), ends));
        }
    }

    fn is_empty(&self, is_id: bool) -> bool {
        let (Some((low, low_ends)), Some((high, high_ends))) = (&self.low, &self.high) else {
            return false;
        };
        match order(low, high, is_id) {
            Ordering::Less => false,
            Ordering::Equal => (low_ends, high_ends) != (&Ends::Within, &Ends::Within),
            Ordering::Greater => true,
        }
    }

    fn is_equal(&self) -> bool {
        match (&self.low, &self.high) {
            (Some((low, Ends::Within)), Some((high, Ends::Within))) => compare(low, high).is_eq(),
            _ => false,
        }
    }

    /// As `_explain` shows its beginning.
    fn shown_low(&self) -> Option<Value> {
        let low = self.low.as_ref().map(|(value, _)| value.clone());
        low.or_else(|| self.prefix.clone().map(Value::from))
    }

    /// As `_explain` shows its end.
    fn shown_high(&self) -> Option<Value> {
        let high = self.high.as_ref().map(|(value, _)| value.clone());
        let after = |prefix: &String| Value::from(format!("{prefix}{AFTER_EVERY_LETTER}"));
        high.or_else(|| self.prefix.as_ref().map(after))
    }

    /// From where the keys of one field are read, and whether the next field narrows that.
    fn low_key(&self) -> (Vec<u8>, bool) {
        let prefix = self.prefix.as_deref().map(prefix_key).unwrap_or_default();
        let Some((value, ends)) = &self.low else {
            return (prefix, false);
        };
        let key = key_of(value);
        let (key, is_exact) = match ends {
            Ends::Within => (key, true),
            Ends::Beside => (after_prefix(&key).unwrap_or(key), false),
        };
        match key < prefix {
            true => (prefix, false),
            false => (key, is_exact),
        }
    }

    /// Before what the keys of one field are read.
    fn high_key(&self) -> High {
        let prefix = self.prefix.as_deref().map(prefix_key);
        let after = prefix.as_deref().and_then(after_prefix);
        let Some((value, ends)) = &self.high else {
            return after.map_or(High::Open, High::Before);
        };
        let key = key_of(value);
        if after.as_ref().is_some_and(|after| *after < key) {
            return after.map_or(High::Open, High::Before);
        }
        match ends {
            Ends::Within => High::Upto(key),
            Ends::Beside => High::Before(key),
        }
    }
}

enum High {
    Open,
    /// All keys that are less.
    Before(Vec<u8>),
    /// Those as well that begin with it.
    Upto(Vec<u8>),
}

/// Between which keys an index is read whose first fields have these ranges.
pub(in crate::blanket) fn keys(fields: &[(&FieldPath, &Between)]) -> Keys {
    let mut from = Vec::new();
    let usable = |(field, between): &&(&FieldPath, &Between)| !field.is_id() || between.is_equal();
    for (_, between) in fields.iter().take_while(usable) {
        let (key, is_exact) = between.low_key();
        from.extend(key);
        if !is_exact {
            break;
        }
    }
    let mut upto = Vec::new();
    for (_, between) in fields.iter().take_while(usable) {
        match between.high_key() {
            High::Open => break,
            High::Before(key) => {
                upto.extend(key);
                return Keys {
                    from,
                    before: Some(upto),
                };
            }
            High::Upto(key) => upto.extend(key),
        }
    }
    Keys {
        from,
        before: after_prefix(&upto),
    }
}

/// The ends of a range of an index as `_explain` shows them: `start_key` and `end_key`.
pub(in crate::blanket) fn shown(ranges: &[&Between]) -> (Value, Value) {
    let start: Vec<Value> = ranges.iter().map_while(|range| range.shown_low()).collect();
    let mut end: Vec<Value> = ranges.iter().map_while(|range| range.shown_high()).collect();
    end.push(Value::from(OPEN_END));
    (Value::from(start), Value::from(end))
}

/// The ends of a range of ids as `_explain` shows them.
pub(in crate::blanket) fn shown_ids(range: Option<&Between>) -> (Value, Value) {
    let low = range.and_then(Between::shown_low);
    let high = range.and_then(Between::shown_high);
    (low.unwrap_or(json!("")), high.unwrap_or(json!(OPEN_END)))
}

/// Between which ids documents are read; `None` where no id can match.
pub(in crate::blanket) fn ids(range: &Between) -> Option<(Bound<String>, Bound<String>)> {
    let mut low = match &range.low {
        None => Bound::Unbounded,
        Some((Value::String(low), Ends::Within)) => Bound::Included(low.clone()),
        Some((Value::String(low), Ends::Beside)) => Bound::Excluded(low.clone()),
        // Of what is no text, all texts stand either before or after.
        Some((other, _)) if compare(other, &json!("")).is_gt() => return None,
        Some(_) => Bound::Unbounded,
    };
    let mut high = match &range.high {
        None => Bound::Unbounded,
        Some((Value::String(high), Ends::Within)) => Bound::Included(high.clone()),
        Some((Value::String(high), Ends::Beside)) => Bound::Excluded(high.clone()),
        Some((other, _)) if compare(other, &json!("")).is_lt() => return None,
        Some(_) => Bound::Unbounded,
    };
    if let (Some(prefix), Bound::Unbounded) = (&range.prefix, &low) {
        low = Bound::Included(prefix.clone());
    }
    if let (Some(prefix), Bound::Unbounded) = (&range.prefix, &high) {
        high = after_texts(prefix).map_or(Bound::Unbounded, Bound::Excluded);
    }
    Some((low, high))
}

/// The least text that is greater, by its bytes, than all that begin with `prefix`.
fn after_texts(prefix: &str) -> Option<String> {
    let mut letters: Vec<char> = prefix.chars().collect();
    while let Some(last) = letters.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

fn key_of(value: &Value) -> Vec<u8> {
    let mut key = Vec::new();
    write_key(value, &mut key);
    key
}
