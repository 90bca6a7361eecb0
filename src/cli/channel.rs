//! `refuge update channel` and `check`: where a box's updates come from by themselves, and what there is.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::Session;
use super::exit::{Exit, Failure};
use super::output::bytes;
use super::place::PlaceArgs;
use super::update::{client, status};
use crate::http::{Client, Error, Method, Request};

/// Where updates come from by themselves
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge update channel --node https://192.168.1.5
  refuge update channel set https://updates.example.org/refuge/channel ed25519;4f2a… --node https://192.168.1.5
  refuge update channel remove --node https://192.168.1.5

A channel is a file that says which version there is for which board, signed by whoever makes it. The box looks at it
once a day. What is newer it fetches, says so on its page, and installs at night while nothing is being stored; a
version that it came back from it leaves alone. --no-automatic has it look and say so, and no more.")]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ChannelArgs {
    #[command(subcommand)]
    command: Option<ChannelCommand>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Subcommand)]
enum ChannelCommand {
    /// Set it, in place of the one before
    Set {
        /// Where its file is, as https://HOST/PATH
        url: String,
        /// Whose signature it must have, as scripts/channel says it
        #[arg(value_name = "ed25519;KEY")]
        key: String,
        /// Install nothing by itself
        #[arg(long)]
        no_automatic: bool,
        /// When it may, in the box's time zone
        #[arg(long, value_name = "HH:MM-HH:MM", default_value = "02:00-05:00")]
        window: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Look for no more updates
    Remove {
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Serialize)]
struct SetChannel<'a> {
    url: &'a str,
    key: &'a str,
    automatic: bool,
    window: &'a str,
}

/// What the box says of its channel.
#[derive(Serialize, Deserialize)]
pub(super) struct Channel {
    url: String,
    key: String,
    automatic: bool,
    window: String,
    heard: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<Offer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    planned: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// What a channel has for the box.
#[derive(Serialize, Deserialize)]
pub(super) struct Offer {
    version: String,
    newer: bool,
    came_back: bool,
    size_bytes: u64,
    url: String,
    blob: String,
}

pub(super) fn channel(args: ChannelArgs, session: &mut Session) -> anyhow::Result<Exit> {
    match args.command {
        None => show(&args.place, session),
        Some(ChannelCommand::Set {
            url,
            key,
            no_automatic,
            window,
            place,
        }) => {
            let body = SetChannel {
                url: &url,
                key: &key,
                automatic: !no_automatic,
                window: &window,
            };
            let place = place.open(session, false)?;
            client(&place)?.send(Request::new(Method::PUT, "/api/update/channel").json(&body))?;
            Ok(Exit::Done)
        }
        Some(ChannelCommand::Remove { place }) => {
            let place = place.open(session, false)?;
            client(&place)?.send(Request::new(Method::DELETE, "/api/update/channel"))?;
            Ok(Exit::Done)
        }
    }
}

fn show(place: &PlaceArgs, session: &mut Session) -> anyhow::Result<Exit> {
    let status = status(client(&place.open(session, false)?)?)?;
    let channel = status.channel.ok_or_else(unset)?;
    session.output.result(&channel, || said(&channel))?;
    Ok(Exit::Done)
}

fn unset() -> Failure {
    Failure::new(
        Exit::Missing,
        "no channel is set: `refuge update channel set URL KEY`",
    )
}

/// Asks the channel; without a newer version there is nothing to be had.
pub(super) fn check(client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let running = status(client)?.running;
    let asked = client.json::<Offer>(Request::new(Method::POST, "/api/update/channel/check"));
    let offer = asked.map_err(distrusted)?;
    session.output.result(&offer, || match offer.newer {
        true => format!("{running} runs, and {} is there", of(&offer)),
        false => format!(
            "{running} runs, and the channel has nothing newer: {}",
            offer.version
        ),
    })?;
    Ok(if offer.newer { Exit::Done } else { Exit::Missing })
}

/// A channel that is not to be trusted is refused, whatever the status of the answer.
fn distrusted(error: Error) -> anyhow::Error {
    match error {
        Error::Refused { refusal, .. } if refusal.code == "bad_channel" => {
            Failure::new(Exit::Refused, refusal.reason).into()
        }
        other => other.into(),
    }
}

fn of(offer: &Offer) -> String {
    let left = if offer.came_back {
        "; the box came back from it"
    } else {
        ""
    };
    format!("{} ({}{left})", offer.version, bytes(offer.size_bytes))
}

/// In words.
pub(super) fn said(channel: &Channel) -> String {
    let by_itself = match channel.automatic {
        true => format!("installed by itself between {}", channel.window),
        false => "not installed by itself".to_owned(),
    };
    let mut text = format!(
        "updates come from {}, signed by {}, {by_itself}; heard of last at {}",
        channel.url, channel.key, channel.heard
    );
    if let Some(offer) = channel.offer.as_ref().filter(|offer| offer.newer) {
        text.push_str(&format!("\nversion {} is there", of(offer)));
    }
    if let Some(planned) = &channel.planned {
        text.push_str(&format!(" and will be installed at {planned}"));
    }
    if let Some(trouble) = &channel.trouble {
        text.push_str(&format!("\nthe last look or attempt failed: {trouble}"));
    }
    text
}
