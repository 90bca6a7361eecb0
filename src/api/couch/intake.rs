//! From the body of a request to edits: JSON taken apart as it comes, attachments into the coffer on the way.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::draft::{Batch, Draft, DraftAttachment, OneDraft, Piece};
use super::fault::Fault;
use super::multipart::Multipart;
use super::render::parse_digest;
use super::scan::{DEPTH_MAX, Scanner, Sink};
use crate::api::body::Incoming;
use crate::api::error::Error;
use crate::id::{DocId, Rev, RevHash};
use crate::node::{
    self, Attached, Attaching, Attachment, AttachmentEdit, Blobs, Coding, DocumentBody as Body, Edit,
    EncodedLength, Expected,
};

/// The levels of `{"docs":[…]}` around a document.
const BATCH_DEPTH: usize = 2;

/// The type of attachments of which nobody says one.
const BYTES_TYPE: &str = "application/octet-stream";

/// Bytes of an attachment's name.
const NAME_BYTES_MAX: usize = 1024;

/// Whether revisions are made here or were made elsewhere: CouchDB's `new_edits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edits {
    New,
    Replicated,
}

/// Attachments on their way into the coffer, in the order they came.
pub(super) struct Arrivals {
    blobs: Blobs,
    current: Option<Attaching>,
    done: VecDeque<Attached>,
}

impl Arrivals {
    pub(super) fn new(blobs: &Blobs) -> Arrivals {
        Arrivals {
            blobs: blobs.clone(),
            current: None,
            done: VecDeque::new(),
        }
    }

    async fn take(&mut self, pieces: Vec<Piece>) -> Result<(), Error> {
        for piece in pieces {
            match piece {
                Piece::Begin => self.current = Some(Attaching::begin(&self.blobs, Coding::Identity)?),
                Piece::Bytes(bytes) => {
                    if let Some(current) = &mut self.current {
                        current.write(Bytes::from(bytes)).await?;
                    }
                }
                Piece::End => {
                    if let Some(current) = self.current.take() {
                        self.done.push_back(current.finish(Expected::default()).await?);
                    }
                }
            }
        }
        Ok(())
    }

    /// What was inline came in the order of the attachments that say so.
    fn next(&mut self) -> Option<Attached> {
        self.done.pop_front()
    }
}

/// Reads one document.
pub(super) async fn one(mut body: Incoming, arrivals: &mut Arrivals) -> Result<Draft, Error> {
    let (mut scanner, mut sink) = (Scanner::new(DEPTH_MAX), OneDraft::new());
    while let Some(bytes) = body.next().await? {
        feed(&mut scanner, &bytes, &mut sink)?;
        arrivals.take(sink.reader.take_pieces()).await?;
    }
    scanner.end(&mut sink).map_err(Fault::from)?;
    arrivals.take(sink.reader.take_pieces()).await?;
    sink.draft
        .ok_or_else(|| Fault::Body("Document must be a JSON object".to_owned()).into())
}

/// Reads the documents of `_bulk_docs`.
pub(super) async fn batch(mut body: Incoming, arrivals: &mut Arrivals) -> Result<(Vec<Draft>, Edits), Error> {
    let (mut scanner, mut sink) = (Scanner::new(DEPTH_MAX + BATCH_DEPTH), Batch::new());
    while let Some(bytes) = body.next().await? {
        feed(&mut scanner, &bytes, &mut sink)?;
        arrivals.take(sink.reader.take_pieces()).await?;
    }
    scanner.end(&mut sink).map_err(Fault::from)?;
    let edits = if sink.new_edits {
        Edits::New
    } else {
        Edits::Replicated
    };
    let missing = || Fault::Body("POST body must include `docs` parameter.".to_owned());
    Ok((sink.drafts.ok_or_else(missing)?, edits))
}

/// Reads `multipart/related`: a document, then the attachments of which it says that they follow, each in its place or by its name.
pub(super) async fn related(
    body: Incoming,
    boundary: &str,
    arrivals: &mut Arrivals,
) -> Result<(Draft, Vec<(String, Attached)>), Error> {
    let mut parts = Multipart::new(body, boundary);
    let wrong = |reason: &str| Fault::Body(reason.to_owned());
    if parts.next_part().await?.is_none() {
        return Err(wrong("a multipart body begins with the document").into());
    }
    let (mut scanner, mut sink) = (Scanner::new(DEPTH_MAX), OneDraft::new());
    while let Some(bytes) = parts.chunk().await? {
        feed(&mut scanner, &bytes, &mut sink)?;
        arrivals.take(sink.reader.take_pieces()).await?;
    }
    scanner.end(&mut sink).map_err(Fault::from)?;
    let draft = sink
        .draft
        .ok_or_else(|| wrong("Document must be a JSON object"))?;
    let mut awaited: VecDeque<&DraftAttachment> = draft
        .attachments
        .iter()
        .filter(|attachment| attachment.fields.follows)
        .collect();
    let mut followed = Vec::new();
    while let Some(head) = parts.next_part().await? {
        let named = head
            .file_name
            .and_then(|name| awaited.iter().position(|attachment| attachment.name == name));
        let attachment = awaited
            .remove(named.unwrap_or(0))
            .ok_or_else(|| wrong("more parts than attachments that follow"))?;
        let coding = coding(attachment.fields.encoding.as_deref())?;
        let mut attaching = Attaching::begin(&arrivals.blobs, coding)?;
        while let Some(bytes) = parts.chunk().await? {
            attaching.write(bytes).await?;
        }
        let attached = finish(attaching, attachment, coding).await?;
        followed.push((attachment.name.clone(), attached));
    }
    if !awaited.is_empty() {
        return Err(wrong("fewer parts than attachments that follow").into());
    }
    Ok((draft, followed))
}

/// Ends an attachment that says what it is.
async fn finish(
    attaching: Attaching,
    attachment: &DraftAttachment,
    coding: Coding,
) -> Result<Attached, Error> {
    let fields = &attachment.fields;
    // Of what is packed, `length` is what comes out.
    let (length, decoded_length) = match coding {
        Coding::Identity => (fields.length, None),
        Coding::Gzip => (fields.encoded_length, fields.length),
    };
    let expected = Expected {
        digest: fields.digest.as_deref().and_then(parse_digest),
        length,
    };
    let attached = attaching.finish(expected).await.map_err(|error| match error {
        node::Error::Mismatch { .. } => Fault::Digest.into(),
        error => Error::Node(error),
    })?;
    match decoded_length {
        Some(said) if attached.decoded_length != Some(said) => Err(Fault::Digest.into()),
        _ => Ok(attached),
    }
}

/// How bytes are sent, as `Content-Encoding` or the member `encoding` says.
pub(super) fn coding(text: Option<&str>) -> Result<Coding, Fault> {
    match text {
        None | Some("identity" | "") => Ok(Coding::Identity),
        Some("gzip") => Ok(Coding::Gzip),
        Some(_) => Err(Fault::Encoding),
    }
}

fn feed(scanner: &mut Scanner, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Error> {
    scanner
        .feed(bytes, sink)
        .map_err(|refusal| Fault::from(refusal).into())
}

/// An edit of a document, from what was sent. `parent` is what the request says beside the document.
pub(super) fn edit(
    draft: Draft,
    id: DocId,
    parent: Option<Rev>,
    edits: Edits,
    arrivals: &mut Arrivals,
    followed: &mut Vec<(String, Attached)>,
) -> Result<Edit, Fault> {
    // First, so that the arrivals stay in step with the drafts whatever is wrong with this one.
    let data: Vec<Option<Attached>> = draft
        .attachments
        .iter()
        .map(|attachment| {
            if attachment.is_inline {
                arrivals.next()
            } else {
                None
            }
        })
        .collect();
    let rev = draft
        .rev
        .as_deref()
        .map(str::parse::<Rev>)
        .transpose()
        .map_err(Fault::Rev)?;
    let revisions = match edits {
        Edits::New => Vec::new(),
        Edits::Replicated => revisions(&draft, rev.clone())?,
    };
    let mut attachments = BTreeMap::new();
    for (attachment, inline) in draft.attachments.into_iter().zip(data) {
        let follows = followed.iter().position(|(name, _)| *name == attachment.name);
        let attached = inline.or_else(|| follows.map(|at| followed.swap_remove(at).1));
        let hung = hung(&attachment, attached, &id, edits)?;
        attachments.insert(attachment.name, hung);
    }
    let body = body_of(draft.body)?;
    let deleted = draft.deleted;
    Ok(match edits {
        Edits::New => Edit::New {
            id,
            parent: parent.or(rev),
            deleted,
            body,
            attachments,
        },
        Edits::Replicated => Edit::Replicated {
            id,
            revisions,
            deleted,
            body,
            attachments,
        },
    })
}

/// What a draft holds, as documents are kept.
pub(super) fn body_of(body: Vec<u8>) -> Result<Body, Fault> {
    let body = String::from_utf8(body).map_err(|_| Fault::Body("invalid UTF-8 JSON".to_owned()))?;
    Body::parse(&body).map_err(|error| Fault::Body(error.to_string()))
}

fn hung(
    attachment: &DraftAttachment,
    attached: Option<Attached>,
    id: &DocId,
    edits: Edits,
) -> Result<AttachmentEdit, Fault> {
    let name = &attachment.name;
    check_name(name)?;
    let fields = &attachment.fields;
    let Some(attached) = attached else {
        return match fields.stub {
            true => Ok(AttachmentEdit::Stub),
            false => Err(Fault::Stub {
                id: id.to_string(),
                name: name.clone(),
            }),
        };
    };
    // A client that edits a document may send new data beside the digest it once read; a replicator sends what belongs together.
    // What is inline is never packed, as with CouchDB: beside it, a digest may be that of the bytes as they were kept.
    let is_packed_elsewhere = attachment.is_inline && fields.encoding.is_some();
    let said = fields
        .digest
        .as_deref()
        .and_then(parse_digest)
        .filter(|_| !is_packed_elsewhere);
    if edits == Edits::Replicated && said.is_some_and(|said| said != attached.digest) {
        return Err(Fault::Digest);
    }
    let media_type = fields.content_type.as_deref().unwrap_or(BYTES_TYPE);
    let revpos = fields.revpos.filter(|_| edits == Edits::Replicated);
    Ok(stored(media_type, revpos, attached))
}

/// An attachment whose bytes are there; without `revpos` it came with the edit.
pub(super) fn stored(media_type: &str, revpos: Option<u32>, attached: Attached) -> AttachmentEdit {
    AttachmentEdit::Stored(Attachment {
        content_type: media_type.to_owned(),
        revpos: revpos.unwrap_or(0),
        digest: attached.digest,
        length: attached.length,
        blob: attached.blob,
        encoded: attached.decoded_length.map(|decoded_length| EncodedLength {
            encoding: "gzip".to_owned(),
            decoded_length,
        }),
    })
}

/// Whether this may be the name of an attachment.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    match name.is_empty() || name.starts_with('_') || name.len() > NAME_BYTES_MAX {
        true => Err(Fault::AttachmentName),
        false => Ok(()),
    }
}

/// `_revisions`, or `_rev` alone.
fn revisions(draft: &Draft, rev: Option<Rev>) -> Result<Vec<Rev>, Fault> {
    let Some(revisions) = &draft.revisions else {
        return match rev {
            Some(rev) => Ok(vec![rev]),
            None => Err(Fault::Validation(
                "a document that was edited elsewhere has a _rev or _revisions".to_owned(),
            )),
        };
    };
    let wrong =
        || Fault::Validation("RevIds isn't an array of revisions that descend to 1 at most.".to_owned());
    let history: Option<Vec<Rev>> = revisions
        .ids
        .iter()
        .zip(0..)
        .map(|(hash, down)| Rev::new(revisions.start.checked_sub(down)?, hash.parse::<RevHash>().ok()?))
        .collect();
    let history = history.filter(|history| !history.is_empty()).ok_or_else(wrong)?;
    match rev {
        Some(rev) if history.first() != Some(&rev) => Err(wrong()),
        _ => Ok(history),
    }
}
