//! From what a request names to a peer: whom to trust there, what opens it, which addresses it may have.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Options;
use super::http::HttpPeer;
use super::local::{Filter, LocalPeer};
use super::peer::{Failure, Peer, Trouble};
use crate::http::{
    Basic, Client, Credentials, Proof, Roots, Server, ServerUrl, Token, Trust, public_or_listed,
};
use crate::node::{Endpoint, Node, Opens, Remote};

/// A peer, and what it is called in ids: no credentials in it but a name.
pub(super) struct Place {
    pub(super) peer: Arc<dyn Peer>,
    pub(super) identity: String,
}

/// Finds the peer that `endpoint` names. Connects to nothing yet.
///
/// # Errors
/// [`Trouble::Fatal`] where there can't be one, [`Trouble::Missing`] for a secret that is not there.
pub(super) async fn find(
    node: &Node,
    options: &Options,
    endpoint: &Endpoint,
    filter: Filter,
) -> Result<Place, Failure> {
    match endpoint {
        Endpoint::Local(name) => Ok(Place {
            identity: name.to_string(),
            peer: Arc::new(LocalPeer::new(node.clone(), name.clone(), filter)),
        }),
        Endpoint::Remote(remote) => {
            let (url, credentials) = opened(node, options, remote).await?;
            let user = match &credentials {
                Some(Credentials::Basic(basic)) => format!("{}@", basic.user()),
                Some(Credentials::Bearer(_)) | None => String::new(),
            };
            let identity = format!("{user}{url}");
            let server = Server {
                proof: proof(options, remote, &url)?,
                // What is sent in the clear goes to addresses alone that the owner lists.
                policy: Some(public_or_listed(options.allowed.clone(), url.is_https())),
                credentials,
                url,
            };
            let client = Client::of(server, Handle::current());
            let client = client.map_err(|error| Failure::fatal(error.to_string()))?;
            Ok(Place {
                identity,
                peer: Arc::new(HttpPeer::new(client, filter)),
            })
        }
    }
}

async fn opened(
    node: &Node,
    options: &Options,
    remote: &Remote,
) -> Result<(ServerUrl, Option<Credentials>), Failure> {
    let parsed = ServerUrl::parse(&remote.url);
    let (url, basic) = parsed.map_err(|error| Failure::fatal(error.to_string()))?;
    if url.base().is_empty() {
        return Err(Failure::fatal(format!("{url} names no database")));
    }
    let unsent = || Failure::fatal("the credentials can't be sent as they are");
    let known = || {
        let known = url.node().and_then(|node| options.known(&node)?.token.clone());
        known.map(Credentials::Bearer)
    };
    let credentials = match &remote.opens {
        None => basic.map(Credentials::Basic).or_else(known),
        Some(Opens::Basic { user, password }) => {
            Some(Credentials::Basic(Basic::new(user, password).ok_or_else(unsent)?))
        }
        Some(Opens::Bearer(token)) => Some(Credentials::Bearer(Token::new(token).ok_or_else(unsent)?)),
        Some(Opens::Secret(name)) => {
            let secret = node.secrets().reveal(name.clone()).await?;
            Some(match &secret.user {
                Some(user) => Credentials::Basic(Basic::new(user, secret.reveal()).ok_or_else(unsent)?),
                None => Credentials::Bearer(Token::new(secret.reveal()).ok_or_else(unsent)?),
            })
        }
    };
    Ok((url, credentials))
}

fn proof(options: &Options, remote: &Remote, url: &ServerUrl) -> Result<Proof, Failure> {
    let known = url.node().and_then(|node| options.known(&node));
    match (
        url.is_https(),
        remote.node_id.or(known.map(|known| known.node_id)),
        &remote.pem,
    ) {
        (true, Some(node_id), _) => Ok(Proof::Node(Trust::Pinned(node_id))),
        (true, None, Some(pem)) => Roots::of_pem(pem.as_bytes())
            .map(Proof::Roots)
            .map_err(|error| Failure::fatal(error.to_string())),
        (true, None, None) => Roots::of_system()
            .map(Proof::Roots)
            .map_err(|error| Failure::new(Trouble::Refused, error.to_string())),
        (false, None, None) => Ok(Proof::Nothing),
        (false, _, _) if remote.node_id.is_none() && remote.pem.is_none() => Ok(Proof::Nothing),
        (false, _, _) => Err(Failure::fatal(format!(
            "{url} can't prove who it is over plain HTTP: use https"
        ))),
    }
}
