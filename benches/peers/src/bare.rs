//! The honest floor: axum, BLAKE3, one append and one `fdatasync`, nothing else. No index, no access check, no reads.
//!
//!     bare --data DIR [--listen 127.0.0.1:0]
//!
//! Prints `{"http": "http://…"}` when ready. Requests that arrive while a flush runs share the next one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use refuge_bench_peers::Arguments;
use tokio::sync::oneshot;

/// Bytes gathered before a flush begins anyway, so that memory stays a window.
const GROUP_LIMIT_BYTES: usize = 8 << 20;

struct Append {
    id: [u8; 32],
    body: Bytes,
    durable: oneshot::Sender<()>,
}

// As many workers as Refuge has.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::of_process();
    let data = Path::new(arguments.required("--data"));
    std::fs::create_dir_all(data)?;
    let volume = OpenOptions::new()
        .append(true)
        .create(true)
        .open(data.join("volume"))?;
    let (sender, receiver) = mpsc::sync_channel(1024);
    std::thread::spawn(move || append(volume, receiver));

    let app = Router::new()
        .route("/blobs", post(receive))
        .layer(DefaultBodyLimit::disable())
        .with_state(sender);
    let listener = tokio::net::TcpListener::bind(arguments.get("--listen").unwrap_or("127.0.0.1:0")).await?;
    println!(
        "{}",
        serde_json::json!({ "http": format!("http://{}", listener.local_addr()?) })
    );
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |tcp| {
            // A delayed answer would be charged to the floor.
            tcp.set_nodelay(true).expect("a fresh socket takes the option");
        }),
        app,
    )
    .await?;
    Ok(())
}

async fn receive(State(writer): State<mpsc::SyncSender<Append>>, body: Bytes) -> (StatusCode, String) {
    let id = blake3::hash(&body);
    let (durable, done) = oneshot::channel();
    writer
        .send(Append {
            id: *id.as_bytes(),
            body,
            durable,
        })
        .expect("the writer lives as long as the process");
    done.await.expect("the writer answers everything it takes");
    (
        StatusCode::CREATED,
        format!("{{\"id\":\"blake3;{}\"}}", id.to_hex()),
    )
}

fn append(mut volume: File, requests: mpsc::Receiver<Append>) {
    let mut group = Vec::new();
    let mut waiting = Vec::new();
    while let Ok(first) = requests.recv() {
        let mut next = Some(first);
        while let Some(request) = next {
            group.extend_from_slice(&request.id);
            group.extend_from_slice(&(request.body.len() as u64).to_le_bytes());
            group.extend_from_slice(&request.body);
            waiting.push(request.durable);
            next = if group.len() < GROUP_LIMIT_BYTES {
                requests.try_recv().ok()
            } else {
                None
            };
        }
        volume
            .write_all(&group)
            .expect("the benchmark's disk takes what is written");
        volume.sync_data().expect("the benchmark's disk flushes");
        group.clear();
        for durable in waiting.drain(..) {
            // A client that went away wants no answer.
            let _ = durable.send(());
        }
    }
}
