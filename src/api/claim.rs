//! `POST /api/claim`: becoming the owner, with the code itself or with a proof of it.

use axum::http::{StatusCode, header};
use axum::response::Response;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::auth;
use super::error::Error;
use super::route::Call;
use super::tokens::NewTokenBody;
use crate::id::{AccountName, NodeId};
use crate::node::{ClaimProof, Password, Role, TokenRequest};

/// A claim: `code` with `password` from a browser, or `proof` from a program. Within two minutes after a press of the box's
/// button neither is needed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimBody {
    /// The name of the owner's account.
    #[schema(value_type = String)]
    account: AccountName,
    /// The claim code. Over a line that others may read, send a proof instead.
    code: Option<String>,
    /// HMAC-SHA256, keyed with the code without its dashes, over `refuge claim v1 client`, the TLS session's
    /// channel binding (RFC 9266) and the node's key; 64 hex digits. Needs TLS.
    proof: Option<String>,
    /// The owner's password; needed with `code`.
    password: Option<String>,
    /// What the first token is called; without `code`.
    label: Option<String>,
}

/// The node has an owner.
#[derive(Serialize, ToSchema)]
pub(super) struct ClaimedBody {
    /// The node.
    #[schema(value_type = String)]
    id: NodeId,
    /// The owner's account.
    #[schema(value_type = String)]
    account: AccountName,
    /// With `proof`: the same MAC over `refuge claim v1 node`, which only a node that knows the code can make.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    /// Without `code`: the owner's first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<NewTokenBody>,
}

/// Claims the node. With the code, the answer signs the browser in.
pub(super) async fn claim(mut call: Call) -> Result<Response, Error> {
    let body: ClaimBody = call.take_body().json().await?;
    let password = body.password.map(Password::new).transpose()?;
    match (body.code, body.proof, password) {
        (Some(code), None, Some(password)) => by_code(&call, &code, body.account, password).await,
        (None, Some(proof), password) => {
            let label = body.label.unwrap_or_else(|| "first".to_owned());
            by_proof(&call, &proof, body.account, password, label).await
        }
        (None, None, password) => {
            let label = body.label.unwrap_or_else(|| "first".to_owned());
            by_button(&call, body.account, password, label).await
        }
        (Some(_), Some(_), _) | (Some(_), None, None) => Err(Error::malformed(
            "claim",
            "needs either code and password, or proof",
        )),
    }
}

async fn by_code(
    call: &Call,
    code: &str,
    account: AccountName,
    password: Password,
) -> Result<Response, Error> {
    let address = call.connection.peer();
    let session = call
        .node()
        .claim()
        .by_code(code, account.clone(), password, address)
        .await?;
    let mut response = claimed(call, account, None, None);
    let cookie = auth::set_cookie(&call.connection, session.cookie.expose());
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn by_button(
    call: &Call,
    account: AccountName,
    password: Option<Password>,
    label: String,
) -> Result<Response, Error> {
    let token = call
        .node()
        .claim()
        .by_button_for_token(
            account.clone(),
            password,
            owner_token(label),
            call.connection.peer(),
        )
        .await?;
    Ok(claimed(call, account, None, Some(token.into())))
}

async fn by_proof(
    call: &Call,
    proof: &str,
    account: AccountName,
    password: Option<Password>,
    label: String,
) -> Result<Response, Error> {
    let exporter = call
        .connection
        .exporter()
        .ok_or_else(|| Error::malformed("proof", "needs TLS: it is bound to the session"))?;
    let proof = HEXLOWER_PERMISSIVE
        .decode(proof.as_bytes())
        .ok()
        .and_then(|proof| <[u8; 32]>::try_from(proof).ok())
        .ok_or_else(|| Error::malformed("proof", "is 64 hex digits"))?;
    let claim = ClaimProof {
        exporter: *exporter,
        proof,
        account: account.clone(),
        password,
        token: owner_token(label),
    };
    let proven = call
        .node()
        .claim()
        .by_proof(claim, call.connection.peer())
        .await?;
    let answer = data_encoding::HEXLOWER.encode(&proven.answer);
    Ok(claimed(call, account, Some(answer), Some(proven.token.into())))
}

/// What the owner's first token is to be.
fn owner_token(label: String) -> TokenRequest {
    TokenRequest {
        label,
        scopes: Role::Owner.scopes(),
        expires: None,
    }
}

fn claimed(
    call: &Call,
    account: AccountName,
    answer: Option<String>,
    token: Option<NewTokenBody>,
) -> Response {
    let body = ClaimedBody {
        id: call.node().identity().node_id(),
        account,
        answer,
        token,
    };
    answer::json(StatusCode::CREATED, &body)
}
