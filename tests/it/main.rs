//! The single integration binary; each module is a feature.

mod fault;
mod support;
mod tidy;
