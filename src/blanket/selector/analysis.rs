//! What a selector says of a document before it is read: which fields it must have, and within what they lie.
//!
//! Seen through are `$and` and, for fields that must be there, `$or`: as CouchDB's `mango_idx_view` and `mango_selector` do it.

use serde_json::Value;

use super::{Comparison, Condition, FieldPath, Selector, Test};

/// What one test says of a field, where an index can tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::blanket) enum Limit<'a> {
    /// It is more than this, or the same where that is said.
    Low(&'a Value, Ends),
    /// It is less than this, or the same where that is said.
    High(&'a Value, Ends),
    /// It is this.
    Equal(&'a Value),
    /// It is a text that begins so.
    Prefix(&'a str),
    /// Nothing but whether it is there.
    Exists,
}

/// Whether what stands at the end of a range is within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::blanket) enum Ends {
    Within,
    Beside,
}

impl Selector {
    /// What every document that matches keeps to.
    pub(in crate::blanket) fn limits(&self) -> Vec<(&FieldPath, Limit<'_>)> {
        let mut limits = Vec::new();
        collect_limits(&self.root, &mut limits);
        limits
    }

    /// Whether every document that matches has all of these fields.
    pub(in crate::blanket) fn requires(&self, fields: &[&FieldPath]) -> bool {
        left_of(&self.root, fields.to_vec()).is_empty()
    }

    /// Whether this field is the same in all documents that match.
    pub(in crate::blanket) fn is_constant(&self, field: &FieldPath) -> bool {
        let mut limits = self.limits().into_iter();
        limits.any(|(path, limit)| path == field && matches!(limit, Limit::Equal(_)))
    }

    /// Every field that is asked about, each once.
    pub fn fields(&self) -> Vec<&FieldPath> {
        let mut fields = Vec::new();
        collect_fields(&self.root, &mut fields);
        fields
    }
}

fn collect_limits<'a>(condition: &'a Condition, limits: &mut Vec<(&'a FieldPath, Limit<'a>)>) {
    match condition {
        Condition::And(all) => all.iter().for_each(|one| collect_limits(one, limits)),
        Condition::Field(path, condition) => match condition.as_ref() {
            Condition::Test(test) => limits.extend(limit_of(test).map(|limit| (path, limit))),
            Condition::And(_) | Condition::Or(_) | Condition::Not(_) | Condition::Field(..) => {}
        },
        Condition::Or(_) | Condition::Not(_) | Condition::Test(_) => {}
    }
}

fn limit_of(test: &Test) -> Option<Limit<'_>> {
    Some(match test {
        Test::Compare(Comparison::Less, value) => Limit::High(value, Ends::Beside),
        Test::Compare(Comparison::LessOrEqual, value) => Limit::High(value, Ends::Within),
        Test::Compare(Comparison::Equal, value) => Limit::Equal(value),
        Test::Compare(Comparison::GreaterOrEqual, value) => Limit::Low(value, Ends::Within),
        Test::Compare(Comparison::Greater, value) => Limit::Low(value, Ends::Beside),
        Test::BeginsWith(prefix) => Limit::Prefix(prefix),
        Test::Exists(_) => Limit::Exists,
        Test::Compare(Comparison::NotEqual, _)
        | Test::Type(_)
        | Test::In(_)
        | Test::NotIn(_)
        | Test::Size(_)
        | Test::Mod { .. }
        | Test::Regex(_)
        | Test::All(_)
        | Test::ElementMatch(_)
        | Test::AllMatch(_)
        | Test::KeyMapMatch(_) => return None,
    })
}

/// Of these fields, those that a document may lack and match.
fn left_of<'a>(condition: &Condition, fields: Vec<&'a FieldPath>) -> Vec<&'a FieldPath> {
    match condition {
        Condition::And(all) => all.iter().fold(fields, |left, one| left_of(one, left)),
        Condition::Or(any) => {
            let lacked: Vec<Vec<&FieldPath>> = any.iter().map(|one| left_of(one, fields.clone())).collect();
            let is_lacked = |field: &&FieldPath| lacked.iter().any(|left| left.contains(field));
            fields.into_iter().filter(is_lacked).collect()
        }
        Condition::Field(path, condition) => match condition.as_ref() {
            Condition::Test(Test::Exists(false)) => fields,
            _ => fields.into_iter().filter(|field| *field != path).collect(),
        },
        Condition::Not(_) | Condition::Test(_) => fields,
    }
}

fn collect_fields<'a>(condition: &'a Condition, fields: &mut Vec<&'a FieldPath>) {
    match condition {
        Condition::And(all) | Condition::Or(all) => all.iter().for_each(|one| collect_fields(one, fields)),
        Condition::Not(other) => collect_fields(other, fields),
        Condition::Field(path, _) if !fields.contains(&path) => fields.push(path),
        Condition::Field(..) | Condition::Test(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selector(json: &Value) -> Selector {
        Selector::parse(json).unwrap()
    }

    fn requires(json: &Value, fields: &[&str]) -> bool {
        let fields: Vec<FieldPath> = fields.iter().map(|field| FieldPath::parse(field)).collect();
        selector(json).requires(&fields.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_must_be_there_is_seen_through_and_and_or() {
        assert!(requires(&json!({"a": 1}), &["a"]));
        assert!(requires(
            &json!({"a": {"$regex": "x"}, "b": {"$ne": 1}}),
            &["a", "b"]
        ));
        assert!(requires(&json!({"a": {"b": {"$gt": 1}}}), &["a.b"]));
        assert!(requires(&json!({"$or": [{"a": 1}, {"a": 2, "b": 1}]}), &["a"]));
        assert!(requires(&json!({"$not": {"a": {"$regex": "x"}}}), &["a"]));
        assert!(requires(&json!({"a": {"$not": {"$exists": false}}}), &["a"]));
        assert!(!requires(&json!({"$or": [{"a": 1}, {"b": 1}]}), &["a"]));
        assert!(!requires(&json!({"a": {"$exists": false}}), &["a"]));
        assert!(!requires(&json!({"a": 1}), &["a", "b"]));
        assert!(!requires(&json!({}), &["a"]));
        assert!(requires(&json!({}), &[]));
    }

    #[test]
    fn limits_are_those_of_an_and() {
        let selector = selector(&json!({
            "a": {"$gt": 1, "$lte": 5}, "$and": [{"b": "x"}, {"c": {"$beginsWith": "y"}}],
            "$or": [{"d": 1}], "e": {"$in": [1]}, "f": {"$exists": true}, "g": {"$not": {"$lt": 3}},
        }));
        let limits: Vec<String> = selector
            .limits()
            .iter()
            .map(|(path, limit)| format!("{} {limit:?}", path.names().join(".")))
            .collect();
        let wanted = [
            "b Equal(String(\"x\"))",
            "c Prefix(\"y\")",
            "a Low(Number(1), Beside)",
            "a High(Number(5), Within)",
            "f Exists",
            "g Low(Number(3), Within)",
        ];
        let mut found = limits.clone();
        found.sort();
        let mut wanted: Vec<&str> = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        assert!(selector.is_constant(&FieldPath::parse("b")));
        assert!(!selector.is_constant(&FieldPath::parse("a")));
    }
}
