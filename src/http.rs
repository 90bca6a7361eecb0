//! The HTTP client: how this process talks to another node, and to a server of another kind.
//!
//! One client speaks to one server: a node that proves the identity that was pinned, over HTTPS or over plain HTTP on
//! loopback; or any [`Server`] with what proves it, what opens it, and which addresses it may have. Storage threads and
//! the command line use the calls that block; the connections live on the runtime whose handle it was given, and no
//! blocking call may be made from one of that runtime's workers. Async code has a call of its own for each.
//!
//! ```text
//!  Client::send, ask ──> pool of connections ──> answer head ──> Response::chunk, next, one piece at a time
//!  Client::upload ─> Upload::write, push (a bounded channel) ──> Upload::finish, end ──> Response
//!  Channel::open ──> one connection by itself, with its TLS exporter (the claim)
//! ```
//!
//! No redirects are followed and no proxy is used: credentials go to the server they were made for and nowhere else. Where one leads
//! is told with the refusal, for whoever has no credentials and asks anew.

mod address;
mod body;
mod channel;
mod client;
mod error;
mod resolve;
mod roots;
mod server;
mod tls;
mod url;

pub use address::{ALLOWED_MAX, Range, RangeError, near_or_listed, public_or_listed};
pub use body::Response;
pub use channel::Channel;
pub use client::{Client, Patience, Request, Upload};
pub use error::{Error, Refusal};
pub use http::{Method, StatusCode};
pub use roots::{ROOT_FILES, Roots, RootsError};
pub use server::{AddressPolicy, Basic, Credentials, Proof, Server, ServerUrl, ServerUrlError};
pub use tls::Trust;
pub use url::{NodeUrl, NodeUrlError, Token};

#[cfg(test)]
pub(crate) mod tests;
