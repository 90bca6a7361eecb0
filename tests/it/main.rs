//! The single integration binary; each module is a feature.

mod blobs_http;
mod cli;
mod doors;
mod fault;
mod pages;
mod security;
mod served;
mod snapshots_http;
mod support;
mod tidy;
mod uploads;
