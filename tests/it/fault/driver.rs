//! Driving a whole node over HTTP with a journal, and pass rule P on a data folder.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::folder;
use super::fs::FaultFs;
use super::journal::{Expectation, Intent, Journal, Outcome, Value};
use super::seed::Rng;
use super::work;
use crate::support::{Answer, Http, Node, Ran, refuge};

/// Different blobs of one load.
const BLOBS: usize = 80;

/// Blobs beyond this number are streamed to files of their own.
const LARGE_FROM: usize = 77;

/// The key under which the journal knows that the node has an owner.
const OWNER: &str = "owner";

/// Rule P (6): how long a start may take, in processor time, which other processes do not lengthen.
const READY_AFTER: Duration = Duration::from_secs(5);

/// A data folder with an owner, and the owner's token: made once in a process, copied by each test.
pub(crate) struct Claimed {
    folder: tempfile::TempDir,
    pub(crate) token: String,
}

impl Claimed {
    /// # Panics
    /// When no node can be started and claimed.
    pub(crate) fn template() -> &'static Self {
        static TEMPLATE: OnceLock<Claimed> = OnceLock::new();
        TEMPLATE.get_or_init(|| {
            let folder = folder::scratch();
            let node = Node::start(&folder.path().join("data")).expect("a node starts");
            let token = node.claim().expect("a new node can be claimed");
            let ended = node.terminate().expect("a node ends when asked");
            assert!(ended.success(), "{ended}");
            Self { folder, token }
        })
    }

    /// The data folder itself: to be read, not used.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Copies the data folder to `data`.
    ///
    /// # Panics
    /// When it can't be copied.
    pub(crate) fn copy_to(&self, data: &Path) {
        copy_folder(&self.data(), data);
    }

    /// A journal that knows of the owner.
    pub(crate) fn journal(&self) -> Journal {
        let journal = Journal::default();
        note_owner(&journal, None, &self.token);
        journal
    }
}

/// Copies a folder with all that `cp` keeps.
///
/// # Panics
/// When it can't.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("--archive")
        .arg("--no-target-directory")
        .arg(from)
        .arg(to)
        .status();
    assert!(copied.expect("cp runs").success());
}

/// Notes that the node is claimed, and by which token that shows.
pub(crate) fn note_owner(journal: &Journal, disk: Option<&FaultFs>, token: &str) {
    let begun = journal.begin(
        disk,
        Intent {
            key: OWNER.into(),
            value: Some(token.into()),
        },
    );
    journal.end(disk, begun, Outcome::Acked);
}

/// One connection that puts, gets and deletes, and writes down what was acknowledged.
pub(crate) struct Driver<'a> {
    pub(crate) http: Http,
    pub(crate) journal: &'a Journal,
    pub(crate) disk: Option<&'a FaultFs>,
}

impl<'a> Driver<'a> {
    /// # Errors
    /// When the node does not listen.
    pub(crate) fn connect(
        node: &Node,
        token: &str,
        journal: &'a Journal,
        disk: Option<&'a FaultFs>,
    ) -> io::Result<Self> {
        Ok(Self {
            http: node.client(token)?,
            journal,
            disk,
        })
    }

    /// Up to `steps` requests chosen by chance; ends at the first that gets no answer. Returns how many were answered.
    pub(crate) fn run(&mut self, steps: usize, rng: &mut Rng) -> usize {
        (0..steps).take_while(|_| self.step(rng).is_ok()).count()
    }

    fn step(&mut self, rng: &mut Rng) -> io::Result<()> {
        let number = rng.below(BLOBS);
        match rng.below(40) {
            0..18 => self.put(number).map(drop),
            18..26 => self.delete(number).map(drop),
            26..32 => self.get(number).map(drop),
            32..35 => self.upload(number),
            35..39 => self.move_ref(rng),
            _ => self.collect(),
        }
    }

    /// Puts blob `number`.
    ///
    /// # Errors
    /// When there is no answer: then nobody knows whether it is stored.
    pub(crate) fn put(&mut self, number: usize) -> io::Result<Answer> {
        let (id, body) = blob(number);
        let path = path_of(&id);
        self.journaled(number, Some(id), |http| http.send("PUT", &path, &[], &body))
    }

    /// Deletes blob `number`.
    ///
    /// # Errors
    /// As [`Driver::put`].
    pub(crate) fn delete(&mut self, number: usize) -> io::Result<Answer> {
        let path = path_of(&blob(number).0);
        self.journaled(number, None, |http| http.send("DELETE", &path, &[], &[]))
    }

    /// Gets blob `number`; what comes must be the blob.
    ///
    /// # Errors
    /// As [`Driver::put`].
    ///
    /// # Panics
    /// When other bytes are served.
    pub(crate) fn get(&mut self, number: usize) -> io::Result<Answer> {
        let (id, body) = blob(number);
        let answer = self.http.send("GET", &path_of(&id), &[], &[])?;
        assert!(
            answer.status != 200 || answer.body == body,
            "other bytes were served as {id}"
        );
        Ok(answer)
    }

    fn journaled(
        &mut self,
        number: usize,
        value: Value,
        send: impl FnOnce(&mut Http) -> io::Result<Answer>,
    ) -> io::Result<Answer> {
        let intent = Intent {
            key: key_of(&blob(number).0),
            value: value.clone(),
        };
        let begun = self.journal.begin(self.disk, intent);
        let answer = send(&mut self.http);
        self.journal
            .end(self.disk, begun, outcome_of(&answer, value.as_deref()));
        answer
    }
}

/// What an answer says of what was asked: that something gets a value, or that it goes (`None`).
pub(super) fn outcome_of(answer: &io::Result<Answer>, value: Option<&str>) -> Outcome {
    match answer {
        Ok(answer) if answer.is_success() => Outcome::Acked,
        // What is not there needs no deleting.
        Ok(Answer { status: 404, .. }) if value.is_none() => Outcome::Acked,
        Ok(Answer {
            status: 400..500 | 507,
            ..
        }) => Outcome::Refused,
        Ok(_) | Err(_) => Outcome::Unknown,
    }
}

/// Runs `threads` connections at once with `steps` requests each; those whose node ends early just end.
pub(crate) fn drive(
    node: &Node,
    token: &str,
    journal: &Journal,
    disk: Option<&FaultFs>,
    (threads, steps): (usize, usize),
    rng: &Rng,
) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mut rng = rng.branch(thread);
            scope.spawn(move || {
                if let Ok(mut driver) = Driver::connect(node, token, journal, disk) {
                    driver.run(steps, &mut rng);
                }
            });
        }
    });
}

/// Pass rule P on a data folder: the node is ready in time, holds what was acknowledged and nothing else, ends well, and
/// `refuge check` finds nothing.
///
/// # Errors
/// With every violation, a line each.
pub(crate) fn judge_node(data: &Path, expected: &Expectation) -> Result<(), String> {
    let node = Node::start(data).map_err(|error| format!("it does not start: {error}"))?;
    let mut wrong = Vec::new();
    if node.ready_after > READY_AFTER {
        wrong.push(format!("ready after {:?} of work", node.ready_after));
    }
    wrong.extend(violations(&node, expected).map_err(|error| format!("{error}: {}", node.log()))?);
    match node.terminate() {
        Ok(status) if status.success() => {}
        ended => wrong.push(format!("it ended with {ended:?}")),
    }
    let mut check = refuge();
    check.args(["check", "--read-data", "--data"]).arg(data);
    let ran = Ran::of(&mut check).map_err(|error| error.to_string())?;
    if !ran.status.success() {
        wrong.push(format!("check: {} {}{}", ran.status, ran.stdout, ran.stderr));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

/// What a running node holds against what it may hold.
///
/// # Errors
/// When it does not answer.
pub(crate) fn violations(node: &Node, expected: &Expectation) -> io::Result<Vec<String>> {
    let Some(token) = expected.value_of(OWNER) else {
        return Ok(Vec::new());
    };
    let mut http = node.client(token)?;
    let known = http.send("GET", "/api/session", &[], &[])?;
    if known.status == 401 && !expected.is_certain(OWNER) {
        return Ok(Vec::new());
    }
    let mut found = BTreeMap::new();
    let mut wrong = work::add_to(&mut found, &mut http, expected)?;
    let mut after = String::new();
    loop {
        let page = http.send("GET", &format!("/blobs?limit=1000{after}"), &[], &[])?;
        let page: serde_json::Value = serde_json::from_slice(&page.accepted()?.body)?;
        for item in page["blobs"].as_array().into_iter().flatten() {
            let id = item["id"].as_str().unwrap_or_default();
            // Parts are no client's, but what refs name.
            if item["class"] == "part" {
                continue;
            }
            let answer = http.send("GET", &path_of(id), &[], &[])?;
            let content = format!("blake3;{}", blake3::hash(&answer.body).to_hex());
            found.insert(
                key_of(id),
                if answer.status == 200 {
                    content
                } else {
                    answer.text()
                },
            );
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace(';', "%3B")),
            None => break,
        }
    }
    found.insert(OWNER.into(), token.into());
    wrong.extend(expected.violations(&found));
    Ok(wrong)
}

/// The id and the bytes of blob `number`.
pub(crate) fn blob(number: usize) -> (String, Vec<u8>) {
    let mut rng = Rng::fixed(number as u64 + 1000);
    let len = if number >= LARGE_FROM {
        1_200_000
    } else {
        1 + rng.below(12_000)
    };
    let body = rng.bytes(len);
    (format!("blake3;{}", blake3::hash(&body).to_hex()), body)
}

pub(super) fn key_of(id: &str) -> String {
    format!("blob {id}")
}

pub(super) fn path_of(id: &str) -> String {
    format!("/blobs/{}", id.replace(';', "-"))
}
