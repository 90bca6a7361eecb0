//! A bundle that another box runs: its parts that this one lacks.
//!
//! Where that box is, is a hint; that it is the one that was meant, it proves before anything is asked of it (security row S20).

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::own::Own;
use super::Failure;
use crate::http::{
    AddressPolicy, Client, Error as HttpError, Method, NodeUrl, Patience, Proof, Range, Request, Server,
    Trust, near_or_listed, public_or_listed,
};
use crate::id::{BlobId, BundleUrl, NodeId};
use crate::node::{
    Arriving, Available, BUNDLE_MANIFEST_BYTES_MAX, BundleManifest, BundlePart, Bundles, Node, Peer, Source,
    UpdateTrouble,
};

/// How long a box of the same network may take to say what it has.
const OFFER_WITHIN: Patience = Patience::Of(Duration::from_secs(10));

/// How long it may take for a part.
const PART_WITHIN: Patience = Patience::Of(Duration::from_secs(60));

/// How soon a box that is busy is asked again for a part, and how often: its limit lets sixty a second pass.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);
const ASKED_AGAIN_MAX: u32 = 40;

/// Boxes that are asked what they have, and how many at a time.
const ASKED_MAX: usize = 32;
const ASKED_AT_ONCE: usize = 4;

/// What another box has.
pub(super) struct Offer {
    client: Client,
    manifest: BundleManifest,
    manifest_bytes: u64,
}

/// Where the next part of a bundle comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// From an earlier place of the same bundle.
    Earlier(u64),
    /// From wherever it is to be had.
    Elsewhere,
}

/// Which parts are there: they come in order. Pure.
struct Assembly<'a> {
    left: std::slice::Iter<'a, BundlePart>,
    earlier: HashMap<BlobId, u64>,
    at: u64,
}

impl Offer {
    /// Asks the box what it has, at each address in turn.
    pub(super) async fn open(
        node: &Node,
        id: NodeId,
        at: Option<&BundleUrl>,
        allowed: &[Range],
    ) -> Result<Offer, Failure> {
        let from = format!("box:{id}");
        let (urls, policy) = match at {
            Some(at) => (vec![at.split().0.to_owned()], near_or_far(allowed)),
            None => {
                let peers = node.peers().list();
                let peer = peers.into_iter().find(|peer| peer.node == id);
                let urls = peer.map(|peer| peer.urls()).unwrap_or_default();
                (urls, near_or_listed(allowed.to_vec()))
            }
        };
        let unseen = "it was not seen on this network: say where it is, as box:NODE-ID@https://HOST";
        let mut last = Failure::elsewhere(&from, unseen.to_owned());
        for url in urls {
            match Offer::ask(&from, &url, id, &policy).await {
                Ok(offer) => return Ok(offer),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn ask(from: &str, url: &str, id: NodeId, policy: &AddressPolicy) -> Result<Offer, Failure> {
        let url: Option<NodeUrl> = url.parse().ok().filter(NodeUrl::is_https);
        let url =
            url.ok_or_else(|| Failure::elsewhere(from, "a box is reached at https://HOST".to_owned()))?;
        let server = Server {
            url: url.into(),
            proof: Proof::Node(Trust::Pinned(id)),
            credentials: None,
            policy: Some(policy.clone()),
        };
        let failed = |error| Failure::of_request(from, error);
        let client = Client::of(server, Handle::current()).map_err(failed)?;
        let request = Request::new(Method::GET, "/api/update/offer").patience(OFFER_WITHIN);
        let answer = client.ask(request).await.map_err(failed)?;
        let bytes = answer.whole(BUNDLE_MANIFEST_BYTES_MAX).await.map_err(failed)?;
        let manifest = BundleManifest::parse(&bytes);
        let manifest = manifest.map_err(|error| Failure::elsewhere(from, error.to_string()))?;
        Ok(Offer {
            client,
            manifest,
            manifest_bytes: bytes.len() as u64,
        })
    }

    /// What the bundle is made of.
    pub(super) fn manifest(&self) -> &BundleManifest {
        &self.manifest
    }

    /// Whether it is worth fetching: its signature is not known yet, but what the box says of it should be right.
    pub(super) fn fits(&self, own: &Own) -> Result<(), UpdateTrouble> {
        own.takes(&self.manifest.compatible, &self.manifest.version)
    }

    /// Brings the parts that are not there yet: what came before, what the bundle that runs has, and the rest from the box.
    pub(super) async fn bring(
        self,
        own: &Bundles,
        arriving: &mut Arriving,
        hear: &mut (impl FnMut(u64) + Send),
    ) -> Result<(), Failure> {
        let mut assembly = Assembly::new(&self.manifest.parts);
        self.look_at_what_came(&mut assembly, arriving).await?;
        let mut travelled_bytes = self.manifest_bytes;
        while let Some((part, next)) = assembly.next() {
            let bytes = match next {
                Next::Earlier(at) => arriving.read(at, part.size_bytes).await?,
                Next::Elsewhere => match own.own_part(part.id).await? {
                    Some(bytes) => bytes,
                    None => {
                        travelled_bytes += part.size_bytes;
                        self.part(&part).await?
                    }
                },
            };
            arriving.write(&bytes).await?;
            assembly.came(&part);
            hear(arriving.received());
        }
        let size_bytes = self.manifest.size_bytes;
        tracing::info!(from = %self.client.url(), travelled_bytes, size_bytes, "a bundle came from another box");
        Ok(())
    }

    /// The parts that came before the transfer was cut off are looked at again.
    async fn look_at_what_came(
        &self,
        assembly: &mut Assembly<'_>,
        arriving: &mut Arriving,
    ) -> Result<(), Failure> {
        for part in &self.manifest.parts {
            if assembly.at + part.size_bytes > arriving.received()
                || BlobId::of(&arriving.read(assembly.at, part.size_bytes).await?) != part.id
            {
                break;
            }
            assembly.next();
            assembly.came(part);
        }
        Ok(arriving.cut(assembly.at).await?)
    }

    /// A box that is asked by many, or too often, says so: it is asked again soon.
    async fn part(&self, part: &BundlePart) -> Result<Bytes, Failure> {
        let from = self.client.url().to_string();
        let failed = |error| Failure::of_request(&from, error);
        let path = format!("/api/update/offer/{}", part.id);
        let mut asked = 0;
        let answer = loop {
            let request = Request::new(Method::GET, path.clone()).patience(PART_WITHIN);
            asked += 1;
            match self.client.ask(request).await {
                Err(error) if asked < ASKED_AGAIN_MAX && is_busy(&error) => sleep(ASK_AGAIN_AFTER).await,
                answer => break answer.map_err(failed)?,
            }
        };
        let limit = usize::try_from(part.size_bytes).unwrap_or(0);
        let bytes = answer.whole(limit).await.map_err(failed)?;
        match BlobId::of(&bytes) == part.id {
            true => Ok(bytes.into()),
            false => Err(Failure::not_it(format!("{from} sends other bytes than it says"))),
        }
    }
}

/// Too many requests, or too much on its way.
fn is_busy(error: &HttpError) -> bool {
    let status = error.refusal().map(|refusal| refusal.status.as_u16());
    matches!(status, Some(429 | 503))
}

impl<'a> Assembly<'a> {
    fn new(parts: &'a [BundlePart]) -> Assembly<'a> {
        Assembly {
            left: parts.iter(),
            earlier: HashMap::new(),
            at: 0,
        }
    }

    /// The next part, and where it is to be had.
    fn next(&mut self) -> Option<(BundlePart, Next)> {
        let part = *self.left.next()?;
        let next = match self.earlier.get(&part.id) {
            Some(at) => Next::Earlier(*at),
            None => Next::Elsewhere,
        };
        Some((part, next))
    }

    /// It is there.
    fn came(&mut self, part: &BundlePart) {
        self.earlier.entry(part.id).or_insert(self.at);
        self.at += part.size_bytes;
    }
}

/// Asks the boxes that were seen on the network what they have for a box like this, and lists what is newer.
pub(super) async fn look(node: &Node, own: &Own, allowed: &[Range]) -> Vec<Available> {
    let policy = near_or_listed(allowed.to_vec());
    let (mut asking, mut found) = (JoinSet::new(), Vec::new());
    for peer in node.peers().list().into_iter().take(ASKED_MAX) {
        if asking.len() >= ASKED_AT_ONCE
            && let Some(Ok(Some(available))) = asking.join_next().await
        {
            found.push(available);
        }
        asking.spawn(look_at(peer, own.clone(), policy.clone()));
    }
    while let Some(asked) = asking.join_next().await {
        found.extend(asked.ok().flatten());
    }
    found.sort_by(|one, other| (&other.version, &one.place).cmp(&(&one.version, &other.place)));
    found
}

async fn look_at(peer: Peer, own: Own, policy: AddressPolicy) -> Option<Available> {
    for url in peer.urls() {
        let offer = match Offer::ask(&url, &url, peer.node, &policy).await {
            Ok(offer) => offer,
            Err(failure) => {
                tracing::debug!(?failure, %url, "a box does not say what it has");
                continue;
            }
        };
        if offer.fits(&own).is_err() {
            return None;
        }
        let source = Source::Node {
            node: peer.node,
            at: None,
        };
        return Some(Available {
            source,
            version: Some(offer.manifest.version),
            size_bytes: offer.manifest.size_bytes,
            place: format!("{} at {url}", peer.host),
        });
    }
    None
}

/// A box that the owner says where it is may be anywhere.
fn near_or_far(allowed: &[Range]) -> AddressPolicy {
    let (near, far) = (
        near_or_listed(allowed.to_vec()),
        public_or_listed(allowed.to_vec(), true),
    );
    std::sync::Arc::new(move |address| near(address) || far(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order_and_the_same_one_once() {
        let part = |bytes: &[u8]| BundlePart {
            id: BlobId::of(bytes),
            size_bytes: bytes.len() as u64,
        };
        let parts = [part(b"aa"), part(b"bbb"), part(b"aa")];
        let mut assembly = Assembly::new(&parts);
        let mut order = Vec::new();
        while let Some((part, next)) = assembly.next() {
            order.push((assembly.at, next));
            assembly.came(&part);
        }
        assert_eq!(
            order,
            [(0, Next::Elsewhere), (2, Next::Elsewhere), (5, Next::Earlier(0))]
        );
        assert_eq!(assembly.at, 7);
    }
}
