//! The updater's commands and answers, one JSON object a line, and the node's side of a connection.
//!
//! ```text
//! {"command":"install","size_bytes":36700160,"may_be_older":false}
//!                                  {"answer":"ready"}
//! 36700160 bytes
//!                                  {"answer":"checking"}
//!                                  {"answer":"found","version":"0.2.0"}
//!                                  {"answer":"installing","percent":20}
//!                                  {"answer":"restarting"}
//! ```
//!
//! Every command has one last answer: `state`, `done`, `restarting` or `trouble`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::board::message::{self, line};
use crate::id::Version;
use crate::node::{Outcome, Slot, UpdateTrouble};

/// From one answer to the next: a slot is written to a slow card without a word in between.
const ANSWER_WITHIN: Duration = Duration::from_secs(30 * 60);

/// The longest line, in bytes: a few reasons.
pub(super) const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What the updater can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Command {
    /// How the system is.
    State,
    /// Install the bundle that follows, and start from it.
    Install {
        /// So many bytes follow once it is ready.
        size_bytes: u64,
        /// Whether it may be no newer than what runs.
        may_be_older: bool,
        /// The version that the channel has; older ones may no more be installed than those no newer than what runs.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<Version>,
    },
    /// Start from what ran before.
    Rollback,
    /// The node has examined itself.
    Examined {
        /// What it found the matter, a sentence each.
        reasons: Vec<String>,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    /// How the system is.
    State {
        running: Version,
        compatible: String,
        slot: Slot,
        is_on_trial: bool,
        last: Option<Outcome>,
        before: Option<Version>,
    },
    /// There is room: the bytes may come.
    Ready,
    /// They are there.
    Checking,
    /// Who made the bundle is known, and it is for this box: what is in it.
    Found { version: Version },
    /// The bundle is good and is being written.
    Installing { percent: u8 },
    /// The box is about to start from the other slot.
    Restarting,
    /// It was done.
    Done,
    /// It was not.
    Trouble { trouble: UpdateTrouble },
}

/// How the node reaches the updater.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) socket: PathBuf,
}

/// A command that is being done.
pub(super) struct Exchange {
    answers: BufReader<OwnedReadHalf>,
    bytes: OwnedWriteHalf,
}

impl Client {
    /// Has a command done that has one answer. If cancelled, it is done all the same.
    ///
    /// # Errors
    /// What kept it from being done; [`UpdateTrouble::NoHelper`].
    pub(super) async fn ask(&self, command: &Command) -> Result<Answer, UpdateTrouble> {
        self.begin(command).await?.next().await
    }

    /// Begins a command.
    ///
    /// # Errors
    /// [`UpdateTrouble::NoHelper`].
    pub(super) async fn begin(&self, command: &Command) -> Result<Exchange, UpdateTrouble> {
        let begun = async {
            let (answers, mut bytes) = UnixStream::connect(&self.socket).await?.into_split();
            bytes.write_all(&line(command)).await?;
            io::Result::Ok(Exchange {
                answers: BufReader::new(answers),
                bytes,
            })
        };
        begun.await.map_err(|error| UpdateTrouble::NoHelper {
            reason: format!("{}: {error}", self.socket.display()),
        })
    }
}

impl Exchange {
    /// Sends bytes of the bundle.
    ///
    /// # Errors
    /// Where the updater ended; its last answer may say why.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.write_all(bytes).await
    }

    /// The next answer.
    ///
    /// # Errors
    /// What the updater was kept by; [`UpdateTrouble::NoHelper`] where it says nothing.
    pub(super) async fn next(&mut self) -> Result<Answer, UpdateTrouble> {
        let read = message::next(&mut self.answers, LINE_BYTES_MAX);
        let read = timeout(ANSWER_WITHIN, read).await;
        let answer = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answer {
            Ok(Answer::Trouble { trouble }) => Err(trouble),
            Ok(answer) => Ok(answer),
            Err(error) => Err(UpdateTrouble::NoHelper {
                reason: error.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_as_drawn() {
        let install = Command::Install {
            size_bytes: 36_700_160,
            may_be_older: false,
            channel: None,
        };
        let text = "{\"command\":\"install\",\"size_bytes\":36700160,\"may_be_older\":false}\n";
        assert_eq!(String::from_utf8(line(&install)).unwrap(), text);
        assert_eq!(serde_json::from_str::<Command>(text).unwrap(), install);
        let installing = line(&Answer::Installing { percent: 20 });
        assert_eq!(installing, b"{\"answer\":\"installing\",\"percent\":20}\n");
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for bad in [
            r#"{"command":"install","size_bytes":-1,"may_be_older":false}"#,
            r#"{"command":"install","size_bytes":1}"#,
            r#"{"command":"install","size_bytes":1,"may_be_older":false,"path":"/etc/shadow"}"#,
            r#"{"command":"run"}"#,
            r#"{"command":"examined","reasons":"good"}"#,
            "",
        ] {
            assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = serde_json::from_slice::<Command>(&bytes);
            let _ = serde_json::from_slice::<Answer>(&bytes);
        }
    }
}
