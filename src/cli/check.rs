//! `refuge check`: whether what is stored is what it must be.

use serde::{Deserialize, Serialize};

use super::Session;
use super::exit::Exit;
use super::output::{bytes, note};
use super::place::PlaceArgs;
use super::progress::Counter;
use crate::app::Held;
use crate::http::{Method, Patience, Request};
use crate::id::BlobId;
use crate::node::{CheckOptions, CheckReport};

/// Check a store: that everything is there and, with --read-data, undamaged
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge check --read-data --data ~/refuge

With --repair, damaged blobs are set aside (never deleted) so that they can be put again, and what can be
rebuilt is. Exit code 4 says that something was found.")]
pub(super) struct Args {
    /// Read every blob and compare it with its id
    #[arg(long)]
    read_data: bool,
    /// Set damaged blobs aside and rebuild what can be rebuilt
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// What a node is asked.
#[derive(Serialize)]
struct Asked {
    read_data: bool,
    repair: bool,
}

/// What a node answers.
#[derive(Deserialize)]
struct Checked {
    blobs: u64,
    bytes_read: u64,
    damaged: Vec<BlobId>,
    missing: Vec<BlobId>,
    quarantined: Vec<BlobId>,
    notes: Vec<String>,
}

impl From<Checked> for CheckReport {
    fn from(checked: Checked) -> CheckReport {
        CheckReport {
            blobs: checked.blobs,
            bytes_read: checked.bytes_read,
            damaged: checked.damaged,
            missing: checked.missing,
            quarantined: checked.quarantined,
            notes: checked.notes,
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    healthy: bool,
    blobs: u64,
    bytes_read: u64,
    damaged: &'a [BlobId],
    missing: &'a [BlobId],
    quarantined: &'a [BlobId],
    notes: &'a [String],
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let options = CheckOptions {
        read_data: args.read_data,
        repair: args.repair,
    };
    let counter = Counter::new("blobs checked");
    let backend = place.store.backend();
    let report = match &place.held {
        Held::Folder(_) => backend.check(options, &|blobs| counter.set(blobs))?,
        Held::Node(client) => {
            let path = format!("/stores/{}/check", args.place.store);
            let request = Request::new(Method::POST, path).patience(Patience::Long);
            let checked: Checked = client.json(request.json(&Asked {
                read_data: args.read_data,
                repair: args.repair,
            }))?;
            checked.into()
        }
    };
    counter.end();
    let healthy = report.damaged.is_empty() && report.missing.is_empty() && report.notes.is_empty();
    let line = Line {
        healthy,
        blobs: report.blobs,
        bytes_read: report.bytes_read,
        damaged: &report.damaged,
        missing: &report.missing,
        quarantined: &report.quarantined,
        notes: &report.notes,
    };
    session
        .output
        .result(&line, || summary(&report, healthy, args.read_data))?;
    if !healthy && !args.repair {
        note(
            "refuge: run `refuge check --read-data --repair` to set damaged blobs aside, then back up again",
        );
    }
    Ok(if healthy { Exit::Done } else { Exit::Damaged })
}

fn summary(report: &CheckReport, healthy: bool, read_data: bool) -> String {
    let mut text = format!("{} blobs checked", report.blobs);
    if read_data {
        text.push_str(&format!(", {} read", bytes(report.bytes_read)));
    }
    text.push_str(if healthy { ": all is well" } else { "" });
    for id in &report.damaged {
        let fate = if report.quarantined.contains(id) {
            ", set aside"
        } else {
            ""
        };
        text.push_str(&format!("\ndamaged  {id}{fate}"));
    }
    for id in &report.missing {
        text.push_str(&format!("\nmissing  {id}"));
    }
    for found in &report.notes {
        text.push_str(&format!("\nfound    {found}"));
    }
    text
}
