//! Use cases on a whole node in a temporary folder.

mod access;
mod attach;
mod damage;
mod gc;
mod refs;
mod start_over;
mod upload;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;

/// A node in a folder of its own, with a clock that the test moves.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) node: Node,
    now_s: Arc<AtomicU64>,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::on(BackendSettings::Memory {})
    }

    /// A node whose main store is of that kind.
    pub(super) fn on(backend: BackendSettings) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let now_s = Arc::new(AtomicU64::new(1_800_000_000));
        let mut options = options(&dir, &now_s);
        options.main_store.backend = backend;
        let node = Node::open(options).unwrap();
        Bench { dir, node, now_s }
    }

    /// The same folder, opened anew.
    pub(super) fn restart(self) -> Bench {
        self.restart_with(|_| ())
    }

    /// As [`Bench::restart`], with options that `change` has changed.
    pub(super) fn restart_with(self, change: impl FnOnce(&mut Options)) -> Bench {
        let Bench { dir, node, now_s } = self;
        drop(node);
        let mut options = options(&dir, &now_s);
        change(&mut options);
        let node = Node::open(options).unwrap();
        Bench { dir, node, now_s }
    }

    pub(super) fn pass(&self, time: Duration) {
        self.now_s.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    pub(super) async fn claimed() -> Bench {
        let bench = Bench::new();
        let code = bench.node.claim().code().unwrap().reveal();
        let claimed = bench
            .node
            .claim()
            .by_code(&code, name("ann"), password("correct horse"), home());
        claimed.await.unwrap();
        bench
    }
}

fn options(dir: &TempDir, now_s: &Arc<AtomicU64>) -> Options {
    let now_s = Arc::clone(now_s);
    Options {
        clock: Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(now_s.load(Ordering::Relaxed))),
        main_store: StoreSettings {
            backend: BackendSettings::Memory {},
            compression: 0,
        },
        ..Options::new(dir.path().join("data"))
    }
}

pub(super) fn name(text: &str) -> crate::id::AccountName {
    text.parse().unwrap()
}

pub(super) fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

pub(super) fn home() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2))
}

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
