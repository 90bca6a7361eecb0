//! Partial uploads: cut anywhere, continued, put together, and forgotten.

use super::*;
use crate::db;
use crate::id::{BlobId, StoreName, UploadId};

fn new(length: Option<u64>) -> NewUpload {
    NewUpload {
        store: StoreName::main(),
        length,
        metadata: "filename d29ybGQ=".to_owned(),
        expect: None,
        partial: false,
    }
}

async fn append(node: &Node, id: UploadId, offset: u64, bytes: &[u8]) -> Result<UploadInfo, Error> {
    let mut appending = node.uploads().append(id, offset).await?;
    for piece in bytes.chunks(100_000) {
        appending.write(piece.to_vec().into()).await?;
    }
    appending.finish().await
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn an_upload_goes_on_at_the_acknowledged_byte_after_a_restart_and_becomes_a_blob() {
    let bytes = noise(1_500_000);
    let bench = Bench::new();
    let upload = bench.node.uploads().create(new(Some(1_500_000))).await.unwrap();
    append(&bench.node, upload.id, 0, &bytes[..700_000])
        .await
        .unwrap();
    // A piece whose sender went away: nothing of it counts.
    let mut cut = bench.node.uploads().append(upload.id, 700_000).await.unwrap();
    cut.write(vec![1; 600_000].into()).await.unwrap();
    drop(cut);

    let bench = bench.restart();
    let info = bench.node.uploads().info(upload.id).await.unwrap();
    assert_eq!((info.offset, info.length), (700_000, Some(1_500_000)));
    assert_eq!(info.metadata, "filename d29ybGQ=");
    let wrong = append(&bench.node, upload.id, 1, b"x").await;
    assert!(matches!(
        wrong,
        Err(Error::Offset {
            expected: 700_000,
            found: 1
        })
    ));
    let beyond = append(&bench.node, upload.id, 700_000, &vec![0; 900_000]).await;
    assert!(matches!(beyond, Err(Error::TooLarge { .. })));
    let done = append(&bench.node, upload.id, 700_000, &bytes[700_000..])
        .await
        .unwrap();
    assert_eq!(done.blob, Some(BlobId::of(&bytes)));
    let stored = bench
        .node
        .stores()
        .main()
        .read(BlobId::of(&bytes), 2_000_000)
        .await;
    assert!(stored.unwrap() == bytes);
    let data = bench
        .dir
        .path()
        .join("data/uploads")
        .join(format!("{}.data", upload.id));
    assert!(!data.exists());
    // Who missed the answer asks again.
    let again = bench.restart().node.uploads().info(upload.id).await.unwrap();
    assert_eq!((again.offset, again.blob), (1_500_000, done.blob));
}

#[tokio::test]
async fn an_upload_complete_at_a_crash_becomes_a_blob_afterwards() {
    let bench = Bench::new();
    let upload = bench.node.uploads().create(new(None)).await.unwrap();
    append(&bench.node, upload.id, 0, b"all of it").await.unwrap();
    let folder = bench.dir.path().join("data/uploads");
    let path = folder.join(format!("{}.json", upload.id));
    // As the record stands before the store has it.
    let state = crate::durable::read(&path).unwrap().unwrap();
    let text = String::from_utf8(state.payload).unwrap();
    crate::durable::replace(
        &path,
        text.replace(r#""length":null"#, r#""length":9"#).as_bytes(),
    )
    .unwrap();
    let bench = bench.restart();
    let info = bench.node.uploads().info(upload.id).await.unwrap();
    assert_eq!(info.blob, Some(BlobId::of(b"all of it")));
}

#[tokio::test]
async fn a_length_comes_later_and_an_empty_upload_is_a_blob_at_once() {
    let bench = Bench::new();
    let uploads = bench.node.uploads();
    let upload = uploads.create(new(None)).await.unwrap();
    append(&bench.node, upload.id, 0, b"abc").await.unwrap();
    let short = uploads.declare_length(upload.id, 2).await;
    assert!(matches!(short, Err(Error::Invalid { what: "length", .. })));
    uploads.declare_length(upload.id, 6).await.unwrap();
    let other = uploads.declare_length(upload.id, 7).await;
    assert!(matches!(other, Err(Error::Conflict { .. })));
    let done = append(&bench.node, upload.id, 3, b"def").await.unwrap();
    assert_eq!(done.blob, Some(BlobId::of(b"abcdef")));
    let empty = uploads.create(new(Some(0))).await.unwrap();
    assert_eq!(empty.blob, Some(BlobId::of(b"")));
}

#[tokio::test]
async fn one_request_at_a_time_works_on_an_upload() {
    let bench = Bench::new();
    let upload = bench.node.uploads().create(new(Some(3))).await.unwrap();
    let first = bench.node.uploads().append(upload.id, 0).await.unwrap();
    let second = bench.node.uploads().append(upload.id, 0).await;
    assert!(matches!(
        second,
        Err(Error::Conflict {
            kind: Kind::Upload,
            ..
        })
    ));
    assert!(bench.node.uploads().remove(upload.id).await.is_err());
    drop(first);
    bench.node.uploads().remove(upload.id).await.unwrap();
    let gone = bench.node.uploads().info(upload.id).await;
    assert!(matches!(
        gone,
        Err(Error::Missing {
            kind: Kind::Upload,
            ..
        })
    ));
    assert_eq!(
        std::fs::read_dir(bench.dir.path().join("data/uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn bytes_that_are_not_what_was_said_are_forgotten() {
    let bench = Bench::new();
    let upload = NewUpload {
        expect: Some(crate::id::BlobAddress::Blake3(BlobId::of(b"right"))),
        ..new(Some(5))
    };
    let upload = bench.node.uploads().create(upload).await.unwrap();
    let wrong = append(&bench.node, upload.id, 0, b"wrong").await;
    assert!(matches!(wrong, Err(Error::Mismatch { .. })));
    assert!(matches!(
        bench.node.uploads().info(upload.id).await,
        Err(Error::Missing { .. })
    ));
}

#[tokio::test]
async fn parts_are_put_together_in_order() {
    let bench = Bench::new();
    let uploads = bench.node.uploads();
    let mut parts = Vec::new();
    for text in [&b"Hello, "[..], b"world"] {
        let part = NewUpload {
            partial: true,
            ..new(Some(text.len() as u64))
        };
        let part = uploads.create(part).await.unwrap();
        let incomplete = uploads.concatenate(vec![part.id], new(None)).await;
        assert!(matches!(incomplete, Err(Error::Conflict { .. })));
        assert_eq!(append(&bench.node, part.id, 0, text).await.unwrap().blob, None);
        parts.push(part.id);
    }
    let whole = uploads.concatenate(parts.clone(), new(None)).await.unwrap();
    assert_eq!(whole.blob, Some(BlobId::of(b"Hello, world")));
    assert_eq!((whole.length, whole.parts), (Some(12), parts));
}

#[tokio::test]
async fn what_nobody_continues_expires() {
    let bench = Bench::new();
    let upload = bench.node.uploads().create(new(Some(10))).await.unwrap();
    bench.pass(DAY - HOUR);
    append(&bench.node, upload.id, 0, b"abc").await.unwrap();
    bench.pass(DAY - HOUR);
    bench.node.tend().await.unwrap();
    assert_eq!(bench.node.uploads().info(upload.id).await.unwrap().offset, 3);
    bench.pass(HOUR);
    assert!(matches!(
        append(&bench.node, upload.id, 3, b"def").await,
        Err(Error::Missing { .. })
    ));
    bench.node.tend().await.unwrap();
    assert_eq!(
        std::fs::read_dir(bench.dir.path().join("data/uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn what_is_acknowledged_after_it_was_found_expired_stays() {
    let bench = Bench::new();
    let uploads = bench.node.uploads();
    let upload = uploads.create(new(Some(6))).await.unwrap();
    let mut piece = uploads.append(upload.id, 0).await.unwrap();
    piece.write("abc".into()).await.unwrap();
    bench.pass(DAY);
    let expired = uploads.expired();
    assert_eq!(expired, [upload.id]);
    piece.finish().await.unwrap();
    for id in expired {
        uploads.expire(id).await.unwrap();
    }
    let done = append(&bench.node, upload.id, 3, b"def").await.unwrap();
    assert_eq!(done.blob, Some(BlobId::of(b"abcdef")));
}

/// What comes of a future that is polled once.
async fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    tokio::select! {
        biased;
        done = &mut future => Some(done),
        () = std::future::ready(()) => None,
    }
}

/// With one thread for storage work, which is kept busy: what a request that went away asked of it is done later.
#[test]
fn nobody_goes_on_with_an_upload_that_is_still_written_to() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::new();
        let uploads = bench.node.uploads();
        let upload = uploads.create(new(Some(600_006))).await.unwrap();
        let mut record = append(&bench.node, upload.id, 0, b"abc").await.unwrap();
        for step in 0..3 {
            let offset = record.offset;
            let mut piece = None;
            if step > 0 {
                piece = Some(uploads.append(upload.id, offset).await.unwrap());
            }
            let (gate, shut) = std::sync::mpsc::channel::<()>();
            let busy = tokio::spawn(db::crossing(move || {
                let _ = shut.recv();
                Ok::<_, Error>(())
            }));
            tokio::task::yield_now().await;
            match (step, piece) {
                // It is cut off where it begins; while it is written; while it is acknowledged.
                (1, Some(mut piece)) => {
                    assert!(polled_once(piece.write(vec![7; 600_000].into())).await.is_none());
                }
                (2, Some(piece)) => assert!(polled_once(piece.finish()).await.is_none()),
                _ => assert!(polled_once(uploads.append(upload.id, offset)).await.is_none()),
            }
            let other = polled_once(uploads.append(upload.id, offset)).await;
            assert!(matches!(other, Some(Err(Error::Conflict { .. }))), "{step}");
            drop(gate);
            busy.await.unwrap().unwrap();
            db::crossing(|| Ok::<_, Error>(())).await.unwrap();
            record = append(&bench.node, upload.id, offset, b"x").await.unwrap();
            assert_eq!(record.offset, offset + 1);
        }
    });
}

#[tokio::test]
async fn uploads_are_bounded() {
    let bench = Bench::new();
    let uploads = bench.node.uploads();
    let huge = uploads.create(new(Some(UPLOADS_BYTES_MAX + 1))).await;
    assert!(matches!(huge, Err(Error::TooLarge { .. })));
    for _ in 0..UPLOADS_MAX {
        uploads.create(new(Some(1))).await.unwrap();
    }
    assert!(matches!(uploads.create(new(Some(1))).await, Err(Error::Busy)));
}
