//! `refuge verify`: whether what a ref names can be restored.

use std::ffi::OsString;
use std::sync::Arc;

use serde::Serialize;

use super::Session;
use super::exit::{Exit, Failure};
use super::output::{bytes, note};
use super::place::PlaceArgs;
use super::progress::Watch;
use super::spec::{SNAPSHOT_HELP, Spec};
use crate::files::{Progress, verify};
use crate::id::BlobId;

/// Read everything that a ref names, and compare it with its id
#[derive(clap::Args)]
#[command(after_help = format!("\
Example:
  refuge verify photos --data ~/refuge
  refuge verify photos@latest --data ~/refuge

Without a snapshot all of them are verified. Exit code 4 says that something is missing or damaged; what names
it is listed.

{SNAPSHOT_HELP}"))]
pub(super) struct Args {
    /// The ref, and which of its snapshots
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    what: OsString,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    sound: bool,
    snapshots: usize,
    schemas: u64,
    parts: u64,
    bytes: u64,
    missing: &'a [BlobId],
    damaged: &'a [BlobId],
    paths: Vec<String>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let spec = Spec::parse(&args.what)?;
    if spec.path.is_some() {
        return Err(Failure::new(Exit::Usage, "snapshots are verified whole: leave out the path").into());
    }
    let place = args.place.open(session, false)?;
    let (record, chosen) = spec.find(&*place.repository.refs)?;
    let is_one = args.what.to_string_lossy().contains('@');
    let snapshots = if is_one { vec![chosen] } else { record.snapshots };
    let progress = Arc::new(Progress::new());
    let watch = Watch::start(&progress, session);
    let done = verify(&place.store, &snapshots, &progress);
    watch.end();
    let report = done?;
    let line = Line {
        sound: report.is_sound(),
        snapshots: snapshots.len(),
        schemas: report.schemas,
        parts: report.parts,
        bytes: report.bytes,
        missing: &report.missing,
        damaged: &report.damaged,
        paths: report
            .paths
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
    };
    session.output.result(&line, || summary(&line))?;
    if line.sound {
        return Ok(Exit::Done);
    }
    note("refuge: fetch what is listed from a peer, or back the folder up again while its files are there");
    Ok(Exit::Damaged)
}

fn summary(line: &Line<'_>) -> String {
    let mut text = format!(
        "{} snapshots, {} trees and commits, {} parts, {} read",
        line.snapshots,
        line.schemas,
        line.parts,
        bytes(line.bytes)
    );
    text.push_str(if line.sound { ": all is well" } else { "" });
    for id in line.missing {
        text.push_str(&format!("\nmissing  {id}"));
    }
    for id in line.damaged {
        text.push_str(&format!("\ndamaged  {id}"));
    }
    for path in &line.paths {
        // A name may hold what a terminal would obey.
        text.push_str(&format!("\nlost     {}", path.escape_debug()));
    }
    text
}
