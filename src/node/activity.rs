//! Whether somebody is storing something: what a restart of the box would cut off.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What is being stored in a node; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Activity {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Bodies on their way in.
    under_way: usize,
    /// When the last one ended, or something was asked for that comes before one.
    last: Instant,
}

/// Something that is being stored, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Activity);

impl Activity {
    pub(super) fn new() -> Activity {
        Activity {
            inner: Arc::new(Mutex::new(Inner {
                under_way: 0,
                last: Instant::now(),
            })),
        }
    }

    /// Something is being stored from now on.
    pub(super) fn begin(&self) -> UnderWay {
        self.inner().under_way += 1;
        UnderWay(self.clone())
    }

    /// Something was stored, or a client asked what it has to send.
    pub(super) fn touch(&self) {
        self.inner().last = Instant::now();
    }

    /// How long nothing was stored; `None` where something is being stored. Counted from the start of the process.
    pub fn quiet(&self) -> Option<Duration> {
        let inner = self.inner();
        (inner.under_way == 0).then(|| inner.last.elapsed())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        let inner = self.inner.lock();
        inner.expect("no thread panics while it holds what is under way")
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.under_way -= 1;
        inner.last = Instant::now();
    }
}
