//! `multipart/related` and `multipart/mixed` (RFC 2046, section 5.1), as CouchDB's replicator speaks them.
//!
//! Parts are read as they come; what is held is a delimiter's length, or the headers of one part.

use bytes::{Buf, Bytes, BytesMut};

use super::fault::Fault;
use crate::api::body::Incoming;
use crate::api::error::Error;

/// The headers of one part.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// The longest boundary (RFC 2046, section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// A body in parts.
pub(super) struct Multipart {
    body: Incoming,
    held: BytesMut,
    /// `\r\n--BOUNDARY`.
    delimiter: Vec<u8>,
    state: State,
    body_ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// A delimiter was read: an end or headers follow.
    Delimited,
    InPart,
    Ended,
}

/// What the headers of a part say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHead {
    pub(super) content_type: Option<String>,
    /// The name in `Content-Disposition`.
    pub(super) file_name: Option<String>,
    pub(super) encoding: Option<String>,
}

/// The boundary that a media type names.
pub(super) fn boundary_of(content_type: &str) -> Option<String> {
    let boundary = parameter(content_type, "boundary")?;
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
        && boundary.bytes().all(|b| b.is_ascii() && b >= b' ');
    fits.then_some(boundary)
}

/// A parameter of a header, without its quotes.
fn parameter(header: &str, name: &str) -> Option<String> {
    let found = header.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })?;
    let unquoted = found.strip_prefix('"').and_then(|found| found.strip_suffix('"'));
    Some(unquoted.unwrap_or(found).replace("\\\"", "\""))
}

impl Multipart {
    pub(super) fn new(body: Incoming, boundary: &str) -> Multipart {
        Multipart {
            body,
            // So that a body that begins with a delimiter has the line end before it, too.
            held: BytesMut::from(&b"\r\n"[..]),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            state: State::Preamble,
            body_ended: false,
        }
    }

    /// The head of the next part, once the one before was read; `None` after the last.
    ///
    /// # Errors
    /// [`Fault::Body`] where the body is no such sequence.
    pub(super) async fn next_part(&mut self) -> Result<Option<PartHead>, Error> {
        while matches!(self.state, State::Preamble | State::InPart) {
            self.chunk().await?;
        }
        if self.state == State::Ended {
            return Ok(None);
        }
        while self.held.len() < 2 {
            self.fill().await?;
        }
        if self.held.starts_with(b"--") {
            self.state = State::Ended;
            return Ok(None);
        }
        let end = loop {
            // A part without headers begins with an empty line.
            match find(&self.held, b"\r\n\r\n") {
                Some(at) => break at,
                None if self.held.len() > HEADERS_BYTES_MAX => {
                    return Err(wrong("the headers of a part are too long"));
                }
                None => self.fill().await?,
            }
        };
        let head = self.held.split_to(end);
        self.held.advance(4);
        self.state = State::InPart;
        let text = std::str::from_utf8(&head).map_err(|_| wrong("the headers of a part are no text"))?;
        Ok(Some(part_head(text)))
    }

    /// The next bytes of the part; `None` at its end.
    ///
    /// # Errors
    /// As [`Multipart::next_part`].
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if !matches!(self.state, State::Preamble | State::InPart) {
            return Ok(None);
        }
        loop {
            if let Some(at) = find(&self.held, &self.delimiter) {
                let rest = self.held.split_to(at).freeze();
                self.held.advance(self.delimiter.len());
                self.state = State::Delimited;
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            let sure = self.held.len().saturating_sub(self.delimiter.len());
            if sure > 0 {
                return Ok(Some(self.held.split_to(sure).freeze()));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        if self.body_ended {
            return Err(Error::BodyCut);
        }
        match self.body.next().await? {
            Some(bytes) => self.held.extend_from_slice(&bytes),
            None => self.body_ended = true,
        }
        Ok(())
    }
}

fn part_head(text: &str) -> PartHead {
    let mut head = PartHead::default();
    for line in text.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" => head.content_type = Some(value.to_owned()),
            "content-disposition" => head.file_name = parameter(value, "filename"),
            "content-encoding" => head.encoding = Some(value.to_owned()),
            _ => {}
        }
    }
    head
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, _) = wanted.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn wrong(reason: &str) -> Error {
    Fault::Body(format!("multipart: {reason}")).into()
}

/// A boundary that no content has.
pub(super) fn new_boundary() -> String {
    let mut random = [0; 16];
    // Without random bytes it is still no line of JSON; that attachments have it is no more likely than any other line.
    let _ = getrandom::fill(&mut random);
    data_encoding::HEXLOWER.encode(&random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use proptest::prelude::*;

    async fn parts(wire: Vec<u8>, size: usize) -> Result<Vec<(PartHead, Vec<u8>)>, Error> {
        let chunks: Vec<Bytes> = wire.chunks(size).map(Bytes::copy_from_slice).collect();
        let body = Body::new(http_body_util::StreamBody::new(Chunks(chunks.into_iter())));
        let mut multipart = Multipart::new(Incoming::new(body), "xx");
        let mut parts = Vec::new();
        while let Some(head) = multipart.next_part().await? {
            let mut bytes = Vec::new();
            while let Some(chunk) = multipart.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            parts.push((head, bytes));
        }
        Ok(parts)
    }

    struct Chunks(std::vec::IntoIter<Bytes>);

    impl futures_core::Stream for Chunks {
        type Item = Result<http_body::Frame<Bytes>, std::io::Error>;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(self.0.next().map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }

    fn wire(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = b"nothing\r\n--xx".to_vec();
        for body in bodies {
            wire.extend_from_slice(b"\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=\"a.txt\"\r\n\r\n");
            wire.extend_from_slice(body);
            wire.extend_from_slice(b"\r\n--xx");
        }
        wire.extend_from_slice(b"--\r\n");
        wire
    }

    #[test]
    fn a_boundary_is_a_parameter() {
        for (header, wanted) in [
            ("multipart/related; boundary=\"a b\"", Some("a b")),
            ("multipart/related;type=\"x\"; Boundary=abc", Some("abc")),
            ("multipart/related", None),
            ("multipart/related; boundary=", None),
        ] {
            assert_eq!(boundary_of(header).as_deref(), wanted, "{header}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_is_no_body() {
        for cut in [0, 5, 20, 60] {
            let mut cut_wire = wire(&[b"hello".to_vec()]);
            cut_wire.truncate(cut);
            assert!(parts(cut_wire, 7).await.is_err(), "{cut}");
        }
        assert!(parts(b"--xx--".to_vec(), 100).await.unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn parts_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(prop::sample::select(b"\r\n-x-a".to_vec()), 0..20), 0..4),
            size in 1..30_usize,
        ) {
            prop_assume!(bodies.iter().all(|body| find(body, b"\r\n--xx").is_none() && !body.starts_with(b"\n--xx")));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let found = runtime.block_on(parts(wire(&bodies), size)).unwrap();
            let found: Vec<Vec<u8>> = found.into_iter().map(|(head, body)| {
                assert_eq!(head.file_name.as_deref(), Some("a.txt"));
                body
            }).collect();
            prop_assert_eq!(found, bodies);
        }
    }
}
