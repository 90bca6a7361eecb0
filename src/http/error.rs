//! What can go wrong between here and another node, by what the caller does about it.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::resolve::Forbidden;
use crate::id::NodeId;

/// A request that did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection came about.
    #[error("{url} does not answer ({reason}): is the node running there?")]
    Unreachable {
        /// The node.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// Whoever answers is not the node that was pinned, or proves no identity at all.
    #[error("{url} is not the node it should be: expected {expected}, {found}")]
    Impostor {
        /// The node's address.
        url: String,
        /// Who was expected.
        expected: String,
        /// Who answered.
        found: String,
    },
    /// The server has an address to which the caller's policy allows no connection.
    #[error("{url} is at {address}, to which no connection may be made")]
    Forbidden {
        /// The server.
        url: String,
        /// The address that was refused.
        address: IpAddr,
    },
    /// Plain HTTP to another machine, or HTTPS where nothing is known that could prove who answers.
    #[error(
        "{url} can't prove who it is: use https:// with what proves it; http:// is for this machine only"
    )]
    Unproven {
        /// The server.
        url: String,
    },
    /// Nothing was heard for longer than a node may take.
    #[error("{url} has not answered for {} seconds", patience.as_secs())]
    Silent {
        /// The node.
        url: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The connection broke while something was under way.
    #[error("the connection to {url} broke: {reason}")]
    Broken {
        /// The node.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The node refused, and said why.
    #[error("{url}: {refusal}")]
    Refused {
        /// The node.
        url: String,
        /// Its answer.
        refusal: Box<Refusal>,
    },
    /// The answer is not what this version understands.
    #[error("{url} answers what this refuge does not understand ({what}): are both of the same version?")]
    Unexpected {
        /// The node.
        url: String,
        /// What was wrong with it.
        what: &'static str,
    },
    /// This machine could not set up TLS.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A node's refusal: its status and the JSON that every failed request answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// `error` of the answer: a word for machines; empty where the node gave none.
    pub code: String,
    /// `reason` of the answer: a sentence for people.
    pub reason: String,
    /// Where else it is, as the server says (RFC 9110, section 10.2.2).
    pub location: Option<String>,
    /// The answer's bytes, bounded: some refusals carry more.
    pub body: Vec<u8>,
}

#[derive(Deserialize)]
struct RefusalBody {
    #[serde(default)]
    error: String,
    #[serde(default)]
    reason: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, location: Option<String>, body: Vec<u8>) -> Refusal {
        let parsed = serde_json::from_slice(&body).unwrap_or(RefusalBody {
            error: String::new(),
            reason: String::new(),
        });
        Refusal {
            status,
            code: parsed.error,
            reason: parsed.reason,
            location,
            body,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.reason.is_empty() {
            true => write!(f, "{}", self.status),
            false => f.write_str(&self.reason),
        }
    }
}

impl Error {
    /// The node's refusal, where it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused { refusal, .. } => Some(refusal.as_ref()),
            Error::Unreachable { .. }
            | Error::Impostor { .. }
            | Error::Forbidden { .. }
            | Error::Unproven { .. }
            | Error::Silent { .. }
            | Error::Broken { .. }
            | Error::Unexpected { .. }
            | Error::Tls(_) => None,
        }
    }
}

/// The innermost cause of a failure, which is what says something: `Connection refused`, not `client error`.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// The address that was refused, where that is why there is no connection.
pub(super) fn forbidden(error: &(dyn std::error::Error + 'static)) -> Option<Forbidden> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
            return Some(*forbidden);
        }
        at = error.source();
    }
    None
}

/// What a failed handshake means, where the identity is why.
pub(super) fn impostor(url: &str, error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let stranger = stranger_in(error)?;
    Some(Error::Impostor {
        url: url.to_owned(),
        expected: stranger
            .expected
            .map_or_else(|| "any node".to_owned(), |id| id.to_string()),
        found: stranger
            .found
            .map_or_else(|| "it proves no node id".to_owned(), |id| format!("it is {id}")),
    })
}

fn stranger_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Stranger> {
    if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) =
        error.downcast_ref()
    {
        return other.0.downcast_ref();
    }
    // The source of an `io::Error` is not the error inside of it, but that one's source.
    let inside = error
        .downcast_ref::<std::io::Error>()
        .and_then(|error| error.get_ref());
    match inside {
        Some(inside) => stranger_in(inside),
        None => stranger_in(error.source()?),
    }
}

/// Who answered instead of who was expected; travels through rustls.
#[derive(Debug, thiserror::Error)]
#[error("another node answered")]
pub(super) struct Stranger {
    pub(super) expected: Option<NodeId>,
    pub(super) found: Option<NodeId>,
}
