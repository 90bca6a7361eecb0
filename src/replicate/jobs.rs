//! The replications that go on, those that wait, and who is told how they ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::docs::{Docs, Wish};
use super::job::{self, Around, Ended, Prepared};
use super::peer::{Failure, Trouble};
use crate::id::DocId;
use crate::node::{
    Job, JobState, Replicated, ReplicationAsked, ReplicationFailure, ReplicationOrder, ReplicationRequest,
};

/// Replications that go on at a time. One that waits for changes costs a connection, and work is bounded for all.
const JOBS_MAX: usize = 64;

/// Replications that wait for another to end.
const WAITING_MAX: usize = 1000;

/// How long those that go on may take to write down how far they are: less than the node waits for its edges.
const DRAIN_WITHIN: Duration = Duration::from_secs(8);

struct Jobs {
    around: Around,
    tasks: JoinSet<(u64, Ended)>,
    /// Replications that were begun so far.
    begun: u64,
    live: BTreeMap<String, Live>,
    waiting: VecDeque<(Prepared, Job)>,
}

/// A replication that goes on or waits.
struct Live {
    /// Tells it from an earlier one under its id that has not quite ended.
    number: u64,
    stop: CancellationToken,
    /// Who wants to know how it ends.
    asked: Vec<ReplicationAsked>,
    doc: Option<DocId>,
}

/// Does what the node is asked until `shutdown`.
pub(super) async fn run(around: Around, shutdown: CancellationToken) {
    let Some(mut orders) = around.node.replications().orders() else {
        return;
    };
    let mut docs = Docs::new(around.node.clone());
    let mut jobs = Jobs {
        around,
        tasks: JoinSet::new(),
        begun: 0,
        live: BTreeMap::new(),
        waiting: VecDeque::new(),
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            order = orders.recv() => match order {
                Some(asked) => jobs.take(asked).await,
                None => break,
            },
            () = docs.changed() => {
                for wish in docs.read().await {
                    jobs.wish(wish, &mut docs).await;
                }
            }
            Some(ended) = jobs.tasks.join_next() => {
                if let Ok((number, ended)) = ended {
                    jobs.ended(number, ended, &mut docs).await;
                }
                jobs.begin_waiting();
            }
        }
    }
    orders.close();
    for live in jobs.live.values() {
        live.stop.cancel();
    }
    let drained = timeout(DRAIN_WITHIN, async {
        while jobs.tasks.join_next().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::warn!(
            "a replication did not end in time: its next session goes on from its last checkpoint"
        );
    }
}

impl Jobs {
    async fn take(&mut self, mut asked: ReplicationAsked) {
        let order = std::mem::replace(&mut asked.order, ReplicationOrder::Cancel(String::new()));
        match order {
            ReplicationOrder::Start(request) => self.start(*request, asked).await,
            ReplicationOrder::Cancel(id) => self.cancel(&id, asked),
            ReplicationOrder::CancelLike(request) => match job::prepare(&self.around, *request).await {
                Ok(prepared) => self.cancel(&prepared.id, asked),
                Err(failure) => asked.answer(Err(outcome(failure))),
            },
        }
    }

    async fn start(&mut self, request: ReplicationRequest, asked: ReplicationAsked) {
        let prepared = match job::prepare(&self.around, request).await {
            Ok(prepared) => prepared,
            Err(failure) => return asked.answer(Err(outcome(failure))),
        };
        let id = prepared.id.clone();
        let is_continuous = prepared.request.continuous;
        if !self.live.contains_key(&id) && !self.has_room() {
            return asked.answer(Err(ReplicationFailure::TooMany));
        }
        if !self.live.contains_key(&id) {
            self.add(prepared, None);
        }
        match self.live.get_mut(&id) {
            // It is tried until it is done, which may be never.
            Some(Live { doc: Some(doc), .. }) if !is_continuous => {
                let reason = format!(
                    "this replication goes on already: the document {doc} of _replicator asks for it"
                );
                asked.answer(Err(ReplicationFailure::Failed(reason)));
            }
            Some(live) if !is_continuous => live.asked.push(asked),
            _ => asked.answer(Ok(Replicated::Started(id))),
        }
    }

    fn cancel(&mut self, id: &str, asked: ReplicationAsked) {
        match self.stop(id) {
            true => asked.answer(Ok(Replicated::Cancelled(id.to_owned()))),
            false => asked.answer(Err(ReplicationFailure::Missing(id.to_owned()))),
        }
    }

    /// Whether there was one.
    fn stop(&mut self, id: &str) -> bool {
        let Some(live) = self.live.remove(id) else {
            return false;
        };
        live.stop.cancel();
        self.waiting.retain(|(prepared, _)| prepared.id != id);
        self.around.node.replications().forget(id);
        for asked in live.asked {
            asked.answer(Err(ReplicationFailure::Failed("it was cancelled".to_owned())));
        }
        true
    }

    /// What a document of `_replicator` wants.
    async fn wish(&mut self, wish: Wish, docs: &mut Docs) {
        let (id, request) = match wish {
            Wish::Stop(doc) => {
                self.stop_of(&doc);
                self.around.node.replications().forget(doc.as_str());
                return;
            }
            Wish::Start(doc, request) => (doc, request),
        };
        self.stop_of(&id);
        let prepared = match request {
            Ok(request) => job::prepare(&self.around, *request).await,
            Err(error) => Err(Failure::fatal(error.to_string())),
        };
        match prepared {
            Ok(prepared) if self.live.contains_key(&prepared.id) => {
                let reason = format!("replication {} goes on already", prepared.id);
                docs.failed(&id, Some(&prepared.id), &reason).await;
            }
            Ok(prepared) if self.has_room() => self.add(prepared, Some(id)),
            Ok(_) => {
                docs.failed(&id, None, &ReplicationFailure::TooMany.to_string())
                    .await
            }
            Err(failure) => docs.failed(&id, None, &failure.reason).await,
        }
    }

    fn stop_of(&mut self, doc: &DocId) {
        let of_doc = self
            .live
            .iter()
            .filter(|(_, live)| live.doc.as_ref() == Some(doc));
        let ids: Vec<String> = of_doc.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.stop(&id);
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    fn add(&mut self, prepared: Prepared, doc: Option<DocId>) {
        self.begun += 1;
        let live = Live {
            number: self.begun,
            stop: CancellationToken::new(),
            asked: Vec::new(),
            doc,
        };
        let job = job::job_of(&prepared);
        self.around.node.replications().tell(job.clone());
        self.live.insert(prepared.id.clone(), live);
        self.waiting.push_back((prepared, job));
        self.begin_waiting();
    }

    fn begin_waiting(&mut self) {
        while self.tasks.len() < JOBS_MAX {
            let Some((prepared, job)) = self.waiting.pop_front() else {
                return;
            };
            let Some(live) = self.live.get(&prepared.id) else {
                continue;
            };
            tracing::info!(replication = %prepared.id, source = %job.source, target = %job.target, "a replication begins");
            let tries_again = prepared.request.continuous || live.doc.is_some();
            let stop = live.stop.clone();
            let (number, around) = (live.number, self.around.clone());
            self.tasks
                .spawn(async move { (number, job::work(around, prepared, job, tries_again, stop).await) });
        }
    }

    async fn ended(&mut self, number: u64, ended: Ended, docs: &mut Docs) {
        let Ended { done, mut job } = ended;
        if self.live.get(&job.id).is_none_or(|live| live.number != number) {
            return;
        }
        let Some(live) = self.live.remove(&job.id) else {
            return;
        };
        let replications = self.around.node.replications();
        replications.forget(&job.id);
        if let Some(doc) = &live.doc {
            job.updated = SystemTime::now();
            job.state = match &done {
                Ok(_) => JobState::Completed,
                Err(_) => JobState::Failed,
            };
            match &done {
                Ok(_) => docs.completed(doc, &job).await,
                Err(failure) => docs.failed(doc, Some(&job.id), &failure.reason).await,
            }
            replications.tell(job.clone());
        }
        match &done {
            Ok(_) => {
                tracing::info!(replication = %job.id, written = job.stats.docs_written, "a replication is done")
            }
            Err(failure) => tracing::warn!(replication = %job.id, error = %failure, "a replication failed"),
        }
        for asked in live.asked {
            asked.answer(match &done {
                Ok(done) => Ok(Replicated::Done(done.clone())),
                Err(failure) => Err(outcome(failure.clone())),
            });
        }
    }
}

/// A failure as those who asked hear it.
pub(super) fn outcome(failure: Failure) -> ReplicationFailure {
    match failure.trouble {
        Trouble::Missing => ReplicationFailure::NoDatabase(failure.reason),
        Trouble::Refused => ReplicationFailure::Refused(failure.reason),
        Trouble::Passing | Trouble::Conflict | Trouble::Lie | Trouble::Stub | Trouble::Fatal => {
            ReplicationFailure::Failed(failure.reason)
        }
    }
}
