//! `refuge snapshots`: the refs, and the history of one.

use serde::Serialize;

use super::Session;
use super::exit::Exit;
use super::output::{bytes, time};
use super::place::PlaceArgs;
use super::progress::short;
use crate::files::{self, RefRecord, Snapshot};
use crate::id::RefName;

/// List the snapshots of a ref, or all refs
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  refuge snapshots photos --data ~/refuge\n  refuge snapshots --data ~/refuge"
)]
pub(super) struct Args {
    /// The ref; all refs where this is left out
    #[arg(value_name = "NAME")]
    name: Option<RefName>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a RefName,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let place = args.place.open(session, false)?;
    let refs = &place.repository.refs;
    match args.name {
        Some(name) => {
            let record = refs.get(&name)?.ok_or(files::Error::NoRef { name })?;
            history(&record, session)?;
        }
        None => overview(&refs.list()?, session)?,
    }
    Ok(Exit::Done)
}

/// Newest first, with what each is called by.
fn history(record: &RefRecord, session: &mut Session) -> anyhow::Result<()> {
    let newest_first = record.snapshots.iter().rev();
    if session.output.is_json() {
        for snapshot in newest_first {
            let line = Line {
                name: &record.name,
                snapshot,
            };
            session.output.result(&line, String::new)?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = newest_first
        .enumerate()
        .map(|(back, snapshot)| {
            let number = if back == 0 {
                "latest".to_owned()
            } else {
                format!("-{back}")
            };
            let mut row = vec![number];
            row.extend(columns(snapshot));
            row
        })
        .collect();
    let headings = ["SNAPSHOT", "TREE", "TIME", "HOST", "FILES", "SIZE", "FOLDER"];
    Ok(session.output.table(&headings, &rows)?)
}

fn overview(records: &[RefRecord], session: &mut Session) -> anyhow::Result<()> {
    if session.output.is_json() {
        for record in records {
            if let Some(snapshot) = record.latest() {
                let line = Line {
                    name: &record.name,
                    snapshot,
                };
                session.output.result(&line, String::new)?;
            }
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            let mut row = vec![record.name.to_string(), record.snapshots.len().to_string()];
            row.extend(record.latest().into_iter().flat_map(columns));
            row
        })
        .collect();
    let headings = [
        "REF",
        "SNAPSHOTS",
        "LATEST",
        "TIME",
        "HOST",
        "FILES",
        "SIZE",
        "FOLDER",
    ];
    Ok(session.output.table(&headings, &rows)?)
}

fn columns(snapshot: &Snapshot) -> [String; 6] {
    let partial = if snapshot.partial { " (partial)" } else { "" };
    [
        short(&snapshot.tree),
        time(snapshot.time_ms / 1000),
        snapshot.host.clone(),
        snapshot.files.to_string(),
        bytes(snapshot.bytes),
        format!("{}{partial}", snapshot.source.escape_debug()),
    ]
}
