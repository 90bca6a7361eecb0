//! What is left to the process if its code is ever turned against it: its folders and its ports (Landlock, security row
//! S25), as far as the kernel knows how.
//!
//! It holds for the calling thread and those that it starts, for good: it has to be done before any other thread is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The newest that was looked at. What an older kernel lacks of it is left out.
const NEWEST: ABI = ABI::V6;

/// Read to find other machines by name, by the C library.
const NAMES: [&str; 4] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
];

/// Libraries that a C library loads late, where the binary is no static one.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];

/// SQLite seeds itself from the one, and opens the other so that nothing of its own gets a standard descriptor.
const DEVICES: [&str; 2] = ["/dev/urandom", "/dev/null"];

/// What a process keeps.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The data folder and those that stores may be in; with everything below.
    pub(crate) folders: Vec<PathBuf>,
    /// Files, and folders of files, that are read besides.
    pub(crate) files: Vec<PathBuf>,
    /// Devices that are driven, or folders of their attributes.
    pub(crate) devices: Vec<PathBuf>,
    /// TCP ports that it may listen on; 0 stands for those the system picks.
    pub(crate) ports: Vec<u16>,
}

/// How far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confined {
    /// Files, ports and signals.
    Fully,
    /// The kernel knows a part of it; files at least.
    Partly,
    /// The kernel does not know how, or not well enough to keep renames working.
    Not,
}

/// Confines this process to `limits` and says so in the log.
///
/// # Errors
/// Where a folder can't be made, where the kernel refuses what it says it can do, and where it can't confine files at
/// all: who asked to be confined does not run unconfined.
pub(super) fn confine(limits: &Limits) -> io::Result<()> {
    // A rule is about what is there; an empty folder becomes a node as well as none.
    fs::create_dir_all(limits.folders.first().map_or(Path::new(""), PathBuf::as_path))?;
    match restrict(limits).map_err(io::Error::other)? {
        Confined::Fully => tracing::info!(folders = ?limits.folders, "confined to its folders and ports"),
        Confined::Partly => {
            tracing::warn!(folders = ?limits.folders, "confined to its folders; this kernel knows no more of Landlock");
        }
        Confined::Not => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel has no Landlock, or one too old (Linux 5.19 is needed); without --confine the node runs unconfined",
            ));
        }
    }
    Ok(())
}

fn restrict(limits: &Limits) -> Result<Confined, RulesetError> {
    // Without it no file could be renamed from one folder to another: better all of the rest or nothing.
    let handled = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer);
    let Ok(handled) = handled else {
        return Ok(Confined::Not);
    };
    let ruleset = handled
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&limits.folders, of_data()))?
        .add_rules(path_beneath_rules(
            &limits.files,
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .add_rules(path_beneath_rules(&limits.devices, of_device()))?
        .add_rules(path_beneath_rules(NAMES, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(
            LIBRARIES,
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .add_rules(path_beneath_rules(
            DEVICES,
            AccessFs::ReadFile | AccessFs::WriteFile,
        ))?;
    let ports = limits
        .ports
        .iter()
        .map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::BindTcp)));
    let status = ruleset.add_rules(ports)?.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confined::Fully,
        RulesetStatus::PartiallyEnforced => Confined::Partly,
        RulesetStatus::NotEnforced => Confined::Not,
    })
}

/// Regular files and folders; nothing to run, no device, no link that leads elsewhere.
fn of_data() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// Reading, writing and what only the device knows.
fn of_device() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::thread;

    use nix::errno::Errno;
    use nix::mount::{MsFlags, mount};

    /// Runs `probe` in a thread that is confined to `folder`; the others are not. `None` where the kernel can't.
    fn confined<T: Send>(folder: &Path, ports: &[u16], probe: impl FnOnce() -> T + Send) -> Option<T> {
        let limits = Limits {
            folders: vec![folder.to_owned()],
            files: Vec::new(),
            devices: Vec::new(),
            ports: ports.to_vec(),
        };
        let work = || match restrict(&limits).unwrap() {
            Confined::Not => {
                eprintln!("skipped: this kernel has no Landlock");
                None
            }
            Confined::Partly | Confined::Fully => Some(probe()),
        };
        thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn s25_the_data_folder_is_of_full_use() {
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), &[], || {
            let (one, two) = (dir.path().join("one"), dir.path().join("two"));
            fs::create_dir(&one).unwrap();
            fs::create_dir(&two).unwrap();
            fs::write(one.join("file"), b"bytes").unwrap();
            fs::hard_link(one.join("file"), two.join("link")).unwrap();
            fs::rename(one.join("file"), two.join("file")).unwrap();
            OpenOptions::new()
                .write(true)
                .open(two.join("file"))
                .unwrap()
                .set_len(2)
                .unwrap();
            assert_eq!(fs::read(two.join("link")).unwrap(), b"by");
            fs::remove_file(two.join("link")).unwrap();
            fs::remove_dir(&one).unwrap();
            File::open(&two).unwrap().sync_all().unwrap();
        });
    }

    #[test]
    fn s25_everything_else_is_denied() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("secret"), b"secret").unwrap();
        let program = dir.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        confined(dir.path(), &[], || {
            let denied = |what: &str, ended: io::Result<()>| {
                let kind = ended.expect_err(what).kind();
                assert_eq!(kind, ErrorKind::PermissionDenied, "{what}");
            };
            denied("another folder", fs::read(other.path().join("secret")).map(drop));
            denied("its list", fs::read_dir(other.path()).map(drop));
            denied("a file in it", fs::write(other.path().join("new"), b"x"));
            denied("passwords", File::open("/etc/shadow").map(drop));
            denied("programs", fs::write("/usr/bin/refuge-probe", b"x"));
            denied(
                "running one of the system",
                Command::new("/bin/true").status().map(drop),
            );
            denied(
                "running one of its own",
                Command::new(&program).status().map(drop),
            );
            denied("a link out", symlink("/etc/shadow", dir.path().join("link")));
            if has_net_rules() {
                denied("port 22", TcpListener::bind((Ipv4Addr::LOCALHOST, 22)).map(drop));
            }
            let mounted = mount(
                Some("none"),
                dir.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            );
            assert_eq!(mounted, Err(Errno::EPERM));
        });
    }

    #[test]
    fn s25_ports_that_were_named_can_be_listened_on() {
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), &[0], || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        });
    }

    /// Rules about ports came with Linux 6.7.
    fn has_net_rules() -> bool {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessNet::BindTcp)
            .is_ok()
    }
}
