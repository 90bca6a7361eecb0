//! Which pages of other origins may use the API (security row S8): those that are listed, by name, and no other.
//!
//! A listed origin is answered as PouchDB needs it, which asks with credentials: its own name back, never `*`. The session cookie is
//! `SameSite=Strict` and does not travel to it: its apps send a token.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use crate::api::answer;

/// What a page may send: CouchDB's list.
const HEADERS: &str = "accept, authorization, content-type, origin, referer, x-csrf-token, if-match, if-none-match, destination, \
                       x-http-method-override, x-pouchdb, x-requested-with, range, content-md5, last-event-id";

/// What a page may read of an answer besides the usual.
const EXPOSED: &str = "content-type, etag, cache-control, content-length, content-range, accept-ranges, server, x-couch-request-id, \
                       x-couchdb-body-time, location";

const METHODS: &str = "GET, PUT, POST, HEAD, DELETE, COPY, OPTIONS";

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE_S: &str = "600";

/// Whether a path is of this API.
pub(in crate::api) fn is_couch(path: &str) -> bool {
    path == "/db" || path.starts_with("/db/")
}

/// The origin of a request, where it is listed.
pub(in crate::api) fn listed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let mut sent = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (sent.next(), sent.next()) else {
        return None;
    };
    let text = origin.to_str().ok()?;
    origins
        .iter()
        .any(|listed| listed == text)
        .then(|| origin.clone())
}

/// The answer to a preflight, where the request is one.
pub(in crate::api) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response> {
    let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if *method != Method::OPTIONS || !asks {
        return None;
    }
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(HEADERS),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static(MAX_AGE_S),
    );
    Some(response)
}

/// Lets a page of this origin read an answer.
pub(in crate::api) fn allow(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(EXPOSED),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}
