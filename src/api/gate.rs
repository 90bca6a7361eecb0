//! The gate every request passes, in one order: host, line, caller, origin, media type, handler.
//!
//! Each step refuses before the next one looks, and before the body is read: a client that sent
//! `Expect: 100-continue` is told without having sent it. Addresses and forwarded headers are never asked.

use std::sync::Arc;

use axum::RequestPartsExt;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, RawPathParams};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::answer;
use super::auth::{self, Caller};
use super::connection::Connection;
use super::couch::cors;
use super::error::{self, Error};
use super::origin;
use super::route::{Auth, Call, Route, Takes};
use super::{Edge, TABLE, ui};
use crate::node::{Node, Scope};

/// Answers a request for `route`; `None` where its path is not ours or does not take its method.
pub(super) async fn answer(
    edge: Arc<Edge>,
    route: Option<&'static Route>,
    request: Request<Body>,
) -> Response {
    let wants = Wants::of(request.headers());
    let is_couch = cors::is_couch(request.uri().path());
    let origin = match is_couch {
        true => cors::listed(&edge.origins, request.headers()),
        false => None,
    };
    let mut response = match pass(edge, route, request, origin.is_some()).await {
        Ok(response) => response,
        Err(error) => refuse(error, wants),
    };
    answer::secure(response.headers_mut());
    if let Some(origin) = origin {
        cors::allow(origin, response.headers_mut());
    }
    response
}

async fn pass(
    edge: Arc<Edge>,
    route: Option<&'static Route>,
    request: Request<Body>,
    is_listed_origin: bool,
) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    // A request that no listener of ours brought has come over a line we know nothing of.
    let connection = parts
        .extensions
        .get::<Arc<Connection>>()
        .map(Arc::clone)
        .ok_or(Error::PlainLine)?;
    let authority = edge
        .hosts
        .check(
            &parts.headers,
            &parts.uri,
            &connection,
            edge.node.peers().own_host().as_str(),
        )
        .map_err(Error::Host)?;
    // A browser asks before its page may ask; nobody is known then, and nothing is told.
    if is_listed_origin
        && connection.is_private()
        && let Some(answer) = cors::preflight(&parts.method, &parts.headers)
    {
        return Ok(answer);
    }
    let Some(route) = route else {
        return Err(no_route(&parts.extensions.get::<MatchedPath>().cloned()));
    };
    if !connection.is_private() && route.auth != Auth::Landing {
        return Err(Error::PlainLine);
    }
    let caller = auth::caller(&edge.node, &connection, &parts.headers)?;
    admit(&edge.node, route.auth, &caller)?;
    let needs_own_origin = matches!(route.takes, Takes::Form) || caller.came_by_cookie();
    if needs_own_origin
        && !is_safe(&parts.method)
        && !origin::is_same_origin(&parts.headers, connection.scheme(), authority)
    {
        return Err(Error::ForeignOrigin);
    }
    check_media_type(route.takes, &caller, &parts.headers, &body)?;
    if caller.is_known() {
        connection.mark_authenticated();
    }
    let params = match parts.extract::<RawPathParams>().await {
        Ok(params) => owned(&params),
        Err(_) => return Err(Error::malformed("path", "is not UTF-8")),
    };
    let mut call = Call::new(edge, connection, caller, parts, body);
    call.params = params;
    (route.handler)(call).await
}

fn owned(params: &RawPathParams) -> Vec<(&'static str, String)> {
    params
        .iter()
        .filter_map(|(name, value)| Some((super::route::param_name(name)?, value.to_owned())))
        .collect()
}

fn admit(node: &Node, auth: Auth, caller: &Caller) -> Result<(), Error> {
    match auth {
        Auth::Landing | Auth::Public => Ok(()),
        Auth::Unclaimed if node.claim().is_claimed() => Err(Error::Claimed),
        Auth::Claimed if !node.claim().is_claimed() => Err(Error::Unclaimed),
        Auth::Unclaimed | Auth::Claimed => Ok(()),
        Auth::Offered if node.bundles().is_offering() || caller.may(Scope::Read) => Ok(()),
        Auth::Offered => Err(Error::NotOffered),
        Auth::SignedIn if caller.is_known() => Ok(()),
        Auth::Scope(scope) if caller.may(scope) => Ok(()),
        Auth::Scope(scope) if caller.is_known() => Err(Error::Forbidden(scope)),
        Auth::SignedIn | Auth::Scope(_) => Err(Error::Unauthenticated),
    }
}

/// What a form of any page can send without asking first (WHATWG Fetch, "CORS-safelisted").
const FORM_TYPES: [&str; 3] = [
    "text/plain",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
];

/// Methods that change nothing (RFC 9110, section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn check_media_type(takes: Takes, caller: &Caller, headers: &HeaderMap, body: &Body) -> Result<(), Error> {
    // Nothing else is unpacked on the way in, so nothing else can be a bomb: `node/gunzip.rs` bounds what comes out of attachments.
    let may_be_packed = matches!(takes, Takes::CouchAttachment);
    if headers.contains_key(header::CONTENT_ENCODING) && !may_be_packed {
        return Err(Error::MediaType(
            "a body without Content-Encoding and the right type",
        ));
    }
    let given = match headers.get(header::CONTENT_TYPE) {
        None => None,
        Some(value) => Some(essence(value).ok_or(Error::MediaType("one media type"))?),
    };
    let fits = |wanted: &str| {
        given
            .as_deref()
            .is_some_and(|given| given.eq_ignore_ascii_case(wanted))
    };
    let fitting = match takes {
        Takes::Nothing if given.is_none() && body.is_end_stream() => Ok(()),
        Takes::Nothing => Err("nothing"),
        Takes::Bytes if given.is_none() || fits("application/octet-stream") => Ok(()),
        Takes::Bytes => Err("application/octet-stream"),
        Takes::Json(_) if fits("application/json") => Ok(()),
        Takes::Json(_) => Err("application/json"),
        Takes::TusPiece if fits("application/offset+octet-stream") => Ok(()),
        Takes::TusPiece => Err("application/offset+octet-stream"),
        Takes::TusCreation if given.is_none() || fits("application/offset+octet-stream") => Ok(()),
        Takes::TusCreation => Err("application/offset+octet-stream, or nothing"),
        Takes::Form if fits("application/x-www-form-urlencoded") => Ok(()),
        Takes::Form => Err("application/x-www-form-urlencoded"),
        Takes::CouchNothing if body.is_end_stream() => Ok(()),
        Takes::CouchNothing => Err("nothing"),
        Takes::CouchJson if fits("application/json") || (given.is_none() && body.is_end_stream()) => Ok(()),
        Takes::CouchJson => Err("application/json"),
        Takes::CouchDocument if fits("application/json") || fits("multipart/related") => Ok(()),
        // What people send with curl; no page of a foreign origin sends a token with it.
        Takes::CouchDocument if !caller.came_by_cookie() => Ok(()),
        Takes::CouchDocument => Err("application/json or multipart/related"),
        // What a form can send is no attachment where a browser added the proof by itself.
        Takes::CouchAttachment if caller.came_by_cookie() && FORM_TYPES.iter().any(|form| fits(form)) => {
            Err("no type that a form sends")
        }
        Takes::CouchAttachment => Ok(()),
    };
    fitting.map_err(Error::MediaType)
}

/// The media type without its parameters.
fn essence(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_owned())
}

fn no_route(matched: &Option<MatchedPath>) -> Error {
    let Some(path) = matched else {
        return Error::NoRoute;
    };
    let methods = TABLE
        .iter()
        .filter(|route| route.path == path.as_str())
        .map(|route| route.method);
    Error::Method(error::allowed(methods.collect()))
}

/// How a refusal is worded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// A person looks at it.
    Page,
    /// A script of a page does.
    Script,
    /// A program does.
    Json,
}

impl Wants {
    fn of(headers: &HeaderMap) -> Wants {
        let accepts_html = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        match (accepts_html, headers.contains_key("sec-fetch-mode")) {
            (true, _) => Wants::Page,
            (false, true) => Wants::Script,
            (false, false) => Wants::Json,
        }
    }
}

fn refuse(error: Error, wants: Wants) -> Response {
    let (status, _) = error.outcome();
    let mut response = if wants == Wants::Page {
        error.log();
        ui::refusal(status, &error)
    } else {
        error.into_response()
    };
    if status == StatusCode::UNAUTHORIZED {
        let challenges = response.headers_mut();
        challenges.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"refuge\""),
        );
        // Some tools send their password only when asked for it. Browsers would ask their user in a window of
        // their own for what our page asks itself.
        if wants == Wants::Json {
            challenges.append(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"refuge\", charset=\"UTF-8\""),
            );
        }
    }
    response
}
