//! `refuge db replicate`: a database kept alike with another, by this process or by a running node.

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::Session;
use super::super::exit::{Exit, Failure};
use super::super::known::Known;
use super::super::place::PlaceArgs;
use crate::app::{self, Held, KnownNode};
use crate::http::{Client, Method, Patience, Request, ServerUrl, Token};
use crate::id::SecretName;
use crate::node::{Node, ReplicationRequest};

/// The longest answer of a node.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Args)]
pub(super) struct ReplicateArgs {
    /// Where documents come from: a database of the place, or a URL such as `https://box.local:8443/db/notes`
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where they go, likewise
    #[arg(value_name = "TARGET")]
    target: String,
    /// Go on for changes to come
    #[arg(long)]
    continuous: bool,
    /// Make the target where it is not there
    #[arg(long)]
    create_target: bool,
    /// These documents alone, with commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "selector")]
    doc_ids: Option<Vec<String>>,
    /// The documents alone that this Mango selector (JSON) matches
    #[arg(long, value_name = "JSON")]
    selector: Option<String>,
    /// Begin after this sequence of the source
    #[arg(long, value_name = "SEQ")]
    since: Option<String>,
    /// What opens the source: a secret of the place (`refuge db secret`), in place of a password in the URL
    #[arg(long, value_name = "NAME")]
    source_secret: Option<SecretName>,
    /// What opens the target, likewise
    #[arg(long, value_name = "NAME")]
    target_secret: Option<SecretName>,
    /// End the continuous replication that this is
    #[arg(long, requires = "node")]
    cancel: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// What was done, as it is printed.
#[derive(Serialize)]
struct Replicated {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    docs_written: u64,
    doc_write_failures: u64,
    #[serde(skip_serializing_if = "Value::is_null")]
    source_last_seq: Value,
}

/// Replicates, and prints how many revisions were written.
pub(super) fn replicate(args: &ReplicateArgs, session: &mut Session) -> anyhow::Result<()> {
    let known = Known::read()?;
    let body = body_of(args, &known)?;
    let answer = match args.place.open(session, args.create_target)?.held {
        Held::Folder(node) => of_folder(node, &body, &known, session)?,
        Held::Node(client) => of_node(&client, &body)?,
    };
    let entry = &answer["history"][0];
    // A session that had nothing to do left no entry: the newest is of an earlier one.
    let is_new = entry["session_id"] == answer["session_id"];
    let count = |name: &str| entry[name].as_u64().filter(|_| is_new).unwrap_or(0);
    let replicated = Replicated {
        id: answer["_local_id"].as_str().map(str::to_owned),
        docs_written: count("docs_written"),
        doc_write_failures: count("doc_write_failures"),
        source_last_seq: answer["source_last_seq"].clone(),
    };
    session.output.result(&replicated, || match &replicated.id {
        Some(id) => id.clone(),
        None => format!("{} revisions written", replicated.docs_written),
    })?;
    match replicated.doc_write_failures {
        0 => Ok(()),
        several => {
            let why = format!("{several} revisions could not be written: the log of the target says why");
            Err(Failure::new(Exit::Partial, why).into())
        }
    }
}

fn of_folder(node: Node, body: &Value, known: &Known, session: &Session) -> anyhow::Result<Value> {
    let request =
        ReplicationRequest::parse(body).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let known = known.all().map(|entry| KnownNode {
        url: entry.url.clone(),
        node_id: entry.node_id,
        token: Token::new(&entry.token),
    });
    let done = app::replicate(node, known.collect(), request, &session.runtime)?;
    Ok(json!({
        "session_id": done.session_id,
        "source_last_seq": done.source_last_seq,
        "history": done.history,
    }))
}

fn of_node(client: &Client, body: &Value) -> anyhow::Result<Value> {
    let request = Request::new(Method::POST, "/db/_replicate")
        .json(body)
        .patience(Patience::Long);
    Ok(client.send(request)?.json(ANSWER_BYTES_MAX)?)
}

fn body_of(args: &ReplicateArgs, known: &Known) -> anyhow::Result<Value> {
    let mut body = json!({
        "source": endpoint(&args.source, args.source_secret.as_ref(), known),
        "target": endpoint(&args.target, args.target_secret.as_ref(), known),
        "continuous": args.continuous,
        "create_target": args.create_target,
    });
    if let Some(ids) = &args.doc_ids {
        body["doc_ids"] = json!(ids);
    }
    if let Some(selector) = &args.selector {
        let wrong =
            |error: serde_json::Error| Failure::new(Exit::Usage, format!("--selector is no JSON: {error}"));
        body["selector"] = serde_json::from_str(selector).map_err(wrong)?;
    }
    if let Some(since) = &args.since {
        body["since_seq"] = json!(since);
    }
    if args.cancel {
        body["cancel"] = json!(true);
    }
    Ok(body)
}

/// A database of the place by its name, or one of a server with what is known of it: who a node must prove to be is no secret and goes
/// along, a token stays.
fn endpoint(text: &str, secret: Option<&SecretName>, known: &Known) -> Value {
    let url = ServerUrl::parse(text).ok().map(|(url, _)| url);
    let Some(url) = url else {
        return json!(text);
    };
    let mut endpoint = json!({ "url": text });
    if let Some(secret) = secret {
        endpoint["auth"] = json!({ "secret": secret });
    }
    let node = url.node().filter(|_| url.is_https());
    if let Some(entry) = node.and_then(|node| known.find(&node)) {
        endpoint["node_id"] = json!(entry.node_id.to_string());
    }
    endpoint
}
