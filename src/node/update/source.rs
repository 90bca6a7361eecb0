//! Where a bundle comes from, and which are to be had near.
//!
//! As text, in commands, JSON and records:
//!
//! ```text
//! blob:main/blake3;9f…         a blob of a store
//! https://host/a.raucb         a file on a server
//! usb:a.raucb  usb:sda1/a.raucb   a file at the top of a disk that is plugged in
//! box:ed25519;12…  box:ed25519;12…@https://10.0.0.7   what another box runs
//! ```

use std::fmt;
use std::str::FromStr;

use super::super::channel::Offer;
use crate::id::{BlobId, BundleName, BundleUrl, DiskName, NodeId, StoreName, Version};

/// Where a bundle comes from. Who made it is nowhere believed for that: its signature says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A blob of a store.
    Blob {
        /// The store that holds it.
        store: StoreName,
        /// The bundle.
        blob: BlobId,
    },
    /// A file on a server, at an address of the public internet or one that the owner lists.
    Url {
        /// Where.
        url: BundleUrl,
        /// What it must be, where that is known from elsewhere; no part of the text.
        expected: Option<BundleDigest>,
    },
    /// A file at the top of a disk that is plugged in.
    Disk {
        /// The file system's device; where there is none, the one disk that has such a file.
        disk: Option<DiskName>,
        /// The file.
        name: BundleName,
    },
    /// The bundle that another box runs: what this one lacks of it.
    Node {
        /// Which; nothing is taken from one that proves to be another.
        node: NodeId,
        /// Where; where nothing is said, as it was seen on the local network.
        at: Option<BundleUrl>,
    },
}

/// What a bundle must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleDigest {
    /// Its digest.
    pub blob: BlobId,
    /// Its length.
    pub size_bytes: u64,
}

/// A bundle that can be had, as whoever has it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// Where from.
    pub source: Source,
    /// What it makes of the box, where that is said outside of it.
    pub version: Option<Version>,
    /// How long it is.
    pub size_bytes: u64,
    /// What people know the place by.
    pub place: String,
}

/// The text names no source of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a bundle comes from https://HOST/PATH, usb:NAME.raucb, usb:DISK/NAME.raucb, box:NODE-ID, box:NODE-ID@https://HOST or blob:STORE/ID"
)]
pub struct SourceError;

/// What a channel offers comes from where it says, and must be what it says.
impl From<Offer> for Source {
    fn from(offer: Offer) -> Source {
        Source::Url {
            url: offer.url,
            expected: Some(BundleDigest {
                blob: offer.blob,
                size_bytes: offer.size_bytes,
            }),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Source, SourceError> {
        let parsed = match text.split_once(':') {
            Some(("blob", rest)) => blob(rest),
            Some(("usb", rest)) => disk(rest),
            Some(("box", rest)) => node(rest),
            Some(("http" | "https", _)) => text.parse().ok().map(|url| Source::Url { url, expected: None }),
            _ => None,
        };
        parsed.ok_or(SourceError)
    }
}

fn blob(text: &str) -> Option<Source> {
    let (store, blob) = text.split_once('/')?;
    Some(Source::Blob {
        store: store.parse().ok()?,
        blob: blob.parse().ok()?,
    })
}

fn disk(text: &str) -> Option<Source> {
    let (disk, name) = match text.split_once('/') {
        Some((disk, name)) => (Some(disk.parse().ok()?), name),
        None => (None, text),
    };
    let name = name.parse().ok()?;
    Some(Source::Disk { disk, name })
}

fn node(text: &str) -> Option<Source> {
    let (node, at) = match text.split_once('@') {
        // The URL of a node is written without a path as well.
        Some((node, at)) => (node, Some(format!("{}/", at.trim_end_matches('/')).parse().ok()?)),
        None => (text, None),
    };
    Some(Source::Node {
        node: node.parse().ok()?,
        at,
    })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Blob { store, blob } => write!(f, "blob:{store}/{blob}"),
            Source::Url { url, .. } => url.fmt(f),
            Source::Disk { disk: None, name } => write!(f, "usb:{name}"),
            Source::Disk {
                disk: Some(disk),
                name,
            } => write!(f, "usb:{disk}/{name}"),
            Source::Node { node, at: None } => write!(f, "box:{node}"),
            Source::Node { node, at: Some(at) } => write!(f, "box:{node}@{}", at.split().0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sources_are_written_as_drawn() {
        let node = format!("box:ed25519;{}", "12".repeat(32));
        let blob = format!("blob:main/blake3;{}", "9f".repeat(32));
        for text in [
            "https://example.org/a.raucb?x=1",
            "http://192.168.1.2:8000/a.raucb",
            "usb:a.raucb",
            "usb:sda1/a.raucb",
            &blob,
            &node,
            &format!("{node}@https://10.0.0.7:8443"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_no_source() {
        let node = format!("box:ed25519;{}", "12".repeat(32));
        for bad in [
            "",
            "a.raucb",
            "usb:",
            "usb:../a.raucb",
            "usb:sda1/../a.raucb",
            "usb:/dev/sda/a.raucb",
            "file:///etc/shadow",
            "https://ann:secret@example.org/a.raucb",
            "blob:main",
            "box:refuge-abcdef",
            &format!("{node}@10.0.0.7"),
            &format!("{node}@https://a@b"),
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Source>();
        }
    }
}
