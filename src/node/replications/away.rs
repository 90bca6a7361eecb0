//! Credentials out of documents of `_replicator` and into the node's secrets, before the documents are written.
//!
//! What is kept names the secret, `{"url": "…", "auth": {"secret": "doc-…"}}`, and is what readers get. A document that comes back so
//! goes on with its credentials. The secrets of a document go when it goes.

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::super::Node;
use super::super::error::Error;
use super::super::secrets::StoredSecret;
use super::asked::{Endpoint, Opens};
use crate::blanket::{Body, Edit};
use crate::id::{DbName, DocId, SecretName};

/// The database whose documents ask for replications.
const REPLICATOR: &str = "_replicator";

impl Node {
    /// The database whose documents ask for replications.
    pub fn replicator_db() -> DbName {
        REPLICATOR.parse().expect("it is one of CouchDB's names")
    }

    /// Takes the credentials out of edits of `_replicator` and puts them into the secrets of the node. What makes no sense is left as it is
    /// where it has no credentials that could be told.
    ///
    /// # Errors
    /// [`Error::Invalid`] for credentials that can't be kept; [`Error::NoSpace`].
    pub async fn put_away(&self, edits: Vec<Edit>) -> Result<Vec<Edit>, Error> {
        let mut kept = Vec::with_capacity(edits.len());
        for mut edit in edits {
            let id = edit.id().clone();
            let (Edit::New { body, .. } | Edit::Replicated { body, .. }) = &mut edit;
            if let Some(without) = self.without_credentials(&id, body).await? {
                *body = without;
            }
            kept.push(edit);
        }
        Ok(kept)
    }

    /// Forgets the secrets that came with a document, but for those that it still names.
    ///
    /// # Errors
    /// Where they can't be removed.
    pub async fn forget_secrets_of(&self, id: &DocId, named: &[SecretName]) -> Result<(), Error> {
        let prefix = prefix_of(id);
        for name in self.secrets().list().await? {
            if name.as_str().starts_with(&prefix) && !named.contains(&name) {
                self.secrets().remove(name).await?;
            }
        }
        Ok(())
    }

    async fn without_credentials(&self, id: &DocId, body: &Body) -> Result<Option<Body>, Error> {
        let Ok(Value::Object(mut members)) = serde_json::from_str(body.as_str()) else {
            return Ok(None);
        };
        // A place that is none could hold anything. Nothing is kept of a document that is refused.
        let mut endpoints = Vec::new();
        for side in ["source", "target"] {
            if let Some(json) = members.get(side) {
                let endpoint = Endpoint::parse(side, Some(json)).map_err(|error| Error::Invalid {
                    what: "replication",
                    reason: error.to_string(),
                })?;
                endpoints.push((side, endpoint));
            }
        }
        let mut is_changed = false;
        for (side, mut endpoint) in endpoints {
            if let Endpoint::Remote(remote) = &mut endpoint
                && let Some(opens) = &remote.opens
                && let Some(secret) = inline(opens)?
            {
                let mut random = [0; 8];
                getrandom::fill(&mut random)?;
                let name = format!("{}{}", prefix_of(id), HEXLOWER.encode(&random));
                let name: SecretName = name.parse().expect("hex digits make a name");
                self.secrets().put(name.clone(), secret).await?;
                remote.opens = Some(Opens::Secret(name));
                members.insert(side.to_owned(), endpoint.to_json());
                is_changed = true;
            }
        }
        let text = Value::Object(members).to_string();
        Ok(is_changed.then(|| Body::from(text)))
    }
}

fn prefix_of(id: &DocId) -> String {
    let digest = blake3::hash(id.as_str().as_bytes());
    format!("doc-{}-", HEXLOWER.encode(&digest.as_bytes()[..8]))
}

/// Credentials that are not kept yet.
fn inline(opens: &Opens) -> Result<Option<StoredSecret>, Error> {
    match opens {
        Opens::Basic { user, password } => {
            StoredSecret::new(Some(user.clone()), password.as_str().to_owned()).map(Some)
        }
        Opens::Bearer(token) => StoredSecret::new(None, token.as_str().to_owned()).map(Some),
        Opens::Secret(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::node::tests::Bench;

    fn edit(json: &Value) -> Edit {
        Edit::New {
            id: "job".parse().unwrap(),
            parent: None,
            deleted: false,
            body: Body::from(json.to_string()),
            attachments: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn credentials_of_a_document_are_kept_as_a_secret_until_it_goes() {
        let bench = Bench::new();
        let asked = json!({"source": "http://ann:canary@host/db", "target": "notes", "continuous": true});
        let kept = bench.node.put_away(vec![edit(&asked)]).await.unwrap();
        let body: Value = serde_json::from_str(kept[0].body().as_str()).unwrap();
        assert!(!body.to_string().contains("canary"));
        assert_eq!(body["source"]["url"], "http://host/db");
        assert_eq!(
            (&body["target"], &body["continuous"]),
            (&json!("notes"), &json!(true))
        );
        let name: SecretName = body["source"]["auth"]["secret"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let secret = bench.node.secrets().reveal(name.clone()).await.unwrap();
        assert_eq!((secret.user.as_deref(), secret.reveal()), (Some("ann"), "canary"));
        // It comes back as it was read, and nothing changes.
        assert_eq!(
            bench.node.put_away(vec![edit(&body)]).await.unwrap()[0],
            edit(&body)
        );
        let id: DocId = "job".parse().unwrap();
        bench
            .node
            .forget_secrets_of(&id, std::slice::from_ref(&name))
            .await
            .unwrap();
        assert_eq!(bench.node.secrets().list().await.unwrap(), [name]);
        bench.node.forget_secrets_of(&id, &[]).await.unwrap();
        assert_eq!(bench.node.secrets().list().await.unwrap(), []);
        let wrong = json!({"source": {"url": "http://h/d", "auth": {"canary": 1}}, "target": "b"});
        assert!(bench.node.put_away(vec![edit(&wrong)]).await.is_err());
        assert!(
            bench
                .node
                .put_away(vec![edit(&json!({"target": "http://a:b@h/d"}))])
                .await
                .is_ok()
        );
    }
}
