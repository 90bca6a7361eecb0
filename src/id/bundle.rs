//! What bundles are called where they come from: a file on a disk, a file on a server. Both come from outside.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::text_newtype;

/// The name of a bundle's file: letters, digits and `. _ + -`, beginning with a letter or digit and ending with `.raucb`; at most
/// 128 bytes. Safe as one part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleName(String);

/// The URL of a bundle: `http[s]://host[:port]/[path][?query]` in visible ASCII, without a name, a password or a fragment; at most
/// 4,096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleUrl(String);

/// The text names no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleNameError {
    /// Not the name of a file.
    #[error("a bundle's file is named with letters, digits and . _ + - and ends with .raucb")]
    File,
    /// Not a URL.
    #[error("a bundle's URL is https://HOST/PATH, without a name or password in it")]
    Url,
}

const NAME_BYTES_MAX: usize = 128;
/// Hosts of releases lead to URLs that are signed, with tokens in them.
const URL_BYTES_MAX: usize = 4096;
const ENDING: &str = ".raucb";

impl BundleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl BundleUrl {
    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The server, as `https://host:port`, and what is asked of it, beginning with `/`.
    pub fn split(&self) -> (&str, &str) {
        let host_at = self.0.find("://").map_or(0, |at| at + 3);
        let path_at = self.0[host_at..]
            .find('/')
            .map_or(self.0.len(), |at| host_at + at);
        self.0.split_at(path_at)
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// What a reference means at this URL (RFC 3986, section 5.2), without its fragment; `None` where that is no URL of a bundle.
    /// `.` and `..` are left to the server.
    pub fn join(&self, reference: &str) -> Option<BundleUrl> {
        let reference = before(reference, '#');
        let (server, path) = self.split();
        let path = before(path, '?');
        let joined = if reference.starts_with("//") {
            let scheme = if self.is_https() { "https:" } else { "http:" };
            format!("{scheme}{reference}")
        } else if reference.starts_with('/') {
            format!("{server}{reference}")
        } else if reference.starts_with('?') {
            format!("{server}{path}{reference}")
        } else if reference.split(['/', '?']).next()?.contains(':') {
            reference.to_owned()
        } else {
            format!("{server}{}/{reference}", path.rsplit_once('/')?.0)
        };
        joined.parse().ok()
    }
}

/// What stands before the mark; all of it where there is none.
fn before(text: &str, mark: char) -> &str {
    text.split_once(mark).map_or(text, |(before, _)| before)
}

impl FromStr for BundleName {
    type Err = BundleNameError;

    fn from_str(text: &str) -> Result<BundleName, BundleNameError> {
        let is_plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let fits = text.len() <= NAME_BYTES_MAX && text.len() > ENDING.len() && text.ends_with(ENDING);
        (is_plain && begins && fits)
            .then(|| BundleName(text.to_owned()))
            .ok_or(BundleNameError::File)
    }
}

impl FromStr for BundleUrl {
    type Err = BundleNameError;

    fn from_str(text: &str) -> Result<BundleUrl, BundleNameError> {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let (host, path) = match rest.and_then(|rest| rest.split_once('/')) {
            Some((host, path)) => (host, Some(path)),
            None => ("", None),
        };
        let is_plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#');
        let is_host = !host.is_empty() && !host.contains(['@', '?', '\\']);
        (is_plain && is_host && path.is_some() && text.len() <= URL_BYTES_MAX)
            .then(|| BundleUrl(text.to_owned()))
            .ok_or(BundleNameError::Url)
    }
}

text_newtype!(BundleName);
text_newtype!(BundleUrl);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_is_one_plain_part_of_a_path() {
        assert!("refuge-qemu-arm-0.2.0+1.raucb".parse::<BundleName>().is_ok());
        let long = format!("{}.raucb", "a".repeat(NAME_BYTES_MAX));
        for bad in [
            "",
            ".raucb",
            "..raucb",
            "-a.raucb",
            "a.raucb/",
            "../a.raucb",
            "a b.raucb",
            "a.RAUCB",
            "a.raucb\n",
            "ä.raucb",
            &long,
        ] {
            assert!(bad.parse::<BundleName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_url_is_a_server_and_what_is_asked_of_it() {
        let url: BundleUrl = "https://example.org:8443/a/b.raucb?x=/y".parse().unwrap();
        assert_eq!(url.split(), ("https://example.org:8443", "/a/b.raucb?x=/y"));
        for bad in [
            "",
            "https://example.org",
            "https:///b.raucb",
            "ftp://example.org/b.raucb",
            "https://ann:secret@example.org/b.raucb",
            "https://example.org?x/b.raucb",
            "https://example.org/b.raucb#x",
            "https://example.org/b c",
            "https://example.org\\@evil/b",
        ] {
            assert!(bad.parse::<BundleUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reference_leads_to_another_url() {
        let url: BundleUrl = "https://example.org:8443/a/b.raucb?x=/y".parse().unwrap();
        let joined = |reference| url.join(reference).map(|url| url.0);
        for (reference, expected) in [
            (
                "https://cdn.example/c?s=1&t=a:b#x",
                "https://cdn.example/c?s=1&t=a:b",
            ),
            ("http://cdn.example/c", "http://cdn.example/c"),
            ("//cdn.example/c", "https://cdn.example/c"),
            ("/c?u=https://d/", "https://example.org:8443/c?u=https://d/"),
            ("c/d", "https://example.org:8443/a/c/d"),
            ("?s=1", "https://example.org:8443/a/b.raucb?s=1"),
        ] {
            assert_eq!(joined(reference).as_deref(), Some(expected));
        }
        for bad in [
            "ftp://cdn.example/c",
            "file:/etc/shadow",
            "https://ann:secret@cdn.example/c",
            "//ann@cdn.example/c",
            "https://cdn.example",
            "https:///c",
            "//",
            "c d",
        ] {
            assert_eq!(joined(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<BundleName>();
            let _ = text.parse::<BundleUrl>().map(|url| url.split().0.len());
        }
    }
}
