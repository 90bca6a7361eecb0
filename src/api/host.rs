//! Which `Host` a request may name: the defence against DNS rebinding, checked before anything else.
//!
//! A page on a foreign site may let its own name point at this node; the browser then sends that name. So
//! the header must spell exactly one of: the address the connection came to, `refuge-xxxxxx.local`,
//! `localhost`, or an authority from the configuration (a port forward needs one), with the right port.

use axum::http::{HeaderMap, Uri, header};

use super::connection::Connection;

/// Why the `Host` of a request is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostError {
    /// No `Host`, several, one that is no text, or one that contradicts the request line.
    Malformed,
    /// A name this node does not answer to.
    Foreign,
}

/// The names this node answers to.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Without port; each is taken with the port of the connection.
    names: Vec<String>,
    /// `host` or `host:port`, taken as they stand.
    authorities: Vec<String>,
}

impl Hosts {
    /// The name of the node on the local network, and what the configuration lists besides.
    pub(super) fn new(local_name: &str, authorities: Vec<String>) -> Hosts {
        Hosts {
            names: vec!["localhost".to_owned(), local_name.to_owned()],
            authorities,
        }
    }

    /// The `Host` of a request, where it is one of ours. `on_network` is what the node is called on the local network
    /// now: another name than its own where somebody else has that.
    pub(super) fn check<'a>(
        &self,
        headers: &'a HeaderMap,
        uri: &Uri,
        connection: &Connection,
        on_network: &str,
    ) -> Result<&'a str, HostError> {
        let mut values = headers.get_all(header::HOST).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(HostError::Malformed);
        };
        let authority = value.to_str().map_err(|_| HostError::Malformed)?;
        if authority.is_empty() || uri.authority().is_some_and(|named| named.as_str() != authority) {
            return Err(HostError::Malformed);
        }
        if self.admits(authority, connection, on_network) {
            Ok(authority)
        } else {
            Err(HostError::Foreign)
        }
    }

    fn admits(&self, authority: &str, connection: &Connection, on_network: &str) -> bool {
        let is_ours = |host| {
            host == connection.own_host() || host == on_network || self.names.iter().any(|name| name == host)
        };
        connection.host_of(authority).is_some_and(is_ours)
            || self.authorities.iter().any(|listed| listed == authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::connection::Scheme;
    use axum::http::HeaderValue;
    use tokio_util::sync::CancellationToken;

    fn check(local: &str, tls: bool, hosts: &[&str]) -> Result<String, HostError> {
        let scheme = if tls { Scheme::Tls([0; 32]) } else { Scheme::Plain };
        let connection = Connection::new(
            "192.0.2.9:5000".parse().unwrap(),
            local.parse().unwrap(),
            scheme,
            CancellationToken::new(),
        );
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        Hosts::new("refuge-abcdef.local", vec!["box.example.net:9443".to_owned()])
            .check(
                &headers,
                &Uri::from_static("/"),
                &connection,
                "refuge-abcdef-2.local",
            )
            .map(str::to_owned)
    }

    #[test]
    fn own_names_pass_with_the_port_of_the_connection() {
        for (local, host) in [
            ("192.0.2.1:8443", "192.0.2.1:8443"),
            ("192.0.2.1:8443", "refuge-abcdef.local:8443"),
            ("192.0.2.1:8443", "refuge-abcdef-2.local:8443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("[::ffff:192.0.2.1]:8443", "192.0.2.1:8443"),
            ("127.0.0.1:8443", "localhost:8443"),
            ("192.0.2.1:8443", "box.example.net:9443"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("192.0.2.1:443", "refuge-abcdef.local"),
            ("192.0.2.1:443", "192.0.2.1:443"),
        ] {
            assert_eq!(check(local, true, &[host]), Ok(host.to_owned()));
        }
    }

    #[test]
    fn a_default_port_belongs_to_its_scheme() {
        assert_eq!(
            check("192.0.2.1:443", false, &["192.0.2.1"]),
            Err(HostError::Foreign)
        );
        assert!(check("192.0.2.1:80", false, &["192.0.2.1"]).is_ok());
    }

    #[test]
    fn no_host_two_hosts_and_an_empty_one_are_malformed() {
        for hosts in [&[][..], &[""], &["localhost:8443", "localhost:8443"]] {
            assert_eq!(check("127.0.0.1:8443", true, hosts), Err(HostError::Malformed));
        }
    }
}
