//! Row R24: three databases that edit the same documents apart, replicate with crashes, late and out of order, and end with the
//! same winners and leaves as a model of CouchDB's rule says, which knows nothing but who followed whom.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use refuge::blanket::{Body, ChangesQuery, Database, Doc, Edit, EngineKind, Options, Refused, create_db};
use refuge::id::{DocId, Rev, Seq};

use crate::fault::seed::{Count, Rng};

/// Histories; each is a seed of its own.
const HISTORIES: Count = Count {
    sample: 400,
    full: 10_000,
};

const NODES: usize = 3;
const DOCS: usize = 3;

/// Things that happen before all nodes meet.
const STEPS: usize = 40;

/// Changes that are carried over in one call.
const BATCH: usize = 2;

/// What everybody knows who saw every edit: for each document, each revision, what it followed, and whether it deletes.
#[derive(Default)]
struct Model {
    docs: BTreeMap<String, BTreeMap<String, (Option<String>, bool)>>,
}

/// Leaves, the winner first, as `rev` and whether it is a deletion.
type Leaves = Vec<(String, bool)>;

struct Node {
    database: Database,
    /// How far it has read each other one.
    checkpoints: [Seq; NODES],
    /// What it will have forgotten of that after a crash.
    durable_checkpoints: [Seq; NODES],
}

#[test]
fn three_nodes_end_with_the_winners_and_leaves_of_couchdb() {
    let rng = Rng::for_test("histories");
    for history in 0..HISTORIES.rounds() {
        live(&rng.branch(history)).unwrap_or_else(|wrong| panic!("history {history}: {wrong}"));
    }
}

fn live(rng: &Rng) -> Result<(), String> {
    let mut rng = rng.clone();
    let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::new()).collect();
    let mut model = Model::default();
    for _ in 0..STEPS {
        let at = rng.below(NODES);
        match rng.below(10) {
            0..6 => edit(&nodes[at].database, &mut model, &mut rng),
            6 => nodes[at].crash(),
            _ => {
                let from = (at + 1 + rng.below(NODES - 1)) % NODES;
                let cut = rng.one_in(3).then(|| rng.below(3));
                replicate(&mut nodes, (from, at), cut, &mut rng, Some(&mut model));
            }
        }
    }
    // All meet, twice: what the second learns after the first left, the first hears then.
    for _ in 0..2 {
        for at in 0..NODES {
            for from in (0..NODES).filter(|from| *from != at) {
                replicate(&mut nodes, (from, at), None, &mut rng, None);
            }
        }
    }
    let expected = model.leaves();
    for (number, node) in nodes.iter().enumerate() {
        let found = node.leaves();
        if found != expected {
            return Err(format!("node {number} has {found:#?}, the model {expected:#?}"));
        }
    }
    Ok(())
}

/// One edit by a client of a node: of any leaf, or of a document that is not there.
fn edit(database: &Database, model: &mut Model, rng: &mut Rng) {
    let id: DocId = format!("doc{}", rng.below(DOCS)).parse().unwrap();
    let leaves = database.open_leaves(&id).unwrap();
    let parent = (!leaves.is_empty()).then(|| leaves[rng.below(leaves.len())].rev().clone());
    let deleted = parent.is_some() && rng.one_in(4);
    // Few bodies, so that two nodes often make the very same edit.
    let body = format!("{{\"n\":{}}}", rng.below(3));
    let edit = Edit::New {
        id: id.clone(),
        parent: parent.clone(),
        deleted,
        body: Body::from(body),
        attachments: BTreeMap::new(),
    };
    match database.save_doc(edit).unwrap() {
        Ok(rev) => model.note(&id, &rev, parent.as_ref(), deleted),
        Err(refused) => assert_eq!(refused, Refused::Conflict),
    }
}

/// Carries over what changed since the checkpoint, in any order; `cut` ends it after so many batches, without a checkpoint.
/// With a model, the source is edited meanwhile.
fn replicate(
    nodes: &mut [Node],
    (from, to): (usize, usize),
    cut: Option<usize>,
    rng: &mut Rng,
    mut meanwhile: Option<&mut Model>,
) {
    let source = nodes[from].database.clone();
    let target = nodes[to].database.clone();
    let since = nodes[to].checkpoints[from];
    let mut changed: Vec<(DocId, Vec<Rev>)> = Vec::new();
    let query = ChangesQuery {
        since,
        ..ChangesQuery::default()
    };
    let end = source.changes(&query, &mut |change| {
        changed.push((
            change.id,
            change.leaves.into_iter().map(|leaf| leaf.rev).collect(),
        ));
        ControlFlow::Continue(())
    });
    let last = end.unwrap().last;
    shuffle(&mut changed, rng);
    for (number, batch) in changed.chunks(BATCH).enumerate() {
        if cut == Some(number) {
            return;
        }
        if let Some(model) = meanwhile.as_deref_mut().filter(|_| rng.one_in(3)) {
            edit(&source, model, rng);
        }
        let mut edits = Vec::new();
        for missing in target.revs_diff(batch).unwrap() {
            for rev in &missing.revs {
                // What was followed meanwhile comes with its successor, at a later sequence.
                edits.extend(source.open_rev(&missing.id, rev).unwrap().map(replicated));
            }
        }
        shuffle(&mut edits, rng);
        assert!(target.save_docs(edits).unwrap().iter().all(Result::is_ok));
    }
    nodes[to].checkpoints[from] = last;
    if rng.one_in(2) {
        nodes[to].durable_checkpoints = nodes[to].checkpoints;
    }
}

fn replicated(doc: Doc) -> Edit {
    Edit::Replicated {
        id: doc.id,
        revisions: doc.revisions,
        deleted: doc.deleted,
        body: doc.body,
        attachments: BTreeMap::new(),
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at + 1));
    }
}

impl Node {
    fn new() -> Node {
        let options = Options {
            engine: EngineKind::Memory,
            ..Options::default()
        };
        // It needs no folder.
        let database = create_db(Path::new("/"), &"history".parse().unwrap(), &options);
        Node {
            database: database.unwrap(),
            checkpoints: [Seq::ZERO; NODES],
            durable_checkpoints: [Seq::ZERO; NODES],
        }
    }

    /// Documents were durable when they were acknowledged; how far a replication came may not have been.
    fn crash(&mut self) {
        self.checkpoints = self.durable_checkpoints;
    }

    fn leaves(&self) -> BTreeMap<String, Leaves> {
        let mut found = BTreeMap::new();
        for number in 0..DOCS {
            let name = format!("doc{number}");
            let leaves = self.database.open_leaves(&name.parse().unwrap()).unwrap();
            let leaves: Leaves = leaves
                .iter()
                .map(|leaf| (leaf.rev().to_string(), leaf.deleted))
                .collect();
            if !leaves.is_empty() {
                found.insert(name, leaves);
            }
        }
        found
    }
}

impl Model {
    fn note(&mut self, id: &DocId, rev: &Rev, parent: Option<&Rev>, deleted: bool) {
        let revs = self.docs.entry(id.to_string()).or_default();
        let noted = (parent.map(Rev::to_string), deleted);
        let known = revs.insert(rev.to_string(), noted.clone());
        // The hash of an edit says all of it.
        assert!(known.is_none_or(|known| known == noted), "{rev}");
    }

    /// Those that nobody followed: alive before deleted, then by generation, then by hash, the highest first.
    fn leaves(&self) -> BTreeMap<String, Leaves> {
        let of_doc = |revs: &BTreeMap<String, (Option<String>, bool)>| {
            let followed: BTreeSet<&String> =
                revs.values().filter_map(|(parent, _)| parent.as_ref()).collect();
            let mut leaves: Vec<(bool, u32, &str, &String)> = Vec::new();
            for (rev, (_, deleted)) in revs.iter().filter(|(rev, _)| !followed.contains(rev)) {
                let (generation, hash) = rev.split_once('-').unwrap();
                leaves.push((!deleted, generation.parse().unwrap(), hash, rev));
            }
            leaves.sort();
            leaves.reverse();
            leaves
                .into_iter()
                .map(|(alive, _, _, rev)| (rev.clone(), !alive))
                .collect()
        };
        self.docs
            .iter()
            .map(|(id, revs)| (id.clone(), of_doc(revs)))
            .collect()
    }
}
