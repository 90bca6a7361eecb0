//! A run written down operation by operation, so that one run gives every crash state: cut after any operation, lose power, look.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::medium::{Medium, Op};
use super::seed::Rng;

/// Everything that happened to a disk, in order, from a known beginning.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    start: Medium,
    steps: Vec<(Op, SystemTime)>,
}

impl Recording {
    pub(crate) fn from(start: Medium) -> Self {
        Self {
            start,
            steps: Vec::new(),
        }
    }

    /// Adds an operation that succeeded.
    pub(crate) fn push(&mut self, op: Op, now: SystemTime) {
        self.steps.push((op, now));
    }

    /// The number of places at which the run can be cut; place `n` is before operation `n`.
    pub(crate) fn places(&self) -> usize {
        self.steps.len() + 1
    }

    /// Ascending places to cut the run at: half of them anywhere, half right after a name changed, where an order of
    /// operations that nothing enforces shows.
    pub(crate) fn pick(&self, count: usize, rng: &mut Rng) -> Vec<usize> {
        let after_names: Vec<usize> = self.places_after(|op| {
            matches!(
                op,
                Op::Create { .. }
                    | Op::Rename { .. }
                    | Op::Link { .. }
                    | Op::Unlink { .. }
                    | Op::Truncate { .. }
            )
        });
        let anywhere = self.places_after(|op| !matches!(op, Op::Mark(_)));
        let names = rng
            .pick(count / 2, after_names.len())
            .into_iter()
            .map(|at| after_names[at]);
        let others = rng
            .pick(count - names.len(), anywhere.len())
            .into_iter()
            .map(|at| anywhere[at]);
        let all: BTreeSet<usize> = names.chain(others).collect();
        all.into_iter().collect()
    }

    fn places_after(&self, wanted: impl Fn(&Op) -> bool) -> Vec<usize> {
        let steps = self.steps.iter().enumerate();
        steps
            .filter(|(_, (op, _))| wanted(op))
            .map(|(at, _)| at + 1)
            .collect()
    }

    /// Visits the disk at each of the ascending `places`, with the last mark before it (zero where there is none).
    ///
    /// # Panics
    /// When the recorded operations can't be repeated: the recording and the medium disagree.
    pub(crate) fn visit(&self, places: &[usize], mut look: impl FnMut(usize, &Medium, usize)) {
        let mut medium = self.start.clone();
        let mut mark = 0;
        let mut done = 0;
        for place in places {
            for (op, now) in &self.steps[done..*place] {
                if let Op::Mark(seen) = op {
                    mark = *seen;
                }
                medium
                    .apply(op, *now)
                    .unwrap_or_else(|errno| panic!("{op:?} was done and now gives {errno}"));
            }
            done = *place;
            look(*place, &medium, mark);
        }
    }

    /// The operations around a place, for a message about a state that failed.
    pub(crate) fn describe(&self, place: usize) -> String {
        let from = place.saturating_sub(12);
        let mut text = String::new();
        for (at, (op, _)) in self.steps.iter().enumerate().skip(from).take(place - from + 2) {
            let here = if at == place {
                "-- power lost here --\n"
            } else {
                ""
            };
            let mut line = format!("{op:?}");
            line.truncate(line.floor_char_boundary(160));
            text.push_str(&format!("{here}{at}: {line}\n"));
        }
        text
    }
}
