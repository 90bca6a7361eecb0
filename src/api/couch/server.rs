//! `/db/` itself: what CouchDB answers about a server.

use axum::http::{StatusCode, header};
use axum::response::Response;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::query::Query;
use crate::api::answer;
use crate::api::auth;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::session;
use crate::node::{self, Principal, Scope, Via};

/// The version whose API this is: clients look at it to know what they may ask for.
const COUCHDB_VERSION: &str = "3.4.3";

/// Ids that one request may ask for.
const UUIDS_MAX: u64 = 1000;

/// `GET /db/`: PouchDB and CouchDB make the ids of replications from `uuid`, so it must never change.
pub(in crate::api) async fn root(call: Call) -> Result<Response, Error> {
    // A digest of the node's id, as long as CouchDB's are.
    let id = call.node().identity().node_id().to_string();
    let uuid = HEXLOWER.encode(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    let body = json!({
        "couchdb": "Welcome",
        "version": COUCHDB_VERSION,
        "uuid": uuid,
        "features": [],
        "vendor": {"name": "Refuge", "version": env!("CARGO_PKG_VERSION")},
    });
    Ok(answer::json(StatusCode::OK, &body))
}

/// `GET /db/_up`.
pub(in crate::api) async fn up(_call: Call) -> Result<Response, Error> {
    Ok(answer::json(
        StatusCode::OK,
        &json!({"status": "ok", "seeds": {}}),
    ))
}

#[derive(Serialize)]
struct UuidsBody {
    uuids: Vec<String>,
}

/// `GET /db/_uuids`.
pub(in crate::api) async fn uuids(call: Call) -> Result<Response, Error> {
    let query = Query::of(&call)?;
    let count = query.number("count")?.unwrap_or(1);
    if count > UUIDS_MAX {
        return Err(query.wrong("count"));
    }
    let uuids: Result<Vec<String>, Error> = (0..count).map(|_| new_id()).collect();
    Ok(answer::json(StatusCode::OK, &UuidsBody { uuids: uuids? }))
}

/// A random id for a document, as CouchDB makes them.
pub(super) fn new_id() -> Result<String, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(node::Error::from)?;
    Ok(HEXLOWER.encode(&random))
}

/// Name and password.
#[derive(Deserialize)]
struct LoginBody {
    name: String,
    password: String,
}

/// `POST /db/_session`: as `/api/session`, with CouchDB's words.
pub(in crate::api) async fn log_in(mut call: Call) -> Result<Response, Error> {
    let body: LoginBody = call.take_body().couch_json().await?;
    let session = session::begin(&call, &body.name, body.password).await?;
    let roles = roles(&session.principal);
    let name = session.principal.account.clone();
    let mut response = answer::json(StatusCode::OK, &json!({"ok": true, "name": name, "roles": roles}));
    let cookie = auth::set_cookie(&call.connection, session.cookie.expose());
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// `GET /db/_session`.
pub(in crate::api) async fn session(call: Call) -> Result<Response, Error> {
    let principal = call.caller.principal()?;
    let by = match principal.via {
        Via::Session => "cookie",
        Via::Token(_) => "default",
    };
    let body = json!({
        "ok": true,
        "userCtx": {"name": principal.account, "roles": roles(principal)},
        "info": {"authentication_handlers": ["cookie", "default"], "authenticated": by},
    });
    Ok(answer::json(StatusCode::OK, &body))
}

/// `DELETE /db/_session`.
pub(in crate::api) async fn log_out(call: Call) -> Result<Response, Error> {
    let mut response = answer::json(StatusCode::OK, &json!({"ok": true}));
    session::end(&call, &mut response).await?;
    Ok(response)
}

/// CouchDB calls whoever may everything `_admin`.
fn roles(principal: &Principal) -> Vec<&'static str> {
    let mut roles = vec![principal.role.name()];
    if principal.may(Scope::Admin) {
        roles.push("_admin");
    }
    roles
}
