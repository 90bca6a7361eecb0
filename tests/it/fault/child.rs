//! Running a part of a test in a process of its own, which may die without taking the test along.
//!
//! The part is an ignored test of this binary that takes its folder from the environment and does nothing without it.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Names the folder to the child.
const FOLDER: &str = "REFUGE_CHILD_FOLDER";

/// Begins each line that a [`Teller`] says.
const TOLD: &str = "@told ";

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

/// One thing that a child tells the test that follows it.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// It is about to give `key` a value, or to take it away.
    Begins { key: String, value: Option<String> },
    /// What it began is acknowledged.
    Ends,
}

/// Runs the ignored test `name` to its end, and passes on what it tells; it goes on when that was heard.
///
/// # Errors
/// When it does not end well.
pub(crate) fn follow(name: &str, folder: &Path, mut hear: impl FnMut(Told)) -> io::Result<()> {
    let mut child = start(name, folder)?;
    let mut answers = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let said = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut rest = String::new();
    for line in BufReader::new(said).lines() {
        let line = line?;
        let Some(told) = line.strip_prefix(TOLD) else {
            rest.push_str(&line);
            rest.push('\n');
            continue;
        };
        let mut fields = told.split('\t');
        hear(match (fields.next(), fields.next()) {
            (Some(key), value) if !key.is_empty() => Told::Begins {
                key: key.to_owned(),
                value: value.map(str::to_owned),
            },
            _ => Told::Ends,
        });
        answers.write_all(b"\n")?;
    }
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{name}: {status}\n{rest}"))),
    }
}

/// A child's side of [`follow`].
pub(crate) struct Teller;

impl Teller {
    /// Tells of an operation before it is done and when it is; what it gives `key` is known before.
    pub(crate) fn during<T>(&self, key: &str, value: Option<&str>, work: impl FnOnce() -> T) -> T {
        self.begin(key, value);
        let done = work();
        self.end();
        done
    }

    /// As [`Teller::during`], for what may fail: no end is told then, so that both stay possible.
    pub(crate) fn attempt<T, E>(
        &self,
        key: &str,
        value: Option<&str>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin(key, value);
        let done = work()?;
        self.end();
        Ok(done)
    }

    /// Tells what an operation gave `key`, once it is done.
    pub(crate) fn done(&self, key: &str, value: &str) {
        self.begin(key, Some(value));
        self.end();
    }

    /// Tells that `key` may get a value from now on; where no end is told, both stay possible.
    pub(crate) fn begin(&self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.tell(&format!("{key}\t{value}")),
            None => self.tell(key),
        }
    }

    fn end(&self) {
        self.tell("");
    }

    fn tell(&self, what: &str) {
        println!("{TOLD}{what}");
        let mut heard = String::new();
        let read = io::stdin().lock().read_line(&mut heard);
        assert!(read.is_ok_and(|read| read > 0), "the test listens");
    }
}
