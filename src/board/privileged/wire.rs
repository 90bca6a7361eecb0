//! The helper's commands and answers, one JSON object a line, and the node's side of the connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::board::message::{self, line};
use crate::id::{BundleName, DiskName, DiskSerial, DiskUuid};
use crate::node::{Disk, DiskTrouble};

/// A disk whose file system is checked file by file takes minutes, a large one many.
const ANSWER_WITHIN: Duration = Duration::from_secs(30 * 60);

/// The longest answer, in bytes: a list of disks.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// What the helper can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::board) enum Command {
    /// Which disks are plugged in.
    Disks,
    /// Mount a disk, after formatting it where it is not ours and that is allowed.
    Adopt {
        disk: DiskName,
        serial: DiskSerial,
        may_format: bool,
    },
    /// Mount the disk with this file system.
    Mount { uuid: DiskUuid },
    /// Unmount it; of one that was pulled nothing can be written any more.
    Release { uuid: DiskUuid, is_pulled: bool },
    /// Which bundles are at the top of disks of others.
    Bundles,
    /// The bytes of one of them, from there on.
    Read {
        disk: DiskName,
        name: BundleName,
        from: u64,
    },
}

/// A bundle on a disk of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::board) struct FoundBundle {
    pub(in crate::board) disk: DiskName,
    /// Who made the disk and what they call it.
    pub(in crate::board) title: String,
    pub(in crate::board) name: BundleName,
    pub(in crate::board) size_bytes: u64,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(in crate::board) enum Answer {
    Disks {
        disks: Vec<Disk>,
    },
    Mounted {
        uuid: DiskUuid,
    },
    Bundles {
        bundles: Vec<FoundBundle>,
    },
    /// The bytes follow.
    Content {
        size_bytes: u64,
        changed_s: i64,
    },
    Done,
    Trouble {
        trouble: DiskTrouble,
    },
}

/// A bundle that the helper reads out.
pub(in crate::board) struct Content {
    /// How long the whole file is.
    pub(in crate::board) size_bytes: u64,
    /// When it was changed last, in seconds since 1970.
    pub(in crate::board) changed_s: i64,
    pub(in crate::board) bytes: BufReader<UnixStream>,
}

/// How the node reaches the helper.
#[derive(Debug, Clone)]
pub(in crate::board) struct Client {
    pub(in crate::board) socket: PathBuf,
}

impl Client {
    /// Has a command done. If cancelled, it is done all the same.
    ///
    /// # Errors
    /// What kept it from being done; [`DiskTrouble::NoHelper`].
    pub(in crate::board) async fn ask(&self, command: &Command) -> Result<Answer, DiskTrouble> {
        Ok(self.begin(command).await?.0)
    }

    /// Has a bundle on a disk of others read, from there on.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(in crate::board) async fn read(
        &self,
        disk: &DiskName,
        name: &BundleName,
        from: u64,
    ) -> Result<Content, DiskTrouble> {
        let command = Command::Read {
            disk: disk.clone(),
            name: name.clone(),
            from,
        };
        match self.begin(&command).await? {
            (
                Answer::Content {
                    size_bytes,
                    changed_s,
                },
                bytes,
            ) => Ok(Content {
                size_bytes,
                changed_s,
                bytes,
            }),
            (
                Answer::Disks { .. }
                | Answer::Mounted { .. }
                | Answer::Bundles { .. }
                | Answer::Done
                | Answer::Trouble { .. },
                _,
            ) => Err(self.unreachable(io::ErrorKind::InvalidData.into())),
        }
    }

    /// The answer, and what may follow it.
    async fn begin(&self, command: &Command) -> Result<(Answer, BufReader<UnixStream>), DiskTrouble> {
        let exchange = async {
            let mut connection = UnixStream::connect(&self.socket).await?;
            connection.write_all(&line(command)).await?;
            let mut bytes = BufReader::new(connection);
            io::Result::Ok((message::next(&mut bytes, ANSWER_BYTES_MAX).await?, bytes))
        };
        let exchanged = timeout(ANSWER_WITHIN, exchange).await;
        match exchanged.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((Answer::Trouble { trouble }, _)) => Err(trouble),
            Ok(exchanged) => Ok(exchanged),
            Err(error) => Err(self.unreachable(error)),
        }
    }

    fn unreachable(&self, error: io::Error) -> DiskTrouble {
        DiskTrouble::NoHelper {
            reason: format!("{}: {error}", self.socket.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_as_drawn() {
        let adopt: Command = serde_json::from_str(
            r#"{"command":"adopt","disk":"sda","serial":"575834314135","may_format":false}"#,
        )
        .unwrap();
        let expected = Command::Adopt {
            disk: "sda".parse().unwrap(),
            serial: "575834314135".parse().unwrap(),
            may_format: false,
        };
        assert_eq!(adopt, expected);
        let answer = Answer::Trouble {
            trouble: DiskTrouble::Foreign {
                what: vec!["sda1: ntfs".to_owned()],
            },
        };
        let text = String::from_utf8(line(&answer)).unwrap();
        assert_eq!(
            text,
            "{\"answer\":\"trouble\",\"trouble\":{\"trouble\":\"foreign\",\"what\":[\"sda1: ntfs\"]}}\n"
        );
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }

    #[test]
    fn what_is_no_name_is_no_command() {
        for bad in [
            r#"{"command":"adopt","disk":"../sda","serial":"1","may_format":true}"#,
            r#"{"command":"adopt","disk":"sda","serial":"","may_format":true}"#,
            r#"{"command":"adopt","disk":"sda","serial":"1"}"#,
            r#"{"command":"mount","uuid":"../../etc"}"#,
            r#"{"command":"mount","uuid":"11111111-1111-1111-1111-111111111111","at":"/"}"#,
            r#"{"command":"read","disk":"sda1","name":"../etc/shadow","from":0}"#,
            r#"{"command":"read","disk":"sda1","name":"shadow","from":0}"#,
            r#"{"command":"read","disk":"../sda1","name":"a.raucb","from":0}"#,
            r#"{"command":"read","disk":"sda1","name":"a.raucb","from":-1}"#,
            r#"{"command":"run","program":"/bin/sh"}"#,
            "",
            "null",
        ] {
            assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = serde_json::from_slice::<Command>(&bytes);
        }
    }
}
