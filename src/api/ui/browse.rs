//! The page that looks into a snapshot: folders, files to download, other snapshots of the same ref.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Notice, Place, framed};
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::stamp;
use crate::api::tree::{Spot, kind_name};
use crate::id::{RefName, StoreName};
use crate::node::{Entry, EntryKind, EntryName, RefRecord};

/// Entries of one page: more make a page that a phone scrolls badly.
const PAGE_ENTRIES: usize = 500;

/// Snapshots offered to choose from, newest first.
const SNAPSHOTS_SHOWN: usize = 200;

/// What a query value keeps as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The page of a folder.
pub(in crate::api) async fn browse(call: Call) -> Result<Response, Error> {
    let query = call.query()?;
    let name: RefName = query.required("ref")?.parse()?;
    let spot = Spot::of(&call, name.clone()).await?;
    let record = call.node().stores().refs(&spot.store)?.get(name).await?;
    let after = match query.field("after_hex") {
        Some(hex) => Some(entry_name(hex)?),
        None => None,
    };
    let folder = spot.folder().await?;
    let mut entries = spot.blobs.folder(folder, after, PAGE_ENTRIES + 1).await?;
    let has_more = entries.len() > PAGE_ENTRIES;
    entries.truncate(PAGE_ENTRIES);
    let page = page(&call, &spot, &record, &entries, has_more);
    Ok(answer::page(StatusCode::OK, page))
}

fn entry_name(hex: &str) -> Result<EntryName, Error> {
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(hex.as_bytes())
        .ok()
        .and_then(EntryName::new)
        .ok_or_else(|| Error::malformed("after_hex", "is the hex digits of a name"))
}

/// The address of a folder's page.
pub(super) fn link(store: &StoreName, name: &str, selector: &str, path: &[u8]) -> String {
    format!("/browse?ref={}&{}", encoded(name), place(store, selector, path))
}

/// The address of what the API gives of a place: `file` or `zip`.
fn download(spot: &Spot, what: &str, path: &[u8]) -> String {
    let place = place(&spot.store, &spot.selector, path);
    format!("/api/refs/{}/{what}?{place}", encoded(spot.name.as_str()))
}

fn place(store: &StoreName, selector: &str, path: &[u8]) -> String {
    let path = match std::str::from_utf8(path) {
        Ok(path) => format!("path={}", encoded(path)),
        Err(_) => format!("path_hex={}", data_encoding::HEXLOWER.encode(path)),
    };
    format!("store={store}&snapshot={}&{path}", encoded(selector))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

fn page(call: &Call, spot: &Spot, record: &RefRecord, entries: &[Entry], has_more: bool) -> Markup {
    let content = html! {
        section.card aria-labelledby="folder" {
            div.row.between {
                h1 #folder { (spot.file_name()) }
                a.button href=(download(spot, "zip", &spot.path)) { "Download as ZIP" }
            }
            @if !spot.path.is_empty() { (crumbs(spot)) }
            (snapshots(spot, record))
            @if entries.is_empty() {
                p.quiet { "This folder is empty." }
            } @else {
                (listing(spot, entries))
            }
            @if let Some(last) = entries.last().filter(|_| has_more) {
                p { a href=(next_page(spot, last)) { "More of this folder" } }
            }
        }
    };
    framed(
        call,
        Place::Elsewhere,
        &spot.file_name(),
        &Notice::Nothing,
        &content,
    )
}

fn next_page(spot: &Spot, last: &Entry) -> String {
    let here = link(&spot.store, spot.name.as_str(), &spot.selector, &spot.path);
    format!(
        "{here}&after_hex={}",
        data_encoding::HEXLOWER.encode(last.name.as_bytes())
    )
}

fn crumbs(spot: &Spot) -> Markup {
    let parts: Vec<&[u8]> = spot
        .path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    let to = |path: &[u8]| link(&spot.store, spot.name.as_str(), &spot.selector, path);
    html! {
        nav aria-label="Path" {
            ol.crumbs {
                li { a href=(to(b"")) { (spot.name) } }
                @for (at, part) in parts.iter().enumerate() {
                    li {
                        @if at + 1 == parts.len() {
                            span aria-current="location" { (String::from_utf8_lossy(part)) }
                        } @else {
                            a href=(to(&parts[..=at].join(&b'/'))) { (String::from_utf8_lossy(part)) }
                        }
                    }
                }
            }
        }
    }
}

/// The other snapshots, as a form that works without a script.
fn snapshots(spot: &Spot, record: &RefRecord) -> Markup {
    let path = String::from_utf8(spot.path.clone()).ok();
    html! {
        form.row.choice method="get" action="/browse" {
            input type="hidden" name="ref" value=(spot.name);
            input type="hidden" name="store" value=(spot.store);
            @if let Some(path) = path { input type="hidden" name="path" value=(path); }
            div {
                label.small for="snapshot" { "Snapshot (UTC)" }
                select #snapshot name="snapshot" {
                    @for snapshot in record.snapshots.iter().rev().take(SNAPSHOTS_SHOWN) {
                        option value=(snapshot.tree) selected[snapshot.tree == spot.snapshot.tree] {
                            (stamp::seconds_for_people(snapshot.time_ms / 1000)) " from " (snapshot.host)
                            ", " (snapshot.files) " files"
                        }
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

fn listing(spot: &Spot, entries: &[Entry]) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Name" }
                th.number scope="col" { "Size" }
                th.optional scope="col" { "Changed (UTC)" }
            } }
            tbody {
                @for entry in entries {
                    tr.folder[matches!(entry.kind, EntryKind::Folder { .. })] {
                        td { (name(spot, entry)) }
                        td.number {
                            @if let EntryKind::File { size, .. } = &entry.kind { (stamp::size(*size)) }
                            @else { span.quiet { (kind_name(&entry.kind)) } }
                        }
                        td.optional { (stamp::seconds_for_people(entry.meta.mtime.0)) }
                    }
                }
            }
        }
    }
}

fn name(spot: &Spot, entry: &Entry) -> Markup {
    let mut path = spot.path.clone();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(entry.name.as_bytes());
    let name = entry.name.to_string();
    html! {
        @match &entry.kind {
            EntryKind::Folder { .. } => {
                a href=(link(&spot.store, spot.name.as_str(), &spot.selector, &path)) { (name) }
            }
            EntryKind::File { .. } => a href=(download(spot, "file", &path)) download { (name) },
            EntryKind::Link { target } => {
                (name) span.quiet { " → " (String::from_utf8_lossy(target)) }
            }
            EntryKind::Fifo | EntryKind::Char(_) | EntryKind::Block(_) => (name),
        }
    }
}
