//! The single integration binary; each module is a feature.

mod tidy;
