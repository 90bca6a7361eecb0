//! Where a node is and what opens it: its URL and a token.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use zeroize::Zeroizing;

/// The most bytes of a token: ours have about 50, and no header should be abused for more.
const TOKEN_BYTES_MAX: usize = 512;

/// The address of a node: `https://host[:port]`, or `http://` with a loopback host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUrl {
    is_https: bool,
    /// As it is written in a URL: IPv6 literals stand in brackets.
    host: String,
    port: u16,
}

/// Why a text is no node URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeUrlError {
    /// Not `https://host[:port]`.
    #[error("{0:?} is no node URL: write https://HOST:PORT, without a path, a user or a query")]
    Malformed(String),
    /// Plain HTTP to another machine.
    #[error("{0:?} would send your data in the clear: use https://, http:// is for this machine only")]
    Clear(String),
}

impl NodeUrl {
    /// Whether the connection is encrypted and the node proves its identity.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host without brackets, as a resolver takes it.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as it is written in a URL.
    pub(super) fn into_host(self) -> String {
        self.host
    }

    /// What stands in the `Host` header.
    pub(super) fn authority(&self) -> String {
        let default = if self.is_https { 443 } else { 80 };
        if self.port == default {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for NodeUrl {
    type Err = NodeUrlError;

    fn from_str(text: &str) -> Result<Self, NodeUrlError> {
        let malformed = || NodeUrlError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let is_bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
        if !is_bare || authority.host().is_empty() || text.contains('#') {
            return Err(malformed());
        }
        let host = authority.host().to_ascii_lowercase();
        let url = NodeUrl {
            is_https,
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            host,
        };
        if !is_https && !is_loopback(url.host()) {
            return Err(NodeUrlError::Clear(text.to_owned()));
        }
        Ok(url)
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What opens a node: sent as `Authorization: Bearer`, wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A token from text; `None` where it could not stand in a header.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        let fits = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Token(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself, for the one place that keeps it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port() {
        let text = |url: &str| url.parse::<NodeUrl>().map(|url| url.to_string());
        assert_eq!(text("https://Box.local"), Ok("https://box.local".to_owned()));
        assert_eq!(text("https://[::1]:8443/"), Ok("https://[::1]:8443".to_owned()));
        assert_eq!(text("http://localhost:80"), Ok("http://localhost".to_owned()));
        assert_eq!("https://[::1]:1".parse::<NodeUrl>().unwrap().host(), "::1");
        for bad in [
            "box.local",
            "ftp://box",
            "https://a@b",
            "https://b/path",
            "https://b?q",
            "",
            "https://",
        ] {
            assert!(matches!(text(bad), Err(NodeUrlError::Malformed(_))), "{bad}");
        }
        for clear in [
            "http://box.local",
            "http://127.0.0.1.evil.com",
            "http://192.168.1.2:8080",
        ] {
            assert!(matches!(text(clear), Err(NodeUrlError::Clear(_))), "{clear}");
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::new(" secret-canary\n").unwrap();
        assert_eq!(token.reveal(), "secret-canary");
        assert!(!format!("{token:?}").contains("canary"));
        assert!(Token::new("two words").is_none());
        assert!(Token::new("").is_none());
    }
}
