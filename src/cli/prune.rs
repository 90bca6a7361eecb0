//! `refuge prune`: drops old snapshots of a ref.

use clap::ArgGroup;
use serde::Serialize;

use super::Session;
use super::exit::Exit;
use super::output::{note, time};
use super::place::PlaceArgs;
use super::progress::short;
use crate::files::{Keep, Snapshot, prune};
use crate::id::{BlobId, RefName};

/// Drop the snapshots of a ref that no rule keeps
#[derive(clap::Args)]
#[command(
    group = ArgGroup::new("keep").required(true).multiple(true),
    after_help = "\
Example:
  refuge prune photos --keep-last 3 --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --data ~/refuge

Each rule keeps by itself; of a day, week or month the newest snapshot is kept. Space is freed by `refuge gc`,
a day after nothing names it any more at the earliest."
)]
pub(super) struct Args {
    /// The ref
    #[arg(value_name = "NAME")]
    name: RefName,
    /// Keep so many of the newest
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        group = "keep",
        hide_default_value = true
    )]
    keep_last: usize,
    /// Keep one of each of so many days
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        group = "keep",
        hide_default_value = true
    )]
    keep_daily: usize,
    /// Keep one of each of so many weeks
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        group = "keep",
        hide_default_value = true
    )]
    keep_weekly: usize,
    /// Keep one of each of so many months
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        group = "keep",
        hide_default_value = true
    )]
    keep_monthly: usize,
    /// Keep one of each of so many years
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        group = "keep",
        hide_default_value = true
    )]
    keep_yearly: usize,
    /// Only say what would be dropped
    #[arg(long, short = 'n')]
    dry_run: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line {
    kept: bool,
    tree: BlobId,
    time_ms: i64,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let keep = Keep {
        last: args.keep_last,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: None,
    };
    let place = args.place.open(session, false)?;
    let report = prune(&place.repository, &args.name, keep, args.dry_run)?;
    let dropped = report.dropped.iter().map(|snapshot| (false, snapshot));
    let kept = report.kept.iter().map(|snapshot| (true, snapshot));
    for (kept, snapshot) in dropped.chain(kept) {
        let line = Line {
            kept,
            tree: snapshot.tree,
            time_ms: snapshot.time_ms,
        };
        session.output.result(&line, || text(kept, snapshot))?;
    }
    if args.dry_run {
        note("Nothing was changed: this was a dry run");
    }
    Ok(Exit::Done)
}

fn text(kept: bool, snapshot: &Snapshot) -> String {
    let fate = if kept { "kept   " } else { "dropped" };
    let (tree, time) = (short(&snapshot.tree), time(snapshot.time_ms / 1000));
    format!("{fate}  {tree}  {time}  {}", snapshot.source.escape_debug())
}
