//! What is known of updates of the box: the board edge tells it, other edges show it, and ask for one through
//! [`Order`](super::Order).

mod source;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::source::{Available, BundleDigest, Source, SourceError};
use crate::id::Version;

/// One of the two places that a system can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// Partition 2.
    A,
    /// Partition 3.
    B,
}

/// The system of a box and what is being done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updates {
    /// What runs.
    pub running: Version,
    /// For which boxes bundles must be: this one's.
    pub compatible: String,
    /// Where it runs.
    pub slot: Slot,
    /// What is being done.
    pub step: Step,
    /// Why the bundle that was wanted last was not installed; nothing was changed then.
    pub refused: Option<UpdateTrouble>,
    /// What came of the last one that was.
    pub last: Option<Outcome>,
    /// What can be gone back to: it ran before and was good.
    pub before: Option<Version>,
}

/// What is being done to the system of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Idle,
    /// A bundle comes from where it was asked for; counted in bytes.
    Fetching(Progress),
    /// A bundle goes to where only root reaches it; counted in bytes.
    Transferring(Progress),
    /// Who made it and what for is looked at.
    Checking,
    /// It is written to the slot that does not run; counted in percent.
    Installing(Progress),
    /// The box is about to start from the other slot.
    Restarting,
    /// The system that runs is new and not yet judged.
    Trying,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So much is done.
    pub done: u64,
    /// Of so much.
    pub total: u64,
    /// So much was done before: a transfer that goes on where it was cut off.
    pub before: u64,
    /// So long the rest has taken.
    pub elapsed: Duration,
}

/// What came of an update or of going back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What was tried.
    pub version: Version,
    /// Why it runs no more, a sentence each; empty where it is good.
    pub reasons: Vec<String>,
}

/// A bundle that is to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Where it comes from.
    pub source: Source,
    /// Whether it may be no newer than what runs.
    pub may_be_older: bool,
}

/// Why an update is not installed. Nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "trouble", rename_all = "snake_case")]
pub enum UpdateTrouble {
    /// One is under way, or the system that runs is not judged yet.
    #[error("an update is under way: `refuge update status` shows how far it is")]
    Busy,
    /// There is no room for the bundle.
    #[error(
        "the bundle needs {needed_bytes} bytes of the card and {free_bytes} are free: delete something first"
    )]
    NoSpace {
        /// So many are needed.
        needed_bytes: u64,
        /// So many are free.
        free_bytes: u64,
    },
    /// It did not come, or not as a whole. What came is kept, and goes on when the same is asked for again.
    #[error("the bundle did not come from {from}: {reason}")]
    Away {
        /// Where it was to come from.
        from: String,
        /// What failed.
        reason: String,
    },
    /// It is no bundle, or none that this box takes.
    #[error("the box does not take this bundle ({reason}): get one from whoever made its image")]
    Bundle {
        /// What RAUC said.
        reason: String,
    },
    /// It is for another kind of board.
    #[error("the bundle is for {compatible}, this box is {own}: get the one for it")]
    OtherBoard {
        /// What it is for.
        compatible: String,
        /// What this is.
        own: String,
    },
    /// It is no newer than what runs.
    #[error("the bundle is version {version} and {running} runs: say that it may be older if you mean that")]
    Older {
        /// What is in it.
        version: Version,
        /// What runs.
        running: Version,
    },
    /// The channel of the box has a newer one.
    #[error(
        "the bundle is version {version}, and the channel has {channel}: say that it may be older if you mean that"
    )]
    Withheld {
        /// What is in it.
        version: Version,
        /// What the channel has.
        channel: Version,
    },
    /// Nothing can be gone back to.
    #[error("there is nothing to go back to: the other slot holds no system that was good")]
    NothingBefore,
    /// A program of the system that had to do it failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// The program or call.
        program: String,
        /// What it said.
        reason: String,
    },
    /// What does this for the node, as root, is not there.
    #[error("what installs updates on a box does not answer: {reason}")]
    NoHelper {
        /// What failed.
        reason: String,
    },
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// Its name, as the boot loader has it.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "A",
            Slot::B => "B",
        }
    }

    /// The slot of that name.
    pub fn named(name: &str) -> Option<Slot> {
        match name {
            "A" => Some(Slot::A),
            "B" => Some(Slot::B),
            _ => None,
        }
    }
}

impl Step {
    /// Its name, in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Step::Idle => "idle",
            Step::Fetching(_) => "fetching",
            Step::Transferring(_) => "transferring",
            Step::Checking => "checking",
            Step::Installing(_) => "installing",
            Step::Restarting => "restarting",
            Step::Trying => "trying",
        }
    }

    /// How far it is, where that can be told.
    pub fn progress(self) -> Option<Progress> {
        match self {
            Step::Fetching(progress) | Step::Transferring(progress) | Step::Installing(progress) => {
                Some(progress)
            }
            Step::Idle | Step::Checking | Step::Restarting | Step::Trying => None,
        }
    }
}

impl Progress {
    /// How much is done each second; 0 where nothing is known yet.
    pub fn rate(self) -> u64 {
        let elapsed_ms = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        self.done_now()
            .saturating_mul(1000)
            .checked_div(elapsed_ms)
            .unwrap_or(0)
    }

    /// How long the rest takes at that rate; `None` where nothing is known yet.
    pub fn left(self) -> Option<Duration> {
        let elapsed_ms = u64::try_from(self.elapsed.as_millis()).ok()?;
        let left = self.total.saturating_sub(self.done);
        let left_ms = elapsed_ms.checked_mul(left)?.checked_div(self.done_now())?;
        Some(Duration::from_millis(left_ms))
    }

    fn done_now(self) -> u64 {
        self.done.saturating_sub(self.before)
    }
}

impl Outcome {
    /// Whether it was judged good.
    pub fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }

    /// What someone should look at.
    pub(super) fn finding(&self) -> Option<String> {
        let reasons = self.reasons.join("; ");
        (!self.is_good()).then(|| format!("version {} did not stay: {reasons}", self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_follow_from_what_is_done() {
        let progress = |done, millis| Progress {
            done,
            total: 1000,
            before: 0,
            elapsed: Duration::from_millis(millis),
        };
        assert_eq!(progress(0, 0).rate(), 0);
        assert_eq!(progress(0, 500).left(), None);
        assert_eq!(progress(250, 500).rate(), 500);
        assert_eq!(progress(250, 500).left(), Some(Duration::from_millis(1500)));
        assert_eq!(progress(1000, 500).left(), Some(Duration::ZERO));
        assert_eq!(progress(2000, 500).left(), Some(Duration::ZERO));
        let goes_on = Progress {
            before: 500,
            ..progress(750, 500)
        };
        assert_eq!(
            (goes_on.rate(), goes_on.left()),
            (500, Some(Duration::from_millis(500)))
        );
    }
}
