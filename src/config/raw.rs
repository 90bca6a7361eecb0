//! The shapes in which a configuration is written: text that nobody has looked at yet.

use std::path::Path;

use serde::Deserialize;

use super::Error;

/// What a source says; `None` where it is silent. An unknown key is an error, not silence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The data folder.
    pub data: Option<String>,
    /// `ADDR:PORT` of HTTPS.
    pub listen: Option<String>,
    /// `ADDR:PORT` of plain HTTP.
    pub plain_http: Option<String>,
    /// Other `host[:port]` by which the node is reached.
    pub authorities: Option<Vec<String>>,
    /// Whom to tell of a vulnerability: a `mailto:`, `https:` or `tel:` URI.
    pub security_contact: Option<String>,
    /// Origins of pages that may use the documents, for example `https://app.example.org`.
    pub origins: Option<Vec<String>>,
    /// Ranges of addresses that replications and updates may reach, for example `192.168.1.0/24`.
    pub replicate_allow: Option<Vec<String>>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log: Option<String>,
    /// The board's profile, `board.toml`.
    pub board: Option<String>,
    /// A file with the claim code of a node that has no owner yet.
    pub claim_code_file: Option<String>,
    /// A file with what was wrong before the node started, a line each.
    pub notes_file: Option<String>,
    /// Whether the process gives up everything but its folders and ports.
    pub confine: Option<bool>,
    /// Folders besides `data` that stores may be in when it does.
    pub store_folders: Option<Vec<String>>,
}

impl Raw {
    /// What the environment says: `REFUGE_DATA`, `REFUGE_LISTEN`, `REFUGE_PLAIN_HTTP`, `REFUGE_AUTHORITIES`,
    /// `REFUGE_ORIGINS` and `REFUGE_REPLICATE_ALLOW` (with commas), `REFUGE_SECURITY_CONTACT`, `REFUGE_LOG`, `REFUGE_BOARD`, `REFUGE_CLAIM_CODE_FILE` and
    /// `REFUGE_NOTES_FILE`.
    pub(super) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Raw {
        let list = |name| -> Option<Vec<String>> {
            variable(name).map(|list| list.split(',').map(|one| one.trim().to_owned()).collect())
        };
        Raw {
            data: variable("REFUGE_DATA"),
            listen: variable("REFUGE_LISTEN"),
            plain_http: variable("REFUGE_PLAIN_HTTP"),
            authorities: list("REFUGE_AUTHORITIES"),
            origins: list("REFUGE_ORIGINS"),
            security_contact: variable("REFUGE_SECURITY_CONTACT"),
            replicate_allow: list("REFUGE_REPLICATE_ALLOW"),
            log: variable("REFUGE_LOG"),
            board: variable("REFUGE_BOARD"),
            claim_code_file: variable("REFUGE_CLAIM_CODE_FILE"),
            notes_file: variable("REFUGE_NOTES_FILE"),
            // What a process gives up is for who starts it to say, not for what it inherits.
            confine: None,
            store_folders: None,
        }
    }

    /// What a file says.
    pub(super) fn from_file(path: &Path) -> Result<Raw, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        Raw::parse(&text, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Raw, Error> {
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| before.matches('\n').count() + 1);
            // The parser names an unknown key; of a wrong type it knows only the place.
            let key = line
                .and_then(|line| text.lines().nth(line - 1))
                .unwrap_or_default();
            let key = key.split('=').next().unwrap_or_default().trim();
            Error::File {
                path: path.to_owned(),
                line,
                reason: format!("{key}: {}", error.message()),
            }
        })
    }
}
