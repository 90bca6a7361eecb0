//! A local network of the test's own: some hosts, each a network namespace, on one bridge.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::fault::seed;
use crate::support::{Answer, Http, Node, Ran, refuge};

/// Tells the networks of one process apart.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// The interface of each host.
pub(super) const INTERFACE: &str = "lan0";

/// A network; taken down when dropped.
pub(super) struct Lan {
    tag: String,
    hosts: usize,
    folder: tempfile::TempDir,
}

impl Lan {
    /// A network of so many hosts, or why the test is skipped.
    pub(super) fn of_or_skip(hosts: usize) -> Option<Lan> {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let lan = Lan {
            tag: format!("refuge{}-{number}", std::process::id()),
            hosts,
            folder: tempfile::tempdir().unwrap(),
        };
        match lan.set_up() {
            Ok(()) => Some(lan),
            Err(error) => {
                seed::skip(&format!("no network namespace can be made here ({error})"));
                None
            }
        }
    }

    fn set_up(&self) -> io::Result<()> {
        let switch = self.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge mcast_snooping 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for host in 0..self.hosts {
            let name = self.name(host);
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            // An address that is used at once, without looking whether somebody has it.
            self.enter(host, "sysctl")
                .args(["-q", "-w", "net.ipv6.conf.default.accept_dad=0"])
                .status()?;
            ip(&format!(
                "-n {switch} link add port{host} type veth peer name {INTERFACE} netns {name}"
            ))?;
            ip(&format!("-n {switch} link set port{host} master br0 up"))?;
            ip(&format!(
                "-n {name} addr add {}/24 dev {INTERFACE}",
                self.address(host)
            ))?;
            ip(&format!("-n {name} link set {INTERFACE} up"))?;
        }
        Ok(())
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.tag)
    }

    /// The namespace of a host.
    fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.tag)
    }

    /// The IPv4 address of a host.
    pub(super) fn address(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(host + 1).unwrap())
    }

    /// Gives a host another address, with its mask.
    pub(super) fn add_address(&self, host: usize, address: &str) {
        ip(&format!(
            "-n {} addr add {address} dev {INTERFACE}",
            self.name(host)
        ))
        .unwrap();
    }

    /// Lets a host reach `network` by another host.
    pub(super) fn add_route(&self, host: usize, network: &str, by: usize) {
        ip(&format!(
            "-n {} route add {network} via {}",
            self.name(host),
            self.address(by)
        ))
        .unwrap();
    }

    /// Takes the cable out, or puts it back.
    pub(super) fn unplug(&self, host: usize) {
        ip(&format!("-n {} link set port{host} down", self.switch())).unwrap();
    }

    pub(super) fn plug(&self, host: usize) {
        ip(&format!("-n {} link set port{host} up", self.switch())).unwrap();
    }

    /// A command on a host.
    pub(super) fn enter(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), program]);
        command
    }

    /// The program under test on a host.
    pub(super) fn refuge(&self, host: usize) -> Command {
        let program = refuge();
        let mut command = self.enter(host, &program.get_program().to_string_lossy());
        command.envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command
    }

    fn data(&self, host: usize, name: &str) -> PathBuf {
        self.folder.path().join(format!("{host}-{name}"))
    }

    /// Serves a node on a host; each listening address has a data folder of its own.
    pub(super) fn serve(&self, host: usize, listen: &str) -> Node {
        let name: String = listen.chars().filter(char::is_ascii_digit).collect();
        Node::start_listening(self.refuge(host), &self.data(host, &name), listen).unwrap()
    }

    /// Gives what was served on 0.0.0.0 of one host to another, as somebody would who copies a card.
    pub(super) fn copy_data(&self, from: usize, to: usize) {
        let (from, to) = (self.data(from, "00000"), self.data(to, "00000"));
        copy(&from, &to);
        std::fs::remove_file(to.join("lock")).unwrap();
    }

    /// What `refuge discover` says on a host.
    pub(super) fn discover(&self, host: usize) -> Vec<serde_json::Value> {
        let ran = Ran::of(self.refuge(host).args(["discover", "--json"])).unwrap();
        assert!(ran.status.success(), "{}", ran.stderr);
        let lines = ran.stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The nodes that a node on a host knows of.
    pub(super) fn peers(&self, host: usize, node: &Node, token: &str) -> Vec<serde_json::Value> {
        let answer = self.get(host, node, token, "/api/peers");
        answer.json()["peers"].as_array().unwrap().clone()
    }

    /// Asks a node on a host.
    pub(super) fn get(&self, host: usize, node: &Node, token: &str, path: &str) -> Answer {
        self.inside(host, || {
            let mut http = if token.is_empty() {
                Http::connect(node.address())?
            } else {
                node.client(token)?
            };
            http.send("GET", path, &[], &[])?.accepted()
        })
        .unwrap()
    }

    /// Runs something in a thread on a host: its sockets are that host's.
    pub(super) fn inside<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = Path::new("/run/netns").join(self.name(host));
        let enter = || {
            setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in (0..self.hosts).map(|host| self.name(host)).chain([self.switch()]) {
            if let Err(error) = ip(&format!("netns del {name}")) {
                eprintln!("{name} is left behind: {error}");
            }
        }
    }
}

fn ip(words: &str) -> io::Result<()> {
    let ran = Ran::of(Command::new("ip").args(words.split(' ')))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip {words}: {}", ran.stderr.trim())))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
