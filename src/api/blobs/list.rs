//! `GET /blobs`: the ids of a store in ascending order, a page as JSON or all of them as lines.

use std::fmt::Write;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answer::{self, Source};
use crate::api::blobs::class_name;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::BlobId;
use crate::node::{Blobs, Class, LIST_PAGE_MAX, Stat};

/// Ids of a page where the client does not say.
const PAGE_DEFAULT: usize = 1000;

/// About what one line takes: the id, a length and their names.
const LINE_BYTES: usize = 112;

/// One page of a listing.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct PageBody {
    /// Blobs in ascending order of id.
    blobs: Vec<ItemBody>,
    /// Where the next page begins: give it as `after`. Not there on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    next: Option<BlobId>,
}

/// One blob of a listing.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ItemBody {
    /// Its id.
    #[schema(value_type = String)]
    id: BlobId,
    /// Its length in bytes.
    len: u64,
    /// `part` where something else keeps it alive; left out where a client put it by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
}

/// A page, or with `Accept: application/x-ndjson` everything as a stream of lines.
pub(in crate::api) async fn list(call: Call) -> Result<Response, Error> {
    let query = call.query()?;
    let after: Option<BlobId> = query.parsed("after")?;
    let limit: Option<u64> = query.parsed("limit")?;
    let blobs = call.blobs()?;
    if call
        .header("accept")
        .is_some_and(|accept| accept.contains("application/x-ndjson"))
    {
        return Ok(lines(blobs, after, limit));
    }
    page(blobs, after, limit).await
}

async fn page(blobs: Blobs, after: Option<BlobId>, limit: Option<u64>) -> Result<Response, Error> {
    let limit = limit.map_or(PAGE_DEFAULT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if limit == 0 || limit > LIST_PAGE_MAX {
        return Err(Error::malformed("limit", format!("is 1 to {LIST_PAGE_MAX}")));
    }
    let stats = blobs.list(after, limit).await?;
    let next = stats.last().filter(|_| stats.len() == limit).map(|stat| stat.id);
    let body = PageBody {
        blobs: stats
            .into_iter()
            .map(|stat| ItemBody {
                id: stat.id,
                len: stat.len,
                class: (stat.class == Class::Part).then(|| class_name(stat.class)),
            })
            .collect(),
        next,
    };
    Ok(answer::json(StatusCode::OK, &body))
}

fn lines(blobs: Blobs, after: Option<BlobId>, limit: Option<u64>) -> Response {
    let source = Lines {
        blobs,
        after,
        left: limit.unwrap_or(u64::MAX),
        ended: false,
    };
    let mut response = Response::new(answer::stream(source, None));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    response
}

struct Lines {
    blobs: Blobs,
    after: Option<BlobId>,
    left: u64,
    ended: bool,
}

impl Source for Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let limit = LIST_PAGE_MAX.min(usize::try_from(self.left).unwrap_or(LIST_PAGE_MAX));
        if self.ended || limit == 0 {
            return Ok(None);
        }
        let stats = self.blobs.list(self.after, limit).await?;
        self.ended = stats.len() < limit;
        self.left -= stats.len() as u64;
        let Some(last) = stats.last() else {
            return Ok(None);
        };
        self.after = Some(last.id);
        Ok(Some(write_lines(&stats)))
    }
}

fn write_lines(stats: &[Stat]) -> Bytes {
    let mut lines = String::with_capacity(stats.len() * LINE_BYTES);
    for stat in stats {
        lines.push_str("{\"id\":\"blake3;");
        data_encoding::HEXLOWER.encode_append(stat.id.as_bytes(), &mut lines);
        let class = match stat.class {
            Class::Part => ",\"class\":\"part\"",
            Class::Pinned => "",
        };
        writeln!(lines, "\",\"len\":{}{class}}}", stat.len).expect("a string takes what it is given");
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_json_document() {
        let id = BlobId::of(b"");
        let blob = |class| Stat { id, len: 7, class };
        let lines = write_lines(&[blob(Class::Part), blob(Class::Pinned)]);
        let expected =
            format!("{{\"id\":\"{id}\",\"len\":7,\"class\":\"part\"}}\n{{\"id\":\"{id}\",\"len\":7}}\n");
        assert_eq!(lines, expected.as_bytes());
    }
}
