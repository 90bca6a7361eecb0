//! What a route is: data. A route cannot be written down without its auth class and what it takes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::Edge;
use super::auth::Caller;
use super::body::{self, Form};
use super::connection::Connection;
use super::error::Error;
use crate::node::{Node, Scope};

/// One route.
pub(super) struct Route {
    /// HEAD comes with GET.
    pub(super) method: &'static str,
    /// As axum writes paths: `{id}` is one segment, `{*name}` the rest.
    pub(super) path: &'static str,
    /// Who may.
    pub(super) auth: Auth,
    /// What its body may be.
    pub(super) takes: Takes,
    /// What it answers with, for the OpenAPI document.
    pub(super) gives: Gives,
    /// One line for the OpenAPI document.
    pub(super) summary: &'static str,
    /// What answers.
    pub(super) handler: Handler,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    /// Anybody, and over a plain line too: nothing on it is secret.
    Landing,
    /// Anybody. The list of these is checked in, in `tests/it/security/access.rs`.
    Public,
    /// Anybody, until the node has an owner: becoming that. Nobody afterwards.
    Unclaimed,
    /// Anybody, once it has one: signing in. Before that nobody has an account.
    Claimed,
    /// Anybody, while the owner has the node give its bundle to other boxes, which have no account here; else whoever has the scope
    /// `read`: which version runs is nothing that strangers are told unasked.
    Offered,
    /// Whoever is signed in or sends a token, whatever its scopes.
    SignedIn,
    /// Whoever has this scope.
    Scope(Scope),
}

/// What the body of a request may be. Nothing a foreign page's form could send is taken by default.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// No body.
    Nothing,
    /// Bytes of any length, as `application/octet-stream` or without a type.
    Bytes,
    /// A JSON document of at most [`body::JSON_BYTES_MAX`] bytes.
    Json(SchemaOf),
    /// A piece of an upload, as `application/offset+octet-stream`.
    TusPiece,
    /// Nothing, or the first piece of an upload.
    TusCreation,
    /// A form of the node's own page; always checked for its origin.
    Form,
    /// Nothing, whatever type is named: clients of CouchDB name one for every request.
    CouchNothing,
    /// A JSON document, or nothing.
    CouchJson,
    /// A document: JSON, or `multipart/related` with its attachments.
    CouchDocument,
    /// Bytes of any type.
    CouchAttachment,
}

/// What a successful answer is.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// An empty body.
    Nothing,
    /// Bytes as they are stored.
    Bytes,
    /// A JSON document.
    Json(SchemaOf),
    /// A media type other than those.
    Text(&'static str),
}

/// The name and schema of a type.
pub(super) type SchemaOf = fn(&mut Vec<(String, RefOr<Schema>)>) -> String;

/// A future of an answer.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

/// What answers a call.
pub(super) type Handler = fn(Call) -> Answer;

/// A request that passed the gate.
pub(super) struct Call {
    pub(super) edge: Arc<Edge>,
    pub(super) connection: Arc<Connection>,
    /// Who asks; [`Caller::Anonymous`] only on public routes.
    pub(super) caller: Caller,
    pub(super) parts: Parts,
    /// Never locked: the lock makes a borrowed call safe to hold while waiting, which a body alone is not.
    body: Mutex<Body>,
    pub(super) params: Vec<(&'static str, String)>,
}

impl Call {
    /// A call that passed the gate.
    pub(super) fn new(
        edge: Arc<Edge>,
        connection: Arc<Connection>,
        caller: Caller,
        parts: Parts,
        body: Body,
    ) -> Call {
        Call {
            edge,
            connection,
            caller,
            parts,
            body: Mutex::new(body),
            params: Vec::new(),
        }
    }

    /// The node.
    pub(super) fn node(&self) -> &Node {
        &self.edge.node
    }

    /// The headers of the request.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A path parameter, percent-decoded; empty where the route has none of that name.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    /// The fields of the query string.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub(super) fn query(&self) -> Result<Form, Error> {
        Form::parse(self.parts.uri.query().unwrap_or_default().as_bytes())
    }

    /// A header's value where it is there once and is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// The body as a stream that ends slow clients.
    pub(super) fn take_body(&mut self) -> body::Incoming {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        body::Incoming::new(std::mem::take(body))
    }
}

/// The names of path parameters, so that a call need not own them.
pub(super) fn param_name(name: &str) -> Option<&'static str> {
    [
        "id",
        "store",
        "name",
        "db",
        "doc",
        "design",
        "local",
        "attachment",
    ]
    .into_iter()
    .find(|known| *known == name)
}

/// Writes routes down as data: `METHOD "path" auth takes gives "summary" => handler;`.
macro_rules! routes {
    ($($method:ident $path:literal, $auth:expr, $takes:expr, $gives:expr, $summary:literal => $handler:path;)*) => {
        &[$($crate::api::route::Route {
            method: stringify!($method),
            path: $path,
            auth: $auth,
            takes: $takes,
            gives: $gives,
            summary: $summary,
            handler: |call| Box::pin($handler(call)),
        },)*]
    };
}
pub(super) use routes;

/// The name of a type's schema, which is added to the list with those it refers to.
pub(super) fn schema_of<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) -> String {
    T::schemas(schemas);
    let name = T::name().into_owned();
    schemas.push((name.clone(), T::schema()));
    name
}
