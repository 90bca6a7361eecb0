//! What trees name: everything that must stay stored as long as they are named.

use std::collections::{HashMap, HashSet};

use super::commit::{Commit, Segment};
use super::error::Error;
use super::schema::load;
use super::tree::{Body, Entry, EntryName, Kind, Tree, decode, entries};
use crate::coffer::{self, Store};
use crate::id::BlobId;

/// Something a tree names, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A tree, or a leaf of one. It was read.
    Tree(BlobId),
    /// A commit. It was read.
    Commit(BlobId),
    /// A part: named, not looked for. The same one may be named again and again.
    Part(BlobId),
    /// A tree or commit that is not stored: what it names is not known.
    Missing(BlobId),
    /// A tree or commit that is stored and damaged: what it names is not known.
    Damaged(BlobId),
}

/// Visits everything below `roots`, themselves included. A tree or commit that `skip`
/// knows is neither read nor visited; each other one is once. The walk remembers the ids of trees and
/// commits, some 50 bytes each. `visit` may stop the walk with an error.
///
/// # Errors
/// What `visit` answers; [`Error::Store`], and [`Error::Newer`] for what only a newer Refuge can read.
pub fn reachable(
    store: &Store,
    roots: impl IntoIterator<Item = Root>,
    skip: &dyn Fn(&BlobId) -> bool,
    visit: &mut dyn FnMut(Named) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let mut waiting: Vec<Root> = roots.into_iter().collect();
    while let Some(next) = waiting.pop() {
        if skip(next.id()) || !seen.insert(*next.id()) {
            continue;
        }
        for name in expand(store, next, visit)? {
            match name {
                Below::Schema(schema) => waiting.push(schema),
                Below::Part(part) => visit(Named::Part(part))?,
            }
        }
    }
    Ok(())
}

/// Where a walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// A tree.
    Tree(BlobId),
    /// A commit.
    Commit(BlobId),
}

impl Root {
    /// The blob.
    pub fn id(&self) -> &BlobId {
        match self {
            Root::Tree(id) | Root::Commit(id) => id,
        }
    }
}

enum Below {
    Schema(Root),
    Part(BlobId),
}

/// Visits a schema and gives what it names.
fn expand(
    store: &Store,
    schema: Root,
    visit: &mut dyn FnMut(Named) -> Result<(), Error>,
) -> Result<Vec<Below>, Error> {
    let read = match schema {
        Root::Tree(id) => load(store, &id)
            .and_then(|bytes| decode(&id, &bytes))
            .map(below_tree),
        Root::Commit(id) => Commit::load(store, &id).map(|commit| below_commit(&commit)),
    };
    let named = match &read {
        Ok(_) => match schema {
            Root::Tree(id) => Named::Tree(id),
            Root::Commit(id) => Named::Commit(id),
        },
        Err(error) => match unreadable(error) {
            Some(named) => named,
            None => return read,
        },
    };
    visit(named)?;
    Ok(read.unwrap_or_default())
}

/// How a schema that can't be read is visited; `None` where the walk can't go on.
pub(super) fn unreadable(error: &Error) -> Option<Named> {
    match error {
        Error::Missing { id } => Some(Named::Missing(*id)),
        Error::Malformed { id, .. } | Error::Store(coffer::Error::Corrupt { id }) => {
            Some(Named::Damaged(*id))
        }
        _ => None,
    }
}

fn below_tree(tree: Tree) -> Vec<Below> {
    match tree {
        Tree::Leaf(entries) => entries.iter().flat_map(below_entry).collect(),
        Tree::Branch(leaves) => leaves
            .into_iter()
            .map(|leaf| Below::Schema(Root::Tree(leaf)))
            .collect(),
    }
}

fn below_entry(entry: &Entry) -> Vec<Below> {
    match &entry.kind {
        Kind::File { body, .. } => match body {
            Body::Empty => Vec::new(),
            Body::Part(part) => vec![Below::Part(*part)],
            Body::Commit(commit) => vec![Below::Schema(Root::Commit(*commit))],
        },
        Kind::Folder { tree, commit } => std::iter::once(Root::Tree(*tree))
            .chain(commit.map(Root::Commit))
            .map(Below::Schema)
            .collect(),
        Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => Vec::new(),
    }
}

fn below_commit(commit: &Commit) -> Vec<Below> {
    let below = commit.segments.iter().filter_map(|segment| match segment {
        Segment::Part { id, .. } => Some(Below::Part(*id)),
        Segment::Run { commit, .. } => Some(Below::Schema(Root::Commit(*commit))),
        Segment::Hole { .. } => None,
    });
    below.collect()
}

/// Visits what the tree `root` names and none of `bases` names at the same path: what a new snapshot added
/// to the ones before. It reads only folders that differ. What moved within the folder is visited as if it
/// were new.
///
/// # Errors
/// As [`reachable`]. A base that can't be read counts as one that names nothing.
pub fn added(
    store: &Store,
    bases: &[BlobId],
    root: &BlobId,
    visit: &mut dyn FnMut(Named) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let mut waiting = vec![(*root, bases.to_vec())];
    while let Some((tree, bases)) = waiting.pop() {
        if bases.contains(&tree) || !seen.insert(tree) {
            continue;
        }
        let known = known_below(store, &bases);
        for entry in visit_folder(store, &tree, visit)? {
            let before = known.get(&entry.name).map_or(&[][..], Vec::as_slice);
            if let Kind::Folder { tree, .. } = &entry.kind {
                let trees = before.iter().filter_map(folder_tree).collect();
                waiting.push((*tree, trees));
            }
            let before: Vec<BlobId> = before.iter().flat_map(named_beside_tree).collect();
            if let Some(id) = named_beside_tree(&entry.kind)
                && !before.contains(&id)
            {
                visit_beside_tree(store, &entry.kind, id, visit)?;
            }
        }
    }
    Ok(())
}

/// What the trees that are known already hold, by name.
fn known_below(store: &Store, bases: &[BlobId]) -> HashMap<EntryName, Vec<Kind>> {
    let mut known: HashMap<EntryName, Vec<Kind>> = HashMap::new();
    let read = bases.iter().filter_map(|base| entries(store, base).ok());
    for entry in read.flatten().map_while(Result::ok) {
        known.entry(entry.name).or_default().push(entry.kind);
    }
    known
}

/// Visits a tree and its leaves, and gives its entries; none where it can't be read.
fn visit_folder(
    store: &Store,
    tree: &BlobId,
    visit: &mut dyn FnMut(Named) -> Result<(), Error>,
) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    let mut waiting = vec![*tree];
    while let Some(id) = waiting.pop() {
        match load(store, &id).and_then(|bytes| decode(&id, &bytes)) {
            Ok(tree) => {
                visit(Named::Tree(id))?;
                match tree {
                    Tree::Leaf(entries) => found.extend(entries),
                    Tree::Branch(leaves) => waiting.extend(leaves),
                }
            }
            Err(error) => visit(unreadable(&error).ok_or(error)?)?,
        }
    }
    Ok(found)
}

fn folder_tree(kind: &Kind) -> Option<BlobId> {
    match kind {
        Kind::Folder { tree, .. } => Some(*tree),
        Kind::File { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => None,
    }
}

/// The part or commit an entry names.
fn named_beside_tree(kind: &Kind) -> Option<BlobId> {
    match kind {
        Kind::File { body, .. } => match body {
            Body::Empty => None,
            Body::Part(id) | Body::Commit(id) => Some(*id),
        },
        Kind::Folder { commit, .. } => *commit,
        Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => None,
    }
}

fn visit_beside_tree(
    store: &Store,
    kind: &Kind,
    id: BlobId,
    visit: &mut dyn FnMut(Named) -> Result<(), Error>,
) -> Result<(), Error> {
    match kind {
        Kind::File {
            body: Body::Part(_), ..
        } => visit(Named::Part(id)),
        Kind::File { .. } | Kind::Folder { .. } => reachable(store, [Root::Commit(id)], &|_| false, visit),
        Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::tree::{EntryName, Meta, Seen, Time, TreeWriter};
    use super::*;
    use crate::coffer::{Class, Compression, Memory};

    struct Folder {
        store: Store,
    }

    impl Folder {
        fn put(&self, bytes: impl Into<Bytes>) -> BlobId {
            let packed = self.store.pack(bytes.into(), Class::Part);
            let id = packed.id();
            self.store.backend().append(&[packed]).unwrap();
            self.store.backend().flush().unwrap();
            id
        }

        fn tree(&self, entries: &[(&str, Kind)]) -> BlobId {
            let mut put = |bytes: Vec<u8>| Ok(self.put(bytes));
            let mut writer = TreeWriter::new();
            for (name, kind) in entries {
                let entry = Entry {
                    name: EntryName::new(name.as_bytes()).unwrap(),
                    meta: Meta {
                        mode: 0,
                        uid: 0,
                        gid: 0,
                        mtime: Time(0, 0),
                    },
                    kind: kind.clone(),
                };
                writer.push(&entry, &mut put).unwrap();
            }
            writer.finish(&mut put).unwrap()
        }
    }

    fn file(body: Body) -> Kind {
        Kind::File {
            size: 1,
            body,
            seen: Seen {
                inode: 1,
                ctime: None,
                dev: None,
            },
        }
    }

    fn folder(tree: BlobId) -> Kind {
        Kind::Folder { tree, commit: None }
    }

    fn names(
        walk: impl FnOnce(&mut dyn FnMut(Named) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Vec<Named> {
        let mut named = Vec::new();
        walk(&mut |name| {
            named.push(name);
            Ok(())
        })
        .unwrap();
        named.sort_by_key(|name| format!("{name:?}"));
        named
    }

    fn sorted(mut named: Vec<Named>) -> Vec<Named> {
        named.sort_by_key(|name| format!("{name:?}"));
        named
    }

    #[test]
    fn everything_below_a_tree_is_visited_and_damage_is_told() {
        let put = Folder {
            store: Store::new(Arc::new(Memory::new()), Compression::default()).unwrap(),
        };
        let part = BlobId::of(b"part");
        let gone = BlobId::of(b"gone");
        let noise = put.put(&b"noise"[..]);
        let run = put.put(
            Commit {
                segments: vec![Segment::Part { id: part, size: 1 }],
                xattrs: vec![],
            }
            .encode(),
        );
        let commit = put.put(
            Commit {
                segments: vec![Segment::Run { commit: run, size: 1 }],
                xattrs: vec![],
            }
            .encode(),
        );
        let inner = put.tree(&[("x", file(Body::Commit(commit))), ("y", folder(gone))]);
        let root = put.tree(&[
            ("a", folder(inner)),
            ("b", folder(inner)),
            ("c", folder(noise)),
            ("d", file(Body::Part(part))),
        ]);
        let all = names(|visit| reachable(&put.store, [Root::Tree(root)], &|_| false, visit));
        let expected = sorted(vec![
            Named::Tree(root),
            Named::Tree(inner),
            Named::Commit(commit),
            Named::Commit(run),
            Named::Missing(gone),
            Named::Damaged(noise),
            Named::Part(part),
            Named::Part(part),
        ]);
        assert_eq!(all, expected);
        let skipped = names(|visit| reachable(&put.store, [Root::Tree(root)], &|id| *id == inner, visit));
        assert_eq!(
            skipped,
            sorted(vec![Named::Tree(root), Named::Damaged(noise), Named::Part(part)])
        );

        assert_eq!(names(|visit| added(&put.store, &[root], &root, visit)), []);
        assert_eq!(names(|visit| added(&put.store, &[], &inner, visit)).len(), 5);
        let grown = put.tree(&[
            ("a", folder(inner)),
            ("d", file(Body::Part(part))),
            ("e", file(Body::Part(part))),
        ]);
        assert_eq!(
            names(|visit| added(&put.store, &[gone, root], &grown, visit)),
            sorted(vec![Named::Tree(grown), Named::Part(part)])
        );
    }
}
