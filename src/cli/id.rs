//! `refuge id`: who a node is.

use serde::Serialize;

use super::Session;
use super::exit::{Exit, Failure};
use super::place::PlaceArgs;
use crate::id::{NodeId, verify_binding};

/// Show a node's id, its short name and the fingerprint that browsers see
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge id --data ~/refuge
  refuge id --node https://192.168.1.5:8443 --cert > refuge.pem

Compare the fingerprint with the one on the node's console before you trust a node you have not claimed.")]
pub(super) struct Args {
    /// Print the certificate as PEM, for programs that must be told whom to trust
    #[arg(long)]
    cert: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line {
    node_id: NodeId,
    name: String,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

pub(super) fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let der = args.place.certificate(session)?;
    let binding = verify_binding(&der)
        .map_err(|error| Failure::new(Exit::Damaged, format!("the node's certificate: {error}")))?;
    let pem = args.cert.then(|| pem(&der));
    let line = Line {
        node_id: binding.node_id,
        name: format!("refuge-{}", binding.node_id.short()),
        fingerprint: binding.fingerprint.to_string(),
        certificate: pem.clone(),
    };
    session.output.result(&line, || match &pem {
        Some(pem) => pem.trim_end().to_owned(),
        None => format!(
            "node id      {}\nname         {}\nfingerprint  {}",
            line.node_id, line.name, line.fingerprint
        ),
    })?;
    Ok(Exit::Done)
}

/// RFC 7468, section 5.
fn pem(der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let lines = base64.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}
