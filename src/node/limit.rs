//! How often a secret that people can type may be tried: by address, altogether, and slower after failures.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

/// Tries of one address in a minute.
const PER_ADDRESS: usize = 5;

/// The same as a count of failures.
const PER_ADDRESS_FAILURES: u32 = 5;

/// Tries of everyone together in a minute: each costs an argon2 hash of 19 MiB.
const PER_NODE: usize = 15;

const WINDOW: Duration = Duration::from_secs(60);

/// What the first failure above [`PER_ADDRESS`] in a row costs; each further one doubles it.
const BACK_OFF_MIN: Duration = Duration::from_secs(30);
const BACK_OFF_MAX: Duration = Duration::from_secs(15 * 60);

/// Addresses remembered, about 100 KiB; the one that tried longest ago makes place.
const ADDRESSES_MAX: usize = 1024;

/// Who tried, and when. Holds no clock: time comes with each call.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    everyone: Window<PER_NODE>,
    addresses: HashMap<IpAddr, Attempts>,
}

#[derive(Debug, Default)]
struct Attempts {
    window: Window<PER_ADDRESS>,
    /// In a row.
    failures: u32,
    last: Option<SystemTime>,
}

/// At most `N` times within [`WINDOW`].
#[derive(Debug, Default)]
struct Window<const N: usize> {
    times: VecDeque<SystemTime>,
}

impl Limiter {
    /// Counts a try from `address`.
    ///
    /// # Errors
    /// How long to wait, where it is one too many; it does not count then.
    pub(super) fn attempt(&mut self, address: IpAddr, now: SystemTime) -> Result<(), Duration> {
        let address = whole_network(address);
        self.make_place(&address);
        let attempts = self.addresses.entry(address).or_default();
        attempts.backed_off(now)?;
        attempts.window.place(now)?;
        self.everyone.place(now)?;
        attempts.window.take(now);
        attempts.last = Some(now);
        self.everyone.take(now);
        Ok(())
    }

    /// Says how the try of `address` went.
    pub(super) fn settle(&mut self, address: IpAddr, succeeded: bool) {
        let address = whole_network(address);
        if succeeded {
            self.addresses.remove(&address);
        } else if let Some(attempts) = self.addresses.get_mut(&address) {
            attempts.failures = attempts.failures.saturating_add(1);
        }
    }

    fn make_place(&mut self, address: &IpAddr) {
        if self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(address) {
            return;
        }
        let oldest = self.addresses.iter().min_by_key(|(_, attempts)| attempts.last);
        if let Some(oldest) = oldest.map(|(address, _)| *address) {
            self.addresses.remove(&oldest);
        }
    }
}

impl Attempts {
    fn backed_off(&self, now: SystemTime) -> Result<(), Duration> {
        let (Some(last), Some(beyond)) = (self.last, self.failures.checked_sub(PER_ADDRESS_FAILURES)) else {
            return Ok(());
        };
        let wait = BACK_OFF_MIN
            .saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX))
            .min(BACK_OFF_MAX);
        match wait.checked_sub(since(last, now)) {
            Some(left) if !left.is_zero() => Err(left),
            _ => Ok(()),
        }
    }
}

impl<const N: usize> Window<N> {
    fn place(&self, now: SystemTime) -> Result<(), Duration> {
        if self.times.len() < N {
            return Ok(());
        }
        match self.times.front().map(|oldest| since(*oldest, now)) {
            Some(passed) if passed < WINDOW => Err(WINDOW - passed),
            _ => Ok(()),
        }
    }

    fn take(&mut self, now: SystemTime) {
        if self.times.len() == N {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }
}

/// A clock that goes back counts as no time passed.
fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

/// Whoever has one IPv6 address has the 2^64 around it.
fn whole_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn address(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        IpAddr::V4([10, 0, high, low].into())
    }

    #[test]
    fn a_thousand_guesses_in_a_minute_are_fifteen_from_everywhere_and_five_from_one_place() {
        let mut limiter = Limiter::default();
        let mut tried = |from: fn(u16) -> u16| -> usize {
            (0..1000)
                .filter(|&guess| {
                    let from = address(from(guess));
                    let second = at(1000 + u64::from(guess) * 59 / 999);
                    let allowed = limiter.attempt(from, second).is_ok();
                    if allowed {
                        limiter.settle(from, false);
                    }
                    allowed
                })
                .count()
        };
        assert_eq!(tried(|_| 0), 5);
        assert_eq!(tried(|guess| guess + 1), 10);
    }

    #[test]
    fn failures_in_a_row_cost_more_each_time_and_a_success_forgives_them() {
        let mut limiter = Limiter::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..14 {
            while let Err(wait) = limiter.attempt(address(1), at(now)) {
                waits.push(wait.as_secs());
                now += wait.as_secs().max(1);
            }
            limiter.settle(address(1), false);
        }
        assert_eq!(waits.last(), Some(&900));
        assert!(waits.is_sorted(), "{waits:?}");
        limiter.settle(address(1), true);
        assert!(limiter.attempt(address(1), at(now)).is_ok());
    }

    #[test]
    fn one_ipv6_network_is_one_address_and_the_table_is_bounded() {
        let mut limiter = Limiter::default();
        for host in 0..5_u16 {
            let address = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host));
            limiter.attempt(address, at(10)).unwrap();
        }
        let next = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 9, 9, 9, 9));
        assert!(limiter.attempt(next, at(10)).is_err());
        for minute in 0..3000_u16 {
            let _ = limiter.attempt(address(minute), at(100 + u64::from(minute) * 60));
        }
        assert!(limiter.addresses.len() <= ADDRESSES_MAX);
    }
}
