//! Who asks: proved by an app token or a session cookie, never by an address or a forwarded header.

use axum::http::{HeaderMap, HeaderValue, header};
use data_encoding::BASE64;

use super::connection::Connection;
use super::error::Error;
use crate::node::{Node, Principal, Scope, Via};

/// The session cookie over TLS. The prefix makes browsers take it only from this host, path `/` and with
/// `Secure` (RFC 6265bis, section 4.1.3.2).
const COOKIE_TLS: &str = "__Host-refuge";

/// The session cookie over plain HTTP on loopback, where browsers refuse the other.
const COOKIE_LOOPBACK: &str = "refuge";

/// Who asks.
#[derive(Debug)]
pub(super) enum Caller {
    /// Nobody said.
    Anonymous,
    /// Proved.
    Known(Principal),
}

impl Caller {
    /// Whether it was proved who asks.
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Caller::Known(_))
    }

    /// Whether a browser added the proof by itself.
    pub(super) fn came_by_cookie(&self) -> bool {
        matches!(self, Caller::Known(principal) if principal.via == Via::Session)
    }

    /// Whether the request may do what needs `scope`.
    pub(super) fn may(&self, scope: Scope) -> bool {
        matches!(self, Caller::Known(principal) if principal.may(scope))
    }

    /// Who asks, where that was proved.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub(super) fn principal(&self) -> Result<&Principal, Error> {
        match self {
            Caller::Anonymous => Err(Error::Unauthenticated),
            Caller::Known(principal) => Ok(principal),
        }
    }
}

/// Who asks with these headers. A token that opens nothing is an error, whatever the route: a program with a
/// revoked token should hear of it. A cookie that opens nothing is a browser that has to sign in again.
pub(super) fn caller(node: &Node, connection: &Connection, headers: &HeaderMap) -> Result<Caller, Error> {
    if let Some(authorization) = single(headers, &header::AUTHORIZATION)? {
        let found = match token_of(authorization) {
            Some(token) => node.tokens().find(&token),
            None => None,
        };
        return found.map(Caller::Known).ok_or(Error::Unauthenticated);
    }
    let found = cookie(headers, connection).and_then(|secret| node.sessions().find(secret));
    Ok(found.map_or(Caller::Anonymous, Caller::Known))
}

/// The secret of the session cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, connection: &Connection) -> Option<&'a str> {
    let wanted = cookie_name(connection);
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == wanted)
        .map(|(_, secret)| secret);
    match (found.next(), found.next()) {
        (Some(secret), None) => Some(secret),
        // Two of one name: somebody planted one of them.
        _ => None,
    }
}

/// A header that sets the session cookie; an empty secret ends it.
pub(super) fn set_cookie(connection: &Connection, secret: &str) -> HeaderValue {
    let name = cookie_name(connection);
    let secure = if connection.is_tls() { "; Secure" } else { "" };
    let age = if secret.is_empty() {
        0
    } else {
        crate::node::SESSION_ABSOLUTE.as_secs()
    };
    HeaderValue::try_from(format!(
        "{name}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}"
    ))
    .expect("a session secret is base64url")
}

fn cookie_name(connection: &Connection) -> &'static str {
    if connection.is_tls() {
        COOKIE_TLS
    } else {
        COOKIE_LOOPBACK
    }
}

/// The app token of an `Authorization` header: `Bearer TOKEN`, or `Basic` with the token as password. No
/// password of a person is taken here, so no request costs a slow hash.
fn token_of(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest.trim().as_bytes()).ok()?).ok()?;
    pair.split_once(':').map(|(_, token)| token.to_owned())
}

fn single<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Error::Unauthenticated),
        (Some(_), Some(_)) => Err(Error::Unauthenticated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_bearer_or_as_the_password_of_basic() {
        assert_eq!(token_of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token_of("bearer abc").as_deref(), Some("abc"));
        let basic = format!("Basic {}", BASE64.encode(b"anyone:a:b"));
        assert_eq!(token_of(&basic).as_deref(), Some("a:b"));
        assert_eq!(token_of("Basic !"), None);
        assert_eq!(token_of("Digest abc"), None);
        assert_eq!(token_of("abc"), None);
    }
}
