//! The contract of an engine, kept on a server: the engine `couchdb` against a node on loopback, and what becomes of a group where
//! that is cut off.

mod cuts;
mod owners;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::served_node::served_node;
use crate::blanket::contract::{Subject, contract};
use crate::blanket::{Opener, ServerPlace, Servers};
use crate::id::SecretName;

/// A node that is served until the tests of this process end.
#[derive(Clone)]
struct Far {
    address: SocketAddr,
    /// Where databases are on it.
    base: &'static str,
    token: Option<String>,
    runtime: Handle,
}

/// Serves a node in `folder`.
fn served(folder: &Path) -> Far {
    let node = served_node(folder);
    Far {
        address: node.address,
        base: "/db",
        token: Some(node.token),
        runtime: node.runtime,
    }
}

/// The server of another kind that the suite is run on instead, where there is one: `http://ADDRESS:PORT`.
const OTHER: &str = "REFUGE_COUCHDB_URL";

/// The server that the suite is run on: a node in `folder`, or another one.
fn far(folder: &Path) -> Far {
    let Ok(url) = std::env::var(OTHER) else {
        return served(folder);
    };
    let address = url
        .strip_prefix("http://")
        .and_then(|address| address.parse().ok());
    let runtime = super::runtime().expect("a runtime");
    let handle = runtime.handle().clone();
    std::mem::forget(runtime);
    Far {
        address: address.expect("http://ADDRESS:PORT"),
        base: "",
        token: None,
        runtime: handle,
    }
}

impl Far {
    /// A database that is not there yet, reached at another address.
    fn place_at(&self, address: SocketAddr) -> ServerPlace {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("random numbers");
        let secret = self.token.as_ref().map(|_| "far".parse().expect("a name"));
        ServerPlace {
            url: format!("http://{address}{}/rows-{}", self.base, HEXLOWER.encode(&random)),
            secret,
            node_id: None,
        }
    }

    /// A database that is not there yet.
    fn place(&self) -> ServerPlace {
        self.place_at(self.address)
    }

    /// How it is reached.
    fn servers(&self) -> Servers {
        let token = self.token.clone();
        let reveal = move |name: &SecretName| {
            let secret = token.clone().filter(|_| name.as_str() == "far")?;
            Some(Opener {
                user: None,
                secret: Zeroizing::new(secret),
            })
        };
        Servers {
            reach: Some((self.runtime.clone(), Arc::new(|_, address| address.is_loopback()))),
            reveal: Some(Arc::new(reveal)),
        }
    }
}

fn fresh(folder: &Path) -> (ServerPlace, Servers) {
    let far = far(&folder.join("far"));
    (far.place(), far.servers())
}

contract!(@of Subject::on_server(fresh));
