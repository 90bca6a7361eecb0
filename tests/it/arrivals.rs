//! Ways by which a bundle comes to a box, over real sockets: from a server, from another box, from a disk. What installs it is a
//! stand-in that speaks the updater's protocol; what RAUC does with it is tested beside that.

mod lan;
mod stick;
mod url;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use refuge::api::{self, serve};
use refuge::board::{self, HelperOptions};
use refuge::id::{BlobId, StoreName};
use refuge::node::{
    self, Class, Done, Error, Installation, Node, Order, Source, Step, UpdateTrouble, Updates,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::served::PATIENCE;

/// How often a change that comes by itself is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A box that runs one version and takes bundles. Starting it anew is dropping it and opening its folder.
struct TestBox {
    node: Node,
    runtime: Runtime,
    shutdown: CancellationToken,
    folder: Arc<TempDir>,
    https: SocketAddr,
    /// What leads to it, where something does.
    wire: Option<Wire>,
}

impl TestBox {
    fn new(running: &str) -> TestBox {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        TestBox::open(folder, running, None)
    }

    /// A box that others reach over a line on which bytes are counted.
    fn behind(wire: &Wire, running: &str) -> TestBox {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        TestBox::open(folder, running, Some(wire.clone()))
    }

    /// As after a restart into the system that was installed.
    fn restarted(self, running: &str) -> TestBox {
        let (folder, wire) = (Arc::clone(&self.folder), self.wire.clone());
        drop(self);
        TestBox::open(folder, running, wire)
    }

    fn open(folder: Arc<TempDir>, running: &str, wire: Option<Wire>) -> TestBox {
        let at = |name: &str| folder.path().join(name);
        for name in ["sys/block", "sys/dev/block", "dev", "disks"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let profile = "name = 'x'\ntitle = 'X'\n[storage]\ndisk = 'mmcblk*'\n";
        fs::write(at("board.toml"), profile).unwrap();
        for socket in ["helper", "updater"] {
            let _ = fs::remove_file(at(socket));
        }
        serve_helper(&at("helper"), helper_options(folder.path()));
        serve_updater(&at("updater"), running.to_owned(), at("slot"));
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
            allowed: vec!["127.0.0.1".parse().unwrap()],
            localtime: at("localtime"),
        };
        runtime.spawn(board::run(told, board, shutdown.clone()));
        assert!(opened.send(node.clone()).is_ok());
        let https = runtime.block_on(async {
            let tls = serve::server_config(node.identity()).unwrap();
            let listener = serve::Listener::tls("127.0.0.1:0".parse().unwrap(), tls)
                .await
                .unwrap();
            let address = listener.address().unwrap();
            let options = api::Options {
                authorities: wire.iter().map(|wire| wire.address.to_string()).collect(),
                ..api::Options::default()
            };
            let router = api::router(node.clone(), options);
            tokio::spawn(serve::serve(vec![listener], router, shutdown.clone()));
            address
        });
        if let Some(wire) = &wire {
            *wire.target.lock().unwrap() = Some(https);
        }
        let opened = TestBox {
            node,
            runtime,
            shutdown,
            folder,
            https,
            wire,
        };
        opened.until("the updater's word", |updates| updates.step == Step::Idle);
        opened
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until what is known of updates is so.
    fn until(&self, what: &str, is_so: impl Fn(&Updates) -> bool) -> Updates {
        let ends = Instant::now() + PATIENCE;
        loop {
            let updates = self.node.board().updates();
            if let Some(updates) = updates.clone().filter(&is_so) {
                return updates;
            }
            assert!(Instant::now() < ends, "{what} never comes: {updates:?}");
            let mut ticks = self.runtime.block_on(async {
                tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY)
            });
            self.runtime.block_on(ticks.tick());
        }
    }

    fn ask(&self, order: Order) -> Result<Done, Error> {
        self.runtime.block_on(self.node.board().ask(order))
    }

    fn begin(&self, source: &Source) -> Result<Done, Error> {
        self.ask(Order::Install(Installation {
            source: source.clone(),
            may_be_older: false,
        }))
    }

    /// Installs it; what is in the other slot then, or why not.
    fn install(&self, source: &Source) -> Result<Vec<u8>, UpdateTrouble> {
        match self.begin(source) {
            Ok(_) => {}
            Err(Error::Update(trouble)) => return Err(trouble),
            Err(other) => panic!("{other}"),
        }
        let is_over = |updates: &Updates| {
            updates.step == Step::Restarting || (updates.step == Step::Idle && updates.refused.is_some())
        };
        match self.until("the end of it", is_over).refused {
            Some(trouble) => Err(trouble),
            None => Ok(fs::read(self.at("slot")).unwrap()),
        }
    }

    /// Puts a bundle into the store, as an upload does.
    fn put(&self, bundle: &[u8]) -> Source {
        let main = self.node.stores().get(&StoreName::main()).unwrap();
        let put = self
            .runtime
            .block_on(main.put(bundle.to_vec().into(), Class::Pinned, None));
        Source::Blob {
            store: StoreName::main(),
            blob: put.unwrap().id,
        }
    }

    /// Installs a bundle by upload and restarts into it.
    fn run(self, version: &str, bundle: &[u8]) -> TestBox {
        let source = self.put(bundle);
        assert_eq!(self.install(&source).unwrap(), bundle);
        let restarted = self.restarted(version);
        restarted.until_offered();
        restarted
    }

    /// Waits until the bundle that runs was cut into parts, and lets others have it.
    fn until_offered(&self) {
        self.runtime.block_on(self.node.bundles().offer(true)).unwrap();
        let ends = Instant::now() + PATIENCE;
        while self.node.bundles().offered().is_none() {
            assert!(Instant::now() < ends, "the bundle is not offered");
            std::thread::yield_now();
        }
    }

    /// What waits in the node's folder of bundles.
    fn waiting(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at("data/bundles")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".old")).collect();
        names.sort();
        names
    }
}

impl Drop for TestBox {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // The data folder is let go of with the last task that holds the node.
        let runtime = std::mem::replace(
            &mut self.runtime,
            tokio::runtime::Builder::new_current_thread().build().unwrap(),
        );
        runtime.shutdown_timeout(PATIENCE);
    }
}

/// A bundle as the stand-in knows it: a line that says what it is, and bytes that can't be packed.
fn bundle(version: &str, noise: &[u8]) -> Vec<u8> {
    let head = json!({"version": version, "compatible": "refuge-x"}).to_string();
    [head.as_bytes(), b"\n", noise].concat()
}

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut out);
    out
}

fn helper_options(folder: &Path) -> HelperOptions {
    HelperOptions {
        disks: folder.join("disks"),
        stick: folder.join("stick"),
        sys: folder.join("sys"),
        dev: folder.join("dev"),
        ..HelperOptions::new(0, 0, "mmcblk*".to_owned())
    }
}

/// One helper for each connection, as a service manager does it. Ends with the test's process.
fn serve_helper(socket: &Path, options: HelperOptions) {
    serve_each(socket, move |connection| {
        board::help(connection, &options).unwrap();
    });
}

/// The updater's stand-in: what it installs it writes to `slot`.
fn serve_updater(socket: &Path, running: String, slot: PathBuf) {
    serve_each(socket, move |connection| {
        // Who asked may have gone.
        let _ = answer(&connection, &running, &slot);
    });
}

fn serve_each(socket: &Path, answer: impl Fn(UnixStream) + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || answer(connection.unwrap()));
        }
    });
}

fn answer(mut connection: &UnixStream, running: &str, slot: &Path) -> std::io::Result<()> {
    let mut from = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let command: Value = serde_json::from_str(&line)?;
    let mut tell = |answer: Value| writeln!(connection, "{answer}");
    if command["command"] != "install" {
        return tell(json!({
            "answer": "state", "running": running, "compatible": "refuge-x", "slot": "A",
            "is_on_trial": false, "last": null, "before": null,
        }));
    }
    tell(json!({"answer": "ready"}))?;
    let mut bundle = vec![0; command["size_bytes"].as_u64().unwrap() as usize];
    from.read_exact(&mut bundle)?;
    tell(json!({"answer": "checking"}))?;
    let head = bundle.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(head) = serde_json::from_slice::<Value>(head) else {
        let trouble = json!({"trouble": "bundle", "reason": "signature verification failed"});
        return tell(json!({"answer": "trouble", "trouble": trouble}));
    };
    tell(json!({"answer": "found", "version": head["version"]}))?;
    tell(json!({"answer": "installing", "percent": 100}))?;
    fs::write(slot, &bundle)?;
    tell(json!({"answer": "restarting"}))
}

/// Passes bytes on and counts them: what travels between two boxes, with all that TLS adds.
#[derive(Clone)]
struct Wire {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    bytes: Arc<Mutex<u64>>,
}

impl Wire {
    fn new() -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire {
            address: listener.local_addr().unwrap(),
            target: Arc::default(),
            bytes: Arc::default(),
        };
        let passing = wire.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let target = passing.target.lock().unwrap().unwrap();
                let (near, Ok(far)) = (near.unwrap(), TcpStream::connect(target)) else {
                    continue;
                };
                let ways = [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)];
                for (from, to) in ways {
                    let bytes = Arc::clone(&passing.bytes);
                    std::thread::spawn(move || pass(from, to, &bytes));
                }
            }
        });
        wire
    }

    fn bytes(&self) -> u64 {
        *self.bytes.lock().unwrap()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, counted: &Mutex<u64>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        *counted.lock().unwrap() += read as u64;
        if to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_bundle_that_is_refused_leaves_nothing() {
    let one = TestBox::new("0.1.0");
    let source = one.put(b"no bundle");
    let refused = one.install(&source).unwrap_err();
    assert!(matches!(refused, UpdateTrouble::Bundle { .. }), "{refused}");
    assert_eq!(one.waiting(), Vec::<String>::new());
    let missing = Source::Blob {
        store: StoreName::main(),
        blob: BlobId::of(b"nobody put this"),
    };
    assert!(matches!(one.begin(&missing), Err(Error::Missing { .. })));
}
