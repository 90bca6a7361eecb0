//! The document databases of a node: made, opened, bounded in number, deleted.
//!
//! ```text
//! databases/NAME/            one database; `/` in its name is written `%2F`
//! ```
//!
//! At most [`DATABASES_OPEN_MAX`] stay open when nobody uses them; which were not used for longest are closed. One whose changes
//! somebody waits for is in use: at most [`DATABASES_USED_MAX`] are. A database that cannot be opened does not stop the others, and the collector frees nothing in its store then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::blobs::Blobs;
use super::error::{Error, Kind};
use super::events::{Event, Events};
use super::refs::INCOMPLETE_NAMED_MAX;
use super::stores::Stores;
use crate::blanket::{self, AttachmentEdit, Database, Edit, Refused, Servers};
use crate::db;
use crate::id::{BlobId, DbName, DbUuid, Rev, Seq, SeqError, StoreName};

/// Databases that stay open when nobody uses them: each holds three connections of SQLite, some 300 KiB.
pub const DATABASES_OPEN_MAX: usize = 16;

/// Databases that are in use at a time, such as by apps that wait for their changes.
pub const DATABASES_USED_MAX: usize = 64;

/// Databases of a node.
const DATABASES_MAX: usize = 10_000;

/// The databases of a node; cloning is cheap.
#[derive(Clone)]
pub struct Documents {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    servers: Servers,
    stores: Stores,
    events: Events,
    shelf: Mutex<Shelf>,
    /// One for each database that is made, opened or deleted now, so that its folder and the shelf change together: one whose server does
    /// not answer keeps nobody from the others.
    changing: Mutex<BTreeMap<DbName, Arc<Mutex<()>>>>,
}

#[derive(Default)]
struct Shelf {
    names: BTreeSet<DbName>,
    open: BTreeMap<DbName, Opened>,
    /// Counts uses.
    used: u64,
}

struct Opened {
    db: Db,
    used: u64,
}

/// An open database with the store of its attachments; cloning is cheap.
#[derive(Clone)]
pub struct Db {
    inner: Arc<DbInner>,
}

struct DbInner {
    name: DbName,
    database: Database,
    blobs: Blobs,
    /// Cancelled when the database is deleted.
    gone: CancellationToken,
}

impl Documents {
    /// Finds the databases below `folder`. Blocking; opens none.
    pub(super) fn open(
        folder: PathBuf,
        servers: Servers,
        stores: Stores,
        events: Events,
    ) -> Result<Documents, Error> {
        let names = blanket::list_dbs(&folder)?.into_iter().collect();
        let shelf = Shelf {
            names,
            ..Shelf::default()
        };
        Ok(Documents {
            inner: Arc::new(Inner {
                folder,
                servers,
                stores,
                events,
                shelf: Mutex::new(shelf),
                changing: Mutex::default(),
            }),
        })
    }

    /// Every database, by name. Does not block.
    pub fn list(&self) -> Vec<DbName> {
        self.inner.shelf().names.iter().cloned().collect()
    }

    /// Makes a database. Durable on return; goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Conflict`] where there is one of this name; [`Error::Missing`] without the store of its attachments;
    /// [`Error::Invalid`] for an engine that is not built in, or one database too many; [`Error::Away`].
    pub async fn create(&self, name: DbName, options: blanket::Options) -> Result<Db, Error> {
        let inner = Arc::clone(&self.inner);
        db::crossing(move || inner.create(name, &options)).await
    }

    /// A database by name, opened where it is not.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Busy`] where as many as may be open are in use; [`Error::Away`].
    pub async fn get(&self, name: DbName) -> Result<Db, Error> {
        if let Some(db) = self.inner.shelf().take(&name) {
            return Ok(db);
        }
        let inner = Arc::clone(&self.inner);
        db::crossing(move || inner.get(&name)).await
    }

    /// Deletes a database with all its documents; whoever waits for its changes hears the end. Its attachments are freed by the
    /// collector. Durable on return; goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub async fn delete(&self, name: DbName) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        db::crossing(move || inner.delete(&name)).await
    }

    /// Every blob that documents of any database with attachments in `store` name, some of them several times. Blocking.
    ///
    /// # Errors
    /// Where a database cannot be opened or read: what it names is not known then. What `visit` answers.
    pub(super) fn named_blobs(
        &self,
        store: &StoreName,
        visit: &mut dyn FnMut(BlobId) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for name in self.list() {
            let db = match self.inner.get(&name) {
                Ok(db) => db,
                // Deleted since it was listed.
                Err(Error::Missing { .. }) => continue,
                Err(error) => return Err(error),
            };
            if db.inner.blobs.name() != store {
                continue;
            }
            let mut told = Ok(());
            db.inner.database.blob_ids(&mut |id| {
                if told.is_ok() {
                    told = visit(id);
                }
            })?;
            told?;
        }
        Ok(())
    }
}

impl Inner {
    fn create(&self, name: DbName, options: &blanket::Options) -> Result<Db, Error> {
        let changing = self.changing(&name);
        let _changing = lock(&changing);
        {
            let shelf = self.shelf();
            if shelf.names.contains(&name) {
                return Err(Error::conflict(Kind::Database, name, "there is one of this name"));
            }
            if shelf.names.len() >= DATABASES_MAX {
                return Err(Error::Invalid {
                    what: "databases",
                    reason: format!("a node has at most {DATABASES_MAX}"),
                });
            }
        }
        let blobs = self.stores.get(&options.blobs)?;
        let database = blanket::create_db_on(&self.folder, &name, options, &self.servers)?;
        let db = Db::new(name.clone(), database, blobs);
        let mut shelf = self.shelf();
        shelf.names.insert(name.clone());
        shelf.put(&db);
        drop(shelf);
        self.events.tell(Event::DatabaseAdded { database: name });
        Ok(db)
    }

    fn get(&self, name: &DbName) -> Result<Db, Error> {
        let changing = self.changing(name);
        let _changing = lock(&changing);
        {
            let mut shelf = self.shelf();
            if let Some(db) = shelf.take(name) {
                return Ok(db);
            }
            if !shelf.names.contains(name) {
                return Err(Error::missing(Kind::Database, name));
            }
            if !shelf.make_room() {
                return Err(Error::Busy);
            }
        }
        let database = blanket::open_db_on(&self.folder, name, &self.servers)?;
        let blobs = self.stores.get(database.blobs())?;
        let db = Db::new(name.clone(), database, blobs);
        let mut shelf = self.shelf();
        // Others were opened meanwhile.
        if !shelf.make_room() {
            return Err(Error::Busy);
        }
        shelf.put(&db);
        Ok(db)
    }

    fn delete(&self, name: &DbName) -> Result<(), Error> {
        let changing = self.changing(name);
        let _changing = lock(&changing);
        if !self.shelf().names.contains(name) {
            return Err(Error::missing(Kind::Database, name));
        }
        blanket::remove_db_on(&self.folder, name, &self.servers)?;
        let mut shelf = self.shelf();
        shelf.names.remove(name);
        let opened = shelf.open.remove(name);
        drop(shelf);
        if let Some(opened) = opened {
            opened.db.inner.gone.cancel();
        }
        self.events.tell(Event::DatabaseDeleted {
            database: name.clone(),
        });
        Ok(())
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf
            .lock()
            .expect("no thread panics while it holds the open databases")
    }

    /// What whoever makes, opens or deletes this database holds.
    fn changing(&self, name: &DbName) -> Arc<Mutex<()>> {
        let mut changing = lock(&self.changing);
        changing.retain(|_, held| Arc::strong_count(held) > 1);
        Arc::clone(changing.entry(name.clone()).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole at any moment.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shelf {
    fn take(&mut self, name: &DbName) -> Option<Db> {
        let opened = self.open.get_mut(name)?;
        self.used += 1;
        opened.used = self.used;
        Some(opened.db.clone())
    }

    fn put(&mut self, db: &Db) {
        self.make_room();
        self.used += 1;
        let opened = Opened {
            db: db.clone(),
            used: self.used,
        };
        self.open.insert(db.name().clone(), opened);
    }

    /// Closes what nobody uses, the longest unused first, until one more may be open.
    fn make_room(&mut self) -> bool {
        while self.open.len() >= DATABASES_OPEN_MAX {
            let idle = self.open.iter().filter(|(_, opened)| opened.db.is_idle());
            let Some(oldest) = idle
                .min_by_key(|(_, opened)| opened.used)
                .map(|(name, _)| name.clone())
            else {
                return self.open.len() < DATABASES_USED_MAX;
            };
            self.open.remove(&oldest);
        }
        true
    }
}

impl Db {
    fn new(name: DbName, database: Database, blobs: Blobs) -> Db {
        Db {
            inner: Arc::new(DbInner {
                name,
                database,
                blobs,
                gone: CancellationToken::new(),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &DbName {
        &self.inner.name
    }

    /// What tells it from another of its name, such as one that is made where it was deleted.
    pub fn uuid(&self) -> DbUuid {
        self.inner.database.uuid()
    }

    /// The store of its attachments.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Cancelled when the database is deleted: whoever waits for changes stops then.
    pub fn gone(&self) -> &CancellationToken {
        &self.inner.gone
    }

    /// Rises with every change; whoever waits for changes waits for that.
    pub fn updated(&self) -> tokio::sync::watch::Receiver<Seq> {
        self.inner.database.updated()
    }

    /// A sequence as clients keep it.
    pub fn seq_text(&self, seq: Seq) -> String {
        self.inner.database.seq_text(seq)
    }

    /// Reads a sequence that a client kept.
    ///
    /// # Errors
    /// [`SeqError`].
    pub fn seq_from_text(&self, text: &str) -> Result<Seq, SeqError> {
        self.inner.database.seq_from_text(text)
    }

    /// Does something with the database on a thread that may block. Goes on when the future is dropped: what is
    /// written is written whole.
    ///
    /// # Errors
    /// [`Error::Missing`] where it was deleted; what `work` answers.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, blanket::Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.inner.gone.is_cancelled() {
            return Err(Error::missing(Kind::Database, &self.inner.name));
        }
        let inner = Arc::clone(&self.inner);
        db::crossing(move || work(&inner.database).map_err(Error::from)).await
    }

    /// Makes edits, in one durable group: what became of each, in their order. Waits without a thread. Goes on when the future is
    /// dropped: what is written is written whole.
    ///
    /// # Errors
    /// [`Error::Missing`] where the database was deleted; [`Error::Incomplete`] where an attachment is not stored any more: none was
    /// made then; as [`Database::save_docs`].
    pub async fn save_docs(&self, edits: Vec<Edit>) -> Result<Vec<Result<Rev, Refused>>, Error> {
        if self.inner.gone.is_cancelled() {
            return Err(Error::missing(Kind::Database, &self.inner.name));
        }
        self.lease(&edits).await?;
        let (told, saved) = oneshot::channel();
        // Who does not wait any more need not be told.
        let tell = move |answer| drop(told.send(answer));
        if let Some(lead) = self.inner.database.enqueue_docs(edits, tell)? {
            db::detached(move || lead.run());
        }
        match saved.await {
            Ok(saved) => Ok(saved?),
            Err(_) => Err(Error::Busy),
        }
    }

    /// Makes one edit; its revision. As [`Db::save_docs`].
    ///
    /// # Errors
    /// As [`Db::save_docs`].
    pub async fn save_doc(&self, edit: Edit) -> Result<Result<Rev, Refused>, Error> {
        let mut saved = self.save_docs(vec![edit]).await?;
        Ok(saved.pop().expect("one edit has one answer"))
    }

    /// Attachments may have come days before the last of their documents: what is there now stays until these are written.
    async fn lease(&self, edits: &[Edit]) -> Result<(), Error> {
        let attachments = edits.iter().flat_map(|edit| edit.attachments().values());
        let blobs = attachments.filter_map(|attachment| match attachment {
            AttachmentEdit::Stored(attachment) => Some(attachment.blob),
            // What the revision before has is named by that.
            AttachmentEdit::Stub => None,
        });
        let blobs: Vec<BlobId> = blobs.collect();
        if blobs.is_empty() {
            return Ok(());
        }
        let stats = self.inner.blobs.find(blobs.clone()).await?;
        let gone = blobs.iter().zip(&stats).filter(|(_, stat)| stat.is_none());
        let mut missing: Vec<BlobId> = gone.map(|(id, _)| *id).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let more = missing.len() > INCOMPLETE_NAMED_MAX;
        missing.truncate(INCOMPLETE_NAMED_MAX);
        Err(Error::Incomplete { missing, more })
    }

    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.inner) == 1 && self.inner.database.is_idle()
    }
}

#[cfg(feature = "couchdb")]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::node::{Node, Options};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_whose_server_does_not_answer_keeps_nobody_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        // It takes connections, and says nothing.
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/rows", silent.local_addr().unwrap());
        let open = || {
            let servers = Servers {
                reach: Some((tokio::runtime::Handle::current(), Arc::new(|_, _| true))),
                reveal: None,
            };
            Node::open(Options {
                servers,
                ..Options::new(dir.path())
            })
        };
        let (slow, quick): (DbName, DbName) = ("slow".parse().unwrap(), "quick".parse().unwrap());
        let node = open().unwrap();
        let made = node
            .documents()
            .create(quick.clone(), blanket::Options::default());
        drop(made.await.unwrap());
        drop(node);
        let settings = dir.path().join("databases/slow/couchdb");
        fs::create_dir_all(&settings).unwrap();
        let json = format!("{{\"version\":1,\"url\":\"{url}\",\"owner\":\"00\"}}");
        fs::write(settings.join("server.json"), json).unwrap();
        let node = open().unwrap();
        let documents = node.documents().clone();
        let waits = tokio::spawn(async move { documents.get(slow).await.map(drop) });
        // Somebody is being waited for.
        let (connection, silent) = db::crossing(move || Ok::<_, Error>((silent.accept().unwrap().0, silent)))
            .await
            .unwrap();
        assert!(node.documents().get(quick).await.is_ok());
        assert!(!waits.is_finished());
        drop((connection, silent));
        assert!(matches!(waits.await.unwrap(), Err(Error::Away { .. })));
    }
}
