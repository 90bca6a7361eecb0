//! The nodes this user has claimed, in `$XDG_CONFIG_HOME/refuge/nodes.toml`, readable by the user alone.
//!
//! ```toml
//! [[node]]
//! url = "https://192.168.1.5:8443"
//! node_id = "ed25519;…"
//! token = "…"
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::{Exit, Failure};
use crate::http::NodeUrl;
use crate::id::NodeId;

/// What is known of nodes.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    #[serde(default, rename = "node")]
    nodes: Vec<Entry>,
}

/// One node.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(with = "url_text")]
    pub(super) url: NodeUrl,
    pub(super) node_id: NodeId,
    pub(super) token: String,
}

impl Known {
    /// What the file says; nothing where there is none.
    pub(super) fn read() -> anyhow::Result<Known> {
        let Some(path) = path() else {
            return Ok(Known::default());
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
            Err(error) => return Err(located(&path, &error).into()),
        };
        // The parser's own message would show the line, and with it a token.
        toml::from_str(&text).map_err(|_| {
            let message = format!(
                "{} is not what refuge wrote: repair it, or remove it and claim again",
                path.display()
            );
            Failure::new(Exit::Failed, message).into()
        })
    }

    /// The node at this address.
    pub(super) fn find(&self, url: &NodeUrl) -> Option<&Entry> {
        self.nodes.iter().find(|entry| entry.url == *url)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.nodes.iter()
    }

    /// The only node there is.
    pub(super) fn only(&self) -> anyhow::Result<&Entry> {
        let message = match self.nodes.as_slice() {
            [entry] => return Ok(entry),
            [] => {
                "say where: --data DIR for a folder of this machine, --node URL for a running node".to_owned()
            }
            several => {
                let urls: Vec<String> = several.iter().map(|entry| entry.url.to_string()).collect();
                format!("say which node with --node: {}", urls.join(", "))
            }
        };
        Err(Failure::new(Exit::Usage, message).into())
    }

    /// Remembers a node, in place of what was known of its address or its id. Durable on return.
    pub(super) fn remember(&mut self, entry: Entry) -> anyhow::Result<PathBuf> {
        self.nodes
            .retain(|known| known.url != entry.url && known.node_id != entry.node_id);
        self.nodes.push(entry);
        let Some(path) = path() else {
            let message = "there is no folder to keep the token in: set HOME or XDG_CONFIG_HOME";
            return Err(Failure::new(Exit::Failed, message).into());
        };
        self.write(&path).map_err(|error| located(&path, &error))?;
        Ok(path)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let fresh = path.with_extension("toml.new");
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(folder)?.sync_all()
    }
}

fn located(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

/// Where the file lies (XDG Base Directory Specification: relative values are ignored).
fn path() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(config.join("refuge").join("nodes.toml"))
}

mod url_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::http::NodeUrl;

    pub(super) fn serialize<S: Serializer>(url: &NodeUrl, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(url)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeUrl, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
