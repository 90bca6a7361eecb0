//! The client against servers that are no nodes: what proves them, what opens them, where they may be.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::runtime::Runtime;

use super::*;

/// Answers one connection after the other with `answer`; the heads of the requests come out of the channel.
fn served(tls: Option<ServerConfig>, answer: &'static str) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, heard) = channel();
    let tls = tls.map(Arc::new);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let head = match &tls {
                None => answered(stream, answer),
                Some(config) => {
                    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                    answered(StreamOwned::new(connection, stream), answer)
                }
            };
            if heads.send(head).is_err() {
                return;
            }
        }
    });
    (port, heard)
}

/// Listens at one port of several addresses of this machine.
fn listeners<const COUNT: usize>(addresses: [Ipv4Addr; COUNT]) -> (u16, [TcpListener; COUNT]) {
    loop {
        let first = TcpListener::bind((addresses[0], 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let mut first = Some(first);
        let all = addresses.map(|address| {
            first
                .take()
                .map_or_else(|| TcpListener::bind((address, port)), Ok)
        });
        // Another program may have the port at one of them.
        if all.iter().all(Result::is_ok) {
            return (port, all.map(Result::unwrap));
        }
    }
}

/// The head of a request; empty where there was none.
pub(crate) fn answered(mut stream: impl Read + Write, answer: &str) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return String::new(),
        }
    }
    // Whoever asked may have gone.
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.flush();
    String::from_utf8(head).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn server(url: &str, proof: Proof) -> Server {
    let (url, basic) = ServerUrl::parse(url).unwrap();
    Server {
        url,
        proof,
        credentials: basic.map(Credentials::Basic),
        policy: None,
    }
}

const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

#[test]
fn a_base_path_and_basic_credentials_come_with_each_request() {
    let runtime = runtime();
    let (port, heads) = served(None, DONE);
    let url = format!("http://ann:secret@127.0.0.1:{port}/couch/notes/");
    let client = Client::of(server(&url, Proof::Nothing), runtime.handle().clone()).unwrap();
    assert_eq!(
        client.url().to_string(),
        format!("http://127.0.0.1:{port}/couch/notes")
    );
    let answer = client
        .send(Request::new(Method::GET, "/_changes?since=0"))
        .unwrap();
    assert_eq!(answer.bytes(10).unwrap(), b"ok");
    let head = heads.recv().unwrap();
    assert!(
        head.starts_with("GET /couch/notes/_changes?since=0 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.to_ascii_lowercase()
            .contains("authorization: basic yw5uonnly3jlda==\r\n"),
        "{head}"
    );
    let answer = runtime.block_on(async {
        let answer = client.ask(Request::new(Method::GET, "/")).await.unwrap();
        answer.whole(10).await.unwrap()
    });
    assert_eq!(answer, b"ok");
}

#[test]
fn a_redirect_is_a_refusal_and_nothing_is_asked_elsewhere() {
    let runtime = runtime();
    let (port, heads) = served(
        None,
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    let url = format!("http://ann:secret@127.0.0.1:{port}");
    let client = Client::of(server(&url, Proof::Nothing), runtime.handle().clone()).unwrap();
    let refused = client.send(Request::new(Method::GET, "/")).err().unwrap();
    let refusal = refused.refusal().unwrap();
    assert_eq!(
        (refusal.status.as_u16(), refusal.location.as_deref()),
        (302, Some("http://127.0.0.1:1/"))
    );
    assert!(!refused.to_string().contains("secret"));
    heads.recv().unwrap();
    assert!(heads.try_recv().is_err());
}

#[test]
fn no_connection_is_made_to_an_address_that_the_policy_refuses() {
    let runtime = runtime();
    let (port, heads) = served(None, DONE);
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
    ] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        let policy = move |address: IpAddr| {
            told.lock().unwrap().push(address);
            false
        };
        let server = Server {
            policy: Some(Arc::new(policy)),
            ..server(&format!("http://{host}:{port}"), Proof::Nothing)
        };
        let client = Client::of(server, runtime.handle().clone()).unwrap();
        let refused = client.send(Request::new(Method::GET, "/")).err().unwrap();
        match refused {
            Error::Forbidden { address, .. } => {
                assert_eq!(asked.lock().unwrap().as_slice(), [address], "{host}")
            }
            // A spelling that the resolver of this system knows no address for.
            Error::Unreachable { .. } => assert!(asked.lock().unwrap().is_empty(), "{host}"),
            other => panic!("{host}: {other}"),
        }
    }
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
    // The first that was heard is that of this test.
    assert_eq!(heads.recv().unwrap(), "");
}

/// Security row S17: what a name is said to be when it is checked is what is connected to, whatever it is said to be next.
#[test]
fn a_name_that_changes_its_address_reaches_none_that_was_not_checked() {
    let runtime = runtime();
    // The first stands for an address of the internet, the second is what must not be reached.
    let (outside, inside) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST);
    let (port, [at_outside, at_inside]) = listeners([outside, inside]);
    at_inside.set_nonblocking(true).unwrap();
    let serving = thread::spawn(move || {
        let (stream, _) = at_outside.accept().unwrap();
        let reached = stream.local_addr().unwrap().ip();
        answered(stream, DONE);
        reached
    });
    let answers = Arc::new(Mutex::new(vec![
        vec![inside, outside],
        vec![outside, inside],
        vec![inside],
        vec![outside],
    ]));
    let looked_up = Arc::clone(&answers);
    let lookup = move |_| {
        let next = looked_up
            .lock()
            .unwrap()
            .pop()
            .expect("one look-up for each connection");
        let addresses = next
            .into_iter()
            .map(|address| SocketAddr::from((address, 0)))
            .collect();
        Box::pin(async move { Ok(addresses) }) as Pin<Box<dyn Future<Output = _> + Send>>
    };
    let checked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&checked);
    let policy: AddressPolicy = Arc::new(move |address| {
        told.lock().unwrap().push(address);
        address == outside
    });
    let server = Server {
        policy: Some(policy.clone()),
        ..server(&format!("http://rebound.example:{port}"), Proof::Nothing)
    };
    let resolver = resolve::Resolver::over(Some(policy), Arc::new(lookup));
    let client = Client::over(server, resolver, runtime.handle().clone()).unwrap();
    let ask = || client.send(Request::new(Method::GET, "/"));
    assert_eq!(ask().unwrap().bytes(10).unwrap(), b"ok");
    assert_eq!(serving.join().unwrap(), outside);
    assert_eq!(std::mem::take(&mut *checked.lock().unwrap()), [outside]);
    // By itself, and beside one that may be reached, wherever it stands.
    for _ in 0..3 {
        let refused = ask().err().unwrap();
        assert!(
            matches!(refused, Error::Forbidden { address, .. } if address == inside),
            "{refused}"
        );
    }
    assert!(answers.lock().unwrap().is_empty());
    let heard = at_inside.accept().err().map(|error| error.kind());
    assert_eq!(heard, Some(std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_server_is_known_by_its_name_and_the_roots_that_vouch_for_it() {
    let runtime = runtime();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let config = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    };
    let roots = Roots::of_pem(certificate.pem().as_bytes()).unwrap();
    let stranger = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let stranger = stranger
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap();
    let stranger = Roots::of_pem(stranger.pem().as_bytes()).unwrap();
    for (host, roots, fits) in [
        ("localhost", &roots, true),
        ("localhost", &stranger, false),
        ("127.0.0.1", &roots, false),
    ] {
        let (port, heads) = served(Some(config()), DONE);
        let server = server(&format!("https://{host}:{port}"), Proof::Roots(roots.clone()));
        let client = Client::of(server, runtime.handle().clone()).unwrap();
        let answer = client.send(Request::new(Method::GET, "/"));
        assert_eq!(answer.is_ok(), fits, "{host} {:?}", answer.err());
        assert_eq!(heads.recv().unwrap().is_empty(), !fits);
    }
    let node = server("https://localhost", Proof::Nothing);
    assert!(matches!(
        Client::of(node, runtime.handle().clone()),
        Err(Error::Unproven { .. })
    ));
    let clear = server("http://192.0.2.1", Proof::Roots(roots));
    assert!(matches!(
        Client::of(clear, runtime.handle().clone()),
        Err(Error::Unproven { .. })
    ));
}

#[test]
fn an_upload_goes_on_from_async_code() {
    let runtime = runtime();
    let (port, heads) = served(None, DONE);
    let server = server(&format!("http://127.0.0.1:{port}"), Proof::Nothing);
    let client = Client::of(server, runtime.handle().clone()).unwrap();
    let answer = runtime.block_on(async {
        let mut upload = client.upload(Request::new(Method::POST, "/x"), Some(4));
        upload.push(bytes::Bytes::from_static(b"ab")).await.unwrap();
        upload.push(bytes::Bytes::from_static(b"cd")).await.unwrap();
        upload.end().await.unwrap().whole(10).await.unwrap()
    });
    assert_eq!(answer, b"ok");
    assert!(heads.recv().unwrap().contains("content-length: 4"));
}
