//! A bundle that is a file on a server, with ranges (RFC 9110, section 14): what is there already is not asked for again. The server
//! may send elsewhere: the rest comes from whoever had the first byte, and each attempt asks the first server anew, as URLs that a
//! host of releases leads to end after a while.

use std::time::Duration;

use super::super::redirect::follow;
use super::Failure;
use crate::http::{Client, Method, Patience, Range, Request, Response, StatusCode};
use crate::id::BundleUrl;
use crate::node::Arriving;

/// How long the head of an answer may take.
const HEAD_WITHIN: Patience = Patience::Of(Duration::from_secs(30));

/// The longest mark that is kept: an entity tag has a digest and a length in it.
const MARK_BYTES_MAX: usize = 256;

/// A file that a server has.
pub(super) struct Served {
    /// Of the server that has it, and what is asked of that.
    client: Client,
    path: String,
    from: String,
    /// All of it, where the server knows no ranges and has begun already.
    whole: Option<Response>,
    size_bytes: u64,
    mark: Option<String>,
}

/// What an answer to a question for the rest of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The rest.
    GoesOn,
    /// All of it.
    Anew,
    /// Neither.
    Neither,
}

impl Served {
    /// Asks for the first byte, and learns how long the file is.
    pub(super) async fn open(url: &BundleUrl, allowed: &[Range]) -> Result<Served, Failure> {
        let from = url.to_string();
        let asked = follow(url, allowed, |path| {
            Request::new(Method::GET, path)
                .header("range", "bytes=0-0")
                .patience(HEAD_WITHIN)
        });
        let asked = asked.await.map_err(|astray| Failure::of_astray(&from, &astray))?;
        let (answer, client, path) = (asked.response, asked.client, asked.path);
        let is_plain = answer
            .header("content-encoding")
            .is_none_or(|coding| coding == "identity");
        let size_bytes = size(
            answer.status(),
            answer.header("content-length"),
            answer.header("content-range"),
        );
        let Some(size_bytes) = size_bytes.filter(|_| is_plain) else {
            let reason = "the server does not say how long the file is".to_owned();
            return Err(Failure::elsewhere(&from, reason));
        };
        Ok(Served {
            mark: mark(answer.header("etag"), answer.header("last-modified")),
            path,
            client,
            from,
            whole: (answer.status() == StatusCode::OK).then_some(answer),
            size_bytes,
        })
    }

    /// How long the file is.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What changes when the file does, where the server says it.
    pub(super) fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// Brings what is not there yet.
    pub(super) async fn bring(
        mut self,
        arriving: &mut Arriving,
        hear: &mut (impl FnMut(u64) + Send),
    ) -> Result<(), Failure> {
        if arriving.received() == self.size_bytes {
            return Ok(());
        }
        let mut answer = match self.whole.take() {
            Some(whole) => {
                arriving.cut(0).await?;
                whole
            }
            None => self.go_on(arriving).await?,
        };
        loop {
            let piece = answer.next().await;
            let Some(piece) = piece.map_err(|error| Failure::of_request(&self.from, error))? else {
                break;
            };
            arriving.write(&piece).await?;
            hear(arriving.received());
        }
        match arriving.received() == self.size_bytes {
            true => Ok(()),
            false => Err(Failure::Passing("it ended early".to_owned())),
        }
    }

    async fn go_on(&self, arriving: &mut Arriving) -> Result<Response, Failure> {
        let received = arriving.received();
        let mut request = Request::new(Method::GET, self.path.clone())
            .header("range", &format!("bytes={received}-"))
            .patience(HEAD_WITHIN);
        if let Some(mark) = &self.mark {
            request = request.header("if-range", mark);
        }
        let answer = self.client.ask(request).await;
        let answer = answer.map_err(|error| Failure::of_request(&self.from, error))?;
        match rest(
            answer.status(),
            answer.header("content-range"),
            received,
            self.size_bytes,
        ) {
            Rest::GoesOn => {}
            Rest::Anew => arriving.cut(0).await?,
            // It became another file in this moment.
            Rest::Neither => {
                let reason = "the server sends another range than was asked for".to_owned();
                return Err(Failure::Passing(reason));
            }
        }
        let len = answer.header("content-length").and_then(|len| len.parse().ok());
        match len == Some(self.size_bytes - arriving.received()) {
            true => Ok(answer),
            false => Err(Failure::Passing("the file became another one".to_owned())),
        }
    }
}

/// How long the file is, of an answer that has its first byte, or all of it.
fn size(status: StatusCode, content_length: Option<&str>, content_range: Option<&str>) -> Option<u64> {
    match status {
        StatusCode::OK => content_length?.parse().ok(),
        StatusCode::PARTIAL_CONTENT => content_range?.strip_prefix("bytes 0-0/")?.parse().ok(),
        _ => None,
    }
}

/// A strong entity tag, or else the time of the last change; what no header may hold is none.
fn mark(etag: Option<&str>, last_modified: Option<&str>) -> Option<String> {
    let strong = etag.filter(|etag| etag.starts_with('"'));
    let mark = strong.or(last_modified)?;
    let fits = mark.len() <= MARK_BYTES_MAX && mark.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    fits.then(|| mark.to_owned())
}

fn rest(status: StatusCode, content_range: Option<&str>, received: u64, size_bytes: u64) -> Rest {
    let wanted = format!("bytes {received}-{}/{size_bytes}", size_bytes.saturating_sub(1));
    match (status, content_range) {
        (StatusCode::OK, _) => Rest::Anew,
        (StatusCode::PARTIAL_CONTENT, Some(range)) if range == wanted => Rest::GoesOn,
        _ => Rest::Neither,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rest_is_what_was_asked_for_or_all_of_it() {
        let partial = StatusCode::PARTIAL_CONTENT;
        assert_eq!(rest(partial, Some("bytes 3-9/10"), 3, 10), Rest::GoesOn);
        assert_eq!(rest(StatusCode::OK, None, 3, 10), Rest::Anew);
        for range in [
            None,
            Some("bytes 2-9/10"),
            Some("bytes 3-8/10"),
            Some("bytes 3-9/11"),
            Some("bytes 3-9/*"),
        ] {
            assert_eq!(rest(partial, range, 3, 10), Rest::Neither, "{range:?}");
        }
    }

    #[test]
    fn the_length_is_that_of_the_whole_file() {
        let partial = StatusCode::PARTIAL_CONTENT;
        assert_eq!(size(partial, Some("1"), Some("bytes 0-0/10")), Some(10));
        assert_eq!(size(StatusCode::OK, Some("10"), None), Some(10));
        assert_eq!(size(partial, Some("1"), Some("bytes 0-0/*")), None);
        assert_eq!(size(partial, Some("5"), Some("bytes 0-4/10")), None);
        assert_eq!(size(StatusCode::OK, None, None), None);
        assert_eq!(size(StatusCode::CREATED, Some("10"), None), None);
    }

    #[test]
    fn only_what_stands_for_the_bytes_is_a_mark() {
        let date = "Fri, 27 Nov 2026 17:00:00 GMT";
        assert_eq!(mark(Some("\"a\""), Some(date)).as_deref(), Some("\"a\""));
        assert_eq!(mark(Some("W/\"a\""), Some(date)).as_deref(), Some(date));
        assert_eq!(mark(Some("W/\"a\""), None), None);
        assert_eq!(
            mark(Some(&format!("\"{}\"", "a".repeat(MARK_BYTES_MAX))), None),
            None
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(range in "\\PC{0,40}", received: u64, size_bytes: u64) {
            let _ = rest(StatusCode::PARTIAL_CONTENT, Some(&range), received, size_bytes);
            let _ = size(StatusCode::PARTIAL_CONTENT, None, Some(&range));
            let _ = mark(Some(&range), Some(&range));
        }
    }
}
