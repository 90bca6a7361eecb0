//! Row R23: three databases in a ring that replicate over a network which loses, repeats, reorders and divides, with peers that are set
//! back and replicators that die, and end alike. No sockets and no clock: each history is its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checkpoint::{Checkpoint, PeerSeq};
use super::peer::{Failure, Kept, Moved, Page, Row, Side, Trouble, Wanted};
use super::session::{Answer, Plan, Report, Request, Session, Ticket};
use crate::id::{DocId, Rev};
use crate::node::RevTree;

/// Histories of an ordinary run; `REFUGE_LONG=1` runs what the row asks for each night.
const HISTORIES: (u64, u64) = (1000, 20_000);

const NODES: usize = 3;

/// Changes of one answer, so that a few documents are many batches.
const PAGE: usize = 3;

/// Answers of one session, far more than any needs.
const ANSWERS_MAX: usize = 20_000;

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound as u64).unwrap()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// A database: what counts of it.
#[derive(Clone, Default)]
struct Model {
    docs: BTreeMap<DocId, (RevTree, u64)>,
    seq: u64,
    locals: BTreeMap<String, (u64, Checkpoint)>,
}

impl Model {
    /// Merges a revision with its history; a sequence is given out only where that changes anything.
    fn merge(&mut self, id: &DocId, history: &[Rev], deleted: bool) {
        let entry = self.docs.entry(id.clone()).or_default();
        let before = entry.0.clone();
        entry.0.merge(history, deleted).unwrap();
        if entry.0 != before {
            self.seq += 1;
            entry.1 = self.seq;
        }
    }

    fn edit(&mut self, rng: &mut Rng) {
        let id: DocId = format!("doc{}", rng.below(12)).parse().unwrap();
        let tree = self
            .docs
            .get(&id)
            .map(|(tree, _)| tree.clone())
            .unwrap_or_default();
        let leaves = tree.leaves();
        let mut history = match leaves.is_empty() || rng.one_in(8) {
            true => Vec::new(),
            false => tree.history_of(&leaves[rng.below(leaves.len())].rev),
        };
        let generation = history.first().map_or(1, |rev| rev.generation() + 1);
        let rev: Rev = format!("{generation}-{:032x}", rng.below(1 << 30))
            .parse()
            .unwrap();
        history.insert(0, rev);
        let deleted = history.len() > 1 && rng.one_in(5);
        self.merge(&id, &history, deleted);
    }

    fn changes(&self, since: u64) -> (Vec<Row>, u64, u64) {
        let mut changed: Vec<_> = self.docs.iter().filter(|(_, (_, seq))| *seq > since).collect();
        changed.sort_by_key(|(_, (_, seq))| *seq);
        let pending = changed.len().saturating_sub(PAGE) as u64;
        changed.truncate(PAGE);
        let last = match pending {
            0 => self.seq,
            _ => changed.last().map_or(self.seq, |(_, (_, seq))| *seq),
        };
        let rows = changed.into_iter().map(|(id, (tree, _))| Row {
            id: id.clone(),
            revs: tree.leaves().into_iter().map(|leaf| leaf.rev).collect(),
        });
        (rows.collect(), last.max(since), pending)
    }

    fn lacks(&self, rows: &[Row]) -> Vec<Wanted> {
        let wanted = rows.iter().map(|row| {
            let tree = self.docs.get(&row.id).map(|(tree, _)| tree);
            let is_missing = |rev: &&Rev| tree.is_none_or(|tree| !tree.contains(rev));
            Wanted {
                id: row.id.clone(),
                revs: row.revs.iter().filter(is_missing).cloned().collect(),
                ancestors: Vec::new(),
            }
        });
        wanted.filter(|wanted| !wanted.revs.is_empty()).collect()
    }

    fn leaves(&self) -> BTreeMap<DocId, Vec<(Rev, bool)>> {
        let leaves = |tree: &RevTree| {
            tree.leaves()
                .into_iter()
                .map(|leaf| (leaf.rev, leaf.deleted))
                .collect()
        };
        self.docs
            .iter()
            .map(|(id, (tree, _))| (id.clone(), leaves(tree)))
            .collect()
    }
}

/// Does what a request asks for, of `wanted` only so many.
fn serve(
    nodes: &mut [Model],
    from: usize,
    to: usize,
    request: &Request,
    most: usize,
) -> Result<Answer, Failure> {
    let name = format!("{from}-{to}");
    let at = |side: &Side| if *side == Side::Source { from } else { to };
    Ok(match request {
        Request::Open(_) => Answer::Opened(true),
        Request::Create => Answer::Created,
        Request::ReadCheckpoint(side) => {
            let kept = nodes[at(side)].locals.get(&name);
            Answer::Checkpoint(kept.map(|(rev, checkpoint)| Kept {
                rev: rev.to_string(),
                checkpoint: Some(checkpoint.clone()),
            }))
        }
        Request::Changes { since, .. } => {
            // A peer that was set back may have given out more than it knows now.
            let since: u64 = since.to_query().parse().unwrap();
            let (rows, last, pending) = nodes[from].changes(since.min(nodes[from].seq));
            Answer::Page(Page {
                rows,
                skipped: 0,
                last_seq: PeerSeq::of_json(last.into()).unwrap(),
                pending: Some(pending),
            })
        }
        Request::Differ { rows, .. } => Answer::Wanted(nodes[to].lacks(rows)),
        Request::Move { wanted, .. } => {
            let mut moved = Moved::default();
            for one in wanted.iter().take(most) {
                let Some((tree, _)) = nodes[from].docs.get(&one.id).cloned() else {
                    continue;
                };
                for leaf in tree.leaves() {
                    let history = tree.history_of(&leaf.rev);
                    if history.iter().any(|rev| one.revs.contains(rev)) {
                        nodes[to].merge(&one.id, &history, leaf.deleted);
                        moved.read += 1;
                        moved.written += 1;
                    }
                }
            }
            Answer::Moved(moved)
        }
        Request::Commit { .. } => Answer::Committed,
        Request::Keep {
            side,
            rev,
            checkpoint,
        } => {
            let locals = &mut nodes[at(side)].locals;
            let known = locals.get(&name).map(|(rev, _)| rev.to_string());
            if known != *rev {
                return Err(Failure::new(Trouble::Conflict, "conflict"));
            }
            let next = known.map_or(1, |rev| rev.parse::<u64>().unwrap() + 1);
            locals.insert(name, (next, (**checkpoint).clone()));
            Answer::Kept(next.to_string())
        }
    })
}

/// What may happen on the way.
#[derive(Clone, Copy)]
struct Weather {
    /// One in so many requests is lost, and as many answers; 0 is none.
    loss: usize,
    /// Between these moments nothing comes through.
    divided: (Duration, Duration),
    /// The replicator dies after so many answers.
    dies_after: Option<usize>,
}

const FAIR: Weather = Weather {
    loss: 0,
    divided: (Duration::ZERO, Duration::ZERO),
    dies_after: None,
};

/// Something on its way.
enum Flight {
    Request(Request, bool),
    Answer(Result<Answer, Failure>),
}

/// Runs one session; `None` where its replicator died.
fn session(
    nodes: &mut [Model],
    (from, to): (usize, usize),
    weather: Weather,
    rng: &mut Rng,
) -> Option<Result<Report, Failure>> {
    let mut session = Session::new(Plan {
        session_id: format!("{:016x}", rng.below(1 << 31)),
        start_time: String::new(),
        continuous: false,
        create_target: false,
        names: Default::default(),
        since: None,
        seed: rng.below(1 << 30) as u64,
    });
    let mut flights: Vec<(Duration, Ticket, Flight)> = Vec::new();
    let (mut now, mut answers) = (Duration::ZERO, 0);
    let lost = || Failure::new(Trouble::Passing, "lost");
    loop {
        for (ticket, request) in session.poll(now) {
            let is_lost = weather.loss > 0 && rng.one_in(weather.loss);
            let arrives = now + Duration::from_millis(rng.below(200) as u64);
            flights.push((arrives, ticket, Flight::Request(request, is_lost)));
        }
        if let Some(ended) = session.ended() {
            return Some(ended);
        }
        // What is on its way comes in any order; where nothing is, time passes until the session wants something.
        let next = (0..flights.len()).min_by_key(|at| flights[*at].0);
        let due = session.deadline();
        let Some(at) = next.filter(|at| due.is_none_or(|due| flights[*at].0 <= due)) else {
            now = now.max(due.expect("a session that has not ended waits for something"));
            continue;
        };
        let (moment, ticket, flight) = flights.swap_remove(at);
        now = now.max(moment);
        let is_divided = weather.divided.0 <= now && now < weather.divided.1;
        match flight {
            Flight::Request(request, is_lost) => {
                let back = now + Duration::from_millis(rng.below(200) as u64);
                let answer = match is_lost || is_divided {
                    true => Err(lost()),
                    false => {
                        let is_cut = weather.loss > 0 && rng.one_in(weather.loss);
                        let most = if is_cut { rng.below(3) } else { usize::MAX };
                        let done = serve(nodes, from, to, &request, most);
                        if weather.loss > 0 && rng.one_in(weather.loss) {
                            // It comes twice: the second time after others.
                            let again = now + Duration::from_millis(rng.below(2000) as u64);
                            flights.push((again, Ticket::of(u64::MAX), Flight::Request(request, false)));
                        }
                        if is_cut || (weather.loss > 0 && rng.one_in(weather.loss)) {
                            Err(lost())
                        } else {
                            done
                        }
                    }
                };
                flights.push((back, ticket, Flight::Answer(answer)));
            }
            Flight::Answer(answer) => {
                session.answered(ticket, answer, now);
                answers += 1;
                if weather.loss > 0 && rng.one_in(4) {
                    nodes[from].edit(rng);
                }
                if weather.dies_after == Some(answers) {
                    // What is on its way arrives all the same.
                    for (_, _, flight) in flights {
                        if let Flight::Request(request, false) = flight {
                            let _ = serve(nodes, from, to, &request, usize::MAX);
                        }
                    }
                    return None;
                }
            }
        }
        assert!(answers < ANSWERS_MAX, "a session that does not end");
    }
}

fn live(seed: u64) {
    let rng = &mut Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut nodes: Vec<Model> = (0..NODES).map(|_| Model::default()).collect();
    let mut earlier = nodes.clone();
    for _ in 0..20 {
        let at = rng.below(NODES);
        match rng.below(12) {
            0..5 => (0..rng.below(6)).for_each(|_| nodes[at].edit(rng)),
            5 => earlier[at] = nodes[at].clone(),
            // A peer is set back to what a backup had of it, checkpoints and all.
            6 if rng.one_in(3) => nodes[at] = earlier[at].clone(),
            _ => {
                let from = Duration::from_millis(rng.below(3000) as u64);
                let weather = Weather {
                    loss: rng.below(3) * 5,
                    divided: (from, from + Duration::from_millis(rng.below(20_000) as u64)),
                    dies_after: rng.one_in(3).then(|| rng.below(25)),
                };
                session(&mut nodes, (at, (at + 1) % NODES), weather, rng);
            }
        }
    }
    // Twice around in fair weather: what the second learns after the first left, the first hears then.
    for _ in 0..2 {
        for at in 0..NODES {
            session(&mut nodes, (at, (at + 1) % NODES), FAIR, rng)
                .unwrap()
                .unwrap();
        }
    }
    for at in 1..NODES {
        assert_eq!(nodes[at].leaves(), nodes[0].leaves(), "seed {seed}: node {at}");
    }
    for at in 0..NODES {
        let seqs: Vec<u64> = nodes.iter().map(|node| node.seq).collect();
        let report = session(&mut nodes, (at, (at + 1) % NODES), FAIR, rng)
            .unwrap()
            .unwrap();
        let after: Vec<u64> = nodes.iter().map(|node| node.seq).collect();
        assert_eq!(
            seqs, after,
            "seed {seed}: a replication of what is there wrote something"
        );
        assert!(report.history.len() <= 50);
    }
}

#[test]
fn three_databases_in_bad_weather_end_alike() {
    let is_long = std::env::var_os("REFUGE_LONG").is_some_and(|value| value == "1");
    let seeds = if is_long { HISTORIES.1 } else { HISTORIES.0 };
    match std::env::var("REFUGE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => live(seed),
        None => (0..seeds).for_each(live),
    }
}

/// A session against a model, driven by hand.
struct Hand {
    session: Session,
    nodes: Vec<Model>,
    now: Duration,
}

impl Hand {
    fn new(edits: usize) -> Hand {
        let mut nodes = vec![Model::default(), Model::default()];
        let rng = &mut Rng(7);
        (0..edits).for_each(|_| nodes[0].edit(rng));
        let plan = Plan {
            session_id: "s".to_owned(),
            start_time: String::new(),
            continuous: false,
            create_target: true,
            names: Default::default(),
            since: None,
            seed: 1,
        };
        Hand {
            session: Session::new(plan),
            nodes,
            now: Duration::ZERO,
        }
    }

    /// Answers what is asked for as `answer` says, or as the model does; how the session ended.
    fn run(
        mut self,
        mut answer: impl FnMut(&Request) -> Option<Result<Answer, Failure>>,
    ) -> (Result<Report, Failure>, Vec<Request>) {
        let mut asked = Vec::new();
        for _ in 0..ANSWERS_MAX {
            let begun = self.session.poll(self.now);
            if let Some(ended) = self.session.ended() {
                return (ended, asked);
            }
            if begun.is_empty() {
                self.now = self.session.deadline().expect("it waits for something");
            }
            for (ticket, request) in begun {
                let done =
                    answer(&request).unwrap_or_else(|| serve(&mut self.nodes, 0, 1, &request, usize::MAX));
                asked.push(request);
                self.session.answered(ticket, done, self.now);
            }
        }
        panic!("a session that does not end");
    }
}

#[test]
fn a_target_that_is_not_there_is_made_and_a_source_is_not() {
    let (ended, asked) = Hand::new(5).run(|request| match request {
        Request::Open(Side::Target) => Some(Ok(Answer::Opened(false))),
        _ => None,
    });
    assert!(ended.is_ok() && asked.contains(&Request::Create));
    let (ended, _) = Hand::new(5).run(|request| match request {
        Request::Open(Side::Source) => Some(Ok(Answer::Opened(false))),
        _ => None,
    });
    assert_eq!(ended.unwrap_err().trouble, Trouble::Missing);
}

#[test]
fn a_peer_that_never_answers_rightly_fails_the_session_after_some_attempts() {
    for trouble in [Trouble::Passing, Trouble::Lie, Trouble::Refused, Trouble::Fatal] {
        let mut attempts = 0;
        let (ended, asked) = Hand::new(40).run(|request| match request {
            Request::Move { batch: 2, .. } => {
                attempts += 1;
                Some(Err(Failure::new(trouble, "no")))
            }
            _ => None,
        });
        assert_eq!(ended.unwrap_err().trouble, trouble);
        assert_eq!(attempts, if trouble == Trouble::Passing { 5 } else { 1 });
        // What was stored before is written down.
        let kept = asked
            .iter()
            .filter(|request| matches!(request, Request::Keep { .. }))
            .count();
        assert_eq!(kept, 2, "{trouble:?}");
    }
}

#[test]
fn a_source_that_keeps_no_checkpoints_is_read_all_the_same() {
    let (ended, asked) = Hand::new(40).run(|request| match request {
        Request::Keep {
            side: Side::Source, ..
        } => Some(Err(Failure::new(Trouble::Refused, "read only"))),
        _ => None,
    });
    assert!(!ended.unwrap().no_changes);
    assert!(asked.iter().any(|request| matches!(
        request,
        Request::Keep {
            side: Side::Target,
            ..
        }
    )));
}

#[test]
fn changes_that_lead_nowhere_end_the_session() {
    let (ended, _) = Hand::new(5).run(|request| match request {
        Request::Changes { since, .. } => Some(Ok(Answer::Page(Page {
            rows: vec![Row {
                id: "a".parse().unwrap(),
                revs: vec!["1-a".parse().unwrap()],
            }],
            skipped: 0,
            last_seq: since.clone(),
            pending: None,
        }))),
        _ => None,
    });
    assert_eq!(ended.unwrap_err().trouble, Trouble::Lie);
}

#[test]
fn an_answer_to_another_request_fails_and_one_that_comes_twice_is_passed_over() {
    let (ended, _) = Hand::new(5).run(|request| match request {
        Request::Differ { .. } => Some(Ok(Answer::Created)),
        _ => None,
    });
    assert_eq!(ended.unwrap_err().trouble, Trouble::Fatal);
    let mut hand = Hand::new(5);
    let (ticket, request) = hand.session.poll(Duration::ZERO).remove(0);
    for _ in 0..3 {
        let answer = serve(&mut hand.nodes, 0, 1, &request, 0);
        hand.session.answered(ticket, answer, Duration::ZERO);
    }
    assert!(hand.session.ended().is_none());
}

#[test]
fn a_session_that_is_stopped_writes_down_how_far_it_is_and_no_further() {
    let mut hand = Hand::new(40);
    let mut moved = 0;
    // The second batch is on its way when it is stopped.
    while moved < 2 {
        for (ticket, request) in hand.session.poll(hand.now) {
            moved += usize::from(matches!(request, Request::Move { .. }));
            if moved < 2 {
                let answer = serve(&mut hand.nodes, 0, 1, &request, usize::MAX);
                hand.session.answered(ticket, answer, hand.now);
            }
        }
    }
    let wanted = hand.session.progress().0.clone();
    assert_ne!(wanted, PeerSeq::default());
    hand.session.stop();
    let (ended, asked) = hand.run(|_| None);
    assert_eq!(ended.unwrap().source_last_seq, wanted);
    for request in asked {
        let (Request::Keep { checkpoint, .. } | Request::Commit { checkpoint }) = request else {
            panic!("{request:?}");
        };
        assert_eq!(checkpoint.source_last_seq, wanted);
    }
}

#[test]
fn a_checkpoint_is_written_after_the_target_has_put_what_it_says_on_its_medium() {
    let (ended, asked) = Hand::new(40).run(|_| None);
    assert!(ended.is_ok());
    let places = |of: fn(&Request) -> bool| -> Vec<usize> {
        let places = asked.iter().enumerate().filter(|(_, request)| of(request));
        places.map(|(place, _)| place).collect()
    };
    let commits = places(|request| matches!(request, Request::Commit { .. }));
    let keeps = places(|request| matches!(request, Request::Keep { .. }));
    assert!(!keeps.is_empty() && keeps.len() == 2 * commits.len(), "{asked:?}");
    for (commit, keeps) in commits.iter().zip(keeps.chunks(2)) {
        assert!(keeps.iter().all(|keep| keep > commit), "{asked:?}");
    }
    // One that can't be put there is not said to be.
    let (ended, asked) = Hand::new(5).run(|request| match request {
        Request::Commit { .. } => Some(Err(Failure::new(Trouble::Fatal, "no"))),
        _ => None,
    });
    assert_eq!(ended.unwrap_err().trouble, Trouble::Fatal);
    assert!(
        !asked
            .iter()
            .any(|request| matches!(request, Request::Keep { .. }))
    );
}
