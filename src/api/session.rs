//! `/api/session` and the password behind it.

use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::auth;
use super::error::Error;
use super::route::Call;
use super::tokens::scope_names;
use crate::id::AccountName;
use crate::node::{NewSession, Password, PasswordChange, Principal, Refusal};

/// Name and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginBody {
    account: String,
    password: String,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionBody {
    /// The account.
    #[schema(value_type = String)]
    account: AccountName,
    /// `owner` or `member`.
    role: &'static str,
    /// What this session or token may do.
    scopes: Vec<&'static str>,
}

impl From<&Principal> for SessionBody {
    fn from(principal: &Principal) -> SessionBody {
        SessionBody {
            account: principal.account.clone(),
            role: principal.role.name(),
            scopes: scope_names(principal.scopes),
        }
    }
}

/// A new password, with the old one to prove who asks.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordBody {
    old: String,
    new: String,
}

/// Signs in; the answer sets a new session cookie, whatever cookie came.
pub(super) async fn login(mut call: Call) -> Result<Response, Error> {
    let body: LoginBody = call.take_body().json().await?;
    let session = begin(&call, &body.account, body.password).await?;
    let mut response = answer::json(StatusCode::OK, &SessionBody::from(&session.principal));
    let cookie = auth::set_cookie(&call.connection, session.cookie.expose());
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Proves name and password. What cannot be a name is answered like a name nobody has.
pub(super) async fn begin(call: &Call, account: &str, password: String) -> Result<NewSession, Error> {
    let account: AccountName = account
        .parse()
        .map_err(|_| Error::Node(Refusal::Credentials.into()))?;
    let password = Password::new(password)?;
    let address = call.connection.peer();
    Ok(call.node().accounts().log_in(account, password, address).await?)
}

/// Says who is signed in.
pub(super) async fn who(call: Call) -> Result<Response, Error> {
    Ok(answer::json(
        StatusCode::OK,
        &SessionBody::from(call.caller.principal()?),
    ))
}

/// Signs out.
pub(super) async fn logout(call: Call) -> Result<Response, Error> {
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    end(&call, &mut response).await?;
    Ok(response)
}

/// Ends the session of the call and its cookie.
pub(super) async fn end(call: &Call, response: &mut Response) -> Result<(), Error> {
    if let Some(secret) = auth::cookie(call.headers(), &call.connection) {
        call.node().sessions().end(secret).await?;
    }
    let ended = auth::set_cookie(&call.connection, "");
    response.headers_mut().insert(header::SET_COOKIE, ended);
    Ok(())
}

/// Changes one's own password; every other session of the account ends.
pub(super) async fn change_password(mut call: Call) -> Result<Response, Error> {
    let body: PasswordBody = call.take_body().json().await?;
    replace_password(&call, body.old, body.new).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Changes the password of whoever calls.
pub(super) async fn replace_password(call: &Call, old: String, new: String) -> Result<(), Error> {
    let change = PasswordChange {
        old: Password::new(old)?,
        new: Password::new(new)?,
        keep: auth::cookie(call.headers(), &call.connection).map(str::to_owned),
        address: call.connection.peer(),
    };
    let account = call.caller.principal()?.account.clone();
    Ok(call.node().accounts().change_password(account, change).await?)
}
