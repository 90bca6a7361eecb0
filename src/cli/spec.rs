//! `NAME[@SNAPSHOT][:PATH]`: which snapshot of which ref, and what in it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::exit::{Exit, Failure};
use crate::files::{RefRecord, Refs, Selector, Snapshot};
use crate::id::RefName;

/// How snapshots are named, for help texts.
pub(super) const SNAPSHOT_HELP: &str = "\
A snapshot is named latest (the default), -1 for the one before it, the first digits of its tree, or a time
(2026-01-31 or 2026-01-31T12:00:00Z): the newest at or before it.";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// The ref.
    pub(super) name: RefName,
    /// Which of its snapshots.
    pub(super) selector: Selector,
    /// What in it; the bytes of a path need not be UTF-8.
    pub(super) path: Option<PathBuf>,
}

impl Spec {
    /// Reads what was written. A time holds colons as well: what stands after `@` is taken as far as it names a
    /// snapshot.
    pub(super) fn parse(text: &OsStr) -> Result<Spec, Failure> {
        let bytes = text.as_bytes();
        let name_end = bytes
            .iter()
            .position(|byte| matches!(byte, b'@' | b':'))
            .unwrap_or(bytes.len());
        let name = as_text(text, &bytes[..name_end])?;
        let name = name.parse().map_err(usage)?;
        let rest = &bytes[name_end..];
        let Some(rest) = rest.strip_prefix(b"@") else {
            return Ok(Spec {
                name,
                selector: Selector::Back(0),
                path: rest.strip_prefix(b":").and_then(path),
            });
        };
        let colons = rest.iter().enumerate().filter(|(_, byte)| **byte == b':');
        let mut ends: Vec<usize> = colons.map(|(at, _)| at).collect();
        ends.push(rest.len());
        for end in ends.iter().rev() {
            let selector = std::str::from_utf8(&rest[..*end]).ok();
            if let Some(selector) = selector.and_then(|text| text.parse().ok()) {
                return Ok(Spec {
                    name,
                    selector,
                    path: rest.get(end + 1..).and_then(path),
                });
            }
        }
        // Nothing fits: the shortest is what was meant, and its refusal says what would.
        let shortest = as_text(text, &rest[..ends[0]])?;
        Err(shortest.parse::<Selector>().map_or_else(usage, |_| {
            Failure::new(Exit::Usage, format!("{shortest:?} names no snapshot"))
        }))
    }

    /// The ref with its history, and the snapshot that is meant.
    pub(super) fn find(&self, refs: &dyn Refs) -> anyhow::Result<(RefRecord, Snapshot)> {
        let record = refs.get(&self.name)?.ok_or_else(|| crate::files::Error::NoRef {
            name: self.name.clone(),
        })?;
        let snapshot = self.selector.select(&record)?.clone();
        Ok((record, snapshot))
    }
}

fn path(bytes: &[u8]) -> Option<PathBuf> {
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    (!bytes.is_empty()).then(|| OsString::from_vec(bytes.to_vec()).into())
}

fn as_text<'a>(whole: &OsStr, bytes: &'a [u8]) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| {
        let message = format!(
            "{:?} is not written NAME[@SNAPSHOT][:PATH]",
            whole.to_string_lossy()
        );
        Failure::new(Exit::Usage, message)
    })
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String, Option<PathBuf>) {
        let spec = Spec::parse(OsStr::new(text)).unwrap();
        (spec.name.to_string(), spec.selector.to_string(), spec.path)
    }

    #[test]
    fn names_snapshots_and_paths_are_told_apart() {
        let latest = Selector::Back(0).to_string();
        assert_eq!(parse("docs"), ("docs".into(), latest.clone(), None));
        assert_eq!(
            parse("docs:a/b"),
            ("docs".into(), latest.clone(), Some("a/b".into()))
        );
        assert_eq!(
            parse("docs:/a:b@c"),
            ("docs".into(), latest, Some("a:b@c".into()))
        );
        assert_eq!(
            parse("a/b@-2:x"),
            ("a/b".into(), Selector::Back(2).to_string(), Some("x".into()))
        );
        let time: Selector = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(
            parse("docs@2026-01-31T12:00:00Z:30:00"),
            ("docs".into(), time.to_string(), Some("30:00".into()))
        );
        for bad in ["", "@latest", "docs@", "docs@yesterday:x", "../x", "a b"] {
            assert!(Spec::parse(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
