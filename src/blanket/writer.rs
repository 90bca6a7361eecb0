//! Group commit: of all threads that write to a database, one takes what waits, has it written in one go, and wakes the rest.
//!
//! ```text
//!  submit ──> queue ──┬─ nobody leads: this thread does ─> gather ─> read, merge, commit ─> answers ─> the next one leads
//!  submit ──> queue ──┤
//!  submit ──> queue ──┘  sleeps until it is answered, or told to lead
//! ```
//!
//! There is no timer: an idle database commits at once, and what comes while a commit is under way shares the next one. A
//! leader gives the processor away for a moment where as many writers as lately are still on their way: each commit costs the
//! medium a flush.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::doc::{AttachmentEdit, Body, Edit, Refused};
use super::engine::{Engine, Summary, UPDATE_SEQ, Which};
use super::error::Error;
use super::merge::{Difference, Hanging, Round};
use super::settings::REVS_LIMIT_KEY;
use crate::id::{DocId, LocalId, Rev, Seq};

/// Calls that may wait: each is a thread that sleeps.
const WAITING_MAX: usize = 1024;

/// Edits of one call. CouchDB's clients send some hundreds.
pub const EDITS_MAX: usize = 10_000;

/// Edits of one group, unless one call has more: a group is in memory as a whole.
const GROUP_EDITS_MAX: usize = 1024;

/// Bytes of bodies of one group, unless one call has more.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often in a row a leader gives the processor away for writers that are likely to come.
const YIELDS_FOR_EXPECTED: usize = 128;

/// On a slow medium a leader waits longer for them: up to this part of what the last commit took, so that a writer who does
/// not come costs the others little.
const COMMIT_SHARE_FOR_EXPECTED: u32 = 8;

/// How often it does once as many came as lately.
const YIELDS_FOR_MORE: usize = 4;

/// Groups whose writers tell how many to expect.
const GROUPS_REMEMBERED: usize = 16;

/// Something to write.
pub(super) enum Job {
    Edits(Vec<Edit>),
    Local {
        id: LocalId,
        /// How often it had been written, as far as the client knows.
        parent: Option<u64>,
        /// `None` deletes it.
        body: Option<Body>,
    },
    Purge(Vec<(DocId, Vec<Rev>)>),
    Setting(&'static str, Vec<u8>),
}

/// What became of a job.
pub(super) enum Answer {
    Edits(Vec<Result<Rev, Refused>>),
    Local(Result<u64, Refused>),
    Purged(Vec<Vec<Rev>>),
    Set,
}

/// The one door through which a database is written.
pub(super) struct Writer {
    engine: Arc<dyn Engine>,
    queue: Mutex<Queue>,
    state: Mutex<State>,
    updated: watch::Sender<Seq>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Ticket>>,
    is_led: bool,
    sizes: Sizes,
    /// How long the last commit took.
    commit_took: Duration,
}

struct State {
    summary: Summary,
    revs_limit: u32,
}

struct Ticket {
    job: Mutex<Option<Job>>,
    edits: usize,
    bytes: usize,
    stage: Mutex<Stage>,
    told: Condvar,
}

enum Stage {
    Waits,
    Leads,
    Answered(Result<Answer, Error>),
    /// The answer was taken.
    Over,
}

impl Writer {
    pub(super) fn new(engine: Arc<dyn Engine>, revs_limit: u32) -> Result<Writer, Error> {
        let summary = engine.summary()?;
        let (updated, _) = watch::channel(summary.update_seq);
        Ok(Writer {
            engine,
            queue: Mutex::default(),
            state: Mutex::new(State { summary, revs_limit }),
            updated,
        })
    }

    /// Does a job; durable on return.
    pub(super) fn submit(&self, job: Job) -> Result<Answer, Error> {
        let ticket = Arc::new(Ticket::new(job));
        let leads = {
            let mut queue = lock(&self.queue);
            if queue.waiting.len() >= WAITING_MAX {
                return Err(Error::Busy);
            }
            queue.waiting.push_back(Arc::clone(&ticket));
            !std::mem::replace(&mut queue.is_led, true)
        };
        if !leads && let Some(answer) = ticket.wait() {
            return answer;
        }
        self.lead();
        // A leader's own job is the first of its group.
        ticket.wait().unwrap_or(Err(Error::Busy))
    }

    /// What is in the database.
    pub(super) fn summary(&self) -> Summary {
        lock(&self.state).summary
    }

    pub(super) fn revs_limit(&self) -> u32 {
        lock(&self.state).revs_limit
    }

    /// Holds the last sequence that is durable, and tells of each change.
    pub(super) fn updated(&self) -> watch::Receiver<Seq> {
        self.updated.subscribe()
    }

    /// Writes one group and hands the lead on.
    fn lead(&self) {
        let (group, jobs) = self.gather();
        let begun = Instant::now();
        let answers = self.commit(jobs);
        {
            let mut queue = lock(&self.queue);
            // Whoever came too late for this group is a writer as well, and may be in time for the next.
            let writers = group.len() + queue.waiting.len();
            queue.sizes.note(writers);
            queue.commit_took = begun.elapsed();
            match queue.waiting.front() {
                Some(next) => next.tell(Stage::Leads),
                None => queue.is_led = false,
            }
        }
        for (ticket, answer) in group.iter().zip(answers) {
            ticket.tell(Stage::Answered(answer));
        }
    }

    /// What waits, and what comes while the processor is given away; more patiently up to as many as came lately.
    fn gather(&self) -> (Vec<Arc<Ticket>>, Vec<Job>) {
        let mut group: Vec<Arc<Ticket>> = Vec::new();
        let (mut edits, mut bytes, mut yields) = (0, 0, 0);
        let begun = Instant::now();
        loop {
            let mut queue = lock(&self.queue);
            let before = group.len();
            let mut is_full = false;
            while let Some(next) = queue.waiting.front() {
                is_full = !group.is_empty()
                    && (edits + next.edits > GROUP_EDITS_MAX || bytes + next.bytes > GROUP_BYTES_MAX);
                if is_full {
                    break;
                }
                edits += next.edits;
                bytes += next.bytes;
                group.extend(queue.waiting.pop_front());
            }
            yields = if group.len() > before { 0 } else { yields + 1 };
            let is_patient = match group.len() < queue.sizes.largest() {
                true => {
                    yields <= YIELDS_FOR_EXPECTED
                        || begun.elapsed() < queue.commit_took / COMMIT_SHARE_FOR_EXPECTED
                }
                false => yields <= YIELDS_FOR_MORE,
            };
            if is_full || !is_patient {
                break;
            }
            drop(queue);
            thread::yield_now();
        }
        let jobs = group
            .iter()
            .filter_map(|ticket| lock(&ticket.job).take())
            .collect();
        (group, jobs)
    }

    /// Commits jobs together, and answers each. A document that is damaged fails the jobs about it, and no others.
    fn commit(&self, jobs: Vec<Job>) -> Vec<Result<Answer, Error>> {
        let mut answers: Vec<_> = jobs.iter().map(|_| Err(Error::Busy)).collect();
        let mut left: Vec<(usize, Job)> = jobs.into_iter().enumerate().collect();
        // Each round but the last answers at least one job.
        while !left.is_empty() {
            let (places, jobs): (Vec<usize>, Vec<Job>) = left.into_iter().unzip();
            let mut jobs = Some(jobs);
            let error = match self.commit_group(&mut jobs) {
                Ok(done) => {
                    for (place, answer) in places.into_iter().zip(done) {
                        answers[place] = Ok(answer);
                    }
                    break;
                }
                Err(error) => error,
            };
            let is_hit = |job: &Job| matches!(&error, Error::DamagedDoc { id } if job.is_about(id));
            let failed: Vec<usize>;
            (failed, left) = match jobs.filter(|jobs| jobs.iter().any(is_hit)) {
                Some(jobs) => {
                    let (hit, rest): (Vec<_>, Vec<_>) =
                        places.into_iter().zip(jobs).partition(|(_, job)| is_hit(job));
                    (hit.into_iter().map(|(place, _)| place).collect(), rest)
                }
                None => (places, Vec::new()),
            };
            for place in &failed[1..] {
                answers[*place] = Err(error.again());
            }
            answers[failed[0]] = Err(error);
        }
        answers
    }

    /// Commits jobs in one go: all of them or, where this fails, none. Those that were not even merged stay where they were.
    fn commit_group(&self, jobs: &mut Option<Vec<Job>>) -> Result<Vec<Answer>, Error> {
        let (summary, revs_limit) = {
            let state = lock(&self.state);
            (state.summary, state.revs_limit)
        };
        let mut new_limit = None;
        let mut locals = Vec::new();
        let waiting = jobs.as_deref().unwrap_or_default();
        for job in waiting {
            match job {
                Job::Local { id, .. } => locals.push((id.clone(), self.engine.local(id)?)),
                Job::Setting(REVS_LIMIT_KEY, value) => new_limit = super::settings::revs_limit_of(value),
                Job::Edits(_) | Job::Purge(_) | Job::Setting(..) => {}
            }
        }
        let ids = ids_of(waiting);
        let hanging = self.hanging_for(waiting)?;
        let mut beside = Some((hanging, locals));
        let mut outcome = None;
        self.engine.update(&ids, &mut |records| {
            let once = "an engine merges once for each update";
            let (jobs, (hanging, locals)) = (jobs.take().expect(once), beside.take().expect(once));
            let docs = ids.iter().cloned().zip(records);
            let mut round = Round::new(docs, hanging, summary.update_seq, revs_limit);
            for (id, local) in locals {
                round.know_local(&id, local);
            }
            let answers = jobs.into_iter().map(|job| perform(job, &mut round)).collect();
            let seq = round.seq();
            let (group, difference) = round.finish();
            outcome = Some((answers, seq, difference));
            group
        })?;
        let (answers, seq, difference) = outcome.expect("an engine that updated has merged");
        self.publish(seq, difference, new_limit);
        Ok(answers)
    }

    /// What hangs on the leaves of documents that are edited with stubs.
    fn hanging_for(&self, jobs: &[Job]) -> Result<Hanging, Error> {
        let mut hanging = Hanging::new();
        let edits = jobs.iter().flat_map(|job| match job {
            Job::Edits(edits) => edits.as_slice(),
            Job::Local { .. } | Job::Purge(_) | Job::Setting(..) => &[],
        });
        let has_stub = |edit: &&Edit| {
            let mut attachments = edit.attachments().values();
            attachments.any(|attachment| matches!(attachment, AttachmentEdit::Stub))
        };
        for edit in edits.filter(has_stub) {
            let Some(loaded) = self.engine.load(edit.id(), &Which::Leaves)? else {
                continue;
            };
            for (leaf, content) in loaded.contents {
                hanging.insert((edit.id().clone(), leaf.rev), content.attachments);
            }
        }
        Ok(hanging)
    }

    fn publish(&self, seq: Seq, difference: Difference, new_limit: Option<u32>) {
        {
            let mut state = lock(&self.state);
            let summary = &mut state.summary;
            summary.docs = summary.docs.saturating_add_signed(difference.docs);
            summary.deleted_docs = summary
                .deleted_docs
                .saturating_add_signed(difference.deleted_docs);
            summary.update_seq = seq;
            state.revs_limit = new_limit.unwrap_or(state.revs_limit);
        }
        self.updated.send_if_modified(|last| {
            let is_newer = *last < seq;
            *last = seq;
            is_newer
        });
    }
}

impl Job {
    /// Whether it reads or writes this document.
    fn is_about(&self, doc: &DocId) -> bool {
        match self {
            Job::Edits(edits) => edits.iter().any(|edit| edit.id() == doc),
            Job::Purge(purges) => purges.iter().any(|(id, _)| id == doc),
            Job::Local { .. } | Job::Setting(..) => false,
        }
    }
}

impl Ticket {
    fn new(job: Job) -> Ticket {
        let (edits, bytes) = match &job {
            Job::Edits(edits) => (
                edits.len(),
                edits.iter().map(|edit| edit.body().as_str().len()).sum(),
            ),
            Job::Local { body, .. } => (1, body.as_ref().map_or(0, |body| body.as_str().len())),
            Job::Purge(purges) => (purges.len(), 0),
            Job::Setting(_, value) => (1, value.len()),
        };
        Ticket {
            job: Mutex::new(Some(job)),
            edits,
            bytes,
            stage: Mutex::new(Stage::Waits),
            told: Condvar::new(),
        }
    }

    fn tell(&self, stage: Stage) {
        *lock(&self.stage) = stage;
        self.told.notify_one();
    }

    /// Sleeps until there is an answer; `None` where this thread is to lead.
    fn wait(&self) -> Option<Result<Answer, Error>> {
        let mut stage = lock(&self.stage);
        loop {
            match std::mem::replace(&mut *stage, Stage::Over) {
                Stage::Answered(answer) => return Some(answer),
                Stage::Leads => {
                    *stage = Stage::Waits;
                    return None;
                }
                Stage::Waits => {
                    *stage = Stage::Waits;
                    stage = self
                        .told
                        .wait(stage)
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                Stage::Over => return Some(Err(Error::Busy)),
            }
        }
    }
}

/// Writers at the end of the last groups: as many as came together before are likely to do so again.
#[derive(Default)]
struct Sizes {
    last: [usize; GROUPS_REMEMBERED],
    next: usize,
}

impl Sizes {
    fn note(&mut self, size: usize) {
        self.last[self.next] = size;
        self.next = (self.next + 1) % GROUPS_REMEMBERED;
    }

    fn largest(&self) -> usize {
        self.last.into_iter().max().unwrap_or(0)
    }
}

fn perform(job: Job, round: &mut Round) -> Answer {
    match job {
        Job::Edits(edits) => Answer::Edits(edits.into_iter().map(|edit| round.edit(edit)).collect()),
        Job::Local { id, parent, body } => Answer::Local(round.local(&id, parent, body)),
        Job::Purge(purges) => {
            let purged = purges.iter().map(|(id, revs)| round.purge(id, revs)).collect();
            // The last sequence may be no document's from now on.
            round.set(UPDATE_SEQ, round.seq().number().to_be_bytes().to_vec());
            Answer::Purged(purged)
        }
        Job::Setting(key, value) => {
            round.set(key, value);
            Answer::Set
        }
    }
}

/// The documents that jobs are about, each once, in order: pages of an index are met one after the other.
fn ids_of(jobs: &[Job]) -> Vec<DocId> {
    let mut ids: BTreeSet<&DocId> = BTreeSet::new();
    for job in jobs {
        match job {
            Job::Edits(edits) => ids.extend(edits.iter().map(Edit::id)),
            Job::Purge(purges) => ids.extend(purges.iter().map(|(id, _)| id)),
            Job::Local { .. } | Job::Setting(..) => {}
        }
    }
    ids.into_iter().cloned().collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks: what may panic runs outside.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blanket::sqlite::Sqlite;

    fn edit(id: &str) -> Job {
        Job::Edits(vec![Edit::New {
            id: id.parse().unwrap(),
            parent: None,
            deleted: false,
            body: Body::from("{}".to_owned()),
            attachments: std::collections::BTreeMap::new(),
        }])
    }

    #[test]
    fn a_damaged_document_fails_nobody_elses_edits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("documents.db");
        let engine: Arc<dyn Engine> = Arc::new(Sqlite::open(&path).unwrap());
        let writer = Writer::new(Arc::clone(&engine), 1000).unwrap();
        for id in ["damaged", "well"] {
            assert!(matches!(writer.submit(edit(id)), Ok(Answer::Edits(done)) if done[0].is_ok()));
        }
        let damage = rusqlite::Connection::open(&path).unwrap();
        let sql = "UPDATE doc SET tree = x'00' WHERE id = 'damaged'";
        assert_eq!(damage.execute(sql, []).unwrap(), 1);
        let answers = writer.commit(vec![
            edit("new"),
            edit("damaged"),
            edit("well"),
            edit("damaged"),
            edit("newer"),
        ]);
        let stored =
            |answer: &Result<Answer, Error>| matches!(answer, Ok(Answer::Edits(done)) if done[0].is_ok());
        let conflict = |answer: &Result<Answer, Error>| matches!(answer, Ok(Answer::Edits(done)) if matches!(done[0], Err(Refused::Conflict)));
        let damaged = |answer: &Result<Answer, Error>| matches!(answer, Err(Error::DamagedDoc { .. }));
        assert!(stored(&answers[0]) && damaged(&answers[1]) && conflict(&answers[2]));
        assert!(damaged(&answers[3]) && stored(&answers[4]));
        assert!(
            engine
                .load(&"newer".parse().unwrap(), &Which::Record)
                .unwrap()
                .is_some()
        );
    }
}
