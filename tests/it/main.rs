//! The single integration binary; each module is a feature.

mod doors;
mod fault;
mod support;
mod tidy;
