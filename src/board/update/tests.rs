//! Root's side of updates, over a real connection, with programs of the system that only write down what they were told.

mod channel;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use bytes::Bytes;
use tempfile::TempDir;

use super::record::Start;
use super::system::System;
use super::updater::{answer_for, step_of};
use super::*;
use crate::id::{StoreName, Version};
use crate::node::{self, Class, Slot};

/// Says what its manifest says, where its bytes are a manifest; writes it into the other slot.
const RAUC: &str = r#"#!/bin/sh
case $1 in
    info)
        stat -c '%a %u' "$3" >staged
        grep -q '^{' "$3" || { echo "signature verification failed: Verify error: certificate revoked" >&2; exit 1; }
        cat "$3"
        ;;
    install)
        echo "  0% Installing"
        [ ! -e broken ] || { echo "LastError: Failed to copy image: Input/output error" >&2; exit 1; }
        echo " 60% Copying image to rootfs.1"
        cat "$2" >slot
        echo "100% Installing done."
        ;;
esac
"#;
const FW_SETENV: &str = "#!/bin/sh\n[ \"$*\" = '--script -' ] && cat >>boot-state\n";
const SYSTEMCTL: &str = "#!/bin/sh\ncase $1 in show) cat restarts ;; *) echo \"$*\" >>restarted ;; esac\n";

const USER: fn() -> u32 = || nix::unistd::getuid().as_raw();

/// A box with root's folders and programs below a temporary one.
struct Fake {
    folder: TempDir,
    system: System,
}

impl Fake {
    fn new() -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["programs", "run", "share", "proc/net"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let home = folder.path().display().to_string();
        for (name, text) in [("rauc", RAUC), ("fw_setenv", FW_SETENV), ("systemctl", SYSTEMCTL)] {
            let path = at("programs").join(name);
            let text = text.replacen('\n', &format!("\ncd {home} || exit 9\n"), 1);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(at("share/version"), "0.1.0\n").unwrap();
        fs::write(at("rauc.conf"), "[system]\ncompatible=refuge-qemu-arm\n").unwrap();
        fs::write(at("restarts"), "0\n").unwrap();
        let system = System {
            folder: at("data"),
            run: at("run"),
            share: at("share"),
            rauc: at("rauc.conf"),
            proc: at("proc"),
            path: format!("{}:/usr/bin:/bin", at("programs").display()),
        };
        let fake = Fake { folder, system };
        fake.boots(Slot::A);
        fake
    }

    fn boots(&self, slot: Slot) {
        let text = format!("console=ttyAMA0 refuge.slot={0} rauc.slot={0}\n", slot.name());
        fs::write(self.at("proc/cmdline"), text).unwrap();
    }

    fn runs(&self, version: &str) {
        fs::write(self.at("share/version"), version).unwrap();
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// What a command is answered, each answer in its order; `bytes` follow when it is ready.
    fn ask(&self, command: &Command, bytes: &[u8]) -> Vec<Answer> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let system = self.system.clone();
        let helper = thread::spawn(move || answer_for(theirs, USER(), &system));
        (&ours).write_all(&crate::board::message::line(command)).unwrap();
        let mut answers = Vec::new();
        for line in BufReader::new(&ours).lines() {
            answers.push(serde_json::from_str(&line.unwrap()).unwrap());
            if answers.last() == Some(&Answer::Ready) {
                (&ours).write_all(bytes).unwrap();
                ours.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        helper.join().unwrap().unwrap();
        answers
    }

    fn install(&self, bundle: &[u8], may_be_older: bool) -> Vec<Answer> {
        let size_bytes = bundle.len() as u64;
        let command = Command::Install {
            size_bytes,
            may_be_older,
            channel: None,
        };
        self.ask(&command, bundle)
    }

    fn refusal(&self, bundle: &[u8]) -> UpdateTrouble {
        match self.install(bundle, false).pop() {
            Some(Answer::Trouble { trouble }) => trouble,
            other => panic!("{other:?}"),
        }
    }

    /// How the node hears that it is.
    fn state(&self) -> (Version, Slot, bool, Option<Vec<String>>, Option<Version>) {
        match self.ask(&Command::State, b"").pop() {
            Some(Answer::State {
                running,
                slot,
                is_on_trial,
                last,
                before,
                ..
            }) => (running, slot, is_on_trial, last.map(|last| last.reasons), before),
            other => panic!("{other:?}"),
        }
    }

    /// The box starts from a slot, up to where it would be judged.
    fn starts(&self, slot: Slot, version: &str) {
        self.boots(slot);
        self.runs(version);
        let _ = fs::remove_file(self.at("run/examined.json"));
    }

    /// The boot state, as all that was written to it leaves it.
    fn boot_state(&self) -> std::collections::BTreeMap<String, String> {
        let text = self.text("boot-state");
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

fn bundle(version: &str) -> Vec<u8> {
    format!("{{\"compatible\":\"refuge-qemu-arm\",\"version\":\"{version}\",\"hooks\":[]}}").into_bytes()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

#[test]
fn a_bundle_is_staged_for_root_alone_checked_written_and_started() {
    let fake = Fake::new();
    let answers = fake.install(&bundle("0.2.0"), false);
    let expected = [
        Answer::Ready,
        Answer::Checking,
        Answer::Found {
            version: version("0.2.0"),
        },
        Answer::Installing { percent: 0 },
        Answer::Installing { percent: 60 },
        Answer::Installing { percent: 100 },
        Answer::Restarting,
    ];
    assert_eq!(answers, expected);
    assert_eq!(fake.text("slot").as_bytes(), bundle("0.2.0"));
    assert_eq!(fake.text("staged").trim(), format!("600 {}", USER()));
    assert_eq!(fs::metadata(fake.at("data")).unwrap().mode() & 0o777, 0o700);
    assert!(!fake.at("data/bundle.raucb").exists());
    assert_eq!(fake.text("boot-state"), "BOOT_ORDER=B A\nBOOT_B_LEFT=3\n");
    assert_eq!(fake.text("restarted"), "--no-block reboot\n");
    let Start::OnTrial(trial) = fake.system.record().start(Slot::B) else {
        panic!("nothing is on trial");
    };
    assert!(trial.is_armed && trial.version == version("0.2.0") && trial.from == version("0.1.0"));
}

#[test]
fn s23_what_is_not_taken_leaves_slots_and_boot_state_alone() {
    let fake = Fake::new();
    let is = |trouble: UpdateTrouble, text: &str| assert!(trouble.to_string().contains(text), "{trouble}");
    is(fake.refusal(b"no bundle"), "certificate revoked");
    is(
        fake.refusal(b"{\"compatible\":\"refuge-qemu-arm\",\"version\":\"new\"}"),
        "manifest",
    );
    is(fake.refusal(&bundle("0.0.9")), "version 0.0.9");
    is(fake.refusal(&bundle("0.1.0")), "version 0.1.0");
    is(fake.refusal(&bundle("0.1.0-rc.1")), "version 0.1.0-rc.1");
    let other = String::from_utf8(bundle("0.2.0"))
        .unwrap()
        .replace("qemu-arm", "beaglebone");
    is(fake.refusal(other.as_bytes()), "refuge-beaglebone");
    // Cut off on its way.
    let command = Command::Install {
        size_bytes: 1000,
        may_be_older: false,
        channel: None,
    };
    let cut = fake.ask(&command, &bundle("0.2.0"));
    assert!(matches!(cut.last(), Some(Answer::Trouble { .. })), "{cut:?}");
    // No card has that much room, and no slot.
    let huge = Command::Install {
        size_bytes: u64::MAX,
        may_be_older: false,
        channel: None,
    };
    assert!(matches!(fake.ask(&huge, b"")[..], [Answer::Trouble { .. }]));
    assert_eq!(
        fake.text("boot-state") + &fake.text("slot") + &fake.text("restarted"),
        ""
    );
    assert!(!fake.at("data/bundle.raucb").exists());
    // The owner's word is enough for an older one, and for nothing else.
    assert_eq!(
        fake.install(&bundle("0.0.9"), true).last(),
        Some(&Answer::Restarting)
    );
}

#[test]
fn a_slot_that_cannot_be_written_is_not_started_and_nothing_can_be_gone_back_to() {
    let fake = Fake::new();
    fs::write(fake.at("broken"), "").unwrap();
    let trouble = fake.refusal(&bundle("0.2.0"));
    assert!(trouble.to_string().contains("Input/output error"), "{trouble}");
    assert_eq!(fake.text("boot-state"), "");
    assert_eq!(fake.state(), (version("0.1.0"), Slot::A, false, None, None));
}

#[test]
fn one_update_at_a_time() {
    let fake = Fake::new();
    let lock = fs::File::create(fake.at("run/update.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(fake.refusal(&bundle("0.2.0")), UpdateTrouble::Busy);
    drop(lock);
    fake.install(&bundle("0.2.0"), false);
    fake.starts(Slot::B, "0.2.0");
    assert_eq!(
        fake.refusal(&bundle("0.3.0")),
        UpdateTrouble::Busy,
        "not before it was judged"
    );
}

#[test]
fn a_system_that_is_well_stays_and_is_gone_back_from_by_hand() {
    let fake = Fake::new();
    fake.install(&bundle("0.2.0"), false);
    fake.starts(Slot::B, "0.2.0");
    assert!(fake.state().2);
    assert_eq!(
        fake.ask(&Command::Examined { reasons: vec![] }, b""),
        [Answer::Done]
    );
    step_of(&fake.system, UpdaterStep::Judge).unwrap();
    step_of(&fake.system, UpdaterStep::Settled).unwrap();
    let good = Some(Vec::new());
    assert_eq!(
        fake.state(),
        (
            version("0.2.0"),
            Slot::B,
            false,
            good.clone(),
            Some(version("0.1.0"))
        )
    );
    // A start like any other.
    fake.starts(Slot::B, "0.2.0");
    step_of(&fake.system, UpdaterStep::Judge).unwrap();
    assert_eq!(fake.ask(&Command::Rollback, b""), [Answer::Restarting]);
    assert_eq!(fake.boot_state()["BOOT_ORDER"], "A B");
    fake.starts(Slot::A, "0.1.0");
    fake.ask(&Command::Examined { reasons: vec![] }, b"");
    step_of(&fake.system, UpdaterStep::Judge).unwrap();
    step_of(&fake.system, UpdaterStep::Settled).unwrap();
    assert_eq!(
        fake.state(),
        (version("0.1.0"), Slot::A, false, good, Some(version("0.2.0")))
    );
}

#[test]
fn a_system_that_is_not_well_is_left_and_the_old_one_says_why() {
    let fake = Fake::new();
    fake.install(&bundle("0.2.0"), false);
    fake.starts(Slot::B, "0.2.0");
    let reasons = vec!["the store main takes no writes: EIO".to_owned()];
    fake.ask(
        &Command::Examined {
            reasons: reasons.clone(),
        },
        b"",
    );
    step_of(&fake.system, UpdaterStep::Judge).unwrap_err();
    let state = fake.boot_state();
    assert_eq!((&*state["BOOT_ORDER"], &*state["BOOT_B_LEFT"]), ("A B", "0"));
    assert_eq!(fake.text("restarted").lines().count(), 2);
    fake.starts(Slot::A, "0.1.0");
    assert_eq!(
        fake.state(),
        (version("0.1.0"), Slot::A, false, Some(reasons), None)
    );
    assert_eq!(
        fake.ask(&Command::Rollback, b"").pop(),
        Some(Answer::Trouble {
            trouble: UpdateTrouble::NothingBefore
        })
    );
}

#[test]
fn a_node_that_does_not_start_is_found_by_how_often_it_ended() {
    let fake = Fake::new();
    fake.install(&bundle("0.2.0"), false);
    fake.starts(Slot::B, "0.2.0");
    fs::write(fake.at("restarts"), "4\n").unwrap();
    let given_up = step_of(&fake.system, UpdaterStep::Judge).unwrap_err();
    assert!(given_up.to_string().contains("ended 4 times"), "{given_up}");
}

#[test]
fn a_system_that_never_came_up_is_told_of_by_the_old_one() {
    let fake = Fake::new();
    fake.install(&bundle("0.2.0"), false);
    // The boot loader used its attempts up.
    fake.starts(Slot::A, "0.1.0");
    step_of(&fake.system, UpdaterStep::Judge).unwrap();
    let (_, _, is_on_trial, last, before) = fake.state();
    assert!(!is_on_trial && before.is_none() && last.unwrap()[0].contains("three attempts"));
    step_of(&fake.system, UpdaterStep::Settled).unwrap();
    assert_eq!(fake.state().3.unwrap().len(), 1, "it is told of from now on");
    assert_eq!(
        fake.boot_state()["BOOT_ORDER"],
        "A B",
        "the one that failed is not tried first any more"
    );
}

/// The helper's side of a stick, which has these bundles at its top.
fn serve_stick(socket: PathBuf, files: &[(&'static str, Vec<u8>)]) {
    let listener = UnixListener::bind(socket).unwrap();
    let files = files.to_vec();
    // Ends with the test's process.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut line = String::new();
            BufReader::new(&connection).read_line(&mut line).unwrap();
            let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&asked["command"], &asked["from"]), (&"read".into(), &0.into()));
            let (_, bytes) = files.iter().find(|(name, _)| asked["name"] == *name).unwrap();
            let size_bytes = bytes.len();
            let head = format!("{{\"answer\":\"content\",\"size_bytes\":{size_bytes},\"changed_s\":1}}\n");
            // The node may have heard enough.
            let _ = connection.write_all(&[head.as_bytes(), bytes].concat());
        }
    });
}

/// What `owner` does beside the node's side and root's.
async fn beside<T>(fake: &Fake, node: &Node, owner: impl Future<Output = T>) -> T {
    let socket = fake.at("updater.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let system = fake.system.clone();
    // Ends with the test's process.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let system = system.clone();
            thread::spawn(move || answer_for(connection.unwrap(), USER(), &system));
        }
    });
    let mut desk = node.board().orders().unwrap();
    let (orders, taken) = mpsc::channel(1);
    let reach = Reach {
        updater: socket,
        helper: fake.at("helper.sock"),
        allowed: Vec::new(),
        localtime: fake.at("localtime"),
    };
    let updating = Updating::run(node.clone(), reach, taken);
    let passed_on = async {
        while let Some(asked) = desk.recv().await {
            orders.send(asked).await.unwrap();
        }
    };
    tokio::select! {
        done = owner => done,
        ended = updating => panic!("the edge ended: {ended:?}"),
        () = passed_on => panic!("the desk ended"),
    }
}

async fn until_told(node: &Node, is_so: impl Fn(&Updates) -> bool) -> Updates {
    loop {
        match node.board().updates().filter(&is_so) {
            Some(updates) => return updates,
            None => tokio::task::yield_now().await,
        }
    }
}

/// What comes of an update: `None` where the box restarts.
async fn install(node: &Node, source: Source, may_be_older: bool) -> Option<UpdateTrouble> {
    let wanted = Installation { source, may_be_older };
    node.board().ask(Order::Install(wanted)).await.unwrap();
    let is_over = |updates: &Updates| {
        updates.step == Step::Restarting || (updates.step == Step::Idle && updates.refused.is_some())
    };
    until_told(node, is_over).await.refused
}

/// The node's side as well, with a bundle in its store.
#[tokio::test]
async fn the_node_has_a_bundle_of_its_store_installed_and_tells_how_far_it_is() {
    let fake = Fake::new();
    let node = Node::open(node::Options::new(fake.at("node"))).unwrap();
    let main = node.stores().get(&StoreName::main()).unwrap();
    let put = async |version| {
        let put = main.put(Bytes::from(bundle(version)), Class::Pinned, None).await;
        Source::Blob {
            store: StoreName::main(),
            blob: put.unwrap().id,
        }
    };
    let (older, newer) = (put("0.0.1").await, put("0.2.0").await);
    let owner = async {
        let updates = until_told(&node, |_| true).await;
        assert_eq!((updates.step, updates.slot), (Step::Idle, Slot::A));
        let refused = install(&node, older, false).await;
        assert!(matches!(refused, Some(UpdateTrouble::Older { .. })));
        assert_eq!(install(&node, newer, false).await, None);
    };
    beside(&fake, &node, owner).await;
    assert_eq!(fake.text("slot").as_bytes(), bundle("0.2.0"));
}
