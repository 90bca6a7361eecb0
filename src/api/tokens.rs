//! `/api/tokens`: what programs sign in with.

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use super::stamp;
use crate::id::{AccountName, TokenId};
use crate::node::{NewToken, Role, Scope, Scopes, TokenInfo, TokenRequest};

/// What a token is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    /// What it is for, in the owner's words.
    label: String,
    /// What it may do: `read`, `write`, `ingest`, `admin`, `metrics`.
    scopes: Vec<String>,
    /// After how many seconds it ends by itself; never, where it is left out.
    expires_in_s: Option<u64>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewTokenBody {
    /// Its handle, to revoke it by.
    id: String,
    /// The token itself. It is shown this once.
    token: String,
}

impl From<NewToken> for NewTokenBody {
    fn from(new: NewToken) -> NewTokenBody {
        NewTokenBody {
            id: new.id.to_string(),
            token: new.secret.expose().to_owned(),
        }
    }
}

/// A token as the list shows it.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenInfoBody {
    id: String,
    #[schema(value_type = String)]
    account: AccountName,
    label: String,
    scopes: Vec<&'static str>,
    /// RFC 3339.
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<String>,
}

impl From<TokenInfo> for TokenInfoBody {
    fn from(info: TokenInfo) -> TokenInfoBody {
        TokenInfoBody {
            id: info.id.to_string(),
            account: info.account,
            label: info.label,
            scopes: scope_names(info.scopes),
            created: stamp::rfc3339(info.created),
            expires: info.expires.map(stamp::rfc3339),
            used: info.used.map(stamp::rfc3339),
        }
    }
}

/// Tokens, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct TokensBody {
    tokens: Vec<TokenInfoBody>,
}

/// The tokens of whoever asks; of everybody for an owner.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let tokens = visible(&call)?;
    let body = TokensBody {
        tokens: tokens.into_iter().map(TokenInfoBody::from).collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// The tokens that whoever calls may see and revoke.
pub(super) fn visible(call: &Call) -> Result<Vec<TokenInfo>, Error> {
    let owned_by = only_own(call)?;
    Ok(call.node().tokens().list(owned_by.as_ref()))
}

/// Makes a token.
pub(super) async fn add(mut call: Call) -> Result<Response, Error> {
    let body: TokenBody = call.take_body().json().await?;
    let lifetime = body.expires_in_s.map(Duration::from_secs);
    let new = make(&call, body.label, &body.scopes, lifetime).await?;
    Ok(answer::json(StatusCode::CREATED, &NewTokenBody::from(new)))
}

/// Makes a token of whoever calls, with no more rights than the call has.
pub(super) async fn make(
    call: &Call,
    label: String,
    scopes: &[impl AsRef<str>],
    lifetime: Option<Duration>,
) -> Result<NewToken, Error> {
    let principal = call.caller.principal()?;
    let scopes: Scopes = scopes
        .iter()
        .map(|name| scope(name.as_ref()))
        .collect::<Result<Scopes, Error>>()?;
    if !scopes.within(principal.scopes) {
        let beyond = scopes.iter().find(|scope| !principal.may(*scope));
        return Err(beyond.map_or(Error::Unauthenticated, Error::Forbidden));
    }
    let expires = lifetime
        .map(|lifetime| {
            SystemTime::now()
                .checked_add(lifetime)
                .ok_or_else(|| Error::malformed("expires_in_s", "is beyond what clocks count"))
        })
        .transpose()?;
    let request = TokenRequest {
        label,
        scopes,
        expires,
    };
    Ok(call
        .node()
        .tokens()
        .add(principal.account.clone(), request)
        .await?)
}

/// Revokes a token.
pub(super) async fn revoke(call: Call) -> Result<Response, Error> {
    revoke_by_id(&call, call.param("id")).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Revokes the token with this handle, where whoever calls may.
pub(super) async fn revoke_by_id(call: &Call, id: &str) -> Result<(), Error> {
    let id: TokenId = id.parse().map_err(|error| Error::malformed("id", error))?;
    Ok(call.node().tokens().revoke(id, only_own(call)?).await?)
}

/// The account whose tokens alone are meant; `None` for an owner with all rights.
fn only_own(call: &Call) -> Result<Option<AccountName>, Error> {
    let principal = call.caller.principal()?;
    let sees_all = principal.role == Role::Owner && principal.may(Scope::Admin);
    Ok((!sees_all).then(|| principal.account.clone()))
}

/// The names of a set of scopes.
pub(super) fn scope_names(scopes: Scopes) -> Vec<&'static str> {
    scopes.iter().map(Scope::name).collect()
}

fn scope(name: &str) -> Result<Scope, Error> {
    Scope::ALL
        .into_iter()
        .find(|(_, known)| *known == name)
        .map(|(scope, _)| scope)
        .ok_or_else(|| Error::malformed("scopes", "are read, write, ingest, admin, metrics"))
}
