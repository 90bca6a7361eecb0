//! The plan, minute by minute, and its rules whatever happens.

use super::*;
use crate::id::{BlobId, BundleUrl};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn offer(text: &str) -> Offer {
    let url: BundleUrl = "https://updates.example.org/b.raucb".parse().unwrap();
    Offer {
        version: version(text),
        url,
        size_bytes: 1,
        blob: BlobId::of(text.as_bytes()),
    }
}

/// A box whose clock can be moved.
struct Fake {
    plan: Plan,
    now: Duration,
    /// The second of the day at the start.
    began_s: u32,
    wanted: Option<Option<Window>>,
    is_free: bool,
    quiet: Option<Duration>,
    running: Version,
    left: Vec<Version>,
}

impl Fake {
    fn new(spread: u16, began_s: u32) -> Fake {
        Fake {
            plan: Plan::new(Spread(spread)),
            now: Duration::ZERO,
            began_s,
            wanted: Some(Some(Window::default())),
            is_free: true,
            quiet: Some(HOUR),
            running: version("0.1.0"),
            left: Vec::new(),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.now,
            day_s: self.day_s(),
            wanted: self.wanted,
            is_free: self.is_free,
            quiet: self.quiet,
            running: &self.running,
            left: &self.left,
        }
    }

    fn day_s(&self) -> u32 {
        u32::try_from((u64::from(self.began_s) + self.now.as_secs()) % u64::from(DAY_S)).unwrap()
    }

    fn next(&mut self) -> Action {
        let Fake { plan, .. } = self;
        let mut plan = std::mem::replace(plan, Plan::new(Spread(0)));
        let action = plan.next(&self.seen());
        self.plan = plan;
        action
    }

    /// Minute by minute, until it wants something or so long has passed.
    fn wait(&mut self, most: Duration) -> Action {
        let end = self.now + most;
        loop {
            match self.next() {
                Action::Wait if self.now < end => self.now += MINUTE,
                action => return action,
            }
        }
    }

    fn looks(&mut self, found: &Offer) {
        assert_eq!(self.wait(2 * DAY), Action::Look);
        self.plan.looked(self.now, Ok(Some(found)));
    }

    fn fetches(&mut self) {
        assert!(matches!(self.wait(HOUR), Action::Fetch(_)));
        self.plan.fetched(self.now, Ok(()));
    }
}

#[test]
fn what_is_offered_is_fetched_at_once_and_installed_at_night() {
    // Noon.
    let mut fake = Fake::new(1 << 15, 12 * 3600);
    fake.looks(&offer("0.2.0"));
    assert_eq!(fake.now, FIRST_LOOK + HOUR);
    let planned = fake.plan.planned(&fake.seen()).unwrap();
    fake.fetches();
    assert!(!fake.plan.is_imminent(&fake.seen()));
    let offered = fake.now;
    assert_eq!(fake.wait(DAY), Action::Install(offer("0.2.0")));
    assert!(fake.plan.is_imminent(&fake.seen()));
    let took = fake.now - offered;
    assert!(
        took >= planned && took < planned + 2 * MINUTE,
        "{took:?}, and {planned:?} was announced"
    );
    // Half of three quarters of three hours after two.
    assert!((187..=189).contains(&(fake.day_s() / 60)), "{}", fake.day_s());
}

#[test]
fn who_is_told_in_the_window_has_an_hour_and_who_is_told_late_a_day() {
    // So that it looks at 02:05.
    let mut fake = Fake::new(0, 2 * 3600);
    fake.looks(&offer("0.2.0"));
    fake.fetches();
    assert_eq!(fake.wait(DAY), Action::Install(offer("0.2.0")));
    assert_eq!(fake.day_s(), 3 * 3600 + 5 * 60);
    // At 04:30.
    let mut fake = Fake::new(0, 4 * 3600 + 25 * 60);
    fake.looks(&offer("0.2.0"));
    fake.fetches();
    // The daily look comes between.
    assert_eq!(fake.wait(DAY), Action::Install(offer("0.2.0")));
    assert_eq!(fake.day_s(), 2 * 3600);
}

#[test]
fn nothing_is_installed_while_somebody_stores_something_and_the_window_is_not_left_for_it() {
    let mut fake = Fake::new(0, 23 * 3600);
    fake.looks(&offer("0.2.0"));
    fake.fetches();
    fake.quiet = None;
    assert_eq!(fake.wait(4 * HOUR), Action::Wait);
    assert!(fake.plan.is_imminent(&fake.seen()), "{}", fake.day_s());
    assert_eq!(fake.plan.planned(&fake.seen()), Some(Duration::ZERO));
    fake.quiet = Some(4 * MINUTE);
    assert_eq!(fake.wait(MINUTE), Action::Wait);
    fake.quiet = Some(QUIET);
    assert_eq!(fake.next(), Action::Install(offer("0.2.0")));
    // Over: the next night.
    fake.quiet = None;
    assert_eq!(fake.wait(3 * HOUR), Action::Wait);
    fake.quiet = Some(HOUR);
    assert_eq!(fake.next(), Action::Wait);
    assert!(fake.plan.planned(&fake.seen()).unwrap() > 19 * HOUR);
}

#[test]
fn a_box_to_which_something_is_sent_all_the_time_is_updated_after_a_week() {
    let mut fake = Fake::new(0, 0);
    fake.looks(&offer("0.2.0"));
    fake.fetches();
    fake.quiet = Some(MINUTE);
    let began = fake.now;
    loop {
        match fake.wait(DAY) {
            Action::Look => fake.plan.looked(fake.now, Ok(Some(&offer("0.2.0")))),
            Action::Install(_) => break,
            other => assert_eq!(other, Action::Wait),
        }
    }
    let took = fake.now - began;
    assert!(took > QUIET_WITHIN && took < QUIET_WITHIN + DAY, "{took:?}");
}

#[test]
fn what_the_box_came_back_from_and_what_it_does_not_take_is_left_alone() {
    let mut fake = Fake::new(0, 0);
    fake.left = vec![version("0.2.0")];
    fake.looks(&offer("0.2.0"));
    assert_eq!(fake.wait(20 * HOUR), Action::Wait);
    assert_eq!(fake.plan.planned(&fake.seen()), None);
    fake.looks(&offer("0.2.1"));
    fake.fetches();
    assert_eq!(fake.wait(DAY), Action::Install(offer("0.2.1")));
    fake.plan.installed(fake.now, Setback::Never);
    fake.looks(&offer("0.2.1"));
    assert_eq!(fake.wait(20 * HOUR), Action::Wait);
    // The same version, made anew.
    let again = Offer {
        blob: BlobId::of(b"again"),
        ..offer("0.2.1")
    };
    fake.looks(&again);
    assert_eq!(fake.wait(HOUR), Action::Fetch(again));
}

#[test]
fn it_looks_but_does_no_more_where_it_may_not() {
    let mut fake = Fake::new(0, 0);
    fake.wanted = Some(None);
    fake.looks(&offer("0.2.0"));
    assert_eq!(fake.wait(20 * HOUR), Action::Wait);
    assert_eq!(fake.plan.planned(&fake.seen()), None);
    assert_eq!(fake.wait(5 * HOUR), Action::Look);
    fake.wanted = None;
    assert_eq!(fake.wait(3 * DAY), Action::Wait);
}

#[test]
fn failures_are_tried_again_later_and_later() {
    let mut fake = Fake::new(0, 0);
    let mut times = Vec::new();
    for _ in 0..10 {
        assert_eq!(fake.wait(2 * DAY), Action::Look);
        times.push(fake.now);
        fake.plan.looked(fake.now, Err(()));
    }
    let pauses: Vec<_> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs() / 60)
        .collect();
    assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 960, 1440, 1440]);
    fake.looks(&offer("0.2.0"));
    assert!(matches!(fake.next(), Action::Fetch(_)));
    fake.plan.fetched(fake.now, Err(()));
    let failed = fake.now;
    assert!(matches!(fake.wait(HOUR), Action::Fetch(_)));
    assert_eq!(fake.now - failed, RETRY_FIRST);
}

#[test]
fn an_offer_that_is_not_confirmed_is_dropped() {
    let mut fake = Fake::new(0, 0);
    fake.looks(&offer("0.2.0"));
    fake.fetches();
    fake.quiet = None;
    let end = fake.now + 3 * DAY;
    while fake.now < end {
        if fake.wait(DAY) == Action::Look {
            fake.plan.looked(fake.now, Err(()));
        }
    }
    assert_eq!(fake.plan.planned(&fake.seen()), None);
}

#[test]
fn boxes_that_start_at_once_do_not_look_at_once() {
    let mut looks = std::collections::BTreeMap::<u64, u32>::new();
    for number in 0..10_000_u32 {
        let hash = blake3::hash(&number.to_le_bytes());
        let plan = Plan::new(Spread::of(&NodeId::from_bytes(*hash.as_bytes())));
        *looks.entry(plan.look_at.as_secs() / 60).or_default() += 1;
    }
    // 83 a minute on average.
    assert!(looks.values().all(|many| *many < 150), "{looks:?}");
}

#[derive(Debug, Clone)]
enum Happens {
    Time(u32),
    Free(bool),
    Quiet(Option<u32>),
    Wanted(Option<Option<(u32, u32)>>),
    Left(u8),
    Runs(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    let window = || prop::option::of((0u32..1440, 30u32..1440));
    prop_oneof![
        6 => (1u32..600).prop_map(Happens::Time),
        1 => any::<bool>().prop_map(Happens::Free),
        1 => prop::option::of(0u32..1200).prop_map(Happens::Quiet),
        1 => prop::option::of(window()).prop_map(Happens::Wanted),
        1 => (0u8..4).prop_map(Happens::Left),
        1 => (0u8..4).prop_map(Happens::Runs),
    ]
}

fn window(from_min: u32, length_min: u32) -> Window {
    let to_min = (from_min + length_min) % 1440;
    format!(
        "{:02}:{:02}-{:02}:{:02}",
        from_min / 60,
        from_min % 60,
        to_min / 60,
        to_min % 60
    )
    .parse()
    .unwrap()
}

fn nth(number: u8) -> Version {
    version(&format!("0.{number}.0"))
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(
        spread in any::<u16>(),
        began_s in 0..DAY_S,
        steps in prop::collection::vec((happens(), 0u8..4, 0u8..4), 1..400),
    ) {
        let mut fake = Fake::new(spread, began_s);
        let (mut looked, mut offered, mut refused, mut fetched) = (None, None, Vec::new(), None);
        for (happens, version, came) in steps {
            match happens {
                Happens::Time(minutes) => fake.now += MINUTE * minutes,
                Happens::Free(is_free) => fake.is_free = is_free,
                Happens::Quiet(quiet) => fake.quiet = quiet.map(|seconds| Duration::from_secs(seconds.into())),
                Happens::Wanted(wanted) => fake.wanted = wanted.map(|window_| window_.map(|(from, length)| window(from, length))),
                Happens::Left(number) => fake.left.push(nth(number)),
                Happens::Runs(number) => fake.running = nth(number),
            }
            let action = fake.next();
            if fake.wanted.is_none() {
                (offered, refused, fetched) = (None, Vec::new(), None);
            }
            if action != Action::Wait {
                prop_assert!(fake.is_free && fake.wanted.is_some(), "{:?}", action);
            }
            match action {
                Action::Wait => {}
                Action::Look => {
                    if let Some(looked) = looked {
                        prop_assert!(fake.now - looked >= RETRY_FIRST);
                    }
                    looked = Some(fake.now);
                    let found = offer(nth(version).as_str());
                    match came {
                        0 => fake.plan.looked(fake.now, Err(())),
                        1 => {
                            fake.plan.looked(fake.now, Ok(None));
                            offered = None;
                        }
                        _ => {
                            fake.plan.looked(fake.now, Ok(Some(&found)));
                            if !matches!(&offered, Some((known, _)) if *known == found) {
                                offered = Some((found, fake.now));
                                (refused, fetched) = (Vec::new(), None);
                            }
                        }
                    }
                }
                Action::Fetch(wanted) => {
                    let (known, _) = offered.clone().expect("something was offered");
                    prop_assert_eq!(&wanted, &known);
                    prop_assert!(fake.wanted.flatten().is_some() && !refused.contains(&wanted.blob));
                    prop_assert!(wanted.version > fake.running && !fake.left.contains(&wanted.version));
                    fake.plan.fetched(fake.now, if came == 0 { Err(()) } else { Ok(()) });
                    fetched = (came != 0).then_some(wanted.blob);
                }
                Action::Install(wanted) => {
                    let (known, at) = offered.clone().expect("something was offered");
                    prop_assert_eq!(&wanted, &known);
                    prop_assert!(fake.now - at >= NOTICE, "announced");
                    prop_assert_eq!(fetched, Some(wanted.blob));
                    let window = fake.wanted.flatten().expect("it may");
                    let into_s = (fake.day_s() + DAY_S - window.from_s()) % DAY_S;
                    prop_assert!(into_s < window.length_s(), "in the window");
                    prop_assert!(fake.quiet.is_some(), "nobody stores anything");
                    prop_assert!(!refused.contains(&wanted.blob) && !fake.left.contains(&wanted.version));
                    prop_assert!(wanted.version > fake.running);
                    let setback = if came == 0 { Setback::Never } else { Setback::Later };
                    fake.plan.installed(fake.now, setback);
                    if setback == Setback::Never {
                        refused.push(wanted.blob);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_offered_is_installed_within_two_days(spread in any::<u16>(), began_s in 0..DAY_S, from in 0u32..1440, length in 30u32..1440) {
        let mut fake = Fake::new(spread, began_s);
        fake.wanted = Some(Some(window(from, length)));
        fake.looks(&offer("0.2.0"));
        let offered = fake.now;
        fake.fetches();
        let installed = loop {
            match fake.wait(2 * DAY) {
                Action::Look => fake.plan.looked(fake.now, Ok(Some(&offer("0.2.0")))),
                other => break other,
            }
        };
        prop_assert_eq!(installed, Action::Install(offer("0.2.0")));
        prop_assert!(fake.now - offered <= 2 * DAY);
    }
}
