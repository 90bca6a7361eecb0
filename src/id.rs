//! The newtypes that name things: parsing, text form, order; no I/O and no clock.

mod account;
mod blob;
mod bundle;
mod certificate;
mod channel;
mod database;
mod disk;
mod doc;
mod host;
mod name;
mod node;
mod rev;
mod seq;
mod version;

pub use account::{AccountName, AccountNameError, HexIdError, TokenId, UploadId};
pub use blob::{BlobAddress, BlobId, BlobIdError, Sha256Id};
pub use bundle::{BundleName, BundleNameError, BundleUrl};
pub use certificate::{
    BINDING_OID, Binding, BindingError, Fingerprint, binding_extension, binding_message, verify_binding,
};
pub use channel::{ChannelKey, ChannelKeyError};
pub use database::{DbName, DbNameError};
pub use disk::{DiskError, DiskName, DiskSerial, DiskUuid};
pub use doc::{DocId, DocIdError, LocalId};
pub use host::{HostName, HostNameError};
pub use name::{NameError, RefName, SecretName, StoreName};
pub use node::{NodeId, NodeIdError};
pub use rev::{Rev, RevError, RevHash};
pub use seq::{DbUuid, Seq, SeqError};
pub use version::{Version, VersionError};
