//! What a failure means, whichever module it comes from: what the command line turns into an exit code.

use std::io;

use crate::http::StatusCode;
use crate::{coffer, durable, files, http, node};

/// How something ended that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It cannot be done, for a reason that fits nothing below.
    Failed,
    /// What was asked makes no sense.
    Invalid,
    /// There is no such thing.
    Missing,
    /// Stored bytes are not what they must be.
    Damaged,
    /// Something else is at it: try again later.
    Busy,
    /// Not allowed.
    Refused,
    /// The disk is full or takes no writes.
    Full,
}

impl Outcome {
    /// What an error means; [`Outcome::Failed`] for one of no module of ours.
    pub fn of(error: &anyhow::Error) -> Outcome {
        for cause in error.chain() {
            if let Some(error) = cause.downcast_ref() {
                return of_node(error);
            }
            if let Some(error) = cause.downcast_ref() {
                return of_files(error);
            }
            if let Some(error) = cause.downcast_ref() {
                return of_coffer(error);
            }
            if let Some(error) = cause.downcast_ref() {
                return of_http(error);
            }
            if let Some(error) = cause.downcast_ref() {
                return of_state(error);
            }
            if let Some(failure) = cause.downcast_ref() {
                return of_replication(failure);
            }
        }
        Outcome::Failed
    }
}

fn of_node(error: &node::Error) -> Outcome {
    match error {
        node::Error::Missing { .. } => Outcome::Missing,
        node::Error::Corrupt { .. } | node::Error::Mismatch { .. } => Outcome::Damaged,
        node::Error::Busy | node::Error::RateLimited { .. } => Outcome::Busy,
        node::Error::Refused(_) => Outcome::Refused,
        node::Error::Invalid { .. } => Outcome::Invalid,
        node::Error::NoSpace { .. } | node::Error::ReadOnly { .. } => Outcome::Full,
        node::Error::Folder(error) => of_folder(error),
        node::Error::Conflict { .. }
        | node::Error::Offline { .. }
        | node::Error::Away { .. }
        | node::Error::Disk(_)
        | node::Error::Update(_)
        | node::Error::Channel(_)
        | node::Error::Incomplete { .. }
        | node::Error::Offset { .. }
        | node::Error::TooLarge { .. } => Outcome::Failed,
        node::Error::Internal(cause) => of_cause(cause),
    }
}

fn of_cause(cause: &node::Cause) -> Outcome {
    match cause {
        node::Cause::Coffer(error) => of_coffer(error),
        node::Cause::State(error) => of_state(error),
        node::Cause::Files(_)
        | node::Cause::Documents(_)
        | node::Cause::Database(_)
        | node::Cause::Io { .. }
        | node::Cause::Random(_)
        | node::Cause::Certificate(_)
        | node::Cause::Unreadable { .. } => Outcome::Failed,
    }
}

fn of_folder(error: &node::FolderError) -> Outcome {
    match error {
        node::FolderError::Absent { .. } => Outcome::Missing,
        node::FolderError::InUse { .. } => Outcome::Busy,
        node::FolderError::Identity { .. } | node::FolderError::Damaged { .. } => Outcome::Damaged,
        node::FolderError::ReadOnly { .. } => Outcome::Full,
        node::FolderError::Forbidden { .. } => Outcome::Refused,
        node::FolderError::Foreign { .. } | node::FolderError::Newer { .. } => Outcome::Failed,
    }
}

fn of_files(error: &files::Error) -> Outcome {
    match error {
        files::Error::Store(error) => of_coffer(error),
        files::Error::State(error) => of_state(error),
        files::Error::Http(error) => of_http(error),
        files::Error::Missing { .. } | files::Error::Malformed { .. } => Outcome::Damaged,
        files::Error::NoRef { .. } | files::Error::NoSnapshot { .. } | files::Error::NoPath { .. } => {
            Outcome::Missing
        }
        files::Error::Selector { .. }
        | files::Error::Ambiguous { .. }
        | files::Error::Rule { .. }
        | files::Error::IntoItself { .. }
        | files::Error::KeepsNothing => Outcome::Invalid,
        files::Error::Conflict { .. } => Outcome::Busy,
        files::Error::Io { source, .. } => of_io(source),
        files::Error::Newer { .. }
        | files::Error::Incomplete { .. }
        | files::Error::Full { .. }
        | files::Error::Exists { .. }
        | files::Error::Cancelled
        | files::Error::Remote { .. } => Outcome::Failed,
    }
}

fn of_coffer(error: &coffer::Error) -> Outcome {
    match error {
        coffer::Error::Mismatch { .. } | coffer::Error::Corrupt { .. } | coffer::Error::Damaged { .. } => {
            Outcome::Damaged
        }
        coffer::Error::NoSpace { .. } | coffer::Error::ReadOnly { .. } => Outcome::Full,
        coffer::Error::Busy => Outcome::Busy,
        coffer::Error::State(error) => of_state(error),
        coffer::Error::Http(error) => of_http(error),
        coffer::Error::Foreign { .. }
        | coffer::Error::Newer { .. }
        | coffer::Error::TooLarge { .. }
        | coffer::Error::Io { .. }
        | coffer::Error::Remote { .. } => Outcome::Failed,
    }
}

fn of_io(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            Outcome::Full
        }
        _ => Outcome::Failed,
    }
}

fn of_state(error: &durable::Error) -> Outcome {
    match error {
        durable::Error::Damaged { .. } => Outcome::Damaged,
        durable::Error::Io { .. } => Outcome::Failed,
    }
}

fn of_http(error: &http::Error) -> Outcome {
    match error {
        http::Error::Impostor { .. } | http::Error::Forbidden { .. } | http::Error::Unproven { .. } => {
            Outcome::Refused
        }
        http::Error::Refused { refusal, .. } => of_status(refusal.status),
        http::Error::Unreachable { .. }
        | http::Error::Silent { .. }
        | http::Error::Broken { .. }
        | http::Error::Unexpected { .. }
        | http::Error::Tls(_) => Outcome::Failed,
    }
}

fn of_replication(failure: &node::ReplicationFailure) -> Outcome {
    match failure {
        node::ReplicationFailure::TooMany => Outcome::Busy,
        node::ReplicationFailure::Invalid(_) => Outcome::Invalid,
        node::ReplicationFailure::Missing(_) | node::ReplicationFailure::NoDatabase(_) => Outcome::Missing,
        node::ReplicationFailure::Refused(_) => Outcome::Refused,
        node::ReplicationFailure::NotRun | node::ReplicationFailure::Failed(_) => Outcome::Failed,
    }
}

fn of_status(status: StatusCode) -> Outcome {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Refused,
        StatusCode::NOT_FOUND => Outcome::Missing,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::Busy,
        StatusCode::INSUFFICIENT_STORAGE => Outcome::Full,
        _ => Outcome::Failed,
    }
}
