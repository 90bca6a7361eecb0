//! `/db/_all_dbs` and `/db/_dbs_info`: the databases of the server.

use std::collections::VecDeque;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::database::info_of;
use super::fault::Fault;
use super::pieces::{Paged, Pages, Pieces, json_text};
use super::query::Query;
use crate::api::answer;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::id::DbName;
use crate::node::{self, Kind, Node};

/// Databases that one POST of `_dbs_info` names: CouchDB's `max_db_number_for_dbs_info_req`.
const NAMED_MAX: usize = 100;

/// `GET /db/_all_dbs`.
pub(in crate::api) async fn all_dbs(call: Call) -> Result<Response, Error> {
    Ok(answer::json(StatusCode::OK, &asked(&call)?))
}

/// Names in POST of `_dbs_info`.
#[derive(Deserialize)]
struct NamesBody {
    keys: Option<Vec<String>>,
}

/// GET and POST of `/db/_dbs_info`: what `GET /db/{db}` tells, of several. One that can't be opened says so in its place.
pub(in crate::api) async fn dbs_info(mut call: Call) -> Result<Response, Error> {
    let names = match call.parts.method == Method::POST {
        false => asked(&call)?,
        true => {
            let body: NamesBody = call.take_body().couch_json().await?;
            let missing = || Fault::Body("The `keys` member must exist.".to_owned());
            let names = body.keys.ok_or_else(missing)?;
            if names.len() > NAMED_MAX {
                return Err(Fault::Body(format!("at most {NAMED_MAX} `keys` at once")).into());
            }
            names
        }
    };
    let names = names.into_iter().map(|name| {
        let admitted = name.parse().ok().filter(|name| call.admit(name).is_ok());
        (name, admitted)
    });
    let infos = Infos {
        node: call.node().clone(),
        names: names.collect(),
        state: State::Begins,
    };
    let blobs = call.node().stores().main();
    let mut response = Response::new(answer::stream(Paged::new(infos, blobs), None));
    super::set_json(&mut response);
    Ok(response)
}

/// The names that a query string asks for.
fn asked(call: &Call) -> Result<Vec<String>, Error> {
    let query = Query::of(call)?;
    let start: Option<String> = match query.json("startkey")? {
        Some(start) => Some(start),
        None => query.json("start_key")?,
    };
    let end: Option<String> = match query.json("endkey")? {
        Some(end) => Some(end),
        None => query.json("end_key")?,
    };
    let descending = query.flag("descending")?;
    let names = call.node().documents().list();
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    if descending {
        names.reverse();
    }
    let is_past = |name: &String, bound: &String| if descending { name < bound } else { name > bound };
    names.retain(|name| {
        start
            .as_ref()
            .is_none_or(|start| name == start || is_past(name, start))
            && end.as_ref().is_none_or(|end| !is_past(name, end))
    });
    let skip = usize::try_from(query.number("skip")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let limit = usize::try_from(query.number("limit")?.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    Ok(names.into_iter().skip(skip).take(limit).collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begins,
    GoesOn,
    Ended,
}

/// Databases that are told of one after the other, so that few are open at a time.
struct Infos {
    node: Node,
    /// As they were asked for, and where they may be asked for as names.
    names: VecDeque<(String, Option<DbName>)>,
    state: State,
}

impl Pages for Infos {
    async fn page(&mut self) -> Result<Option<Pieces>, Error> {
        let mut out = Pieces::default();
        match self.state {
            State::Ended => return Ok(None),
            State::Begins => out.push("["),
            State::GoesOn if !self.names.is_empty() => out.push(",\n"),
            State::GoesOn => {}
        }
        match self.names.pop_front() {
            Some((key, name)) => {
                self.state = State::GoesOn;
                let told = match told(&self.node, name).await {
                    Ok(info) => format!("\"info\":{info}"),
                    Err(error) => format!("\"error\":\"{error}\""),
                };
                out.push(&format!("{{\"key\":{},{told}}}", json_text(&key)));
            }
            None => {
                self.state = State::Ended;
                out.push("]\n");
            }
        }
        Ok(Some(out))
    }
}

/// What is told of one database, or the word for why not.
async fn told(node: &Node, name: Option<DbName>) -> Result<Value, &'static str> {
    let name = name.ok_or("not_found")?;
    let opened = node.documents().get(name.clone()).await;
    let db = opened.map_err(|error| match error {
        node::Error::Missing {
            kind: Kind::Database, ..
        } => "not_found",
        error => {
            tracing::warn!(database = %name, %error, "a database can't be told of");
            "internal_server_error"
        }
    })?;
    info_of(&db).await.map_err(|_| "internal_server_error")
}
