//! From a host to the addresses that are connected to: resolved once, each checked, and no others used.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use super::server::AddressPolicy;

/// Looks up the addresses of a name.
type Lookup = Arc<dyn Fn(Name) -> Looking + Send + Sync>;

type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// A resolver whose answers pass a policy. One that changes its answer between two questions wins
/// nothing: what was checked is what is connected to (DNS rebinding).
#[derive(Clone)]
pub(super) struct Resolver {
    policy: Option<AddressPolicy>,
    lookup: Lookup,
}

/// A host has an address to which no connection may be made; travels through hyper.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no connection may be made to {0}")]
pub(super) struct Forbidden(pub(super) IpAddr);

impl Resolver {
    /// The system's.
    pub(super) fn new(policy: Option<AddressPolicy>) -> Resolver {
        Resolver::over(policy, Arc::new(of_system))
    }

    /// One that looks names up in another way.
    pub(super) fn over(policy: Option<AddressPolicy>, lookup: Lookup) -> Resolver {
        Resolver { policy, lookup }
    }

    /// Checks a host that is written as an address, which no resolver is asked about.
    pub(super) fn check_literal(&self, host: &str) -> Result<(), Forbidden> {
        match host.parse::<IpAddr>() {
            Ok(address) => check(self.policy.as_ref(), address),
            Err(_) => Ok(()),
        }
    }
}

fn of_system(name: Name) -> Looking {
    let looking = GaiResolver::new().call(name);
    Box::pin(async { Ok(looking.await?.collect()) })
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
        let looking = (self.lookup)(name);
        Box::pin(async move {
            let addresses = looking.await?;
            // A name that has an address of each kind is one that tries something: all or none.
            for address in &addresses {
                check(policy.as_ref(), address.ip())?;
            }
            Ok(addresses.into_iter())
        })
    }
}
