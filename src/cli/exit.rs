//! Exit codes: what a script learns from a command without reading its words.

use std::process::ExitCode;

use crate::app::Outcome;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything that was asked was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// It was asked wrongly.
    Usage = 2,
    /// What was asked for is not there.
    Missing = 3,
    /// Something is damaged.
    Damaged = 4,
    /// A backup or restore is there, but not all of it.
    Partial = 5,
    /// Someone else is at it.
    Busy = 6,
    /// Not allowed.
    Refused = 7,
    /// The disk is full or takes no writes.
    Full = 8,
}

/// What `--help` and the manual pages say of exit codes.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  asked wrongly: an argument, a name or the configuration
  3  there is no such blob, ref, snapshot, path, database, document, update or data folder
  4  damaged: something is not what its id says
  5  partial: some files could not be read, or changed while they were read
  6  busy: another process holds the data folder, or too much is going on
  7  refused: not signed in, not allowed, or not the node it should be
  8  the disk is full or takes no writes";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Exit {
        match outcome {
            Outcome::Failed => Exit::Failed,
            Outcome::Invalid => Exit::Usage,
            Outcome::Missing => Exit::Missing,
            Outcome::Damaged => Exit::Damaged,
            Outcome::Busy => Exit::Busy,
            Outcome::Refused => Exit::Refused,
            Outcome::Full => Exit::Full,
        }
    }
}

/// A failure the command line itself finds, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }
}

/// The exit code of an error.
pub(super) fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<Failure>() {
        Some(failure) => failure.exit,
        None => Outcome::of(error).into(),
    }
}
