//! Group commit: what waits for a database is written in one go by one thread, which then answers them all.
//!
//! ```text
//!  enqueue ──> queue ──┬─ nobody leads: the caller gets the lead ─> gather ─> read, merge, commit ─> answers ─┐
//!  enqueue ──> queue ──┤                                              ^                                      │
//!  enqueue ──> queue ──┘  is told                                     └───────── as long as something waits ─┘
//! ```
//!
//! Who waits need not be a thread: an async caller is told through a channel and has a thread only while it leads, so that many
//! writers on a slow medium keep no threads from those who read. A blocking caller that leads writes the one group with its own
//! job, and leaves the rest to a thread of its own.
//!
//! There is no timer: an idle database commits at once, and what comes while a commit is under way shares the next one. A
//! leader gives the processor away for a moment where as many writers as lately are still on their way: each commit costs the
//! medium a flush.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::doc::{AttachmentEdit, Body, Edit, Refused};
use super::engine::{Engine, Summary, UPDATE_SEQ, Which};
use super::error::Error;
use super::merge::{Difference, Hanging, Round};
use super::settings::REVS_LIMIT_KEY;
use crate::id::{DocId, LocalId, Rev, Seq};

/// Calls that may wait.
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
    waiting: VecDeque<Ticket>,
    is_led: bool,
    sizes: Sizes,
    /// How long the last commit took.
    commit_took: Duration,
}

struct State {
    summary: Summary,
    revs_limit: u32,
}

/// A job, and who hears of it.
struct Ticket {
    job: Job,
    edits: usize,
    bytes: usize,
    tell: Tell,
}

/// Hears what became of a job; must not block. Dropped untold where the database closes before the job was begun.
pub(super) type Tell = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

/// The duty to commit what waits: one at a time for each database. Where it is dropped undone, whoever waits hears that the
/// database is busy.
#[must_use = "what waits is committed by nobody else"]
pub struct Lead {
    /// `None` once nothing waits any more.
    writer: Option<Arc<Writer>>,
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

    /// Does a job; durable on return. Blocking.
    pub(super) fn submit(self: &Arc<Self>, job: Job) -> Result<Answer, Error> {
        let (told, answer) = mpsc::sync_channel(1);
        let tell = move |answer| drop(told.send(answer));
        if let Some(lead) = self.enqueue(job, Box::new(tell))? {
            // A leader's own job is in its first group.
            lead.run_once();
        }
        answer.recv().unwrap_or(Err(Error::Busy))
    }

    /// Has a job wait for its turn; durable once it is told so. Whoever gets the lead with that has to run it, on a thread that
    /// may block.
    pub(super) fn enqueue(self: &Arc<Self>, job: Job, tell: Tell) -> Result<Option<Lead>, Error> {
        let ticket = Ticket::new(job, tell);
        let mut queue = lock(&self.queue);
        if queue.waiting.len() >= WAITING_MAX {
            return Err(Error::Busy);
        }
        queue.waiting.push_back(ticket);
        let is_led = std::mem::replace(&mut queue.is_led, true);
        Ok((!is_led).then(|| Lead {
            writer: Some(Arc::clone(self)),
        }))
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

    /// Notes a group that was committed. Answers whether something waits; nobody leads where nothing does.
    fn has_more(&self, group: usize, took: Duration) -> bool {
        let mut queue = lock(&self.queue);
        // Whoever came too late for this group is a writer as well, and may be in time for the next.
        let writers = group + queue.waiting.len();
        queue.sizes.note(writers);
        queue.commit_took = took;
        queue.is_led = !queue.waiting.is_empty();
        queue.is_led
    }

    /// What waits, and what comes while the processor is given away; more patiently up to as many as came lately.
    fn gather(&self) -> (Vec<Tell>, Vec<Job>) {
        let (mut tells, mut jobs) = (Vec::new(), Vec::new());
        let (mut edits, mut bytes, mut yields) = (0, 0, 0);
        let begun = Instant::now();
        loop {
            let mut queue = lock(&self.queue);
            let before = jobs.len();
            let mut is_full = false;
            while let Some(next) = queue.waiting.pop_front() {
                is_full = !jobs.is_empty()
                    && (edits + next.edits > GROUP_EDITS_MAX || bytes + next.bytes > GROUP_BYTES_MAX);
                if is_full {
                    queue.waiting.push_front(next);
                    break;
                }
                edits += next.edits;
                bytes += next.bytes;
                tells.push(next.tell);
                jobs.push(next.job);
            }
            yields = if jobs.len() > before { 0 } else { yields + 1 };
            let is_patient = match jobs.len() < queue.sizes.largest() {
                true => {
                    yields <= YIELDS_FOR_EXPECTED
                        || begun.elapsed() < queue.commit_took / COMMIT_SHARE_FOR_EXPECTED
                }
                false => yields <= YIELDS_FOR_MORE,
            };
            if is_full || !is_patient {
                return (tells, jobs);
            }
            drop(queue);
            thread::yield_now();
        }
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
    fn new(job: Job, tell: Tell) -> Ticket {
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
            job,
            edits,
            bytes,
            tell,
        }
    }
}

impl Lead {
    /// Commits until nothing waits. Blocking.
    pub fn run(mut self) {
        while self.commit_group() {}
    }

    /// Commits one group, and leaves the others to a thread of their own. Blocking.
    fn run_once(mut self) {
        if self.commit_group() {
            // Where the system has no thread to give, the lead comes back dropped, and those who wait hear that it is busy.
            drop(
                thread::Builder::new()
                    .name("commit".to_owned())
                    .spawn(move || self.run()),
            );
        }
    }

    /// Answers whether something waits still. Holds the database no longer than whoever waits for it.
    fn commit_group(&mut self) -> bool {
        let Some(writer) = &self.writer else {
            return false;
        };
        let (tells, jobs) = writer.gather();
        let begun = Instant::now();
        let answers = writer.commit(jobs);
        let has_more = writer.has_more(tells.len(), begun.elapsed());
        if !has_more {
            self.writer = None;
        }
        for (tell, answer) in tells.into_iter().zip(answers) {
            tell(answer);
        }
        has_more
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        let waiting = {
            let mut queue = lock(&writer.queue);
            queue.is_led = false;
            std::mem::take(&mut queue.waiting)
        };
        drop(writer);
        for ticket in waiting {
            (ticket.tell)(Err(Error::Busy));
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
    use crate::blanket::memory::Memory;
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

    /// Enqueues an edit; its answer comes through the channel.
    fn enqueue(writer: &Arc<Writer>, id: &str) -> (Option<Lead>, mpsc::Receiver<Result<Answer, Error>>) {
        let (told, answer) = mpsc::channel();
        let lead = writer.enqueue(edit(id), Box::new(move |answer| drop(told.send(answer))));
        (lead.unwrap(), answer)
    }

    fn is_stored(answer: &mpsc::Receiver<Result<Answer, Error>>) -> bool {
        matches!(answer.try_recv(), Ok(Ok(Answer::Edits(done))) if done[0].is_ok())
    }

    #[test]
    fn one_lead_commits_for_all_who_wait_and_is_then_given_anew() {
        let writer = Arc::new(Writer::new(Arc::new(Memory::default()), 1000).unwrap());
        let (lead, first) = enqueue(&writer, "first");
        let (none, second) = enqueue(&writer, "second");
        assert!(none.is_none() && first.try_recv().is_err());
        lead.expect("nobody leads").run();
        assert!(is_stored(&first) && is_stored(&second));
        assert_eq!(Arc::strong_count(&writer), 1, "nobody else holds the database");
        assert!(enqueue(&writer, "third").0.is_some());
    }

    #[test]
    fn a_lead_that_nobody_runs_leaves_nobody_waiting() {
        let writer = Arc::new(Writer::new(Arc::new(Memory::default()), 1000).unwrap());
        let (lead, first) = enqueue(&writer, "first");
        let (_, second) = enqueue(&writer, "second");
        drop(lead);
        for answer in [first, second] {
            assert!(matches!(answer.try_recv(), Ok(Err(Error::Busy))));
        }
        assert_eq!(writer.summary().docs, 0);
        assert!(matches!(writer.submit(edit("first")), Ok(Answer::Edits(done)) if done[0].is_ok()));
    }

    #[test]
    fn who_waits_behind_a_blocking_leader_is_served_too() {
        let writer = Arc::new(Writer::new(Arc::new(Memory::default()), 1000).unwrap());
        let (lead, first) = enqueue(&writer, "first");
        // More than fits into a group with it.
        let (told, rest) = mpsc::channel();
        let edits = (0..GROUP_EDITS_MAX).flat_map(|n| match edit(&n.to_string()) {
            Job::Edits(edits) => edits,
            _ => unreachable!("it is one of edits"),
        });
        let tell = Box::new(move |answer| drop(told.send(answer)));
        assert!(
            writer
                .enqueue(Job::Edits(edits.collect()), tell)
                .unwrap()
                .is_none()
        );
        lead.expect("nobody leads").run_once();
        assert!(is_stored(&first));
        assert!(matches!(rest.recv(), Ok(Ok(Answer::Edits(done))) if done.len() == GROUP_EDITS_MAX));
    }

    #[test]
    fn a_damaged_document_fails_nobody_elses_edits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("documents.db");
        let engine: Arc<dyn Engine> = Arc::new(Sqlite::open(&path).unwrap());
        let writer = Arc::new(Writer::new(Arc::clone(&engine), 1000).unwrap());
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
