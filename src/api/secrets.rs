//! `/api/secrets`: what opens other servers. It goes in and never comes out.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use crate::id::SecretName;
use crate::node::StoredSecret;

/// A secret that is to be kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretBody {
    /// The name that goes with a password; a token has none.
    user: Option<String>,
    /// The password or token.
    secret: String,
}

/// Names of secrets.
#[derive(Serialize, ToSchema)]
pub(super) struct SecretsBody {
    #[schema(value_type = Vec<String>)]
    secrets: Vec<SecretName>,
}

/// GET: the names.
pub(super) async fn list(call: Call) -> Result<Response, Error> {
    let secrets = call.node().secrets().list().await?;
    Ok(answer::json(StatusCode::OK, &SecretsBody { secrets }))
}

/// PUT: durable when it is answered.
pub(super) async fn put(mut call: Call) -> Result<Response, Error> {
    let name: SecretName = call.param("name").parse()?;
    let body: SecretBody = call.take_body().json().await?;
    let secret = StoredSecret::new(body.user, body.secret)?;
    call.node().secrets().put(name, secret).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// DELETE.
pub(super) async fn remove(call: Call) -> Result<Response, Error> {
    let name: SecretName = call.param("name").parse()?;
    call.node().secrets().remove(name).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
