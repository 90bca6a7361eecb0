//! What opens other servers: kept by name in files that only the node reads, told to nobody.
//!
//! ```text
//! secrets/NAME      a state file (durable.rs) of JSON: {"user": "…", "secret": "…"}; without user it is a token
//! ```
//!
//! People and programs may put, list and remove secrets; what one is comes out for the `replicate` edge alone.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::error::{Error, Kind};
use crate::blanket::{Opener, Servers};
use crate::db;
use crate::durable;
use crate::id::SecretName;

/// Secrets of a node: one for each server, and two for each document of `_replicator` that brought its own.
const SECRETS_MAX: usize = 1000;

/// The longest secret in bytes: no header should be abused for more.
const SECRET_BYTES_MAX: usize = 1024;

/// Something that opens a server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    /// The name that goes with it; a token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    secret: String,
}

/// The secrets of a node; cloning is cheap.
#[derive(Clone)]
pub struct Secrets {
    folder: Arc<PathBuf>,
}

impl StoredSecret {
    /// A password or token.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it could not be sent.
    pub fn new(user: Option<String>, secret: String) -> Result<StoredSecret, Error> {
        let user_fits = user
            .as_ref()
            .is_none_or(|user| !user.contains(':') && !user.chars().any(char::is_control));
        let secret_fits = match user {
            Some(_) => !secret.chars().any(char::is_control),
            None => secret.bytes().all(|byte| byte.is_ascii_graphic()),
        };
        let is_short = user.as_ref().map_or(0, String::len) + secret.len() <= SECRET_BYTES_MAX;
        match user_fits && secret_fits && is_short && !secret.is_empty() {
            true => Ok(StoredSecret { user, secret }),
            false => Err(Error::Invalid {
                what: "secret",
                reason: format!(
                    "1 to {SECRET_BYTES_MAX} bytes without control characters; a token has no blanks, a user no colon"
                ),
            }),
        }
    }

    /// The password or token itself, for whoever sends it.
    pub fn reveal(&self) -> &str {
        &self.secret
    }
}

impl Drop for StoredSecret {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredSecret(…)")
    }
}

impl Secrets {
    pub(super) fn new(folder: PathBuf) -> Secrets {
        Secrets {
            folder: Arc::new(folder),
        }
    }

    /// The names there are.
    ///
    /// # Errors
    /// [`Error::Internal`] where the folder can't be read.
    pub async fn list(&self) -> Result<Vec<SecretName>, Error> {
        let secrets = self.clone();
        db::crossing(move || secrets.names()).await
    }

    /// Keeps a secret, in place of what was kept under this name. Durable on return.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one too many; [`Error::NoSpace`].
    pub async fn put(&self, name: SecretName, secret: StoredSecret) -> Result<(), Error> {
        let secrets = self.clone();
        db::crossing(move || secrets.write(&name, &secret)).await
    }

    /// Forgets a secret. Durable on return.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub async fn remove(&self, name: SecretName) -> Result<(), Error> {
        let secrets = self.clone();
        db::crossing(move || {
            if !secrets.path(&name).exists() {
                return Err(Error::missing(Kind::Secret, &name));
            }
            Ok(durable::remove(&secrets.path(&name))?)
        })
        .await
    }

    /// What is kept under this name, for the edge that sends it.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub async fn reveal(&self, name: SecretName) -> Result<StoredSecret, Error> {
        let secrets = self.clone();
        db::crossing(move || secrets.read(&name)).await
    }

    /// Servers that databases are on, opened by these secrets.
    pub(super) fn opening(&self, servers: Servers) -> Servers {
        let secrets = self.clone();
        let reveal = move |name: &SecretName| {
            let secret = secrets.read(name).ok()?;
            Some(Opener {
                user: secret.user.clone(),
                secret: Zeroizing::new(secret.reveal().to_owned()),
            })
        };
        Servers {
            reveal: Some(Arc::new(reveal)),
            ..servers
        }
    }

    fn read(&self, name: &SecretName) -> Result<StoredSecret, Error> {
        let state = durable::read(&self.path(name))?;
        let payload = Zeroizing::new(state.ok_or_else(|| Error::missing(Kind::Secret, name))?.payload);
        serde_json::from_slice(&payload).map_err(|_| Error::missing(Kind::Secret, name))
    }

    fn path(&self, name: &SecretName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    fn names(&self) -> Result<Vec<SecretName>, Error> {
        let mut names = Vec::new();
        let entries = fs::read_dir(&*self.folder).map_err(|error| Error::io(&self.folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Error::io(&self.folder, error))?;
            // Names have no dots: the earlier generation of a file is none.
            if let Some(Ok(name)) = entry.file_name().to_str().map(str::parse) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn write(&self, name: &SecretName, secret: &StoredSecret) -> Result<(), Error> {
        if !self.path(name).exists() && self.names()?.len() >= SECRETS_MAX {
            return Err(Error::Invalid {
                what: "secrets",
                reason: format!("a node keeps at most {SECRETS_MAX}"),
            });
        }
        let json = Zeroizing::new(serde_json::to_vec(secret).expect("two texts are JSON"));
        durable::replace(&self.path(name), &json)?;
        // What was replaced opens nothing any more, or should not.
        let earlier = self.folder.join(format!("{name}.old"));
        match fs::remove_file(&earlier) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&earlier, error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::node::tests::Bench;

    #[tokio::test]
    async fn a_secret_is_kept_for_the_node_alone_and_never_shown() {
        let bench = Bench::new();
        let secrets = bench.node.secrets();
        let name: SecretName = "friend".parse().unwrap();
        assert!(matches!(
            secrets.reveal(name.clone()).await,
            Err(Error::Missing { .. })
        ));
        for text in ["canary-one", "canary-two"] {
            let secret = StoredSecret::new(Some("ann".to_owned()), text.to_owned()).unwrap();
            assert!(!format!("{secret:?}").contains("canary"));
            secrets.put(name.clone(), secret.clone()).await.unwrap();
            assert_eq!(secrets.reveal(name.clone()).await.unwrap(), secret);
        }
        assert_eq!(secrets.list().await.unwrap(), std::slice::from_ref(&name));
        let mode = fs::metadata(secrets.path(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(&*secrets.folder).unwrap().count(),
            1,
            "no earlier secret is left"
        );
        secrets.remove(name.clone()).await.unwrap();
        assert!(matches!(secrets.remove(name).await, Err(Error::Missing { .. })));
        assert_eq!(secrets.list().await.unwrap(), []);
    }

    #[test]
    fn what_could_not_be_sent_is_no_secret() {
        let new =
            |user: Option<&str>, secret: &str| StoredSecret::new(user.map(str::to_owned), secret.to_owned());
        assert!(new(None, "rft_x").is_ok() && new(Some("ann"), "two words").is_ok());
        for (user, secret) in [
            (None, ""),
            (None, "two words"),
            (None, "é"),
            (Some("a:b"), "x"),
            (Some("a"), "x\n"),
        ] {
            assert!(
                matches!(new(user, secret), Err(Error::Invalid { .. })),
                "{user:?} {secret:?}"
            );
        }
        assert!(new(None, &"x".repeat(SECRET_BYTES_MAX + 1)).is_err());
    }
}
