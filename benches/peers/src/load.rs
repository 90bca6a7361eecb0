//! The load: many blobs, or one file, over plain HTTP/1.1 with kept-alive connections.
//!
//!     load --url http://127.0.0.1:PORT/blobs [--token TOKEN] [--connections 16] [--blobs 100000] [--size 4096] [--first 0]
//!     load --url http://127.0.0.1:PORT/blobs [--token TOKEN] --file PATH
//!
//! Hand-written over `std` sockets, one thread for each connection, so that as much as possible of a small machine is left
//! to what is measured. Every status is checked; of every thousandth blob the answered id as well.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use refuge_bench_peers::{Arguments, fill, report};

/// Larger bodies are made and sent in pieces of this size.
const PIECE_BYTES: u64 = 256 << 10;

struct Target {
    authority: String,
    path: String,
    authorization: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::of_process();
    let target = Target::parse(arguments.required("--url"), arguments.get("--token"))?;
    if let Some(path) = arguments.get("--file") {
        return send_file(&target, path);
    }
    let blobs = arguments.number("--blobs", 100_000);
    let size_bytes = arguments.number("--size", 4096);
    let first = arguments.number("--first", 0);
    let next = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let connections: Vec<_> = (0..arguments.number("--connections", 16))
            .map(|_| scope.spawn(|| send_blobs(&target, &next, first, blobs, size_bytes)))
            .collect();
        connections
            .into_iter()
            .try_for_each(|connection| connection.join().expect("a sender returns its error"))
    })?;
    report("load", blobs, size_bytes, started.elapsed());
    Ok(())
}

impl Target {
    fn parse(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .context("--url takes a plain http:// URL")?;
        let (authority, path) = rest.split_once('/').context("--url names no path")?;
        Ok(Self {
            authority: authority.to_owned(),
            path: format!("/{path}"),
            authorization: token
                .map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n")),
        })
    }

    fn connect(&self) -> anyhow::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.authority)
            .with_context(|| format!("no answer at {}", self.authority))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    fn head(&self, size_bytes: u64) -> Vec<u8> {
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\n{}content-type: application/octet-stream\r\ncontent-length: {size_bytes}\r\n\r\n",
            self.path, self.authority, self.authorization
        )
        .into_bytes()
    }
}

fn send_blobs(
    target: &Target,
    next: &AtomicU64,
    first: u64,
    blobs: u64,
    size_bytes: u64,
) -> anyhow::Result<()> {
    let mut connection = target.connect()?;
    let head = target.head(size_bytes);
    let mut request = head.clone();
    request.resize(head.len() + size_bytes.min(PIECE_BYTES) as usize, 0);
    let mut answer = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= blobs {
            return Ok(());
        }
        let checked = index % 1000 == 0;
        let mut hasher = blake3::Hasher::new();
        fill(&mut request[head.len()..], first + index);
        connection.get_mut().write_all(&request)?;
        if checked {
            hasher.update(&request[head.len()..]);
        }
        let mut sent = (request.len() - head.len()) as u64;
        while sent < size_bytes {
            let piece = (size_bytes - sent).min(PIECE_BYTES) as usize;
            let block = &mut request[head.len()..head.len() + piece];
            fill(block, (first + index) ^ (sent << 20));
            connection.get_mut().write_all(block)?;
            if checked {
                hasher.update(block);
            }
            sent += piece as u64;
        }
        read_answer(&mut connection, &mut answer)?;
        if checked {
            let id = hasher.finalize().to_hex();
            let text = String::from_utf8_lossy(&answer);
            ensure!(
                text.contains(id.as_str()),
                "blob {index} was answered with another id than {id}: {text}"
            );
        }
    }
}

fn send_file(target: &Target, path: &str) -> anyhow::Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    let size_bytes = file.metadata()?.len();
    let mut connection = target.connect()?;
    let started = Instant::now();
    connection.get_mut().write_all(&target.head(size_bytes))?;
    // Between two descriptors this is `sendfile`: the load spends no cycles on copying.
    std::io::copy(&mut file, connection.get_mut())?;
    read_answer(&mut connection, &mut Vec::new())?;
    report("load", 1, size_bytes, started.elapsed());
    Ok(())
}

/// Reads one whole answer into `body`.
///
/// # Errors
/// Any status but 200 and 201, and any answer without a length: a load must not measure refusals.
fn read_answer(connection: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = None;
    loop {
        line.clear();
        ensure!(
            connection.read_line(&mut line)? > 0,
            "the connection was closed inside an answer"
        );
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    body.resize(length.context("an answer without content-length")?, 0);
    connection.read_exact(body)?;
    if status != "200" && status != "201" {
        bail!("status {status}: {}", String::from_utf8_lossy(body));
    }
    Ok(())
}
