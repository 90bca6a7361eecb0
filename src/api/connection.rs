//! What is known of the connection a request came over. It says how private the line is, never who asks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Bytes of the TLS exporter that binds a proof to one connection.
pub const EXPORTER_BYTES: usize = 32;

/// Whether the line is encrypted, and what binds a proof to it.
#[derive(Clone, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP as it stands.
    Plain,
    /// TLS, with its exporter under the label of `serve::EXPORTER_LABEL`.
    Tls([u8; EXPORTER_BYTES]),
}

/// One connection. Travels in the extensions of each of its requests.
pub struct Connection {
    peer: IpAddr,
    local: IpAddr,
    scheme: Scheme,
    /// The local address as a `Host` header spells it.
    own_host: String,
    /// `:PORT` as a `Host` header ends.
    port_suffix: String,
    is_default_port: bool,
    /// Cancelled when the node stops: answers without an end of their own watch it.
    closing: CancellationToken,
    /// Set by the first request that proved who it comes from; connections without it make room first.
    authenticated: AtomicBool,
}

impl Connection {
    /// The connection from `peer` to `local`. IPv4 addresses inside IPv6 ones are unwrapped.
    pub fn new(
        peer: SocketAddr,
        local: SocketAddr,
        scheme: Scheme,
        closing: CancellationToken,
    ) -> Arc<Connection> {
        let local_ip = local.ip().to_canonical();
        let own_host = match local_ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let default_port = match scheme {
            Scheme::Plain => 80,
            Scheme::Tls(_) => 443,
        };
        Arc::new(Connection {
            peer: peer.ip().to_canonical(),
            local: local_ip,
            scheme,
            own_host,
            port_suffix: format!(":{}", local.port()),
            is_default_port: local.port() == default_port,
            closing,
            authenticated: AtomicBool::new(false),
        })
    }

    /// Who is at the other end. For rate limits and logs only: an address never grants a right.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The exporter of the TLS session, where there is one.
    pub fn exporter(&self) -> Option<&[u8; EXPORTER_BYTES]> {
        match &self.scheme {
            Scheme::Plain => None,
            Scheme::Tls(exporter) => Some(exporter),
        }
    }

    /// Whether the line is TLS.
    pub fn is_tls(&self) -> bool {
        self.exporter().is_some()
    }

    /// Whether secrets and data may travel: TLS, or a line that does not leave the machine.
    pub fn is_private(&self) -> bool {
        self.is_tls() || (self.peer.is_loopback() && self.local.is_loopback())
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// Cancelled when the node stops.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(super) fn own_host(&self) -> &str {
        &self.own_host
    }

    /// The host of a `Host` header that names this connection's port, else `None`.
    pub(super) fn host_of<'a>(&self, authority: &'a str) -> Option<&'a str> {
        match authority.strip_suffix(self.port_suffix.as_str()) {
            Some(host) => Some(host),
            None => self.is_default_port.then_some(authority),
        }
    }

    pub(super) fn mark_authenticated(&self) {
        // Read first: the line is then shared between processors, not fought for.
        if !self.authenticated.load(Ordering::Relaxed) {
            self.authenticated.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("local", &self.own_host)
            .field("scheme", &self.scheme())
            .finish_non_exhaustive()
    }
}
