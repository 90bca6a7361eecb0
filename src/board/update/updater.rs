//! What root does about updates: a short list of commands of the node, and two steps of a start.
//!
//! | step of a start | when |
//! |---|---|
//! | [`UpdaterStep::Judge`] | beside the node, before the slot is good: on trial, waits until the system has proved itself, or goes back |
//! | [`UpdaterStep::Settled`] | after the slot has its attempts back: writes down what came of the trial |
//!
//! A bundle is copied, as it comes, into a folder that only root can open; there it is looked at, and from there it is installed.
//! So nobody changes it in between (security row S23).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::judge::{Judge, Seen, Verdict};
use super::own::Own;
use super::record::{Record, Start, Trial};
use super::system::{System, failed};
use super::wire::{Answer, Command, LINE_BYTES_MAX};
use crate::board::error::Error;
use crate::board::message::{Limits, asked, line};
use crate::node::{BUNDLE_BYTES_MAX, Slot, UpdateTrouble};

/// A few reasons; each piece of a bundle may take as long as a command.
const COMMAND: Limits = Limits {
    bytes_max: LINE_BYTES_MAX,
    within: Duration::from_secs(60),
};

/// What stays free beside a bundle, in bytes: the node's own writes go on meanwhile.
const FREE_BYTES_LEFT: u64 = 16 * 1024 * 1024;

/// Bytes of a bundle that are held at once.
const PIECE_BYTES: usize = 256 * 1024;

/// How soon a system that is on trial is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is done at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdaterStep {
    /// Beside the node, before the slot is good.
    Judge,
    /// After the slot was marked good.
    Settled,
}

/// Answers one command of the node that runs as `user`.
///
/// # Errors
/// [`Error::Stranger`] for whoever may not ask, who gets no answer; [`Error::Helper`] where the connection ends early.
pub fn answer(connection: UnixStream, user: u32) -> Result<(), Error> {
    answer_for(connection, user, &System::default())
}

/// Does a step of a start.
///
/// # Errors
/// [`Error::Update`]: what keeps it from being done, or that the system is given up.
pub fn step(step: UpdaterStep) -> Result<(), Error> {
    step_of(&System::default(), step).map_err(Error::Update)
}

pub(super) fn step_of(system: &System, step: UpdaterStep) -> Result<(), UpdateTrouble> {
    match step {
        UpdaterStep::Judge => judge(system),
        UpdaterStep::Settled => settled(system),
    }
}

pub(super) fn answer_for(connection: UnixStream, user: u32, system: &System) -> Result<(), Error> {
    let (command, mut from) = asked(&connection, user, &COMMAND)?;
    tracing::info!(?command, "asked");
    // Whoever asked may have gone; what was begun is done all the same.
    let tell = |answer: Answer| (&connection).write_all(&line(&answer));
    let done = perform(command, system, &mut from, &mut |answer| {
        if let Err(error) = tell(answer) {
            tracing::debug!(%error, "nobody hears how far it is");
        }
    });
    if let Err(trouble) = &done {
        tracing::warn!(%trouble, "not done");
    }
    let last = done.unwrap_or_else(|trouble| Answer::Trouble { trouble });
    tell(last).map_err(Error::Helper)
}

fn perform(
    command: Command,
    system: &System,
    from: &mut impl Read,
    tell: &mut impl FnMut(Answer),
) -> Result<Answer, UpdateTrouble> {
    match command {
        Command::State => state(system),
        Command::Install {
            size_bytes,
            may_be_older,
            channel,
        } => {
            let _alone = alone(system)?;
            let receive = |file: &Path, tell: &mut dyn FnMut(Answer)| {
                tell(Answer::Ready);
                receive(file, size_bytes, from)
            };
            let own = Own {
                running: system.version()?,
                compatible: system.compatible()?,
                may_be_older,
                channel,
            };
            install(system, size_bytes, own, receive, tell)
        }
        Command::Rollback => {
            let _alone = alone(system)?;
            roll_back(system)
        }
        Command::Examined { reasons } => system.keep_examined(&reasons).map(|()| Answer::Done),
    }
}

fn state(system: &System) -> Result<Answer, UpdateTrouble> {
    let slot = system.slot()?;
    let record = system.record();
    let (record, is_on_trial) = match record.start(slot) {
        Start::Usual => (record, false),
        Start::OnTrial(_) => (record, true),
        Start::Back(told) => (told, false),
    };
    Ok(Answer::State {
        running: system.version()?,
        compatible: system.compatible()?,
        slot,
        is_on_trial,
        last: record.last().cloned(),
        before: record.before().cloned(),
    })
}

/// Held while something is changed. Whoever comes second is told so.
fn alone(system: &System) -> Result<File, UpdateTrouble> {
    let path = system.run.join("update.lock");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let lock = opened.map_err(|error| failed(&path.display(), &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(_) => Err(UpdateTrouble::Busy),
    }
}

/// What is written down, and the slot that runs, where nothing is on trial.
fn judged(system: &System) -> Result<(Record, Slot), UpdateTrouble> {
    let slot = system.slot()?;
    let record = system.record();
    match record.start(slot) {
        Start::Usual => Ok((record, slot)),
        Start::Back(told) => Ok((told, slot)),
        Start::OnTrial(_) => Err(UpdateTrouble::Busy),
    }
}

fn install(
    system: &System,
    size_bytes: u64,
    own: Own,
    receive: impl FnOnce(&Path, &mut dyn FnMut(Answer)) -> io::Result<()>,
    tell: &mut impl FnMut(Answer),
) -> Result<Answer, UpdateTrouble> {
    let (record, slot) = judged(system)?;
    system.make_folder()?;
    let staged = Staged::new(&system.folder);
    has_room(&system.folder, size_bytes)?;
    receive(&staged.0, tell).map_err(|error| failed(&"transfer", &error))?;
    tell(Answer::Checking);
    let bundle = system.check(&staged.0)?;
    own.takes(&bundle.compatible, &bundle.version)?;
    tell(Answer::Found {
        version: bundle.version.clone(),
    });
    let record = record.overwriting();
    system.write_down(&record)?;
    system.install(&staged.0, |percent| tell(Answer::Installing { percent }))?;
    drop(staged);
    let trial = Trial {
        slot: slot.other(),
        version: bundle.version,
        from: own.running,
        lan_answered: system.gateway_answers(),
        is_armed: false,
        reasons: Vec::new(),
    };
    begin(system, record, trial)
}

fn roll_back(system: &System) -> Result<Answer, UpdateTrouble> {
    let (record, slot) = judged(system)?;
    let version = record.before().cloned().ok_or(UpdateTrouble::NothingBefore)?;
    let trial = Trial {
        slot: slot.other(),
        version,
        from: system.version()?,
        lan_answered: system.gateway_answers(),
        is_armed: false,
        reasons: Vec::new(),
    };
    begin(system, record, trial)
}

/// Starts the system that is to prove itself: written down first, then told to the boot loader, then written down that it was.
fn begin(system: &System, record: Record, trial: Trial) -> Result<Answer, UpdateTrouble> {
    let slot = trial.slot;
    let record = record.trying(trial.clone());
    system.write_down(&record)?;
    system.prefer(slot)?;
    system.write_down(&record.trying(Trial {
        is_armed: true,
        ..trial
    }))?;
    system.restart()?;
    Ok(Answer::Restarting)
}

fn has_room(folder: &Path, size_bytes: u64) -> Result<(), UpdateTrouble> {
    if size_bytes > BUNDLE_BYTES_MAX {
        return Err(UpdateTrouble::Bundle {
            reason: format!("it has {size_bytes} bytes, more than a slot"),
        });
    }
    let found = statvfs(folder).map_err(|error| failed(&"statvfs", &error))?;
    let free_bytes = wide(found.blocks_available()).saturating_mul(wide(found.fragment_size()));
    let needed_bytes = size_bytes + FREE_BYTES_LEFT;
    match needed_bytes <= free_bytes {
        true => Ok(()),
        false => Err(UpdateTrouble::NoSpace {
            needed_bytes,
            free_bytes,
        }),
    }
}

/// 32 bits on 32-bit machines.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}

/// Where a bundle waits. Removed when dropped, and before the next one where a cut left it.
struct Staged(PathBuf);

impl Staged {
    fn new(folder: &Path) -> Staged {
        Staged(folder.join("bundle.raucb"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a bundle stays behind");
        }
    }
}

fn receive(file: &Path, size_bytes: u64, from: &mut impl Read) -> io::Result<()> {
    let mut staged = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    let mut left = size_bytes;
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = from.read(&mut piece[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        staged.write_all(&piece[..read])?;
        left -= read as u64;
    }
    Ok(())
}

fn judge(system: &System) -> Result<(), UpdateTrouble> {
    let record = system.record();
    let Start::OnTrial(trial) = record.start(system.slot()?) else {
        return Ok(());
    };
    let reasons = match watch(system, trial.lan_answered) {
        Ok(()) => return Ok(()),
        Err(reasons) => reasons,
    };
    tracing::error!(?reasons, "this system is given up");
    // Whatever fails of these, the restart counts as an attempt, and there are three.
    let told = [
        system.write_down(&record.given_up(reasons.clone())),
        system.give_up(trial.slot),
    ];
    for trouble in told.into_iter().filter_map(Result::err) {
        tracing::error!(%trouble, "while a system is given up");
    }
    system.restart()?;
    Err(failed(&"judge", &reasons.join("; ")))
}

/// Looks until there is a verdict; the reasons where it is a bad one.
fn watch(system: &System, lan_answered: bool) -> Result<(), Vec<String>> {
    let began = Instant::now();
    let mut judge = Judge::new(lan_answered);
    loop {
        let seen = Seen {
            examined: system.examined(),
            endings: system.endings(),
            lan_answers: lan_answered && system.gateway_answers(),
        };
        match judge.look(seen, began.elapsed()) {
            Verdict::Wait => sleep(LOOK_EVERY),
            Verdict::Good => return Ok(()),
            Verdict::Bad(reasons) => return Err(reasons),
        }
    }
}

fn settled(system: &System) -> Result<(), UpdateTrouble> {
    let slot = system.slot()?;
    let record = system.record();
    match record.start(slot) {
        Start::OnTrial(trial) => {
            tracing::info!(version = %trial.version, "this system is good");
            system.write_down(&record.proved(slot))
        }
        Start::Back(record) => {
            if let Some(last) = record.last() {
                tracing::warn!(version = %last.version, reasons = ?last.reasons, "the box went back");
            }
            // The boot loader's order still names the slot that failed first.
            system.give_up(slot.other())?;
            system.write_down(&record)
        }
        Start::Usual => Ok(()),
    }
}
