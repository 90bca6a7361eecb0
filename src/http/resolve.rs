//! From a host to the addresses that are connected to: resolved once, each checked, and no others used.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use super::server::AddressPolicy;

/// The system's resolver, whose answers pass a policy. One that changes its answer between two questions wins
/// nothing: what was checked is what is connected to (DNS rebinding).
#[derive(Clone)]
pub(super) struct Resolver {
    policy: Option<AddressPolicy>,
}

/// A host has an address to which no connection may be made; travels through hyper.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no connection may be made to {0}")]
pub(super) struct Forbidden(pub(super) IpAddr);

impl Resolver {
    pub(super) fn new(policy: Option<AddressPolicy>) -> Resolver {
        Resolver { policy }
    }

    /// Checks a host that is written as an address, which no resolver is asked about.
    pub(super) fn check_literal(&self, host: &str) -> Result<(), Forbidden> {
        match host.parse::<IpAddr>() {
            Ok(address) => check(self.policy.as_ref(), address),
            Err(_) => Ok(()),
        }
    }
}

fn check(policy: Option<&AddressPolicy>, address: IpAddr) -> Result<(), Forbidden> {
    match policy.is_none_or(|allows| allows(address)) {
        true => Ok(()),
        false => Err(Forbidden(address)),
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = self.policy.clone();
        let resolving = GaiResolver::new().call(name);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolving.await?.collect();
            // A name that has an address of each kind is one that tries something: all or none.
            for address in &addresses {
                check(policy.as_ref(), address.ip())?;
            }
            Ok(addresses.into_iter())
        })
    }
}
