//! A folder while it is backed up: listed a window of names at a time, its entries filled in as they are
//! done, its tree written when all are.

use std::iter::Peekable;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::vec;

use super::super::error::Error;
use super::super::tree::{Entries, Entry, EntryName, Kind, Meta, TreeWriter, entries};
use crate::coffer::Store;
use crate::id::BlobId;

/// Entries of one folder that are held at once: some 2 MiB. What is above waits as names. Tests cross the edge
/// with fewer files.
pub(super) const WINDOW_ENTRIES: usize = if cfg!(test) { 64 } else { 8192 };

/// Stores a schema and gives its id.
pub(super) type PutSchema<'p> = &'p mut dyn FnMut(Vec<u8>) -> Result<BlobId, Error>;

pub(super) struct Folder<'a> {
    /// Relative to the folder of the backup.
    pub(super) path: PathBuf,
    /// The folder this one is in, and its slot there; `None` for the folder of the backup. The slot holds this
    /// folder, not the other way, so that what an interrupted backup did stays known from the top.
    pub(super) parent: Option<(Weak<Folder<'a>>, usize)>,
    state: Mutex<State<'a>>,
}

pub(super) struct State<'a> {
    /// What is yet to be listed; `None` before the folder was opened.
    pub(super) names: Option<vec::IntoIter<EntryName>>,
    pub(super) earlier: Earlier<'a>,
    /// The window being filled in.
    pub(super) slots: Vec<Slot<'a>>,
    /// Slots that wait, and one more while the window is being listed.
    pub(super) pending: usize,
    pub(super) commit: Option<BlobId>,
    writer: TreeWriter,
    tree: Option<BlobId>,
}

/// What an entry is while its folder is backed up.
pub(super) enum Slot<'a> {
    Done(Entry),
    /// A file that is yet to be read, or a folder that is yet to be done.
    Waiting {
        name: EntryName,
        meta: Meta,
        /// The entry in the tree this one may be equal to.
        was: Option<Entry>,
        folder: Option<Arc<Folder<'a>>>,
    },
    /// It could not be read, or is no more.
    Gone,
}

/// The same folder in earlier backups: what is the same as there needs no reading.
pub(super) struct Earlier<'a> {
    /// The first one is the snapshot before; where nothing differs from it, its tree is ours.
    trees: Vec<(BlobId, Option<Peekable<Entries<'a>>>)>,
    /// Whether everything so far is as in the first tree.
    pub(super) is_same: bool,
    /// Whether the first tree is of the snapshot before.
    has_snapshot: bool,
}

impl<'a> Earlier<'a> {
    /// Of the snapshot before and of a backup that was interrupted.
    pub(super) fn new(snapshot: Option<BlobId>, interrupted: Option<BlobId>) -> Earlier<'a> {
        let has_snapshot = snapshot.is_some();
        let trees = snapshot
            .into_iter()
            .chain(interrupted.filter(|tree| Some(*tree) != snapshot));
        Earlier {
            trees: trees.map(|tree| (tree, None)).collect(),
            is_same: has_snapshot,
            has_snapshot,
        }
    }

    /// Opens the trees. One that can't be read is one that helps nothing: the files are read instead.
    pub(super) fn open(&mut self, store: &'a Store) {
        for (index, (tree, reader)) in self.trees.iter_mut().enumerate() {
            match entries(store, tree) {
                Ok(entries) => *reader = Some(entries.peekable()),
                Err(error) => {
                    tracing::warn!(%tree, %error, "an earlier tree can't be read: its files are read again");
                    if index == 0 {
                        self.is_same = false;
                    }
                }
            }
        }
    }

    /// The entries with this name: that of the snapshot before, and that of the interrupted backup. Names
    /// are asked for in ascending order.
    pub(super) fn take(&mut self, name: &EntryName) -> (Option<Entry>, Option<Entry>) {
        let (mut snapshot, mut interrupted) = (None, None);
        for (index, (_, reader)) in self.trees.iter_mut().enumerate() {
            let is_snapshot = self.has_snapshot && index == 0;
            let (found, has_skipped) = reader
                .as_mut()
                .map_or((None, false), |reader| take_from(reader, name));
            if is_snapshot {
                self.is_same &= !has_skipped;
                snapshot = found;
            } else {
                interrupted = found;
            }
        }
        (snapshot, interrupted)
    }

    /// Notes an entry: what is not as in the snapshot before makes the folder another.
    pub(super) fn compare(&mut self, was: Option<&Entry>, is: Option<&Entry>) {
        self.is_same &= was == is;
    }

    /// The tree of the snapshot before where it is the folder's tree again.
    fn same_tree(&mut self) -> Option<BlobId> {
        let (tree, reader) = self.trees.first_mut()?;
        let is_same = self.is_same && reader.as_mut()?.next().is_none();
        is_same.then_some(*tree)
    }
}

/// The entry with this name, and whether others were passed on the way to it.
fn take_from(reader: &mut Peekable<Entries<'_>>, name: &EntryName) -> (Option<Entry>, bool) {
    let mut has_skipped = false;
    loop {
        match reader.peek() {
            Some(Ok(entry)) if entry.name < *name => has_skipped = true,
            Some(Ok(entry)) if entry.name == *name => break,
            Some(Ok(_)) | None => return (None, has_skipped),
            // Read again what an unreadable leaf can't tell.
            Some(Err(_)) => has_skipped = true,
        }
        reader.next();
    }
    let found = reader.next().and_then(Result::ok);
    (found, has_skipped)
}

impl<'a> Folder<'a> {
    pub(super) fn new(
        path: PathBuf,
        parent: Option<(Weak<Folder<'a>>, usize)>,
        earlier: Earlier<'a>,
    ) -> Folder<'a> {
        Folder {
            path,
            parent,
            state: Mutex::new(State {
                names: None,
                earlier,
                slots: Vec::new(),
                pending: 0,
                commit: None,
                writer: TreeWriter::new(),
                tree: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state
            .lock()
            .expect("no thread panics while it holds a folder")
    }
}

/// What is next for a folder whose window is done.
pub(super) enum Next {
    /// The next window is to be listed.
    List,
    /// The folder is done.
    Done(Kind),
}

impl<'a> State<'a> {
    /// Fills a slot in; no `kind` where there is nothing to record. Says whether it was the last one that was
    /// waited for: then, and only then, the caller goes on with the folder. Asked apart, two who fill the last
    /// two slots would both go on with it.
    #[must_use]
    pub(super) fn fill(&mut self, slot: usize, kind: Option<Kind>, newer_meta: Option<Meta>) -> bool {
        let Slot::Waiting { name, meta, was, .. } = std::mem::replace(&mut self.slots[slot], Slot::Gone)
        else {
            unreachable!("a slot is filled in once");
        };
        self.pending -= 1;
        let entry = kind.map(|kind| Entry {
            name,
            meta: newer_meta.unwrap_or(meta),
            kind,
        });
        self.earlier.compare(was.as_ref(), entry.as_ref());
        if let Some(entry) = entry {
            self.slots[slot] = Slot::Done(entry);
        }
        self.pending == 0
    }

    /// Goes on after the last slot was filled in, or a window was listed that waits for none.
    ///
    /// # Errors
    /// What `put` answers.
    pub(super) fn advance(&mut self, put: PutSchema<'_>) -> Result<Next, Error> {
        let has_more = self.names.as_ref().is_some_and(|names| names.len() > 0);
        if !has_more
            && self.writer.is_untouched()
            && let Some(tree) = self.earlier.same_tree()
        {
            return Ok(Next::Done(self.end(tree)));
        }
        for slot in std::mem::take(&mut self.slots) {
            match slot {
                Slot::Done(entry) => self.writer.push(&entry, put)?,
                Slot::Gone => {}
                // Going on would leave it out of the snapshot without a word.
                Slot::Waiting { name, .. } => unreachable!("{name:?} is still being read"),
            }
        }
        if has_more {
            return Ok(Next::List);
        }
        let tree = std::mem::replace(&mut self.writer, TreeWriter::new()).finish(put)?;
        Ok(Next::Done(self.end(tree)))
    }

    fn end(&mut self, tree: BlobId) -> Kind {
        self.tree = Some(tree);
        self.slots = Vec::new();
        Kind::Folder {
            tree,
            commit: self.commit,
        }
    }

    /// The folder as far as it is done: its tree, or what it would be made of.
    pub(super) fn so_far(&self) -> SoFar<'a> {
        if let Some(tree) = self.tree {
            return SoFar::Tree(tree);
        }
        let mut done = Vec::new();
        let mut waiting = Vec::new();
        for slot in &self.slots {
            match slot {
                Slot::Done(entry) => done.push(entry.clone()),
                Slot::Waiting {
                    name, meta, folder, ..
                } => {
                    waiting.extend(folder.clone().map(|folder| (name.clone(), *meta, folder)));
                }
                Slot::Gone => {}
            }
        }
        SoFar::Parts {
            writer: self.writer.clone(),
            done,
            waiting,
        }
    }
}

/// A folder as far as it is done.
pub(super) enum SoFar<'a> {
    /// All of it.
    Tree(BlobId),
    /// Some of it.
    Parts {
        writer: TreeWriter,
        done: Vec<Entry>,
        waiting: Vec<(EntryName, Meta, Arc<Folder<'a>>)>,
    },
}
