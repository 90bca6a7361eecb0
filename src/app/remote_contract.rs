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

contract!(@each remote, Keeps::Nothing,
    what_was_appended_shows_after_the_flush_and_not_before
    putting_again_keeps_one_copy_and_says_so
    small_blobs_of_every_edge_size_come_back
    streams_of_every_edge_size_come_back
    a_wrong_expected_id_keeps_nothing
    a_dropped_stream_leaves_nothing
    one_blob_streamed_twice_at_once_is_stored_once
    threads_putting_the_same_blob_all_succeed
    threads_see_their_own_blobs_after_their_own_flush
    classes_only_rise
    what_is_read_at_any_offset_is_the_blob
    readers_outlive_what_happens_to_other_blobs
    a_list_is_sorted_and_goes_on_after_any_id
    a_list_survives_changes_while_it_is_read
    stat_answers_in_the_order_asked
    deleted_blobs_are_gone_and_may_come_back
    what_was_not_flushed_is_whole_or_absent_after_reopening
    a_healthy_store_is_found_healthy
    compaction_loses_nothing_and_readers_go_on
);
