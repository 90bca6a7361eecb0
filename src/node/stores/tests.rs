//! Stores that are added, removed, closed, opened again and moved.

use super::*;
use crate::coffer::Class;

pub(super) fn stores(folder: &Path) -> Stores {
    let around = Around {
        node: NodeId::from_bytes([7; 32]),
        folder: folder.to_owned(),
        main_refs: folder.join("refs.main"),
        events: Events::new(&Clock::system()),
        clock: Clock::system(),
        activity: Activity::new(),
    };
    Stores::open(around, &StoreSettings::default()).unwrap()
}

pub(super) fn fs_settings(path: &Path) -> StoreSettings {
    StoreSettings {
        backend: BackendSettings::Fs {
            path: Some(path.to_owned()),
            shared: false,
        },
        compression: 0,
    }
}

#[tokio::test]
async fn a_store_on_a_disk_that_is_pulled_is_offline_and_the_others_go_on() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mounted = disk.path().join("mounted");
    let first = stores(dir.path());
    first.add(named("usb"), fs_settings(&mounted)).await.unwrap();
    let usb = first.get(&named("usb")).unwrap();
    let id = usb.put("x".into(), Class::Pinned, None).await.unwrap().id;
    let shared = first.add(named("twin"), fs_settings(&mounted)).await;
    assert!(matches!(shared, Err(Error::Conflict { .. })));
    drop((first, usb));
    std::fs::rename(&mounted, disk.path().join("pulled")).unwrap();
    let second = stores(dir.path());
    assert!(second.list()[1].offline.is_some());
    assert!(matches!(second.get(&named("usb")), Err(Error::Offline { .. })));
    let refused = second.remove(named("usb"), RemoveOptions::default()).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::StoreNotEmpty))));
    drop(second);
    std::fs::rename(disk.path().join("pulled"), &mounted).unwrap();
    let back = stores(dir.path()).get(&named("usb")).unwrap();
    assert_eq!(back.read(id, 10).await.unwrap(), "x");
}

#[tokio::test]
async fn a_store_is_closed_and_opened_again_while_others_hold_it() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = stores(dir.path());
    let mounted = disk.path().join("mounted");
    stores.add(named("usb"), fs_settings(&mounted)).await.unwrap();
    let held = stores.get(&named("usb")).unwrap();
    let id = held.put("x".into(), Class::Pinned, None).await.unwrap().id;
    stores.close(&named("usb"), "its disk was pulled").await.unwrap();
    let offline =
        |error: Error| matches!(error, Error::Offline { reason, .. } if reason == "its disk was pulled");
    assert!(offline(held.read(id, 10).await.unwrap_err()));
    assert!(offline(
        held.put("y".into(), Class::Pinned, None).await.unwrap_err()
    ));
    assert!(offline(stores.get(&named("usb")).map(drop).unwrap_err()));
    std::fs::rename(&mounted, disk.path().join("pulled")).unwrap();
    assert!(stores.reopen(&named("usb")).await.is_err());
    assert!(!mounted.exists(), "nothing is made where the disk is not");
    std::fs::rename(disk.path().join("pulled"), &mounted).unwrap();
    stores.reopen(&named("usb")).await.unwrap();
    stores.reopen(&named("usb")).await.unwrap();
    let back = stores.get(&named("usb")).unwrap();
    assert_eq!(back.read(id, 10).await.unwrap(), "x");
    let main = stores.close(&StoreName::main(), "no").await;
    assert!(matches!(main, Err(Error::Refused(Refusal::MainStore))));
    let none = stores.reopen(&named("none")).await;
    assert!(matches!(none, Err(Error::Missing { .. })));
}

#[tokio::test]
async fn settings_that_make_no_sense_leave_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.txt"), "years").unwrap();
    let stores = stores(dir.path());
    let wild = StoreSettings {
        compression: 99,
        ..StoreSettings::default()
    };
    for settings in [wild, fs_settings(Path::new("a/b")), fs_settings(foreign.path())] {
        assert!(stores.add(named("x"), settings).await.is_err());
    }
    stores.add(named("x"), StoreSettings::default()).await.unwrap();
}

fn named(name: &str) -> StoreName {
    name.parse().unwrap()
}

#[tokio::test]
async fn stores_are_added_listed_removed_and_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = stores(dir.path());
    first.add(named("usb"), StoreSettings::default()).await.unwrap();
    let taken = first.add(named("usb"), StoreSettings::default()).await;
    assert!(matches!(taken, Err(Error::Conflict { .. })));
    let names =
        |stores: &Stores| -> Vec<String> { stores.list().iter().map(|info| info.name.to_string()).collect() };
    drop(first);
    let second = stores(dir.path());
    assert_eq!(names(&second), ["main", "usb"]);
    second
        .remove(named("usb"), RemoveOptions::default())
        .await
        .unwrap();
    assert_eq!(names(&second), ["main"]);
    assert_eq!(names(&stores(dir.path())), ["main"]);
}

#[tokio::test]
async fn a_store_with_blobs_goes_only_when_told_and_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let stores = stores(dir.path());
    stores.add(named("usb"), StoreSettings::default()).await.unwrap();
    let usb = stores.get(&named("usb")).unwrap();
    usb.put("x".into(), Class::Pinned, None).await.unwrap();
    let refused = stores.remove(named("usb"), RemoveOptions::default()).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::StoreNotEmpty))));
    let aside = stores
        .remove(named("usb"), RemoveOptions { not_empty: true })
        .await;
    assert!(aside.unwrap().join("store.json").exists());
    let late = usb.put("y".into(), Class::Pinned, None).await;
    assert!(matches!(late, Err(Error::Missing { .. })));
    let main = stores
        .remove(StoreName::main(), RemoveOptions { not_empty: true })
        .await;
    assert!(matches!(main, Err(Error::Refused(Refusal::MainStore))));
}

async fn moves(stores: &Stores, name: &StoreName, to: BackendSettings) -> Result<(), Error> {
    stores.begin_move(name, to).await?;
    stores.carry_on(name, Arc::default()).await
}

#[tokio::test]
async fn a_store_moves_there_and_back_with_its_blobs_refs_and_handles() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = stores(dir.path());
    let (main, folder) = (StoreName::main(), disk.path().join("store"));
    let held = first.main();
    let id = held.put("x".into(), Class::Pinned, None).await.unwrap().id;
    let disk_settings = fs_settings(&folder).backend;
    moves(&first, &main, disk_settings.clone()).await.unwrap();
    let later = held.put("y".into(), Class::Pinned, None).await.unwrap().id;
    assert_eq!(held.read(id, 10).await.unwrap(), "x");
    assert!(!dir.path().join("main/volumes").exists() && folder.join("blobs").exists());
    assert_eq!(first.list()[0].settings.backend, disk_settings);
    drop((first, held));
    let second = stores(dir.path());
    assert_eq!(second.main().read(later, 10).await.unwrap(), "y");
    let card = BackendSettings::Haystack { volume_bytes: 0 };
    moves(&second, &main, card).await.unwrap();
    assert!(!folder.exists());
    drop(second);
    let third = stores(dir.path());
    assert_eq!(third.main().read(id, 10).await.unwrap(), "x");
    assert_eq!(third.main().status().blobs, 2);
    assert_eq!(third.list()[0].moving, None);
}

#[tokio::test]
async fn a_move_is_gone_on_with_after_a_restart_and_ends_where_the_store_is_to_stay() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = disk.path().join("store");
    let to = fs_settings(&folder).backend;
    let (main, card) = (StoreName::main(), BackendSettings::Haystack { volume_bytes: 0 });
    let first = stores(dir.path());
    let id = first
        .main()
        .put("x".into(), Class::Pinned, None)
        .await
        .unwrap()
        .id;
    first.begin_move(&main, to.clone()).await.unwrap();
    let stopped = first.carry_on(&main, Arc::new(true.into())).await;
    assert!(matches!(stopped, Err(Error::Busy)));
    assert!(first.list()[0].moving.as_ref().unwrap().trouble.is_some());
    drop(first);
    let second = stores(dir.path());
    assert_eq!(second.list()[0].moving.as_ref().unwrap().to, to);
    let taken = second.add(named("usb"), fs_settings(&folder)).await;
    assert!(matches!(taken, Err(Error::Conflict { .. })));
    second.begin_move(&main, card).await.unwrap();
    assert_eq!(second.list()[0].moving, None);
    assert!(!folder.exists(), "what was carried is removed");
    second.carry_on(&main, Arc::default()).await.unwrap();
    moves(&second, &main, to).await.unwrap();
    assert_eq!(second.main().read(id, 10).await.unwrap(), "x");
}

#[tokio::test]
async fn a_store_does_not_move_onto_another_or_to_where_no_disk_is() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = stores(dir.path());
    let main = StoreName::main();
    let nowhere = fs_settings(&disk.path().join("pulled/store")).backend;
    assert!(stores.begin_move(&main, nowhere).await.is_err());
    assert!(!disk.path().join("pulled").exists(), "no disk is made up");
    let folder = disk.path().join("store");
    stores.add(named("usb"), fs_settings(&folder)).await.unwrap();
    let usb = stores.get(&named("usb")).unwrap();
    let id = usb.put("x".into(), Class::Pinned, None).await.unwrap().id;
    let to = fs_settings(&folder).backend;
    let refused = stores.begin_move(&main, to.clone()).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    stores.main().put("y".into(), Class::Pinned, None).await.unwrap();
    usb.delete(vec![id]).await.unwrap();
    moves(&stores, &main, to).await.unwrap();
    assert!(matches!(stores.get(&named("usb")), Err(Error::Missing { .. })));
    assert_eq!(stores.main().status().blobs, 1);
}

#[tokio::test]
async fn nothing_is_collected_of_a_store_that_held_blobs_when_it_was_added() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = tempfile::tempdir().unwrap();
    let settings = fs_settings(&disk.path().join("store"));
    let collected = |stores: &Stores| -> Vec<String> {
        let all = stores.collectable();
        all.iter().map(|place| place.name.to_string()).collect()
    };
    let owner = stores(dir.path());
    owner.add(named("usb"), settings.clone()).await.unwrap();
    assert_eq!(collected(&owner), ["main", "usb"]);
    let usb = owner.get(&named("usb")).unwrap();
    usb.put("part".into(), Class::Part, None).await.unwrap();
    assert_eq!(collected(&owner), ["main", "usb"]);
    drop((owner, usb));
    let borrower = stores(other.path());
    borrower.add(named("theirs"), settings).await.unwrap();
    assert_eq!(collected(&borrower), ["main"]);
    drop(borrower);
    assert_eq!(collected(&stores(other.path())), ["main"]);
}
