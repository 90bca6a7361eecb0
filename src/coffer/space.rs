//! How much room the disk under a store has, and how much of it is kept for deletes.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::error::Error;

/// The most that is kept free for deletes, in bytes; a fiftieth of the disk where that is less.
const RESERVE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A disk's free bytes and all it has.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    all: u64,
}

/// Bytes free on the disk under `folder`; `None` where it can't tell.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    space(folder).map(|space| space.free)
}

/// Refuses `bytes` more where they would go into what is kept for deletes. A disk that can't tell has room.
///
/// # Errors
/// [`Error::NoSpace`].
pub(super) fn room_for(folder: &Path, bytes: u64) -> Result<(), Error> {
    match space(folder) {
        Some(space) if !space.has_room_for(bytes) => Err(Error::NoSpace {
            path: folder.to_owned(),
        }),
        _ => Ok(()),
    }
}

impl Space {
    fn has_room_for(self, bytes: u64) -> bool {
        let reserve = RESERVE_BYTES_MAX.min(self.all / 50);
        self.free >= reserve.saturating_add(bytes)
    }
}

fn space(folder: &Path) -> Option<Space> {
    let found = statvfs(folder).ok()?;
    // Some network file systems name numbers of blocks that no disk has, or none at all.
    let bytes = |blocks| wide(found.fragment_size()).saturating_mul(blocks);
    let space = Space {
        free: bytes(wide(found.blocks_available())),
        all: bytes(wide(found.blocks())),
    };
    (space.all > 0).then_some(space)
}

/// The fields of statvfs are narrower on 32 bits.
fn wide(field: impl Into<u64>) -> u64 {
    field.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fiftieth_of_a_small_disk_and_16_mebibytes_of_a_large_one_are_kept() {
        const MIB: u64 = 1024 * 1024;
        let room = |all, free, bytes| Space { free, all }.has_room_for(bytes);
        assert!(room(50 * MIB, MIB, 0));
        assert!(!room(50 * MIB, MIB, 1));
        assert!(room(u64::MAX, 17 * MIB, MIB));
        assert!(!room(u64::MAX, 17 * MIB, MIB + 1));
        assert!(!room(MIB, 0, u64::MAX));
    }
}
