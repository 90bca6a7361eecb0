//! Brings a bundle from its source into the node's folder, and goes on where it was cut off.
//!
//! ```text
//!  open ──> Coming, Opened ──> node.bundles().begin ──> bring ──> finish ──> as long and as digested as was said
//!    ^                                                    │
//!    └──── wait (stamina, pure) <── a failure that may pass ┘
//! ```
//!
//! Nothing that comes is believed here: RAUC, asked by root, says who made it.

mod node;
mod server;
mod stamina;
mod stick;

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use self::node::Offer;
use self::server::Served;
use self::stamina::Stamina;
use self::stick::Stick;
use super::own::Own;
use super::redirect::Astray;
use crate::board::privileged;
use crate::http::{Error as HttpError, Range};
use crate::id::BlobId;
use crate::node::{Arriving, Available, Coming, Error, Node, Progress, Reading, Source, UpdateTrouble};

/// As long as a bundle may take altogether: one of 48 MiB comes at 2 KiB a second.
const FETCH_WITHIN: Duration = Duration::from_secs(6 * 3600);

/// The ways by which a bundle comes.
pub(super) struct Ways {
    pub(super) node: Node,
    /// Addresses that may be reached besides those of the public internet, and of the local network for other boxes.
    pub(super) allowed: Vec<Range>,
    /// Who reads disks.
    pub(super) helper: privileged::Client,
}

/// A bundle that was found and of which nothing came yet.
pub(super) struct Found {
    coming: Coming,
    digest: Option<BlobId>,
    opened: Opened,
}

enum Opened {
    Blob(Box<Reading>),
    Url(Box<Served>),
    Disk(Stick),
    Node(Box<Offer>),
}

/// Why a bundle did not come.
#[derive(Debug)]
pub(super) enum Failure {
    /// The way to it: it may be there again.
    Passing(String),
    /// Another attempt ends the same.
    Final(Error),
}

impl Found {
    /// How long it is.
    pub(super) fn size_bytes(&self) -> u64 {
        self.coming.size_bytes
    }

    /// What is about to come.
    pub(super) fn coming(&self) -> Coming {
        self.coming.clone()
    }
}

impl Ways {
    /// Finds the bundle; what the source says of it is looked at before anything comes.
    pub(super) async fn open(&self, source: &Source, own: &Own) -> Result<Found, Failure> {
        let (size_bytes, mark, digest, opened) = match source {
            Source::Blob { store, blob } => {
                let reading = self.node.stores().get(store)?.get(*blob).await?;
                let size_bytes = reading.stat().len;
                (
                    size_bytes,
                    Some(blob.to_string()),
                    Some(*blob),
                    Opened::Blob(Box::new(reading)),
                )
            }
            Source::Url { url, expected } => {
                let served = Served::open(url, &self.allowed).await?;
                if let Some(expected) = expected
                    && expected.size_bytes != served.size_bytes()
                {
                    return Err(Failure::not_it(format!(
                        "it has {} bytes and should have {}",
                        served.size_bytes(),
                        expected.size_bytes
                    )));
                }
                let digest = expected.map(|expected| expected.blob);
                // A digest that is known says more than what the server has to say.
                let mark = digest.map(|digest| digest.to_string());
                let mark = mark.or_else(|| served.mark().map(str::to_owned));
                (served.size_bytes(), mark, digest, Opened::Url(Box::new(served)))
            }
            Source::Disk { disk, name } => {
                let stick = Stick::open(&self.helper, disk.as_ref(), name).await?;
                (stick.size_bytes(), Some(stick.mark()), None, Opened::Disk(stick))
            }
            Source::Node { node, at } => {
                let offer = Offer::open(&self.node, *node, at.as_ref(), &self.allowed).await?;
                offer.fits(own).map_err(Error::from)?;
                let manifest = offer.manifest();
                let (size_bytes, blob) = (manifest.size_bytes, manifest.blob);
                (
                    size_bytes,
                    Some(blob.to_string()),
                    Some(blob),
                    Opened::Node(Box::new(offer)),
                )
            }
        };
        let coming = Coming {
            from: source.to_string(),
            size_bytes,
            mark,
        };
        Ok(Found {
            coming,
            digest,
            opened,
        })
    }

    /// Makes room for it. What came of it before is there already.
    pub(super) async fn begin(&self, coming: Coming) -> Result<Arriving, Error> {
        self.node.bundles().begin(coming).await
    }

    /// Brings the whole of it, with as many attempts as make sense. `tell` hears how far it is.
    pub(super) async fn fetch(
        &self,
        source: &Source,
        own: &Own,
        begun: (Found, Arriving),
        tell: &mut (impl FnMut(Progress) + Send),
    ) -> Result<(), Error> {
        let fetched = timeout(FETCH_WITHIN, self.persist(source, own, begun, tell)).await;
        match fetched {
            Ok(fetched) => fetched,
            Err(_) => Err(away(
                source,
                format!("not within {} hours", FETCH_WITHIN.as_secs() / 3600),
            )),
        }
    }

    async fn persist(
        &self,
        source: &Source,
        own: &Own,
        begun: (Found, Arriving),
        tell: &mut (impl FnMut(Progress) + Send),
    ) -> Result<(), Error> {
        let (began, before) = (Instant::now(), begun.1.received());
        let (mut stamina, mut begun) = (Stamina::default(), Some(begun));
        loop {
            let mut received = 0;
            let mut hear = |done, total| {
                received = done;
                tell(Progress {
                    done,
                    total,
                    before: before.min(done),
                    elapsed: began.elapsed(),
                });
            };
            let attempt = self.attempt(source, own, begun.take(), &mut hear).await;
            match attempt {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => {
                    let Some(wait) = stamina.failed(received) else {
                        return Err(away(source, reason));
                    };
                    tracing::info!(%source, %reason, received, "a bundle was cut off and will go on");
                    sleep(wait).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        source: &Source,
        own: &Own,
        begun: Option<(Found, Arriving)>,
        hear: &mut (impl FnMut(u64, u64) + Send),
    ) -> Result<(), Failure> {
        let (found, mut arriving) = match begun {
            Some(begun) => begun,
            None => {
                let found = self.open(source, own).await?;
                let arriving = self.begin(found.coming()).await?;
                (found, arriving)
            }
        };
        let size_bytes = arriving.size_bytes();
        hear(arriving.received(), size_bytes);
        let mut hear = |done| hear(done, size_bytes);
        let brought = match found.opened {
            Opened::Blob(reading) => copy(*reading, &mut arriving, &mut hear).await,
            Opened::Url(served) => served.bring(&mut arriving, &mut hear).await,
            Opened::Disk(stick) => stick.bring(&mut arriving, &mut hear).await,
            Opened::Node(offer) => offer.bring(self.node.bundles(), &mut arriving, &mut hear).await,
        };
        if let Err(failure) = brought {
            // What came last as well.
            arriving.keep().await?;
            return Err(failure);
        }
        let blob = arriving.finish().await?;
        match found.digest.is_none_or(|digest| digest == blob) {
            true => Ok(()),
            false => Err(Failure::not_it(format!("it is {blob}"))),
        }
    }

    /// What is to be had near: at other boxes, then on disks. Who does not answer is left out.
    pub(super) async fn look(&self, own: &Own) -> Vec<Available> {
        let (at_nodes, on_disks) = tokio::join!(
            node::look(&self.node, own, &self.allowed),
            stick::look(&self.helper)
        );
        at_nodes.into_iter().chain(on_disks).collect()
    }
}

async fn copy(
    mut reading: Reading,
    arriving: &mut Arriving,
    hear: &mut (impl FnMut(u64) + Send),
) -> Result<(), Failure> {
    while arriving.received() < arriving.size_bytes() {
        let piece = reading.read_at(arriving.received()).await?;
        arriving.write(&piece).await?;
        hear(arriving.received());
    }
    Ok(())
}

/// A bundle that did not come; what came is kept.
pub(super) fn away(source: &Source, reason: String) -> Error {
    let from = source.to_string();
    UpdateTrouble::Away { from, reason }.into()
}

impl Failure {
    /// What came is not what was meant: nothing of it stays.
    fn not_it(reason: String) -> Failure {
        Failure::Final(UpdateTrouble::Bundle { reason }.into())
    }

    /// As whoever asked is told.
    pub(super) fn told(self, source: &Source) -> Error {
        match self {
            Failure::Passing(reason) => away(source, reason),
            Failure::Final(error) => error,
        }
    }

    /// Of a request to `from`.
    fn of_request(from: &str, error: HttpError) -> Failure {
        Failure::of(from, is_passing(&error), error.to_string())
    }

    /// Of a request to `from`, and wherever that led to.
    fn of_astray(from: &str, astray: &Astray) -> Failure {
        Failure::of(from, astray.http().is_some_and(is_passing), astray.to_string())
    }

    fn of(from: &str, is_passing: bool, reason: String) -> Failure {
        match is_passing {
            true => Failure::Passing(reason),
            false => Failure::elsewhere(from, reason),
        }
    }

    /// It can't be had from there.
    fn elsewhere(from: &str, reason: String) -> Failure {
        let from = from.to_owned();
        Failure::Final(UpdateTrouble::Away { from, reason }.into())
    }
}

/// Whether another attempt may end otherwise.
fn is_passing(error: &HttpError) -> bool {
    match error {
        HttpError::Unreachable { .. } | HttpError::Silent { .. } | HttpError::Broken { .. } => true,
        HttpError::Refused { refusal, .. } => {
            let status = refusal.status;
            status.is_server_error() || [408, 429].contains(&status.as_u16())
        }
        HttpError::Impostor { .. }
        | HttpError::Forbidden { .. }
        | HttpError::Unproven { .. }
        | HttpError::Unexpected { .. }
        | HttpError::Tls(_) => false,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}
