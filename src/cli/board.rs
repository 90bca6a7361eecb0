//! `refuge board`: the box's hardware: which box it is, its disks, and starting over.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::Session;
use super::exit::{Exit, Failure};
use super::output::{bytes, note};
use super::place::PlaceArgs;
use crate::app::{self, Held};
use crate::http::{Client, Method, Patience, Request};
use crate::id::{DiskName, DiskSerial, StoreName};
use crate::node::{Disk, Holds, MoveTo};

/// How often a store that moves is looked at: it takes minutes, or hours.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Find a box, keep a store on a USB disk, reset a box
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge board identify --node https://192.168.1.5
  refuge board disks --node https://192.168.1.5
  refuge board adopt sda --serial 575834314135 --node https://192.168.1.5
  refuge backup ~/Photos --ref photos --store disk --node https://192.168.1.5
  refuge board move main --to sda --node https://192.168.1.5
  refuge board eject disk --node https://192.168.1.5

A disk becomes a store of its own, or a store moves onto it. When the disk is pulled, its store is offline until
the same disk is plugged in again; the box answers all the same.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show by the light of the box which one it is
    Identify {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the disks that are plugged in, and what they hold
    Disks {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Keep a store on a disk: an empty one, or one that held a store before
    Adopt {
        /// The disk, as the list names it
        #[arg(value_name = "DISK")]
        disk: DiskName,
        /// Its serial, as the list and its label show it
        #[arg(long, value_name = "SERIAL")]
        serial: DiskSerial,
        /// Format it, where it holds anything else: all of that is lost
        #[arg(long)]
        format: bool,
        /// The store that it holds from then on
        #[arg(long = "as", value_name = "STORE", default_value = "disk")]
        adopted: StoreName,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Carry a store to another place while it is used; returns when it is there
    Move {
        /// The store
        #[arg(value_name = "STORE")]
        moved: StoreName,
        /// An adopted disk, as the list names it, or `card`; where the store is already, a move under way ends
        #[arg(long, value_name = "DISK")]
        to: MoveTo,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Make the disk of a store safe to pull
    Eject {
        /// The store
        #[arg(value_name = "STORE")]
        ejected: StoreName,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Factory reset: destroy keys, accounts, tokens and all data on the card
    Reset {
        /// The name of the box that is meant, such as refuge-abc123.local
        #[arg(long, value_name = "NAME")]
        host: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Do what needs root for the node, as the service manager starts it
    #[command(hide = true)]
    Helper {
        /// The board's profile
        #[arg(long, value_name = "FILE")]
        board: PathBuf,
        /// The user that the node runs as
        #[arg(long, value_name = "NAME", default_value = "refuge")]
        user: String,
    },
}

#[derive(Deserialize)]
struct Disks {
    disks: Vec<Disk>,
}

#[derive(Serialize)]
struct Adopt {
    disk: DiskName,
    serial: DiskSerial,
    format: bool,
    store: StoreName,
}

#[derive(Serialize, Deserialize)]
struct DiskStore {
    store: StoreName,
}

#[derive(Serialize)]
struct Move<'a> {
    store: &'a StoreName,
    to: String,
}

/// As far as it is of use here.
#[derive(Deserialize)]
struct StoreMoves {
    moving: Option<Moving>,
}

#[derive(Deserialize)]
struct Moving {
    trouble: Option<String>,
}

#[derive(Serialize)]
struct Reset {
    host: String,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    match args.command {
        Command::Identify { place } => {
            client(&place, session)?.send(Request::new(Method::POST, "/api/board/identify"))?;
            note("Its light blinks for ten seconds.");
        }
        Command::Disks { place } => {
            let found: Disks =
                client(&place, session)?.json(Request::new(Method::GET, "/api/board/disks"))?;
            list(&found.disks, session)?;
        }
        Command::Adopt {
            disk,
            serial,
            format,
            adopted,
            place,
        } => {
            let body = Adopt {
                disk,
                serial,
                format,
                store: adopted,
            };
            let request = Request::new(Method::POST, "/api/board/adopt")
                .json(&body)
                .patience(Patience::Long);
            let line: DiskStore = client(&place, session)?.json(request)?;
            session
                .output
                .result(&line, || format!("the disk holds the store {} now", line.store))?;
        }
        Command::Eject { ejected, place } => {
            let request = Request::new(Method::POST, "/api/board/eject").json(&DiskStore { store: ejected });
            client(&place, session)?.send(request.patience(Patience::Long))?;
            note("The disk can be pulled.");
        }
        Command::Move { moved, to, place } => {
            let client = client(&place, session)?;
            let body = Move {
                store: &moved,
                to: to.to_string(),
            };
            let request = Request::new(Method::POST, "/api/board/move").json(&body);
            client.send(request.patience(Patience::Long))?;
            wait_until_moved(&client, &moved)?;
            note(&format!("The store {moved} is there."));
        }
        Command::Reset { host, place } => {
            let request = Request::new(Method::POST, "/api/board/reset").json(&Reset { host });
            client(&place, session)?.send(request)?;
            note("The box destroys what it holds and comes back as another, with a new claim code.");
        }
        Command::Helper { board, user } => app::help(&board, &user)?,
    }
    Ok(Exit::Done)
}

/// Waits until a store has moved.
///
/// # Errors
/// Why the box could not go on with it, which it will try again by itself.
fn wait_until_moved(client: &Client, store: &StoreName) -> anyhow::Result<()> {
    loop {
        let info: StoreMoves = client.json(Request::new(Method::GET, format!("/stores/{store}")))?;
        match info.moving {
            None => return Ok(()),
            Some(Moving {
                trouble: Some(trouble),
            }) => anyhow::bail!("the store {store} is where it was, and will be carried on with: {trouble}"),
            Some(Moving { trouble: None }) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// A folder has no light and no disks.
fn client(place: &PlaceArgs, session: &Session) -> anyhow::Result<Client> {
    match place.open(session, false)?.held {
        Held::Node(client) => Ok(client),
        Held::Folder(_) => {
            Err(Failure::new(Exit::Usage, "a box is asked over the network: give --node URL").into())
        }
    }
}

fn list(disks: &[Disk], session: &mut Session) -> anyhow::Result<()> {
    if session.output.is_json() {
        for disk in disks {
            session.output.result(disk, String::new)?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = disks
        .iter()
        .map(|disk| {
            vec![
                disk.name.to_string(),
                disk.serial.to_string(),
                bytes(disk.size_bytes),
                disk.title.clone(),
                holds(&disk.holds),
            ]
        })
        .collect();
    Ok(session
        .output
        .table(&["DISK", "SERIAL", "SIZE", "TITLE", "HOLDS"], &rows)?)
}

fn holds(holds: &Holds) -> String {
    match holds {
        Holds::System => "the box itself".to_owned(),
        Holds::Nothing => "nothing".to_owned(),
        Holds::Refuge { uuid } => format!("blobs of a node ({uuid})"),
        Holds::Foreign { what } => what.join(", "),
    }
}
