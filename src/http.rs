//! The HTTP client: how this process talks to another node.
//!
//! One client speaks to one node, over HTTPS where the node proves the identity that was pinned, or over plain
//! HTTP on loopback. Storage threads and the command line use it, so its calls block; the connections live
//! on the runtime whose handle it was given, and no call may be made from one of that runtime's workers.
//!
//! ```text
//!  Client::send ──> pool of connections ──> answer head ──> Response::chunk, one piece at a time
//!  Client::upload ─> Upload::write (a bounded channel) ──> Upload::finish ──> Response
//!  Channel::open ──> one connection by itself, with its TLS exporter (the claim)
//! ```
//!
//! No redirects are followed and no proxy is used: a token goes to the node it was made for and nowhere else.

mod body;
mod channel;
mod client;
mod error;
mod tls;
mod url;

pub use body::Response;
pub use channel::Channel;
pub use client::{Client, Patience, Request, Upload};
pub use error::{Error, Refusal};
pub use http::{Method, StatusCode};
pub use tls::Trust;
pub use url::{NodeUrl, NodeUrlError, Token};
