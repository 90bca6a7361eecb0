//! S26: nothing secret is in the log, on the disk, in what the system shows of the process, or in what a crash leaves.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use crate::served::{PASSWORD, Served};
use crate::support::{Node, refuge};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Kept;

    fn make_writer(&self) -> Kept {
        self.clone()
    }
}

#[test]
fn s26_no_secret_reaches_the_log_at_any_level() {
    let kept = Kept::default();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(kept.clone())
        .finish();
    // For the whole process: whatever other tests log meanwhile has no secret either.
    let installed = tracing::subscriber::set_global_default(log).is_ok();
    let served = Served::unclaimed();
    let code = served.node.claim().code().unwrap().reveal();
    let claim = format!(r#"{{"account":"ada","code":"{code}","password":"{PASSWORD}"}}"#);
    let claimed = served.ask("POST", "/api/claim").json(&claim).send();
    assert_eq!(claimed.status, 201, "{}", claimed.text());
    let cookie = claimed.header("set-cookie").split(';').next().unwrap().to_owned();
    let token = served.owner_token();
    for ask in [
        served.ask("GET", "/blobs").bearer(&token),
        served.ask("GET", "/blobs/wrong").bearer(&token),
        served.ask("GET", "/tokens").header("Cookie", &cookie),
        served.ask("GET", "/blobs").bearer(&token[..40]),
        served
            .ask("POST", "/api/session")
            .json(&format!(r#"{{"account":"ada","password":"{PASSWORD}x"}}"#)),
        served
            .ask("POST", "/api/session")
            .json(&format!(r#"{{"account":"ada","password":"{PASSWORD}"}}"#)),
        served
            .ask("POST", "/blobs")
            .bearer(&token)
            .body("application/octet-stream", "canary of a body"),
        served
            .ask("POST", "/api/session")
            .json(&format!(r#"{{"password":"{PASSWORD}","password":1}}"#)),
    ] {
        let reply = ask.send();
        assert!(!reply.text().contains(PASSWORD), "{}", reply.text());
    }
    let secret = cookie.split('=').nth(1).unwrap().to_owned();
    let log = String::from_utf8_lossy(&kept.0.lock().unwrap()).into_owned();
    if !installed {
        eprintln!("skipped in part: another test installed a log first");
    }
    let canaries = [PASSWORD, &token, &token[..40], &secret, &code, "canary of a body"];
    for canary in canaries {
        assert!(!log.contains(canary), "{canary}");
    }
    assert!(!log.contains(&code.replace('-', "")));
    let shown = format!("{:?}", served.node.identity());
    assert!(!shown.contains("key_der"), "{shown}");
}

/// A user that owns nothing, as most systems have it.
const NOBODY: u32 = 65534;

#[test]
fn s26_no_secret_is_left_on_the_disk_or_by_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let node = Node::start_as(logging_to(&log), &data).unwrap();
    let code = node.ready.claim_code.clone().unwrap();
    let token = node.claim().unwrap();
    let mut http = node.client(&token).unwrap();
    let json = ("content-type", "application/json");
    for password in [PASSWORD, "a wrong guess"] {
        let login = format!(r#"{{"account":"ada","password":"{password}"}}"#);
        let answer = http
            .send("POST", "/api/session", &[json], login.as_bytes())
            .unwrap();
        assert!(matches!(answer.status, 200 | 201 | 401), "{}", answer.text());
    }
    let made = br#"{"label":"canary","scopes":["read"]}"#;
    let made = http.send("POST", "/api/tokens", &[json], made).unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
    let second = made["token"].as_str().unwrap().to_owned();
    assert!(http.send("POST", "/blobs", &[], b"a blob").unwrap().is_success());
    let canaries = [PASSWORD, "a wrong guess", &token, &second, &code];
    for shown in ["cmdline", "environ", "status", "maps"] {
        let shown = PathBuf::from(format!("/proc/{}/{shown}", node.pid()));
        holds_none(&shown, &canaries);
    }
    // While it runs, so that what is only on the way to the database is seen as well.
    files_hold_none(folder.path(), &canaries);
    let abort = Command::new("kill")
        .args(["-ABRT", &node.pid().to_string()])
        .status();
    assert!(abort.unwrap().success());
    node.ended().unwrap();
    files_hold_none(folder.path(), &canaries);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("data folder opened"), "the log is there: {log}");
    for key in ["node.key", "tls.key"] {
        let mode = fs::metadata(data.join("identity").join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn s26_other_processes_of_the_same_user_cannot_read_the_memory_of_a_node() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may start a node as somebody else");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let program = folder.path().join("refuge");
    fs::copy(refuge().get_program(), &program).unwrap();
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    let node = Node::start_as(command, &folder.path().join("data")).unwrap();
    let process = PathBuf::from(format!("/proc/{}", node.pid()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}")), "{status}");
    // The kernel gives the files of a process that must not be looked into to root (proc(5)).
    assert_eq!(fs::metadata(process.join("mem")).unwrap().uid(), 0);
    assert!(node.terminate().unwrap().success());
}

/// A node that logs all it can to a file, and may leave a core file beside it.
fn logging_to(log: &Path) -> Command {
    let mut shell = Command::new("sh");
    let script = r#"log=$0; cd "$(dirname "$log")"; ulimit -c unlimited; exec "$@" --log trace 2> "$log""#;
    // The level comes after the command that `Node::start_as` adds.
    shell.args(["-c", script]).arg(log).arg(refuge().get_program());
    shell.env("XDG_CONFIG_HOME", "/nonexistent/refuge-tests");
    shell.stdin(Stdio::null());
    shell
}

fn files_hold_none(folder: &Path, canaries: &[&str]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_hold_none(&path, canaries);
        } else {
            holds_none(&path, canaries);
        }
    }
}

fn holds_none(path: &Path, canaries: &[&str]) {
    let bytes = fs::read(path).unwrap();
    for canary in canaries {
        let there = bytes
            .windows(canary.len())
            .any(|window| window == canary.as_bytes());
        assert!(!there, "{} holds {canary}", path.display());
    }
}
