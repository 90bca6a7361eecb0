//! `refuge serve`: runs a node.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use serde::Serialize;
use tracing::level_filters::LevelFilter;

use super::exit::{Exit, Failure};
use crate::app::{self, Ready};
use crate::config::{Config, LogLevel, Raw};
use crate::id::NodeId;

/// Run a node until it is told to stop
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  refuge serve --data ~/refuge
  refuge serve --data /srv/refuge --listen 0.0.0.0:443 --plain-http 0.0.0.0:80

Plain HTTP serves data on loopback only; elsewhere it is a page that leads to HTTPS.
Flags win over the environment (REFUGE_DATA, REFUGE_LISTEN, REFUGE_PLAIN_HTTP, REFUGE_AUTHORITIES,
REFUGE_ORIGINS, REFUGE_REPLICATE_ALLOW, REFUGE_SECURITY_CONTACT, REFUGE_LOG, REFUGE_BOARD, REFUGE_CLAIM_CODE_FILE,
REFUGE_NOTES_FILE), and that over the file of --config, which has the keys data, listen, plain_http, authorities, origins,
replicate_allow, security_contact, log, board, claim_code_file, notes_file, confine and store_folders.")]
pub(super) struct Args {
    /// The data folder; made where it is not there
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where HTTPS listens [default: 0.0.0.0:8443]; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where plain HTTP listens [default: 127.0.0.1:8080]; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT")]
    plain_http: Option<String>,
    /// Another `host[:port]` that browsers may use, for example of a port forward
    #[arg(long = "authority", value_name = "HOST[:PORT]")]
    authorities: Option<Vec<String>>,
    /// Whom /.well-known/security.txt says to tell of a vulnerability, for example mailto:security@example.org
    #[arg(long, value_name = "URI")]
    security_contact: Option<String>,
    /// An origin whose pages may use the documents with a token, for example `https://app.example.org`
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Option<Vec<String>>,
    /// Addresses that replications and updates may reach besides the public internet, for example 192.168.1.0/24
    #[arg(long = "replicate-allow", value_name = "RANGE")]
    replicate_allow: Option<Vec<String>>,
    /// How much is logged: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// The board's profile (board.toml): its light shows how the node is
    #[arg(long, value_name = "FILE")]
    board: Option<String>,
    /// A file with the claim code of a node that has no owner yet, in place of one of its own
    #[arg(long, value_name = "FILE")]
    claim_code_file: Option<String>,
    /// A file with what was wrong before the node started: its owner is told
    #[arg(long, value_name = "FILE")]
    notes_file: Option<String>,
    /// Give up everything but the data folder, the ports and `--store-folder` (Landlock)
    #[arg(long)]
    confine: bool,
    /// Another folder that stores may be in when confined, such as one where disks are mounted
    #[arg(long = "store-folder", value_name = "DIR")]
    store_folders: Option<Vec<String>>,
    /// A configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct ReadyLine {
    https: String,
    http: String,
    node_id: NodeId,
    fingerprint: String,
    claim_code: Option<String>,
}

pub(super) fn run(args: Args, is_json: bool) -> anyhow::Result<Exit> {
    let flags = Raw {
        data: args.data,
        listen: args.listen,
        plain_http: args.plain_http,
        authorities: args.authorities,
        security_contact: args.security_contact,
        origins: args.origins,
        replicate_allow: args.replicate_allow,
        log: args.log,
        board: args.board,
        claim_code_file: args.claim_code_file,
        notes_file: args.notes_file,
        confine: args.confine.then_some(true),
        store_folders: args.store_folders,
    };
    let config = Config::load(flags, args.config.as_deref())
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    app::log(level(config.log));
    app::harden();
    app::confine(&config)?;
    let runtime = app::runtime()?;
    app::serve(&config, &runtime, |ready| announce(ready, is_json))?;
    Ok(Exit::Done)
}

fn announce(ready: &Ready, is_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if is_json {
        let line = ReadyLine {
            https: format!("https://{}", reachable(ready.https)),
            http: format!("http://{}", reachable(ready.http)),
            node_id: ready.node_id,
            fingerprint: ready.fingerprint.to_string(),
            claim_code: ready.claim_code.clone(),
        };
        serde_json::to_writer(&mut out, &line)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", welcome(ready, network_address(ready.https)))?;
    }
    Ok(out.flush()?)
}

fn welcome(ready: &Ready, network: Option<SocketAddr>) -> String {
    let https = reachable(ready.https);
    let mut text = format!("Refuge is running.\n\n  this machine  https://{https}\n");
    if let Some(network) = network {
        text.push_str(&format!("  your network  https://{network}\n"));
    }
    text.push_str(&format!(
        "  plain HTTP    http://{}\n  node id       {}\n  fingerprint   {}\n",
        reachable(ready.http),
        ready.node_id,
        ready.fingerprint,
    ));
    if let Some(code) = &ready.claim_code {
        text.push_str(&format!(
            "  claim code    {code}\n\nIt has no owner yet. Whoever has the code becomes it: open the first address in a browser\n(it will say that it does not know the certificate: compare the fingerprint), or run\n\n  refuge claim https://{https} {code}\n",
        ));
    }
    text.push('\n');
    text
}

/// As it can be used on this machine: nobody connects to "any address".
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// As other machines reach it, where it listens for them: the address this machine would send from.
fn network_address(bound: SocketAddr) -> Option<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return None;
    }
    // Choosing a route sends nothing; 192.0.2.1 is an address for documentation (RFC 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| SocketAddr::new(ip, bound.port()))
}

fn level(log: LogLevel) -> LevelFilter {
    match log {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
