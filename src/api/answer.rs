//! Answers: JSON, bytes as a download, streams that are pulled as fast as the client reads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use serde::Serialize;

use super::error::Error;

/// What keeps a browser from running what users stored, even if it is shown in a frame or opened directly.
const CONTENT_CSP: HeaderValue =
    HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");

/// What our own pages may do: no inline script or style, nothing from elsewhere (security row S12).
const PAGE_CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer with a JSON document.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(value).expect("our answers have string keys and finite numbers");
    text(status, HeaderValue::from_static("application/json"), bytes)
}

/// An answer with a text of this media type.
pub(super) fn text(status: StatusCode, media_type: HeaderValue, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// A page of the node's own.
pub(super) fn page(status: StatusCode, markup: maud::Markup) -> Response {
    text(
        status,
        HeaderValue::from_static("text/html; charset=utf-8"),
        markup.into_string(),
    )
}

/// A redirect of a form to the page that shows what it did.
pub(super) fn see_other(location: &str) -> Response {
    let mut response = empty(StatusCode::SEE_OTHER);
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// Marks bytes that a user stored: a download, never a document of this origin.
pub(super) fn mark_as_content(headers: &mut HeaderMap, disposition: HeaderValue) {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_CSP);
}

/// `attachment` with a file name, as RFC 6266 writes it: a plain one for old clients, the exact one encoded.
pub(super) fn attachment(file_name: &str) -> HeaderValue {
    /// What RFC 5987 lets stand as it is.
    const ENCODED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_');
    let plain: String = file_name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-._ ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let exact = percent_encoding::utf8_percent_encode(file_name, ENCODED);
    HeaderValue::from_str(&format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"
    ))
    .unwrap_or(HeaderValue::from_static("attachment"))
}

/// Adds what every answer has (security row S12). What a handler set stands.
pub(super) fn secure(headers: &mut HeaderMap) {
    const ALWAYS: [(HeaderName, HeaderValue); 5] = [
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // Not `no-referrer`: with it a browser sends `Origin: null` with our own forms (Fetch, "append a request
        // `Origin` header"), and `origin.rs` refuses them.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    headers.reserve(8);
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(PAGE_CSP);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Where the bytes of a streamed answer come from.
pub(super) trait Source: Send + Sized + Unpin + 'static {
    /// The next bytes; `None` at the end. Not called again after an error.
    ///
    /// # Errors
    /// The answer is cut: the client sees that it is not whole.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
}

/// A streamed body, of `len` bytes where that is known. A client that goes away drops the source.
pub(super) fn stream(source: impl Source, len: Option<u64>) -> Body {
    Body::new(SourceBody {
        state: State::Idle(source),
        left: len,
    })
}

struct SourceBody<S> {
    state: State<S>,
    left: Option<u64>,
}

enum State<S> {
    Idle(S),
    Working(Pin<Box<dyn Future<Output = Pulled<S>> + Send>>),
    Ended,
}

type Pulled<S> = (S, Result<Option<Bytes>, Error>);

impl<S: Source> HttpBody for SourceBody<S> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let State::Idle(_) = this.state
            && let State::Idle(mut source) = std::mem::replace(&mut this.state, State::Ended)
        {
            this.state = State::Working(Box::pin(async move {
                let pulled = source.next().await;
                (source, pulled)
            }));
        }
        let State::Working(pull) = &mut this.state else {
            return Poll::Ready(None);
        };
        let (source, pulled) = ready!(pull.as_mut().poll(cx));
        this.state = State::Ended;
        Poll::Ready(match pulled {
            Ok(Some(bytes)) => {
                this.state = State::Idle(source);
                this.left = this.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Some(Ok(Frame::data(bytes)))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "an answer was cut");
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended) || self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_leave_its_header() {
        let value = attachment("a\"b\r\nX: y/é.txt");
        assert_eq!(
            value.to_str().unwrap(),
            "attachment; filename=\"a_b__X_ y__.txt\"; filename*=UTF-8''a%22b%0D%0AX%3A%20y%2F%C3%A9.txt"
        );
    }
}
