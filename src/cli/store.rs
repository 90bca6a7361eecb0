//! `refuge store`: the named stores of a node.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::Session;
use super::exit::Exit;
use super::output::{bytes, note};
use super::place::PlaceArgs;
use crate::app::Held;
use crate::http::{Method, Request};
use crate::id::StoreName;
use crate::node::{BackendSettings, RemoveOptions, StoreInfo, StoreSettings};

/// Add, list and remove named stores
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge store add usb --backend fs --path /mnt/usb/refuge --data ~/refuge
  refuge store ls --data ~/refuge
  refuge store rm usb --data ~/refuge

Every node has the store main. A removed store is set aside in the data folder, not deleted.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a store
    Add {
        /// Its name
        #[arg(value_name = "NAME")]
        name: StoreName,
        /// How it keeps blobs
        #[arg(long, value_name = "KIND", default_value = "haystack")]
        backend: BackendArg,
        /// Its folder, for the backend fs: on another disk, or mounted by several nodes
        #[arg(long, value_name = "DIR", required_if_eq("backend", "fs"))]
        path: Option<PathBuf>,
        /// Other nodes mount that folder, too: nothing in it is collected
        #[arg(long, requires = "path")]
        shared: bool,
        /// Where a volume ends, for the backend haystack; 0 for the default
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        volume_bytes: u64,
        /// The zstd level: 1, or a negative one down to -7, which is faster; 0 is off
        #[arg(
            long,
            value_name = "LEVEL",
            default_value_t = 1,
            allow_negative_numbers = true
        )]
        compression: i32,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List stores and how they are
    Ls {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Remove a store; its files are set aside
    Rm {
        /// Its name
        #[arg(value_name = "NAME")]
        name: StoreName,
        /// Also where it holds blobs
        #[arg(long)]
        not_empty: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum BackendArg {
    /// Many blobs in few append-only files
    Haystack,
    /// One file per blob
    Fs,
    /// In memory, gone when the node stops
    Memory,
}

#[derive(Serialize)]
struct NewStore<'a> {
    name: &'a StoreName,
    settings: &'a StoreSettings,
}

#[derive(Deserialize)]
struct Stores {
    stores: Vec<StoreLine>,
}

#[derive(Serialize, Deserialize)]
struct StoreLine {
    name: StoreName,
    settings: StoreSettings,
    status: StatusLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offline: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StatusLine {
    blobs: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    dead_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    read_only: bool,
    quarantined: u64,
}

impl From<StoreInfo> for StoreLine {
    fn from(info: StoreInfo) -> StoreLine {
        let status = info.status;
        StoreLine {
            offline: info.offline,
            name: info.name,
            settings: info.settings,
            status: StatusLine {
                blobs: status.blobs,
                plain_bytes: status.plain_bytes,
                stored_bytes: status.stored_bytes,
                dead_bytes: status.dead_bytes,
                free_bytes: status.free_bytes,
                read_only: status.read_only.is_some(),
                quarantined: status.quarantined,
            },
        }
    }
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    match args.command {
        Command::Add {
            name,
            backend,
            path,
            shared,
            volume_bytes,
            compression,
            place,
        } => {
            let backend = match backend {
                BackendArg::Haystack => BackendSettings::Haystack { volume_bytes },
                BackendArg::Fs => BackendSettings::Fs {
                    path: path.map(std::path::absolute).transpose()?,
                    shared,
                },
                BackendArg::Memory => BackendSettings::Memory {},
            };
            let settings = StoreSettings { backend, compression };
            match place.open(session, false)?.held {
                Held::Folder(node) => session.runtime.block_on(node.stores().add(name, settings))?,
                Held::Node(client) => {
                    let body = NewStore {
                        name: &name,
                        settings: &settings,
                    };
                    client.send(Request::new(Method::POST, "/stores").json(&body))?;
                }
            }
        }
        Command::Ls { place } => {
            let stores = match place.open(session, false)?.held {
                Held::Folder(node) => node.stores().list().into_iter().map(StoreLine::from).collect(),
                Held::Node(client) => {
                    let stores: Stores = client.json(Request::new(Method::GET, "/stores"))?;
                    stores.stores
                }
            };
            list(&stores, session)?;
        }
        Command::Rm {
            name,
            not_empty,
            place,
        } => match place.open(session, false)?.held {
            Held::Folder(node) => {
                let removed = node.stores().remove(name, RemoveOptions { not_empty });
                let aside = session.runtime.block_on(removed)?;
                note(&format!("Its files are kept in {}", aside.display()));
            }
            Held::Node(client) => {
                let path = format!("/stores/{name}?not_empty={not_empty}");
                client.send(Request::new(Method::DELETE, path))?;
            }
        },
    }
    Ok(Exit::Done)
}

fn list(stores: &[StoreLine], session: &mut Session) -> anyhow::Result<()> {
    if session.output.is_json() {
        for store in stores {
            session.output.result(store, String::new)?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = stores
        .iter()
        .map(|store| {
            let status = &store.status;
            vec![
                store.name.to_string(),
                kind(&store.settings.backend),
                status.blobs.to_string(),
                bytes(status.plain_bytes),
                bytes(status.stored_bytes),
                status.free_bytes.map_or_else(String::new, bytes),
                state(store),
            ]
        })
        .collect();
    let headings = ["STORE", "BACKEND", "BLOBS", "PLAIN", "STORED", "FREE", "STATE"];
    Ok(session.output.table(&headings, &rows)?)
}

fn kind(backend: &BackendSettings) -> String {
    match backend {
        BackendSettings::Haystack { .. } => "haystack".to_owned(),
        BackendSettings::Fs { path: None, .. } => "fs".to_owned(),
        BackendSettings::Fs { path: Some(path), .. } => format!("fs {}", path.display()),
        BackendSettings::Memory {} => "memory".to_owned(),
    }
}

fn state(store: &StoreLine) -> String {
    if let Some(reason) = &store.offline {
        return format!("offline: {reason}");
    }
    match (store.status.read_only, store.status.quarantined) {
        (true, _) => "read only since a write failed".to_owned(),
        (false, 0) => "ok".to_owned(),
        (false, damaged) => format!("{damaged} damaged blobs set aside"),
    }
}
