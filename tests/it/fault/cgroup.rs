//! A bound on memory that the kernel enforces: a memory cgroup, where this user may make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A memory cgroup of its own; removed when dropped, when nothing runs in it any more.
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// A group whose processes have so many bytes together, cached pages of files counted; `None` where none can be made.
    pub(crate) fn make(bytes: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let name = format!("refuge-test-{}", std::process::id());
        let group = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let path = path.trim_start_matches('/');
            match controllers {
                "memory" => Some((Path::new("/sys/fs/cgroup/memory").join(path), Version::One)),
                "" if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => {
                    Some((Path::new("/sys/fs/cgroup").join(path), Version::Two))
                }
                _ => None,
            }
        });
        let (parent, version) = group?;
        // A group that holds processes can't have groups with controllers below it, so this one stands beside.
        let folders = [parent.join(&name), parent.parent()?.join(&name)];
        let limit = match version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        folders.into_iter().find_map(|folder| {
            fs::create_dir(&folder).ok()?;
            let group = Self { folder, version };
            fs::write(group.folder.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// The command, run inside.
    pub(crate) fn run(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
            .arg(self.folder.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args());
        shell.stdin(std::process::Stdio::null());
        shell
    }

    /// How often something inside was killed for lack of memory.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub(crate) fn killed(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).expect("the kernel counts");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        // The oldest kernels do not count: what was killed then shows as a node that is gone.
        line.map_or(0, |count| count.trim().parse().expect("a number"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}
