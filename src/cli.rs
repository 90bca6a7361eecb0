//! The command line: one file per subcommand, no domain logic.

mod blobs;
mod check;
mod claim;
mod exit;
mod host;
mod id;
mod known;
mod manual;
mod output;
mod place;
mod progress;
mod store;
mod token;

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
    Put(blobs::PutArgs),
    Get(blobs::GetArgs),
    Stat(blobs::StatArgs),
    Ls(blobs::LsArgs),
    Rm(blobs::RmArgs),
    Check(check::Args),
    Id(id::Args),
    Claim(claim::Args),
    Store(store::Args),
    Token(token::Args),
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
    let hardened = app::harden();
    match begin(cli, hardened) {
        Ok(exit) => exit.into(),
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            eprintln!("refuge: {error}");
            exit_of(&error).into()
        }
    }
}

fn begin(cli: Cli, hardened: io::Result<()>) -> anyhow::Result<Exit> {
    app::log(LevelFilter::WARN);
    if let Err(error) = hardened {
        // A machine that can't hide its memory still keeps the data.
        tracing::warn!(%error, "other processes of this user may read the memory of this one");
    }
    let mut session = Session {
        runtime: app::runtime()?,
        output: Output::new(cli.json),
    };
    let exit = perform(cli.command, &mut session)?;
    session.output.flush()?;
    Ok(exit)
}

fn perform(command: Command, session: &mut Session) -> anyhow::Result<Exit> {
    match command {
        Command::Put(args) => blobs::put(args, session),
        Command::Get(args) => blobs::get(args, session),
        Command::Stat(args) => blobs::stat(args, session),
        Command::Ls(args) => blobs::ls(args, session),
        Command::Rm(args) => blobs::rm(args, session),
        Command::Check(args) => check::run(args, session),
        Command::Id(args) => id::run(args, session),
        Command::Claim(args) => claim::run(args, session),
        Command::Store(args) => store::run(args, session),
        Command::Token(args) => token::run(args, session),
        Command::Completions(args) => manual::completions(args, session),
        Command::Man(args) => manual::man(args, session),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
