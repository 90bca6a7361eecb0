//! What root writes down about updates, so that whichever slot starts next knows what happened.
//!
//! ```text
//! /data/update/record.json   replaced whole
//! {"format":1,
//!  "trial":{"slot":"B","version":"0.2.0","from":"0.1.0","lan_answered":true,"is_armed":true,"reasons":[]},
//!  "last":{"version":"0.1.0","reasons":[]},
//!  "before":null}
//! ```
//!
//! Pure. A trial is written down before the boot loader is told to start from its slot; it ends when its slot was judged
//! good, or when another slot starts. After a fall back the boot loader's order still names the slot that failed first, and
//! RAUC calls what it installed last installed: only the comparison of the slot that runs with this record tells.

use serde::{Deserialize, Serialize};

use crate::id::Version;
use crate::node::{Outcome, Slot};

/// The format of the file.
const FORMAT: u32 = 1;

/// What is known of updates, whichever slot runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    /// What was told to start and is not judged yet.
    trial: Option<Trial>,
    /// What came of the one before.
    last: Option<Outcome>,
    /// What the slot that does not run holds, where it was good.
    before: Option<Version>,
}

/// A system that has to prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trial {
    /// Where it is.
    pub(super) slot: Slot,
    /// What it is.
    pub(super) version: Version,
    /// What ran before, and runs again if it fails.
    pub(super) from: Version,
    /// Whether the gateway answered before.
    pub(super) lan_answered: bool,
    /// Whether the boot loader was told to start it.
    pub(super) is_armed: bool,
    /// Why it was given up, where it was judged.
    pub(super) reasons: Vec<String>,
}

/// What a start is, by what was written down before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// One like any other.
    Usual,
    /// Of a system that has to prove itself.
    OnTrial(Trial),
    /// Of the old system after a new one failed: what to write down.
    Back(Record),
}

impl Default for Record {
    fn default() -> Record {
        Record {
            format: FORMAT,
            trial: None,
            last: None,
            before: None,
        }
    }
}

impl Record {
    /// Reads the file's bytes; what is damaged or of another format is no record: the slot that runs is then taken as it is.
    pub(super) fn read(bytes: &[u8]) -> Record {
        let read = serde_json::from_slice::<Record>(bytes).ok();
        read.filter(|record| record.format == FORMAT).unwrap_or_default()
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain fields")
    }

    /// What came of the last update.
    pub(super) fn last(&self) -> Option<&Outcome> {
        self.last.as_ref()
    }

    /// What can be gone back to.
    pub(super) fn before(&self) -> Option<&Version> {
        self.before.as_ref()
    }

    /// The other slot is about to be overwritten.
    pub(super) fn overwriting(self) -> Record {
        Record { before: None, ..self }
    }

    /// The boot loader is about to be told, or was, where `trial` is armed.
    pub(super) fn trying(self, trial: Trial) -> Record {
        Record {
            trial: Some(trial),
            before: None,
            ..self
        }
    }

    /// What a start from `booted` is.
    pub(super) fn start(&self, booted: Slot) -> Start {
        match &self.trial {
            None => Start::Usual,
            Some(trial) if trial.slot == booted => Start::OnTrial(trial.clone()),
            Some(trial) => Start::Back(Record {
                trial: None,
                last: Some(Outcome {
                    version: trial.version.clone(),
                    reasons: trial.why_it_is_gone(),
                }),
                ..self.clone()
            }),
        }
    }

    /// The system that is on trial was judged and will be left.
    pub(super) fn given_up(mut self, reasons: Vec<String>) -> Record {
        if let Some(trial) = &mut self.trial {
            trial.reasons = reasons;
        }
        self
    }

    /// The system that is on trial in `booted` was judged good, and its slot has its attempts back.
    pub(super) fn proved(self, booted: Slot) -> Record {
        match self.trial {
            Some(trial) if trial.slot == booted => Record {
                trial: None,
                last: Some(Outcome {
                    version: trial.version,
                    reasons: Vec::new(),
                }),
                before: Some(trial.from),
                ..self
            },
            _ => self,
        }
    }
}

impl Trial {
    fn why_it_is_gone(&self) -> Vec<String> {
        let reason = match (self.reasons.is_empty(), self.is_armed) {
            (false, _) => return self.reasons.clone(),
            (true, true) => format!(
                "it did not start in three attempts, so version {} runs again",
                self.from
            ),
            (true, false) => "the power went before it could start: install it again".to_owned(),
        };
        vec![reason]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn trial(is_armed: bool) -> Trial {
        Trial {
            slot: Slot::B,
            version: version("0.2.0"),
            from: version("0.1.0"),
            lan_answered: true,
            is_armed,
            reasons: Vec::new(),
        }
    }

    fn came_back(record: &Record) -> Record {
        match record.start(Slot::A) {
            Start::Back(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_is_as_drawn() {
        let drawn = r#"{"format":1,"trial":{"slot":"B","version":"0.2.0","from":"0.1.0","lan_answered":true,"is_armed":true,"reasons":[]},"last":{"version":"0.1.0","reasons":[]},"before":null}"#;
        let record = Record {
            last: Some(Outcome {
                version: version("0.1.0"),
                reasons: Vec::new(),
            }),
            ..Record::default()
        }
        .trying(trial(true));
        assert_eq!(String::from_utf8(record.bytes()).unwrap(), drawn);
        assert_eq!(Record::read(drawn.as_bytes()), record);
    }

    #[test]
    fn a_shell_sees_a_trial_as_well() {
        let unit = include_str!("../../../systemd/refuge-data.service");
        assert!(
            unit.contains("grep -q trial.:{ /data/update/record.json"),
            "{unit}"
        );
        let is_seen = |record: &Record| String::from_utf8(record.bytes()).unwrap().contains("trial\":{");
        let record = Record::default();
        assert!(!is_seen(&record));
        let record = record.trying(trial(false));
        assert!(is_seen(&record) && is_seen(&record.clone().given_up(vec!["no network".to_owned()])));
        assert!(!is_seen(&record.proved(Slot::B)));
    }

    #[test]
    fn what_is_damaged_is_no_record_and_every_start_is_usual() {
        let good = Record::default().trying(trial(true)).bytes();
        let newer = String::from_utf8(good.clone())
            .unwrap()
            .replace("\"format\":1", "\"format\":2");
        for bad in [&b""[..], b"null", &good[..good.len() / 2], newer.as_bytes()] {
            assert_eq!(Record::read(bad).start(Slot::B), Start::Usual);
        }
    }

    #[test]
    fn a_system_that_proves_itself_stays_and_the_old_one_can_be_gone_back_to() {
        let record = Record::default().overwriting().trying(trial(true));
        assert_eq!(record.start(Slot::B), Start::OnTrial(trial(true)));
        let record = record.proved(Slot::B);
        assert_eq!(record.start(Slot::B), Start::Usual);
        assert!(record.last().is_some_and(Outcome::is_good));
        assert_eq!(record.before(), Some(&version("0.1.0")));
        // A new install into the other slot destroys that.
        assert_eq!(record.clone().overwriting().before(), None);
        assert_eq!(record.clone().proved(Slot::B), record);
    }

    #[test]
    fn a_system_that_was_judged_bad_is_told_of_with_the_reasons() {
        let record = Record::default()
            .trying(trial(true))
            .given_up(vec!["no network".to_owned()]);
        let back = came_back(&record);
        assert_eq!(back.last().unwrap().reasons, ["no network"]);
        assert_eq!(back.start(Slot::A), Start::Usual);
        assert_eq!(back.before(), None, "what failed is nothing to go back to");
    }

    #[test]
    fn a_system_that_never_started_is_told_of_and_one_that_was_not_asked_to_as_well() {
        let tried = came_back(&Record::default().trying(trial(true)));
        assert!(tried.last().unwrap().reasons[0].contains("three attempts"));
        let cut = came_back(&Record::default().trying(trial(false)));
        assert!(cut.last().unwrap().reasons[0].contains("power"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::read(&bytes);
        }
    }
}
