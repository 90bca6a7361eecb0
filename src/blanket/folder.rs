//! Where databases are: one folder each, made whole, found again, set aside, removed.
//!
//! ```text
//! DIR/notes%2F2026/documents.db     the files of the engine sqlite; their name says which engine a database has
//! DIR/NAME/lsm/ DIR/NAME/leveldb/   those of the engines of these names
//! DIR/NAME/couchdb/                 where the server is that the engine of this name keeps its rows on
//! DIR/notes%2F2026/find.db          its Mango indexes, made again where they are gone: see find/store.rs
//! DIR/NAME.new/                     one that is being made: left over after a crash, and then of no use
//! DIR/NAME.removed/                 one that is being removed: finished when the next one is
//! DIR/NAME.damaged-1/               one that was set aside; kept until a person removes it
//! ```
//!
//! A database is made in a folder of another name, flushed, and renamed: it is there with all its settings, or not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::database::Database;
use super::engine::Engine;
use super::error::Error;
use super::kind::EngineKind;
use super::memory::Memory;
use super::servers::{ServerPlace, Servers};
use super::settings::{self, Settings};
use super::sqlite::{DOCUMENTS_FILE, Sqlite};
use super::tree::REVS_LIMIT;
use super::{couchdb, leveldb, lsm};
use crate::id::{DbName, StoreName};

/// What a database is made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What keeps it.
    pub engine: EngineKind,
    /// The store of its attachments.
    pub blobs: StoreName,
    /// Revisions of a branch that are remembered.
    pub revs_limit: u32,
    /// Where the engine `couchdb` keeps its rows; no other takes one.
    pub server: Option<ServerPlace>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            engine: EngineKind::Sqlite,
            blobs: StoreName::main(),
            revs_limit: REVS_LIMIT,
            server: None,
        }
    }
}

/// Makes a database in `folder`, which is made where it is not there. Durable on return.
///
/// # Errors
/// [`Error::Exists`], [`Error::Full`], [`Error::Io`]: none was made.
pub fn create_db(folder: &Path, name: &DbName, options: &Options) -> Result<Database, Error> {
    create_db_on(folder, name, options, &Servers::default())
}

/// As [`create_db`], where servers may be reached.
///
/// # Errors
/// As [`create_db`]; [`Error::BadServer`], [`Error::Server`]: what was made on the server is deleted again where it can be reached.
pub fn create_db_on(
    folder: &Path,
    name: &DbName,
    options: &Options,
    servers: &Servers,
) -> Result<Database, Error> {
    if options.server.is_some() && options.engine != EngineKind::Couchdb {
        return Err(Error::BadServer {
            reason: "only the engine couchdb keeps its rows on a server".to_owned(),
        });
    }
    let settings = Settings::fresh(options.blobs.clone(), options.revs_limit)?;
    if options.engine == EngineKind::Memory {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        settings.write(&engine)?;
        return Database::new(name.clone(), EngineKind::Memory, engine, settings);
    }
    let place = folder.join(name.folder_name());
    if place.exists() {
        return Err(Error::Exists { name: name.clone() });
    }
    make_folder(folder)?;
    let fresh = sibling(&place, ".new");
    give_up(&fresh, servers);
    remove_folder(&fresh)?;
    make_folder(&fresh)?;
    // Closed before it is renamed: engines know their files by path.
    let engine = open_engine(options.engine, &fresh, (servers, options.server.as_ref()));
    if let Err(error) = engine.and_then(|engine| settings.write(&engine)) {
        give_up(&fresh, servers);
        return Err(error);
    }
    sync(&fresh)?;
    fs::rename(&fresh, &place).map_err(|error| Error::io(&place, error))?;
    if let Err(error) = sync(folder) {
        // Whoever looks must not find what a power cut would take away again; where this fails, too, the error says enough.
        let _ = fs::rename(&place, &fresh);
        return Err(error);
    }
    open_db_on(folder, name, servers)
}

/// Opens a database.
///
/// # Errors
/// [`Error::Missing`], [`Error::Corrupt`], [`Error::Newer`], [`Error::NoEngine`].
pub fn open_db(folder: &Path, name: &DbName) -> Result<Database, Error> {
    open_db_on(folder, name, &Servers::default())
}

/// As [`open_db`], where servers may be reached.
///
/// # Errors
/// As [`open_db`]; [`Error::Server`], [`Error::Taken`].
pub fn open_db_on(folder: &Path, name: &DbName, servers: &Servers) -> Result<Database, Error> {
    let place = folder.join(name.folder_name());
    if !place.is_dir() {
        return Err(Error::Missing { name: name.clone() });
    }
    let kind = kind_of(&place)?;
    let engine = open_engine(kind, &place, (servers, None))?;
    if settings::is_newer(&engine)? {
        return Err(Error::Newer { path: place });
    }
    let settings = Settings::read(&engine)?.ok_or_else(|| Error::Corrupt {
        path: place.clone(),
        what: "what a database remembers about itself is not there".to_owned(),
    })?;
    let database = Database::new(name.clone(), kind, engine, settings)?;
    database.indexes().keep_in(place);
    Ok(database)
}

/// The databases in `folder`, by name; none where it is not there.
///
/// # Errors
/// [`Error::Io`].
pub fn list_dbs(folder: &Path) -> Result<Vec<DbName>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        names.extend(entry.file_name().to_str().and_then(DbName::from_folder_name));
    }
    names.sort();
    Ok(names)
}

/// Removes a database and all it holds. Durable on return. Handles that are open go on with files that have no name.
///
/// # Errors
/// [`Error::Missing`], [`Error::Io`].
pub fn remove_db(folder: &Path, name: &DbName) -> Result<(), Error> {
    remove_db_on(folder, name, &Servers::default())
}

/// As [`remove_db`], where servers may be reached: what a database has on one is deleted first.
///
/// # Errors
/// As [`remove_db`]; [`Error::Server`], [`Error::Taken`]: nothing was removed.
pub fn remove_db_on(folder: &Path, name: &DbName, servers: &Servers) -> Result<(), Error> {
    let place = folder.join(name.folder_name());
    if couchdb::is_there(&place) {
        couchdb::remove(&place, servers)?;
    }
    let gone = sibling(&place, ".removed");
    // What a crash left of the last removal.
    remove_folder(&gone)?;
    match fs::rename(&place, &gone) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing { name: name.clone() });
        }
        renamed => renamed.map_err(|error| Error::io(&place, error))?,
    }
    sync(folder)?;
    remove_folder(&gone)
}

/// Renames a damaged database, so that another can stand in its place; its new path. Nothing is deleted.
///
/// # Errors
/// [`Error::Missing`], [`Error::Io`].
pub fn set_aside(folder: &Path, name: &DbName) -> Result<PathBuf, Error> {
    let place = folder.join(name.folder_name());
    let aside = (1..)
        .map(|number| sibling(&place, &format!(".damaged-{number}")))
        .find(|aside| !aside.exists())
        .expect("the numbers do not end");
    match fs::rename(&place, &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing { name: name.clone() });
        }
        renamed => renamed.map_err(|error| Error::io(&place, error))?,
    }
    sync(folder)?;
    Ok(aside)
}

fn open_engine(
    kind: EngineKind,
    place: &Path,
    (servers, server): (&Servers, Option<&ServerPlace>),
) -> Result<Arc<dyn Engine>, Error> {
    match kind {
        EngineKind::Sqlite => Ok(Arc::new(Sqlite::open(&place.join(DOCUMENTS_FILE))?)),
        EngineKind::Lsm => lsm::open(place),
        EngineKind::Leveldb => leveldb::open(place),
        EngineKind::Couchdb => couchdb::open(place, servers, server),
        EngineKind::Memory => Ok(Arc::new(Memory::default())),
    }
}

/// Deletes what a database that was not made whole has on a server; who asks for the same place again hears what is left there.
fn give_up(fresh: &Path, servers: &Servers) {
    if couchdb::is_there(fresh) {
        let _ = couchdb::remove(fresh, servers);
    }
}

/// The engine whose files are in a folder.
fn kind_of(place: &Path) -> Result<EngineKind, Error> {
    if place.join(DOCUMENTS_FILE).exists() {
        return Ok(EngineKind::Sqlite);
    }
    if lsm::is_there(place) {
        return Ok(EngineKind::Lsm);
    }
    if leveldb::is_there(place) {
        return Ok(EngineKind::Leveldb);
    }
    if couchdb::is_there(place) {
        return Ok(EngineKind::Couchdb);
    }
    Err(Error::Corrupt {
        path: place.to_owned(),
        what: "no files of any engine are in it".to_owned(),
    })
}

/// Makes a folder that only its owner reads, with those above it.
fn make_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::io(path, error))?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), Error> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io(folder, error))
}

fn sibling(place: &Path, suffix: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::blanket::{Body, Edit};
    use crate::id::DocId;

    fn name(text: &str) -> DbName {
        text.parse().unwrap()
    }

    /// Engines that keep something, of those in this binary.
    fn built_in() -> Vec<EngineKind> {
        let mut kinds = vec![EngineKind::Sqlite];
        if cfg!(feature = "lsm") {
            kinds.push(EngineKind::Lsm);
        }
        if cfg!(feature = "leveldb") {
            kinds.push(EngineKind::Leveldb);
        }
        kinds
    }

    fn write(database: &Database, id: &str) {
        let edit = Edit::New {
            id: id.parse().unwrap(),
            parent: None,
            deleted: false,
            body: Body::default(),
            attachments: BTreeMap::new(),
        };
        database.save_doc(edit).unwrap().unwrap();
    }

    fn has(database: &Database, id: &str) -> bool {
        let id: DocId = id.parse().unwrap();
        database.open_doc(&id).unwrap().is_some()
    }

    #[test]
    fn databases_are_made_found_again_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("databases");
        assert_eq!(list_dbs(&folder).unwrap(), []);
        let options = Options {
            blobs: "photos".parse().unwrap(),
            revs_limit: 20,
            ..Options::default()
        };
        let notes = name("notes/2026");
        let database = create_db(&folder, &notes, &options).unwrap();
        write(&database, "a");
        let uuid = database.uuid();
        drop(database);
        assert!(matches!(
            create_db(&folder, &notes, &options),
            Err(Error::Exists { .. })
        ));
        create_db(&folder, &name("_users"), &Options::default()).unwrap();
        assert_eq!(list_dbs(&folder).unwrap(), [name("_users"), notes.clone()]);
        let database = open_db(&folder, &notes).unwrap();
        assert!(has(&database, "a"));
        let info = database.info().unwrap();
        assert_eq!(
            (info.uuid, info.blobs, info.revs_limit),
            (uuid, options.blobs.clone(), 20)
        );
        // A handle that is open goes on.
        remove_db(&folder, &notes).unwrap();
        assert!(has(&database, "a"));
        drop(database);
        assert!(matches!(remove_db(&folder, &notes), Err(Error::Missing { .. })));
        assert!(matches!(open_db(&folder, &notes), Err(Error::Missing { .. })));
        // Another of that name is another.
        let database = create_db(&folder, &notes, &options).unwrap();
        assert!(!has(&database, "a"));
        assert_ne!(database.uuid(), uuid);
    }

    #[test]
    fn what_a_crash_left_of_making_one_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("notes.new");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(DOCUMENTS_FILE), b"half of it").unwrap();
        assert_eq!(list_dbs(dir.path()).unwrap(), []);
        write(
            &create_db(dir.path(), &name("notes"), &Options::default()).unwrap(),
            "a",
        );
        assert!(!left.exists());
    }

    #[test]
    fn a_damaged_database_is_reported_and_set_aside_whole() {
        let dir = tempfile::tempdir().unwrap();
        let notes = name("notes");
        write(&create_db(dir.path(), &notes, &Options::default()).unwrap(), "a");
        let file = dir.path().join("notes").join(DOCUMENTS_FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes[20..4096].fill(0xee);
        fs::write(&file, &bytes).unwrap();
        assert!(matches!(open_db(dir.path(), &notes), Err(Error::Corrupt { .. })));
        let aside = set_aside(dir.path(), &notes).unwrap();
        assert_eq!(fs::read(aside.join(DOCUMENTS_FILE)).unwrap(), bytes);
        assert_eq!(list_dbs(dir.path()).unwrap(), []);
        write(&create_db(dir.path(), &notes, &Options::default()).unwrap(), "b");
        assert!(
            set_aside(dir.path(), &notes)
                .unwrap()
                .ends_with("notes.damaged-2")
        );
    }

    #[test]
    fn a_database_of_a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for kind in built_in() {
            let name = name(&format!("of-{kind}"));
            let options = Options {
                engine: kind,
                ..Options::default()
            };
            create_db(dir.path(), &name, &options).unwrap();
            let place = dir.path().join(name.folder_name());
            let engine = open_engine(kind, &place, (&Servers::default(), None)).unwrap();
            let newer = ("format", 2_u32.to_be_bytes().to_vec());
            let group = || crate::blanket::engine::Group {
                settings: vec![newer.clone()],
                ..Default::default()
            };
            engine.update(&[], &mut |_| group()).unwrap();
            drop(engine);
            assert!(matches!(open_db(dir.path(), &name), Err(Error::Newer { path }) if path == place));
        }
    }

    #[test]
    fn an_empty_folder_is_no_database_and_no_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("notes")).unwrap();
        assert!(matches!(
            open_db(dir.path(), &name("notes")),
            Err(Error::Corrupt { .. })
        ));
        fs::write(dir.path().join("notes").join(DOCUMENTS_FILE), b"").unwrap();
        assert!(matches!(
            open_db(dir.path(), &name("notes")),
            Err(Error::Corrupt { .. })
        ));
    }

    #[test]
    fn engines_are_known_by_name() {
        for kind in [
            EngineKind::Sqlite,
            EngineKind::Lsm,
            EngineKind::Leveldb,
            EngineKind::Couchdb,
            EngineKind::Memory,
        ] {
            assert_eq!(kind.to_string().parse::<EngineKind>().unwrap(), kind);
        }
        assert!(matches!(
            "access".parse::<EngineKind>(),
            Err(Error::NoEngine { .. })
        ));
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            engine: EngineKind::Memory,
            ..Options::default()
        };
        let database = create_db(dir.path(), &name("tmp"), &options).unwrap();
        write(&database, "a");
        assert!(has(&database.clone(), "a"));
        assert_eq!(list_dbs(dir.path()).unwrap(), []);
    }
}
