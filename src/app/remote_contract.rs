//! The contract of a backend, kept over HTTP: the remote backend against a node on loopback.
//!
//! Not of the suite are quarantine and made-up aliases: a node sets its own blobs aside, and makes an alias only of
//! bytes that have that digest.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::api::serve::Listener;
use crate::api::{self, serve};
use crate::coffer::contract::{Keeps, contract};
use crate::coffer::{Backend, Remote};
use crate::http::{Client, Token, Trust};
use crate::id::{AccountName, StoreName};
use crate::node::{self, Node, Role, TokenRequest};

/// A client of a node in `folder`, which is served until the tests end.
fn remote(folder: &Path) -> Box<dyn Backend> {
    let node = Node::open(node::Options::new(folder.join("node"))).expect("a node");
    let runtime = super::runtime().expect("a runtime");
    let (token, address) = runtime.block_on(async {
        let owner: AccountName = "owner".parse().expect("a name");
        let accounts = node.accounts();
        accounts
            .add(owner.clone(), Role::Owner, None)
            .await
            .expect("an account");
        let request = TokenRequest {
            label: "test".to_owned(),
            scopes: Role::Owner.scopes(),
            expires: None,
        };
        let token = node.tokens().add(owner, request).await.expect("a token");
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::plain(any).await.expect("a listener");
        let address = listener.address().expect("an address");
        let router = api::router(node.clone(), api::Options::default());
        tokio::spawn(serve::serve(vec![listener], router, CancellationToken::new()));
        (token.secret.expose().to_owned(), address)
    });
    let url = format!("http://{address}").parse().expect("a URL");
    let client = Client::new(
        url,
        Trust::FirstContact,
        Token::new(&token),
        runtime.handle().clone(),
    );
    // The node is served by threads of this runtime: it ends with the process.
    std::mem::forget(runtime);
    Box::new(Remote::new(client.expect("a client"), &StoreName::main()))
}

contract!(@of_every_backend remote, Keeps::Nothing);
