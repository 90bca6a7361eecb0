//! Judging a recorded run: cut it at many places, lose power in each way, and look at what is left in a plain folder.

use std::path::Path;
use std::sync::Mutex;

use super::folder;
use super::journal::{Expectation, Journal};
use super::medium::{Crash, Medium};
use super::recording::Recording;
use super::seed::{Count, Rng};

/// Places at which upkeep is cut, each in four ways; every place of it with the full numbers.
pub(crate) const POINTS_OF_HAYSTACK: Count = Count {
    sample: 40,
    full: usize::MAX,
};

/// Fewer, as thousands of folders are looked at again and again.
pub(crate) const POINTS_OF_FILES: Count = Count {
    sample: 8,
    full: usize::MAX,
};

/// Failures whose circumstances are printed.
const SHOWN: usize = 3;

/// Lines of a failure that are printed.
const LINES_SHOWN: usize = 12;

/// Which crashes of a recorded run are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    /// Places, picked by chance; every place where there are fewer.
    pub(crate) count: usize,
    /// What happens at each.
    pub(crate) crashes: &'static [Crash],
}

impl Cuts {
    /// Power is lost at so many places, in each of the three ways.
    pub(crate) fn power(count: usize) -> Self {
        Self {
            count,
            crashes: &Crash::POWER,
        }
    }
}

/// A state to look at: where the run was cut, how, what is left, and how much of the journal came before.
type State = (usize, Crash, Medium, usize);

/// Judges a recording at places picked by chance, each after every kind of crash, on two threads.
///
/// `judge` gets the folder that is found and what may be in it; its errors are printed with the operations around.
///
/// # Panics
/// When any state breaks the rule.
pub(crate) fn judge_cuts(
    name: &str,
    recording: &Recording,
    journal: &Journal,
    (cuts, rng): (Cuts, &Rng),
    judge: impl Fn(&Path, &Expectation) -> Result<(), String> + Sync,
) {
    let places = recording.pick(cuts.count, &mut rng.branch("places"));
    let failures = Mutex::new(Vec::new());
    let (states, queue) = std::sync::mpsc::sync_channel::<State>(4);
    let queue = Mutex::new(queue);
    let next = || queue.lock().expect("no judge panics here").recv().ok();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((place, crash, medium, mark)) = next() {
                    let found = folder::scratch();
                    folder::write_to(&medium, found.path()).expect("a medium can be written out");
                    if let Err(wrong) = judge(found.path(), &journal.expected_at(mark)) {
                        let mut failures = failures.lock().expect("no judge panics here");
                        failures.push((place, crash, wrong, mark));
                    }
                }
            });
        }
        recording.visit(&places, |place, medium, mark| {
            for crash in cuts.crashes.iter().copied() {
                let after = medium.after(crash, &mut rng.branch((place, crash)));
                states
                    .send((place, crash, after, mark))
                    .expect("the judges wait for it");
            }
        });
        drop(states);
    });
    let failures = failures.into_inner().expect("no judge panics here");
    for (place, crash, wrong, mark) in failures.iter().take(SHOWN) {
        let around = recording.describe(*place);
        let wrong: Vec<&str> = wrong.lines().take(LINES_SHOWN).collect();
        let wrong = wrong.join("\n");
        let histories = journal.histories(&wrong, *mark);
        let ids = wrong
            .split("blake3;")
            .skip(1)
            .filter_map(|rest| data_encoding::HEXLOWER.decode(rest.get(..64)?.as_bytes()).ok());
        let mut ids: Vec<Vec<u8>> = ids.collect();
        ids.sort();
        ids.dedup();
        let histories = ids
            .iter()
            .fold(histories, |text, id| text + &recording.writes_of(id, *place));
        eprintln!("{name}: {crash:?} at {place}:\n{wrong}\n{histories}{around}");
    }
    let all = places.len() * cuts.crashes.len();
    eprintln!(
        "{name}: {all} crash states of {} operations",
        recording.places() - 1
    );
    assert!(
        failures.is_empty(),
        "{name}: {} of {all} crash states break the rule",
        failures.len()
    );
}
