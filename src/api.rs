//! The HTTP edge: what a node can do, over HTTP/1.1.
//!
//! `TABLE` is the whole surface: every route with who may use it, what it takes and gives, and what answers.
//! A request passes `gate.rs` before its handler sees it; what is not in the table does not exist. Listeners
//! and connections are in [`serve`]. Edges know the node and nothing below it.

mod answer;
mod assets;
mod auth;
mod blobs;
mod board;
mod body;
mod channel;
mod claim;
mod connection;
mod couch;
mod error;
mod events;
mod gate;
mod host;
mod maintain;
mod metrics;
mod offer;
mod openapi;
mod origin;
mod pace;
mod peers;
mod range;
mod refs;
mod route;
mod secrets;
pub mod serve;
mod session;
mod stamp;
mod status;
mod stores;
mod strict;
mod tokens;
mod tree;
mod ui;
mod update;
mod uploads;
mod well_known;
mod zip;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::routing::{MethodRouter, any};

pub use connection::{Connection, EXPORTER_BYTES, Scheme};

use crate::node::{Node, Scope};
use route::{Auth, Gives, Route, Takes, routes, schema_of};

/// Settings of the HTTP edge.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Authorities (`host` or `host:port`) that requests may name besides the node's own: for a port forward.
    pub authorities: Vec<String>,
    /// Origins (`scheme://host[:port]`) whose pages may use what is under `/db`, with a token.
    pub origins: Vec<String>,
    /// The port HTTPS is served on, for the links of the plain page.
    pub https_port: Option<u16>,
    /// Whom to tell of a vulnerability: a URI for `security.txt` (RFC 9116), which is not there without one.
    pub security_contact: Option<String>,
}

/// What all routes share.
struct Edge {
    node: Node,
    hosts: host::Hosts,
    origins: Vec<String>,
    https_port: Option<u16>,
    security_contact: Option<String>,
}

const READ: Auth = Auth::Scope(Scope::Read);
const WRITE: Auth = Auth::Scope(Scope::Write);
const INGEST: Auth = Auth::Scope(Scope::Ingest);
const ADMIN: Auth = Auth::Scope(Scope::Admin);

/// Every route there is.
#[rustfmt::skip]
static TABLE: &[Route] = routes![
    GET    "/blobs", READ, Takes::Nothing, Gives::Json(schema_of::<blobs::PageBody>), "Blobs of the main store in ascending order" => blobs::list;
    POST   "/blobs", INGEST, Takes::Bytes, Gives::Json(schema_of::<blobs::PutBody>), "Store bytes and learn their id" => blobs::post;
    GET    "/blobs/{id}", READ, Takes::Nothing, Gives::Bytes, "Read a blob or a range of it" => blobs::get;
    PUT    "/blobs/{id}", INGEST, Takes::Bytes, Gives::Json(schema_of::<blobs::PutBody>), "Store bytes under their id, verified" => blobs::put;
    DELETE "/blobs/{id}", WRITE, Takes::Nothing, Gives::Nothing, "Delete a blob" => blobs::delete;
    POST   "/blobs/_stat", READ, Takes::Json(schema_of::<blobs::IdsBody>), Gives::Json(schema_of::<blobs::StatsBody>), "What is known of many blobs" => blobs::stat_many;
    POST   "/blobs/_batch", INGEST, Takes::Bytes, Gives::Json(schema_of::<blobs::BatchBody>), "Store many small blobs" => blobs::put_many;
    POST   "/blobs/_delete", WRITE, Takes::Json(schema_of::<blobs::IdsBody>), Gives::Json(schema_of::<blobs::DeletedBody>), "Delete many blobs" => blobs::delete_many;
    GET    "/stores/{store}/blobs", READ, Takes::Nothing, Gives::Json(schema_of::<blobs::PageBody>), "Blobs of a store in ascending order" => blobs::list;
    POST   "/stores/{store}/blobs", INGEST, Takes::Bytes, Gives::Json(schema_of::<blobs::PutBody>), "Store bytes and learn their id" => blobs::post;
    GET    "/stores/{store}/blobs/{id}", READ, Takes::Nothing, Gives::Bytes, "Read a blob or a range of it" => blobs::get;
    PUT    "/stores/{store}/blobs/{id}", INGEST, Takes::Bytes, Gives::Json(schema_of::<blobs::PutBody>), "Store bytes under their id, verified" => blobs::put;
    DELETE "/stores/{store}/blobs/{id}", WRITE, Takes::Nothing, Gives::Nothing, "Delete a blob" => blobs::delete;
    POST   "/stores/{store}/blobs/_stat", READ, Takes::Json(schema_of::<blobs::IdsBody>), Gives::Json(schema_of::<blobs::StatsBody>), "What is known of many blobs" => blobs::stat_many;
    POST   "/stores/{store}/blobs/_batch", INGEST, Takes::Bytes, Gives::Json(schema_of::<blobs::BatchBody>), "Store many small blobs" => blobs::put_many;
    POST   "/stores/{store}/blobs/_delete", WRITE, Takes::Json(schema_of::<blobs::IdsBody>), Gives::Json(schema_of::<blobs::DeletedBody>), "Delete many blobs" => blobs::delete_many;
    GET    "/stores", READ, Takes::Nothing, Gives::Json(schema_of::<stores::StoresBody>), "The named stores" => stores::list;
    POST   "/stores", ADMIN, Takes::Json(schema_of::<stores::NewStoreBody>), Gives::Nothing, "Add a store" => stores::add;
    GET    "/stores/{store}", READ, Takes::Nothing, Gives::Json(schema_of::<stores::StoreBody>), "A store and how it is" => stores::get;
    DELETE "/stores/{store}", ADMIN, Takes::Nothing, Gives::Nothing, "Remove a store; its files are set aside" => stores::remove;
    POST   "/stores/{store}/check", ADMIN, Takes::Json(schema_of::<maintain::CheckBody>), Gives::Json(schema_of::<maintain::CheckedBody>), "Check a store, and mend it" => maintain::check;
    POST   "/api/gc", ADMIN, Takes::Nothing, Gives::Json(schema_of::<maintain::CollectedBody>), "Free what nothing has named for a day" => maintain::collect;
    GET    "/refs", READ, Takes::Nothing, Gives::Json(schema_of::<refs::RefsBody>), "Refs into the main store" => refs::list;
    GET    "/refs/{*name}", READ, Takes::Nothing, Gives::Json(schema_of::<refs::RefBody>), "A ref with its history" => refs::get;
    PUT    "/refs/{*name}", WRITE, Takes::Json(schema_of::<refs::RefBody>), Gives::Json(schema_of::<refs::VersionBody>), "Move a ref by compare and swap" => refs::put;
    DELETE "/refs/{*name}", WRITE, Takes::Nothing, Gives::Nothing, "Delete a ref" => refs::delete;
    GET    "/stores/{store}/refs", READ, Takes::Nothing, Gives::Json(schema_of::<refs::RefsBody>), "Refs into a store" => refs::list;
    GET    "/stores/{store}/refs/{*name}", READ, Takes::Nothing, Gives::Json(schema_of::<refs::RefBody>), "A ref with its history" => refs::get;
    PUT    "/stores/{store}/refs/{*name}", WRITE, Takes::Json(schema_of::<refs::RefBody>), Gives::Json(schema_of::<refs::VersionBody>), "Move a ref by compare and swap" => refs::put;
    DELETE "/stores/{store}/refs/{*name}", WRITE, Takes::Nothing, Gives::Nothing, "Delete a ref" => refs::delete;
    OPTIONS "/uploads", INGEST, Takes::Nothing, Gives::Nothing, "Which parts of tus are spoken" => uploads::discover;
    POST   "/uploads", INGEST, Takes::TusCreation, Gives::Nothing, "Begin a resumable upload, or put parts together" => uploads::create;
    HEAD   "/uploads/{id}", INGEST, Takes::Nothing, Gives::Nothing, "How far an upload is" => uploads::head;
    PATCH  "/uploads/{id}", INGEST, Takes::TusPiece, Gives::Nothing, "Go on with an upload" => uploads::patch;
    DELETE "/uploads/{id}", INGEST, Takes::Nothing, Gives::Nothing, "End an upload" => uploads::remove;
    POST   "/uploads/{id}", INGEST, Takes::TusCreation, Gives::Nothing, "PATCH or DELETE by X-HTTP-Method-Override" => uploads::overridden;
    GET    "/api/refs/{name}/tree", READ, Takes::Nothing, Gives::Json(schema_of::<tree::FolderBody>), "A folder of a snapshot" => tree::list;
    GET    "/api/refs/{name}/file", READ, Takes::Nothing, Gives::Bytes, "A file of a snapshot, or a range of it" => tree::file;
    GET    "/api/refs/{name}/zip", READ, Takes::Nothing, Gives::Text("application/zip"), "A folder of a snapshot as an archive" => tree::archive;
    GET    "/", Auth::Landing, Takes::Nothing, Gives::Text("text/html"), "The first page" => ui::home;
    POST   "/claim", Auth::Unclaimed, Takes::Form, Gives::Text("text/html"), "The claim form" => ui::claim;
    POST   "/sign-in", Auth::Claimed, Takes::Form, Gives::Text("text/html"), "The sign-in form" => ui::sign_in;
    POST   "/sign-out", Auth::SignedIn, Takes::Form, Gives::Nothing, "The button that signs out" => ui::sign_out;
    GET    "/browse", READ, Takes::Nothing, Gives::Text("text/html"), "The page of a folder" => ui::browse;
    GET    "/board", ADMIN, Takes::Nothing, Gives::Text("text/html"), "The page of the box and its disks" => ui::board;
    POST   "/board/adopt", ADMIN, Takes::Form, Gives::Text("text/html"), "The form that adopts a disk" => ui::adopt;
    POST   "/board/eject", ADMIN, Takes::Form, Gives::Text("text/html"), "The buttons that eject disks" => ui::eject;
    POST   "/board/move", ADMIN, Takes::Form, Gives::Text("text/html"), "The form that has a store move" => ui::move_store;
    POST   "/board/identify", ADMIN, Takes::Form, Gives::Text("text/html"), "The button that shows which box this is" => ui::identify;
    POST   "/board/reset", ADMIN, Takes::Form, Gives::Text("text/html"), "The form that resets the box" => ui::reset;
    GET    "/tokens", Auth::SignedIn, Takes::Nothing, Gives::Text("text/html"), "The page of app tokens" => ui::tokens;
    POST   "/tokens", Auth::SignedIn, Takes::Form, Gives::Text("text/html"), "The form that makes a token" => ui::add_token;
    POST   "/tokens/revoke", Auth::SignedIn, Takes::Form, Gives::Text("text/html"), "The buttons that revoke tokens" => ui::revoke_token;
    GET    "/account", Auth::SignedIn, Takes::Nothing, Gives::Text("text/html"), "The page of one's account" => ui::account;
    POST   "/account/password", Auth::SignedIn, Takes::Form, Gives::Text("text/html"), "The form that changes the password" => ui::change_password;
    GET    "/.well-known/security.txt", Auth::Landing, Takes::Nothing, Gives::Text("text/plain"), "Whom to tell of a vulnerability" => well_known::security_txt;
    GET    "/api/events", READ, Takes::Nothing, Gives::Text("text/event-stream"), "What changes, as it happens" => events::events;
    POST   "/api/claim", Auth::Unclaimed, Takes::Json(schema_of::<claim::ClaimBody>), Gives::Json(schema_of::<claim::ClaimedBody>), "Become the owner" => claim::claim;
    POST   "/api/session", Auth::Claimed, Takes::Json(schema_of::<session::LoginBody>), Gives::Json(schema_of::<session::SessionBody>), "Sign in" => session::login;
    GET    "/api/session", Auth::SignedIn, Takes::Nothing, Gives::Json(schema_of::<session::SessionBody>), "Who is signed in" => session::who;
    DELETE "/api/session", Auth::SignedIn, Takes::Nothing, Gives::Nothing, "Sign out" => session::logout;
    POST   "/api/account/password", Auth::SignedIn, Takes::Json(schema_of::<session::PasswordBody>), Gives::Nothing, "Change one's own password" => session::change_password;
    GET    "/api/tokens", Auth::SignedIn, Takes::Nothing, Gives::Json(schema_of::<tokens::TokensBody>), "App tokens" => tokens::list;
    POST   "/api/tokens", Auth::SignedIn, Takes::Json(schema_of::<tokens::TokenBody>), Gives::Json(schema_of::<tokens::NewTokenBody>), "Make an app token" => tokens::add;
    DELETE "/api/tokens/{id}", Auth::SignedIn, Takes::Nothing, Gives::Nothing, "Revoke an app token" => tokens::revoke;
    GET    "/api/secrets", ADMIN, Takes::Nothing, Gives::Json(schema_of::<secrets::SecretsBody>), "Names of what opens other servers" => secrets::list;
    PUT    "/api/secrets/{name}", ADMIN, Takes::Json(schema_of::<secrets::SecretBody>), Gives::Nothing, "Keep what opens another server" => secrets::put;
    DELETE "/api/secrets/{name}", ADMIN, Takes::Nothing, Gives::Nothing, "Forget what opens another server" => secrets::remove;
    GET    "/api/board/disks", ADMIN, Takes::Nothing, Gives::Json(schema_of::<board::DisksBody>), "Disks that are plugged into the box" => board::disks;
    POST   "/api/board/adopt", ADMIN, Takes::Json(schema_of::<board::AdoptBody>), Gives::Json(schema_of::<board::DiskStoreBody>), "Keep a store on a disk" => board::adopt;
    POST   "/api/board/eject", ADMIN, Takes::Json(schema_of::<board::DiskStoreBody>), Gives::Nothing, "Make the disk of a store safe to pull" => board::eject;
    POST   "/api/board/move", ADMIN, Takes::Json(schema_of::<board::MoveBody>), Gives::Nothing, "Carry a store to another place while it is used" => board::move_store;
    POST   "/api/board/identify", ADMIN, Takes::Nothing, Gives::Nothing, "Show by the light which box this is" => board::identify;
    POST   "/api/board/reset", ADMIN, Takes::Json(schema_of::<board::ResetBody>), Gives::Nothing, "Factory reset: destroys everything" => board::reset;
    GET    "/api/update", READ, Takes::Nothing, Gives::Json(schema_of::<update::UpdateBody>), "The system of the box" => update::status;
    POST   "/api/update/check", ADMIN, Takes::Nothing, Gives::Json(schema_of::<update::BundlesBody>), "Look for bundles on disks and at other boxes" => update::check;
    PUT    "/api/update/channel", ADMIN, Takes::Json(schema_of::<channel::SetChannelBody>), Gives::Nothing, "Say where updates come from by themselves" => channel::set;
    DELETE "/api/update/channel", ADMIN, Takes::Nothing, Gives::Nothing, "Look for no more updates" => channel::remove;
    POST   "/api/update/channel/check", ADMIN, Takes::Nothing, Gives::Json(schema_of::<channel::OfferBody>), "Ask the channel what it has" => channel::check;
    POST   "/api/update/install", ADMIN, Takes::Json(schema_of::<update::InstallBody>), Gives::Nothing, "Install a bundle and restart" => update::install;
    GET    "/api/update/offer", Auth::Offered, Takes::Nothing, Gives::Json(schema_of::<offer::OfferBody>), "The bundle that runs here, for other boxes" => offer::manifest;
    PUT    "/api/update/offer", ADMIN, Takes::Nothing, Gives::Nothing, "Let other boxes have the bundle that runs here" => offer::begin;
    DELETE "/api/update/offer", ADMIN, Takes::Nothing, Gives::Nothing, "Let them have it no more" => offer::end;
    GET    "/api/update/offer/{id}", Auth::Offered, Takes::Nothing, Gives::Bytes, "A part of the bundle that runs here" => offer::part;
    POST   "/api/update/rollback", ADMIN, Takes::Nothing, Gives::Nothing, "Restart with what ran before" => update::rollback;
    POST   "/update/install", ADMIN, Takes::Form, Gives::Text("text/html"), "The form that installs a bundle" => ui::install_update;
    POST   "/update/channel", ADMIN, Takes::Form, Gives::Text("text/html"), "The form that sets the channel" => ui::set_channel;
    POST   "/update/channel/check", ADMIN, Takes::Form, Gives::Text("text/html"), "The button that asks the channel" => ui::check_channel;
    POST   "/update/channel/remove", ADMIN, Takes::Form, Gives::Text("text/html"), "The button that forgets the channel" => ui::remove_channel;
    POST   "/update/rollback", ADMIN, Takes::Form, Gives::Text("text/html"), "The button that goes back to what ran before" => ui::roll_back;
    GET    "/metrics", Auth::Scope(Scope::Metrics), Takes::Nothing, Gives::Text("text/plain"), "Numbers for Prometheus" => metrics::metrics;
    GET    "/assets/{name}", Auth::Landing, Takes::Nothing, Gives::Bytes, "Files of the pages" => assets::asset;
    GET    "/api/status", Auth::Public, Takes::Nothing, Gives::Json(schema_of::<status::StatusBody>), "How the node is; only its id for strangers" => status::status;
    GET    "/api/peers", READ, Takes::Nothing, Gives::Json(schema_of::<peers::PeersBody>), "Other nodes seen on the local network" => peers::list;
    GET "/db", Auth::SignedIn, Takes::CouchNothing, Gives::Text("application/json"), "The server, as CouchDB greets" => couch::root;
    GET "/db/", Auth::SignedIn, Takes::CouchNothing, Gives::Text("application/json"), "The server, as CouchDB greets" => couch::root;
    GET "/db/_up", Auth::SignedIn, Takes::CouchNothing, Gives::Text("application/json"), "Whether the server is up" => couch::up;
    GET "/db/_all_dbs", READ, Takes::CouchNothing, Gives::Text("application/json"), "Databases of documents" => couch::all_dbs;
    GET "/db/_dbs_info", READ, Takes::CouchNothing, Gives::Text("application/json"), "Databases, and how each is" => couch::dbs_info;
    POST "/db/_dbs_info", READ, Takes::CouchJson, Gives::Text("application/json"), "How the named databases are" => couch::dbs_info;
    GET "/db/_uuids", Auth::SignedIn, Takes::CouchNothing, Gives::Text("application/json"), "Random ids" => couch::uuids;
    GET "/db/_active_tasks", ADMIN, Takes::CouchNothing, Gives::Text("application/json"), "What the server is busy with" => couch::active_tasks;
    POST "/db/_replicate", ADMIN, Takes::CouchJson, Gives::Text("application/json"), "Replicate, or end a replication" => couch::replicate;
    GET "/db/_scheduler/jobs", ADMIN, Takes::CouchNothing, Gives::Text("application/json"), "Replications that go on" => couch::scheduler_jobs;
    GET "/db/_scheduler/jobs/{id}", ADMIN, Takes::CouchNothing, Gives::Text("application/json"), "A replication that goes on" => couch::scheduler_job;
    GET "/db/_scheduler/docs", ADMIN, Takes::CouchNothing, Gives::Text("application/json"), "What became of the documents of _replicator" => couch::scheduler_docs;
    GET "/db/_session", Auth::SignedIn, Takes::CouchNothing, Gives::Text("application/json"), "Who is signed in" => couch::session;
    POST "/db/_session", Auth::Claimed, Takes::CouchJson, Gives::Text("application/json"), "Sign in" => couch::log_in;
    DELETE "/db/_session", Auth::SignedIn, Takes::CouchNothing, Gives::Text("application/json"), "Sign out" => couch::log_out;
    GET "/db/{db}", READ, Takes::CouchNothing, Gives::Text("application/json"), "A database" => couch::info;
    PUT "/db/{db}", WRITE, Takes::CouchJson, Gives::Text("application/json"), "Make a database" => couch::create;
    DELETE "/db/{db}", ADMIN, Takes::CouchNothing, Gives::Text("application/json"), "Delete a database with all its documents" => couch::delete_database;
    POST "/db/{db}", WRITE, Takes::CouchDocument, Gives::Text("application/json"), "Write a document that names itself, or gets a name" => couch::post;
    GET "/db/{db}/", READ, Takes::CouchNothing, Gives::Text("application/json"), "A database" => couch::info;
    PUT "/db/{db}/", WRITE, Takes::CouchJson, Gives::Text("application/json"), "Make a database" => couch::create;
    DELETE "/db/{db}/", ADMIN, Takes::CouchNothing, Gives::Text("application/json"), "Delete a database with all its documents" => couch::delete_database;
    POST "/db/{db}/", WRITE, Takes::CouchDocument, Gives::Text("application/json"), "Write a document that names itself, or gets a name" => couch::post;
    GET "/db/{db}/_all_docs", READ, Takes::CouchNothing, Gives::Text("application/json"), "Documents by id" => couch::all_docs;
    GET "/db/{db}/_design_docs", READ, Takes::CouchNothing, Gives::Text("application/json"), "Design documents by id" => couch::design_docs;
    GET "/db/{db}/_local_docs", READ, Takes::CouchNothing, Gives::Text("application/json"), "Local documents by id" => couch::local_docs;
    GET "/db/{db}/_changes", READ, Takes::CouchNothing, Gives::Text("application/json"), "What changed, or changes" => couch::changes;
    POST "/db/{db}/_all_docs", READ, Takes::CouchJson, Gives::Text("application/json"), "Documents by id" => couch::all_docs;
    POST "/db/{db}/_design_docs", READ, Takes::CouchJson, Gives::Text("application/json"), "Design documents by id" => couch::design_docs;
    POST "/db/{db}/_local_docs", READ, Takes::CouchJson, Gives::Text("application/json"), "Local documents by id" => couch::local_docs;
    POST "/db/{db}/_changes", READ, Takes::CouchJson, Gives::Text("application/json"), "What changed, or changes" => couch::changes;
    POST "/db/{db}/_all_docs/queries", READ, Takes::CouchJson, Gives::Text("application/json"), "Several lists of documents" => couch::queries;
    POST "/db/{db}/_design_docs/queries", READ, Takes::CouchJson, Gives::Text("application/json"), "Several lists of design documents" => couch::design_queries;
    POST "/db/{db}/_local_docs/queries", READ, Takes::CouchJson, Gives::Text("application/json"), "Several lists of local documents" => couch::local_queries;
    POST "/db/{db}/_bulk_docs", WRITE, Takes::CouchJson, Gives::Text("application/json"), "Write many documents" => couch::bulk_docs;
    POST "/db/{db}/_bulk_get", READ, Takes::CouchJson, Gives::Text("application/json"), "Read many revisions" => couch::bulk_get;
    POST "/db/{db}/_revs_diff", READ, Takes::CouchJson, Gives::Text("application/json"), "Which revisions are not here" => couch::revs_diff;
    POST "/db/{db}/_missing_revs", READ, Takes::CouchJson, Gives::Text("application/json"), "Which revisions are not here, as older replicators ask" => couch::missing_revs;
    POST "/db/{db}/_find", READ, Takes::CouchJson, Gives::Text("application/json"), "Documents that match a selector" => couch::find;
    POST "/db/{db}/_explain", READ, Takes::CouchJson, Gives::Text("application/json"), "How a query would be answered" => couch::explain;
    GET "/db/{db}/_index", READ, Takes::CouchNothing, Gives::Text("application/json"), "Indexes that are defined" => couch::indexes;
    POST "/db/{db}/_index", WRITE, Takes::CouchJson, Gives::Text("application/json"), "Define an index" => couch::create_index;
    POST "/db/{db}/_index/_bulk_delete", WRITE, Takes::CouchJson, Gives::Text("application/json"), "Forget several indexes" => couch::delete_indexes;
    DELETE "/db/{db}/_index/{doc}/json/{name}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Forget an index" => couch::delete_index;
    DELETE "/db/{db}/_index/_design/{doc}/json/{name}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Forget an index, by the whole id of its document" => couch::delete_index;
    POST "/db/{db}/_ensure_full_commit", READ, Takes::CouchJson, Gives::Text("application/json"), "Nothing: what was answered is durable" => couch::ensure_full_commit;
    POST "/db/{db}/_compact", ADMIN, Takes::CouchJson, Gives::Text("application/json"), "Give back what is not in use" => couch::compact;
    POST "/db/{db}/_view_cleanup", ADMIN, Takes::CouchJson, Gives::Text("application/json"), "Nothing: no index outlives what it is of" => couch::view_cleanup;
    POST "/db/{db}/_purge", ADMIN, Takes::CouchJson, Gives::Text("application/json"), "Forget revisions as if they had never been" => couch::purge;
    GET "/db/{db}/_revs_limit", READ, Takes::CouchNothing, Gives::Text("application/json"), "How many revisions of a branch are remembered" => couch::revs_limit;
    PUT "/db/{db}/_revs_limit", ADMIN, Takes::CouchDocument, Gives::Text("application/json"), "Set how many revisions of a branch are remembered" => couch::set_revs_limit;
    GET "/db/{db}/_security", READ, Takes::CouchNothing, Gives::Text("application/json"), "What clients of CouchDB wrote down about rights" => couch::security;
    PUT "/db/{db}/_security", ADMIN, Takes::CouchDocument, Gives::Text("application/json"), "Write down what grants nothing here" => couch::set_security;
    GET "/db/{db}/_local/{*local}", READ, Takes::CouchNothing, Gives::Text("application/json"), "A local document" => couch::local;
    PUT "/db/{db}/_local/{*local}", WRITE, Takes::CouchDocument, Gives::Text("application/json"), "Write a local document" => couch::put_local;
    DELETE "/db/{db}/_local/{*local}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Delete a local document" => couch::delete_local;
    GET "/db/{db}/_design/{design}/_info", READ, Takes::CouchNothing, Gives::Text("application/json"), "The indexes of a design document" => couch::design_info;
    GET "/db/{db}/_design/{design}/_view/{name}", READ, Takes::CouchNothing, Gives::Text("application/json"), "Nothing: JavaScript is not run here" => couch::view;
    POST "/db/{db}/_design/{design}/_view/{name}", READ, Takes::CouchJson, Gives::Text("application/json"), "Nothing: JavaScript is not run here" => couch::view;
    GET "/db/{db}/{doc}", READ, Takes::CouchNothing, Gives::Text("application/json"), "A document" => couch::get;
    PUT "/db/{db}/{doc}", WRITE, Takes::CouchDocument, Gives::Text("application/json"), "Write a document" => couch::put;
    DELETE "/db/{db}/{doc}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Delete a document" => couch::delete;
    COPY "/db/{db}/{doc}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Copy a document" => couch::copy;
    GET "/db/{db}/_design/{design}", READ, Takes::CouchNothing, Gives::Text("application/json"), "A document" => couch::get;
    PUT "/db/{db}/_design/{design}", WRITE, Takes::CouchDocument, Gives::Text("application/json"), "Write a document" => couch::put;
    DELETE "/db/{db}/_design/{design}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Delete a document" => couch::delete;
    COPY "/db/{db}/_design/{design}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Copy a document" => couch::copy;
    GET "/db/{db}/{doc}/{*attachment}", READ, Takes::CouchNothing, Gives::Bytes, "An attachment, or a range of it" => couch::attachment_get;
    PUT "/db/{db}/{doc}/{*attachment}", WRITE, Takes::CouchAttachment, Gives::Text("application/json"), "Write an attachment" => couch::put_attachment;
    DELETE "/db/{db}/{doc}/{*attachment}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Delete an attachment" => couch::delete_attachment;
    GET "/db/{db}/_design/{design}/{*attachment}", READ, Takes::CouchNothing, Gives::Bytes, "An attachment, or a range of it" => couch::attachment_get;
    PUT "/db/{db}/_design/{design}/{*attachment}", WRITE, Takes::CouchAttachment, Gives::Text("application/json"), "Write an attachment" => couch::put_attachment;
    DELETE "/db/{db}/_design/{design}/{*attachment}", WRITE, Takes::CouchNothing, Gives::Text("application/json"), "Delete an attachment" => couch::delete_attachment;
    GET    "/api/openapi.json", Auth::SignedIn, Takes::Nothing, Gives::Text("application/json"), "This document" => openapi::document;
];

/// The router of a node. Requests need a [`Connection`] in their extensions, as [`serve`] puts there.
pub fn router(node: Node, options: Options) -> Router {
    let hosts = host::Hosts::new(node.identity().host_name(), options.authorities);
    let edge = Arc::new(Edge {
        node,
        hosts,
        origins: options.origins,
        https_port: options.https_port,
        security_contact: options.security_contact,
    });
    let mut router = Router::new();
    let paths: BTreeSet<&str> = TABLE.iter().map(|route| route.path).collect();
    for path in paths {
        router = router.route(path, path_router(Arc::clone(&edge), path));
    }
    let unknown = move |request: Request<Body>| gate::answer(Arc::clone(&edge), None, request);
    router.fallback(unknown)
}

/// Every method of a path, also those that HTTP itself does not have.
fn path_router(edge: Arc<Edge>, path: &'static str) -> MethodRouter {
    let routes: Vec<&Route> = TABLE.iter().filter(|route| route.path == path).collect();
    any(move |request: Request<Body>| {
        let method = request.method();
        let exact = routes.iter().find(|route| *method == route.method);
        // HEAD comes with GET, where it has no route of its own.
        let is_head = *method == Method::HEAD;
        let route = exact.or_else(|| routes.iter().find(|route| is_head && route.method == "GET"));
        gate::answer(Arc::clone(&edge), route.copied(), request)
    })
}
