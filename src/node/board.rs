//! What the box can be asked to do by hand and by its hardware: other edges ask, the board edge does it.
//!
//! A node on a machine without a board edge refuses. Questions wait in a short queue; each is answered, or answered as busy.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use super::error::{Error, Refusal};

/// Orders that wait; a person gives one at a time.
const ORDERS_MAX: usize = 8;

/// What the board edge is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Show for a while which box this is.
    Identify,
    /// Forget everything and start anew as another node.
    Reset,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was done, and there is nothing to tell.
    Done,
}

/// An order, and who waits for it.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done.
    pub order: Order,
    answer: oneshot::Sender<Result<Done, Error>>,
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
}

impl Asked {
    /// Tells whoever asked.
    pub fn answer(self, done: Result<Done, Error>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(done);
    }
}

impl Board {
    pub(super) fn new() -> Board {
        let (orders, untaken) = mpsc::channel(ORDERS_MAX);
        Board {
            inner: Arc::new(Inner {
                orders,
                untaken: Mutex::new(Some(untaken)),
            }),
        }
    }

    /// Where orders come out, for the board edge; `None` where one took it already. Once it is dropped, orders are refused.
    pub fn orders(&self) -> Option<mpsc::Receiver<Asked>> {
        self.untaken().take()
    }

    /// Has an order done. Dropping the future withdraws nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where this machine has no board edge; [`Error::Busy`]; as the order's own.
    pub async fn ask(&self, order: Order) -> Result<Done, Error> {
        if self.untaken().is_some() || self.inner.orders.is_closed() {
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

    #[tokio::test]
    async fn orders_are_done_by_whoever_took_them_and_refused_before_and_after() {
        let board = Board::new();
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
        let board = Board::new();
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
}
