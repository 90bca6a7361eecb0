//! Work that makes more work, shared by a few threads. The newest task is taken first: a walk then goes deep
//! before it goes wide, and what waits stays small.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

use super::error::Error;

/// The most threads that work on one backup or restore.
const WORKERS_MAX: usize = 8;

/// Tasks and the threads that wait for them.
pub(super) struct Pool<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    running: usize,
    failure: Option<Error>,
}

impl<T: Send> Pool<T> {
    pub(super) fn new(first: T) -> Pool<T> {
        Pool {
            state: Mutex::new(State {
                waiting: vec![first],
                running: 0,
                failure: None,
            }),
            wake: Condvar::new(),
        }
    }

    /// Adds tasks; the last one is taken first.
    pub(super) fn push(&self, tasks: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let before = state.waiting.len();
        state.waiting.extend(tasks);
        let added = state.waiting.len() - before;
        drop(state);
        match added {
            0 => {}
            1 => self.wake.notify_one(),
            _ => self.wake.notify_all(),
        }
    }

    /// Works until nothing is left, on as many threads as there are processors.
    ///
    /// # Errors
    /// The first failure; what is under way then is finished, what waits is dropped.
    pub(super) fn run(&self, work: impl Fn(T) -> Result<(), Error> + Sync) -> Result<(), Error> {
        let workers = thread::available_parallelism().map_or(1, |n| n.get().clamp(1, WORKERS_MAX));
        thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|| self.work(&work));
            }
            self.work(&work);
        });
        match self.lock().failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn work(&self, work: &(impl Fn(T) -> Result<(), Error> + Sync)) {
        while let Some(task) = self.next() {
            let done = work(task);
            let mut state = self.lock();
            state.running -= 1;
            if let Err(failure) = done {
                state.failure.get_or_insert(failure);
                state.waiting.clear();
            }
            let is_idle = state.running == 0 && state.waiting.is_empty();
            drop(state);
            if is_idle {
                self.wake.notify_all();
            }
        }
    }

    /// The newest task; `None` when all is done.
    fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(task) = state.waiting.pop() {
                state.running += 1;
                return Some(task);
            }
            if state.running == 0 {
                return None;
            }
            state = self
                .wake
                .wait(state)
                .expect("no thread panics while it holds the tasks");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state
            .lock()
            .expect("no thread panics while it holds the tasks")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    #[test]
    fn tasks_that_make_tasks_are_all_done() {
        let done = AtomicU64::new(0);
        let pool = Pool::new(10_u32);
        pool.run(|depth| {
            done.fetch_add(1, Relaxed);
            if depth > 0 {
                pool.push([depth - 1, depth - 1]);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(done.load(Relaxed), 2_u64.pow(11) - 1);
    }

    #[test]
    fn the_first_failure_ends_the_work() {
        let pool = Pool::new(0_u32);
        let run = pool.run(|n| {
            pool.push([n + 1, n + 1]);
            if n == 5 {
                return Err(Error::Cancelled);
            }
            Ok(())
        });
        assert!(matches!(run, Err(Error::Cancelled)));
    }
}
