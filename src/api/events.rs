//! `GET /api/events`: what changes, as server-sent events (WHATWG HTML, section 9.2).
//!
//! Each has its number as id, so that a client that lost its connection goes on where it was by
//! `Last-Event-ID`. What was missed for good is an event `gap`: enumerate, then go on. A comment every fifteen
//! seconds keeps the line open and finds clients that are gone.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Source};
use super::auth::Caller;
use super::error::Error;
use super::route::Call;
use super::stamp::rfc3339;
use crate::id::{BlobId, DbName, RefName, StoreName, Version};
use crate::node::{Delivery, Event, EventId, Node, Subscription, Via};

const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stream of events.
pub(super) async fn events(call: Call) -> Result<Response, Error> {
    let after = call
        .header("last-event-id")
        .map(|text| text.parse().map(EventId))
        .transpose()
        .map_err(|error| Error::malformed("Last-Event-ID", error))?;
    let source = Stream {
        node: call.node().clone(),
        subscription: call.node().events().subscribe(after),
        closing: call.connection.closing().clone(),
        caller: call.caller,
        begun: false,
    };
    let mut response = Response::new(answer::stream(source, None));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // Proxies that collect answers would hold events back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

struct Stream {
    node: Node,
    subscription: Subscription,
    closing: CancellationToken,
    caller: Caller,
    begun: bool,
}

impl Source for Stream {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if !std::mem::replace(&mut self.begun, true) {
            // Clients learn at once that they are connected.
            return Ok(Some(Bytes::from_static(b"retry: 2000\n\n")));
        }
        let delivery = tokio::select! {
            () = self.closing.cancelled() => return Ok(None),
            delivery = self.subscription.next() => delivery,
            () = tokio::time::sleep(HEARTBEAT) => {
                return Ok(self.still_allowed().then(|| Bytes::from_static(b": still here\n\n")));
            }
        };
        if let Delivery::Event(_, event) = &delivery
            && self.ends_by(event)
        {
            return Ok(None);
        }
        Ok(Some(written(&delivery)))
    }
}

impl Stream {
    /// Whether this event takes the stream's own right away.
    fn ends_by(&self, event: &Event) -> bool {
        let Caller::Known(principal) = &self.caller else {
            return true;
        };
        match (event, principal.via) {
            (Event::TokenRevoked { id }, Via::Token(own)) => *id == own,
            (Event::SessionsEnded { account }, Via::Session) => *account == principal.account,
            _ => false,
        }
    }

    /// Whether the account is still there: a token may have ended by its date since.
    fn still_allowed(&self) -> bool {
        let Caller::Known(principal) = &self.caller else {
            return false;
        };
        match principal.via {
            Via::Session => true,
            Via::Token(own) => self
                .node
                .tokens()
                .list(Some(&principal.account))
                .iter()
                .any(|token| token.id == own),
        }
    }
}

/// The data of an event. Every kind has the fields it needs and no others.
#[derive(Default, Serialize)]
struct EventBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a StoreName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a BlobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a RefName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a DbName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
}

fn written(delivery: &Delivery) -> Bytes {
    let (number, kind, body) = match delivery {
        Delivery::Gap(number) => (number, "gap", EventBody::default()),
        Delivery::Event(number, event) => {
            let (kind, body) = described(event);
            (number, kind, body)
        }
    };
    let data = serde_json::to_string(&body).expect("an event has only strings and numbers");
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", number.0).into()
}

fn described(event: &Event) -> (&'static str, EventBody<'_>) {
    let of_blob = |store, id, len| EventBody {
        store: Some(store),
        id: Some(id),
        len,
        ..EventBody::default()
    };
    let of_ref = |store, name| EventBody {
        store: Some(store),
        name: Some(name),
        ..EventBody::default()
    };
    let of_store = |store| EventBody {
        store: Some(store),
        ..EventBody::default()
    };
    let of_database = |database| EventBody {
        database: Some(database),
        ..EventBody::default()
    };
    match event {
        Event::BlobAdded { store, id, len } => ("blob_added", of_blob(store, id, Some(*len))),
        Event::BlobDeleted { store, id } => ("blob_deleted", of_blob(store, id, None)),
        Event::BlobDamaged { store, id } => ("blob_damaged", of_blob(store, id, None)),
        Event::RefMoved { store, name } => ("ref_moved", of_ref(store, name)),
        Event::RefDeleted { store, name } => ("ref_deleted", of_ref(store, name)),
        Event::UploadMoved { id, offset } => (
            "upload_moved",
            EventBody {
                upload: Some(id.to_string()),
                offset: Some(*offset),
                ..EventBody::default()
            },
        ),
        Event::UploadEnded { id } => (
            "upload_ended",
            EventBody {
                upload: Some(id.to_string()),
                ..EventBody::default()
            },
        ),
        Event::StoreAdded { store } => ("store_added", of_store(store)),
        Event::StoreRemoved { store } => ("store_removed", of_store(store)),
        Event::DatabaseAdded { database } => ("database_added", of_database(database)),
        Event::DatabaseDeleted { database } => ("database_deleted", of_database(database)),
        Event::UpdatePlanned { version, at } => (
            "update_planned",
            EventBody {
                version: Some(version),
                at: Some(rfc3339(*at)),
                ..EventBody::default()
            },
        ),
        Event::Claimed => ("claimed", EventBody::default()),
        Event::TokenRevoked { .. } => ("token_revoked", EventBody::default()),
        Event::SessionsEnded { .. } => ("sessions_ended", EventBody::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_the_standard_says() {
        let event = Event::RefMoved {
            store: StoreName::main(),
            name: "photos".parse().unwrap(),
        };
        assert_eq!(
            written(&Delivery::Event(EventId(7), event)),
            "id: 7\nevent: ref_moved\ndata: {\"store\":\"main\",\"name\":\"photos\"}\n\n"
        );
        let planned = Event::UpdatePlanned {
            version: "0.2.0".parse().unwrap(),
            at: std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        assert_eq!(
            written(&Delivery::Event(EventId(9), planned)),
            "id: 9\nevent: update_planned\ndata: {\"version\":\"0.2.0\",\"at\":\"2023-11-14T22:13:20Z\"}\n\n"
        );
        assert_eq!(
            written(&Delivery::Gap(EventId(8))),
            "id: 8\nevent: gap\ndata: {}\n\n"
        );
    }
}
