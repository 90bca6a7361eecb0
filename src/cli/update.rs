//! `refuge update`: brings a box to another version of its system.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::Session;
use super::channel::{self, Channel, ChannelArgs};
use super::exit::{Exit, Failure};
use super::output::{bytes, is_watched, note};
use super::place::PlaceArgs;
use crate::app::{self, Held, Place, UpdaterStep};
use crate::http::{Client, Method, Patience, Request};
use crate::id::{BlobAddress, BlobId, StoreName};
use crate::node::{Class, Source};

/// Read from the bundle at once, in bytes.
const READ_BYTES: usize = 512 * 1024;

/// How often the box is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Boxes of the network and disks that are looked at one after the other.
const CHECKED_WITHIN: Patience = Patience::Of(Duration::from_secs(10 * 60));

/// A box that has not said by then what came of an update is not waited for any longer: three starts that fail, and the way back.
const DONE_WITHIN: Duration = Duration::from_secs(20 * 60);

/// Update the system of a box
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge update check --node https://192.168.1.5
  refuge update install --node https://192.168.1.5
  refuge update install refuge-raspberrypi-0.2.0.raucb --node https://192.168.1.5
  refuge update install https://example.org/refuge-raspberrypi-0.2.0.raucb --node https://192.168.1.5
  refuge update status --node https://192.168.1.5
  refuge update rollback --node https://192.168.1.5

The new version goes beside the one that runs; the box restarts, looks whether its data is well, and goes back by
itself where it is not.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the channel for a newer version; without a channel, or with --near, list the bundles that are to be had near
    ///
    /// Exit codes of asking the channel: 0 a newer version is there, 3 none is, 7 the channel is not to be trusted (its
    /// signature, its number, its age), 1 its server does not answer.
    Check {
        /// List the bundles that other boxes of the network run and those on USB disks
        #[arg(long)]
        near: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    Channel(ChannelArgs),
    /// Install a bundle, restart the box and wait until the new version was judged
    Install {
        /// The bundle: a file, a URL, usb:NAME or box:NODE-ID as `refuge update check --near` lists them, or the id of a blob that the box has; without it, what the channel has
        #[arg(value_name = "FILE|URL|usb:NAME|box:NODE-ID|ID")]
        bundle: Option<String>,
        /// Also where it is no newer than what runs, or older than what the channel has
        #[arg(long)]
        allow_older: bool,
        /// Do not wait until the box is back
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Say which version runs, how far an update is and what came of the last one
    Status {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Let any box of the network have the bundle that runs, which tells them its version
    Offer {
        /// Let them have it no more
        #[arg(long)]
        stop: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Restart with the version that ran before, and wait until it was judged
    Rollback {
        /// Do not wait until the box is back
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Do what needs root for the node, as the service manager starts it
    #[command(hide = true)]
    Updater {
        /// The user that the node runs as
        #[arg(long, value_name = "NAME", default_value = "refuge")]
        user: String,
    },
    /// A step of a start, as the service manager does it
    #[command(hide = true)]
    Step {
        /// Which
        step: StepName,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StepName {
    Judge,
    Settled,
}

#[derive(Serialize)]
struct Install {
    #[serde(flatten)]
    bundle: Bundle,
    allow_older: bool,
}

/// How the box is told of a bundle.
#[derive(Serialize)]
#[serde(untagged)]
enum Bundle {
    Blob {
        store: StoreName,
        blob: BlobId,
    },
    From {
        from: String,
    },
    /// What the channel has.
    Channel {},
}

/// What there is to install.
#[derive(Serialize, Deserialize)]
struct Bundles {
    bundles: Vec<Near>,
}

#[derive(Serialize, Deserialize)]
struct Near {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    size_bytes: u64,
    place: String,
}

/// What the box says of its system.
#[derive(Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) running: String,
    slot: String,
    step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(default)]
    offered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<Channel>,
}

#[derive(Serialize, Deserialize)]
struct Progress {
    done: u64,
    total: u64,
    rate: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_s: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    error: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Last {
    version: String,
    good: bool,
    reasons: Vec<String>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    match args.command {
        Command::Install {
            bundle,
            allow_older,
            no_wait,
            place,
        } => install(bundle.as_deref(), allow_older, no_wait, &place, session),
        Command::Channel(args) => channel::channel(args, session),
        Command::Check { near, place } => {
            let place = place.open(session, false)?;
            if !near && status(client(&place)?)?.channel.is_some() {
                return channel::check(client(&place)?, session);
            }
            let request = Request::new(Method::POST, "/api/update/check").patience(CHECKED_WITHIN);
            let bundles: Bundles = client(&place)?.json(request)?;
            session.output.result(&bundles, || listed(&bundles))?;
            Ok(Exit::Done)
        }
        Command::Status { place } => {
            let status = status(client(&place.open(session, false)?)?)?;
            session.output.result(&status, || said(&status))?;
            Ok(Exit::Done)
        }
        Command::Offer { stop, place } => {
            let method = if stop { Method::DELETE } else { Method::PUT };
            client(&place.open(session, false)?)?.send(Request::new(method, "/api/update/offer"))?;
            Ok(Exit::Done)
        }
        Command::Rollback { no_wait, place } => {
            let place = place.open(session, false)?;
            client(&place)?.send(Request::new(Method::POST, "/api/update/rollback"))?;
            match no_wait {
                true => Ok(Exit::Done),
                false => wait(client(&place)?, session),
            }
        }
        Command::Updater { user } => {
            app::answer_about_updates(&user)?;
            Ok(Exit::Done)
        }
        Command::Step { step } => {
            app::step_of_update(match step {
                StepName::Judge => UpdaterStep::Judge,
                StepName::Settled => UpdaterStep::Settled,
            })?;
            Ok(Exit::Done)
        }
    }
}

/// A folder has no system of its own.
pub(super) fn client(place: &Place) -> anyhow::Result<&Client> {
    match &place.held {
        Held::Node(client) => Ok(client),
        Held::Folder(_) => {
            Err(Failure::new(Exit::Usage, "a box is updated over the network: give --node URL").into())
        }
    }
}

fn install(
    bundle: Option<&str>,
    allow_older: bool,
    no_wait: bool,
    place: &PlaceArgs,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let (store, place) = (place.store.clone(), place.open(session, false)?);
    let client = client(&place)?;
    // Not before it is known that the box can be updated.
    status(client)?;
    let (bundle, ours) = told(bundle, store, &place, session)?;
    let body = Install { bundle, allow_older };
    let begun = client.send(Request::new(Method::POST, "/api/update/install").json(&body));
    if no_wait && begun.is_ok() {
        return Ok(Exit::Done);
    }
    let ended = match begun {
        Ok(_) => wait(client, session),
        Err(error) => Err(error.into()),
    };
    // Also where it was refused: nobody else asks for what this command put there.
    if let Some(blob) = ours
        && let Err(error) = session.runtime.block_on(place.store.delete(vec![blob]))
    {
        note(&format!("the bundle stays on the box as {blob}: {error}"));
    }
    ended
}

/// How the box is told of the bundle, which is sent to it where it is a file; and as which blob, where it was not there before.
fn told(
    bundle: Option<&str>,
    store: StoreName,
    place: &Place,
    session: &Session,
) -> anyhow::Result<(Bundle, Option<BlobId>)> {
    let Some(bundle) = bundle else {
        return Ok((Bundle::Channel {}, None));
    };
    Ok(match (is_elsewhere(bundle), bundle.parse::<BlobAddress>()) {
        (true, _) => {
            let source = bundle.parse::<Source>();
            let source = source.map_err(|error| Failure::new(Exit::Usage, format!("{bundle}: {error}")))?;
            (
                Bundle::From {
                    from: source.to_string(),
                },
                None,
            )
        }
        (false, Ok(address)) => {
            let found = session.runtime.block_on(place.store.resolve(address))?;
            let blob =
                found.ok_or_else(|| Failure::new(Exit::Missing, format!("there is no blob {address}")))?;
            (Bundle::Blob { store, blob }, None)
        }
        (false, Err(_)) => {
            let (blob, is_ours) = send(&PathBuf::from(bundle), place, session)?;
            (Bundle::Blob { store, blob }, is_ours.then_some(blob))
        }
    })
}

/// Whether the box gets the bundle itself: a file of that name is written `./https:…`.
fn is_elsewhere(bundle: &str) -> bool {
    ["https:", "http:", "usb:", "box:"]
        .iter()
        .any(|scheme| bundle.starts_with(scheme))
}

fn listed(bundles: &Bundles) -> String {
    if bundles.bundles.is_empty() {
        return "no box of the network runs a newer version, and no bundle is on a USB disk".to_owned();
    }
    let lines = bundles.bundles.iter().map(|near| {
        let version = near
            .version
            .as_ref()
            .map_or_else(String::new, |version| format!("version {version}, "));
        format!(
            "{}\n  {version}{}, {}",
            near.from,
            bytes(near.size_bytes),
            near.place
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Puts the bundle into the box's store, and says whether it was not there.
fn send(path: &PathBuf, place: &Place, session: &Session) -> anyhow::Result<(BlobId, bool)> {
    let unreadable =
        |error: std::io::Error| Failure::new(Exit::Usage, format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    note(&format!(
        "sending {}",
        bytes(file.metadata().map_err(unreadable)?.len())
    ));
    let put = session.runtime.block_on(async {
        let mut receiver = place.store.receive(Class::Pinned, None);
        let mut piece = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut piece).map_err(unreadable)?;
            if read == 0 {
                return anyhow::Ok(receiver.finish().await?);
            }
            receiver.write(Bytes::copy_from_slice(&piece[..read])).await?;
        }
    })?;
    Ok((put.id, put.fresh))
}

pub(super) fn status(client: &Client) -> anyhow::Result<Status> {
    Ok(client.json(Request::new(Method::GET, "/api/update"))?)
}

/// Tells how far the box is until it is back and judged; fails where the new version did not stay.
fn wait(client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let bar = match is_watched() {
        true => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").expect("a template of known keys"),
        ),
        false => ProgressBar::hidden(),
    };
    let (began, mut shown, mut was_under_way) = (Instant::now(), String::new(), false);
    while began.elapsed() < DONE_WITHIN {
        let said = status(client);
        let step = match &said {
            Ok(status) => status.step.clone(),
            // It restarts.
            Err(_) => "away".to_owned(),
        };
        bar.set_message(said.as_ref().map_or_else(|_| "restarting".to_owned(), far));
        bar.tick();
        if step != shown && bar.is_hidden() {
            note(&step);
        }
        was_under_way |= step != "idle";
        shown = step;
        match said {
            Ok(status) if status.step == "idle" && (was_under_way || status.refused.is_some()) => {
                bar.finish_and_clear();
                return done(&status, session);
            }
            _ => sleep(ASK_EVERY),
        }
    }
    bar.finish_and_clear();
    let minutes = DONE_WITHIN.as_secs() / 60;
    Err(Failure::new(
        Exit::Busy,
        format!("the box did not say within {minutes} minutes what came of it"),
    )
    .into())
}

fn done(status: &Status, session: &mut Session) -> anyhow::Result<Exit> {
    if let Some(refused) = &status.refused {
        return Err(Failure::new(Exit::Refused, refused.reason.clone()).into());
    }
    if let Some(last) = status.last.as_ref().filter(|last| !last.good) {
        let reasons = last.reasons.join("; ");
        let running = &status.running;
        let text = format!(
            "version {} did not stay, and {running} runs again: {reasons}",
            last.version
        );
        return Err(Failure::new(Exit::Failed, text).into());
    }
    session.output.result(status, || said(status))?;
    Ok(Exit::Done)
}

fn far(status: &Status) -> String {
    let Some(progress) = &status.progress else {
        return status.step.clone();
    };
    let left = progress
        .left_s
        .map_or_else(String::new, |left| format!(", {left} s left"));
    match progress.total {
        100 => format!("{} {} %{left}", status.step, progress.done),
        total => format!(
            "{} {} of {}, {} a second{left}",
            status.step,
            bytes(progress.done),
            bytes(total),
            bytes(progress.rate)
        ),
    }
}

fn said(status: &Status) -> String {
    let mut text = format!("version {} runs in slot {}", status.running, status.slot);
    if status.step != "idle" {
        text.push_str(&format!("\n{}", far(status)));
    }
    if let Some(refused) = &status.refused {
        text.push_str(&format!("\nthe last bundle was refused: {}", refused.reason));
    }
    if let Some(last) = &status.last {
        let ended = match last.good {
            true => "is good".to_owned(),
            false => format!("did not stay: {}", last.reasons.join("; ")),
        };
        text.push_str(&format!("\nversion {} {ended}", last.version));
    }
    if let Some(before) = &status.before {
        text.push_str(&format!("\n`refuge update rollback` goes back to {before}"));
    }
    if status.offered {
        text.push_str("\nother boxes may have the bundle that runs");
    }
    if let Some(channel) = &status.channel {
        text.push_str(&format!("\n{}", channel::said(channel)));
    }
    text
}
