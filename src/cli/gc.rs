//! `refuge gc`: frees what nothing names any more.

use serde::Serialize;

use super::Session;
use super::exit::Exit;
use super::output::{bytes, note};
use super::place::PlaceArgs;
use super::progress::Counter;
use crate::app::Held;
use crate::http::{Method, Patience, Request};
use crate::id::{BlobId, StoreName};
use crate::node::Collected;

/// Free parts that nothing has named for a day, and compact the stores
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge prune photos --keep-last 3 --data ~/refuge
  refuge gc --data ~/refuge

A running node does this by itself every few hours. What a client put by itself is never collected.")]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize, serde::Deserialize)]
struct Line {
    store: StoreName,
    named: u64,
    waiting: u64,
    freed: u64,
    freed_bytes: u64,
    compacted_bytes: u64,
    #[serde(default)]
    unreadable: Vec<BlobId>,
}

#[derive(serde::Deserialize)]
struct Answer {
    stores: Vec<Line>,
}

impl From<Collected> for Line {
    fn from(collected: Collected) -> Line {
        Line {
            store: collected.store,
            named: collected.named,
            waiting: collected.waiting,
            freed: collected.freed,
            freed_bytes: collected.freed_bytes,
            compacted_bytes: collected.compaction.freed_bytes,
            unreadable: collected.unreadable,
        }
    }
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let counter = Counter::new("collecting");
    let collected = match place.held {
        Held::Folder(node) => {
            let collected = session.runtime.block_on(node.gc().run(|| false));
            collected.map(|stores| stores.into_iter().map(Line::from).collect())?
        }
        Held::Node(client) => {
            let request = Request::new(Method::POST, "/api/gc").patience(Patience::Long);
            let answer: Answer = client.json(request)?;
            answer.stores
        }
    };
    counter.end();
    let mut exit = Exit::Done;
    for line in &collected {
        session.output.result(line, || {
            format!(
                "{}: {} blobs named, {} freed ({}), {} waiting a day, {} given back to the disk",
                line.store,
                line.named,
                line.freed,
                bytes(line.freed_bytes),
                line.waiting,
                bytes(line.compacted_bytes),
            )
        })?;
        for id in &line.unreadable {
            note(&format!(
                "refuge: {id} is named and cannot be read: nothing was freed in {}",
                line.store
            ));
            exit = Exit::Damaged;
        }
    }
    Ok(exit)
}
