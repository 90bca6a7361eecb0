//! The history of a ref, and the snapshot of it that someone means.

use super::Repository;
use super::error::Error;
use super::refs::{RefRecord, Selector, Snapshot};
use crate::id::RefName;

/// The history of a ref, newest last.
///
/// # Errors
/// [`Error::NoRef`], and as [`super::Refs::get`].
pub fn snapshots(repository: &Repository, name: &RefName) -> Result<RefRecord, Error> {
    let record = repository.refs.get(name)?;
    record.ok_or_else(|| Error::NoRef { name: name.clone() })
}

/// The snapshot of a ref that is meant.
///
/// # Errors
/// [`Error::NoRef`], [`Error::NoSnapshot`], [`Error::Ambiguous`], and as [`super::Refs::get`].
pub fn snapshot(repository: &Repository, name: &RefName, selector: &Selector) -> Result<Snapshot, Error> {
    let record = snapshots(repository, name)?;
    selector.select(&record).cloned()
}
