//! Disks that are adopted, pulled, plugged in again, full, failing or hostile (R8, R9, R28, S14): a node with its board edge
//! and the helper, over a real socket, on real file systems in loop devices. The kernel's tree of devices is a folder, so
//! that a disk can be pulled. Needs root; skipped with a word about it elsewhere.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::stat::{major, minor};
use refuge::board::{self, HelperOptions};
use refuge::id::StoreName;
use refuge::node::{
    self, Adoption, Blobs, Class, Disk, DiskTrouble, Done, Error, HealthState, Holds, Node, Order,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::fault::seed;
use crate::served::PATIENCE;
use crate::support::refuge;

const DISK_BYTES: u64 = 64 * 1024 * 1024;
const SERIAL: &str = "575834314135";

/// How often a change that comes by itself is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A node on a box whose disks the test plugs and pulls.
struct BoxWithDisks {
    node: Node,
    runtime: Runtime,
    shutdown: CancellationToken,
    folder: TempDir,
}

/// A disk: an image in a loop device. Let go of when dropped.
pub(crate) struct Usb {
    device: PathBuf,
    _image: TempDir,
}

fn run(program: &str, arguments: &[&Path]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

impl Usb {
    pub(crate) fn new_or_skip() -> Option<Usb> {
        let made = Usb::new();
        if let Err(reason) = &made {
            seed::skip(&format!("no loop device can be used here ({reason})"));
        }
        made.ok()
    }

    fn new() -> Result<Usb, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(DISK_BYTES).map_err(|error| error.to_string())?;
        let device = run("losetup", &["--find".as_ref(), "--show".as_ref(), &image])?;
        Ok(Usb {
            device: device.into(),
            _image: folder,
        })
    }

    fn numbers(&self) -> String {
        let device = self.device.metadata().unwrap().rdev();
        format!("{}:{}", major(device), minor(device))
    }

    pub(crate) fn format(&self, label: &str) {
        let arguments = ["-q", "-F", "-L", label].map(Path::new);
        run("mkfs.ext4", &[&arguments[..], &[&self.device]].concat()).unwrap();
    }

    /// Does something in its file system, as another machine would.
    pub(crate) fn mounted(&self, work: impl FnOnce(&Path)) {
        let at = tempfile::tempdir().unwrap();
        run("mount", &[&self.device, at.path()]).unwrap();
        work(at.path());
        run("umount", &[at.path()]).unwrap();
    }

    pub(crate) fn format_fat(&self, label: &str) {
        let arguments = ["-F", "32", "-n", label].map(Path::new);
        run("mkfs.vfat", &[&arguments[..], &[&self.device]].concat()).unwrap();
    }

    /// Plugs it in, as the kernel shows it below that folder.
    pub(crate) fn plug(&self, folder: &Path, name: &str, sequence: u32) {
        let device = folder.join("sys/devices").join(name);
        fs::create_dir_all(device.join("device")).unwrap();
        let sectors = (DISK_BYTES / 512).to_string();
        for (attribute, value) in [
            ("dev", self.numbers().as_str()),
            ("ro", "0"),
            ("size", &sectors),
            ("diskseq", &sequence.to_string()),
            ("device/model", "Test Disk"),
            ("serial", SERIAL),
        ] {
            fs::write(device.join(attribute), format!("{value}\n")).unwrap();
        }
        symlink(&self.device, folder.join("dev").join(name)).unwrap();
        symlink(&device, folder.join("sys/dev/block").join(self.numbers())).unwrap();
        symlink(&device, folder.join("sys/block").join(name)).unwrap();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.device).unwrap()
    }
}

impl Drop for Usb {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", &["--detach".as_ref(), &self.device]) {
            eprintln!("{error}");
        }
    }
}

impl BoxWithDisks {
    fn new() -> BoxWithDisks {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["sys/block", "sys/dev/block", "dev", "disks"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(
            at("board.toml"),
            "name = 'x'\ntitle = 'X'\n[storage]\ndisk = 'mmcblk*'\n",
        )
        .unwrap();
        serve_helper(&at("helper"), options(folder.path()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let node = Node::open(node::Options::new(at("data"))).unwrap();
        let shutdown = CancellationToken::new();
        let (opened, told) = oneshot::channel();
        let board = board::Options {
            profile: at("board.toml"),
            disks: at("disks"),
            sys: at("sys"),
            helper: at("helper"),
            updater: at("updater"),
            allowed: Vec::new(),
            localtime: at("localtime"),
        };
        runtime.spawn(board::run(told, board, shutdown.clone()));
        assert!(opened.send(node.clone()).is_ok());
        let served = BoxWithDisks {
            node,
            runtime,
            shutdown,
            folder,
        };
        // The board edge takes orders once it knows the node.
        served.until("the board edge", |_| served.ask(Order::Identify).is_ok());
        served
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn plug(&self, usb: &Usb, name: &str, sequence: u32) {
        usb.plug(self.folder.path(), name, sequence);
    }

    fn pull(&self, usb: &Usb, name: &str) {
        fs::remove_file(self.at("sys/block").join(name)).unwrap();
        fs::remove_file(self.at("sys/dev/block").join(usb.numbers())).unwrap();
        fs::remove_file(self.at("dev").join(name)).unwrap();
    }

    fn ask(&self, order: Order) -> Result<Done, Error> {
        self.runtime.block_on(self.node.board().ask(order))
    }

    fn disks(&self) -> Vec<Disk> {
        match self.ask(Order::Disks).unwrap() {
            Done::Disks(disks) => disks,
            other => panic!("{other:?}"),
        }
    }

    fn adopt(&self, name: &str, serial: &str, may_format: bool) -> Result<Done, Error> {
        self.ask(Order::Adopt(Adoption {
            disk: name.parse().unwrap(),
            serial: serial.parse().unwrap(),
            may_format,
            store: usb_store(),
        }))
    }

    fn blobs(&self) -> Result<Blobs, Error> {
        self.node.stores().get(&usb_store())
    }

    fn put(&self, text: &str) -> Result<node::Put, Error> {
        let put = async {
            self.blobs()?
                .put(text.to_owned().into(), Class::Pinned, None)
                .await
        };
        self.runtime.block_on(put)
    }

    fn read(&self, put: node::Put) -> String {
        let read = async { self.blobs().unwrap().read(put.id, 1000).await };
        String::from_utf8(self.runtime.block_on(read).unwrap().to_vec()).unwrap()
    }

    /// Waits until something that happens by itself has happened.
    fn until(&self, what: &str, mut is_so: impl FnMut(&BoxWithDisks) -> bool) {
        let ends = std::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(std::time::Instant::now() < ends, "{what} never comes");
            let mut ticks = self.runtime.block_on(async {
                tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY)
            });
            self.runtime.block_on(ticks.tick());
        }
    }

    fn is_online(&self) -> bool {
        self.blobs().is_ok()
    }

    /// The mounts below the folder of disks: their options.
    fn mounts(&self) -> Vec<String> {
        let disks = self.at("disks");
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = text.lines().filter(|line| line.contains(disks.to_str().unwrap()));
        ours.map(str::to_owned).collect()
    }
}

impl Drop for BoxWithDisks {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for line in self.mounts() {
            let at = line.split(' ').nth(4).unwrap_or_default();
            if let Err(error) = run("umount", &["--lazy".as_ref(), at.as_ref()]) {
                eprintln!("{error}");
            }
        }
    }
}

fn options(folder: &Path) -> HelperOptions {
    HelperOptions {
        disks: folder.join("disks"),
        sys: folder.join("sys"),
        dev: folder.join("dev"),
        ..HelperOptions::new(0, 0, "mmcblk*".to_owned())
    }
}

fn usb_store() -> StoreName {
    "usb".parse().unwrap()
}

/// One helper for each connection, as a service manager does it. Ends with the test's process.
fn serve_helper(socket: &Path, options: HelperOptions) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let options = options.clone();
            std::thread::spawn(move || {
                if let Err(error) = board::help(connection.unwrap(), &options) {
                    eprintln!("helper: {error}");
                }
            });
        }
    });
}

fn trouble(asked: Result<Done, Error>) -> DiskTrouble {
    match asked {
        Err(Error::Disk(trouble)) => trouble,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r28_a_disk_is_adopted_pulled_and_back_by_itself_and_no_other_takes_its_place() {
    let (Some(usb), Some(other)) = (Usb::new_or_skip(), Usb::new_or_skip()) else {
        return;
    };
    let served = BoxWithDisks::new();
    assert_eq!(trouble(served.adopt("sda", SERIAL, true)), DiskTrouble::Absent);
    served.plug(&usb, "sda", 1);
    let disks = served.disks();
    assert_eq!((disks.len(), &disks[0].holds), (1, &Holds::Nothing));
    assert_eq!(
        (disks[0].serial.as_str(), disks[0].size_bytes),
        (SERIAL, DISK_BYTES)
    );
    assert_eq!(
        trouble(served.adopt("sda", "575834314136", true)),
        DiskTrouble::Serial
    );
    assert_eq!(
        served.disks()[0].holds,
        Holds::Nothing,
        "a wrong serial writes nothing"
    );
    assert_eq!(
        served.adopt("sda", SERIAL, false).unwrap(),
        Done::Store(usb_store())
    );
    for option in ["nosuid", "nodev", "noexec", "nosymfollow"] {
        assert!(served.mounts()[0].contains(option), "{:?}", served.mounts());
    }
    let kept = served.put("kept").unwrap();
    assert_eq!(
        served.adopt("sda", SERIAL, false).unwrap(),
        Done::Store(usb_store()),
        "once more"
    );

    for (round, name) in [(2, "sdb"), (3, "sdc"), (4, "sdd")] {
        let before = if round == 2 {
            "sda"
        } else {
            ["sdb", "sdc"][round as usize - 3]
        };
        served.pull(&usb, before);
        served.until("the end of the store", |served| !served.is_online());
        let refused = served.put("lost");
        assert!(matches!(&refused, Err(Error::Offline { .. })), "{refused:?}");
        assert_eq!(served.node.health().report().state, HealthState::Degraded);
        let main = served.node.stores().main();
        served
            .runtime
            .block_on(main.put("main".into(), Class::Pinned, None))
            .unwrap();
        served.until("the end of the mount", |served| served.mounts().is_empty());

        other.format("photos");
        let foreign = other.bytes();
        served.plug(&other, "sdz", 100 + round);
        let listed = served.disks();
        assert!(matches!(&listed[0].holds, Holds::Foreign { what } if what[0].contains("photos")));
        assert!(!served.is_online() && served.mounts().is_empty());
        assert!(
            other.bytes() == foreign,
            "nothing was written to a disk of others"
        );
        served.pull(&other, "sdz");

        served.plug(&usb, name, round);
        served.until("the store", BoxWithDisks::is_online);
        assert_eq!(served.read(kept), "kept");
        served.put(&format!("round {round}")).unwrap();
    }

    served.ask(Order::Eject(usb_store())).unwrap();
    assert!(!served.is_online() && served.mounts().is_empty());
    usb.mounted(|root| assert!(root.join("store").is_dir(), "it can be read elsewhere"));
    served.pull(&usb, "sdd");
    served.plug(&usb, "sde", 9);
    served.until("the store after an eject", BoxWithDisks::is_online);
    assert_eq!(served.read(kept), "kept");
}

#[test]
fn a_disk_of_others_is_named_and_formatted_only_when_told_so() {
    let Some(usb) = Usb::new_or_skip() else {
        return;
    };
    let served = BoxWithDisks::new();
    usb.format("photos");
    served.plug(&usb, "sda", 1);
    let before = usb.bytes();
    let refused = trouble(served.adopt("sda", SERIAL, false));
    assert!(
        matches!(&refused, DiskTrouble::Foreign { what } if what == &["ext4 \"photos\""]),
        "{refused}"
    );
    assert_eq!(trouble(served.adopt("sda", "1", true)), DiskTrouble::Serial);
    assert!(usb.bytes() == before, "nothing was written");
    served.adopt("sda", SERIAL, true).unwrap();
    let kept = served.put("kept").unwrap();
    // The box that had it first is gone; another takes what is on it.
    let second = BoxWithDisks::new();
    served.ask(Order::Eject(usb_store())).unwrap();
    drop(served);
    second.plug(&usb, "sda", 1);
    assert!(matches!(second.disks()[0].holds, Holds::Refuge { .. }));
    second.adopt("sda", SERIAL, true).unwrap();
    assert_eq!(second.read(kept), "kept", "a disk of a node is never formatted");
}

#[test]
fn the_disk_of_the_box_and_one_in_use_are_left_alone() {
    let Some(usb) = Usb::new_or_skip() else {
        return;
    };
    let served = BoxWithDisks::new();
    usb.format("system");
    served.plug(&usb, "mmcblk0", 1);
    assert_eq!(
        trouble(served.adopt("mmcblk0", SERIAL, true)),
        DiskTrouble::System
    );
    served.pull(&usb, "mmcblk0");
    served.plug(&usb, "sda", 2);
    usb.mounted(|_| assert_eq!(trouble(served.adopt("sda", SERIAL, true)), DiskTrouble::System));
}

#[test]
fn r8_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(usb) = Usb::new_or_skip() else {
        return;
    };
    let served = BoxWithDisks::new();
    served.plug(&usb, "sda", 1);
    served.adopt("sda", SERIAL, false).unwrap();
    let blobs = served.blobs().unwrap();
    let mut kept = Vec::new();
    let full = loop {
        let bytes = vec![u8::try_from(kept.len()).unwrap(); 4 * 1024 * 1024];
        match served
            .runtime
            .block_on(blobs.put(bytes.into(), Class::Pinned, None))
        {
            Ok(put) => kept.push(put.id),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::NoSpace { .. }), "{full}");
    served.runtime.block_on(blobs.delete(kept[..2].to_vec())).unwrap();
    served.put("there is room").unwrap();
    assert_eq!(
        served.node.health().report().state,
        HealthState::Degraded,
        "it is nearly full"
    );
}

#[test]
fn r9_a_disk_that_turns_read_only_is_checked_and_back() {
    let Some(usb) = Usb::new_or_skip() else {
        return;
    };
    let served = BoxWithDisks::new();
    served.plug(&usb, "sda", 1);
    served.adopt("sda", SERIAL, false).unwrap();
    let kept = served.put("kept").unwrap();
    let mounted = served.mounts()[0].split(' ').nth(4).unwrap().to_owned();
    run("mount", &["-o", "remount,abort", &mounted].map(Path::new)).unwrap();
    let refused = served.put("lost");
    assert!(
        matches!(&refused, Err(Error::ReadOnly { .. } | Error::Offline { .. })),
        "{refused:?}"
    );
    served.until("a store that takes writes", |served| served.put("again").is_ok());
    assert_eq!(served.read(kept), "kept");
}

#[test]
fn s14_what_is_on_a_disk_is_data_and_leads_nowhere() {
    let Some(usb) = Usb::new_or_skip() else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let before = fs::metadata(outside.path()).unwrap();
    let id = node_id_of("x");
    let evil: [&dyn Fn(&Path); 5] = [
        &|store| symlink(outside.path(), store).unwrap(),
        &|store| {
            fs::create_dir(store).unwrap();
            symlink(outside.path(), store.join("blobs")).unwrap();
            symlink("/etc/passwd", store.join("refuge-fs")).unwrap();
        },
        &|store| {
            fs::create_dir_all(store.join("new")).unwrap();
            run("mkfifo", &[&store.join("refuge-fs")]).unwrap();
        },
        &|store| {
            whole(store);
            fs::create_dir_all(store.join(&id).parent().unwrap()).unwrap();
            run("mkfifo", &[&store.join(&id)]).unwrap();
        },
        &|store| {
            whole(store);
            fs::create_dir_all(store.join(&id).parent().unwrap()).unwrap();
            symlink(outside.path().join("secret"), store.join(&id)).unwrap();
        },
    ];
    for (number, make) in evil.iter().enumerate() {
        usb.format("refuge-disk");
        usb.mounted(|root| make(&root.join("store")));
        let served = BoxWithDisks::new();
        served.plug(&usb, "sda", 1);
        if let Ok(adopted) = served.adopt("sda", SERIAL, false) {
            assert_eq!(adopted, Done::Store(usb_store()), "{number}");
            let blobs = served.blobs().unwrap();
            let read = served
                .runtime
                .block_on(blobs.read(refuge::id::BlobId::of(b"x"), 100));
            assert!(read.is_err(), "{number}: {read:?}");
            served
                .put("y")
                .unwrap_or_else(|error| panic!("{number}: {error}"));
        }
        drop(served);
    }
    let after = fs::metadata(outside.path()).unwrap();
    assert_eq!(
        (after.mode(), after.uid(), after.mtime_nsec()),
        (before.mode(), before.uid(), before.mtime_nsec())
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(!fs::metadata("/etc/passwd").unwrap().file_type().is_fifo());
}

/// Where the blob of these bytes is in a store.
fn node_id_of(text: &str) -> String {
    let id = refuge::id::BlobId::of(text.as_bytes()).to_string();
    let hex = id.rsplit(';').next().unwrap().to_owned();
    format!("blobs/{}/{}/{hex}", &hex[..2], &hex[2..3])
}

/// A store as a node leaves it.
fn whole(store: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let path = store.to_str().unwrap();
    let data = dir.path().join("data");
    let mut serve = refuge();
    Node::open(node::Options::new(&data)).map(drop).unwrap();
    serve.args(["store", "add", "usb", "--backend", "fs", "--path", path, "--data"]);
    assert!(serve.arg(&data).status().unwrap().success());
}

#[test]
fn strangers_get_no_answer_and_what_is_no_command_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = UnixStream::pair().unwrap();
    let me = nix::unistd::geteuid().as_raw();
    if me == 0 {
        let socket = folder.path().join("helper");
        let listener = UnixListener::bind(&socket).unwrap();
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(folder.path(), anybody).unwrap();
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let script = "import socket, sys\n\
                      s = socket.socket(socket.AF_UNIX)\n\
                      s.connect(sys.argv[1])\n\
                      try:\n\
                      \x20s.sendall(b'{\"command\":\"disks\"}\\n')\n\
                      \x20answer = s.recv(10)\n\
                      except ConnectionError: answer = b''\n\
                      sys.exit(len(answer))";
        let mut stranger = Command::new("/usr/bin/setpriv");
        stranger.args([
            "--reuid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            script,
        ]);
        match stranger.arg(&socket).spawn() {
            Ok(mut stranger) => {
                let connection = listener.accept().unwrap().0;
                let refused = board::help(connection, &options(folder.path()));
                assert!(
                    matches!(refused, Err(board::Error::Stranger { user: 65534 })),
                    "{refused:?}"
                );
                assert_eq!(stranger.wait().unwrap().code(), Some(0), "it was answered");
            }
            Err(error) => seed::skip(&format!("nobody else can be here ({error})")),
        }
    }
    // Whoever may ask is heard, and not obeyed in what there is not.
    (&one)
        .write_all(b"{\"command\":\"run\",\"program\":\"/bin/sh\"}\n")
        .unwrap();
    let allowed = HelperOptions {
        user: me,
        ..options(folder.path())
    };
    assert!(matches!(board::help(two, &allowed), Err(board::Error::Helper(_))));
    let mut answer = String::new();
    (&one).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
}

#[test]
fn the_program_answers_one_command_on_its_standard_input() {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
    let Some(user) = user else {
        return seed::skip("this user has no name");
    };
    let (mut one, two) = UnixStream::pair().unwrap();
    one.write_all(b"{\"command\":\"disks\"}\n").unwrap();
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("board/qemu-arm/board.toml");
    // The command holds a copy of the connection, which ends only with it.
    let mut helper = refuge()
        .args(["board", "helper", "--user", &user.name, "--board"])
        .arg(profile)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(two)))
        .spawn()
        .unwrap();
    let mut answer = String::new();
    one.read_to_string(&mut answer).unwrap();
    assert!(helper.wait().unwrap().success());
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["answer"], "disks");
    let disks: Vec<Disk> = serde_json::from_value(answer["disks"].clone()).unwrap();
    // The disk that this system runs on is the system's, whatever the profile says.
    let root = fs::metadata("/").unwrap().dev();
    let root = format!("/sys/dev/block/{}:{}", major(root), minor(root));
    let root = Path::new(&root).canonicalize().unwrap_or_default();
    for disk in disks {
        if root
            .components()
            .any(|part| part.as_os_str() == disk.name.as_str())
        {
            assert_eq!(disk.holds, Holds::System, "{}", disk.name);
        }
    }
}

#[test]
fn main_moves_onto_a_disk_and_back_and_the_node_answers_while_the_disk_is_pulled() {
    let Some(usb) = Usb::new_or_skip() else {
        return;
    };
    let served = BoxWithDisks::new();
    let main = StoreName::main();
    let order = |to: &str| Order::Move {
        store: StoreName::main(),
        to: to.parse().unwrap(),
    };
    let put = |text: &'static str| {
        let put = async {
            let blobs = served.node.stores().get(&StoreName::main())?;
            blobs.put(text.into(), Class::Pinned, None).await
        };
        served.runtime.block_on(put)
    };
    let read = |put: node::Put| {
        let read = async {
            served
                .node
                .stores()
                .get(&StoreName::main())?
                .read(put.id, 1000)
                .await
        };
        served.runtime.block_on(read)
    };
    let is_moving = |served: &BoxWithDisks| served.node.stores().list()[0].moving.is_some();
    let on_card = put("put on the card").unwrap();
    served.plug(&usb, "sda", 1);
    assert!(
        matches!(served.ask(order("sda")), Err(Error::Invalid { what: "to", .. })),
        "not adopted"
    );
    served.adopt("sda", SERIAL, false).unwrap();
    served.put("in the way").unwrap();
    assert!(matches!(served.ask(order("sda")), Err(Error::Conflict { .. })));
    let id = served
        .runtime
        .block_on(served.blobs().unwrap().list(None, 1))
        .unwrap()[0]
        .id;
    served
        .runtime
        .block_on(served.blobs().unwrap().delete(vec![id]))
        .unwrap();

    served.ask(order("sda")).unwrap();
    served.until("the end of the move", |served| !is_moving(served));
    assert!(served.blobs().is_err(), "the empty store gave its place");
    let on_disk = put("put on the disk").unwrap();
    assert_eq!(read(on_card).unwrap(), "put on the card");
    let volumes = served.at("data/stores/main/volumes");
    served.until("what is left on the card", |_| !volumes.exists());

    served.pull(&usb, "sda");
    served.until("the end of the store", |served| {
        served.node.stores().get(&main).is_err()
    });
    assert!(matches!(put("lost"), Err(Error::Offline { .. })));
    assert_eq!(served.node.health().report().state, HealthState::ReadOnly);
    served.runtime.block_on(served.node.progress());
    served.until("the end of the mount", |served| served.mounts().is_empty());
    served.plug(&usb, "sdb", 2);
    served.until("the store", |served| served.node.stores().get(&main).is_ok());
    assert_eq!(read(on_disk).unwrap(), "put on the disk");

    served.ask(order("card")).unwrap();
    served.until("the way back", |served| !is_moving(served));
    served.until("the end of the mount", |served| served.mounts().is_empty());
    assert_eq!(read(on_disk).unwrap(), "put on the disk");
    assert_eq!(read(on_card).unwrap(), "put on the card");
    usb.mounted(|root| assert!(!root.join("store").exists(), "nothing stays on the disk"));
}

#[test]
fn a_node_starts_and_answers_while_the_disk_of_main_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (data, disk) = (folder.path().join("data"), folder.path().join("disk"));
    fs::create_dir(&disk).unwrap();
    let runtime = Runtime::new().unwrap();
    let node = Node::open(node::Options::new(&data)).unwrap();
    let main = StoreName::main();
    let put = runtime
        .block_on(node.stores().main().put("x".into(), Class::Pinned, None))
        .unwrap();
    let to = node::BackendSettings::Fs {
        path: Some(disk.join("store")),
        shared: false,
    };
    let stores = node.stores().clone();
    runtime.block_on(stores.begin_move(&main, to)).unwrap();
    runtime
        .block_on(stores.carry_on(&main, std::sync::Arc::default()))
        .unwrap();
    drop((node, stores));
    fs::rename(&disk, folder.path().join("pulled")).unwrap();
    let node = Node::open(node::Options::new(&data)).unwrap();
    assert!(matches!(node.stores().get(&main), Err(Error::Offline { .. })));
    assert!(matches!(node.stores().refs(&main), Err(Error::Offline { .. })));
    runtime.block_on(node.progress());
    runtime.block_on(node.tend()).unwrap();
    runtime.block_on(node.beat()).unwrap();
    let report = node.health().report();
    assert!(
        report.state == HealthState::ReadOnly && report.reasons[0].contains("offline"),
        "{report:?}"
    );
    fs::rename(folder.path().join("pulled"), &disk).unwrap();
    runtime.block_on(node.stores().reopen(&main)).unwrap();
    let read = runtime.block_on(node.stores().main().read(put.id, 10));
    assert_eq!(read.unwrap(), "x");
}
