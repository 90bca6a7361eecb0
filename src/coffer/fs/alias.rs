//! Aliases: one small file for each SHA-256 by which a client put a blob.
//!
//! ```text
//! sha256;<64 hex> blake3;<64 hex> <8 hex: how BLAKE3 of the text up to here begins>\n
//! ```

use std::fs;
use std::io;

use super::layout;
use super::place::{Folder, Place, read_file};
use crate::coffer::error::Error;
use crate::id::{BlobId, Sha256Id};

/// The blob an alias stands for. A damaged file counts as none: the client that puts by it again mends it.
pub(super) fn resolve(place: &Place, alias: &Sha256Id) -> Result<Option<BlobId>, Error> {
    let path = layout::alias_path(place.root(), alias);
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            place.still_there()?;
            return Ok(None);
        }
        Err(source) => return Err(Error::io(&path, source)),
    };
    let id = parse(alias, &text);
    if id.is_none() {
        tracing::warn!(%alias, "a damaged alias was ignored: put the blob by it again");
    }
    Ok(id)
}

/// Remembers an alias. Durable on return.
pub(super) fn add(place: &Place, alias: &Sha256Id, id: &BlobId) -> Result<(), Error> {
    place.writable()?;
    let folder = place.folder(Folder::Alias(alias.as_bytes()[0]))?;
    if resolve(place, alias)? != Some(*id) {
        let path = layout::alias_path(place.root(), alias);
        let temp = place.write_temp(encode(alias, id).as_bytes())?;
        fs::rename(&temp.path, &path).map_err(|source| place.failed(&path, source))?;
    }
    // Where it was there as well: another host may not have flushed it yet.
    place.flush_folder(&folder)
}

fn encode(alias: &Sha256Id, id: &BlobId) -> String {
    let text = format!("{alias} {id}");
    let check = &blake3::hash(text.as_bytes()).to_hex()[..8];
    format!("{text} {check}\n")
}

/// What the file of an alias says, where it is whole.
pub(super) fn parse(alias: &Sha256Id, text: &[u8]) -> Option<BlobId> {
    let text = std::str::from_utf8(text).ok()?;
    let id = text.split(' ').nth(1)?.parse().ok()?;
    (encode(alias, &id) == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_drawn_and_no_damage_gives_another_blob() {
        let (alias, id) = (Sha256Id::from_bytes([1; 32]), BlobId::of(b""));
        let text = encode(&alias, &id);
        assert!(text.starts_with("sha256;0101"));
        assert_eq!(text.len(), 7 + 64 + 1 + 7 + 64 + 1 + 8 + 1);
        assert_eq!(parse(&alias, text.as_bytes()), Some(id));
        assert_eq!(parse(&Sha256Id::from_bytes([2; 32]), text.as_bytes()), None);
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(parse(&alias, &damaged), None, "bit flipped at {at}");
            assert_eq!(parse(&alias, &text.as_bytes()[..at]), None, "cut at {at}");
        }
    }
}
