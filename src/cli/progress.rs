//! Progress on standard error, where a person watches it.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Session;
use super::output::{bytes, is_watched};
use crate::files::{Counts, Progress};
use crate::id::BlobId;

/// How often a line is drawn anew: smooth enough for eyes, rare enough for a serial console.
const TICK: Duration = Duration::from_millis(200);

/// A count of things whose total is not known.
pub(super) struct Counter {
    bar: ProgressBar,
}

impl Counter {
    /// Counts from zero; `what` follows the number.
    pub(super) fn new(what: &'static str) -> Counter {
        if !is_watched() {
            return Counter {
                bar: ProgressBar::hidden(),
            };
        }
        let template = format!("{{spinner}} {{human_pos}} {what} {{elapsed}}");
        let style = ProgressStyle::with_template(&template).expect("a template of known keys");
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(TICK);
        Counter { bar }
    }

    /// What was counted so far.
    pub(super) fn set(&self, count: u64) {
        self.bar.set_position(count);
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Draws how far work on folders is, and passes an interrupt on to it: the first asks it to stop, which keeps
/// what was done, the second ends the process.
pub(super) struct Watch {
    bar: ProgressBar,
    drawing: JoinHandle<()>,
    interrupt: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn start(progress: &Arc<Progress>, session: &Session) -> Watch {
        let bar = match is_watched() {
            true => {
                let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
                    .expect("a template of known keys");
                ProgressBar::new_spinner().with_style(style)
            }
            false => ProgressBar::hidden(),
        };
        let drawing = session.runtime.spawn(draw(bar.clone(), Arc::clone(progress)));
        let interrupt = session.runtime.spawn(interrupt(Arc::clone(progress)));
        Watch {
            bar,
            drawing,
            interrupt,
        }
    }

    /// Takes the line away.
    pub(super) fn end(self) {
        self.drawing.abort();
        self.interrupt.abort();
        self.bar.finish_and_clear();
    }
}

async fn draw(bar: ProgressBar, progress: Arc<Progress>) {
    while !bar.is_hidden() {
        bar.set_message(line(progress.counts()));
        bar.tick();
        sleep(TICK).await;
    }
}

fn line(counts: Counts) -> String {
    let mut text = format!(
        "{} files, {}; {} unchanged, read {}",
        counts.files,
        bytes(counts.bytes),
        counts.unchanged,
        bytes(counts.read_bytes)
    );
    if counts.problems > 0 {
        text.push_str(&format!("; {} problems", counts.problems));
    }
    text
}

async fn interrupt(progress: Arc<Progress>) {
    // Where signals can't be heard they end the process, as ever.
    while tokio::signal::ctrl_c().await.is_ok() {
        if progress.is_stopped() {
            std::process::exit(130);
        }
        progress.stop();
    }
}

/// The digits of a tree that people type.
pub(super) fn short(tree: &BlobId) -> String {
    let mut digits = tree.hex();
    digits.truncate(10);
    digits
}

/// A duration for people: `1.4 s`, `3 min 12 s`.
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0..=59 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
