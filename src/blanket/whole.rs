//! A document as selectors and indexes see it: its body with the members that are kept apart, as CouchDB shows them.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::doc::Doc;

/// The document as one JSON value; `null` where its body is no object.
pub fn whole(doc: &Doc) -> Value {
    // A body was checked when it came in.
    let mut value: Value = serde_json::from_str(doc.body.as_str()).unwrap_or(Value::Null);
    if let Value::Object(members) = &mut value {
        members.insert("_id".to_owned(), Value::from(doc.id.as_str()));
        members.insert("_rev".to_owned(), Value::from(doc.rev().to_string()));
        if doc.deleted {
            members.insert("_deleted".to_owned(), Value::Bool(true));
        }
        if !doc.attachments.is_empty() {
            let named = doc.attachments.iter().map(|(name, attachment)| {
                let fields = json!({
                    "content_type": attachment.content_type,
                    "revpos": attachment.revpos,
                    "digest": format!("md5-{}", BASE64.encode(&attachment.digest)),
                    "length": attachment.length,
                    "stub": true,
                });
                (name.clone(), fields)
            });
            members.insert("_attachments".to_owned(), Value::Object(named.collect()));
        }
    }
    value
}
