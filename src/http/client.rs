//! Requests to one server over a pool of connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::body::{BODY_IDLE_TIMEOUT, Outgoing, Piece, Response, wait};
use super::error::{Error, forbidden, impostor, innermost};
use super::resolve::Resolver;
use super::server::{Proof, Server, ServerUrl};
use super::tls::{Trust, Verifier, rooted_config};
use super::url::{NodeUrl, Token};

/// A machine of the same network answers in milliseconds; one across the world in one or two seconds.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections that are kept: one for each thread of a backup and one for its queries.
const IDLE_CONNECTIONS: usize = 8;

/// The server closes idle connections after longer than this, so that requests rarely meet a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Pieces of an upload that may wait for the network.
const PIECES_WAITING: usize = 4;

/// The most bytes of a JSON answer.
const JSON_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the head of an answer may take after the request is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For what is answered from an index, or flushed to a slow card: two minutes.
    Short,
    /// For what reads or moves a whole store: a day.
    Long,
    /// For what the caller knows better.
    Of(Duration),
}

impl Patience {
    fn duration(self) -> Duration {
        match self {
            Patience::Short => Duration::from_secs(120),
            Patience::Long => Duration::from_secs(24 * 3600),
            Patience::Of(time) => time,
        }
    }
}

/// What is asked: a method, a path with its query, headers, a body held whole.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Option<Bytes>,
    patience: Patience,
}

impl Request {
    /// A request without a body; `path` begins with `/` and is encoded already.
    pub fn new(method: Method, path: impl Into<String>) -> Request {
        Request {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: None,
            patience: Patience::Short,
        }
    }

    /// With a header.
    ///
    /// # Panics
    /// Where the value holds what no header may: callers pass ids and parsed names.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Request {
        let value = HeaderValue::from_str(value).expect("ids and names are visible ASCII");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    /// With a JSON body.
    ///
    /// # Panics
    /// Where the value does not serialize: our own types do.
    #[must_use]
    pub fn json(mut self, value: &impl Serialize) -> Request {
        let body = serde_json::to_vec(value).expect("our own types serialize");
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Some(body.into());
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Bytes) -> Request {
        self.body = Some(body);
        self
    }

    /// With another patience than [`Patience::Short`].
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Request {
        self.patience = patience;
        self
    }

    /// The path with its query.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn time(&self) -> Duration {
        self.patience.duration()
    }

    pub(super) fn into_http(self, uri: Uri, body: Option<Outgoing>) -> http::Request<Outgoing> {
        let mut request = http::Request::new(body.unwrap_or(Outgoing::Whole(self.body)));
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// The client of one server; cloning it is cheap and shares the connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    server: Server,
    /// `None` where the server is no node.
    verifier: Option<Arc<Verifier>>,
    resolver: Resolver,
    runtime: Handle,
    pool: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Outgoing>,
}

impl Client {
    /// A client of the node at `url`. Connects when the first request is made.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn new(url: NodeUrl, trust: Trust, token: Option<Token>, runtime: Handle) -> Result<Client, Error> {
        let server = Server {
            url: url.into(),
            proof: Proof::Node(trust),
            credentials: token.map(Into::into),
            policy: None,
        };
        Client::of(server, runtime)
    }

    /// A client of any server. Connects when the first request is made.
    ///
    /// # Errors
    /// [`Error::Unproven`], [`Error::Tls`].
    pub fn of(server: Server, runtime: Handle) -> Result<Client, Error> {
        let resolver = Resolver::new(server.policy.clone());
        Client::over(server, resolver, runtime)
    }

    /// As [`Client::of`], with the resolver that names go through.
    pub(super) fn over(server: Server, resolver: Resolver, runtime: Handle) -> Result<Client, Error> {
        if !server.proof.fits(&server.url) {
            return Err(Error::Unproven {
                url: server.url.to_string(),
            });
        }
        let (verifier, config) = match &server.proof {
            Proof::Roots(roots) => (None, rooted_config(roots)?),
            // Nothing is sent over TLS without a proof; the settings are for the type.
            Proof::Nothing => (None, Verifier::new(Trust::FirstContact).client_config()?),
            Proof::Node(trust) => {
                let verifier = Verifier::new(*trust);
                let config = verifier.client_config()?;
                (Some(verifier), config)
            }
        };
        let mut connector = HttpConnector::new_with_resolver(resolver.clone());
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Client {
            inner: Arc::new(Inner {
                server,
                verifier,
                resolver,
                runtime,
                pool,
            }),
        })
    }

    /// The server's address, without what opens it.
    pub fn url(&self) -> &ServerUrl {
        &self.inner.server.url
    }

    /// The id the node proved; `None` before the first answer, over plain HTTP, and where the server is no node.
    pub fn node_id(&self) -> Option<crate::id::NodeId> {
        self.inner.verifier.as_ref()?.seen()
    }

    /// As [`Client::send`], for async code; may be cancelled.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn ask(&self, request: Request) -> Result<Response, Error> {
        let time = request.time();
        let answer = timeout(time, self.answer(request, None)).await;
        answer.map_err(|_| self.silent(time))?
    }

    /// Sends a request and waits for the head of a successful answer.
    ///
    /// # Errors
    /// [`Error::Refused`] for every status but 2xx, and what else [`Error`] lists.
    pub fn send(&self, request: Request) -> Result<Response, Error> {
        let time = request.time();
        wait(&self.inner.runtime, time, self.answer(request, None)).ok_or_else(|| self.silent(time))?
    }

    /// Sends a request and reads a JSON answer.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Response::json`].
    pub fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        self.send(request)?.json(JSON_BYTES_MAX)
    }

    /// Begins a request whose body comes in pieces, `len` bytes of them where that is known.
    pub fn upload(&self, request: Request, len: Option<u64>) -> Upload {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        let body = Outgoing::Streamed {
            pieces,
            left: len,
            ended: false,
        };
        let time = request.time();
        let client = self.clone();
        let answer = self
            .inner
            .runtime
            .spawn(async move { client.answer(request, Some(body)).await });
        Upload {
            client: self.clone(),
            sender,
            answer: Some(answer),
            time,
        }
    }

    async fn answer(&self, mut request: Request, body: Option<Outgoing>) -> Result<Response, Error> {
        let inner = &self.inner;
        let url = || inner.server.url.to_string();
        if let Some(credentials) = &inner.server.credentials {
            request.headers.insert(AUTHORIZATION, credentials.header());
        }
        let uri = format!("{}{}", inner.server.url, request.path());
        let uri: Uri = uri.parse().map_err(|_| Error::Unexpected {
            url: url(),
            what: "a path no URL can hold",
        })?;
        let literal = inner.resolver.check_literal(inner.server.url.host());
        literal.map_err(|forbidden| Error::Forbidden {
            url: url(),
            address: forbidden.0,
        })?;
        let answer = inner.pool.request(request.into_http(uri, body)).await;
        let (head, body) = answer.map_err(|error| self.failed(&error))?.into_parts();
        let response = Response {
            url: url(),
            runtime: inner.runtime.clone(),
            status: head.status,
            headers: head.headers,
            body,
        };
        response.succeeded().await
    }

    fn failed(&self, error: &hyper_util::client::legacy::Error) -> Error {
        let url = self.inner.server.url.to_string();
        if let Some(impostor) = impostor(&url, error) {
            return impostor;
        }
        if let Some(forbidden) = forbidden(error) {
            let address = forbidden.0;
            return Error::Forbidden { url, address };
        }
        let reason = innermost(error);
        match error.is_connect() {
            true => Error::Unreachable { url, reason },
            false => Error::Broken { url, reason },
        }
    }

    fn silent(&self, patience: Duration) -> Error {
        Error::Silent {
            url: self.inner.server.url.to_string(),
            patience,
        }
    }
}

/// A request whose body is being sent. Dropping it gives the request up; the node keeps nothing of it.
pub struct Upload {
    client: Client,
    sender: mpsc::Sender<Piece>,
    /// `None` only once it was waited for.
    answer: Option<JoinHandle<Result<Response, Error>>>,
    time: Duration,
}

impl Upload {
    /// Sends the next bytes; waits where the network is slower.
    ///
    /// # Errors
    /// Why the request ended before its body did: a refusal, mostly.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let runtime = &self.client.inner.runtime;
        match wait(runtime, BODY_IDLE_TIMEOUT, self.sender.send(Piece::Bytes(bytes))) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => self.ended_early(),
            None => Err(self.client.silent(BODY_IDLE_TIMEOUT)),
        }
    }

    /// Ends the body and waits for the head of a successful answer.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn finish(mut self) -> Result<Response, Error> {
        let runtime = &self.client.inner.runtime;
        let ended = wait(runtime, BODY_IDLE_TIMEOUT, self.sender.send(Piece::End));
        if ended.is_none() {
            return Err(self.client.silent(BODY_IDLE_TIMEOUT));
        }
        // Where the channel is closed the answer is there already.
        self.answer()
    }

    /// As [`Upload::write`], for async code. If cancelled, the bytes may be sent or not: give the upload up.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        match timeout(BODY_IDLE_TIMEOUT, self.sender.send(Piece::Bytes(bytes))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => {
                self.answer_async().await?;
                Err(self.early())
            }
            Err(_) => Err(self.client.silent(BODY_IDLE_TIMEOUT)),
        }
    }

    /// As [`Upload::finish`], for async code; if cancelled, the node may have taken it or not.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn end(mut self) -> Result<Response, Error> {
        let ended = timeout(BODY_IDLE_TIMEOUT, self.sender.send(Piece::End)).await;
        if ended.is_err() {
            return Err(self.client.silent(BODY_IDLE_TIMEOUT));
        }
        self.answer_async().await
    }

    fn ended_early(&mut self) -> Result<(), Error> {
        self.answer()?;
        Err(self.early())
    }

    fn early(&self) -> Error {
        Error::Unexpected {
            url: self.client.inner.server.url.to_string(),
            what: "an answer before the request was whole",
        }
    }

    async fn answer_async(&mut self) -> Result<Response, Error> {
        let Some(answer) = &mut self.answer else {
            return Err(self.given_up());
        };
        let answered = timeout(self.time, answer).await;
        match answered {
            Ok(answered) => {
                self.answer = None;
                answered.unwrap_or_else(|_| Err(self.given_up()))
            }
            // Dropping the upload ends the request.
            Err(_) => Err(self.client.silent(self.time)),
        }
    }

    fn given_up(&self) -> Error {
        Error::Broken {
            url: self.client.inner.server.url.to_string(),
            reason: "the request was given up".to_owned(),
        }
    }

    fn answer(&mut self) -> Result<Response, Error> {
        let Some(answer) = self.answer.take() else {
            return Err(self.given_up());
        };
        let abort = answer.abort_handle();
        match wait(&self.client.inner.runtime, self.time, answer) {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(self.given_up()),
            None => {
                abort.abort();
                Err(self.client.silent(self.time))
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(answer) = &self.answer {
            answer.abort();
        }
    }
}
