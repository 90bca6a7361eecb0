//! What to do about the disks of stores: one is pulled, comes back, fails, or is to be left alone.
//!
//! Pure: what is there and the time come in, steps come out. A step that fails is not repeated before something was plugged
//! or pulled, or a minute has passed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{DiskUuid, StoreName};

/// A step that failed is tried again after that time, for a helper or a disk that needed it.
pub(in crate::board) const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A store on a disk of its own, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::board) struct DiskStore {
    pub(in crate::board) store: StoreName,
    pub(in crate::board) uuid: DiskUuid,
    pub(in crate::board) is_open: bool,
    /// Whether the open store takes no writes since one failed.
    pub(in crate::board) is_faulty: bool,
    pub(in crate::board) mount: MountState,
}

/// How the disk of a store is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::board) enum MountState {
    /// Not at all.
    None,
    /// The disk is there and takes writes.
    Alive,
    /// The disk is there, and the kernel takes no writes any more.
    ReadOnly,
    /// The disk was pulled.
    Dead,
}

/// Something to do about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::board) enum Step {
    /// Close it, and unmount what is left of the disk: it was pulled.
    Pulled,
    /// Close it, unmount the disk, and mount it again with a check: it failed.
    Failed,
    /// Mount its disk and open it.
    Bring,
    /// Open it.
    Open,
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(in crate::board) struct Watch {
    /// Disks that are to be pulled, with what was plugged in when that was said.
    ejected: BTreeMap<DiskUuid, Vec<String>>,
    /// The last attempt at each, and what was plugged in then.
    tried: BTreeMap<DiskUuid, (Duration, Vec<String>)>,
}

impl Watch {
    /// The disk is left alone from now on, until something that is plugged in goes.
    pub(in crate::board) fn eject(&mut self, uuid: &DiskUuid, present: &[String]) {
        self.ejected.insert(uuid.clone(), present.to_vec());
        self.tried.remove(uuid);
    }

    /// The disk is wanted again.
    pub(in crate::board) fn adopt(&mut self, uuid: &DiskUuid) {
        self.ejected.remove(uuid);
        self.tried.remove(uuid);
    }

    /// What to do at `now`, with these block devices `present`.
    pub(in crate::board) fn look(
        &mut self,
        stores: &[DiskStore],
        present: &[String],
        now: Duration,
    ) -> Vec<(DiskStore, Step)> {
        let is_same = |before: &Vec<String>| before.iter().all(|device| present.contains(device));
        self.ejected.retain(|_, before| is_same(before));
        let wanted = stores.iter().filter(|one| !self.ejected.contains_key(&one.uuid));
        let steps: Vec<(DiskStore, Step)> =
            wanted.filter_map(|one| Some((one.clone(), step(one)?))).collect();
        // An open store whose disk was pulled is closed at once; everything else may fail for the same reason as before.
        let is_news = |one: &DiskStore, step: Step| step == Step::Pulled && one.is_open;
        let due: Vec<_> = steps
            .into_iter()
            .filter(|(one, step)| is_news(one, *step) || self.is_due(&one.uuid, present, now))
            .collect();
        for (one, step) in &due {
            if is_news(one, *step) {
                self.tried.remove(&one.uuid);
            } else {
                self.tried.insert(one.uuid.clone(), (now, present.to_vec()));
            }
        }
        due
    }

    fn is_due(&self, uuid: &DiskUuid, present: &[String], now: Duration) -> bool {
        self.tried
            .get(uuid)
            .is_none_or(|(at, before)| before != present || now.saturating_sub(*at) >= AGAIN_AFTER)
    }
}

fn step(one: &DiskStore) -> Option<Step> {
    match (one.mount, one.is_open) {
        (MountState::Dead, _) | (MountState::None, true) => Some(Step::Pulled),
        (MountState::ReadOnly, _) => Some(Step::Failed),
        (MountState::Alive, true) => one.is_faulty.then_some(Step::Failed),
        (MountState::Alive, false) => Some(Step::Open),
        (MountState::None, false) => Some(Step::Bring),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MountState::{Alive, Dead, None as Unmounted, ReadOnly};

    fn store(mount: MountState, is_open: bool) -> DiskStore {
        DiskStore {
            store: "usb".parse().unwrap(),
            uuid: "11111111-1111-1111-1111-111111111111".parse().unwrap(),
            is_open,
            is_faulty: false,
            mount,
        }
    }

    fn present(devices: &[&str]) -> Vec<String> {
        devices.iter().map(|device| (*device).to_owned()).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn steps(watch: &mut Watch, one: DiskStore, devices: &[&str], now: u64) -> Vec<Step> {
        let due = watch.look(&[one], &present(devices), at(now));
        due.into_iter().map(|(_, step)| step).collect()
    }

    #[test]
    fn a_disk_that_is_pulled_comes_back_by_itself() {
        let mut watch = Watch::default();
        assert_eq!(steps(&mut watch, store(Alive, true), &["card", "usb 1"], 0), []);
        assert_eq!(steps(&mut watch, store(Dead, true), &["card"], 2), [Step::Pulled]);
        assert_eq!(
            steps(&mut watch, store(Unmounted, false), &["card"], 4),
            [Step::Bring]
        );
        assert_eq!(
            steps(&mut watch, store(Unmounted, false), &["card"], 6),
            [],
            "nothing changed"
        );
        assert_eq!(
            steps(&mut watch, store(Unmounted, false), &["card", "usb 2"], 8),
            [Step::Bring]
        );
        assert_eq!(
            steps(&mut watch, store(Alive, false), &["card", "usb 2"], 80),
            [Step::Open]
        );
        assert_eq!(steps(&mut watch, store(Alive, true), &["card", "usb 2"], 82), []);
    }

    #[test]
    fn what_failed_is_tried_again_after_a_minute_or_a_change_and_not_before() {
        let mut watch = Watch::default();
        let absent = || store(Unmounted, false);
        assert_eq!(steps(&mut watch, absent(), &["a"], 0), [Step::Bring]);
        assert_eq!(steps(&mut watch, absent(), &["a"], 59), []);
        assert_eq!(steps(&mut watch, absent(), &["a"], 60), [Step::Bring]);
        assert_eq!(steps(&mut watch, absent(), &["a", "b"], 61), [Step::Bring]);
    }

    #[test]
    fn a_disk_that_fails_is_checked_and_mounted_again() {
        let mut watch = Watch::default();
        let faulty = DiskStore {
            is_faulty: true,
            ..store(Alive, true)
        };
        assert_eq!(steps(&mut watch, faulty.clone(), &["a"], 0), [Step::Failed]);
        assert_eq!(steps(&mut watch, faulty, &["a"], 2), [], "once a minute");
        assert_eq!(
            steps(&mut watch, store(ReadOnly, false), &["a"], 60),
            [Step::Failed]
        );
    }

    #[test]
    fn an_ejected_disk_is_left_alone_until_it_was_pulled() {
        let mut watch = Watch::default();
        let uuid = store(Alive, true).uuid;
        watch.eject(&uuid, &present(&["card", "usb 1"]));
        for now in [0, 100] {
            assert_eq!(
                steps(&mut watch, store(Unmounted, false), &["card", "usb 1"], now),
                []
            );
        }
        assert_eq!(
            steps(
                &mut watch,
                store(Unmounted, false),
                &["card", "other", "usb 1"],
                200
            ),
            [],
            "another disk beside it changes nothing"
        );
        assert_eq!(
            steps(
                &mut watch,
                store(Unmounted, false),
                &["card", "other", "usb 2"],
                300
            ),
            [Step::Bring]
        );
        watch.eject(&uuid, &present(&["card", "usb 2"]));
        watch.adopt(&uuid);
        assert_eq!(
            steps(&mut watch, store(Unmounted, false), &["card", "usb 2"], 301),
            [Step::Bring]
        );
    }
}
