//! Progress on standard error, where a person watches it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::is_watched;

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
