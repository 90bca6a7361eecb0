//! Revisions from one peer to another: read one by one, written in groups that bound what is held.

use super::peer::{Failure, Moved, Peer, Revision, Wanted};
use crate::id::Rev;

/// Bytes of documents that are written together: four batches of a session hold so much each, and one document more.
const GROUP_BYTES: usize = 1024 * 1024;

/// Brings what is wanted from `source` to `target`. Of a batch that fails some may be stored.
///
/// # Errors
/// What either failed with.
pub(super) async fn transfer(
    source: &dyn Peer,
    target: &dyn Peer,
    wanted: &[Wanted],
) -> Result<Moved, Failure> {
    let mut revisions = source.fetch(wanted).await?;
    let (mut group, mut bytes, mut moved): (Vec<(Revision, &[Rev])>, _, _) =
        (Vec::new(), 0, Moved::default());
    loop {
        let next = revisions.next().await?;
        let is_end = next.is_none();
        if let Some(revision) = next {
            moved.read += 1;
            bytes += revision.held_bytes();
            let one = wanted.iter().find(|one| one.id == revision.id);
            group.push((revision, one.map_or(&[], |one| &one.ancestors)));
        }
        if (is_end || bytes >= GROUP_BYTES) && !group.is_empty() {
            let stored = target.store(std::mem::take(&mut group), source).await?;
            moved.written += stored.written;
            moved.refused += stored.refused;
            bytes = 0;
        }
        if is_end {
            return Ok(moved);
        }
    }
}
