//! A run written down operation by operation, so that one run gives every crash state: cut after any operation, lose power, look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::SystemTime;

use super::medium::{Ino, Medium, Op};
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

    /// Where the flushes of this run were made, by what they flush: `flush store/volumes/#.vol after write`,
    /// `flush folder store after rename`. Two calls of one description are one call site of the program, or alike.
    pub(crate) fn flush_sites(&self) -> BTreeMap<String, Vec<usize>> {
        let mut medium = self.start.clone();
        let mut paths = medium.paths();
        let mut last: BTreeMap<Ino, &'static str> = BTreeMap::new();
        let mut sites: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, (op, now)) in self.steps.iter().enumerate() {
            let made = medium.apply(op, *now).expect("what was done can be repeated");
            match op {
                Op::Create { dir, name, .. }
                | Op::Mkdir { dir, name, .. }
                | Op::Symlink { dir, name, .. } => {
                    paths.insert(made, paths[dir].join(name));
                    last.insert(*dir, "create");
                    last.insert(made, "create");
                }
                Op::Link { dir, .. } => drop(last.insert(*dir, "link")),
                Op::Unlink { dir, .. } | Op::Rmdir { dir, .. } => drop(last.insert(*dir, "unlink")),
                Op::Rename { to_dir, to_name, .. } => {
                    if let Ok(ino) = medium.lookup(*to_dir, to_name) {
                        paths.insert(ino, paths[to_dir].join(to_name));
                    }
                    last.insert(*to_dir, "rename");
                }
                Op::Write { ino, offset: 0, .. } => drop(last.insert(*ino, "its first page")),
                Op::Write { ino, .. } => drop(last.insert(*ino, "write")),
                Op::Truncate { ino, .. } | Op::Punch { ino, .. } => drop(last.insert(*ino, "cut")),
                Op::Flush { ino } | Op::FlushDir { ino } => {
                    let what = if matches!(op, Op::Flush { .. }) {
                        "file"
                    } else {
                        "folder"
                    };
                    let site = format!(
                        "{what} {} after {}",
                        without_numbers(&paths[ino]),
                        last.get(ino).unwrap_or(&"nothing")
                    );
                    sites.entry(site).or_default().push(at);
                }
                Op::Attr { .. } | Op::FailedFlush { .. } | Op::Mark(_) => {}
            }
        }
        sites
    }

    /// The same run as a program would have made it that lacks these operations, and where each of them was.
    pub(crate) fn without(&self, places: &[usize]) -> (Self, Vec<usize>) {
        let mut less = Self::from(self.start.clone());
        let mut gaps = Vec::new();
        for (at, (op, now)) in self.steps.iter().enumerate() {
            if places.binary_search(&at).is_ok() {
                gaps.push(less.steps.len());
            } else {
                less.push(op.clone(), *now);
            }
        }
        (less, gaps)
    }

    /// Where these bytes were written before a place: for a message about a key that is gone.
    pub(crate) fn writes_of(&self, bytes: &[u8], place: usize) -> String {
        let mut text = String::new();
        for (at, (op, _)) in self.steps[..place].iter().enumerate() {
            let Op::Write { ino, offset, data } = op else {
                continue;
            };
            let found = data.windows(bytes.len()).enumerate();
            for (behind, _) in found.filter(|(_, window)| *window == bytes) {
                let from = behind.saturating_sub(40);
                let head = data[from..behind].iter().map(|byte| format!("{byte:02x}"));
                text.push_str(&format!(
                    "  written {at}: file {ino}, at {}, behind {}\n",
                    offset + behind as u64,
                    head.collect::<String>()
                ));
            }
        }
        text
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

/// A path with `#` for each number and random name in it, so that files of one kind are one.
fn without_numbers(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut short = String::new();
    for part in text.split_inclusive(['/', '.', '-', '_']) {
        let (word, end) = part.split_at(part.trim_end_matches(['/', '.', '-', '_']).len());
        let is_name =
            word.chars().all(|character| character.is_ascii_lowercase()) && (3..20).contains(&word.len());
        short.push_str(if is_name { word } else { "#" });
        short.push_str(end);
    }
    short
}
