//! `refuge completions` and `refuge man`: what shells and `man` know of the command line.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::exit::{EXIT_CODES, Exit, Failure};
use super::{Cli, Session};

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge completions bash > ~/.local/share/bash-completion/completions/refuge")]
pub(super) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the manual pages into a folder
#[derive(clap::Args)]
#[command(after_help = "Example:\n  refuge man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// The folder; made where it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn completions(args: CompletionsArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "refuge", &mut script);
    session.output.raw(&script)?;
    Ok(Exit::Done)
}

pub(super) fn man(args: ManArgs, _session: &mut Session) -> anyhow::Result<Exit> {
    let located =
        |error: std::io::Error| Failure::new(Exit::Failed, format!("{}: {error}", args.folder.display()));
    std::fs::create_dir_all(&args.folder).map_err(located)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &args.folder).map_err(located)?;
    Ok(Exit::Done)
}

/// A page for a command and for each below it, with the exit codes on each.
fn pages(command: &Command, folder: &Path) -> std::io::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    // The page of the whole has them at its end already.
    if command.get_name() != "refuge" {
        text.extend_from_slice(format!(".SH \"EXIT STATUS\"\n.nf\n{EXIT_CODES}\n.fi\n").as_bytes());
    }
    std::fs::write(folder.join(page.get_filename()), text)?;
    for below in command.get_subcommands() {
        pages(below, folder)?;
    }
    Ok(())
}
