//! A node on loopback, served over HTTP for the contracts that are kept at a distance.

use std::net::SocketAddr;
use std::path::Path;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::api::serve::Listener;
use crate::api::{self, serve};
use crate::id::AccountName;
use crate::node::{self, Node, Role, TokenRequest};

/// A node, and what opens it.
pub(super) struct ServedNode {
    /// Where it listens, for plain HTTP.
    pub(super) address: SocketAddr,
    /// Its owner's.
    pub(super) token: String,
    /// What serves it.
    pub(super) runtime: Handle,
}

/// Serves a node in `folder` until the tests of this process end.
pub(super) fn served_node(folder: &Path) -> ServedNode {
    let node = Node::open(node::Options::new(folder)).expect("a node");
    let runtime = super::runtime().expect("a runtime");
    let (token, address) = runtime.block_on(async {
        let owner: AccountName = "owner".parse().expect("a name");
        let accounts = node.accounts();
        let added = accounts.add(owner.clone(), Role::Owner, None).await;
        added.expect("an account");
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
    let handle = runtime.handle().clone();
    // The node is served by threads of this runtime: it ends with the process.
    std::mem::forget(runtime);
    ServedNode {
        address,
        token,
        runtime: handle,
    }
}
