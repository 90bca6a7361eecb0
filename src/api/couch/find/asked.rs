//! What a client asks of `_find` and `_explain`, member by member as CouchDB takes them.

use serde_json::{Map, Value, json};

use super::super::fault::Fault;
use crate::api::error::Error;
use crate::node::{FieldPath, FindQuery, IndexHint};

/// Documents that are told where nobody says how many.
const LIMIT: usize = 25;

/// A query that was understood.
pub(super) struct Asked {
    /// As it was sent.
    pub(super) selector: Value,
    pub(super) query: FindQuery,
    pub(super) limit: usize,
    pub(super) skip: usize,
    /// As they were sent.
    pub(super) fields: Vec<String>,
    pub(super) bookmark: Option<String>,
    pub(super) conflicts: bool,
    /// Whether the index is brought up to date first.
    pub(super) update: bool,
    pub(super) execution_stats: bool,
    sort: Vec<SortField>,
}

/// A field by which is sorted, and its direction: `asc` or `desc`.
pub(in crate::api::couch) type SortField = (String, &'static str);

/// Members of a body that are taken out one by one.
struct Members(Map<String, Value>);

impl Asked {
    /// Reads the body of a request.
    pub(super) fn of_body(body: Value) -> Result<Asked, Error> {
        let Value::Object(members) = body else {
            return Err(Fault::Body("Request body must be a JSON object".to_owned()).into());
        };
        let mut members = Members(members);
        let selector = members.0.remove("selector");
        let selector = selector.ok_or_else(|| {
            wrong(
                "missing_required_key",
                "Missing required key: selector".to_owned(),
            )
        })?;
        let query = FindQuery::of(&selector).map_err(Fault::Selector)?;
        let hint = hint(members.0.remove("use_index"))?;
        let bookmark = match members.0.remove("bookmark") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if ["", "nil"].contains(&text.as_str()) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => return Err(bad_bookmark(&other.to_string())),
        };
        let limit = members.number("limit")?.unwrap_or(LIMIT);
        let skip = members.number("skip")?.unwrap_or(0);
        let (sort, descending) = sort(members.0.remove("sort"))?;
        let fields = fields(members.0.remove("fields"))?;
        // Of no use here: there are no partitions, no quorum, and one copy of everything.
        if members
            .0
            .remove("partition")
            .is_some_and(|partition| partition != "")
        {
            return Err(Fault::Body("databases here have no partitions".to_owned()).into());
        }
        members.number("r")?;
        let conflicts = members.flag("conflicts", false)?;
        members.flag("stable", false)?;
        let is_stale = members.0.remove("stale").is_some_and(|stale| stale == "ok");
        let update = members.flag("update", true)? && !is_stale;
        let execution_stats = members.flag("execution_stats", false)?;
        let may_fall_back = members.flag("allow_fallback", true)?;
        if let Some(key) = members.0.keys().next() {
            return Err(wrong(
                "invalid_key",
                format!("Invalid key {key} for this request."),
            ));
        }
        Ok(Asked {
            query: FindQuery {
                sort: sort.iter().map(|(name, _)| FieldPath::parse(name)).collect(),
                descending,
                fields: (!fields.is_empty())
                    .then(|| fields.iter().map(|field| FieldPath::parse(field)).collect()),
                hint,
                may_fall_back,
                ..query
            },
            selector,
            limit,
            skip,
            fields,
            bookmark,
            conflicts,
            update,
            execution_stats,
            sort,
        })
    }

    /// All options, as `_explain` shows them.
    pub(super) fn options(&self) -> Value {
        let sort: Map<String, Value> = self
            .sort
            .iter()
            .map(|(name, direction)| (name.clone(), Value::from(*direction)))
            .collect();
        let hint = self.query.hint.iter();
        let hint = hint.flat_map(|hint| {
            [
                Some(hint.ddoc.as_str()["_design/".len()..].to_owned()),
                hint.name.clone(),
            ]
        });
        json!({
            "use_index": hint.flatten().collect::<Vec<_>>(),
            "bookmark": self.bookmark.as_deref().unwrap_or("nil"),
            "limit": self.limit,
            "skip": self.skip,
            "sort": sort,
            "fields": self.fields,
            "partition": "",
            "r": 1,
            "conflicts": self.conflicts,
            "stale": false,
            "update": self.update,
            "stable": false,
            "execution_stats": self.execution_stats,
            "allow_fallback": self.query.may_fall_back,
        })
    }

    /// The index that is to be used, as CouchDB's sentences name it.
    pub(super) fn hint_text(&self) -> String {
        match &self.query.hint {
            None => String::new(),
            Some(IndexHint { ddoc, name: None }) => ddoc.to_string(),
            Some(IndexHint {
                ddoc,
                name: Some(name),
            }) => format!("{ddoc}, {name}"),
        }
    }

    /// Whether it is one index, and not any of a design document.
    pub(super) fn names_index(&self) -> bool {
        self.query.hint.as_ref().is_some_and(|hint| hint.name.is_some())
    }
}

impl Members {
    fn number(&mut self, name: &'static str) -> Result<Option<usize>, Error> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let number = value.as_u64().ok_or_else(|| {
            let reason = format!("{value} is not an integer greater than or equal to zero");
            wrong("invalid_non_neg_integer", reason)
        })?;
        Ok(Some(usize::try_from(number).unwrap_or(usize::MAX)))
    }

    fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, Error> {
        match self.0.remove(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(
                "invalid_boolean",
                format!("Invalid boolean value: {other}"),
            )),
        }
    }
}

pub(super) fn bad_bookmark(bookmark: &str) -> Error {
    wrong(
        "invalid_bookmark",
        format!("Invalid bookmark value: {}", Value::from(bookmark)),
    )
}

pub(in crate::api::couch) fn wrong(code: &'static str, reason: String) -> Error {
    Fault::Find { code, reason }.into()
}

/// `"design"`, `"design/index"`, or the same as a list.
fn hint(value: Option<Value>) -> Result<Option<IndexHint>, Error> {
    let value = value.unwrap_or(Value::Null);
    let bad = || wrong("invalid_index_name", format!("Invalid index name: {value}"));
    let (design, name) = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => match text.split_once('/') {
            Some(("_design", design)) => (design, None),
            Some((design, name)) => (design, Some(name)),
            None => (text.as_str(), None),
        },
        Value::Array(items) => match items.as_slice() {
            [] => return Ok(None),
            [Value::String(design)] => (design.as_str(), None),
            [Value::String(design), Value::String(name)] => (design.as_str(), Some(name.as_str())),
            _ => return Err(bad()),
        },
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(bad()),
    };
    let design = design.strip_prefix("_design/").unwrap_or(design);
    Ok(Some(IndexHint {
        ddoc: format!("_design/{design}").parse().map_err(|_| bad())?,
        name: name.map(str::to_owned),
    }))
}

/// The fields of a sort and its one direction.
fn sort(value: Option<Value>) -> Result<(Vec<SortField>, bool), Error> {
    let items = match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(wrong(
                "invalid_sort_json",
                format!("Sort must be an array of sort specs, not: {other}"),
            ));
        }
    };
    let fields: Vec<SortField> = items.iter().map(sort_field).collect::<Result<_, _>>()?;
    one_direction(&fields)?;
    let descending = fields.first().is_some_and(|(_, direction)| *direction == "desc");
    Ok((fields, descending))
}

/// A field as `"name"` or `{"name": "asc"}`.
pub(in crate::api::couch) fn sort_field(value: &Value) -> Result<SortField, Error> {
    let bad = || wrong("invalid_sort_field", format!("Invalid sort field: {value}"));
    match value {
        Value::String(name) if !name.is_empty() => Ok((name.clone(), "asc")),
        Value::Object(members) if members.len() == 1 => {
            let (name, direction) = members.iter().next().ok_or_else(bad)?;
            match direction.as_str() {
                Some("asc") => Ok((name.clone(), "asc")),
                Some("desc") => Ok((name.clone(), "desc")),
                _ => Err(wrong(
                    "invalid_sort_dir",
                    format!("Invalid sort direction: {value}"),
                )),
            }
        }
        _ => Err(bad()),
    }
}

/// # Errors
/// Where one field is ascending and another descending.
pub(in crate::api::couch) fn one_direction(fields: &[SortField]) -> Result<(), Error> {
    let is_mixed = fields.windows(2).any(|pair| pair[0].1 != pair[1].1);
    match is_mixed {
        true => {
            let reason = "Sorts currently only support a single direction for all fields.";
            Err(wrong("unsupported_mixed_sort", reason.to_owned()))
        }
        false => Ok(()),
    }
}

fn fields(value: Option<Value>) -> Result<Vec<String>, Error> {
    let items = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(wrong(
                "invalid_fields",
                format!("Fields must be an array of strings, not: {other}"),
            ));
        }
    };
    let text = |item: Value| match item {
        Value::String(text) => Ok(text),
        other => Err(wrong(
            "invalid_field",
            format!("Invalid JSON for field spec: {other}"),
        )),
    };
    items.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hinted(value: Value) -> Option<(String, Option<String>)> {
        let hint = hint(Some(value)).unwrap();
        hint.map(|hint| (hint.ddoc.to_string(), hint.name))
    }

    #[test]
    fn an_index_is_named_in_all_of_couchdbs_ways() {
        let one = Some(("_design/d".to_owned(), None));
        let two = Some(("_design/d".to_owned(), Some("i".to_owned())));
        for (value, wanted) in [
            (json!(null), &None),
            (json!([]), &None),
            (json!("d"), &one),
            (json!("_design/d"), &one),
            (json!(["d"]), &one),
            (json!(["_design/d"]), &one),
            (json!("d/i"), &two),
            (json!(["d", "i"]), &two),
            (json!(["_design/d", "i"]), &two),
        ] {
            assert_eq!(hinted(value.clone()), *wanted, "{value}");
        }
        for bad in [json!(1), json!({}), json!([1]), json!(["a", "b", "c"]), json!("")] {
            assert!(hint(Some(bad.clone())).is_err(), "{bad}");
        }
    }
}
