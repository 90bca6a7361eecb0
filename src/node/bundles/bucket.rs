//! How often strangers may ask for parts of a bundle: each address, and all together. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Parts at once, and each second from then on, of one address: a bundle of 36 MiB has six hundred, and a third of it is asked for.
const OF_ADDRESS: Rate = Rate {
    burst: 256.0,
    per_second: 64.0,
};

/// The same for all addresses together: four MiB a second are read from the card at most, and eight at once.
const OF_ALL: Rate = Rate {
    burst: 512.0,
    per_second: 128.0,
};

/// Addresses remembered, a few KiB; who asked longest ago makes place.
const ADDRESSES_MAX: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// Who asked how much.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    all: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
}

/// What was taken and did not flow back yet.
#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    taken: f64,
    at: Duration,
}

impl Buckets {
    /// Counts a question of `address` at `now`, the time since the buckets were made.
    ///
    /// # Errors
    /// How long to wait, where it is one too many; it does not count then.
    pub(super) fn take(&mut self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            let oldest = self.addresses.iter().min_by_key(|(_, bucket)| bucket.at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.addresses.remove(&oldest);
            }
        }
        let own = self.addresses.entry(address).or_default();
        let (own_after, all_after) = (own.after(OF_ADDRESS, now)?, self.all.after(OF_ALL, now)?);
        (*own, self.all) = (own_after, all_after);
        Ok(())
    }
}

impl Bucket {
    fn after(self, rate: Rate, now: Duration) -> Result<Bucket, Duration> {
        let flown = now.saturating_sub(self.at).as_secs_f64() * rate.per_second;
        let taken = (self.taken - flown).max(0.0) + 1.0;
        match taken <= rate.burst {
            true => Ok(Bucket { taken, at: now }),
            false => Err(Duration::from_secs_f64((taken - rate.burst) / rate.per_second)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_has_a_burst_and_then_a_rate() {
        let mut buckets = Buckets::default();
        let now = Duration::from_secs(1);
        let taken = (0..1000)
            .take_while(|_| buckets.take(address(1), now).is_ok())
            .count();
        assert_eq!(taken, 256);
        let wait = buckets.take(address(1), now).unwrap_err();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        assert_eq!(buckets.take(address(1), now + wait), Ok(()));
        // Another one is not kept from it.
        assert_eq!(buckets.take(address(2), now), Ok(()));
        let later = now + Duration::from_secs(1);
        let taken = (0..1000)
            .take_while(|_| buckets.take(address(1), later).is_ok())
            .count();
        assert!((60..=64).contains(&taken), "{taken}");
    }

    #[test]
    fn many_addresses_together_have_a_rate_too_and_are_forgotten() {
        let mut buckets = Buckets::default();
        let taken = (0..2000_u32)
            .filter(|number| {
                let [.., high, low] = number.to_be_bytes();
                let address = IpAddr::from([10, 1, high, low]);
                buckets.take(address, Duration::ZERO).is_ok()
            })
            .count();
        assert_eq!(taken, 512);
        assert!(buckets.addresses.len() <= ADDRESSES_MAX);
    }
}
