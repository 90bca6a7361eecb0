//! Documents as CouchDB writes them: the body as it came, with its own members before and after.

use std::fmt::Write as _;

use data_encoding::BASE64;

use super::pieces::{Form, Pieces, json_text};
use crate::id::Rev;
use crate::node::{Attachment, Doc, RevTree};

/// What is shown of a document beside its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) revs: bool,
    pub(super) revs_info: bool,
    pub(super) conflicts: bool,
    pub(super) deleted_conflicts: bool,
    pub(super) local_seq: bool,
    pub(super) attachments: Data,
    /// With how they are stored.
    pub(super) encoding_info: bool,
}

/// Whether the data of attachments is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Data {
    /// Stubs.
    #[default]
    None,
    /// As base64 in the document.
    Inline,
    /// After the document, as parts of a multipart answer.
    Follows,
}

impl Shown {
    /// Whether more of the document is needed than its revision.
    pub(super) fn needs_tree(&self) -> bool {
        self.revs_info || self.conflicts || self.deleted_conflicts
    }
}

/// The attachments of a document whose data is shown: all, or those that came after what the client has.
pub(super) fn with_data<'a>(
    doc: &'a Doc,
    has: Option<&[Rev]>,
) -> impl Iterator<Item = (&'a String, &'a Attachment)> {
    let known = has.unwrap_or_default();
    let newest = doc.revisions.iter().find(|rev| known.contains(rev));
    let known_generation = newest.map_or(0, Rev::generation);
    let is_new = move |attachment: &Attachment| known_generation == 0 || attachment.revpos > known_generation;
    doc.attachments
        .iter()
        .filter(move |(_, attachment)| is_new(attachment))
}

/// A document with what is shown of it.
#[derive(Clone, Copy)]
pub(super) struct Rendered<'a> {
    pub(super) doc: &'a Doc,
    /// Where [`Shown::needs_tree`] says so.
    pub(super) tree: Option<&'a RevTree>,
    pub(super) shown: &'a Shown,
    /// Revisions whose attachments the client has.
    pub(super) has: Option<&'a [Rev]>,
    /// When it changed, as clients keep it.
    pub(super) seq: &'a str,
}

/// Writes a document.
pub(super) fn document(out: &mut Pieces, rendered: Rendered<'_>) {
    let Rendered {
        doc,
        tree,
        shown,
        has,
        seq,
    } = rendered;
    out.push("{\"_id\":");
    out.push_json_text(doc.id.as_str());
    out.push(&format!(",\"_rev\":\"{}\"", doc.rev()));
    let members = doc.body.members();
    if !members.is_empty() {
        out.push(",");
        out.push(members);
    }
    if doc.deleted {
        out.push(",\"_deleted\":true");
    }
    if shown.revs {
        out.push(&revisions(&doc.revisions));
    }
    if let Some(tree) = tree {
        out.push(&leaves(tree, doc, shown));
    }
    if shown.local_seq {
        out.push(&format!(",\"_local_seq\":{}", json_text(seq)));
    }
    if !doc.attachments.is_empty() {
        attachments(out, doc, shown, has);
    }
    out.push("}");
}

fn revisions(history: &[Rev]) -> String {
    let start = history.first().map_or(0, Rev::generation);
    let ids: Vec<String> = history.iter().map(|rev| format!("\"{}\"", rev.hash())).collect();
    format!(
        ",\"_revisions\":{{\"start\":{start},\"ids\":[{}]}}",
        ids.join(",")
    )
}

fn leaves(tree: &RevTree, doc: &Doc, shown: &Shown) -> String {
    let mut text = String::new();
    let list = |revs: Vec<Rev>| -> String {
        let revs: Vec<String> = revs.iter().map(|rev| format!("\"{rev}\"")).collect();
        revs.join(",")
    };
    // Writing to a string cannot fail.
    if shown.revs_info {
        let infos: Vec<String> = doc.revisions.iter().map(|rev| info(tree, rev)).collect();
        let _ = write!(text, ",\"_revs_info\":[{}]", infos.join(","));
    }
    let conflicts = tree.conflicts();
    if shown.conflicts && !conflicts.is_empty() {
        let _ = write!(text, ",\"_conflicts\":[{}]", list(conflicts));
    }
    let deleted = tree.deleted_conflicts();
    if shown.deleted_conflicts && !deleted.is_empty() {
        let _ = write!(text, ",\"_deleted_conflicts\":[{}]", list(deleted));
    }
    text
}

/// Only leaves keep what they hold.
fn info(tree: &RevTree, rev: &Rev) -> String {
    let status = match tree.leaf(rev) {
        Some(leaf) if leaf.deleted => "deleted",
        Some(_) => "available",
        None => "missing",
    };
    format!("{{\"rev\":\"{rev}\",\"status\":\"{status}\"}}")
}

fn attachments(out: &mut Pieces, doc: &Doc, shown: &Shown, has: Option<&[Rev]>) {
    let sent: Vec<&String> = match shown.attachments {
        Data::None => Vec::new(),
        Data::Inline | Data::Follows => with_data(doc, has).map(|(name, _)| name).collect(),
    };
    out.push(",\"_attachments\":{");
    for (index, (name, attachment)) in doc.attachments.iter().enumerate() {
        if index > 0 {
            out.push(",");
        }
        out.push_json_text(name);
        out.push(&format!(
            ":{{\"content_type\":{},\"revpos\":{},\"digest\":\"{}\"",
            json_text(&attachment.content_type),
            attachment.revpos,
            digest_text(attachment.digest),
        ));
        // What is packed is as long as what comes out of it.
        let encoded = attachment.encoded.as_ref();
        let length = encoded.map_or(attachment.length, |encoded| encoded.decoded_length);
        let length = format!(",\"length\":{length}");
        if let (true, Some(encoded)) = (shown.encoding_info, encoded) {
            let encoding = json_text(&encoded.encoding);
            out.push(&format!(
                ",\"encoding\":{encoding},\"encoded_length\":{}",
                attachment.length
            ));
        }
        match (&shown.attachments, sent.contains(&name)) {
            (Data::Inline, true) => {
                out.push(",\"data\":\"");
                let unpacked = encoded.is_some();
                out.push_blob(
                    attachment.blob,
                    Form {
                        unpacked,
                        base64: true,
                    },
                );
                out.push("\"");
            }
            (Data::Follows, true) => out.push(&(length + ",\"follows\":true")),
            _ => out.push(&(length + ",\"stub\":true")),
        }
        out.push("}");
    }
    out.push("}");
}

/// A digest as CouchDB writes it.
pub(super) fn digest_text(digest: [u8; 16]) -> String {
    format!("md5-{}", BASE64.encode(&digest))
}

/// Reads a digest; `None` where it is of another kind.
pub(super) fn parse_digest(text: &str) -> Option<[u8; 16]> {
    let bytes = BASE64.decode(text.strip_prefix("md5-")?.as_bytes()).ok()?;
    bytes.try_into().ok()
}
