//! Listeners and connections: what stands between the network and the router.
//!
//! HTTP/1.1 only, plain or over TLS. Everything a stranger can hold is bounded here: connections, together and
//! per address, the header and the time it takes, the time without progress. The requests themselves, and what
//! may be said over a plain line, are the matter of `gate.rs`.

mod connections;
mod stall;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

pub use tls::server_config;

use super::connection::{Connection, EXPORTER_BYTES, Scheme};
use crate::node::CLAIM_EXPORTER_LABEL;
use connections::{Connections, Slot};
use stall::StallGuard;

/// Header fields and request line together (security row S28).
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// How long a header or a TLS handshake may take, and how long a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What hyper may hold of one connection, each way. Large enough that a fast upload needs few reads.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long requests may take to end once the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the process can't open another file: something has to close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket and what is spoken on it.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds for plain HTTP. Port 0 picks one.
    ///
    /// # Errors
    /// What the operating system says, for example that the port is taken.
    pub async fn plain(address: SocketAddr) -> io::Result<Listener> {
        Ok(Listener {
            socket: TcpListener::bind(address).await?,
            tls: None,
        })
    }

    /// Binds for HTTPS. Port 0 picks one.
    ///
    /// # Errors
    /// As [`Listener::plain`].
    pub async fn tls(address: SocketAddr, config: Arc<rustls::ServerConfig>) -> io::Result<Listener> {
        Ok(Listener {
            socket: TcpListener::bind(address).await?,
            tls: Some(TlsAcceptor::from(config)),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves until `shutdown`, then lets requests under way end for up to ten seconds. May not be cancelled: use
/// `shutdown`.
pub async fn serve(listeners: Vec<Listener>, router: Router, shutdown: CancellationToken) {
    let connections = Connections::new();
    let mut acceptors = JoinSet::new();
    for listener in listeners {
        acceptors.spawn(accept(
            listener,
            router.clone(),
            connections.clone(),
            shutdown.clone(),
        ));
    }
    while acceptors.join_next().await.is_some() {}
}

async fn accept(listener: Listener, router: Router, connections: Connections, shutdown: CancellationToken) {
    let Listener { socket, tls } = listener;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Without a slot the stream is dropped: whoever holds the slots is known to us, this one is not.
                    if let Some(slot) = connections.admit(peer.ip()) {
                        tasks.spawn(connection(stream, peer, tls.clone(), slot, router.clone(), shutdown.clone()));
                    }
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    drop(socket);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("requests did not end in time and were cut");
        tasks.shutdown().await;
    }
}

/// A client that gave up before it was accepted is no news; no free file descriptor is, and takes a while.
async fn pause_after(error: &io::Error) {
    let is_of_one_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !is_of_one_client {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    slot: Slot,
    router: Router,
    shutdown: CancellationToken,
) {
    let evicted = slot.evicted();
    let talk = async {
        let Ok(local) = stream.local_addr() else { return };
        // Answers leave at once; the only cost is a packet more where several small writes follow each other.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let stream = StallGuard::new(stream);
        match tls {
            None => {
                let connection = Connection::new(peer, local, Scheme::Plain, shutdown.clone());
                converse(stream, connection, &slot, router, shutdown).await;
            }
            Some(tls) => {
                let Ok(Ok(stream)) = tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await else {
                    return;
                };
                let exporter = [0; EXPORTER_BYTES];
                let Ok(exporter) =
                    stream
                        .get_ref()
                        .1
                        .export_keying_material(exporter, CLAIM_EXPORTER_LABEL, None)
                else {
                    return;
                };
                let connection = Connection::new(peer, local, Scheme::Tls(exporter), shutdown.clone());
                converse(stream, connection, &slot, router, shutdown).await;
            }
        }
    };
    tokio::select! {
        () = talk => {}
        () = evicted.cancelled() => {}
    }
}

async fn converse<S>(
    stream: S,
    connection: Arc<Connection>,
    slot: &Slot,
    router: Router,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    slot.established(Arc::clone(&connection));
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&connection));
        router.clone().call(request)
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // Whoever closes its sending side may still want the answer; and what came of an upload is kept.
        .half_close(true)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut conversation = pin!(conversation);
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = shutdown.cancelled() => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
