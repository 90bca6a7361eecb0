//! Whether a system that is on trial has proved itself: pure. The shell around it looks once in a while and does what it says.
//!
//! It is good when the node has examined itself and found nothing, and the gateway answers if it did before. It is bad when the
//! node found something, ended too often, or when time is up: then the box goes back by itself.

use std::time::Duration;

/// From the start of the system's services on. A start under emulation takes forty seconds, one of a box with a full card and a check
/// of it a few more; who waits longer believes that the box is gone.
pub(super) const JUDGED_WITHIN: Duration = Duration::from_secs(180);

/// How long the network may take after the node has found nothing: an address from a slow router takes half a minute.
pub(super) const LAN_WITHIN: Duration = Duration::from_secs(45);

/// A node that ends so often does not start. systemd waits a second in between.
const ENDINGS_MOST: u32 = 3;

/// What is seen of the system that is on trial.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// What the node found the matter with itself, where it has looked.
    pub(super) examined: Option<Vec<String>>,
    /// How often the node ended and was started again.
    pub(super) endings: u32,
    /// Whether the gateway answers.
    pub(super) lan_answers: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again.
    Wait,
    /// It has proved itself.
    Good,
    /// It is given up, for these reasons.
    Bad(Vec<String>),
}

/// Judges one system.
#[derive(Debug)]
pub(super) struct Judge {
    lan_answered: bool,
    examined_at: Option<Duration>,
}

impl Judge {
    /// For a system before which the gateway answered, or did not.
    pub(super) fn new(lan_answered: bool) -> Judge {
        Judge {
            lan_answered,
            examined_at: None,
        }
    }

    /// What to do after what is seen at `now`, the time since the judge began.
    pub(super) fn look(&mut self, seen: Seen, now: Duration) -> Verdict {
        if let Some(reasons) = seen.examined.as_ref().filter(|reasons| !reasons.is_empty()) {
            return Verdict::Bad(reasons.clone());
        }
        if seen.endings >= ENDINGS_MOST {
            return Verdict::Bad(vec![format!(
                "the node ended {} times while it started",
                seen.endings
            )]);
        }
        if seen.examined.is_none() {
            return match now < JUDGED_WITHIN {
                true => Verdict::Wait,
                false => Verdict::Bad(vec![format!(
                    "the node did not examine itself within {} s",
                    JUDGED_WITHIN.as_secs()
                )]),
            };
        }
        let since = now.saturating_sub(*self.examined_at.get_or_insert(now));
        match (seen.lan_answers || !self.lan_answered, since < LAN_WITHIN) {
            (true, _) => Verdict::Good,
            (false, true) => Verdict::Wait,
            (false, false) => Verdict::Bad(vec![format!(
                "the network's gateway answered before the update and did not within {} s",
                LAN_WITHIN.as_secs()
            )]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn well() -> Seen {
        Seen {
            examined: Some(Vec::new()),
            endings: 0,
            lan_answers: true,
        }
    }

    fn is_bad(verdict: Verdict, word: &str) -> bool {
        matches!(verdict, Verdict::Bad(reasons) if reasons.iter().any(|reason| reason.contains(word)))
    }

    #[test]
    fn it_waits_for_the_node_and_the_network_and_is_good_then() {
        let mut judge = Judge::new(true);
        assert_eq!(judge.look(Seen::default(), SECOND), Verdict::Wait);
        let no_lan = Seen {
            lan_answers: false,
            ..well()
        };
        assert_eq!(judge.look(no_lan, 20 * SECOND), Verdict::Wait);
        assert_eq!(judge.look(well(), 60 * SECOND), Verdict::Good);
    }

    #[test]
    fn a_network_that_did_not_answer_before_is_not_waited_for() {
        let no_lan = Seen {
            lan_answers: false,
            ..well()
        };
        assert_eq!(Judge::new(false).look(no_lan, SECOND), Verdict::Good);
    }

    #[test]
    fn a_network_that_is_gone_is_waited_for_from_when_the_node_is_well() {
        let mut judge = Judge::new(true);
        let no_lan = || Seen {
            lan_answers: false,
            ..well()
        };
        assert_eq!(judge.look(no_lan(), 100 * SECOND), Verdict::Wait);
        assert_eq!(judge.look(no_lan(), 99 * SECOND + LAN_WITHIN), Verdict::Wait);
        assert!(is_bad(judge.look(no_lan(), 100 * SECOND + LAN_WITHIN), "gateway"));
    }

    #[test]
    fn what_the_node_found_counts_at_once() {
        let seen = Seen {
            examined: Some(vec!["blobs: damaged".to_owned()]),
            ..well()
        };
        assert!(is_bad(Judge::new(true).look(seen, SECOND), "blobs: damaged"));
    }

    #[test]
    fn a_node_that_ends_again_and_again_and_one_that_says_nothing_are_given_up() {
        let endings = |endings| Seen {
            endings,
            ..Seen::default()
        };
        assert_eq!(Judge::new(true).look(endings(2), SECOND), Verdict::Wait);
        assert!(is_bad(Judge::new(true).look(endings(3), SECOND), "ended 3 times"));
        assert!(is_bad(
            Judge::new(true).look(Seen::default(), JUDGED_WITHIN),
            "examine"
        ));
    }
}
