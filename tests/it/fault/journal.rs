//! What was asked of a store and what it acknowledged, kept in the test: outside every file system that may fail.
//!
//! A key (a blob id, a ref) has one value or none. The journal knows, at any length of itself, which values a key may
//! have: one where an operation was acknowledged and nothing came after it, several while one is under way.
//! "Nothing never sent appears" is the same rule: a key that nobody sent may only be absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use super::fs::FaultFs;

/// What a key leads to; `None` is absence.
pub(crate) type Value = Option<String>;

/// One operation: gives `key` the value, once it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) key: String,
    pub(crate) value: Value,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged: it must hold from now on.
    Acked,
    /// Refused before anything was done (4xx, 507): it must not hold because of this operation.
    Refused,
    /// Nobody knows (5xx, a lost connection): it may hold or not.
    Unknown,
}

#[derive(Clone, Debug)]
enum Entry {
    Begun(Intent),
    /// The entry that began it, and how it ended.
    Ended(usize, Outcome),
}

/// The journal of one run; shared by the threads that drive it.
#[derive(Default)]
pub(crate) struct Journal {
    entries: Mutex<Vec<Entry>>,
}

/// What may be found: for each key that was ever sent, its possible values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    possible: BTreeMap<String, BTreeSet<Value>>,
}

impl Journal {
    /// A journal that begins with what an earlier run left.
    pub(crate) fn after(earlier: &Expectation) -> Self {
        let journal = Self::default();
        for (key, values) in &earlier.possible {
            for value in values {
                let begun = journal.begin(
                    None,
                    Intent {
                        key: key.clone(),
                        value: value.clone(),
                    },
                );
                let outcome = if values.len() == 1 {
                    Outcome::Acked
                } else {
                    Outcome::Unknown
                };
                journal.end(None, begun, outcome);
            }
        }
        journal
    }

    /// Notes an operation before it is sent. Returns its number for [`Journal::end`].
    pub(crate) fn begin(&self, disk: Option<&FaultFs>, intent: Intent) -> usize {
        self.push(disk, Entry::Begun(intent))
    }

    /// Notes how an operation ended, at once after the answer came.
    pub(crate) fn end(&self, disk: Option<&FaultFs>, begun: usize, outcome: Outcome) {
        self.push(disk, Entry::Ended(begun, outcome));
    }

    /// How many entries there are by now.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many operations were acknowledged.
    pub(crate) fn acked(&self) -> usize {
        self.lock()
            .iter()
            .filter(|entry| matches!(entry, Entry::Ended(_, Outcome::Acked)))
            .count()
    }

    /// What may be found after the first `len` entries, with everything still under way then perhaps done.
    ///
    /// # Panics
    /// When there are fewer entries.
    pub(crate) fn expected_at(&self, len: usize) -> Expectation {
        let mut replay = Replay::default();
        for (number, entry) in self.lock()[..len].iter().enumerate() {
            match entry {
                Entry::Begun(intent) => replay.begin(number, intent),
                Entry::Ended(begun, outcome) => replay.end(*begun, *outcome),
            }
        }
        Expectation {
            possible: replay.possible,
        }
    }

    /// What happened to a key in the first `len` entries, a line each, for a message about its loss.
    fn history(&self, key: &str, len: usize) -> String {
        let entries = self.lock();
        let mut text = String::new();
        for (number, entry) in entries[..len].iter().enumerate() {
            let (begun, what) = match entry {
                Entry::Begun(intent) => (intent, "begun".to_owned()),
                Entry::Ended(begun, outcome) => match &entries[*begun] {
                    Entry::Begun(intent) => (intent, format!("{outcome:?} ({begun})")),
                    Entry::Ended(..) => continue,
                },
            };
            if begun.key == key {
                text.push_str(&format!("  {number}: {:?} {what}\n", begun.value));
            }
        }
        text
    }

    /// What happened to each key that one of these violations names, in the first `len` entries.
    pub(crate) fn histories(&self, violations: &str, len: usize) -> String {
        let keys = violations.lines().filter_map(|line| line.split_once(": found"));
        keys.map(|(key, _)| format!("{key}\n{}", self.history(key, len)))
            .collect()
    }

    /// What may be found at the end.
    pub(crate) fn expected(&self) -> Expectation {
        self.expected_at(self.len())
    }

    fn push(&self, disk: Option<&FaultFs>, entry: Entry) -> usize {
        let mut entries = self.lock();
        entries.push(entry);
        // Under the lock, so that the marks in a recording ascend.
        if let Some(disk) = disk {
            disk.mark(entries.len());
        }
        entries.len() - 1
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries
            .lock()
            .expect("the threads of a test don't panic with it")
    }
}

#[derive(Default)]
struct Replay {
    possible: BTreeMap<String, BTreeSet<Value>>,
    open: BTreeMap<usize, Open>,
}

struct Open {
    intent: Intent,
    /// Whether another value was on its way to the key at the same time: then the last one is not known.
    raced: bool,
    /// Whether the key might have the value all the same: it had it when this began, or another with the same value
    /// ended meanwhile and was not refused.
    possible_otherwise: bool,
}

impl Replay {
    fn begin(&mut self, number: usize, intent: &Intent) {
        let mut raced = false;
        for other in self
            .open
            .values_mut()
            .filter(|other| other.intent.key == intent.key)
        {
            if other.intent.value != intent.value {
                other.raced = true;
                raced = true;
            }
        }
        let values = self
            .possible
            .entry(intent.key.clone())
            .or_insert_with(|| BTreeSet::from([None]));
        let possible_otherwise = !values.insert(intent.value.clone());
        self.open.insert(
            number,
            Open {
                intent: intent.clone(),
                raced,
                possible_otherwise,
            },
        );
    }

    fn end(&mut self, begun: usize, outcome: Outcome) {
        let Some(Open {
            intent,
            raced,
            possible_otherwise,
        }) = self.open.remove(&begun)
        else {
            return;
        };
        let mut asked_by_others = false;
        for other in self.open.values_mut().filter(|other| other.intent == intent) {
            asked_by_others = true;
            other.possible_otherwise |= outcome != Outcome::Refused;
        }
        let values = self.possible.entry(intent.key).or_default();
        match outcome {
            Outcome::Acked if !raced => *values = BTreeSet::from([intent.value]),
            Outcome::Refused if !possible_otherwise && !asked_by_others => {
                values.remove(&intent.value);
            }
            Outcome::Acked | Outcome::Refused | Outcome::Unknown => {}
        }
    }
}

impl Expectation {
    /// Keys that were ever sent.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.possible.keys().map(String::as_str)
    }

    /// The newest value a key may have.
    pub(crate) fn value_of(&self, key: &str) -> Option<&str> {
        self.possible.get(key)?.iter().next_back()?.as_deref()
    }

    /// Whether only one value is possible.
    pub(crate) fn is_certain(&self, key: &str) -> bool {
        self.possible.get(key).is_some_and(|values| values.len() == 1)
    }

    /// What is wrong with a state that was found: each sentence is an acknowledged operation lost, or data nobody sent.
    pub(crate) fn violations(&self, found: &BTreeMap<String, String>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, values) in &self.possible {
            let value = found.get(key).cloned();
            if !values.contains(&value) {
                wrong.push(format!("{key}: found {value:?}, may be {values:?}"));
            }
        }
        for key in found.keys().filter(|key| !self.possible.contains_key(*key)) {
            wrong.push(format!("{key}: found, and was never sent"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::{Intent, Journal, Outcome, Value};

    fn give(journal: &Journal, value: Value) -> usize {
        journal.begin(
            None,
            Intent {
                key: "key".into(),
                value,
            },
        )
    }

    fn may_be(journal: &Journal) -> Vec<Value> {
        journal.expected().possible["key"].iter().cloned().collect()
    }

    fn some(text: &str) -> Value {
        Some(text.into())
    }

    #[test]
    fn an_acknowledged_operation_is_certain_and_an_unanswered_one_is_not() {
        let journal = Journal::default();
        let put = give(&journal, some("a"));
        assert_eq!(may_be(&journal), [None, some("a")]);
        journal.end(None, put, Outcome::Acked);
        assert_eq!(may_be(&journal), [some("a")]);
        let remove = give(&journal, None);
        journal.end(None, remove, Outcome::Unknown);
        assert_eq!(may_be(&journal), [None, some("a")]);
        assert_eq!(journal.expected_at(2).value_of("key"), Some("a"));
        assert!(journal.expected_at(2).is_certain("key"));
    }

    #[test]
    fn equal_operations_at_once_are_certain_and_different_ones_are_not() {
        let journal = Journal::default();
        let (one, two) = (give(&journal, some("a")), give(&journal, some("a")));
        journal.end(None, one, Outcome::Acked);
        assert_eq!(may_be(&journal), [some("a")]);
        let remove = give(&journal, None);
        journal.end(None, two, Outcome::Acked);
        journal.end(None, remove, Outcome::Acked);
        assert_eq!(may_be(&journal), [None, some("a")]);
    }

    #[test]
    fn a_refused_operation_did_nothing() {
        let journal = Journal::default();
        let put = give(&journal, some("a"));
        journal.end(None, put, Outcome::Refused);
        assert_eq!(may_be(&journal), [None]);
    }

    #[test]
    fn what_was_refused_to_one_may_be_there_by_another_whose_answer_was_lost() {
        let journal = Journal::default();
        let (refused, lost) = (give(&journal, some("a")), give(&journal, some("a")));
        journal.end(None, lost, Outcome::Unknown);
        journal.end(None, refused, Outcome::Refused);
        assert_eq!(may_be(&journal), [None, some("a")]);
    }

    #[test]
    fn what_was_lost_and_what_was_never_sent_is_named() {
        let journal = Journal::default();
        let put = give(&journal, some("a"));
        journal.end(None, put, Outcome::Acked);
        let found = [("other".to_owned(), "b".to_owned())].into();
        let wrong = journal.expected().violations(&found);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }
}
