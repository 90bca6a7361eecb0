//! Where in a document a field lies.
//!
//! `a.b` is member `b` of member `a`, `a\.b` one member with a dot in its name, `a.0` the first item of an array.

use serde_json::Value;

/// The path of a field; empty for the value itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// Reads a path as selectors, sorts and field lists write it. Every text is a path.
    pub fn parse(text: &str) -> FieldPath {
        let mut names = Vec::new();
        let mut name = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '.' => names.push(std::mem::take(&mut name)),
                '\\' => match letters.next() {
                    Some(escaped @ ('.' | '\\')) => name.push(escaped),
                    Some(other) => name.extend(['\\', other]),
                    None => name.push('\\'),
                },
                letter => name.push(letter),
            }
        }
        if !name.is_empty() || !names.is_empty() {
            names.push(name);
        }
        FieldPath(names)
    }

    /// The path of a member below this one, as its name is written in a selector.
    pub(super) fn join(&self, text: &str) -> FieldPath {
        let mut names = self.0.clone();
        names.extend(FieldPath::parse(text).0);
        FieldPath(names)
    }

    pub(super) fn root() -> FieldPath {
        FieldPath(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is the id of a document.
    pub(in crate::blanket) fn is_id(&self) -> bool {
        matches!(self.0.as_slice(), [name] if name == "_id")
    }

    /// The names on the way.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// What lies there.
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, step)
    }

    /// Whether the way to it leads through objects and arrays only, so that it could be there. CouchDB tells the two apart: only
    /// a field that could be there does not exist.
    pub(super) fn is_reachable(&self, value: &Value) -> bool {
        let mut at = value;
        for name in &self.0 {
            match at {
                Value::Object(members) => match members.get(name) {
                    Some(member) => at = member,
                    None => return true,
                },
                Value::Array(items) => match index(name).map(|index| items.get(index)) {
                    Some(Some(item)) => at = item,
                    Some(None) => return true,
                    None => return false,
                },
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return false,
            }
        }
        true
    }
}

fn step<'a>(value: &'a Value, name: &String) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(index(name)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn index(name: &str) -> Option<usize> {
    name.parse().ok()
}
