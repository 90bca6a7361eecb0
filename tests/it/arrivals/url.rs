//! A bundle from a server: it goes on where it was cut off, and begins anew where the file is another.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use refuge::id::BlobId;
use refuge::node::{BundleDigest, Source, Step, UpdateTrouble};

use super::{TestBox, bundle, noise};

/// A server of one file, whose line breaks.
struct FileServer {
    address: SocketAddr,
    state: Arc<Mutex<Served>>,
}

struct Served {
    file: Vec<u8>,
    etag: String,
    /// Bytes of each answer after which its line breaks; what comes after the last is whole.
    cuts: Vec<usize>,
    /// A line that does not break but stands still there.
    stands_still: bool,
    /// Where each answer began.
    asked: Vec<usize>,
    sent: usize,
    status: u16,
    /// How often a host of releases led here.
    led: usize,
}

impl FileServer {
    fn of(file: &[u8], cuts: &[usize]) -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Served {
            file: file.to_vec(),
            etag: "\"1\"".to_owned(),
            cuts: cuts.to_vec(),
            stands_still: false,
            asked: Vec::new(),
            sent: 0,
            status: 200,
            led: 0,
        }));
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || {
                    // Whoever asked may have gone.
                    let _ = serve(&connection.unwrap(), &served);
                });
            }
        });
        FileServer { address, state }
    }

    fn source(&self) -> Source {
        format!("http://{}/a/refuge.raucb?x=1", self.address)
            .parse()
            .unwrap()
    }

    /// A host of releases that leads to it, as often as it is asked.
    fn released(&self) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (file, served) = (self.address, Arc::clone(&self.state));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let lines = BufReader::new(&connection).lines().map_while(Result::ok);
                // The head, to its empty line.
                let _ = lines.take_while(|line| !line.is_empty()).count();
                served.lock().unwrap().led += 1;
                let answer = format!(
                    "HTTP/1.1 302 Found\r\nlocation: http://{file}/a/refuge.raucb?x=1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                // Whoever asked may have gone.
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        format!("http://{address}/releases/refuge.raucb").parse().unwrap()
    }

    fn with(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.state.lock().unwrap());
    }
}

fn serve(connection: &TcpStream, served: &Mutex<Served>) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection).lines();
    let mut headers = Vec::new();
    loop {
        match lines.next() {
            Some(Ok(line)) if !line.is_empty() => headers.push(line.to_ascii_lowercase()),
            Some(Ok(_)) => break,
            _ => return Ok(()),
        }
    }
    assert!(
        headers[0].starts_with("get /a/refuge.raucb?x=1 http/1.1"),
        "{headers:?}"
    );
    let header = |name: &str| {
        let found = headers.iter().find_map(|line| line.strip_prefix(name));
        found.map(|value| value.trim().to_owned())
    };
    let (head, body, stands_still) = {
        let mut served = served.lock().unwrap();
        let range = header("range: bytes=");
        if served.status == 200 && range.as_deref() == Some("0-0") {
            let mut to = connection;
            let (len, etag) = (served.file.len(), &served.etag);
            return write!(
                to,
                "HTTP/1.1 206 Partial Content\r\ncontent-length: 1\r\ncontent-range: bytes 0-0/{len}\r\netag: {etag}\r\nconnection: close\r\n\r\n{}",
                char::from(served.file[0])
            );
        }
        let range = range.and_then(|range| range.strip_suffix('-')?.parse().ok());
        let fits = header("if-range:").is_none_or(|etag| etag == served.etag);
        let from: usize = range.filter(|_| fits).unwrap_or(0);
        served.asked.push(from);
        let (len, etag) = (served.file.len(), &served.etag);
        let head = match (served.status, from) {
            (200, 0) if !fits => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {len}\r\netag: {etag}\r\nconnection: close\r\n\r\n"
            ),
            (200, _) => format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{len}\r\netag: {etag}\r\nconnection: close\r\n\r\n",
                len - from,
                len - 1
            ),
            (status, _) => format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        };
        let most = match (served.status, served.cuts.is_empty()) {
            (200, true) => len - from,
            (200, false) => served.cuts.remove(0).min(len - from),
            _ => 0,
        };
        let body = served.file[from..from + most].to_vec();
        (head, body, served.stands_still)
    };
    let mut to = connection;
    to.write_all(head.as_bytes())?;
    for piece in body.chunks(16 * 1024) {
        to.write_all(piece)?;
        served.lock().unwrap().sent += piece.len();
    }
    if stands_still {
        // Until the other end goes.
        let _ = BufReader::new(connection).lines().next();
    }
    Ok(())
}

#[test]
fn what_is_cut_off_again_and_again_goes_on_and_nothing_is_sent_twice() {
    let file = bundle("0.2.0", &noise(3_000_000, 1));
    let server = FileServer::of(&file, &[700_000, 1_000_000, 600_000]);
    let one = TestBox::new("0.1.0");
    assert_eq!(one.install(&server.source()).unwrap(), file);
    server.with(|served| {
        assert_eq!(served.asked, [0, 700_000, 1_700_000, 2_300_000]);
        assert_eq!(served.sent, file.len());
    });
    let restarted = one.restarted("0.2.0");
    restarted.until("the verdict", |updates| updates.step == Step::Idle);
}

#[test]
fn a_transfer_that_a_host_of_releases_leads_to_goes_on_as_well() {
    let file = bundle("0.2.0", &noise(3_000_000, 6));
    let server = FileServer::of(&file, &[700_000, 1_000_000]);
    let source = server.released();
    let one = TestBox::new("0.1.0");
    assert_eq!(one.install(&source).unwrap(), file);
    server.with(|served| {
        assert_eq!(served.asked, [0, 700_000, 1_700_000]);
        assert_eq!((served.sent, served.led), (file.len(), 3));
    });
}

#[test]
fn a_transfer_goes_on_after_a_restart_of_the_box() {
    let file = bundle("0.2.0", &noise(3_000_000, 2));
    let server = FileServer::of(&file, &[2_000_000]);
    server.with(|served| served.stands_still = true);
    let one = TestBox::new("0.1.0");
    one.begin(&server.source()).unwrap();
    one.until(
        "most of it",
        |updates| matches!(updates.step, Step::Fetching(progress) if progress.done >= 1_900_000),
    );
    let one = one.restarted("0.1.0");
    server.with(|served| served.stands_still = false);
    assert_eq!(one.install(&server.source()).unwrap(), file);
    server.with(|served| {
        let last = served.asked.last().copied().unwrap();
        assert!(last >= 1_500_000, "{:?}", served.asked);
    });
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let (old, new) = (
        bundle("0.2.0", &noise(1_000_000, 3)),
        bundle("0.3.0", &noise(1_000_000, 4)),
    );
    let server = FileServer::of(&old, &[600_000]);
    server.with(|served| served.stands_still = true);
    let one = TestBox::new("0.1.0");
    one.begin(&server.source()).unwrap();
    one.until(
        "some of it",
        |updates| matches!(updates.step, Step::Fetching(progress) if progress.done >= 500_000),
    );
    let one = one.restarted("0.1.0");
    server.with(|served| {
        served.stands_still = false;
        served.file = new.clone();
        served.etag = "\"2\"".to_owned();
    });
    assert_eq!(one.install(&server.source()).unwrap(), new);
}

#[test]
fn what_is_not_what_was_meant_is_refused_and_leaves_nothing() {
    let file = bundle("0.2.0", &noise(500_000, 5));
    let server = FileServer::of(&file, &[]);
    let one = TestBox::new("0.1.0");
    let Source::Url { url, .. } = server.source() else {
        panic!("it is a URL");
    };
    let expected = |blob, size_bytes| Source::Url {
        url: url.clone(),
        expected: Some(BundleDigest { blob, size_bytes }),
    };
    let size_bytes = file.len() as u64;
    for wrong in [
        expected(BlobId::of(b"another"), size_bytes),
        expected(BlobId::of(&file), size_bytes + 1),
    ] {
        let refused = one.install(&wrong).unwrap_err();
        assert!(matches!(refused, UpdateTrouble::Bundle { .. }), "{refused}");
        assert_eq!(one.waiting(), Vec::<String>::new());
    }
    server.with(|served| served.status = 404);
    let refused = one.install(&server.source()).unwrap_err();
    assert!(matches!(refused, UpdateTrouble::Away { .. }), "{refused}");
    server.with(|served| served.status = 302);
    let refused = one.install(&server.source()).unwrap_err();
    assert!(refused.to_string().contains("elsewhere"), "{refused}");
    server.with(|served| served.status = 200);
    assert_eq!(
        one.install(&expected(BlobId::of(&file), size_bytes)).unwrap(),
        file
    );
}

#[test]
fn s17_an_address_that_is_not_listed_hears_nothing() {
    let honeypot = TcpListener::bind("127.0.0.2:0").unwrap();
    honeypot.set_nonblocking(true).unwrap();
    let port = honeypot.local_addr().unwrap().port();
    let one = TestBox::new("0.1.0");
    for host in [
        "127.0.0.2",
        "0x7f000002",
        "2130706434",
        "127.2",
        "[::ffff:127.0.0.2]",
        "localhost.localdomain",
    ] {
        for scheme in ["http", "https"] {
            let source = format!("{scheme}://{host}:{port}/a.raucb").parse().unwrap();
            let refused = one.install(&source).unwrap_err();
            assert!(matches!(refused, UpdateTrouble::Away { .. }), "{refused}");
        }
    }
    assert!(honeypot.accept().is_err(), "somebody knocked");
}
