//! Collecting: what is named, pinned, leased or young stays; everything else goes, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::refs::{put_part, put_tree, record, ref_name, tree_json};
use super::*;
use crate::coffer::Class;
use crate::id::{BlobId, StoreName};

async fn collect(node: &Node) -> Collected {
    let mut reports = node.gc().run(|| false).await.unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

async fn stored(node: &Node, id: BlobId) -> bool {
    // Not by a stat, which leases.
    node.stores().main().get(id).await.is_ok()
}

async fn move_ref(node: &Node, name: &str, trees: &[BlobId]) -> Result<(), Error> {
    let refs = node.refs();
    let expected = refs.get(ref_name(name)).await.ok().map(|record| record.version);
    let next = record(name, trees);
    refs.swap(ref_name(name), expected, Some(next)).await.map(|_| ())
}

#[tokio::test]
async fn a_part_goes_a_day_after_nothing_names_it_and_a_pinned_blob_never() {
    let bench = Bench::new();
    let node = &bench.node;
    let part = put_part(node, "part").await;
    let tree = put_tree(node, &[part]).await;
    let main = node.stores().main();
    let pinned = main.put("pinned".into(), Class::Pinned, None).await.unwrap().id;
    move_ref(node, "a", &[tree]).await.unwrap();
    bench.pass(3 * DAY);
    assert_eq!((collect(node).await.named, stored(node, part).await), (2, true));

    let version = node.refs().get(ref_name("a")).await.unwrap().version;
    node.refs()
        .swap(ref_name("a"), Some(version), None)
        .await
        .unwrap();
    let first = collect(node).await;
    assert_eq!((first.waiting, first.freed), (2, 0));
    bench.pass(DAY - HOUR);
    assert_eq!(collect(node).await.freed, 0);
    bench.pass(HOUR);
    let second = collect(node).await;
    assert_eq!(
        (second.waiting, second.freed, second.freed_bytes > 4),
        (0, 2, true)
    );
    assert!(!stored(node, part).await && stored(node, pinned).await);
}

#[tokio::test]
async fn what_a_client_asked_about_waits_and_what_comes_again_waits_anew() {
    let bench = Bench::new();
    let node = &bench.node;
    let part = put_part(node, "part").await;
    bench.pass(2 * DAY);
    collect(node).await;
    bench.pass(DAY - HOUR);
    node.stores().main().stat(vec![part]).await.unwrap();
    bench.pass(2 * HOUR);
    assert_eq!(collect(node).await.freed, 0, "leased by the stat");
    bench.pass(3 * DAY);
    assert_eq!(collect(node).await.freed, 1);
    assert_eq!(put_part(node, "part").await, part);
    bench.pass(DAY - HOUR);
    assert_eq!(collect(node).await.freed, 0);
    assert!(stored(node, part).await);
}

#[tokio::test]
async fn nothing_is_freed_while_a_tree_cannot_be_read() {
    let bench = Bench::new();
    let node = &bench.node;
    let (part, other) = (put_part(node, "part").await, put_part(node, "other").await);
    let tree = put_tree(node, &[part]).await;
    move_ref(node, "a", &[tree]).await.unwrap();
    bench.pass(3 * DAY);
    collect(node).await;
    node.store(&StoreName::main())
        .unwrap()
        .backend()
        .delete(&[tree])
        .unwrap();
    bench.pass(3 * DAY);
    let report = collect(node).await;
    assert_eq!((report.unreadable, report.freed), (vec![tree], 0));
    assert!(stored(node, part).await && stored(node, other).await);
    put_tree(node, &[part]).await;
    bench.pass(3 * DAY);
    collect(node).await;
    assert!(stored(node, part).await && !stored(node, other).await);
}

#[tokio::test]
async fn a_run_that_is_stopped_frees_nothing_it_did_not_judge_and_the_next_goes_on() {
    let bench = Bench::new();
    let node = &bench.node;
    put_part(node, "part").await;
    bench.pass(2 * DAY);
    collect(node).await;
    bench.pass(2 * DAY);
    let stopped = node.gc().run(|| true).await.unwrap();
    assert!(stopped[0].stopped && stopped[0].freed == 0);
    assert_eq!(collect(node).await.freed, 1);
}

/// Rounds of each writer beside the collector, and sequences of steps; with `REFUGE_LONG=1` what row R14 asks for: ten
/// thousand of each.
fn rounds() -> u32 {
    if is_long() { 1700 } else { 60 }
}

fn sequences() -> u32 {
    if is_long() { 10_000 } else { 250 }
}

fn is_long() -> bool {
    std::env::var_os("REFUGE_LONG").is_some_and(|value| value == "1")
}

/// Everybody puts, names and drops the same few parts while a collector runs again and again. The clock moves
/// only between two backups: nobody's part waits a day while it is being named.
async fn back_up_beside_a_collector(backend: BackendSettings) {
    let bench = Arc::new(Bench::on(backend));
    let between = Arc::new(tokio::sync::RwLock::new(()));
    let over = Arc::new(AtomicBool::new(false));
    let collector = {
        let (bench, between, over) = (Arc::clone(&bench), Arc::clone(&between), Arc::clone(&over));
        tokio::spawn(async move {
            let mut freed = 0;
            while !over.load(Ordering::Acquire) {
                freed += collect(&bench.node).await.freed;
                let _between = between.write().await;
                bench.pass(3 * DAY);
            }
            freed
        })
    };
    let writers: Vec<_> = (0..6_u8)
        .map(|writer| {
            let (bench, between) = (Arc::clone(&bench), Arc::clone(&between));
            tokio::spawn(async move {
                let name = format!("ref{writer}");
                for round in 0..rounds() {
                    let _backup = between.read().await;
                    let mut parts = Vec::new();
                    for number in 0..4 {
                        let content = u8::try_from((round / 3 + number) % 12).unwrap();
                        parts.push(put_part(&bench.node, vec![content]).await);
                    }
                    bench.node.stores().main().stat(parts.clone()).await.unwrap();
                    let tree = put_tree(&bench.node, &parts).await;
                    move_ref(&bench.node, &name, &[tree]).await.unwrap();
                    for part in parts {
                        assert!(stored(&bench.node, part).await, "writer {writer}, round {round}");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Ordering::Release);
    let freed = collector.await.unwrap();
    for writer in 0..6 {
        let record = bench
            .node
            .refs()
            .get(ref_name(&format!("ref{writer}")))
            .await
            .unwrap();
        let entries = bench
            .node
            .stores()
            .main()
            .folder(record.snapshots[0].tree, None, 100)
            .await;
        for entry in entries.unwrap() {
            let EntryKind::File {
                body: Body::Part(part),
                ..
            } = entry.kind
            else {
                panic!("a file of one part");
            };
            assert!(stored(&bench.node, part).await);
        }
    }
    assert!(freed > 0, "the collector had nothing to do");
}

/// With so few threads for storage work that a wait for one another would show.
#[test]
fn backups_beside_a_collector_never_lose_a_part() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .max_blocking_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(back_up_beside_a_collector(BackendSettings::Memory {}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_do_they_in_a_haystack_that_is_compacted_meanwhile() {
    back_up_beside_a_collector(BackendSettings::Haystack { volume_bytes: 0 }).await;
}

#[tokio::test]
async fn a_haystack_keeps_what_is_named_over_restarts_and_collections() {
    let bench = Bench::on(BackendSettings::Haystack { volume_bytes: 0 });
    let (part, other) = (
        put_part(&bench.node, "part").await,
        put_part(&bench.node, "other").await,
    );
    let tree = put_tree(&bench.node, &[part]).await;
    move_ref(&bench.node, "a", &[tree]).await.unwrap();
    bench.pass(3 * DAY);
    assert_eq!(collect(&bench.node).await.waiting, 1);
    let bench = bench.restart();
    bench.pass(DAY);
    assert_eq!(collect(&bench.node).await.freed, 1);
    let bench = bench.restart();
    assert!(stored(&bench.node, part).await && !stored(&bench.node, other).await);
    assert_eq!(bench.node.health().report().state, HealthState::Ready);
}

#[derive(Debug, Clone)]
enum Step {
    PutPart(u8),
    PutPinned(u8),
    Ask(u8),
    MoveRef(u8, BTreeSet<u8>),
    DropRef(u8),
    Pass(u8),
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let blob = 0..12_u8;
    let parts = proptest::collection::btree_set(blob.clone(), 1..5);
    let step = prop_oneof![
        3 => blob.clone().prop_map(Step::PutPart),
        1 => blob.clone().prop_map(Step::PutPinned),
        1 => blob.prop_map(Step::Ask),
        3 => (0..3_u8, parts).prop_map(|(name, parts)| Step::MoveRef(name, parts)),
        2 => (0..3_u8).prop_map(Step::DropRef),
        3 => (1..60_u8).prop_map(Step::Pass),
        4 => Just(Step::Collect),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What must hold, in hours: when each blob was last put, asked about or named.
#[derive(Default)]
struct Model {
    hour: u64,
    touched: BTreeMap<u8, u64>,
    pinned: BTreeSet<u8>,
    refs: BTreeMap<u8, BTreeSet<u8>>,
}

impl Model {
    fn must_be_stored(&self, blob: u8) -> bool {
        self.pinned.contains(&blob)
            || self.refs.values().any(|parts| parts.contains(&blob))
            || self.touched.get(&blob).is_some_and(|at| self.hour - at < 24)
    }

    fn touch(&mut self, blob: u8) {
        self.touched.insert(blob, self.hour);
    }
}

async fn run(steps: Vec<Step>) {
    let bench = Bench::new();
    let node = &bench.node;
    let mut model = Model::default();
    let id = |blob: u8| BlobId::of(&[blob]);
    for step in steps {
        match step.clone() {
            Step::PutPart(blob) => {
                put_part(node, vec![blob]).await;
                model.touch(blob);
            }
            Step::PutPinned(blob) => {
                let main = node.stores().main();
                main.put(vec![blob].into(), Class::Pinned, None).await.unwrap();
                model.pinned.insert(blob);
            }
            Step::Ask(blob) => {
                let stat = node.stores().main().stat(vec![id(blob)]).await.unwrap();
                if stat[0].is_some() {
                    model.touch(blob);
                }
            }
            Step::MoveRef(name, parts) => {
                let ids: Vec<BlobId> = parts.iter().map(|part| id(*part)).collect();
                let tree = put_part(node, tree_json(&ids)).await;
                match move_ref(node, &format!("r{name}"), &[tree]).await {
                    Ok(()) => {
                        // What the ref named before was named until now.
                        for part in model.refs.insert(name, parts).unwrap_or_default() {
                            model.touch(part);
                        }
                    }
                    Err(Error::Incomplete { missing, .. }) => {
                        for part in parts.iter().filter(|part| missing.contains(&id(**part))) {
                            assert!(!model.must_be_stored(*part), "{part} is missing at {step:?}");
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::DropRef(name) => {
                let ref_name = ref_name(&format!("r{name}"));
                if let Ok(record) = node.refs().get(ref_name.clone()).await {
                    node.refs()
                        .swap(ref_name, Some(record.version), None)
                        .await
                        .unwrap();
                }
                for part in model.refs.remove(&name).unwrap_or_default() {
                    model.touch(part);
                }
            }
            Step::Pass(hours) => {
                bench.pass(u32::from(hours) * HOUR);
                model.hour += u64::from(hours);
            }
            Step::Collect => {
                collect(node).await;
            }
        }
        for blob in 0..12 {
            assert!(
                stored(node, id(blob)).await || !model.must_be_stored(blob),
                "{blob} was lost at {step:?}"
            );
        }
    }
    // In the end everything goes that nothing keeps.
    for _ in 0..2 {
        collect(node).await;
        bench.pass(3 * DAY);
    }
    collect(node).await;
    model.hour += 6 * 24;
    for blob in 0..12 {
        assert_eq!(stored(node, id(blob)).await, model.must_be_stored(blob), "{blob}");
    }
}

proptest! {
    #![proptest_config(Config {
        cases: sequences(),
        ..Config::default()
    })]
    #[test]
    fn no_order_of_things_loses_a_blob_that_must_stay(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
