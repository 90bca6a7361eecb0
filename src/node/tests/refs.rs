//! Refs that only name what is stored, and looking into what they name.

use bytes::Bytes;

use super::*;
use crate::coffer::Class;
use crate::id::{BlobId, RefName, StoreName};

pub(super) async fn put_part(node: &Node, bytes: impl Into<Bytes>) -> BlobId {
    let put = node.stores().main().put(bytes.into(), Class::Part, None).await;
    put.unwrap().id
}

/// A folder with one file of one part, as the files module writes it.
pub(super) async fn put_tree(node: &Node, parts: &[BlobId]) -> BlobId {
    put_part(node, tree_json(parts)).await
}

pub(super) fn tree_json(parts: &[BlobId]) -> String {
    let entries: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| {
            format!(
                r#"{{"gid":0,"inode":1,"mode":420,"mtime":[0,0],"name":"{number:04}","part":"{part}","size":1,"type":"file","uid":0}}"#
            )
        })
        .collect();
    format!(
        r#"{{"entries":[{}],"refuge":"tree","version":1}}"#,
        entries.join(",")
    )
}

pub(super) fn record(name: &str, trees: &[BlobId]) -> RefRecord {
    let snapshots = trees.iter().map(|tree| Snapshot {
        tree: *tree,
        time_ms: 0,
        host: "host".to_owned(),
        source: "/data".to_owned(),
        files: 1,
        bytes: 1,
        partial: false,
        xattrs: false,
        root: None,
    });
    RefRecord {
        snapshots: snapshots.collect(),
        ..RefRecord::new(ref_name(name))
    }
}

pub(super) fn ref_name(text: &str) -> RefName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_ref_moves_only_to_what_is_stored_and_only_from_what_was_read() {
    let bench = Bench::new();
    let refs = bench.node.refs();
    let absent = BlobId::of(b"absent");
    let torn = put_tree(&bench.node, &[absent]).await;
    let refused = refs.swap(ref_name("a"), None, Some(record("a", &[torn]))).await;
    assert!(matches!(
        refused,
        Err(Error::Incomplete { missing, more: false }) if missing == [absent]
    ));
    let nowhere = refs
        .swap(ref_name("a"), None, Some(record("a", &[BlobId::of(b"no tree")])))
        .await;
    assert!(matches!(nowhere, Err(Error::Incomplete { .. })));

    let part = put_part(&bench.node, "part").await;
    let whole = put_tree(&bench.node, &[part]).await;
    let mut events = bench.node.events().subscribe(None);
    let version = refs
        .swap(ref_name("a"), None, Some(record("a", &[whole])))
        .await
        .unwrap();
    assert!(matches!(
        events.next().await,
        Delivery::Event(_, Event::RefMoved { name, .. }) if name == ref_name("a")
    ));
    let lost = refs.swap(ref_name("a"), None, Some(record("a", &[whole]))).await;
    assert!(matches!(lost, Err(Error::Conflict { kind: Kind::Ref, .. })));
    let read = refs.get(ref_name("a")).await.unwrap();
    assert_eq!((read.version, read.snapshots.len()), (version, 1));

    let bench = bench.restart();
    let refs = bench.node.refs();
    refs.swap(ref_name("a"), Some(version), None).await.unwrap();
    assert!(matches!(
        refs.get(ref_name("a")).await,
        Err(Error::Missing { .. })
    ));
}

#[tokio::test]
async fn many_missing_blobs_are_named_up_to_a_limit() {
    let bench = Bench::new();
    let absent: Vec<BlobId> = (0..1500_u32).map(|n| BlobId::of(&n.to_le_bytes())).collect();
    let torn = put_tree(&bench.node, &absent).await;
    let refused = bench
        .node
        .refs()
        .swap(ref_name("a"), None, Some(record("a", &[torn])))
        .await;
    assert!(matches!(
        refused,
        Err(Error::Incomplete { missing, more: true }) if missing.len() == INCOMPLETE_NAMED_MAX
    ));
    let repository = bench.node.repository(&StoreName::main()).unwrap();
    let refused = repository
        .refs
        .swap(&ref_name("a"), None, Some(record("a", &[torn])));
    assert!(matches!(
        refused,
        Err(crate::files::Error::Incomplete { missing, .. }) if missing.len() == 100
    ));
}

#[tokio::test]
async fn a_snapshot_is_browsed_in_pages_and_its_files_are_read() {
    let bench = Bench::new();
    let blobs = bench.node.stores().main();
    let mut parts = Vec::new();
    for number in 0..5_u8 {
        parts.push(put_part(&bench.node, vec![number]).await);
    }
    let tree = put_tree(&bench.node, &parts).await;
    let first = blobs.folder(tree, None, 3).await.unwrap();
    let rest = blobs.folder(tree, Some(first[2].name.clone()), 3).await.unwrap();
    assert_eq!((first.len(), rest.len()), (3, 2));
    let entry = blobs.entry(tree, "0004".into()).await.unwrap();
    let EntryKind::File { body, .. } = entry.kind else {
        panic!("a file");
    };
    let mut file = blobs.file(body).await.unwrap();
    assert_eq!(file.next().await.unwrap().as_deref(), Some(&[4][..]));
    assert_eq!(file.next().await.unwrap(), None);
    let absent = blobs.entry(tree, "0009".into()).await;
    assert!(matches!(absent, Err(Error::Missing { kind: Kind::Path, .. })));
    let out = blobs.entry(tree, "../x".into()).await;
    assert!(matches!(out, Err(Error::Missing { kind: Kind::Path, .. })));
    let no_tree = blobs.folder(parts[0], None, 3).await;
    assert!(matches!(no_tree, Err(Error::Invalid { .. })));

    let text = format!(
        r#"{{"refuge":"commit","segments":[{{"part":"{}","size":1}},{{"hole":100000}},{{"part":"{}","size":1}}],"version":1}}"#,
        parts[1], parts[2]
    );
    let commit = put_part(&bench.node, text).await;
    let mut file = blobs.file(Body::Commit(commit)).await.unwrap();
    let mut whole = Vec::new();
    while let Some(bytes) = file.next().await.unwrap() {
        whole.extend_from_slice(&bytes);
    }
    assert_eq!((whole.len(), whole[0], whole[100_001]), (100_002, 1, 2));
}

/// A ref names a part that was deleted: the next snapshot of the same tree is refused until the part is put again, and a
/// collector that misses nothing lets moves be looked at by what they add again.
#[tokio::test]
async fn what_was_deleted_under_a_ref_is_missed_by_the_next_snapshot() {
    let bench = Bench::on(BackendSettings::Haystack { volume_bytes: 0 });
    let part = put_part(&bench.node, "part").await;
    let tree = put_tree(&bench.node, &[part]).await;
    let add = async |bench: &Bench, trees: &[BlobId]| {
        let refs = bench.node.refs();
        let version = refs.get(ref_name("a")).await.ok().map(|record| record.version);
        let mut next = record("a", trees);
        for (number, snapshot) in next.snapshots.iter_mut().enumerate() {
            snapshot.time_ms = i64::try_from(number).unwrap();
        }
        refs.swap(ref_name("a"), version, Some(next)).await
    };
    add(&bench, &[tree]).await.unwrap();
    assert_eq!(
        bench.node.stores().main().delete(vec![part]).await.unwrap(),
        [true]
    );

    let bench = bench.restart();
    let refused = add(&bench, &[tree, tree]).await;
    assert!(matches!(refused, Err(Error::Incomplete { missing, .. }) if missing == [part]));
    // A prune adds nothing, and is not refused for what is lost.
    add(&bench, &[tree]).await.unwrap();
    put_part(&bench.node, "part").await;
    add(&bench, &[tree, tree]).await.unwrap();

    let doubt = bench.dir.path().join("data/stores/main/gc/doubt");
    assert!(doubt.exists());
    bench.node.gc().run(|| false).await.unwrap();
    assert!(!doubt.exists());
    bench.node.stores().main().delete(vec![part]).await.unwrap();
    bench.node.gc().run(|| false).await.unwrap();
    assert!(
        doubt.exists(),
        "a collector that misses something settles nothing"
    );
}
