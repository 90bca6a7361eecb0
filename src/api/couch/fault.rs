//! What CouchDB's API answers besides success, in CouchDB's words: clients match on them.
//!
//! Source: CouchDB, "HTTP Status Codes", and what `chttpd:error_info` says.

use axum::http::StatusCode;

use super::draft::{BATCH_BYTES_MAX, DOCUMENT_BYTES_MAX};
use super::scan::Refusal;
use crate::id::{DbNameError, DocIdError, RevError, SeqError};
use crate::node::{ReplicationFailure, SelectorError};

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum Fault {
    #[error("missing")]
    Missing,
    #[error("deleted")]
    Deleted,
    #[error("Database does not exist.")]
    NoDatabase,
    #[error("The database could not be created, the file already exists.")]
    Exists,
    #[error("Document is missing attachment")]
    NoAttachment,
    #[error("Document update conflict.")]
    Conflict,
    #[error("{0}")]
    Database(DbNameError),
    #[error("{}", match .0 {
        DocIdError::Empty => "Document id must not be empty",
        DocIdError::Reserved => "Only reserved document ids may start with underscore.",
        DocIdError::TooLong => "Document id is too long",
    })]
    Id(DocIdError),
    #[error("Invalid rev format")]
    Rev(RevError),
    #[error("Malformed sequence supplied in 'since' parameter.")]
    Since(SeqError),
    #[error("Document rev from request body and query string have different values")]
    RevTwice,
    #[error("Invalid attachment stub in {id} for {name}")]
    Stub {
        /// The document.
        id: String,
        /// The attachment.
        name: String,
    },
    #[error("Possible message corruption.")]
    Digest,
    #[error("Attachment names can't be empty, begin with an underscore or be longer than 1024 bytes")]
    AttachmentName,
    #[error("Invalid value for {name}: {value}")]
    Query {
        /// The parameter.
        name: &'static str,
        /// What it was.
        value: String,
    },
    #[error("{0}")]
    Body(String),
    #[error("{0}")]
    Validation(String),
    #[error("a document has at most {DOCUMENT_BYTES_MAX} bytes, the data of its attachments not counted")]
    DocumentTooLarge,
    #[error(
        "the documents of one request have at most {BATCH_BYTES_MAX} bytes, the data of attachments not counted"
    )]
    BatchTooLarge,
    #[error("{0}")]
    Selector(SelectorError),
    #[error("{reason}")]
    Find {
        /// CouchDB's word.
        code: &'static str,
        /// A sentence.
        reason: String,
    },
    #[error("No index exists for this sort, try indexing by the sort fields.")]
    NoIndex,
    #[error("{0}")]
    Replication(ReplicationFailure),
    #[error("{0}")]
    NotImplemented(&'static str),
    #[error("Only gzip and identity content-encodings are supported")]
    Encoding,
}

impl Fault {
    /// Status and CouchDB's word.
    pub(in crate::api) fn outcome(&self) -> (StatusCode, &'static str) {
        match self {
            Fault::Missing | Fault::Deleted | Fault::NoDatabase | Fault::NoAttachment => {
                (StatusCode::NOT_FOUND, "not_found")
            }
            Fault::Exists => (StatusCode::PRECONDITION_FAILED, "file_exists"),
            Fault::Conflict => (StatusCode::CONFLICT, "conflict"),
            Fault::Database(_) => (StatusCode::BAD_REQUEST, "illegal_database_name"),
            Fault::Id(_) => (StatusCode::BAD_REQUEST, "illegal_docid"),
            Fault::Rev(_) | Fault::RevTwice | Fault::Since(_) | Fault::Body(_) | Fault::AttachmentName => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            Fault::Stub { .. } => (StatusCode::PRECONDITION_FAILED, "missing_stub"),
            Fault::Digest => (StatusCode::BAD_REQUEST, "content_md5_mismatch"),
            Fault::Query { .. } => (StatusCode::BAD_REQUEST, "query_parse_error"),
            Fault::Validation(_) => (StatusCode::BAD_REQUEST, "doc_validation"),
            Fault::DocumentTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "document_too_large"),
            Fault::BatchTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Fault::Selector(error) => (StatusCode::BAD_REQUEST, error.code()),
            Fault::Find { code, .. } => (StatusCode::BAD_REQUEST, code),
            Fault::NoIndex => (StatusCode::BAD_REQUEST, "no_usable_index"),
            Fault::Replication(failure) => replication(failure),
            Fault::Encoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_ctype"),
            Fault::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "not_implemented"),
        }
    }
}

fn replication(failure: &ReplicationFailure) -> (StatusCode, &'static str) {
    match failure {
        ReplicationFailure::NotRun | ReplicationFailure::TooMany => {
            (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable")
        }
        ReplicationFailure::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        ReplicationFailure::Missing(_) => (StatusCode::NOT_FOUND, "not_found"),
        ReplicationFailure::NoDatabase(_) => (StatusCode::NOT_FOUND, "db_not_found"),
        ReplicationFailure::Refused(_) => (StatusCode::FORBIDDEN, "forbidden"),
        ReplicationFailure::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "replication_failed"),
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        match refusal {
            Refusal::Invalid(reason) => Fault::Body(reason),
            Refusal::Member(reason) => Fault::Validation(reason),
            Refusal::TooLarge => Fault::DocumentTooLarge,
            Refusal::BatchTooLarge => Fault::BatchTooLarge,
        }
    }
}
