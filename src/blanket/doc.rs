//! Documents: the body, what hangs on it, and what an edit of one says.
//!
//! A body is kept and handed out as the JSON text it came as, without the members that CouchDB keeps apart (`_id`, `_rev`,
//! `_attachments`…): it is read when it comes in and never built anew on the way out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::json::{Event, JsonError, Reader};
use crate::id::{BlobId, DocId, DocIdError, Rev, Seq};

/// The longest body in bytes: CouchDB's `max_document_size`.
pub const BODY_BYTES_MAX: usize = 8_000_000;

/// Attachments of one document: its record names them all.
pub const ATTACHMENTS_MAX: usize = 1024;

/// The members with a leading underscore that are part of a body all the same: CouchDB's replicator writes them.
const KEPT_IN_BODY: &str = "_replication_";

/// The body of a document: the text of one JSON object, without members that begin with an underscore (but those of the
/// replicator, `_replication_…`). At most [`BODY_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(String);

/// A document's text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    /// What is not underscored.
    pub body: Body,
    /// The underscored members, each with the text of its value, in the order they came.
    pub fields: Vec<(Cow<'a, str>, &'a str)>,
}

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocError {
    /// Not JSON, or not as it is taken here.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A JSON value that is no object.
    #[error("a document is a JSON object")]
    NotAnObject,
    /// A member that begins with an underscore, where none may.
    #[error("bad special document member: {0}")]
    Special(String),
    /// Too long.
    #[error("a document has at most {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// The id it would have is none.
    #[error(transparent)]
    Id(#[from] DocIdError),
}

/// Bytes that hang on a document: kept as a blob, named here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its media type.
    pub content_type: String,
    /// The generation of the document in which it was added.
    pub revpos: u32,
    /// The MD5 of the bytes as they are kept, CouchDB's digest.
    #[serde(serialize_with = "hex", deserialize_with = "unhex")]
    pub digest: [u8; 16],
    /// The length of the bytes as they are kept.
    pub length: u64,
    /// The blob that holds them.
    pub blob: BlobId,
    /// Set where the bytes are kept in another coding than they are meant in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded: Option<Encoded>,
}

/// The coding of an attachment that is kept encoded, as a CouchDB sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoded {
    /// `gzip`.
    pub encoding: String,
    /// The length of the decoded bytes.
    pub decoded_length: u64,
}

/// The attachments of a document, by name.
pub type Attachments = BTreeMap<String, Attachment>;

/// What a revision holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The JSON.
    pub body: Body,
    /// What hangs on it.
    pub attachments: Attachments,
}

/// One revision of a document, with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doc {
    /// The document.
    pub id: DocId,
    /// The revision, then what is remembered of its ancestors, one generation below the other. Never empty.
    pub revisions: Vec<Rev>,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// The JSON.
    pub body: Body,
    /// What hangs on it.
    pub attachments: Attachments,
    /// When the document (any revision of it) changed last.
    pub seq: Seq,
}

/// An attachment as an edit names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachmentEdit {
    /// Bytes that are kept already, as a blob. With `revpos` 0 they came with this edit, and get its generation.
    Stored(Attachment),
    /// What the revision before has under this name.
    Stub,
}

/// An edit that someone asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A new revision on top of one that is there (CouchDB's `new_edits=true`): refused where it is not the latest. A stub is
    /// what its parent has.
    New {
        /// The document.
        id: DocId,
        /// The leaf that it follows; `None` for the first revision, also after a deletion.
        parent: Option<Rev>,
        /// Whether it deletes the document.
        deleted: bool,
        /// The JSON.
        body: Body,
        /// What hangs on it, by name.
        attachments: BTreeMap<String, AttachmentEdit>,
    },
    /// A revision that was made elsewhere (`new_edits=false`): always taken, a conflict at worst. A stub is what its nearest
    /// ancestor that is kept has.
    Replicated {
        /// The document.
        id: DocId,
        /// The revision, then its ancestors, as [`Doc::revisions`].
        revisions: Vec<Rev>,
        /// Whether it is a deletion.
        deleted: bool,
        /// The JSON.
        body: Body,
        /// What hangs on it, by name.
        attachments: BTreeMap<String, AttachmentEdit>,
    },
}

/// Why one edit was not done; the others of its call were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not follow a leaf: someone else was first.
    #[error("document update conflict")]
    Conflict,
    /// The revisions of a replicated edit are no history.
    #[error("the revisions of {id} are no history: each is one generation below the one before")]
    History {
        /// The document.
        id: DocId,
    },
    /// A document that was edited 4294967295 times.
    #[error("{id} can't be edited again")]
    Generations {
        /// The document.
        id: DocId,
    },
    /// A stub for an attachment that no revision it could come from has.
    #[error("{id} has no attachment {name:?} that a stub could stand for")]
    MissingStub {
        /// The document.
        id: DocId,
        /// The name in the edit.
        name: String,
    },
    /// More attachments than a document has.
    #[error("{id} would have more than {ATTACHMENTS_MAX} attachments")]
    Attachments {
        /// The document.
        id: DocId,
    },
}

impl Body {
    /// Checks the text of an object that has no underscored members.
    ///
    /// # Errors
    /// [`DocError`].
    pub fn parse(text: &str) -> Result<Body, DocError> {
        let parts = split(text)?;
        match parts.fields.into_iter().next() {
            None => Ok(parts.body),
            Some((name, _)) => Err(DocError::Special(name.into_owned())),
        }
    }

    /// The text of the object: `{…}`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without its braces: members with their commas, empty for `{}`.
    pub fn members(&self) -> &str {
        let inner = self.0.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        inner.unwrap_or_default().trim()
    }
}

/// A text that was checked before, as [`Body::parse`] does: by the edge that read it, or when it came in.
impl From<String> for Body {
    fn from(checked: String) -> Body {
        Body(checked)
    }
}

impl Default for Body {
    fn default() -> Body {
        Body("{}".to_owned())
    }
}

impl Content {
    /// A body without attachments.
    pub fn of(body: Body) -> Content {
        Content {
            body,
            attachments: Attachments::new(),
        }
    }
}

impl Edit {
    /// The document that is edited.
    pub fn id(&self) -> &DocId {
        match self {
            Edit::New { id, .. } | Edit::Replicated { id, .. } => id,
        }
    }

    /// Its JSON.
    pub fn body(&self) -> &Body {
        match self {
            Edit::New { body, .. } | Edit::Replicated { body, .. } => body,
        }
    }

    /// What hangs on it.
    pub fn attachments(&self) -> &BTreeMap<String, AttachmentEdit> {
        match self {
            Edit::New { attachments, .. } | Edit::Replicated { attachments, .. } => attachments,
        }
    }
}

impl Doc {
    /// The revision.
    ///
    /// # Panics
    /// Where the document was built without one.
    pub fn rev(&self) -> &Rev {
        &self.revisions[0]
    }
}

/// Takes the text of a document apart: the members that begin with an underscore, and all others as its body.
///
/// # Errors
/// [`DocError::Json`], [`DocError::NotAnObject`], [`DocError::TooLarge`].
pub fn split(text: &str) -> Result<Parts<'_>, DocError> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let mut reader = Reader::new(text);
    if reader.next_event()? != Some(Event::ObjectBegins) {
        // What is no JSON at all is told apart from another value.
        while reader.next_event()?.is_some() {}
        return Err(DocError::NotAnObject);
    }
    let mut members: Vec<Member<'_>> = Vec::new();
    loop {
        reader.skip_to_member();
        let begin = reader.position();
        match reader.next_event()? {
            Some(Event::Key(name)) => {
                let value = value_text(text, &mut reader)?;
                let whole = &text[begin..reader.position()];
                members.push(Member { name, value, whole });
            }
            _ => break,
        }
    }
    while reader.next_event()?.is_some() {}
    assemble(text, members)
}

struct Member<'a> {
    name: Cow<'a, str>,
    value: &'a str,
    whole: &'a str,
}

fn assemble<'a>(text: &str, members: Vec<Member<'a>>) -> Result<Parts<'a>, DocError> {
    let is_field =
        |member: &Member<'_>| member.name.starts_with('_') && !member.name.starts_with(KEPT_IN_BODY);
    let body = match members.iter().any(is_field) {
        false => text.to_owned(),
        true => {
            let kept = members
                .iter()
                .filter(|member| !is_field(member))
                .map(|member| member.whole);
            let mut body = String::with_capacity(text.len());
            body.push('{');
            for (index, member) in kept.enumerate() {
                if index > 0 {
                    body.push(',');
                }
                body.push_str(member);
            }
            body.push('}');
            body
        }
    };
    if body.len() > BODY_BYTES_MAX {
        return Err(DocError::TooLarge);
    }
    let fields = members
        .into_iter()
        .filter(is_field)
        .map(|member| (member.name, member.value));
    Ok(Parts {
        body: Body(body),
        fields: fields.collect(),
    })
}

/// Reads the value after a key; its text.
fn value_text<'a>(text: &'a str, reader: &mut Reader<'a>) -> Result<&'a str, DocError> {
    let depth = reader.depth();
    reader.skip_to_member();
    let begin = reader.position();
    loop {
        // A key is only ever followed by a value: the text can't end here without an error.
        reader.next_event()?;
        if reader.depth() == depth {
            return Ok(&text[begin..reader.position()]);
        }
    }
}

fn hex<S: Serializer>(digest: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&HEXLOWER.encode_display(digest))
}

fn unhex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let digest = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| serde::de::Error::custom("a digest is 32 hex digits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> (String, Vec<(String, String)>) {
        let parts = split(text).unwrap();
        let fields = parts
            .fields
            .iter()
            .map(|(name, value)| (name.to_string(), (*value).to_owned()));
        (parts.body.as_str().to_owned(), fields.collect())
    }

    #[test]
    fn underscored_members_are_taken_out_and_the_rest_stays_as_it_came() {
        let (body, fields) = parts(" {\"_id\" : \"a\", \"b\": {\"_c\":1.50},\"_rev\":\"1-a\" , \"d\" :[ ]} ");
        assert_eq!(body, "{\"b\": {\"_c\":1.50},\"d\" :[ ]}");
        assert_eq!(
            fields,
            [("_id".into(), "\"a\"".into()), ("_rev".into(), "\"1-a\"".into())]
        );
        assert_eq!(parts("{ \"a\" : 1 }").0, "{ \"a\" : 1 }");
        assert_eq!(
            parts("{\"\\u005fid\":\"a\"}"),
            ("{}".into(), vec![("_id".into(), "\"a\"".into())])
        );
        assert_eq!(parts("{\"_replication_id\":\"a\"}").1, []);
        assert_eq!(parts("{}"), ("{}".into(), vec![]));
    }

    #[test]
    fn what_is_no_document_says_why() {
        assert_eq!(split("[]").unwrap_err(), DocError::NotAnObject);
        assert_eq!(split("1").unwrap_err(), DocError::NotAnObject);
        assert!(matches!(
            split("{\"a\":1}}"),
            Err(DocError::Json(JsonError::Syntax { at: 7 }))
        ));
        assert!(matches!(split("{\"a\":1"), Err(DocError::Json(_))));
        assert!(matches!(
            split("{\"a\":1,\"a\":1}"),
            Err(DocError::Json(JsonError::DuplicateKey(_)))
        ));
        assert_eq!(
            Body::parse("{\"_id\":1}").unwrap_err(),
            DocError::Special("_id".into())
        );
        let long = format!("{{\"a\":\"{}\"}}", "a".repeat(BODY_BYTES_MAX));
        assert_eq!(split(&long).unwrap_err(), DocError::TooLarge);
    }

    #[test]
    fn members_are_the_text_between_the_braces() {
        let members = |text| Body::parse(text).unwrap().members().to_owned();
        assert_eq!(members("{}"), "");
        assert_eq!(members("{ }"), "");
        assert_eq!(members("{\"a\":{}}"), "\"a\":{}");
    }

    proptest! {
        #[test]
        fn splitting_loses_nothing(keys in prop::collection::btree_map("_?[a-c]{1,3}", "[0-9]{1,3}|\\[\\]|\"x\"", 0..6)) {
            let members: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("\"{key}\": {}", value.trim_start_matches('0')))
                .filter(|member| !member.ends_with(": "))
                .collect();
            let text = format!("{{{}}}", members.join(" ,"));
            let parts = split(&text).unwrap();
            let whole: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            let mut again: serde_json::Map<String, serde_json::Value> = serde_json::from_str(parts.body.as_str()).unwrap();
            prop_assert!(again.keys().all(|key| !key.starts_with('_')));
            for (name, value) in &parts.fields {
                again.insert(name.to_string(), serde_json::from_str(value).unwrap());
            }
            prop_assert_eq!(again, whole);
        }

        #[test]
        fn no_text_panics(text in "\\PC*|\\{[\\[\\]{}\",:_a0 ]{0,60}") {
            let _ = split(&text);
        }
    }
}
