//! The resolvers that other machines have: Avahi and systemd-resolved find a node, and a node finds what they announce.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::discovered;
use super::network::{INTERFACE, Lan};
use crate::fault::seed;
use crate::support::{Process, Ran};

/// Who announces itself by a resolver of others.
const OTHER: &str = "ed25519;abababababababababababababababababababababababababababababababab";

/// How long a resolver may take to start.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// A folder and processes of their own, with a message bus that lets everyone speak.
const BUS: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus/services /run/avahi-daemon /run/systemd/resolve /run/systemd/resolved.conf.d /run/systemd/dnssd
cat > /run/dbus/bus.conf <<END
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<servicedir>/run/dbus/services</servicedir><limit name="service_start_timeout">60000</limit>
<policy context="default"><allow own="*"/><allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
END
dbus-daemon --config-file=/run/dbus/bus.conf --fork --nopidfile
"#;

const AVAHI: &str = r#"
printf '[server]\nuse-ipv4=yes\nuse-ipv6=yes\nhost-name=other\n' > /run/avahi.conf
avahi-daemon --no-chroot --no-drop-root --no-rlimits --file=/run/avahi.conf --daemonize
echo ready
exec avahi-publish --service other _refuge._tcp 9999 "id=$OTHER" v=1 claimed=1
"#;

/// It insists on a user of its own. Whoever asks for it by its name on the bus has it started, and is answered once it is there.
const RESOLVED: &str = r#"
for names in passwd group; do cp /etc/$names /run/$names; mount --bind /run/$names /etc/$names; done
echo 'systemd-resolve:x:990:990::/:/bin/false' >> /etc/passwd
echo 'systemd-resolve:x:990:' >> /etc/group
chown 990:990 /run/systemd/resolve
printf '[Resolve]\nMulticastDNS=yes\nLLMNR=no\nDNSStubListener=no\n' > /run/systemd/resolved.conf.d/test.conf
printf '[Service]\nName=other\nType=_refuge._tcp\nPort=9999\nTxtText=id=%s v=1 claimed=1\n' "$OTHER" > /run/systemd/dnssd/other.dnssd
printf '[D-BUS Service]\nName=org.freedesktop.resolve1\nUser=root\nExec=%s/lib/systemd/systemd-resolved\n' "$RESOLVED" \
    > /run/dbus/services/org.freedesktop.resolve1.service
SYSTEMD_BUS_TIMEOUT=60 $RESOLVED/usr/bin/resolvectl mdns $LAN yes
echo ready
exec tail --follow /dev/null
"#;

/// A resolver on a host of the network; ends with everything it started when dropped.
struct Resolver {
    process: Process,
    path: String,
}

impl Resolver {
    fn start(lan: &Lan, host: usize, script: &str, resolved: &Path) -> Resolver {
        let mut command = lan.enter(host, "unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
        ]);
        command.arg([BUS, script].concat());
        command
            .env("OTHER", OTHER)
            .env("LAN", INTERFACE)
            .env("RESOLVED", resolved);
        let process = Process::start(command).unwrap();
        let said = process.line_within(STARTED_WITHIN).unwrap();
        assert_eq!(said, "ready");
        let path = format!("/proc/{}/ns", process.pid());
        Resolver { process, path }
    }

    /// What a program beside the resolver prints.
    fn ask(&self, program: impl AsRef<Path>, words: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={}/mnt", self.path))
            .arg(format!("--net={}/net", self.path));
        let ran = Ran::of(command.arg(program.as_ref()).args(words)).unwrap();
        assert!(
            ran.status.success(),
            "{}{}",
            ran.stderr,
            self.process.stderr_tail()
        );
        ran.stdout
    }
}

#[test]
fn avahi_finds_a_node_and_a_node_finds_what_avahi_announces() {
    if !has_all(&["avahi-daemon", "avahi-browse", "dbus-daemon", "nsenter"]) {
        return;
    }
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let node = lan.serve(0, "[::]:0");
    let avahi = Resolver::start(&lan, 1, AVAHI, Path::new(""));
    let name = own_name(&lan, &node);
    let port = node.ready.https.as_deref().unwrap().rsplit(':').next().unwrap();
    let found = (0..super::LOOKS).find_map(|_| {
        let seen = avahi.ask(
            "avahi-browse",
            &["--resolve", "--parsable", "--terminate", "_refuge._tcp"],
        );
        let is_whole = |line: &&str| line.starts_with('=') && line.contains(&name) && line.contains(port);
        seen.lines().find(is_whole).map(str::to_owned)
    });
    let found = found.expect("avahi lists the node");
    assert!(
        found.contains(&format!("\"id={}\"", node.ready.node_id)) && found.contains("\"claimed=0\""),
        "{found}"
    );
    let resolved = avahi.ask("avahi-resolve", &["-4", "--name", &name]);
    assert!(resolved.contains(&lan.address(0).to_string()), "{resolved}");
    finds_the_other(&lan, &node);
}

#[test]
fn systemd_resolved_finds_a_node_and_a_node_finds_what_it_announces() {
    let Some(resolved) = resolved_or_skip() else {
        return;
    };
    if !has_all(&["dbus-daemon", "nsenter"]) {
        return;
    }
    let Some(lan) = Lan::of_or_skip(2) else {
        return;
    };
    let node = lan.serve(0, "[::]:0");
    let resolver = Resolver::start(&lan, 1, RESOLVED, &resolved);
    let name = own_name(&lan, &node);
    finds_the_other(&lan, &node);
    let resolvectl = resolved.join("usr/bin/resolvectl");
    let addresses = resolver.ask(&resolvectl, &["query", &name]);
    assert!(addresses.contains(&lan.address(0).to_string()), "{addresses}");
    let label = name.trim_end_matches(".local");
    let service = resolver.ask(&resolvectl, &["service", label, "_refuge._tcp", "local"]);
    assert!(
        service.contains(&format!("id={}", node.ready.node_id)),
        "{service}"
    );
}

/// The node's name, once it is announced.
fn own_name(lan: &Lan, node: &crate::support::Node) -> String {
    let listed = discovered(lan, 0, |listed| {
        listed.iter().any(|line| line["id"] == node.ready.node_id)
    });
    let own = listed
        .iter()
        .find(|line| line["id"] == node.ready.node_id)
        .unwrap();
    own["host"].as_str().unwrap().to_owned()
}

/// The running node and the command both list the other.
fn finds_the_other(lan: &Lan, node: &crate::support::Node) {
    let is_other = |line: &serde_json::Value| line["id"] == OTHER && line["claimed"] == true;
    let listed = discovered(lan, 0, |listed| listed.iter().any(is_other));
    let other = listed.into_iter().find(|line| line["id"] == OTHER).unwrap();
    assert_eq!(other["found_by"], serde_json::json!(["mdns"]));
    assert_eq!(other["urls"][0], format!("https://{}:9999", lan.address(1)));
    let token = lan.inside(0, || node.claim()).unwrap();
    assert!(lan.peers(0, node, &token).iter().any(is_other));
}

fn has_all(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        !found.is_ok_and(|found| found.status.success())
    });
    if let Some(missing) = missing {
        seed::skip(&format!("{missing} is not installed (scripts/test installs it)"));
    }
    missing.is_none()
}

/// Where systemd-resolved is unpacked: installing it would change how this machine resolves names.
fn resolved_or_skip() -> Option<PathBuf> {
    let folder = std::env::var_os("REFUGE_RESOLVED").map(PathBuf::from);
    let installed = [Path::new("/").to_owned()].into_iter().chain(folder);
    let found = installed
        .into_iter()
        .find(|folder| folder.join("lib/systemd/systemd-resolved").exists());
    if found.is_none() {
        seed::skip("systemd-resolved is neither installed nor unpacked (scripts/test unpacks it)");
    }
    found
}
