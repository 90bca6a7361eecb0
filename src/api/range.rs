//! The `Range` header and the conditions of a download (RFC 9110, sections 13 and 14), pure.

use axum::http::{HeaderMap, header};

/// What part of a representation is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of it: no range was asked, or one that is ignored.
    Whole,
    /// `len` bytes from `start`; never empty.
    Part {
        /// First byte.
        start: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The range lies outside.
    Outside,
}

/// What the headers of a GET ask of a representation of `len` bytes whose tag is `etag`.
///
/// One range is honoured. Several at once are answered whole, which RFC 9110, section 14.2, allows: nobody needs
/// `multipart/byteranges`, and overlapping ranges are an old way to make a server work.
pub(super) fn select(headers: &HeaderMap, etag: &str, len: u64) -> Selected {
    let Some(range) = headers.get(header::RANGE) else {
        return Selected::Whole;
    };
    let mut if_range = headers.get_all(header::IF_RANGE).iter();
    if if_range.any(|wanted| wanted.as_bytes() != etag.as_bytes()) {
        return Selected::Whole;
    }
    match range.to_str().ok().and_then(parse) {
        Some(spec) => spec.of(len),
        None => Selected::Whole,
    }
}

/// Whether `If-None-Match` says that the client has this representation. Compares weakly, as it must.
pub(super) fn has_already(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix(u64),
}

impl Spec {
    fn of(self, len: u64) -> Selected {
        let (start, end) = match self {
            Spec::From { first, last } => (first, last.map_or(len, |last| last.saturating_add(1).min(len))),
            Spec::Suffix(count) => (len.saturating_sub(count), len),
        };
        if start >= end {
            return Selected::Outside;
        }
        Selected::Part {
            start,
            len: end - start,
        }
    }
}

/// One well-formed range of bytes; anything else is to be ignored (RFC 9110, section 14.2).
fn parse(text: &str) -> Option<Spec> {
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first, last) {
        ("", count) => digits(count).map(Spec::Suffix),
        (first, "") => digits(first).map(|first| Spec::From { first, last: None }),
        (first, last) => {
            let (first, last) = (digits(first)?, digits(last)?);
            (first <= last).then_some(Spec::From {
                first,
                last: Some(last),
            })
        }
    }
}

/// `u64::from_str` takes a sign, a range does not.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn selected(range: &str) -> Selected {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        select(&headers, "\"x\"", 10)
    }

    fn part(start: u64, len: u64) -> Selected {
        Selected::Part { start, len }
    }

    #[test]
    fn ranges_as_the_rfc_gives_them() {
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=3-5", part(3, 3)),
            ("bytes=3-", part(3, 7)),
            ("bytes=3-99", part(3, 7)),
            ("bytes=-4", part(6, 4)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Selected::Outside),
            ("bytes=-0", Selected::Outside),
            ("bytes=5-3", Selected::Whole),
            ("bytes=0-1,4-5", Selected::Whole),
            ("lines=0-1", Selected::Whole),
            ("bytes=+1-2", Selected::Whole),
            ("bytes=18446744073709551616-", Selected::Whole),
            ("bytes=0-18446744073709551615", part(0, 10)),
        ] {
            assert_eq!(selected(range), expected, "{range}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"y\""));
        assert_eq!(select(&headers, "\"x\"", 10), Selected::Whole);
        assert_eq!(select(&headers, "\"y\"", 10), part(0, 1));
    }

    #[test]
    fn what_the_client_has_is_recognised_in_a_list_and_weakly() {
        let has = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            has_already(&headers, "\"x\"")
        };
        assert!(has("\"x\"") && has("W/\"x\"") && has("\"a\", \"x\"") && has("*"));
        assert!(!has("\"y\"") && !has("x"));
    }

    proptest! {
        #[test]
        fn no_range_panics_or_leaves_the_representation(range in "(bytes=)?[-0-9,= ]{0,24}|\\PC*", len: u64) {
            if let Some(spec) = parse(&range)
                && let Selected::Part { start, len: taken } = spec.of(len)
            {
                prop_assert!(taken > 0 && start.checked_add(taken).is_some_and(|end| end <= len));
            }
        }
    }
}
