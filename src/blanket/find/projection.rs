//! What of a document a query tells. Pure.

use serde_json::{Map, Value, json};

use crate::blanket::selector::FieldPath;

/// Only these fields, each at its place; all where none is named.
pub fn projected(value: Value, fields: Option<&[FieldPath]>) -> Value {
    let Some(fields) = fields else {
        return value;
    };
    let mut shown = Map::new();
    for field in fields {
        let (Some(found), Some((last, way))) = (field.find(&value), field.names().split_last()) else {
            continue;
        };
        let mut at = &mut shown;
        for name in way {
            let member = at.entry(name.clone()).or_insert_with(|| json!({}));
            if !member.is_object() {
                *member = json!({});
            }
            at = member.as_object_mut().expect("it was made one");
        }
        at.insert(last.clone(), found.clone());
    }
    Value::Object(shown)
}
