//! The composition root: opens what the configuration names, wires it, and ends it in order.

mod boot;
mod confine;
#[cfg(feature = "couchdb")]
#[cfg(test)]
mod couchdb_contract;
mod discover;
mod housekeeping;
mod notice;
mod outcome;
mod place;
mod privileged;
mod processor;
#[cfg(test)]
mod remote_contract;
mod replicate;
mod runtime;
#[cfg(test)]
mod served_node;
mod supervise;

pub use crate::board::UpdaterStep;
pub use boot::{Ready, confine, serve};
pub use discover::discover;
pub use outcome::Outcome;
pub use place::{Access, Held, Place};
pub use privileged::{answer_about_updates, help, step_of_update};
pub use processor::lacking_instructions;
pub use replicate::replicate;
pub use runtime::{harden, log, runtime};

pub use crate::replicate::KnownNode;
