//! How the node is, in one word and the reasons for it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::stores::{StoreInfo, Stores};
use crate::coffer::Status;

/// Below that much free space a store is called full, in bytes: the next backup will not fit.
const FREE_BYTES_LOW: u64 = 64 * 1024 * 1024;

/// The worst that is the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Everything works.
    Ready,
    /// It works, and someone should look.
    Degraded,
    /// The store `main` takes no writes.
    ReadOnly,
}

/// How the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In one word.
    pub state: State,
    /// Why it is not [`State::Ready`], a sentence each.
    pub reasons: Vec<String>,
    /// The stores and their numbers.
    pub stores: Vec<StoreInfo>,
    /// How long the node has been open.
    pub uptime: Duration,
    /// The version of this binary.
    pub version: &'static str,
}

/// The health of a node; cloning is cheap.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    stores: Stores,
    opened: Instant,
    /// What other use cases found, the last [`NOTES_KEPT`].
    notes: Mutex<Vec<Note>>,
}

/// What a use case found that stays true until it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    topic: &'static str,
    text: String,
}

/// Topics are few and fixed; more than that is a bug, not a state.
const NOTES_KEPT: usize = 16;

impl State {
    /// The name of the state, in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Degraded => "degraded",
            State::ReadOnly => "read_only",
        }
    }
}

impl Health {
    pub(super) fn new(stores: Stores) -> Health {
        Health {
            inner: Arc::new(Inner {
                stores,
                opened: Instant::now(),
                notes: Mutex::default(),
            }),
        }
    }

    /// How the node is at this moment. Cheap, does not block.
    pub fn report(&self) -> Report {
        let stores = self.inner.stores.list();
        let mut state = State::Ready;
        let mut reasons = Vec::new();
        for (found, reason) in stores.iter().flat_map(findings) {
            state = state.max(found);
            reasons.push(reason);
        }
        let notes = self.notes();
        if !notes.is_empty() {
            state = state.max(State::Degraded);
            reasons.extend(notes.iter().map(|note| note.text.clone()));
        }
        Report {
            state,
            reasons,
            stores,
            uptime: self.inner.opened.elapsed(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Says what is the matter with `topic`, or that nothing is any more.
    pub(super) fn note(&self, topic: &'static str, text: Option<String>) {
        let mut notes = self.notes();
        notes.retain(|note| note.topic != topic);
        if let Some(text) = text.filter(|_| notes.len() < NOTES_KEPT) {
            notes.push(Note { topic, text });
        }
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        self.inner
            .notes
            .lock()
            .expect("no thread panics while it holds the notes")
    }
}

/// What is the matter with one store.
fn findings(info: &StoreInfo) -> Vec<(State, String)> {
    let name = &info.name;
    let Status {
        free_bytes,
        read_only,
        quarantined,
        ..
    } = &info.status;
    let mut found = Vec::new();
    // Without the store that every client uses by itself nothing can be stored.
    let without = match name.as_str() {
        "main" => State::ReadOnly,
        _ => State::Degraded,
    };
    if let Some(reason) = &info.offline {
        found.push((without, format!("store {name} is offline: {reason}")));
    }
    if let Some(reason) = read_only {
        found.push((without, format!("store {name} takes no writes: {reason}")));
    }
    let moving = info.moving.as_ref().and_then(|moving| moving.trouble.as_ref());
    if let Some(trouble) = moving {
        found.push((
            State::Degraded,
            format!("store {name} does not move on: {trouble}"),
        ));
    }
    if *quarantined > 0 {
        found.push((
            State::Degraded,
            format!("store {name} has {quarantined} damaged blobs set aside: put them again or fetch them from a peer"),
        ));
    }
    if let Some(free) = free_bytes.filter(|free| *free < FREE_BYTES_LOW) {
        found.push((
            State::Degraded,
            format!("store {name} has {} MiB of space left", free / (1024 * 1024)),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StoreName;
    use crate::node::StoreSettings;

    fn info(name: &str, read_only: Option<&str>, offline: Option<&str>, free_bytes: u64) -> StoreInfo {
        StoreInfo {
            name: name.parse::<StoreName>().unwrap(),
            settings: StoreSettings::default(),
            status: Status {
                blobs: 0,
                plain_bytes: 0,
                stored_bytes: 0,
                dead_bytes: 0,
                free_bytes: Some(free_bytes),
                read_only: read_only.map(str::to_owned),
                quarantined: 0,
            },
            offline: offline.map(str::to_owned),
            moving: None,
        }
    }

    #[test]
    fn what_is_the_matter_is_said_with_the_store_it_is_about() {
        let worst = |info| findings(&info).into_iter().max();
        assert_eq!(worst(info("main", None, None, 1 << 40)), None);
        let (state, reason) = worst(info("main", Some("EIO"), None, 1 << 40)).unwrap();
        assert!(state == State::ReadOnly && reason.contains("main") && reason.contains("EIO"));
        let (state, _) = worst(info("usb", Some("EIO"), None, 1 << 40)).unwrap();
        assert_eq!(state, State::Degraded);
        let (_, reason) = worst(info("usb", None, Some("no such folder"), 1 << 40)).unwrap();
        assert!(reason.contains("offline"));
        let (_, reason) = worst(info("usb", None, None, 1 << 20)).unwrap();
        assert!(reason.contains("1 MiB"));
    }
}
