//! Whether a node that has just been updated is well: what a new version must do before the old one is given up.
//!
//! | what | how |
//! |---|---|
//! | its stores are open | `main` takes writes, and no store was refused for what is in it |
//! | blobs are whole | [`SAMPLE_PLACES`] places of `main` by chance, a few blobs at each, read and verified |
//! | documents are written | one goes into a database of its own, is read back, and the database is deleted |
//! | accounts are there | the database of accounts takes an entry of the security log |

use bytes::Bytes;

use super::security_log::LogKind;
use super::{Class, Error, Node};
use crate::blanket::{Body, Edit, Options, Refused};
use crate::id::{BlobId, DbName, DocId, StoreName};

/// Places of the store that are looked at: more would hold up every update, and any widespread damage shows at these.
const SAMPLE_PLACES: usize = 8;

/// Blobs at each place.
const BLOBS_AT_A_PLACE: usize = 2;

/// Of a large blob so much is read, in bytes.
const READ_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How the database that is made and deleted again is called, with a number by chance behind: nobody else's is ever deleted. A
/// power cut in that second leaves it.
const DATABASE: &str = "refuge-update-check-";

/// What is written as a document and as a blob.
const PROBE: &str = "{\"written\":\"after an update\"}";

impl Node {
    /// What is the matter with this node, a sentence each; nothing where it is well. Takes seconds on a small box.
    pub async fn examine(&self) -> Vec<String> {
        let mut reasons = self.store_findings();
        let checks = [
            ("blobs", self.blobs_are_whole().await),
            ("documents", self.documents_are_kept().await),
        ];
        for (what, check) in checks {
            if let Err(error) = check {
                reasons.push(format!("{what}: {error}"));
            }
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let is_written = self.security_log().record(LogKind::Updated, version);
        if let Err(error) = is_written.await {
            reasons.push(format!("accounts: {error}"));
        }
        reasons
    }

    fn store_findings(&self) -> Vec<String> {
        let main = self
            .stores()
            .list()
            .into_iter()
            .filter(|info| info.name == StoreName::main());
        main.filter_map(|info| {
            let offline = info
                .offline
                .map(|reason| format!("the store main is not open: {reason}"));
            let read_only = info.status.read_only;
            offline.or(read_only.map(|reason| format!("the store main takes no writes: {reason}")))
        })
        .collect()
    }

    async fn blobs_are_whole(&self) -> Result<(), Error> {
        let main = self.stores().get(&StoreName::main())?;
        let put = main
            .put(Bytes::from_static(PROBE.as_bytes()), Class::Part, None)
            .await?;
        main.read(put.id, PROBE.len()).await?;
        for place in std::iter::once(None).chain(places()?.into_iter().map(Some)) {
            for found in main.list(place, BLOBS_AT_A_PLACE).await? {
                let mut reading = main.get(found.id).await?;
                let mut offset = 0;
                while offset < READ_BYTES_MAX {
                    match reading.read_at(offset).await?.len() {
                        0 => break,
                        read => offset += read as u64,
                    }
                }
            }
        }
        Ok(())
    }

    async fn documents_are_kept(&self) -> Result<(), Error> {
        for name in self.documents().list() {
            match self.documents().get(name).await {
                Ok(_) | Err(Error::Busy | Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut chance = [0; 8];
        getrandom::fill(&mut chance)?;
        let name: DbName = format!("{DATABASE}{:016x}", u64::from_le_bytes(chance))
            .parse()
            .expect("a name that is checked by a test");
        let db = self.documents().create(name.clone(), Options::default()).await?;
        let id: DocId = "probe".parse().expect("a name that is checked by a test");
        let edit = Edit::New {
            id: id.clone(),
            parent: None,
            deleted: false,
            body: Body::from(PROBE.to_owned()),
            attachments: std::collections::BTreeMap::new(),
        };
        let saved: Result<_, Refused> = db.save_doc(edit).await?;
        let read = db.run(move |database| database.open_doc(&id)).await?;
        let is_same = saved.is_ok() && read.is_some_and(|doc| doc.body.as_str() == PROBE);
        drop(db);
        self.documents().delete(name).await?;
        match is_same {
            true => Ok(()),
            false => Err(Error::Invalid {
                what: "document",
                reason: "what was written does not come back".to_owned(),
            }),
        }
    }
}

/// Places of a store by chance: names that nobody has, to list from.
fn places() -> Result<Vec<BlobId>, Error> {
    let mut chance = [[0; 8]; SAMPLE_PLACES];
    for place in &mut chance {
        getrandom::fill(place)?;
    }
    Ok(chance.iter().map(|place| BlobId::of(place)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::node::BackendSettings;
    use crate::node::tests::Bench;

    #[tokio::test]
    async fn a_node_that_is_well_has_nothing_the_matter_and_keeps_no_probe() {
        let bench = Bench::claimed().await;
        let main = bench.node.stores().get(&StoreName::main()).unwrap();
        for number in 0..40_u32 {
            let bytes = Bytes::copy_from_slice(&number.to_le_bytes());
            main.put(bytes, Class::Pinned, None).await.unwrap();
        }
        assert_eq!(bench.node.examine().await, Vec::<String>::new());
        assert_eq!(bench.node.documents().list(), []);
        let log = bench.node.security_log().list(1).await.unwrap();
        assert_eq!(log[0].kind, "updated");
    }

    #[tokio::test]
    async fn a_blob_that_is_damaged_and_a_store_that_takes_no_writes_are_found() {
        let bench = Bench::on(BackendSettings::Fs {
            path: None,
            shared: false,
        });
        let main = bench.node.stores().get(&StoreName::main()).unwrap();
        let put = main
            .put(Bytes::from_static(b"precious"), Class::Pinned, None)
            .await
            .unwrap();
        let hex = put.id.hex();
        let file = walk(bench.dir.path())
            .into_iter()
            .find(|file| file.to_string_lossy().contains(&hex[..16]));
        fs::write(file.unwrap(), b"precious?").unwrap();
        let reasons = bench.node.examine().await;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].starts_with("blobs: "), "{reasons:?}");
    }

    fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
            .collect()
    }
}
