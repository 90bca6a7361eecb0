//! `refuge claim`: becomes the owner of a node, by proof of the code on its console or after a press of its button.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Session;
use super::exit::{Exit, Failure};
use super::host;
use super::known::{Entry, Known};
use super::output::note;
use crate::http::{Channel, Method, NodeUrl, Request, Trust};
use crate::id::{AccountName, NodeId};
use crate::node::{CLAIM_EXPORTER_LABEL, ClaimCode, ClaimSide, claim_mac};

/// The most bytes of the node's answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The most bytes of a password file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Become the owner of a node, with its claim code or after a press of its button
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge claim https://192.168.1.5:8443 7K3M-9QXD-W2HB-5RTN
  refuge claim https://192.168.1.5        # within two minutes after a press of the box's button

The code itself is not sent: both sides prove that they know it, so nobody in between can claim the node or
pose as it. Without a code nothing is proved: compare the node id with the one on the console or label. A token for later commands is kept in $XDG_CONFIG_HOME/refuge/nodes.toml, for you alone.")]
pub(super) struct Args {
    /// The node, for example https://192.168.1.5:8443
    #[arg(value_name = "URL")]
    url: NodeUrl,
    /// The code, in any case, with or without dashes
    #[arg(value_name = "CODE")]
    code: Option<ClaimCode>,
    /// The name of the owner's account
    #[arg(long, value_name = "NAME", default_value = "owner")]
    account: AccountName,
    /// A file with the owner's password, to sign in with a browser as well; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Claim<'a> {
    account: &'a AccountName,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    label: String,
}

#[derive(Deserialize)]
struct Claimed {
    /// With a proof.
    #[serde(default)]
    answer: String,
    token: NewToken,
}

#[derive(Deserialize)]
struct NewToken {
    token: String,
}

#[derive(Serialize)]
struct Line {
    url: String,
    node_id: NodeId,
    account: AccountName,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let mut known = Known::read()?;
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    let mut channel = Channel::open(
        args.url.clone(),
        Trust::FirstContact,
        CLAIM_EXPORTER_LABEL,
        session.runtime.handle().clone(),
    )?;
    let (Some(node_id), Some(exporter)) = (channel.node_id(), channel.exporter()) else {
        let message = format!("{} proves nothing: claim the node over https", args.url);
        return Err(Failure::new(Exit::Usage, message).into());
    };
    let mac_of = |side| {
        let code = args.code.as_ref()?;
        Some(claim_mac(code, side, &exporter, &node_id))
    };
    let request = Request::new(Method::POST, "/api/claim").json(&Claim {
        account: &args.account,
        proof: mac_of(ClaimSide::Client).map(|mac| data_encoding::HEXLOWER.encode(&mac)),
        password: password.as_ref().map(|password| password.as_str()),
        label: format!("command line on {}", host::name()),
    });
    let claimed: Claimed = channel.send(request)?.json(ANSWER_BYTES_MAX)?;
    let answer = data_encoding::HEXLOWER_PERMISSIVE
        .decode(claimed.answer.as_bytes())
        .unwrap_or_default();
    let expected = mac_of(ClaimSide::Node);
    if expected.is_some_and(|expected| !bool::from(expected[..].ct_eq(&answer))) {
        let message = format!(
            "{} does not know the claim code: it is not the node you mean",
            args.url
        );
        return Err(Failure::new(Exit::Refused, message).into());
    }
    let path = known.remember(Entry {
        url: args.url.clone(),
        node_id,
        token: claimed.token.token,
    })?;
    let line = Line {
        url: args.url.to_string(),
        node_id,
        account: args.account,
    };
    session.output.result(&line, || {
        format!(
            "{} is yours: {}, account {}",
            line.url, line.node_id, line.account
        )
    })?;
    note(&format!("A token for later commands is in {}", path.display()));
    Ok(Exit::Done)
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let refuse = |reason: String| {
        Failure::new(
            Exit::Usage,
            format!("--password-file {}: {reason}", path.display()),
        )
    };
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?),
    };
    let mut text = Zeroizing::new(String::new());
    source
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| refuse(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(refuse("its first line is empty".to_owned()));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
