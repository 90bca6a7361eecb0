//! What the node and those who do for it what needs root say to each other: one JSON object a line, over a socket of this machine. The
//! node's side is async, the other one is a process that waits.

use std::io::{self, BufRead, BufReader as Waiting, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::error::Error;

/// How much of a command is read, and for how long it is waited for each piece of that and of what follows.
pub(super) struct Limits {
    pub(super) bytes_max: u64,
    pub(super) within: Duration,
}

/// A message as it travels.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages are plain fields");
    line.push(b'\n');
    line
}

/// The next message, of at most so many bytes. May not be cancelled: what was read of it is lost.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] where none comes; [`io::ErrorKind::InvalidData`] for one that is longer or another.
pub(super) async fn next<T: DeserializeOwned>(
    from: &mut BufReader<impl AsyncRead + Unpin>,
    bytes_max: u64,
) -> io::Result<T> {
    let mut line = Vec::new();
    from.take(bytes_max).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parse(&line)
}

/// The command of `user`, or of root, and what may follow it. Blocking.
///
/// # Errors
/// [`Error::Stranger`] for whoever else is at the other end; [`Error::Helper`] where no command comes.
pub(super) fn asked<T: DeserializeOwned>(
    connection: &UnixStream,
    user: u32,
    limits: &Limits,
) -> Result<(T, Waiting<UnixStream>), Error> {
    let peer = getsockopt(connection, PeerCredentials).map_err(|error| Error::Helper(error.into()))?;
    if peer.uid() != 0 && peer.uid() != user {
        return Err(Error::Stranger { user: peer.uid() });
    }
    let asked = || -> io::Result<_> {
        connection.set_read_timeout(Some(limits.within))?;
        let mut from = Waiting::new(connection.try_clone()?);
        let mut line = Vec::new();
        (&mut from).take(limits.bytes_max).read_until(b'\n', &mut line)?;
        Ok((parse(&line)?, from))
    };
    asked().map_err(Error::Helper)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_line_is_one_message_and_bytes_may_follow() {
        let bytes = [&*line(&1u8), &*line(&"two"), b"rest"].concat();
        let mut from = BufReader::new(&*bytes);
        assert_eq!(next::<u8>(&mut from, 10).await.unwrap(), 1);
        assert_eq!(next::<String>(&mut from, 10).await.unwrap(), "two");
        let mut rest = String::new();
        from.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
        let kind = next::<u8>(&mut from, 10).await.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_or_another_is_none() {
        for bytes in [
            line(&"longer than that"),
            line(&"two"),
            b"\n".to_vec(),
            b"\"tw".to_vec(),
        ] {
            let read = next::<u8>(&mut BufReader::new(&*bytes), 10).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
