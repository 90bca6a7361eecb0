//! `refuge token`: what programs sign in with.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::Session;
use super::exit::{Exit, Failure};
use super::output::{note, time};
use super::place::PlaceArgs;
use crate::app::Held;
use crate::http::{Method, Request};
use crate::id::{AccountName, TokenId};
use crate::node::{Node, Role, Scope, Scopes, TokenRequest};

/// Make, list and revoke app tokens
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge token add camera --scope ingest --expires 365d --node https://192.168.1.5:8443
  refuge token ls --node https://192.168.1.5:8443
  refuge token rm 0123456789abcdef --node https://192.168.1.5:8443")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a token; it is shown this once
    Add {
        /// What it is for, in your words
        #[arg(value_name = "LABEL")]
        label: String,
        /// What it may do: read, write, ingest (put only), admin, metrics
        #[arg(long = "scope", value_name = "SCOPE", default_values = ["read", "write"])]
        scopes: Vec<ScopeArg>,
        /// When it ends by itself, for example 12h, 30d or 52w; never, where this is left out
        #[arg(long, value_name = "TIME")]
        expires: Option<Lifetime>,
        /// Whose it is, with --data; the first owner's where this is left out
        #[arg(long, value_name = "NAME", requires = "data")]
        account: Option<AccountName>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List tokens
    Ls {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Revoke tokens
    Rm {
        /// Their handles, as the list shows them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<TokenId>,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// A scope as it is written.
#[derive(Clone, Copy)]
struct ScopeArg(Scope);

impl FromStr for ScopeArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ScopeArg, &'static str> {
        let found = Scope::ALL.into_iter().find(|(_, name)| *name == text);
        found
            .map(|(scope, _)| ScopeArg(scope))
            .ok_or("scopes are read, write, ingest, admin and metrics")
    }
}

/// A time as people write it: a number and s, m, h, d or w.
#[derive(Clone, Copy)]
struct Lifetime(Duration);

impl FromStr for Lifetime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Lifetime, &'static str> {
        let expected = "a time is a number and s, m, h, d or w, for example 30d";
        let (number, unit) = text
            .split_at_checked(text.len().saturating_sub(1))
            .ok_or(expected)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(expected),
        };
        let number: u64 = number.parse().map_err(|_| expected)?;
        number
            .checked_mul(seconds)
            .map(|seconds| Lifetime(Duration::from_secs(seconds)))
            .ok_or(expected)
    }
}

#[derive(Serialize)]
struct NewTokenBody<'a> {
    label: &'a str,
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_s: Option<u64>,
}

/// A token that was just made.
#[derive(Serialize, Deserialize)]
struct NewTokenLine {
    id: String,
    token: String,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<TokenLine>,
}

/// A token of the list; times as RFC 3339.
#[derive(Serialize, Deserialize)]
struct TokenLine {
    id: String,
    account: AccountName,
    label: String,
    scopes: Vec<String>,
    created: String,
    #[serde(default)]
    expires: Option<String>,
    #[serde(default)]
    used: Option<String>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    match args.command {
        Command::Add {
            label,
            scopes,
            expires,
            account,
            place,
        } => {
            let scopes = scopes.into_iter().map(|scope| scope.0).collect();
            let made = match place.open(session, false)?.held {
                Held::Folder(node) => add_here(&node, account, label, scopes, expires, session)?,
                Held::Node(client) => {
                    client.json(Request::new(Method::POST, "/api/tokens").json(&NewTokenBody {
                        label: &label,
                        scopes: scopes.iter().map(Scope::name).collect(),
                        expires_in_s: expires.map(|expires| expires.0.as_secs()),
                    }))?
                }
            };
            session.output.result(&made, || made.token.clone())?;
            note(&format!(
                "Its handle is {}; the token is not shown again",
                made.id
            ));
            Ok(Exit::Done)
        }
        Command::Ls { place } => {
            let tokens = match place.open(session, false)?.held {
                Held::Folder(node) => list_here(&node),
                Held::Node(client) => {
                    let tokens: Tokens = client.json(Request::new(Method::GET, "/api/tokens"))?;
                    tokens.tokens
                }
            };
            list(&tokens, session)
        }
        Command::Rm { ids, place } => {
            let held = place.open(session, false)?.held;
            for id in ids {
                match &held {
                    Held::Folder(node) => session.runtime.block_on(node.tokens().revoke(id, None))?,
                    Held::Node(client) => {
                        client.send(Request::new(Method::DELETE, format!("/api/tokens/{id}")))?;
                    }
                }
            }
            Ok(Exit::Done)
        }
    }
}

fn add_here(
    node: &Node,
    account: Option<AccountName>,
    label: String,
    scopes: Scopes,
    expires: Option<Lifetime>,
    session: &Session,
) -> anyhow::Result<NewTokenLine> {
    let owner = node
        .accounts()
        .list()
        .into_iter()
        .find(|account| account.role == Role::Owner);
    let Some(account) = account.or(owner.map(|owner| owner.name)) else {
        let message = "the node has no owner yet: claim it first";
        return Err(Failure::new(Exit::Refused, message).into());
    };
    let request = TokenRequest {
        label,
        scopes,
        expires: expires.and_then(|expires| SystemTime::now().checked_add(expires.0)),
    };
    let made = session.runtime.block_on(node.tokens().add(account, request))?;
    Ok(NewTokenLine {
        id: made.id.to_string(),
        token: made.secret.expose().to_owned(),
    })
}

fn list_here(node: &Node) -> Vec<TokenLine> {
    let tokens = node.tokens().list(None).into_iter();
    tokens
        .map(|info| TokenLine {
            id: info.id.to_string(),
            account: info.account,
            label: info.label,
            scopes: info.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
            created: stamp(info.created),
            expires: info.expires.map(stamp),
            used: info.used.map(stamp),
        })
        .collect()
}

fn list(tokens: &[TokenLine], session: &mut Session) -> anyhow::Result<Exit> {
    if session.output.is_json() {
        for token in tokens {
            session.output.result(token, String::new)?;
        }
        return Ok(Exit::Done);
    }
    let never = || "never".to_owned();
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|token| {
            vec![
                token.id.clone(),
                token.account.to_string(),
                token.label.clone(),
                token.scopes.join(","),
                token.expires.clone().unwrap_or_else(never),
                token.used.clone().unwrap_or_else(never),
            ]
        })
        .collect();
    session
        .output
        .table(&["ID", "ACCOUNT", "LABEL", "SCOPES", "EXPIRES", "USED"], &rows)?;
    Ok(Exit::Done)
}

fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    time(i64::try_from(seconds).unwrap_or(i64::MAX))
}
