//! `GET /db/{db}/_design/{design}/_info`: the indexes of a design document.
//!
//! One of the language `query` tells how far its indexes are; views in JavaScript are not run here, and their index is empty for ever.

use axum::http::StatusCode;
use axum::response::Response;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::json;

use super::fault::Fault;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;

/// What of a design document says in which language it is.
#[derive(Deserialize)]
struct Design {
    #[serde(default = "javascript")]
    language: String,
}

fn javascript() -> String {
    "javascript".to_owned()
}

/// GET.
pub(in crate::api) async fn info(call: Call) -> Result<Response, Error> {
    let (db, id) = (call.db().await?, call.doc_id()?);
    let wanted = id.clone();
    let (doc, state, last) = db
        .run(move |database| {
            Ok((
                database.open_doc(&wanted)?,
                database.index_state(&wanted)?,
                database.update_seq(),
            ))
        })
        .await?;
    let doc = doc.ok_or(Fault::Missing)?;
    if doc.deleted {
        return Err(Fault::Deleted.into());
    }
    let design: Design = serde_json::from_str(doc.body.as_str()).unwrap_or(Design {
        language: javascript(),
    });
    // Of views that are not run nothing is behind, and nothing pending.
    let (seq, pending) = match state.signature.is_empty() {
        true => (0, 0),
        false => (
            state.seq.number(),
            last.number().saturating_sub(state.seq.number()),
        ),
    };
    let signature = HEXLOWER.encode(&blake3::hash(&state.signature).as_bytes()[..16]);
    let body = json!({
        "name": call.param("design"),
        "view_index": {
            "collator_versions": [],
            "compact_running": false,
            "language": design.language,
            "purge_seq": 0,
            "signature": signature,
            // All indexes of a database share one file.
            "sizes": {"file": state.bytes, "active": state.bytes, "external": state.bytes},
            "update_seq": seq,
            "updater_running": false,
            "updates_pending": {"minimum": pending, "preferred": pending, "total": pending},
            "waiting_clients": 0,
            "waiting_commit": false,
        },
    });
    Ok(answer::json(StatusCode::OK, &body))
}
