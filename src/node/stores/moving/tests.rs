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
    let stores = stores(dir.path());
    let x = put(&stores, "x").await.unwrap();
    let to = fs_settings(&disk.path().join("store")).backend;
    stores.begin_move(&StoreName::main(), to.clone()).await.unwrap();
    let in_the_way = dir.path().join("main/store.json.old");
    let failed = commit_after(&stores, || {
        fs::remove_file(&in_the_way).unwrap();
        fs::create_dir(&in_the_way).unwrap();
    });
    assert!(failed.is_err());
    fs::remove_dir(&in_the_way).unwrap();
    let y = put(&stores, "y").await.unwrap();
    stores.carry_on(&StoreName::main(), Arc::default()).await.unwrap();
    assert_eq!(stores.list()[0].settings.backend, to);
    assert_eq!(
        (read(&stores, x).await, read(&stores, y).await),
        ("x".into(), "y".into())
    );
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
    assert_eq!(
        (read(&first, x).await, read(&first, y).await),
        ("x".into(), "y".into())
    );
    write_file(dir.path(), &main, &noted).unwrap();
    first.carry_on(&main, Arc::default()).await.unwrap();
    drop(first);
    let itself = StoreFile {
        leaving: Some(to.backend.clone()),
        ..StoreFile::of(to)
    };
    write_file(dir.path(), &main, &itself).unwrap();
    let second = stores(dir.path());
    assert_eq!(
        (read(&second, x).await, read(&second, y).await),
        ("x".into(), "y".into())
    );
}
