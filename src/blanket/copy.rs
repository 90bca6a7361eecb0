//! A database from one engine into another: every leaf with its history and what hangs on it, and the settings.
//!
//! Local documents are not copied: checkpoints in them tell of replications that the other database never had. A copy that was
//! cut is finished by the next one, since what is there already changes nothing.

use std::ops::ControlFlow;

use super::changes::ChangesQuery;
use super::database::Database;
use super::doc::{AttachmentEdit, Body, Doc, Edit};
use super::error::Error;
use crate::id::{DocId, Seq};

/// Documents whose names are held at once.
const PAGE: usize = 256;

/// Bytes of bodies that are written in one group.
const GROUP_BYTES: usize = 2 * 1024 * 1024;

/// Copies what `source` holds into `target`, until it holds nothing newer; how many documents that were. Durable on return.
/// `progress` hears how many there are so far.
///
/// # Errors
/// [`Error::DamagedDoc`] of the source, [`Error::Full`] and [`Error::ReadOnly`] of the target: some of it is there.
pub fn copy(source: &Database, target: &Database, progress: &mut dyn FnMut(u64)) -> Result<u64, Error> {
    if let Some(security) = source.security()? {
        target.set_security(&Body::from(security))?;
    }
    target.set_revs_limit(source.revs_limit())?;
    let (mut since, mut copied) = (Seq::ZERO, 0);
    loop {
        let (ids, last) = changed(source, since)?;
        if ids.is_empty() {
            return Ok(copied);
        }
        copied += ids.len() as u64;
        since = last;
        copy_docs(source, target, &ids)?;
        progress(copied);
    }
}

fn changed(source: &Database, since: Seq) -> Result<(Vec<DocId>, Seq), Error> {
    let query = ChangesQuery {
        since,
        limit: PAGE,
        ..ChangesQuery::default()
    };
    let mut ids = Vec::new();
    let end = source.changes(&query, &mut |change| {
        ids.push(change.id);
        ControlFlow::Continue(())
    })?;
    Ok((ids, end.last))
}

fn copy_docs(source: &Database, target: &Database, ids: &[DocId]) -> Result<(), Error> {
    let (mut edits, mut bytes) = (Vec::new(), 0);
    for id in ids {
        for doc in source.open_leaves(id)? {
            bytes += doc.body.as_str().len();
            edits.push(replicated(doc));
        }
        if bytes >= GROUP_BYTES {
            write(target, std::mem::take(&mut edits))?;
            bytes = 0;
        }
    }
    write(target, edits)
}

fn write(target: &Database, edits: Vec<Edit>) -> Result<(), Error> {
    for saved in target.save_docs(edits)? {
        saved.expect("a history that was kept is one, and its attachments are named in full");
    }
    Ok(())
}

fn replicated(doc: Doc) -> Edit {
    let attachments = doc.attachments.into_iter();
    Edit::Replicated {
        id: doc.id,
        revisions: doc.revisions,
        deleted: doc.deleted,
        body: doc.body,
        attachments: attachments
            .map(|(name, attachment)| (name, AttachmentEdit::Stored(attachment)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{attachment, changes, edit, id, replicated, rev, save, with};
    use super::super::folder::{Options, create_db};
    use super::super::kind::EngineKind;
    use super::*;

    #[test]
    fn a_copy_has_every_leaf_and_is_finished_by_another() {
        from_one_into_another(EngineKind::Sqlite, EngineKind::Memory);
    }

    #[cfg(all(feature = "lsm", feature = "leveldb"))]
    #[test]
    fn a_copy_is_the_same_from_any_engine_into_any() {
        from_one_into_another(EngineKind::Sqlite, EngineKind::Lsm);
        from_one_into_another(EngineKind::Lsm, EngineKind::Leveldb);
        from_one_into_another(EngineKind::Leveldb, EngineKind::Sqlite);
    }

    fn from_one_into_another(from: EngineKind, into: EngineKind) {
        let dir = tempfile::tempdir().unwrap();
        let create = |name: &str, engine| {
            let options = Options {
                engine,
                ..Options::default()
            };
            create_db(dir.path(), &name.parse().unwrap(), &options).unwrap()
        };
        let (source, target) = (create("a", from), create("b", into));
        for number in 0..600 {
            save(&source, edit(&format!("{number:03}"), None, "{\"x\":1}"));
        }
        let hung = with(
            edit("hung", None, "{}"),
            &[("p", AttachmentEdit::Stored(attachment(b"p")))],
        );
        save(&source, hung);
        save(&source, replicated("000", &["3-c", "2-b", "1-a"], true));
        source
            .set_security(&Body::parse("{\"admins\":{}}").unwrap())
            .unwrap();
        source.set_revs_limit(77).unwrap();
        let mut heard = Vec::new();
        assert_eq!(
            copy(&source, &target, &mut |copied| heard.push(copied)).unwrap(),
            601
        );
        assert_eq!(heard.last(), Some(&601));
        assert_eq!(copy(&source, &target, &mut |_| {}).unwrap(), 601);
        assert_eq!(
            (target.revs_limit(), target.security().unwrap()),
            (77, source.security().unwrap())
        );
        let look = |database: &Database| {
            let (feed, _) = changes(
                database,
                &ChangesQuery {
                    docs: true,
                    ..ChangesQuery::default()
                },
            );
            let mut docs: Vec<_> = feed
                .into_iter()
                .map(|change| (change.id, change.leaves, change.doc.map(|doc| doc.body)))
                .collect();
            docs.sort_by(|one, other| one.0.cmp(&other.0));
            docs
        };
        assert_eq!(look(&target), look(&source));
        let leaf = target.open_rev(&id("000"), &rev("3-c")).unwrap().unwrap();
        assert_eq!(leaf.revisions.len(), 3);
        let hung = |database: &Database| database.open_doc(&id("hung")).unwrap().unwrap().attachments;
        assert_eq!(hung(&target), hung(&source));
        // Sequences count what was written: the second copy wrote nothing.
        assert!(target.update_seq().number() <= 602);
    }
}
