//! The contract of a backend, kept over HTTP: the remote backend against a node on loopback.
//!
//! Not of the suite are quarantine and made-up aliases: a node sets its own blobs aside, and makes an alias only of
//! bytes that have that digest.

use std::path::Path;

use super::served_node::served_node;
use crate::coffer::contract::{Keeps, contract};
use crate::coffer::{Backend, Remote};
use crate::http::{Client, Token, Trust};
use crate::id::StoreName;

/// A client of a node in `folder`, which is served until the tests end.
fn remote(folder: &Path) -> Box<dyn Backend> {
    let node = served_node(&folder.join("node"));
    let url = format!("http://{}", node.address).parse().expect("a URL");
    let client = Client::new(url, Trust::FirstContact, Token::new(&node.token), node.runtime);
    Box::new(Remote::new(client.expect("a client"), &StoreName::main()))
}

contract!(@of_every_backend remote, Keeps::Nothing);
