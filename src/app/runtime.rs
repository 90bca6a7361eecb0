//! The process itself: its threads, and what the system lets others see of it.

use std::io::{self, IsTerminal};

use tokio::runtime::{Builder, Runtime};
use tracing::level_filters::LevelFilter;

/// Threads that move requests: the smallest boards have one core, and storage has threads of its own.
const WORKERS: usize = 2;

/// Threads that may wait for the disk at once. More would only queue there, and each costs its stack.
const BLOCKING_THREADS: usize = 24;

/// What a thread may need at most: a frame buffer never lies on the stack.
const STACK_BYTES: usize = 1024 * 1024;

/// The runtime everything async runs on.
///
/// # Errors
/// Where the system gives no threads.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_name("refuge")
        .enable_all()
        .build()
}

/// Keeps keys and tokens out of core files and of the eyes of other processes of the same user. A system that
/// can't still keeps the data: it is only told.
pub fn harden() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "other processes of this user may read the memory of this one");
    }
}

/// Sends what is logged to standard error: with colours to a terminal, plainly elsewhere.
pub fn log(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
