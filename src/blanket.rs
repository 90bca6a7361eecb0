//! Documents.

mod doc;
mod json;
mod revid;
mod tree;
