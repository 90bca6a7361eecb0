//! Crash and fault injection: the harness, and the rows of the reliability table that the store must survive.
//!
//! `medium` is a disk that forgets what was not flushed, `fs` mounts it, `recording` cuts a recorded run anywhere.
//! `fault/README.md` says how a row is written and what each flush call of the store was seen to prevent.

mod cgroup;
pub(crate) mod child;
mod cuts;
mod disks;
mod documents;
pub(crate) mod driver;
mod failing;
mod flush_sites;
pub(crate) mod folder;
pub(crate) mod fs;
mod fs_tests;
mod fuse;
pub(crate) mod journal;
mod killed;
mod limits;
mod load;
pub(crate) mod loopdev;
pub(crate) mod medium;
mod moving;
mod node_power;
mod node_state;
mod node_upkeep;
pub(crate) mod pages;
mod power;
pub(crate) mod recording;
mod rot;
pub(crate) mod seed;
pub(crate) mod strace;
mod upkeep;
mod work;
