//! The newtypes that name things: parsing, text form, order; no I/O and no clock.

mod blob;
mod name;
mod node;

pub use blob::{BlobAddress, BlobId, BlobIdError, Sha256Id};
pub use name::{NameError, RefName, StoreName};
pub use node::{NodeId, NodeIdError};
