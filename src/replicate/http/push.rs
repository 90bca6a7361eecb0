//! Revisions on their way to a server: many at once where no bytes go with them, one by one with their attachments.
//!
//! An attachment that came with an edit which the target has is sent as a stub. A target that has forgotten it says so (412), and
//! gets it.

use bytes::Bytes;
use data_encoding::BASE64;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::super::local::wrong_bytes;
use super::super::peer::{Failure, Hung, Moved, Peer, Revision, Trouble};
use super::{ANSWER_BYTES_MAX, HttpPeer, LIST_BYTES_MAX, PATIENCE, failure, path_of, status};
use crate::http::{Error as HttpError, Method, Patience, Request};
use crate::id::Rev;

/// What parts are divided by: no JSON has it, and where an attachment does, the lengths of the parts tell.
const BOUNDARY: &str = "refuge-7f1d2b9c4e8a4d0f9a6b3c5d";

/// How much of its content goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// What the target lacks.
    Lacking,
    /// Everything: the target lacks more than it said.
    All,
}

/// Stores revisions on a server.
///
/// # Errors
/// As [`Peer::store`].
pub(super) async fn store(
    peer: &HttpPeer,
    revisions: Vec<(Revision, &[Rev])>,
    source: &dyn Peer,
) -> Result<Moved, Failure> {
    let mut moved = Moved::default();
    let (with_data, plain): (Vec<_>, Vec<_>) = revisions
        .into_iter()
        .partition(|(revision, has)| !lacking(revision, has, Content::Lacking).is_empty());
    let plain: Vec<Revision> = plain.into_iter().map(|(revision, _)| revision).collect();
    bulk(peer, &plain, source, &mut moved).await?;
    for (revision, has) in with_data {
        let sent = one(peer, &revision, has, Content::Lacking, source).await;
        let sent = match sent {
            Err(failure) if failure.trouble == Trouble::Stub => {
                one(peer, &revision, has, Content::All, source).await
            }
            sent => sent,
        };
        count(peer, sent, &mut moved)?;
    }
    Ok(moved)
}

/// A document that the target will not have is one that was not written; anything else stops the batch.
fn count(peer: &HttpPeer, sent: Result<(), Failure>, moved: &mut Moved) -> Result<(), Failure> {
    match sent {
        Ok(()) => moved.written += 1,
        Err(failure)
            if matches!(
                failure.trouble,
                Trouble::Fatal | Trouble::Stub | Trouble::Conflict
            ) =>
        {
            moved.refused += 1;
            tracing::warn!(peer = %peer.client.url(), error = %failure, "a replicated document was refused");
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

/// The attachments whose bytes go along.
fn lacking<'a>(revision: &'a Revision, has: &[Rev], content: Content) -> Vec<(&'a String, &'a Hung)> {
    let newest = revision.revisions.iter().skip(1).find(|rev| has.contains(rev));
    let known = match content {
        Content::Lacking => newest.map_or(0, Rev::generation),
        Content::All => 0,
    };
    let all = revision.attachments.iter();
    all.filter(|(_, hung)| known == 0 || hung.revpos > known)
        .collect()
}

/// Sends documents without bytes; a batch that is too large in halves.
async fn bulk(
    peer: &HttpPeer,
    revisions: &[Revision],
    source: &dyn Peer,
    moved: &mut Moved,
) -> Result<(), Failure> {
    let mut waiting = vec![revisions];
    while let Some(batch) = waiting.pop() {
        if batch.is_empty() {
            continue;
        }
        let mut body = String::from("{\"new_edits\":false,\"docs\":[");
        for (index, revision) in batch.iter().enumerate() {
            if index > 0 {
                body.push(',');
            }
            write_document(&mut body, revision, &[]);
        }
        body.push_str("]}");
        let request = Request::new(Method::POST, "/_bulk_docs")
            .header("content-type", "application/json")
            .body(Bytes::from(body))
            .patience(Patience::Of(PATIENCE * 4));
        match peer.client.ask(request).await {
            Ok(answer) => {
                let bytes = answer.whole(LIST_BYTES_MAX).await.map_err(failure)?;
                let told: Vec<Value> = serde_json::from_slice(&bytes)
                    .map_err(|_| peer.lie("outcomes of documents that are none"))?;
                outcomes(peer, batch, &told, source, moved).await?;
            }
            Err(error) if status(&error) == 413 && batch.len() > 1 => {
                let (low, high) = batch.split_at(batch.len() / 2);
                waiting.extend([high, low]);
            }
            // Some servers refuse all for a stub that one has.
            Err(error) if status(&error) == 412 => {
                for revision in batch {
                    let sent = one(peer, revision, &[], Content::All, source).await;
                    count(peer, sent, moved)?;
                }
            }
            Err(error) if status(&error) == 413 => count(peer, Err(failure(error)), moved)?,
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(())
}

/// Counts what became of a batch. CouchDB tells of failures alone, others of each document.
async fn outcomes(
    peer: &HttpPeer,
    batch: &[Revision],
    told: &[Value],
    source: &dyn Peer,
    moved: &mut Moved,
) -> Result<(), Failure> {
    let mut written = batch.len() as u64;
    for outcome in told {
        let text = |name: &str| outcome.get(name).and_then(Value::as_str);
        let Some(error) = text("error").or(outcome.get("error").map(|_| "error")) else {
            continue;
        };
        written = written.saturating_sub(1);
        let is_of = |revision: &&Revision| Some(revision.id.as_str()) == text("id");
        match batch.iter().find(is_of) {
            Some(revision) if error == "missing_stub" && !revision.attachments.is_empty() => {
                let sent = one(peer, revision, &[], Content::All, source).await;
                count(peer, sent, moved)?;
            }
            _ => {
                moved.refused += 1;
                tracing::warn!(peer = %peer.client.url(), "a replicated document was refused");
            }
        }
    }
    moved.written += written;
    Ok(())
}

/// Sends one document with the attachments that go along, as `multipart/related`.
async fn one(
    peer: &HttpPeer,
    revision: &Revision,
    has: &[Rev],
    content: Content,
    source: &dyn Peer,
) -> Result<(), Failure> {
    let sent = lacking(revision, has, content);
    let mut document = String::new();
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    write_document(&mut document, revision, &names);
    let path = format!("{}?new_edits=false", path_of(&revision.id));
    let request = Request::new(Method::PUT, path).patience(Patience::Of(PATIENCE * 4));
    if sent.is_empty() {
        let request = request
            .header("content-type", "application/json")
            .body(Bytes::from(document));
        return done(peer.client.ask(request).await).await;
    }
    let first = format!("--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{document}");
    let heads: Vec<String> = sent.iter().map(|(name, hung)| part_head(name, hung)).collect();
    let last = format!("\r\n--{BOUNDARY}--");
    let bytes: u64 = sent.iter().map(|(_, hung)| hung.length).sum();
    let framing = first.len() + heads.iter().map(String::len).sum::<usize>() + last.len();
    let content_type = format!("multipart/related; boundary=\"{BOUNDARY}\"");
    let request = request.header("content-type", &content_type);
    let mut upload = peer.client.upload(request, Some(framing as u64 + bytes));
    upload.push(Bytes::from(first)).await.map_err(failure)?;
    for ((name, hung), head) in sent.into_iter().zip(heads) {
        upload.push(Bytes::from(head)).await.map_err(failure)?;
        let mut pieces = source.attachment(revision, name).await?;
        let (mut left, mut md5) = (hung.length, Md5::new());
        while let Some(piece) = pieces.next().await? {
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| wrong_bytes(revision, name))?;
            md5.update(&piece);
            upload.push(piece).await.map_err(failure)?;
        }
        let digest: [u8; 16] = md5.finalize().into();
        // Without its end the target keeps nothing of it.
        if left > 0 || hung.digest.is_some_and(|said| said != digest) {
            return Err(wrong_bytes(revision, name));
        }
    }
    upload.push(Bytes::from(last)).await.map_err(failure)?;
    done(upload.end().await).await
}

async fn done(answer: Result<crate::http::Response, HttpError>) -> Result<(), Failure> {
    answer
        .map_err(failure)?
        .whole(ANSWER_BYTES_MAX)
        .await
        .map_err(failure)?;
    Ok(())
}

fn part_head(name: &str, hung: &Hung) -> String {
    // Parts come in the order of the document; the name is for servers that look for a file.
    let plain: String = name
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '\\'))
        .collect();
    let content_type: String = hung.content_type.chars().filter(|c| !c.is_control()).collect();
    format!(
        "\r\n--{BOUNDARY}\r\nContent-Disposition: attachment; filename=\"{plain}\"\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        hung.length
    )
}

/// Writes a document; `follows` are the attachments whose bytes come after it.
fn write_document(out: &mut String, revision: &Revision, follows: &[&str]) {
    let hashes: Vec<String> = revision
        .revisions
        .iter()
        .map(|rev| rev.hash().to_string())
        .collect();
    let history = json!({"start": revision.rev().generation(), "ids": hashes});
    out.push_str(&format!(
        "{{\"_id\":{},\"_rev\":{},\"_revisions\":{history}",
        json!(revision.id),
        json!(revision.rev())
    ));
    if revision.deleted {
        out.push_str(",\"_deleted\":true");
    }
    if !revision.attachments.is_empty() {
        out.push_str(",\"_attachments\":{");
        for (index, (name, hung)) in revision.attachments.iter().enumerate() {
            let mut fields =
                json!({"content_type": hung.content_type, "revpos": hung.revpos, "length": hung.length});
            if let Some(digest) = hung.digest {
                fields["digest"] = json!(format!("md5-{}", BASE64.encode(&digest)));
            }
            let how = if follows.contains(&name.as_str()) {
                "follows"
            } else {
                "stub"
            };
            fields[how] = json!(true);
            let comma = if index > 0 { "," } else { "" };
            out.push_str(&format!("{comma}{}:{fields}", json!(name)));
        }
        out.push('}');
    }
    let members = revision.body.members();
    if !members.is_empty() {
        out.push(',');
        out.push_str(members);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::DocumentBody;

    fn revision() -> Revision {
        let hung = |revpos| Hung {
            content_type: "text/plain\r\nX: y".to_owned(),
            revpos,
            digest: Some([1; 16]),
            length: 5,
            blob: None,
        };
        Revision {
            id: "a".parse().unwrap(),
            revisions: ["3-cc", "2-bb", "1-aa"].map(|rev| rev.parse().unwrap()).to_vec(),
            deleted: false,
            body: DocumentBody::from("{\"n\":1.50}".to_owned()),
            attachments: BTreeMap::from([("new".to_owned(), hung(3)), ("old".to_owned(), hung(1))]),
        }
    }

    #[test]
    fn only_attachments_that_came_after_what_the_target_has_go_along() {
        let revision = revision();
        let names = |has: &[&str], content| -> Vec<String> {
            let has: Vec<Rev> = has.iter().map(|rev| rev.parse().unwrap()).collect();
            let sent = lacking(&revision, &has, content);
            sent.into_iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&["2-bb"], Content::Lacking), ["new"]);
        assert_eq!(names(&["1-aa"], Content::Lacking), ["new"]);
        // A revision of another branch says nothing of this one; neither does the revision itself.
        assert_eq!(names(&["2-zz", "3-cc"], Content::Lacking), ["new", "old"]);
        assert_eq!(names(&[], Content::Lacking), ["new", "old"]);
        assert_eq!(names(&["2-bb"], Content::All), ["new", "old"]);
    }

    #[test]
    fn a_document_says_what_follows_and_nothing_breaks_out_of_a_part() {
        let revision = revision();
        let mut text = String::new();
        write_document(&mut text, &revision, &["new"]);
        assert!(text.ends_with(",\"n\":1.50}"), "{text}");
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            written["_revisions"],
            json!({"start": 3, "ids": ["cc", "bb", "aa"]})
        );
        let attachments = &written["_attachments"];
        assert_eq!(
            (&attachments["new"]["follows"], &attachments["old"]["stub"]),
            (&json!(true), &json!(true))
        );
        let head = part_head("a\"\r\nb", &revision.attachments["new"]);
        assert!(
            head.contains("filename=\"ab\"\r\nContent-Type: text/plainX: y\r\n"),
            "{head}"
        );
    }
}
