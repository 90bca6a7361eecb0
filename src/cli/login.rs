//! `refuge login`: keeps a token that was made elsewhere, for a node whose identity was checked first.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Session;
use super::exit::{Exit, Failure};
use super::known::{Entry, Known};
use super::output::note;
use crate::http::{Channel, Client, Method, NodeUrl, Request, Token, Trust};
use crate::id::{AccountName, NodeId, verify_binding};
use crate::node::CLAIM_EXPORTER_LABEL;

/// The most bytes of a token and what stands around it.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Keep a token for a node, so that this machine's commands reach it
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge login https://192.168.1.5:8443 --node-id 'ed25519;…'

For a second machine: make a token on the node's page, or with `refuge token add` where it is known already. The
token is read from standard input and kept in $XDG_CONFIG_HOME/refuge/nodes.toml, for you alone. Without
--node-id the fingerprint is shown first: compare it with the one on the node's console.")]
pub(super) struct Args {
    /// The node, for example https://192.168.1.5:8443
    #[arg(value_name = "URL")]
    url: NodeUrl,
    /// The id that the node must prove; `refuge id` shows it where the node is known
    #[arg(long, value_name = "ID")]
    node_id: Option<NodeId>,
    /// A file that holds the token, instead of standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Who {
    account: AccountName,
    scopes: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    url: String,
    node_id: NodeId,
    account: AccountName,
    scopes: Vec<String>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let mut known = Known::read()?;
    let node_id = match args.node_id {
        Some(node_id) => node_id,
        None => agree(&args.url, session)?,
    };
    let token = read_token(args.token_file.as_deref())?;
    // Nothing of the token leaves before the node has proved who it is.
    let client = Client::new(
        args.url.clone(),
        Trust::Pinned(node_id),
        Some(token.clone()),
        session.runtime.handle().clone(),
    )?;
    let who: Who = client.json(Request::new(Method::GET, "/api/session"))?;
    let path = known.remember(Entry {
        url: args.url.clone(),
        node_id,
        token: token.reveal().to_owned(),
    })?;
    let line = Line {
        url: args.url.to_string(),
        node_id,
        account: who.account,
        scopes: who.scopes,
    };
    session.output.result(&line, || {
        format!(
            "{} is known: {}, account {}, may {}",
            line.url,
            line.node_id,
            line.account,
            line.scopes.join(", ")
        )
    })?;
    note(&format!("The token is kept in {}", path.display()));
    Ok(Exit::Done)
}

/// The id of the node at this address, once the person at the terminal has said that it is the one.
fn agree(url: &NodeUrl, session: &Session) -> anyhow::Result<NodeId> {
    let refuse = |exit, message: String| Err(Failure::new(exit, message).into());
    if !io::stdin().is_terminal() {
        return refuse(
            Exit::Usage,
            format!("say whom to expect at {url} with --node-id: nobody is here to compare its fingerprint"),
        );
    }
    let channel = Channel::open(
        url.clone(),
        Trust::FirstContact,
        CLAIM_EXPORTER_LABEL,
        session.runtime.handle().clone(),
    )?;
    let Some(der) = channel.certificate_der() else {
        return refuse(Exit::Usage, format!("{url} proves nothing: sign in over https"));
    };
    let binding = verify_binding(der)
        .map_err(|error| Failure::new(Exit::Damaged, format!("the node's certificate: {error}")))?;
    eprint!(
        "The fingerprint of {url} is\n    {}\nIs that what the node's console shows? [y/N] ",
        binding.fingerprint
    );
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(16).read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return refuse(
            Exit::Refused,
            format!("{url} is not the node you mean; nothing was sent"),
        );
    }
    Ok(binding.node_id)
}

fn read_token(path: Option<&Path>) -> anyhow::Result<Token> {
    let refuse = |reason: String| Failure::new(Exit::Usage, reason);
    let (source, from): (Box<dyn Read>, String) = match path {
        Some(path) => {
            let file = std::fs::File::open(path)
                .map_err(|error| refuse(format!("--token-file {}: {error}", path.display())))?;
            (Box::new(file), path.display().to_string())
        }
        None => {
            if io::stdin().is_terminal() {
                eprint!("Token: ");
                io::stderr().flush()?;
            }
            (Box::new(io::stdin()), "standard input".to_owned())
        }
    };
    let mut text = Zeroizing::new(String::new());
    // One line: whoever types it ends it so.
    io::BufReader::new(source.take(TOKEN_BYTES_MAX)).read_line(&mut text)?;
    Token::new(text.trim()).ok_or_else(|| refuse(format!("{from} holds no token")).into())
}
