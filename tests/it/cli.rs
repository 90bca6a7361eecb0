//! The command line as its users meet it: the real program on temporary folders, here and against a node.

mod bad_input;
mod claiming;
mod documents;
mod folders;
mod help;
mod interrupted;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Node, Ran, refuge};

/// A folder for one test, with a user's configuration of its own.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data folder of the commands that are given none.
    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A command that is not run yet, as this test's user.
    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> std::process::Command {
        let mut command = refuge();
        command
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("REFUGE_TOKEN")
            .current_dir(self.dir.path())
            .args(arguments);
        command
    }

    /// Runs a command as it is given.
    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(&mut self.command(arguments)).unwrap()
    }

    /// Runs a command on the data folder.
    fn here<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let mut command = self.command(arguments);
        Ran::of(command.arg("--data").arg(self.data())).unwrap()
    }

    /// A node on the data folder, claimed by this user.
    fn claimed_node(&self) -> Node {
        let node = Node::start(&self.data()).unwrap();
        let (url, code) = (https(&node), node.ready.claim_code.clone().unwrap());
        self.run(["claim", &url, &code]).done();
        node
    }
}

/// The URL of a node's encrypted listener.
fn https(node: &Node) -> String {
    node.ready.https.clone().unwrap()
}

impl Ran {
    /// What it printed; panics unless everything was done.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.status.code(), Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }

    /// What it said; panics unless it ended with this exit code, and with words meant for people.
    #[track_caller]
    fn failed(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{}{}", self.stdout, self.stderr);
        for internal in ["panicked", "RUST_BACKTRACE", "Error {", "Err(", "Some("] {
            assert!(!self.stderr.contains(internal), "{}", self.stderr);
        }
        self.stderr
    }

    /// As [`Ran::failed`], and what it said names this.
    #[track_caller]
    fn refused(self, code: i32, named: &str) {
        let said = self.failed(code);
        assert!(said.contains(named), "{said:?} does not name {named:?}");
    }
}

fn bytes_of(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
