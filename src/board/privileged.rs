//! What needs the system's administrator: a short list of commands about disks, done for the node by a process of its own.
//!
//! The service manager starts it for each connection to its socket, with the connection as standard input. It asks the
//! kernel who is at the other end, reads one line, does that and answers with one line:
//!
//! ```text
//! {"command":"adopt","disk":"sda","serial":"575834314135","may_format":false}
//! {"answer":"trouble","trouble":{"trouble":"foreign","what":["sda1: ntfs"]}}
//! ```
//!
//! A bundle on a disk of others comes as bytes after the answer:
//!
//! ```text
//! {"command":"read","disk":"sda1","name":"refuge.raucb","from":0}
//! {"answer":"content","size_bytes":7,"changed_s":1790000000}
//! 7 bytes
//! ```
//!
//! Everything in a command is a name that parsed; nothing of it is a path or an option of a program. Commands that change
//! something wait for one another.

mod act;
mod stick;
mod wire;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Error;
use super::message::{Limits, asked, line};
use crate::id::{BundleName, DiskName};
use crate::node::DiskTrouble;

pub(super) use act::{Tools, disk_path};
pub(super) use wire::{Answer, Client, Command, Content};

/// Where the disks of stores are mounted, each at its id.
pub const DISKS_FOLDER: &str = "/run/refuge/disks";

/// Where the helper is reached.
pub const HELPER_SOCKET: &str = "/run/refuge/helper.sock";

/// Where a disk of others is mounted for a moment.
const STICK_FOLDER: &str = "/run/refuge/stick";

/// A node that takes no bytes of a bundle for so long is gone: its card may be slow, or the bundle waits for its turn.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// A few names, sent at once.
const COMMAND: Limits = Limits {
    bytes_max: 4096,
    within: Duration::from_secs(10),
};

/// Who may ask, and what the helper works on.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// Who may ask besides the administrator, and who gets the disks: a user.
    pub user: u32,
    /// That user's group.
    pub group: u32,
    /// The box's own disk, as a shell pattern; it is never touched.
    pub own_disk: String,
    /// Where disks are mounted.
    pub disks: PathBuf,
    /// Where a disk of others is mounted for a moment.
    pub stick: PathBuf,
    /// The kernel's tree of devices.
    pub sys: PathBuf,
    /// Where devices are opened.
    pub dev: PathBuf,
}

impl HelperOptions {
    /// For the node of `user` and `group` on a box whose own disk is named like that, with the places of every Linux.
    pub fn new(user: u32, group: u32, own_disk: String) -> HelperOptions {
        HelperOptions {
            user,
            group,
            own_disk,
            disks: DISKS_FOLDER.into(),
            stick: STICK_FOLDER.into(),
            sys: "/sys".into(),
            dev: "/dev".into(),
        }
    }
}

/// Answers one command.
///
/// # Errors
/// [`Error::Stranger`] for whoever may not ask, who gets no answer; [`Error::Helper`] where the connection ends early.
pub fn help(connection: UnixStream, options: &HelperOptions) -> Result<(), Error> {
    let (command, _) = asked(&connection, options.user, &COMMAND)?;
    answer(command, connection, options).map_err(Error::Helper)
}

fn answer(command: Command, mut connection: UnixStream, options: &HelperOptions) -> io::Result<()> {
    tracing::info!(?command, "asked");
    let done = perform(command, options);
    if let Err(trouble) = &done {
        tracing::warn!(%trouble, "not done");
    }
    let (answer, bytes) = match done {
        Ok(Done::Answer(answer)) => (answer, None),
        Ok(Done::Content(answer, file)) => (answer, Some(file)),
        Err(trouble) => (Answer::Trouble { trouble }, None),
    };
    connection.write_all(&line(&answer))?;
    if let Some(mut file) = bytes {
        connection.set_write_timeout(Some(TAKEN_WITHIN))?;
        io::copy(&mut file, &mut connection)?;
    }
    Ok(())
}

/// What came of a command.
enum Done {
    Answer(Answer),
    /// The bytes of the file follow, from where it stands.
    Content(Answer, File),
}

fn perform(command: Command, options: &HelperOptions) -> Result<Done, DiskTrouble> {
    let tools = Tools { options };
    let _alone = match command {
        Command::Disks => None,
        Command::Adopt { .. }
        | Command::Mount { .. }
        | Command::Release { .. }
        | Command::Bundles
        | Command::Read { .. } => Some(alone(&options.disks).map_err(|error| act::failed("lock", &error))?),
    };
    let answer = match command {
        Command::Disks => Answer::Disks {
            disks: tools.disks()?,
        },
        Command::Adopt {
            disk,
            serial,
            may_format,
        } => Answer::Mounted {
            uuid: tools.adopt(&disk, &serial, may_format)?,
        },
        Command::Mount { uuid } => {
            tools.mount(&uuid)?;
            Answer::Mounted { uuid }
        }
        Command::Release { uuid, is_pulled } => {
            tools.release(&uuid, is_pulled)?;
            Answer::Done
        }
        Command::Bundles => Answer::Bundles {
            bundles: tools.bundles()?,
        },
        Command::Read { disk, name, from } => return read(&tools, &disk, &name, from),
    };
    Ok(Done::Answer(answer))
}

/// The disk is let go of before its bytes are sent: whoever waits for another disk does not wait for those.
fn read(tools: &Tools<'_>, disk: &DiskName, name: &BundleName, from: u64) -> Result<Done, DiskTrouble> {
    let mut file = tools.open_bundle(disk, name)?;
    let (size_bytes, changed_s) = stick::about(&file)?;
    file.seek(SeekFrom::Start(from))
        .map_err(|error| act::failed("seek", &error))?;
    Ok(Done::Content(
        Answer::Content {
            size_bytes,
            changed_s,
        },
        file,
    ))
}

/// Waits until no other helper works, and makes the folder of disks where it is not there.
fn alone(disks: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(disks)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(disks.join(".lock"))?;
    lock.lock()?;
    Ok(lock)
}
