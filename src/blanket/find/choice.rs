//! Which index answers a query, by CouchDB's rules. Pure.
//!
//! An index can answer where every document that matches has all its fields (those that are sorted by count as well), and where it
//! stands in the order asked for: the sorted fields come first in it, after fields that are equal in all that match. One with a
//! filter is taken only where the query names it. Of those that are left, the one with the most fields in a row that the selector
//! limits, then the one with fewer fields, then the first by name. The order by id is for what nothing else answers.
//! Source: CouchDB, `mango_cursor_view:choose_best_index`, `mango_idx_view:is_usable`.

use serde_json::Value;

use super::definition::Index;
use super::range::{self, Between, Range};
use crate::blanket::selector::{FieldPath, Selector, SelectorError};
use crate::id::DocId;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which documents.
    pub selector: Selector,
    /// Whether the selector is an operator over an empty list, to which CouchDB answers nothing.
    pub is_void: bool,
    /// By what they are sorted; empty where that is left to the index.
    pub sort: Vec<FieldPath>,
    /// From the end of the order to its beginning.
    pub descending: bool,
    /// What of each is told, where not all.
    pub fields: Option<Vec<FieldPath>>,
    /// The index that is to be used.
    pub hint: Option<Hint>,
    /// Whether another may be used where that one cannot.
    pub may_fall_back: bool,
}

/// An index that a query names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Its design document.
    pub ddoc: DocId,
    /// Its name there; any where there is none.
    pub name: Option<String>,
}

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlan {
    /// It sorts, and no index stands in that order.
    Unsorted,
    /// It names an index that cannot answer it, and no other may.
    Unusable,
}

/// How a query is answered.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is read.
    pub index: Index,
    /// Whether everything the query is about stands in the index.
    pub is_covered: bool,
    /// Whether it is another index than the query names.
    pub is_fallback: bool,
    /// The ranges of the index's first fields; `None` where nothing can match.
    ranges: Option<Vec<(FieldPath, Between)>>,
}

impl Query {
    /// All that a selector matches, in any order, by any index.
    ///
    /// # Errors
    /// For what is no selector.
    pub fn of(selector: &Value) -> Result<Query, SelectorError> {
        Ok(Query {
            selector: Selector::parse(selector)?,
            is_void: is_void(selector),
            sort: Vec::new(),
            descending: false,
            fields: None,
            hint: None,
            may_fall_back: true,
        })
    }
}

/// An operator over an empty list: CouchDB answers nothing to those, though `$and` of nothing matches everything.
fn is_void(selector: &Value) -> bool {
    let members = selector.as_object().filter(|members| members.len() == 1);
    let only = members.and_then(|members| members.iter().next());
    only.is_some_and(|(name, value)| {
        ["$all", "$and", "$or", "$in"].contains(&name.as_str()) && value.as_array().is_some_and(Vec::is_empty)
    })
}

impl Hint {
    pub(super) fn names(&self, index: &Index) -> bool {
        index.ddoc.as_ref() == Some(&self.ddoc) && self.name.as_ref().is_none_or(|name| *name == index.name)
    }
}

/// Chooses among the indexes that are defined; the order by id is among them.
///
/// # Errors
/// [`NoPlan`].
pub(super) fn choose(query: &Query, indexes: Vec<Index>) -> Result<Plan, NoPlan> {
    let is_named = |index: &Index| query.hint.as_ref().is_some_and(|hint| hint.names(index));
    let (named, others): (Vec<Index>, Vec<Index>) = indexes
        .into_iter()
        .filter(|index| index.filter.is_none() || is_named(index))
        .filter(|index| is_usable(query, index))
        .partition(is_named);
    let is_fallback = query.hint.is_some() && named.is_empty();
    if is_fallback && !query.may_fall_back {
        return Err(NoPlan::Unusable);
    }
    let ranges = range::field_ranges(&query.selector);
    let candidates = if named.is_empty() { others } else { named };
    let index = candidates
        .into_iter()
        .min_by_key(|index| {
            let missed = ranges.len() - limited(index, &ranges).len();
            (
                index.is_all_docs(),
                missed,
                index.fields.len(),
                index.ddoc.clone(),
                index.name.clone(),
            )
        })
        .ok_or(NoPlan::Unsorted)?;
    let is_possible = !query.is_void && ranges.iter().all(|(_, range)| *range != Range::Empty);
    let own = limited(&index, &ranges).into_iter();
    let own = own.filter_map(|(path, range)| match range {
        Range::Between(between) => Some((path.clone(), between.clone())),
        Range::Empty => None,
    });
    let own = own.collect();
    Ok(Plan {
        is_covered: covers(&index, query),
        is_fallback,
        index,
        ranges: is_possible.then_some(own),
    })
}

pub(super) fn is_usable(query: &Query, index: &Index) -> bool {
    if index.is_all_docs() {
        let limits_id = || query.selector.limits().iter().any(|(path, _)| path.is_id());
        return query.sort.is_empty()
            || (limits_id() && matches!(query.sort.as_slice(), [path] if path.is_id()));
    }
    has_fields(query, index) && sorts(query, index)
}

/// Whether every document that matches has all fields of an index; those that are sorted by count as well.
pub(super) fn has_fields(query: &Query, index: &Index) -> bool {
    let is_always_there =
        |path: &FieldPath| matches!(path.names(), [name] if name == "_id" || name == "_rev");
    let needed: Vec<&FieldPath> = index
        .paths()
        .filter(|path| !query.sort.contains(path) && !is_always_there(path))
        .collect();
    query.selector.requires(&needed)
}

pub(super) fn sorts(query: &Query, index: &Index) -> bool {
    let Some(first) = query.sort.first() else {
        return true;
    };
    let paths: Vec<&FieldPath> = index.paths().collect();
    let constant = paths
        .iter()
        .take_while(|path| **path != first && query.selector.is_constant(path))
        .count();
    paths[constant..].len() >= query.sort.len()
        && paths[constant..].iter().zip(&query.sort).all(|(a, b)| *a == b)
}

/// The ranges of an index's first fields, as far as there are any.
pub(super) fn limited<'a>(
    index: &Index,
    ranges: &'a [(FieldPath, Range)],
) -> Vec<(&'a FieldPath, &'a Range)> {
    let of = |path: &FieldPath| {
        ranges
            .iter()
            .find(|(field, _)| field == path)
            .map(|(path, range)| (path, range))
    };
    index.paths().map_while(of).collect()
}

fn covers(index: &Index, query: &Query) -> bool {
    let Some(fields) = &query.fields else {
        return false;
    };
    let has = |path: &FieldPath| path.is_id() || index.paths().any(|own| own == path);
    !index.is_all_docs() && fields.iter().all(has) && query.selector.fields().into_iter().all(has)
}

impl Plan {
    /// Whether nothing can match.
    pub fn is_void(&self) -> bool {
        self.ranges.is_none()
    }

    /// Between which keys the index is read.
    pub(super) fn keys(&self) -> range::Keys {
        range::keys(&self.between())
    }

    /// Within what the ids of what matches lie; `None` where that is everything.
    pub(super) fn id_range(&self) -> Option<&Between> {
        let ranges = self.ranges.as_ref()?;
        ranges.first().map(|(_, range)| range)
    }

    /// The ends of what is read as `_explain` shows them, the lower one first.
    pub fn shown_range(&self) -> (Value, Value) {
        if self.is_void() {
            return (Value::Null, Value::Null);
        }
        match self.index.is_all_docs() {
            true => range::shown_ids(self.id_range()),
            false => range::shown(
                &self
                    .between()
                    .into_iter()
                    .map(|(_, range)| range)
                    .collect::<Vec<_>>(),
            ),
        }
    }

    fn between(&self) -> Vec<(&FieldPath, &Between)> {
        let ranges = self.ranges.iter().flatten();
        ranges.map(|(path, range)| (path, range)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::definition::{Filter, IndexField};
    use super::*;

    fn index(ddoc: &str, fields: &[&str]) -> Index {
        Index {
            ddoc: Some(format!("_design/{ddoc}").parse().unwrap()),
            name: "i".to_owned(),
            fields: fields
                .iter()
                .map(|field| IndexField::new(field, "asc").unwrap())
                .collect(),
            filter: None,
        }
    }

    fn query(selector: &Value, sort: &[&str]) -> Query {
        Query {
            selector: Selector::parse(selector).unwrap(),
            is_void: false,
            sort: sort.iter().map(|field| FieldPath::parse(field)).collect(),
            descending: false,
            fields: None,
            hint: None,
            may_fall_back: true,
        }
    }

    fn chosen(query: &Query, indexes: &[Index]) -> String {
        let all = indexes.iter().cloned().chain([Index::all_docs()]);
        match choose(query, all.collect()) {
            Ok(plan) => plan.index.ddoc.map_or("all".to_owned(), |id| {
                id.to_string()["_design/".len()..].to_owned()
            }),
            Err(none) => format!("{none:?}"),
        }
    }

    #[test]
    fn the_index_is_chosen_as_couchdb_does() {
        let indexes = [
            index("a", &["a"]),
            index("a2", &["a"]),
            index("ab", &["a", "b"]),
            index("abc", &["a", "b", "c"]),
            index("b", &["b"]),
        ];
        for (selector, sort, wanted) in [
            (json!({"a": 1}), vec![], "a"),
            (json!({"b": {"$gt": 1}}), vec![], "b"),
            (json!({"a": 1, "b": 2}), vec![], "ab"),
            (json!({"a": 1, "b": 2, "c": {"$gte": 0}}), vec![], "abc"),
            // Of one field limited and one that must only be there, the index with fewer fields.
            (json!({"a": 1, "b": {"$ne": 2}}), vec![], "a"),
            (json!({"c": 1}), vec![], "all"),
            (json!({"$or": [{"a": 1}, {"a": 2}]}), vec![], "a"),
            (json!({"$or": [{"a": 1}, {"c": 2}]}), vec![], "all"),
            (json!({"a": {"$exists": false}}), vec![], "all"),
            (json!({}), vec![], "all"),
            (json!({}), vec!["a"], "a"),
            (json!({}), vec!["a", "b"], "ab"),
            (json!({"a": 1}), vec!["b"], "ab"),
            (json!({"a": {"$gt": 1}, "b": 1}), vec!["b"], "b"),
            (json!({"a": 1}), vec!["c"], "Unsorted"),
            (json!({"a": 1}), vec!["b", "a"], "Unsorted"),
            (json!({"_id": {"$gt": null}}), vec!["_id"], "all"),
            (json!({}), vec!["_id"], "Unsorted"),
        ] {
            assert_eq!(
                chosen(&query(&selector, &sort), &indexes),
                wanted,
                "{selector} {sort:?}"
            );
        }
    }

    #[test]
    fn an_index_with_a_filter_is_used_where_it_is_named() {
        let mut partial = index("p", &["a"]);
        let json = json!({"b": 1});
        partial.filter = Some(Filter {
            selector: Selector::parse(&json).unwrap(),
            json,
        });
        let indexes = [partial, index("z", &["a"])];
        let mut query = query(&json!({"a": 1}), &[]);
        assert_eq!(chosen(&query, &indexes), "z");
        let hint = |ddoc: &str, name: Option<&str>| {
            Some(Hint {
                ddoc: ddoc.parse().unwrap(),
                name: name.map(str::to_owned),
            })
        };
        query.hint = hint("_design/p", None);
        assert_eq!(chosen(&query, &indexes), "p");
        query.hint = hint("_design/p", Some("i"));
        assert_eq!(chosen(&query, &indexes), "p");
        query.hint = hint("_design/p", Some("other"));
        assert_eq!(chosen(&query, &indexes), "z");
        query.may_fall_back = false;
        assert_eq!(chosen(&query, &indexes), "Unusable");
    }

    #[test]
    fn ranges_are_shown_as_couchdb_shows_them() {
        let indexes = [index("ab", &["a", "b"])];
        let plan = |selector: Value| {
            choose(
                &query(&selector, &[]),
                vec![indexes[0].clone(), Index::all_docs()],
            )
            .unwrap()
        };
        for (selector, start, end) in [
            (json!({"a": 1, "b": 2}), json!([1, 2]), json!([1, 2, "<MAX>"])),
            (
                json!({"a": 1, "b": {"$gt": 2}}),
                json!([1, 2]),
                json!([1, "<MAX>"]),
            ),
            (
                json!({"a": {"$gte": 1, "$lt": 5}, "b": {"$lte": 2}}),
                json!([1]),
                json!([5, 2, "<MAX>"]),
            ),
            (
                json!({"a": {"$exists": true}, "b": 1}),
                json!([]),
                json!(["<MAX>"]),
            ),
            (
                json!({"a": {"$gt": 5, "$lt": 1}, "b": 1}),
                json!(null),
                json!(null),
            ),
            (json!({"_id": {"$gte": "x"}}), json!("x"), json!("<MAX>")),
        ] {
            assert_eq!(plan(selector.clone()).shown_range(), (start, end), "{selector}");
        }
        let mut asked = query(&json!({"a": 1, "b": 2}), &[]);
        for (fields, wanted) in [
            (None, false),
            (Some(vec!["_id", "b"]), true),
            (Some(vec!["c"]), false),
        ] {
            asked.fields = fields.map(|fields| fields.into_iter().map(FieldPath::parse).collect());
            assert_eq!(choose(&asked, indexes.to_vec()).unwrap().is_covered, wanted);
        }
    }
}
