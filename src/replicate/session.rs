//! One session of a replication as a state machine: what comes back from the peers and the time go in, what is to be done comes
//! out. No sockets, no clock. (CouchDB, "Replication Protocol".)
//!
//! ```text
//!  Open both ─> (Create) ─> ReadCheckpoint both ─> Changes ──> a batch: Differ ─> Move ──> done in order ──> Commit ─> Keep both
//!                                                     └─ up to BATCHES_MAX batches at once, checkpoints meanwhile
//! ```
//!
//! All that is done may be done twice: a revision that is there already changes nothing, and a checkpoint is compared before it is
//! written. So whatever fails for a passing reason is tried again, some times; a batch begins again with what still differs. What
//! is not passed over is a checkpoint: it names the end of the last batch before which all are stored on the target.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::checkpoint::{Checkpoint, Entry, PeerSeq, common};
use super::peer::{Failure, Kept, Moved, Page, Row, Side, Trouble, Wanted};
use crate::node::ReplicationStats;

/// Changes of one batch: CouchDB's `worker_batch_size`.
pub(super) const BATCH_ROWS: usize = 500;

/// Batches under way: enough to keep two peers busy while others wait for the network or the disk, and a bound of memory.
const BATCHES_MAX: usize = 4;

/// Attempts of one request before the session fails: CouchDB's `retries_per_request`.
const ATTEMPTS_MAX: u32 = 5;

/// The first wait between attempts, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// How often progress is written down while there is some. CouchDB: 30 s; a phone is gone earlier.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// Checkpoints that somebody else wrote in between before the session gives up.
const CONFLICTS_MAX: u32 = 3;

/// What a session is to do.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The id of this session.
    pub(super) session_id: String,
    /// When it began (RFC 1123).
    pub(super) start_time: String,
    /// Whether it waits for changes once there are none left.
    pub(super) continuous: bool,
    /// Whether a target that is not there is made.
    pub(super) create_target: bool,
    /// What source and target are called.
    pub(super) names: [String; 2],
    /// Where it begins, whatever checkpoints say.
    pub(super) since: Option<PeerSeq>,
    /// What its waits are varied by.
    pub(super) seed: u64,
}

/// Names one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(u64);

#[cfg(test)]
impl Ticket {
    /// One that no session gave out.
    pub(super) fn of(number: u64) -> Ticket {
        Ticket(number)
    }
}

/// One request to a peer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    /// Whether the database is there.
    Open(Side),
    /// Make the target.
    Create,
    /// What the side keeps of this replication.
    ReadCheckpoint(Side),
    /// The next changes; with `wait`, the request may wait for one.
    Changes { since: PeerSeq, wait: bool },
    /// Which revisions of these the target lacks.
    Differ { batch: u64, rows: Arc<Vec<Row>> },
    /// Bring these from the source to the target.
    Move { batch: u64, wanted: Arc<Vec<Wanted>> },
    /// Put what the target has stored on its medium, before this says so.
    Commit { checkpoint: Arc<Checkpoint> },
    /// Keep this in place of what has revision `rev`.
    Keep {
        side: Side,
        rev: Option<String>,
        checkpoint: Arc<Checkpoint>,
    },
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// Of Open: whether it is there.
    Opened(bool),
    /// Of Create.
    Created,
    /// Of ReadCheckpoint.
    Checkpoint(Option<Kept>),
    /// Of Changes.
    Page(Page),
    /// Of Differ.
    Wanted(Vec<Wanted>),
    /// Of Move.
    Moved(Moved),
    /// Of Commit.
    Committed,
    /// Of Keep: the revision it has now.
    Kept(String),
}

/// How a session ended.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// Where the next one goes on.
    pub(super) source_last_seq: PeerSeq,
    /// Its history, the newest session first; this one is part of it where it stored a checkpoint.
    pub(super) history: Vec<Entry>,
    /// Whether there was nothing to do.
    pub(super) no_changes: bool,
}

/// A session.
pub(super) struct Session {
    plan: Plan,
    pending: Vec<Pending>,
    tickets: u64,
    backoff: Backoff,
    sides: [SideState; 2],
    phase: Phase,
    reading: Reading,
    since: PeerSeq,
    /// Changes that are still expected, where the source told.
    left: Option<u64>,
    batches: VecDeque<Batch>,
    batch_numbers: u64,
    /// Where the session began, and what is known of those before.
    start: PeerSeq,
    history: Vec<Entry>,
    /// The end of what is stored.
    through: PeerSeq,
    /// What the last checkpoint says, and when it was begun.
    recorded: PeerSeq,
    recorded_at: Duration,
    stats: ReplicationStats,
    last_error: Option<Failure>,
    closing: Option<Result<(), Failure>>,
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Comparing,
    Running,
}

/// What the reader of changes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It asks for more as soon as there is room.
    Eager,
    /// All is read: it waits for more.
    Waiting,
    /// All is read.
    Over,
}

#[derive(Debug, Default)]
struct SideState {
    opened: bool,
    read: bool,
    /// The checkpoint may not be written here: only a source that others may only read.
    read_only: bool,
    conflicts: u32,
    kept: Option<Kept>,
}

struct Batch {
    number: u64,
    last_seq: PeerSeq,
    rows: Arc<Vec<Row>>,
    /// How often it was not brought over.
    failures: u32,
    done: bool,
}

struct Pending {
    request: Request,
    attempts: u32,
    not_before: Duration,
    ticket: Option<Ticket>,
}

impl Session {
    /// A session that has done nothing yet.
    pub(super) fn new(plan: Plan) -> Session {
        let backoff = Backoff::new(RETRY.0, RETRY.1, plan.seed);
        let mut session = Session {
            plan,
            pending: Vec::new(),
            tickets: 0,
            backoff,
            sides: Default::default(),
            phase: Phase::Opening,
            reading: Reading::Eager,
            since: PeerSeq::default(),
            left: None,
            batches: VecDeque::new(),
            batch_numbers: 0,
            start: PeerSeq::default(),
            history: Vec::new(),
            through: PeerSeq::default(),
            recorded: PeerSeq::default(),
            recorded_at: Duration::ZERO,
            stats: ReplicationStats::default(),
            last_error: None,
            closing: None,
            ended: false,
        };
        session.push(Request::Open(Side::Source));
        session.push(Request::Open(Side::Target));
        session
    }

    /// What is to be begun at `now`, the time since the session began.
    pub(super) fn poll(&mut self, now: Duration) -> Vec<(Ticket, Request)> {
        self.advance(now);
        let mut begun = Vec::new();
        for pending in &mut self.pending {
            if pending.ticket.is_none() && pending.not_before <= now {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                pending.ticket = Some(ticket);
                begun.push((ticket, pending.request.clone()));
            }
        }
        begun
    }

    /// When to poll again where nothing comes back before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let retries = self.pending.iter().filter(|pending| pending.ticket.is_none());
        let retry = retries.map(|pending| pending.not_before).min();
        let is_dirty = self.closing.is_none()
            && self.phase == Phase::Running
            && self.through != self.recorded
            && !self.is_keeping()
            && self.sides.iter().all(|side| side.read);
        let checkpoint = is_dirty.then(|| self.recorded_at + CHECKPOINT_EVERY);
        retry.into_iter().chain(checkpoint).min()
    }

    /// Takes what came back. What nobody waits for any more is passed over.
    pub(super) fn answered(&mut self, ticket: Ticket, answer: Result<Answer, Failure>, now: Duration) {
        let Some(at) = self
            .pending
            .iter()
            .position(|pending| pending.ticket == Some(ticket))
        else {
            return;
        };
        match answer {
            Ok(answer) => {
                let request = self.pending.swap_remove(at).request;
                self.last_error = None;
                self.take(request, answer);
            }
            Err(failure) => self.failed(at, failure, now),
        }
    }

    /// Ends the session: what is stored is written down, what is under way is left.
    pub(super) fn stop(&mut self) {
        self.close(Ok(()));
    }

    /// How it ended; `None` while it goes on.
    pub(super) fn ended(&self) -> Option<Result<Report, Failure>> {
        if !self.ended {
            return None;
        }
        Some(match self.closing.clone()? {
            Ok(()) => Ok(self.report()),
            Err(failure) => Err(failure),
        })
    }

    /// What it did so far.
    pub(super) fn stats(&self) -> &ReplicationStats {
        &self.stats
    }

    /// What failed last and is being tried again.
    pub(super) fn last_error(&self) -> Option<&Failure> {
        self.last_error.as_ref()
    }

    /// How far it is: the end of what is stored, and changes behind it where the source tells.
    pub(super) fn progress(&self) -> (&PeerSeq, Option<u64>) {
        (&self.through, self.left)
    }

    /// Whether anything was stored.
    pub(super) fn has_progress(&self) -> bool {
        self.through != self.start
    }

    fn report(&self) -> Report {
        let no_changes = !self.has_progress();
        let history = match no_changes {
            true => self.history.clone(),
            false => Checkpoint::with(&self.history, self.entry()).history,
        };
        Report {
            source_last_seq: self.through.clone(),
            history,
            no_changes,
        }
    }

    fn push(&mut self, request: Request) {
        self.pending.push(Pending {
            request,
            attempts: 0,
            not_before: Duration::ZERO,
            ticket: None,
        });
    }

    fn take(&mut self, request: Request, answer: Answer) {
        match (request, answer) {
            (Request::Open(side), Answer::Opened(is_there)) => self.opened(side, is_there),
            (Request::Create, Answer::Created) => self.opened(Side::Target, true),
            (Request::ReadCheckpoint(side), Answer::Checkpoint(kept)) => self.checkpoint_read(side, kept),
            (Request::Changes { .. }, Answer::Page(page)) => self.page_read(page),
            (Request::Differ { batch, .. }, Answer::Wanted(wanted)) => self.differs(batch, wanted),
            (Request::Move { batch, .. }, Answer::Moved(moved)) => self.moved(batch, &moved),
            (Request::Commit { checkpoint }, Answer::Committed) => self.keep_on_both(&checkpoint),
            (Request::Keep { side, checkpoint, .. }, Answer::Kept(rev)) => {
                self.side(side).kept = Some(Kept {
                    rev,
                    checkpoint: Some((*checkpoint).clone()),
                });
                self.side(side).conflicts = 0;
            }
            (request, _) => self.close(Err(Failure::fatal(format!(
                "{request:?} was answered as another request"
            )))),
        }
    }

    fn side(&mut self, side: Side) -> &mut SideState {
        &mut self.sides[side.index()]
    }

    fn opened(&mut self, side: Side, is_there: bool) {
        if !is_there {
            match side == Side::Target && self.plan.create_target {
                true => self.push(Request::Create),
                false => {
                    let name = &self.plan.names[side.index()];
                    let reason = format!("could not open {name}: there is no such database");
                    self.close(Err(Failure::new(Trouble::Missing, reason)));
                }
            }
            return;
        }
        self.side(side).opened = true;
        if self.phase == Phase::Opening && self.sides.iter().all(|side| side.opened) {
            self.phase = Phase::Comparing;
            self.push(Request::ReadCheckpoint(Side::Source));
            self.push(Request::ReadCheckpoint(Side::Target));
        }
    }

    fn checkpoint_read(&mut self, side: Side, kept: Option<Kept>) {
        let state = self.side(side);
        state.kept = kept;
        state.read = true;
        if self.phase != Phase::Comparing || !self.sides.iter().all(|side| side.read) {
            return;
        }
        let known = |side: &SideState| side.kept.as_ref().and_then(|kept| kept.checkpoint.clone());
        let (source, target) = (known(&self.sides[0]), known(&self.sides[1]));
        let (since, history) = common(source.as_ref(), target.as_ref());
        self.history = history;
        self.start = self.plan.since.clone().unwrap_or(since);
        self.since = self.start.clone();
        self.through = self.start.clone();
        self.recorded = self.start.clone();
        self.phase = Phase::Running;
    }

    fn page_read(&mut self, page: Page) {
        let rows = page.rows.len() as u64 + page.skipped;
        self.stats.doc_write_failures += page.skipped;
        // A source that is written to all the time has an end for a session that is to end: what there was at first.
        let left = match self.left {
            None => page.pending,
            Some(left) => Some(left.saturating_sub(rows)),
        };
        // A source that filters may tell of nothing and go on all the same, where it tells how much is left.
        let leads_nowhere = page.last_seq == self.since;
        let is_read = rows == 0 && (page.pending.is_none() || leads_nowhere);
        let is_end = is_read || page.pending == Some(0) || (!self.plan.continuous && left == Some(0));
        self.left = if self.plan.continuous { page.pending } else { left };
        self.reading = match (is_end, self.plan.continuous) {
            (false, _) => Reading::Eager,
            (true, true) => Reading::Waiting,
            (true, false) => Reading::Over,
        };
        if leads_nowhere {
            if rows > 0 {
                // It would tell the same changes for ever.
                self.close(Err(Failure::lie("the source tells changes that lead nowhere")));
            }
            return;
        }
        self.since = page.last_seq.clone();
        self.batch_numbers += 1;
        let batch = Batch {
            number: self.batch_numbers,
            last_seq: page.last_seq,
            done: page.rows.is_empty(),
            failures: 0,
            rows: Arc::new(page.rows),
        };
        if !batch.done {
            self.push(Request::Differ {
                batch: batch.number,
                rows: Arc::clone(&batch.rows),
            });
        }
        self.batches.push_back(batch);
        self.pass_done();
    }

    fn differs(&mut self, number: u64, wanted: Vec<Wanted>) {
        let rows = self.batches.iter().find(|batch| batch.number == number);
        let checked: usize = rows.map_or(0, |batch| batch.rows.iter().map(|row| row.revs.len()).sum());
        self.stats.missing_checked += checked as u64;
        self.stats.missing_found += wanted.iter().map(|wanted| wanted.revs.len() as u64).sum::<u64>();
        match wanted.is_empty() {
            true => self.done(number),
            false => self.push(Request::Move {
                batch: number,
                wanted: Arc::new(wanted),
            }),
        }
    }

    fn moved(&mut self, number: u64, moved: &Moved) {
        self.stats.docs_read += moved.read;
        self.stats.docs_written += moved.written;
        self.stats.doc_write_failures += moved.refused;
        self.done(number);
    }

    fn done(&mut self, number: u64) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
            batch.done = true;
        }
        self.pass_done();
    }

    /// Only a batch before which all are stored moves the end of what is stored.
    fn pass_done(&mut self) {
        while self.batches.front().is_some_and(|batch| batch.done) {
            if let Some(batch) = self.batches.pop_front() {
                self.through = batch.last_seq;
            }
        }
    }

    fn failed(&mut self, at: usize, failure: Failure, now: Duration) {
        let request = self.pending[at].request.clone();
        self.last_error = Some(failure.clone());
        match (request, failure.trouble) {
            (Request::Keep { side, .. }, Trouble::Conflict) => {
                self.pending.swap_remove(at);
                self.conflicted(side, failure);
            }
            (
                Request::Keep {
                    side: Side::Source, ..
                },
                Trouble::Refused,
            ) => {
                // Some sources are for reading alone: the target remembers, and the next session asks what differs.
                self.pending.swap_remove(at);
                self.side(Side::Source).read_only = true;
            }
            (Request::Move { batch, .. }, Trouble::Passing) if self.closing.is_none() => {
                self.pending.swap_remove(at);
                self.not_moved(batch, failure, now);
            }
            (_, Trouble::Passing) if self.may_try_again(at) => {
                let wait = self.backoff.after(self.pending[at].attempts);
                let pending = &mut self.pending[at];
                pending.attempts += 1;
                pending.ticket = None;
                pending.not_before = now + wait;
            }
            (Request::Keep { .. } | Request::Commit { .. }, _) if self.closing.is_some() => {
                self.pending.swap_remove(at);
            }
            _ => {
                self.pending.swap_remove(at);
                self.close(Err(failure));
            }
        }
    }

    /// Some of a batch may be on the target by now: what differs is asked again.
    fn not_moved(&mut self, number: u64, failure: Failure, now: Duration) {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) else {
            return;
        };
        batch.failures += 1;
        if batch.failures >= ATTEMPTS_MAX {
            return self.close(Err(failure));
        }
        let (rows, failures) = (Arc::clone(&batch.rows), batch.failures);
        let not_before = now + self.backoff.after(failures - 1);
        self.pending.push(Pending {
            request: Request::Differ { batch: number, rows },
            attempts: 0,
            not_before,
            ticket: None,
        });
    }

    /// A session that ends tries everything once.
    fn may_try_again(&self, at: usize) -> bool {
        self.closing.is_none() && self.pending[at].attempts + 1 < ATTEMPTS_MAX
    }

    /// Somebody else wrote the checkpoint, or an answer was lost: what is there is read before it is written again.
    fn conflicted(&mut self, side: Side, failure: Failure) {
        let state = self.side(side);
        state.conflicts += 1;
        state.read = false;
        if state.conflicts > CONFLICTS_MAX {
            return self.close(Err(failure));
        }
        if self.closing.is_none() {
            self.recorded = self.start.clone();
            self.push(Request::ReadCheckpoint(side));
        }
    }

    fn close(&mut self, how: Result<(), Failure>) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(how);
        self.pending.retain(|pending| is_of_checkpoint(&pending.request));
        if self.phase == Phase::Running && self.through != self.recorded && !self.is_keeping() {
            self.keep(self.recorded_at);
        }
    }

    fn advance(&mut self, now: Duration) {
        if self.closing.is_none() && self.phase == Phase::Running {
            self.read_on();
            let is_over = self.reading == Reading::Over && self.batches.is_empty();
            let is_due = is_over || now >= self.recorded_at + CHECKPOINT_EVERY;
            let is_read = self.sides.iter().all(|side| side.read);
            if self.through != self.recorded && is_due && is_read && !self.is_keeping() {
                self.keep(now);
            }
            if is_over && self.pending.is_empty() {
                self.close(Ok(()));
            }
        }
        if self.closing.is_some() && self.pending.is_empty() {
            self.ended = true;
        }
    }

    fn read_on(&mut self) {
        let is_reading = self
            .pending
            .iter()
            .any(|pending| matches!(pending.request, Request::Changes { .. }));
        if is_reading || self.reading == Reading::Over || self.batches.len() >= BATCHES_MAX {
            return;
        }
        self.push(Request::Changes {
            since: self.since.clone(),
            wait: self.reading == Reading::Waiting,
        });
    }

    fn is_keeping(&self) -> bool {
        let mut requests = self.pending.iter().map(|pending| &pending.request);
        requests.any(is_of_checkpoint)
    }

    fn keep(&mut self, now: Duration) {
        self.recorded = self.through.clone();
        self.recorded_at = now;
        let checkpoint = Arc::new(Checkpoint::with(&self.history, self.entry()));
        self.push(Request::Commit { checkpoint });
    }

    fn keep_on_both(&mut self, checkpoint: &Arc<Checkpoint>) {
        for side in [Side::Source, Side::Target] {
            let state = &self.sides[side.index()];
            if state.read_only {
                continue;
            }
            let rev = state.kept.as_ref().map(|kept| kept.rev.clone());
            self.push(Request::Keep {
                side,
                rev,
                checkpoint: Arc::clone(checkpoint),
            });
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            session_id: self.plan.session_id.clone(),
            recorded_seq: self.through.clone(),
            start_last_seq: self.start.clone(),
            end_last_seq: self.through.clone(),
            start_time: self.plan.start_time.clone(),
            // The session has no clock; whoever writes the entry says when.
            end_time: String::new(),
            stats: self.stats.clone(),
        }
    }
}

fn is_of_checkpoint(request: &Request) -> bool {
    matches!(request, Request::Commit { .. } | Request::Keep { .. })
}
