//! `refuge backup`: puts a folder away, and adds a snapshot to a ref.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Session;
use super::exit::{Exit, Failure};
use super::output::{bytes, note};
use super::place::PlaceArgs;
use super::problems::{self, ProblemLine};
use super::progress::{self, Watch};
use crate::files::{BackupOptions, Progress, backup};
use crate::id::{BlobId, RefName};

/// Back a folder up: only what changed is read, only what is missing is stored
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge backup ~/Photos --ref photos --data ~/refuge
  refuge backup ~ --ref home --exclude '.cache/' --exclude '*.tmp' --node https://192.168.1.5:8443

Rules are gitignore's, relative to the folder; includes take back what an exclude left out. The data folder that
is backed up into is left out by itself. An interrupted backup goes on where it was when it is run again. Exit code 5 says that the snapshot is there, but some files
could not be read or changed while they were read.")]
pub(super) struct Args {
    /// The folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The ref that names its snapshots; made where it is not there
    #[arg(long = "ref", value_name = "NAME")]
    name: RefName,
    /// Leave out what this rule matches
    #[arg(long, value_name = "RULE")]
    exclude: Vec<String>,
    /// Take back in what this rule matches
    #[arg(long, value_name = "RULE")]
    include: Vec<String>,
    /// Rules to leave out, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Keep extended attributes, and with them access control lists
    #[arg(long)]
    xattrs: bool,
    /// Do not go into other file systems
    #[arg(long, short = 'x')]
    one_file_system: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a RefName,
    tree: BlobId,
    time_ms: i64,
    parent: Option<BlobId>,
    partial: bool,
    folders: u64,
    files: u64,
    unchanged: u64,
    bytes: u64,
    read_bytes: u64,
    stored_bytes: u64,
    duration_ms: u64,
    problems: Vec<ProblemLine>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let options = BackupOptions {
        rules: rules(&args)?,
        xattrs: args.xattrs,
        one_file_system: args.one_file_system,
        not_into: args.place.data.clone(),
        ..BackupOptions::default()
    };
    let place = args.place.open(session, true)?;
    let progress = Arc::new(Progress::new());
    let watch = Watch::start(&progress, session);
    let begun = Instant::now();
    let done = backup(&place.repository, &args.folder, &args.name, &options, &progress);
    watch.end();
    let report = done?;
    let duration = begun.elapsed();
    let partial = report.snapshot.partial;
    let counts = report.counts;
    let line = Line {
        name: &args.name,
        tree: report.snapshot.tree,
        time_ms: report.snapshot.time_ms,
        parent: report.parent,
        partial,
        folders: counts.folders,
        files: counts.files,
        unchanged: counts.unchanged,
        bytes: counts.bytes,
        read_bytes: counts.read_bytes,
        stored_bytes: counts.stored_bytes,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        problems: problems::lines(&report.problems),
    };
    problems::tell(&line.problems, counts.problems);
    session.output.result(&line, || {
        format!(
            "{}@{}  {} files, {} ({} unchanged); read {}, stored {} in {}",
            args.name,
            progress::short(&report.snapshot.tree),
            counts.files,
            bytes(counts.bytes),
            counts.unchanged,
            bytes(counts.read_bytes),
            bytes(counts.stored_bytes),
            progress::duration(duration),
        )
    })?;
    if partial {
        note("refuge: the snapshot is partial: see above what is missing, then back up again");
        return Ok(Exit::Partial);
    }
    Ok(Exit::Done)
}

/// Excludes of files, then of flags, then includes: the last rule that matches decides.
fn rules(args: &Args) -> Result<Vec<String>, Failure> {
    let mut rules = Vec::new();
    for path in &args.exclude_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(Exit::Usage, format!("--exclude-file {}: {error}", path.display()))
        })?;
        rules.extend(text.lines().map(str::to_owned));
    }
    rules.extend(args.exclude.iter().cloned());
    rules.extend(args.include.iter().map(|rule| format!("!{rule}")));
    Ok(rules)
}
