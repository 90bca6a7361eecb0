//! The same JSON documents into plain SQLite (the floor) and into a database of Refuge, without HTTP on either side.
//!
//!     documents --engine floor|refuge --data DIR [--docs 10000] [--size 1024] [--writers 1] [--batch 1] [--every-ms 0]
//!
//! The floor is what one would write by hand: one table, the id its primary key, one transaction for each request, WAL and
//! `synchronous=FULL`, everything else as SQLite has it. Each writer is a thread; with `--every-ms` all of them write one batch
//! at each tick. With `--read` every document is read once more by id, in another order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use refuge::blanket::{Body, Database, Edit, Options, create_db};
use refuge_bench_peers::{Arguments, doc_id, document};
use rusqlite::Connection;

trait Target: Send + Sync {
    fn write(&self, docs: Vec<(String, String)>);
    fn read(&self, id: &str) -> usize;
}

struct Floor(Mutex<Connection>);

impl Target for Floor {
    fn write(&self, docs: Vec<(String, String)>) {
        let mut connection = self.0.lock().expect("no writer panics");
        let tx = connection.transaction().expect("a transaction");
        for (id, json) in &docs {
            let mut insert =
                tx.prepare_cached("INSERT INTO doc (id, json) VALUES (?1, ?2)").expect("an insert");
            insert.execute([id, json]).expect("a new id");
        }
        tx.commit().expect("a commit");
    }

    fn read(&self, id: &str) -> usize {
        let connection = self.0.lock().expect("no writer panics");
        let mut select = connection.prepare_cached("SELECT json FROM doc WHERE id = ?1").expect("a select");
        let json: String = select.query_row([id], |row| row.get(0)).expect("a document");
        json.len()
    }
}

impl Target for Database {
    fn write(&self, docs: Vec<(String, String)>) {
        let edits = docs.into_iter().map(|(id, json)| Edit::New {
            id: id.parse().expect("an id"),
            parent: None,
            deleted: false,
            body: Body::parse(&json).expect("a document"),
            attachments: BTreeMap::new(),
        });
        let saved = self.save_docs(edits.collect()).expect("a write");
        assert!(saved.iter().all(Result::is_ok));
    }

    fn read(&self, id: &str) -> usize {
        let doc = self.open_doc(&id.parse().expect("an id")).expect("a read").expect("a document");
        doc.body.as_str().len()
    }
}

fn main() {
    let arguments = Arguments::of_process();
    let folder = Path::new(arguments.required("--data"));
    std::fs::create_dir_all(folder).expect("a folder");
    let target: Arc<dyn Target> = match arguments.required("--engine") {
        "floor" => Arc::new(floor(folder)),
        "refuge" => {
            let name = "bench".parse().expect("a name");
            Arc::new(create_db(folder, &name, &Options::default()).expect("a new database"))
        }
        other => panic!("no engine {other}"),
    };
    let docs = arguments.number("--docs", 10_000);
    let size = usize::try_from(arguments.number("--size", 1024)).expect("a size");
    let writers = arguments.number("--writers", 1);
    let batch = arguments.number("--batch", 1);
    let every = Duration::from_millis(arguments.number("--every-ms", 0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let target = &target;
            scope.spawn(move || {
                let mut number = writer * batch;
                for tick in 1.. {
                    if number >= docs {
                        return;
                    }
                    let last = (number + batch).min(docs);
                    target.write((number..last).map(|number| document(number, size)).collect());
                    number += writers * batch;
                    std::thread::sleep((every * tick).saturating_sub(begun.elapsed()));
                }
            });
        }
    });
    let written = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut read = 0;
    if arguments.get("--read").is_some() {
        // A step without a common divisor meets each document once.
        for step in 0..docs {
            read += target.read(&doc_id((step * 7919) % docs));
        }
    }
    let read_seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "docs": docs,
            "seconds": written,
            "docs_per_second": docs as f64 / written,
            "read_bytes": read,
            "reads_per_second": docs as f64 / read_seconds,
        })
    );
}

fn floor(folder: &Path) -> Floor {
    let connection = Connection::open(folder.join("floor.db")).expect("a database");
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").expect("settings");
    connection
        .execute_batch("CREATE TABLE doc (id TEXT PRIMARY KEY, json TEXT NOT NULL)")
        .expect("a table");
    Floor(Mutex::new(connection))
}
