//! `refuge db`: the document databases of a data folder or of a running node.

mod databases;
mod docs;
mod find;
mod over;
mod replicate;
mod secret;

use std::path::PathBuf;

use clap::Subcommand;

use super::Session;
use super::exit::{Exit, Failure};
use super::place::PlaceArgs;
use crate::app::Held;
use crate::id::{DbName, DocId, Rev};
use crate::node::{Db, EngineKind, Node};

/// Make, read, write and copy databases of documents
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge db create notes --data ~/refuge
  echo '{\"title\": \"Milk\"}' | refuge db put notes shopping --data ~/refuge
  refuge db get notes shopping --data ~/refuge
  refuge db find notes '{\"title\": \"Milk\"}' --data ~/refuge
  refuge db changes notes --json --node https://192.168.1.5:8443

A document is written on top of the revision that its _rev or --rev names, as with CouchDB.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Any,
}

#[derive(Subcommand)]
enum Any {
    #[command(flatten)]
    Database(Command),
    /// Keep a database alike with another, of this place or of any server that speaks CouchDB's API
    Replicate(Box<replicate::ReplicateArgs>),
    /// Keep what opens other servers, for replications
    #[command(subcommand)]
    Secret(secret::SecretCommand),
}

#[derive(Subcommand)]
enum Command {
    /// Make a database
    Create {
        /// Its name
        #[arg(value_name = "DB")]
        db: DbName,
        /// What keeps it: sqlite; where they are built in, lsm, leveldb or couchdb; memory
        #[arg(long, value_name = "ENGINE", default_value = "sqlite")]
        engine: String,
        /// Revisions of a branch that are remembered
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        revs_limit: u32,
        #[command(flatten)]
        server: Box<databases::ServerArgs>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List databases, or the documents of one
    Ls {
        /// The database
        #[arg(value_name = "DB")]
        db: Option<DbName>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Say how a database is
    Info {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print a document
    Get {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        /// The document
        #[arg(value_name = "ID")]
        id: DocId,
        /// This leaf of it, instead of the winner
        #[arg(long, value_name = "REV")]
        rev: Option<Rev>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Write a document; prints its revision
    Put {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        /// The document
        #[arg(value_name = "ID")]
        id: DocId,
        /// A file with its JSON; `-` reads standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        /// The revision it follows, where the JSON has no _rev
        #[arg(long, value_name = "REV")]
        rev: Option<Rev>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Delete a document, or without ID a whole database
    Rm {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        /// The document
        #[arg(value_name = "ID")]
        id: Option<DocId>,
        /// The leaf to delete, instead of the winner
        #[arg(long, value_name = "REV", requires = "id")]
        rev: Option<Rev>,
        /// Delete the database also where it has documents
        #[arg(long, conflicts_with = "id")]
        not_empty: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print what changed, in order
    Changes {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        /// Only what changed after this sequence
        #[arg(long, value_name = "SEQ", default_value = "0")]
        since: String,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print the documents that match a selector, one a line
    Find {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        #[command(flatten)]
        looked: Box<find::Looked>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Copy a database into another, which may have another engine and is made where it is not there
    Copy {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        /// The other
        #[arg(value_name = "COPY")]
        copy: DbName,
        /// What keeps the other, where it is made
        #[arg(long, value_name = "ENGINE", default_value = "sqlite")]
        engine: String,
        #[command(flatten)]
        server: Box<databases::ServerArgs>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Give back the space of what was deleted and replaced
    Compact {
        /// The database
        #[arg(value_name = "DB")]
        db: DbName,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    match args.command {
        Any::Database(command) => one(command, session)?,
        Any::Replicate(args) => replicate::replicate(&args, session)?,
        Any::Secret(command) => command.run(session)?,
    }
    Ok(Exit::Done)
}

fn one(command: Command, session: &mut Session) -> anyhow::Result<()> {
    // As with a first put or backup, a data folder is made where none is.
    let is_first = matches!(command, Command::Create { .. });
    if let Command::Create { engine, .. } | Command::Copy { engine, .. } = &command {
        engine_kind(engine)?;
    }
    match command.place().open(session, is_first)?.held {
        Held::Folder(node) => here(&node, command, session),
        Held::Node(client) => over::run(&client, command, session),
    }
}

/// Does what a command says, on a data folder.
fn here(node: &Node, command: Command, session: &mut Session) -> anyhow::Result<()> {
    match command {
        Command::Create {
            db,
            engine,
            revs_limit,
            server,
            place,
        } => databases::create(node, db, &place.store, (&engine, revs_limit, &server), session),
        Command::Ls { db: None, .. } => databases::list(node, session),
        Command::Ls { db: Some(db), .. } => docs::list(&database(node, db, session)?, session),
        Command::Info { db, .. } => databases::info(&database(node, db, session)?, session),
        Command::Get { db, id, rev, .. } => docs::get(&database(node, db, session)?, id, rev, session),
        Command::Put {
            db, id, file, rev, ..
        } => docs::put(&database(node, db, session)?, id, (&file, rev), session),
        Command::Rm {
            db,
            id: Some(id),
            rev,
            ..
        } => docs::remove(&database(node, db, session)?, id, rev, session),
        Command::Rm { db, not_empty, .. } => databases::remove(node, db, not_empty, session),
        Command::Changes { db, since, limit, .. } => {
            docs::changes(&database(node, db, session)?, &since, limit, session)
        }
        Command::Find { db, looked, .. } => find::here(&database(node, db, session)?, &looked, session),
        Command::Copy {
            db,
            copy,
            engine,
            server,
            ..
        } => databases::copy(node, db, copy, (&engine, &server), session),
        Command::Compact { db, .. } => databases::compact(&database(node, db, session)?, session),
    }
}

impl Command {
    fn place(&self) -> &PlaceArgs {
        match self {
            Command::Create { place, .. }
            | Command::Ls { place, .. }
            | Command::Info { place, .. }
            | Command::Get { place, .. }
            | Command::Put { place, .. }
            | Command::Rm { place, .. }
            | Command::Changes { place, .. }
            | Command::Find { place, .. }
            | Command::Copy { place, .. }
            | Command::Compact { place, .. } => place,
        }
    }
}

/// A database of an open node.
fn database(node: &Node, db: DbName, session: &Session) -> anyhow::Result<Db> {
    Ok(session.runtime.block_on(node.documents().get(db))?)
}

fn engine_kind(text: &str) -> anyhow::Result<EngineKind> {
    text.parse().map_err(|_| {
        let why = format!("there is no engine {text:?}: sqlite, lsm, leveldb, couchdb, memory");
        Failure::new(Exit::Usage, why).into()
    })
}
