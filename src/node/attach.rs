//! Attachments: bytes that a document names, kept in the coffer.
//!
//! They are durable before the document that names them, and collectable from the start: a document that is never written
//! leaves nothing behind. Until it is written a lease keeps them, as it keeps the parts of a backup. CouchDB knows an attachment
//! by its MD5, which is computed while the bytes pass and compared with what the sender said.
//!
//! What comes packed stays so: its MD5 is that of the packed bytes, as with CouchDB. It is unpacked once while it passes, so that
//! nothing is kept that cannot be, and how long it is then is known.

use bytes::Bytes;
use md5::{Digest, Md5};

use super::blobs::{Blobs, Receiver};
use super::error::Error;
use super::gunzip::{Gunzip, GzipError};
use crate::coffer::Class;
use crate::id::BlobId;

/// An attachment being received. Dropping it leaves nothing.
pub struct Attaching {
    receiver: Receiver,
    md5: Md5,
    length: u64,
    /// What comes out, where it comes packed.
    gunzip: Option<Gunzip>,
}

/// How the bytes of an attachment are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    Identity,
    /// Packed by gzip.
    Gzip,
}

/// An attachment that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// What the coffer knows it by.
    pub blob: BlobId,
    /// What CouchDB knows it by: its MD5.
    pub digest: [u8; 16],
    /// Bytes, as they are kept.
    pub length: u64,
    /// Bytes when they are unpacked, where they are kept packed.
    pub decoded_length: Option<u64>,
}

/// What a sender said of an attachment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its MD5.
    pub digest: Option<[u8; 16]>,
    /// Bytes.
    pub length: Option<u64>,
}

impl Attaching {
    /// Begins an attachment of any length, sent as `coding` says.
    ///
    /// # Errors
    /// [`Error::Missing`] where the store was removed.
    pub fn begin(blobs: &Blobs, coding: Coding) -> Result<Attaching, Error> {
        Ok(Attaching {
            receiver: blobs.receive(Class::Part, None)?,
            md5: Md5::new(),
            length: 0,
            gunzip: match coding {
                Coding::Identity => None,
                Coding::Gzip => Some(Gunzip::default()),
            },
        })
    }

    /// Takes the next bytes; holds at most 1 MiB of them. If cancelled, the attachment can't be finished.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Busy`]; [`Error::Invalid`] for what is no gzip though it should be, or a bomb.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if let Some(gunzip) = &mut self.gunzip {
            gunzip.push(&bytes, &mut |_| {}).map_err(invalid)?;
        }
        self.md5.update(&bytes);
        self.length += bytes.len() as u64;
        self.receiver.write(bytes).await
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Ends it. Durable on return.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is not what was expected, nothing is kept then; else as [`Attaching::write`].
    pub async fn finish(self, expected: Expected) -> Result<Attached, Error> {
        let decoded_length = self
            .gunzip
            .as_ref()
            .map(Gunzip::end)
            .transpose()
            .map_err(invalid)?;
        let digest: [u8; 16] = self.md5.finalize().into();
        let said = (
            expected.digest.unwrap_or(digest),
            expected.length.unwrap_or(self.length),
        );
        if said != (digest, self.length) {
            let text = |(digest, length): ([u8; 16], u64)| {
                format!(
                    "md5 {} of {length} bytes",
                    data_encoding::HEXLOWER.encode(&digest)
                )
            };
            return Err(Error::Mismatch {
                expected: text(said),
                actual: text((digest, self.length)),
            });
        }
        let put = self.receiver.finish().await?;
        Ok(Attached {
            blob: put.id,
            digest,
            length: self.length,
            decoded_length,
        })
    }
}

fn invalid(error: GzipError) -> Error {
    Error::Invalid {
        what: "attachment",
        reason: error.to_string(),
    }
}
