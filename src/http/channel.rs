//! One connection by itself, with what binds a proof to it: for the claim, before any token exists.

use std::sync::Arc;

use http::Uri;
use http::header::{HOST, HeaderValue};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::body::{Outgoing, Response, wait};
use super::client::{CONNECT_TIMEOUT, Request};
use super::error::{Error, impostor, innermost};
use super::tls::{Trust, Verifier};
use super::url::NodeUrl;
use crate::id::NodeId;

/// One open connection; every request goes over it. Closed when dropped.
pub struct Channel {
    url: NodeUrl,
    runtime: Handle,
    secured: Option<Secured>,
    sender: SendRequest<Outgoing>,
    connection: JoinHandle<()>,
}

/// What TLS says about the other end.
struct Secured {
    node_id: NodeId,
    certificate_der: Vec<u8>,
    exporter: [u8; 32],
}

impl Channel {
    /// Connects to the node at `url`. `exporter_label` says what the TLS session's exporter is for.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Impostor`] where it proves no id or not the one trusted.
    pub fn open(
        url: NodeUrl,
        trust: Trust,
        exporter_label: &[u8],
        runtime: Handle,
    ) -> Result<Channel, Error> {
        let connecting = connect(url.clone(), trust, exporter_label, runtime.clone());
        match wait(&runtime, CONNECT_TIMEOUT, connecting) {
            Some(channel) => channel,
            None => Err(Error::Silent {
                url: url.to_string(),
                patience: CONNECT_TIMEOUT,
            }),
        }
    }

    /// The id the node proved; `None` over plain HTTP.
    pub fn node_id(&self) -> Option<NodeId> {
        self.secured.as_ref().map(|secured| secured.node_id)
    }

    /// The certificate that proved it (DER).
    pub fn certificate_der(&self) -> Option<&[u8]> {
        self.secured
            .as_ref()
            .map(|secured| secured.certificate_der.as_slice())
    }

    /// The TLS session's exporter (RFC 8446, section 7.5), with an empty context: the same on both ends and on no other connection; `None` over
    /// plain HTTP.
    pub fn exporter(&self) -> Option<[u8; 32]> {
        self.secured.as_ref().map(|secured| secured.exporter)
    }

    /// Sends a request and waits for the head of a successful answer.
    ///
    /// # Errors
    /// As [`super::Client::send`].
    pub fn send(&mut self, request: Request) -> Result<Response, Error> {
        let runtime = self.runtime.clone();
        let time = request.time();
        match wait(&runtime, time, self.answer(request)) {
            Some(answer) => answer,
            None => Err(Error::Silent {
                url: self.url.to_string(),
                patience: time,
            }),
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Response, Error> {
        let url = self.url.to_string();
        let uri: Uri = request.path().parse().map_err(|_| Error::Unexpected {
            url: url.clone(),
            what: "a path no URL can hold",
        })?;
        let mut request = request.into_http(uri, None);
        let host = HeaderValue::from_str(&self.url.authority()).map_err(|_| Error::Unexpected {
            url: url.clone(),
            what: "a host no header can hold",
        })?;
        request.headers_mut().insert(HOST, host);
        let answer = self.sender.send_request(request).await;
        let (head, body) = answer
            .map_err(|error| Error::Broken {
                url: url.clone(),
                reason: innermost(&error),
            })?
            .into_parts();
        let response = Response {
            url,
            runtime: self.runtime.clone(),
            status: head.status,
            headers: head.headers,
            body,
        };
        response.succeeded().await
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn connect(url: NodeUrl, trust: Trust, label: &[u8], runtime: Handle) -> Result<Channel, Error> {
    let unreachable = |error: &(dyn std::error::Error + 'static)| Error::Unreachable {
        url: url.to_string(),
        reason: innermost(error),
    };
    let stream = TcpStream::connect((url.host(), url.port()))
        .await
        .map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    if !url.is_https() {
        return begin(url, None, stream, runtime).await;
    }
    let verifier = Verifier::new(trust);
    let connector = TlsConnector::from(Arc::new(verifier.client_config()?));
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| unreachable(&error))?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| impostor(&url.to_string(), &error).unwrap_or_else(|| unreachable(&error)))?;
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], label, Some(&[]))?;
    let secured = verifier
        .seen()
        .zip(verifier.certificate_der())
        .map(|(node_id, der)| Secured {
            node_id,
            certificate_der: der.to_vec(),
            exporter,
        });
    begin(url, secured, stream, runtime).await
}

async fn begin<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    url: NodeUrl,
    secured: Option<Secured>,
    stream: S,
    runtime: Handle,
) -> Result<Channel, Error> {
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::Unreachable {
            url: url.to_string(),
            reason: innermost(&error),
        })?;
    let connection = runtime.spawn(async move {
        // Whoever waits for an answer hears of a broken connection there.
        let _ = connection.await;
    });
    Ok(Channel {
        url,
        runtime,
        secured,
        sender,
        connection,
    })
}
