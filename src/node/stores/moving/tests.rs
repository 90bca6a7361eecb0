//! The moment at which a store goes on elsewhere, where that fails.

use std::fs;

use super::super::tests::{fs_settings, stores};
use super::*;
use crate::coffer::Class;

async fn put(stores: &Stores, text: &'static str) -> Result<crate::id::BlobId, Error> {
    let put = stores.main().put(text.into(), Class::Pinned, None).await;
    put.map(|put| put.id)
}

async fn read(stores: &Stores, id: crate::id::BlobId) -> String {
    let read = stores.main().read(id, 10).await.unwrap();
    String::from_utf8(read.to_vec()).unwrap()
}

async fn holds_both(stores: &Stores, x: crate::id::BlobId, y: crate::id::BlobId) {
    assert_eq!(read(stores, x).await, "x");
    assert_eq!(read(stores, y).await, "y");
}

/// Carries what `main` has, and commits after `prepare`.
fn commit_after(stores: &Stores, prepare: impl FnOnce()) -> Result<(), Error> {
    let (name, own) = (StoreName::main(), stores.inner.around.folder.join("main"));
    let (moving, from) = {
        let open = stores.opened();
        (open[&name].moving.clone().unwrap(), open[&name].settings.clone())
    };
    let target = StoreSettings {
        backend: moving.to.clone(),
        ..from.clone()
    };
    let attempt = Attempt {
        stores,
        name: &name,
        moving: &moving,
        from,
        store: stores.main().store().clone(),
    };
    let carrier = Carrier {
        from: attempt.store.switch(),
        to: open_or_create(&own, &target)?,
        compression: target.packed(),
        stop: &|| false,
        progress: &|_| {},
    };
    let done = carrier.run(|| {
        prepare();
        attempt.commit(&target)
    });
    done.map(drop)
}

#[tokio::test]
async fn after_a_commit_that_failed_and_is_in_force_nothing_is_acknowledged_that_the_next_start_removes() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("main/store.json");
    let first = stores(dir.path());
    let x = put(&first, "x").await.unwrap();
    let to = fs_settings(&disk.path().join("store")).backend;
    first.begin_move(&StoreName::main(), to.clone()).await.unwrap();
    // The first of both writes keeps no earlier generation of a damaged file; the second would, and cannot.
    let in_the_way = dir.path().join("main/store.json.old");
    let failed = commit_after(&first, || {
        fs::write(&file, "noise").unwrap();
        fs::remove_file(&in_the_way).unwrap();
        fs::create_dir(&in_the_way).unwrap();
    });
    assert!(failed.is_err());
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(first.file_of(&StoreName::main()).unwrap().settings.backend, to);
    assert_eq!(read(&first, x).await, "x");
    let y = put(&first, "y").await;
    let again = first.carry_on(&StoreName::main(), Arc::default()).await;
    assert!(matches!(again, Err(Error::Conflict { .. })), "{again:?}");
    assert_eq!(read(&first, x).await, "x");
    drop(first);
    let second = stores(dir.path());
    assert_eq!(read(&second, x).await, "x");
    match y {
        Ok(y) => assert_eq!(read(&second, y).await, "y"),
        Err(error) => assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}"),
    }
    put(&second, "z").await.unwrap();
}

#[tokio::test]
async fn after_a_commit_that_failed_and_is_not_in_force_the_store_goes_on_and_so_does_its_move() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = stores(dir.path());
    let x = put(&first, "x").await.unwrap();
    let to = fs_settings(&disk.path().join("store")).backend;
    first.begin_move(&StoreName::main(), to.clone()).await.unwrap();
    let in_the_way = dir.path().join("main/store.json.old");
    let failed = commit_after(&first, || {
        fs::remove_file(&in_the_way).unwrap();
        fs::create_dir(&in_the_way).unwrap();
    });
    assert!(failed.is_err());
    fs::remove_dir(&in_the_way).unwrap();
    let y = put(&first, "y").await.unwrap();
    drop(first);
    let second = stores(dir.path());
    second.carry_on(&StoreName::main(), Arc::default()).await.unwrap();
    assert_eq!(second.list()[0].settings.backend, to);
    holds_both(&second, x, y).await;
}

#[tokio::test]
async fn an_attempt_goes_by_where_the_store_is_and_nothing_live_is_removed_as_left_behind() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (main, folder) = (StoreName::main(), disk.path().join("store"));
    let first = stores(dir.path());
    let x = put(&first, "x").await.unwrap();
    let to = fs_settings(&folder);
    first.begin_move(&main, to.backend.clone()).await.unwrap();
    let noted = first.file_of(&main).unwrap();
    // As a commit leaves it that failed after it was in force.
    let elsewhere = StoreFile {
        leaving: Some(noted.settings.backend.clone()),
        ..StoreFile::of(to.clone())
    };
    write_file(dir.path(), &main, &elsewhere).unwrap();
    let y = put(&first, "y").await.unwrap();
    let refused = first.carry_on(&main, Arc::default()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    holds_both(&first, x, y).await;
    write_file(dir.path(), &main, &noted).unwrap();
    first.carry_on(&main, Arc::default()).await.unwrap();
    drop(first);
    let itself = StoreFile {
        leaving: Some(to.backend.clone()),
        ..StoreFile::of(to)
    };
    write_file(dir.path(), &main, &itself).unwrap();
    let second = stores(dir.path());
    holds_both(&second, x, y).await;
}

#[tokio::test]
async fn no_store_moves_onto_blobs_that_it_did_not_carry_there() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (main, folder) = (StoreName::main(), disk.path().join("store"));
    let stores = stores(dir.path());
    let to = fs_settings(&folder).backend;
    put(&stores, "x").await.unwrap();
    let theirs = store_blob(&folder, "theirs");
    for whose in [None, Some("another-node main")] {
        if let Some(whose) = whose {
            coffer::make_mirror(&folder, whose).unwrap();
        }
        let refused = stores.begin_move(&main, to.clone()).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    }
    assert_eq!(stores.list()[0].moving, None);
    assert!(has_blob(&folder, theirs));
}

#[tokio::test]
async fn a_mirror_that_somebody_used_as_a_store_meanwhile_is_theirs() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = tempfile::tempdir().unwrap();
    let (main, folder) = (StoreName::main(), disk.path().join("store"));
    let first = stores(dir.path());
    put(&first, "x").await.unwrap();
    first
        .begin_move(&main, fs_settings(&folder).backend)
        .await
        .unwrap();
    let borrower = stores(other.path());
    borrower
        .add("usb".parse().unwrap(), fs_settings(&folder))
        .await
        .unwrap();
    let usb = borrower.get(&"usb".parse().unwrap()).unwrap();
    let theirs = usb.put("theirs".into(), Class::Pinned, None).await.unwrap().id;
    drop((usb, borrower));
    let refused = first.carry_on(&main, Arc::default()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let card = BackendSettings::Haystack { volume_bytes: 0 };
    first.begin_move(&main, card).await.unwrap();
    assert_eq!(first.list()[0].moving, None);
    assert!(has_blob(&folder, theirs));
}

#[tokio::test]
async fn what_was_carried_onto_a_disk_that_was_away_when_that_ended_is_gone_on_with() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (main, mounted) = (StoreName::main(), disk.path().join("mounted"));
    let (folder, pulled) = (mounted.join("store"), disk.path().join("pulled"));
    fs::create_dir(&mounted).unwrap();
    let stores = stores(dir.path());
    let x = put(&stores, "x").await.unwrap();
    let to = fs_settings(&folder).backend;
    stores.begin_move(&main, to.clone()).await.unwrap();
    commit_after(&stores, || {
        let in_the_way = dir.path().join("main/store.json.old");
        fs::remove_file(&in_the_way).unwrap();
        fs::create_dir(&in_the_way).unwrap();
    })
    .unwrap_err();
    fs::remove_dir(dir.path().join("main/store.json.old")).unwrap();
    assert!(has_blob(&folder, x));
    fs::rename(&mounted, &pulled).unwrap();
    let card = BackendSettings::Haystack { volume_bytes: 0 };
    stores.begin_move(&main, card).await.unwrap();
    fs::rename(&pulled, &mounted).unwrap();
    stores.begin_move(&main, to).await.unwrap();
    stores.carry_on(&main, Arc::default()).await.unwrap();
    assert_eq!(read(&stores, x).await, "x");
    assert!(!folder.join("mirror").exists(), "it is the store now");
}

/// As whoever uses that folder without this node would.
fn store_blob(folder: &Path, text: &'static str) -> crate::id::BlobId {
    let blobs = Fs::create(folder).unwrap();
    let packed = coffer::Packed::new(text.into(), Class::Part, coffer::Compression::OFF);
    let id = blobs.append(&[packed]).unwrap()[0].id;
    blobs.flush().unwrap();
    id
}

fn has_blob(folder: &Path, id: crate::id::BlobId) -> bool {
    Fs::open(folder).unwrap().stat(&[id]).unwrap()[0].is_some()
}

#[tokio::test]
async fn a_store_is_empty_where_its_list_says_so_and_not_its_number_of_blobs() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (main, usb, folder) = (
        StoreName::main(),
        "usb".parse().unwrap(),
        disk.path().join("store"),
    );
    let stores = stores(dir.path());
    stores
        .add(StoreName::clone(&usb), fs_settings(&folder))
        .await
        .unwrap();
    let unseen = store_blob(&folder, "unseen");
    assert_eq!(stores.get(&usb).unwrap().status().blobs, 0);
    let removed = stores.remove(usb.clone(), RemoveOptions::default()).await;
    assert!(matches!(removed, Err(Error::Refused(_))), "{removed:?}");
    let refused = stores.begin_move(&main, fs_settings(&folder).backend).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let held = stores.get(&usb).unwrap();
    held.put("y".into(), Class::Pinned, None).await.unwrap();
    let all = RemoveOptions { not_empty: true };
    stores.remove(usb, all).await.unwrap();
    let refused = stores.begin_move(&main, fs_settings(&folder).backend).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert!(has_blob(&folder, unseen));
}
