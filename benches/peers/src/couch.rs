//! Documents over CouchDB's HTTP API, into whatever speaks it: a node, or `pouchdb-server`.
//!
//!     couch put     --url DB [--token TOKEN] [--docs 10000] [--size 1024] [--writers 1]   one request for each document
//!     couch bulk    --url DB [--token TOKEN] [--docs 200000] [--size 1024] [--batch 500]  `_bulk_docs`
//!     couch read    --url DB [--token TOKEN] --docs N [--reads 10000]                     by id, in another order than written
//!     couch changes --url DB [--token TOKEN] --docs N                                     `_changes` from 0, counted
//!     couch find    --url DB [--token TOKEN] --docs N [--queries 200]                     `_find` by an index over `n`
//!
//! Hand-written over `std` sockets, kept alive, one thread for each writer, so that as much as possible of a small machine is left to
//! what is measured. Every status is checked, and of what is read the number of documents.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use refuge_bench_peers::{Arguments, doc_id, document};

/// What stands once in each row of `_changes`, and nowhere in a document.
const CHANGES: &[u8] = b"\"changes\"";

/// Documents that one query asks for.
const FOUND: u64 = 25;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::of_process();
    let target = Target::parse(arguments.required("--url"), arguments.get("--token"))?;
    let size = usize::try_from(arguments.number("--size", 1024))?;
    let what = std::env::args().nth(1).unwrap_or_default();
    let docs = arguments.number("--docs", if what == "bulk" { 200_000 } else { 10_000 });
    let started = Instant::now();
    let done = match what.as_str() {
        "put" => put(&target, docs, size, arguments.number("--writers", 1))?,
        "bulk" => bulk(&target, docs, size, arguments.number("--batch", 500))?,
        "read" => read(&target, docs, arguments.number("--reads", 10_000))?,
        "changes" => changes(&target, docs)?,
        "find" => find(&target, docs, arguments.number("--queries", 200))?,
        other => bail!("put, bulk, read, changes or find, not {other:?}"),
    };
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({"done": done, "seconds": seconds, "per_second": done as f64 / seconds})
    );
    Ok(())
}

fn put(target: &Target, docs: u64, size: usize, writers: u64) -> anyhow::Result<u64> {
    std::thread::scope(|scope| {
        let writer = |writer: u64| {
            move || -> anyhow::Result<()> {
                let mut connection = target.connect()?;
                for number in (writer..docs).step_by(usize::try_from(writers)?) {
                    let (id, json) = document(number, size);
                    connection.ask("PUT", &format!("/{id}"), Some(&json), &mut |_| {})?;
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..writers).map(|number| scope.spawn(writer(number))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a writer returns its error"))
    })?;
    Ok(docs)
}

fn bulk(target: &Target, docs: u64, size: usize, batch: u64) -> anyhow::Result<u64> {
    let mut connection = target.connect()?;
    for first in (0..docs).step_by(usize::try_from(batch)?) {
        let mut body = String::from("{\"docs\":[");
        for number in first..(first + batch).min(docs) {
            let (id, json) = document(number, size);
            if number > first {
                body.push(',');
            }
            body.push_str(&format!("{{\"_id\":\"{id}\",{}", &json[1..]));
        }
        body.push_str("]}");
        let mut errors = 0;
        connection.ask("POST", "/_bulk_docs", Some(&body), &mut |piece| {
            errors += count(piece, b"\"error\"")
        })?;
        ensure!(errors == 0, "{errors} documents were refused");
    }
    Ok(docs)
}

fn read(target: &Target, docs: u64, reads: u64) -> anyhow::Result<u64> {
    let mut connection = target.connect()?;
    for step in 0..reads {
        let mut bytes = 0;
        let id = doc_id((step * 7919) % docs);
        connection.ask("GET", &format!("/{id}"), None, &mut |piece| bytes += piece.len())?;
        ensure!(bytes > 500, "{id} has {bytes} bytes");
    }
    Ok(reads)
}

fn changes(target: &Target, docs: u64) -> anyhow::Result<u64> {
    let mut connection = target.connect()?;
    let mut rows = 0;
    let mut last = Vec::new();
    connection.ask("GET", "/_changes?since=0", None, &mut |piece| {
        // A name may be cut between two pieces: what could be the beginning of one stays.
        last.extend_from_slice(piece);
        rows += count(&last, CHANGES);
        let open = last.len().saturating_sub(CHANGES.len() - 1);
        last.drain(..open.max(end_of_last(&last, CHANGES)));
    })?;
    ensure!(rows == docs, "{rows} changes of {docs}");
    Ok(docs)
}

fn find(target: &Target, docs: u64, queries: u64) -> anyhow::Result<u64> {
    let mut connection = target.connect()?;
    for query in 0..queries {
        let from = (query * 7919) % (docs - FOUND);
        let body = format!("{{\"selector\":{{\"n\":{{\"$gte\":{from}}}}},\"limit\":{FOUND}}}");
        let mut whole = Vec::new();
        connection.ask("POST", "/_find", Some(&body), &mut |piece| {
            whole.extend_from_slice(piece)
        })?;
        let found = count(&whole, b"\"_id\"");
        ensure!(found == FOUND, "{found} documents of {FOUND}");
    }
    Ok(queries)
}

fn count(bytes: &[u8], wanted: &[u8]) -> u64 {
    bytes
        .windows(wanted.len())
        .filter(|window| *window == wanted)
        .count() as u64
}

/// Behind the last place where `wanted` stands.
fn end_of_last(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes
        .windows(wanted.len())
        .rposition(|window| window == wanted)
        .map_or(0, |at| at + wanted.len())
}

struct Target {
    authority: String,
    path: String,
    authorization: String,
}

struct Connection<'a> {
    target: &'a Target,
    stream: BufReader<TcpStream>,
}

impl Target {
    fn parse(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .context("--url takes a plain http:// URL")?;
        let (authority, path) = rest.split_once('/').context("--url names no database")?;
        Ok(Self {
            authority: authority.to_owned(),
            path: format!("/{path}"),
            authorization: token
                .map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n")),
        })
    }

    fn connect(&self) -> anyhow::Result<Connection<'_>> {
        let stream = TcpStream::connect(&self.authority)
            .with_context(|| format!("no answer at {}", self.authority))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            target: self,
            stream: BufReader::with_capacity(64 * 1024, stream),
        })
    }
}

impl Connection<'_> {
    /// Sends one request and hears its answer, piece by piece.
    ///
    /// # Errors
    /// Any status but 200, 201 and 202: a load must not measure refusals.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&str>,
        hear: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let Target {
            authority,
            path: db,
            authorization,
        } = self.target;
        let body = body.unwrap_or_default();
        let mut request = format!("{method} {db}{path} HTTP/1.1\r\nhost: {authority}\r\n{authorization}");
        if !body.is_empty() {
            request.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let header = self.line()?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').context("a header without a colon")?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "transfer-encoding" => is_chunked = value.trim() == "chunked",
                _ => {}
            }
        }
        let is_done = ["200", "201", "202"].contains(&status.as_str());
        let mut refusal = Vec::new();
        let hear: &mut dyn FnMut(&[u8]) = if is_done {
            hear
        } else {
            &mut |piece: &[u8]| refusal.extend_from_slice(piece)
        };
        if !is_chunked {
            self.body(length, hear)?;
        }
        while is_chunked {
            let size = usize::from_str_radix(self.line()?.trim(), 16)?;
            self.body(size, hear)?;
            self.line()?;
            is_chunked = size > 0;
        }
        ensure!(
            is_done,
            "{method} {path}: status {status}: {}",
            String::from_utf8_lossy(&refusal)
        );
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(
            self.stream.read_line(&mut line)? > 0,
            "the connection was closed inside an answer"
        );
        Ok(line.trim_end().to_owned())
    }

    fn body(&mut self, mut length: usize, hear: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let mut piece = [0; 64 * 1024];
        while length > 0 {
            let most = length.min(piece.len());
            let read = self.stream.read(&mut piece[..most])?;
            ensure!(read > 0, "the connection was closed inside an answer");
            hear(&piece[..read]);
            length -= read;
        }
        Ok(())
    }
}
