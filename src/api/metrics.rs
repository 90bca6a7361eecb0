//! `GET /metrics`: numbers in the text format that Prometheus reads (version 0.0.4).

use std::fmt::Write;

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::answer;
use super::error::Error;
use super::route::Call;
use crate::node::StoreInfo;

/// A number of each store.
struct Gauge {
    name: &'static str,
    what: &'static str,
    of: fn(&StoreInfo) -> Option<u64>,
}

const GAUGES: [Gauge; 7] = [
    Gauge {
        name: "refuge_store_blobs",
        what: "Blobs stored.",
        of: |info| Some(info.status.blobs),
    },
    Gauge {
        name: "refuge_store_plain_bytes",
        what: "Bytes of the blobs, as they were put.",
        of: |info| Some(info.status.plain_bytes),
    },
    Gauge {
        name: "refuge_store_stored_bytes",
        what: "Bytes on the disk.",
        of: |info| Some(info.status.stored_bytes),
    },
    Gauge {
        name: "refuge_store_dead_bytes",
        what: "Bytes on the disk that compaction can free.",
        of: |info| Some(info.status.dead_bytes),
    },
    Gauge {
        name: "refuge_store_free_bytes",
        what: "Bytes free on the disk.",
        of: |info| info.status.free_bytes,
    },
    Gauge {
        name: "refuge_store_read_only",
        what: "Whether writes are refused since one failed.",
        of: |info| Some(u64::from(info.status.read_only.is_some())),
    },
    Gauge {
        name: "refuge_store_quarantined_blobs",
        what: "Damaged blobs that were set aside.",
        of: |info| Some(info.status.quarantined),
    },
];

/// The numbers.
pub(super) async fn metrics(call: Call) -> Result<Response, Error> {
    let node = call.node();
    let hashed = node.accounts().passwords_hashed();
    let text = written(&node.stores().list(), node.claim().is_claimed(), hashed);
    Ok(answer::text(
        StatusCode::OK,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        text,
    ))
}

fn written(stores: &[StoreInfo], is_claimed: bool, hashed: u64) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("a string takes what it is given");
        text.push('\n');
    };
    line(format_args!("# HELP refuge_build_info The version that runs."));
    line(format_args!("# TYPE refuge_build_info gauge"));
    line(format_args!(
        "refuge_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    ));
    line(format_args!(
        "# HELP refuge_claimed Whether the node has an owner."
    ));
    line(format_args!("# TYPE refuge_claimed gauge"));
    line(format_args!("refuge_claimed {}", u8::from(is_claimed)));
    line(format_args!(
        "# HELP refuge_password_hashes_total Passwords that were hashed: set, right or guessed."
    ));
    line(format_args!("# TYPE refuge_password_hashes_total counter"));
    line(format_args!("refuge_password_hashes_total {hashed}"));
    for gauge in GAUGES {
        line(format_args!("# HELP {} {}", gauge.name, gauge.what));
        line(format_args!("# TYPE {} gauge", gauge.name));
        for info in stores {
            if let Some(value) = (gauge.of)(info) {
                // A store's name has no character that a label would have to escape.
                line(format_args!("{}{{store=\"{}\"}} {value}", gauge.name, info.name));
            }
        }
    }
    text
}
