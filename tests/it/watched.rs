//! What a service manager hears of a node, on the socket that it passes in (sd_notify(3)).

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fault::strace;
use crate::support::{ANSWER_WITHIN, Node, Ran, refuge};

/// How long the watchdog waits; a node feeds it three times in that time.
const WATCHDOG: Duration = Duration::from_secs(3);

/// A service manager: a socket, and a node that was told of it.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
    /// What was heard and not waited for: the order of notices is no promise.
    heard: RefCell<Vec<String>>,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Manager {
            folder,
            socket,
            heard: RefCell::default(),
        }
    }

    fn start(&self) -> Node {
        let mut command = refuge();
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        Node::start_as(command, &self.folder.path().join("data")).unwrap()
    }

    /// The next message, where one comes in time.
    fn hears(&self, within: Duration) -> io::Result<String> {
        self.socket.set_read_timeout(Some(within))?;
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message that begins so.
    fn waits_for(&self, beginning: &str) -> String {
        let ends_at = Instant::now() + ANSWER_WITHIN;
        loop {
            let mut heard = self.heard.borrow_mut();
            if let Some(at) = heard.iter().position(|message| message.starts_with(beginning)) {
                return heard.remove(at);
            }
            assert!(Instant::now() < ends_at, "no {beginning}: {heard:?}");
            heard.push(self.hears(ANSWER_WITHIN).unwrap());
        }
    }
}

#[test]
fn a_node_says_that_it_is_ready_how_it_is_and_that_it_stops() {
    let manager = Manager::new();
    let node = manager.start();
    // It may be fed before the line is printed; ready is said once.
    manager.waits_for("READY=1");
    let status = manager.waits_for("STATUS=");
    assert_eq!(status.trim(), "STATUS=ready, waits for its owner");
    node.claim().unwrap();
    assert_eq!(manager.waits_for("STATUS=").trim(), "STATUS=ready");
    node.terminate().unwrap();
    manager.waits_for("STOPPING=1");
}

#[test]
fn the_watchdog_is_fed_for_as_long_as_there_is_progress() {
    let manager = Manager::new();
    let node = manager.start();
    for _ in 0..2 {
        manager.waits_for("WATCHDOG=1");
    }
    node.signal(Signal::SIGSTOP).unwrap();
    // What was on its way arrives; then there is silence for longer than the watchdog waits.
    while manager.hears(WATCHDOG + Duration::from_secs(1)).is_ok() {}
    node.signal(Signal::SIGCONT).unwrap();
    manager.waits_for("WATCHDOG=1");
}

#[test]
fn the_floor_of_the_clock_is_kept_in_the_data_folder() {
    let manager = Manager::new();
    let node = manager.start();
    manager.waits_for("WATCHDOG=1");
    let pulse = manager.folder.path().join("data/pulse");
    let ends_at = Instant::now() + ANSWER_WITHIN;
    while !pulse.exists() && Instant::now() < ends_at {
        manager.waits_for("WATCHDOG=1");
    }
    node.terminate().unwrap();
    let floor = refuge::node::time_floor(&manager.folder.path().join("data"));
    let ago = std::time::SystemTime::now().duration_since(floor).unwrap();
    assert!(ago < ANSWER_WITHIN * 2, "{ago:?}");
}

#[test]
fn s25_a_confined_node_serves_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start_with(refuge(), &data, &["--listen", "127.0.0.1:0", "--confine"]).unwrap();
    let token = node.claim().unwrap();
    let mut http = node.client(&token).unwrap();
    let id = http
        .send("POST", "/blobs", &[], b"kept")
        .unwrap()
        .accepted()
        .unwrap()
        .json()["id"]
        .clone();
    let path = format!("/blobs/{}", id.as_str().unwrap());
    assert_eq!(
        http.send("GET", &path, &[], &[])
            .unwrap()
            .accepted()
            .unwrap()
            .body,
        b"kept"
    );
    // A store elsewhere is refused by name, and nothing is left half made.
    let elsewhere = format!(
        r#"{{"name":"usb","backend":"fs","path":"{}"}}"#,
        folder.path().join("usb").display()
    );
    let json = ("content-type", "application/json");
    assert!(
        !http
            .send("POST", "/stores", &[json], elsewhere.as_bytes())
            .unwrap()
            .is_success()
    );
    assert_eq!(
        http.send("GET", "/stores", &[], &[])
            .unwrap()
            .accepted()
            .unwrap()
            .json()["stores"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    node.terminate().unwrap();
}

#[test]
fn s25_a_node_that_cannot_be_confined_does_not_start() {
    if !strace::works_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = refuge();
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--plain-http",
        "127.0.0.1:0",
        "--confine",
        "--data",
    ]);
    command.arg(&data);
    // A kernel without Landlock answers so.
    let without = strace::Injection {
        calls: "landlock_create_ruleset",
        what: "error=ENOSYS",
        when: "1+",
    };
    let ran = Ran::of(&mut strace::inject(&command, without, &folder.path().join("log"))).unwrap();
    assert!(!ran.status.success());
    assert!(
        ran.stderr.contains("Landlock") && ran.stderr.contains("--confine"),
        "{}",
        ran.stderr
    );
    assert!(!data.join("refuge.json").exists(), "nothing was begun");
}
