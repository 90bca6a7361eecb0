//! Disks that are plugged in, as the board edge finds them, and why one is refused.

use serde::{Deserialize, Serialize};

use crate::id::{DiskName, DiskSerial, DiskUuid};

/// A disk that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What the kernel calls it, until it is pulled.
    pub name: DiskName,
    /// Who made it and what they call it.
    pub title: String,
    /// What its maker wrote into it, or what stands for that.
    pub serial: DiskSerial,
    /// How large it is.
    pub size_bytes: u64,
    /// What it holds.
    pub holds: Holds,
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Holds {
    /// The box itself, or something that it uses.
    System,
    /// Nothing.
    Nothing,
    /// Blobs of a node, this one or another.
    Refuge {
        /// What its file system is called.
        uuid: DiskUuid,
    },
    /// What others put there.
    Foreign {
        /// Each file system and the like, in words.
        what: Vec<String>,
    },
}

/// Why a disk is not what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "trouble", rename_all = "snake_case")]
pub enum DiskTrouble {
    /// It is not plugged in.
    #[error("no such disk is plugged in: `refuge board disks` lists those that are")]
    Absent,
    /// It has another serial.
    #[error("that is not the serial of the disk: `refuge board disks` shows it, as does its label")]
    Serial,
    /// The box itself uses it.
    #[error("the box itself uses this disk")]
    System,
    /// Others keep something on it.
    #[error("the disk holds {}: all of it is lost if you say that it may be formatted", what.join(", "))]
    Foreign {
        /// What.
        what: Vec<String>,
    },
    /// Two disks say that they are the same one.
    #[error("two disks are copies of one another: pull one of them")]
    Twin,
    /// A disk is used by somebody at this moment.
    #[error("the disk is in use: try again when what is under way has ended")]
    Busy,
    /// A program of the system that had to do it failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// The program or call.
        program: String,
        /// What it said.
        reason: String,
    },
    /// What does this for the node, as its administrator, is not there.
    #[error("the box's helper does not answer: {reason}")]
    NoHelper {
        /// What failed.
        reason: String,
    },
}
