//! Running a part of a test in a process of its own, which may die without taking the test along.
//!
//! The part is an ignored test of this binary that takes its folder from the environment and does nothing without it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Names the folder to the child.
const FOLDER: &str = "REFUGE_CHILD_FOLDER";

/// Starts the ignored test `name` (its full path) on a folder; its output can be read from the child's `stdout`.
pub(crate) fn start(name: &str, folder: &Path) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--ignored", "--nocapture", "--quiet"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

/// Runs the ignored test `name` to its end.
///
/// # Errors
/// When it does not end well, with what it printed.
pub(crate) fn run(name: &str, folder: &Path) -> io::Result<()> {
    let output = start(name, folder)?.wait_with_output()?;
    match ExitStatus::success(&output.status) {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{name}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        ))),
    }
}

/// The folder of this process, where it was started by [`start`].
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}
