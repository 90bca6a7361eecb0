//! The command line: one file per subcommand, no domain logic.

mod backup;
mod blobs;
mod board;
mod channel;
mod check;
mod claim;
mod db;
mod diff;
mod discover;
mod exit;
mod gc;
mod host;
mod id;
mod known;
mod login;
mod manual;
mod output;
mod place;
mod problems;
mod progress;
mod prune;
mod restore;
mod serve;
mod snapshots;
mod spec;
mod store;
mod token;
mod update;
mod verify;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tracing::level_filters::LevelFilter;

use self::exit::{EXIT_CODES, Exit, exit_of};
use self::output::Output;
use crate::app;

const ABOUT: &str = "Stores, syncs and shares your own data, without a company in between";

const EXAMPLE: &str = "\
Example:
  refuge serve --data ~/refuge
  refuge backup ~/Photos --ref photos --data ~/refuge-local
  refuge restore photos /tmp/photos --data ~/refuge-local";

#[derive(Parser)]
#[command(name = "refuge", version, about = ABOUT, after_help = format!("{EXAMPLE}\n\n{EXIT_CODES}"), max_term_width = 100)]
struct Cli {
    /// Print one JSON object a line, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    #[command(flatten)]
    Work(Work),
}

/// Everything that is done when it returns.
#[derive(Subcommand)]
enum Work {
    Put(blobs::PutArgs),
    Get(blobs::GetArgs),
    Stat(blobs::StatArgs),
    Ls(blobs::LsArgs),
    Rm(blobs::RmArgs),
    Backup(backup::Args),
    Restore(restore::Args),
    Snapshots(snapshots::Args),
    Diff(diff::Args),
    Verify(verify::Args),
    Prune(prune::Args),
    Check(check::Args),
    Board(board::Args),
    Gc(gc::Args),
    Discover(discover::Args),
    Id(id::Args),
    Claim(claim::Args),
    Login(login::Args),
    Store(store::Args),
    Db(db::Args),
    Token(token::Args),
    Update(update::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// What every command works with.
struct Session {
    runtime: Runtime,
    output: Output,
}

/// Parses the arguments of this process, does what they say and returns its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Some(lacking) = app::lacking_instructions() {
        eprintln!("refuge: this processor lacks {lacking}");
        return Exit::Failed.into();
    }
    let ended = match cli.command {
        Command::Serve(args) => serve::run(args, cli.json),
        Command::Work(work) => begin(work, cli.json),
    };
    match ended {
        Ok(exit) => exit.into(),
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            eprintln!("refuge: {error}");
            exit_of(&error).into()
        }
    }
}

fn begin(work: Work, is_json: bool) -> anyhow::Result<Exit> {
    app::log(LevelFilter::WARN);
    app::harden();
    let mut session = Session {
        runtime: app::runtime()?,
        output: Output::new(is_json),
    };
    let exit = perform(work, &mut session)?;
    session.output.flush()?;
    Ok(exit)
}

fn perform(work: Work, session: &mut Session) -> anyhow::Result<Exit> {
    match work {
        Work::Put(args) => blobs::put(args, session),
        Work::Get(args) => blobs::get(args, session),
        Work::Stat(args) => blobs::stat(args, session),
        Work::Ls(args) => blobs::ls(args, session),
        Work::Rm(args) => blobs::rm(args, session),
        Work::Backup(args) => backup::run(args, session),
        Work::Restore(args) => restore::run(args, session),
        Work::Snapshots(args) => snapshots::run(args, session),
        Work::Diff(args) => diff::run(args, session),
        Work::Verify(args) => verify::run(args, session),
        Work::Prune(args) => prune::run(args, session),
        Work::Check(args) => check::run(args, session),
        Work::Board(args) => board::run(args, session),
        Work::Gc(args) => gc::run(args, session),
        Work::Discover(args) => discover::run(args, session),
        Work::Id(args) => id::run(args, session),
        Work::Claim(args) => claim::run(args, session),
        Work::Login(args) => login::run(args, session),
        Work::Store(args) => store::run(args, session),
        Work::Db(args) => db::run(args, session),
        Work::Token(args) => token::run(args, session),
        Work::Update(args) => update::run(args, session),
        Work::Completions(args) => manual::completions(args, session),
        Work::Man(args) => manual::man(args, session),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
