//! Replications of databases: what is asked for, what goes on, what became of it. The `replicate` edge does them.
//!
//! ```text
//!  api: POST /db/_replicate ──> ask ──> orders (a short queue) ──> the edge: jobs, sessions, peers
//!       _scheduler/jobs, _active_tasks <── jobs <── tell <──────────┘
//! ```
//!
//! What is asked for once is forgotten with the process; what is asked for in the database `_replicator` is kept there. Credentials that
//! come in a document are put into the node's secrets before it is written, and the document names them.

mod asked;
mod away;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::error::{Error, Kind};

pub use asked::{Endpoint, Opens, Remote, ReplicationError, ReplicationRequest};

/// Orders that wait.
const ORDERS_MAX: usize = 32;

/// Events of a job that are kept: as many as CouchDB's scheduler keeps.
const JOB_EVENTS_MAX: usize = 20;

/// What a replication did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicationStats {
    /// Revisions that the target was asked about.
    pub missing_checked: u64,
    /// Those it did not have.
    pub missing_found: u64,
    /// Revisions read from the source.
    pub docs_read: u64,
    /// Revisions that the target has taken.
    pub docs_written: u64,
    /// Revisions that could not be written, one by one.
    pub doc_write_failures: u64,
}

/// What the edge is asked to do.
#[derive(Debug)]
pub enum ReplicationOrder {
    /// Replicate.
    Start(Box<ReplicationRequest>),
    /// End the replication with this id.
    Cancel(String),
    /// End the one that this request would be.
    CancelLike(Box<ReplicationRequest>),
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Replicated {
    /// It goes on, under this id.
    Started(String),
    /// It was ended.
    Cancelled(String),
    /// It is done.
    Done(ReplicationDone),
}

/// A replication that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicationDone {
    /// The session.
    pub session_id: String,
    /// Where the next one goes on, as the source gave it out.
    pub source_last_seq: serde_json::Value,
    /// Sessions, the newest first, as CouchDB writes them.
    pub history: Vec<serde_json::Value>,
    /// Whether there was nothing to do.
    pub no_changes: bool,
}

/// An order, and who waits for it.
#[derive(Debug)]
pub struct ReplicationAsked {
    /// What is to be done.
    pub order: ReplicationOrder,
    answer: oneshot::Sender<Result<Replicated, ReplicationFailure>>,
}

/// Why a replication was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationFailure {
    /// This machine replicates nothing now.
    #[error("replications are not run here")]
    NotRun,
    /// As many as may go on or wait do.
    #[error("too many replications go on: cancel one, or try again")]
    TooMany,
    /// What was asked for makes no sense.
    #[error(transparent)]
    Invalid(#[from] ReplicationError),
    /// There is no such replication.
    #[error("there is no replication {0}")]
    Missing(String),
    /// One of the databases is not there.
    #[error("{0}")]
    NoDatabase(String),
    /// The peer refused who asks, or the node's owner has not allowed its address.
    #[error("{0}")]
    Refused(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// What a job is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It waits for another to end.
    Pending,
    /// It goes on.
    Running,
    /// It failed, and waits for its next attempt.
    Crashing,
    /// It is done.
    Completed,
    /// It will not be done as it is asked for.
    Failed,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// When.
    pub at: SystemTime,
    /// `added`, `started`, `stopped` or `crashed`.
    pub what: &'static str,
    /// Why, where it crashed.
    pub reason: Option<String>,
}

/// A replication as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id, with what makes it another job: `…+continuous`.
    pub id: String,
    /// The document of `_replicator` that asks for it.
    pub doc_id: Option<String>,
    /// The source, without what opens it.
    pub source: String,
    /// The target, likewise.
    pub target: String,
    /// Whether it goes on for changes to come.
    pub continuous: bool,
    /// When it was asked for.
    pub started: SystemTime,
    /// When this was told.
    pub updated: SystemTime,
    /// What it is at.
    pub state: JobState,
    /// What failed last, where it is being tried again or given up.
    pub last_error: Option<String>,
    /// Failures in a row.
    pub errors: u64,
    /// What it did.
    pub stats: ReplicationStats,
    /// How far it is, as the source gave it out.
    pub through: serde_json::Value,
    /// Changes that it has not looked at, where the source tells.
    pub pending: Option<u64>,
    /// What happened to it, the newest first.
    pub events: Vec<JobEvent>,
}

/// The replications of a node; cloning is cheap.
#[derive(Clone)]
pub struct Replications {
    inner: Arc<Inner>,
}

struct Inner {
    orders: mpsc::Sender<ReplicationAsked>,
    /// Until the edge takes it.
    untaken: Mutex<Option<mpsc::Receiver<ReplicationAsked>>>,
    /// By id, or for what is no job, by the document that asks for it.
    jobs: Mutex<BTreeMap<String, Job>>,
}

impl JobState {
    /// CouchDB's word.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Pending => "pending",
            JobState::Running => "running",
            JobState::Crashing => "crashing",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
        }
    }
}

impl Job {
    /// Takes note of what happened.
    pub fn happened(&mut self, at: SystemTime, what: &'static str, reason: Option<String>) {
        self.events.insert(0, JobEvent { at, what, reason });
        self.events.truncate(JOB_EVENTS_MAX);
        self.updated = at;
    }
}

impl ReplicationAsked {
    /// Tells whoever asked.
    pub fn answer(self, done: Result<Replicated, ReplicationFailure>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(done);
    }
}

impl Replications {
    pub(super) fn new() -> Replications {
        let (orders, untaken) = mpsc::channel(ORDERS_MAX);
        Replications {
            inner: Arc::new(Inner {
                orders,
                untaken: Mutex::new(Some(untaken)),
                jobs: Mutex::default(),
            }),
        }
    }

    /// Where orders come out, for the edge; `None` where one took it already.
    pub fn orders(&self) -> Option<mpsc::Receiver<ReplicationAsked>> {
        let mut untaken = self.inner.untaken.lock();
        untaken
            .as_mut()
            .expect("no thread panics while it holds a receiver")
            .take()
    }

    /// Has an order done; one that ends is waited for. Dropping the future withdraws nothing.
    ///
    /// # Errors
    /// [`ReplicationFailure`].
    pub async fn ask(&self, order: ReplicationOrder) -> Result<Replicated, ReplicationFailure> {
        let is_untaken = self.inner.untaken.lock().is_ok_and(|untaken| untaken.is_some());
        if is_untaken || self.inner.orders.is_closed() {
            return Err(ReplicationFailure::NotRun);
        }
        let (answer, answered) = oneshot::channel();
        let asked = ReplicationAsked { order, answer };
        let sent = self.inner.orders.try_send(asked);
        sent.map_err(|_| ReplicationFailure::TooMany)?;
        answered.await.unwrap_or(Err(ReplicationFailure::NotRun))
    }

    /// What goes on, and what became of what documents ask for, in the order of ids.
    pub fn jobs(&self) -> Vec<Job> {
        self.table().values().cloned().collect()
    }

    /// One of them.
    pub fn job(&self, id: &str) -> Result<Job, Error> {
        let found = self.table().get(id).cloned();
        found.ok_or_else(|| Error::missing(Kind::Replication, id))
    }

    /// Takes note of how a job is, for the edge.
    pub fn tell(&self, job: Job) {
        let key = match job.state {
            JobState::Pending | JobState::Running | JobState::Crashing => job.id.clone(),
            JobState::Completed | JobState::Failed => job.doc_id.clone().unwrap_or_else(|| job.id.clone()),
        };
        self.table().insert(key, job);
    }

    /// Forgets a job, for the edge.
    pub fn forget(&self, id: &str) {
        self.table().remove(id);
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.inner
            .jobs
            .lock()
            .expect("no thread panics while it holds the table of jobs")
    }
}
