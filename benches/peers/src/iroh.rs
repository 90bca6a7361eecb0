//! The peer `iroh-blobs`: small blobs into its file store by direct calls, no network in between.
//!
//!     iroh --data DIR [--blobs 100000] [--size 4096] [--jobs 8]
//!
//! The store runs with its defaults. The clock stops after `sync_db`, when its database says that all is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use iroh_blobs::store::fs::FsStore;
use refuge_bench_peers::{Arguments, fill, report};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::of_process();
    let blobs = arguments.number("--blobs", 100_000);
    let size_bytes = arguments.number("--size", 4096);
    let jobs = arguments.number("--jobs", 8);
    let store = FsStore::load(arguments.required("--data")).await?;

    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..jobs {
        let (store, next) = (store.clone(), next.clone());
        running.spawn(async move {
            // Temporary tags are the cheapest way to keep a blob: a named tag per blob would cost the peer a second row.
            let mut kept = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= blobs {
                    return anyhow::Ok(kept);
                }
                let mut block = vec![0; size_bytes as usize];
                fill(&mut block, index);
                kept.push(store.blobs().add_bytes(block).temp_tag().await?);
            }
        });
    }
    let mut kept = Vec::new();
    while let Some(job) = running.join_next().await {
        kept.push(job??);
    }
    store.sync_db().await?;
    report("iroh", blobs, size_bytes, started.elapsed());
    drop(kept);
    store.shutdown().await?;
    Ok(())
}
