//! Which server a client speaks to: its URL, how it proves itself, what opens it, and which addresses it may have.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE64;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::roots::Roots;
use super::tls::Trust;
use super::url::{NodeUrl, Token, is_loopback};

/// The most bytes of a name with its password: a header should not be abused for more.
const BASIC_BYTES_MAX: usize = 1024;

/// The most bytes of a URL.
const URL_BYTES_MAX: usize = 4096;

/// The URL of any HTTP server or of something on it: `http[s]://host[:port][/base/path]`. What is asked for is
/// appended to its path. Never holds credentials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerUrl {
    is_https: bool,
    /// As it is written in a URL: IPv6 literals stand in brackets.
    host: String,
    port: u16,
    /// Empty, or `/` and more that does not end with one.
    base: String,
}

/// Why a text is no URL of a server. Says nothing of the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// Not `http[s]://[name:password@]host[:port][/path]`.
    #[error("this is no URL of a server: write https://HOST:PORT/PATH, without a query")]
    Malformed,
    /// A name or password that can't be sent.
    #[error("the name or the password in the URL can't be sent: escape what is not a letter or digit as %XX")]
    Credentials,
}

/// How a server shows that it is the one that was meant.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A Refuge node, by its id; or plain HTTP on this machine.
    Node(Trust),
    /// By a certificate for its name that one of these roots vouches for; or plain HTTP on this machine.
    Roots(Roots),
    /// Not at all: plain HTTP to wherever the caller allows it, and nothing over HTTPS.
    Nothing,
}

/// What opens a server; wiped from memory when dropped, never printed.
#[derive(Clone)]
pub enum Credentials {
    /// `Authorization: Bearer`.
    Bearer(Token),
    /// `Authorization: Basic` (RFC 7617).
    Basic(Basic),
}

/// A name and a password.
#[derive(Clone)]
pub struct Basic {
    user: String,
    /// `name:password`.
    pair: Zeroizing<String>,
}

/// Whether a connection may be made to an address. It is asked of every address that a host has, also where that is written as an
/// address; one refused refuses the host.
pub type AddressPolicy = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// All that a client has to know of the server it speaks to.
#[derive(Clone)]
pub struct Server {
    /// Where it is.
    pub url: ServerUrl,
    /// How it proves itself.
    pub proof: Proof,
    /// What opens it.
    pub credentials: Option<Credentials>,
    /// Which addresses it may have; any where there is none.
    pub policy: Option<AddressPolicy>,
}

impl ServerUrl {
    /// Takes a URL apart, with the name and password that stand in it.
    ///
    /// # Errors
    /// [`ServerUrlError`].
    pub fn parse(text: &str) -> Result<(ServerUrl, Option<Basic>), ServerUrlError> {
        let malformed = ServerUrlError::Malformed;
        if text.len() > URL_BYTES_MAX || text.contains('#') {
            return Err(malformed);
        }
        let uri: Uri = text.parse().map_err(|_| malformed)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(malformed),
        };
        let authority = uri.authority().ok_or(malformed)?;
        let host = authority.host().to_ascii_lowercase();
        let port_text = authority.as_str().rsplit('@').next().unwrap_or_default();
        let has_port = port_text[host.len().min(port_text.len())..].starts_with(':');
        if uri.query().is_some() || host.is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(malformed);
        }
        let credentials = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((user, _)) => Some(Basic::from_url(user).ok_or(ServerUrlError::Credentials)?),
        };
        let url = ServerUrl {
            is_https,
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            host,
            base: uri.path().trim_end_matches('/').to_owned(),
        };
        Ok((url, credentials))
    }

    /// Whether the connection is encrypted.
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

    /// What stands before the path that is asked for: empty, or as `/base/path`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The same with another path.
    #[must_use]
    pub fn with_base(&self, base: &str) -> ServerUrl {
        ServerUrl {
            base: base.trim_end_matches('/').to_owned(),
            ..self.clone()
        }
    }

    /// The node at this address, where a node's URL could be written so.
    pub fn node(&self) -> Option<NodeUrl> {
        self.with_base("").to_string().parse().ok()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.is_https {
            ("https", 443)
        } else {
            ("http", 80)
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.base)
    }
}

/// As [`ServerUrl::parse`], where a name or a password would be no part of it.
impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<ServerUrl, ServerUrlError> {
        match ServerUrl::parse(text)? {
            (url, None) => Ok(url),
            (_, Some(_)) => Err(ServerUrlError::Malformed),
        }
    }
}

impl From<NodeUrl> for ServerUrl {
    fn from(url: NodeUrl) -> ServerUrl {
        ServerUrl {
            is_https: url.is_https(),
            port: url.port(),
            host: url.into_host(),
            base: String::new(),
        }
    }
}

impl Proof {
    /// Whether a server at `url` can give it.
    pub(super) fn fits(&self, url: &ServerUrl) -> bool {
        match self {
            Proof::Node(_) | Proof::Roots(_) => url.is_https || is_loopback(url.host()),
            Proof::Nothing => !url.is_https,
        }
    }
}

impl Basic {
    /// A name, which holds no colon, and a password; `None` where they could not be sent.
    pub fn new(user: &str, password: &str) -> Option<Basic> {
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let fits =
            !user.contains(':') && pair.len() <= BASIC_BYTES_MAX && !pair.chars().any(char::is_control);
        fits.then(|| Basic {
            user: user.to_owned(),
            pair,
        })
    }

    /// The name, which is no secret.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, for the one place that keeps it.
    pub fn reveal(&self) -> &str {
        self.pair.get(self.user.len() + 1..).unwrap_or_default()
    }

    /// What stands before the `@` of a URL.
    fn from_url(text: &str) -> Option<Basic> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |text: &str| -> Option<Zeroizing<String>> {
            let text = percent_decode_str(text).decode_utf8().ok()?;
            Some(Zeroizing::new(text.into_owned()))
        };
        Basic::new(&decode(user)?, &decode(password)?)
    }
}

impl Credentials {
    /// The value of the header, marked so that nothing prints it.
    pub(super) fn header(&self) -> HeaderValue {
        let value = Zeroizing::new(match self {
            Credentials::Bearer(token) => format!("Bearer {}", token.reveal()),
            Credentials::Basic(basic) => format!("Basic {}", BASE64.encode(basic.pair.as_bytes())),
        });
        let mut value = HeaderValue::from_str(&value).expect("a token and base64 are visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl From<Token> for Credentials {
    fn from(token: Token) -> Credentials {
        Credentials::Bearer(token)
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Basic(…)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.url)
            .field("proof", &self.proof)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_from_its_credentials() {
        let (url, basic) = ServerUrl::parse("https://ann:p%40ss%3A1@Box.local:6984/couch/notes/").unwrap();
        assert_eq!(url.to_string(), "https://box.local:6984/couch/notes");
        assert_eq!(
            (url.host(), url.port(), url.base()),
            ("box.local", 6984, "/couch/notes")
        );
        let basic = basic.unwrap();
        assert_eq!((basic.user(), basic.reveal()), ("ann", "p@ss:1"));
        let header = Credentials::Basic(basic.clone()).header();
        assert!(header.is_sensitive());
        assert_eq!(header, "Basic YW5uOnBAc3M6MQ==");
        assert_eq!(url.node().unwrap().to_string(), "https://box.local:6984");
        let (url, basic) = ServerUrl::parse("http://[::1]:80").unwrap();
        assert_eq!(
            (url.to_string(), url.host(), basic.is_none()),
            ("http://[::1]".to_owned(), "::1", true)
        );
        for bad in [
            "box",
            "ftp://box",
            "https://",
            "https://a?q",
            "https://a#f",
            "https://:1",
            "https://a:99999",
            "http://a:b:c",
            "http:///x",
            "https://a b",
        ] {
            assert_eq!(
                ServerUrl::parse(bad).unwrap_err(),
                ServerUrlError::Malformed,
                "{bad}"
            );
        }
        assert!("http://a:b@c".parse::<ServerUrl>().is_err());
    }

    #[test]
    fn credentials_never_show_themselves() {
        let (url, basic) = ServerUrl::parse("http://ann:canary@host/x").unwrap();
        let credentials = basic.clone().map(Credentials::Basic);
        let server = Server {
            url,
            proof: Proof::Nothing,
            credentials: credentials.clone(),
            policy: None,
        };
        let shown = format!(
            "{server:?} {credentials:?} {basic:?} {:?}",
            credentials.as_ref().unwrap().header()
        );
        assert!(
            !shown.contains("canary") && !shown.contains("Y2FuYXJ5"),
            "{shown}"
        );
        let wrong = ServerUrl::parse("http://ann:can%00ary@host/x").unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains("ary"));
    }

    #[test]
    fn plain_http_to_another_machine_is_said_to_be_so() {
        let url = |text: &str| text.parse::<ServerUrl>().unwrap();
        let node = Proof::Node(Trust::FirstContact);
        assert!(node.fits(&url("https://box")) && node.fits(&url("http://127.0.0.1:1/x")));
        assert!(!node.fits(&url("http://192.168.1.2")) && !node.fits(&url("http://127.0.0.1.evil.com")));
        assert!(Proof::Nothing.fits(&url("http://192.168.1.2")) && !Proof::Nothing.fits(&url("https://box")));
    }
}
