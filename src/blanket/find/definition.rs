//! What an index is of: its fields, their order, and which documents it takes. Kept in design documents of the language `query`.
//!
//! ```text
//! {"language": "query", "views": {NAME: {"map": {"fields": {"a": "asc", "b": "asc"}, "partial_filter_selector": {…}},
//!                                        "reduce": "_count", "options": {"def": {"fields": ["a", "b"], …}}}}}
//! ```
//!
//! That is CouchDB's form, so that an index goes where its documents go. The order of `map.fields` counts, which is why it is read
//! as it is written. Directions say nothing: an index is read both ways. What is no index is passed over, as with CouchDB.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::blanket::doc::Doc;
use crate::blanket::selector::{FieldPath, Selector};
use crate::id::DocId;

/// Fields of one index.
pub const INDEX_FIELDS_MAX: usize = 32;

/// An index that is defined, or the order by id that every database has.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its design document; `None` for the order by id.
    pub ddoc: Option<DocId>,
    /// Its name there.
    pub name: String,
    /// What it is ordered by.
    pub fields: Vec<IndexField>,
    /// Which documents it takes, where not all.
    pub filter: Option<Filter>,
}

/// One field of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexField {
    /// As it is written.
    pub name: String,
    /// Where it lies.
    pub path: FieldPath,
    /// As it is written: `asc` or `desc`.
    pub direction: String,
}

/// Which documents an index takes.
#[derive(Debug, Clone)]
pub struct Filter {
    /// As it is written.
    pub json: Value,
    /// What it says.
    pub selector: Selector,
}

/// What tells one index from another: the same fields and the same filter are the same index, whoever defines it.
pub(in crate::blanket) type Signature = [u8; 16];

impl Index {
    /// The order by id.
    pub fn all_docs() -> Index {
        Index {
            ddoc: None,
            name: "_all_docs".to_owned(),
            fields: IndexField::new("_id", "asc").into_iter().collect(),
            filter: None,
        }
    }

    /// The indexes that a document defines; none where it is no design document of Mango.
    pub fn of_doc(doc: &Doc) -> Vec<Index> {
        let Ok(design) = serde_json::from_str::<Design>(doc.body.as_str()) else {
            return Vec::new();
        };
        if doc.deleted || design.language.as_deref() != Some("query") {
            return Vec::new();
        }
        let views = design.views.into_iter().flat_map(|views| views.0);
        let index = |(name, view): (String, MaybeView)| match view {
            MaybeView::View(view) => view.map.index(doc.id.clone(), name),
            MaybeView::Other(_) => None,
        };
        views.filter_map(index).collect()
    }

    /// As `_index` and `_explain` show it.
    pub fn shown(&self) -> Value {
        let fields: Vec<Value> = self
            .fields
            .iter()
            .map(|field| json!({field.name.clone(): field.direction}))
            .collect();
        let mut def = json!({"fields": fields});
        if let Some(filter) = &self.filter {
            def["partial_filter_selector"] = filter.json.clone();
        }
        let kind = if self.is_all_docs() { "special" } else { "json" };
        json!({"ddoc": self.ddoc, "name": self.name, "type": kind, "partitioned": false, "def": def})
    }

    /// Whether it is the order by id.
    pub fn is_all_docs(&self) -> bool {
        self.ddoc.is_none()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &FieldPath> {
        self.fields.iter().map(|field| &field.path)
    }

    /// The key of a document; `None` where the index does not take it.
    pub(in crate::blanket) fn key_of(&self, document: &Value) -> Option<Vec<u8>> {
        if let Some(filter) = &self.filter
            && !filter.selector.matches(document)
        {
            return None;
        }
        let mut key = Vec::new();
        for path in self.paths() {
            crate::blanket::collate::write_key(path.find(document)?, &mut key);
        }
        Some(key)
    }

    pub(in crate::blanket) fn signature(&self) -> Signature {
        let mut hasher = blake3::Hasher::new();
        let paths: Vec<&[String]> = self.paths().map(FieldPath::names).collect();
        let filter = self.filter.as_ref().map(|filter| &filter.json);
        hasher.update(json!([paths, filter]).to_string().as_bytes());
        let mut signature = Signature::default();
        hasher.finalize_xof().fill(&mut signature);
        signature
    }
}

impl IndexField {
    /// A field as it is written; `None` for what is no direction, or no field.
    pub fn new(name: &str, direction: &str) -> Option<IndexField> {
        let is_one = !name.is_empty() && ["asc", "desc"].contains(&direction);
        is_one.then(|| IndexField {
            name: name.to_owned(),
            path: FieldPath::parse(name),
            direction: direction.to_owned(),
        })
    }
}

impl Filter {
    /// Reads a filter; `None` for one that takes everything, or is none.
    fn of_json(json: Option<Value>) -> Result<Option<Filter>, ()> {
        let Some(json) = json else { return Ok(None) };
        let selector = Selector::parse(&json).map_err(|_| ())?;
        Ok((!selector.is_empty()).then_some(Filter { json, selector }))
    }
}

#[derive(serde::Deserialize)]
struct Design {
    language: Option<String>,
    views: Option<Ordered<MaybeView>>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum MaybeView {
    View(View),
    Other(IgnoredAny),
}

#[derive(serde::Deserialize)]
struct View {
    map: Map,
}

#[derive(serde::Deserialize)]
struct Map {
    fields: Ordered<String>,
    partial_filter_selector: Option<Value>,
    /// As it was once called.
    selector: Option<Value>,
}

impl Map {
    fn index(self, ddoc: DocId, name: String) -> Option<Index> {
        let fields = self.fields.0.iter();
        let fields: Option<Vec<IndexField>> = fields
            .map(|(name, direction)| IndexField::new(name, direction))
            .collect();
        let filter = Filter::of_json(self.partial_filter_selector.or(self.selector)).ok()?;
        Some(Index {
            ddoc: Some(ddoc),
            name,
            fields: fields.filter(|fields| (1..=INDEX_FIELDS_MAX).contains(&fields.len()))?,
            filter,
        })
    }
}

/// The members of an object, in the order they are written in.
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or an array of objects")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ordered<T>, A::Error> {
                let mut members = Vec::new();
                while let Some(Ordered(more)) = items.next_element()? {
                    members.extend(more);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_any(Members(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blanket::doc::Body;
    use crate::id::Seq;

    fn indexes(design: &Value, text: &str) -> Vec<Index> {
        let text = if text.is_empty() {
            design.to_string()
        } else {
            text.to_owned()
        };
        Index::of_doc(&Doc {
            id: "_design/d".parse().unwrap(),
            revisions: vec!["1-00000000000000000000000000000001".parse().unwrap()],
            deleted: false,
            body: Body::from(text),
            attachments: std::collections::BTreeMap::new(),
            seq: Seq::ZERO,
        })
    }

    #[test]
    fn fields_are_in_the_order_they_are_written_in() {
        let text = r#"{"language":"query","views":{"z":{"map":{"fields":{"b":"asc","a.c":"desc"},
            "partial_filter_selector":{"x":{"$gt":1}}},"reduce":"_count","options":{"def":{"fields":["b","a.c"]}}}}}"#;
        let found = indexes(&Value::Null, text);
        let shown: Vec<Value> = found.iter().map(Index::shown).collect();
        let wanted = json!([{"ddoc": "_design/d", "name": "z", "type": "json", "partitioned": false,
            "def": {"fields": [{"b": "asc"}, {"a.c": "desc"}], "partial_filter_selector": {"x": {"$gt": 1}}}}]);
        assert_eq!(Value::from(shown), wanted);
        let document = json!({"a": {"c": 1}, "b": 2, "x": 2});
        let key = found[0].key_of(&document).unwrap();
        let mut whole = Vec::new();
        for value in [json!(2), json!(1)] {
            crate::blanket::collate::write_key(&value, &mut whole);
        }
        assert_eq!(key, whole);
        assert_eq!(found[0].key_of(&json!({"a": {"c": 1}, "b": 2, "x": 1})), None);
        assert_eq!(found[0].key_of(&json!({"a": 1, "b": 2, "x": 2})), None);
    }

    #[test]
    fn what_defines_no_index_is_passed_over() {
        let view = |fields: Value| json!({"map": {"fields": fields}});
        let views = |views: Value| json!({"language": "query", "views": views});
        for design in [
            json!({}),
            json!({"views": {"a": view(json!({"a": "asc"}))}}),
            json!({"language": "javascript", "views": {"a": view(json!({"a": "asc"}))}}),
            json!({"language": "query", "views": 1}),
            views(json!({"a": {"map": "function (doc) {}"}})),
            views(json!({"a": view(json!({}))})),
            views(json!({"a": view(json!({"a": "up"}))})),
            views(json!({"a": view(json!({"": "asc"}))})),
            views(json!({"a": {"map": {"fields": {"a": "asc"}, "partial_filter_selector": {"$x": 1}}}})),
        ] {
            assert_eq!(indexes(&design, "").len(), 0, "{design}");
        }
        let mixed = views(json!({"bad": 1, "good": view(json!([{"a": "asc"}]))}));
        assert_eq!(indexes(&mixed, "").len(), 1);
    }
}
