//! What a database remembers about itself, in its engine: one key each, written in the same transactions as documents.
//!
//! What a database is (its uuid, the store of its attachments) is written before its folder has its name, so that no power cut
//! leaves one without them; what is changed later is durable when the call that changed it returns.

use std::sync::Arc;

use super::engine::{Engine, Group};
use super::error::Error;
use super::tree::REVS_LIMIT;
use crate::id::{DbUuid, StoreName};

/// The format of what documents, trees and settings look like; a greater one is refused.
const FORMAT: u32 = 1;

const FORMAT_KEY: &str = "format";
const UUID_KEY: &str = "uuid";
const BLOBS_KEY: &str = "blobs";
pub(super) const REVS_LIMIT_KEY: &str = "revs_limit";
pub(super) const SECURITY_KEY: &str = "security";

/// What a database was made as.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) uuid: DbUuid,
    pub(super) blobs: StoreName,
    pub(super) revs_limit: u32,
}

impl Settings {
    /// Those of a new database.
    pub(super) fn fresh(blobs: StoreName, revs_limit: u32) -> Result<Settings, Error> {
        let mut uuid = [0; 8];
        getrandom::fill(&mut uuid).map_err(Error::Random)?;
        Ok(Settings {
            uuid: DbUuid::from_bytes(uuid),
            blobs,
            revs_limit: revs_limit.max(1),
        })
    }

    /// Writes them into an empty engine.
    pub(super) fn write(&self, engine: &Arc<dyn Engine>) -> Result<(), Error> {
        let settings = vec![
            (FORMAT_KEY, FORMAT.to_be_bytes().to_vec()),
            (UUID_KEY, self.uuid.as_bytes().to_vec()),
            (BLOBS_KEY, self.blobs.as_str().as_bytes().to_vec()),
            (REVS_LIMIT_KEY, self.revs_limit.to_be_bytes().to_vec()),
        ];
        let mut group = Some(Group {
            settings,
            ..Group::default()
        });
        engine.update(&[], &mut |_| group.take().unwrap_or_default())
    }

    /// Reads them; `None` where they are not all there and well formed.
    pub(super) fn read(engine: &Arc<dyn Engine>) -> Result<Option<Settings>, Error> {
        let text = |key| -> Result<Option<StoreName>, Error> {
            let bytes = engine.setting(key)?;
            Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
        };
        let uuid = engine.setting(UUID_KEY)?;
        let uuid = uuid
            .and_then(|bytes| bytes.try_into().ok())
            .map(DbUuid::from_bytes);
        let revs_limit = engine.setting(REVS_LIMIT_KEY)?;
        let revs_limit = revs_limit
            .as_deref()
            .and_then(revs_limit_of)
            .unwrap_or(REVS_LIMIT);
        Ok(uuid.zip(text(BLOBS_KEY)?).map(|(uuid, blobs)| Settings {
            uuid,
            blobs,
            revs_limit,
        }))
    }
}

/// Whether a newer Refuge wrote the database.
pub(super) fn is_newer(engine: &Arc<dyn Engine>) -> Result<bool, Error> {
    let format = engine
        .setting(FORMAT_KEY)?
        .and_then(|bytes| bytes.try_into().ok());
    Ok(format
        .map(u32::from_be_bytes)
        .is_some_and(|format| format > FORMAT))
}

/// The limit in a setting's value.
pub(super) fn revs_limit_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
