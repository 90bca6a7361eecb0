//! Drops old snapshots of a ref by rules of what to keep.
//!
//! Only the ref changes. What then nothing names is freed by the collector a day later at the earliest, so a
//! backup that runs meanwhile and shares parts with what was dropped loses nothing.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use time::OffsetDateTime;

use super::Repository;
use super::error::Error;
use super::refs::{RefRecord, Snapshot, update};
use crate::id::RefName;

/// What to keep. Each rule keeps by itself: a snapshot is dropped when no rule keeps it. Days, weeks (ISO
/// 8601), months and years are those of UTC; of each the newest snapshot is kept. Snapshots of different
/// hosts or folders in one ref are judged apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest.
    pub last: usize,
    /// One of each of so many latest days that have any.
    pub daily: usize,
    /// One of each of so many latest weeks that have any.
    pub weekly: usize,
    /// One of each of so many latest months that have any.
    pub monthly: usize,
    /// One of each of so many latest years that have any.
    pub yearly: usize,
    /// All that are at most so much older than the newest.
    pub within: Option<Duration>,
}

/// What a prune keeps and drops, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Still in the ref.
    pub kept: Vec<Snapshot>,
    /// No longer in the ref.
    pub dropped: Vec<Snapshot>,
}

/// Drops the snapshots of a ref that no rule keeps; `is_dry` only says which. Durable on return. Snapshots
/// added meanwhile are judged as well.
///
/// # Errors
/// [`Error::KeepsNothing`] for rules that would drop everything, [`Error::NoRef`], [`Error::Conflict`].
pub fn prune(
    repository: &Repository,
    name: &RefName,
    keep: Keep,
    is_dry: bool,
) -> Result<PruneReport, Error> {
    if !keep.keeps_something() {
        return Err(Error::KeepsNothing);
    }
    let mut report = PruneReport::default();
    update(&*repository.refs, name, |record| {
        let record = record.ok_or_else(|| Error::NoRef { name: name.clone() })?;
        report = keep.judge(&record.snapshots);
        let is_unchanged = is_dry || report.dropped.is_empty();
        Ok((!is_unchanged).then(|| RefRecord {
            snapshots: report.kept.clone(),
            ..record
        }))
    })?;
    Ok(report)
}

/// The periods a snapshot lies in.
struct Periods {
    day: (i32, u16),
    week: (i32, u8),
    month: (i32, u8),
    year: i32,
}

impl Keep {
    fn keeps_something(&self) -> bool {
        self.last + self.daily + self.weekly + self.monthly + self.yearly > 0 || self.within.is_some()
    }

    /// Which snapshots to keep and to drop, each in the order given.
    pub fn judge(&self, snapshots: &[Snapshot]) -> PruneReport {
        let mut origins: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (index, snapshot) in snapshots.iter().enumerate() {
            let origin = (snapshot.host.as_str(), snapshot.source.as_str());
            origins.entry(origin).or_default().push(index);
        }
        let mut kept = HashSet::new();
        for mut indices in origins.into_values() {
            indices.sort_by_key(|index| (snapshots[*index].time_ms, *index));
            indices.reverse();
            self.keep_of(snapshots, &indices, &mut kept);
        }
        let mut report = PruneReport::default();
        for (index, snapshot) in snapshots.iter().enumerate() {
            let list = if kept.contains(&index) {
                &mut report.kept
            } else {
                &mut report.dropped
            };
            list.push(snapshot.clone());
        }
        report
    }

    /// Adds what is kept of these, newest first.
    fn keep_of(&self, snapshots: &[Snapshot], newest_first: &[usize], kept: &mut HashSet<usize>) {
        let times: Vec<(usize, i64)> = newest_first
            .iter()
            .map(|index| (*index, snapshots[*index].time_ms))
            .collect();
        kept.extend(newest_first.iter().take(self.last));
        if let (Some(within), Some((_, newest))) = (self.within, times.first()) {
            let within_ms = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
            let since = newest.saturating_sub(within_ms);
            kept.extend(
                times
                    .iter()
                    .filter(|(_, time)| *time >= since)
                    .map(|(index, _)| index),
            );
        }
        let periods: Vec<(usize, Periods)> = times
            .into_iter()
            .map(|(index, time)| (index, periods(time)))
            .collect();
        keep_newest_of_each(&periods, self.daily, |periods| periods.day, kept);
        keep_newest_of_each(&periods, self.weekly, |periods| periods.week, kept);
        keep_newest_of_each(&periods, self.monthly, |periods| periods.month, kept);
        keep_newest_of_each(&periods, self.yearly, |periods| periods.year, kept);
    }
}

/// Keeps the first of each run of equal periods, for so many runs.
fn keep_newest_of_each<P: PartialEq>(
    newest_first: &[(usize, Periods)],
    count: usize,
    period: impl Fn(&Periods) -> P,
    kept: &mut HashSet<usize>,
) {
    let mut last = None;
    let mut runs = 0;
    for (index, periods) in newest_first {
        let this = Some(period(periods));
        if this == last {
            continue;
        }
        if runs == count {
            return;
        }
        runs += 1;
        last = this;
        kept.insert(*index);
    }
}

fn periods(time_ms: i64) -> Periods {
    // A time that no calendar has lies in the year 1970 as well as in any other.
    let time =
        OffsetDateTime::from_unix_timestamp(time_ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (week_year, week, _) = time.to_iso_week_date();
    Periods {
        day: (time.year(), time.ordinal()),
        week: (week_year, week),
        month: (time.year(), time.month().into()),
        year: time.year(),
    }
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;

    use super::super::fixture::Scene;
    use super::*;
    use crate::id::BlobId;

    fn snapshot(time: &str, source: &str) -> Snapshot {
        let time = OffsetDateTime::parse(time, &Rfc3339).unwrap();
        Snapshot {
            tree: BlobId::of(time.to_string().as_bytes()),
            time_ms: time.unix_timestamp() * 1000,
            host: "host".to_owned(),
            source: source.to_owned(),
            files: 0,
            bytes: 0,
            partial: false,
            xattrs: false,
            root: None,
        }
    }

    /// Two a day for four days over the end of a year, and two older ones.
    fn history() -> Vec<Snapshot> {
        [
            "2024-06-01T12:00:00Z",
            "2025-11-30T12:00:00Z",
            "2025-12-30T08:00:00Z",
            "2025-12-30T20:00:00Z",
            "2025-12-31T08:00:00Z",
            "2025-12-31T20:00:00Z",
            "2026-01-01T08:00:00Z",
            "2026-01-01T20:00:00Z",
            "2026-01-05T08:00:00Z",
            "2026-01-05T23:59:59Z",
        ]
        .map(|time| snapshot(time, "/data"))
        .into()
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let none = Keep::default();
        for (keep, expected) in [
            (Keep { last: 3, ..none }, vec![7, 8, 9]),
            (Keep { last: 99, ..none }, (0..10).collect()),
            (Keep { daily: 2, ..none }, vec![7, 9]),
            (Keep { daily: 4, ..none }, vec![3, 5, 7, 9]),
            // 2025-12-29 to 2026-01-04 is one week of ISO 8601.
            (Keep { weekly: 2, ..none }, vec![7, 9]),
            (Keep { weekly: 3, ..none }, vec![1, 7, 9]),
            (Keep { monthly: 3, ..none }, vec![1, 5, 9]),
            (Keep { yearly: 2, ..none }, vec![5, 9]),
            (Keep { yearly: 9, ..none }, vec![0, 5, 9]),
            (
                Keep {
                    within: hours(16),
                    ..none
                },
                vec![8, 9],
            ),
            (
                Keep {
                    within: hours(0),
                    ..none
                },
                vec![9],
            ),
            (
                Keep {
                    last: 1,
                    daily: 2,
                    yearly: 3,
                    ..none
                },
                vec![0, 5, 7, 9],
            ),
        ] {
            let history = history();
            let report = keep.judge(&history);
            let kept: Vec<usize> = report
                .kept
                .iter()
                .map(|kept| history.iter().position(|snapshot| snapshot == kept).unwrap())
                .collect();
            assert_eq!(kept, expected, "{keep:?}");
            assert_eq!(report.kept.len() + report.dropped.len(), 10);
        }
    }

    #[test]
    fn folders_in_one_ref_are_judged_apart() {
        let mut history = history();
        history.insert(0, snapshot("2020-01-01T00:00:00Z", "/other"));
        let keep = Keep {
            last: 1,
            ..Keep::default()
        };
        let kept: Vec<String> = keep
            .judge(&history)
            .kept
            .into_iter()
            .map(|kept| kept.source)
            .collect();
        assert_eq!(kept, ["/other", "/data"]);
    }

    #[test]
    fn a_prune_moves_the_ref_and_leaves_the_blobs() {
        let scene = Scene::new();
        for n in 0..3 {
            scene.write("a", format!("{n}"));
            scene.backup();
        }
        let blobs = scene.repository.store.status().blobs;
        let keep = Keep {
            last: 1,
            ..Keep::default()
        };
        let prune = |keep, is_dry| prune(&scene.repository, &scene.name, keep, is_dry);
        let newest = scene.latest();
        assert_eq!(prune(keep, true).unwrap().dropped.len(), 2);
        let count = || {
            scene
                .repository
                .refs
                .get(&scene.name)
                .unwrap()
                .unwrap()
                .snapshots
                .len()
        };
        assert_eq!(count(), 3);
        assert_eq!(prune(keep, false).unwrap().kept, [newest]);
        assert_eq!(count(), 1);
        assert_eq!(scene.repository.store.status().blobs, blobs);
        assert!(matches!(prune(Keep::default(), false), Err(Error::KeepsNothing)));
    }
}
