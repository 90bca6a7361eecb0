//! Whether a request that carries a cookie was made by our own page: the defence against CSRF.
//!
//! Browsers say who makes a request in `Origin`, or in `Sec-Fetch-Site`. A request that says neither is not
//! from a browser that protects its cookies, and is refused. Tokens are exempt: no browser adds them.

use axum::http::{HeaderMap, header};

/// Whether the headers say that a page of `scheme://authority` itself made the request.
pub(super) fn is_same_origin(headers: &HeaderMap, scheme: &str, authority: &str) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix(scheme))
            .and_then(|rest| rest.strip_prefix("://"))
            .is_some_and(|named| named == authority),
        (Some(_), Some(_)) => false,
        (None, _) => headers
            .get("sec-fetch-site")
            .is_some_and(|site| site.as_bytes() == b"same-origin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn same(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        is_same_origin(&headers, "https", "192.0.2.1:8443")
    }

    #[test]
    fn only_our_own_origin_passes() {
        assert!(same(&[("origin", "https://192.0.2.1:8443")]));
        assert!(same(&[("sec-fetch-site", "same-origin")]));
        for foreign in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://192.0.2.1:8443")],
            &[("origin", "https://192.0.2.1")],
            &[("origin", "https://192.0.2.1:8443.evil.example")],
            &[
                ("origin", "https://evil.example"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[
                ("origin", "https://192.0.2.1:8443"),
                ("origin", "https://evil.example"),
            ],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!same(foreign), "{foreign:?}");
        }
    }
}
