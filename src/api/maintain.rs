//! `POST /api/gc` and `POST /stores/{store}/check`: what an owner has done to the stores of a running node.
//!
//! Both answer when they are through, which takes minutes for a large store.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::route::Call;
use crate::id::{BlobId, StoreName};
use crate::node::{CheckOptions, CheckReport, Collected};

/// What a collection did.
#[derive(Serialize, ToSchema)]
pub(super) struct CollectedBody {
    stores: Vec<CollectedStoreBody>,
}

/// What a collection did in one store.
#[derive(Serialize, ToSchema)]
pub(super) struct CollectedStoreBody {
    #[schema(value_type = String)]
    store: StoreName,
    /// Blobs that refs name.
    named: u64,
    /// Parts that are unnamed and wait a day.
    waiting: u64,
    /// Parts that were freed.
    freed: u64,
    /// Their bytes.
    freed_bytes: u64,
    /// Bytes given back to the disk.
    compacted_bytes: u64,
    /// What is named and cannot be read: nothing was freed because of it.
    #[schema(value_type = Vec<String>)]
    unreadable: Vec<BlobId>,
}

impl From<Collected> for CollectedStoreBody {
    fn from(collected: Collected) -> CollectedStoreBody {
        CollectedStoreBody {
            store: collected.store,
            named: collected.named,
            waiting: collected.waiting,
            freed: collected.freed,
            freed_bytes: collected.freed_bytes,
            compacted_bytes: collected.compaction.freed_bytes,
            unreadable: collected.unreadable,
        }
    }
}

/// What to check, and whether to mend.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    /// Read every blob and compare it with its id.
    #[serde(default)]
    read_data: bool,
    /// Set damaged blobs aside and rebuild what can be rebuilt.
    #[serde(default)]
    repair: bool,
}

/// What a check found: all is well where `damaged`, `missing` and `notes` are empty.
#[derive(Serialize, ToSchema)]
pub(super) struct CheckedBody {
    blobs: u64,
    bytes_read: u64,
    #[schema(value_type = Vec<String>)]
    damaged: Vec<BlobId>,
    #[schema(value_type = Vec<String>)]
    missing: Vec<BlobId>,
    #[schema(value_type = Vec<String>)]
    quarantined: Vec<BlobId>,
    notes: Vec<String>,
}

impl From<CheckReport> for CheckedBody {
    fn from(report: CheckReport) -> CheckedBody {
        CheckedBody {
            blobs: report.blobs,
            bytes_read: report.bytes_read,
            damaged: report.damaged,
            missing: report.missing,
            quarantined: report.quarantined,
            notes: report.notes,
        }
    }
}

/// Collects in every store.
pub(super) async fn collect(call: Call) -> Result<Response, Error> {
    // Whoever asked may go; the collection then goes on, as every step of it is safe to end with.
    let stores = call.node().gc().run(|| false).await?;
    let body = CollectedBody {
        stores: stores.into_iter().map(CollectedStoreBody::from).collect(),
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// Checks a store.
pub(super) async fn check(mut call: Call) -> Result<Response, Error> {
    let blobs = call.blobs()?;
    let CheckBody { read_data, repair } = call.take_body().json().await?;
    let options = CheckOptions { read_data, repair };
    let report = blobs.check(options, |_| {}).await?;
    Ok(answer::json(StatusCode::OK, &CheckedBody::from(report)))
}
