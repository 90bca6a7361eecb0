//! Starting a node: storage, then the node, then its edges; bound last, announced last.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use super::confine::{self, Limits};
use super::supervise::Supervisor;
use super::{housekeeping, notice};
use crate::api;
use crate::api::serve::Listener;
use crate::board::{self, Profile};
use crate::config::Config;
use crate::discovery;
use crate::http;
use crate::id::{Fingerprint, NodeId};
use crate::node::{self, Node};
use crate::replicate;

/// A node that answers: what its owner needs to reach and claim it.
pub struct Ready {
    /// Where HTTPS listens.
    pub https: SocketAddr,
    /// Where plain HTTP listens.
    pub http: SocketAddr,
    /// Who the node is.
    pub node_id: NodeId,
    /// What browsers show of its certificate's key.
    pub fingerprint: Fingerprint,
    /// What claims it, for the console alone; `None` once it is claimed.
    pub claim_code: Option<String>,
}

/// Confines this process to what the configuration names, where it says so; to be done before [`runtime`](super::runtime())
/// starts threads.
///
/// # Errors
/// Where the data folder can't be made, or the kernel refuses what it says it can do.
pub fn confine(config: &Config) -> anyhow::Result<()> {
    if !config.confine {
        return Ok(());
    }
    let folders = [&config.data].into_iter().chain(&config.store_folders);
    // A profile that is none is told of when the board is opened.
    let board = config
        .board
        .as_deref()
        .and_then(|board| Profile::read(board).ok());
    let disks = config.board.iter().map(|_| PathBuf::from(board::DISKS_FOLDER));
    let sensors = config.board.iter().map(|_| PathBuf::from("/sys"));
    let zone = config.board.iter().map(|_| PathBuf::from(board::ZONE_FILE));
    // What vouches for servers that documents are replicated with.
    let roots = http::ROOT_FILES.into_iter().map(PathBuf::from);
    let limits = Limits {
        folders: folders.cloned().chain(disks).collect(),
        files: config
            .board
            .iter()
            .cloned()
            .chain(sensors)
            .chain(roots)
            .chain(zone)
            .collect(),
        devices: board.as_ref().map_or_else(Vec::new, board::devices),
        ports: vec![config.listen.port(), config.plain_http.port()],
    };
    confine::confine(&limits)
        .map_err(|error| anyhow!("cannot be confined to {}: {error}", config.data.display()))
}

/// Runs a node until the process is told to stop; `announce` hears when it answers. Returns when everything
/// under way has ended or its time is over.
///
/// # Errors
/// What kept it from starting, or from going on.
pub fn serve(
    config: &Config,
    runtime: &Runtime,
    announce: impl FnOnce(&Ready) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Some(profile) = &config.board
        && runtime.block_on(board::is_held_at_start(profile))
    {
        recover(config)?;
    }
    runtime.block_on(async {
        let mut supervisor = Supervisor::new()?;
        let opened = start_board(config, &mut supervisor);
        // Opening blocks, and the board's light is all that runs yet.
        let node = Node::open(node::Options {
            servers: reached(replicates_to(config), Handle::current()),
            claim_code: config.claim_code.clone(),
            note: config.note.clone(),
            is_on_trial: config.board.is_some() && board::is_on_trial().await,
            ..node::Options::new(&config.data)
        })?;
        let ready = start_edges(config, &node, &mut supervisor).await?;
        announce(&ready)?;
        notice::ready();
        // From here on the board edge asks for disks and updates, which takes other processes: the start had the processor to
        // itself. Without a board nobody waits for it.
        let _ = opened.send(node);
        supervisor.run().await
    })
}

/// Lets a new owner in: whoever holds the button down while the box starts stands before it.
fn recover(config: &Config) -> anyhow::Result<()> {
    match node::forget_owner(&config.data)? {
        Some(aside) => {
            tracing::warn!(aside = %aside.display(), "recovery: the accounts were set aside, the node can be claimed again");
        }
        None => tracing::info!("recovery: there are no accounts"),
    }
    Ok(())
}

/// Starts the board edge, which shows that the node starts until it gets it.
fn start_board(config: &Config, supervisor: &mut Supervisor) -> oneshot::Sender<Node> {
    let (opened, told) = oneshot::channel();
    if let Some(profile) = config.board.clone() {
        let options = board::Options {
            allowed: config.replicate_allow.clone(),
            ..board::Options::new(profile)
        };
        supervisor.spawn(|shutdown| async move {
            match board::run(told, options, shutdown).await {
                board::Ended::Shutdown => Ok(()),
                board::Ended::Reset => Err(anyhow!(
                    "factory reset: the next start makes a new node of this box"
                )),
                board::Ended::Proved => Err(anyhow!(
                    "this system is good: the next start brings what is on the disk to its form"
                )),
            }
        });
    }
    opened
}

async fn start_edges(config: &Config, node: &Node, supervisor: &mut Supervisor) -> anyhow::Result<Ready> {
    let tls = api::serve::server_config(node.identity())?;
    let https = Listener::tls(config.listen, tls)
        .await
        .map_err(|error| taken("listen", config.listen, &error))?;
    let http = Listener::plain(config.plain_http)
        .await
        .map_err(|error| taken("plain_http", config.plain_http, &error))?;
    let ready = Ready {
        https: https.address()?,
        http: http.address()?,
        node_id: node.identity().node_id(),
        fingerprint: node.identity().fingerprint(),
        claim_code: node.claim().code().map(|code| code.reveal()),
    };
    let options = api::Options {
        authorities: config.authorities.clone(),
        origins: config.origins.clone(),
        https_port: Some(ready.https.port()),
        security_contact: config.security_contact.clone(),
    };
    let router = api::router(node.clone(), options);
    let (fed, asked, port) = (node.clone(), router.clone(), ready.http.port());
    supervisor.spawn(|shutdown| notice::feed(fed, asked, port, shutdown));
    supervisor.spawn(|shutdown| async move {
        api::serve::serve(vec![https, http], router, shutdown).await;
        Ok(())
    });
    let reached = discovery::Options {
        https: ready.https,
        http: ready.http,
    };
    let told_of = node.clone();
    supervisor.spawn(|shutdown| async move {
        discovery::run(told_of, reached, shutdown).await;
        Ok(())
    });
    let options = replicates_to(config);
    let replicating = node.clone();
    supervisor.spawn(|shutdown| async move {
        replicate::run(replicating, options, shutdown).await;
        Ok(())
    });
    let (tended, collected, beating) = (node.clone(), node.clone(), node.clone());
    supervisor.spawn(|shutdown| housekeeping::beat(beating, shutdown));
    supervisor.spawn(|shutdown| housekeeping::tend(tended, shutdown));
    supervisor.spawn(|shutdown| housekeeping::collect(collected, shutdown));
    Ok(ready)
}

/// Where replications may go, and databases be.
fn replicates_to(config: &Config) -> replicate::Options {
    replicate::Options {
        allowed: config.replicate_allow.clone(),
        known: Vec::new(),
    }
}

/// Servers that databases are on: where replications may go as well.
pub(super) fn reached(options: replicate::Options, runtime: Handle) -> node::Servers {
    let allows = move |is_https, address| options.allows(is_https, address);
    node::Servers {
        reach: Some((runtime, Arc::new(allows))),
        reveal: None,
    }
}

/// An address that can't be bound is the configuration's fault: the key is named.
fn taken(key: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    anyhow!(
        "{key}: cannot listen on {address} ({error}): is another node running? --{} picks another, port 0 a free one",
        key.replace('_', "-")
    )
}
