//! Every task of a running node, and its end: asked first, waited for, then cut.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::notice;

/// How long tasks may take to end: longer than requests get to finish, shorter than a service manager waits
/// before it kills.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

/// The tasks of a node. Dropping it cuts them.
pub(super) struct Supervisor {
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
    terminate: Signal,
    interrupt: Signal,
}

/// Why a node did not end by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// A task did not end in time.
    #[error("something did not end within {} seconds and was cut; what was acknowledged is stored", DRAIN_DEADLINE.as_secs())]
    Deadline,
    /// A second signal came.
    #[error("stopped at once, as asked twice; what was acknowledged is stored")]
    Signal,
}

impl Supervisor {
    /// No tasks yet. From here on signals are heard, not obeyed by the system.
    ///
    /// # Errors
    /// Where the system refuses signal handlers.
    pub(super) fn new() -> io::Result<Supervisor> {
        Ok(Supervisor {
            tasks: JoinSet::new(),
            shutdown: CancellationToken::new(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Starts a task. It gets a token and ends soon after that is cancelled; one that ends by itself with an
    /// error ends the node.
    pub(super) fn spawn<F>(&mut self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.spawn(task(self.shutdown.clone()));
    }

    /// Runs until a signal, or until a task fails; then ends all tasks.
    ///
    /// # Errors
    /// What a task failed with; [`Cut`] where tasks had to be cut.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let failure = tokio::select! {
            failure = failed(&mut self.tasks) => Some(failure),
            () = told(&mut self.terminate, &mut self.interrupt) => None,
        };
        tracing::info!("stopping: requests under way may end");
        notice::stopping();
        self.shutdown.cancel();
        let drained = timeout(DRAIN_DEADLINE, drain(&mut self.tasks));
        let cut = tokio::select! {
            drained = drained => drained.err().map(|_| Cut::Deadline),
            () = told(&mut self.terminate, &mut self.interrupt) => Some(Cut::Signal),
        };
        if cut.is_some() {
            self.tasks.shutdown().await;
        }
        match (failure, cut) {
            (Some(failure), _) => Err(failure),
            (None, Some(cut)) => Err(cut.into()),
            (None, None) => Ok(()),
        }
    }
}

/// A signal to stop.
async fn told(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The first failure of a task; never returns while none fails.
async fn failed(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(failure))) => return failure,
            Some(Err(panicked)) => return panicked.into(),
            None => std::future::pending().await,
        }
    }
}

async fn drain(tasks: &mut JoinSet<anyhow::Result<()>>) {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a task failed while it ended"),
            Err(error) => tracing::warn!(%error, "a task was cut while it ended"),
        }
    }
}
