//! The few files of the pages: one style, one script, one picture. Part of the binary.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::answer;
use super::error::Error;
use super::range;
use super::route::Call;

struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "style.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("assets/style.css"),
    },
    Asset {
        name: "page.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("assets/page.js"),
    },
    Asset {
        name: "icon.svg",
        media_type: "image/svg+xml",
        bytes: include_bytes!("assets/icon.svg"),
    },
];

/// A file of the pages. Browsers ask again each time, so that a new version shows at once.
pub(super) async fn asset(call: Call) -> Result<Response, Error> {
    let asset = ASSETS
        .iter()
        .find(|asset| asset.name == call.param("name"))
        .ok_or(Error::NoRoute)?;
    let etag = format!("\"{}\"", &blake3::hash(asset.bytes).to_hex()[..16]);
    let mut response = if range::has_already(call.headers(), &etag) {
        answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        answer::text(
            StatusCode::OK,
            HeaderValue::from_static(asset.media_type),
            asset.bytes,
        )
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}
