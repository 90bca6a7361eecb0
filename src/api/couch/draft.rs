//! Documents as clients send them, taken apart while they come in.
//!
//! A document is an object whose members with a leading underscore are CouchDB's. What is its own is kept as JSON text without
//! spaces and never parsed; `_attachments` may hold base64 of any length, which is decoded piece by piece and handed on.
//! What may be held is bounded by [`DOCUMENT_BYTES_MAX`] and [`BATCH_BYTES_MAX`], attachment data not counted.

use serde::Deserialize;

use super::base64::Decoder;
use super::compact::Compact;
use super::scan::{Event, Refusal, Sink};

/// The most one document may have without the data of its attachments: CouchDB's `max_document_size`.
pub(super) const DOCUMENT_BYTES_MAX: usize = 8_000_000;

/// The most the documents of one `_bulk_docs` may have together: they are one durable group, and whether their revisions
/// are new may be said only after them. Replicators send less than a tenth, and halve a batch that is refused.
pub(super) const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Attachments of one document.
const ATTACHMENTS_MAX: usize = 1000;

/// Members that CouchDB adds when it is asked, and ignores when they come back.
const IGNORED: [&str; 6] = [
    "_revs_info",
    "_conflicts",
    "_deleted_conflicts",
    "_local_seq",
    "_bulk",
    "_access",
];

/// A document as it was sent.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) id: Option<String>,
    pub(super) rev: Option<String>,
    pub(super) deleted: bool,
    pub(super) revisions: Option<Revisions>,
    /// An object, without CouchDB's members.
    pub(super) body: Vec<u8>,
    /// In the order they came in, which is the order of the parts of a multipart body.
    pub(super) attachments: Vec<DraftAttachment>,
    /// What is held of it, in bytes.
    pub(super) held_bytes: usize,
}

/// `_revisions`: a revision and its ancestors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Revisions {
    /// The generation of the first.
    pub(super) start: u32,
    /// Without their generations, youngest first.
    pub(super) ids: Vec<String>,
}

/// An attachment as it was sent.
#[derive(Debug)]
pub(super) struct DraftAttachment {
    pub(super) name: String,
    pub(super) fields: AttachmentFields,
    /// Whether its data was sent as base64; the pieces told which.
    pub(super) is_inline: bool,
}

/// What is said of an attachment.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AttachmentFields {
    pub(super) content_type: Option<String>,
    pub(super) revpos: Option<u32>,
    pub(super) digest: Option<String>,
    pub(super) length: Option<u64>,
    /// As it is sent, where it is packed.
    pub(super) encoded_length: Option<u64>,
    /// The node has it.
    #[serde(default)]
    pub(super) stub: bool,
    /// It comes as a part of the multipart body.
    #[serde(default)]
    pub(super) follows: bool,
    pub(super) encoding: Option<String>,
}

/// CouchDB's members but the attachments.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Members {
    #[serde(rename = "_id")]
    id: Option<String>,
    #[serde(rename = "_rev")]
    rev: Option<String>,
    #[serde(rename = "_deleted")]
    deleted: bool,
    #[serde(rename = "_revisions")]
    revisions: Option<Revisions>,
}

/// The data of attachments, in the order of the attachments that are inline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Begin,
    Bytes(Vec<u8>),
    End,
}

/// Where the events of a member go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Own,
    Couch,
    Attachments,
    Ignored,
}

/// Reads one document.
pub(super) struct DraftReader {
    depth: usize,
    member: Member,
    own: Compact,
    couch: Compact,
    attachments: Vec<(String, Compact, bool)>,
    /// Whether the value to come is the data of an attachment.
    at_data: bool,
    decoder: Decoder,
    pieces: Vec<Piece>,
}

impl DraftReader {
    pub(super) fn new() -> DraftReader {
        DraftReader {
            depth: 0,
            member: Member::Own,
            own: Compact::default(),
            couch: Compact::default(),
            attachments: Vec::new(),
            at_data: false,
            decoder: Decoder::default(),
            pieces: Vec::new(),
        }
    }

    /// The data of attachments that came in since this was asked last.
    pub(super) fn take_pieces(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }

    /// Takes an event; true with the one that ends the document.
    fn take(&mut self, event: Event<'_>) -> Result<bool, Refusal> {
        match self.depth {
            0 => self.begin(event)?,
            1 => match event {
                Event::Key(name) => self.member_begins(name)?,
                Event::ObjectEnd => {
                    self.own.push(event);
                    self.couch.push(event);
                    self.depth = 0;
                    return Ok(true);
                }
                value => self.value(value)?,
            },
            _ => self.value(event)?,
        }
        self.bound()?;
        Ok(false)
    }

    fn begin(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        if event != Event::ObjectStart {
            return Err(Refusal::invalid("Document must be a JSON object"));
        }
        self.own.push(event);
        self.couch.push(event);
        self.depth = 1;
        Ok(())
    }

    fn member_begins(&mut self, name: &str) -> Result<(), Refusal> {
        self.member = match name {
            "_attachments" => Member::Attachments,
            "_id" | "_rev" | "_deleted" | "_revisions" => Member::Couch,
            // What the replicator writes into its own documents.
            _ if !name.starts_with('_') || name.starts_with("_replication_") => Member::Own,
            _ if IGNORED.contains(&name) => Member::Ignored,
            _ => return Err(Refusal::Member(format!("Bad special document member: {name}"))),
        };
        match self.member {
            Member::Own => self.own.push(Event::Key(name)),
            Member::Couch => self.couch.push(Event::Key(name)),
            Member::Attachments | Member::Ignored => {}
        }
        Ok(())
    }

    fn value(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        match self.member {
            Member::Own => self.own.push(event),
            Member::Couch => self.couch.push(event),
            Member::Ignored => {}
            Member::Attachments => self.attachment(event)?,
        }
        match event {
            Event::ObjectStart | Event::ArrayStart => self.depth += 1,
            Event::ObjectEnd | Event::ArrayEnd => self.depth -= 1,
            _ => {}
        }
        Ok(())
    }

    /// Depth 1: the object of all attachments. 2: one name and its object. 3: the fields of one. Below: whatever a field holds.
    fn attachment(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        match (self.depth, event) {
            (1, Event::ObjectStart) | (2, Event::ObjectEnd) => Ok(()),
            (2, Event::Key(name)) => {
                if self.attachments.len() == ATTACHMENTS_MAX {
                    return Err(Refusal::invalid(format!(
                        "a document has at most {ATTACHMENTS_MAX} attachments"
                    )));
                }
                self.attachments
                    .push((name.to_owned(), Compact::default(), false));
                Ok(())
            }
            (1, _) => Err(Refusal::invalid("Attachments must be an object")),
            (2, Event::ObjectStart) => self.field(event),
            (2, _) => Err(Refusal::invalid("An attachment must be an object")),
            (3, Event::Key("data")) => {
                self.at_data = true;
                Ok(())
            }
            (3, _) if self.at_data => self.data(event),
            _ => self.field(event),
        }
    }

    fn field(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        if let Some((_, fields, _)) = self.attachments.last_mut() {
            fields.push(event);
        }
        Ok(())
    }

    fn data(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        match event {
            Event::TextStart => {
                self.decoder = Decoder::default();
                self.pieces.push(Piece::Begin);
                if let Some((_, _, is_inline)) = self.attachments.last_mut() {
                    *is_inline = true;
                }
                Ok(())
            }
            Event::Text(letters) => self.decode(letters),
            Event::Escaped(letter) => self.decode(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            Event::TextEnd => {
                self.at_data = false;
                self.pieces.push(Piece::End);
                self.decoder.end().map_err(|_| no_base64())
            }
            _ => Err(no_base64()),
        }
    }

    fn decode(&mut self, letters: &[u8]) -> Result<(), Refusal> {
        let mut bytes = Vec::new();
        self.decoder.push(letters, &mut bytes).map_err(|_| no_base64())?;
        if !bytes.is_empty() {
            self.pieces.push(Piece::Bytes(bytes));
        }
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        let attachments = self.attachments.iter();
        let attachments: usize = attachments
            .map(|(name, fields, _)| name.len() + fields.len())
            .sum();
        self.own.len() + self.couch.len() + attachments
    }

    fn bound(&self) -> Result<(), Refusal> {
        // Attachments are few: summing them up for each event of a long body would cost more than it bounds.
        let most = self.own.len() + self.couch.len();
        let is_deep = self.member == Member::Attachments;
        if most > DOCUMENT_BYTES_MAX || (is_deep && self.held_bytes() > DOCUMENT_BYTES_MAX) {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    /// The document that was read.
    fn finish(&mut self) -> Result<Draft, Refusal> {
        let held_bytes = self.held_bytes();
        let couch = std::mem::take(&mut self.couch).into_bytes();
        let members: Members = serde_json::from_slice(&couch)
            .map_err(|error| Refusal::Member(format!("Bad special document member: {error}")))?;
        let body = std::mem::take(&mut self.own).into_bytes();
        std::str::from_utf8(&body).map_err(|_| Refusal::invalid("invalid UTF-8 JSON"))?;
        let mut attachments = Vec::with_capacity(self.attachments.len());
        for (name, fields, is_inline) in self.attachments.drain(..) {
            let fields = serde_json::from_slice(&fields.into_bytes())
                .map_err(|error| Refusal::invalid(format!("Invalid attachment {name}: {error}")))?;
            attachments.push(DraftAttachment {
                name,
                fields,
                is_inline,
            });
        }
        Ok(Draft {
            id: members.id,
            rev: members.rev,
            deleted: members.deleted,
            revisions: members.revisions,
            body,
            attachments,
            held_bytes,
        })
    }
}

fn no_base64() -> Refusal {
    Refusal::invalid("Attachment data must be base64 encoded")
}

/// A sink for a body that is one document.
pub(super) struct OneDraft {
    pub(super) reader: DraftReader,
    pub(super) draft: Option<Draft>,
}

impl OneDraft {
    pub(super) fn new() -> OneDraft {
        OneDraft {
            reader: DraftReader::new(),
            draft: None,
        }
    }
}

impl Sink for OneDraft {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        if self.reader.take(event)? {
            self.draft = Some(self.reader.finish()?);
        }
        Ok(())
    }
}

/// A sink for `{"docs": [..], "new_edits": ..}`.
pub(super) struct Batch {
    pub(super) reader: DraftReader,
    /// `None` until `docs` came.
    pub(super) drafts: Option<Vec<Draft>>,
    pub(super) new_edits: bool,
    held_bytes: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Top,
    Docs,
    InDocs,
    InDraft,
    NewEdits,
    /// A member that means nothing, so deep.
    Other(usize),
    After,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            reader: DraftReader::new(),
            drafts: None,
            new_edits: true,
            held_bytes: 0,
            place: Place::Before,
        }
    }

    fn in_draft(&mut self, event: Event<'_>) -> Result<Place, Refusal> {
        if !self.reader.take(event)? {
            return Ok(Place::InDraft);
        }
        let draft = self.reader.finish()?;
        self.held_bytes += draft.held_bytes;
        if self.held_bytes > BATCH_BYTES_MAX {
            return Err(Refusal::BatchTooLarge);
        }
        self.drafts.get_or_insert_default().push(draft);
        Ok(Place::InDocs)
    }
}

impl Sink for Batch {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refusal> {
        self.place = match (self.place, event) {
            (Place::Before, Event::ObjectStart) => Place::Top,
            (Place::Before, _) => return Err(Refusal::invalid("Request body must be a JSON object")),
            (Place::Top, Event::Key("docs")) => Place::Docs,
            (Place::Top, Event::Key("new_edits")) => Place::NewEdits,
            (Place::Top, Event::ObjectEnd) => Place::After,
            (Place::Top | Place::After, _) => Place::Other(0),
            (Place::Docs, Event::ArrayStart) => {
                self.drafts = Some(Vec::new());
                Place::InDocs
            }
            (Place::Docs, _) => return Err(Refusal::invalid("`docs` parameter must be an array.")),
            (Place::InDocs, Event::ArrayEnd) => Place::Top,
            (Place::InDocs, Event::ObjectStart) => {
                self.reader = DraftReader {
                    pieces: self.reader.take_pieces(),
                    ..DraftReader::new()
                };
                self.in_draft(event)?
            }
            (Place::InDocs, _) => return Err(Refusal::invalid("Document must be a JSON object")),
            (Place::InDraft, _) => self.in_draft(event)?,
            (Place::NewEdits, Event::True | Event::False) => {
                self.new_edits = event == Event::True;
                Place::Top
            }
            (Place::NewEdits, _) => return Err(Refusal::invalid("`new_edits` must be true or false")),
            (Place::Other(depth), Event::ObjectStart | Event::ArrayStart) => Place::Other(depth + 1),
            (Place::Other(0 | 1), Event::ObjectEnd | Event::ArrayEnd) => Place::Top,
            (Place::Other(depth), Event::ObjectEnd | Event::ArrayEnd) => Place::Other(depth - 1),
            (
                Place::Other(0),
                Event::TextEnd | Event::Number(_) | Event::True | Event::False | Event::Null,
            ) => Place::Top,
            (Place::Other(depth), _) => Place::Other(depth),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::{DEPTH_MAX, Scanner};
    use super::*;

    fn draft(json: &str, size: usize) -> Result<(Draft, Vec<u8>), Refusal> {
        let (mut scanner, mut sink) = (Scanner::new(DEPTH_MAX), OneDraft::new());
        let mut data = Vec::new();
        for piece in json.as_bytes().chunks(size) {
            scanner.feed(piece, &mut sink)?;
            for piece in sink.reader.take_pieces() {
                if let Piece::Bytes(bytes) = piece {
                    data.extend(bytes);
                }
            }
        }
        scanner.end(&mut sink)?;
        Ok((sink.draft.expect("it was whole"), data))
    }

    fn batch(json: &str) -> Result<Batch, Refusal> {
        let (mut scanner, mut sink) = (Scanner::new(DEPTH_MAX + 2), Batch::new());
        scanner.feed(json.as_bytes(), &mut sink)?;
        scanner.end(&mut sink)?;
        Ok(sink)
    }

    #[test]
    fn a_document_is_taken_apart() {
        let json = r#"{ "_id" : "a", "x": [1, {"_id": "inner"}], "_rev":"2-b", "_deleted": true,
            "_attachments": {"a.txt": {"content_type": "text/plain", "data": "aGVs\/w=="}, "b": {"stub": true, "revpos": 1, "odd": {"x":[1]}}},
            "_revisions": {"start": 2, "ids": ["b", "a"]}, "_conflicts": ["1-x"], "y\n": "é\u0041", "_replication_id": "r"}"#;
        for size in [1, 7, 1000] {
            let (draft, data) = draft(json, size).unwrap();
            assert_eq!(draft.id.as_deref(), Some("a"));
            assert_eq!(draft.rev.as_deref(), Some("2-b"));
            assert!(draft.deleted);
            let revisions = draft.revisions.unwrap();
            assert_eq!((revisions.start, revisions.ids.len()), (2, 2));
            assert_eq!(
                String::from_utf8(draft.body).unwrap(),
                r#"{"x":[1,{"_id":"inner"}],"y\n":"éA","_replication_id":"r"}"#
            );
            let [first, second] = &draft.attachments[..] else {
                panic!("two attachments");
            };
            assert_eq!((first.name.as_str(), first.is_inline), ("a.txt", true));
            assert_eq!(first.fields.content_type.as_deref(), Some("text/plain"));
            assert!(second.fields.stub && !second.is_inline);
            assert_eq!(data, b"hel\xff");
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (json, wanted) in [
            ("[]", "JSON object"),
            ("1", "JSON object"),
            (r#"{"_foo":1}"#, "_foo"),
            (r#"{"_id":1}"#, "expected a string"),
            (r#"{"_deleted":"yes"}"#, "expected a boolean"),
            (r#"{"_revisions":{"start":-1,"ids":[]}}"#, "u32"),
            (r#"{"_attachments":[]}"#, "must be an object"),
            (r#"{"_attachments":{"a":1}}"#, "must be an object"),
            (r#"{"_attachments":{"a":{"data":1}}}"#, "base64"),
            (r#"{"_attachments":{"a":{"data":"!"}}}"#, "base64"),
            (r#"{"_attachments":{"a":{"data":"QQ"}}}"#, "base64"),
            (r#"{"_attachments":{"a":{"revpos":"x"}}}"#, "u32"),
            (r#"{"a":1,"a":2}"#, "twice"),
        ] {
            let refused = draft(json, 1000).unwrap_err();
            let (Refusal::Invalid(reason) | Refusal::Member(reason)) = &refused else {
                panic!("{json}: {refused:?}");
            };
            assert!(reason.contains(wanted), "{json}: {reason}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(DOCUMENT_BYTES_MAX));
        assert_eq!(draft(&long, 1 << 16).unwrap_err(), Refusal::TooLarge);
    }

    #[test]
    fn a_batch_says_at_any_place_whether_its_edits_are_new() {
        for json in [
            r#"{"docs":[{"_id":"a"},{"x":{"y":1}}],"new_edits":false,"w":[1,{"a":"b"}],"z":"t"}"#,
            r#"{"w":{"docs":[1]},"new_edits":false,"n":1,"docs":[{"_id":"a"},{"x":{"y":1}}]}"#,
        ] {
            let batch = batch(json).unwrap();
            let drafts = batch.drafts.unwrap();
            assert!(!batch.new_edits);
            assert_eq!(drafts.len(), 2, "{json}");
            assert_eq!(drafts[1].body, br#"{"x":{"y":1}}"#);
        }
        assert!(batch("{}").unwrap().drafts.is_none());
        for wrong in [
            "[]",
            r#"{"docs":{}}"#,
            r#"{"docs":[1]}"#,
            r#"{"docs":[],"new_edits":1}"#,
        ] {
            assert!(batch(wrong).is_err(), "{wrong}");
        }
    }
}
