//! The data folder: whose it is, who has it open, and where what lies in it.
//!
//! ```text
//! refuge.json   {"format":1,"node":"ed25519;…"}: marks the folder ours. Without "node": begun, not finished
//! lock          held by the process that has the folder open; its content is that process's id
//! identity/     node.key, tls.key, cert.pem, claim.json
//! node.db       accounts, sessions, tokens, security log; node.db.old is a copy of the last change
//! stores/NAME/  one named store
//! refs/         one file per ref
//! uploads/      partial uploads
//! channel       where updates come from by themselves (channel.rs)
//! reset         a factory reset was asked for (start_over.rs)
//! ```
//!
//! The marker is the first file of a new folder and says at last which node the folder belongs to. Only while
//! it does not say so are keys made: a folder whose keys went missing later is refused, not given new ones.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::error::{Cause, Error, FolderError};
use crate::durable;
use crate::id::NodeId;

/// The format of the data folder that this version writes.
const FORMAT: u32 = 1;

/// What may lie in an empty folder: the root of a file system of its own.
const NOT_FOREIGN: [&str; 1] = ["lost+found"];

/// A data folder that this process holds.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    marker: Marker,
    /// Held as long as the file is open.
    _lock: File,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<NodeId>,
}

impl Folder {
    /// Takes the folder; makes it where it is new and `create` says so.
    ///
    /// # Errors
    /// [`FolderError`]; nothing was changed then.
    pub(super) fn open(path: &Path, create: bool) -> Result<Folder, Error> {
        let located = |source| refuse(path, source);
        if !path.is_dir() {
            if !create {
                return Err(FolderError::Absent {
                    path: path.to_owned(),
                }
                .into());
            }
            create_private(path).map_err(located)?;
        }
        let known = match read_marker(path)? {
            Some(marker) => Some(marker),
            None if is_empty(path).map_err(located)? && create => None,
            None => {
                return Err(FolderError::Foreign {
                    path: path.to_owned(),
                }
                .into());
            }
        };
        let lock = take_lock(path)?;
        let marker = match known {
            Some(marker) => marker,
            None => begin(path)?,
        };
        Ok(Folder {
            path: path.to_owned(),
            marker,
            _lock: lock,
        })
    }

    /// The node this folder belongs to; `None` while the folder is being made.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.marker.node
    }

    /// Ends the making of the folder: from now on it belongs to `node`.
    pub(super) fn settle(&mut self, node: NodeId) -> Result<(), Error> {
        self.marker.node = Some(node);
        let payload = encode(&self.marker);
        // Twice, so that the previous generation says the same: no damage may make the folder look new.
        durable::replace(&self.path.join(MARKER), &payload)?;
        durable::replace(&self.path.join(MARKER), &payload)?;
        Ok(())
    }

    /// A folder or file inside.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder inside, made where it is not there, readable by its owner only.
    pub(super) fn subfolder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        create_private(&path).map_err(|source| refuse(&path, source))?;
        Ok(path)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

const MARKER: &str = "refuge.json";

/// Makes a folder that only its owner may look into, durably; one that is there is left as it is.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        durable::create_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => durable::sync_folder_of(path),
    }
}

fn begin(path: &Path) -> Result<Marker, Error> {
    let marker = Marker {
        format: FORMAT,
        node: None,
    };
    durable::replace(&path.join(MARKER), &encode(&marker))?;
    Ok(marker)
}

fn read_marker(folder: &Path) -> Result<Option<Marker>, Error> {
    /// Only what every format has.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let path = folder.join(MARKER);
    let Some(state) = durable::read(&path).map_err(|error| match error {
        durable::Error::Damaged { path } => Error::Folder(FolderError::Damaged { path }),
        durable::Error::Io { path, source } => refuse(&path, source),
    })?
    else {
        return Ok(None);
    };
    let unreadable = |source| {
        Error::Internal(Cause::Unreadable {
            path: path.clone(),
            source,
        })
    };
    let format: Format = serde_json::from_slice(&state.payload).map_err(unreadable)?;
    if format.format > FORMAT {
        return Err(FolderError::Newer {
            path: folder.to_owned(),
            found: format.format,
            known: FORMAT,
        }
        .into());
    }
    serde_json::from_slice(&state.payload)
        .map(Some)
        .map_err(unreadable)
}

fn encode(marker: &Marker) -> Vec<u8> {
    serde_json::to_vec(marker).expect("a marker is two plain fields")
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        // A start that was cut before the marker was named leaves these two.
        let ours = ["lock", "refuge.json.new"];
        let known = NOT_FOREIGN.iter().chain(&ours).any(|known| name == **known);
        if !known {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the lock of a folder; it is held as long as the file is open.
pub(super) fn take_lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let located = |source| refuse(folder, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(located)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.take(32).read_to_string(&mut pid).map_err(located)?;
            return Err(FolderError::InUse {
                path: folder.to_owned(),
                pid: pid.trim().to_owned(),
            }
            .into());
        }
        Err(TryLockError::Error(source)) => return Err(located(source)),
    }
    let mut write = || -> io::Result<()> {
        file.rewind()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    match write() {
        // The id is a courtesy: a full disk must still open, so that something can be deleted.
        Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => {}
        written => written.map_err(located)?,
    }
    Ok(file)
}

/// What a failure of opening the folder means to the person who gave it.
fn refuse(path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS) => FolderError::ReadOnly { path }.into(),
        Some(Errno::EACCES | Errno::EPERM) => FolderError::Forbidden { path }.into(),
        _ => Error::io(&path, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(folder: Result<Folder, Error>) -> FolderError {
        match folder {
            Err(Error::Folder(refusal)) => refusal,
            other => panic!("opened or failed otherwise: {other:?}"),
        }
    }

    #[test]
    fn a_new_folder_is_ours_alone_and_opens_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert!(matches!(
            refusal(Folder::open(&path, false)),
            FolderError::Absent { .. }
        ));
        let mut folder = Folder::open(&path, true).unwrap();
        assert_eq!(folder.node(), None);
        folder.settle(NodeId::from_bytes([1; 32])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let pid = std::process::id().to_string();
        assert!(matches!(
            refusal(Folder::open(&path, true)),
            FolderError::InUse { pid: held, .. } if held == pid
        ));
        drop(folder);
        assert_eq!(
            Folder::open(&path, false).unwrap().node(),
            Some(NodeId::from_bytes([1; 32]))
        );
    }

    #[test]
    fn foreign_and_newer_folders_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        assert!(matches!(
            refusal(Folder::open(dir.path(), true)),
            FolderError::Foreign { .. }
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let dir = tempfile::tempdir().unwrap();
        durable::replace(&dir.path().join(MARKER), br#"{"format":2,"new":[]}"#).unwrap();
        assert!(matches!(
            refusal(Folder::open(dir.path(), true)),
            FolderError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ));
    }

    #[test]
    fn no_damage_of_the_marker_makes_a_folder_look_new() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeId::from_bytes([1; 32]);
        Folder::open(dir.path(), true).unwrap().settle(node).unwrap();
        let marker = dir.path().join(MARKER);
        let whole = fs::read(&marker).unwrap();
        for kept in [0, whole.len() / 2, whole.len() - 1] {
            fs::write(&marker, &whole[..kept]).unwrap();
            assert_eq!(Folder::open(dir.path(), true).unwrap().node(), Some(node));
        }
        fs::write(&marker, vec![0; whole.len()]).unwrap();
        assert_eq!(Folder::open(dir.path(), true).unwrap().node(), Some(node));
        fs::remove_file(&marker).unwrap();
        assert_eq!(Folder::open(dir.path(), true).unwrap().node(), Some(node));
        fs::remove_file(dir.path().join("refuge.json.old")).unwrap();
        fs::create_dir(dir.path().join("identity")).unwrap();
        assert!(matches!(
            refusal(Folder::open(dir.path(), true)),
            FolderError::Foreign { .. }
        ));
    }
}
