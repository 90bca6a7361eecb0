//! Mango selectors: which documents a query, a filter or an index is about.
//!
//! A selector is normalised as CouchDB does it before anything is compared: several fields are an implicit `$and`, a bare value
//! is `$eq`, nested fields become one path, and negations move down to the operators. That is no detail: a field
//! that is missing matches nothing but `$exists: false`, so `{"$not": {"a": 1}}` does not match a document without `a`.
//!
//! Values are compared in view order (`collate.rs`), `_id` by its bytes. A `$regex` is matched by bytes as Erlang's `re` does it,
//! without look-around and back-references: those cost time without bound, and are refused as a bad argument.
//! Sources: CouchDB, "Selector Syntax"; the behaviour of `mango_selector`.

mod analysis;
mod parse;
mod path;

use std::fmt;

use regex_automata::meta::Regex;
use serde_json::Value;

pub(super) use analysis::{Ends, Limit};
pub use path::FieldPath;

use super::collate;

/// How deep operators may nest: as deep as JSON may.
pub const SELECTOR_DEPTH_MAX: usize = 64;

/// A selector, ready to match.
#[derive(Debug, Clone)]
pub struct Selector {
    root: Condition,
}

/// Why a selector is none, with CouchDB's names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It is no object.
    #[error("Selector must be a JSON object, not: {0}")]
    NoObject(String),
    /// An operator got what it does not take.
    #[error("Bad argument for operator {operator}: {argument}")]
    BadArgument {
        /// The operator.
        operator: String,
        /// What it got, cut where it is long.
        argument: String,
    },
    /// CouchDB knows the operator and does not do it.
    #[error("Unsupported operator: {0}")]
    NotSupported(String),
    /// Nobody knows the operator.
    #[error("Invalid operator: {0}")]
    InvalidOperator(String),
    /// A comparison at the top, without a field.
    #[error("One or more conditions is missing a field name.")]
    MissingFieldName,
    /// Operators nest deeper than [`SELECTOR_DEPTH_MAX`].
    #[error("Selector nests deeper than {SELECTOR_DEPTH_MAX} levels")]
    TooDeep,
}

impl SelectorError {
    /// CouchDB's word for it.
    pub fn code(&self) -> &'static str {
        match self {
            SelectorError::NoObject(_) => "invalid_selector_json",
            SelectorError::BadArgument { .. } => "bad_arg",
            SelectorError::NotSupported(_) => "not_supported",
            SelectorError::InvalidOperator(_) => "invalid_operator",
            SelectorError::MissingFieldName => "invalid_selector",
            SelectorError::TooDeep => "bad_field",
        }
    }
}

/// What is asked of a value.
#[derive(Debug, Clone)]
enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    /// Only of tests that have no opposite.
    Not(Box<Condition>),
    /// Of what lies at this path; the empty path is the value itself.
    Field(FieldPath, Box<Condition>),
    Test(Test),
}

/// What is asked of one value.
#[derive(Debug, Clone)]
enum Test {
    Compare(Comparison, Value),
    Exists(bool),
    Type(String),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Size(u64),
    Mod { divisor: i64, remainder: i64 },
    Regex(Pattern),
    BeginsWith(String),
    All(Vec<Value>),
    ElementMatch(Box<Condition>),
    AllMatch(Box<Condition>),
    KeyMapMatch(Box<Condition>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

/// A compiled `$regex`.
#[derive(Clone)]
struct Pattern {
    regex: Regex,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern")
    }
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// [`SelectorError`] says which operator is wrong.
    pub fn parse(selector: &Value) -> Result<Selector, SelectorError> {
        parse::selector(selector).map(|root| Selector { root })
    }

    /// Whether the selector takes everything.
    pub fn is_empty(&self) -> bool {
        matches!(&self.root, Condition::And(all) if all.is_empty())
    }

    /// Whether a document matches, given whole: with `_id` and `_rev`.
    pub fn matches(&self, document: &Value) -> bool {
        self.root.matches(document, Order::View)
    }
}

/// How strings are compared.
#[derive(Clone, Copy)]
enum Order {
    View,
    Bytes,
}

impl Condition {
    fn matches(&self, value: &Value, order: Order) -> bool {
        match self {
            Condition::And(all) => all.iter().all(|one| one.matches(value, order)),
            Condition::Or(any) => any.iter().any(|one| one.matches(value, order)),
            Condition::Not(other) => !other.matches(value, order),
            Condition::Field(path, condition) if path.is_empty() => condition.matches(value, order),
            Condition::Field(path, condition) => match path.find(value) {
                Some(found) => {
                    let order = if path.is_id() { Order::Bytes } else { Order::View };
                    condition.matches(found, order)
                }
                None => {
                    path.is_reachable(value)
                        && matches!(condition.as_ref(), Condition::Test(Test::Exists(false)))
                }
            },
            Condition::Test(test) => test.matches(value, order),
        }
    }
}

impl Test {
    fn matches(&self, value: &Value, order: Order) -> bool {
        match self {
            Test::Compare(comparison, wanted) => comparison.holds(compare(value, wanted, order)),
            Test::Exists(wanted) => *wanted,
            Test::Type(name) => type_name(value) == name,
            Test::In(wanted) => is_in(value, wanted, order),
            Test::NotIn(wanted) => !is_in(value, wanted, order),
            Test::Size(len) => matches!(value, Value::Array(items) if items.len() as u64 == *len),
            Test::Mod { divisor, remainder } => {
                value.as_i64().and_then(|value| value.checked_rem(*divisor)) == Some(*remainder)
            }
            Test::Regex(pattern) => {
                matches!(value, Value::String(text) if pattern.regex.is_match(text.as_bytes()))
            }
            Test::BeginsWith(prefix) => matches!(value, Value::String(text) if text.starts_with(prefix)),
            Test::All(wanted) => matches!(value, Value::Array(items) if has_all(items, wanted)),
            Test::ElementMatch(condition) => matches!(value, Value::Array(items)
                if items.iter().any(|item| condition.matches(item, Order::View))),
            Test::AllMatch(condition) => matches!(value, Value::Array(items)
                if !items.is_empty() && items.iter().all(|item| condition.matches(item, Order::View))),
            Test::KeyMapMatch(condition) => matches!(value, Value::Object(members)
                if members.keys().any(|name| condition.matches(&Value::String(name.clone()), Order::View))),
        }
    }

    /// The test that holds where this one does not, where there is one.
    fn opposite(self) -> Result<Test, Test> {
        Ok(match self {
            Test::Compare(comparison, value) => Test::Compare(comparison.opposite(), value),
            Test::Exists(wanted) => Test::Exists(!wanted),
            Test::In(wanted) => Test::NotIn(wanted),
            Test::NotIn(wanted) => Test::In(wanted),
            other @ (Test::Type(_)
            | Test::Size(_)
            | Test::Mod { .. }
            | Test::Regex(_)
            | Test::BeginsWith(_)
            | Test::All(_)
            | Test::ElementMatch(_)
            | Test::AllMatch(_)
            | Test::KeyMapMatch(_)) => return Err(other),
        })
    }
}

impl Comparison {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::GreaterOrEqual => order.is_ge(),
            Comparison::Greater => order.is_gt(),
        }
    }

    fn opposite(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::GreaterOrEqual,
            Comparison::LessOrEqual => Comparison::Greater,
            Comparison::Equal => Comparison::NotEqual,
            Comparison::NotEqual => Comparison::Equal,
            Comparison::GreaterOrEqual => Comparison::Less,
            Comparison::Greater => Comparison::LessOrEqual,
        }
    }
}

fn compare(a: &Value, b: &Value, order: Order) -> std::cmp::Ordering {
    match (a, b, order) {
        (Value::String(a), Value::String(b), Order::Bytes) => a.cmp(b),
        _ => collate::compare(a, b),
    }
}

/// Of an array, any item counts.
fn is_in(value: &Value, wanted: &[Value], order: Order) -> bool {
    let one = |value: &Value| wanted.iter().any(|wanted| compare(value, wanted, order).is_eq());
    match value {
        Value::Array(items) => items.iter().any(one),
        value => one(value),
    }
}

fn has_all(items: &[Value], wanted: &[Value]) -> bool {
    let is_the_array = matches!(wanted, [Value::Array(whole)] if whole == items);
    is_the_array || wanted.iter().all(|wanted| items.contains(wanted))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
