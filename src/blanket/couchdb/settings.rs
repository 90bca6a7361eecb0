//! Where a database's server is, in the database's folder.
//!
//! ```text
//! server.json     {"version": 1, "url": "…", "secret": "…", "node_id": "…", "owner": "…"}
//! ```
//!
//! It is written once, before the database has its name, and never changed. No credential is in it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::Error;
use super::super::servers::ServerPlace;

/// The format that is written; a greater one is refused.
const VERSION: u32 = 1;

/// What is known of a database's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) server: ServerPlace,
    /// The random name by which this node has the database.
    pub(super) owner: String,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(flatten)]
    server: ServerPlace,
    owner: String,
}

impl Settings {
    /// Writes them. Durable once the folder is.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = path(folder);
        let written = Written {
            version: VERSION,
            server: self.server.clone(),
            owner: self.owner.clone(),
        };
        let json = serde_json::to_vec(&written).expect("texts are JSON");
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(&json)?;
            file.sync_all()?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|error| Error::io(&path, error))
    }

    /// Reads them.
    pub(super) fn read(folder: &Path) -> Result<Settings, Error> {
        let path = path(folder);
        let bytes = fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let written: Written = serde_json::from_slice(&bytes).map_err(|_| Error::Corrupt {
            path: path.clone(),
            what: "it does not say where its server is".to_owned(),
        })?;
        match written.version {
            VERSION => Ok(Settings {
                server: written.server,
                owner: written.owner,
            }),
            _ => Err(Error::Newer { path }),
        }
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("server.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_and_hold_no_credential() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            server: ServerPlace {
                url: "https://couch.example.org/rows".to_owned(),
                secret: Some("couch".parse().unwrap()),
                node_id: None,
            },
            owner: "00ff".to_owned(),
        };
        settings.write(dir.path()).unwrap();
        assert_eq!(Settings::read(dir.path()).unwrap(), settings);
        let text = fs::read_to_string(dir.path().join("server.json")).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"url":"https://couch.example.org/rows","secret":"couch","owner":"00ff"}"#
        );
        fs::write(dir.path().join("server.json"), text.replace(":1,", ":2,")).unwrap();
        assert!(matches!(Settings::read(dir.path()), Err(Error::Newer { .. })));
        fs::write(dir.path().join("server.json"), "{").unwrap();
        assert!(matches!(Settings::read(dir.path()), Err(Error::Corrupt { .. })));
    }
}
