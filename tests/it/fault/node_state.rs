//! Row R3 on what a node keeps beside its blobs: identity, claim, accounts, tokens, stores, refs, uploads, the collector's
//! lists. A whole life of a node is recorded once; every state is judged by opening it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use refuge::durable::{self, Generation};
use refuge::files::{Progress, verify};
use refuge::id::{BlobId, RefName, StoreName};
use refuge::node::{
    BackendSettings, Class, Clock, NewUpload, Node, Options, Password, RefRecord, RemoveOptions, Scope,
    Snapshot, StoreSettings, TokenRequest,
};
use tokio::runtime::Runtime;

use super::child::{self, Teller, Told};
use super::cuts::{Cuts, judge_cuts};
use super::fs::FaultFs;
use super::journal::{Expectation, Intent, Journal, Outcome};
use super::medium::Names;
use super::recording::Recording;
use super::seed::{Count, Rng};

/// Crash points; each is judged after all three ways of losing power.
const POINTS: Count = Count {
    sample: 200,
    full: usize::MAX,
};

/// When the recorded node lives: any time after clocks were first set.
pub(super) const BEGIN_S: u64 = 1_800_000_000;
pub(super) const DAY_S: u64 = 24 * 3600;

/// Bytes of the upload, and of its first piece.
const UPLOAD: usize = 50_000;
const FIRST_PIECE: usize = 20_000;

/// Named stores beside the one called main; the second is removed again.
pub(super) const STORES: [&str; 2] = ["s1", "s2"];

/// A node whose clock the test sets.
pub(super) struct Life {
    pub(super) node: Node,
    pub(super) runtime: Runtime,
    now_s: Arc<AtomicU64>,
}

impl Life {
    /// Opens the data folder at a time; `create`, where it may be a new one.
    pub(super) fn open(data: &Path, at_s: u64, create: bool) -> Result<Self, String> {
        let options = Options {
            create,
            ..Options::new(data)
        };
        Self::begin(options, at_s)
    }

    /// Makes a data folder whose main store is as the settings say.
    pub(super) fn make(data: &Path, at_s: u64, main_store: StoreSettings) -> Result<Self, String> {
        let options = Options {
            main_store,
            ..Options::new(data)
        };
        Self::begin(options, at_s)
    }

    fn begin(options: Options, at_s: u64) -> Result<Self, String> {
        let now_s = Arc::new(AtomicU64::new(at_s));
        let seen = Arc::clone(&now_s);
        let now = move || UNIX_EPOCH + Duration::from_secs(seen.load(Ordering::Relaxed));
        let options = Options {
            clock: Clock::from_fn(now),
            ..options
        };
        Ok(Self {
            node: Node::open(options).map_err(|error| format!("it does not open: {error}"))?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?,
            now_s,
        })
    }

    pub(super) fn pass(&self, seconds: u64) {
        self.now_s.fetch_add(seconds, Ordering::Relaxed);
    }

    fn put(&self, bytes: &str, class: Class) -> BlobId {
        let main = self.node.stores().main();
        let put = main.put(bytes.to_owned().into(), class, None);
        self.runtime.block_on(put).expect("a put").id
    }

    /// Makes a ref name a folder with one file, or takes it away.
    fn move_ref(&self, teller: &Teller, name: &str, content: Option<&str>) {
        let name: RefName = name.parse().expect("a name");
        let tree = content.map(|content| {
            let part = self.put(content, Class::Part);
            self.put(&tree_of(&part, content.len()), Class::Part)
        });
        let refs = self.node.refs();
        let present = self.runtime.block_on(refs.get(name.clone())).ok();
        let expected = present.as_ref().map(|record| record.version);
        let next = tree.map(|tree| RefRecord {
            snapshots: vec![snapshot(tree)],
            ..present.unwrap_or_else(|| RefRecord::new(name.clone()))
        });
        let value = tree.map(|tree| tree.to_string());
        teller.during(&format!("ref {name}"), value.as_deref(), || {
            let moved = refs.swap(name.clone(), expected, next);
            self.runtime.block_on(moved).expect("a move")
        });
    }
}

fn snapshot(tree: BlobId) -> Snapshot {
    Snapshot {
        tree,
        time_ms: 0,
        host: "host".to_owned(),
        source: "/data".to_owned(),
        files: 1,
        bytes: 1,
        partial: false,
        xattrs: false,
        root: None,
    }
}

/// A folder with one file, as `files/tree/wire.rs` describes it.
fn tree_of(part: &BlobId, size: usize) -> String {
    format!(
        r#"{{"entries":[{{"gid":0,"inode":1,"mode":420,"mtime":[0,0],"name":"file","part":"{part}","size":{size},"type":"file","uid":0}}],"refuge":"tree","version":1}}"#
    )
}

#[test]
fn what_a_node_keeps_beside_its_blobs_survives_lost_power() {
    let rng = Rng::for_test("node state");
    let Some((recording, journal)) = record() else {
        return;
    };
    judge_cuts(
        "node state",
        &recording,
        &journal,
        (Cuts::power(POINTS.rounds()), &rng),
        |found, expected| judge(&found.join("data"), expected),
    );
}

/// A life and its journal; `None` where nothing can be mounted.
pub(super) fn record() -> Option<(Recording, Journal)> {
    let disk = FaultFs::mount_or_skip(Names::Strict)?;
    let journal = Journal::default();
    disk.record();
    let mut begun = None;
    let followed = child::follow("fault::node_state::life", disk.root(), |told| match told {
        Told::Begins { key, value } => begun = Some(journal.begin(Some(&disk), Intent { key, value })),
        Told::Ends => journal.end(
            Some(&disk),
            begun.take().expect("what ends was begun"),
            Outcome::Acked,
        ),
    });
    followed.expect("a node on a sound disk");
    Some((disk.recorded(), journal))
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn life() {
    let Some(folder) = child::folder() else { return };
    let data = folder.join("data");
    begin(&data);
    go_on(&data);
}

/// From a new folder to an owner with a token, a store, refs, and half of an upload.
fn begin(data: &Path) {
    let teller = Teller;
    let life = Life::open(data, BEGIN_S, true).expect("a new node");
    let node = &life.node;
    teller.done("node", &node.identity().node_id().to_string());
    let code = node.claim().code().expect("a new node has a code").reveal();
    teller.done("code", &code);
    // From here on the code may be gone at any time, and is not asked about again.
    teller.begin("code", None);
    teller.during("owner", Some("ada"), || {
        let password = Password::new("correct horse battery".to_owned()).expect("a password");
        let address = [127, 0, 0, 1].into();
        let claim = node
            .claim()
            .by_code(&code, "ada".parse().expect("a name"), password, address);
        life.runtime.block_on(claim).expect("a claim");
    });
    for label in ["kept", "revoked"] {
        let request = TokenRequest {
            label: label.to_owned(),
            scopes: [Scope::Read].into_iter().collect(),
            expires: None,
        };
        let made = teller.during(&format!("token {label}"), Some("there"), || {
            life.runtime
                .block_on(node.tokens().add("ada".parse().expect("a name"), request))
                .expect("a token")
        });
        if label == "revoked" {
            teller.during("token revoked", None, || {
                life.runtime
                    .block_on(node.tokens().revoke(made.id, None))
                    .expect("a revocation");
            });
        }
    }
    for store in STORES {
        let name: StoreName = store.parse().expect("a name");
        let settings = StoreSettings {
            backend: BackendSettings::Fs {
                path: None,
                shared: false,
            },
            ..StoreSettings::default()
        };
        teller.during(&format!("store {store}"), Some("there"), || {
            life.runtime
                .block_on(node.stores().add(name.clone(), settings))
                .expect("a store");
        });
        if store == STORES[1] {
            teller.during(&format!("store {store}"), None, || {
                let options = RemoveOptions { not_empty: true };
                life.runtime
                    .block_on(node.stores().remove(name, options))
                    .expect("a removal");
            });
        }
    }
    let pinned = life.put("pinned", Class::Pinned);
    teller.done(&format!("blob {pinned}"), "there");
    for content in ["one", "two"] {
        life.move_ref(&teller, "home", Some(content));
        life.move_ref(&teller, "other/deep", Some(content));
    }
    life.move_ref(&teller, "other/deep", None);
    let new = NewUpload {
        store: StoreName::main(),
        length: Some(UPLOAD as u64),
        metadata: String::new(),
        expect: None,
        partial: false,
    };
    let upload = life
        .runtime
        .block_on(node.uploads().create(new))
        .expect("an upload");
    let key = format!("upload {}", upload.id);
    teller.done(&key, "0");
    teller.during(&key, Some(&FIRST_PIECE.to_string()), || {
        life.runtime.block_on(async {
            let mut piece = node.uploads().append(upload.id, 0).await.expect("a piece");
            piece
                .write(Rng::fixed(1).bytes(FIRST_PIECE).into())
                .await
                .expect("room");
            piece.finish().await.expect("a piece");
        });
    });
}

/// The same folder opened again some days later: the upload ends, refs move on, what is unnamed is collected.
fn go_on(data: &Path) {
    let teller = Teller;
    let life = Life::open(data, BEGIN_S + DAY_S / 2, false).expect("the node opens again");
    let node = &life.node;
    life.move_ref(&teller, "home", Some("three"));
    let upload = uploads_in(data).pop().expect("the upload is there");
    let bytes = Rng::fixed(2).bytes(UPLOAD - FIRST_PIECE);
    teller.during(&format!("upload {upload}"), Some(&UPLOAD.to_string()), || {
        life.runtime.block_on(async {
            let uploads = node.uploads();
            let id = upload.parse().expect("an id");
            let mut piece = uploads.append(id, FIRST_PIECE as u64).await.expect("a piece");
            piece.write(bytes.into()).await.expect("room");
            let info = piece.finish().await.expect("the last piece");
            assert!(info.blob.is_some(), "it became a blob");
        });
    });
    for _ in 0..3 {
        life.pass(2 * DAY_S);
        life.runtime
            .block_on(node.gc().run(|| false))
            .expect("a collection");
        life.move_ref(&teller, "home", Some("three again"));
        life.move_ref(&teller, "home", Some("three"));
    }
}

/// The ids of the uploads, from the names of their records.
fn uploads_in(data: &Path) -> Vec<String> {
    let files = std::fs::read_dir(data.join("uploads"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect()
}

/// A node whose power was lost: all that was acknowledged is there, every ref names what is stored, and no state file fell
/// back to its previous generation, as a crash alone never costs one.
pub(super) fn judge(data: &Path, expected: &Expectation) -> Result<(), String> {
    let is_known = expected.is_certain("node");
    generations_are_current(data)?;
    // Not so late that an upload is over.
    let life = Life::open(data, BEGIN_S + DAY_S / 2, !is_known)?;
    let mut found = state_of(&life)?;
    for id in uploads_in(data) {
        let info = life.node.uploads().info(id.parse().map_err(|_| id.clone())?);
        if let Ok(info) = life.runtime.block_on(info) {
            found.insert(format!("upload {id}"), info.offset.to_string());
        }
    }
    // What nothing was told of is not judged: an upload whose id is not known yet, a code before it was read.
    found.retain(|key, _| expected.keys().any(|known| known == key));
    let wrong = expected.violations(&found);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

fn state_of(life: &Life) -> Result<BTreeMap<String, String>, String> {
    let node = &life.node;
    let there = || "there".to_owned();
    let mut found = BTreeMap::from([("node".to_owned(), node.identity().node_id().to_string())]);
    if let Some(code) = node.claim().code() {
        found.insert("code".into(), code.reveal());
    }
    for account in node.accounts().list() {
        found.insert("owner".into(), account.name.to_string());
    }
    for token in node.tokens().list(None) {
        found.insert(format!("token {}", token.label), there());
    }
    for store in node.stores().list() {
        found.insert(format!("store {}", store.name), there());
        node.stores()
            .get(&store.name)
            .map_err(|error| format!("store {}: {error}", store.name))?;
    }
    let repository = node
        .repository(&StoreName::main())
        .map_err(|error| error.to_string())?;
    for stat in repository
        .store
        .backend()
        .list(None)
        .map_err(|error| error.to_string())?
    {
        let stat = stat.map_err(|error| error.to_string())?;
        found.insert(format!("blob {}", stat.id), there());
    }
    let refs = life
        .runtime
        .block_on(node.refs().list())
        .map_err(|error| error.to_string())?;
    for record in refs {
        let trees: Vec<String> = record
            .snapshots
            .iter()
            .map(|snapshot| snapshot.tree.to_string())
            .collect();
        let report = verify(&repository.store, &record.snapshots, &Progress::new())
            .map_err(|error| error.to_string())?;
        if !report.is_sound() {
            return Err(format!("ref {} names what is not there: {report:?}", record.name));
        }
        found.insert(format!("ref {}", record.name), trees.join(" "));
    }
    Ok(found)
}

fn generations_are_current(data: &Path) -> Result<(), String> {
    for path in state_files(data) {
        match durable::read(&path) {
            Ok(None) => {}
            Ok(Some(state)) if state.generation == Generation::Current => {}
            Ok(Some(_)) => {
                return Err(format!(
                    "{}: only the previous generation is there",
                    path.display()
                ));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Every state file, by the name of its current generation.
fn state_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_state = |path: &Path| {
                let begin = std::fs::read(path).unwrap_or_default();
                begin.starts_with(b"refuge-state ")
            };
            // The database and its copy are SQLite's; opening the node judges them.
            let is_database = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("node.db"));
            if path.is_dir() {
                folders.push(path);
            } else if is_database {
                continue;
            } else if path.extension().is_some_and(|kind| kind == "old") {
                files.push(path.with_extension(""));
            } else if path.extension().is_none_or(|kind| kind != "new") && is_state(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    files.dedup();
    files
}
