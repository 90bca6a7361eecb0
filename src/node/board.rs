//! What the box can be asked to do by hand and by its hardware: other edges ask, the board edge does it.
//!
//! A node on a machine without a board edge refuses. Questions wait in a short queue; each is answered, or answered as busy.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use super::channel::Offer;
use super::disk::Disk;
use super::error::{Error, Refusal};
use super::health::Health;
use super::update::{Available, Installation, Outcome, Updates};
use crate::id::{DiskError, DiskName, DiskSerial, StoreName};

/// Orders that wait; a person gives one at a time.
const ORDERS_MAX: usize = 8;

/// What the board edge is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Show for a while which box this is.
    Identify,
    /// Forget everything and start anew as another node.
    Reset,
    /// Say which disks are plugged in.
    Disks,
    /// Keep a store on a disk from now on.
    Adopt(Adoption),
    /// Make the disk of a store safe to pull.
    Eject(StoreName),
    /// Carry a store to another place, and go on with it there.
    Move {
        /// Which.
        store: StoreName,
        /// Where to; where it is already, a move that is under way ends.
        to: MoveTo,
    },
    /// Look which bundles there are to install, on disks and at other boxes.
    Check,
    /// Ask the channel what it has for this box.
    Look,
    /// Install a bundle and start from it; done when it is under way.
    Install(Installation),
    /// Start from what ran before; done when that is under way.
    Rollback,
}

/// Where a store can move to: as text `card`, or the name of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveTo {
    /// The box's own card.
    Card,
    /// A disk that was adopted.
    Disk(DiskName),
}

/// The card as text; the kernel calls no disk so.
const CARD: &str = "card";

impl FromStr for MoveTo {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<MoveTo, DiskError> {
        match text {
            CARD => Ok(MoveTo::Card),
            disk => disk.parse().map(MoveTo::Disk),
        }
    }
}

impl fmt::Display for MoveTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MoveTo::Card => f.write_str(CARD),
            MoveTo::Disk(disk) => disk.fmt(f),
        }
    }
}

/// A disk that is to hold a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Which.
    pub disk: DiskName,
    /// What is written on it, so that no other disk is meant.
    pub serial: DiskSerial,
    /// Whether all that is on it may be lost.
    pub may_format: bool,
    /// The store that it holds from then on.
    pub store: StoreName,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was done, and there is nothing to tell.
    Done,
    /// The disks that are plugged in.
    Disks(Vec<Disk>),
    /// The store that a disk holds.
    Store(StoreName),
    /// The bundles that can be installed from somewhere near.
    Bundles(Vec<Available>),
    /// What the channel has.
    Offer(Box<Offer>),
}

/// An order, and who waits for it.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done.
    pub order: Order,
    answer: oneshot::Sender<Result<Done, Error>>,
}

/// What the hardware says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// What people call the board.
    pub title: String,
    /// The temperature at its hottest place, in thousandths of a degree Celsius, where it tells.
    pub temperature_mc: Option<i32>,
    /// Whether it is slowed at this moment, for heat or power.
    pub is_throttled: bool,
    /// Whether its supply is too weak at this moment.
    pub is_under_voltage: bool,
    /// How much of its card's life is used up, rounded up to ten; 110 is more than its maker promised.
    pub card_used_percent: Option<u8>,
    /// What its card has left to replace worn cells with.
    pub card_reserve: Option<CardReserve>,
}

/// What a card has left to replace worn cells with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardReserve {
    /// Enough.
    Good,
    /// Four fifths are used.
    Low,
    /// Next to nothing.
    Gone,
}

/// From here on someone should look, in thousandths of a degree: boards slow down at 80 to 85 degrees.
const HOT_MC: i32 = 80_000;

/// From here on a card should be replaced soon, in percent of its life.
const WORN_PERCENT: u8 = 90;

impl Hardware {
    /// What someone should look at: by topic, and in words where there is something.
    fn findings(&self) -> [(&'static str, Option<String>); 3] {
        let heat = match self.temperature_mc.filter(|heat| *heat >= HOT_MC) {
            Some(heat) => Some(format!("the board is at {} °C: give it air", heat / 1000)),
            None if self.is_throttled => Some("the board is slowed, for heat or for weak power".to_owned()),
            None => None,
        };
        let power = self.is_under_voltage.then(|| {
            "the power supply is too weak: use the one made for the board, and a short cable".to_owned()
        });
        let is_worn = self.card_used_percent.is_some_and(|used| used >= WORN_PERCENT)
            || matches!(self.card_reserve, Some(CardReserve::Low | CardReserve::Gone));
        let card = is_worn.then(|| "the card is nearly worn out: copy the box to a new one".to_owned());
        [("heat", heat), ("power", power), ("card", card)]
    }
}

/// The board of a node; cloning is cheap.
#[derive(Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

struct Inner {
    orders: mpsc::Sender<Asked>,
    /// Until the board edge takes it.
    untaken: Mutex<Option<mpsc::Receiver<Asked>>>,
    /// What the hardware said last.
    hardware: Mutex<Option<Hardware>>,
    /// What is known of the box's system.
    updates: Mutex<Option<Updates>>,
    health: Health,
}

impl Asked {
    /// Tells whoever asked.
    pub fn answer(self, done: Result<Done, Error>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(done);
    }
}

impl Board {
    pub(super) fn new(health: Health) -> Board {
        let (orders, untaken) = mpsc::channel(ORDERS_MAX);
        Board {
            inner: Arc::new(Inner {
                orders,
                untaken: Mutex::new(Some(untaken)),
                hardware: Mutex::default(),
                updates: Mutex::default(),
                health,
            }),
        }
    }

    /// Takes note of what the hardware says; the node's health says what is the matter with it.
    pub fn tell(&self, hardware: Hardware) {
        for (topic, found) in hardware.findings() {
            self.inner.health.note(topic, found);
        }
        *self.hardware_said() = Some(hardware);
    }

    /// What the hardware said last; `None` where nobody asks it.
    pub fn hardware(&self) -> Option<Hardware> {
        self.hardware_said().clone()
    }

    fn hardware_said(&self) -> std::sync::MutexGuard<'_, Option<Hardware>> {
        self.inner
            .hardware
            .lock()
            .expect("no thread panics while it holds what the hardware said")
    }

    /// Takes note of how the box's system is; the node's health says what did not stay.
    pub fn tell_updates(&self, updates: Updates) {
        let found = updates.last.as_ref().and_then(Outcome::finding);
        self.inner.health.note("update", found);
        *self.updates_said() = Some(updates);
    }

    /// How the box's system is; `None` where nothing updates it.
    pub fn updates(&self) -> Option<Updates> {
        self.updates_said().clone()
    }

    fn updates_said(&self) -> std::sync::MutexGuard<'_, Option<Updates>> {
        self.inner
            .updates
            .lock()
            .expect("no thread panics while it holds what is known of updates")
    }

    /// Where orders come out, for the board edge; `None` where one took it already. Once it is dropped, orders are refused.
    pub fn orders(&self) -> Option<mpsc::Receiver<Asked>> {
        self.untaken().take()
    }

    /// Whether somebody looks after the hardware.
    pub fn is_there(&self) -> bool {
        self.untaken().is_none() && !self.inner.orders.is_closed()
    }

    /// Has an order done. Dropping the future withdraws nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where this machine has no board edge; [`Error::Busy`]; as the order's own.
    pub async fn ask(&self, order: Order) -> Result<Done, Error> {
        if !self.is_there() {
            return Err(Refusal::NoBoard.into());
        }
        let (answer, answered) = oneshot::channel();
        let asked = Asked { order, answer };
        self.inner.orders.try_send(asked).map_err(|_| Error::Busy)?;
        answered.await.map_err(|_| Error::Busy)?
    }

    fn untaken(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Receiver<Asked>>> {
        self.inner
            .untaken
            .lock()
            .expect("no thread panics while it holds a receiver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::Bench;

    #[tokio::test]
    async fn orders_are_done_by_whoever_took_them_and_refused_before_and_after() {
        let bench = Bench::new();
        let board = bench.node.board();
        let refused = |asked: Result<Done, Error>| matches!(asked, Err(Error::Refused(Refusal::NoBoard)));
        assert!(refused(board.ask(Order::Identify).await));
        let mut orders = board.orders().unwrap();
        assert!(board.orders().is_none());
        let (asked, ()) = tokio::join!(board.ask(Order::Identify), async {
            let asked = orders.recv().await.unwrap();
            assert_eq!(asked.order, Order::Identify);
            asked.answer(Ok(Done::Done));
        });
        assert_eq!(asked.unwrap(), Done::Done);
        drop(orders);
        assert!(refused(board.ask(Order::Reset).await));
    }

    #[tokio::test]
    async fn more_orders_than_wait_are_answered_as_busy() {
        let bench = Bench::new();
        let board = bench.node.board();
        let mut orders = board.orders().unwrap();
        let waiting: Vec<_> = (0..ORDERS_MAX)
            .map(|_| {
                tokio::spawn({
                    let board = board.clone();
                    async move { board.ask(Order::Identify).await }
                })
            })
            .collect();
        while orders.len() < ORDERS_MAX {
            tokio::task::yield_now().await;
        }
        assert!(matches!(board.ask(Order::Identify).await, Err(Error::Busy)));
        while let Ok(asked) = orders.try_recv() {
            asked.answer(Ok(Done::Done));
        }
        for asked in waiting {
            assert_eq!(asked.await.unwrap().unwrap(), Done::Done);
        }
    }

    #[test]
    fn what_is_the_matter_with_the_hardware_is_in_the_health_as_long_as_it_is_so() {
        let bench = Bench::new();
        let board = bench.node.board();
        let well = Hardware {
            title: "A board".to_owned(),
            temperature_mc: Some(50_000),
            is_throttled: false,
            is_under_voltage: false,
            card_used_percent: Some(80),
            card_reserve: Some(CardReserve::Good),
        };
        let reasons = |hardware: &Hardware| {
            board.tell(hardware.clone());
            assert_eq!(board.hardware().as_ref(), Some(hardware));
            bench.node.health().report().reasons
        };
        assert_eq!(reasons(&well), Vec::<String>::new());
        let ill = Hardware {
            temperature_mc: Some(84_900),
            is_throttled: true,
            is_under_voltage: true,
            card_reserve: Some(CardReserve::Low),
            ..well.clone()
        };
        let said = reasons(&ill);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("84 °C") && said[1].contains("power") && said[2].contains("card"));
        let slowed = Hardware {
            is_throttled: true,
            ..well.clone()
        };
        assert!(reasons(&slowed)[0].contains("slowed"));
        assert_eq!(reasons(&well), Vec::<String>::new());
    }
}
