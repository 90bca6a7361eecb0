//! The suite every engine must pass: the contract of `engine.rs`, one function a promise.
//!
//! An engine is looked at through the [`Database`] over it, the only thing that ever calls one: so what documents, orders and
//! settings promise is tested with every engine, too. An engine joins with one line:
//!
//! ```ignore
//! contract!(memory, |_folder| Arc::new(Memory::default()), Keeps::Nothing);
//! ```

mod docs;
mod model;
mod orders;
mod rest;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::changes::{Change, ChangesEnd, ChangesQuery, ListQuery, Listed};
use super::database::Database;
use super::doc::{Attachment, AttachmentEdit, Body, Doc, Edit, Refused};
use super::engine::Engine;
use super::kind::EngineKind;
use super::memory::Memory;
#[cfg(feature = "couchdb")]
use super::servers::{ServerPlace, Servers};
use super::settings::Settings;
use super::sqlite::{DOCUMENTS_FILE, Sqlite};
use super::tree::REVS_LIMIT;
use crate::id::{BlobId, DocId, Rev, Seq, StoreName};

pub(crate) use docs::*;
pub(crate) use model::agrees_with_the_model;
pub(crate) use orders::*;
pub(crate) use rest::*;

/// Opens, and where nothing is there makes, an engine in a folder.
pub(super) type Open = fn(&Path) -> Arc<dyn Engine>;

/// What an engine still has after it was dropped and opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Everything.
    Everything,
    /// Nothing: reopening is not tested.
    Nothing,
}

/// Makes a test of every promise for an engine.
macro_rules! contract {
    ($name:ident, $open:expr, $keeps:expr) => {
        mod $name {
            use super::*;
            $crate::blanket::contract::contract!(@of $crate::blanket::contract::Subject::new($open, $keeps));
        }
    };
    // An engine whose subjects are made in another way.
    (@of $subject:expr) => {
        $crate::blanket::contract::contract!(@each $subject,
                a_document_comes_back_as_it_was_written
                a_new_edit_must_follow_a_leaf
                a_deleted_document_is_answered_and_can_be_written_again
                a_replicated_revision_is_always_taken
                what_wins_moves_with_what_it_holds
                edits_of_one_document_in_one_call_follow_one_another
                what_is_refused_leaves_the_rest_alone
                stubs_stand_for_what_the_revision_before_has
                branches_are_remembered_up_to_the_limit
                differences_of_revisions_are_told
                changes_come_in_order_and_go_on_anywhere
                changes_tell_how_many_are_left
                a_document_stands_once_where_it_changed_last
                a_list_is_in_the_order_of_bytes
                a_list_begins_and_ends_anywhere
                visitors_may_ask_the_database_and_stop
                local_documents_are_in_no_order_of_changes
                purged_revisions_are_gone_and_sequences_go_on
                settings_are_remembered
                everything_is_there_after_reopening
                threads_that_write_at_once_are_all_answered
                whoever_waits_hears_of_changes
                compaction_loses_nothing
                every_blob_that_a_leaf_names_is_told
                agrees_with_the_model
        );
    };
    (@each $subject:expr, $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            $crate::blanket::contract::$promise(&$subject);
        })*
    };
}
pub(crate) use contract;

contract!(memory, |_folder| Arc::new(Memory::default()), Keeps::Nothing);

contract!(
    sqlite,
    |folder| Arc::new(Sqlite::open(&folder.join(DOCUMENTS_FILE)).unwrap()),
    Keeps::Everything
);

#[cfg(feature = "lsm")]
contract!(
    lsm,
    |folder| crate::blanket::lsm::open(folder).unwrap(),
    Keeps::Everything
);

#[cfg(feature = "leveldb")]
contract!(
    leveldb,
    |folder| crate::blanket::leveldb::open(folder).unwrap(),
    Keeps::Everything
);

/// An engine under test and the folder it lives in.
pub(crate) struct Subject {
    folder: TempDir,
    open: Opened,
    keeps: Keeps,
}

/// How an engine under test is opened.
enum Opened {
    By(Open),
    /// On a database of a server; another is made where the other function is asked.
    #[cfg(feature = "couchdb")]
    On(ServerPlace, Servers, Serve),
}

/// Has a server in a folder, and names a database of it that is not there yet.
#[cfg(feature = "couchdb")]
pub(crate) type Serve = fn(&Path) -> (ServerPlace, Servers);

impl Subject {
    pub(super) fn new(open: Open, keeps: Keeps) -> Subject {
        Subject::of(Opened::By(open), keeps)
    }

    /// The engine `couchdb` on a server.
    #[cfg(feature = "couchdb")]
    pub(crate) fn on_server(serve: Serve) -> Subject {
        let mut subject = Subject::of(Opened::By(|_| Arc::new(Memory::default())), Keeps::Everything);
        let (place, servers) = serve(subject.folder.path());
        subject.open = Opened::On(place, servers, serve);
        subject
    }

    /// Whether what it keeps is in its folder.
    fn is_here(&self) -> bool {
        matches!(self.open, Opened::By(_))
    }

    /// Another of its kind.
    fn another(&self) -> Subject {
        match self.open {
            Opened::By(open) => Subject::new(open, self.keeps),
            #[cfg(feature = "couchdb")]
            Opened::On(_, _, serve) => Subject::on_server(serve),
        }
    }

    fn open(&self) -> Arc<dyn Engine> {
        match &self.open {
            Opened::By(open) => open(self.folder.path()),
            #[cfg(feature = "couchdb")]
            Opened::On(place, servers, _) => {
                crate::blanket::couchdb::open(self.folder.path(), servers, Some(place)).expect("a server")
            }
        }
    }

    fn of(open: Opened, keeps: Keeps) -> Subject {
        // In memory where that can be had: what is flushed matters here, not how long it takes.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Subject {
            folder: folder.expect("a folder for the test"),
            open,
            keeps,
        }
    }

    /// An empty database over the engine.
    pub(super) fn create(&self) -> Database {
        let engine = self.open();
        let settings = Settings::fresh(StoreName::main(), REVS_LIMIT).expect("random numbers");
        settings.write(&engine).expect("an empty engine takes settings");
        over(engine)
    }

    /// Drops the database and opens it again; the same where it keeps nothing.
    fn reopen(&self, database: Database) -> Database {
        match self.keeps {
            Keeps::Everything => {
                drop(database);
                over(self.open())
            }
            Keeps::Nothing => database,
        }
    }
}

fn over(engine: Arc<dyn Engine>) -> Database {
    let settings = Settings::read(&engine)
        .expect("readable")
        .expect("written before");
    let name = "contract".parse().expect("a name");
    Database::new(name, EngineKind::Memory, engine, settings).expect("a database")
}

pub(crate) fn id(text: &str) -> DocId {
    text.parse().expect("an id")
}

pub(crate) fn rev(text: &str) -> Rev {
    text.parse().expect("a revision")
}

pub(crate) fn body(json: &str) -> Body {
    Body::parse(json).expect("a body")
}

/// A new edit without attachments.
pub(crate) fn edit(id: &str, parent: Option<&Rev>, json: &str) -> Edit {
    Edit::New {
        id: self::id(id),
        parent: parent.cloned(),
        deleted: false,
        body: body(json),
        attachments: BTreeMap::new(),
    }
}

pub(crate) fn deletion(id: &str, parent: &Rev) -> Edit {
    Edit::New {
        id: self::id(id),
        parent: Some(parent.clone()),
        deleted: true,
        body: Body::default(),
        attachments: BTreeMap::new(),
    }
}

/// A revision from elsewhere; its body names it.
pub(crate) fn replicated(id: &str, revisions: &[&str], deleted: bool) -> Edit {
    Edit::Replicated {
        id: self::id(id),
        revisions: revisions.iter().map(|text| rev(text)).collect(),
        deleted,
        body: body(&format!("{{\"of\":\"{}\"}}", revisions[0])),
        attachments: BTreeMap::new(),
    }
}

pub(crate) fn attachment(bytes: &[u8]) -> Attachment {
    Attachment {
        content_type: "text/plain".to_owned(),
        revpos: 0,
        digest: [bytes.len().to_le_bytes()[0]; 16],
        length: bytes.len() as u64,
        blob: BlobId::of(bytes),
        encoded: None,
    }
}

/// The same edit with these attachments.
pub(crate) fn with(edit: Edit, named: &[(&str, AttachmentEdit)]) -> Edit {
    let hanging: BTreeMap<String, AttachmentEdit> = named
        .iter()
        .map(|(name, attachment)| ((*name).to_owned(), attachment.clone()))
        .collect();
    match edit {
        Edit::New {
            id,
            parent,
            deleted,
            body,
            ..
        } => Edit::New {
            id,
            parent,
            deleted,
            body,
            attachments: hanging,
        },
        Edit::Replicated {
            id,
            revisions,
            deleted,
            body,
            ..
        } => Edit::Replicated {
            id,
            revisions,
            deleted,
            body,
            attachments: hanging,
        },
    }
}

/// Makes an edit that is not refused.
pub(crate) fn save(database: &Database, edit: Edit) -> Rev {
    database.save_doc(edit).expect("a write").expect("not refused")
}

pub(crate) fn refused(database: &Database, edit: Edit) -> Refused {
    database.save_doc(edit).expect("a write").expect_err("refused")
}

/// The winner of a document that was written.
pub(crate) fn open(database: &Database, id: &str) -> Doc {
    database
        .open_doc(&self::id(id))
        .expect("readable")
        .expect("written")
}

pub(crate) fn changes(database: &Database, query: &ChangesQuery) -> (Vec<Change>, ChangesEnd) {
    let mut changes = Vec::new();
    let end = database.changes(query, &mut |change| {
        changes.push(change);
        ControlFlow::Continue(())
    });
    (changes, end.expect("readable"))
}

pub(crate) fn listed(database: &Database, query: &ListQuery) -> Vec<Listed> {
    let mut listed = Vec::new();
    let visited = database.list(query, &mut |row| {
        listed.push(row);
        ControlFlow::Continue(())
    });
    visited.expect("readable");
    listed
}

pub(crate) fn ids(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|row| row.id.as_str()).collect()
}

pub(crate) fn seq(number: u64) -> Seq {
    Seq::new(number).expect("a sequence")
}
