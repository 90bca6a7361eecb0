//! `refuge restore`: brings a snapshot back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Session;
use super::exit::Exit;
use super::output::{bytes, note};
use super::place::PlaceArgs;
use super::problems::{self, ProblemLine};
use super::progress::{Watch, duration};
use super::spec::{SNAPSHOT_HELP, Spec};
use crate::files::{Overwrite, Progress, RestoreOptions, restore};
use crate::id::BlobId;

/// Restore a snapshot, or a path in it, into a folder
#[derive(clap::Args)]
#[command(after_help = format!("\
Example:
  refuge restore photos /tmp/photos --data ~/refuge
  refuge restore photos@-1:2026/summer /tmp/summer --data ~/refuge

{SNAPSHOT_HELP}

Nothing is overwritten unless you say so, and nothing is written outside of TARGET. Exit code 5 says that
something could not be restored, or not as it was."))]
pub(super) struct Args {
    /// The ref, which of its snapshots, and what in it
    #[arg(value_name = "NAME[@SNAPSHOT][:PATH]")]
    what: OsString,
    /// The folder to restore into; made where it is not there
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// Go on with a restore that was interrupted: what is there already is left as it is
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace files and links that are in the way
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line {
    tree: BlobId,
    folders: u64,
    files: u64,
    bytes: u64,
    duration_ms: u64,
    problems: Vec<ProblemLine>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let spec = Spec::parse(&args.what)?;
    let place = args.place.open(session, false)?;
    let (_, snapshot) = spec.find(&*place.repository.refs)?;
    let options = RestoreOptions {
        path: spec.path,
        overwrite: match (args.resume, args.overwrite) {
            (true, _) => Overwrite::Resume,
            (false, true) => Overwrite::Replace,
            (false, false) => Overwrite::Refuse,
        },
        ..RestoreOptions::default()
    };
    let progress = Arc::new(Progress::new());
    let watch = Watch::start(&progress, session);
    let begun = Instant::now();
    let done = restore(&place.store, &snapshot, &args.target, &options, &progress);
    watch.end();
    let report = done?;
    let counts = report.counts;
    let line = Line {
        tree: snapshot.tree,
        folders: counts.folders,
        files: counts.files,
        bytes: counts.bytes,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        problems: problems::lines(&report.problems),
    };
    problems::tell(&line.problems, counts.problems);
    session.output.result(&line, || {
        format!(
            "{} files, {} restored into {} in {}",
            counts.files,
            bytes(counts.bytes),
            args.target.display(),
            duration(begun.elapsed()),
        )
    })?;
    if report.problems.iter().any(|problem| problem.what.is_loss()) {
        note("refuge: not everything is as it was: see above");
        return Ok(Exit::Partial);
    }
    Ok(Exit::Done)
}
