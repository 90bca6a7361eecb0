//! The request headers of tus, read strictly.

use axum::http::{HeaderMap, HeaderName};
use data_encoding::BASE64;
use ring::digest;
use subtle::ConstantTimeEq;

use super::{UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_METADATA};
use crate::api::error::Error;
use crate::id::UploadId;

/// What `Upload-Checksum` may name. The protocol asks for SHA-1; it guards against accidents only, the blob's
/// id against everything else.
pub(super) const CHECKSUM_ALGORITHMS: &str = "sha1,sha256,blake3";

/// What `Upload-Concat` says.
pub(super) enum Concat {
    /// A part.
    Partial,
    /// Put together from these.
    Final(Vec<UploadId>),
}

/// The checksum of a piece, as it is computed beside what the client said.
pub(super) struct PieceChecksum {
    expected: Vec<u8>,
    computed: Computed,
}

enum Computed {
    Ring(Box<digest::Context>),
    Blake3(Box<blake3::Hasher>),
}

impl PieceChecksum {
    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.computed {
            Computed::Ring(context) => context.update(bytes),
            Computed::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// Whether the bytes are what the client said.
    pub(super) fn fits(self) -> bool {
        match self.computed {
            Computed::Ring(context) => context.finish().as_ref().ct_eq(&self.expected).into(),
            Computed::Blake3(hasher) => hasher.finalize().as_bytes()[..].ct_eq(&self.expected).into(),
        }
    }
}

/// A header that is a whole number, where it is there.
pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Error> {
    let what = match name.as_str() {
        "upload-offset" => "Upload-Offset",
        _ => "Upload-Length",
    };
    let Some(text) = text(headers, name, what)? else {
        return Ok(None);
    };
    // A sign is not for numbers of bytes, though the parser takes one.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::malformed(what, "is a number of bytes"));
    }
    text.parse()
        .map(Some)
        .map_err(|error| Error::malformed(what, error))
}

/// Whether the length comes later.
pub(super) fn defers_length(headers: &HeaderMap) -> Result<bool, Error> {
    match text(headers, &UPLOAD_DEFER_LENGTH, "Upload-Defer-Length")? {
        None => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(Error::malformed("Upload-Defer-Length", "is 1")),
    }
}

/// The metadata as it came: pairs of a key and base64, separated by commas.
pub(super) fn metadata(headers: &HeaderMap) -> Result<String, Error> {
    let wrong = || {
        Error::malformed(
            "Upload-Metadata",
            "is pairs of a key and base64, separated by commas, each key once",
        )
    };
    let Some(text) = text(headers, &UPLOAD_METADATA, "Upload-Metadata")? else {
        return Ok(String::new());
    };
    let mut keys = Vec::new();
    for pair in text.split(',').map(str::trim) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        if key.is_empty() || keys.contains(&key) || BASE64.decode(value.as_bytes()).is_err() {
            return Err(wrong());
        }
        keys.push(key);
    }
    Ok(text.to_owned())
}

/// What `Upload-Concat` says, where it is there.
pub(super) fn concat(headers: &HeaderMap) -> Result<Option<Concat>, Error> {
    let wrong = || {
        Error::malformed(
            "Upload-Concat",
            "is partial, or final; and the paths of the parts",
        )
    };
    match text(headers, &UPLOAD_CONCAT, "Upload-Concat")? {
        None => Ok(None),
        Some("partial") => Ok(Some(Concat::Partial)),
        Some(text) => {
            let urls = text.strip_prefix("final;").ok_or_else(wrong)?;
            let parts = urls
                .split(' ')
                .filter(|url| !url.is_empty())
                .map(|url| part_of(url).ok_or_else(wrong));
            Ok(Some(Concat::Final(parts.collect::<Result<_, _>>()?)))
        }
    }
}

/// How `Upload-Concat` names these parts.
pub(super) fn final_of(parts: &[UploadId]) -> String {
    let paths: Vec<String> = parts.iter().map(|id| format!("/uploads/{id}")).collect();
    format!("final;{}", paths.join(" "))
}

/// The upload of a path, or of a URL of this node: only the path counts.
fn part_of(url: &str) -> Option<UploadId> {
    let path = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url,
    };
    path.strip_prefix("/uploads/")?.parse().ok()
}

/// The checksum of the piece, where the client sent one.
pub(super) fn checksum(headers: &HeaderMap) -> Result<Option<PieceChecksum>, Error> {
    const NAME: HeaderName = HeaderName::from_static("upload-checksum");
    let wrong = || {
        Error::malformed(
            "Upload-Checksum",
            "is sha1, sha256 or blake3, a space, and base64",
        )
    };
    let Some(text) = text(headers, &NAME, "Upload-Checksum")? else {
        return Ok(None);
    };
    let (algorithm, value) = text.split_once(' ').ok_or_else(wrong)?;
    let expected = BASE64.decode(value.trim().as_bytes()).map_err(|_| wrong())?;
    let computed = match algorithm {
        "sha1" => Computed::Ring(Box::new(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY))),
        "sha256" => Computed::Ring(Box::new(digest::Context::new(&digest::SHA256))),
        "blake3" => Computed::Blake3(Box::default()),
        _ => return Err(wrong()),
    };
    Ok(Some(PieceChecksum { expected, computed }))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName, what: &'static str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(|text| Some(text.trim()))
            .map_err(|error| Error::malformed(what, error)),
        (Some(_), Some(_)) => Err(Error::malformed(what, "is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn metadata_is_pairs_of_key_and_base64() {
        for (text, is_fine) in [
            ("filename d29ybGQ=,is_confidential", true),
            ("filename", true),
            ("filename d29ybGQ=,filename d29ybGQ=", false),
            ("filename !", false),
            (" ,", false),
        ] {
            assert_eq!(metadata(&with(UPLOAD_METADATA, text)).is_ok(), is_fine, "{text}");
        }
    }

    #[test]
    fn parts_are_named_by_path_or_address() {
        let id = "00112233445566778899aabbccddeeff";
        let value = format!("final;/uploads/{id} https://node.example:8443/uploads/{id}");
        let Ok(Some(Concat::Final(parts))) = concat(&with(UPLOAD_CONCAT, &value)) else {
            panic!("two parts");
        };
        assert_eq!(parts.len(), 2);
        for wrong in [
            "final;/other/x",
            "final;https://node.example",
            "other",
            "final;/uploads/..",
        ] {
            assert!(concat(&with(UPLOAD_CONCAT, wrong)).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[ -~]{0,64}") {
            for name in [UPLOAD_CONCAT, UPLOAD_METADATA, UPLOAD_DEFER_LENGTH] {
                let headers = with(name, &text);
                let _ = (concat(&headers).is_ok(), metadata(&headers).is_ok(), defers_length(&headers).is_ok());
            }
            let _ = checksum(&with(HeaderName::from_static("upload-checksum"), &text)).is_ok();
        }
    }
}
