//! A server that is cut off between any two requests of a group: the group is there as a whole or not at all, whatever was told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::{Far, far};
use crate::blanket::{
    Body, ChangesQuery, Database, Edit, EngineKind, Error, Options, Servers, create_db_on, open_db_on,
};
use crate::id::Rev;

/// What happens to the request at which a server is cut off. Every one after it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// It never arrives.
    Before,
    /// It is done, and its answer is lost.
    After,
    /// Of several documents half are written, as where a server dies between two; its answer is lost.
    Half,
}

/// A wire to a server that can be cut.
#[derive(Clone)]
struct Link {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: usize,
    /// At which request, and how.
    cut: Option<(usize, Cut)>,
}

impl Link {
    fn to(server: SocketAddr) -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let link = Link {
            address: listener.local_addr().expect("an address"),
            state: Arc::default(),
        };
        let own = link.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let link = own.clone();
                // A connection that breaks is what this is for.
                thread::spawn(move || link.pass(stream, server));
            }
        });
        link
    }

    /// Counts from here, and is cut at the request of that number.
    fn cut(&self, cut: Option<(usize, Cut)>) {
        *self.state.lock().expect("nobody panics") = State { requests: 0, cut };
    }

    fn requests(&self) -> usize {
        self.state.lock().expect("nobody panics").requests
    }

    /// What becomes of the next request.
    fn next(&self) -> Option<Cut> {
        let mut state = self.state.lock().expect("nobody panics");
        let number = state.requests;
        state.requests += 1;
        match state.cut {
            Some((at, cut)) if number == at => Some(cut),
            Some((at, _)) if number > at => Some(Cut::Before),
            _ => None,
        }
    }

    /// Passes one request; each has a connection of its own.
    fn pass(&self, mut client: TcpStream, server: SocketAddr) -> Option<()> {
        let (head, body) = request(&mut client)?;
        let cut = self.next();
        if cut == Some(Cut::Before) {
            return None;
        }
        let body = match cut {
            Some(Cut::Half) => half(body),
            _ => body,
        };
        let kept = head.lines().filter(|line| {
            let line = line.to_ascii_lowercase();
            !["host:", "content-length:", "connection:"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        let mut sent = kept.collect::<Vec<_>>().join("\r\n");
        sent.push_str(&format!(
            "\r\nhost: {server}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ));
        let mut stream = TcpStream::connect(server).ok()?;
        stream.write_all(&[sent.as_bytes(), &body].concat()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        match cut {
            None => client.write_all(&answer).ok(),
            Some(_) => None,
        }
    }
}

fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.trim_end().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Half of the documents of a request, where it has several.
fn half(body: Vec<u8>) -> Vec<u8> {
    let Ok(mut sent) = serde_json::from_slice::<Value>(&body) else {
        return body;
    };
    let Some(docs) = sent.get_mut("docs").and_then(Value::as_array_mut) else {
        return body;
    };
    docs.truncate(docs.len() / 2);
    serde_json::to_vec(&sent).expect("it is JSON")
}

/// What of a database can be seen: documents with their bodies, changes, counts, a local document.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    docs: BTreeMap<String, (Rev, String)>,
    changes: Vec<String>,
    counts: (u64, u64),
    local: Option<String>,
}

fn seen(database: &Database) -> Seen {
    let mut seen = Seen {
        docs: BTreeMap::new(),
        changes: Vec::new(),
        counts: (0, 0),
        local: None,
    };
    let query = ChangesQuery {
        docs: true,
        ..ChangesQuery::default()
    };
    let visited = database.changes(&query, &mut |change| {
        seen.changes
            .push(format!("{} {}", change.seq.number(), change.id));
        let doc = change.doc.expect("it was asked for");
        seen.docs.insert(
            change.id.to_string(),
            (doc.rev().clone(), doc.body.as_str().to_owned()),
        );
        ControlFlow::Continue(())
    });
    visited.expect("changes");
    let info = database.info().expect("counts");
    seen.counts = (info.doc_count, info.deleted_count);
    let local = database
        .local_get(&"mark".parse_local())
        .expect("a local document");
    seen.local = local.map(|local| local.body.as_str().to_owned());
    assert_eq!(database.check().expect("a check"), None);
    seen
}

trait ParseLocal {
    fn parse_local(&self) -> crate::id::LocalId;
}

impl ParseLocal for str {
    fn parse_local(&self) -> crate::id::LocalId {
        crate::id::LocalId::named(self).expect("a name")
    }
}

fn edit(id: &str, parent: Option<&Rev>, deleted: bool, text: &str) -> Edit {
    Edit::New {
        id: id.parse().expect("an id"),
        parent: parent.cloned(),
        deleted,
        body: Body::from(format!("{{\"text\":\"{text}\"}}")),
        attachments: BTreeMap::new(),
    }
}

/// A database over a link, in a folder of its own.
struct Desk {
    dir: tempfile::TempDir,
    far: Far,
    link: Link,
    servers: Servers,
    number: usize,
}

impl Desk {
    fn new() -> Desk {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a folder");
        let far = far(&dir.path().join("far"));
        Desk {
            link: Link::to(far.address),
            servers: far.servers(),
            far,
            dir,
            number: 0,
        }
    }

    fn name(&self) -> crate::id::DbName {
        format!("near-{}", self.number).parse().expect("a name")
    }

    /// Another database, with two documents and a local one.
    fn create(&mut self) -> (Database, Rev, Rev) {
        self.number += 1;
        self.link.cut(None);
        let options = Options {
            engine: EngineKind::Couchdb,
            server: Some(self.far.place_at(self.link.address)),
            ..Options::default()
        };
        let database = create_db_on(self.dir.path(), &self.name(), &options, &self.servers);
        let database = database.expect("a database");
        let save = |id| {
            let saved = database.save_doc(edit(id, None, false, "first"));
            saved.expect("a server").expect("a new document")
        };
        let (a, b) = (save("a"), save("b"));
        let put = database.local_put(&"mark".parse_local(), None, Body::from("{\"n\":1}".to_owned()));
        put.expect("a server").expect("a new document");
        (database, a, b)
    }

    fn open(&self) -> Database {
        open_db_on(self.dir.path(), &self.name(), &self.servers).expect("it is there")
    }

    /// Cuts the link at each request of a group, in each of these ways, and looks at what is there once it is mended and, where that is
    /// said, the database was opened again.
    fn cut_everywhere(&mut self, ways: &[(Cut, bool)], group: impl Fn(&Rev, &Rev) -> Vec<Edit>) {
        let (database, a, b) = self.create();
        let before = seen(&database);
        self.link.cut(None);
        let saved = database.save_docs(group(&a, &b)).expect("a server");
        assert!(saved.iter().all(Result::is_ok));
        let requests = self.link.requests();
        let after = seen(&database);
        assert_ne!(before, after);
        assert!(requests >= 4, "{requests} requests");
        // What a group did: the first is where it was told to be there, or found so once the link was whole.
        let mut there = [0, 0];
        for (cut, reopens) in ways.iter().copied() {
            for at in 0..requests {
                let (mut database, a, b) = self.create();
                self.link.cut(Some((at, cut)));
                let told = database.save_docs(group(&a, &b));
                if let Err(error) = &told {
                    assert!(matches!(error, Error::Server { .. }), "{error}");
                }
                if reopens {
                    drop(database);
                    self.link.cut(None);
                    database = self.open();
                }
                self.link.cut(None);
                let found = seen(&database);
                let case = format!("{cut:?} at {at} of {requests}, opened again: {reopens}, {told:?}");
                assert!(found == before || found == after, "{case}: {found:?}");
                // Whoever was told that it is there finds it, and who goes on with a failure does not.
                if told.is_ok() {
                    assert_eq!(found, after, "{case}");
                } else if !reopens {
                    assert_eq!(found, before, "{case}");
                }
                there[usize::from(found == before)] += 1;
                // It goes on.
                let more = database.save_doc(edit("more", None, false, "more"));
                more.expect("a server").expect("a new document");
                assert_eq!(seen(&database).docs.len(), found.docs.len() + 1, "{case}");
                drop(database);
                assert!(seen(&self.open()).docs.contains_key("more"), "{case}");
            }
        }
        assert!(there[0] > 0 && there[1] > 0, "{there:?}");
    }
}

#[test]
fn a_group_is_there_as_a_whole_wherever_its_server_is_cut_off() {
    let ways = [Cut::Before, Cut::After, Cut::Half].map(|cut| [(cut, true), (cut, false)]);
    Desk::new().cut_everywhere(ways.as_flattened(), |a, b| {
        vec![
            edit("a", Some(a), false, &"long ".repeat(20_000)),
            edit("b", Some(b), true, ""),
            edit("c", None, false, "third"),
        ]
    });
}

#[test]
fn a_group_of_several_documents_on_the_server_is_there_as_a_whole_as_well() {
    let ways = [(Cut::Before, true), (Cut::After, false), (Cut::Half, true)];
    Desk::new().cut_everywhere(&ways, |a, _| {
        let long = "long ".repeat(60_000);
        let more = (0..2).map(|number| edit(&format!("d{number}"), None, false, &long));
        more.chain([edit("a", Some(a), false, "second")]).collect()
    });
}
