//! `refuge db secret`: what opens other servers, kept by the node for its replications.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::Session;
use super::super::exit::{Exit, Failure};
use super::super::place::PlaceArgs;
use crate::app::Held;
use crate::http::{Method, Request};
use crate::id::SecretName;
use crate::node::StoredSecret;

/// The most bytes of a secret that are read.
const SECRET_BYTES_MAX: u64 = 4096;

#[derive(Subcommand)]
pub(super) enum SecretCommand {
    /// Keep a password or token, in place of any of that name
    Put {
        /// What replications call it
        #[arg(value_name = "NAME")]
        name: SecretName,
        /// The name that goes with a password; a token has none
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// A file with the password or token; `-` reads standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the names; the secrets themselves are never shown
    Ls {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Forget a secret
    Rm {
        /// Which
        #[arg(value_name = "NAME")]
        name: SecretName,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Deserialize, Serialize)]
struct Names {
    secrets: Vec<SecretName>,
}

impl SecretCommand {
    pub(super) fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        match self {
            SecretCommand::Put {
                name,
                user,
                file,
                place,
            } => {
                let text = read(file)?;
                let secret = StoredSecret::new(user.clone(), text.trim_end_matches(['\r', '\n']).to_owned())?;
                match place.open(session, false)?.held {
                    Held::Folder(node) => session
                        .runtime
                        .block_on(node.secrets().put(name.clone(), secret))?,
                    Held::Node(client) => {
                        let body = json!({"user": secret.user, "secret": secret.reveal()});
                        client.send(Request::new(Method::PUT, format!("/api/secrets/{name}")).json(&body))?;
                    }
                }
            }
            SecretCommand::Ls { place } => {
                let names = match place.open(session, false)?.held {
                    Held::Folder(node) => Names {
                        secrets: session.runtime.block_on(node.secrets().list())?,
                    },
                    Held::Node(client) => client.json(Request::new(Method::GET, "/api/secrets"))?,
                };
                let text = || {
                    names
                        .secrets
                        .iter()
                        .map(|name| format!("{name}\n"))
                        .collect::<String>()
                };
                session.output.result(&names, || text().trim_end().to_owned())?;
            }
            SecretCommand::Rm { name, place } => match place.open(session, false)?.held {
                Held::Folder(node) => session.runtime.block_on(node.secrets().remove(name.clone()))?,
                Held::Node(client) => {
                    client.send(Request::new(Method::DELETE, format!("/api/secrets/{name}")))?;
                }
            },
        }
        Ok(())
    }
}

fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin()
            .lock()
            .take(SECRET_BYTES_MAX)
            .read_to_string(&mut text),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
        }
    };
    read.map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", file.display())))?;
    Ok(text)
}
