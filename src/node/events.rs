//! What changes in a node, for whoever wants to know: bounded, numbered, and honest about what was missed.
//!
//! Events are hints to look again, not a log: the last [`EVENTS_KEPT`] stay in memory, a subscriber that lags
//! behind or comes back after a restart gets a gap and enumerates. Numbers rise over restarts, too.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::sync::watch;

use super::clock::Clock;
use crate::id::{AccountName, BlobId, DbName, RefName, StoreName, TokenId, UploadId, Version};

/// Events a subscriber may lag behind, about 150 KiB.
pub const EVENTS_KEPT: usize = 1024;

/// The number of an event: rises by one, and over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(pub u64);

/// A change, told after it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A blob that was not there before.
    BlobAdded {
        /// Where.
        store: StoreName,
        /// What.
        id: BlobId,
        /// Its length in bytes.
        len: u64,
    },
    /// A blob is gone.
    BlobDeleted {
        /// Where.
        store: StoreName,
        /// What.
        id: BlobId,
    },
    /// A blob was found damaged and set aside.
    BlobDamaged {
        /// Where.
        store: StoreName,
        /// What.
        id: BlobId,
    },
    /// A ref was made or moved.
    RefMoved {
        /// Where.
        store: StoreName,
        /// Which.
        name: RefName,
    },
    /// A ref is gone.
    RefDeleted {
        /// Where.
        store: StoreName,
        /// Which.
        name: RefName,
    },
    /// An upload was made or went on.
    UploadMoved {
        /// Which.
        id: UploadId,
        /// Bytes acknowledged.
        offset: u64,
    },
    /// An upload is complete, ended by the client, or expired.
    UploadEnded {
        /// Which.
        id: UploadId,
    },
    /// A store was added.
    StoreAdded {
        /// Which.
        store: StoreName,
    },
    /// A store was removed.
    StoreRemoved {
        /// Which.
        store: StoreName,
    },
    /// A database of documents was made.
    DatabaseAdded {
        /// Which.
        database: DbName,
    },
    /// A database of documents was deleted.
    DatabaseDeleted {
        /// Which.
        database: DbName,
    },
    /// The box will bring itself to another version of its system, or will do so at another time than was told before.
    UpdatePlanned {
        /// To which.
        version: Version,
        /// When it begins, as far as it can be told.
        at: SystemTime,
    },
    /// The node has an owner now.
    Claimed,
    /// A token was revoked: what is connected with it is to be disconnected.
    TokenRevoked {
        /// Which.
        id: TokenId,
    },
    /// All sessions of an account ended: what is connected with one is to be disconnected.
    SessionsEnded {
        /// Whose.
        account: AccountName,
    },
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next event.
    Event(EventId, Event),
    /// Events up to and with this number were missed: enumerate, then go on.
    Gap(EventId),
}

/// The events of a node; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kept: Mutex<VecDeque<Event>>,
    /// The number of the newest event, kept or not.
    newest: watch::Sender<u64>,
}

/// A place in the events of a node.
#[derive(Debug)]
pub struct Subscription {
    events: Events,
    newest: watch::Receiver<u64>,
    /// The newest event delivered.
    seen: u64,
}

impl Events {
    /// No events yet. Numbers begin above those of every earlier run, as long as the clock did not go back
    /// and no run had a million events a second.
    pub(super) fn new(clock: &Clock) -> Events {
        let (newest, _) = watch::channel(clock.unix_s().unsigned_abs() << 20);
        Events {
            inner: Arc::new(Inner {
                kept: Mutex::new(VecDeque::with_capacity(EVENTS_KEPT)),
                newest,
            }),
        }
    }

    /// Tells what changed.
    pub(super) fn tell(&self, event: Event) {
        let mut kept = self.kept();
        if kept.len() == EVENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
        // Under the lock, so that the newest number and what is kept agree for whoever holds it.
        self.inner.newest.send_modify(|newest| *newest += 1);
    }

    /// Events after the one numbered `after`; without, events from now on.
    pub fn subscribe(&self, after: Option<EventId>) -> Subscription {
        let newest = self.inner.newest.subscribe();
        let seen = after.map_or_else(|| *newest.borrow(), |after| after.0);
        Subscription {
            events: self.clone(),
            newest,
            seen,
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.inner
            .kept
            .lock()
            .expect("no thread panics while it holds the events")
    }
}

impl Subscription {
    /// The next event, when there is one. May be cancelled: nothing is lost.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.at_hand() {
                return delivery;
            }
            let seen = self.seen;
            // The sender lives in `self.events`, so that this only ends with news.
            let _ = self.newest.wait_for(|newest| *newest != seen).await;
        }
    }

    fn at_hand(&mut self) -> Option<Delivery> {
        let kept = self.events.kept();
        let newest = *self.events.inner.newest.borrow();
        let before_kept = newest - kept.len() as u64;
        if self.seen == newest {
            return None;
        }
        // A number beyond the newest is from a run with another clock: nothing is known about it.
        if self.seen < before_kept || self.seen > newest {
            self.seen = newest;
            return Some(Delivery::Gap(EventId(newest)));
        }
        let place = usize::try_from(self.seen - before_kept).expect("a place in what is kept");
        let event = kept[place].clone();
        self.seen += 1;
        Some(Delivery::Event(EventId(self.seen), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn events_at(second: u64) -> Events {
        Events::new(&Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(second)))
    }

    #[tokio::test]
    async fn a_subscriber_hears_everything_in_order_and_can_come_back() {
        let events = events_at(10);
        let mut subscription = events.subscribe(None);
        events.tell(Event::Claimed);
        events.tell(Event::StoreAdded {
            store: StoreName::main(),
        });
        let Delivery::Event(first, Event::Claimed) = subscription.next().await else {
            panic!("the first event");
        };
        let mut back = events.subscribe(Some(first));
        assert!(matches!(
            back.next().await,
            Delivery::Event(id, Event::StoreAdded { .. }) if id.0 == first.0 + 1
        ));
    }

    #[tokio::test]
    async fn who_lags_or_comes_from_an_earlier_run_gets_one_gap() {
        let events = events_at(10);
        let mut slow = events.subscribe(None);
        let mut earlier = events_at(10).subscribe(None);
        for _ in 0..=EVENTS_KEPT {
            events.tell(Event::Claimed);
        }
        let Delivery::Gap(newest) = slow.next().await else {
            panic!("a gap");
        };
        events.tell(Event::Claimed);
        assert_eq!(
            slow.next().await,
            Delivery::Event(EventId(newest.0 + 1), Event::Claimed)
        );
        earlier.seen = 1;
        assert!(matches!(earlier.at_hand(), Some(Delivery::Gap(_))));
        let mut later = events.subscribe(Some(EventId(u64::MAX)));
        assert!(matches!(later.next().await, Delivery::Gap(_)));
    }
}
