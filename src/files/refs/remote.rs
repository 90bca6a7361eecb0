//! Refs of another node, over its HTTP API.
//!
//! A record travels as the JSON of [`RefRecord`], its version also as `ETag`. A move says what it is based on:
//! `If-Match: "VERSION"`, or `If-None-Match: *` for a new ref; 412 means that someone else was first, 422
//! with `missing` that the record names what the node does not have.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{RefRecord, RefVersion, Refs, SNAPSHOTS_MAX};
use crate::files::error::{Error, MISSING_NAMED_MAX};
use crate::http::{Client, Error as HttpError, Method, Request, Response, StatusCode};
use crate::id::{BlobId, RefName, StoreName};

/// What a path segment of a ref name keeps as it is; `/` between its parts too.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// The most bytes of an answer: a ref with as many snapshots as one can have is some 3 MiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The refs of another node into one of its stores.
pub struct RemoteRefs {
    client: Client,
    /// The path of the store's refs: `/refs` or `/stores/NAME/refs`.
    refs: String,
}

#[derive(Deserialize)]
struct ListAnswer {
    refs: Vec<RefRecord>,
}

#[derive(Deserialize)]
struct IncompleteAnswer {
    missing: Vec<BlobId>,
}

impl RemoteRefs {
    /// The refs into the store `name` of the node that `client` talks to. Nothing is asked yet.
    pub fn new(client: Client, name: &StoreName) -> RemoteRefs {
        let refs = match *name == StoreName::main() {
            true => "/refs".to_owned(),
            false => format!("/stores/{name}/refs"),
        };
        RemoteRefs { client, refs }
    }

    fn request(&self, method: Method, name: &RefName) -> Request {
        let path = format!("{}/{}", self.refs, utf8_percent_encode(name.as_str(), KEPT));
        Request::new(method, path)
    }

    fn garbled(&self, reason: &str) -> Error {
        Error::Remote {
            url: self.client.url().to_string(),
            reason: reason.to_owned(),
        }
    }
}

impl Refs for RemoteRefs {
    fn get(&self, name: &RefName) -> Result<Option<RefRecord>, Error> {
        let answer = match self.client.send(self.request(Method::GET, name)) {
            Ok(answer) => answer,
            Err(error) if is(&error, StatusCode::NOT_FOUND) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let version = version(&answer);
        let mut record: RefRecord = answer.json(ANSWER_BYTES_MAX)?;
        if record.name != *name {
            return Err(self.garbled("it told of another ref than was asked for"));
        }
        if let Some(version) = version {
            record.version = version;
        }
        Ok(Some(record))
    }

    fn list(&self) -> Result<Vec<RefRecord>, Error> {
        let answer = self.client.send(Request::new(Method::GET, self.refs.clone()))?;
        let ListAnswer { mut refs } = answer.json(ANSWER_BYTES_MAX)?;
        refs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(refs)
    }

    fn swap(
        &self,
        name: &RefName,
        expected: Option<RefVersion>,
        next: Option<RefRecord>,
    ) -> Result<RefVersion, Error> {
        let method = if next.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        let request = self.request(method, name);
        let request = match expected {
            Some(version) => request.header("if-match", &format!("\"{version}\"")),
            None => request.header("if-none-match", "*"),
        };
        let request = match &next {
            Some(record) => request.json(record),
            None => request,
        };
        match self.client.send(request) {
            Ok(_) if next.is_none() => Ok(RefVersion::GONE),
            Ok(answer) => {
                version(&answer).ok_or_else(|| self.garbled("it did not say which version the ref has now"))
            }
            Err(error) => Err(refused(name, error)),
        }
    }
}

/// What a refusal to move a ref means.
fn refused(name: &RefName, error: HttpError) -> Error {
    if is(&error, StatusCode::PRECONDITION_FAILED) {
        return Error::Conflict { name: name.clone() };
    }
    let incomplete = error
        .refusal()
        .filter(|refusal| refusal.status == StatusCode::UNPROCESSABLE_ENTITY)
        .and_then(|refusal| serde_json::from_slice::<IncompleteAnswer>(&refusal.body).ok());
    match incomplete {
        Some(IncompleteAnswer { mut missing }) => {
            missing.truncate(MISSING_NAMED_MAX);
            Error::Incomplete {
                name: name.clone(),
                missing,
            }
        }
        None if is(&error, StatusCode::CONFLICT) => Error::Full {
            name: name.clone(),
            limit: SNAPSHOTS_MAX,
        },
        None => error.into(),
    }
}

fn is(error: &HttpError, status: StatusCode) -> bool {
    error.refusal().is_some_and(|refusal| refusal.status == status)
}

fn version(answer: &Response) -> Option<RefVersion> {
    let tag = answer.header("etag")?.strip_prefix('"')?.strip_suffix('"')?;
    tag.parse().ok().map(RefVersion)
}
