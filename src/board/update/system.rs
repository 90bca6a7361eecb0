//! The system as root finds it: its version and slot, the record, the boot state, RAUC, the gateway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use super::record::Record;
use super::said::{last_words, percent};
use crate::id::Version;
use crate::node::{Slot, UpdateTrouble};

/// Small files of the system are that small, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// How often, and how soon again, it is looked whether the gateway has answered: on a wireless network that takes a while.
const GATEWAY_LOOKS: u32 = 5;
const GATEWAY_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Attempts that a slot gets, as the boot script counts them.
const ATTEMPTS: u8 = 3;

/// Where everything is; a test says other places.
#[derive(Debug, Clone)]
pub(super) struct System {
    /// Root's own folder on the data partition.
    pub(super) folder: PathBuf,
    /// Root's own folder in memory.
    pub(super) run: PathBuf,
    /// What the image says of itself.
    pub(super) share: PathBuf,
    /// RAUC's settings.
    pub(super) rauc: PathBuf,
    /// The kernel's view.
    pub(super) proc: PathBuf,
    /// Where programs are looked for.
    pub(super) path: String,
}

/// What a bundle says that it is, after its signature was verified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Bundle {
    /// For which boxes.
    pub(super) compatible: String,
    /// What it makes of them.
    pub(super) version: Version,
}

impl Default for System {
    fn default() -> System {
        System {
            folder: "/data/update".into(),
            run: "/run/refuge".into(),
            share: "/usr/share/refuge".into(),
            rauc: "/etc/rauc/system.conf".into(),
            proc: "/proc".into(),
            path: "/usr/sbin:/usr/bin".to_owned(),
        }
    }
}

impl System {
    /// The version of the system that runs.
    pub(super) fn version(&self) -> Result<Version, UpdateTrouble> {
        let path = self.share.join("version");
        let text = read(&path).map_err(|error| failed(&path.display(), &error))?;
        let version = text.trim().parse();
        version.map_err(|error| failed(&path.display(), &error))
    }

    /// The slot that the boot loader started.
    pub(super) fn slot(&self) -> Result<Slot, UpdateTrouble> {
        let path = self.proc.join("cmdline");
        let text = read(&path).map_err(|error| failed(&path.display(), &error))?;
        let named = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix("refuge.slot="));
        let slot = named.and_then(Slot::named);
        slot.ok_or_else(|| failed(&"boot loader", &"it named no slot"))
    }

    /// For which boxes bundles must be: this one's.
    pub(super) fn compatible(&self) -> Result<String, UpdateTrouble> {
        let text = read(&self.rauc).map_err(|error| failed(&self.rauc.display(), &error))?;
        let line = text.lines().find_map(|line| line.strip_prefix("compatible="));
        let compatible = line.map(|compatible| compatible.trim().to_owned());
        compatible.ok_or_else(|| failed(&self.rauc.display(), &"it says no compatible"))
    }

    /// What is written down; nothing where it can't be read.
    pub(super) fn record(&self) -> Record {
        let text = read(&self.record_path());
        if let Err(error) = &text
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the record of updates cannot be read");
        }
        Record::read(text.unwrap_or_default().as_bytes())
    }

    /// Writes the record down. Durable on return.
    pub(super) fn write_down(&self, record: &Record) -> Result<(), UpdateTrouble> {
        self.make_folder()?;
        replace(&self.record_path(), &record.bytes())
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(|error| failed(&"record of updates", &error))
    }

    fn record_path(&self) -> PathBuf {
        self.folder.join("record.json")
    }

    /// Root's own folder: what is in it is looked at and then used, so nobody else may change it in between.
    pub(super) fn make_folder(&self) -> Result<(), UpdateTrouble> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder);
        made.map_err(|error| failed(&self.folder.display(), &error))
    }

    /// What the node found the matter with the system that is on trial; `None` where it has not said.
    pub(super) fn examined(&self) -> Option<Vec<String>> {
        let text = read(&self.examined_path()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Keeps what the node found, until the next start.
    pub(super) fn keep_examined(&self, reasons: &[String]) -> Result<(), UpdateTrouble> {
        let text = serde_json::to_vec(reasons).expect("texts");
        replace(&self.examined_path(), &text).map_err(|error| failed(&self.run.display(), &error))
    }

    fn examined_path(&self) -> PathBuf {
        self.run.join("examined.json")
    }

    /// Makes `slot` the next one to start, with all its attempts. One write of the boot state.
    pub(super) fn prefer(&self, slot: Slot) -> Result<(), UpdateTrouble> {
        let (first, second) = (slot.name(), slot.other().name());
        self.set_boot_state(&format!(
            "BOOT_ORDER={first} {second}\nBOOT_{first}_LEFT={ATTEMPTS}\n"
        ))
    }

    /// Gives `slot` up: the other one starts next and from then on. One write of the boot state.
    pub(super) fn give_up(&self, slot: Slot) -> Result<(), UpdateTrouble> {
        let (bad, good) = (slot.name(), slot.other().name());
        self.set_boot_state(&format!(
            "BOOT_ORDER={good} {bad}\nBOOT_{bad}_LEFT=0\nBOOT_{good}_LEFT={ATTEMPTS}\n"
        ))
    }

    fn set_boot_state(&self, settings: &str) -> Result<(), UpdateTrouble> {
        let mut program = self.program("fw_setenv");
        program.args(["--script", "-"]).stdin(Stdio::piped());
        let mut child = program.spawn().map_err(|error| failed(&"fw_setenv", &error))?;
        if let Some(mut script) = child.stdin.take() {
            script
                .write_all(settings.as_bytes())
                .map_err(|error| failed(&"fw_setenv", &error))?;
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(&"fw_setenv", &error))?;
        // It leaves what it wrote to the page cache.
        nix::unistd::sync();
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(&"fw_setenv", &last_words(&output.stderr))),
        }
    }

    /// Verifies who made a bundle and what for; what it says that it is.
    pub(super) fn check(&self, bundle: &Path) -> Result<Bundle, UpdateTrouble> {
        let mut program = self.program("rauc");
        program.args(["info", "--output-format=json"]).arg(bundle);
        let output = program.output().map_err(|error| failed(&"rauc", &error))?;
        if !output.status.success() {
            return Err(UpdateTrouble::Bundle {
                reason: last_words(&output.stderr),
            });
        }
        serde_json::from_slice(&output.stdout).map_err(|error| UpdateTrouble::Bundle {
            reason: format!("its manifest: {error}"),
        })
    }

    /// Writes a bundle into the slot that does not run. `progress` hears percents. The boot loader is told nothing.
    pub(super) fn install(&self, bundle: &Path, mut progress: impl FnMut(u8)) -> Result<(), UpdateTrouble> {
        let mut program = self.program("rauc");
        program.arg("install").arg(bundle).stdout(Stdio::piped());
        let mut child = program.spawn().map_err(|error| failed(&"rauc", &error))?;
        if let Some(said) = child.stdout.take() {
            // What else it says of a failure comes on its standard error.
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if let Some(percent) = percent(&line) {
                    progress(percent);
                }
            }
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(&"rauc", &error))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(UpdateTrouble::Bundle {
                reason: last_words(&output.stderr),
            }),
        }
    }

    /// Starts the box anew, in order.
    pub(super) fn restart(&self) -> Result<(), UpdateTrouble> {
        let mut program = self.program("systemctl");
        let output = program.args(["--no-block", "reboot"]).output();
        let output = output.map_err(|error| failed(&"systemctl", &error))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(&"systemctl", &last_words(&output.stderr))),
        }
    }

    /// How often the node's unit was started again; 0 where nobody can say.
    pub(super) fn endings(&self) -> u32 {
        let mut program = self.program("systemctl");
        let output = program
            .args(["show", "--property=NRestarts", "--value", "refuge.service"])
            .output();
        let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().parse());
        said.ok().and_then(Result::ok).unwrap_or(0)
    }

    /// Whether the default gateway answers: a datagram makes the kernel ask for its link-layer address, and its table of neighbours says
    /// what came of that. Where there is no gateway, or only one of IPv6, nothing answers.
    pub(super) fn gateway_answers(&self) -> bool {
        let table = |name| read(&self.proc.join("net").join(name)).unwrap_or_default();
        let Some(gateway) = super::said::gateway(&table("route")) else {
            return false;
        };
        let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            // 9 discards what comes (RFC 863).
            .and_then(|socket| socket.send_to(&[], (gateway, 9)));
        if let Err(error) = asked {
            tracing::debug!(%error, %gateway, "the gateway cannot be asked");
        }
        let answers = || super::said::is_neighbour(&table("arp"), gateway);
        (0..GATEWAY_LOOKS).any(|_| {
            let is_there = answers();
            if !is_there {
                sleep(GATEWAY_LOOK_EVERY);
            }
            is_there
        })
    }

    fn program(&self, name: &str) -> Command {
        let mut program = Command::new(name);
        program
            .env_clear()
            .env("PATH", &self.path)
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        program
    }
}

/// A program or a call that failed.
pub(super) fn failed(program: &dyn std::fmt::Display, reason: &dyn std::fmt::Display) -> UpdateTrouble {
    UpdateTrouble::Failed {
        program: program.to_string(),
        reason: reason.to_string(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(File::open(path)?, FILE_BYTES_MAX), &mut text)?;
    Ok(text)
}

/// Replaces a file whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}
