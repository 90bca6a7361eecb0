//! The board edge: the light shows how the node is, the button lets its owner in or resets it, disks come and go.
//!
//! What a board has is data, `board/NAME/board.toml` ([`Profile`]); no code asks which board it runs on. Patterns and
//! presses are pure, behind the traits of embedded-hal; `lines.rs` has what Linux offers. A part that is missing is said
//! in the log and done without.
//!
//! | button | what |
//! |---|---|
//! | pressed | unclaimed: for two minutes no claim code is needed; in any case the light shows which box it is |
//! | held for 10 s | factory reset; the light warns from the third second on, letting go stops it |
//! | held from before the start, for 5 s, then let go | recovery: the accounts are set aside, and the box has a new claim code |

mod button;
mod error;
mod led;
mod lines;
mod message;
mod privileged;
mod profile;
mod sensors;
mod show;
mod storage;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_hal::digital::InputPin;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use privileged::{DISKS_FOLDER, HELPER_SOCKET, HelperOptions, help};
pub use profile::Profile;
pub use update::{UPDATER_SOCKET, UpdaterStep, answer as answer_about_updates, step as step_of_update};

use self::button::{Button, Press, RECOVER_AFTER, STUCK_AFTER};
use self::led::Pattern;
use self::lines::{Contact, Edge, Light};
use self::show::{Seen, Show, pattern_of};
use self::storage::{Places, Storage};
use self::update::{ON_TRIAL, Reach, Updating};
use crate::http::Range;
use crate::node::{self, Asked, Done, Node, Order, Step, UpdateTrouble};

/// How soon the light follows the state of the node.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How soon a disk that was pulled or plugged in is dealt with.
const DISKS_EVERY: Duration = Duration::from_secs(2);

/// How soon heat and weak power are told of.
const SENSE_EVERY: Duration = Duration::from_secs(20);

/// Orders about disks that wait while one is done.
const ORDERS_MAX: usize = 4;

/// Where systems keep the time zone: updates that come by themselves come at night.
pub const ZONE_FILE: &str = "/etc/localtime";

/// What the board edge works with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The board's profile, `board.toml`.
    pub profile: PathBuf,
    /// Where the disks of stores are mounted.
    pub disks: PathBuf,
    /// The kernel's tree of devices.
    pub sys: PathBuf,
    /// Where the helper is reached.
    pub helper: PathBuf,
    /// Where what installs updates is reached.
    pub updater: PathBuf,
    /// Addresses that updates may come from besides those of the public internet, and of the local network for other boxes.
    pub allowed: Vec<Range>,
    /// The file of the box's time zone.
    pub localtime: PathBuf,
}

impl Options {
    /// A board with this profile, with the places of the box.
    pub fn new(profile: PathBuf) -> Options {
        Options {
            profile,
            disks: DISKS_FOLDER.into(),
            sys: "/sys".into(),
            helper: HELPER_SOCKET.into(),
            updater: UPDATER_SOCKET.into(),
            allowed: Vec::new(),
            localtime: ZONE_FILE.into(),
        }
    }
}

/// Why the board edge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Shutdown,
    /// A factory reset was asked for: the node has to be started anew.
    Reset,
    /// A new system was judged good, and what is on the disk waits for it: the node has to be started anew.
    Proved,
}

/// The devices and folders that the parts of a board are reached by: for those who may use nothing else.
pub fn devices(profile: &Profile) -> Vec<PathBuf> {
    let led = profile.led.as_ref().map(lines::path_of);
    let button = profile.button.as_ref().map(|button| button.chip.clone());
    led.into_iter().chain(button).collect()
}

/// Whether the button is held, from before now on and for five seconds, and then let go; at once where it is not. The light
/// warns meanwhile, and blinks when it was long enough.
pub async fn is_held_at_start(profile: &Path) -> bool {
    let Some(mut parts) = Parts::open(profile) else {
        return false;
    };
    let started = Instant::now();
    loop {
        let now = started.elapsed();
        let is_down = parts.is_down() == Some(true);
        if let Some(is_held) = button::is_held(is_down, now) {
            return is_held;
        }
        let (pattern, end) = match now < RECOVER_AFTER {
            true => (Pattern::Warning, RECOVER_AFTER),
            false => (Pattern::Identify, STUCK_AFTER),
        };
        let next = parts.show(pattern, now).unwrap_or(end);
        parts.wait(started + next.min(end)).await;
    }
}

/// Whether the system that runs is new and not judged yet; not where nobody says so.
pub async fn is_on_trial() -> bool {
    Path::new(ON_TRIAL).exists() && update::is_on_trial(UPDATER_SOCKET.into()).await
}

/// Shows how the node is, from before it is `opened`, hears the button and looks after disks, until `shutdown` or a reset.
pub async fn run(opened: oneshot::Receiver<Node>, options: Options, shutdown: CancellationToken) -> Ended {
    let Some(mut parts) = Parts::open(&options.profile) else {
        shutdown.cancelled().await;
        return Ended::Shutdown;
    };
    let started = Instant::now();
    let Some(node) = parts.starting(opened, started, &shutdown).await else {
        return Ended::Shutdown;
    };
    let places = Places {
        disks: options.disks,
        sys: options.sys.clone(),
        helper: options.helper,
    };
    let (about_disks, orders) = mpsc::channel(ORDERS_MAX);
    let (about_updates, update_orders) = mpsc::channel(1);
    let reach = Reach {
        updater: options.updater,
        helper: places.helper.clone(),
        allowed: options.allowed,
        localtime: options.localtime,
    };
    let updating = Updating::run(node.clone(), reach, update_orders);
    let desks = Desks {
        about_disks,
        about_updates,
    };
    let sensed = sense(node.clone(), options.sys, parts.title.clone());
    let disks = look_after_disks(Storage::new(node.clone(), places), orders, started);
    tokio::select! {
        ended = parts.serve(&node, &desks, started, &shutdown) => ended,
        // These go on for ever.
        () = disks => Ended::Shutdown,
        ended = updating => ended,
        () = sensed => Ended::Shutdown,
    }
}

/// Tells the node what the hardware says, until it is dropped.
async fn sense(node: Node, sys: PathBuf, title: String) {
    let mut ticks = tokio::time::interval(SENSE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        node.board().tell(sensors::read(&sys, &title));
    }
}

/// Looks at disks, and does orders about them, until it is dropped: what the helper was told is done all the same.
async fn look_after_disks(mut storage: Storage, mut orders: mpsc::Receiver<Asked>, started: Instant) {
    let mut ticks = tokio::time::interval(DISKS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(asked) = orders.recv() => {
                let done = storage.obey(asked.order.clone()).await;
                asked.answer(done);
            }
            done = storage.attempt() => storage.attempted(done).await,
            _ = ticks.tick() => storage.look(started.elapsed()).await,
        }
    }
}

async fn next_of(orders: &mut Option<mpsc::Receiver<Asked>>) -> Asked {
    let next = match orders {
        Some(orders) => orders.recv().await,
        None => None,
    };
    match next {
        Some(asked) => asked,
        None => std::future::pending().await,
    }
}

async fn reset(node: &Node) -> Result<Done, node::Error> {
    tracing::warn!("a factory reset was asked for: the next start destroys keys, accounts and data");
    let asked = node.ask_reset().await;
    asked
        .inspect_err(|error| tracing::error!(%error, "there will be no factory reset"))
        .map(|()| Done::Done)
}

/// Where orders go that take longer.
struct Desks {
    about_disks: mpsc::Sender<Asked>,
    about_updates: mpsc::Sender<Asked>,
}

/// Whether something is being done to the box's system, or it is not judged yet.
fn is_changing(node: &Node) -> bool {
    let updates = node.board().updates();
    updates.is_some_and(|updates| updates.step != Step::Idle)
}

/// The same, or that is about to happen: whoever sees the light leaves the box on.
fn is_updating(node: &Node) -> bool {
    is_changing(node) || node.channel().news().is_imminent
}

/// Whoever is busy with another order says so.
fn hand_over(desk: &mpsc::Sender<Asked>, asked: Asked) {
    if let Err(refused) = desk.try_send(asked) {
        refused.into_inner().answer(Err(node::Error::Busy));
    }
}

/// What there is of the board's parts.
struct Parts {
    /// What people call the board.
    title: String,
    show: Option<Show<Light>>,
    contact: Option<Contact>,
    button: Button,
    /// Bytes in the stores when the light was set last: what changes is busy.
    stored_bytes: u64,
}

/// What came of looking at the parts.
struct Turn {
    press: Option<Press>,
    /// When to come again at the latest.
    next: Duration,
}

impl Parts {
    /// `None` where the profile is none.
    fn open(profile: &Path) -> Option<Parts> {
        let profile = Profile::read(profile).inspect_err(warn).ok()?;
        tracing::info!(board = %profile.title, "this board is known");
        let light = profile
            .led
            .as_ref()
            .and_then(|led| Light::open(led).inspect_err(warn).ok());
        let contact = profile
            .button
            .as_ref()
            .and_then(|button| Contact::open(button).inspect_err(warn).ok());
        Some(Parts {
            title: profile.title,
            show: light.map(Show::new),
            contact,
            button: Button::default(),
            stored_bytes: 0,
        })
    }

    /// Shows that the node starts, until it did; `None` where it never will.
    async fn starting(
        &mut self,
        mut opened: oneshot::Receiver<Node>,
        started: Instant,
        shutdown: &CancellationToken,
    ) -> Option<Node> {
        loop {
            let next = self.show(Pattern::Starting, started.elapsed());
            let next = started + next.unwrap_or(started.elapsed() + LOOK_EVERY);
            tokio::select! {
                () = shutdown.cancelled() => return None,
                node = &mut opened => return node.ok(),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Shows how the node is and hears the button.
    async fn serve(
        &mut self,
        node: &Node,
        desks: &Desks,
        started: Instant,
        shutdown: &CancellationToken,
    ) -> Ended {
        let mut orders = node.board().orders();
        let mut is_reset = false;
        let mut edges = Vec::new();
        while !is_reset && !shutdown.is_cancelled() {
            let turn = self.turn(node, &std::mem::take(&mut edges), started.elapsed());
            if turn.press == Some(Press::Long) {
                is_reset = reset(node).await.is_ok();
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                asked = next_of(&mut orders) => is_reset = self.obey(asked, node, desks, started.elapsed()).await,
                changed = self.wait(started + turn.next) => edges = changed,
            }
        }
        if is_reset { Ended::Reset } else { Ended::Shutdown }
    }

    /// Takes what happened to the button, and sets the light.
    fn turn(&mut self, node: &Node, edges: &[Edge], now: Duration) -> Turn {
        let press = self.press(edges, now);
        if press == Some(Press::Short) {
            if node.claim().open_window() {
                tracing::info!("the button was pressed: for two minutes no claim code is needed");
            }
            self.identify(now);
        }
        let pattern = match self.button.is_warning(now) {
            true => Pattern::Warning,
            false => pattern_of(self.seen(node)),
        };
        let change = self.show(pattern, now);
        let soonest = [change, self.button.next(now)].into_iter().flatten().min();
        Turn {
            press,
            next: soonest.map_or(now + LOOK_EVERY, |soonest| soonest.min(now + LOOK_EVERY)),
        }
    }

    /// What the changes since the last turn mean, and the level now: the last of it, as nobody presses twice within a turn.
    fn press(&mut self, edges: &[Edge], now: Duration) -> Option<Press> {
        let noted = edges
            .iter()
            .filter_map(|edge| self.button.level(edge.is_down, now.saturating_sub(edge.age)));
        let noted = noted.last();
        let is_down = self.is_down()?;
        self.button.level(is_down, now).or(noted)
    }

    fn seen(&mut self, node: &Node) -> Seen {
        let report = node.health().report();
        let stored_bytes = report.stores.iter().map(|info| info.status.stored_bytes).sum();
        let before = std::mem::replace(&mut self.stored_bytes, stored_bytes);
        Seen {
            state: report.state,
            is_claimed: node.claim().is_claimed(),
            is_busy: before != stored_bytes && before != 0,
            is_updating: is_updating(node),
        }
    }

    fn identify(&mut self, now: Duration) {
        if let Some(show) = &mut self.show {
            tracing::info!("the light shows which box this is");
            show.identify(now);
        }
    }

    /// Does an order; says whether it was one to reset.
    async fn obey(&mut self, asked: Asked, node: &Node, desks: &Desks, now: Duration) -> bool {
        match asked.order {
            Order::Identify => {
                self.identify(now);
                asked.answer(Ok(Done::Done));
                false
            }
            Order::Reset => {
                let reset = reset(node).await;
                let is_reset = reset.is_ok();
                asked.answer(reset);
                is_reset
            }
            Order::Disks | Order::Adopt(_) | Order::Eject(_) | Order::Move { .. } => {
                hand_over(&desks.about_disks, asked);
                false
            }
            Order::Check | Order::Look | Order::Install(_) | Order::Rollback if is_changing(node) => {
                asked.answer(Err(UpdateTrouble::Busy.into()));
                false
            }
            Order::Check | Order::Look | Order::Install(_) | Order::Rollback => {
                hand_over(&desks.about_updates, asked);
                false
            }
        }
    }

    /// Whether the button is down; `None` without one.
    fn is_down(&mut self) -> Option<bool> {
        let level = self.contact.as_mut()?.is_high();
        level
            .inspect_err(|error| {
                tracing::warn!(%error, "the button is not used any more");
                self.contact = None;
            })
            .ok()
    }

    /// Sets the light; says when it changes next.
    fn show(&mut self, pattern: Pattern, now: Duration) -> Option<Duration> {
        let shown = self.show.as_mut()?.turn(pattern, now);
        shown.unwrap_or_else(|error| {
            tracing::warn!(%error, "the light is not used any more");
            self.show = None;
            None
        })
    }

    /// Returns after the button's level changed, with the changes, or at `until` without any. May be cancelled.
    async fn wait(&mut self, until: Instant) -> Vec<Edge> {
        let changed = async {
            match &self.contact {
                Some(contact) => contact.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = changed => changed,
            () = sleep_until(until) => Ok(Vec::new()),
        };
        changed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the button is not used any more");
            self.contact = None;
            Vec::new()
        })
    }
}

fn warn(error: &Error) {
    tracing::warn!(%error, "a part of the board is not used");
}
