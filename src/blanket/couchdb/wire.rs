//! What is asked of the server: one function for each request, its answer bounded and taken for true only where it is one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::engine::Sizes;
use super::super::error::Error;
use super::super::servers::{ServerPlace, Servers};
use crate::http::{
    Basic, Client, Credentials, Error as HttpError, Method, Patience, Proof, Request, Response, Roots,
    Server, ServerUrl, Token, Trust,
};

/// How long the head of an answer may take: CouchDB's replicator waits as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer: one document as long as a server takes, with its frame, or a window of them.
const ANSWER_BYTES_MAX: usize = 12 * 1024 * 1024;

/// The database on a server.
pub(super) struct Wire {
    client: Client,
}

/// A document with its revision.
#[derive(Debug, Deserialize)]
pub(super) struct Held<T> {
    #[serde(rename = "_rev")]
    pub(super) rev: String,
    #[serde(flatten)]
    pub(super) doc: T,
}

/// A document on its way.
#[derive(Serialize)]
struct Sent<'a, T> {
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_rev", skip_serializing_if = "Option::is_none")]
    rev: Option<&'a str>,
    #[serde(flatten)]
    doc: &'a T,
}

/// What became of a document that was put.
pub(super) enum Put {
    /// It is there, with this revision.
    Stored(String),
    /// Another revision is there.
    Conflict,
    /// It is not there.
    Refused(Error),
    /// It is there or not.
    Unsure(Error),
}

/// A row of a window.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: Option<RowRev>,
    #[serde(default)]
    pub(super) doc: Option<Value>,
}

/// The revision in a row.
#[derive(Debug, Deserialize)]
pub(super) struct RowRev {
    pub(super) rev: String,
    #[serde(default)]
    pub(super) deleted: bool,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Written {
    rev: String,
}

/// What is told of a document of `_bulk_docs`.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// A part of the order of ids.
pub(super) struct Window<'a> {
    /// Where it begins, in the direction that it is read.
    pub(super) start: &'a str,
    /// Where it ends.
    pub(super) end: &'a str,
    pub(super) descending: bool,
    /// Rows at its beginning that are passed over.
    pub(super) skip: usize,
    pub(super) limit: usize,
}

/// What became of several documents.
pub(super) enum Bulk {
    /// All are there.
    Stored,
    /// One was changed since its revision was read.
    Conflict,
}

impl Wire {
    /// The database at a place. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::BadServer`], [`Error::Server`].
    pub(super) fn to(place: &ServerPlace, servers: &Servers) -> Result<Wire, Error> {
        let bad = |reason: String| Error::BadServer { reason };
        let url: ServerUrl = place.url.parse().map_err(|_| {
            bad("the URL of a database is http[s]://HOST[:PORT]/NAME; what opens it is a secret".to_owned())
        })?;
        if url.base().is_empty() {
            return Err(bad(format!("{url} names no database")));
        }
        let away = |reason: String| Error::Server {
            url: url.to_string(),
            reason,
        };
        let (runtime, allows) = servers
            .reach
            .clone()
            .ok_or_else(|| away("no servers are reached from here".to_owned()))?;
        let credentials = match &place.secret {
            None => None,
            Some(name) => {
                let opener = servers.reveal.as_ref().and_then(|reveal| reveal(name));
                let opener = opener.ok_or_else(|| away(format!("there is no secret {name}")))?;
                let unsent = || bad(format!("the secret {name} can't be sent as it is"));
                Some(match &opener.user {
                    Some(user) => Credentials::Basic(Basic::new(user, &opener.secret).ok_or_else(unsent)?),
                    None => Credentials::Bearer(Token::new(&opener.secret).ok_or_else(unsent)?),
                })
            }
        };
        let is_https = url.is_https();
        let proof = match (is_https, place.node_id) {
            (true, Some(node_id)) => Proof::Node(Trust::Pinned(node_id)),
            (true, None) => Proof::Roots(Roots::of_system().map_err(|error| away(error.to_string()))?),
            (false, Some(_)) => {
                return Err(bad(format!(
                    "{url} can't prove who it is over plain HTTP: use https"
                )));
            }
            (false, None) => Proof::Nothing,
        };
        let server = Server {
            policy: Some(Arc::new(move |address| allows(is_https, address))),
            url: url.clone(),
            proof,
            credentials,
        };
        let client = Client::of(server, runtime).map_err(|error| away(error.to_string()))?;
        Ok(Wire { client })
    }

    /// The URL, without what opens it.
    pub(super) fn url(&self) -> String {
        self.client.url().to_string()
    }

    /// A failure of the server, or of what it answers.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Server {
            url: self.url(),
            reason: reason.into(),
        }
    }

    fn failed(&self, error: &HttpError) -> Error {
        match error.refusal() {
            Some(refusal) => self.error(format!("it answers {} ({refusal})", refusal.status)),
            None => self.error(error.to_string()),
        }
    }

    fn ask(&self, request: Request) -> Result<Response, HttpError> {
        self.client.send(request.patience(Patience::Of(PATIENCE)))
    }

    fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, HttpError> {
        self.ask(request)?.json(ANSWER_BYTES_MAX)
    }

    /// Makes the database; whether it was not there before.
    pub(super) fn make(&self) -> Result<bool, Error> {
        match self.ask(Request::new(Method::PUT, "")) {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == 412 => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Whether the database is there.
    pub(super) fn is_there(&self) -> Result<bool, Error> {
        match self.ask(Request::new(Method::GET, "")) {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == 404 => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Deletes the database; succeeds also where it is not there.
    pub(super) fn delete(&self) -> Result<(), Error> {
        match self.ask(Request::new(Method::DELETE, "")) {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == 404 => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Bytes that the server says it takes; zeros where it does not say.
    pub(super) fn sizes(&self) -> Result<Sizes, Error> {
        let info: Value = self
            .json(Request::new(Method::GET, ""))
            .map_err(|error| self.failed(&error))?;
        let number = |of: &Value| of.as_u64();
        let file_bytes = number(&info["sizes"]["file"]).or(number(&info["disk_size"]));
        let active_bytes = number(&info["sizes"]["active"]).or(number(&info["data_size"]));
        let file_bytes = file_bytes.unwrap_or(0);
        Ok(Sizes {
            file_bytes,
            active_bytes: active_bytes.unwrap_or(file_bytes).min(file_bytes),
        })
    }

    /// Has the server give back what is not in use; nothing where it knows of no such thing.
    pub(super) fn compact(&self) -> Result<(), Error> {
        match self.ask(Request::new(Method::POST, "/_compact").json(&json!({}))) {
            Ok(_) => Ok(()),
            Err(error) if matches!(status(&error), 404 | 405 | 501) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// A document; `None` where it is not there.
    pub(super) fn doc<T: DeserializeOwned>(&self, id: &str) -> Result<Option<Held<T>>, Error> {
        match self.json(Request::new(Method::GET, format!("/{id}"))) {
            Ok(held) => Ok(Some(held)),
            Err(error) if is_no_document(&error) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Puts a document in place of the revision that is named.
    pub(super) fn put<T: Serialize>(&self, id: &str, rev: Option<&str>, doc: &T) -> Put {
        let request = Request::new(Method::PUT, format!("/{id}"))
            // Older servers wait with what they answered.
            .header("x-couch-full-commit", "true")
            .json(&Sent { id, rev, doc });
        match self.json::<Written>(request) {
            Ok(written) => Put::Stored(written.rev),
            Err(error) => match status(&error) {
                409 => Put::Conflict,
                400..=499 => Put::Refused(self.failed(&error)),
                _ => Put::Unsure(self.failed(&error)),
            },
        }
    }

    /// Rows with their documents; fewer than asked for where they are long.
    pub(super) fn window(&self, window: &Window<'_>) -> Result<(Vec<Row>, usize), Error> {
        let mut limit = window.limit;
        loop {
            let path = format!(
                "/_all_docs?include_docs=true&descending={}&skip={}&limit={limit}&startkey={}&endkey={}",
                window.descending,
                window.skip,
                quoted(window.start),
                quoted(window.end)
            );
            match self.json::<Rows>(Request::new(Method::GET, path)) {
                Ok(rows) => return Ok((rows.rows, limit)),
                Err(HttpError::Unexpected { .. }) if limit > 1 => limit = (limit / 4).max(1),
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// Documents by id, in that order.
    pub(super) fn rows(&self, ids: &[String], with_docs: bool) -> Result<Vec<Row>, Error> {
        let path = format!("/_all_docs?include_docs={with_docs}");
        let request = Request::new(Method::POST, path).json(&json!({ "keys": ids }));
        let rows: Rows = self.json(request).map_err(|error| self.failed(&error))?;
        let is_asked =
            rows.rows.len() == ids.len() && rows.rows.iter().zip(ids).all(|(row, id)| row.key == *id);
        match is_asked {
            true => Ok(rows.rows),
            false => Err(self.error("it answers other rows than were asked for")),
        }
    }

    /// Writes documents.
    pub(super) fn bulk(&self, docs: Vec<Value>) -> Result<Bulk, Error> {
        let count = docs.len();
        let body = serde_json::to_vec(&json!({ "docs": docs })).expect("it is JSON");
        let request = Request::new(Method::POST, "/_bulk_docs")
            .header("content-type", "application/json")
            .header("x-couch-full-commit", "true")
            .body(Bytes::from(body));
        let outcomes: Vec<Outcome> = self.json(request).map_err(|error| self.failed(&error))?;
        if outcomes.len() != count {
            return Err(self.error("it does not say what became of each document"));
        }
        let mut conflict = false;
        for outcome in outcomes {
            match outcome.error.as_deref() {
                None => {}
                Some("conflict") => conflict = true,
                Some(error) => {
                    let reason = outcome.reason.unwrap_or_default();
                    return Err(self.error(format!("it refuses a row: {error}, {reason}")));
                }
            }
        }
        Ok(match conflict {
            true => Bulk::Conflict,
            false => Bulk::Stored,
        })
    }
}

fn status(error: &HttpError) -> u16 {
    error.refusal().map_or(0, |refusal| refusal.status.as_u16())
}

/// Whether a document is not there; a database that is not there is another thing.
fn is_no_document(error: &HttpError) -> bool {
    error.refusal().is_some_and(|refusal| {
        refusal.status.as_u16() == 404
            && matches!(refusal.reason.as_str(), "missing" | "deleted" | "not_found")
    })
}

fn quoted(id: &str) -> String {
    utf8_percent_encode(&Value::from(id).to_string(), NON_ALPHANUMERIC).to_string()
}
