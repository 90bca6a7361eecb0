//! CouchDB's HTTP API, version 3, under `/db`: what PouchDB, CouchDB's replicator and their apps call.
//!
//! Behaviour, statuses, words of errors and shapes of answers are CouchDB's; where one differs, the file that answers says so. Reading
//! takes the scope `read`; writing documents, and making a database, as apps do when they first start, `write`; deleting a database, purging,
//! compacting and settings `admin`. Revisions that are not leaves answer `missing`, as after a compaction. What is sent is read as it comes:
//! JSON by `scan.rs`, documents by `draft.rs`, attachments straight into the coffer.

mod attachment;
mod base64;
mod bulk;
mod changes;
mod compact;
pub(super) mod cors;
mod database;
mod databases;
mod design;
mod document;
mod draft;
mod fault;
mod find;
mod index;
mod intake;
mod list;
mod local;
mod multipart;
mod pieces;
mod query;
mod render;
mod replicator;
mod scan;
mod server;
mod watching;
mod written;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::de::DeserializeOwned;

pub(super) use attachment::{delete as delete_attachment, get as attachment_get, put as put_attachment};
pub(super) use bulk::{bulk_docs, bulk_get, missing_revs, revs_diff};
pub(super) use changes::changes;
pub(super) use database::{
    compact, create, delete as delete_database, ensure_full_commit, info, purge, revs_limit, security,
    set_revs_limit, set_security, view, view_cleanup,
};
pub(super) use databases::{all_dbs, dbs_info};
pub(super) use design::info as design_info;
pub(super) use document::{copy, delete, get, post, put};
pub(super) use fault::Fault;
pub(super) use find::{explain, find};
pub(super) use index::{
    create as create_index, delete as delete_index, delete_many as delete_indexes, list as indexes,
};
pub(super) use list::{all_docs, design_docs, design_queries, queries};
pub(super) use local::{
    delete as delete_local, get as local, list as local_docs, put as put_local, queries as local_queries,
};
pub(super) use replicator::{
    active_tasks, docs as scheduler_docs, job as scheduler_job, jobs as scheduler_jobs, replicate,
};
pub(super) use server::{log_in, log_out, root, session, up, uuids};

use super::body::{Incoming, JSON_BYTES_MAX};
use super::error::Error;
use super::route::Call;
use crate::id::{DbName, DocId, LocalId};
use crate::node::{self, Db, Kind, Node, Scope};

impl Call {
    /// The name of the database in the path.
    fn db_name(&self) -> Result<DbName, Error> {
        let name = self.param("db").parse().map_err(Fault::Database)?;
        self.admit(&name)?;
        Ok(name)
    }

    /// Whoever may have the node replicate may have it reach other servers (security row S17).
    fn admit(&self, name: &DbName) -> Result<(), Error> {
        match *name == Node::replicator_db() && !self.caller.may(Scope::Admin) {
            true => Err(Error::Forbidden(Scope::Admin)),
            false => Ok(()),
        }
    }

    /// The database in the path.
    async fn db(&self) -> Result<Db, Error> {
        let name: DbName = self.param("db").parse().map_err(|_| Fault::NoDatabase)?;
        self.admit(&name)?;
        match self.node().documents().get(name).await {
            Err(node::Error::Missing {
                kind: Kind::Database, ..
            }) => Err(Fault::NoDatabase.into()),
            found => Ok(found?),
        }
    }

    /// The document in the path: `{doc}`, or `{design}` of a design document.
    fn doc_id(&self) -> Result<DocId, Error> {
        let id = match (self.param("doc"), self.param("design")) {
            ("", design) => format!("_design/{design}"),
            (id, _) => id.to_owned(),
        };
        Ok(id.parse().map_err(Fault::Id)?)
    }

    /// The local document in the path.
    fn local_id(&self) -> Result<LocalId, Error> {
        Ok(LocalId::named(self.param("local")).map_err(Fault::Id)?)
    }
}

impl Incoming {
    /// The body as JSON with CouchDB's bounds: a replicator asks about many documents at once.
    async fn couch_json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let bytes = self.whole(JSON_BYTES_MAX).await?;
        scan::check(&bytes).map_err(Fault::from)?;
        Ok(serde_json::from_slice(&bytes).map_err(|error| Fault::Body(error.to_string()))?)
    }

    /// The same, of a body that may be empty.
    async fn couch_json_or_nothing<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        let bytes = self.whole(JSON_BYTES_MAX).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        scan::check(&bytes).map_err(Fault::from)?;
        Ok(Some(
            serde_json::from_slice(&bytes).map_err(|error| Fault::Body(error.to_string()))?,
        ))
    }
}

fn set_json(response: &mut Response) {
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
}
