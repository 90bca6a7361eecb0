//! `refuge diff`: what is different between two snapshots.

use std::ffi::OsString;

use serde::Serialize;

use super::Session;
use super::exit::{Exit, Failure};
use super::output::bytes;
use super::place::PlaceArgs;
use super::spec::{SNAPSHOT_HELP, Spec};
use crate::files::{self, Change, Difference, Entry, Kind, diff};
use crate::id::BlobId;

/// Show what is different between two snapshots
#[derive(clap::Args)]
#[command(after_help = format!("\
Example:
  refuge diff photos@-1 photos --data ~/refuge

{SNAPSHOT_HELP}

+ is only in the second, - only in the first, M has other content, m only another mode, owner or time."))]
pub(super) struct Args {
    /// The first snapshot
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    first: OsString,
    /// The second snapshot
    #[arg(value_name = "NAME[@SNAPSHOT]")]
    second: OsString,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line {
    path: String,
    /// `added`, `removed`, `content` or `meta`.
    change: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let (first, second) = (whole(&args.first)?, whole(&args.second)?);
    let place = args.place.open(session, false)?;
    let tree = |spec: &Spec| -> anyhow::Result<BlobId> { Ok(spec.find(&*place.repository.refs)?.1.tree) };
    let (first, second) = (tree(&first)?, tree(&second)?);
    let output = &mut session.output;
    let mut printed = Ok(());
    diff(&place.store, Some(&first), &second, &mut |difference| {
        let (mark, line) = describe(&difference);
        printed = output.result(&line, || text(mark, &line));
        // Whoever reads the output may have gone.
        printed.as_ref().map_err(|_| files::Error::Cancelled).copied()
    })
    .map_err(|error| match printed {
        Err(printed) => printed.into(),
        Ok(()) => anyhow::Error::from(error),
    })?;
    Ok(Exit::Done)
}

fn whole(text: &OsString) -> Result<Spec, Failure> {
    let spec = Spec::parse(text)?;
    match spec.path {
        Some(_) => Err(Failure::new(
            Exit::Usage,
            "snapshots are compared whole: leave out the path",
        )),
        None => Ok(spec),
    }
}

fn describe(difference: &Difference) -> (char, Line) {
    let (mark, change, entry) = match &difference.change {
        Change::Added(entry) => ('+', "added", entry),
        Change::Removed(entry) => ('-', "removed", entry),
        Change::Changed {
            after, content: true, ..
        } => ('M', "content", after),
        Change::Changed { after, .. } => ('m', "meta", after),
    };
    let line = Line {
        path: difference.path.to_string_lossy().into_owned(),
        change,
        kind: kind(entry),
        size: match entry.kind {
            Kind::File { size, .. } => Some(size),
            Kind::Folder { .. } | Kind::Link { .. } | Kind::Fifo | Kind::Char(_) | Kind::Block(_) => None,
        },
    };
    (mark, line)
}

fn text(mark: char, line: &Line) -> String {
    let slash = if line.kind == "folder" { "/" } else { "" };
    let size = line
        .size
        .map_or_else(String::new, |size| format!("  {}", bytes(size)));
    // A name may hold what a terminal would obey.
    format!("{mark} {}{slash}{size}", line.path.escape_debug())
}

fn kind(entry: &Entry) -> &'static str {
    match entry.kind {
        Kind::File { .. } => "file",
        Kind::Folder { .. } => "folder",
        Kind::Link { .. } => "link",
        Kind::Fifo => "pipe",
        Kind::Char(_) | Kind::Block(_) => "device",
    }
}
