//! The processes that do for the node what needs the system's administrator: one command, then they end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, anyhow};
use nix::unistd::User;

use crate::board::{self, HelperOptions, Profile, UpdaterStep};

/// Answers the command that comes over standard input, which the service manager made the connection, for the node that
/// runs as `user` on this `board`.
///
/// # Errors
/// Where nothing was answered: who asks may not, or asks for nothing there is.
pub fn help(board: &Path, user: &str) -> anyhow::Result<()> {
    let profile = Profile::read(board)?;
    let user = User::from_name(user)?.ok_or_else(|| anyhow!("there is no user {user}"))?;
    let options = HelperOptions::new(user.uid.as_raw(), user.gid.as_raw(), profile.storage.disk);
    let connection = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("standard input")?;
    Ok(board::help(connection_of(connection), &options)?)
}

/// Answers the command about updates that comes over standard input, for the node that runs as `user`.
///
/// # Errors
/// Where nothing was answered: who asks may not, or asks for nothing there is.
pub fn answer_about_updates(user: &str) -> anyhow::Result<()> {
    let user = User::from_name(user)?.ok_or_else(|| anyhow!("there is no user {user}"))?;
    let connection = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("standard input")?;
    Ok(board::answer_about_updates(
        connection_of(connection),
        user.uid.as_raw(),
    )?)
}

/// Does what a start of the box needs for updates.
///
/// # Errors
/// What keeps it from being done, or that the system that runs was given up.
pub fn step_of_update(step: UpdaterStep) -> anyhow::Result<()> {
    Ok(board::step_of_update(step)?)
}

/// What is no connection fails where it is asked who is at its other end.
fn connection_of(descriptor: OwnedFd) -> UnixStream {
    UnixStream::from(descriptor)
}
