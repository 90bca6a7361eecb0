//! What ends an answer that has no end of its own: the node stops, its database goes, or a right is taken away (security row S10).

use tokio_util::sync::CancellationToken;

use crate::api::auth::Caller;
use crate::api::route::Call;
use crate::node::{Db, Delivery, Event, Node, Principal, Subscription, Via};

/// Who is waiting, and what would end that.
pub(super) struct Watching {
    node: Node,
    principal: Option<Principal>,
    closing: CancellationToken,
    gone: CancellationToken,
    subscription: Subscription,
}

impl Watching {
    pub(super) fn of(call: &Call, db: &Db) -> Watching {
        Watching {
            node: call.node().clone(),
            principal: match &call.caller {
                Caller::Known(principal) => Some(principal.clone()),
                Caller::Anonymous => None,
            },
            closing: call.connection.closing().clone(),
            gone: db.gone().clone(),
            subscription: call.node().events().subscribe(None),
        }
    }

    /// Returns when the answer is to end. May be cancelled and called again.
    pub(super) async fn ended(&mut self) {
        loop {
            let delivery = tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.gone.cancelled() => return,
                delivery = self.subscription.next() => delivery,
            };
            match delivery {
                Delivery::Event(_, event) if self.ends_by(&event) => return,
                // Something was missed: it may have been that.
                Delivery::Gap(_) if !self.is_allowed() => return,
                Delivery::Event(..) | Delivery::Gap(_) => {}
            }
        }
    }

    fn ends_by(&self, event: &Event) -> bool {
        let Some(principal) = &self.principal else {
            return true;
        };
        match (event, principal.via) {
            (Event::TokenRevoked { id }, Via::Token(own)) => *id == own,
            (Event::SessionsEnded { account }, Via::Session) => *account == principal.account,
            _ => false,
        }
    }

    /// Whether the token is still there: it may have ended by its date since.
    pub(super) fn is_allowed(&self) -> bool {
        match &self.principal {
            None => false,
            Some(principal) => match principal.via {
                Via::Session => true,
                Via::Token(own) => {
                    let tokens = self.node.tokens().list(Some(&principal.account));
                    tokens.iter().any(|token| token.id == own)
                }
            },
        }
    }
}
