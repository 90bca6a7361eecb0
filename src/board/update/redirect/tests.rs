//! Where a request is led to, over real connections.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::http::Method;
use crate::http::tests::answered;

const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// One connection after the other is answered with what `answer` says, where there is a request; their heads come out of the channel.
struct TestServer {
    scheme: &'static str,
    port: u16,
    heads: Receiver<String>,
}

impl TestServer {
    fn new(tls: Option<&Arc<ServerConfig>>, answer: impl Fn(u16) -> String + Send + 'static) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, heads) = channel();
        let (tls, answer) = (tls.cloned(), answer(port));
        let scheme = if tls.is_some() { "https" } else { "http" };
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let head = match &tls {
                    None => answered(stream, &answer),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        answered(StreamOwned::new(connection, stream), &answer)
                    }
                };
                if heard.send(head).is_err() {
                    return;
                }
            }
        });
        TestServer { scheme, port, heads }
    }

    fn plain(answer: String) -> TestServer {
        TestServer::new(None, move |_| answer.clone())
    }

    fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }
}

fn to(location: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nlocation: {location}\r\nset-cookie: a=b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

/// A certificate for this machine, and who vouches for it.
fn certified() -> (Arc<ServerConfig>, Roots) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let roots = Roots::of_pem(certificate.pem().as_bytes()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (Arc::new(config), roots)
}

/// What comes from there, with addresses that may be reached and a root.
async fn follows(url: &str, roots: Option<&Roots>) -> Result<Vec<u8>, String> {
    let allowed = ["127.0.0.1".parse().unwrap()];
    let url = url.parse().unwrap();
    let roots = || roots.cloned().ok_or(RootsError::NoBundle);
    let asked = follow_by(roots, &url, &allowed, |path| {
        Request::new(Method::GET, path).header("range", "bytes=0-0")
    });
    match asked.await {
        Ok(answer) => Ok(answer.response.whole(10).await.unwrap()),
        Err(astray) => Err(astray.to_string()),
    }
}

#[tokio::test]
async fn from_http_to_https_and_on_to_the_file_each_is_asked_the_same_and_told_nothing_else() {
    let (tls, roots) = certified();
    let last = TestServer::new(Some(&tls), |_| DONE.to_owned());
    let answer = to(&last.url("/store/b.raucb?signed=1"));
    let middle = TestServer::new(Some(&tls), move |_| answer.clone());
    let first = TestServer::plain(to(&middle.url("/b.raucb")));
    let came = follows(&first.url("/a/b.raucb"), Some(&roots)).await;
    assert_eq!(came, Ok(b"ok".to_vec()));
    for (server, path) in [
        (first, "/a/b.raucb"),
        (middle, "/b.raucb"),
        (last, "/store/b.raucb?signed=1"),
    ] {
        let head = server.heads.recv().unwrap().to_ascii_lowercase();
        let mut lines: Vec<&str> = head.trim_end().lines().collect();
        lines.sort_unstable();
        let host = format!("host: 127.0.0.1:{}", server.port);
        assert_eq!(
            lines,
            [&format!("get {path} http/1.1"), &host, "range: bytes=0-0"]
        );
    }
}

#[tokio::test]
async fn two_redirects_are_followed_and_no_more() {
    let chain = |len: usize| {
        let last = TestServer::plain(DONE.to_owned());
        (0..len).fold(vec![last], |mut servers, _| {
            let answer = to(&servers[servers.len() - 1].url("/b.raucb"));
            servers.push(TestServer::plain(answer));
            servers
        })
    };
    let two = chain(2);
    assert_eq!(follows(&two[2].url("/b.raucb"), None).await, Ok(b"ok".to_vec()));
    let three = chain(3);
    let said = follows(&three[3].url("/b.raucb"), None).await.unwrap_err();
    assert!(said.starts_with("redirect 3: it is one too many"), "{said}");
    assert!(three[0].heads.try_recv().is_err(), "the last was asked");
}

#[tokio::test]
async fn a_circle_and_what_leads_to_no_url_are_seen() {
    let itself = TestServer::new(None, |port| to(&format!("http://127.0.0.1:{port}/b.raucb")));
    assert_eq!(
        follows(&itself.url("/b.raucb"), None).await.unwrap_err(),
        "redirect 1: it leads in a circle"
    );
    let back = TestServer::new(None, |_| to("/b.raucb"));
    assert_eq!(
        follows(&back.url("/a/b.raucb"), None).await.unwrap_err(),
        "redirect 2: it leads in a circle"
    );
    for nowhere in ["ftp://127.0.0.1/b.raucb", "http://ann:secret@127.0.0.1/b.raucb"] {
        let server = TestServer::plain(to(nowhere));
        let said = follows(&server.url("/b.raucb"), None).await.unwrap_err();
        assert_eq!(said, "redirect 1: the server sends elsewhere, and to no URL");
    }
    let silent = TestServer::plain(to("/").replace("location", "elsewhere"));
    let said = follows(&silent.url("/b.raucb"), None).await.unwrap_err();
    assert!(said.ends_with("to no URL"), "{said}");
}

#[tokio::test]
async fn s17_from_https_nothing_leads_back_to_http() {
    let (tls, roots) = certified();
    let open = TestServer::plain(DONE.to_owned());
    let location = open.url("/b.raucb");
    let safe = TestServer::new(Some(&tls), move |_| to(&location));
    let begun_open = TestServer::plain(to(&safe.url("/b.raucb")));
    for (first, redirect) in [(&safe, 1), (&begun_open, 2)] {
        let said = follows(&first.url("/b.raucb"), Some(&roots)).await.unwrap_err();
        let expected = format!("redirect {redirect}: it leads from https to http");
        assert!(said.starts_with(&expected), "{said}");
    }
    assert!(open.heads.try_recv().is_err(), "it was asked");
}

#[tokio::test]
async fn s17_no_redirect_leads_to_an_address_that_may_not_be_reached() {
    let honeypot = TcpListener::bind("127.0.0.2:0").unwrap();
    honeypot.set_nonblocking(true).unwrap();
    let port = honeypot.local_addr().unwrap().port();
    let (_, roots) = certified();
    for host in [
        "127.0.0.2",
        "[::ffff:127.0.0.2]",
        "0x7f000002",
        "169.254.169.254",
        "192.168.1.1",
    ] {
        for scheme in ["http", "https"] {
            let second = TestServer::plain(to(&format!("{scheme}://{host}:{port}/latest/meta-data")));
            let first = TestServer::plain(to(&second.url("/b.raucb")));
            let said = follows(&first.url("/b.raucb"), Some(&roots)).await.unwrap_err();
            let is_named = said.starts_with(&format!("redirect 2: {scheme}://{host}:{port} "));
            assert!(is_named, "{said}");
            // A resolver may know no address for a spelling.
            assert!(
                said.contains("to which no connection may be made") || host.starts_with("0x"),
                "{said}"
            );
        }
    }
    // The internet is reached by https alone: nothing is sent there over plain HTTP.
    let first = TestServer::plain(to("http://1.1.1.1/b.raucb"));
    let said = follows(&first.url("/b.raucb"), None).await.unwrap_err();
    assert!(said.contains("to which no connection may be made"), "{said}");
    assert!(honeypot.accept().is_err(), "somebody knocked");
}
