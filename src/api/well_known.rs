//! `/.well-known/security.txt` (RFC 9116): whom to tell of a vulnerability.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::answer;
use super::error::Error;
use super::route::Call;
use super::stamp;

/// How long what it says may be trusted: RFC 9116, section 2.5.5, advises less than a year.
const GOOD_FOR: Duration = Duration::from_secs(180 * 24 * 3600);

/// The text, where the configuration names somebody to tell.
pub(super) async fn security_txt(call: Call) -> Result<Response, Error> {
    let contact = call.edge.security_contact.as_ref().ok_or(Error::NoRoute)?;
    let expires = stamp::rfc3339(SystemTime::now() + GOOD_FOR);
    let text = format!("Contact: {contact}\nExpires: {expires}\nPreferred-Languages: en\n");
    Ok(answer::text(
        StatusCode::OK,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        text,
    ))
}
