//! Reads folders back from the store: all entries in order, or the one a path names.

use std::path::Path;
use std::vec;

use std::os::unix::ffi::OsStrExt;

use super::super::error::Error;
use super::super::schema::load;
use super::wire::{Tree, decode};
use super::{Entry, EntryName, Kind};
use crate::coffer::Store;
use crate::id::BlobId;

/// The entries of a folder in ascending order of name, a leaf at a time.
pub struct Entries<'a> {
    store: &'a Store,
    tree: BlobId,
    leaf: vec::IntoIter<Entry>,
    leaves: vec::IntoIter<BlobId>,
    last: Option<EntryName>,
}

/// The entries of the folder with this tree.
///
/// # Errors
/// [`Error::Missing`], [`Error::Malformed`], [`Error::Newer`], [`Error::Store`]; so may each item.
pub fn entries<'a>(store: &'a Store, tree: &BlobId) -> Result<Entries<'a>, Error> {
    let (leaf, leaves) = match decode(tree, &load(store, tree)?)? {
        Tree::Leaf(entries) => (entries, Vec::new()),
        Tree::Branch(leaves) => (Vec::new(), leaves),
    };
    Ok(Entries {
        store,
        tree: *tree,
        leaf: leaf.into_iter(),
        leaves: leaves.into_iter(),
        last: None,
    })
}

/// The entry at `path` below the folder with this tree; `None` where there is none. `.` parts are ignored,
/// links are not followed.
///
/// # Errors
/// As [`entries`]. [`Error::NoPath`] for a path with `..`, or an empty one.
pub fn find(store: &Store, tree: &BlobId, path: &Path) -> Result<Option<Entry>, Error> {
    use std::path::Component;
    let no_path = || Error::NoPath {
        path: path.to_owned(),
    };
    let mut folder = Some(*tree);
    let mut found = None;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => EntryName::new(name.as_bytes()).ok_or_else(no_path)?,
            Component::CurDir | Component::RootDir => continue,
            Component::ParentDir | Component::Prefix(_) => return Err(no_path()),
        };
        let Some(tree) = folder else { return Ok(None) };
        let Some(entry) = find_in(store, &tree, &name)? else {
            return Ok(None);
        };
        folder = match &entry.kind {
            Kind::Folder { tree, .. } => Some(*tree),
            Kind::File { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => None,
        };
        found = Some(entry);
    }
    found.map(Some).ok_or_else(no_path)
}

fn find_in(store: &Store, tree: &BlobId, name: &EntryName) -> Result<Option<Entry>, Error> {
    for entry in entries(store, tree)? {
        let entry = entry?;
        if entry.name >= *name {
            return Ok((entry.name == *name).then_some(entry));
        }
    }
    Ok(None)
}

impl Entries<'_> {
    /// Opens the next leaf; `false` at the end.
    fn next_leaf(&mut self) -> Result<bool, Error> {
        let Some(id) = self.leaves.next() else {
            return Ok(false);
        };
        let Tree::Leaf(entries) = decode(&id, &load(self.store, &id)?)? else {
            return Err(Error::tree(&id, "it is a branch where a leaf must be"));
        };
        let follows = match (&self.last, entries.first()) {
            (Some(last), Some(first)) => last < &first.name,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if !follows {
            return Err(Error::tree(&self.tree, "its leaves are out of order"));
        }
        self.last = entries.last().map(|entry| entry.name.clone());
        self.leaf = entries.into_iter();
        Ok(true)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(Ok(entry));
            }
            match self.next_leaf() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.leaves = Vec::new().into_iter();
                    return Some(Err(error));
                }
            }
        }
    }
}
