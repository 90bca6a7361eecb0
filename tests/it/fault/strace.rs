//! Faults at system calls of the real binary, by `strace`: it works on a static binary, where a preloaded library can't.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use super::seed;

/// The calls that change what a disk holds, as `strace` names them; a `?` allows a call that this machine does not have.
pub(crate) const CHANGES: &str = "write,pwrite64,writev,pwritev,fsync,fdatasync,?rename,?renameat,renameat2,?link,linkat,?unlink,unlinkat,ftruncate";

/// What happens at the `nth` call (from 1) of a set, counted over each thread of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection<'a> {
    /// The set, as one of the constants here.
    pub(crate) calls: &'a str,
    /// `signal=KILL`, `error=EIO`, `error=ENOSPC`.
    pub(crate) what: &'a str,
    /// From which call on, and whether only there: `5`, `5+`.
    pub(crate) when: &'a str,
}

/// Whether `strace` works here; says why the test is skipped otherwise.
pub(crate) fn works_or_skip() -> bool {
    let probe = Command::new("strace")
        .args(["-qq", "-e", "trace=none", "true"])
        .stderr(Stdio::null())
        .status();
    let works = probe.is_ok_and(|status| status.success());
    if !works {
        seed::skip("strace is not installed, or may not trace");
    }
    works
}

/// The command, run under `strace` with one injection; what was traced goes to the file `log`.
///
/// `strace` runs beside it: the process that is started is the traced one, and ends as it would without `strace`.
pub(crate) fn inject(command: &Command, injection: Injection<'_>, log: &Path) -> Command {
    let Injection { calls, what, when } = injection;
    traced(
        command,
        log,
        &[
            format!("trace={calls}"),
            format!("inject={calls}:{what}:when={when}"),
        ],
    )
}

/// The command, run under `strace` with nothing done to it.
pub(crate) fn watch(command: &Command, calls: &str, log: &Path) -> Command {
    traced(command, log, &[format!("trace={calls}")])
}

/// How often each call of a trace was made by the thread that made it most: as [`Injection::when`] counts.
pub(crate) fn most_of_a_thread(log: &Path) -> io::Result<BTreeMap<String, usize>> {
    let mut made: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let text = std::fs::read_to_string(log)?;
    for line in text.lines() {
        // `1234  pwrite64(...`; what goes on after an interruption begins with `<...`.
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        if let Some((call, _)) = rest.trim_start().split_once('(') {
            let is_call = call
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if is_call {
                *made.entry((thread, call)).or_default() += 1;
            }
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((_, call), count) in made {
        let known = most.entry(call.to_owned()).or_default();
        *known = count.max(*known);
    }
    Ok(most)
}

/// The paths that the calls of a trace name, with the folder that a descriptor stands for before a relative one, and
/// `..` taken as a name: what leads out shows.
pub(crate) fn paths_named(log: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let text = std::fs::read_to_string(log)?;
    let named = text.lines().filter_map(|line| {
        let (before, rest) = line.split_once('"')?;
        let (name, _) = rest.split_once('"')?;
        // `openat(AT_FDCWD</the/working/folder>, "name"`
        let folder = before
            .rsplit_once('<')
            .and_then(|(_, folder)| folder.split_once('>'));
        Some(
            folder
                .map_or(Path::new("/"), |(folder, _)| Path::new(folder))
                .join(name),
        )
    });
    let mut paths = BTreeSet::new();
    for path in named {
        let mut whole = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    whole.pop();
                }
                part => whole.push(part),
            }
        }
        paths.insert(whole);
    }
    Ok(paths)
}

fn traced(command: &Command, log: &Path, expressions: &[String]) -> Command {
    let mut strace = Command::new("strace");
    // Every path in full and every descriptor with its path: `calls_below` looks for them.
    strace
        .args([
            "--follow-forks",
            "--daemonize",
            "-qq",
            "--decode-fds=path",
            "--string-limit=4096",
            "--output",
        ])
        .arg(log);
    for expression in expressions {
        strace.arg("-e").arg(expression);
    }
    strace
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace.stdin(Stdio::null());
    strace
}

/// The traced calls that concern a folder, in order, each as `strace` prints it.
pub(crate) fn calls_below(log: &Path, folder: &Path) -> io::Result<Vec<String>> {
    let below = folder.as_os_str().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(log)?;
    Ok(text
        .lines()
        .filter(|line| line.contains(&below) && !line.contains("resumed>"))
        .map(str::to_owned)
        .collect())
}

/// A place for a trace that is out of the way of what is traced.
pub(crate) fn log_beside(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(OsStr::new(".strace"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::{Injection, calls_below, inject, log_beside, works_or_skip};
    use std::process::Command;

    #[test]
    fn a_process_dies_at_the_call_that_was_asked_for() {
        if !works_or_skip() {
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = log_beside(folder.path());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"for n in 1 2 3 4 5; do echo $n > "$0/$n"; done"#])
            .arg(folder.path());
        let injection = Injection {
            calls: "write",
            what: "signal=KILL",
            when: "3",
        };
        let status = inject(&shell, injection, &log).status().expect("strace runs");
        assert!(!status.success());
        let written =
            |name: &str| std::fs::read(folder.path().join(name)).is_ok_and(|bytes| !bytes.is_empty());
        assert!(written("1") && written("2"));
        assert!(!written("4"));
        assert_eq!(calls_below(&log, folder.path()).expect("a trace").len(), 3);
        std::fs::remove_file(log).expect("the trace is removed");
    }
}
