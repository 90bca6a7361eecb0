//! What is different between two folders in the store.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::path::PathBuf;

use super::beneath::join;
use super::commit::{Commit, Segment};
use super::error::Error;
use super::tree::{Body, Entries, Entry, Kind, entries};
use crate::coffer::Store;
use crate::id::BlobId;

/// A difference at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path, relative to the folders compared.
    pub path: PathBuf,
    /// What is different there.
    pub change: Change,
}

/// What is different at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only in the second folder.
    Added(Entry),
    /// Only in the first folder.
    Removed(Entry),
    /// In both, and not the same.
    Changed {
        /// As it is in the first folder.
        before: Entry,
        /// As it is in the second folder.
        after: Entry,
        /// Whether it is of another type, has other bytes or points elsewhere.
        content: bool,
        /// Whether its mode, owner, mtime or extended attributes are others.
        meta: bool,
    },
}

/// Tells `visit` each difference from the first tree to the second, in the order of a walk with sorted
/// names; everything in a folder that was added or removed is told as well. Without a first tree everything
/// is added. Folders that are equal are not read; memory is a leaf of each folder on the way down.
///
/// # Errors
/// What `visit` answers; [`Error::Missing`], [`Error::Malformed`], [`Error::Newer`], [`Error::Store`].
pub fn diff(
    store: &Store,
    first: Option<&BlobId>,
    second: &BlobId,
    visit: &mut dyn FnMut(Difference) -> Result<(), Error>,
) -> Result<(), Error> {
    if first == Some(second) {
        return Ok(());
    }
    let mut levels = vec![Level::open(store, PathBuf::new(), first, Some(second))?];
    while let Some(level) = levels.last_mut() {
        let Some((before, after)) = level.next_pair()? else {
            levels.pop();
            continue;
        };
        let Some(name) = before.as_ref().or(after.as_ref()).map(|entry| &entry.name) else {
            continue;
        };
        let path = join(&level.path, name);
        let trees = (
            before.as_ref().and_then(tree_of),
            after.as_ref().and_then(tree_of),
        );
        if let Some(change) = compare(store, before, after)? {
            visit(Difference {
                path: path.clone(),
                change,
            })?;
        }
        if trees.0 != trees.1 {
            levels.push(Level::open(store, path, trees.0.as_ref(), trees.1.as_ref())?);
        }
    }
    Ok(())
}

/// What each of two folders has under one name.
type Pair = (Option<Entry>, Option<Entry>);

/// Two folders at the same path, read side by side.
struct Level<'a> {
    path: PathBuf,
    first: Option<Peekable<Entries<'a>>>,
    second: Option<Peekable<Entries<'a>>>,
}

impl<'a> Level<'a> {
    fn open(
        store: &'a Store,
        path: PathBuf,
        first: Option<&BlobId>,
        second: Option<&BlobId>,
    ) -> Result<Level<'a>, Error> {
        let open = |tree: Option<&BlobId>| match tree {
            Some(tree) => entries(store, tree).map(|entries| Some(entries.peekable())),
            None => Ok(None),
        };
        Ok(Level {
            path,
            first: open(first)?,
            second: open(second)?,
        })
    }

    /// The next name and what each folder has there; `None` at the end of both.
    fn next_pair(&mut self) -> Result<Option<Pair>, Error> {
        let order = match (peek(&mut self.first), peek(&mut self.second)) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(Ok(first)), Some(Ok(second))) => first.name.cmp(&second.name),
            (Some(_), Some(_)) => Ordering::Equal,
        };
        let mut first = None;
        let mut second = None;
        if order != Ordering::Greater {
            first = self.first.as_mut().and_then(Iterator::next).transpose()?;
        }
        if order != Ordering::Less {
            second = self.second.as_mut().and_then(Iterator::next).transpose()?;
        }
        Ok(Some((first, second)))
    }
}

fn peek<'e, 'a>(entries: &'e mut Option<Peekable<Entries<'a>>>) -> Option<&'e Result<Entry, Error>> {
    entries.as_mut().and_then(Peekable::peek)
}

fn compare(store: &Store, before: Option<Entry>, after: Option<Entry>) -> Result<Option<Change>, Error> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(before), None) => return Ok(Some(Change::Removed(before))),
        (None, Some(after)) => return Ok(Some(Change::Added(after))),
        (None, None) => return Ok(None),
    };
    let (content, xattrs) = compare_kinds(store, &before.kind, &after.kind)?;
    let meta = xattrs || before.meta != after.meta;
    let change = Change::Changed {
        before,
        after,
        content,
        meta,
    };
    Ok((content || meta).then_some(change))
}

/// Whether the contents differ, and whether the extended attributes do. What a backup recognises files by is
/// no difference; neither is what is in a folder, which is told by itself.
fn compare_kinds(store: &Store, before: &Kind, after: &Kind) -> Result<(bool, bool), Error> {
    match (before, after) {
        (
            Kind::File { size, body, .. },
            Kind::File {
                size: other_size,
                body: other,
                ..
            },
        ) => {
            if body == other {
                return Ok((size != other_size, false));
            }
            let (before, after) = (said(store, body, *size)?, said(store, other, *other_size)?);
            Ok((before.segments != after.segments, before.xattrs != after.xattrs))
        }
        (Kind::Folder { commit, .. }, Kind::Folder { commit: other, .. }) => Ok((false, commit != other)),
        _ => Ok((before != after, false)),
    }
}

/// A body as the commit that says the same.
fn said(store: &Store, body: &Body, size: u64) -> Result<Commit, Error> {
    Ok(match body {
        Body::Empty => Commit::default(),
        Body::Part(id) => Commit {
            segments: vec![Segment::Part { id: *id, size }],
            xattrs: Vec::new(),
        },
        Body::Commit(id) => Commit::load(store, id)?,
    })
}

fn tree_of(entry: &Entry) -> Option<BlobId> {
    match &entry.kind {
        Kind::Folder { tree, .. } => Some(*tree),
        Kind::File { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => None,
    }
}

/// The paths of files and folders that name one of these blobs, at most `limit`. Folders that can't be read
/// are passed over.
pub(super) fn paths_naming(
    store: &Store,
    tree: &BlobId,
    limit: usize,
    is_wanted: &dyn Fn(&BlobId) -> bool,
) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut waiting = vec![(PathBuf::new(), *tree)];
    while let Some((path, tree)) = waiting.pop() {
        let Ok(inside) = entries(store, &tree) else {
            continue;
        };
        for entry in inside.map_while(Result::ok) {
            if paths.len() >= limit {
                return paths;
            }
            let path = join(&path, &entry.name);
            if names_wanted(store, &entry.kind, is_wanted) {
                paths.push(path.clone());
            }
            waiting.extend(tree_of(&entry).map(|tree| (path, tree)));
        }
    }
    paths
}

fn names_wanted(store: &Store, kind: &Kind, is_wanted: &dyn Fn(&BlobId) -> bool) -> bool {
    match kind {
        Kind::File { body, .. } => match body {
            Body::Empty => false,
            Body::Part(id) => is_wanted(id),
            Body::Commit(id) => is_wanted(id) || commit_names_wanted(store, id, is_wanted),
        },
        Kind::Folder { tree, commit } => is_wanted(tree) || commit.is_some_and(|commit| is_wanted(&commit)),
        Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => false,
    }
}

fn commit_names_wanted(store: &Store, id: &BlobId, is_wanted: &dyn Fn(&BlobId) -> bool) -> bool {
    let Ok(commit) = Commit::load(store, id) else {
        return false;
    };
    commit.pieces(store).any(|piece| match piece {
        Ok(Segment::Part { id, .. }) => is_wanted(&id),
        Ok(Segment::Hole { .. } | Segment::Run { .. }) => false,
        // Its run is among what can't be read.
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn differences_are_told_by_path_and_by_what_differs() {
        let scene = Scene::new();
        for path in ["same/a", "gone/b", "bytes", "mode", "type"] {
            scene.write(path, path);
        }
        symlink("x", scene.source().join("link")).unwrap();
        let first = scene.backup().snapshot.tree;
        let source = scene.source();
        fs::remove_dir_all(source.join("gone")).unwrap();
        scene.write("new/c", "c");
        scene.write("bytes", "other");
        fs::set_permissions(source.join("mode"), Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(source.join("type")).unwrap();
        symlink("bytes", source.join("type")).unwrap();
        let second = scene.backup().snapshot.tree;

        let tell = |first: Option<&BlobId>, second: &BlobId| {
            let mut told = Vec::new();
            let mut visit = |difference: Difference| {
                let what = match difference.change {
                    Change::Added(_) => "+",
                    Change::Removed(_) => "-",
                    Change::Changed { content: true, .. } => "M",
                    Change::Changed { .. } => "U",
                };
                told.push(format!("{what} {}", difference.path.display()));
                Ok(())
            };
            diff(&scene.repository.store, first, second, &mut visit).unwrap();
            told
        };
        assert_eq!(
            tell(Some(&first), &second),
            [
                "M bytes", "- gone", "- gone/b", "U mode", "+ new", "+ new/c", "M type"
            ]
        );
        assert_eq!(tell(Some(&second), &second), Vec::<String>::new());
        assert_eq!(tell(None, &second).len(), 8);
    }
}
