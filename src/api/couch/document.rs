//! `/db/{db}/{doc}`: one document, with every parameter CouchDB has for reading one.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::fault::Fault;
use super::intake::{self, Arrivals, Edits};
use super::multipart::{boundary_of, new_boundary};
use super::pieces::{Form, Pieces};
use super::query::Query;
use super::render::{self, Data, Rendered, Shown};
use super::server::new_id;
use super::{local, written};
use crate::api::answer;
use crate::api::error::Error;
use crate::api::range;
use crate::api::route::Call;
use crate::id::{DocId, Rev};
use crate::node::{
    AttachmentEdit, Database, DatabaseError, Db, Doc, DocumentBody as Body, Edit, Node, RevTree,
};

/// What of a document is asked for.
#[derive(Debug, Clone)]
pub(super) enum Revs {
    Winner,
    One(Rev),
    All,
    These(Vec<Rev>),
}

/// A revision that was asked for.
pub(super) enum Found {
    Doc(Box<Doc>),
    Missing(Rev),
}

/// What was found of a document.
pub(super) struct Opened {
    pub(super) found: Vec<Found>,
    pub(super) tree: Option<RevTree>,
}

/// Opens revisions of a document; `None` where nobody wrote it. With `latest`, leaves stand for their ancestors.
pub(super) async fn open(
    db: &Db,
    id: DocId,
    revs: Revs,
    latest: bool,
    needs_tree: bool,
) -> Result<Option<Opened>, Error> {
    let opened = db
        .run(move |database| {
            let found = match revs {
                Revs::Winner => {
                    let winner = database.open_doc(&id)?;
                    winner.into_iter().map(|doc| Found::Doc(Box::new(doc))).collect()
                }
                Revs::One(rev) => open_each(database, &id, vec![rev], latest)?,
                Revs::These(revs) => open_each(database, &id, revs, latest)?,
                Revs::All => {
                    let leaves = database.open_leaves(&id)?;
                    leaves.into_iter().map(|doc| Found::Doc(Box::new(doc))).collect()
                }
            };
            let tree = match needs_tree
                || found.is_empty()
                || found.iter().any(|one| matches!(one, Found::Missing(_)))
            {
                true => database.tree(&id)?,
                false => None,
            };
            Ok(Opened { found, tree })
        })
        .await?;
    let is_known = opened.tree.is_some() || opened.found.iter().any(|one| matches!(one, Found::Doc(_)));
    Ok(is_known.then_some(opened))
}

fn open_each(
    database: &Database,
    id: &DocId,
    revs: Vec<Rev>,
    latest: bool,
) -> Result<Vec<Found>, DatabaseError> {
    let mut found = Vec::new();
    for rev in revs {
        let leaves = match latest {
            true => database
                .tree(id)?
                .map(|tree| tree.leaves_after(&rev))
                .unwrap_or_default(),
            false => Vec::new(),
        };
        let wanted = match leaves.is_empty() {
            true => vec![rev.clone()],
            false => leaves.into_iter().map(|leaf| leaf.rev).collect(),
        };
        for rev in wanted {
            found.push(match database.open_rev(id, &rev)? {
                Some(doc) => Found::Doc(Box::new(doc)),
                None => Found::Missing(rev),
            });
        }
    }
    Ok(found)
}

/// What a query asks to see of documents.
pub(super) fn shown(query: &Query) -> Result<Shown, Error> {
    let meta = query.flag("meta")?;
    Ok(Shown {
        revs: query.flag("revs")?,
        revs_info: meta || query.flag("revs_info")?,
        conflicts: meta || query.flag("conflicts")?,
        deleted_conflicts: meta || query.flag("deleted_conflicts")?,
        local_seq: query.flag("local_seq")?,
        attachments: match query.flag("attachments")? {
            true => Data::Inline,
            false => Data::None,
        },
        encoding_info: query.flag("att_encoding_info")?,
    })
}

/// A parameter that is a revision.
pub(super) fn rev_of(query: &Query) -> Result<Option<Rev>, Error> {
    let rev = query.text("rev").map(str::parse::<Rev>).transpose();
    Ok(rev.map_err(Fault::Rev)?)
}

/// GET and HEAD.
pub(in crate::api) async fn get(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let query = Query::of(&call)?;
    let mut shown = shown(&query)?;
    let has: Option<Vec<Rev>> = query.json("atts_since")?;
    if has.is_some() && shown.attachments == Data::None {
        shown.attachments = Data::Inline;
    }
    if query.text("open_revs").is_some() {
        return open_revs(&call, &db, id, &query, shown, has).await;
    }
    let wanted = rev_of(&query)?;
    let revs = wanted.clone().map_or(Revs::Winner, Revs::One);
    let opened = open(&db, id, revs, query.flag("latest")?, shown.needs_tree()).await?;
    let opened = opened.ok_or(Fault::Missing)?;
    let Some(Found::Doc(doc)) = opened.found.into_iter().next() else {
        return Err(Fault::Missing.into());
    };
    if doc.deleted && wanted.is_none() {
        return Err(Fault::Deleted.into());
    }
    let etag = format!("\"{}\"", doc.rev());
    let is_plain = shown == Shown::default();
    if is_plain && range::has_already(call.headers(), &etag) {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        set_etag(&mut response, &etag);
        return Ok(response);
    }
    let accepts = call.header("accept").unwrap_or_default();
    if shown.attachments == Data::Inline
        && accepts.contains("multipart/related")
        && !doc.attachments.is_empty()
    {
        shown.attachments = Data::Follows;
    }
    let seq = db.seq_text(doc.seq);
    let rendered = Rendered {
        doc: &doc,
        tree: opened.tree.as_ref(),
        shown: &shown,
        has: has.as_deref(),
        seq: &seq,
    };
    let mut out = Pieces::default();
    if shown.attachments == Data::Follows {
        let boundary = new_boundary();
        related(&mut out, rendered, &boundary);
        return Ok(out.answer(StatusCode::OK, &related_type(&boundary), db.blobs()));
    }
    render::document(&mut out, rendered);
    out.push("\n");
    let mut response = out.answer(StatusCode::OK, "application/json", db.blobs());
    if is_plain {
        set_etag(&mut response, &etag);
    }
    Ok(response)
}

fn related_type(boundary: &str) -> String {
    format!("multipart/related; boundary=\"{boundary}\"")
}

/// A document as `multipart/related`: its JSON, then the data of its attachments.
fn related(out: &mut Pieces, rendered: Rendered<'_>, boundary: &str) {
    out.push(&format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n"));
    render::document(out, rendered);
    for (name, attachment) in render::with_data(rendered.doc, rendered.has) {
        let name = name.replace(['"', '\r', '\n'], "_");
        let media_type = attachment.content_type.replace(['\r', '\n'], " ");
        // Who asks how attachments are kept gets them so.
        let encoded = attachment.encoded.as_ref();
        let (unpacked, length, coding) = match encoded {
            Some(encoded) if rendered.shown.encoding_info => (
                false,
                attachment.length,
                format!("\r\nContent-Encoding: {}", encoded.encoding),
            ),
            Some(encoded) => (true, encoded.decoded_length, String::new()),
            None => (false, attachment.length, String::new()),
        };
        out.push(&format!(
            "\r\n--{boundary}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Type: {media_type}{coding}\r\n\
             Content-Length: {length}\r\n\r\n"
        ));
        out.push_blob(
            attachment.blob,
            Form {
                unpacked,
                base64: false,
            },
        );
    }
    out.push(&format!("\r\n--{boundary}--"));
}

async fn open_revs(
    call: &Call,
    db: &Db,
    id: DocId,
    query: &Query,
    mut shown: Shown,
    has: Option<Vec<Rev>>,
) -> Result<Response, Error> {
    let revs = match query.text("open_revs") {
        Some("all") => Revs::All,
        _ => Revs::These(query.json("open_revs")?.unwrap_or_default()),
    };
    let asked = match &revs {
        Revs::These(revs) => revs.clone(),
        Revs::Winner | Revs::One(_) | Revs::All => Vec::new(),
    };
    let found = match open(db, id, revs, query.flag("latest")?, shown.needs_tree()).await? {
        Some(opened) => opened,
        None if asked.is_empty() => return Err(Fault::Missing.into()),
        None => Opened {
            found: asked.into_iter().map(Found::Missing).collect(),
            tree: None,
        },
    };
    let accepts = call.header("accept").unwrap_or_default();
    let mixed = accepts.contains("multipart/mixed").then(new_boundary);
    if mixed.is_some() && shown.attachments == Data::Inline {
        shown.attachments = Data::Follows;
    }
    let mut out = Pieces::default();
    for (index, one) in found.found.iter().enumerate() {
        match &mixed {
            Some(boundary) => out.push(&format!(
                "{}--{boundary}\r\n",
                if index > 0 { "\r\n" } else { "" }
            )),
            None => out.push(if index > 0 { "," } else { "[" }),
        }
        match (one, &mixed) {
            (Found::Missing(rev), Some(_)) => out.push(&format!(
                "Content-Type: application/json; error=\"true\"\r\n\r\n{{\"missing\":\"{rev}\"}}"
            )),
            (Found::Missing(rev), None) => out.push(&format!("{{\"missing\":\"{rev}\"}}")),
            (Found::Doc(doc), _) => {
                let seq = db.seq_text(doc.seq);
                let rendered = Rendered {
                    doc,
                    tree: found.tree.as_ref(),
                    shown: &shown,
                    has: has.as_deref(),
                    seq: &seq,
                };
                match &mixed {
                    Some(_) if shown.attachments == Data::Follows && !doc.attachments.is_empty() => {
                        let inner = new_boundary();
                        out.push(&format!("Content-Type: {}\r\n\r\n", related_type(&inner)));
                        related(&mut out, rendered, &inner);
                    }
                    Some(_) => {
                        out.push("Content-Type: application/json\r\n\r\n");
                        render::document(&mut out, rendered);
                    }
                    None => {
                        out.push("{\"ok\":");
                        render::document(&mut out, rendered);
                        out.push("}");
                    }
                }
            }
        }
    }
    let media_type = match mixed {
        Some(boundary) => {
            out.push(&format!("\r\n--{boundary}--"));
            format!("multipart/mixed; boundary=\"{boundary}\"")
        }
        None => {
            out.push(if found.found.is_empty() { "[]" } else { "]" });
            "application/json".to_owned()
        }
    };
    Ok(out.answer(StatusCode::OK, &media_type, db.blobs()))
}

/// The revision that a request says its edit follows: in the query, or in `If-Match`.
pub(super) fn parent_of(call: &Call, query: &Query) -> Result<Option<Rev>, Error> {
    let header = call
        .header("if-match")
        .map(|tag| tag.trim_matches('"').parse::<Rev>());
    let header = header.transpose().map_err(Fault::Rev)?;
    match (rev_of(query)?, header) {
        (Some(query), Some(header)) if query != header => Err(Fault::RevTwice.into()),
        (query, header) => Ok(query.or(header)),
    }
}

/// PUT.
pub(in crate::api) async fn put(mut call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    save(&mut call, &db, Some(id)).await
}

/// `POST /db/{db}`: a document that says its id, or gets one.
pub(in crate::api) async fn post(mut call: Call) -> Result<Response, Error> {
    let db = call.db().await?;
    save(&mut call, &db, None).await
}

async fn save(call: &mut Call, db: &Db, id: Option<DocId>) -> Result<Response, Error> {
    let query = Query::of(call)?;
    let parent = parent_of(call, &query)?;
    let edits = match query.text("new_edits") {
        None | Some("true") => Edits::New,
        Some("false") => Edits::Replicated,
        Some(_) => return Err(query.wrong("new_edits")),
    };
    let boundary = match call.header("content-type") {
        Some(media_type) if media_type.starts_with("multipart/related") => {
            Some(boundary_of(media_type).ok_or(Error::MediaType("multipart/related with a boundary"))?)
        }
        _ => None,
    };
    let body = call.take_body();
    let mut arrivals = Arrivals::new(db.blobs());
    let (draft, mut followed) = match boundary {
        Some(boundary) => intake::related(body, &boundary, &mut arrivals).await?,
        None => (intake::one(body, &mut arrivals).await?, Vec::new()),
    };
    if let (Some(parent), Some(rev)) = (&parent, &draft.rev)
        && edits == Edits::New
        && parent.to_string() != *rev
    {
        return Err(Fault::RevTwice.into());
    }
    let id = match (id, &draft.id) {
        (Some(id), _) => id,
        (None, Some(id)) if id.starts_with("_local/") => {
            let id = id.clone();
            return local::save(call, db, &id, draft).await;
        }
        (None, Some(id)) => id.parse().map_err(Fault::Id)?,
        (None, None) => new_id()?.parse().map_err(Fault::Id)?,
    };
    let edit = intake::edit(draft, id.clone(), parent, edits, &mut arrivals, &mut followed)?;
    let rev = one(call, db, edit).await?;
    // What is answered is durable all the same: a client that asked for less hears so.
    let status = match query.text("batch") {
        Some("ok") => StatusCode::ACCEPTED,
        _ => StatusCode::CREATED,
    };
    Ok(saved(status, &id, &rev))
}

/// Does one edit.
pub(super) async fn one(call: &Call, db: &Db, edit: Edit) -> Result<Rev, Error> {
    let edit = put_away(call, db, vec![edit])
        .await?
        .pop()
        .expect("one edit stays one");
    let saved = db.save_doc(edit).await?;
    Ok(saved.map_err(written::fault)?)
}

/// Edits as they are written: those of `_replicator` without credentials.
pub(super) async fn put_away(call: &Call, db: &Db, edits: Vec<Edit>) -> Result<Vec<Edit>, Error> {
    match *db.name() == Node::replicator_db() {
        true => Ok(call.node().put_away(edits).await?),
        false => Ok(edits),
    }
}

pub(super) fn saved(status: StatusCode, id: &DocId, rev: &Rev) -> Response {
    let mut response = answer::json(status, &json!({"ok": true, "id": id, "rev": rev}));
    set_etag(&mut response, &format!("\"{rev}\""));
    response
}

pub(super) fn set_etag(response: &mut Response, etag: &str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
}

/// DELETE.
pub(in crate::api) async fn delete(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let query = Query::of(&call)?;
    let parent = parent_of(&call, &query)?;
    let opened = open(&db, id.clone(), Revs::Winner, false, false).await?;
    match opened.and_then(|opened| opened.found.into_iter().next()) {
        Some(Found::Doc(doc)) if doc.deleted && parent.is_none() => return Err(Fault::Deleted.into()),
        Some(Found::Doc(_)) => {}
        Some(Found::Missing(_)) | None => return Err(Fault::Missing.into()),
    }
    let edit = Edit::New {
        id: id.clone(),
        parent,
        deleted: true,
        body: Body::default(),
        attachments: BTreeMap::new(),
    };
    let rev = one(&call, &db, edit).await?;
    Ok(saved(StatusCode::OK, &id, &rev))
}

/// COPY: the `Destination` is an id, with `?rev=` where it is there already.
pub(in crate::api) async fn copy(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let query = Query::of(&call)?;
    let destination = call.header("destination").unwrap_or_default();
    let (target, rev) = match destination.split_once("?rev=") {
        Some((target, rev)) => (target, Some(rev.parse::<Rev>().map_err(Fault::Rev)?)),
        None => (destination, None),
    };
    let target = percent_encoding::percent_decode_str(target).decode_utf8();
    let target = target.map_err(|error| Error::malformed("Destination", error))?;
    let target: DocId = target.parse().map_err(Fault::Id)?;
    let revs = rev_of(&query)?.map_or(Revs::Winner, Revs::One);
    let is_winner = matches!(revs, Revs::Winner);
    let opened = open(&db, id, revs, false, false).await?;
    let found = opened.and_then(|opened| opened.found.into_iter().next());
    let Some(Found::Doc(doc)) = found else {
        return Err(Fault::Missing.into());
    };
    if doc.deleted && is_winner {
        return Err(Fault::Deleted.into());
    }
    let attachments = doc.attachments.into_iter().map(|(name, mut attachment)| {
        attachment.revpos = 0;
        (name, AttachmentEdit::Stored(attachment))
    });
    let edit = Edit::New {
        id: target.clone(),
        parent: rev,
        deleted: false,
        body: doc.body,
        attachments: attachments.collect(),
    };
    let rev = one(&call, &db, edit).await?;
    Ok(saved(StatusCode::CREATED, &target, &rev))
}
