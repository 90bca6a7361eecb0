//! The single integration binary; each module is a feature.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "what helps a test may end it, counts small numbers, and is seen by this binary alone"
)]

mod answers;
mod arrivals;
mod blanket;
mod blobs_http;
mod channel;
mod cli;
mod couch;
mod discovery;
mod disks;
mod doors;
mod fault;
mod formats;
#[cfg(feature = "leveldb")]
mod leveldb;
mod measure;
mod pages;
mod replicate;
mod security;
mod served;
mod snapshots_http;
mod support;
mod tidy;
mod uploads;
mod watched;
