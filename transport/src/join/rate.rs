//! How often one address may try.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio::time::Instant;

/// A token bucket for each address that tried lately. Pure: the caller brings the clock.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// Whether `from` may try now; if so, that counts.
    pub(super) fn admit(&mut self, from: IpAddr, now: Instant) -> bool {
        let key = network(from);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= ADDRESSES_MAX {
            self.buckets.retain(|_, bucket| bucket.filled(now) < BURST);
            if self.buckets.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            left: BURST,
            at: now,
        });
        bucket.left = bucket.filled(now);
        bucket.at = now;
        let admitted = bucket.left >= 1.0;
        if admitted {
            bucket.left -= 1.0;
        }
        admitted
    }
}

impl Bucket {
    fn filled(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * PER_SECOND).min(BURST)
    }
}

/// Who owns one IPv6 address owns its /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// A rack that is installed at once behind one address.
const BURST: f64 = 200.0;

/// A try costs about 2 ms of CPU, so one address can take 1 % of a core for long.
const PER_SECOND: f64 = 5.0;

/// Addresses remembered, about 60 bytes each. When as many tried within the last 40 s, newcomers have to wait.
const ADDRESSES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_address_is_slowed_down_and_others_are_not() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let admitted = (0..1000).filter(|_| rates.admit(a, now)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(rates.admit(b, now));
        let later = now + Duration::from_secs(2);
        let admitted = (0..1000).filter(|_| rates.admit(a, later)).count();
        assert_eq!(admitted, 2 * PER_SECOND as usize);
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let ip = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]);
        assert!((0..BURST as u16).all(|last| rates.admit(ip(last), now)));
        assert!(!rates.admit(ip(999), now));
        assert!(!rates.admit(IpAddr::from([0x2001, 0xdb8, 0, 7, 1, 0, 0, 1]), now));
        assert!(rates.admit(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]), now));
    }

    #[test]
    fn the_table_stays_small_and_forgets_who_came_long_ago() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        let admitted = (0..10_000).filter(|n| rates.admit(ip(*n), now)).count();
        assert_eq!(
            (admitted, rates.buckets.len()),
            (ADDRESSES_MAX, ADDRESSES_MAX)
        );
        assert!(rates.admit(ip(10_001), now + Duration::from_secs(60)));
        assert_eq!(rates.buckets.len(), 1);
    }
}
