//! Whose the rows on a server are: one node has them, and the last that opened them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Far, served};
use crate::blanket::{
    Body, Database, Edit, EngineKind, Error, Options, ServerPlace, Servers, copy, create_db, create_db_on,
    open_db_on, remove_db_on,
};
use crate::http::{Client, Method, Request, Token, Trust};
use crate::id::DbName;

fn name(text: &str) -> DbName {
    text.parse().expect("a name")
}

fn on(server: ServerPlace) -> Options {
    Options {
        engine: EngineKind::Couchdb,
        server: Some(server),
        ..Options::default()
    }
}

fn save(database: &Database, id: &str) -> Result<(), Error> {
    let edit = Edit::New {
        id: id.parse().expect("an id"),
        parent: None,
        deleted: false,
        body: Body::default(),
        attachments: BTreeMap::new(),
    };
    database
        .save_doc(edit)
        .map(|saved| drop(saved.expect("a new document")))
}

fn has(database: &Database, id: &str) -> bool {
    let id = id.parse().expect("an id");
    database.open_doc(&id).expect("a server").is_some()
}

/// The path of a database on the node.
fn path_of(server: &ServerPlace) -> String {
    let (_, path) = server.url.split_once("/db/").expect("a database of the node");
    format!("/db/{path}")
}

/// The status of a request to the node itself.
fn status(far: &Far, method: Method, path: &str) -> u16 {
    let url = format!("http://{}", far.address).parse().expect("a URL");
    let client = Client::new(
        url,
        Trust::FirstContact,
        far.token.as_deref().and_then(Token::new),
        far.runtime.clone(),
    );
    match client.expect("a client").send(Request::new(method, path)) {
        Ok(answer) => answer.status().as_u16(),
        Err(error) => error.refusal().map_or(0, |refusal| refusal.status.as_u16()),
    }
}

fn desk() -> (tempfile::TempDir, Far, Servers) {
    let dir = tempfile::tempdir().expect("a folder");
    let far = served(&dir.path().join("far"));
    let servers = far.servers();
    (dir, far, servers)
}

/// The folder of a database as somebody would bring it to another machine.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("couchdb")).expect("a folder");
    fs::copy(from.join("couchdb/server.json"), to.join("couchdb/server.json")).expect("a copy");
}

#[test]
fn another_node_is_refused_and_a_copy_of_this_one_shuts_it_out() {
    let (dir, far, servers) = desk();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    let server = far.place();
    let database = create_db_on(&here, &name("notes"), &on(server.clone()), &servers).expect("a database");
    save(&database, "a").expect("a server");
    // What is not empty is no place for a new one.
    let refused = create_db_on(&there, &name("notes"), &on(server), &servers).err();
    assert!(matches!(refused, Some(Error::BadServer { reason }) if reason.contains("has documents")));
    copied(&here.join("notes"), &there.join("notes"));
    let path = there.join("notes/couchdb/server.json");
    let own = fs::read_to_string(&path).expect("settings");
    fs::write(&path, own.replace("\"owner\":\"", "\"owner\":\"0")).expect("settings");
    let refused = open_db_on(&there, &name("notes"), &servers).err();
    assert!(matches!(refused, Some(Error::Taken { .. })), "{refused:?}");
    assert!(matches!(
        remove_db_on(&there, &name("notes"), &servers),
        Err(Error::Taken { .. })
    ));
    // The same folder twice, as a backup that was put back while its node still runs: the last one that opened it has it.
    fs::write(&path, own).expect("settings");
    let again = open_db_on(&there, &name("notes"), &servers).expect("the same");
    assert!(has(&again, "a"));
    save(&again, "b").expect("a server");
    assert!(matches!(save(&database, "c"), Err(Error::Taken { .. })));
    assert!(matches!(save(&database, "c"), Err(Error::ReadOnly { .. })));
    save(&again, "c").expect("a server");
    assert_eq!(again.check().expect("a check"), None);
}

#[test]
fn what_cannot_be_a_server_is_refused_by_reason_and_nothing_is_made() {
    let (dir, far, servers) = desk();
    let good = far.place();
    let with = |url: &str| ServerPlace {
        url: url.to_owned(),
        ..good.clone()
    };
    let other = ServerPlace {
        secret: Some("none".parse().expect("a name")),
        ..good.clone()
    };
    let stranger = ServerPlace {
        secret: None,
        ..good.clone()
    };
    for (server, word) in [
        (with("couch.example.org"), "URL"),
        (with("http://ann:secret@127.0.0.1/rows"), "secret"),
        (with(&format!("http://{}", far.address)), "names no database"),
        (with("http://192.0.2.1/rows"), "no connection may be made"),
        (with("http://127.0.0.1:1/rows"), "does not answer"),
        (other, "no secret none"),
        (stranger, "401"),
    ] {
        let error = create_db_on(dir.path(), &name("notes"), &on(server), &servers).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(word), "{word}: {error}");
        assert!(!error.contains("ann:"), "{error}");
    }
    let sqlite = Options {
        engine: EngineKind::Sqlite,
        ..on(good.clone())
    };
    assert!(matches!(
        create_db_on(dir.path(), &name("notes"), &sqlite, &servers),
        Err(Error::BadServer { .. })
    ));
    // Where nobody says how servers are reached, none is.
    assert!(matches!(
        create_db(dir.path(), &name("notes"), &on(good.clone())),
        Err(Error::Server { .. })
    ));
    create_db_on(dir.path(), &name("notes"), &on(good), &servers).expect("a database");
}

#[test]
fn what_is_removed_here_is_removed_there() {
    let (dir, far, servers) = desk();
    let server = far.place();
    let path = path_of(&server);
    let database = create_db_on(dir.path(), &name("notes"), &on(server.clone()), &servers);
    save(&database.expect("a database"), "a").expect("a server");
    assert_eq!(status(&far, Method::GET, &format!("{path}/owner")), 200);
    remove_db_on(dir.path(), &name("notes"), &servers).expect("a server");
    assert_eq!(status(&far, Method::GET, &path), 404);
    let database = create_db_on(dir.path(), &name("notes"), &on(server), &servers);
    assert!(!has(&database.expect("a database"), "a"));
    // Deleted by somebody else there.
    assert_eq!(status(&far, Method::DELETE, &path), 200);
    assert!(matches!(
        open_db_on(dir.path(), &name("notes"), &servers),
        Err(Error::Server { .. })
    ));
    remove_db_on(dir.path(), &name("notes"), &servers).expect("nothing is there");
    assert!(!dir.path().join("notes").exists());
}

#[test]
fn a_copy_goes_onto_a_server_and_back() {
    let (dir, far, servers) = desk();
    let create = |name: &str, options: &Options| {
        let created = create_db_on(dir.path(), &self::name(name), options, &servers);
        created.expect("a database")
    };
    let source = create("source", &Options::default());
    let ids: Vec<String> = (0..300)
        .map(|number| format!("doc{number:03}{}", "é".repeat(number % 240)))
        .collect();
    for id in &ids {
        save(&source, id).expect("a disk");
    }
    let there = create("there", &on(far.place()));
    assert_eq!(copy(&source, &there, &mut |_| {}).expect("a server"), 300);
    drop(there);
    let there = open_db_on(dir.path(), &name("there"), &servers).expect("a server");
    let back = create("back", &Options::default());
    assert_eq!(copy(&there, &back, &mut |_| {}).expect("a server"), 300);
    assert!(ids.iter().all(|id| has(&back, id)));
    assert_eq!(there.check().expect("a check"), None);
}
