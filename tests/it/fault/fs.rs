//! The fault file system: a [`Medium`] mounted through FUSE, with faults, counters, a power switch and a recorder.
//!
//! The kernel passes every write on at once (no write-back cache), so the model sees what the program wrote, in its order.
//! Locks (`flock`, `fcntl`) and shared mappings are the kernel's own. `syncfs` and `sync` reach no FUSE daemon: they
//! make nothing durable here, which is on the strict side.
//!
//! A program that maps a file of this file system into memory (SQLite in WAL mode does) must be another process than the
//! test: unmapping writes pages back under a lock of the address space that the daemon needs as well. `child` starts one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use fuser::{BackgroundSession, Config, MountOption, Session};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::medium::{Crash, Ino, Medium, Names, Op};
use super::recording::Recording;
use super::seed::{self, Rng};

/// The name under which `mount` shows the file system, followed by the process that serves it.
const SOURCE: &str = "refuge-fault-";

/// The kinds of calls that are counted and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Mkdir,
    Symlink,
    Link,
    Unlink,
    Rmdir,
    Rename,
    Write,
    Truncate,
    Allocate,
    Attr,
    Flush,
    FlushDir,
    Read,
}

/// An error for the `nth` call (from 1, counted from now on) of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// `None`: any call that changes the disk.
    pub(crate) call: Option<Call>,
    pub(crate) nth: u64,
    pub(crate) errno: Errno,
    /// Whether all later calls of the kind fail too.
    pub(crate) lasting: bool,
}

/// A mounted fault file system; unmounted when dropped.
pub(crate) struct FaultFs {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    /// Keeps the mount point; the data folder of a test is [`FaultFs::root`].
    mount: tempfile::TempDir,
}

pub(super) struct Shared {
    state: Mutex<State>,
    flush_gate: Condvar,
}

/// What the daemon and the test share.
pub(super) struct State {
    pub(super) medium: Medium,
    recording: Option<Recording>,
    powered: bool,
    read_only: bool,
    faults: Vec<(Fault, u64)>,
    counts: BTreeMap<Call, u64>,
    changes: u64,
    cut: Option<(u64, Pid)>,
    written_bytes: u64,
    flushed_bytes: u64,
    flush_delay: Duration,
    flushes_held: bool,
    pub(super) listings: BTreeMap<u64, Vec<(Ino, std::ffi::OsString)>>,
    pub(super) next_handle: u64,
}

impl FaultFs {
    /// Mounts an empty disk, or says why the test is skipped (no `/dev/fuse`, no right to mount).
    pub(crate) fn mount_or_skip(rule: Names) -> Option<Self> {
        Self::mount_medium_or_skip(Medium::new(rule))
    }

    /// Mounts a disk that already holds something, as after [`Medium::after`].
    pub(crate) fn mount_medium_or_skip(medium: Medium) -> Option<Self> {
        detach_stale_mounts();
        match Self::mount(medium) {
            Ok(mounted) => Some(mounted),
            Err(error) => {
                seed::skip(&format!("FUSE can't be mounted here ({error})"));
                None
            }
        }
    }

    fn mount(medium: Medium) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                medium,
                recording: None,
                powered: true,
                read_only: false,
                faults: Vec::new(),
                counts: BTreeMap::new(),
                changes: 0,
                cut: None,
                written_bytes: 0,
                flushed_bytes: 0,
                flush_delay: Duration::ZERO,
                flushes_held: false,
                listings: BTreeMap::new(),
                next_handle: 1,
            }),
            flush_gate: Condvar::new(),
        });
        let mount = tempfile::Builder::new().prefix("refuge-fault-").tempdir()?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("{SOURCE}{}", std::process::id())),
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
        ];
        let daemon = super::fuse::Daemon::new(Arc::clone(&shared));
        let session = Session::new(daemon, mount.path(), &config)?.spawn()?;
        Ok(Self {
            shared,
            session: Some(session),
            mount,
        })
    }

    /// The mount point.
    pub(crate) fn root(&self) -> &Path {
        self.mount.path()
    }

    /// A path below the mount point.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mount.path().join(name)
    }

    /// Writes down every operation from now on.
    pub(crate) fn record(&self) {
        let mut state = self.shared.lock();
        state.recording = Some(Recording::from(state.medium.clone()));
    }

    /// Ends and returns the recording.
    ///
    /// # Panics
    /// When nothing was recorded.
    pub(crate) fn recorded(&self) -> Recording {
        self.shared
            .lock()
            .recording
            .take()
            .expect("record() was called before")
    }

    /// Notes in the recording that the journal has `entries` entries by now.
    pub(crate) fn mark(&self, entries: usize) {
        self.shared.lock().note(&Op::Mark(entries), SystemTime::now());
    }

    /// What the medium holds if power is lost now.
    pub(crate) fn crash(&self, crash: Crash, rng: &mut Rng) -> Medium {
        self.shared.lock().medium.after(crash, rng)
    }

    /// Loses power just before the `nth` change from now: `victim` is killed, and every later call gives `EIO`.
    pub(crate) fn cut_power_at(&self, nth: u64, victim: u32) {
        let mut state = self.shared.lock();
        let pid = Pid::from_raw(i32::try_from(victim).expect("a process id is an i32"));
        state.cut = Some((state.changes + nth, pid));
    }

    /// Loses power now; every later call gives `EIO`.
    pub(crate) fn cut_power(&self) {
        self.shared.lock().powered = false;
        self.release_flushes();
    }

    pub(crate) fn is_powered(&self) -> bool {
        self.shared.lock().powered
    }

    pub(crate) fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push((fault, 0));
    }

    /// Takes all injected errors back.
    pub(crate) fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// While set, every change gives `EROFS`.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.shared.lock().read_only = read_only;
    }

    /// How much data fits on the disk.
    pub(crate) fn set_limit_bytes(&self, bytes: u64) {
        let pages = usize::try_from(bytes / super::pages::PAGE_BYTES as u64).unwrap_or(usize::MAX);
        self.shared.lock().medium.set_limit_pages(pages);
    }

    /// How long every flush takes from now on.
    pub(crate) fn set_flush_delay(&self, delay: Duration) {
        self.shared.lock().flush_delay = delay;
        self.shared.flush_gate.notify_all();
    }

    /// Flushes get no answer until [`FaultFs::release_flushes`].
    pub(crate) fn hold_flushes(&self) {
        self.shared.lock().flushes_held = true;
    }

    pub(crate) fn release_flushes(&self) {
        self.shared.lock().flushes_held = false;
        self.shared.flush_gate.notify_all();
    }

    /// How often a call was made.
    pub(crate) fn count(&self, call: Call) -> u64 {
        self.shared.lock().counts.get(&call).copied().unwrap_or(0)
    }

    /// All calls that change the disk or flush it.
    pub(crate) fn changes(&self) -> u64 {
        self.shared.lock().changes
    }

    /// Bytes handed to `write`.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.shared.lock().written_bytes
    }

    /// Bytes of whole pages that flushes put on the medium.
    pub(crate) fn flushed_bytes(&self) -> u64 {
        self.shared.lock().flushed_bytes
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        self.cut_power();
        self.set_flush_delay(Duration::ZERO);
        if let Err(errno) = umount2(self.mount.path(), MntFlags::empty()) {
            eprintln!(
                "{} is still in use ({errno}), detached",
                self.mount.path().display()
            );
            if umount2(self.mount.path(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).is_ok() {
                return;
            }
        }
        if let Some(Err(error)) = self.session.take().map(BackgroundSession::join) {
            eprintln!("the fault file system ended with {error}");
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the daemon does not panic")
    }

    /// Does one change, or refuses it as the test asked for. Returns the inode that was made.
    pub(super) fn change(&self, call: Call, op: &Op) -> Result<Ino, Errno> {
        self.lock().change(call, op)
    }

    /// Flushes at once and returns how long the answer has to wait: what is written meanwhile is not part of this flush.
    pub(super) fn flush(&self, call: Call, op: &Op) -> Result<Wait, Errno> {
        let mut state = self.lock();
        state.change(call, op)?;
        let held = state.flushes_held || !state.flush_delay.is_zero();
        Ok(if held {
            Wait::Until(Instant::now() + state.flush_delay)
        } else {
            Wait::None
        })
    }

    /// Waits as long as flushes are held and until the delay is over.
    pub(super) fn wait_for_flush(&self, until: Instant) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let over = now >= until || state.flush_delay.is_zero();
            if !state.powered || (over && !state.flushes_held) {
                return;
            }
            let pause = if state.flushes_held {
                Duration::from_secs(1)
            } else {
                until - now
            };
            state = self
                .flush_gate
                .wait_timeout(state, pause)
                .expect("the daemon does not panic")
                .0;
        }
    }
}

/// When a flush may be answered.
pub(super) enum Wait {
    None,
    Until(Instant),
}

impl State {
    /// Fails where power is lost or a fault waits for this call.
    pub(super) fn admit(&mut self, call: Call) -> Result<(), Errno> {
        let changes = call != Call::Read;
        if changes {
            self.changes += 1;
            if let Some((at, victim)) = self.cut.filter(|(at, _)| self.changes >= *at) {
                self.cut = None;
                self.powered = false;
                if let Err(errno) = kill(victim, Signal::SIGKILL) {
                    eprintln!("change {at}: process {victim} could not be killed ({errno})");
                }
            }
        }
        if !self.powered {
            return Err(Errno::EIO);
        }
        *self.counts.entry(call).or_default() += 1;
        let flush = matches!(call, Call::Flush | Call::FlushDir);
        if self.read_only && changes && !flush {
            return Err(Errno::EROFS);
        }
        for (fault, seen) in &mut self.faults {
            if fault.call.map_or(changes, |wanted| wanted == call) {
                *seen += 1;
                if *seen == fault.nth || (fault.lasting && *seen > fault.nth) {
                    return Err(fault.errno);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, call: Call, op: &Op) -> Result<Ino, Errno> {
        let now = SystemTime::now();
        if let Err(errno) = self.admit(call) {
            if let (Op::Flush { ino }, true) = (op, self.powered) {
                // Linux marks the pages clean all the same: a second flush finds nothing to write, and says so.
                self.note_result(&Op::FailedFlush { ino: *ino }, now)?;
            }
            return Err(errno);
        }
        self.note_result(op, now)
    }

    fn note_result(&mut self, op: &Op, now: SystemTime) -> Result<Ino, Errno> {
        let made = self.medium.apply(op, now)?;
        match op {
            Op::Write { data, .. } => self.written_bytes += data.len() as u64,
            Op::Flush { .. } | Op::FlushDir { .. } => self.flushed_bytes += made,
            _ => {}
        }
        self.note(op, now);
        Ok(made)
    }

    fn note(&mut self, op: &Op, now: SystemTime) {
        if let Some(recording) = &mut self.recording {
            recording.push(op.clone(), now);
        }
    }
}

/// Takes away mounts whose test process was killed before it could.
///
/// Asking such a mount itself could wait for ever, so its name says who serves it.
fn detach_stale_mounts() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let Some(server) = source.strip_prefix(SOURCE) else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
        let serving = !stat.is_empty() && !stat.contains(") Z ");
        if !serving && umount2(path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).is_ok() {
            eprintln!("took away the stale mount {path}");
        }
    }
}
