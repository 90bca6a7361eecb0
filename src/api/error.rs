//! Outcomes as HTTP: the only file that knows which status an error has.
//!
//! Every error of ours is `{"error": "<code>", "reason": "<sentence>"}`; codes are for programs and do not
//! change, sentences are for people. Internal detail goes to the log, never to the client.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::couch::Fault;
use super::host::HostError;
use crate::id::{BlobId, BlobIdError, NameError};
use crate::node::{self, Scope};

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A use case said so.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// CouchDB's API answers so.
    #[error(transparent)]
    Couch(#[from] Fault),
    /// The `Host` is not ours.
    #[error("{}", match .0 {
        HostError::Malformed => "a request names one Host",
        HostError::Foreign => "this node does not answer to that Host: use its address or its .local name, \
            or list the name as an authority in the configuration",
    })]
    Host(HostError),
    /// Data and secrets do not travel over a plain line.
    #[error("use https: plain HTTP serves nothing but a page that says so")]
    PlainLine,
    /// Nobody knows who asks.
    #[error("sign in, or send an app token")]
    Unauthenticated,
    /// It is known who asks, and they may not.
    #[error("this needs the scope {}", .0.name())]
    Forbidden(Scope),
    /// The node has an owner, and needs no other.
    #[error("the node has an owner: sign in, or ask the owner for an account")]
    Claimed,
    /// Nobody can be known yet.
    #[error("nobody owns this node yet: claim it first")]
    Unclaimed,
    /// The owner has not said that others may have it.
    #[error("this box gives its bundle to no other: `refuge update offer` on it changes that")]
    NotOffered,
    /// A cookie came with a request that our own page did not make.
    #[error("a request with a cookie must come from the node's own page; programs send an app token")]
    ForeignOrigin,
    /// No route has this path.
    #[error("there is nothing at this path")]
    NoRoute,
    /// The path is there, the method is not.
    #[error("this path takes {}", .0.join(", "))]
    Method(Vec<&'static str>),
    /// The body is of a type the route does not take.
    #[error("this takes {0} as content type")]
    MediaType(&'static str),
    /// The body, a parameter or a header is not what it must be.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which part of the request.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An id of a hash type that is not stored by.
    #[error(transparent)]
    BlobId(#[from] BlobIdError),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The body is larger than the route takes.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The most that is taken, in bytes.
        limit: u64,
    },
    /// The body ended before its length.
    #[error("the body ended early: nothing was kept")]
    BodyCut,
    /// The body came too slowly.
    #[error("the body came too slowly: nothing was kept")]
    BodySlow,
    /// The range lies outside of what is there.
    #[error("the range lies outside: there are {len} bytes")]
    Range {
        /// Length of the representation, in bytes.
        len: u64,
    },
    /// A change needs to say what it is based on.
    #[error("say which version this replaces: If-Match, or If-None-Match: * for a new ref")]
    PreconditionRequired,
    /// Somebody else changed it first.
    #[error("it was changed meanwhile: read it again")]
    PreconditionFailed,
    /// Bytes for an upload that was put together from parts.
    #[error("an upload that was put together from parts takes no bytes")]
    FinalUpload,
    /// A tus client of another version.
    #[error("this node speaks tus 1.0.0")]
    TusVersion,
    /// The piece is not what its Upload-Checksum says (tus, status 460).
    #[error("the piece does not have the checksum it was sent with: it was not kept")]
    Checksum,
}

/// The body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What went wrong, for programs.
    #[schema(example = "missing")]
    error: &'static str,
    /// What went wrong and what to do, for people.
    reason: String,
    /// Blobs that a ref would have named and that are not stored; the first 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    missing: Vec<BlobId>,
}

/// Bytes of a reason that a client is told: it knows what it sent.
const REASON_BYTES_MAX: usize = 400;

impl Error {
    /// A part of the request that is not what it must be. A reason that quotes the request is cut.
    pub(super) fn malformed(what: &'static str, reason: impl ToString) -> Error {
        let mut reason = reason.to_string();
        if reason.len() > REASON_BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            reason.push('…');
        }
        Error::Malformed { what, reason }
    }

    /// There is no such thing.
    pub(super) fn missing(kind: node::Kind, name: impl ToString) -> Error {
        Error::Node(node::Error::Missing {
            kind,
            name: name.to_string(),
        })
    }

    /// Status and code.
    pub(super) fn outcome(&self) -> (StatusCode, &'static str) {
        match self {
            Error::Node(error) => node_outcome(error),
            Error::Couch(fault) => fault.outcome(),
            Error::Host(HostError::Malformed) => (StatusCode::BAD_REQUEST, "bad_host"),
            Error::Host(HostError::Foreign) => (StatusCode::MISDIRECTED_REQUEST, "foreign_host"),
            Error::PlainLine => (StatusCode::FORBIDDEN, "https_required"),
            Error::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Error::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Error::Claimed => (StatusCode::FORBIDDEN, "claimed"),
            Error::Unclaimed => (StatusCode::FORBIDDEN, "unclaimed"),
            Error::NotOffered => (StatusCode::FORBIDDEN, "not_offered"),
            Error::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
            Error::NoRoute => (StatusCode::NOT_FOUND, "missing"),
            Error::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Error::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_content_type"),
            Error::Malformed { .. } | Error::BlobId(_) | Error::Name(_) => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            Error::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Error::BodyCut => (StatusCode::BAD_REQUEST, "body_cut"),
            Error::BodySlow => (StatusCode::REQUEST_TIMEOUT, "body_slow"),
            Error::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "bad_range"),
            Error::PreconditionRequired => (StatusCode::PRECONDITION_REQUIRED, "precondition_required"),
            Error::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Error::FinalUpload => (StatusCode::FORBIDDEN, "final_upload"),
            Error::TusVersion => (StatusCode::PRECONDITION_FAILED, "tus_version"),
            Error::Checksum => (tus_checksum_mismatch(), "checksum_mismatch"),
        }
    }

    /// The sentence a client reads: no internal detail in it.
    pub(super) fn reason(&self) -> String {
        match self {
            Error::Node(node::Error::Internal(_)) => {
                "the node failed: its log says why, and `refuge check` what to do".to_owned()
            }
            Error::Node(node::Error::NoSpace { .. }) => {
                "the disk is full: free space, then try again".to_owned()
            }
            Error::Node(node::Error::ReadOnly { .. }) => {
                "the store is read only since a write failed: check the disk, then restart the node"
                    .to_owned()
            }
            Error::Node(node::Error::Folder(_)) => {
                "the data folder has a problem: the node's log says which".to_owned()
            }
            other => other.to_string(),
        }
    }

    /// Tells the log, where it is the node's own trouble.
    pub(super) fn log(&self) {
        match self {
            Error::Node(
                error @ (node::Error::Internal(_)
                | node::Error::Corrupt { .. }
                | node::Error::NoSpace { .. }
                | node::Error::ReadOnly { .. }
                | node::Error::Folder(_)),
            ) => tracing::error!(%error, "a request failed"),
            other => tracing::debug!(error = %other, "a request was refused"),
        }
    }
}

fn node_outcome(error: &node::Error) -> (StatusCode, &'static str) {
    match error {
        node::Error::Missing { .. } => (StatusCode::NOT_FOUND, "missing"),
        node::Error::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
        node::Error::Corrupt { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
        node::Error::Mismatch { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "mismatch"),
        node::Error::Incomplete { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "incomplete"),
        node::Error::Offset { .. } => (StatusCode::CONFLICT, "wrong_offset"),
        node::Error::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        node::Error::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_attempts"),
        node::Error::Refused(refusal) => refusal_outcome(*refusal),
        node::Error::Invalid { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
        node::Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        node::Error::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
        node::Error::ReadOnly { .. } => (StatusCode::SERVICE_UNAVAILABLE, "read_only"),
        node::Error::Offline { .. } | node::Error::Away { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "offline")
        }
        node::Error::Disk(trouble) => disk_outcome(trouble),
        node::Error::Update(trouble) => update_outcome(trouble),
        node::Error::Channel(trouble) => channel_outcome(trouble),
        node::Error::Folder(_) => (StatusCode::INTERNAL_SERVER_ERROR, "data_folder"),
        node::Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn disk_outcome(trouble: &node::DiskTrouble) -> (StatusCode, &'static str) {
    match trouble {
        node::DiskTrouble::Absent => (StatusCode::NOT_FOUND, "no_disk"),
        node::DiskTrouble::Serial => (StatusCode::CONFLICT, "wrong_serial"),
        node::DiskTrouble::System => (StatusCode::CONFLICT, "system_disk"),
        node::DiskTrouble::Foreign { .. } => (StatusCode::CONFLICT, "foreign_disk"),
        node::DiskTrouble::Twin => (StatusCode::CONFLICT, "twin_disks"),
        node::DiskTrouble::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        node::DiskTrouble::Failed { .. } | node::DiskTrouble::NoHelper { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "disk_failed")
        }
    }
}

/// The code of why an update is not installed is in `/api/update` as well.
pub(super) fn update_outcome(trouble: &node::UpdateTrouble) -> (StatusCode, &'static str) {
    match trouble {
        node::UpdateTrouble::Busy => (StatusCode::CONFLICT, "update_under_way"),
        node::UpdateTrouble::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no_space"),
        node::UpdateTrouble::Away { .. } => (StatusCode::BAD_GATEWAY, "bundle_away"),
        node::UpdateTrouble::Bundle { .. } => (StatusCode::CONFLICT, "bad_bundle"),
        node::UpdateTrouble::OtherBoard { .. } => (StatusCode::CONFLICT, "other_board"),
        node::UpdateTrouble::Older { .. } | node::UpdateTrouble::Withheld { .. } => {
            (StatusCode::CONFLICT, "older_version")
        }
        node::UpdateTrouble::NothingBefore => (StatusCode::CONFLICT, "nothing_before"),
        node::UpdateTrouble::Failed { .. } | node::UpdateTrouble::NoHelper { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "update_failed")
        }
    }
}

fn channel_outcome(trouble: &node::ChannelTrouble) -> (StatusCode, &'static str) {
    match trouble {
        node::ChannelTrouble::Unset => (StatusCode::CONFLICT, "no_channel"),
        node::ChannelTrouble::Unreachable { .. } => (StatusCode::BAD_GATEWAY, "channel_away"),
        node::ChannelTrouble::NotNewer { .. } => (StatusCode::CONFLICT, "not_newer"),
        node::ChannelTrouble::OtherBoard { .. } => (StatusCode::CONFLICT, "other_board"),
        node::ChannelTrouble::TooLarge { .. }
        | node::ChannelTrouble::Format { .. }
        | node::ChannelTrouble::OtherKey { .. }
        | node::ChannelTrouble::Signature
        | node::ChannelTrouble::Older { .. }
        | node::ChannelTrouble::Twin { .. }
        | node::ChannelTrouble::Expired => (StatusCode::CONFLICT, "bad_channel"),
    }
}

fn refusal_outcome(refusal: node::Refusal) -> (StatusCode, &'static str) {
    match refusal {
        node::Refusal::Credentials => (StatusCode::UNAUTHORIZED, "wrong_credentials"),
        node::Refusal::ClaimCode => (StatusCode::FORBIDDEN, "wrong_claim_code"),
        node::Refusal::ClaimWindow => (StatusCode::FORBIDDEN, "claim_window_shut"),
        node::Refusal::NoBoard => (StatusCode::CONFLICT, "no_board"),
        node::Refusal::MainStore => (StatusCode::FORBIDDEN, "main_store"),
        node::Refusal::StoreNotEmpty => (StatusCode::CONFLICT, "store_not_empty"),
        node::Refusal::LastOwner => (StatusCode::CONFLICT, "last_owner"),
    }
}

/// Status 460 of the tus protocol, checksum extension.
fn tus_checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).expect("460 is between 100 and 999")
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let (status, code) = self.outcome();
        let missing = match &self {
            Error::Node(node::Error::Incomplete { missing, .. }) => missing.clone(),
            _ => Vec::new(),
        };
        let body = ErrorBody {
            error: code,
            reason: self.reason(),
            missing,
        };
        let json = serde_json::to_vec(&body).expect("an error body has only strings");
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers() {
            headers.insert(name, value);
        }
        response
    }
}

impl Error {
    /// What the status asks to come with it.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Error::Method(allowed) => text_header(header::ALLOW, allowed.join(", ")),
            Error::Range { len } => text_header(header::CONTENT_RANGE, format!("bytes */{len}")),
            Error::Node(node::Error::RateLimited { retry_after }) => {
                text_header(header::RETRY_AFTER, retry_after.as_secs().max(1).to_string())
            }
            Error::Node(node::Error::Busy) => text_header(header::RETRY_AFTER, "1".to_owned()),
            Error::Node(node::Error::Offset { expected, .. }) => {
                text_header(HeaderName::from_static("upload-offset"), expected.to_string())
            }
            Error::TusVersion => text_header(HeaderName::from_static("tus-version"), "1.0.0".to_owned()),
            // What is left of a body that was refused is not worth reading.
            Error::BodySlow
            | Error::BodyTooLarge { .. }
            | Error::Couch(Fault::DocumentTooLarge | Fault::BatchTooLarge) => {
                text_header(header::CONNECTION, "close".to_owned())
            }
            _ => Vec::new(),
        }
    }
}

fn text_header(name: HeaderName, value: String) -> Vec<(HeaderName, HeaderValue)> {
    HeaderValue::from_str(&value)
        .map(|value| vec![(name, value)])
        .unwrap_or_default()
}

/// The methods in the order people list them.
pub(super) fn allowed(mut methods: Vec<&'static str>) -> Vec<&'static str> {
    methods.sort_unstable();
    methods.dedup();
    methods
}
