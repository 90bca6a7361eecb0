//! Revisions as a server writes them, taken for true only where they are what was asked for. Pure.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::Value;

use super::super::peer::{Hung, Revision, Wanted};
use crate::id::{DocId, Rev, RevHash};
use crate::node::split_document;

/// Attachments of one document: as many as one of ours has.
const ATTACHMENTS_MAX: usize = 1000;

/// The longest name of an attachment: as ours.
const NAME_BYTES_MAX: usize = 1024;

/// The longest media type.
const TYPE_BYTES_MAX: usize = 1024;

/// The longest history: what a node may be set to remember, and more.
const HISTORY_MAX: usize = 100_000;

#[derive(Deserialize)]
struct Revisions {
    start: u32,
    ids: Vec<String>,
}

#[derive(Deserialize)]
struct AttachmentBody {
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    revpos: u32,
    #[serde(default)]
    digest: Option<String>,
    length: Option<u64>,
    #[serde(default)]
    encoding: Option<String>,
}

/// The revisions of one item of `_bulk_get`: `{"id": …, "docs": [{"ok": {…}} | {"error": {…}}, …]}`.
///
/// # Errors
/// What is wrong with it, as it follows `answers`.
pub(super) fn results_item(text: &str, wanted: &[Wanted]) -> Result<Vec<Revision>, String> {
    let members = members(text)?;
    let id = members
        .get("id")
        .and_then(|id| serde_json::from_str::<String>(id).ok());
    let id = id.ok_or("a result without an id")?;
    let docs = members.get("docs").ok_or("a result without docs")?;
    let mut found = Vec::new();
    for entry in elements(docs)? {
        let entry = self::members(entry)?;
        if let Some(doc) = entry.get("ok") {
            let revision = revision(doc, wanted)?;
            if revision.id.as_str() != id {
                return Err("a document in the place of another".to_owned());
            }
            found.push(revision);
        }
    }
    Ok(found)
}

/// The revision of one item of `open_revs`: `{"ok": {…}} | {"missing": "…"}`.
///
/// # Errors
/// As [`results_item`].
pub(super) fn open_revs_item(text: &str, wanted: &[Wanted]) -> Result<Vec<Revision>, String> {
    match members(text)?.get("ok") {
        Some(doc) => Ok(vec![revision(doc, &wanted[..wanted.len().min(1)])?]),
        None => Ok(Vec::new()),
    }
}

/// A document with its history: of those that are wanted, and one that follows what is.
fn revision(text: &str, wanted: &[Wanted]) -> Result<Revision, String> {
    let parts = split_document(text).map_err(|error| format!("a document that is none: {error}"))?;
    let field = |name: &str| {
        parts
            .fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| *value)
    };
    let wrong = |what: &str| format!("a document {what}");
    let id: Option<String> = field("_id").and_then(|id| serde_json::from_str(id).ok());
    let id: DocId = id
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| wrong("without an id that is one"))?;
    let rev: Option<String> = field("_rev").and_then(|rev| serde_json::from_str(rev).ok());
    let rev: Rev = rev
        .and_then(|rev| rev.parse().ok())
        .ok_or_else(|| wrong("without a revision that is one"))?;
    let revisions = match field("_revisions") {
        Some(history) => history_of(history).ok_or_else(|| wrong("whose revisions are no history"))?,
        None => vec![rev.clone()],
    };
    if revisions.first() != Some(&rev) {
        return Err(wrong("whose revision is not the first of its history"));
    }
    let is_wanted = |one: &Wanted| one.id == id && one.revs.iter().any(|rev| revisions.contains(rev));
    if !wanted.iter().any(is_wanted) {
        return Err(wrong("that was not asked for"));
    }
    let deleted = field("_deleted").is_some_and(|deleted| deleted == "true");
    let attachments = match field("_attachments") {
        Some(attachments) => attachments_of(attachments)?,
        None => BTreeMap::new(),
    };
    Ok(Revision {
        id,
        revisions,
        deleted,
        body: parts.body,
        attachments,
    })
}

fn history_of(text: &str) -> Option<Vec<Rev>> {
    let revisions: Revisions = serde_json::from_str(text).ok()?;
    if revisions.ids.is_empty() || revisions.ids.len() > HISTORY_MAX {
        return None;
    }
    let down = revisions.ids.iter().zip(0..);
    down.map(|(hash, down)| Rev::new(revisions.start.checked_sub(down)?, hash.parse::<RevHash>().ok()?))
        .collect()
}

fn attachments_of(text: &str) -> Result<BTreeMap<String, Hung>, String> {
    let bodies: BTreeMap<String, AttachmentBody> =
        serde_json::from_str(text).map_err(|_| "attachments that are none".to_owned())?;
    if bodies.len() > ATTACHMENTS_MAX {
        return Err(format!("a document with more than {ATTACHMENTS_MAX} attachments"));
    }
    bodies
        .into_iter()
        .map(|(name, body)| {
            let wrong = || {
                format!(
                    "an attachment {:?} that is none",
                    name.chars().take(80).collect::<String>()
                )
            };
            let is_encoded = body
                .encoding
                .as_deref()
                .is_some_and(|encoding| encoding != "identity");
            let digest = body.digest.as_deref().and_then(digest_of);
            let content_type = body
                .content_type
                .unwrap_or_else(|| "application/octet-stream".to_owned());
            let fits = !name.is_empty()
                && !name.starts_with('_')
                && name.len() <= NAME_BYTES_MAX
                && content_type.len() <= TYPE_BYTES_MAX
                && !content_type.chars().any(char::is_control);
            // A source that says no digest could send anything.
            let is_known = digest.is_some() || is_encoded;
            let length = body.length.filter(|_| fits && is_known).ok_or_else(wrong)?;
            let hung = Hung {
                content_type,
                revpos: body.revpos,
                digest: digest.filter(|_| !is_encoded),
                length,
                blob: None,
            };
            Ok((name, hung))
        })
        .collect()
}

/// `md5-` and base64.
fn digest_of(text: &str) -> Option<[u8; 16]> {
    BASE64
        .decode(text.strip_prefix("md5-")?.as_bytes())
        .ok()?
        .try_into()
        .ok()
}

/// The members of an object, each with the text of its value.
fn members(text: &str) -> Result<BTreeMap<String, &str>, String> {
    pieces(text)
        .map_err(|what| what.to_owned())
        .and_then(|pieces| match pieces {
            Split::Object(members) => Ok(members),
            Split::Array(_) => Err("a list in the place of an object".to_owned()),
        })
}

/// The elements of an array, each as text.
fn elements(text: &str) -> Result<Vec<&str>, String> {
    match pieces(text)? {
        Split::Array(elements) => Ok(elements),
        Split::Object(_) => Err("an object in the place of a list".to_owned()),
    }
}

enum Split<'a> {
    Object(BTreeMap<String, &'a str>),
    Array(Vec<&'a str>),
}

/// An object or array taken apart one level deep. `Value` would lose how documents are written.
fn pieces(text: &str) -> Result<Split<'_>, &'static str> {
    let text = text.trim();
    let is_object = text.starts_with('{');
    let inner = text.get(1..text.len().saturating_sub(1)).ok_or("no JSON")?;
    if !(is_object && text.ends_with('}') || text.starts_with('[') && text.ends_with(']')) {
        return Err("no JSON");
    }
    let mut parts = Vec::new();
    let (mut depth, mut begin, mut inside, mut escaped) = (0_i32, 0, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ if inside => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&inner[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside || depth != 0 {
        return Err("no JSON");
    }
    let last = &inner[begin..];
    if !last.trim().is_empty() {
        parts.push(last);
    }
    if !is_object {
        return Ok(Split::Array(parts));
    }
    let members = parts.into_iter().map(|part| {
        // The key is a text, so that the first colon behind it is the one that ends it.
        let mut stream = serde_json::Deserializer::from_str(part).into_iter::<Value>();
        let key = match stream.next() {
            Some(Ok(Value::String(key))) => key,
            _ => return Err("no JSON"),
        };
        let value = part[stream.byte_offset()..]
            .trim_start()
            .strip_prefix(':')
            .ok_or("no JSON")?;
        Ok((key, value.trim()))
    });
    Ok(Split::Object(members.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn wanted(id: &str, revs: &[&str]) -> Wanted {
        Wanted {
            id: id.parse().unwrap(),
            revs: revs.iter().map(|rev| rev.parse().unwrap()).collect(),
            ancestors: Vec::new(),
        }
    }

    fn doc() -> Value {
        json!({"_id": "a", "_rev": "2-bb", "_revisions": {"start": 2, "ids": ["bb", "aa"]}, "n": 1,
            "_attachments": {"x": {"content_type": "text/plain", "revpos": 1, "digest": "md5-XUFAKrxLKna5cZ2REBfFkg==",
                "length": 5, "stub": true}}})
    }

    fn parsed(doc: &Value) -> Result<Vec<Revision>, String> {
        let item = json!({"id": "a", "docs": [{"ok": doc}, {"error": {"id": "a", "rev": "1-aa", "error": "not_found"}}]});
        results_item(&item.to_string(), &[wanted("a", &["2-bb"])])
    }

    #[test]
    fn a_revision_comes_with_its_history_and_what_hangs_on_it() {
        let found = parsed(&doc()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].revisions,
            ["2-bb".parse().unwrap(), "1-aa".parse().unwrap()]
        );
        assert_eq!(found[0].body.as_str(), "{\"n\":1}");
        assert_eq!(found[0].attachments["x"].length, 5);
        assert!(found[0].attachments["x"].digest.is_some());
        let mut encoded = doc();
        encoded["_attachments"]["x"]["encoding"] = json!("gzip");
        assert_eq!(parsed(&encoded).unwrap()[0].attachments["x"].digest, None);
        let item = json!({"ok": doc()}).to_string();
        assert_eq!(open_revs_item(&item, &[wanted("a", &["1-aa"])]).unwrap(), found);
        assert_eq!(open_revs_item("{\"missing\":\"1-a\"}", &[]), Ok(Vec::new()));
    }

    #[test]
    fn what_lies_is_refused() {
        let change = |path: &str, value: Value| {
            let mut doc = doc();
            *doc.pointer_mut(path).unwrap() = value;
            parsed(&doc)
        };
        for (path, value) in [
            ("/_id", json!("b")),
            ("/_id", json!("_local/a")),
            ("/_rev", json!("2-cc")),
            ("/_rev", json!("3-bb")),
            ("/_rev", json!(2)),
            ("/_revisions", json!({"start": 1, "ids": ["bb", "aa"]})),
            ("/_revisions", json!({"start": 2, "ids": []})),
            ("/_revisions/ids/0", json!("cc")),
            ("/_attachments/x", json!({"stub": true})),
            ("/_attachments/x/length", json!(-1)),
            ("/_attachments/x/digest", json!("sha1-x")),
            (
                "/_attachments",
                json!({"_x": {"length": 1, "digest": "md5-XUFAKrxLKna5cZ2REBfFkg=="}}),
            ),
            ("/_attachments", json!([])),
        ] {
            assert!(change(path, value.clone()).is_err(), "{path} {value}");
        }
        // Another revision than was asked for, and none of its descendants.
        let other = json!({"_id": "a", "_rev": "2-zz", "_revisions": {"start": 2, "ids": ["zz", "yy"]}});
        assert!(parsed(&other).is_err());
        let deep = format!(
            "{{\"_id\":\"a\",\"_rev\":\"2-bb\",\"d\":{}1{}}}",
            "[".repeat(80),
            "]".repeat(80)
        );
        let item = format!("{{\"id\":\"a\",\"docs\":[{{\"ok\":{deep}}}]}}");
        assert!(results_item(&item, &[wanted("a", &["2-bb"])]).is_err());
        for wrong in [
            "",
            "{",
            "[]",
            "{}",
            "{\"id\":\"a\"}",
            "{\"id\":\"a\",\"docs\":{}}",
            "{\"id\":\"a\",\"docs\":[1]}",
            "{1:2}",
        ] {
            assert!(results_item(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_keeps_how_it_is_written() {
        let found = pieces(r#"{ "a,\"b" : [1,{"x":"}"}] ,"c":{"d":1.50}}"#).unwrap();
        let Split::Object(members) = found else { panic!() };
        assert_eq!(members["a,\"b"], r#"[1,{"x":"}"}]"#);
        assert_eq!(members["c"], r#"{"d":1.50}"#);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\]{}\",:\\\\ aok]{0,40}", at in 0..200_usize, letter in any::<char>()) {
            let _ = results_item(&text, &[]);
            let _ = open_revs_item(&text, &[]);
            let mut item = json!({"id": "a", "docs": [{"ok": doc()}]}).to_string();
            let at = item.floor_char_boundary(at.min(item.len()));
            item.insert(at, letter);
            let _ = results_item(&item, &[wanted("a", &["2-bb"])]);
        }
    }
}
