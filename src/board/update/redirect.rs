//! Asks a server for a file, and goes where it sends to: hosts of releases keep their files elsewhere.
//!
//! ```text
//! https://releases.example/a ──302──> https://store.example/a?signed ──> the answer
//!                              each: an address that may be reached (security row S17), never from https back to http
//! ```
//!
//! Wherever it goes, the host is resolved and checked as that of the first URL was, and what was checked is connected to. Nothing but
//! the request itself is sent: there are no credentials, and a URL holds none.

use tokio::runtime::Handle;

use crate::http::{
    Client, Error as HttpError, Proof, Range, Request, Response, Roots, RootsError, Server, ServerUrl,
    ServerUrlError, public_or_listed,
};
use crate::id::BundleUrl;

/// A host of releases leads to its store of files, and may have moved itself. Security row S17 allows no more.
const REDIRECTS_MAX: usize = 2;

/// What asks for the file, at a path.
pub(super) type Ask = fn(path: &str) -> Request;

/// An answer, and who gave it.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) client: Client,
    /// What was asked of that server.
    pub(super) path: String,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{}{why}", if *.redirects == 0 { String::new() } else { format!("redirect {redirects}: ") })]
pub(super) struct Astray {
    /// After so many redirects.
    redirects: usize,
    why: Why,
}

/// What is wrong with where it is.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Server(#[from] ServerUrlError),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("the server sends elsewhere, and to no URL")]
    Nowhere,
    #[error("it leads from https to http, where others can read and change what comes")]
    Unencrypted,
    #[error("it leads in a circle")]
    Circle,
    #[error("it is one too many, {REDIRECTS_MAX} are followed")]
    TooMany,
}

impl Astray {
    /// What failed on the way to a server, or what it refused.
    pub(super) fn http(&self) -> Option<&HttpError> {
        match &self.why {
            Why::Http(error) => Some(error),
            Why::Server(_) | Why::Roots(_) | Why::Nowhere | Why::Unencrypted | Why::Circle | Why::TooMany => {
                None
            }
        }
    }
}

/// Asks at `url`, and wherever that leads to. Addresses of the public internet may be reached, and `allowed`; over plain HTTP those
/// alone. May be cancelled.
///
/// # Errors
/// At which redirect it ended, and why.
pub(super) async fn follow(url: &BundleUrl, allowed: &[Range], ask: Ask) -> Result<Answer, Astray> {
    follow_by(Roots::of_system, url, allowed, ask).await
}

/// As [`follow`], with whom to believe who a server is.
async fn follow_by(
    roots: impl Fn() -> Result<Roots, RootsError>,
    url: &BundleUrl,
    allowed: &[Range],
    ask: Ask,
) -> Result<Answer, Astray> {
    let mut been = vec![url.clone()];
    loop {
        let (at, redirects) = (&been[been.len() - 1], been.len() - 1);
        let astray = |why| Astray { redirects, why };
        let error = match ask_at(&roots, at, allowed, ask).await {
            Ok(answer) => return Ok(answer),
            Err(Why::Http(error)) => error,
            Err(why) => return Err(astray(why)),
        };
        let Some(refusal) = error.refusal().filter(|refusal| refusal.status.is_redirection()) else {
            return Err(astray(error.into()));
        };
        let to = refusal.location.as_deref().and_then(|location| at.join(location));
        let next = next(&been, to).map_err(|why| Astray {
            redirects: been.len(),
            why,
        })?;
        been.push(next);
    }
}

/// Where to go on, after it has `been` somewhere.
fn next(been: &[BundleUrl], to: Option<BundleUrl>) -> Result<BundleUrl, Why> {
    let to = to.ok_or(Why::Nowhere)?;
    if !to.is_https() && been.iter().any(BundleUrl::is_https) {
        return Err(Why::Unencrypted);
    }
    if been.contains(&to) {
        return Err(Why::Circle);
    }
    if been.len() > REDIRECTS_MAX {
        return Err(Why::TooMany);
    }
    Ok(to)
}

async fn ask_at(
    roots: &impl Fn() -> Result<Roots, RootsError>,
    at: &BundleUrl,
    allowed: &[Range],
    ask: Ask,
) -> Result<Answer, Why> {
    let (server, path) = at.split();
    let url: ServerUrl = server.parse()?;
    let is_https = url.is_https();
    let server = Server {
        url,
        // Who made what comes over plain HTTP, its signature says.
        proof: if is_https {
            Proof::Roots(roots()?)
        } else {
            Proof::Nothing
        },
        credentials: None,
        policy: Some(public_or_listed(allowed.to_vec(), is_https)),
    };
    let client = Client::of(server, Handle::current())?;
    let response = client.ask(ask(path)).await?;
    Ok(Answer {
        response,
        client,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests;
