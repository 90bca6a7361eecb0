//! Any sequence of edits leaves an engine as it leaves the one in memory.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::super::doc::AttachmentEdit::Stored;
use super::*;

/// Sequences that are tried; each opens the engine twice.
const CASES: u32 = 24;

/// Something done to a database. Indexes pick from what is there.
#[derive(Debug, Clone)]
enum Step {
    Write {
        doc: u8,
        leaf: Option<Index>,
        deleted: bool,
        hangs: bool,
    },
    Replicate {
        doc: u8,
        above: Index,
        depth: u8,
        hash: u8,
        deleted: bool,
    },
    Purge {
        doc: u8,
        leaf: Index,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let doc = 0_u8..4;
    let step = prop_oneof![
        4 => (doc.clone(), any::<Option<Index>>(), any::<bool>(), any::<bool>())
            .prop_map(|(doc, leaf, deleted, hangs)| Step::Write { doc, leaf, deleted, hangs }),
        4 => (doc.clone(), any::<Index>(), 1_u8..4, 0_u8..6, any::<bool>())
            .prop_map(|(doc, above, depth, hash, deleted)| Step::Replicate { doc, above, depth, hash, deleted }),
        1 => (doc, any::<Index>()).prop_map(|(doc, leaf)| Step::Purge { doc, leaf }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..24)
}

pub(crate) fn agrees_with_the_model(subject: &Subject) {
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let fresh = subject.another();
        let model = Subject::new(|_| Arc::new(Memory::default()), Keeps::Nothing).create();
        let mut database = fresh.create();
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Reopen => database = fresh.reopen(database),
                Step::Purge { doc, leaf } => {
                    let purge = purge(&model, *doc, leaf);
                    prop_assert_eq!(
                        database.purge(purge.clone()).unwrap(),
                        model.purge(purge).unwrap()
                    );
                }
                Step::Write { .. } | Step::Replicate { .. } => {
                    let edit = edit_of(&model, step, number);
                    prop_assert_eq!(
                        database.save_doc(edit.clone()).unwrap(),
                        model.save_doc(edit).unwrap()
                    );
                }
            }
            prop_assert_eq!(look(&database), look(&model), "after {:?}", step);
        }
        prop_assert_eq!(database.check().unwrap(), None);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

fn purge(model: &Database, doc: u8, leaf: &Index) -> Vec<(DocId, Vec<Rev>)> {
    let id = id(&format!("doc{doc}"));
    let leaves = model.open_leaves(&id).unwrap();
    match leaves.is_empty() {
        true => vec![(id, vec![rev("1-none")])],
        false => vec![(id, vec![leaf.get(&leaves).rev().clone()])],
    }
}

fn edit_of(model: &Database, step: &Step, number: usize) -> Edit {
    let text = format!("{{\"step\":{number}}}");
    match step {
        Step::Write {
            doc,
            leaf,
            deleted,
            hangs,
        } => {
            let name = format!("doc{doc}");
            let leaves = model.open_leaves(&id(&name)).unwrap();
            let parent = leaf
                .filter(|_| !leaves.is_empty())
                .map(|leaf| leaf.get(&leaves).rev().clone());
            let edit = Edit::New {
                id: id(&name),
                parent,
                deleted: *deleted,
                body: body(&text),
                attachments: BTreeMap::new(),
            };
            match hangs {
                true => with(edit, &[("x", Stored(attachment(text.as_bytes())))]),
                false => edit,
            }
        }
        Step::Replicate {
            doc,
            above,
            depth,
            hash,
            deleted,
        } => {
            let id = id(&format!("doc{doc}"));
            let tree = model.tree(&id).unwrap().unwrap_or_default();
            let leaves = tree.leaves();
            let mut history: Vec<Rev> = match leaves.is_empty() {
                true => Vec::new(),
                // Somewhere on a branch, not only at its end.
                false => {
                    let branch = tree.history_of(&above.get(&leaves).rev);
                    branch[above.index(branch.len() + 1).min(branch.len() - 1)..].to_vec()
                }
            };
            for level in 0..*depth {
                let generation = history.first().map_or(0, Rev::generation) + 1;
                history.insert(0, rev(&format!("{generation}-{hash}{level}")));
            }
            Edit::Replicated {
                id,
                revisions: history,
                deleted: *deleted,
                body: body(&text),
                attachments: BTreeMap::new(),
            }
        }
        Step::Purge { .. } | Step::Reopen => unreachable!("no edits"),
    }
}

/// Everything that can be asked.
fn look(database: &Database) -> String {
    let info = database.info().unwrap();
    let feed = changes(
        database,
        &ChangesQuery {
            docs: true,
            ..ChangesQuery::default()
        },
    );
    let backwards = changes(
        database,
        &ChangesQuery {
            descending: true,
            ..ChangesQuery::default()
        },
    );
    let list = listed(
        database,
        &ListQuery {
            docs: true,
            ..ListQuery::default()
        },
    );
    let docs: Vec<Vec<Doc>> = (0..4)
        .map(|doc| database.open_leaves(&id(&format!("doc{doc}"))).unwrap())
        .collect();
    let mut blobs = Vec::new();
    database.blob_ids(&mut |blob| blobs.push(blob)).unwrap();
    blobs.sort();
    format!(
        "{:?}\n{feed:?}\n{backwards:?}\n{list:?}\n{docs:?}\n{blobs:?}",
        (info.doc_count, info.deleted_count, info.update_seq)
    )
}
