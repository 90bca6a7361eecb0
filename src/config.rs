//! What a node is told before it starts: a file, the environment and flags, checked and joined.
//!
//! A flag wins over the environment, the environment over the file, the file over the defaults. Every
//! refusal names the key, and where it was said.

mod raw;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use raw::Raw;
use zeroize::Zeroizing;

use crate::node::{ClaimCode, ClaimCodeError};
use crate::replicate::{ALLOWED_MAX, Range};

/// HTTPS for everyone who can reach the machine.
const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 8443));

/// Plain HTTP for this machine alone.
const PLAIN_HTTP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// The most other names a node may be reached by.
const AUTHORITIES_MAX: usize = 16;

/// What is read of a file that a key names: a claim code, or a page of notes.
const NAMED_FILE_BYTES_MAX: u64 = 4096;

/// The most origins whose pages may use the documents: each request is compared with them.
const ORIGINS_MAX: usize = 64;

/// How a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where HTTPS listens. Port 0 picks one.
    pub listen: SocketAddr,
    /// Where plain HTTP listens: with data on loopback, a landing page elsewhere. Port 0 picks one.
    pub plain_http: SocketAddr,
    /// Other `host[:port]` by which browsers reach the node, for example through a port forward.
    pub authorities: Vec<String>,
    /// Whom `security.txt` says to tell of a vulnerability: a `mailto:`, `https:` or `tel:` URI.
    pub security_contact: Option<String>,
    /// Origins (`scheme://host[:port]`) whose pages may use the documents with a token.
    pub origins: Vec<String>,
    /// Addresses of private networks and of this machine that replications may reach.
    pub replicate_allow: Vec<Range>,
    /// How much is logged.
    pub log: LogLevel,
    /// What is known of the board: the light and the button of `board.toml`.
    pub board: Option<PathBuf>,
    /// What claims the node while it has no owner, in place of a code of its own.
    pub claim_code: Option<ClaimCode>,
    /// What was wrong before the node started, for its owner.
    pub note: Option<String>,
    /// Whether the process gives up everything but its folders and ports.
    pub confine: bool,
    /// Folders besides `data` that stores may be in when it does.
    pub store_folders: Vec<PathBuf>,
}

/// How much is logged: each level has what those before it have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Degraded, but working.
    Warn,
    /// State changes a user would notice.
    #[default]
    Info,
    /// Decisions.
    Debug,
    /// Each packet and row.
    Trace,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the configuration {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML, or has a key that does not exist or of another type.
    #[error("the configuration {}{}: {reason}", path.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: Option<usize>,
        /// What the parser said; names the key.
        reason: String,
    },
    /// A key has a value that it can't have.
    #[error("{key} ({origin}): {value:?} is {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// Where it was said.
        origin: Origin,
        /// The value.
        value: String,
        /// Why it is refused.
        expected: &'static str,
    },
    /// A file that a key names cannot be read.
    #[error("{key}: {}: {source}", path.display())]
    Unreadable {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file of the claim code has none.
    #[error("claim_code_file: {}: {source}", path.display())]
    ClaimCode {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        #[source]
        source: ClaimCodeError,
    },
    /// A key without a default was not given.
    #[error("{key} is not given: say --{key}, or put `{key} = …` into the configuration")]
    Absent {
        /// The key.
        key: &'static str,
    },
}

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The file.
    File(PathBuf),
}

impl Config {
    /// Reads the file, where one is given, and the environment, and lets `flags` win.
    ///
    /// # Errors
    /// [`Error`]; each names the key.
    pub fn load(flags: Raw, file: Option<&Path>) -> Result<Config, Error> {
        let mut sources = vec![
            (Origin::Flag, flags),
            (
                Origin::Environment,
                Raw::from_environment(|name| std::env::var(name).ok()),
            ),
        ];
        if let Some(path) = file {
            sources.push((Origin::File(path.to_owned()), Raw::from_file(path)?));
        }
        Config::join(&sources)
    }

    /// The first source that says something about a key decides.
    fn join(sources: &[(Origin, Raw)]) -> Result<Config, Error> {
        let data = first(sources, |raw| &raw.data).map(|(_, data)| PathBuf::from(data));
        let data = data.ok_or(Error::Absent { key: "data" })?;
        if data.as_os_str().is_empty() {
            return Err(Error::Absent { key: "data" });
        }
        let address = "no address: write ADDR:PORT, for example 0.0.0.0:8443";
        Ok(Config {
            data,
            listen: parsed(sources, "listen", |raw| &raw.listen, address)?.unwrap_or(LISTEN),
            plain_http: parsed(sources, "plain_http", |raw| &raw.plain_http, address)?.unwrap_or(PLAIN_HTTP),
            authorities: authorities(sources)?,
            security_contact: security_contact(sources)?,
            origins: origins(sources)?,
            replicate_allow: replicate_allow(sources)?,
            log: parsed(
                sources,
                "log",
                |raw| &raw.log,
                "no level: error, warn, info, debug or trace",
            )?
            .unwrap_or_default(),
            board: first(sources, |raw| &raw.board).map(|(_, board)| PathBuf::from(board)),
            claim_code: claim_code(sources)?,
            note: note(sources)?,
            confine: first(sources, |raw| &raw.confine).is_some_and(|(_, confine)| *confine),
            store_folders: first(sources, |raw| &raw.store_folders).map_or_else(Vec::new, |(_, folders)| {
                folders.iter().map(PathBuf::from).collect()
            }),
        })
    }
}

fn first<'a, T>(
    sources: &'a [(Origin, Raw)],
    field: impl Fn(&'a Raw) -> &'a Option<T>,
) -> Option<(&'a Origin, &'a T)> {
    sources
        .iter()
        .find_map(|(origin, raw)| field(raw).as_ref().map(|value| (origin, value)))
}

fn parsed<'a, T: FromStr>(
    sources: &'a [(Origin, Raw)],
    key: &'static str,
    field: impl Fn(&'a Raw) -> &'a Option<String>,
    expected: &'static str,
) -> Result<Option<T>, Error> {
    let Some((origin, value)) = first(sources, field) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| Error::Value {
        key,
        origin: origin.clone(),
        value: value.clone(),
        expected,
    })
}

fn claim_code(sources: &[(Origin, Raw)]) -> Result<Option<ClaimCode>, Error> {
    let Some((_, path)) = first(sources, |raw| &raw.claim_code_file) else {
        return Ok(None);
    };
    let text = Zeroizing::new(read_named("claim_code_file", path)?);
    let refuse = |source| Error::ClaimCode {
        path: path.into(),
        source,
    };
    ClaimCode::chosen(text.trim_end()).map(Some).map_err(refuse)
}

/// The lines of the file in one; `None` where it is empty.
fn note(sources: &[(Origin, Raw)]) -> Result<Option<String>, Error> {
    let Some((_, path)) = first(sources, |raw| &raw.notes_file) else {
        return Ok(None);
    };
    let text = read_named("notes_file", path)?;
    let lines: Vec<&str> = text.lines().collect();
    Ok((!lines.is_empty()).then(|| lines.join("; ")))
}

fn read_named(key: &'static str, path: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(NAMED_FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| Error::Unreadable {
            key,
            path: path.into(),
            source,
        })?;
    // The end of a longer file may be the middle of a character.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether each is an authority of RFC 3986 without a user is for the edge that compares it to say; here only
/// what no authority can be is refused, so that the key is named.
fn authorities(sources: &[(Origin, Raw)]) -> Result<Vec<String>, Error> {
    let Some((origin, authorities)) = first(sources, |raw| &raw.authorities) else {
        return Ok(Vec::new());
    };
    let refuse = |value: &str, expected| Error::Value {
        key: "authorities",
        origin: origin.clone(),
        value: value.to_owned(),
        expected,
    };
    if authorities.len() > AUTHORITIES_MAX {
        return Err(refuse(&authorities.join(","), "longer than 16 entries"));
    }
    for authority in authorities {
        let is_plain = http_authority(authority);
        if !is_plain {
            return Err(refuse(
                authority,
                "no host[:port], for example box.example.org:8443",
            ));
        }
    }
    Ok(authorities
        .iter()
        .map(|authority| authority.to_ascii_lowercase())
        .collect())
}

/// RFC 9116, section 2.5.3: a URI, with `https` where it is one of the web. It stands on a line of its own.
fn security_contact(sources: &[(Origin, Raw)]) -> Result<Option<String>, Error> {
    let Some((origin, contact)) = first(sources, |raw| &raw.security_contact) else {
        return Ok(None);
    };
    let has_scheme = ["mailto:", "https://", "tel:"]
        .iter()
        .any(|scheme| contact.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    if has_scheme && contact.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(contact.clone()));
    }
    Err(Error::Value {
        key: "security_contact",
        origin: origin.clone(),
        value: contact.clone(),
        expected: "no mailto:, https: or tel: URI, for example mailto:security@example.org",
    })
}

fn replicate_allow(sources: &[(Origin, Raw)]) -> Result<Vec<Range>, Error> {
    let Some((origin, ranges)) = first(sources, |raw| &raw.replicate_allow) else {
        return Ok(Vec::new());
    };
    let refuse = |value: &str, expected| Error::Value {
        key: "replicate_allow",
        origin: origin.clone(),
        value: value.to_owned(),
        expected,
    };
    if ranges.len() > ALLOWED_MAX {
        return Err(refuse(&ranges.join(","), "longer than 64 entries"));
    }
    let expected = "no range of addresses, for example 192.168.1.0/24 or fd00::/8";
    let parsed = ranges
        .iter()
        .map(|range| range.parse().map_err(|_| refuse(range, expected)));
    parsed.collect()
}

/// As browsers write them: lower case, no path, no port that is the scheme's own.
fn origins(sources: &[(Origin, Raw)]) -> Result<Vec<String>, Error> {
    let Some((origin, origins)) = first(sources, |raw| &raw.origins) else {
        return Ok(Vec::new());
    };
    let refuse = |value: &str, expected| Error::Value {
        key: "origins",
        origin: origin.clone(),
        value: value.to_owned(),
        expected,
    };
    if origins.len() > ORIGINS_MAX {
        return Err(refuse(&origins.join(","), "longer than 64 entries"));
    }
    for one in origins {
        let is_plain = one.split_once("://").is_some_and(|(scheme, authority)| {
            let begins = scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
            begins && scheme.bytes().all(fits) && !authority.contains('/') && http_authority(authority)
        });
        if !is_plain || one.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse(one, "no origin, for example https://app.example.org"));
        }
    }
    Ok(origins.clone())
}

fn http_authority(text: &str) -> bool {
    text.parse::<http::uri::Authority>().is_ok_and(|authority| {
        !authority.host().is_empty()
            && !text.contains('@')
            && (!text.contains(':') || authority.port_u16().is_some() || text.ends_with(']'))
    })
}

impl FromStr for LogLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<LogLevel, ()> {
        match text {
            "error" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("on the command line"),
            Origin::Environment => f.write_str("in the environment"),
            Origin::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn raw(text: &str) -> Result<Raw, Error> {
        Raw::parse(text, Path::new("refuge.toml"))
    }

    fn join(text: &str) -> Result<Config, Error> {
        Config::join(&[(Origin::File("refuge.toml".into()), raw(text)?)])
    }

    #[test]
    fn defaults_fill_what_was_not_said() {
        let config = join("data = '/srv/refuge'").unwrap();
        assert!(!config.confine && config.store_folders.is_empty());
        assert_eq!(config.data, Path::new("/srv/refuge"));
        assert_eq!(config.listen.to_string(), "0.0.0.0:8443");
        assert_eq!(config.plain_http.to_string(), "127.0.0.1:8080");
        assert_eq!(config.log, LogLevel::Info);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let environment = Raw::from_environment(|name| {
            let said = [
                ("REFUGE_LOG", "warn"),
                ("REFUGE_LISTEN", "[::1]:2"),
                ("REFUGE_PLAIN_HTTP", "[::1]:2"),
            ];
            let found = said.iter().find(|(named, _)| *named == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let flags = Raw {
            listen: Some("127.0.0.1:1".to_owned()),
            ..Raw::default()
        };
        let file =
            raw("data = 'd'\nlisten = '127.0.0.1:3'\nplain_http = '127.0.0.1:3'\nlog = 'debug'").unwrap();
        let config = Config::join(&[
            (Origin::Flag, flags),
            (Origin::Environment, environment),
            (Origin::File("f".into()), file),
        ])
        .unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.plain_http.to_string(), "[::1]:2");
        assert_eq!(config.log, LogLevel::Warn);
    }

    #[test]
    fn a_claim_code_and_notes_are_read_from_the_files_that_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (code, notes) = (dir.path().join("code"), dir.path().join("notes"));
        let join = || {
            let (code, notes) = (code.display(), notes.display());
            join(&format!(
                "data = 'd'\nclaim_code_file = '{code}'\nnotes_file = '{notes}'"
            ))
        };
        fs::write(&notes, "").unwrap();
        let absent = join().unwrap_err().to_string();
        assert!(absent.starts_with("claim_code_file: "), "{absent}");
        fs::write(&code, "1111-1111-1111-1111\n").unwrap();
        let weak = join().unwrap_err().to_string();
        assert!(
            weak.contains("can be guessed") && !weak.contains("1111"),
            "{weak}"
        );
        fs::write(&code, "0123-4567-89ab-cdef\n").unwrap();
        let config = join().unwrap();
        assert_eq!(config.claim_code.unwrap().reveal(), "0123-4567-89AB-CDEF");
        assert_eq!(config.note, None);
        fs::write(&notes, b"line 2: one\nline 4: \xff\n").unwrap();
        assert_eq!(join().unwrap().note.unwrap(), "line 2: one; line 4: \u{fffd}");
        fs::write(&notes, "x".repeat(10_000)).unwrap();
        assert_eq!(join().unwrap().note.unwrap().len() as u64, NAMED_FILE_BYTES_MAX);
    }

    #[test]
    fn every_refusal_names_the_key() {
        for (text, key) in [
            ("data = 'd'\nlissten = '127.0.0.1:1'", "lissten"),
            ("data = 'd'\nlisten = 8443", "listen"),
            ("data = 'd'\nlisten = 'nowhere'", "listen"),
            ("data = 'd'\nplain_http = ':80'", "plain_http"),
            ("data = 'd'\nlog = 'loud'", "log"),
            ("data = 'd'\nconfine = 'yes'", "confine"),
            ("data = 'd'\nauthorities = ['a@b']", "authorities"),
            ("data = 'd'\nauthorities = ['b:port']", "authorities"),
            ("data = 'd'\norigins = ['app.example.org']", "origins"),
            ("data = 'd'\norigins = ['https://app.example.org/']", "origins"),
            ("data = 'd'\norigins = ['https://App.example.org']", "origins"),
            ("data = 'd'\nreplicate_allow = ['10.0.0.0/33']", "replicate_allow"),
            ("data = 'd'\nsecurity_contact = 'ann'", "security_contact"),
            (
                "data = 'd'\nsecurity_contact = 'mailto:a\\nExpires: x'",
                "security_contact",
            ),
            ("listen = '127.0.0.1:1'", "data"),
        ] {
            let message = join(text).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
        let message = join("data = 'd'\nlissten = 1").unwrap_err().to_string();
        assert!(
            message.contains("line 2") && message.contains("refuge.toml"),
            "{message}"
        );
    }
}
