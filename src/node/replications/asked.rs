//! What a replication is asked for with: CouchDB's JSON of `_replicate` and of documents of `_replicator`.
//!
//! ```text
//! {"source": "notes" | "https://[name:password@]host/db/notes"
//!          | {"url": "…", "auth": {"basic": {"username": "…", "password": "…"}} | {"bearer": "…"} | {"secret": "NAME"},
//!             "headers": {"Authorization": "…"}, "node_id": "ed25519;…", "pem": "-----BEGIN CERTIFICATE-----…"},
//!  "target": as source, "continuous": false, "create_target": false, "doc_ids": […], "selector": {…}, "since_seq": …}
//! ```
//!
//! `bearer`, `secret`, `node_id` and `pem` are ours: a token, the name of a secret of this node, who a node must prove to be, and a
//! certificate that vouches for a server. Credentials are taken out of URLs here, and nothing that is kept, shown or logged of a
//! request has them.

use std::fmt;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::blanket::selector::Selector;
use crate::id::{DbName, NodeId, SecretName};

/// The longest URL.
const URL_BYTES_MAX: usize = 4096;

/// The longest certificate.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// Documents that one replication may name.
const DOC_IDS_MAX: usize = 100_000;

/// A replication that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicationRequest {
    /// Where documents come from.
    pub source: Endpoint,
    /// Where they go.
    pub target: Endpoint,
    /// Whether it goes on for changes to come.
    pub continuous: bool,
    /// Whether a target that is not there is made.
    pub create_target: bool,
    /// These documents alone, sorted.
    pub doc_ids: Option<Vec<String>>,
    /// The documents that this matches alone.
    pub selector: Option<Value>,
    /// Where it begins, whatever was replicated before.
    pub since_seq: Option<Value>,
    /// The document of `_replicator` that asks for it.
    pub doc_id: Option<String>,
}

/// One of the two databases.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoint {
    /// Of this node.
    Local(DbName),
    /// Of a server.
    Remote(Remote),
}

/// A database of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// Its URL, without credentials.
    pub url: String,
    /// What opens it.
    pub opens: Option<Opens>,
    /// The node that must answer.
    pub node_id: Option<NodeId>,
    /// Certificates that vouch for it.
    pub pem: Option<String>,
}

/// What opens a server; never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Opens {
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token.
    Bearer(Zeroizing<String>),
    /// What the node keeps under this name.
    Secret(SecretName),
}

/// Why nothing can be replicated as it is asked for. Says nothing of credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationError {
    /// A member that is not what it must be.
    #[error("`{name}` {reason}")]
    Member {
        /// Which.
        name: &'static str,
        /// What it must be.
        reason: String,
    },
    /// What no replication here does.
    #[error("{0}")]
    NotDone(&'static str),
}

/// The members of the JSON.
#[derive(Deserialize)]
struct Body {
    source: Option<Value>,
    target: Option<Value>,
    #[serde(default)]
    continuous: bool,
    #[serde(default)]
    create_target: bool,
    doc_ids: Option<Vec<String>>,
    selector: Option<Value>,
    since_seq: Option<Value>,
    filter: Option<Value>,
}

impl ReplicationRequest {
    /// Reads the JSON. Members that say how, such as CouchDB's `worker_processes`, are passed over.
    ///
    /// # Errors
    /// [`ReplicationError`].
    pub fn parse(json: &Value) -> Result<ReplicationRequest, ReplicationError> {
        let body = Body::deserialize(json).map_err(|error| member("body", error.to_string()))?;
        if body.filter.is_some_and(|filter| !filter.is_null()) {
            return Err(ReplicationError::NotDone(
                "filters in JavaScript are not run here: use doc_ids or a selector",
            ));
        }
        if body.doc_ids.is_some() && body.selector.is_some() {
            return Err(ReplicationError::NotDone(
                "a replication has doc_ids or a selector, not both",
            ));
        }
        if let Some(selector) = &body.selector {
            Selector::parse(selector).map_err(|error| member("selector", error.to_string()))?;
        }
        let mut doc_ids = body.doc_ids;
        if let Some(ids) = &mut doc_ids {
            ids.sort();
            ids.dedup();
            if ids.len() > DOC_IDS_MAX {
                return Err(member(
                    "doc_ids",
                    format!("names at most {DOC_IDS_MAX} documents"),
                ));
            }
        }
        Ok(ReplicationRequest {
            source: Endpoint::parse("source", body.source.as_ref())?,
            target: Endpoint::parse("target", body.target.as_ref())?,
            continuous: body.continuous,
            create_target: body.create_target,
            doc_ids,
            selector: body.selector,
            since_seq: body.since_seq.filter(|since| !since.is_null()),
            doc_id: None,
        })
    }
}

impl Endpoint {
    /// Reads one side.
    ///
    /// # Errors
    /// [`ReplicationError`].
    pub fn parse(name: &'static str, json: Option<&Value>) -> Result<Endpoint, ReplicationError> {
        match json {
            Some(Value::String(text)) => Endpoint::of_text(name, text),
            Some(Value::Object(members)) => Endpoint::of_object(name, members),
            _ => Err(member(
                name,
                "is the name of a database, a URL, or an object with a url".to_owned(),
            )),
        }
    }

    /// Reads a name of a database, or a URL with or without credentials.
    ///
    /// # Errors
    /// [`ReplicationError`].
    pub fn of_text(name: &'static str, text: &str) -> Result<Endpoint, ReplicationError> {
        if text.contains("://") {
            let (url, opens) = split_credentials(name, text)?;
            return Ok(Endpoint::Remote(Remote {
                url,
                opens,
                node_id: None,
                pem: None,
            }));
        }
        let db: DbName = text.parse().map_err(|_| {
            member(
                name,
                "is neither the name of a database nor a URL http[s]://HOST/DB".to_owned(),
            )
        })?;
        // Jobs and people of this node stay here (security row S18).
        match db.as_str().starts_with('_') {
            true => Err(ReplicationError::NotDone(
                "databases that begin with an underscore belong to their server and are not replicated",
            )),
            false => Ok(Endpoint::Local(db)),
        }
    }

    fn of_object(name: &'static str, members: &Map<String, Value>) -> Result<Endpoint, ReplicationError> {
        let text = |key: &str| members.get(key).and_then(Value::as_str);
        let url = text("url").ok_or_else(|| member(name, "has no url".to_owned()))?;
        let mut endpoint = Endpoint::of_text(name, url)?;
        let Endpoint::Remote(remote) = &mut endpoint else {
            return Ok(endpoint);
        };
        if let Some(opens) = opens_of(name, members)? {
            remote.opens = Some(opens);
        }
        if let Some(id) = text("node_id") {
            let id = id
                .parse()
                .map_err(|_| member(name, "has a node_id that is none".to_owned()))?;
            remote.node_id = Some(id);
        }
        remote.pem = text("pem").map(str::to_owned);
        if remote.pem.as_ref().is_some_and(|pem| pem.len() > PEM_BYTES_MAX) {
            return Err(member(
                name,
                format!("has a pem of more than {PEM_BYTES_MAX} bytes"),
            ));
        }
        Ok(endpoint)
    }

    /// As it is shown, and as ids are made of it: no credentials in it.
    pub fn shown(&self) -> &str {
        match self {
            Endpoint::Local(db) => db.as_str(),
            Endpoint::Remote(remote) => &remote.url,
        }
    }

    /// As a document names it once its credentials are kept elsewhere.
    pub fn to_json(&self) -> Value {
        match self {
            Endpoint::Local(db) => json!(db),
            Endpoint::Remote(remote) => {
                let mut members = Map::new();
                members.insert("url".to_owned(), json!(remote.url));
                if let Some(Opens::Secret(name)) = &remote.opens {
                    members.insert("auth".to_owned(), json!({"secret": name}));
                }
                if let Some(id) = &remote.node_id {
                    members.insert("node_id".to_owned(), json!(id.to_string()));
                }
                if let Some(pem) = &remote.pem {
                    members.insert("pem".to_owned(), json!(pem));
                }
                match members.len() {
                    1 => json!(remote.url),
                    _ => Value::Object(members),
                }
            }
        }
    }
}

/// What an object says of how it is opened.
fn opens_of(name: &'static str, members: &Map<String, Value>) -> Result<Option<Opens>, ReplicationError> {
    let auth = members.get("auth");
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if let Some(basic) = auth.and_then(|auth| auth.get("basic")) {
        let pair = text(basic.get("username")).zip(text(basic.get("password")));
        let (user, password) =
            pair.ok_or_else(|| member(name, "has an auth.basic without username and password".to_owned()))?;
        return Ok(Some(Opens::Basic {
            user,
            password: password.into(),
        }));
    }
    if let Some(bearer) = text(auth.and_then(|auth| auth.get("bearer"))) {
        return Ok(Some(Opens::Bearer(bearer.into())));
    }
    if let Some(secret) = text(auth.and_then(|auth| auth.get("secret"))) {
        let secret = secret.parse();
        let secret =
            secret.map_err(|_| member(name, "has an auth.secret that is no name of a secret".to_owned()))?;
        return Ok(Some(Opens::Secret(secret)));
    }
    if auth.is_some_and(|auth| !auth.is_null()) {
        return Err(member(
            name,
            "has an auth that is none of basic, bearer and secret".to_owned(),
        ));
    }
    let Some(headers) = members.get("headers").and_then(Value::as_object) else {
        return Ok(None);
    };
    let mut opens = None;
    for (key, value) in headers {
        let unknown = || {
            member(
                name,
                "has headers besides Authorization, which are not sent".to_owned(),
            )
        };
        if !key.eq_ignore_ascii_case("authorization") {
            return Err(unknown());
        }
        opens = Some(value.as_str().and_then(opens_of_header).ok_or_else(unknown)?);
    }
    Ok(opens)
}

fn opens_of_header(value: &str) -> Option<Opens> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Opens::Bearer(rest.trim().to_owned().into()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(String::from_utf8(BASE64.decode(rest.trim().as_bytes()).ok()?).ok()?);
    let (user, password) = pair.split_once(':')?;
    Some(Opens::Basic {
        user: user.to_owned(),
        password: password.to_owned().into(),
    })
}

/// A URL without what stands before the `@` of its authority.
fn split_credentials(name: &'static str, text: &str) -> Result<(String, Option<Opens>), ReplicationError> {
    let wrong = || member(name, "is no URL http[s]://HOST/DB".to_owned());
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    if text.len() > URL_BYTES_MAX || text.contains(['?', '#', '\\']) || text.chars().any(char::is_whitespace)
    {
        return Err(wrong());
    }
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user_info, host)) = authority.rsplit_once('@') else {
        return Ok((text.to_owned(), None));
    };
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(std::borrow::Cow::into_owned).map_err(|_| wrong())
    };
    let opens = Opens::Basic {
        user: decode(user)?,
        password: decode(password)?.into(),
    };
    Ok((format!("{scheme}://{host}{path}"), Some(opens)))
}

fn member(name: &'static str, reason: String) -> ReplicationError {
    ReplicationError::Member { name, reason }
}

impl fmt::Debug for Opens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opens::Basic { .. } => f.write_str("Basic(…)"),
            Opens::Bearer(_) => f.write_str("Bearer(…)"),
            Opens::Secret(name) => write!(f, "Secret({name})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: Value) -> Result<Endpoint, ReplicationError> {
        Endpoint::parse("source", Some(&json))
    }

    fn opens(json: Value) -> Option<Opens> {
        match source(json).unwrap() {
            Endpoint::Remote(remote) => remote.opens,
            Endpoint::Local(_) => None,
        }
    }

    #[test]
    fn credentials_are_read_wherever_couchdb_takes_them_and_never_shown() {
        let wanted = Some(Opens::Basic {
            user: "ann".to_owned(),
            password: "ca:na@ry".to_owned().into(),
        });
        for json in [
            json!("https://ann:ca%3Ana%40ry@host/db"),
            json!({"url": "https://ann:ca%3Ana%40ry@host/db"}),
            json!({"url": "https://host/db", "auth": {"basic": {"username": "ann", "password": "ca:na@ry"}}}),
            json!({"url": "https://host/db", "headers": {"authorization": "Basic YW5uOmNhOm5hQHJ5"}}),
        ] {
            assert_eq!(opens(json.clone()), wanted, "{json}");
            let endpoint = source(json).unwrap();
            assert_eq!(endpoint.shown(), "https://host/db");
            assert_eq!(endpoint.to_json(), json!("https://host/db"));
            assert!(!format!("{endpoint:?}").contains("na@ry"));
        }
        let bearer = json!({"url": "https://host/db", "auth": {"bearer": "canary"}});
        assert_eq!(opens(bearer), Some(Opens::Bearer("canary".to_owned().into())));
        let kept = json!({"url": "https://host/db", "auth": {"secret": "mine"}});
        assert_eq!(source(kept.clone()).unwrap().to_json(), kept);
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_showing_it() {
        for wrong in [
            json!(null),
            json!(1),
            json!(""),
            json!("Notes"),
            json!("_users"),
            json!("_replicator"),
            json!({}),
            json!("http://ann:canary@host/db?x"),
            json!("http://ann:canary@host/d b"),
            json!("http://ann:%FFcanary@host/db"),
            json!({"url": "http://h/db", "auth": {"basic": {"username": "canary"}}}),
            json!({"url": "http://h/db", "auth": {"canary": 1}}),
            json!({"url": "http://h/db", "headers": {"Cookie": "canary"}}),
            json!({"url": "http://h/db", "headers": {"Authorization": "Digest canary"}}),
            json!({"url": "http://h/db", "node_id": "canary"}),
            json!({"url": "http://h/db", "auth": {"secret": "../canary"}}),
        ] {
            let refused = source(wrong.clone()).unwrap_err();
            assert!(
                !format!("{refused} {refused:?}").contains("canary"),
                "{wrong}: {refused}"
            );
        }
        for wrong in [
            json!({"source": "a"}),
            json!({"source": "a", "target": "b", "filter": "design/f"}),
            json!({"source": "a", "target": "b", "doc_ids": ["x"], "selector": {}}),
            json!({"source": "a", "target": "b", "selector": {"$no": 1}}),
            json!({"source": "a", "target": "b", "continuous": 1}),
        ] {
            assert!(ReplicationRequest::parse(&wrong).is_err(), "{wrong}");
        }
        let request =
            json!({"source": "a", "target": "b", "doc_ids": ["y", "x", "y"], "worker_processes": 4});
        let request = ReplicationRequest::parse(&request).unwrap();
        assert_eq!(request.doc_ids.unwrap(), ["x", "y"]);
    }
}
