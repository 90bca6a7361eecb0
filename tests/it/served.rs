//! A node of its own, served on loopback by the same code as the shipped one, and the plainest client there is:
//! what it sends is what the test wrote.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use refuge::api::serve::{self, Listener};
use refuge::api::{self, Options};
use refuge::node::{self, Node, Password, Role, Scope, TokenRequest};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The owner's password in every test.
pub const PASSWORD: &str = "correct horse battery";

/// Longer than anything that is right takes, so that a test that hangs fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A served node; it stops when dropped.
pub struct Served {
    pub node: Node,
    /// Plain HTTP on loopback.
    pub plain: SocketAddr,
    /// HTTPS on loopback.
    pub tls: SocketAddr,
    pub dir: TempDir,
    runtime: Option<Runtime>,
    shutdown: CancellationToken,
}

impl Served {
    /// A node without an owner.
    pub fn unclaimed() -> Served {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(node::Options::new(dir.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let options = Options {
            authorities: vec!["box.example.net:9443".to_owned()],
            https_port: Some(8443),
            origins: vec!["https://app.example.org".to_owned()],
            security_contact: Some("mailto:security@example.net".to_owned()),
        };
        let router = api::router(node.clone(), options);
        let config = serve::server_config(node.identity()).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let (plain, tls) = runtime.block_on(async {
            (
                Listener::plain(any).await.unwrap(),
                Listener::tls(any, config).await.unwrap(),
            )
        });
        let (plain_address, tls_address) = (plain.address().unwrap(), tls.address().unwrap());
        runtime.spawn(serve::serve(vec![plain, tls], router, shutdown.clone()));
        Served {
            node,
            plain: plain_address,
            tls: tls_address,
            dir,
            runtime: Some(runtime),
            shutdown,
        }
    }

    /// A node whose owner is `ada`, with [`PASSWORD`].
    pub fn claimed() -> Served {
        let served = Served::unclaimed();
        let password = Password::new(PASSWORD.to_owned()).unwrap();
        let code = served.node.claim().code().unwrap().reveal();
        let claim =
            served
                .node
                .claim()
                .by_code(&code, "ada".parse().unwrap(), password, [127, 0, 0, 1].into());
        served.run(claim).unwrap();
        served
    }

    /// Runs a future on the node's runtime.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    /// A token of the owner with these scopes.
    pub fn token(&self, scopes: &[Scope]) -> String {
        let request = TokenRequest {
            label: "test".to_owned(),
            scopes: scopes.iter().copied().collect(),
            expires: None,
        };
        let made = self.node.tokens().add("ada".parse().unwrap(), request);
        self.run(made).unwrap().secret.expose().to_owned()
    }

    /// A token that may everything.
    pub fn owner_token(&self) -> String {
        let all: Vec<Scope> = Role::Owner.scopes().iter().collect();
        self.token(&all)
    }

    /// The cookie header of a new session of the owner, as it goes over plain loopback.
    pub fn cookie(&self) -> String {
        let password = Password::new(PASSWORD.to_owned()).unwrap();
        let session = self
            .node
            .accounts()
            .log_in("ada".parse().unwrap(), password, [127, 0, 0, 1].into());
        format!("refuge={}", self.run(session).unwrap().cookie.expose())
    }

    /// The origin of the node's own pages over plain loopback.
    pub fn origin(&self) -> String {
        format!("http://{}", self.plain)
    }

    /// A request over plain loopback, with the right `Host`.
    pub fn ask(&self, method: &str, target: &str) -> Ask {
        Ask {
            address: self.plain,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), self.plain.to_string())],
            body: None,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A request being written.
pub struct Ask {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask {
    /// One header more.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Ask {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Without the headers of this name.
    pub fn without(mut self, name: &str) -> Ask {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// With a token.
    pub fn bearer(self, token: &str) -> Ask {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// With a body of this type; no type where it is empty.
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Ask {
        self.body = Some(body.into());
        if media_type.is_empty() {
            return self;
        }
        self.header("Content-Type", media_type)
    }

    /// With a JSON body.
    pub fn json(self, body: &str) -> Ask {
        self.body("application/json", body)
    }

    /// The bytes on the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = &self.body {
            wire.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        wire.extend_from_slice(b"Connection: close\r\n\r\n");
        wire.extend_from_slice(self.body.as_deref().unwrap_or_default());
        wire
    }

    /// Sends it and reads the answer.
    pub fn send(self) -> Reply {
        let head_only = self.method == "HEAD";
        exchange(self.address, &self.wire(), head_only)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// By lower-case name; repeated ones joined by a comma.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header, or the empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of an error answer.
    pub fn code(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends bytes as they stand and reads until the node closes.
pub fn exchange(address: SocketAddr, wire: &[u8], head_only: bool) -> Reply {
    parse(
        &answer_over(TcpStream::connect(address).unwrap(), wire),
        head_only,
    )
}

/// As [`exchange`], over a connection that is there.
pub fn exchange_over(stream: TcpStream, wire: &[u8]) -> Reply {
    parse(&answer_over(stream, wire), false)
}

fn answer_over(mut stream: TcpStream, wire: &[u8]) -> Vec<u8> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A node that refuses early may close before it has read everything.
    let _ = stream.write_all(wire);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Reads one answer; a `100 Continue` before it is skipped.
pub fn parse(answer: &[u8], head_only: bool) -> Reply {
    let text_end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(answer)));
    let head = String::from_utf8_lossy(&answer[..text_end]).into_owned();
    let rest = &answer[text_end + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    if status == 100 {
        return parse(rest, head_only);
    }
    let mut headers: HashMap<String, String> = HashMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        headers
            .entry(name)
            .and_modify(|known| *known = format!("{known}, {value}"))
            .or_insert(value);
    }
    let body = if head_only {
        Vec::new()
    } else if headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        dechunk(rest)
    } else {
        rest.to_vec()
    };
    Reply {
        status,
        headers,
        body,
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    body
}

/// A TLS connection that trusts any certificate: tests compare what it proves themselves.
pub fn tls_config() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Sends bytes, closes the sending side, and reads what comes, if anything does.
pub fn exchange_half(address: SocketAddr, wire: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(wire).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (!answer.is_empty()).then(|| parse(&answer, false))
}

/// Sends bytes and reads the first bytes of the answer.
pub fn first_answer(address: SocketAddr, wire: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(wire).unwrap();
    let mut answer = [0; 256];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// A TLS connection to the node.
pub struct TlsLine {
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    /// What binds a proof to it.
    pub exporter: [u8; 32],
}

impl TlsLine {
    /// Sends bytes as they stand and reads until the node closes.
    pub fn exchange(&mut self, wire: &[u8]) -> Reply {
        self.stream.write_all(wire).unwrap();
        let mut answer = Vec::new();
        let _ = self.stream.read_to_end(&mut answer);
        parse(&answer, false)
    }
}

impl Served {
    /// A new TLS connection, its handshake done.
    pub fn tls_line(&self) -> TlsLine {
        let name = "localhost".try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(tls_config(), name).unwrap();
        let mut stream = TcpStream::connect(self.tls).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).unwrap();
        }
        let exporter = connection
            .export_keying_material([0; 32], node::CLAIM_EXPORTER_LABEL, None)
            .unwrap();
        TlsLine {
            stream: rustls::StreamOwned::new(connection, stream),
            exporter,
        }
    }

    /// One exchange over a TLS connection of its own; with the certificate it showed.
    pub fn over_tls(&self, wire: &[u8]) -> (Reply, Vec<u8>) {
        let mut line = self.tls_line();
        let reply = line.exchange(wire);
        let shown = line.stream.conn.peer_certificates().unwrap()[0].to_vec();
        (reply, shown)
    }

    /// Serves plain HTTP on another address as well.
    pub fn listen_plain(&self, address: SocketAddr) -> SocketAddr {
        let listener = self.run(Listener::plain(address)).unwrap();
        let bound = listener.address().unwrap();
        let router = api::router(
            self.node.clone(),
            Options {
                https_port: Some(8443),
                ..Options::default()
            },
        );
        let serving = serve::serve(vec![listener], router, self.shutdown.clone());
        self.runtime.as_ref().unwrap().spawn(serving);
        bound
    }

    /// Puts a blob and answers its id.
    pub fn put(&self, bytes: &'static [u8]) -> String {
        let main = self.node.stores().main();
        let put = main.put(bytes.into(), node::Class::Pinned, None);
        self.run(put).unwrap().id.to_string()
    }
}
