//! Why the other indexes do not answer a query, as `_explain` tells it. Pure.
//!
//! CouchDB goes through the indexes in rounds: those with a filter, those that can't answer, those that the query does not name, those of
//! another kind than the one chosen, and of the rest all but the best. Each round ranks behind the one after it, the best of all at 0.
//! Source: CouchDB, `mango_cursor:extract_candidate_indexes`.

use super::choice::{Query, is_usable, limited, sorts};
use super::definition::Index;
use super::range;

/// An index that was not chosen.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The index.
    pub index: Index,
    /// Whether it could have answered.
    pub is_usable: bool,
    /// CouchDB's word for why it does not.
    pub reason: &'static str,
    /// How far it is from being chosen.
    pub ranking: usize,
    /// Whether everything that is told stands in it; `None` for the order by id.
    pub is_covering: Option<bool>,
}

/// The indexes that do not answer a query, the nearest first; `chosen` does, where one does.
pub(super) fn candidates(query: &Query, indexes: Vec<Index>, chosen: Option<&Index>) -> Vec<Candidate> {
    let is_named = |index: &Index| query.hint.as_ref().is_some_and(|hint| hint.names(index));
    let is_partial = |index: &Index| index.filter.is_some() && !is_named(index);
    let (partial, rest): (Vec<Index>, Vec<Index>) = indexes.into_iter().partition(is_partial);
    let (usable, unusable): (Vec<Index>, Vec<Index>) =
        rest.into_iter().partition(|index| is_usable(query, index));
    let has_named = usable.iter().any(is_named);
    let (filtered, excluded): (Vec<Index>, Vec<Index>) = usable
        .into_iter()
        .partition(|index| !has_named || is_named(index));
    let has_json = filtered.iter().any(|index| !index.is_all_docs());
    let (mut best, unfavored): (Vec<Index>, Vec<Index>) = filtered
        .into_iter()
        .partition(|index| has_json != index.is_all_docs());
    let ranges = range::field_ranges(&query.selector);
    let missed = |index: &Index| ranges.len() - limited(index, &ranges).len();
    best.sort_by_key(|index| {
        (
            missed(index),
            index.fields.len(),
            index.ddoc.clone(),
            index.name.clone(),
        )
    });
    let width = chosen.map_or(0, |index| index.fields.len());
    let mut told = Vec::new();
    let mut tell = |index: Index, is_usable, reason, ranking| {
        let is_chosen = chosen.is_some_and(|chosen| is_same(chosen, &index));
        if !is_chosen {
            told.push(Candidate {
                is_covering: (!index.is_all_docs()).then(|| covers(query, &index)),
                index,
                is_usable,
                reason,
                ranking,
            });
        }
    };
    let mut rank = best.len().max(1);
    for (place, index) in best.into_iter().enumerate() {
        let reason = match (missed(&index), index.fields.len()) {
            (1.., _) => "less_overlap",
            (0, fields) if fields > width => "too_many_fields",
            (0, _) => "alphabetically_comes_after",
        };
        tell(index, true, reason, place);
    }
    for (round, is_usable, reason) in [
        (unfavored, true, Some("unfavored_type")),
        (excluded, true, Some("excluded_by_user")),
        (unusable, false, None),
        (partial, false, Some("is_partial")),
    ] {
        let next = rank + usize::from(!round.is_empty());
        for index in round {
            let reason = reason.unwrap_or_else(|| mismatch(query, &index));
            tell(index, is_usable, reason, rank);
        }
        rank = next;
    }
    told.sort_by_key(|candidate| candidate.ranking);
    told
}

/// Why an index can't answer.
fn mismatch(query: &Query, index: &Index) -> &'static str {
    let limits_id = || query.selector.limits().iter().any(|(path, _)| path.is_id());
    let has_fields = match index.is_all_docs() {
        true => limits_id(),
        false => super::choice::has_fields(query, index),
    };
    let is_sorted = !index.is_all_docs() && sorts(query, index);
    match has_fields || (index.is_all_docs() && !query.sort.is_empty()) {
        true if !is_sorted => "sort_order_mismatch",
        true | false => "field_mismatch",
    }
}

fn covers(query: &Query, index: &Index) -> bool {
    let has =
        |path: &crate::blanket::selector::FieldPath| path.is_id() || index.paths().any(|own| own == path);
    query.fields.as_ref().is_some_and(|fields| fields.iter().all(has))
}

fn is_same(one: &Index, other: &Index) -> bool {
    (&one.ddoc, &one.name) == (&other.ddoc, &other.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::choice::{Hint, choose};
    use super::super::definition::{Filter, IndexField};
    use super::*;
    use crate::blanket::selector::{FieldPath, Selector};

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

    fn told(query: &Query) -> Vec<(String, bool, &'static str, usize, Option<bool>)> {
        let json = json!({"x": 1});
        let partial = Index {
            filter: Some(Filter {
                selector: Selector::parse(&json).unwrap(),
                json,
            }),
            ..index("partial", &["a"])
        };
        let indexes = vec![
            Index::all_docs(),
            index("a", &["a"]),
            index("a2", &["a"]),
            index("ab", &["a", "b"]),
            index("c", &["c"]),
            partial,
        ];
        let chosen = choose(query, indexes.clone()).ok().map(|plan| plan.index);
        let name = |index: &Index| index.ddoc.as_ref().map_or("all".to_owned(), ToString::to_string);
        let told = candidates(query, indexes, chosen.as_ref());
        told.iter()
            .map(|one| {
                let name = name(&one.index).replace("_design/", "");
                (name, one.is_usable, one.reason, one.ranking, one.is_covering)
            })
            .collect()
    }

    #[test]
    fn each_index_that_is_not_chosen_has_couchdbs_reason() {
        let mut query = Query::of(&json!({"a": 1, "b": {"$exists": true}})).unwrap();
        query.fields = Some(vec![FieldPath::parse("b")]);
        let own = |name: &str, usable, reason, ranking, covering| {
            (name.to_owned(), usable, reason, ranking, covering)
        };
        let unlimited = Query::of(&json!({"a": 1})).unwrap();
        assert_eq!(
            told(&unlimited),
            [
                own("a2", true, "alphabetically_comes_after", 1, Some(false)),
                own("all", true, "unfavored_type", 2, None),
                own("ab", false, "field_mismatch", 3, Some(false)),
                own("c", false, "field_mismatch", 3, Some(false)),
                own("partial", false, "is_partial", 4, Some(false)),
            ]
        );
        let reasons: Vec<_> = told(&query).into_iter().map(|one| (one.0, one.2)).collect();
        assert!(
            reasons.contains(&("all".to_owned(), "unfavored_type")),
            "{reasons:?}"
        );
        let sorted = Query {
            sort: vec![FieldPath::parse("b")],
            ..Query::of(&json!({"c": {"$gt": 1}})).unwrap()
        };
        let reasons: Vec<_> = told(&sorted).into_iter().map(|one| (one.0, one.2)).collect();
        assert!(
            reasons.contains(&("c".to_owned(), "sort_order_mismatch")),
            "{reasons:?}"
        );
        assert!(
            reasons.contains(&("all".to_owned(), "sort_order_mismatch")),
            "{reasons:?}"
        );
        let named = Query {
            hint: Some(Hint {
                ddoc: "_design/a2".parse().unwrap(),
                name: None,
            }),
            ..unlimited
        };
        let reasons: Vec<_> = told(&named).into_iter().map(|one| (one.0, one.2)).collect();
        assert!(
            reasons.contains(&("a".to_owned(), "excluded_by_user")),
            "{reasons:?}"
        );
    }
}
