//! Random sequences of operations on a backend and on [`Memory`], which must answer the same (row R14 of the
//! reliability targets).

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Keeps, Subject, content, listed, noise, packed, prose, stream};
use crate::coffer::backend::{Aside, Backend, CheckOptions, Class, Put};
use crate::coffer::error::Error;
use crate::coffer::frame::FRAME_BYTES;
use crate::coffer::memory::Memory;
use crate::id::{BlobId, Sha256Id};

/// Sequences of an ordinary run; `REFUGE_LONG=1` runs what the targets ask for.
const CASES: u32 = 200;
const CASES_LONG: u32 = 10_000;

/// Blobs the sequences choose from: few, so that they meet again.
const BLOBS: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    /// Puts a group, flushed with a flush of its own.
    Put(Vec<(usize, Class)>),
    Append(usize, Class),
    Flush,
    Stream(usize, Class, Expect),
    DropStream(usize),
    Delete(Vec<usize>),
    Alias(u8, usize),
    Quarantine(usize, Aside),
    Compact,
    Check {
        read_data: bool,
        repair: bool,
    },
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Nothing,
    Right,
    Wrong,
}

pub(crate) fn agrees_with_the_model(subject: &Subject) {
    let is_long = std::env::var_os("REFUGE_LONG").is_some_and(|value| value == "1");
    let mut runner = TestRunner::new(ProptestConfig {
        cases: if is_long { CASES_LONG } else { CASES },
        // Found cases become tests of their own.
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let blobs: Vec<Vec<u8>> = (0..BLOBS).map(blob).collect();
    runner
        .run(&vec(step(), 1..25), |steps| {
            let subject = Subject::new(subject.open, subject.keeps);
            follow(&subject, &blobs, &steps);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}\n{runner}"));
}

fn blob(index: usize) -> Vec<u8> {
    match index {
        0 => Vec::new(),
        1 => vec![b'x'],
        2 => noise(index, FRAME_BYTES),
        3 => noise(index, FRAME_BYTES + 1),
        4 => prose(index, 2 * FRAME_BYTES + 9),
        _ if index.is_multiple_of(2) => noise(index, 100 * index),
        _ => prose(index, 1000 * index),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let class = || prop_oneof![Just(Class::Part), Just(Class::Pinned)];
    let expect = prop_oneof![
        3 => Just(Expect::Right),
        1 => Just(Expect::Nothing),
        1 => Just(Expect::Wrong),
    ];
    let aside = prop_oneof![2 => Just(Aside::Any), 1 => Just(Aside::Damaged)];
    prop_oneof![
        4 => vec((0..BLOBS, class()), 1..4).prop_map(Step::Put),
        2 => (0..BLOBS, class()).prop_map(|(blob, class)| Step::Append(blob, class)),
        1 => Just(Step::Flush),
        3 => (0..BLOBS, class(), expect).prop_map(|(blob, class, expect)| Step::Stream(blob, class, expect)),
        1 => (0..BLOBS).prop_map(Step::DropStream),
        3 => vec(0..BLOBS, 1..4).prop_map(Step::Delete),
        1 => (0..3_u8, 0..BLOBS).prop_map(|(alias, blob)| Step::Alias(alias, blob)),
        1 => (0..BLOBS, aside).prop_map(|(blob, which)| Step::Quarantine(blob, which)),
        1 => Just(Step::Compact),
        1 => any::<(bool, bool)>().prop_map(|(read_data, repair)| Step::Check { read_data, repair }),
        2 => Just(Step::Reopen),
    ]
}

fn follow(subject: &Subject, blobs: &[Vec<u8>], steps: &[Step]) {
    let model = Memory::new();
    let mut backend = subject.open();
    for step in steps {
        let pair: [&dyn Backend; 2] = [&model, &*backend];
        match step {
            Step::Put(group) => {
                let answers = pair.map(|backend| {
                    let batch: Vec<_> = group
                        .iter()
                        .map(|(blob, class)| packed(&blobs[*blob], *class))
                        .collect();
                    let puts = backend.append(&batch).unwrap();
                    backend.flush().unwrap();
                    puts
                });
                assert_eq!(answers[0], answers[1], "{step:?}");
            }
            Step::Append(blob, class) => {
                let answers = pair.map(|backend| backend.append(&[packed(&blobs[*blob], *class)]).unwrap());
                assert_eq!(answers[0], answers[1], "{step:?}");
            }
            Step::Flush => pair.iter().for_each(|backend| backend.flush().unwrap()),
            Step::Stream(blob, class, expect) => {
                // Whether a stream counts as fresh beside an unflushed append of the same blob is nobody's matter.
                settle(pair);
                let answers = pair.map(|backend| streamed(backend, &blobs[*blob], *class, *expect));
                assert_eq!(answers[0], answers[1], "{step:?}");
            }
            Step::DropStream(blob) => {
                let mut incoming = backend.begin(Class::Pinned).unwrap();
                incoming.write(&blobs[*blob]).unwrap();
            }
            Step::Delete(which) => {
                settle(pair);
                let ids: Vec<BlobId> = which.iter().map(|blob| BlobId::of(&blobs[*blob])).collect();
                let answers = pair.map(|backend| backend.delete(&ids).unwrap());
                assert_eq!(answers[0], answers[1], "{step:?}");
            }
            Step::Alias(alias, blob) => {
                settle(pair);
                let alias = Sha256Id::from_bytes([*alias; 32]);
                for backend in pair {
                    backend.add_alias(&alias, &BlobId::of(&blobs[*blob])).unwrap();
                }
            }
            Step::Quarantine(blob, which) => {
                settle(pair);
                let id = BlobId::of(&blobs[*blob]);
                let answers = pair.map(|backend| backend.quarantine(&id, *which).unwrap());
                assert_eq!(answers[0], answers[1], "{step:?}");
            }
            Step::Compact => {
                settle(pair);
                backend.compact(&|| false).unwrap();
            }
            Step::Check { read_data, repair } => {
                let options = CheckOptions {
                    read_data: *read_data,
                    repair: *repair,
                };
                settle(pair);
                let answers = pair.map(|backend| backend.check(options, &|_| ()).unwrap());
                assert_eq!(answers[0], answers[1], "{step:?}");
            }
            Step::Reopen => {
                // What was not flushed may be lost, which the model has no notion of.
                settle(pair);
                backend = subject.reopen(backend);
            }
        }
        compare(&model, &*backend, blobs, step);
    }
    settle([&model, &*backend]);
    if subject.keeps == Keeps::Everything {
        backend = subject.reopen(backend);
    }
    compare(&model, &*backend, blobs, &Step::Reopen);
    for bytes in blobs {
        let id = BlobId::of(bytes);
        assert_eq!(content(&model, &id), content(&*backend, &id));
    }
}

/// Ends what the contract leaves open: whether something appended is flushed by another operation.
fn settle(pair: [&dyn Backend; 2]) {
    pair.iter().for_each(|backend| backend.flush().unwrap());
}

fn streamed(backend: &dyn Backend, bytes: &[u8], class: Class, expect: Expect) -> Option<Put> {
    let expect = match expect {
        Expect::Nothing => None,
        Expect::Right => Some(BlobId::of(bytes)),
        Expect::Wrong => Some(BlobId::of(b"no blob of the sequences")),
    };
    match stream(backend, bytes, class, expect) {
        Ok(put) => Some(put),
        Err(Error::Mismatch { .. }) => None,
        Err(other) => panic!("{other:?}"),
    }
}

fn compare(model: &Memory, backend: &dyn Backend, blobs: &[Vec<u8>], step: &Step) {
    assert_eq!(listed(model, None), listed(backend, None), "list after {step:?}");
    let ids: Vec<BlobId> = blobs.iter().map(|bytes| BlobId::of(bytes)).collect();
    assert_eq!(
        model.stat(&ids).unwrap(),
        backend.stat(&ids).unwrap(),
        "stat after {step:?}"
    );
    let after = Some(ids[0]);
    assert_eq!(
        listed(model, after),
        listed(backend, after),
        "list after {step:?}"
    );
    for alias in 0..3 {
        let alias = Sha256Id::from_bytes([alias; 32]);
        assert_eq!(model.resolve(&alias).unwrap(), backend.resolve(&alias).unwrap());
    }
    let counts = [model.status(), backend.status()].map(|s| (s.blobs, s.plain_bytes, s.quarantined));
    assert_eq!(counts[0], counts[1], "status after {step:?}");
}
