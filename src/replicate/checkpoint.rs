//! What both sides of a replication remember of it, and where the next session goes on. Pure.
//!
//! Each side keeps the same document, `_local/ID`, as CouchDB and PouchDB write it:
//!
//! ```text
//! {"session_id": "…", "source_last_seq": SEQ, "replication_id_version": 4,
//!  "history": [{"session_id": "…", "recorded_seq": SEQ, "start_last_seq": SEQ, "end_last_seq": SEQ, "start_time": "…",
//!    "end_time": "…", "missing_checked": 0, "missing_found": 0, "docs_read": 0, "docs_written": 0, "doc_write_failures": 0}, …]}
//! ```
//!
//! A side that was set back, or has met another source under this name, knows other sessions: the replication goes on from the
//! newest session that both know, or from the beginning. (CouchDB, "Replication Protocol", "Compare Replication Logs".)
//!
//! The id is the digest of what makes a replication this one, as in CouchDB's fourth version: who replicates, source, target and
//! filter. Credentials are no part of it but for the name, so that a new password begins nothing anew.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::LocalId;
use crate::node::ReplicationStats;

/// Sessions that a checkpoint remembers: as many as CouchDB's.
const HISTORY_MAX: usize = 50;

/// The longest sequence of a peer that is kept, as JSON: those of large CouchDB clusters have some hundred bytes.
const SEQ_BYTES_MAX: usize = 8 * 1024;

/// CouchDB's version of how ids are made.
const ID_VERSION: u32 = 4;

/// A place in the order of a peer's changes, as it gave it out: a text mostly, a number for some.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PeerSeq(Value);

/// What a side keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The session that wrote it.
    pub(super) session_id: String,
    /// Where the next one goes on.
    pub(super) source_last_seq: PeerSeq,
    /// [`ID_VERSION`].
    #[serde(default)]
    pub(super) replication_id_version: u32,
    /// Sessions, the newest first.
    #[serde(default)]
    pub(super) history: Vec<Entry>,
}

/// One session in a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its id.
    pub(super) session_id: String,
    /// How far it came.
    pub(super) recorded_seq: PeerSeq,
    /// Where it began.
    #[serde(default)]
    pub(super) start_last_seq: PeerSeq,
    /// Where it ended.
    #[serde(default)]
    pub(super) end_last_seq: PeerSeq,
    /// When it began (RFC 1123).
    #[serde(default)]
    pub(super) start_time: String,
    /// When it wrote this.
    #[serde(default)]
    pub(super) end_time: String,
    /// What it did.
    #[serde(flatten, default)]
    pub(super) stats: ReplicationStats,
}

/// What makes a replication this one and no other.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Identity<'a> {
    /// The node that replicates.
    pub(super) node: &'a str,
    /// The source, without what opens it.
    pub(super) source: &'a str,
    /// The target, likewise.
    pub(super) target: &'a str,
    /// Documents by id, in order.
    pub(super) doc_ids: Option<&'a [String]>,
    /// A selector.
    pub(super) selector: Option<&'a Value>,
}

impl PeerSeq {
    /// A sequence that came as JSON; `None` where no peer has such.
    pub(super) fn of_json(value: Value) -> Option<PeerSeq> {
        let fits = match &value {
            Value::String(text) => text.len() <= SEQ_BYTES_MAX,
            Value::Number(_) => true,
            Value::Array(_) => value.to_string().len() <= SEQ_BYTES_MAX,
            Value::Null | Value::Bool(_) | Value::Object(_) => false,
        };
        fits.then_some(PeerSeq(value))
    }

    /// As it stands in a query.
    pub(super) fn to_query(&self) -> String {
        match &self.0 {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// What orders it: the number it is, or begins with, as those of CouchDB and of this node do.
    fn number(&self) -> Option<u64> {
        let text = self.to_query();
        text.split('-').next()?.parse().ok()
    }

    /// As JSON.
    pub(super) fn as_json(&self) -> &Value {
        &self.0
    }
}

/// Before the first change.
impl Default for PeerSeq {
    fn default() -> PeerSeq {
        PeerSeq(Value::from(0))
    }
}

impl From<String> for PeerSeq {
    fn from(text: String) -> PeerSeq {
        PeerSeq(Value::String(text))
    }
}

impl fmt::Debug for PeerSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Identity<'_> {
    /// The id: 32 hex digits.
    pub(super) fn id(&self) -> String {
        let text = json!(["refuge replication", ID_VERSION, self]).to_string();
        HEXLOWER.encode(&blake3::hash(text.as_bytes()).as_bytes()[..16])
    }
}

/// The name of the document on both sides.
pub(super) fn document_id(id: &str) -> LocalId {
    LocalId::named(id).expect("an id is 32 hex digits")
}

impl Checkpoint {
    /// What a side has to keep from now on: `entry` in place of an earlier state of the same session.
    pub(super) fn with(history: &[Entry], entry: Entry) -> Checkpoint {
        let earlier = history
            .iter()
            .filter(|earlier| earlier.session_id != entry.session_id);
        let mut all = vec![entry.clone()];
        all.extend(earlier.take(HISTORY_MAX - 1).cloned());
        Checkpoint {
            session_id: entry.session_id,
            source_last_seq: entry.recorded_seq,
            replication_id_version: ID_VERSION,
            history: all,
        }
    }
}

/// Where to go on, and the history up to there.
///
/// Of a session that both know each side may have written down another moment: a side that was set back the earlier one. CouchDB goes on
/// from what the source says; here it is the earlier of the two.
pub(super) fn common(source: Option<&Checkpoint>, target: Option<&Checkpoint>) -> (PeerSeq, Vec<Entry>) {
    let (Some(source), Some(target)) = (source, target) else {
        return (PeerSeq::default(), Vec::new());
    };
    if source.session_id == target.session_id
        && let Some(seq) = earlier(&source.source_last_seq, &target.source_last_seq)
    {
        return (seq, source.history.clone());
    }
    for (at, ours) in source.history.iter().enumerate() {
        let theirs = target
            .history
            .iter()
            .find(|theirs| theirs.session_id == ours.session_id);
        let seq = theirs.and_then(|theirs| earlier(&ours.recorded_seq, &theirs.recorded_seq));
        if let Some(seq) = seq {
            return (seq, source.history[at..].to_vec());
        }
    }
    (PeerSeq::default(), Vec::new())
}

/// The earlier of two sequences of one source; `None` where that can't be told.
fn earlier(one: &PeerSeq, other: &PeerSeq) -> Option<PeerSeq> {
    if one == other {
        return Some(one.clone());
    }
    let (number, other_number) = (one.number()?, other.number()?);
    Some(if number <= other_number {
        one.clone()
    } else {
        other.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(session: &str, seq: u64) -> Entry {
        Entry {
            session_id: session.to_owned(),
            recorded_seq: PeerSeq(Value::from(seq)),
            start_last_seq: PeerSeq::default(),
            end_last_seq: PeerSeq(Value::from(seq)),
            start_time: String::new(),
            end_time: String::new(),
            stats: ReplicationStats::default(),
        }
    }

    fn log(sessions: &[(&str, u64)]) -> Checkpoint {
        let history: Vec<Entry> = sessions
            .iter()
            .map(|(session, seq)| entry(session, *seq))
            .collect();
        Checkpoint::with(&history[1..], history[0].clone())
    }

    fn start(source: &[(&str, u64)], target: &[(&str, u64)]) -> Value {
        common(Some(&log(source)), Some(&log(target))).0.0
    }

    #[test]
    fn a_session_goes_on_from_the_newest_that_both_sides_know() {
        assert_eq!(common(None, Some(&log(&[("a", 1)]))).0, PeerSeq::default());
        assert_eq!(start(&[("a", 5)], &[("a", 5)]), 5);
        // The target missed the last session, or the source did.
        assert_eq!(start(&[("b", 9), ("a", 5)], &[("a", 5)]), 5);
        assert_eq!(start(&[("a", 5)], &[("b", 9), ("a", 5)]), 5);
        assert_eq!(start(&[("c", 9), ("a", 5)], &[("b", 7), ("a", 5)]), 5);
        // Neither knows a session of the other.
        assert_eq!(start(&[("b", 9)], &[("a", 5)]), 0);
        // One side was set back to the middle of a session.
        assert_eq!(start(&[("a", 5)], &[("a", 3)]), 3);
        assert_eq!(start(&[("a", 3)], &[("a", 5)]), 3);
        assert_eq!(start(&[("b", 9), ("a", 5)], &[("c", 9), ("a", 3)]), 3);
        assert_eq!(
            start(
                &[("d", 20), ("b", 9), ("a", 5)],
                &[("e", 30), ("f", 25), ("b", 9)]
            ),
            9
        );
    }

    #[test]
    fn a_history_is_bounded_and_has_each_session_once() {
        let mut checkpoint = Checkpoint::with(&[], entry("0", 0));
        for number in 1..200_u64 {
            for seq in [number, number + 1] {
                checkpoint = Checkpoint::with(&checkpoint.history, entry(&number.to_string(), seq));
            }
        }
        assert_eq!(checkpoint.history.len(), HISTORY_MAX);
        assert_eq!(checkpoint.source_last_seq.0, 200);
        assert_eq!(checkpoint.history[1].session_id, "198");
    }

    #[test]
    fn what_couchdb_wrote_is_read() {
        let text = r#"{"session_id":"s","source_last_seq":"12-g1AA","replication_id_version":4,"history":[
            {"session_id":"s","start_time":"Thu, 10 Oct 2013 05:56:38 GMT","end_time":"Thu, 10 Oct 2013 05:57:38 GMT","start_last_seq":0,
             "end_last_seq":"12-g1AA","recorded_seq":"12-g1AA","missing_checked":3,"missing_found":2,"docs_read":2,"docs_written":2,
             "doc_write_failures":0}]}"#;
        let read: Checkpoint = serde_json::from_str(text).unwrap();
        assert_eq!(read.source_last_seq.to_query(), "12-g1AA");
        assert_eq!(read.history[0].stats.missing_checked, 3);
        let written: Value = serde_json::to_value(&read).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
        // PouchDB writes less, and numbers.
        let pouch = r#"{"session_id":"s","last_seq":3,"source_last_seq":3,"replicator":"pouchdb","version":1,"history":[{"last_seq":3,"session_id":"s","recorded_seq":3}]}"#;
        assert_eq!(
            serde_json::from_str::<Checkpoint>(pouch)
                .unwrap()
                .source_last_seq
                .to_query(),
            "3"
        );
    }

    #[test]
    fn an_id_is_stable_and_mixes_what_makes_a_replication() {
        let base = Identity {
            node: "0123",
            source: "http://a/db",
            target: "db",
            doc_ids: None,
            selector: None,
        };
        // It must stay: checkpoints on other servers are found by it.
        assert_eq!(base.id(), "d49c87a441166ddfd6d149b8bc86d0ad");
        let ids = ["x".to_owned()];
        let selector = json!({"a": 1});
        let others = [
            Identity {
                node: "4567",
                ..base.clone()
            },
            Identity {
                source: "http://b/db",
                ..base.clone()
            },
            Identity {
                source: "db",
                target: "http://a/db",
                ..base.clone()
            },
            Identity {
                doc_ids: Some(&ids),
                ..base.clone()
            },
            Identity {
                selector: Some(&selector),
                ..base.clone()
            },
        ];
        let mut all: Vec<String> = others.iter().map(Identity::id).collect();
        all.push(base.id());
        assert!(all.iter().all(|id| id.len() == 32));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_sequence_is_a_text_or_a_number() {
        assert!(PeerSeq::of_json(json!("x")).is_some() && PeerSeq::of_json(json!([1, "g"])).is_some());
        for wrong in [
            json!(null),
            json!({}),
            json!(true),
            json!("x".repeat(SEQ_BYTES_MAX + 1)),
        ] {
            assert!(PeerSeq::of_json(wrong).is_none());
        }
    }
}
