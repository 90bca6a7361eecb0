//! Where a command works: on a data folder of this machine, or on a running node.

use std::path::PathBuf;

use clap::Args;

use super::Session;
use super::exit::{Exit, Failure};
use super::known::Known;
use crate::app::{Access, Place};
use crate::http::{Channel, NodeUrl, Token, Trust};
use crate::id::{NodeId, StoreName};
use crate::node::{self, Node};

/// The environment variable that holds a token.
const TOKEN_VARIABLE: &str = "REFUGE_TOKEN";

#[derive(Args)]
#[command(next_help_heading = "Where")]
pub(super) struct PlaceArgs {
    /// A data folder of this machine; no server needed
    #[arg(long, value_name = "DIR", conflicts_with = "node")]
    pub(super) data: Option<PathBuf>,
    /// A running node, for example https://192.168.1.5:8443; known after `refuge claim`
    #[arg(long, value_name = "URL")]
    node: Option<NodeUrl>,
    /// The id that the node must prove, where it is not known from `refuge claim`
    #[arg(long, value_name = "ID", requires = "node")]
    node_id: Option<NodeId>,
    /// A file that holds a token, where it is not known from `refuge claim` or REFUGE_TOKEN
    #[arg(long, value_name = "FILE", requires = "node")]
    token_file: Option<PathBuf>,
    /// The named store
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(super) store: StoreName,
}

impl PlaceArgs {
    /// Opens the place. With `create`, a data folder that is not there is made.
    pub(super) fn open(&self, session: &Session, create: bool) -> anyhow::Result<Place> {
        let access = self.access(create)?;
        Place::open(access, &self.store, session.runtime.handle())
    }

    /// The certificate (DER) of the node that is meant, also of one that is not known yet.
    pub(super) fn certificate(&self, session: &Session) -> anyhow::Result<Vec<u8>> {
        if let Some(data) = &self.data {
            let node = Node::open(node::Options {
                create: false,
                ..node::Options::new(data)
            })?;
            return Ok(node.identity().certificate_der().to_vec());
        }
        let known = Known::read()?;
        let url = match &self.node {
            Some(url) => url.clone(),
            None => known.only()?.url.clone(),
        };
        let node_id = self.node_id.or(known.find(&url).map(|entry| entry.node_id));
        let trust = node_id.map_or(Trust::FirstContact, Trust::Pinned);
        let channel = Channel::open(
            url.clone(),
            trust,
            node::CLAIM_EXPORTER_LABEL,
            session.runtime.handle().clone(),
        )?;
        match channel.certificate_der() {
            Some(der) => Ok(der.to_vec()),
            None => Err(Failure::new(Exit::Usage, format!("{url} proves nothing: ask over https")).into()),
        }
    }

    fn access(&self, create: bool) -> anyhow::Result<Access> {
        if let Some(data) = &self.data {
            return Ok(Access::Folder {
                data: data.clone(),
                create,
            });
        }
        let known = Known::read()?;
        let url = match &self.node {
            Some(url) => url.clone(),
            None => known.only()?.url.clone(),
        };
        let entry = known.find(&url);
        let node_id = self.node_id.or(entry.map(|entry| entry.node_id));
        let token = self.token()?.or(entry.and_then(|entry| Token::new(&entry.token)));
        if url.is_https() && node_id.is_none() {
            return Err(Failure::new(
                Exit::Refused,
                format!("{url} is not known yet: run `refuge claim {url} CODE`, or say whom to expect with --node-id"),
            )
            .into());
        }
        let trust = node_id.map_or(Trust::FirstContact, Trust::Pinned);
        Ok(Access::Node { url, trust, token })
    }

    fn token(&self) -> anyhow::Result<Option<Token>> {
        let (text, from) = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::new(Exit::Usage, format!("--token-file {}: {error}", path.display()))
                })?;
                (text, "the file of --token-file")
            }
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(text) => (text, TOKEN_VARIABLE),
                Err(_) => return Ok(None),
            },
        };
        match Token::new(&text) {
            Some(token) => Ok(Some(token)),
            None => Err(Failure::new(Exit::Usage, format!("{from} holds no token")).into()),
        }
    }
}
