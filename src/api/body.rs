//! Bodies of requests: streamed with a pace, or read whole within a limit and parsed strictly.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::pace::Pace;
use super::strict;

/// The most a JSON body may have (security row S15).
pub(super) const JSON_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The most a form of the page may have: a name and a password.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// The body of a request as it comes in.
pub(super) struct Incoming {
    body: Body,
    pace: Pace,
}

impl Incoming {
    pub(super) fn new(body: Body) -> Incoming {
        Incoming {
            body,
            pace: Pace::default(),
        }
    }

    /// The length the client announced, in bytes; `None` for a chunked body.
    pub(super) fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Error::BodyCut`] and [`Error::BodySlow`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let deadline = self.pace.wait(Instant::now());
            let Ok(frame) = timeout_at(deadline, self.body.frame()).await else {
                return Err(Error::BodySlow);
            };
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(Error::BodyCut),
                Some(Ok(frame)) => {
                    // Trailers mean nothing to us.
                    if let Ok(bytes) = frame.into_data() {
                        self.pace.moved(bytes.len(), Instant::now());
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`], and as [`Incoming::next`].
    pub(super) async fn whole(mut self, limit: usize) -> Result<Bytes, Error> {
        let too_large = Error::BodyTooLarge { limit: limit as u64 };
        if self.announced().is_some_and(|len| len > limit as u64) {
            return Err(too_large);
        }
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return if first.len() > limit {
                Err(too_large)
            } else {
                Ok(first)
            };
        };
        let mut whole = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(bytes) = next {
            if whole.len() + bytes.len() > limit {
                return Err(too_large);
            }
            whole.extend_from_slice(&bytes);
            next = self.next().await?;
        }
        Ok(whole.freeze())
    }

    /// The body as JSON, as strictly as `strict.rs` says (security rows S15 and S16).
    ///
    /// # Errors
    /// [`Error::Malformed`], and as [`Incoming::whole`].
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let bytes = self.whole(JSON_BYTES_MAX).await?;
        strict::check(&bytes).map_err(|reason| Error::malformed("body", reason))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::malformed("body", error))
    }

    /// The body as the fields of a form. Repeated fields are refused.
    ///
    /// # Errors
    /// [`Error::Malformed`], and as [`Incoming::whole`].
    pub(super) async fn form(self) -> Result<Form, Error> {
        let bytes = self.whole(FORM_BYTES_MAX).await?;
        Form::parse(&bytes)
    }
}

/// The fields of a form, or of a query string.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text that is not UTF-8 and for a field twice.
    pub(super) fn parse(bytes: &[u8]) -> Result<Form, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::malformed("fields", error))?;
        let mut fields: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(Error::malformed("fields", format!("{name:?} is there twice")));
            }
            fields.push((name, value));
        }
        Ok(Form(fields))
    }

    /// A field, where it is there and not empty.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// [`Error::Malformed`] names it.
    pub(super) fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.field(name)
            .ok_or_else(|| Error::malformed(name, "is missing"))
    }

    /// A field read as what it must be, where it is there.
    ///
    /// # Errors
    /// [`Error::Malformed`] names it.
    pub(super) fn parsed<T>(&self, name: &'static str) -> Result<Option<T>, Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.field(name)
            .map(|text| {
                text.parse()
                    .map_err(|error: T::Err| Error::malformed(name, error))
            })
            .transpose()
    }
}

fn decode(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|error| Error::malformed("fields", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_form_is_decoded_and_a_field_twice_is_refused() {
        let form = Form::parse(b"name=a+b%26c&empty=&x").ok().unwrap();
        assert_eq!(form.field("name"), Some("a b&c"));
        assert_eq!(form.field("empty"), None);
        assert!(Form::parse(b"a=1&a=2").is_err());
        assert!(Form::parse(b"a=%FF").is_err());
    }

    proptest! {
        #[test]
        fn no_form_panics(text in "\\PC*") {
            let _ = Form::parse(text.as_bytes());
        }
    }
}
