//! Which snapshot of a ref is meant: what stands after the `@` in `NAME@SNAPSHOT`.

use std::fmt;
use std::str::FromStr;

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::{RefRecord, Snapshot};
use crate::files::error::Error;

/// The fewest digits of a tree's hash: fewer are more likely a slip than a choice.
const PREFIX_DIGITS_MIN: usize = 4;

/// Which snapshot of a ref: `latest`, `-N` for the Nth before it, the first four or more digits of its
/// tree's hash (with or without `blake3;`), or a time: the newest snapshot at or before it. A time is RFC
/// 3339, `2026-01-31T12:00:00Z`, or a date in UTC, which means all of that day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// So many before the newest.
    Back(usize),
    /// The one whose tree's hash begins with these lower-case digits.
    Tree(String),
    /// The newest at or before this time, in milliseconds since 1970-01-01 UTC.
    Time(i64),
}

impl Selector {
    /// The snapshot of `record` that is meant.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] and [`Error::Ambiguous`].
    pub fn select<'a>(&self, record: &'a RefRecord) -> Result<&'a Snapshot, Error> {
        let snapshots = &record.snapshots;
        let found = match self {
            Selector::Back(back) => snapshots.iter().rev().nth(*back),
            Selector::Time(time_ms) => snapshots
                .iter()
                .filter(|snapshot| snapshot.time_ms <= *time_ms)
                .max_by_key(|snapshot| snapshot.time_ms),
            Selector::Tree(prefix) => {
                // Several snapshots of one tree are the same to a restore: the newest is as good as any.
                let mut fitting = snapshots
                    .iter()
                    .rev()
                    .filter(|snapshot| snapshot.tree.hex().starts_with(prefix));
                let first = fitting.next();
                if fitting.any(|other| first.is_some_and(|first| first.tree != other.tree)) {
                    return Err(Error::Ambiguous {
                        name: record.name.clone(),
                        selector: self.to_string(),
                    });
                }
                first
            }
        };
        found.ok_or_else(|| Error::NoSnapshot {
            name: record.name.clone(),
            selector: self.to_string(),
        })
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Selector, Error> {
        if text == "latest" {
            return Ok(Selector::Back(0));
        }
        if let Some(back) = text.strip_prefix('-').and_then(|digits| digits.parse().ok()) {
            return Ok(Selector::Back(back));
        }
        if let Some(time_ms) = parse_time(text) {
            return Ok(Selector::Time(time_ms));
        }
        let digits = text.strip_prefix("blake3;").unwrap_or(text);
        let is_hash = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash && (PREFIX_DIGITS_MIN..=64).contains(&digits.len()) {
            return Ok(Selector::Tree(digits.to_ascii_lowercase()));
        }
        Err(Error::Selector {
            text: text.to_owned(),
        })
    }
}

/// A time in milliseconds since 1970-01-01 UTC, from RFC 3339 or a date; a date means its last millisecond.
fn parse_time(text: &str) -> Option<i64> {
    let millis = |time: OffsetDateTime| i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok();
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return millis(time);
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    let next = day.next_day()?.midnight().assume_utc();
    millis(next).map(|time_ms| time_ms - 1)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Back(0) => f.write_str("latest"),
            Selector::Back(back) => write!(f, "-{back}"),
            Selector::Tree(prefix) => f.write_str(prefix),
            Selector::Time(time_ms) => {
                let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(*time_ms) * 1_000_000);
                match time.map(|time| time.format(&Rfc3339)) {
                    Ok(Ok(text)) => f.write_str(&text),
                    Ok(Err(_)) | Err(_) => write!(f, "{time_ms} ms"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;

    fn record() -> RefRecord {
        // 2026-01-01, -02 and -03, each at noon.
        let days = [1_767_268_800_000, 1_767_355_200_000, 1_767_441_600_000];
        let snapshots = days.iter().enumerate().map(|(n, time_ms)| Snapshot {
            tree: BlobId::from_bytes([if n == 2 { 0xab } else { 0xac }; 32]),
            time_ms: *time_ms,
            host: String::new(),
            source: String::new(),
            files: n as u64,
            bytes: 0,
            partial: false,
            xattrs: false,
            root: None,
        });
        RefRecord {
            snapshots: snapshots.collect(),
            ..RefRecord::new("a".parse().unwrap())
        }
    }

    #[test]
    fn every_way_to_name_a_snapshot_finds_the_one_that_is_meant() {
        let record = record();
        for (text, expected) in [
            ("latest", Some(2)),
            ("-1", Some(1)),
            ("-2", Some(0)),
            ("-3", None),
            ("abab", Some(2)),
            ("blake3;ABAB", Some(2)),
            ("acac", Some(1)),
            ("ffff", None),
            ("2026-01-02", Some(1)),
            ("2026-01-02T11:59:59Z", Some(0)),
            ("2026-01-02T13:00:00+01:00", Some(1)),
            ("2025-12-31", None),
            ("2030-01-01", Some(2)),
        ] {
            let selector: Selector = text.parse().unwrap();
            let found = selector.select(&record).ok().map(|snapshot| snapshot.files);
            assert_eq!(found, expected, "{text}");
        }
        for text in ["", "abc", "newest", "-x", "2026-13-01", &"a".repeat(65)] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_of_two_trees_asks_for_more_digits() {
        let mut record = record();
        record.snapshots[0].tree = BlobId::of(b"x");
        let hex = record.snapshots[0].tree.hex();
        let mut twin = *record.snapshots[0].tree.as_bytes();
        twin[31] ^= 1;
        record.snapshots[1].tree = BlobId::from_bytes(twin);
        let selector: Selector = hex[..8].parse().unwrap();
        assert!(matches!(selector.select(&record), Err(Error::Ambiguous { .. })));
    }
}
